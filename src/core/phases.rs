//! How a start proceeds: phases that depend on each other, as data.
//!
//! A phase begins when everything it depends on is over; those that do not depend on each other run at the
//! same time. One that fails is tried again after 1, 2 and 4 seconds. What fails for good ends the start if
//! the phase is critical or may not be missing, and is a mark of degradation otherwise. Nothing here does
//! anything: the driver asks which phases are due, and tells what became of them.

use serde::{Deserialize, Serialize};

use super::time::{Millis, Stamp};

/// Pauses before the tries after the first.
pub const RETRY_AFTER: [Millis; 3] = [Millis(1000), Millis(2000), Millis(4000)];

/// Aborted starts that lead to recovery mode, and the time within which they count.
pub const ABORTED_MAX: usize = 3;
/// See [`ABORTED_MAX`].
pub const ABORTED_WITHIN: Millis = Millis::from_secs(600);

/// Those of the aborted starts right before this one that count. The wall clock decides, because a host
/// that is started again and again has another boot clock each time.
#[must_use]
pub fn recently_aborted(aborted: &[Stamp], now: Stamp) -> Vec<Stamp> {
    let within = ABORTED_WITHIN.0.saturating_mul(1000);
    aborted.iter().filter(|at| now.wall_us.abs_diff(at.wall_us) <= within).copied().collect()
}

/// One phase, as it is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Its name; unique.
    pub name: &'static str,
    /// The phases that have to be over before.
    pub depends_on: &'static [&'static str],
    /// Whether there can be no start without it. Such a phase cannot be skipped by hand.
    pub critical: bool,
    /// Whether the start goes on without it; what it would have done is then a mark of degradation.
    pub allow_degraded: bool,
}

/// Why a list of phases is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongPhases {
    /// Two have the same name.
    #[error("there are two phases {0}")]
    Twice(&'static str),
    /// One depends on what is not there.
    #[error("phase {phase} depends on {missing}, which is no phase")]
    Unknown {
        /// The phase.
        phase: &'static str,
        /// What it depends on.
        missing: &'static str,
    },
    /// They wait for each other.
    #[error("phases wait for each other: {}", .0.join(", "))]
    Cycle(Vec<&'static str>),
}

/// The phases in the order in which they can begin: those of a row do not depend on each other.
///
/// # Errors
/// If a name is there twice or not at all, or phases wait for each other.
pub fn rows(phases: &[Phase]) -> Result<Vec<Vec<&'static str>>, WrongPhases> {
    for (n, phase) in phases.iter().enumerate() {
        if phases[..n].iter().any(|other| other.name == phase.name) {
            return Err(WrongPhases::Twice(phase.name));
        }
        let missing = phase.depends_on.iter().find(|dep| !phases.iter().any(|other| other.name == **dep));
        if let Some(missing) = missing {
            return Err(WrongPhases::Unknown { phase: phase.name, missing });
        }
    }
    let mut rows: Vec<Vec<&'static str>> = Vec::new();
    let mut left: Vec<&Phase> = phases.iter().collect();
    while !left.is_empty() {
        let waits = |phase: &Phase| phase.depends_on.iter().any(|dep| left.iter().any(|l| l.name == *dep));
        let row: Vec<&'static str> = left.iter().filter(|p| !waits(p)).map(|p| p.name).collect();
        if row.is_empty() {
            return Err(WrongPhases::Cycle(left.iter().map(|phase| phase.name).collect()));
        }
        left.retain(|phase| !row.contains(&phase.name));
        rows.push(row);
    }
    Ok(rows)
}

/// Where a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It waits for others.
    Pending,
    /// It is at work.
    Running,
    /// It failed and is tried again.
    Retrying,
    /// It has done what it should.
    Done,
    /// It was left out on purpose.
    Skipped,
    /// It failed, and the start went on without it.
    Degraded,
    /// It failed, and the start with it.
    Failed,
}

