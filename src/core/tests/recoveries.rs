//! What a survey is told to be, and the strategies for runs whose end nobody knows. That plan and deed are
//! the same, and that the laws of a recovery hold, is looked at by every survey of every other test.

use super::super::input::{Fact, Input, Survey, Surveyed};
use super::super::reconcile::check::check;
use super::super::reconcile::plan::{Before, plan};
use super::super::report::{Act, Class, RunsReport};
use super::super::spec::{JobSpec, Kind, Recovery, Restart};
use super::super::time::Millis;
use super::{Generation, World, epoch, exited, expect, identity, name, operator, record, run, spec};

fn lost() -> Fact {
    Fact::Lost { why: "no record".to_owned() }
}

fn alive(world: &World, pid: i32) -> Fact {
    Fact::Alive { identity: identity(pid), started: world.now }
}

/// A run of `a` is lost; what follows in this epoch, and then after a reboot.
fn lose(spec: &JobSpec, seen_ms_ago: Option<u64>, new_epoch: bool) -> World {
    let specs = [spec.clone()];
    let mut world = World::with(&specs);
    world.launched(1);
    world.replayed();
    world.supervisor(if new_epoch { 2 } else { 1 }, false);
    world.configured(&specs);
    let mut found = Surveyed::new(run(1), Some(name("a")), lost());
    found.seen_us = seen_ms_ago.map(|ms| world.now.wall_us - i64::try_from(ms * 1000).unwrap());
    world.feed(Input::Surveyed(Survey { runs: vec![found], ..Survey::default() }));
    world
}

fn next_life(world: &mut World, spec: &JobSpec) {
    world.replayed();
    world.supervisor(9, false);
    world.configured(std::slice::from_ref(spec));
    world.surveyed(Vec::new());
}

#[test]
fn a_lost_run_is_followed_by_another_unless_the_job_says_otherwise() {
    for new_epoch in [false, true] {
        let auto = lose(&spec("a"), None, new_epoch);
        assert_eq!(auto.word("a"), "starting");

        let fail = JobSpec { recovery: Recovery::Fail, ..spec("a") };
        let mut world = lose(&fail, None, new_epoch);
        assert_eq!(world.word("a"), "fatal");
        assert!(
            world.reason("a").contains("lost: no record, and recovery is `fail`"),
            "{}",
            world.reason("a")
        );
        next_life(&mut world, &fail);
        assert_eq!(world.word("a"), "starting", "the next life is a new chance");

        let manual = JobSpec { recovery: Recovery::Manual, ..spec("a") };
        let mut world = lose(&manual, None, new_epoch);
        assert!(world.reason("a").contains("look at it"), "{}", world.reason("a"));
        next_life(&mut world, &manual);
        assert_eq!(world.word("a"), "fatal", "nobody has looked yet");
        world.start("a");
        assert_eq!(world.word("a"), "starting");
    }
}

#[test]
fn a_strategy_is_for_runs_whose_end_is_not_known() {
    let specs = [JobSpec { recovery: Recovery::Manual, restart: Restart::Always, ..spec("a") }];
    for fact in [Fact::Cancelled, Fact::Ended { record: Box::new(known()), leftovers: false }] {
        let mut world = World::with(&specs);
        world.launched(1);
        world.replayed();
        world.supervisor(1, false);
        world.configured(&specs);
        world.surveyed(vec![(1, "a", fact)]);
        assert_eq!(world.word("a"), "starting");
    }
}

fn known() -> super::ExitRecord {
    let world = World::bare();
    record("a", 1, exited(1), (Some(world.now), world.now))
}

#[test]
fn a_task_that_was_lost_long_ago_has_failed_and_a_service_is_started() {
    let task = JobSpec { kind: Kind::Task, recovery_timeout: Millis(60_000), ..spec("a") };
    assert_eq!(lose(&task, Some(59_000), true).word("a"), "starting");
    assert_eq!(lose(&task, None, true).word("a"), "starting", "nothing says that it is old");
    let old = lose(&task, Some(61_500), true);
    assert_eq!(old.word("a"), "fatal");
    let why = "last seen alive 1m1s ago, and recovery_timeout is 1m";
    assert!(old.reason("a").contains(why), "{}", old.reason("a"));
    let service = JobSpec { kind: Kind::Service, ..task.clone() };
    assert_eq!(lose(&service, Some(61_500), true).word("a"), "starting");
    let never = JobSpec { restart: Restart::Never, ..task };
    assert_eq!(lose(&never, Some(61_500), true).word("a"), "exited", "nothing asked for another run anyway");
}

fn line(report: &RunsReport, job: &str) -> (Class, Vec<Act>) {
    let item = report.items.iter().find(|item| item.job == Some(name(job)));
    item.map(|item| (item.class, item.acts.clone())).unwrap_or_else(|| panic!("{job} is not in {report:#?}"))
}

