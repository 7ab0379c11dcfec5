//! Jobs that were given up and are tried again, as traces.

use super::super::event::Event;
use super::super::input::{Fact, Input};
use super::super::spec::{JobSpec, Kind, OnFatal, Recovery, Restart, StartLimit};
use super::super::time::Millis;
use super::{World, exited, expect, operator, spec};

/// Given up at its second start, and tried again a minute later.
fn retried() -> JobSpec {
    let mut a = JobSpec { restart: Restart::Always, ..spec("a") };
    a.start_limit = StartLimit { count: 2, within: Millis(600_000) };
    a.retry_fatal = Some(Millis(60_000));
    a
}

fn given_up(a: JobSpec) -> World {
    let mut world = World::with(&[a]);
    for n in 1..=2 {
        world.launched(n);
        world.ended("a", n, exited(1), false);
    }
    assert_eq!((world.word("a"), world.due_in()), ("fatal", Some(60_000)));
    world
}

fn given_up_ends(a: JobSpec) -> World {
    let mut world = World::with(&[a]);
    world.launched(1);
    world.ended("a", 1, exited(1), false);
    world.launched(2);
    let last = world.ended("a", 2, exited(7), false);
    let wanted = ["run.ended a exit 7", "job.gave_up a 2 starts within 10m", "shutdown.begun"];
    expect(&last, &[&wanted[..], &["> forget 2", "> exit 7 keep=false"]].concat());
    world
}

#[test]
fn it_is_tried_again_at_its_time_with_its_failures_and_starts_forgotten() {
    let mut world = given_up(retried());
    let at = world.state.job(&super::name("a")).unwrap().next_try();
    assert_eq!(at, Some(world.now.plus(Millis(60_000))));
    expect(&world.tick_after(59_999), &[]);
    expect(&world.tick_after(1), &["job.retried a", "run.requested a 3", "> launch a 3 3"]);
    let lived = world.state.clone();
    world.replayed();
    world.state.set_specs(&[std::sync::Arc::new(retried())]);
    assert!(world.state == lived);
    world.launched(3);
    let decision = world.ended("a", 3, exited(1), false);
    expect(&decision, &["run.ended a exit 1", "run.requested a 4", "> forget 3", "> launch a 4 4"]);
}

#[test]
fn an_older_log_has_no_retry_in_it() {
    let line = r#"{"k":"job.gave_up","job":"a","why":"so"}"#;
    let event: Event = serde_json::from_str(line).unwrap();
    assert!(matches!(&event, Event::GaveUp { until: None, .. }));
    assert_eq!(serde_json::to_string(&event).unwrap(), line);
}

#[test]
fn the_next_supervisor_and_a_reboot_keep_the_time_or_find_it_over() {
    let mut world = given_up(retried());
    world.pass(10_000);
    world.replayed();
    world.successor();
    world.configured(&[retried()]);
    world.surveyed(vec![]);
    assert_eq!((world.word("a"), world.due_in()), ("fatal", Some(50_000)));
    // A service is started anew by a reboot anyway; a task that was given up is tried again.
    let mut world = given_up(JobSpec { kind: Kind::Task, ..retried() });
    world.replayed();
    world.supervisor(2, false);
    world.configured(&[JobSpec { kind: Kind::Task, ..retried() }]);
    let found = world.surveyed(vec![]);
    expect(&found, &["supervisor.surveyed", "job.retried a", "run.requested a 3", "> launch a 3 3"]);
}

#[test]
fn nothing_is_tried_again_in_recovery_mode_before_that_is_left() {
    let mut world = given_up(retried());
    world.replayed();
    world.supervisor(1, true);
    world.configured(&[retried()]);
    expect(&world.surveyed(vec![]), &["supervisor.surveyed"]);
    assert_eq!((world.word("a"), world.due_in()), ("fatal", None));
    let left = world.feed(Input::LeaveRecovery { by: operator("recover exit") });
    expect(&left, &["recovery.left", "job.gave_up a 2 starts within 10m"]);
    assert_eq!(world.due_in(), Some(60_000));
}

#[test]
fn nothing_is_tried_again_in_a_shutdown_or_after_a_stop() {
    let mut world = given_up(retried());
    world.shutdown();
    assert_eq!((world.word("a"), world.due_in()), ("fatal", None));
    let mut world = given_up(retried());
    world.stop("a");
    assert_eq!((world.word("a"), world.due_in()), ("stopped", None));
    // What it means for everything else happens at once.
    let ending = given_up_ends(JobSpec { on_fatal: OnFatal::Exit, ..retried() });
    assert_eq!((ending.word("a"), ending.due_in()), ("fatal", None));
}

#[test]
fn nobody_but_an_operator_starts_what_somebody_has_to_look_at() {
    let a = JobSpec { recovery: Recovery::Manual, ..retried() };
    let mut world = World::with(std::slice::from_ref(&a));
    world.launched(1);
    world.replayed();
    world.supervisor(2, false);
    world.configured(std::slice::from_ref(&a));
    world.surveyed(vec![(1, "a", Fact::Lost { why: "gone".to_owned() })]);
    assert_eq!((world.word("a"), world.due_in()), ("fatal", None));
    world.replayed();
    world.successor();
    world.configured(&[a]);
    world.surveyed(vec![]);
    assert_eq!((world.word("a"), world.due_in()), ("fatal", None));
}
