//! Where everything is.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::atomic;
use crate::core::ids::{JobName, RunId};
use crate::sys::disk;

/// The layout that this build writes. 1: first; 2: sealed lines in the event log.
pub const FORMAT: u32 = 2;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Making or reading something failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The name is in use by something else.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// Which one.
        path: PathBuf,
    },
    /// Another user owns it.
    #[error(
        "{} belongs to user id {owner}, and we run as user id {us}: choose another directory, or run as its owner",
        path.display()
    )]
    NotOurs {
        /// Which one.
        path: PathBuf,
        /// User id of its owner.
        owner: u32,
        /// Our effective user id.
        us: u32,
    },
    /// Somebody else may write to it.
    #[error(
        "{} can be written by others (mode {mode:03o}): whoever can change it can change what we run; \
         chmod go-w makes it usable",
        path.display()
    )]
    WritableByOthers {
        /// Which one.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It was written by a build whose files this one cannot read.
    #[error("{} has format {format}, which needs a reader of format {min_reader}; this build reads {FORMAT}", path.display())]
    TooNew {
        /// The format file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The lowest reader it allows.
        min_reader: u32,
    },
    /// The format file makes no sense.
    #[error("{} cannot be understood: {why}", path.display())]
    BadFormat {
        /// The format file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What the file `format` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// Layout of the directory.
    pub format: u32,
    /// Lowest layout that a reader must know in order to touch it.
    pub min_reader: u32,
}

/// The state directory: survives a reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(pub PathBuf);

/// The runtime directory: may be empty after a reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeDir(pub PathBuf);

/// The directory of one run under the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir(pub PathBuf);

/// The directory of one run under the runtime directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRuntime(pub PathBuf);

impl StateDir {
    /// Creates what is missing, and checks owner, permissions and format of what is there.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, LayoutError> {
        let state = Self(path.into());
        make_private(&state.0)?;
        for dir in [state.journal(), state.runs(), state.jobs(), state.quarantine()] {
            make_private(&dir)?;
        }
        state.check_format()?;
        Ok(state)
    }

    /// Held for life by the instance that owns this directory.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Held for life by the keeper.
    #[must_use]
    pub fn keeper_lock(&self) -> PathBuf {
        self.0.join("keeper.lock")
    }

    /// Held for life by the supervisor.
    #[must_use]
    pub fn supervisor_lock(&self) -> PathBuf {
        self.0.join("supervisor.lock")
    }

    /// The format of the directory.
    #[must_use]
    pub fn format(&self) -> PathBuf {
        self.0.join("format")
    }

    /// The event log.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// All runs.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.0.join("runs")
    }

    /// One run.
    #[must_use]
    pub fn run(&self, run: RunId) -> RunDir {
        RunDir(self.runs().join(run.to_string()))
    }

    /// All jobs.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        self.0.join("jobs")
    }

    /// The link to a job's latest run.
    #[must_use]
    pub fn current(&self, job: &JobName) -> PathBuf {
        self.jobs().join(job.as_str()).join("current")
    }

    /// What was set aside.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.0.join("quarantine")
    }

    /// Makes `jobs/<name>/current` point to this run, in one step, unless it points to a later one.
    pub fn set_current(&self, job: &JobName, run: RunId) -> io::Result<()> {
        let link = self.current(job);
        let shown = std::fs::read_link(&link).ok();
        let shown = shown.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
        if shown.is_some_and(|shown: RunId| shown > run) {
            return Ok(());
        }
        let target = Path::new("../../runs").join(run.to_string());
        match atomic::symlink(&target, &link) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        private_dir_all(&self.jobs().join(job.as_str()))?;
        atomic::symlink(&target, &link)
    }

    /// The ids of all run directories, oldest first. Other names are left alone.
    pub fn list_runs(&self) -> io::Result<Vec<RunId>> {
        list_runs(&self.runs())
    }

    fn check_format(&self) -> Result<(), LayoutError> {
        let path = self.format();
        match std::fs::read(&path) {
            Ok(bytes) => check_format(path, &bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.write_format(),
            Err(source) => Err(LayoutError::Io { what: "read", path, source }),
        }
    }

    /// Checks the format of what is there, and changes nothing.
    pub fn look_at_format(&self) -> Result<(), LayoutError> {
        let path = self.format();
        match std::fs::read(&path) {
            Ok(bytes) => check_format(path, &bytes),
            Err(source) => Err(LayoutError::Io { what: "read", path, source }),
        }
    }

    fn write_format(&self) -> Result<(), LayoutError> {
        let path = self.format();
        let text = format!("{{\"format\":{FORMAT},\"min_reader\":{FORMAT}}}\n");
        // Nobody has a lock by now: another instance may be about to begin here, too.
        atomic::write_among_others(&path, text.as_bytes(), 0o600).map_err(io_error("write", &path))
    }

    /// Says that this build's layout is in use, before the first file of it is written: an older build
    /// leaves the directory alone from then on. Nothing happens where it says so already.
    pub fn upgrade_format(&self) -> Result<(), LayoutError> {
        let path = self.format();
        let said = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Format>(&bytes).ok());
        if said.is_some_and(|format| format.format >= FORMAT) { Ok(()) } else { self.write_format() }
    }
}

