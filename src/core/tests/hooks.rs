//! Hooks, as traces.

use super::super::fault::Fault;
use super::super::hook::{Hook, Hooks, When};
use super::super::input::{Fact, Input, Survey};
use super::super::outcome::Outcome;
use super::super::spec::{JobSpec, Leftovers, Restart};
use super::super::time::Millis;
use super::{World, exited, expect, identity, run, signal_step, spec};

/// A job with this hook, which has 400 ms.
fn hooked(whens: &[When]) -> JobSpec {
    let mut hooks = Hooks::default();
    for when in whens {
        *hooks.at(*when) = Some(Hook { command: vec!["hook".to_owned()], timeout: Millis(400) });
    }
    JobSpec { hooks: Some(Box::new(hooks)), ..spec("a") }
}

fn running(a: JobSpec) -> World {
    let mut world = World::with(&[a]);
    world.launched(1);
    world
}

fn before_stop() -> JobSpec {
    JobSpec { stop: vec![signal_step(15, 1000)], ..hooked(&[When::BeforeStop]) }
}

#[test]
fn each_is_run_once_at_its_time() {
    let all = [When::AfterStart, When::AfterExit, When::OnFrozen, When::OnFatal];
    let mut world = World::with(&[JobSpec { restart: Restart::Always, ..hooked(&all) }]);
    expect(&world.launched(1), &["run.started a", "> hook after_start 1 pid 101"]);
    let unwell = Input::Unwell { run: run(1), fault: Fault::Silent, why: "silent".to_owned() };
    let found = world.feed(unwell.clone());
    expect(&found, &["run.unwell a", "run.heal_step a", "> hook on_frozen 1 pid 101", "> CONT 1 tree"]);
    expect(&world.feed(unwell), &[]);
    let ended = world.ended("a", 1, exited(3), false);
    let next = ["run.ended a exit 3", "run.requested a 2", "> forget 1", "> hook after_exit 1 exit 3"];
    expect(&ended, &[&next[..], &["> launch a 2 2"]].concat());
}

#[test]
fn what_is_given_up_says_so_with_its_last_end() {
    let mut a = hooked(&[When::OnFatal, When::AfterExit]);
    a.start_limit.count = 1;
    let mut world = running(a);
    let ended = world.ended("a", 1, Outcome::OomKilled, false);
    expect(
        &ended,
        &[
            "run.ended a killed: out of memory",
            "job.gave_up a 1 starts within 1m",
            "> forget 1",
            "> hook after_exit 1 killed: out of memory",
            "> hook on_fatal 1 killed: out of memory",
        ],
    );
}

#[test]
fn after_exit_waits_for_what_the_run_left_and_is_not_for_what_never_ran() {
    let a = JobSpec { leftovers: Leftovers::Wait, ..hooked(&[When::AfterExit]) };
    let mut world = running(a);
    expect(&world.ended("a", 1, exited(0), true), &["run.ended a exit 0, leftovers"]);
    expect(&world.tree_gone(1), &["run.tree_gone a", "> forget 1", "> hook after_exit 1 exit 0"]);
    world.start("a");
    let outcome = Outcome::NotStarted { step: "before_start hook: exit 3".to_owned(), errno: 0 };
    let refused = world.feed(Input::Refused { run: run(2), outcome });
    let ended = "run.ended a never started: before_start hook: exit 3";
    expect(&refused, &[ended, "run.requested a 3", "> forget 2", "> launch a 3 3"]);
}

#[test]
fn a_run_that_began_while_nobody_was_there_has_its_after_start_and_no_other_has_it_twice() {
    let a = hooked(&[When::AfterStart]);
    let mut world = World::with(std::slice::from_ref(&a));
    let started = world.now;
    for first in [true, false] {
        world.replayed();
        world.successor();
        world.configured(std::slice::from_ref(&a));
        let found = world.surveyed(vec![(1, "a", Fact::Alive { identity: identity(7), started })]);
        let hook = ["supervisor.surveyed", "run.adopted a", "> hook after_start 1 pid 7"];
        expect(&found, if first { &hook } else { &hook[..2] });
    }
}