#[test]
fn a_plan_says_of_every_run_what_it_is_and_what_is_done() {
    let jobs = ["alive", "ended", "lost", "never", "resting", "corrupt", "backoff", "stopping"];
    let mut specs: Vec<JobSpec> = jobs.iter().map(|job| spec(job)).collect();
    specs[4].autostart = false;
    specs[6].backoff.initial = Millis(60_000);
    let mut world = World::with(&specs);
    let ids: Vec<u128> = (1..=7).collect();
    // The jobs were asked for in the order of their names; `resting` was not.
    let order = ["alive", "backoff", "corrupt", "ended", "lost", "never", "stopping"];
    for (id, job) in ids.iter().zip(order).filter(|(_, job)| *job != "never") {
        world.launched(*id);
        if job == "backoff" {
            world.ended(job, *id, exited(1), false);
        }
    }
    world.stop("stopping");
    world.replayed();
    world.supervisor(1, false);
    world.configured(&specs);
    let of = |job: &str| run(ids[order.iter().position(|other| *other == job).unwrap()]);
    let ended = Box::new(record("ended", 4, exited(0), (Some(world.now), world.now)));
    let mut corrupt = Surveyed::new(of("corrupt"), Some(name("corrupt")), lost());
    corrupt.damage = Some("its exit record cannot be read".to_owned());
    let survey = Survey {
        runs: vec![
            Surveyed::new(of("alive"), Some(name("alive")), alive(&world, 11)),
            Surveyed::new(of("ended"), Some(name("ended")), Fact::Ended { record: ended, leftovers: false }),
            Surveyed::new(of("lost"), Some(name("lost")), lost()),
            Surveyed::new(of("never"), Some(name("never")), Fact::Cancelled),
            corrupt,
            Surveyed::new(of("stopping"), Some(name("stopping")), alive(&world, 12)),
            Surveyed::new(run(99), Some(name("stranger")), alive(&world, 13)),
        ],
        ..Survey::default()
    };
    let report = plan(&world.state, &survey, world.now);
    assert_eq!(line(&report, "alive"), (Class::Adoptable, vec![Act::Adopt]));
    assert_eq!(line(&report, "ended"), (Class::EndedMeanwhile, vec![Act::RecordEnd]));
    assert_eq!(line(&report, "lost"), (Class::Lost, vec![Act::RecordEnd, Act::Start]));
    assert_eq!(line(&report, "never"), (Class::Restartable, vec![Act::RecordEnd, Act::Start]));
    assert_eq!(line(&report, "corrupt"), (Class::Corrupt, vec![Act::RecordEnd, Act::Start]));
    assert_eq!(line(&report, "stopping"), (Class::Resumable, vec![Act::Adopt, Act::Stop]));
    assert_eq!(line(&report, "stranger"), (Class::Orphan, vec![Act::LeaveAlone]));
    assert!(!report.items.iter().any(|item| item.job == Some(name("resting"))), "{report:#?}");
    assert!(!report.is_idle());
    assert_eq!((report.classes[&Class::Lost], report.acts[&Act::Start]), (1, 3));
    // The plan changed nothing, and doing it is checked in `feed`.
    world.feed(Input::Surveyed(survey));
}

#[test]
fn what_does_not_hold_is_said() {
    let specs = [spec("a")];
    let mut world = World::with(&specs);
    world.launched(1);
    let before = Before::of(&world.state);
    let survey = Survey {
        runs: vec![Surveyed::new(run(1), Some(name("a")), alive(&world, 101))],
        ..Survey::default()
    };
    assert!(check(&before, &survey, &world.state).violations.is_empty());
    let forgotten = check(&before, &survey, &World::with(&[]).state);
    let said = forgotten.violations.join("; ");
    for wrong in ["job a is forgotten", "lives, and was let go"] {
        assert!(said.contains(wrong), "{said}");
    }
    assert!(forgotten.checks > 3);
    let mut unlike = World::with(&specs);
    unlike.stop("a");
    let said = check(&before, &survey, &unlike.state).violations.join("; ");
    assert!(said.contains("what is wanted of it has changed"), "{said}");
    let unsettled = World::bare();
    assert!(check(&before, &survey, &unsettled.state).violations.join("; ").contains("not settled"));
    expect(&world.feed(Input::Tick), &[]);
}

#[test]
fn recovery_mode_lasts_over_the_deaths_of_supervisors_and_not_over_the_end_of_an_instance() {
    let began = |world: &mut World, epoch_no, born_us, recovery| {
        world.replayed();
        world.generation += 1;
        world.feed(Input::SupervisorStarted {
            generation: Generation(world.generation),
            version: "1".to_owned(),
            epoch: epoch(epoch_no),
            recovery,
            born_us,
        });
        world.state.instance.recovery
    };
    let in_it = || {
        let mut world = World::with(&[]);
        assert!(began(&mut world, 1, 7, true));
        assert!(began(&mut world, 1, 7, false), "nobody has ended it");
        world
    };
    let mut world = in_it();
    world.feed(Input::LeaveRecovery { by: operator("recover exit") });
    assert!(!began(&mut world, 1, 7, false), "somebody has ended it");
    assert!(!began(&mut in_it(), 1, 8, false), "the instance is another");
    assert!(!began(&mut in_it(), 2, 7, false), "the host was restarted");
}
