//! What clients see on the control socket: plain data, JSON field names are the contract.
//!
//! Fields are only ever added. Times are RFC 3339 in UTC with milliseconds.

use serde::{Deserialize, Serialize};

use crate::core::ids::{JobName, RunId};
use crate::core::outcome::{Asked, Rusage};
use crate::core::spec::Kind;

/// Version of the HTTP interface: the `/v1` in every path.
pub const API: &str = "v1";

/// `GET /v1/status`, and `outlive status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The instance.
    pub instance: Instance,
    /// Its jobs, by name.
    pub jobs: Vec<JobStatus>,
}

/// The instance itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Version of the supervisor.
    pub version: String,
    /// What it is doing.
    pub state: InstanceState,
    /// Its processes.
    pub roles: Roles,
    /// Since when this supervisor runs.
    pub since: String,
    /// How many supervisors this state directory has seen, this one included.
    pub generation: u64,
    /// State directory.
    pub state_dir: String,
    /// Configuration file, if there is one.
    pub config: Option<String>,
    /// Whether that file, when this supervisor began, differed from the configuration in force, which is
    /// its predecessor's (`outlive reload` applies the file).
    pub config_changed: bool,
    /// What does not work, in words; empty when all is well.
    pub degraded: Vec<String>,
    /// The same by resource: `configuration`, `journal`, `init`, `run:ID`, `job:NAME`, `phase:NAME`. Only
    /// what is named is affected; everything else works.
    #[serde(default)]
    pub degraded_resources: Vec<Mark>,
    /// Why it is in recovery mode, if it is.
    #[serde(default)]
    pub recovery_mode: Option<String>,
}

/// A resource that does not do all it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which.
    pub resource: String,
    /// Why, in words.
    pub why: String,
}

/// `GET /v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether the supervisor answers.
    pub healthy: bool,
    /// Whether a resource does not do all it should.
    #[serde(default)]
    pub degraded: bool,
    /// Which ones.
    #[serde(default)]
    pub resources: Vec<Mark>,
}

/// What the instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Finding out what survived.
    Recovering,
    /// At work.
    Running,
    /// Too many supervisor deaths: everything is watched, nothing is started unless asked for.
    Recovery,
    /// The event log cannot be written: jobs run on, nothing is started or changed.
    ReadOnly,
    /// Ending.
    ShuttingDown,
}

/// The instance's processes; `None` where one is not alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Parent and reaper.
    pub init: Role,
    /// Spawner and pump.
    pub keeper: Role,
    /// The one that answers.
    pub supervisor: Role,
}

/// One of the instance's processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Process id.
    pub pid: Option<i32>,
}

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WantWord {
    /// It is to run.
    Up,
    /// It is to be stopped.
    Down,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateWord {
    /// Not running because nobody wants it to.
    Stopped,
    /// Wanted, and waiting for the jobs it depends on.
    Waiting,
    /// Asked for, or within its start grace.
    Starting,
    /// Running.
    Running,
    /// Being stopped.
    Stopping,
    /// Waiting for the next try.
    Backoff,
    /// To be run, but perhaps it has run already: entries of the event log are missing. A start releases it.
    Held,
    /// Ended, and not to be run again by itself.
    Exited,
    /// Given up.
    Fatal,
}

impl StateWord {
    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Held => "held",
            Self::Exited => "exited",
            Self::Fatal => "fatal",
        }
    }
}

/// One job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its name.
    pub name: JobName,
    /// Service or task.
    pub kind: Kind,
    /// Where it is.
    pub state: StateWord,
    /// What was asked.
    pub want: WantWord,
    /// Main process of the live run.
    pub pid: Option<i32>,
    /// The live run, or the latest.
    pub run: Option<RunId>,
    /// Starts after the first, since the job is known.
    pub restarts: u64,
    /// Since when it is in this state.
    pub since: String,
    /// How the latest ended run ended.
    pub outcome: Option<OutcomeView>,
    /// Why it is in this state, for people; empty when it needs no words.
    pub reason: String,
    /// Whether the live run was taken over from an earlier supervisor.
    pub adopted: bool,
    /// When the next try is due, in the state backoff.
    pub next_try: Option<String>,
    /// The jobs it waits for.
    pub depends_on: Vec<JobName>,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// An outcome as JSON shows it: `kind`, and `code` or `signal` where they apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeView {
    /// `exited`, `signaled`, `oom_killed`, `not_started`, `cancelled`, `lost`.
    pub kind: String,
    /// Exit code.
    pub code: Option<i32>,
    /// Signal number.
    pub signal: Option<i32>,
    /// Whether it dumped core.
    pub core: Option<bool>,
    /// The step that failed.
    pub step: Option<String>,
    /// Error number of that step.
    pub errno: Option<i32>,
    /// Why it is lost.
    pub why: Option<String>,
    /// Who asked for the end.
    pub asked: Option<Asked>,
    /// When it ended.
    pub at: Option<String>,
    /// One phrase for people.
    pub text: String,
}

