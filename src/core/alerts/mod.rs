//! When somebody should look: rules on a few figures.
//!
//! Each rule has a threshold to raise an alert and another one to clear it, so that a figure at the limit does not
//! make it come and go; a least number of occurrences, below which a share says nothing; and a pause before a cleared
//! alert is raised again. What is raised and cleared is an event each, so it survives whoever raised it.
//!
//! A figure that nobody knows neither raises nor clears anything.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::event::Event;
use super::ids::JobName;
use super::time::{Millis, Stamp};

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
    /// A job comes and goes.
    Flapping,
    /// The disk of the state directory is nearly full.
    DiskFull,
    /// The host has hardly any memory left.
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
    use Bad::{Above, Below, From};
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
        rule(Id::DiskFull, Critical, Above, (95.0, 90.0), 1, 60),
        rule(Id::MemoryHigh, Warning, Above, (95.0, 90.0), 1, 60),
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
        };
        beyond && figure.count >= self.min
    }

    /// Whether this clears it.
    #[must_use]
    pub fn is_good(&self, value: f64) -> bool {
        match self.bad {
            Bad::Below => value >= self.clear,
            Bad::Above | Bad::From => value <= self.clear,
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
    /// How often it came up and went down within [`SHORT_WINDOW`], without being asked to.
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
    /// How full the disk of the state directory is, in percent.
    pub disk_percent: Option<Figure>,
    /// How much of the host's memory is in use, in percent.
    pub memory_percent: Option<Figure>,
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

/// What the figures come to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Verdict {
    /// What changes.
    pub changes: Vec<Change>,
    /// When the figures have to be looked at again although nothing happens; `None`: never.
    pub again: Option<Millis>,
}

/// Applies all rules.
#[must_use]
pub fn judge(known: &Alerts, figures: &Figures, now: Stamp) -> Verdict {
    let mut verdict = Verdict::default();
    let mut raised = known.raised.len();
    for rule in &RULES {
        for (subject, figure) in subjects(rule, known, figures) {
            let Some(figure) = figure else { continue };
            let alert = || Alert {
                id: rule.id.as_str().to_owned(),
                message: words(rule, &subject, figure, figures),
                subject: subject.clone(),
                severity: rule.severity,
                value: (figure.value * 1000.0).round() / 1000.0,
                threshold: rule.raise,
            };
            if known.find(rule.id.as_str(), &subject).is_some() {
                if rule.is_good(figure.value) {
                    raised -= 1;
                    verdict.changes.push(Change::Clear(alert()));
                }
            } else if rule.is_bad(figure) {
                match known.pause(rule, &subject, now) {
                    Some(left) => soon(&mut verdict.again, left),
                    None if raised < RAISED_MAX => {
                        raised += 1;
                        verdict.changes.push(Change::Raise(alert()));
                    }
                    None => {}
                }
            }
        }
    }
    if raised > 0 {
        soon(&mut verdict.again, AGAIN);
    }
    // Those that have been up for nearly long enough.
    for job in figures.jobs.values().filter(|job| job.in_a_row() > 0) {
        if let Some(left) = job.up_for.and_then(|up| STEADY.0.checked_sub(up.0)) {
            soon(&mut verdict.again, Millis(left.max(1)));
        }
    }
    verdict
}

fn soon(again: &mut Option<Millis>, in_ms: Millis) {
    *again = Some(again.map_or(in_ms, |known| known.min(in_ms)));
}

/// Whom a rule is about, and the figure of each.
fn subjects(rule: &Rule, known: &Alerts, figures: &Figures) -> Vec<(String, Option<Figure>)> {
    let of_job = |value: u64| {
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let value = value as f64;
        Some(Figure { value, count: 1 })
    };
    let figure = match rule.id {
        Id::RecoveryFailureRateHigh => figures.success_percent,
        Id::RecoveryTimeHigh => figures.recovery_seconds,
        Id::DataLossHigh => figures.loss_percent,
        Id::CorruptionHigh => figures.damage_percent,
        Id::AvailabilityLow => figures.up_percent,
        Id::DiskFull => figures.disk_percent,
        Id::MemoryHigh => figures.memory_percent,
        Id::SyncFailures => figures.failed_writes,
        Id::CrashLoop | Id::Flapping => {
            let crashes = rule.id == Id::CrashLoop;
            let count = |job: &JobFigures| if crashes { u64::from(job.in_a_row()) } else { job.changes };
            let mut all: Vec<_> =
                figures.jobs.iter().map(|(name, job)| (name.to_string(), of_job(count(job)))).collect();
            let here = |raised: &&Raised| raised.alert.id == rule.id.as_str();
            for raised in known.raised.iter().filter(here) {
                if !figures.jobs.keys().any(|name| name.as_str() == raised.alert.subject) {
                    all.push((raised.alert.subject.clone(), of_job(0)));
                }
            }
            return all;
        }
    };
    vec![(INSTANCE.to_owned(), figure)]
}

fn words(rule: &Rule, subject: &str, figure: Figure, figures: &Figures) -> String {
    let (value, count) = (figure.value, figure.count);
    match rule.id {
        Id::RecoveryFailureRateHigh => {
            format!("{value:.1} % of {count} incidents within an hour were recovered")
        }
        Id::RecoveryTimeHigh => format!("{count} recoveries within an hour took {value:.1} s on average"),
        Id::DataLossHigh => format!("{value:.2} % of {count} entries of the event log are missing"),
        Id::CorruptionHigh => format!("{value:.2} % of {count} entries of the event log were damaged"),
        Id::AvailabilityLow => format!("services were up for {value:.2} % of the time they were wanted"),
        Id::DiskFull => format!("the disk of the state directory is {value:.0} % full"),
        Id::MemoryHigh => format!("{value:.0} % of the memory is in use"),
        Id::SyncFailures => {
            format!("{value:.0} writes of the event log failed within ten minutes, or still wait")
        }
        Id::CrashLoop => {
            let job = figures.jobs.iter().find(|(name, _)| name.as_str() == subject).map(|(_, job)| job);
            match job {
                Some(JobFigures { given_up: Some(why), wanted: true, .. }) => {
                    format!("{subject} was given up: {why}")
                }
                _ if value > 0.0 => format!("{subject} has failed {value:.0} times in a row"),
                _ => format!("{subject} does not fail any more"),
            }
        }
        Id::Flapping => format!("{subject} came up or went down {value:.0} times within ten minutes"),
    }
}

/// How long services were wanted, and up, minute by minute for an hour. Of this supervisor only.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Uptime {
    /// Number of the minute, milliseconds wanted, milliseconds up, milliseconds with any that is wanted.
    minutes: VecDeque<(u64, [u64; 3])>,
    /// Since when how many are wanted, and how many of them are up.
    last: Option<(u64, u64, u64)>,
}

