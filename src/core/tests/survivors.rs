//! Supervisors and keepers that die, as traces.

use super::super::input::{Fact, Input};
use super::super::outcome::Outcome;
use super::super::queue::Entry;
use super::super::spec::{JobSpec, Kind, Leftovers, Restart};
use super::super::time::Millis;
use super::{World, exited, expect, identity, name, operator, record, run, spec};

fn alive(world: &World, pid: i32) -> Fact {
    Fact::Alive { identity: identity(pid), started: world.now }
}

fn lost() -> Fact {
    Fact::Lost { why: "no record".to_owned() }
}

/// `kill -9` of the supervisor: a new one has read the log and the configuration, and knows no more.
fn new_supervisor(world: &mut World, specs: &[JobSpec]) {
    world.replayed();
    world.supervisor(1, false);
    expect(&world.configured(specs), &[]);
}

fn policy(restart: Restart) -> JobSpec {
    JobSpec { restart, ..spec("a") }
}

#[test]
fn nothing_is_started_before_the_first_survey() {
    let mut world = World::bare();
    expect(&world.supervisor(1, false), &["supervisor.started"]);
    expect(&world.configured(&[spec("a")]), &["job.added a Up"]);
    assert_eq!((world.word("a"), world.reason("a").as_str()), ("stopped", "not known yet what survived"));
    expect(&world.feed(Input::Tick), &[]);
    expect(&world.start("a"), &["job.want a Up", "job.waiting a"]);
    let decision = world.surveyed(Vec::new());
    expect(&decision, &["supervisor.surveyed", "run.requested a 1", "> launch a 1 1"]);
}

#[test]
fn a_survivor_is_adopted_and_not_started_again() {
    let specs = [spec("a")];
    let mut world = World::with(&specs);
    world.launched(1);
    new_supervisor(&mut world, &specs);
    let fact = alive(&world, 101);
    expect(&world.surveyed(vec![(1, "a", fact)]), &["supervisor.surveyed", "run.adopted a"]);
    let job = world.state.job(&name("a")).unwrap();
    assert_eq!(
        (job.shown().as_str(), job.pid(), job.adopted(), job.restarts()),
        ("running", Some(101), true, 0)
    );
}

#[test]
fn a_start_under_way_when_the_supervisor_died_is_settled_by_the_survey() {
    let specs = [policy(Restart::Never)];
    let begun = World::with(&specs);
    let over = |fact: Fact| {
        let mut world = World::with(&specs);
        assert_eq!(world.log, begun.log);
        new_supervisor(&mut world, &specs);
        let decision = world.surveyed(vec![(1, "a", fact)]);
        (world.word("a"), super::told(&decision)[1..].join(", "))
    };
    assert_eq!(over(alive(&begun, 7)), ("running", "run.adopted a".to_owned()));
    assert_eq!(
        over(Fact::Cancelled),
        (
            "starting",
            "run.ended a cancelled before it ran, run.requested a 2, > forget 1, > launch a 2 2".to_owned()
        )
    );
    assert_eq!(over(lost()), ("exited", "run.ended a lost: no record, > forget 1".to_owned()));
    let ended = Fact::Ended {
        record: Box::new(record("a", 1, exited(7), (Some(begun.now), begun.now))),
        leftovers: false,
    };
    assert_eq!(over(ended), ("exited", "run.ended a exit 7, > forget 1".to_owned()));
}

#[test]
fn a_run_that_nobody_found_is_lost_and_a_service_starts_again() {
    let specs = [policy(Restart::OnFailure)];
    let mut world = World::with(&specs);
    world.launched(1);
    new_supervisor(&mut world, &specs);
    let decision = world.surveyed(Vec::new());
    let ended = "run.ended a lost: it was not found";
    expect(&decision, &["supervisor.surveyed", ended, "run.requested a 2", "> forget 1", "> launch a 2 2"]);
}

#[test]
fn our_own_accidents_do_not_count_against_a_job() {
    let mut a = policy(Restart::OnFailure);
    (a.start_limit.count, a.start_limit.within) = (2, Millis(60_000));
    a.backoff.initial = Millis(1000);
    let specs = [a];
    let mut world = World::with(&specs);
    for n in 1..=10 {
        world.launched(n);
        new_supervisor(&mut world, &specs);
        let decision = world.surveyed(vec![(n, "a", lost())]);
        assert_eq!(decision.effects.len(), 2, "{decision:?}");
    }
    assert_eq!(world.word("a"), "starting");
}

