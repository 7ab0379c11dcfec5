//! Circuit breakers, as traces.

use super::super::circuit::{Breaker, Circuit};
use super::super::input::{Fact, Input};
use super::super::spec::{JobSpec, Restart, StartLimit};
use super::super::time::Millis;
use super::super::watch::{Ready, ReadyBy, Watch};
use super::{World, exited, expect, identity, name, operator, run, spec};

/// A circuit that opens at the second failure in a row, for a second; a run that lasts 300 ms closes it.
fn breaking() -> JobSpec {
    let mut a = JobSpec { restart: Restart::Always, ..spec("a") };
    a.breaker = Some(Box::new(Breaker { failures: 2, open_for: Millis(1000) }));
    a.backoff.initial = Millis(10);
    a.backoff.reset_after = Millis(300);
    a
}

impl World {
    fn circuit(&self) -> Option<Circuit> {
        let a = name("a");
        Circuit::of(self.state.spec(&a)?, self.state.job(&a)?)
    }

    /// Fails until the circuit is open; the run after that will be this one.
    fn opened(a: JobSpec) -> (Self, u128) {
        let mut world = Self::with(&[a]);
        world.launched(1);
        world.ended("a", 1, exited(1), false);
        assert_eq!((world.circuit(), world.due_in()), (Some(Circuit::Closed), Some(10)));
        world.tick_after(10);
        world.launched(2);
        let decision = world.ended("a", 2, exited(1), false);
        expect(&decision, &["run.ended a exit 1", "job.backoff a 2", "> forget 2"]);
        assert_eq!((world.circuit(), world.due_in()), (Some(Circuit::Open), Some(1000)));
        (world, 3)
    }

    fn lived_again(&mut self) {
        let before = self.state.clone();
        self.replayed();
        let specs: Vec<_> = before.specs.values().cloned().collect();
        self.state.set_specs(&specs);
        assert!(self.state == before);
    }
}

#[test]
fn an_open_circuit_makes_no_start_before_its_time_and_then_one_on_trial() {
    let (mut world, next) = World::opened(breaking());
    expect(&world.tick_after(999), &[]);
    assert_eq!(world.reason("a"), "exit 1, 2 failures in a row, the circuit is open");
    expect(&world.tick_after(1), &["run.requested a 3", "> launch a 3 3"]);
    assert_eq!(world.circuit(), Some(Circuit::HalfOpen));
    expect(&world.launched(next), &["run.started a", "run.on_trial a"]);
    assert_eq!(world.reason("a"), "the circuit is half open: on trial after 2 failures in a row");
    world.lived_again();
    // One failure is enough now.
    world.pass(299);
    let decision = world.ended("a", next, exited(1), false);
    expect(&decision, &["run.ended a exit 1", "job.backoff a 3", "> forget 3"]);
    assert_eq!((world.circuit(), world.due_in()), (Some(Circuit::Open), Some(1000)));
    world.lived_again();
}

#[test]
fn a_run_that_lasts_long_enough_closes_it_to_the_millisecond() {
    let (mut world, next) = World::opened(breaking());
    world.tick_after(1000);
    world.launched(next);
    assert_eq!(world.due_in(), Some(300));
    expect(&world.tick_after(299), &[]);
    assert_eq!(world.circuit(), Some(Circuit::HalfOpen));
    expect(&world.tick_after(1), &["run.passed_trial a"]);
    assert_eq!((world.circuit(), world.due_in()), (Some(Circuit::Closed), None));
    assert_eq!((world.word("a"), world.reason("a").as_str()), ("running", ""));
    world.lived_again();
    world.ended("a", next, exited(1), false);
    assert_eq!((world.circuit(), world.due_in()), (Some(Circuit::Closed), Some(10)), "counted anew");
}

