//! What a job is: the configuration after it has been read, checked and resolved.
//!
//! Everything here is already decided: variables are substituted, instances are expanded, defaults are
//! filled in. Text that the kernel takes as bytes (arguments, environment, paths) is UTF-8 because TOML is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::circuit::Breaker;
use super::group::GroupSpec;
use super::hook::Hooks;
use super::ids::{JobName, QueueName};
use super::time::Millis;
use super::watch::{FrozenStep, Ready, Watch, on_frozen};

/// A service is kept up; a task runs to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Keep it up.
    #[default]
    Service,
    /// Run it to its end.
    Task,
}

/// When an ended run is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// However it ended.
    Always,
    /// Unless it exited with a success code.
    OnFailure,
    /// Never.
    Never,
}

/// Waiting time before a restart: `min(max, initial * factor^n)`, plus up to `jitter` of it at random.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// Before the first restart.
    pub initial: Millis,
    /// Growth from one restart to the next; 1.0 keeps the delay constant.
    pub factor: f64,
    /// Upper limit.
    pub max: Millis,
    /// Share of the delay added at random, 0.0 to 1.0.
    pub jitter: f64,
    /// A run that lasted this long starts the series anew.
    pub reset_after: Millis,
}

/// More than `count` starts within `within` end in the state fatal. A count of 0 switches the limit off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartLimit {
    /// Starts allowed.
    pub count: u32,
    /// The window.
    pub within: Millis,
}

/// One rung of the stop ladder; after the last one comes `KILL`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopStep {
    /// What is done.
    pub act: StopAct,
    /// How long it is given before the next rung.
    pub timeout: Millis,
}

/// What one rung does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopAct {
    /// Send this signal; `CONT` follows so that a stopped process can hear it.
    Signal(i32),
    /// Run this command, with `OUTLIVE_PID` set to the main process.
    Command(Vec<String>),
}

/// Whom signals reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillScope {
    /// The stop signal to the main process, `KILL` to the whole tree.
    #[default]
    Mixed,
    /// Everything to the whole tree.
    Tree,
    /// Everything to the process group.
    Group,
    /// Everything to the main process alone.
    Process,
}

/// What happens to processes that outlive the main process of their run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leftovers {
    /// They are stopped by the same ladder.
    #[default]
    Stop,
    /// The run is over when they have ended by themselves.
    Wait,
    /// They are left alone, and the next run may start beside them.
    Ignore,
}

/// What happens to a run when the supervisor dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnSupervisorDeath {
    /// It goes on.
    #[default]
    Keep,
    /// It is killed at once.
    Kill,
    /// It is killed if no supervisor is back within this time.
    KillAfter(Millis),
}

/// What follows when nobody can know how a run ended: after the death of the host, or of all of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recovery {
    /// What the restart policy says of a failure.
    #[default]
    Auto,
    /// It has failed: no other run in this life of the instance.
    Fail,
    /// Somebody has to look: no other run until an operator starts it.
    Manual,
}

/// How old the last sign of life of a lost task may be for another run to follow, unless configured.
const RECOVERY_TIMEOUT: Millis = Millis::from_secs(30 * 60);

const fn recovery_timeout() -> Millis {
    RECOVERY_TIMEOUT
}

/// How output is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputMode {
    /// Both streams in one series of files, in the order of arrival; the index tells them apart.
    #[default]
    Merged,
    /// A series of files for each stream.
    Separate,
    /// Not captured: both streams are `/dev/null`.
    None,
}

/// What happens when the disk refuses captured bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLogStall {
    /// The bytes wait in the pipe; the job waits when the pipe is full.
    #[default]
    Block,
    /// The bytes are thrown away and counted.
    Drop,
}

/// Capture settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Which files.
    pub mode: OutputMode,
    /// A segment is closed at the first line end after this many bytes. 0: never.
    pub max_size: u64,
    /// Closed segments kept per stream and run; the oldest goes first.
    pub keep: u32,
    /// Whether closed segments are compressed.
    pub compress: bool,
    /// When the disk refuses.
    pub on_log_stall: OnLogStall,
    /// Directory for output instead of the run directory, which then links to it.
    pub dir: Option<String>,
}

/// What a job reads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// A pipe that is kept open for `outlive send`.
    Keep,
    /// This file.
    File(String),
}

/// A resource limit; `None` is "unlimited".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Soft limit.
    pub soft: Option<u64>,
    /// Hard limit.
    pub hard: Option<u64>,
}

