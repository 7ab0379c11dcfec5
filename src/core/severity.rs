//! How bad it is, what was found at a start, and what was done about it: damage of bytes, of sense, of
//! settings, each with its figures.

use serde::{Deserialize, Serialize};

use super::event::Want;
use super::graph::cycles;
use super::ids::JobName;
use super::report::{Class, RunsReport};
use super::state::State;

/// What is hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Settings contradict each other; everything else is as it should be.
    Constraint,
    /// The log can be read, and what it says breaks a law.
    Consistency,
    /// Bytes are not what was written.
    Integrity,
}

impl Severity {
    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Constraint => "constraint",
            Self::Consistency => "consistency",
            Self::Integrity => "integrity",
        }
    }
}

/// What was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// An earlier checkpoint and the segments since are used instead.
    Rollback,
    /// What still makes sense is applied; what is uncertain is held, and looked for with keeper and disk.
    Partial,
    /// It was put right, and nothing is missing.
    Repair,
}

impl Strategy {
    /// The words as they are printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "an earlier checkpoint was used",
            Self::Partial => "what still makes sense was applied",
            Self::Repair => "put right",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was done.
    pub strategy: Strategy,
    /// What it is, in words.
    pub what: String,
}

/// What reading the event log came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Read {
    /// Lines that were read.
    pub lines: u64,
    /// First and last of each range that is missing.
    pub lost: Vec<(u64, u64)>,
    /// Lines with a wrong bit that was put right.
    pub mended: u64,
    /// Files, or parts of them, that had to be done without, although nothing is missing.
    pub useless: u64,
    /// Bytes that were copied to quarantine.
    pub bytes_quarantined: u64,
    /// Whether a file holds anything else than what was written.
    pub damaged: bool,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Assessment {
    /// What is wrong, the worst first; empty: nothing.
    pub findings: Vec<Finding>,
    /// Lines of the event log that were read.
    pub lines_read: u64,
    /// Lines that are missing.
    pub lines_lost: u64,
    /// First and last number of each range of them.
    pub ranges_lost: Vec<(u64, u64)>,
    /// Lines missing of all there were, in percent.
    pub loss_percent: f64,
    /// Bytes that were copied to quarantine.
    pub bytes_quarantined: u64,
    /// Runs of which nobody can know what became of them, or whose files cannot be read.
    pub entities_uncertain: u64,
    /// The least of: lines that are not missing, laws that hold; in percent.
    pub integrity_percent: f64,
    /// The checkpoint of what was read that was made before anything was changed, if something was damaged.
    #[serde(default)]
    pub checkpoint_before: Option<u64>,
}

/// Judges what was found.
#[must_use]
pub fn assess(read: &Read, runs: Option<&RunsReport>, contradictions: &[String]) -> Assessment {
    let lines_lost: u64 = read.lost.iter().map(|(first, last)| last.saturating_sub(*first) + 1).sum();
    let mut findings = Vec::new();
    let mut find = |severity, strategy, what: String| findings.push(Finding { severity, strategy, what });
    if lines_lost > 0 {
        let what = format!("{lines_lost} entries of the event log are missing");
        find(Severity::Integrity, Strategy::Partial, what);
    }
    if read.useless > 0 {
        let what = format!("{} parts of the event log's files cannot be used", read.useless);
        find(Severity::Integrity, Strategy::Rollback, what);
    }
    if read.mended > 0 {
        let what = format!("{} lines of the event log had a wrong bit", read.mended);
        find(Severity::Integrity, Strategy::Repair, what);
    }
    let none = RunsReport::default();
    let runs = runs.unwrap_or(&none);
    for violation in &runs.violations {
        find(Severity::Consistency, Strategy::Partial, violation.clone());
    }
    for contradiction in contradictions {
        find(Severity::Constraint, Strategy::Partial, contradiction.clone());
    }
    let uncertain = [Class::Lost, Class::Corrupt].iter().filter_map(|class| runs.classes.get(class)).sum();
    let loss_percent = share(lines_lost, read.lines.saturating_add(lines_lost));
    let violations = u64::try_from(runs.violations.len()).unwrap_or(u64::MAX);
    let broken = share(violations, u64::from(runs.checks).max(violations));
    Assessment {
        findings,
        lines_read: read.lines,
        lines_lost,
        ranges_lost: read.lost.clone(),
        loss_percent,
        bytes_quarantined: read.bytes_quarantined,
        entities_uncertain: uncertain,
        integrity_percent: 100.0 - loss_percent.max(broken),
        checkpoint_before: None,
    }
}

/// Jobs that are wanted and can never start, because of what they depend on.
#[must_use]
pub fn contradictions(state: &State) -> Vec<String> {
    let mut words = Vec::new();
    let mut wanted: Vec<(&JobName, &[JobName])> = Vec::new();
    // Those at rest wait for nothing.
    for (name, entry) in &state.jobs {
        let job = &entry.job;
        let Some(spec) = state.spec(name).filter(|_| job.want == Want::Up && !job.removed) else { continue };
        for dep in spec.depends_on.iter().filter(|dep| state.job(dep).is_none()) {
            words.push(format!("job {name} depends on {dep}, which is no job"));
        }
        if !spec.depends_on.is_empty() {
            wanted.push((name, &spec.depends_on));
        }
    }
    words.extend(cycles(wanted).iter().map(ToString::to_string));
    words
}

fn share(part: u64, of: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{World, name, spec};
    use super::*;

    #[test]
    fn each_sort_of_damage_has_its_severity_strategy_and_figures() {
        let sound = assess(&Read { lines: 10, ..Read::default() }, None, &[]);
        assert_eq!((sound.findings.len(), sound.loss_percent, sound.integrity_percent), (0, 0.0, 100.0));
        let read = Read {
            lines: 15,
            lost: vec![(3, 6), (9, 9)],
            mended: 1,
            useless: 2,
            bytes_quarantined: 512,
            damaged: true,
        };
        let mut runs =
            RunsReport { checks: 10, violations: vec!["a law".to_owned()], ..RunsReport::default() };
        runs.classes.extend([(Class::Lost, 2), (Class::Corrupt, 1), (Class::Adoptable, 5)]);
        let all = assess(&read, Some(&runs), &["a depends on b".to_owned()]);
        let found: Vec<_> = all.findings.iter().map(|f| (f.severity, f.strategy)).collect();
        assert_eq!(
            found,
            [
                (Severity::Integrity, Strategy::Partial),
                (Severity::Integrity, Strategy::Rollback),
                (Severity::Integrity, Strategy::Repair),
                (Severity::Consistency, Strategy::Partial),
                (Severity::Constraint, Strategy::Partial),
            ]
        );
        assert_eq!((all.lines_lost, all.loss_percent, all.integrity_percent), (5, 25.0, 75.0));
        assert_eq!((all.entities_uncertain, all.bytes_quarantined), (3, 512));
        let broken = assess(&Read { lines: 10, ..Read::default() }, Some(&runs), &[]);
        assert_eq!(broken.integrity_percent, 90.0);
    }

    #[test]
    fn jobs_that_can_never_start_are_named() {
        let mut specs = [spec("a"), spec("b"), spec("c"), spec("d")];
        specs[0].depends_on = vec![name("b")];
        specs[1].depends_on = vec![name("a")];
        specs[2].depends_on = vec![name("nobody")];
        let world = World::with(&specs);
        let found = contradictions(&world.state);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], "job c depends on nobody, which is no job");
        assert!(found[1].contains('a') && found[1].contains('b'), "{found:?}");
        assert!(contradictions(&World::with(&[spec("a")]).state).is_empty());
    }
}