#[test]
fn a_run_that_ends_well_or_gets_ready_closes_it() {
    let (mut world, next) = World::opened(breaking());
    world.tick_after(1000);
    world.launched(next);
    world.ended("a", next, exited(0), false);
    assert_eq!((world.circuit(), world.due_in()), (Some(Circuit::Closed), Some(10)));

    let ready = Ready { by: ReadyBy::Notify, timeout: Millis(5000) };
    let tells =
        JobSpec { watch: Some(Box::new(Watch { ready: Some(ready), ..Watch::default() })), ..breaking() };
    let (mut world, next) = World::opened(tells);
    world.tick_after(1000);
    world.launched(next);
    world.pass(100);
    expect(&world.feed(Input::Ready { run: run(next) }), &["run.ready a", "run.passed_trial a"]);
    assert_eq!((world.circuit(), world.due_in()), (Some(Circuit::Closed), None));
}

#[test]
fn an_operator_is_told_that_it_is_open_and_may_insist() {
    let (mut world, _) = World::opened(breaking());
    world.pass(400);
    for refused in [world.start("a"), world.restart("a")] {
        let answer = &refused.answers[0];
        assert!(!answer.ok && refused.events.is_empty(), "{refused:?}");
        let due = world.now.plus(Millis(600)).rfc3339();
        assert_eq!(
            answer.text,
            format!(
                "the circuit is open after 2 failures in a row; the next try is due at {due}, and \
                 `outlive start --force` makes it now"
            )
        );
    }
    let force = Input::Start { jobs: vec![name("a")], force: true, by: operator("start --force") };
    expect(&world.feed(force), &["job.want a Up", "run.requested a 3", "> launch a 3 3"]);
    assert_eq!(world.circuit(), Some(Circuit::Closed), "who insists begins anew");
}

#[test]
fn it_is_still_open_for_the_next_supervisor_and_half_open_after_a_reboot() {
    let (mut world, _) = World::opened(breaking());
    world.pass(400);
    world.replayed();
    world.successor();
    world.configured(&[breaking()]);
    expect(&world.surveyed(vec![]), &["supervisor.surveyed"]);
    assert_eq!((world.circuit(), world.due_in()), (Some(Circuit::Open), Some(600)));
    assert!(!world.start("a").answers[0].ok);

    world.replayed();
    world.supervisor(2, false);
    world.configured(&[breaking()]);
    let found = world.surveyed(vec![]);
    expect(&found, &["supervisor.surveyed", "run.requested a 3", "> launch a 3 3"]);
    assert_eq!(world.circuit(), Some(Circuit::HalfOpen));
}

#[test]
fn a_run_on_trial_is_still_on_trial_for_the_next_supervisor() {
    let (mut world, next) = World::opened(breaking());
    world.tick_after(1000);
    let started = world.now;
    world.replayed();
    world.successor();
    world.configured(&[breaking()]);
    world.pass(100);
    world.surveyed(vec![(next, "a", Fact::Alive { identity: identity(7), started })]);
    assert_eq!((world.circuit(), world.due_in()), (Some(Circuit::HalfOpen), Some(200)));
    world.replayed();
    world.successor();
    world.configured(&[breaking()]);
    world.surveyed(vec![(next, "a", Fact::Alive { identity: identity(7), started })]);
    assert_eq!((world.circuit(), world.due_in()), (Some(Circuit::HalfOpen), Some(200)));
    world.tick_after(200);
    assert_eq!(world.circuit(), Some(Circuit::Closed));
}

#[test]
fn the_start_limit_still_counts() {
    let mut a = breaking();
    a.start_limit = StartLimit { count: 3, within: Millis(60_000) };
    let (mut world, next) = World::opened(a);
    world.tick_after(1000);
    world.launched(next);
    world.ended("a", next, exited(1), false);
    assert_eq!((world.word("a"), world.circuit()), ("fatal", Some(Circuit::Closed)));
}

#[test]
fn a_job_without_a_breaker_has_no_circuit() {
    let world = World::with(&[spec("a")]);
    assert_eq!(world.circuit(), None);
}
