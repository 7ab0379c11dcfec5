//! What a job's runs came to, counted from events alone.
//!
//! The latest end is in the history anyway, so only those before it are counted here: a job that ran never
//! or once costs nothing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::{Event, Want};
use super::job::{Job, PastRun, Phase};
use super::outcome::{Asked, Outcome};
use super::time::{Millis, Stamp};

/// Restart times that are remembered, the latest.
pub const SAMPLES_MAX: usize = 32;

/// Where the two clocks differ by more than this over the same time, the host was restarted or its clock was
/// set: nobody knows how long it was.
const DRIFT_US: u64 = 60_000_000;

/// Why a run ended, as far as statistics go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It exited with a success code, not before its start grace was over.
    Ok,
    /// It exited otherwise.
    Failed,
    /// A signal that nobody had asked for.
    Signal,
    /// Memory ran out.
    Oom,
    /// Somebody or something had asked for its end.
    Asked,
    /// It was judged unwell, and ended for that.
    Unwell,
    /// Nobody knows.
    Lost,
    /// It never ran.
    Refused,
}

impl Cause {
    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Signal => "signal",
            Self::Oom => "oom",
            Self::Asked => "asked",
            Self::Unwell => "unwell",
            Self::Lost => "lost",
            Self::Refused => "refused",
        }
    }

    /// Whether nobody had asked for such an end, and it is none of work that is done.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        match self {
            Self::Ok | Self::Asked => false,
            Self::Failed | Self::Signal | Self::Oom | Self::Unwell | Self::Lost | Self::Refused => true,
        }
    }

    /// Which one it was; `failed`: whether it counted as a failure. `None` if it does not count at all.
    #[must_use]
    pub fn of(outcome: &Outcome, asked: &Asked, failed: bool) -> Option<Self> {
        Some(match outcome {
            Outcome::Cancelled => return None,
            Outcome::NotStarted { .. } => Self::Refused,
            Outcome::Lost { .. } => Self::Lost,
            Outcome::OomKilled => Self::Oom,
            Outcome::Exited { .. } | Outcome::Signaled { .. } if asked.is_failure() => Self::Unwell,
            Outcome::Exited { .. } | Outcome::Signaled { .. } if *asked != Asked::Nobody => Self::Asked,
            Outcome::Signaled { .. } => Self::Signal,
            Outcome::Exited { .. } if failed => Self::Failed,
            Outcome::Exited { .. } => Self::Ok,
        })
    }
}

/// Ends, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Exits {
    /// See [`Cause`].
    pub ok: u32,
    /// See [`Cause`].
    pub failed: u32,
    /// See [`Cause`].
    pub signal: u32,
    /// See [`Cause`].
    pub oom: u32,
    /// See [`Cause`].
    pub asked: u32,
    /// See [`Cause`].
    #[serde(skip_serializing_if = "is_none")]
    pub unwell: u32,
    /// See [`Cause`].
    pub lost: u32,
    /// See [`Cause`].
    pub refused: u32,
}

impl Exits {
    fn count(&mut self, cause: Cause) {
        let count = match cause {
            Cause::Ok => &mut self.ok,
            Cause::Failed => &mut self.failed,
            Cause::Signal => &mut self.signal,
            Cause::Oom => &mut self.oom,
            Cause::Asked => &mut self.asked,
            Cause::Unwell => &mut self.unwell,
            Cause::Lost => &mut self.lost,
            Cause::Refused => &mut self.refused,
        };
        *count = count.saturating_add(1);
    }
}

/// One ended run, as far as statistics go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Why it ended.
    pub cause: Cause,
    /// How long it ran; 0 if nobody knows.
    pub uptime: Millis,
    /// Its largest resident set, if the kernel told.
    pub max_rss_kib: u64,
}

/// The runs of a job before the latest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Ends by cause.
    pub exits: Exits,
    /// Time that ended runs have lasted.
    pub uptime_ms: u64,
    /// The longest of them.
    pub longest_ms: u64,
    /// The largest resident set.
    pub max_rss_kib: u64,
    /// Milliseconds from an end, or from the request for a restart, to the next start; the latest are last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restarts_ms: Vec<u32>,
    /// How long it was wanted without a run, from an end to the next start.
    #[serde(skip_serializing_if = "is_zero")]
    pub down_ms: u64,
    /// Since when it is wanted again, if it was not when its latest run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Stamp>,
    /// When a restart under way was asked for, boot clock; 0: none was.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) asked_us: u64,
}