impl Standing {
    /// Whether nothing more happens to it.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Skipped | Self::Degraded | Self::Failed)
    }

    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// What is known about one phase of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The phase.
    pub phase: Phase,
    /// Where it is.
    pub standing: Standing,
    /// How often it was begun.
    pub tries: u32,
    /// Why it failed, is tried again, or was left out.
    pub why: Option<String>,
    /// When it was begun first.
    pub began: Option<Stamp>,
    /// When it was over.
    pub ended: Option<Stamp>,
    /// When it is tried again.
    pub again: Option<Stamp>,
    /// Things done so far, and things to do, where that can be counted.
    pub count: Option<(u64, u64)>,
}

/// Why a phase cannot be skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotSkip {
    /// There is none of that name.
    #[error("there is no phase {0:?}")]
    Unknown(String),
    /// Nothing could go on without it.
    #[error("phase {0} cannot be skipped: nothing could go on without it")]
    Critical(&'static str),
    /// It is over, or at work right now.
    #[error("phase {0} is {1}")]
    TooLate(&'static str, &'static str),
}

/// A start under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    records: Vec<Record>,
}

impl Progress {
    /// A start that has not begun.
    ///
    /// # Errors
    /// If these phases can never all come to an end, see [`rows`].
    pub fn new(phases: &[Phase]) -> Result<Self, WrongPhases> {
        rows(phases)?;
        let record = |phase: &Phase| Record {
            phase: *phase,
            standing: Standing::Pending,
            tries: 0,
            why: None,
            began: None,
            ended: None,
            again: None,
            count: None,
        };
        Ok(Self { records: phases.iter().map(record).collect() })
    }

    /// All phases as they were declared.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// One phase.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Record> {
        self.records.iter().find(|record| record.phase.name == name)
    }

    /// The phases that are to begin, or to be tried again, now. None any more once the start has failed.
    #[must_use]
    pub fn due(&self, now: Stamp) -> Vec<&'static str> {
        if self.failed().is_some() {
            return Vec::new();
        }
        let over = |name: &&str| self.get(name).is_some_and(|record| record.standing.is_over());
        let is_due = |record: &&Record| match record.standing {
            Standing::Pending => record.phase.depends_on.iter().all(over),
            Standing::Retrying => record.again.is_none_or(|at| at.boot_us <= now.boot_us),
            _ => false,
        };
        self.records.iter().filter(is_due).map(|record| record.phase.name).collect()
    }

    /// When the next try is due.
    #[must_use]
    pub fn next_try(&self) -> Option<Stamp> {
        self.records.iter().filter(|r| r.standing == Standing::Retrying).filter_map(|r| r.again).min()
    }

    /// A phase begins.
    pub fn begin(&mut self, name: &str, now: Stamp) {
        self.change(name, |record| {
            record.standing = Standing::Running;
            record.tries += 1;
            record.again = None;
            record.began = record.began.or(Some(now));
        });
    }

    /// A phase has done so much of so much.
    pub fn count(&mut self, name: &str, done: u64, total: u64) {
        self.change(name, |record| record.count = Some((done, total)));
    }

    /// A phase has done what it should.
    pub fn done(&mut self, name: &str, now: Stamp) {
        self.change(name, |record| {
            record.why = None;
            end(record, Standing::Done, now);
        });
    }

    /// A phase did not do what it should. `again`: another try may come to another end.
    pub fn fail(&mut self, name: &str, why: &str, again: bool, now: Stamp) {
        self.change(name, |record| {
            record.why = Some(why.to_owned());
            let pause = usize::try_from(record.tries)
                .ok()
                .and_then(|tries| RETRY_AFTER.get(tries.saturating_sub(1)))
                .filter(|_| again);
            if let Some(pause) = pause {
                record.standing = Standing::Retrying;
                record.again = Some(now.plus(*pause));
            } else if record.phase.critical || !record.phase.allow_degraded {
                end(record, Standing::Failed, now);
            } else {
                end(record, Standing::Degraded, now);
            }
        });
    }

    /// A phase cannot go on now, and will when something else has changed: however long that takes.
    pub fn hold(&mut self, name: &str, why: &str) {
        self.change(name, |record| {
            record.standing = Standing::Retrying;
            record.why = Some(why.to_owned());
        });
    }

    /// A phase is left out: by hand, or because the mode of the start says so.
    ///
    /// # Errors
    /// If nothing could go on without it, or it is too late.
    pub fn skip(&mut self, name: &str, by: &str, now: Stamp) -> Result<&'static str, CannotSkip> {
        let found = self.records.iter_mut().find(|record| record.phase.name == name);
        let record = found.ok_or_else(|| CannotSkip::Unknown(name.to_owned()))?;
        let name = record.phase.name;
        if record.phase.critical {
            return Err(CannotSkip::Critical(name));
        }
        if !matches!(record.standing, Standing::Pending | Standing::Retrying) {
            return Err(CannotSkip::TooLate(name, record.standing.as_str()));
        }
        record.why = Some(by.to_owned());
        end(record, Standing::Skipped, now);
        Ok(name)
    }

    /// The phase that ended the start, and why.
    #[must_use]
    pub fn failed(&self) -> Option<(&'static str, &str)> {
        let failed = self.records.iter().find(|record| record.standing == Standing::Failed)?;
        Some((failed.phase.name, failed.why.as_deref().unwrap_or_default()))
    }

    /// Whether all phases are over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.records.iter().all(|record| record.standing.is_over())
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Record)) {
        let open = |record: &&mut Record| record.phase.name == name && !record.standing.is_over();
        if let Some(record) = self.records.iter_mut().find(open) {
            change(record);
        }
    }
}