#[test]
fn an_end_is_told_once_however_often_it_is_heard() {
    let specs = [policy(Restart::Never)];
    let mut world = World::with(&specs);
    world.launched(1);
    expect(&world.ended("a", 1, exited(3), false), &["run.ended a exit 3", "> forget 1"]);
    expect(&world.ended("a", 1, exited(3), false), &["> forget 1"]);
    new_supervisor(&mut world, &specs);
    let record = Box::new(record("a", 1, exited(3), (None, world.now)));
    let decision = world.surveyed(vec![(1, "a", Fact::Ended { record, leftovers: false })]);
    expect(&decision, &["supervisor.surveyed", "> forget 1"]);
    assert_eq!(world.reason("a"), "exit 3");
}

#[test]
fn an_end_heard_before_the_launch_answer_makes_that_answer_old_news() {
    let mut world = World::with(&[policy(Restart::Never)]);
    expect(&world.ended("a", 1, exited(0), false), &["run.ended a exit 0", "> forget 1"]);
    expect(&world.launched(1), &[]);
    assert_eq!(world.word("a"), "exited");
}

#[test]
fn a_live_run_that_nobody_knows_is_reported_once_and_left_alone() {
    let specs = [spec("a")];
    let mut world = World::with(&specs);
    world.launched(1);
    let facts = |world: &World| vec![(1, "a", alive(world, 101)), (99, "a", alive(world, 9))];
    new_supervisor(&mut world, &specs);
    let known = facts(&world);
    expect(&world.surveyed(known), &["supervisor.surveyed", "run.orphan", "run.adopted a"]);
    new_supervisor(&mut world, &specs);
    let known = facts(&world);
    expect(&world.surveyed(known), &["supervisor.surveyed", "run.adopted a"]);
    assert_eq!(world.state.job(&name("a")).unwrap().run(), Some(run(1)));
}

#[test]
fn a_stop_under_way_goes_on_at_its_rung_with_its_time_anew() {
    let specs = [spec("a")];
    let mut world = World::with(&specs);
    world.launched(1);
    world.stop("a");
    world.tick_after(10_000);
    new_supervisor(&mut world, &specs);
    assert_eq!(world.due_in(), None);
    world.pass(60_000);
    let fact = alive(&world, 101);
    let decision = world.surveyed(vec![(1, "a", fact)]);
    let step = "run.stop_step a 1 kill";
    expect(&decision, &["supervisor.surveyed", "run.adopted a", step, "> KILL 1 tree"]);
    assert_eq!(world.due_in(), Some(5000));
}

#[test]
fn an_operators_stop_holds_over_restart_and_reboot() {
    let specs = [policy(Restart::Always)];
    let mut world = World::with(&specs);
    world.launched(1);
    world.stop("a");
    world.ended("a", 1, exited(0), false);
    for epoch in [1, 2] {
        world.replayed();
        world.supervisor(epoch, false);
        world.configured(&specs);
        expect(&world.surveyed(Vec::new()), &["supervisor.surveyed"]);
        assert_eq!(world.word("a"), "stopped");
    }
}

#[test]
fn while_the_keeper_is_away_nothing_is_asked_of_it_and_then_all_that_fell_due() {
    let mut b = JobSpec { restart: Restart::Always, ..spec("b") };
    b.backoff.initial = Millis(100);
    let mut world = World::with(&[spec("a"), b, policy_named("c")]);
    for n in 1..=3 {
        world.launched(n);
    }
    world.ended("b", 2, exited(1), false);
    assert_eq!(world.due_in(), Some(100));
    expect(&world.feed(Input::KeeperLost), &["keeper.lost"]);
    expect(&world.feed(Input::KeeperLost), &[]);
    assert_eq!(world.due_in(), None);
    expect(&world.tick_after(5000), &[]);
    expect(&world.stop("a"), &["job.want a Down", "run.stopping a"]);
    expect(&world.ended("c", 3, exited(1), false), &["run.ended c exit 1", "job.waiting c", "> forget 3"]);
    let fact = alive(&world, 101);
    let decision = world.surveyed(vec![(1, "a", fact)]);
    expect(
        &decision,
        &[
            "supervisor.surveyed",
            "run.adopted a",
            "run.stop_step a 0",
            "run.requested b 2",
            "run.requested c 2",
            "> TERM 1 process cont",
            "> launch b 4 2",
            "> launch c 5 2",
        ],
    );
}

