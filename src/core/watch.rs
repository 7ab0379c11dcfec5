//! How a run is watched: what counts as a sign of life, how long it may be missing, and what is done then.
//!
//! Settings only; [`super::vigil`] judges by them.

use serde::{Deserialize, Serialize};

use super::time::Millis;

/// A run that is to tell when it is ready has this long unless configured otherwise: systemd's
/// `DefaultTimeoutStartSec=`.
pub const READY_TIMEOUT: Millis = Millis::from_secs(90);

/// A run that is to send `WATCHDOG=1`, and it is not said how often, has this long for each: three times the five
/// seconds in which it should.
pub const NOTIFY_TIMEOUT: Millis = Millis::from_secs(15);

/// A rung of the frozen ladder that waits, waits this long unless configured otherwise.
pub const STEP_WAIT: Millis = Millis::from_secs(1);

/// Everything that is watched of a run; empty: its end alone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// Signs of life, and how long each may be missing.
    #[serde(skip_serializing_if = "Heartbeat::is_empty")]
    pub heartbeat: Heartbeat,
    /// Questions that it has to answer.
    #[serde(skip_serializing_if = "Probes::is_empty")]
    pub probe: Probes,
    /// How it tells that it is ready; `None`: it is when its start grace is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
    /// How long a run may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_runtime: Option<Millis>,
    /// How long it may say nothing about its progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_timeout: Option<Millis>,
    /// What it may use.
    #[serde(skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// What is done about a run that hangs; `None`: [`on_frozen`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_frozen: Option<Vec<FrozenStep>>,
}

/// What is done about a run that hangs unless configured otherwise.
#[must_use]
pub const fn on_frozen() -> [FrozenStep; 4] {
    [
        FrozenStep::Continue { wait: STEP_WAIT },
        FrozenStep::Dump { signal: None, wait: Millis(0) },
        FrozenStep::Stop,
        FrozenStep::Restart,
    ]
}

/// Signs of life, each with the longest time it may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// `WATCHDOG=1` on the socket that `NOTIFY_SOCKET` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<Millis>,
    /// Output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Millis>,
    /// Use of the CPU, by any process of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Millis>,
    /// The modification time of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<BeatFile>,
}

impl Heartbeat {
    /// Whether nothing is configured.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.notify.is_none() && self.output.is_none() && self.cpu.is_none() && self.file.is_none()
    }
}

/// A file that a run touches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatFile {
    /// Where it is; absolute.
    pub path: String,
    /// The longest time between two touches.
    pub timeout: Millis,
}

/// Questions that a run has to answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Probes {
    /// Until it answers for the first time no other is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// Whether it can be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// Whether it works at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
}

impl Probes {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.startup.is_none() && self.readiness.is_none() && self.liveness.is_none()
    }

    /// The probe of a role.
    #[must_use]
    pub const fn of(&self, role: Role) -> Option<&Probe> {
        match role {
            Role::Startup => self.startup.as_ref(),
            Role::Readiness => self.readiness.as_ref(),
            Role::Liveness => self.liveness.as_ref(),
        }
    }
}

/// What a probe is for. The three roles are those of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Whether it has come up.
    Startup,
    /// Whether it can be used.
    Readiness,
    /// Whether it works at all.
    Liveness,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    /// The word as it is configured and printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        }
    }
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The question.
    pub ask: ProbeAsk,
    /// Between two of them. Each is put off by up to a tenth of it, so that many jobs are not asked at once.
    pub interval: Millis,
    /// How long an answer may take.
    pub timeout: Millis,
    /// Failures in a row that count as one.
    pub failures: u32,
    /// Successes in a row that count as one.
    pub successes: u32,
    /// From the start of the run to the first question.
    pub delay: Millis,
}

impl Probe {
    /// A probe with every other setting at its default: those of Kubernetes, but for the timeout, which is two
    /// seconds.
    #[must_use]
    pub const fn new(ask: ProbeAsk) -> Self {
        Self {
            ask,
            interval: Millis::from_secs(10),
            timeout: Millis::from_secs(2),
            failures: 3,
            successes: 1,
            delay: Millis(0),
        }
    }
}