fn end(record: &mut Record, standing: Standing, now: Stamp) {
    record.standing = standing;
    record.again = None;
    record.began = record.began.or(Some(now));
    record.ended = Some(now);
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn phase(name: &'static str, depends_on: &'static [&'static str]) -> Phase {
        Phase { name, depends_on, critical: false, allow_degraded: true }
    }

    const DIAMOND: [Phase; 4] = [
        phase("end", &["left", "right"]),
        phase("left", &["begin"]),
        phase("right", &["begin"]),
        phase("begin", &[]),
    ];

    fn at(ms: u64) -> Stamp {
        Stamp::default().plus(Millis(ms))
    }

    #[test]
    fn phases_are_put_in_order_however_they_are_declared() {
        assert_eq!(rows(&DIAMOND).unwrap(), [vec!["begin"], vec!["left", "right"], vec!["end"]]);
        assert_eq!(rows(&[]).unwrap(), Vec::<Vec<&str>>::new());
    }

    #[test]
    fn what_cannot_be_put_in_order_is_named() {
        let wrong = |phases: &[Phase]| rows(phases).unwrap_err().to_string();
        assert_eq!(wrong(&[phase("a", &[]), phase("a", &[])]), "there are two phases a");
        assert_eq!(wrong(&[phase("a", &["b"])]), "phase a depends on b, which is no phase");
        assert_eq!(wrong(&[phase("a", &["a"])]), "phases wait for each other: a");
        let cycle = [phase("a", &[]), phase("b", &["c", "a"]), phase("c", &["b"])];
        assert_eq!(wrong(&cycle), "phases wait for each other: b, c");
        assert!(Progress::new(&cycle).is_err());
    }

    #[test]
    fn independent_phases_are_due_together_and_others_wait() {
        let mut start = Progress::new(&DIAMOND).unwrap();
        assert_eq!(start.due(at(0)), ["begin"]);
        start.begin("begin", at(0));
        assert!(start.due(at(1)).is_empty());
        start.done("begin", at(2));
        assert_eq!(start.due(at(2)), ["left", "right"]);
        start.begin("left", at(2));
        start.begin("right", at(2));
        start.done("right", at(3));
        assert!(start.due(at(3)).is_empty());
        start.done("left", at(5));
        assert_eq!(start.due(at(5)), ["end"]);
        let left = start.get("left").unwrap();
        assert_eq!((left.standing, left.began, left.ended), (Standing::Done, Some(at(2)), Some(at(5))));
        start.begin("end", at(5));
        start.done("end", at(6));
        assert!(start.is_over() && start.failed().is_none());
    }

    #[test]
    fn a_failed_phase_is_tried_again_after_one_two_and_four_seconds() {
        let mut start = Progress::new(&[phase("a", &[])]).unwrap();
        let mut now = 0;
        for pause in [1000, 2000, 4000] {
            start.begin("a", at(now));
            start.fail("a", "no", true, at(now));
            assert_eq!(start.next_try(), Some(at(now + pause)));
            assert!(start.due(at(now + pause - 1)).is_empty());
            now += pause;
            assert_eq!(start.due(at(now)), ["a"]);
        }
        start.begin("a", at(now));
        start.fail("a", "no", true, at(now));
        let record = start.get("a").unwrap();
        assert_eq!(
            (record.standing, record.tries, record.why.as_deref()),
            (Standing::Degraded, 4, Some("no"))
        );
        assert!(start.is_over());
    }

    #[test]
    fn what_may_not_be_missing_ends_the_start() {
        for (critical, allow_degraded) in [(true, true), (true, false), (false, false)] {
            let phases = [Phase { critical, allow_degraded, ..phase("a", &[]) }, phase("b", &[])];
            let mut start = Progress::new(&phases).unwrap();
            start.begin("a", at(0));
            start.fail("a", "broken", false, at(1));
            assert_eq!(start.failed(), Some(("a", "broken")));
            assert!(start.due(at(1)).is_empty(), "nothing begins any more");
        }
        let mut start = Progress::new(&[phase("a", &[]), phase("b", &["a"])]).unwrap();
        start.begin("a", at(0));
        start.fail("a", "broken", false, at(1));
        assert_eq!((start.failed(), start.due(at(1))), (None, vec!["b"]));
    }

    #[test]
    fn a_phase_is_skipped_by_hand_while_it_waits_and_only_if_it_may_be_missing() {
        let must = Phase { critical: true, ..phase("must", &[]) };
        let mut start = Progress::new(&[must, phase("may", &["must"]), phase("last", &["may"])]).unwrap();
        let mut skip = |name: &str| start.skip(name, "operator", at(1)).map_err(|e| e.to_string());
        assert_eq!(skip("what").unwrap_err(), "there is no phase \"what\"");
        assert!(skip("must").unwrap_err().contains("cannot be skipped"));
        assert_eq!(skip("may"), Ok("may"));
        assert_eq!(skip("may").unwrap_err(), "phase may is skipped");
        start.begin("must", at(1));
        start.done("must", at(2));
        assert_eq!(start.due(at(2)), ["last"]);
        start.begin("last", at(2));
        start.fail("last", "no", true, at(2));
        start.skip("last", "operator", at(3)).unwrap();
        assert!(start.is_over() && start.next_try().is_none());
    }

    #[test]
    fn what_is_over_stays_as_it_is() {
        let mut start = Progress::new(&[phase("a", &[])]).unwrap();
        start.begin("a", at(0));
        start.done("a", at(1));
        start.fail("a", "late news", true, at(2));
        start.begin("a", at(3));
        let record = start.get("a").unwrap();
        assert_eq!((record.standing, record.ended, record.tries), (Standing::Done, Some(at(1)), 1));
    }

    #[test]
    fn aborted_starts_count_for_ten_minutes() {
        let now = at(3_600_000);
        let times = [now.wall_us - 599_000_000, now.wall_us - 601_000_000, now.wall_us + 1];
        let aborted = times.map(|wall_us| Stamp { boot_us: 0, wall_us });
        assert_eq!(recently_aborted(&aborted, now), [aborted[0], aborted[2]]);
    }

    #[test]
    fn a_hundred_phases_come_to_an_end_in_any_order() {
        let names: Vec<&'static str> = (0..100).map(|n| -> &'static str { format!("p{n}").leak() }).collect();
        let phases: Vec<Phase> = (0..100)
            .map(|n| phase(names[n], if n < 10 { &[] } else { names[n / 2..n / 2 + 1].to_vec().leak() }))
            .rev()
            .collect();
        let mut start = Progress::new(&phases).unwrap();
        let mut turns = 0;
        while !start.is_over() {
            for name in start.due(at(turns)) {
                start.begin(name, at(turns));
                start.done(name, at(turns));
            }
            turns += 1;
            assert!(turns < 100, "{start:?}");
        }
    }
}
