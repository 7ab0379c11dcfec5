//! Entries of the event log are missing: what is found all the same is taken back, and nothing that may have
//! run is started by itself.

use super::super::Decision;
use super::super::event::Want;
use super::super::ids::RunId;
use super::super::input::{Fact, Input, Survey, Surveyed};
use super::super::spec::{JobSpec, Kind, Restart};
use super::super::state::State;
use super::super::time::Millis;
use super::{World, exited, expect, identity, name, record, run, spec};

fn task(text: &str) -> JobSpec {
    JobSpec { kind: Kind::Task, ..spec(text) }
}

/// A run that was asked for after all that are remembered.
fn late(n: u128) -> RunId {
    run(1_000_000 + n)
}

/// The supervisor dies, and what it recorded last cannot be read. `hole`: and that shows.
fn forget(world: &mut World, entries: usize, hole: bool) {
    world.log.truncate(world.log.len() - entries);
    world.replayed();
    if hole {
        world.state.missed(3);
    }
}

fn begin(world: &mut World, specs: &[JobSpec]) {
    world.pass(5000);
    world.supervisor(1, false);
    world.configured(specs);
}

#[test]
fn a_task_whose_start_may_be_missing_is_held_until_somebody_starts_it() {
    let specs = [task("once"), spec("web"), JobSpec { depends_on: vec![name("once")], ..spec("after") }];
    let mut world = World::with(&specs);
    // The survey with its starts is what is lost.
    forget(&mut world, 1, true);
    begin(&mut world, &specs);
    let decision = world.surveyed(Vec::new());
    expect(
        &decision,
        &[
            "supervisor.surveyed",
            "loss.settled",
            "job.held once",
            "job.waiting after",
            "run.requested web 1",
            "> launch web 3 1",
        ],
    );
    assert!(world.reason("once").contains("missing"), "{}", world.reason("once"));
    assert_eq!(world.reason("after"), "waits for once (held)");
    // It stays held, whoever comes.
    begin(&mut world, &specs);
    world.surveyed(Vec::new());
    assert_eq!(world.word("once"), "held");
    expect(&world.start("once"), &["job.want once Up", "run.requested once 1", "> launch once 5 1"]);
}

#[test]
fn a_held_task_that_is_stopped_is_released_for_good() {
    let specs = [task("once")];
    let mut world = World::with(&specs);
    forget(&mut world, 1, true);
    begin(&mut world, &specs);
    world.surveyed(Vec::new());
    expect(&world.stop("once"), &["job.want once Down"]);
    begin(&mut world, &specs);
    expect(&world.surveyed(Vec::new()), &["supervisor.surveyed"]);
    assert_eq!(world.word("once"), "stopped");
}

#[test]
fn a_task_that_has_ended_is_not_held_and_neither_is_one_when_nothing_is_missing() {
    let specs = [JobSpec { restart: Restart::Never, ..task("done") }, task("new")];
    let mut world = World::with(&specs);
    world.launched(1);
    world.ended("done", 1, exited(0), false);
    forget(&mut world, 0, true);
    begin(&mut world, &specs);
    // The run of `new` is known, and so is its fate.
    let decision = world.surveyed(vec![(2, "new", Fact::Cancelled)]);
    expect(
        &decision,
        &[
            "supervisor.surveyed",
            "loss.settled",
            "run.ended new cancelled before it ran",
            "job.held new",
            "> forget 2",
        ],
    );
    assert_eq!(world.word("done"), "exited");

    let mut world = World::with(&specs);
    forget(&mut world, 1, false);
    begin(&mut world, &specs);
    world.surveyed(Vec::new());
    assert_eq!((world.word("done"), world.word("new")), ("starting", "starting"));
}

#[test]
fn a_task_that_rests_only_because_of_recovery_mode_is_held_as_well() {
    let specs = [task("once")];
    let mut world = World::with(&specs);
    world.launched(1);
    forget(&mut world, 0, true);
    world.supervisor(1, true);
    world.configured(&specs);
    // A later run of it may be among what is missing.
    let decision = world.surveyed(Vec::new());
    expect(
        &decision,
        &[
            "supervisor.surveyed",
            "loss.settled",
            "run.ended once lost: it was not found",
            "job.rests once",
            "job.held once",
            "> forget 1",
        ],
    );
    begin(&mut world, &specs);
    expect(&world.surveyed(Vec::new()), &["supervisor.surveyed"]);
    assert_eq!(world.word("once"), "held");
}

#[test]
fn a_task_that_is_held_is_wanted_although_the_wish_is_missing() {
    let specs = [task("once")];
    let mut world = World::with(&specs);
    world.launched(1);
    world.stop("once");
    world.ended("once", 1, exited(0), false);
    let before = world.log.len();
    world.start("once");
    forget(&mut world, 0, true);
    begin(&mut world, &specs);
    world.surveyed(Vec::new());
    assert_eq!(world.word("once"), "held");
    world.log.drain(before..=before);
    world.replayed();
    let job = world.state.job(&name("once")).unwrap();
    assert_eq!((job.want, job.shown().as_str()), (Want::Up, "held"));
}