/// A job, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Its name; instances are jobs of their own.
    pub name: JobName,
    /// Service or task.
    pub kind: Kind,
    /// The argument vector; never empty. A relative program without `/` is searched in the job's `PATH`.
    pub command: Vec<String>,
    /// Variables set for the job, on top of what is inherited.
    pub env: BTreeMap<String, String>,
    /// Names inherited from the environment of `outlive up`; `None`: all of them.
    pub inherit_env: Option<Vec<String>>,
    /// Working directory; `None`: that of the configuration file.
    pub cwd: Option<String>,
    /// User name or number.
    pub user: Option<String>,
    /// Group name or number; `None`: the user's.
    pub group: Option<String>,
    /// File creation mask.
    pub umask: Option<u32>,
    /// Limits by name (`nofile`, `core`, …).
    pub rlimits: BTreeMap<String, Rlimit>,
    /// Niceness, -20 to 19.
    pub nice: Option<i32>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Whether it is started with the instance.
    pub autostart: bool,
    /// Restart policy.
    pub restart: Restart,
    /// Exit codes that count as success.
    pub success_codes: Vec<i32>,
    /// Delay between restarts.
    pub backoff: Backoff,
    /// When to give up.
    pub start_limit: StartLimit,
    /// A run that ends earlier than this counts as a failed start, whatever its code; only then is the
    /// job `running` for those that depend on it.
    pub start_grace: Millis,
    /// How it is stopped; `KILL` follows the last step.
    pub stop: Vec<StopStep>,
    /// Whom signals reach.
    pub kill_scope: KillScope,
    /// What outlives the main process.
    pub leftovers: Leftovers,
    /// Jobs that are started before this one and stopped after it.
    pub depends_on: Vec<JobName>,
    /// Capture.
    pub output: Output,
    /// What it reads.
    pub stdin: Stdin,
    /// Fate at the supervisor's death.
    pub on_supervisor_death: OnSupervisorDeath,
    /// What follows when it is not known how a run ended.
    #[serde(default)]
    pub recovery: Recovery,
    /// A lost task whose last sign of life is older than this has failed, whatever its restart policy.
    #[serde(default = "recovery_timeout")]
    pub recovery_timeout: Millis,
    /// What becomes of everything else when it is given up.
    #[serde(default)]
    pub on_fatal: OnFatal,
    /// Which jobs are stopped first when the host has too little of something: those of the lowest. Of those in a
    /// queue the highest goes first.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub priority: i32,
    /// How its runs are watched; `None`: their end alone. Few jobs have it, and it is large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Box<Watch>>,
    /// Commands around its runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Box<Hooks>>,
    /// The argument vector of a run that goes on where an earlier one left a token; `{token}` stands for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_command: Option<Box<[String]>>,
    /// The jobs it belongs together with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_group: Option<Box<GroupSpec>>,
    /// After which time a job that was given up is tried again; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_fatal: Option<Millis>,
    /// When no start is made for a while; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Box<Breaker>>,
    /// In which queue its starts wait for their turn; `None`: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// How often a run that failed is followed by another, at most; `None`: as the start limit says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Whoever submits with the same key means this very job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Box<str>>,
}

/// What becomes of everything else when a job is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFatal {
    /// Nothing.
    #[default]
    Nothing,
    /// All other jobs are stopped, until somebody starts them.
    StopAll,
    /// The instance ends, in order, with the exit code of the job.
    Exit,
}

impl JobSpec {
    /// How its runs tell that they are ready, if they do.
    #[must_use]
    pub fn ready(&self) -> Option<&Ready> {
        self.watch.as_ref()?.ready.as_ref()
    }

    /// What is done about a run of it that hangs.
    #[must_use]
    pub fn frozen_ladder(&self) -> Vec<FrozenStep> {
        self.watch.as_ref().map_or_else(|| on_frozen().to_vec(), |watch| watch.frozen_ladder())
    }

    /// A service with every setting at its default; the defaults of the configuration are these. (A task
    /// differs in one: it is not restarted.)
    #[must_use]
    pub fn new(name: JobName, command: Vec<String>) -> Self {
        Self {
            name,
            kind: Kind::Service,
            command,
            env: BTreeMap::new(),
            inherit_env: None,
            cwd: None,
            user: None,
            group: None,
            umask: None,
            rlimits: BTreeMap::new(),
            nice: None,
            oom_score_adj: None,
            autostart: true,
            restart: Restart::Always,
            success_codes: vec![0],
            backoff: Backoff {
                initial: Millis(200),
                factor: 2.0,
                max: Millis::from_secs(60),
                jitter: 0.1,
                reset_after: Millis::from_secs(60),
            },
            start_limit: StartLimit { count: 10, within: Millis::from_secs(60) },
            start_grace: Millis(0),
            stop: vec![StopStep {
                act: StopAct::Signal(super::signal::TERM),
                timeout: Millis::from_secs(10),
            }],
            kill_scope: KillScope::Mixed,
            leftovers: Leftovers::Stop,
            depends_on: Vec::new(),
            output: Output {
                mode: OutputMode::Merged,
                max_size: 50 * 1024 * 1024,
                keep: 10,
                compress: true,
                on_log_stall: OnLogStall::Block,
                dir: None,
            },
            stdin: Stdin::Null,
            on_supervisor_death: OnSupervisorDeath::Keep,
            recovery: Recovery::Auto,
            recovery_timeout: RECOVERY_TIMEOUT,
            on_fatal: OnFatal::Nothing,
            priority: 0,
            watch: None,
            hooks: None,
            resume_command: None,
            in_group: None,
            retry_fatal: None,
            breaker: None,
            queue: None,
            retries: None,
            key: None,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_nought(n: &i32) -> bool {
    *n == 0
}