fn policy_named(text: &str) -> JobSpec {
    JobSpec { restart: Restart::Always, ..spec(text) }
}

#[test]
fn a_launch_whose_answer_died_with_the_keeper_is_no_adoption() {
    let mut world = World::with(&[spec("a")]);
    world.feed(Input::KeeperLost);
    let fact = alive(&world, 5);
    expect(&world.surveyed(vec![(1, "a", fact)]), &["supervisor.surveyed", "run.started a"]);
    assert!(!world.state.job(&name("a")).unwrap().adopted());
}

#[test]
fn leftovers_are_looked_after_by_the_next_supervisor() {
    let specs = [policy(Restart::Always)];
    let mut world = World::with(&specs);
    world.launched(1);
    world.ended("a", 1, exited(0), true);
    new_supervisor(&mut world, &specs);
    let record = Box::new(record("a", 1, exited(0), (None, world.now)));
    let still = Fact::Ended { record: record.clone(), leftovers: true };
    let decision = world.surveyed(vec![(1, "a", still)]);
    expect(&decision, &["supervisor.surveyed", "run.stop_step a 0", "> TERM 1 tree cont"]);
    new_supervisor(&mut world, &specs);
    let gone = Fact::Ended { record, leftovers: false };
    let decision = world.surveyed(vec![(1, "a", gone)]);
    let last = ["run.tree_gone a", "run.requested a 2", "> forget 1", "> launch a 2 2"];
    expect(&decision, &[&["supervisor.surveyed"][..], &last].concat());
}

#[test]
fn a_disowning_that_was_not_performed_is_repeated() {
    let specs = [JobSpec { leftovers: Leftovers::Ignore, restart: Restart::Never, ..spec("a") }];
    let mut world = World::with(&specs);
    world.launched(1);
    world.ended("a", 1, exited(0), true);
    new_supervisor(&mut world, &specs);
    let record = Box::new(record("a", 1, exited(0), (None, world.now)));
    let decision = world.surveyed(vec![(1, "a", Fact::Ended { record, leftovers: true })]);
    expect(&decision, &["supervisor.surveyed", "> disown 1", "> forget 1"]);
}

#[test]
fn recovery_mode_watches_and_starts_only_what_is_asked_for() {
    let specs = [policy(Restart::Always), JobSpec { restart: Restart::Always, ..spec("b") }];
    let mut world = World::with(&specs);
    world.launched(1);
    world.launched(2);
    world.ended("b", 2, exited(1), false);
    world.replayed();
    world.supervisor(1, true);
    world.configured(&specs);
    let fact = alive(&world, 101);
    let decision = world.surveyed(vec![(1, "a", fact), (3, "b", Fact::Cancelled)]);
    let b = "run.ended b cancelled before it ran";
    expect(&decision, &["supervisor.surveyed", "run.adopted a", b, "job.rests b", "> forget 3"]);
    expect(&world.ended("a", 1, exited(1), false), &["run.ended a exit 1", "job.rests a", "> forget 1"]);
    assert_eq!((world.word("a"), world.word("b")), ("stopped", "stopped"));
    assert!(world.reason("a").contains("exit 1; recovery mode"), "{}", world.reason("a"));
    expect(&world.start("a"), &["job.want a Up", "run.requested a 2", "> launch a 4 2"]);
    world.launched(4);
    // The next supervisor is in it, too. What was left undone is done when somebody ends it.
    world.replayed();
    world.supervisor(1, false);
    world.configured(&specs);
    let fact = alive(&world, 104);
    let decision = world.surveyed(vec![(4, "a", fact)]);
    expect(&decision, &["supervisor.surveyed", "run.adopted a"]);
    let left = world.feed(Input::LeaveRecovery { by: operator("recover exit") });
    expect(&left, &["recovery.left", "run.requested b 3", "> launch b 5 3"]);
}