/// The question of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeAsk {
    /// Run this command: exit code 0 is a yes.
    Exec(Vec<String>),
    /// Get this `http://` address: a status from 200 to 399 is a yes.
    Http(String),
    /// Connect to this `host:port`.
    Tcp(String),
    /// Connect to the unix socket at this path.
    Unix(String),
}

/// The port in what stands between `http://` and the path, or the usual one; none if there is no such port.
#[must_use]
pub fn http_port(authority: &str) -> Option<u16> {
    // A name and a password may stand before it, and the colons of an IPv6 address stand in brackets.
    let after = authority.rsplit(['@', ']']).next().unwrap_or_default();
    after.rsplit_once(':').map_or(Some(80), |(_, port)| port.parse().ok().filter(|port| *port > 0))
}

/// How a run tells that it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// By which way.
    pub by: ReadyBy,
    /// How long it may take; a run that is not ready by then is stopped and has failed.
    pub timeout: Millis,
}

/// The way by which a run tells that it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyBy {
    /// `READY=1` on the socket that `NOTIFY_SOCKET` names.
    Notify,
    /// A newline on this descriptor, as s6 has it.
    Fd(i32),
    /// A line of its output that matches this regular expression.
    Log(String),
    /// Its readiness probe, or else its startup probe, succeeds.
    Probe,
}

/// What a run, with all its processes, may use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Resident memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// CPU in percent of one core, on average over half a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Processes and threads, which the kernel counts alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// What is done when it uses more.
    pub on_exceed: OnExceed,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.memory.is_none() && self.cpu.is_none() && self.pids.is_none()
    }
}

/// What is done about a run that uses more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExceed {
    /// It is stopped, and has failed: the restart policy has the word.
    #[default]
    Restart,
    /// It is stopped, and the job is given up.
    Stop,
    /// It gets this signal, once each time.
    Signal(i32),
    /// It is said.
    Notify,
}

/// A rung of the ladder for a run that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrozenStep {
    /// `CONT` to all its processes, and a while to show signs of life.
    Continue {
        /// How long.
        wait: Millis,
    },
    /// What its processes are doing is written into the run directory.
    Dump {
        /// A signal on which it writes a dump itself: `QUIT` for Go and Java.
        signal: Option<i32>,
        /// How long it may take to do that.
        wait: Millis,
    },
    /// The stop ladder. Without [`FrozenStep::Restart`] the job is given up then.
    Stop,
    /// The stop ladder, and the restart policy has the word.
    Restart,
}

impl Watch {
    /// Whether nothing is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The ladder for a run that hangs.
    #[must_use]
    pub fn frozen_ladder(&self) -> Vec<FrozenStep> {
        self.on_frozen.clone().unwrap_or_else(|| on_frozen().to_vec())
    }

    /// Whether a run gets a socket to tell things by.
    #[must_use]
    pub fn listens(&self) -> bool {
        let ready = self.ready.as_ref().is_some_and(|ready| ready.by == ReadyBy::Notify);
        ready || self.heartbeat.notify.is_some() || self.progress_timeout.is_some()
    }

    /// The descriptor on which a run tells that it is ready.
    #[must_use]
    pub fn ready_fd(&self) -> Option<i32> {
        match self.ready.as_ref().map(|ready| &ready.by) {
            Some(ReadyBy::Fd(fd)) => Some(*fd),
            Some(ReadyBy::Notify | ReadyBy::Log(_) | ReadyBy::Probe) | None => None,
        }
    }

    /// Whether its processes are looked at from time to time.
    #[must_use]
    pub fn samples(&self) -> bool {
        !self.heartbeat.is_empty()
            || !self.limits.is_empty()
            || self.probe.liveness.is_some()
            || self.progress_timeout.is_some()
            || self.on_frozen.as_ref().is_some_and(|steps| !steps.is_empty())
    }
}
