//! `exit.json`: how a run ended.
//!
//! Its space is reserved before the run starts, so that a full disk cannot lose an outcome. The record is
//! written into the reserved file, which is then cut to length and renamed: whoever dies in between leaves
//! either no `exit.json`, and then the outcome is still with init, or a whole one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::layout::RunDir;
use super::records::{ReadError, read_json, to_json};
use crate::core::outcome::ExitRecord;
use crate::sys::disk;

/// Version of the layout of [`ExitRecord`] that this build writes.
pub const VERSION: u32 = 1;

/// Bytes reserved: a record has some 600, and one block is the least a disk gives.
const RESERVED: u64 = 4096;

/// The reserved space for one exit record.
#[derive(Debug)]
pub struct ExitSlot {
    file: File,
    from: PathBuf,
    to: PathBuf,
}

impl ExitSlot {
    /// Reserves the space, or takes over the reservation of a keeper that died.
    ///
    /// An error (no space, most often) comes before anything has been started.
    pub fn prepare(run: &RunDir) -> io::Result<Self> {
        let (from, to) = (run.exit_tmp(), run.exit_json());
        let file = disk::open_or_create(&from, 0o600)?;
        disk::preallocate(&file, RESERVED)?;
        Ok(Self { file, from, to })
    }

    /// Writes the record and gives it its name. It then survives the death of every process of ours, but a
    /// power cut only after [`disk::sync_data`] of the returned file and a sync of its directory.
    ///
    /// May be tried again after an error. A second record replaces the first.
    pub fn commit(&self, record: &ExitRecord) -> io::Result<File> {
        let bytes = to_json(record)?;
        self.file.write_all_at(&bytes, 0)?;
        self.file.set_len(bytes.len() as u64)?;
        match std::fs::rename(&self.from, &self.to) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.to.exists() => {}
            other => other?,
        }
        self.file.try_clone()
    }
}

/// The exit record of a run; `None` if it has none yet.
///
/// A record that cannot be understood is an error, for the caller to set aside and report.
pub fn read_exit(run: &RunDir) -> Result<Option<ExitRecord>, ReadError> {
    read_json(&run.exit_json())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::{JobName, RunId};
    use crate::core::outcome::{Asked, Outcome, Source};
    use crate::core::time::Stamp;

    fn record(why: &str) -> ExitRecord {
        ExitRecord {
            v: VERSION,
            run: RunId::from_bytes([7; 16]),
            job: JobName::new("web").unwrap(),
            outcome: Outcome::Lost { why: why.to_owned() },
            source: Source::None,
            asked: Asked::Nobody,
            started: None,
            ended: Stamp { boot_us: 5, wall_us: 6 },
            rusage: None,
            stdout_bytes: 1,
            stderr_bytes: 2,
            dropped_bytes: 3,
            output_complete: true,
        }
    }

    fn run_dir() -> (tempfile::TempDir, RunDir) {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir(dir.path().join("r"));
        run.create().unwrap();
        (dir, run)
    }

    #[test]
    fn a_record_round_trips_and_leaves_no_reservation() {
        let (_dir, run) = run_dir();
        assert!(read_exit(&run).unwrap().is_none());
        let slot = ExitSlot::prepare(&run).unwrap();
        assert_eq!(run.exit_tmp().metadata().unwrap().len(), RESERVED);
        assert!(read_exit(&run).unwrap().is_none());
        let file = slot.commit(&record("x")).unwrap();
        disk::sync_data(&file).unwrap();
        assert_eq!(read_exit(&run).unwrap().unwrap(), record("x"));
        assert!(!run.exit_tmp().exists());
        assert_eq!(run.exit_json().metadata().unwrap().len(), file.metadata().unwrap().len());
    }

    #[test]
    fn long_and_repeated_records_work() {
        let (_dir, run) = run_dir();
        let slot = ExitSlot::prepare(&run).unwrap();
        let long = record(&"y".repeat(10_000));
        slot.commit(&long).unwrap();
        assert_eq!(read_exit(&run).unwrap().unwrap(), long);
        slot.commit(&record("short")).unwrap();
        assert_eq!(read_exit(&run).unwrap().unwrap(), record("short"));
    }

    #[test]
    fn a_new_keeper_takes_the_reservation_over() {
        let (_dir, run) = run_dir();
        let dead = ExitSlot::prepare(&run).unwrap();
        // It died between writing and cutting.
        dead.file.write_all_at(&to_json(&record("half")).unwrap(), 0).unwrap();
        drop(dead);
        ExitSlot::prepare(&run).unwrap().commit(&record("new")).unwrap();
        assert_eq!(read_exit(&run).unwrap().unwrap(), record("new"));
    }

    #[test]
    fn an_unreadable_record_is_an_error_and_never_an_outcome() {
        let (_dir, run) = run_dir();
        let whole = to_json(&record("x")).unwrap();
        for len in [0, 1, whole.len() / 2, whole.len() - 3] {
            crate::state_dir::atomic::write(&run.exit_json(), &whole[..len], 0o600).unwrap();
            assert!(matches!(read_exit(&run), Err(ReadError::Bad { .. })), "{len}");
        }
    }
}
