//! When somebody should look: rules on a few figures.
//!
//! Each rule has a threshold to raise an alert and another one to clear it, so that a figure at the limit does not
//! make it come and go; a least number of occurrences, below which a share says nothing; and a pause before a cleared
//! alert is raised again. What is raised and cleared is an event each, so it survives whoever raised it.
//!
//! A figure that nobody knows neither raises nor clears anything.
//!
//! How full disks and memory are is judged by the checks of the host, with their limits, their patience and their
//! clearance: what is raised about them says that such a check has failed.

mod judge;
mod uptime;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::event::Event;
use super::host::{Kind, Share};
use super::ids::JobName;
use super::time::{Millis, Stamp};

pub use judge::{Verdict, changes, judge};
pub use uptime::Uptime;

/// Alerts that are raised at a time; more would tell nobody anything.
pub const RAISED_MAX: usize = 100;

/// Cleared alerts that are remembered, the latest.
pub const CLEARED_MAX: usize = 100;

/// How long a job that has failed over and over has to be up before that is over.
pub const STEADY: Millis = Millis::from_secs(10);

/// How far back rates and mean times look.
pub const WINDOW: Millis = Millis::from_secs(3600);

/// How far back changes of a job, and failed writes, are counted.
pub const SHORT_WINDOW: Millis = Millis::from_secs(600);

/// How often figures are looked at again while something is raised.
pub const AGAIN: Millis = Millis::from_secs(30);

/// What the subject of an alert about everything is called.
pub const INSTANCE: &str = "instance";

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody has to look now.
    Critical,
    /// Somebody has to look.
    Warning,
}

impl Severity {
    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// Which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// Incidents end with a job that is given up.
    RecoveryFailureRateHigh,
    /// Jobs take long to be up again.
    RecoveryTimeHigh,
    /// Lines of the event log are missing.
    DataLossHigh,
    /// Services that are wanted are not up.
    AvailabilityLow,
    /// A job fails over and over, or was given up.
    CrashLoop,
    /// A job is up for a while, goes, and comes again.
    Flapping,
    /// A file system that we write to is nearly full.
    DiskFull,
    /// The host, or the control group around us, has hardly any memory left.
    MemoryHigh,
    /// The event log cannot be written, or its disk does not answer.
    SyncFailures,
    /// Lines of the event log were damaged.
    CorruptionHigh,
}

impl Id {
    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RecoveryFailureRateHigh => "RECOVERY_FAILURE_RATE_HIGH",
            Self::RecoveryTimeHigh => "RECOVERY_TIME_HIGH",
            Self::DataLossHigh => "DATA_LOSS_HIGH",
            Self::AvailabilityLow => "AVAILABILITY_LOW",
            Self::CrashLoop => "CRASH_LOOP",
            Self::Flapping => "FLAPPING",
            Self::DiskFull => "DISK_FULL",
            Self::MemoryHigh => "MEMORY_HIGH",
            Self::SyncFailures => "SYNC_FAILURES",
            Self::CorruptionHigh => "CORRUPTION_HIGH",
        }
    }
}

/// On which side of the threshold it is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Below it.
    Below,
    /// Above it.
    Above,
    /// On it, and above.
    From,
    /// A check of the host says so.
    Checked,
}

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Which.
    pub id: Id,
    /// How much it matters.
    pub severity: Severity,
    /// Where it is bad.
    pub bad: Bad,
    /// The threshold to raise.
    pub raise: f64,
    /// The one to clear: on it, and on its good side.
    pub clear: f64,
    /// Fewer occurrences raise nothing.
    pub min: u64,
    /// After it was cleared, it is not raised again for so long.
    pub cooldown: Millis,
}