impl Stats {
    /// Adds one end.
    pub fn add(&mut self, end: Ended) {
        self.exits.count(end.cause);
        self.uptime_ms = self.uptime_ms.saturating_add(end.uptime.0);
        self.longest_ms = self.longest_ms.max(end.uptime.0);
        self.max_rss_kib = self.max_rss_kib.max(end.max_rss_kib);
    }

    fn restarted(&mut self, took: Millis) {
        if self.restarts_ms.len() == SAMPLES_MAX {
            self.restarts_ms.remove(0);
        }
        self.restarts_ms.push(u32::try_from(took.0).unwrap_or(u32::MAX));
    }

    /// The restart time that so many percent of the remembered ones do not exceed.
    #[must_use]
    pub fn restart_percentile(&self, percent: usize) -> Option<u32> {
        let mut sorted = self.restarts_ms.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }
}

/// Remembers what an event means, before the job itself does. `latest`: its latest run.
pub(super) fn note(
    stats: &mut Option<Arc<Stats>>,
    job: &Job,
    latest: Option<&PastRun>,
    event: &Event,
    at: Stamp,
) {
    match event {
        // From here on another run is the latest.
        Event::RunRequested { .. } => {
            if let Some(end) = latest.and_then(ended) {
                own(stats).add(end);
            }
        }
        Event::RunEnded { record, .. } if job.run() == Some(record.run) => {
            if let Phase::Stopping { stop, .. } = &job.phase
                && stop.then_start
            {
                own(stats).asked_us = job.since.boot_us;
            }
        }
        Event::WantSet { want: Want::Up, .. }
            if job.want == Want::Down && job.run().is_none() && job.last_end().is_some() =>
        {
            own(stats).wanted = Some(at);
        }
        Event::RunStarted { run, at, .. } if is_starting(job) && job.run() == Some(*run) => {
            started(stats, job, *at);
        }
        Event::RunAdopted { run, started: at, .. } if is_starting(job) && job.run() == Some(*run) => {
            started(stats, job, *at);
        }
        _ => {}
    }
}

const fn is_starting(job: &Job) -> bool {
    matches!(job.phase, Phase::Starting { .. } | Phase::Stopping { process: None, .. })
}

fn started(stats: &mut Option<Arc<Stats>>, job: &Job, at: Stamp) {
    let Some(last) = job.last_end() else { return };
    let wanted = stats.as_mut().and_then(|stats| Arc::make_mut(stats).wanted.take());
    let Some(mut took) = between(last.ended, at) else { return };
    let stats = own(stats);
    let down = wanted.map_or(Some(took), |wanted| between(wanted, at));
    stats.down_ms = stats.down_ms.saturating_add(down.unwrap_or(took).min(took).0);
    let asked = std::mem::take(&mut stats.asked_us);
    if asked > 0 && asked <= last.ended.boot_us {
        took.0 += (last.ended.boot_us - asked) / 1000;
    }
    stats.restarted(took);
}

/// How long a past run was there and why it ended, if it counts.
fn ended(run: &PastRun) -> Option<Ended> {
    let end = run.end.as_deref()?;
    // Records of earlier builds have no cause.
    let failed = end.outcome != Outcome::Exited { code: 0 };
    let cause = end.cause.or_else(|| Cause::of(&end.outcome, &end.asked, failed))?;
    let known = matches!(
        cause,
        Cause::Ok | Cause::Failed | Cause::Signal | Cause::Oom | Cause::Asked | Cause::Unwell
    );
    let uptime = run.started.filter(|_| known).and_then(|from| between(from, end.at)).unwrap_or(Millis(0));
    Some(Ended { cause, uptime, max_rss_kib: end.rusage.map_or(0, |rusage| rusage.max_rss_kib) })
}

/// How long it was from one moment to a later one, if that can be known.
pub(super) fn between(from: Stamp, to: Stamp) -> Option<Millis> {
    let boot = to.boot_us.checked_sub(from.boot_us)?;
    let wall = u64::try_from(to.wall_us.checked_sub(from.wall_us)?).ok()?;
    (boot.abs_diff(wall) <= DRIFT_US).then_some(Millis(boot / 1000))
}

fn own(stats: &mut Option<Arc<Stats>>) -> &mut Stats {
    Arc::make_mut(stats.get_or_insert_default())
}

const fn is_zero(n: &u64) -> bool {
    *n == 0
}