/// `GET /v1/jobs/NAME/runs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// The run.
    pub run: RunId,
    /// Its job.
    pub job: JobName,
    /// Which try.
    pub attempt: u64,
    /// When it was started.
    pub started: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// Main process, while it lives.
    pub pid: Option<i32>,
    /// How it ended.
    pub outcome: Option<OutcomeView>,
    /// Resource use.
    pub rusage: Option<Rusage>,
    /// Bytes captured.
    pub output_bytes: u64,
}

/// `POST /v1/jobs/SELECTOR/{start,stop,restart,signal}`: what was done to which job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActReply {
    /// One line a job, in the order of names.
    pub jobs: Vec<ActResult>,
}

/// What a verb did to one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActResult {
    /// The job.
    pub name: JobName,
    /// Whether anything changed.
    pub changed: bool,
    /// In words: `starting`, `already running`, …
    pub text: String,
    /// False if it could not be done; `text` says why.
    pub ok: bool,
}

/// `POST /v1/jobs/SELECTOR/signal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalRequest {
    /// Name or number.
    pub signal: String,
    /// Whom it reaches; the job's own scope if absent (`process` for `mixed`).
    #[serde(default)]
    pub scope: Option<crate::core::spec::KillScope>,
}

/// `POST /v1/run`: a job submitted at run time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRequest {
    /// Wanted name; one is made up if absent.
    #[serde(default)]
    pub name: Option<JobName>,
    /// Argument vector.
    pub command: Vec<String>,
    /// Working directory.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Variables on top of the instance's environment. They are kept in the event log.
    #[serde(default)]
    pub env: std::collections::BTreeMap<String, String>,
    /// A service is kept up; a task is the default.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// Restart policy; `never` for a task unless given.
    #[serde(default)]
    pub restart: Option<crate::core::spec::Restart>,
    /// Keep stdin open for `send`.
    #[serde(default)]
    pub stdin: bool,
}

/// Answer to [`RunRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReply {
    /// The job's name.
    pub name: JobName,
}

/// `POST /v1/reload[?plan=true]`: what differs, and what was or would be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReloadReply {
    /// Whether it was applied, or only planned.
    pub applied: bool,
    /// New jobs.
    pub added: Vec<JobName>,
    /// Jobs that are stopped and forgotten.
    pub removed: Vec<JobName>,
    /// Jobs whose run is replaced.
    pub restarted: Vec<JobName>,
    /// Jobs whose settings change without touching the run.
    pub updated: Vec<JobName>,
    /// Configured jobs that cannot be taken over yet: a submitted job of that name is still at work.
    #[serde(default)]
    pub blocked: Vec<JobName>,
    /// Jobs left as they are.
    pub unchanged: usize,
}

/// `POST /v1/shutdown`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ShutdownRequest {
    /// Leave the jobs running; the next `outlive up` adopts them.
    #[serde(default)]
    pub keep_jobs: bool,
}

/// `POST /v1/jobs/NAME/stdin` answers with this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StdinReply {
    /// Bytes accepted.
    pub bytes: u64,
}

/// `GET /v1/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Version of the build.
    pub version: String,
    /// Version of the HTTP interface.
    pub api: String,
    /// Version of the keeper protocol.
    pub keeper_protocol: u32,
}

/// `GET /v1/events`: one recorded decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// The cursor: pass it as `since` to get what came after.
    pub seq: u64,
    /// When.
    pub at: String,
    /// What happened: the events of one decision.
    pub events: Vec<serde_json::Value>,
}

/// One event of `GET /v1/jobs/NAME/output` as server-sent events: captured bytes and where they stand.
///
/// Bytes that are UTF-8 are in `text`, others in `b64` (RFC 4648 with padding); never in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputEvent {
    /// The run that wrote them.
    pub run: RunId,
    /// Offset of the first byte in its series of files; with separate streams, in that of the stream.
    pub offset: u64,
    /// `stdout` or `stderr`; absent if the index does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Whether the run keeps a series of files for each stream, so that `offset` belongs to one of them.
    #[serde(default)]
    pub separate: bool,
    /// When they were captured; absent if the index does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The bytes as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b64: Option<String>,
}

/// Every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// For people.
    pub error: String,
    /// For programs: `bad_request`, `not_found`, `conflict`, `read_only`, `recovering`, `too_large`,
    /// `busy`, `forbidden`, `method_not_allowed`, `timeout`, `gone`, `internal`.
    pub code: String,
    /// More lines, one for each thing that is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}