/// All rules.
#[rustfmt::skip]
pub const RULES: [Rule; 10] = {
    use Bad::{Above, Below, Checked, From};
    use Severity::{Critical, Warning};
    const fn rule(id: Id, severity: Severity, bad: Bad, (raise, clear): (f64, f64), min: u64, secs: u64) -> Rule {
        Rule { id, severity, bad, raise, clear, min, cooldown: Millis::from_secs(secs) }
    }
    [
        rule(Id::RecoveryFailureRateHigh, Critical, Below, (99.0, 99.5), 10, 60),
        rule(Id::RecoveryTimeHigh, Warning, Above, (30.0, 20.0), 3, 60),
        rule(Id::DataLossHigh, Critical, Above, (0.1, 0.05), 1, 60),
        // Ten minutes.
        rule(Id::AvailabilityLow, Warning, Below, (99.9, 99.95), 600, 60),
        rule(Id::CrashLoop, Critical, From, (5.0, 0.0), 1, 30),
        rule(Id::Flapping, Warning, From, (6.0, 2.0), 1, 60),
        rule(Id::DiskFull, Critical, Checked, (0.0, 0.0), 1, 60),
        rule(Id::MemoryHigh, Warning, Checked, (0.0, 0.0), 1, 60),
        rule(Id::SyncFailures, Critical, From, (1.0, 0.0), 1, 0),
        rule(Id::CorruptionHigh, Critical, Above, (5.0, 2.5), 1, 60),
    ]
};

impl Rule {
    /// Whether this raises it.
    #[must_use]
    pub fn is_bad(&self, figure: Figure) -> bool {
        let beyond = match self.bad {
            Bad::Below => figure.value < self.raise,
            Bad::Above => figure.value > self.raise,
            Bad::From => figure.value >= self.raise,
            Bad::Checked => false,
        };
        beyond && figure.count >= self.min
    }

    /// Whether this clears it.
    #[must_use]
    pub fn is_good(&self, value: f64) -> bool {
        match self.bad {
            Bad::Below => value >= self.clear,
            Bad::Above | Bad::From => value <= self.clear,
            Bad::Checked => false,
        }
    }
}

/// A figure, and of how many occurrences it is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figure {
    /// The figure.
    pub value: f64,
    /// Of how many.
    pub count: u64,
}

impl Figure {
    /// So many of all, in percent.
    #[must_use]
    pub fn share(part: u64, of: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let value = if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 };
        Self { value, count: of }
    }
}

/// What is known of a job that may be in trouble.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobFigures {
    /// Failures in a row.
    pub failures: u32,
    /// Why it was given up, if it was.
    pub given_up: Option<String>,
    /// How long it has been up by now.
    pub up_for: Option<Millis>,
    /// Whether it is wanted.
    pub wanted: bool,
    /// How often it came up and went down within [`SHORT_WINDOW`], see [`changes`].
    pub changes: u64,
}

impl JobFigures {
    /// Failures in a row, as long as nothing says that they are over.
    #[must_use]
    pub fn in_a_row(&self) -> u32 {
        let over = !self.wanted || self.up_for.is_some_and(|up| up.0 >= STEADY.0);
        match (&self.given_up, over) {
            (Some(_), _) if self.wanted => self.failures.max(5),
            (_, true) => 0,
            (_, false) => self.failures,
        }
    }
}

/// What a check of the host says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFigures {
    /// What it is about.
    pub kind: Kind,
    /// Whether it has failed; `None`: it has not said anything yet.
    pub failed: Option<bool>,
    /// How much is in use.
    pub share: Share,
    /// From where on it fails.
    pub limit: Share,
    /// The same in words.
    pub words: String,
}

