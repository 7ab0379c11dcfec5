//! The restart policy, as traces.

use super::super::input::Fact;
use super::super::outcome::Outcome;
use super::super::spec::{JobSpec, Kind, OnFatal, Restart, StartLimit};
use super::super::time::Millis;
use super::{World, exited, expect, record, spec};

fn with_policy(restart: Restart) -> JobSpec {
    JobSpec { restart, ..spec("a") }
}

/// A world in which `a` has started as run 1.
fn running(a: JobSpec) -> World {
    let mut world = World::with(&[a]);
    world.launched(1);
    assert_eq!(world.word("a"), "running");
    world
}

#[test]
fn always_restarts_after_clean_exit_in_one_decision() {
    let mut world = running(with_policy(Restart::Always));
    let decision = world.ended("a", 1, exited(0), false);
    expect(&decision, &["run.ended a exit 0", "run.requested a 2", "> forget 1", "> launch a 2 2"]);
    assert_eq!(world.word("a"), "starting");
}

#[test]
fn on_failure_restarts_after_a_failure_only() {
    let mut world = running(with_policy(Restart::OnFailure));
    world.ended("a", 1, exited(3), false);
    world.launched(2);
    let decision = world.ended("a", 2, exited(0), false);
    expect(&decision, &["run.ended a exit 0", "> forget 2"]);
    assert_eq!((world.word("a"), world.reason("a").as_str()), ("exited", "exit 0"));
}

#[test]
fn never_does_not_restart_after_a_failure() {
    let mut world = running(with_policy(Restart::Never));
    let decision = world.ended("a", 1, Outcome::Signaled { signal: 11, core: true }, false);
    expect(&decision, &["run.ended a signal 11 (SEGV), core dumped", "> forget 1"]);
    assert_eq!(world.word("a"), "exited");
}

#[test]
fn other_success_codes_count_as_success() {
    let mut a = with_policy(Restart::OnFailure);
    a.success_codes = vec![0, 42];
    let mut world = running(a);
    world.ended("a", 1, exited(42), false);
    assert_eq!(world.word("a"), "exited");
}

#[test]
fn a_run_shorter_than_its_grace_is_a_failed_start_whatever_its_code() {
    let mut a = with_policy(Restart::OnFailure);
    a.start_grace = Millis(1000);
    let mut world = World::with(&[a]);
    world.launched(1);
    assert_eq!((world.word("a"), world.due_in()), ("starting", Some(1000)));
    world.pass(999);
    let decision = world.ended("a", 1, exited(0), false);
    expect(&decision, &["run.ended a exit 0", "run.requested a 2", "> forget 1", "> launch a 2 2"]);
    world.launched(2);
    expect(&world.tick_after(1000), &["run.ready a"]);
    assert_eq!((world.word("a"), world.due_in()), ("running", None));
    world.ended("a", 2, exited(0), false);
    assert_eq!(world.word("a"), "exited");
}

#[test]
fn delays_grow_to_their_maximum_and_start_anew_after_a_long_run() {
    let mut a = with_policy(Restart::Always);
    (a.backoff.initial, a.backoff.max, a.backoff.reset_after) = (Millis(100), Millis(500), Millis(5000));
    let mut world = running(a);
    let mut delays = Vec::new();
    for n in 1..=5 {
        let decision = world.ended("a", n, exited(1), false);
        let ended = "run.ended a exit 1";
        expect(&decision, &[ended, &format!("job.backoff a {n}"), &format!("> forget {n}")]);
        let delay = world.due_in().unwrap();
        delays.push(delay);
        expect(&world.tick_after(delay - 1), &[]);
        let next = n + 1;
        expect(
            &world.tick_after(1),
            &[&format!("run.requested a {next}"), &format!("> launch a {next} {next}")],
        );
        world.launched(next);
    }
    assert_eq!(delays, [100, 200, 400, 500, 500]);
    world.pass(5000);
    world.ended("a", 6, exited(1), false);
    assert_eq!(world.due_in(), Some(100));
}

