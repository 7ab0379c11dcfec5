//! The small JSON files of a run: how it was launched, and which process it is.
//!
//! One object per file, `v` first. Fields are only ever added; unknown ones are ignored.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::atomic;
use super::layout::RunDir;
use crate::core::identity::Identity;
use crate::core::ids::{JobName, RunId};
use crate::core::spec::{OnSupervisorDeath, Output, Rlimit, Stdin};
use crate::core::time::Stamp;

/// Version of [`RunRecord`] and [`Sentinel`] that this build writes.
pub const VERSION: u32 = 1;

/// No file of ours comes near this; what does is not ours.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is not what it should be: damaged, or from another version.
    #[error("cannot understand {}: {why}", path.display())]
    Bad {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A run as it was launched. Never changed after the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of this layout.
    pub v: u32,
    /// The run.
    pub run: RunId,
    /// Its job.
    pub job: JobName,
    /// Which try, counted from 1.
    pub attempt: u64,
    /// Argument vector.
    pub argv: Vec<String>,
    /// The environment without its values, which may be secret.
    pub env: Vec<EnvNote>,
    /// Working directory.
    pub cwd: String,
    /// The user it became; `None`: ours.
    pub user: Option<RunUser>,
    /// File creation mask.
    pub umask: Option<u32>,
    /// Limits by name.
    pub rlimits: Vec<(String, Rlimit)>,
    /// Niceness.
    pub nice: Option<i32>,
    /// Out-of-memory score adjustment.
    pub oom_score_adj: Option<i32>,
    /// What it reads.
    pub stdin: Stdin,
    /// Capture.
    pub output: Output,
    /// Fate at the supervisor's death.
    pub on_supervisor_death: OnSupervisorDeath,
    /// When the keeper was asked for it.
    pub requested_at: Stamp,
    /// Whether it has a socket to tell things to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// The descriptor by which it says that it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_fd: Option<i32>,
}

/// A user, resolved to numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// One variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvNote {
    /// Its name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// FNV-1a (64 bit) of the value in hexadecimal. It tells that a value changed; it protects nothing: a
    /// short value can be found by trying.
    pub hash: String,
}

impl EnvNote {
    /// From `NAME=value`. Without a `=` the whole is the name.
    #[must_use]
    pub fn from_pair(pair: &[u8]) -> Self {
        let at = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(at);
        let value = value.get(1..).unwrap_or_default();
        Self { name: String::from_utf8_lossy(name).into_owned(), hash: format!("{:016x}", fnv1a(value)) }
    }
}

/// Which process a run is. The modification time of its file is the last moment somebody saw it alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentinel {
    /// Version of this layout.
    pub v: u32,
    /// The run.
    pub run: RunId,
    /// Its job.
    pub job: JobName,
    /// The main process.
    pub identity: Identity,
    /// When it was started.
    pub started: Stamp,
    /// The keeper that wrote this.
    pub keeper_pid: i32,
}

impl RunDir {
    /// Writes `run.json`; survives the death of processes.
    pub fn write_run(&self, record: &RunRecord) -> io::Result<()> {
        atomic::write_new(&self.run_json(), &to_json(record)?, 0o600)
    }

    /// Reads `run.json`; `None` if there is none.
    pub fn read_run(&self) -> Result<Option<RunRecord>, ReadError> {
        read_new_json(&self.run_json())
    }

    /// Writes `sentinel.json`, and `pid` for people and scripts; both survive the death of processes.
    pub fn write_sentinel(&self, sentinel: &Sentinel) -> io::Result<()> {
        atomic::write_new(&self.sentinel(), &to_json(sentinel)?, 0o600)?;
        atomic::write_unsynced(&self.pid(), format!("{}\n", sentinel.identity.pid).as_bytes(), 0o600)
    }

    /// Reads `sentinel.json`; `None` if there is none.
    pub fn read_sentinel(&self) -> Result<Option<Sentinel>, ReadError> {
        read_new_json(&self.sentinel())
    }

    /// When somebody last saw the run alive, wall clock in microseconds.
    #[must_use]
    pub fn last_seen_us(&self) -> Option<i64> {
        use std::os::unix::fs::MetadataExt;
        let meta = self.sentinel().metadata().ok()?;
        Some(meta.mtime().checked_mul(1_000_000)? + meta.mtime_nsec() / 1000)
    }

    /// Notes that the run lives now.
    pub fn beat(&self) -> io::Result<()> {
        crate::sys::disk::touch(&self.sentinel())
    }
}