/// What the rules look at; `None`: nobody knows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// Incidents that were recovered, in percent of those that are over, within [`WINDOW`].
    pub success_percent: Option<Figure>,
    /// How long recoveries took within [`WINDOW`], the mean, in seconds.
    pub recovery_seconds: Option<Figure>,
    /// Lines of the event log that are missing, in percent.
    pub loss_percent: Option<Figure>,
    /// Lines of the event log that were damaged, in percent.
    pub damage_percent: Option<Figure>,
    /// How long services were up of the time they were wanted, in percent; the count is in seconds.
    pub up_percent: Option<Figure>,
    /// Checks of how full disks and memory are, by their names; one that is not here is not made.
    pub checks: Option<BTreeMap<String, CheckFigures>>,
    /// Writes of the event log that failed within [`SHORT_WINDOW`], and disks that do not answer now.
    pub failed_writes: Option<Figure>,
    /// Jobs that may be in trouble; one that is not here is in none.
    pub jobs: BTreeMap<JobName, JobFigures>,
}

/// An alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Which rule.
    pub id: String,
    /// A job, or `instance`.
    pub subject: String,
    /// How much it matters.
    pub severity: Severity,
    /// In words.
    pub message: String,
    /// The figure.
    pub value: f64,
    /// The threshold that it crossed.
    pub threshold: f64,
}

/// One that is raised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Raised {
    /// What.
    #[serde(flatten)]
    pub alert: Alert,
    /// Since when.
    pub since: Stamp,
}

/// One that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cleared {
    /// What, as it was when it was cleared.
    #[serde(flatten)]
    pub alert: Alert,
    /// Since when it was raised.
    pub since: Stamp,
    /// Until when.
    pub until: Stamp,
}

/// What is remembered of alerts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Alerts {
    /// Those that are raised, the oldest first.
    pub raised: Vec<Raised>,
    /// The latest that are over, the latest last.
    pub cleared: VecDeque<Cleared>,
}

impl Alerts {
    /// Whether there never was one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raised.is_empty() && self.cleared.is_empty()
    }

    fn find(&self, id: &str, subject: &str) -> Option<usize> {
        self.raised.iter().position(|known| known.alert.id == id && known.alert.subject == subject)
    }

    /// Whether it was cleared so recently that it is not raised again: what is left of the pause.
    fn pause(&self, rule: &Rule, subject: &str, now: Stamp) -> Option<Millis> {
        let same = |one: &&Cleared| one.alert.id == rule.id.as_str() && one.alert.subject == subject;
        let last = self.cleared.iter().rev().find(same)?;
        // The boot clock of another boot says nothing.
        let ago = u64::try_from(now.wall_us.checked_sub(last.until.wall_us)? / 1000).ok()?;
        rule.cooldown.0.checked_sub(ago).filter(|left| *left > 0).map(Millis)
    }
}

/// Remembers an event.
pub(super) fn note(all: &mut Arc<Alerts>, event: &Event, at: Stamp) {
    match event {
        Event::AlertRaised { alert } => {
            let all = Arc::make_mut(all);
            match all.find(&alert.id, &alert.subject) {
                Some(n) => all.raised[n].alert = (**alert).clone(),
                None if all.raised.len() < RAISED_MAX => {
                    all.raised.push(Raised { alert: (**alert).clone(), since: at });
                }
                None => {}
            }
        }
        Event::AlertCleared { alert } => {
            let Some(n) = all.find(&alert.id, &alert.subject) else { return };
            let all = Arc::make_mut(all);
            let since = all.raised.remove(n).since;
            while all.cleared.len() >= CLEARED_MAX {
                all.cleared.pop_front();
            }
            all.cleared.push_back(Cleared { alert: (**alert).clone(), since, until: at });
        }
        // Only these come here.
        other => debug_assert!(false, "{other:?} is not about an alert"),
    }
}

/// What follows from the figures.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It is raised.
    Raise(Alert),
    /// It is over.
    Clear(Alert),
}

/// Records them.
pub(super) fn record(d: &mut Draft<'_>, changes: &[Change]) {
    for change in changes {
        d.record(match change {
            Change::Raise(alert) => Event::AlertRaised { alert: Box::new(alert.clone()) },
            Change::Clear(alert) => Event::AlertCleared { alert: Box::new(alert.clone()) },
        });
    }
}

#[cfg(test)]
mod tests;