impl RuntimeDir {
    /// Creates what is missing, and checks owner and permissions of what is there.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, LayoutError> {
        let runtime = Self(path.into());
        make_private(&runtime.0)?;
        make_private(&runtime.runs())?;
        make_private(&runtime.helpers())?;
        Ok(runtime)
    }

    /// What is under way around the runs of jobs: hooks, stop commands.
    #[must_use]
    pub fn helpers(&self) -> PathBuf {
        self.0.join("helpers")
    }

    /// One kind of it for one job: locked while it is under way, then how the last one ended.
    #[must_use]
    pub fn helper(&self, job: &JobName, what: &str) -> PathBuf {
        self.helpers().join(format!("{job}.{what}"))
    }

    /// Where clients connect.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// Where the supervisor finds the keeper.
    #[must_use]
    pub fn keeper_socket(&self) -> PathBuf {
        self.0.join("keeper.sock")
    }

    /// All runs.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.0.join("runs")
    }

    /// One run.
    #[must_use]
    pub fn run(&self, run: RunId) -> RunRuntime {
        RunRuntime(self.runs().join(run.to_string()))
    }

    /// The ids of all run directories, oldest first. Other names are left alone.
    pub fn list_runs(&self) -> io::Result<Vec<RunId>> {
        list_runs(&self.runs())
    }
}

impl RunDir {
    /// Creates the directory; fine if it is there.
    pub fn create(&self) -> io::Result<()> {
        private_dir_all(&self.0)
    }

    /// How the run was launched.
    #[must_use]
    pub fn run_json(&self) -> PathBuf {
        self.0.join("run.json")
    }

    /// The main process id as text, for people and scripts.
    #[must_use]
    pub fn pid(&self) -> PathBuf {
        self.0.join("pid")
    }

    /// Which process it is; its modification time is the heartbeat.
    #[must_use]
    pub fn sentinel(&self) -> PathBuf {
        self.0.join("sentinel.json")
    }

    /// How it ended.
    #[must_use]
    pub fn exit_json(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// The space reserved for [`Self::exit_json`].
    #[must_use]
    pub fn exit_tmp(&self) -> PathBuf {
        self.0.join("exit.tmp")
    }

    /// Captured output; a directory, or a link to one.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.0.join("output")
    }

    /// What was seen of the run when it did not answer, the number-th time.
    #[must_use]
    pub fn diagnosis(&self, number: u32) -> PathBuf {
        self.0.join(format!("diagnosis-{number}.txt"))
    }