#[test]
fn who_leaves_recovery_mode_starts_what_it_let_rest_and_nothing_that_was_over_before() {
    let never = |text: &str| JobSpec { restart: Restart::Never, kind: Kind::Task, ..spec(text) };
    let always = |text: &str| JobSpec { restart: Restart::Always, ..never(text) };
    // One ends before, one meanwhile, and one has never run.
    let mut world = World::with(&[never("a"), never("b"), never("c")]);
    world.launched(1);
    world.launched(2);
    world.ended("a", 1, exited(1), false);
    world.replayed();
    world.supervisor(1, true);
    // By today's policy all of them are always started again.
    let specs = [always("a"), always("b"), never("c")];
    world.configured(&specs);
    let fact = alive(&world, 101);
    world.surveyed(vec![(2, "b", fact), (3, "c", Fact::Cancelled)]);
    world.ended("b", 2, exited(1), false);
    let left = world.feed(Input::LeaveRecovery { by: operator("recover exit") });
    let requested = ["run.requested b 2", "run.requested c 2"];
    let told = super::told(&left);
    assert_eq!(told[..3], [&["recovery.left"][..], &requested].concat(), "{told:?}");
    assert_eq!(world.word("a"), "exited");
}

#[test]
fn after_a_reboot_backoff_is_due_and_services_start_anew_but_finished_tasks_do_not() {
    let mut a = policy(Restart::OnFailure);
    a.backoff.initial = Millis(50_000);
    let task = JobSpec { kind: Kind::Task, restart: Restart::Never, ..spec("task") };
    let specs = [a, JobSpec { restart: Restart::OnFailure, ..spec("ok") }, task];
    let mut world = World::with(&specs);
    for n in 1..=3 {
        world.launched(n);
    }
    world.ended("a", 1, exited(1), false);
    world.ended("ok", 2, exited(0), false);
    world.ended("task", 3, exited(0), false);
    assert_eq!((world.word("a"), world.word("ok"), world.word("task")), ("backoff", "exited", "exited"));
    world.replayed();
    // The boot clock begins anew.
    world.now.boot_us = 5;
    world.supervisor(2, false);
    world.configured(&specs);
    let decision = world.surveyed(Vec::new());
    let requested = ["run.requested ok 2", "run.requested a 2"];
    let launched = ["> launch ok 4 2", "> launch a 5 2"];
    expect(&decision, &[&["supervisor.surveyed"][..], &requested, &launched].concat());
}

#[test]
fn a_submitted_job_survives_with_its_settings() {
    let mut world = World::with(&[]);
    let submitted = JobSpec { restart: Restart::Always, ..spec("batch") };
    let input = |spec: &JobSpec| Input::Submitted {
        spec: Box::new(spec.clone()),
        entry: Entry::default(),
        by: operator("run"),
    };
    let decision = world.feed(input(&submitted));
    expect(&decision, &["job.submitted batch", "run.requested batch 1", "> launch batch 1 1"]);
    world.launched(1);
    assert!(!world.feed(input(&submitted)).answers[0].ok);
    new_supervisor(&mut world, &[]);
    assert_eq!(world.state.spec(&name("batch")), Some(&submitted));
    let decision = world.surveyed(Vec::new());
    assert!(super::told(&decision).contains(&"> launch batch 2 2".to_owned()), "{decision:?}");
}

#[test]
fn submitted_jobs_that_are_over_do_not_pile_up() {
    let mut world = World::with(&[]);
    for n in 1..=205u128 {
        let job = format!("t{n}");
        let task = JobSpec { restart: Restart::Never, kind: Kind::Task, ..spec(&job) };
        world.feed(Input::Submitted { spec: Box::new(task), entry: Entry::default(), by: operator("run") });
        world.launched(n);
        let decision = world.ended(&job, n, exited(0), false);
        let removed = n > 200;
        assert_eq!(super::told(&decision).iter().any(|told| told.starts_with("job.removed")), removed);
    }
    assert_eq!((world.state.jobs().count(), world.word("t5"), world.word("t6")), (200, "gone", "exited"));
    let lived = world.state.clone();
    world.replayed();
    assert!(world.state == lived, "replay forgets the same jobs");
}

#[test]
fn a_lost_outcome_told_by_the_keeper_is_a_failure_like_any_other() {
    let mut a = policy(Restart::OnFailure);
    a.backoff.initial = Millis(100);
    let mut world = World::with(&[a]);
    world.launched(1);
    let outcome = Outcome::Lost { why: "init is gone".to_owned() };
    let decision = world.ended("a", 1, outcome, false);
    expect(&decision, &["run.ended a lost: init is gone", "job.backoff a 1", "> forget 1"]);
}