#[test]
fn a_survey_makes_up_for_what_is_missing_and_a_supervisor_that_dies_before_it_does_not() {
    let mut state = State::new();
    state.missed(3);
    let mut world = World::bare();
    world.state = state;
    world.supervisor(1, false);
    world.supervisor(1, false);
    expect(&world.surveyed(Vec::new()), &["supervisor.surveyed", "loss.settled"]);
    world.supervisor(1, false);
    expect(&world.surveyed(Vec::new()), &["supervisor.surveyed"]);
    // What rots later is another loss, wherever it is in the log.
    world.state.missed(1);
    world.supervisor(1, false);
    expect(&world.surveyed(Vec::new()), &["supervisor.surveyed", "loss.settled"]);
}

#[test]
fn a_live_run_that_nobody_asked_for_is_taken_back_by_a_job_that_has_no_other() {
    let specs = [spec("web"), task("once"), task("other")];
    let mut world = World::with(&specs);
    world.launched(3);
    forget(&mut world, 0, false);
    let (web, once) = (late(7), late(8));
    begin(&mut world, &specs);
    let alive = |pid| Fact::Alive { identity: identity(pid), started: world.now };
    let ended =
        Fact::Ended { record: Box::new(record("web", 3, exited(1), (None, world.now))), leftovers: false };
    let runs = vec![
        Surveyed::new(once, Some(name("once")), alive(9)),
        Surveyed::new(web, Some(name("web")), alive(8)),
        Surveyed::new(run(3), Some(name("web")), ended),
        Surveyed::new(run(1), Some(name("once")), Fact::Cancelled),
        Surveyed::new(run(2), Some(name("other")), Fact::Cancelled),
    ];
    let decision = world.feed(Input::Surveyed(Survey { runs, ..Survey::default() }));
    expect(
        &decision,
        &[
            "supervisor.surveyed",
            "run.ended web exit 1",
            "job.waiting web",
            "run.requested web 2",
            "run.adopted web",
            "run.ended once cancelled before it ran",
            "job.held once",
            "run.requested once 2",
            "run.adopted once",
            "run.ended other cancelled before it ran",
            "job.held other",
            "> forget 3",
            "> forget 1",
            "> forget 2",
        ],
    );
    assert_eq!(world.state.job(&name("web")).unwrap().run(), Some(web));
    assert_eq!(world.state.job(&name("once")).unwrap().run(), Some(once));
}

#[test]
fn an_end_that_nobody_recorded_is_recorded_and_the_policy_has_the_word() {
    let specs = [spec("web"), JobSpec { restart: Restart::Never, ..task("once") }];
    let mut world = World::with(&specs);
    // Neither the survey nor the starts are remembered.
    forget(&mut world, 1, false);
    let (web, once) = (late(7), late(8));
    begin(&mut world, &specs);
    let ended = |job: &str, run: RunId, code| {
        let mut record = record(job, 1, exited(code), (Some(world.now), world.now));
        record.run = run;
        Surveyed::new(run, Some(name(job)), Fact::Ended { record: Box::new(record), leftovers: false })
    };
    let runs = vec![ended("web", web, 1), ended("once", once, 0)];
    let decision = world.feed(Input::Surveyed(Survey { runs, ..Survey::default() }));
    let events: Vec<String> =
        super::told(&decision).into_iter().filter(|line| !line.starts_with('>')).collect();
    assert_eq!(
        events,
        [
            "supervisor.surveyed",
            "run.requested web 1",
            "run.ended web exit 1",
            "job.waiting web",
            "run.requested once 1",
            "run.ended once exit 0",
            "run.requested web 2",
        ]
    );
    assert_eq!((world.word("web"), world.word("once")), ("starting", "exited"));
}

#[test]
fn a_run_of_a_job_that_is_gone_holds_tasks_as_well() {
    let specs = [task("once")];
    let mut world = World::with(&specs);
    forget(&mut world, 1, false);
    let stranger = late(3);
    begin(&mut world, &specs);
    let fact = Fact::Alive { identity: identity(9), started: world.now };
    let runs = vec![Surveyed::new(stranger, Some(name("gone")), fact)];
    let decision = world.feed(Input::Surveyed(Survey { runs, ..Survey::default() }));
    expect(&decision, &["supervisor.surveyed", "run.orphan", "job.held once"]);
}

/// An instance with an orphan that says it belongs to `web`, which nobody knows.
fn with_orphan() -> (World, RunId) {
    let mut world = World::with(&[spec("other")]);
    let orphan = late(3);
    begin(&mut world, &[spec("other")]);
    survey(&mut world, Some(orphan));
    assert_eq!(world.state.orphans.len(), 1);
    (world, orphan)
}