#[test]
fn a_success_under_always_waits_the_first_delay_and_no_more() {
    let mut a = with_policy(Restart::Always);
    a.backoff.initial = Millis(100);
    let mut world = running(a);
    for n in 1..=4 {
        world.ended("a", n, exited(0), false);
        assert_eq!(world.due_in(), Some(100));
        world.tick_after(100);
        world.launched(n + 1);
    }
}

#[test]
fn jitter_adds_up_to_its_share() {
    let mut a = with_policy(Restart::Always);
    (a.backoff.initial, a.backoff.jitter) = (Millis(1000), 0.5);
    for (chance, wanted) in [(0.0, 1000), (0.5, 1250), (1.0, 1500)] {
        let mut world = running(a.clone());
        world.fresh.chance = chance;
        world.ended("a", 1, exited(1), false);
        assert_eq!(world.due_in(), Some(wanted));
    }
}

#[test]
fn wild_settings_do_not_overflow_the_delay() {
    let mut a = with_policy(Restart::Always);
    (a.backoff.initial, a.backoff.factor, a.backoff.max) = (Millis(u64::MAX), f64::INFINITY, Millis(7));
    let mut world = running(a);
    for n in 1..=3 {
        world.ended("a", n, exited(1), false);
        assert_eq!(world.due_in(), Some(7));
        world.tick_after(7);
        world.launched(n + 1);
    }
}

/// A job that is given up at its second failure, and two others of which one depends on it.
fn about_to_be_given_up(on_fatal: OnFatal) -> World {
    let mut a = with_policy(Restart::Always);
    a.start_limit = StartLimit { count: 2, within: Millis(10_000) };
    a.on_fatal = on_fatal;
    let mut world = World::with(&[a, spec("b"), JobSpec { autostart: false, ..spec("c") }]);
    world.launched(1);
    world.launched(2);
    world.ended("a", 1, exited(1), false);
    world.launched(3);
    world
}

#[test]
fn a_job_that_is_given_up_may_stop_all_others() {
    let mut world = about_to_be_given_up(OnFatal::StopAll);
    let decision = world.ended("a", 3, exited(7), false);
    expect(
        &decision,
        &[
            "run.ended a exit 7",
            "job.gave_up a 2 starts within 10s",
            "job.want b Down",
            "run.stopping b",
            "run.stop_step b 0",
            "> forget 3",
            "> TERM 2 process cont",
        ],
    );
    // They stay stopped, whoever comes.
    world.ended("b", 2, exited(0), false);
    world.replayed();
    world.supervisor(1, false);
    world.surveyed(Vec::new());
    assert_eq!((world.word("a"), world.word("b"), world.word("c")), ("fatal", "stopped", "stopped"));
}

#[test]
fn a_job_that_is_given_up_may_end_the_instance_with_its_own_code() {
    let mut world = about_to_be_given_up(OnFatal::Exit);
    let decision = world.ended("a", 3, exited(7), false);
    expect(
        &decision,
        &[
            "run.ended a exit 7",
            "job.gave_up a 2 starts within 10s",
            "shutdown.begun",
            "run.stopping b",
            "run.stop_step b 0",
            "> forget 3",
            "> TERM 2 process cont",
        ],
    );
    // Whoever goes on with it ends with the same code.
    world.replayed();
    world.successor();
    let record = Box::new(record("b", 2, exited(0), (None, world.now)));
    let decision = world.surveyed(vec![(2, "b", Fact::Ended { record, leftovers: false })]);
    assert!(super::told(&decision).contains(&"> exit 7 keep=false".to_owned()), "{decision:?}");
}

#[test]
fn an_instance_never_ends_well_because_a_job_was_given_up() {
    let mut world = about_to_be_given_up(OnFatal::Exit);
    world.stop("b");
    world.ended("b", 2, exited(0), false);
    // A code of success, too early.
    let decision = world.ended("a", 3, exited(0), false);
    assert!(super::told(&decision).contains(&"> exit 1 keep=false".to_owned()), "{decision:?}");
}

