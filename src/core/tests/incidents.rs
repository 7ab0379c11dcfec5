//! Incidents: when they begin, what ends them, how long they took, and that a replay and a checkpoint say the same.

use super::super::fault::Fault;
use super::super::input::{Fact, Input};
use super::super::outcome::Outcome;
use super::super::recoveries::{Incident, RECENT_MAX, Recovered, Tally, Trouble};
use super::super::spec::Restart;
use super::super::state::State;
use super::super::stats::Cause;
use super::super::time::{Millis, Stamp};
use super::super::watch::{Ready, ReadyBy, Watch};
use super::{World, exited, identity, name, run, spec};

fn tally(world: &World, cause: Trouble) -> (u64, u64, u64) {
    let Tally { recovered, failed, sum_ms } =
        world.state.recoveries().totals.by_cause.get(&cause).copied().unwrap_or_default();
    (recovered, failed, sum_ms)
}

fn all(world: &World) -> (u64, u64, usize) {
    let recoveries = world.state.recoveries();
    let all = recoveries.totals.all();
    (all.recovered, all.failed, recoveries.open().len())
}

fn incident(world: &World) -> Option<Incident> {
    world.state.recoveries().of(&name("a")).copied()
}

/// What a replay and what a checkpoint say is what is remembered.
#[track_caller]
fn survives(world: &mut World) {
    let lived = world.state.recoveries().clone();
    let mut restored = State::new();
    let take = |line: &[u8]| -> Result<(), serde_json::Error> {
        restored.restore(line, None).unwrap();
        Ok(())
    };
    world.state.entities(take).unwrap();
    assert_eq!(*restored.recoveries(), lived, "by a checkpoint");
    world.replayed();
    assert_eq!(*world.state.recoveries(), lived, "by a replay");
}

const FAILED: Trouble = Trouble::End(Cause::Failed);

#[test]
fn an_end_that_is_followed_by_another_run_is_an_incident_until_that_is_up() {
    let mut a = spec("a");
    a.backoff.initial = Millis(1000);
    a.start_grace = Millis(500);
    let mut world = World::with(&[a]);
    world.launched(1);
    world.tick_after(500);
    assert_eq!((all(&world), incident(&world)), ((0, 0, 0), None), "the first start is none");
    let ended = world.now;
    world.ended("a", 1, exited(3), false);
    assert_eq!(incident(&world).map(|i| (i.cause, i.since, i.tries)), Some((FAILED, ended, 0)));
    world.tick_after(1000);
    // It ends before it is up: that is the same incident, with the cause it began with.
    world.launched(2);
    world.pass(100);
    world.ended("a", 2, Outcome::Signaled { signal: 11, core: false }, false);
    assert_eq!(incident(&world).map(|i| (i.cause, i.since, i.tries)), Some((FAILED, ended, 1)));
    survives(&mut world);
    world.supervisor(1, false);
    assert_eq!(all(&world), (0, 0, 1));
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    world.ended("a", 1, exited(3), false);
    world.pass(250);
    world.launched(2);
    assert_eq!((all(&world), tally(&world, FAILED)), ((1, 0, 0), (1, 0, 250)));
    assert_eq!(world.state.recoveries().totals.buckets, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], "at most 0.25 s");
    survives(&mut world);
}

#[test]
fn one_that_has_to_tell_that_it_is_ready_is_up_when_it_has_told() {
    let mut a = spec("a");
    let ready = Ready { by: ReadyBy::Notify, timeout: Millis(60_000) };
    a.watch = Some(Box::new(Watch { ready: Some(ready), ..Watch::default() }));
    let mut world = World::with(&[a]);
    world.launched(1);
    world.feed(Input::Ready { run: run(1) });
    world.ended("a", 1, Outcome::OomKilled, false);
    world.pass(10);
    world.launched(2);
    assert_eq!(all(&world), (0, 0, 1));
    world.pass(30_000);
    world.feed(Input::Ready { run: run(2) });
    assert_eq!(tally(&world, Trouble::End(Cause::Oom)), (1, 0, 30_010));
    survives(&mut world);
}

#[test]
fn where_nothing_follows_there_is_no_incident() {
    let mut a = spec("a");
    a.restart = Restart::Never;
    let mut world = World::with(&[a]);
    world.launched(1);
    world.ended("a", 1, exited(3), false);
    assert_eq!(all(&world), (0, 0, 0));
    // Somebody starts it, in the same instant.
    world.start("a");
    world.launched(2);
    assert_eq!(all(&world), (0, 0, 0));
    // Also where it was unwell first.
    world.feed(Input::Unwell { run: run(2), fault: Fault::MaxRuntime, why: "too long".to_owned() });
    assert_eq!(incident(&world).map(|i| i.cause), Some(Trouble::Fault(Fault::MaxRuntime)));
    world.pass(100);
    world.ended("a", 2, exited(0), false);
    assert_eq!(all(&world), (0, 0, 0), "{:?}", incident(&world));
    survives(&mut world);
    // A stop that was asked for is none either.
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    world.stop("a");
    world.ended("a", 1, Outcome::Signaled { signal: 15, core: false }, false);
    world.start("a");
    world.launched(2);
    world.restart("a");
    world.ended("a", 2, Outcome::Signaled { signal: 15, core: false }, false);
    world.launched(3);
    assert_eq!(all(&world), (0, 0, 0));
}