fn survey(world: &mut World, orphan: Option<RunId>) -> Decision {
    let alive = |pid| Fact::Alive { identity: identity(pid), started: world.now };
    let other = world.state.job(&name("other")).unwrap().run().unwrap();
    let other = Surveyed::new(other, Some(name("other")), alive(101));
    let orphan = orphan.map(|run| Surveyed::new(run, Some(name("web")), alive(9)));
    world.feed(Input::Surveyed(Survey {
        runs: orphan.into_iter().chain([other]).collect(),
        ..Survey::default()
    }))
}

#[test]
fn a_job_that_is_added_while_an_orphan_of_it_lives_waits_and_the_next_survey_takes_it_back() {
    let (mut world, orphan) = with_orphan();
    let specs = [spec("other"), spec("web")];
    expect(&world.reload(&specs), &["job.added web Up", "job.waiting web"]);
    assert!(world.reason("web").contains("outlive recover"), "{}", world.reason("web"));
    expect(&world.start("web"), &[]);
    world.replayed();
    world.configured(&specs);
    let decision = survey(&mut world, Some(orphan));
    expect(&decision, &["supervisor.surveyed", "run.requested web 1", "run.adopted web"]);
    assert!(world.state.orphans.is_empty());

    // A supervisor that begins does so by itself.
    let (mut world, orphan) = with_orphan();
    begin(&mut world, &specs);
    let decision = survey(&mut world, Some(orphan));
    expect(
        &decision,
        &["supervisor.surveyed", "run.requested web 1", "run.adopted web", "run.adopted other"],
    );
}

#[test]
fn a_job_that_waits_for_an_orphan_of_its_own_starts_when_that_has_ended() {
    let specs = [spec("other"), spec("web")];
    let (mut world, orphan) = with_orphan();
    world.reload(&specs);
    let mut record = record("web", 1, exited(0), (None, world.now));
    record.run = orphan;
    let ended = Input::Ended { record: Box::new(record), leftovers: false };
    let decision = world.feed(ended);
    let told = super::told(&decision);
    assert_eq!(told[..2], ["run.orphan_gone", "run.requested web 1"], "{told:?}");

    // Nobody told of the end, and a survey does not find it any more.
    let (mut world, _) = with_orphan();
    world.reload(&specs);
    let decision = survey(&mut world, None);
    let told = super::told(&decision);
    assert_eq!(told[..3], ["supervisor.surveyed", "run.orphan_gone", "run.requested web 1"], "{told:?}");
    assert!(world.state.orphans.is_empty());
}

#[test]
fn a_job_that_is_stopped_does_not_take_an_orphan_back() {
    let (mut world, orphan) = with_orphan();
    world.reload(&[spec("other"), spec("web")]);
    world.stop("web");
    expect(&survey(&mut world, Some(orphan)), &["supervisor.surveyed"]);
}

#[test]
fn an_instance_that_ends_stops_what_it_takes_back_first() {
    let specs = [spec("web")];
    let mut world = World::with(&specs);
    begin(&mut world, &specs);
    world.shutdown();
    // Of the run that is known there is nothing left; a later one is not known, and lives.
    let alive = Fact::Alive { identity: identity(9), started: world.now };
    let runs = vec![Surveyed::new(late(3), Some(name("web")), alive)];
    let decision = world.feed(Input::Surveyed(Survey { runs, ..Survey::default() }));
    let told = super::told(&decision);
    assert!(told.contains(&"run.adopted web".to_owned()), "{told:?}");
    assert!(told.contains(&"run.stopping web".to_owned()), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("exit 0")), "{told:?}");

    // The same, where it is the only one.
    let mut world = World::with(&specs);
    world.stop("web");
    world.ended("web", 1, exited(0), false);
    begin(&mut world, &specs);
    world.shutdown();
    let alive = Fact::Alive { identity: identity(9), started: world.now };
    let runs = vec![Surveyed::new(late(3), Some(name("web")), alive)];
    let told = super::told(&world.feed(Input::Surveyed(Survey { runs, ..Survey::default() })));
    assert!(told.contains(&"run.stopping web".to_owned()), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("exit 0")), "{told:?}");
}

#[test]
fn a_job_that_backs_off_is_wanted_although_the_wish_is_missing() {
    let mut web = JobSpec { restart: Restart::Always, ..spec("web") };
    web.backoff.initial = Millis(2000);
    let mut world = World::with(&[web]);
    world.launched(1);
    world.stop("web");
    world.ended("web", 1, exited(0), false);
    let before = world.log.len();
    world.start("web");
    let missing = before..before + 1;
    let now = world.state.job(&name("web")).unwrap().run();
    let n = (2..9).find(|n| Some(run(*n)) == now).unwrap();
    world.launched(n);
    world.ended("web", n, exited(1), false);
    assert_eq!(world.word("web"), "backoff");
    world.log.drain(missing);
    world.replayed();
    world.state.missed(1);
    let job = world.state.job(&name("web")).unwrap();
    assert_eq!((job.want, job.shown().as_str()), (Want::Up, "backoff"));
}