#[test]
fn the_ladder_begins_when_before_stop_has_ended_well_or_not() {
    let mut world = running(before_stop());
    let stop = ["job.want a Down", "run.stopping a", "run.stop_step a hook", "> hook before_stop 1 pid 101"];
    expect(&world.stop("a"), &stop);
    assert_eq!(world.reason("a"), "its before_stop hook is running");
    expect(&world.tick_after(399), &[]);
    let ended = world.feed(Input::HookEnded { run: run(1) });
    expect(&ended, &["run.stop_step a 0", "> TERM 1 process cont"]);
    expect(&world.feed(Input::HookEnded { run: run(1) }), &[]);
    expect(&world.tick_after(1000), &["run.stop_step a 1 kill", "> KILL 1 tree"]);
    expect(&world.feed(Input::StopCommandEnded { run: run(1), step: 0, ok: false }), &[]);
}

#[test]
fn the_ladder_begins_when_the_time_of_before_stop_is_over_to_the_millisecond() {
    let mut world = running(before_stop());
    world.stop("a");
    assert_eq!(world.due_in(), Some(400));
    expect(&world.tick_after(399), &[]);
    expect(&world.tick_after(1), &["run.stop_step a 0", "> TERM 1 process cont"]);
}

#[test]
fn the_next_supervisor_asks_for_before_stop_once_more_and_goes_on_with_the_ladder() {
    let mut world = running(before_stop());
    world.stop("a");
    let alive = Fact::Alive { identity: identity(101), started: world.now };
    world.pass(300);
    let lived = world.state.clone();
    world.replayed();
    world.state.set_specs(&[std::sync::Arc::new(before_stop())]);
    assert!(world.state == lived);
    world.successor();
    world.configured(&[before_stop()]);
    let found = world.surveyed(vec![(1, "a", alive.clone())]);
    expect(&found, &["supervisor.surveyed", "run.adopted a", "> hook before_stop 1 pid 101"]);
    assert_eq!(world.due_in(), Some(100), "its time goes on");
    world.feed(Input::HookEnded { run: run(1) });
    world.replayed();
    world.successor();
    world.configured(&[before_stop()]);
    let found = world.surveyed(vec![(1, "a", alive)]);
    let ladder = ["supervisor.surveyed", "run.adopted a", "run.stop_step a 0", "> TERM 1 process cont"];
    expect(&found, &ladder);
}

#[test]
fn there_is_no_before_stop_for_what_a_run_left_nor_when_everything_is_killed() {
    let mut world = running(before_stop());
    let left = world.ended("a", 1, exited(0), true);
    expect(&left, &["run.ended a exit 0, leftovers", "run.stop_step a 0", "> TERM 1 tree cont"]);

    let mut world = running(before_stop());
    world.state.shutdown_timeout = Millis(100);
    world.shutdown();
    expect(&world.tick_after(100), &["shutdown.forced", "run.stop_step a 1 kill", "> KILL 1 tree"]);
    expect(&world.feed(Input::HookEnded { run: run(1) }), &[]);
}

#[test]
fn a_run_that_is_stopped_before_the_keeper_has_answered_has_its_hooks_when_it_has() {
    let mut world = World::with(&[hooked(&[When::AfterStart, When::BeforeStop])]);
    expect(&world.stop("a"), &["job.want a Down", "run.stopping a"]);
    expect(
        &world.launched(1),
        &[
            "run.started a",
            "run.stop_step a hook",
            "> hook after_start 1 pid 101",
            "> hook before_stop 1 pid 101",
        ],
    );
}

#[test]
fn a_start_that_still_waits_for_its_hook_is_not_given_up_by_a_survey() {
    let mut world = World::with(&[hooked(&[When::BeforeStart])]);
    world.feed(Input::KeeperLost);
    let pending = [run(1)].into();
    let found = world.feed(Input::Surveyed(Survey { pending, ..Survey::default() }));
    expect(&found, &["supervisor.surveyed"]);
    expect(&world.launched(1), &["run.started a"]);
}
