//! What the failures of a job have in common, in words.
//!
//! Nothing is decided by it: it is for whoever looks for the cause. It is worked out from the history when somebody
//! looks, and never stored.

use super::ids::RunId;
use super::job::{PastEnd, PastRun};
use super::outcome::{self, Outcome};
use super::restart::in_words;
use super::stats::{Cause, between};
use super::time::Millis;

/// So many failures with one cause, or one last line, are no accident.
const SAME_MIN: usize = 3;
/// So many deaths make a period.
const PERIOD_MIN: usize = 4;
/// Shorter uptimes are those of a start that fails, and say nothing of a period.
const PERIOD_FROM: Millis = Millis(1000);
/// So many runs make a slope.
const SLOPE_MIN: usize = 4;
/// Points of a live run's memory that are kept; even.
const POINTS: usize = 8;
/// Who has grown by less than this has warmed up.
const GROWTH_MIN_KIB: u64 = 16 * 1024;
/// Longest part of a line of output that is shown, in characters.
const LINE_MAX: usize = 120;

/// The last line that a run wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastLine {
    /// Which run.
    pub run: RunId,
    /// The line; empty: there is none.
    pub line: String,
}

/// What a job's failures have in common. `past`: its runs, the latest last; `failing`: whether the latest end was a
/// failure that nothing has ended yet.
#[must_use]
pub fn patterns(past: &[&PastRun], failing: bool, lines: &[LastLine]) -> Vec<String> {
    let mut words = Vec::new();
    if failing {
        // The latest first, up to one that did not fail.
        let failed: Vec<&PastRun> = past
            .iter()
            .rev()
            .filter(|run| run.end.is_some())
            .take_while(|run| cause(run).is_some_and(Cause::is_bad))
            .copied()
            .collect();
        words.extend(same_cause(&failed));
        words.extend(period(&failed));
        words.extend(same_line(&failed, lines));
    }
    let peaks: Vec<u64> = past
        .iter()
        .filter_map(|run| Some(run.end.as_ref()?.rusage?.max_rss_kib))
        .filter(|kib| *kib > 0)
        .collect();
    words.extend(
        slope(&peaks)
            .map(|peaks| format!("its largest resident set grows from run to run: {}", in_mib(peaks))),
    );
    words
}

/// How the memory of a live run goes: looks at it, most of them merged.
///
/// A point is the least of several looks, so that what is used for a moment does not count. When there are as many
/// points as are kept, each two become one: a run of an hour and one of a month are told by as many points, and a slow
/// growth is found when it has made as much as a fast one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryTrend {
    /// KiB, the latest last.
    points: Vec<u64>,
    /// How often the looks of a point were doubled.
    doublings: u32,
    /// The least of the looks since the latest point, and how many there were.
    open: Option<(u64, u64)>,
}

impl MemoryTrend {
    /// Remembers a look; whether there is something else to say now.
    pub fn note(&mut self, kib: u64) -> bool {
        let (least, looks) = self.open.map_or((kib, 1), |(least, looks)| (least.min(kib), looks + 1));
        if looks < 1 << self.doublings {
            self.open = Some((least, looks));
            return false;
        }
        let before = self.words();
        self.open = None;
        self.points.push(least);
        if self.points.len() == POINTS {
            self.points = self.points.chunks(2).map(|pair| pair[0].min(pair[1])).collect();
            self.doublings += 1;
        }
        self.words() != before
    }

    /// Whether it only ever grows, in words.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let grown = slope(&self.points)?;
        let by = grown.last()?.saturating_sub(*grown.first()?);
        (by >= GROWTH_MIN_KIB).then(|| format!("its memory only ever grows: {}", in_mib(grown)))
    }
}

fn cause(run: &PastRun) -> Option<Cause> {
    run.end.as_ref()?.cause
}

fn same_cause(failed: &[&PastRun]) -> Option<String> {
    let first = cause(failed.first()?)?;
    let like = failed[0].end.as_ref()?;
    // What it was ended for, if we ended it, is the way it failed. In what words that was said may differ.
    let alike = |end: &PastEnd| end.outcome == like.outcome && end.asked.fault() == like.asked.fault();
    let n = failed.iter().take_while(|run| run.end.as_deref().is_some_and(alike)).count();
    if n >= SAME_MIN {
        let how = outcome::words(&like.outcome, &like.asked);
        return Some(format!("failed {n} times in a row in the same way: {how}"));
    }
    let n = failed.iter().take_while(|run| cause(run) == Some(first)).count();
    (n >= SAME_MIN).then(|| format!("failed {n} times in a row for the same cause: {}", first.as_str()))
}

