//! How a run ended. Never folded into one number, and never 0 for "unknown".

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::time::Stamp;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// It called `exit` with this code (0 to 255).
    Exited {
        /// The exit code.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether it dumped core.
        core: bool,
    },
    /// The kernel's out-of-memory killer ended it.
    OomKilled,
    /// It never ran: this step on the way to `execve` failed.
    NotStarted {
        /// What was being done: `chdir`, `user`, `exec`, …
        step: String,
        /// The error number; 0 when the step failed without one.
        errno: i32,
    },
    /// It was cancelled before it ran.
    Cancelled,
    /// It ended, or may have ended, and nobody who could know how is left.
    Lost {
        /// Why it cannot be known.
        why: String,
    },
}

impl Outcome {
    /// The exit code a shell would report: the code, `128 + signal`, 127 for a missing command, 126 for
    /// one that cannot be executed, 125 for anything that cannot be known or never ran.
    #[must_use]
    pub fn shell_code(&self) -> u8 {
        match self {
            Self::Exited { code } => u8::try_from(*code & 0xff).unwrap_or(125),
            Self::Signaled { signal, .. } => u8::try_from(128 + signal).unwrap_or(255),
            Self::OomKilled => 137,
            Self::NotStarted { step, errno } if step == "exec" && *errno == libc_enoent() => 127,
            Self::NotStarted { step, .. } if step == "exec" => 126,
            Self::NotStarted { .. } | Self::Cancelled | Self::Lost { .. } => 125,
        }
    }

    /// One phrase for people: `exit 3`, `signal 9 (KILL)`, `never started: chdir: …`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Exited { code } => format!("exit {code}"),
            Self::Signaled { signal, core } => {
                let name = super::signal::name(*signal).unwrap_or("?");
                format!("signal {signal} ({name}){}", if *core { ", core dumped" } else { "" })
            }
            Self::OomKilled => "killed: out of memory".to_owned(),
            Self::NotStarted { step, errno } if *errno == 0 => format!("never started: {step}"),
            Self::NotStarted { step, errno } => {
                format!("never started: {step}: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Self::Cancelled => "cancelled before it ran".to_owned(),
            Self::Lost { why } => format!("lost: {why}"),
        }
    }
}

/// How a run ended that somebody asked to end, in words: with what was wrong with it, if that is why.
#[must_use]
pub fn words(outcome: &Outcome, asked: &Asked) -> String {
    match asked {
        Asked::Health { why, .. } | Asked::Group { why, .. } => format!("{why}: {}", outcome.describe()),
        _ => outcome.describe(),
    }
}

/// ENOENT is 2 on every Linux; `core` does without libc.
const fn libc_enoent() -> i32 {
    2
}

/// Who or what asked for the end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// Nobody: it ended by itself.
    #[default]
    Nobody,
    /// An operator, by a request: user id and verb.
    Operator {
        /// User id of the peer on the control socket.
        uid: u32,
        /// `stop`, `restart`, `signal`, `shutdown`, …
        verb: String,
    },
    /// A configuration change.
    Reload,
    /// The instance was shutting down.
    Shutdown,
    /// `on_supervisor_death` of the job.
    SupervisorDeath,
    /// A rule of the job itself: a leftover of the run before, a start limit, a dependency.
    Policy {
        /// Which rule.
        rule: String,
    },
    /// It was judged unwell. Its end counts as a failure, whatever its exit code.
    Health {
        /// What was wrong.
        fault: Fault,
        /// The same in words.
        why: String,
        /// Whether the restart policy has the word; else the job is given up.
        again: bool,
    },
    /// The group it belongs to was given up. Its end counts as a failure, and it is not run again by itself.
    Group {
        /// Which.
        group: String,
        /// Why.
        why: String,
    },
}

impl Asked {
    /// Whether a run that ended by this has failed.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Health { .. } | Self::Group { .. })
    }

    /// What was wrong with the run, if that is why it was ended.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match self {
            Self::Health { fault, .. } => Some(*fault),
            _ => None,
        }
    }
}

/// Resource use of the main process and its waited-for children, from `wait4(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rusage {
    /// User CPU time in microseconds.
    pub user_us: u64,
    /// System CPU time in microseconds.
    pub system_us: u64,
    /// Largest resident set in KiB.
    pub max_rss_kib: u64,
}

/// Where an outcome was learnt. The sources are named so that a reader can judge them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Init waited for it.
    Wait,
    /// `PIDFD_INFO_EXIT`, from a descriptor held since before the end (Linux 6.15).
    PidfdInfo,
    /// The exit code field of a zombie's `/proc/PID/stat`, readable by root.
    ProcStat,
    /// The keeper itself: the child never reached `execve`.
    Keeper,
    /// Nobody knows.
    None,
}

/// What `exit.json` holds: everything known about the end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Version of this layout.
    pub v: u32,
    /// The run.
    pub run: super::ids::RunId,
    /// Its job.
    pub job: super::ids::JobName,
    /// How it ended.
    pub outcome: Outcome,
    /// Where that was learnt.
    pub source: Source,
    /// Who asked the keeper to signal it, as told by the supervisor.
    pub asked: Asked,
    /// When it started, if it did.
    pub started: Option<Stamp>,
    /// When its end was seen.
    pub ended: Stamp,
    /// Resource use, where the kernel told.
    pub rusage: Option<Rusage>,
    /// Bytes captured from stdout (all bytes, in merged mode) when the record was written.
    pub stdout_bytes: u64,
    /// Bytes captured from stderr in separate mode.
    pub stderr_bytes: u64,
    /// Bytes thrown away because the disk refused them and the policy was `drop`.
    pub dropped_bytes: u64,
    /// False if bytes may still be in the pipe: a descendant holds it, or the disk refuses.
    pub output_complete: bool,
}
