//! What supervisor and keeper say to each other on `keeper.sock`.
//!
//! JSON in length-prefixed frames (see [`super::frame`]) over a stream socket whose both ends check that
//! the other has their uid. The supervisor sends [`Request`]s; the keeper answers each with a `Reply`
//! that carries the request's `id`, and tells [`Notice`]s of its own accord. What a supervisor has not
//! acknowledged is told again to the next one, through the inventory.
//!
//! Versions: the first request is `Hello`; each side states the lowest and the current version it speaks.
//! Fields are only ever added; an unknown field is ignored.

use serde::{Deserialize, Serialize};

use crate::core::identity::Identity;
use crate::core::ids::{Generation, JobName, RunId};
use crate::core::outcome::{Asked, ExitRecord};
use crate::core::spec::{KillScope, OnSupervisorDeath, Output, Rlimit, Stdin};
use crate::core::time::{Millis, Stamp};

/// Lowest version this build understands.
pub const MIN_VERSION: u32 = 1;
/// Version this build speaks. 1: first.
pub const VERSION: u32 = 1;

/// Everything the keeper needs to start a run; nothing is left to choose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The run.
    pub run: RunId,
    /// Its job.
    pub job: JobName,
    /// How many runs the job had before this one, plus one.
    pub attempt: u64,
    /// Argument vector, never empty.
    pub argv: Vec<String>,
    /// The complete environment, as `NAME=value`; bytes, because what is inherited need not be UTF-8.
    #[serde(with = "super::bytes::list")]
    pub env: Vec<Vec<u8>>,
    /// Absolute working directory.
    pub cwd: String,
    /// User to become, resolved.
    pub user: Option<UserIds>,
    /// File creation mask.
    pub umask: Option<u32>,
    /// Limits: name as in `setrlimit(2)` without `RLIMIT_`, in lower case.
    pub rlimits: Vec<(String, Rlimit)>,
    /// Niceness.
    pub nice: Option<i32>,
    /// Out-of-memory score adjustment.
    pub oom_score_adj: Option<i32>,
    /// Standard input.
    pub stdin: Stdin,
    /// Capture.
    pub output: Output,
    /// Fate at the supervisor's death.
    pub on_supervisor_death: OnSupervisorDeath,
}

/// A user, resolved to numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Asked by the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// First of all. Answered by [`Answer::Hello`].
    Hello {
        /// Lowest version the supervisor understands.
        min_version: u32,
        /// The version it speaks.
        version: u32,
        /// Its generation. A keeper that has met a higher one refuses every request.
        generation: Generation,
    },
    /// Everything the keeper knows about runs. Answered by [`Answer::Inventory`].
    Inventory,
    /// Start a run. Answered by [`Answer::Launched`]; refused if the run id was ever seen.
    Launch(Box<Launch>),
    /// Send a signal, with `CONT` behind it when `cont` is set. Answered by [`Answer::Done`].
    Signal {
        /// The run.
        run: RunId,
        /// Signal number.
        signal: i32,
        /// Whom it reaches.
        scope: KillScope,
        /// Whether `CONT` follows.
        cont: bool,
        /// Noted in the exit record if the run ends after this.
        asked: Asked,
    },
    /// Write to a run's stdin. Answered by [`Answer::Written`], possibly with fewer bytes.
    Stdin {
        /// The run.
        run: RunId,
        /// The bytes.
        #[serde(with = "super::bytes::string")]
        data: Vec<u8>,
        /// Whether the pipe is closed afterwards.
        close: bool,
    },
    /// The supervisor has made the end of this run durable: the keeper may forget it. Answered by `Done`.
    Forget {
        /// The run.
        run: RunId,
    },
    /// Processes that outlive the main process are left alone from now on (`leftovers = "ignore"`).
    Disown {
        /// The run.
        run: RunId,
    },
    /// A new keeper takes the place of this one: finish what is pending, answer `HandingOver`, send the
    /// descriptors, and end when it says so. The peer must be a keeper whose init lives.
    HandOver,
    /// The supervisor goes away on purpose: its end is no death. Answered by `Done`.
    Goodbye,
}

/// A request with the number its reply will carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Numbered {
    /// Chosen by the supervisor, echoed by the keeper.
    pub id: u64,
    /// The request.
    pub request: Request,
}

