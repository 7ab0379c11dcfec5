//! What supervisor and keeper say to each other on `keeper.sock`.
//!
//! JSON in length-prefixed frames (see [`super::frame`]) over a stream socket whose both ends check that
//! the other has their uid. The supervisor sends [`Request`]s; the keeper answers each with a `Reply`
//! that carries the request's `id`, and tells [`Notice`]s of its own accord. What a supervisor has not
//! acknowledged is told again to the next one, through the inventory.
//!
//! Versions: the first request is `Hello`; each side states the lowest and the current version it speaks.
//! Fields are only ever added; an unknown field is ignored. An unknown request or notice is not: what came
//! with a version is asked of, and told to, a peer of that version only.

use serde::{Deserialize, Serialize};

use crate::core::identity::Identity;
use crate::core::ids::{Generation, JobName, RunId};
use crate::core::outcome::{Asked, ExitRecord};
use crate::core::rung::{self, Rung};
use crate::core::spec::{KillScope, OnSupervisorDeath, Output, Rlimit, Stdin};
use crate::core::time::{Millis, Stamp};

/// Lowest version this build understands.
pub const MIN_VERSION: u32 = 1;
/// Version this build speaks. 1: first; 2: what runs tell ([`Told`]).
pub const VERSION: u32 = 2;
/// The version that [`Notice::Told`] and [`Request::Beats`] came with.
pub const TOLD_VERSION: u32 = 2;

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
    /// What it may tell, and by which way.
    #[serde(default, skip_serializing_if = "Listen::is_default")]
    pub listen: Listen,
    /// What the kernel is to hold it to, where it can.
    #[serde(default, skip_serializing_if = "GroupLimits::is_none")]
    pub limits: GroupLimits,
}

/// What the control group of a run may use, where there is one with the controllers for it. Where not, whoever
/// asked looks for himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupLimits {
    /// Memory in bytes. Who needs more is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processes and threads. No more can be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// CPU time in percent of one core. It waits when that is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
}

impl GroupLimits {
    /// Whether there are none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a run may tell, and by which way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Listen {
    /// It gets a socket of its own in `NOTIFY_SOCKET`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// It writes a newline to this descriptor when it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_fd: Option<i32>,
}

impl Listen {
    /// Lowest descriptor to tell readiness by.
    pub const READY_FD_MIN: i32 = 3;
    /// Highest.
    pub const READY_FD_MAX: i32 = 255;

    /// Whether the run tells nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// More time, asked for by a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extend {
    /// When it asked.
    pub at: Stamp,
    /// How long from then on.
    pub by: Millis,
}

/// What a run has told so far. Later messages win; what was not told, or was taken back, is absent.
///
/// A keeper that dies while it takes a message hears that one again: the counters may count it twice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// It is ready: when it first said `READY=1`, or wrote the newline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<Stamp>,
    /// Its latest `WATCHDOG=1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beat: Option<Stamp>,
    /// Its latest `WATCHDOG=trigger`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Stamp>,
    /// `WATCHDOG_USEC`, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Millis>,
    /// When it last said that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog_at: Option<Stamp>,
    /// Its latest `EXTEND_TIMEOUT_USEC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend: Option<Extend>,
    /// It ends: when it first said `STOPPING=1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Stamp>,
    /// It reads its configuration again: since its latest `RELOADING=1`, until `READY=1` takes that back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reloading: Option<Stamp>,
    /// `STATUS`: at most 512 bytes, without control characters. An empty one takes it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// `X_PROGRESS`, 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<u8>,
    /// When `X_PROGRESS`, `X_RESUME` or `STATUS` last came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_at: Option<Stamp>,
    /// `X_RESUME`: at most 4096 bytes, without control characters. An empty one takes back what was said before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// When it last said that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_at: Option<Stamp>,
    /// `MAINPID`, if that process belongs to the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main_pid: Option<i32>,
    /// `ERRNO`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// `EXIT_STATUS`, 0 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// Messages from somebody who is not proven to be of this run.
    #[serde(skip_serializing_if = "is_zero")]
    pub rejected: u64,
    /// Messages or values that make no sense.
    #[serde(skip_serializing_if = "is_zero")]
    pub ignored: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
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
        /// Of which rung of a ladder this is the signal: it is sent once. An older keeper sends it as often as it is
        /// asked.
        #[serde(default, deserialize_with = "rung::lenient", skip_serializing_if = "Option::is_none")]
        rung: Option<Rung>,
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
    /// The latest beats of these runs, with all they have sent by now. Answered by [`Answer::Beats`].
    Beats {
        /// The runs.
        runs: Vec<RunId>,
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
    /// To `Beats`.
    Beats {
        /// Of those that live and have one.
        beats: Vec<(RunId, Stamp)>,
    },
    /// To `HandOver`: these runs follow, each as one message of 16 bytes (its id) with descriptors of the
    /// process and, if it has them, of its stdin and of the socket it tells things to. Then the old keeper
    /// waits for one byte and ends.
    HandingOver {
        /// In the order of the messages; true where a stdin follows.
        runs: Vec<(RunId, bool)>,
        /// Those of them where a socket follows.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sockets: Vec<RunId>,
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
    /// A run has told something other than a beat.
    Told {
        /// The run.
        run: RunId,
        /// All that it has told so far.
        told: Box<Told>,
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
    /// What it has told, if it was given a way to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Box<Told>>,
    /// The last rung whose signal was sent to it.
    #[serde(default, deserialize_with = "rung::lenient", skip_serializing_if = "Option::is_none")]
    pub rung: Option<Rung>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_peer_says_is_read_and_what_is_absent_is_not_said() {
        assert_eq!(serde_json::from_str::<Told>("{}").unwrap(), Told::default());
        assert_eq!(serde_json::to_string(&Told::default()).unwrap(), "{}");
        let said = serde_json::to_string(&Told { ignored: 1, ..Told::default() }).unwrap();
        assert_eq!(said, r#"{"ignored":1}"#);
        let old = r#"{"handing_over":{"runs":[]}}"#;
        let Answer::HandingOver { sockets, .. } = serde_json::from_str(old).unwrap() else { panic!("{old}") };
        assert!(sockets.is_empty());
        assert_eq!(serde_json::from_str::<Listen>("{}").unwrap(), Listen::default());
    }
}