/// One JSON object and a line end.
pub fn to_json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The same for a file that is written in place: an empty one is none, its writer died.
fn read_new_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ReadError> {
    let is_empty = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0);
    if is_empty { Ok(None) } else { read_json(path) }
}

/// Reads one JSON object; `None` if the file does not exist.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let bad = |why| ReadError::Bad { path: path.to_owned(), why };
    let file = match crate::sys::disk::open_read(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(bad("it is not a regular file".to_owned()));
    }
    if meta.len() > LONGEST {
        return Err(bad(format!("it has {} bytes", meta.len())));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut &file, &mut bytes).map_err(io)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| bad(e.to_string()))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::identity::Epoch;
    use crate::core::spec::JobSpec;

    fn record() -> RunRecord {
        let spec = JobSpec::new(JobName::new("web").unwrap(), vec!["a".into()]);
        RunRecord {
            v: VERSION,
            run: RunId::from_bytes([3; 16]),
            job: spec.name,
            attempt: 2,
            argv: spec.command,
            env: vec![EnvNote::from_pair(b"TOKEN=secret")],
            cwd: "/".into(),
            user: Some(RunUser { uid: 1, gid: 2, groups: vec![3] }),
            umask: Some(0o22),
            rlimits: vec![("nofile".into(), Rlimit { soft: Some(1), hard: None })],
            nice: Some(-1),
            oom_score_adj: None,
            stdin: Stdin::File("/x".into()),
            output: spec.output,
            on_supervisor_death: OnSupervisorDeath::Keep,
            requested_at: Stamp { boot_us: 1, wall_us: 2 },
            notify: true,
            ready_fd: None,
        }
    }

    #[test]
    fn records_round_trip_and_keep_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir(dir.path().to_owned());
        assert_eq!(run.read_run().unwrap(), None);
        run.write_run(&record()).unwrap();
        assert_eq!(run.read_run().unwrap(), Some(record()));
        let text = std::fs::read_to_string(run.run_json()).unwrap();
        assert!(text.contains("TOKEN") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn unknown_fields_are_ignored_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir(dir.path().to_owned());
        let text = String::from_utf8(to_json(&record()).unwrap()).unwrap();
        let newer = text.replacen("{\"v\":1", "{\"v\":1,\"later\":[1]", 1);
        atomic::write(&run.run_json(), newer.as_bytes(), 0o600).unwrap();
        assert_eq!(run.read_run().unwrap(), Some(record()));
        atomic::write(&run.run_json(), b"", 0o600).unwrap();
        assert_eq!(run.read_run().unwrap(), None);
        atomic::write(&run.run_json(), &text.as_bytes()[..40], 0o600).unwrap();
        assert!(matches!(run.read_run(), Err(ReadError::Bad { .. })));
        std::fs::remove_file(run.run_json()).unwrap();
        crate::sys::fifo::create(&run.run_json(), 0o600).unwrap();
        assert!(matches!(run.read_run(), Err(ReadError::Bad { .. })));
    }

    #[test]
    fn the_sentinel_beats() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir(dir.path().to_owned());
        assert!(run.beat().is_err());
        let sentinel = Sentinel {
            v: VERSION,
            run: RunId::from_bytes([3; 16]),
            job: JobName::new("web").unwrap(),
            identity: Identity { pid: 42, pidfs: 7, start_ticks: 8, epoch: Epoch::default() },
            started: Stamp::default(),
            keeper_pid: 41,
        };
        run.write_sentinel(&sentinel).unwrap();
        let file = crate::sys::disk::open_rw(&run.sentinel()).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        run.beat().unwrap();
        assert!(file.metadata().unwrap().modified().unwrap() > std::time::UNIX_EPOCH);
        assert_eq!(run.read_sentinel().unwrap(), Some(sentinel));
        assert_eq!(std::fs::read_to_string(run.pid()).unwrap(), "42\n");
    }

    #[test]
    fn environment_hashes_tell_values_apart() {
        // The published test vector of FNV-1a for "a".
        assert_eq!(EnvNote::from_pair(b"X=a").hash, "af63dc4c8601ec8c");
        assert_ne!(EnvNote::from_pair(b"X=a").hash, EnvNote::from_pair(b"X=b").hash);
        assert_eq!(EnvNote::from_pair(b"X=a=b").name, "X");
        assert_eq!(EnvNote::from_pair(b"X"), EnvNote::from_pair(b"X="));
    }
}