/// Sent by the keeper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromKeeper {
    /// The answer to request `id`.
    Reply {
        /// The request's number.
        id: u64,
        /// What came of it.
        result: Result<Answer, Refusal>,
    },
    /// News.
    Notice(Notice),
}

/// A granted request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `Hello`.
    Hello {
        /// Lowest version the keeper understands.
        min_version: u32,
        /// The version it speaks.
        version: u32,
        /// The keeper's process id.
        pid: i32,
        /// The keeper's build.
        build: String,
        /// Whether init lives and is the keeper's parent.
        init: bool,
    },
    /// To `Inventory`.
    Inventory {
        /// All runs the keeper has not been told to forget.
        runs: Vec<RunStatus>,
    },
    /// To `Launch`: past `execve`.
    Launched {
        /// Which process it is.
        identity: Identity,
        /// When it was started.
        at: Stamp,
    },
    /// To `Stdin`.
    Written {
        /// Bytes accepted.
        bytes: u64,
    },
    /// To `HandOver`: these runs follow, each as one message of 16 bytes (its id) with a descriptor of the
    /// process and, if it has one, of its stdin. Then the old keeper waits for one byte and ends.
    HandingOver {
        /// In the order of the messages; true where a stdin follows.
        runs: Vec<(RunId, bool)>,
    },
    /// To everything else.
    Done,
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum Refusal {
    /// The keeper has met a newer supervisor.
    #[error("a newer supervisor (generation {}) commands this keeper", newest.0)]
    OldGeneration {
        /// The newest it has met.
        newest: Generation,
    },
    /// No common version.
    #[error("the keeper speaks versions {min_version} to {version} of the protocol")]
    Version {
        /// Lowest the keeper understands.
        min_version: u32,
        /// The one it speaks.
        version: u32,
    },
    /// The run id was seen before: nothing was started by this request.
    #[error("this run was asked for before")]
    SeenRun,
    /// The keeper knows no such run.
    #[error("no such run")]
    UnknownRun,
    /// The run has ended, or has no such descriptor.
    #[error("the run {what}")]
    NotPossible {
        /// `has ended`, `has no stdin`, …
        what: String,
    },
    /// The run was not started; it has an exit record that says so, and a notice follows.
    #[error("not started: {step} (error {errno})")]
    NotStarted {
        /// What was being done.
        step: String,
        /// Error number, 0 without one.
        errno: i32,
    },
    /// The request makes no sense to this keeper.
    #[error("bad request: {why}")]
    Bad {
        /// What is wrong with it.
        why: String,
    },
    /// The kernel refused.
    #[error("{what}: error {errno}")]
    System {
        /// What was being done.
        what: String,
        /// Error number.
        errno: i32,
    },
}

/// Told by the keeper of its own accord, and again in the inventory until it is told to forget the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// The main process of a run has ended; `exit.json` is written.
    Ended {
        /// All that is known.
        record: Box<ExitRecord>,
        /// Whether other processes of the run are still there. If so, `TreeGone` follows some day.
        leftovers: bool,
    },
    /// The last process of a run that left something over is gone.
    TreeGone {
        /// The run.
        run: RunId,
    },
    /// The disk refuses a run's output, or takes it again.
    LogStall {
        /// The run.
        run: RunId,
        /// Error number, 0 when the disk takes it again.
        errno: i32,
        /// Bytes dropped so far.
        dropped: u64,
    },
    /// Init is gone: outcomes now come from the kernel's exit information, where it has any.
    InitGone,
}

/// One run as the keeper knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    /// The run.
    pub run: RunId,
    /// Its job.
    pub job: JobName,
    /// Which process it is; `None` if it never had one.
    pub identity: Option<Identity>,
    /// When it was started.
    pub started: Option<Stamp>,
    /// Its end, if its main process has ended.
    pub ended: Option<Box<ExitRecord>>,
    /// Whether processes of an ended run are still there.
    pub leftovers: bool,
    /// Bytes captured so far, both streams.
    pub output_bytes: u64,
    /// Grace left by `on_supervisor_death` when no supervisor was there; `None`: keep.
    pub kill_in: Option<Millis>,
}