impl Uptime {
    /// From now on so many services are wanted, and so many of them are up.
    pub fn note(&mut self, boot_us: u64, wanted: u64, up: u64) {
        let minute = boot_us / 60_000_000;
        if let Some((since, wanted, up)) = self.last {
            let ms = boot_us.saturating_sub(since) / 1000;
            let times = [wanted.saturating_mul(ms), up.saturating_mul(ms), if wanted > 0 { ms } else { 0 }];
            match self.minutes.back_mut().filter(|last| last.0 == minute) {
                Some((_, known)) => known.iter_mut().zip(times).for_each(|(known, time)| *known += time),
                None => self.minutes.push_back((minute, times)),
            }
        }
        self.last = Some((boot_us, wanted, up));
        while self.minutes.front().is_some_and(|first| first.0 + 60 < minute) {
            self.minutes.pop_front();
        }
    }

    /// How long they were up of the time they were wanted, in percent, and of how many seconds that is.
    #[must_use]
    pub fn percent(&self) -> Option<Figure> {
        let sum = |n: usize| self.minutes.iter().map(|(_, times)| times[n]).sum::<u64>();
        let (wanted, up, all) = (sum(0), sum(1), sum(2));
        (wanted > 0).then(|| Figure { count: all / 1000, ..Figure::share(up, wanted) })
    }
}

#[cfg(test)]
mod tests;
