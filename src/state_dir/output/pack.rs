//! Compressing a closed segment: the keeper does it while it knows the run, a supervisor that needs room later.
//!
//! The compressed file gets its name when it is whole and durable, and only then the plain one goes. Two of us may
//! come to one segment at a time; the plain file is locked (`flock(2)`, gone with its holder), and who comes second
//! leaves it alone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FlockOperation;

use super::Series;
use crate::sys::disk;

/// Compresses a segment; until that is done, or once `stop` is set, it stays as it is.
///
/// # Errors
///
/// `NotFound`: it is compressed, or deleted, already. `WouldBlock`: somebody else is about it. `Interrupted`: stopped.
pub fn compress(dir: &Path, series: Series, start: u64, stop: &AtomicBool) -> io::Result<()> {
    let (plain, packed) = (series.plain(dir, start), series.compressed(dir, start));
    // For writing: some network file systems lock for themselves alone only what may be written.
    let mut from = disk::open_rw(&plain)?;
    rustix::fs::flock(&from, FlockOperation::NonBlockingLockExclusive)?;
    if from.metadata()?.nlink() == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    if !packed.exists() {
        let temp = series.compressing(dir, start);
        let done = (|| {
            let to = disk::create_or_truncate(&temp, 0o600)?;
            pack(&mut from, &to, stop)?;
            disk::sync_data(&to)?;
            std::fs::rename(&temp, &packed)?;
            disk::sync_dir(dir)
        })();
        if let Err(error) = done {
            let _ = std::fs::remove_file(&temp);
            return Err(error);
        }
    }
    match std::fs::remove_file(&plain) {
        // It was deleted for its age meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::remove_file(&packed),
        other => other,
    }
}

fn pack(from: &mut File, to: &File, stop: &AtomicBool) -> io::Result<()> {
    // The lowest level: text shrinks to a tenth either way, and the CPU belongs to the jobs.
    let mut gz = flate2::write::GzEncoder::new(to, flate2::Compression::fast());
    let mut buffer = vec![0; 128 * 1024];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match from.read(&mut buffer)? {
            0 => return gz.finish().map(drop),
            n => gz.write_all(&buffer[..n])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::unpacked_len;
    use super::*;

    fn segment(dir: &Path, content: &[u8]) {
        disk::create_or_truncate(&Series::Merged.plain(dir, 0), 0o600).unwrap().write_all(content).unwrap();
    }

    fn compress(dir: &Path, stop: bool) -> io::Result<()> {
        super::compress(dir, Series::Merged, 0, &AtomicBool::new(stop))
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            dir.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_compressed_segment_replaces_the_plain_one() {
        let dir = tempfile::tempdir().unwrap();
        segment(dir.path(), &b"a line\n".repeat(10_000));
        compress(dir.path(), false).unwrap();
        assert_eq!(names(dir.path()), ["00000000000000000000.log.gz"]);
        assert_eq!(unpacked_len(&Series::Merged.compressed(dir.path(), 0)).unwrap(), 70_000);
        // Who died between the two steps: the second one is done now.
        segment(dir.path(), b"whatever");
        compress(dir.path(), false).unwrap();
        assert_eq!(names(dir.path()), ["00000000000000000000.log.gz"]);
        assert_eq!(compress(dir.path(), false).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(names(dir.path()), ["00000000000000000000.log.gz"]);
    }

    #[test]
    fn an_interrupted_compression_leaves_the_plain_segment() {
        let dir = tempfile::tempdir().unwrap();
        segment(dir.path(), b"x\n");
        assert!(compress(dir.path(), true).is_err());
        assert_eq!(names(dir.path()), ["00000000000000000000.log"]);
    }

    #[test]
    fn a_segment_that_somebody_else_compresses_is_left_to_them() {
        let dir = tempfile::tempdir().unwrap();
        segment(dir.path(), b"x\n");
        // What the other has written so far stays, too.
        let temp = Series::Merged.compressing(dir.path(), 0);
        disk::create_or_truncate(&temp, 0o600).unwrap().write_all(b"half").unwrap();
        let other = File::open(Series::Merged.plain(dir.path(), 0)).unwrap();
        rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(compress(dir.path(), false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(std::fs::read(&temp).unwrap(), b"half");
        drop(other);
        compress(dir.path(), false).unwrap();
        assert_eq!(names(dir.path()), ["00000000000000000000.log.gz"]);
    }
}
