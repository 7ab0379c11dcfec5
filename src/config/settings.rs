//! `[supervisor]`: settings of the instance itself.

use serde::{Deserialize, Serialize};

use crate::core::time::Millis;

use super::job::{Context, duration, mode};
use super::node::Node;
use super::queues::SLOTS_MAX;
use super::substitute;
use super::users::Account;

/// Every key of `[supervisor]`.
pub(super) const SUPERVISOR_KEYS: &[&str] = &[
    "shutdown_timeout",
    "socket_mode",
    "socket_group",
    "log_level",
    "keep_runs",
    "recovery_start_rate",
    "on_unreadable_log",
    "slots",
];

/// Settings of the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorSettings {
    /// After this, a shutdown kills what is left.
    pub shutdown_timeout: Millis,
    /// Mode of the control socket.
    pub socket_mode: u32,
    /// Group of the control socket, by name or number; `None`: that of the supervisor.
    pub socket_group: Option<String>,
    /// What the supervisor says about itself.
    pub log_level: LogLevel,
    /// Ended runs kept for each job, at least 1.
    pub keep_runs: u32,
    /// Jobs started again by recovery in a second; 0: as fast as possible.
    #[serde(default = "recovery_start_rate")]
    pub recovery_start_rate: u32,
    /// What a start does when nothing of the event log can be read.
    #[serde(default)]
    pub on_unreadable_log: OnUnreadableLog,
    /// Runs of all queues together, at most; `None`: as many as the queues have slots.
    #[serde(default)]
    pub slots: Option<u32>,
}

/// What a start does when there was an event log and nothing of it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnreadableLog {
    /// Runs that live are adopted, and nothing is started unless asked for.
    #[default]
    RecoveryMode,
    /// The instance ends and leaves everything as it is.
    Exit,
    /// Runs that live are adopted, and what is wanted is started.
    Fresh,
}

impl OnUnreadableLog {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RecoveryMode => "recovery-mode",
            Self::Exit => "exit",
            Self::Fresh => "fresh",
        }
    }
}

const fn recovery_start_rate() -> u32 {
    100
}

/// How much the supervisor says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// What went wrong.
    Error,
    /// Also what looks wrong.
    Warn,
    /// Also what is done.
    #[default]
    Info,
    /// Also why.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Default for SupervisorSettings {
    fn default() -> Self {
        Self {
            shutdown_timeout: Millis::from_secs(60),
            socket_mode: 0o600,
            socket_group: None,
            log_level: LogLevel::Info,
            keep_runs: 20,
            recovery_start_rate: recovery_start_rate(),
            on_unreadable_log: OnUnreadableLog::default(),
            slots: None,
        }
    }
}

/// Reads `[supervisor]`.
pub(super) fn read(context: &Context<'_>, node: &Node<'_>) -> SupervisorSettings {
    let mut settings = SupervisorSettings::default();
    let Some(table) = node.table("a table", SUPERVISOR_KEYS) else { return settings };
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]
        .map(|level| (level.as_str(), level));
    let timeout = table.get("shutdown_timeout").and_then(|n| duration(&n));
    settings.shutdown_timeout = timeout.unwrap_or(settings.shutdown_timeout);
    settings.socket_mode = table.get("socket_mode").and_then(|n| mode(&n)).unwrap_or(settings.socket_mode);
    settings.socket_group = table.get("socket_group").and_then(|n| group(context, &n));
    settings.log_level = table.get("log_level").and_then(|n| n.choice(&levels)).unwrap_or_default();
    let keep = table.get("keep_runs").and_then(|n| n.integer(1..=1_000_000));
    settings.keep_runs = keep.unwrap_or(settings.keep_runs);
    let rate = table.get("recovery_start_rate").and_then(|n| n.integer(0..=1_000_000));
    settings.recovery_start_rate = rate.unwrap_or(settings.recovery_start_rate);
    let policies = [OnUnreadableLog::RecoveryMode, OnUnreadableLog::Exit, OnUnreadableLog::Fresh]
        .map(|policy| (policy.as_str(), policy));
    settings.on_unreadable_log =
        table.get("on_unreadable_log").and_then(|n| n.choice(&policies)).unwrap_or_default();
    settings.slots = table.get("slots").and_then(|n| n.integer(0..=SLOTS_MAX));
    settings
}

fn group(context: &Context<'_>, node: &Node<'_>) -> Option<String> {
    if let toml::de::DeValue::Integer(_) = node.value {
        return node.integer(0..=u32::MAX - 1).map(|id| id.to_string());
    }
    let text = node.string("a name or a number")?;
    let checked = substitute::substitute(text, context.env).and_then(|name| {
        let name = substitute::shown(&name);
        context.accounts.check(Account::Group, &name).map(|()| name)
    });
    checked.map_err(|bad| node.bad(bad)).ok()
}