/// The latest deaths have about the same uptime: all differ by less than 5 % of the mean.
fn period(failed: &[&PastRun]) -> Option<String> {
    let uptime = |run: &&&PastRun| -> Option<u64> {
        let end = run.end.as_ref()?;
        let lost = matches!(end.outcome, Outcome::Lost { .. } | Outcome::NotStarted { .. });
        between(run.started.filter(|_| !lost)?, end.at).map(|up| up.0)
    };
    let uptimes: Vec<u64> = failed.iter().map_while(|run| uptime(&run)).collect();
    let alike = |some: &[u64]| {
        let (least, most) = (some.iter().min().copied(), some.iter().max().copied());
        let sum: u64 = some.iter().sum();
        // 20 * (most - least) < mean, without a division.
        least.zip(most).is_some_and(|(least, most)| {
            (most - least).saturating_mul(20).saturating_mul(some.len() as u64) < sum
        })
    };
    let n = (PERIOD_MIN..=uptimes.len()).take_while(|n| alike(&uptimes[..*n])).last()?;
    let mean = uptimes[..n].iter().sum::<u64>() / n as u64;
    (mean >= PERIOD_FROM.0)
        .then(|| format!("dies every time after about {} ({n} times)", in_words(Millis(mean / 100 * 100))))
}

fn same_line(failed: &[&PastRun], lines: &[LastLine]) -> Option<String> {
    let line = |run: &PastRun| lines.iter().find(|known| known.run == run.run).map(|known| known.line.trim());
    // Those of the latest runs may not have been read yet.
    let known: Vec<&str> = failed.iter().filter_map(|run| line(run)).collect();
    let like = *known.first().filter(|line| !line.is_empty())?;
    let n = known.iter().take_while(|line| **line == like).count();
    let short: String = like.chars().take(LINE_MAX).collect();
    (n >= SAME_MIN).then(|| format!("died {n} times after the same last line: {short}"))
}

/// The latest of them, if each is larger than the one before by more than 10 %.
fn slope(all: &[u64]) -> Option<&[u64]> {
    let grows = |pair: &[u64]| pair[1].saturating_mul(10) > pair[0].saturating_mul(11);
    let n = all.windows(2).rev().take_while(|pair| grows(pair)).count() + 1;
    (n >= SLOPE_MIN).then(|| &all[all.len() - n..])
}