#[test]
fn one_start_too_many_ends_in_fatal_and_says_how_many() {
    let mut a = with_policy(Restart::Always);
    a.start_limit = StartLimit { count: 3, within: Millis(10_000) };
    let mut world = running(a);
    for n in 1..=2 {
        world.ended("a", n, exited(1), false);
        world.launched(n + 1);
    }
    let decision = world.ended("a", 3, exited(1), false);
    expect(&decision, &["run.ended a exit 1", "job.gave_up a 3 starts within 10s", "> forget 3"]);
    assert_eq!(world.word("a"), "fatal");
    assert_eq!(world.reason("a"), "3 starts within 10s, the last: exit 1");
    // An operator's start is a new chance.
    let decision = world.start("a");
    expect(&decision, &["job.want a Up", "run.requested a 4", "> launch a 4 4"]);
    assert_eq!(decision.answers[0].text, "starting");
    world.launched(4);
    world.ended("a", 4, exited(1), false);
    assert_eq!(world.word("a"), "starting");
}

#[test]
fn starts_that_are_far_enough_apart_never_reach_the_limit() {
    let mut a = with_policy(Restart::Always);
    a.start_limit = StartLimit { count: 2, within: Millis(1000) };
    let mut world = running(a);
    for n in 1..=20 {
        world.pass(600);
        world.ended("a", n, exited(1), false);
        world.launched(n + 1);
    }
    assert_eq!(world.word("a"), "running");
}

#[test]
fn a_command_that_does_not_exist_is_a_failure_told_once() {
    let mut world = World::with(&[with_policy(Restart::Never)]);
    let outcome = Outcome::NotStarted { step: "exec".to_owned(), errno: 2 };
    let input = super::super::input::Input::Refused { run: super::run(1), outcome: outcome.clone() };
    let decision = world.feed(input);
    let ended = "run.ended a never started: exec: No such file or directory (os error 2)";
    expect(&decision, &[ended, "> forget 1"]);
    // The notice that follows the refusal is old news by then.
    expect(&world.ended("a", 1, outcome, false), &["> forget 1"]);
    assert_eq!(world.word("a"), "exited");
}

#[test]
fn a_start_cancelled_while_the_keeper_lives_is_tried_again_without_spinning() {
    let mut world = World::with(&[with_policy(Restart::Never)]);
    let input = super::super::input::Input::Refused { run: super::run(1), outcome: Outcome::Cancelled };
    let decision = world.feed(input);
    expect(&decision, &["run.ended a cancelled before it ran", "job.backoff a 0", "> forget 1"]);
    assert_eq!(world.due_in(), Some(100));
    expect(&world.tick_after(100), &["run.requested a 2", "> launch a 2 2"]);
    assert_eq!(world.state.job(&super::name("a")).unwrap().restarts(), 0);
}

#[test]
fn a_task_that_ended_well_is_exited_and_its_history_says_so() {
    let mut a = with_policy(Restart::Never);
    a.kind = Kind::Task;
    let mut world = running(a);
    world.pass(5);
    world.ended("a", 1, exited(0), false);
    let runs: Vec<_> = world.state.runs(&super::name("a")).cloned().collect();
    assert_eq!(runs.len(), 1);
    let end = runs[0].end.as_ref().unwrap();
    assert_eq!((runs[0].attempt, runs[0].pid, &end.outcome, end.output_bytes), (1, None, &exited(0), 7));
    assert_eq!(end.at.since(runs[0].started.unwrap()), Millis(5));
}

#[test]
fn history_keeps_the_latest_runs() {
    let mut world = running(with_policy(Restart::Always));
    for n in 1..=50 {
        world.ended("a", n, exited(1), false);
        world.launched(n + 1);
    }
    let attempts: Vec<u64> = world.state.runs(&super::name("a")).map(|past| past.attempt).collect();
    // Twenty that have ended, and the one that runs.
    assert_eq!(attempts, (31..=51).collect::<Vec<_>>());
    assert_eq!(world.state.job(&super::name("a")).unwrap().restarts(), 50);
}
