//! What the rules make of figures.

use super::super::host::{Kind, Share};
use super::super::job::PastRun;
use super::super::stats::{Cause, between};
use super::super::time::{Millis, Stamp};
use super::{
    AGAIN, Alert, Alerts, Change, CheckFigures, Figure, Figures, INSTANCE, Id, JobFigures, RAISED_MAX, RULES,
    Rule, SHORT_WINDOW, STEADY,
};

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
        for found in found(rule, known, figures) {
            let alert = || Alert {
                id: rule.id.as_str().to_owned(),
                message: words(rule, &found, figures),
                subject: found.subject.clone(),
                severity: rule.severity,
                value: (found.figure.value * 1000.0).round() / 1000.0,
                threshold: found.threshold,
            };
            if known.find(rule.id.as_str(), &found.subject).is_some() {
                if found.good {
                    raised -= 1;
                    verdict.changes.push(Change::Clear(alert()));
                }
            } else if found.bad {
                match known.pause(rule, &found.subject, now) {
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

/// How often a job came up and went down lately, without being asked to. Only what was up for [`STEADY`] did: who
/// dies sooner fails over and over, and that is another alert.
#[must_use]
pub fn changes<'a>(runs: impl Iterator<Item = &'a PastRun>, now: Stamp) -> u64 {
    let is_late = |at: Stamp| between(at, now).is_some_and(|ago| ago.0 <= SHORT_WINDOW.0);
    let (mut count, mut asked) = (0, true);
    for run in runs {
        let Some(started) = run.started else { continue };
        let until = run.end.as_ref().map_or(now, |end| end.at);
        let steady = between(started, until).is_some_and(|up| up.0 >= STEADY.0);
        count += u64::from(!asked && steady && is_late(started));
        asked = true;
        if let Some(end) = &run.end {
            asked = end.cause.is_none_or(|cause| cause == Cause::Asked);
            count += u64::from(!asked && steady && is_late(end.at));
        }
    }
    count
}

/// What a rule makes of one subject.
struct Found {
    subject: String,
    figure: Figure,
    threshold: f64,
    bad: bool,
    good: bool,
}

impl Found {
    fn new(rule: &Rule, subject: &str, figure: Figure) -> Self {
        Self {
            subject: subject.to_owned(),
            figure,
            threshold: rule.raise,
            bad: rule.is_bad(figure),
            good: rule.is_good(figure.value),
        }
    }

    /// Of a check, or of one that is not made any more.
    fn checked(name: &str, check: Option<&CheckFigures>) -> Option<Self> {
        let failed = check.map_or(Some(false), |check| check.failed)?;
        let percent = |share: Share| f64::from(share.0) / 100.0;
        let value = check.map_or(0.0, |check| percent(check.share));
        Some(Self {
            subject: name.to_owned(),
            figure: Figure { value, count: 1 },
            threshold: check.map_or(0.0, |check| percent(check.limit)),
            bad: failed,
            good: !failed,
        })
    }
}

/// Whom a rule is about, and what it makes of each of whom something is known.
fn found(rule: &Rule, known: &Alerts, figures: &Figures) -> Vec<Found> {
    let figure = match rule.id {
        Id::RecoveryFailureRateHigh => figures.success_percent,
        Id::RecoveryTimeHigh => figures.recovery_seconds,
        Id::DataLossHigh => figures.loss_percent,
        Id::CorruptionHigh => figures.damage_percent,
        Id::AvailabilityLow => figures.up_percent,
        Id::SyncFailures => figures.failed_writes,
        Id::DiskFull | Id::MemoryHigh => return checks_found(rule, known, figures),
        Id::CrashLoop | Id::Flapping => return jobs_found(rule, known, figures),
    };
    figure.map(|figure| Found::new(rule, INSTANCE, figure)).into_iter().collect()
}

/// Those about which this rule is raised.
fn raised_by<'a>(rule: &Rule, known: &'a Alerts) -> impl Iterator<Item = &'a str> {
    let id = rule.id.as_str();
    known.raised.iter().filter(move |raised| raised.alert.id == id).map(|raised| &*raised.alert.subject)
}

fn checks_found(rule: &Rule, known: &Alerts, figures: &Figures) -> Vec<Found> {
    let Some(checks) = &figures.checks else { return Vec::new() };
    let is_meant = |kind: Kind| (kind == Kind::Memory) == (rule.id == Id::MemoryHigh);
    let made = checks.iter().filter(|(_, check)| is_meant(check.kind));
    let gone = raised_by(rule, known).filter(|name| !checks.contains_key(*name)).map(|name| (name, None));
    let made = made.map(|(name, check)| (name.as_str(), Some(check)));
    made.chain(gone).filter_map(|(name, check)| Found::checked(name, check)).collect()
}

fn jobs_found(rule: &Rule, known: &Alerts, figures: &Figures) -> Vec<Found> {
    let count = |job: &JobFigures| match rule.id {
        Id::CrashLoop => u64::from(job.in_a_row()),
        _ => job.changes,
    };
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let of_job = |name: &str, value: u64| Found::new(rule, name, Figure { value: value as f64, count: 1 });
    let mut all: Vec<_> = figures.jobs.iter().map(|(name, job)| of_job(name.as_str(), count(job))).collect();
    for subject in raised_by(rule, known) {
        if !figures.jobs.keys().any(|name| name.as_str() == subject) {
            all.push(of_job(subject, 0));
        }
    }
    all
}

fn words(rule: &Rule, found: &Found, figures: &Figures) -> String {
    let (subject, value, count) = (&found.subject, found.figure.value, found.figure.count);
    match rule.id {
        Id::RecoveryFailureRateHigh => {
            format!("{value:.1} % of {count} incidents within an hour were recovered")
        }
        Id::RecoveryTimeHigh => format!("{count} recoveries within an hour took {value:.1} s on average"),
        Id::DataLossHigh => format!("{value:.2} % of {count} entries of the event log are missing"),
        Id::CorruptionHigh => format!("{value:.2} % of {count} entries of the event log were damaged"),
        Id::AvailabilityLow => format!("services were up for {value:.2} % of the time they were wanted"),
        Id::DiskFull | Id::MemoryHigh => {
            match figures.checks.iter().flatten().find(|(name, _)| *name == subject) {
                Some((name, check)) => format!("{name}: {}", check.words),
                None => format!("{subject} is not checked any more"),
            }
        }
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