const fn is_none(n: &u32) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::super::input::{Fact, Input};
    use super::super::tests::{World, exited, identity, name, operator, spec};
    use super::*;

    fn stats(world: &World) -> Stats {
        world.state.stats(&name("a")).map(|stats| Stats::clone(stats)).unwrap_or_default()
    }

    #[test]
    fn a_job_that_ran_never_or_once_costs_nothing() {
        let mut world = World::with(&[spec("a")]);
        world.launched(1);
        world.stop("a");
        world.ended("a", 1, exited(0), false);
        assert!(world.state.stats(&name("a")).is_none());
    }

    #[test]
    fn ends_are_counted_by_cause_and_restarts_are_timed() {
        let mut world = World::with(&[spec("a")]);
        world.launched(1);
        world.pass(500);
        // It fails by itself: 20 ms later the next run is there.
        world.ended("a", 1, exited(3), false);
        world.pass(20);
        world.launched(2);
        world.pass(2000);
        world.ended("a", 2, Outcome::Signaled { signal: 11, core: true }, false);
        world.pass(5);
        world.launched(3);
        // A restart counts from the request on.
        world.feed(Input::Restart { jobs: vec![name("a")], by: operator("restart") });
        world.pass(100);
        let mut record = super::super::tests::record("a", 3, exited(0), (Some(world.now), world.now));
        (record.asked, record.rusage) = (operator("restart"), Some(Default::default()));
        record.rusage.as_mut().unwrap().max_rss_kib = 4096;
        world.feed(Input::Ended { record: Box::new(record), leftovers: false });
        world.pass(10);
        world.launched(4);
        let now = stats(&world);
        let exits = Exits { failed: 1, signal: 1, asked: 1, ..Exits::default() };
        assert_eq!((now.exits, now.restarts_ms.clone(), now.longest_ms), (exits, vec![20, 5, 110], 2000));
        assert_eq!((now.uptime_ms, now.max_rss_kib), (2600, 4096));
        let percentiles = [50, 95, 99].map(|percent| now.restart_percentile(percent));
        assert_eq!(percentiles, [Some(20), Some(110), Some(110)]);
        assert_eq!(Stats::default().restart_percentile(50), None);
        let before = now;
        world.replayed();
        assert_eq!(stats(&world), before, "from events alone");
    }

    #[test]
    fn time_down_is_time_wanted_without_a_run() {
        let mut world = World::with(&[spec("a")]);
        world.launched(1);
        world.pass(1000);
        world.ended("a", 1, exited(3), false);
        world.pass(20);
        world.launched(2);
        assert_eq!(stats(&world).down_ms, 20);
        // Nobody wants it for an hour; a start takes 30 ms.
        world.stop("a");
        world.ended("a", 2, Outcome::Signaled { signal: 15, core: false }, false);
        world.pass(3_600_000);
        world.start("a");
        world.pass(30);
        world.replayed();
        let wanted = stats(&world).wanted;
        assert!(wanted.is_some());
        world.launched(3);
        assert_eq!((stats(&world).down_ms, stats(&world).wanted), (50, None));
    }

    #[test]
    fn what_cannot_be_known_is_not_made_up() {
        let mut world = World::with(&[spec("a")]);
        world.launched(1);
        // The host is started again: its boot clock begins anew.
        world.now = Stamp { boot_us: 5_000_000, wall_us: world.now.wall_us + 3_600_000_000 };
        world.replayed();
        world.supervisor(2, false);
        world.configured(&[spec("a")]);
        world.surveyed(vec![(1, "a", Fact::Lost { why: "gone".to_owned() })]);
        world.feed(Input::Launched {
            run: super::super::tests::run(2),
            identity: identity(9),
            at: world.now,
        });
        let now = stats(&world);
        assert_eq!((now.exits.lost, now.uptime_ms), (1, 0));
        // A refused start is none of the ends that were up.
        world.ended("a", 2, Outcome::NotStarted { step: "exec".to_owned(), errno: 2 }, false);
        world.launched(3);
        assert_eq!((stats(&world).exits.refused, stats(&world).uptime_ms), (1, 0));
    }

    #[test]
    fn only_the_latest_restart_times_are_kept() {
        let mut stats = Stats::default();
        for n in 0..100 {
            stats.restarted(Millis(n));
        }
        assert_eq!((stats.restarts_ms.len(), stats.restarts_ms[0]), (SAMPLES_MAX, 68));
        stats.restarted(Millis(u64::MAX));
        assert_eq!(stats.restart_percentile(99), Some(u32::MAX));
    }
}
