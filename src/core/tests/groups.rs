//! Groups, as traces.

use super::super::fault::Fault;
use super::super::group::{GroupSpec, Strategy};
use super::super::input::{Fact, Input};
use super::super::outcome::{Asked, Outcome};
use super::super::spec::{JobSpec, Restart, StartLimit};
use super::super::time::Millis;
use super::{World, exited, expect, identity, name, run, spec};

/// Three members in the order `b`, `a`, `c`, and one that is none.
fn members(strategy: Strategy, start_limit: Option<StartLimit>) -> Vec<JobSpec> {
    let members = ["b", "a", "c"].map(name).to_vec();
    let group = GroupSpec { name: "g".to_owned(), strategy, members, start_limit };
    let member = |job| JobSpec { in_group: Some(Box::new(group.clone())), ..spec(job) };
    vec![member("a"), member("b"), member("c"), spec("d")]
}

/// All of them run: `a` as run 1, `b` as 2, `c` as 3, `d` as 4.
fn running(specs: &[JobSpec]) -> World {
    let mut world = World::with(specs);
    (1..=4).for_each(|n| drop(world.launched(n)));
    world
}

fn limit(count: u32) -> Option<StartLimit> {
    Some(StartLimit { count, within: Millis(1000) })
}

#[test]
fn one_for_one_restarts_the_member_that_failed_alone() {
    let mut world = running(&members(Strategy::OneForOne, None));
    let decision = world.ended("a", 1, exited(1), false);
    expect(&decision, &["run.ended a exit 1", "run.requested a 2", "> forget 1", "> launch a 5 2"]);
}

#[test]
fn one_for_all_restarts_the_others_each_by_its_own_ladder() {
    let mut world = running(&members(Strategy::OneForAll, None));
    let decision = world.ended("a", 1, exited(1), false);
    expect(
        &decision,
        &[
            "run.ended a exit 1",
            "run.stopping b then start",
            "run.stop_step b 0",
            "run.stopping c then start",
            "run.stop_step c 0",
            "run.requested a 2",
            "> forget 1",
            "> TERM 2 process cont",
            "> TERM 3 process cont",
            "> launch a 5 2",
        ],
    );
    assert_eq!(world.word("d"), "running");
    // Their end is no failure, and restarts nobody.
    let decision = world.ended("b", 2, Outcome::Signaled { signal: 15, core: false }, false);
    expect(&decision, &["run.ended b signal 15 (TERM)", "run.requested b 2", "> forget 2", "> launch b 6 2"]);
}

#[test]
fn rest_for_one_restarts_those_after_it_in_the_list() {
    let mut world = running(&members(Strategy::RestForOne, None));
    world.ended("a", 1, exited(1), false);
    assert_eq!((world.word("b"), world.word("c")), ("running", "stopping"));
    let mut world = running(&members(Strategy::RestForOne, None));
    world.ended("c", 3, exited(1), false);
    assert_eq!((world.word("a"), world.word("b")), ("running", "running"));
    let mut world = running(&members(Strategy::RestForOne, None));
    world.ended("b", 2, exited(1), false);
    assert_eq!((world.word("a"), world.word("c")), ("stopping", "stopping"));
}

#[test]
fn a_member_that_is_judged_unwell_counts_when_its_run_has_ended() {
    let mut world = running(&members(Strategy::OneForAll, None));
    let unwell = Input::Unwell { run: run(1), fault: Fault::MaxRuntime, why: "too long".to_owned() };
    world.feed(unwell);
    assert_eq!((world.word("a"), world.word("b")), ("stopping", "running"));
    world.ended("a", 1, exited(0), false);
    assert_eq!((world.word("a"), world.word("b"), world.word("c")), ("starting", "stopping", "stopping"));
}

#[test]
fn a_good_end_a_stop_and_an_end_without_a_restart_touch_nobody() {
    let mut specs = members(Strategy::OneForAll, limit(1));
    specs[0].restart = Restart::Always;
    specs[1].restart = Restart::Never;
    let mut world = running(&specs);
    world.ended("a", 1, exited(0), false);
    world.ended("b", 2, exited(1), false);
    world.stop("c");
    world.ended("c", 3, exited(0), false);
    world.launched(5);
    assert_eq!(["a", "b", "c", "d"].map(|job| world.word(job)), ["running", "exited", "stopped", "running"]);
    // What is stopped stays so when another fails.
    world.ended("a", 5, exited(1), false);
    assert_eq!((world.word("a"), world.word("c")), ("starting", "stopped"));
}

