//! What clients see on the control socket: plain data, JSON field names are the contract.
//!
//! Fields are only ever added. Times are RFC 3339 in UTC with milliseconds.

use serde::{Deserialize, Serialize};

use super::health::HealthView;
use super::host::HostView;
use super::insight::AlertView;
use super::queue::PlaceView;
pub use super::words::{StateWord, WantWord};
use crate::core::circuit::Circuit;
use crate::core::ids::{JobName, QueueName, RunId};
use crate::core::outcome::{Asked, Rusage};
use crate::core::spec::Kind;
use crate::core::stats::{Cause, Exits};

/// Version of the HTTP interface: the `/v1` in every path.
pub const API: &str = "v1";

/// `GET /v1/status`, and `outlive status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The instance.
    pub instance: Instance,
    /// Its jobs, by name.
    pub jobs: Vec<JobStatus>,
    /// What is raised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertView>,
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
    /// The same by resource: `configuration`, `journal`, `init`, `run:ID`, `job:NAME`, `phase:NAME`,
    /// `starts`, and the names of failed checks (`memory`, `disk:/path`, …). Only
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Whether the supervisor answers, and nothing of all that is checked makes it useless.
    pub healthy: bool,
    /// Whether a resource does not do all it should.
    #[serde(default)]
    pub degraded: bool,
    /// Which ones.
    #[serde(default)]
    pub resources: Vec<Mark>,
    /// The checks of the host and of the instance.
    #[serde(flatten)]
    pub host: HostView,
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
    /// When the live run was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
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
    /// What it has published about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Box<ProgressView>>,
    /// How it fares; absent while it has no run and nothing has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Box<HealthView>>,
    /// Where its circuit breaker is, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Circuit>,
    /// What its failures have in common, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<String>,
    /// Where it stands in line, or stood when its turn came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Box<PlaceView>>,
}

/// What a job has published about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressView {
    /// The run that said it last.
    pub run: RunId,
    /// When.
    pub at: String,
    /// How far that run is, in percent.
    pub percent: Option<u8>,
    /// For people.
    pub text: Option<String>,
    /// What the next run finds in `OUTLIVE_RESUME_TOKEN`.
    pub resume_token: Option<String>,
}

/// `POST /v1/runs/RUN/progress`: what is absent stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// Percent, 0 to 100.
    #[serde(default)]
    pub progress: Option<u8>,
    /// For people.
    #[serde(default)]
    pub text: Option<String>,
    /// For the next run of the job; empty: there is none any more.
    #[serde(default)]
    pub resume_token: Option<String>,
}

/// Answer to [`PublishRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishReply {
    /// Whether it is in the event log; progress alone is once a second at most, and shown anyway.
    pub recorded: bool,
    /// Whether a token was taken: it is durable.
    pub resume_token: bool,
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

impl OutcomeView {
    /// Whether it counts as a failure whatever the exit code: it was ended because something was wrong with it.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.asked.as_ref().is_some_and(Asked::is_failure)
    }
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
    /// How its end counts in the statistics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Resource use.
    pub rusage: Option<Rusage>,
    /// Bytes captured.
    pub output_bytes: u64,
}

/// `GET /v1/jobs/NAME`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobDetail {
    /// As in `GET /v1/status`.
    #[serde(flatten)]
    pub status: JobStatus,
    /// What its runs came to.
    pub stats: StatsView,
}

/// One job in `GET /v1/stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStats {
    /// Its name.
    pub name: JobName,
    /// What its runs came to.
    pub stats: StatsView,
}

/// What the runs of a job came to, since it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsView {
    /// Runs that were started, or should have been.
    pub starts: u64,
    /// Their ends, by cause.
    pub exits: Exits,
    /// How long they have lasted together, the live one included.
    pub uptime_ms: u64,
    /// The longest of them.
    pub longest_uptime_ms: u64,
    /// How long it was wanted without a run, from an end to the next start.
    #[serde(default)]
    pub down_ms: u64,
    /// The largest resident set of an ended run.
    pub max_rss_kib: u64,
    /// How long restarts took; `None` without any.
    pub restart_time: Option<RestartTime>,
}

/// From an end (or the request for a restart) to the next start, pauses of the restart policy included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartTime {
    /// How many restarts this is of: the latest, 32 at most.
    pub samples: usize,
    /// Half of them took no longer.
    pub p50_ms: u32,
    /// 95 of 100 took no longer.
    pub p95_ms: u32,
    /// 99 of 100 took no longer.
    pub p99_ms: u32,
}

/// `POST /v1/jobs/SELECTOR/{start,stop,restart,signal}`: what was done to which job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActReply {
    /// One line a job, in the order of names.
    pub jobs: Vec<ActResult>,
    /// The operation that may still be rolled back; its end is at `/v1/sagas/ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<u64>,
}

/// `GET /v1/sagas/ID`: an operation of several steps, which is done whole or undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaView {
    /// Counted from 1.
    pub id: u64,
    /// `reload` or `start`.
    pub verb: String,
    /// Where it is.
    pub state: SagaState,
    /// Jobs that are not up yet.
    pub pending: Vec<JobName>,
    /// The job that broke it.
    pub job: Option<JobName>,
    /// Why it was rolled back or abandoned, in words.
    pub why: Option<String>,
    /// When it was over.
    pub ended: Option<String>,
}

/// Where a [`SagaView`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SagaState {
    /// It goes on.
    Running,
    /// It has failed and is being undone.
    Undoing,
    /// All of it is done.
    Done,
    /// What was before is in force again.
    RolledBack,
    /// Nobody could go on or back.
    Abandoned,
}

impl SagaState {
    /// Whether nothing more happens to it.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack | Self::Abandoned)
    }
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
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
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
    /// In which queue it waits for its turn; absent: it does not.
    #[serde(default)]
    pub queue: Option<QueueName>,
    /// The highest goes first.
    #[serde(default)]
    pub priority: i32,
    /// Jobs that have to be up before, or to have done their work.
    #[serde(default)]
    pub after: Vec<JobName>,
    /// It stands aside in its queue until it is released.
    #[serde(default)]
    pub hold: bool,
    /// It stands aside in its queue until then (RFC 3339).
    #[serde(default)]
    pub not_before: Option<String>,
    /// Whoever submits with the same key gets the same job.
    #[serde(default)]
    pub key: Option<String>,
    /// How long a run may take, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// How often a run that failed is followed by another, at most.
    #[serde(default)]
    pub retries: Option<u32>,
}

/// Answer to [`RunRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReply {
    /// The job's name.
    pub name: JobName,
    /// It was there already, submitted with the same key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existing: bool,
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
    /// The operation that may still be rolled back; its end is at `/v1/sagas/ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<u64>,
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

/// What a scrub of the event log's files came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScrubReply {
    /// What was found that nobody had dealt with, in words. None: all was sound.
    pub flaws: Vec<String>,
    /// The last line that the checkpoint made for it covers.
    #[serde(default)]
    pub checkpoint: Option<u64>,
    /// Copies of damage in `quarantine/`.
    #[serde(default)]
    pub kept: usize,
    /// Whether all is sound now.
    pub sound: bool,
    /// Why not.
    #[serde(default)]
    pub why: Option<String>,
}