#[test]
fn what_is_given_up_has_failed_and_what_is_stopped_is_dropped() {
    let mut a = spec("a");
    a.start_limit.count = 2;
    a.backoff.initial = Millis(10);
    let mut world = World::with(&[a]);
    world.launched(1);
    world.ended("a", 1, exited(3), false);
    world.tick_after(10);
    world.launched(2);
    assert_eq!(all(&world), (1, 0, 0));
    world.pass(1);
    world.ended("a", 2, exited(3), false);
    assert_eq!((world.word("a"), all(&world), tally(&world, FAILED)), ("fatal", (1, 1, 0), (1, 1, 10)));
    survives(&mut world);
    let mut b = spec("a");
    b.backoff.initial = Millis(1000);
    let mut world = World::with(&[b]);
    world.launched(1);
    world.ended("a", 1, exited(3), false);
    assert_eq!(all(&world), (0, 0, 1));
    world.stop("a");
    assert_eq!(all(&world), (0, 0, 0));
    survives(&mut world);
}

#[test]
fn a_run_that_is_unwell_is_an_incident_from_then_on_also_if_it_is_stopped_for_it() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    let found = world.now;
    world.feed(Input::Unwell { run: run(1), fault: Fault::Memory, why: "too much".to_owned() });
    world.pass(400);
    world.feed(Input::Well { run: run(1) });
    assert_eq!(tally(&world, Trouble::Fault(Fault::Memory)), (1, 0, 400), "by itself");
    world.pass(1000);
    let again = world.now;
    assert!(again > found);
    world.feed(Input::Unwell { run: run(1), fault: Fault::MaxRuntime, why: "too long".to_owned() });
    world.pass(300);
    world.ended("a", 1, Outcome::Signaled { signal: 15, core: false }, false);
    assert_eq!(incident(&world).map(|i| (i.since, i.tries)), Some((again, 0)));
    world.pass(200);
    world.launched(2);
    assert_eq!(tally(&world, Trouble::Fault(Fault::MaxRuntime)), (1, 0, 500));
    survives(&mut world);
}

#[test]
fn a_recovery_is_counted_once_over_the_death_of_a_supervisor_and_a_reboot() {
    // The run was started, and nobody had recorded that.
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    world.ended("a", 1, exited(3), false);
    world.pass(50);
    let started = world.now;
    world.pass(3000);
    world.replayed();
    world.successor();
    world.configured(&[spec("a")]);
    world.surveyed(vec![(2, "a", Fact::Alive { identity: identity(9), started })]);
    assert_eq!((all(&world), tally(&world, FAILED)), ((1, 0, 0), (1, 0, 50)));
    world.replayed();
    world.successor();
    world.configured(&[spec("a")]);
    world.surveyed(vec![(2, "a", Fact::Alive { identity: identity(9), started })]);
    assert_eq!(all(&world), (1, 0, 0));

    // A pause before the next try, and in it a reboot: only the wall clock goes on.
    let mut a = spec("a");
    a.backoff.initial = Millis(5000);
    let mut world = World::with(&[a.clone()]);
    world.launched(1);
    world.ended("a", 1, exited(3), false);
    world.now = Stamp { boot_us: 7_000_000, wall_us: world.now.wall_us + 120_000_000 };
    world.replayed();
    world.supervisor(2, false);
    world.configured(&[a]);
    world.surveyed(Vec::new());
    survives(&mut world);
    world.configured(&[spec("a")]);
    world.feed(Input::Tick);
    let next = world.state.job(&name("a")).and_then(super::super::job::Job::run);
    let at = world.now;
    world.feed(Input::Launched { run: next.unwrap(), identity: identity(9), at });
    assert_eq!(tally(&world, FAILED), (1, 0, 120_000));
}

#[test]
fn the_latest_times_are_exact_and_no_more_of_them_are_kept_than_fit() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    for n in 1..=u128::from(RECENT_MAX as u32) + 5 {
        world.ended("a", n, exited(3), false);
        world.pass(n as u64);
        world.launched(n + 1);
    }
    let totals = &world.state.recoveries().totals;
    assert_eq!((totals.recent.len(), totals.recent[0].ms), (RECENT_MAX, 6));
    assert_eq!([50, 95, 99, 100].map(|p| totals.percentile(p)), [505, 955, 995, 1005].map(Some));
    assert_eq!(totals.all().recovered, totals.buckets.iter().sum::<u64>());
    let Recovered { at_s, .. } = totals.recent[RECENT_MAX - 1];
    assert_eq!((totals.after(at_s).recovered, totals.after(at_s - 1).recovered), (0, 1));
    survives(&mut world);
}

#[test]
fn a_shutdown_drops_what_nobody_waits_for_any_more() {
    let mut a = spec("a");
    a.backoff.initial = Millis(1000);
    let mut world = World::with(&[a]);
    world.launched(1);
    world.ended("a", 1, exited(3), false);
    assert_eq!(all(&world), (0, 0, 1));
    world.shutdown();
    assert_eq!(all(&world), (0, 0, 0));
    survives(&mut world);
}