fn in_mib(kib: &[u64]) -> String {
    let words: Vec<String> =
        kib.iter().map(|kib| format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024)).collect();
    format!("{} MiB", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::fault::Fault;
    use super::super::outcome::{Asked, Rusage};
    use super::super::tests::{exited, run};
    use super::super::time::Stamp;
    use super::*;

    fn past(n: u128, outcome: Outcome, uptime_ms: u64, max_rss_kib: u64) -> PastRun {
        let started = Stamp { boot_us: 1_000_000, wall_us: 1_000_000 };
        let cause = Cause::of(&outcome, &Asked::Nobody, outcome != exited(0));
        let at = started.plus(Millis(uptime_ms));
        let rusage = Some(Rusage { max_rss_kib, ..Rusage::default() });
        let end = PastEnd { at, outcome, asked: Asked::Nobody, rusage, output_bytes: 0, cause };
        PastRun {
            run: run(n),
            attempt: 1,
            requested: started,
            started: Some(started),
            pid: None,
            end: Some(Box::new(end)),
        }
    }

    fn of(past: &[PastRun], lines: &[LastLine]) -> Vec<String> {
        patterns(&past.iter().collect::<Vec<_>>(), true, lines)
    }

    #[test]
    fn the_same_end_three_times_in_a_row_is_named() {
        let fails = |codes: &[i32]| -> Vec<PastRun> {
            let one = |(n, code): (usize, &i32)| past(n as u128, exited(*code), 10 + n as u64 * 7, 0);
            codes.iter().enumerate().map(one).collect()
        };
        assert!(of(&fails(&[3, 3]), &[]).is_empty());
        assert_eq!(of(&fails(&[3, 3, 3]), &[]), ["failed 3 times in a row in the same way: exit 3"]);
        assert_eq!(
            of(&fails(&[3, 3, 0, 3, 3, 3, 3]), &[]),
            ["failed 4 times in a row in the same way: exit 3"]
        );
        assert_eq!(of(&fails(&[3, 4, 5]), &[]), ["failed 3 times in a row for the same cause: failed"]);
        let all = fails(&[3, 3, 3]);
        assert!(patterns(&all.iter().collect::<Vec<_>>(), false, &[]).is_empty(), "it is over");
    }

    #[test]
    fn what_a_run_was_ended_for_is_the_way_it_failed() {
        let ended_for = |fault, why: &str| {
            let mut one = past(1, Outcome::Signaled { signal: 15, core: false }, 10, 0);
            if let Some(end) = &mut one.end {
                end.asked = Asked::Health { fault, why: why.to_owned(), again: true };
                end.cause = Some(Cause::Unwell);
            }
            one
        };
        let slow = |ms: u64| ended_for(Fault::MaxRuntime, &format!("took longer than {ms}ms"));
        assert_eq!(
            of(&[slow(9), slow(10), slow(10)], &[]),
            ["failed 3 times in a row in the same way: took longer than 10ms: signal 15 (TERM)"]
        );
        assert_eq!(
            of(&[slow(9), ended_for(Fault::Silent, "no output"), slow(9)], &[]),
            ["failed 3 times in a row for the same cause: unwell"]
        );
    }

    #[test]
    fn four_deaths_after_the_same_time_are_a_period() {
        let deaths = |uptimes: &[u64]| -> Vec<PastRun> {
            let one = |(n, ms): (usize, &u64)| past(n as u128, exited(n as i32 + 1), *ms, 0);
            uptimes.iter().enumerate().map(one).collect()
        };
        let period =
            |uptimes: &[u64]| of(&deaths(uptimes), &[]).into_iter().find(|w| w.contains("dies every"));
        assert_eq!(period(&[60_000, 60_100, 59_900]), None, "three are too few");
        let found = period(&[5000, 60_000, 60_100, 59_900, 60_000]);
        assert_eq!(found.as_deref(), Some("dies every time after about 1m (4 times)"));
        // The mean is 10,000 ms: a difference of 500 ms is 5 %, and not less.
        assert_eq!(period(&[9_750, 10_250, 10_000, 10_000]), None);
        assert!(period(&[9_751, 10_250, 10_000, 10_000]).is_some());
        assert_eq!(period(&[10, 10, 10, 10]), None, "a start that fails");
    }

    #[test]
    fn the_same_last_line_three_times_is_named() {
        let all: Vec<PastRun> = (0..4).map(|n| past(n, exited(n as i32 + 1), 10, 0)).collect();
        let line = |n, line: &str| LastLine { run: run(n), line: line.to_owned() };
        let same = [line(1, "no route to host\n"), line(2, "no route to host"), line(3, " no route to host")];
        let found = of(&all, &same);
        assert!(
            found.contains(&"died 3 times after the same last line: no route to host".to_owned()),
            "{found:?}"
        );
        let other = [line(1, "x"), line(2, "no route to host"), line(3, "no route to host")];
        assert_eq!(of(&all, &other).len(), 1);
        let empty = [line(1, ""), line(2, ""), line(3, "")];
        assert_eq!(of(&all, &empty).len(), 1);
    }

    #[test]
    fn memory_that_grows_by_more_than_a_tenth_four_times_is_named() {
        let with = |kib: &[u64]| -> Vec<PastRun> {
            kib.iter().enumerate().map(|(n, kib)| past(n as u128, exited(0), 10, *kib)).collect()
        };
        let found = of(&with(&[9000, 1024, 2048, 3072, 4096]), &[]);
        assert_eq!(found, ["its largest resident set grows from run to run: 1.0, 2.0, 3.0, 4.0 MiB"]);
        assert!(of(&with(&[1000, 1100, 1300, 1500]), &[]).is_empty(), "exactly a tenth is not more");
        assert_eq!(of(&with(&[1000, 1101, 1300, 1500]), &[]).len(), 1);
        assert!(of(&with(&[1024, 2048, 3072]), &[]).is_empty(), "three are too few");
    }

    #[test]
    fn a_live_run_whose_memory_only_ever_grows_is_named_however_slowly_it_does() {
        const MIB: u64 = 1024;
        let after = |looks: &mut dyn Iterator<Item = u64>| {
            let mut trend = MemoryTrend::default();
            for kib in looks {
                trend.note(kib);
            }
            trend.words()
        };
        let said = after(&mut [10, 20, 30, 40].map(|mib| mib * MIB).into_iter());
        assert_eq!(said.as_deref(), Some("its memory only ever grows: 10.0, 20.0, 30.0, 40.0 MiB"));
        assert_eq!(after(&mut [10, 20, 30].map(|mib| mib * MIB).into_iter()), None, "three are too few");
        assert_eq!(after(&mut [10, 20, 30, 30].map(|mib| mib * MIB).into_iter()), None);
        assert_eq!(after(&mut [10, 12, 14, 17].map(|mib| mib * MIB).into_iter()), None, "little");
        // A MiB in an hour, one look in a minute: after a day nobody could miss it, and nothing is kept of most looks.
        assert!(after(&mut (0..24 * 60).map(|minute| 4 * MIB + minute * MIB / 60)).is_some());
        // What comes and goes with each round of a collector does not grow.
        assert_eq!(after(&mut (0..24 * 60).map(|minute| (50 + minute % 7 * 10) * MIB)), None);
        // It has grown, and stays.
        let grown = (0..8).map(|n| (n + 1) * 20 * MIB).chain(std::iter::repeat_n(160 * MIB, 8));
        assert_eq!(after(&mut grown.into_iter()), None);
        let mut trend = MemoryTrend::default();
        let told: Vec<bool> = [10, 20, 30, 40, 10].iter().map(|mib| trend.note(mib * MIB)).collect();
        assert_eq!(told, [false, false, false, true, true], "what is to be said has changed");
    }
}