#[test]
fn more_restarts_than_the_group_may_have_end_all_of_it() {
    let mut world = running(&members(Strategy::OneForOne, limit(2)));
    world.ended("a", 1, exited(1), false);
    world.launched(5);
    world.pass(400);
    world.ended("b", 2, exited(1), false);
    world.launched(6);
    world.pass(599);
    // To the millisecond: the first is a second ago in the next one.
    let decision = world.ended("a", 5, exited(1), false);
    let why = "group g: more than 2 restarts within 1s";
    expect(
        &decision,
        &[
            "run.ended a exit 1",
            &format!("job.gave_up a {why}"),
            "run.stopping b",
            "run.stop_step b 0",
            "run.stopping c",
            "run.stop_step c 0",
            "> forget 5",
            "> TERM 6 process cont",
            "> TERM 3 process cont",
        ],
    );
    let decision = world.ended("c", 3, Outcome::Signaled { signal: 15, core: false }, false);
    expect(&decision, &["run.ended c signal 15 (TERM)", &format!("job.gave_up c {why}"), "> forget 3"]);
    // An operator may want one back before it has stopped.
    world.start("b");
    world.ended("b", 6, exited(0), false);
    assert_eq!(["a", "b", "c", "d"].map(|job| world.word(job)), ["fatal", "starting", "fatal", "running"]);
    let lived = world.state.clone();
    world.replayed();
    let specs: Vec<_> = lived.specs.values().cloned().collect();
    world.state.set_specs(&specs);
    assert!(world.state == lived);
}

#[test]
fn restarts_that_are_long_enough_ago_do_not_count() {
    let mut world = running(&members(Strategy::OneForOne, limit(1)));
    world.ended("a", 1, exited(1), false);
    world.launched(5);
    world.pass(1000);
    world.ended("b", 2, exited(1), false);
    assert_eq!((world.word("a"), world.word("b")), ("running", "starting"));
    world.launched(6);
    world.pass(999);
    world.ended("c", 3, exited(1), false);
    assert_eq!(["a", "b", "c"].map(|job| world.word(job)), ["stopping", "stopping", "fatal"]);
}

#[test]
fn what_waits_or_left_something_over_is_given_up_with_the_rest() {
    let mut specs = members(Strategy::OneForOne, limit(1));
    specs[1].backoff.initial = Millis(5000);
    let mut world = running(&specs);
    world.ended("b", 2, exited(1), false);
    world.ended("c", 3, exited(1), true);
    assert_eq!((world.word("b"), world.word("c")), ("backoff", "stopping"));
    world.ended("a", 1, exited(1), false);
    assert_eq!((world.word("a"), world.word("b"), world.word("c")), ("fatal", "fatal", "stopping"));
    world.tree_gone(3);
    assert_eq!(world.word("c"), "fatal");
}

#[test]
fn a_group_that_is_given_up_stays_so_for_the_next_supervisor() {
    let specs = members(Strategy::OneForOne, limit(1));
    let mut world = running(&specs);
    world.ended("a", 1, exited(1), false);
    world.ended("b", 2, exited(1), false);
    assert_eq!((world.word("a"), world.word("b"), world.word("c")), ("stopping", "fatal", "stopping"));
    world.replayed();
    world.successor();
    world.configured(&specs);
    let alive = |pid| Fact::Alive { identity: identity(pid), started: world.now };
    let found = vec![(3, "c", alive(3)), (5, "a", Fact::Cancelled), (4, "d", alive(4))];
    world.surveyed(found);
    assert_eq!((world.word("a"), world.word("c")), ("fatal", "stopping"));
    world.ended("c", 3, exited(0), false);
    assert_eq!(world.word("c"), "fatal");
    assert!(matches!(world.state.job(&name("c")).unwrap().last_end().unwrap().asked, Asked::Group { .. }));
}

#[test]
fn in_recovery_mode_and_in_a_shutdown_a_failure_is_about_one_job() {
    let specs = members(Strategy::OneForAll, limit(1));
    for recovery in [true, false] {
        let mut world = running(&specs);
        if recovery {
            world.replayed();
            world.supervisor(1, true);
            world.configured(&specs);
            let alive = |pid| Fact::Alive { identity: identity(pid), started: world.now };
            let found = [(1, "a"), (2, "b"), (3, "c"), (4, "d")];
            let found = found.map(|(n, job)| (n, job, alive(n as i32))).to_vec();
            world.surveyed(found);
        } else {
            world.shutdown();
        }
        let decision = world.ended("a", 1, exited(1), false);
        let of_others = decision.events.iter().filter(|event| event.job() != Some(&name("a")));
        assert_eq!(of_others.count(), 0, "{decision:?}");
    }
}