    /// The numbers of the diagnoses that are there, in order.
    pub fn diagnoses(&self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in self.0.read_dir()? {
            let name = entry?.file_name();
            let middle = name.to_str().and_then(|n| n.strip_prefix("diagnosis-")?.strip_suffix(".txt"));
            numbers.extend(middle.and_then(|digits| digits.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes `output` a link to a directory elsewhere, which is created. Fine if it is that link already.
    pub fn link_output(&self, target: &Path) -> io::Result<()> {
        private_dir_all(target)?;
        let link = self.output();
        match std::fs::read_link(&link) {
            Ok(there) if there == target => Ok(()),
            _ => atomic::symlink(target, &link),
        }
    }
}

impl RunRuntime {
    /// Creates the directory; fine if it is there.
    pub fn create(&self) -> io::Result<()> {
        private_dir_all(&self.0)
    }

    /// FIFO of the standard output.
    #[must_use]
    pub fn stdout(&self) -> PathBuf {
        self.0.join("stdout")
    }

    /// FIFO of the standard error output.
    #[must_use]
    pub fn stderr(&self) -> PathBuf {
        self.0.join("stderr")
    }

    /// FIFO of the standard input.
    #[must_use]
    pub fn stdin(&self) -> PathBuf {
        self.0.join("stdin")
    }

    /// Socket that the run tells things to.
    #[must_use]
    pub fn notify(&self) -> PathBuf {
        self.0.join("notify")
    }

    /// FIFO by which the run says that it is ready.
    #[must_use]
    pub fn ready(&self) -> PathBuf {
        self.0.join("ready")
    }

    /// What signals were sent to the run, and who asked for them.
    #[must_use]
    pub fn signalled(&self) -> PathBuf {
        self.0.join("signalled.json")
    }

    /// What the run has told so far.
    #[must_use]
    pub fn told(&self) -> PathBuf {
        self.0.join("told.json")
    }

    /// Whoever links something here first decides whether the run happens.
    #[must_use]
    pub fn decision(&self) -> PathBuf {
        self.0.join("decision")
    }
}

/// Creates a directory and its missing parents with mode 0700; fine if it is there.
pub fn private_dir_all(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Creates a directory, and checks that it is ours alone.
fn make_private(path: &Path) -> Result<(), LayoutError> {
    if let Err(source) = private_dir_all(path) {
        let path = path.to_owned();
        return Err(match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                LayoutError::NotADirectory { path }
            }
            _ => LayoutError::Io { what: "create", path, source },
        });
    }
    let meta = path.metadata().map_err(io_error("look at", path))?;
    let (us, mode) = (disk::effective_uid(), meta.mode() & 0o777);
    if meta.uid() != us {
        return Err(LayoutError::NotOurs { path: path.to_owned(), owner: meta.uid(), us });
    }
    if mode & 0o022 != 0 {
        return Err(LayoutError::WritableByOthers { path: path.to_owned(), mode });
    }
    Ok(())
}

fn check_format(path: PathBuf, bytes: &[u8]) -> Result<(), LayoutError> {
    match serde_json::from_slice::<Format>(bytes) {
        Ok(f) if f.min_reader > FORMAT => {
            Err(LayoutError::TooNew { path, format: f.format, min_reader: f.min_reader })
        }
        Ok(_) => Ok(()),
        Err(e) => Err(LayoutError::BadFormat { path, why: e.to_string() }),
    }
}

fn list_runs(dir: &Path) -> io::Result<Vec<RunId>> {
    let mut runs = Vec::new();
    for entry in dir.read_dir()? {
        if let Some(Ok(run)) = entry?.file_name().to_str().map(str::parse) {
            runs.push(run);
        }
    }
    runs.sort_unstable();
    Ok(runs)
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    let path = path.to_owned();
    move |source| LayoutError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn is_created_private_and_accepted_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path().join("a/b")).unwrap();
        for path in [&state.0, &state.journal(), &state.runs(), &state.jobs(), &state.quarantine()] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{path:?}");
        }
        let format = std::fs::read_to_string(state.format()).unwrap();
        assert_eq!(format, "{\"format\":2,\"min_reader\":2}\n");
        assert_eq!(StateDir::create(&state.0).unwrap(), state);
        RuntimeDir::create(dir.path().join("rt")).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o770, 0o702] {
            chmod(dir.path(), mode);
            let e = StateDir::create(dir.path()).unwrap_err();
            assert!(matches!(e, LayoutError::WritableByOthers { mode: m, .. } if m == mode), "{e}");
        }
        chmod(dir.path(), 0o755);
        StateDir::create(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_of_another_owner_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = if disk::effective_uid() == 0 {
            std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
            dir.path()
        } else {
            Path::new("/usr")
        };
        let e = RuntimeDir::create(theirs).unwrap_err();
        assert!(matches!(e, LayoutError::NotOurs { .. }), "{e}");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        disk::create_new(&path, 0o600).unwrap();
        assert!(matches!(StateDir::create(&path), Err(LayoutError::NotADirectory { .. })));
        assert!(matches!(StateDir::create(path.join("x")), Err(LayoutError::NotADirectory { .. })));
    }

    #[test]
    fn a_newer_or_broken_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path().join("s")).unwrap();
        let format = std::fs::read_to_string(state.format()).unwrap();
        atomic::write(&state.format(), br#"{"format":9,"min_reader":3}"#, 0o600).unwrap();
        assert!(matches!(StateDir::create(&state.0), Err(LayoutError::TooNew { format: 9, .. })));
        atomic::write(&state.format(), br#"{"format":9,"min_reader":1,"new":true}"#, 0o600).unwrap();
        StateDir::create(&state.0).unwrap();
        state.upgrade_format().unwrap();
        assert!(std::fs::read_to_string(state.format()).unwrap().contains("new"));
        atomic::write(&state.format(), br#"{"format":1,"min_reader":1}"#, 0o600).unwrap();
        StateDir::create(&state.0).unwrap();
        state.upgrade_format().unwrap();
        assert_eq!(std::fs::read_to_string(state.format()).unwrap(), format);
        atomic::write(&state.format(), b"", 0o600).unwrap();
        assert!(matches!(StateDir::create(&state.0), Err(LayoutError::BadFormat { .. })));
    }

    #[test]
    fn current_leads_to_the_latest_run() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path().join("s")).unwrap();
        let job = JobName::new("web:2").unwrap();
        let runs = [RunId::from_bytes([1; 16]), RunId::from_bytes([2; 16])];
        for run in runs {
            state.run(run).create().unwrap();
            state.set_current(&job, run).unwrap();
            let led = state.current(&job).canonicalize().unwrap();
            assert_eq!(led, state.run(run).0.canonicalize().unwrap());
        }
        std::fs::create_dir(state.runs().join("something else")).unwrap();
        assert_eq!(state.list_runs().unwrap(), runs);
    }

    #[test]
    fn output_may_live_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir(dir.path().join("r"));
        run.create().unwrap();
        for target in ["one", "one", "two"] {
            let target = dir.path().join(target);
            run.link_output(&target).unwrap();
            assert_eq!(run.output().canonicalize().unwrap(), target.canonicalize().unwrap());
        }
    }
}
