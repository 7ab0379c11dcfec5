//! Dependencies and shutdown, as traces.

use super::super::input::{Fact, Input};
use super::super::spec::{JobSpec, KillScope, Kind, Leftovers, Restart};
use super::super::time::Millis;
use super::{World, exited, expect, identity, name, operator, record, spec, told};

fn after(text: &str, deps: &[&str]) -> JobSpec {
    JobSpec { depends_on: deps.iter().map(|dep| name(dep)).collect(), ..spec(text) }
}

#[test]
fn a_job_starts_when_what_it_depends_on_is_past_its_grace() {
    let db = JobSpec { start_grace: Millis(500), ..spec("db") };
    let mut world = World::with(&[after("web", &["db"]), db]);
    assert_eq!((world.word("web"), world.reason("web").as_str()), ("waiting", "waits for db (starting)"));
    world.launched(1);
    assert_eq!(world.word("web"), "waiting");
    let decision = world.tick_after(500);
    expect(&decision, &["run.ready db", "run.requested web 1", "> launch web 2 1"]);
}

#[test]
fn a_job_starts_when_a_task_before_it_has_ended_well() {
    let setup = JobSpec { kind: Kind::Task, restart: Restart::Never, ..spec("setup") };
    let mut world = World::with(&[after("web", &["setup"]), setup.clone()]);
    world.launched(1);
    let decision = world.ended("setup", 1, exited(0), false);
    expect(&decision, &["run.ended setup exit 0", "run.requested web 1", "> forget 1", "> launch web 2 1"]);
    let mut world = World::with(&[after("web", &["setup"]), setup]);
    world.launched(1);
    world.ended("setup", 1, exited(1), false);
    assert_eq!((world.word("web"), world.reason("web").as_str()), ("waiting", "waits for setup (exited)"));
}

#[test]
fn start_pulls_up_what_is_needed_however_far_away_and_stop_stops_one() {
    let off = |spec: JobSpec| JobSpec { autostart: false, ..spec };
    let mut world = World::with(&[off(after("c", &["b"])), off(after("b", &["a"])), off(spec("a"))]);
    let decision = world.start("c");
    expect(
        &decision,
        &[
            "job.want c Up",
            "job.want b Up",
            "job.waiting b",
            "job.want a Up",
            "run.requested a 1",
            "job.waiting c",
            "> launch a 1 1",
        ],
    );
    assert_eq!(decision.answers[0].text, "waiting for b");
    world.launched(1);
    world.launched(2);
    world.launched(3);
    assert_eq!(world.word("c"), "running");
    expect(
        &world.stop("a"),
        &["job.want a Down", "run.stopping a", "run.stop_step a 0", "> TERM 1 process cont"],
    );
    assert_eq!(world.word("b"), "running");
}

#[test]
fn a_job_that_starts_with_the_instance_brings_what_it_depends_on() {
    let mut world = World::bare();
    world.supervisor(1, false);
    let b = JobSpec { autostart: false, ..spec("b") };
    let decision = world.configured(&[after("a", &["b"]), b, JobSpec { autostart: false, ..spec("c") }]);
    expect(&decision, &["job.added a Up", "job.added b Up", "job.added c Down"]);
}

#[test]
fn a_dependency_that_was_given_up_is_named() {
    let mut db = JobSpec { restart: Restart::Always, ..spec("db") };
    db.start_limit.count = 1;
    let mut world = World::with(&[after("web", &["db"]), db]);
    world.launched(1);
    world.ended("web", 2, exited(0), false);
    world.stop("web");
    world.ended("db", 1, exited(1), false);
    world.start("web");
    assert_eq!((world.word("web"), world.reason("web").as_str()), ("waiting", "waits for db (fatal)"));
}

#[test]
fn jobs_in_a_circle_wait_and_nothing_hangs() {
    let circle = [after("a", &["b"]), after("b", &["a"])];
    let mut world = World::with(&circle);
    assert_eq!((world.word("a"), world.word("b")), ("waiting", "waiting"));
    world.start("a");
    expect(&world.shutdown(), &["shutdown.begun", "> exit 0 keep=false"]);
    // The circle was closed while both ran.
    let mut world = World::with(&[spec("a"), spec("b"), after("c", &["a"])]);
    world.launched(1);
    world.launched(2);
    world.launched(3);
    world.reload(&[after("a", &["b"]), after("b", &["a"]), after("c", &["a"])]);
    let decision = world.shutdown();
    assert_eq!(decision.effects.len(), 3, "{decision:?}");
}

#[test]
fn shutdown_stops_in_reverse_order_and_then_exits() {
    let mut world = World::with(&[spec("db"), after("app", &["db"]), after("web", &["app"])]);
    for n in 1..=3 {
        world.launched(n);
    }
    let decision = world.shutdown();
    expect(
        &decision,
        &["shutdown.begun", "run.stopping web", "run.stop_step web 0", "> TERM 3 process cont"],
    );
    assert!(!world.start("web").answers[0].ok);
    let decision = world.ended("web", 3, exited(0), false);
    let app = ["run.stopping app", "run.stop_step app 0"];
    expect(
        &decision,
        &[&["run.ended web exit 0"][..], &app, &["> forget 3", "> TERM 2 process cont"]].concat(),
    );
    // One that falls by itself is not started again and makes way just the same.
    world.ended("db", 1, exited(1), false);
    let decision = world.ended("app", 2, exited(0), false);
    expect(&decision, &["run.ended app exit 0", "> forget 2", "> exit 0 keep=false"]);
    // Wishes are as they were: the next instance starts them again.
    world.replayed();
    world.supervisor(1, false);
    world.configured(&[spec("db"), after("app", &["db"]), after("web", &["app"])]);
    let decision = world.surveyed(Vec::new());
    assert!(told(&decision).contains(&"> launch db 4 2".to_owned()), "{decision:?}");
    assert_eq!((world.word("app"), world.word("web")), ("waiting", "waiting"));
}

#[test]
fn shutdown_ends_waiting_and_backing_off_and_waits_for_leftovers() {
    let mut a = JobSpec { restart: Restart::Always, leftovers: Leftovers::Wait, ..spec("a") };
    a.backoff.initial = Millis(100);
    let mut world = World::with(&[a.clone(), JobSpec { name: name("b"), ..a }, after("c", &["missing"])]);
    world.launched(1);
    world.launched(2);
    world.ended("a", 1, exited(1), true);
    world.ended("b", 2, exited(1), false);
    let decision = world.shutdown();
    expect(&decision, &["shutdown.begun", "run.stopping a", "run.stop_step a 0", "> TERM 1 tree cont"]);
    assert_eq!((world.word("b"), world.word("c")), ("stopped", "stopped"));
    expect(&world.tree_gone(1), &["run.tree_gone a", "> forget 1", "> exit 0 keep=false"]);
}

#[test]
fn a_shutdown_that_takes_too_long_kills_everything_left() {
    let mut a = spec("a");
    a.stop[0].timeout = Millis::from_secs(600);
    a.kill_scope = KillScope::Process;
    let mut world = World::with(&[a, after("b", &["a"]), spec("late")]);
    world.state.shutdown_timeout = Millis(3000);
    world.launched(1);
    world.launched(2);
    world.launched(3);
    world.stop("late");
    world.shutdown();
    world.pass(2000);
    assert_eq!(world.due_in(), Some(1000));
    let decision = world.tick_after(1000);
    let kills: Vec<String> = told(&decision).into_iter().filter(|told| told.starts_with('>')).collect();
    assert_eq!(kills, ["> KILL 1 tree", "> KILL 2 tree", "> KILL 3 tree"]);
    assert_eq!(world.due_in(), Some(5000));
    assert_eq!(world.tick_after(5000).effects.len(), 3);
}

#[test]
fn shutdown_that_keeps_the_jobs_exits_at_once_and_they_are_adopted_later() {
    let specs = [spec("a")];
    let mut world = World::with(&specs);
    world.launched(1);
    let keep = Input::Shutdown { keep_jobs: true, by: operator("shutdown") };
    expect(&world.feed(keep), &["shutdown.begun", "> exit 0 keep=true"]);
    // What ends now is recorded, nothing follows it.
    world.replayed();
    world.supervisor(1, false);
    world.configured(&specs);
    let fact = Fact::Alive { identity: identity(101), started: world.now };
    expect(&world.surveyed(vec![(1, "a", fact)]), &["supervisor.surveyed", "run.adopted a"]);
}

#[test]
fn a_shutdown_before_the_survey_is_carried_out_after_it() {
    let specs = [spec("a")];
    let mut world = World::with(&specs);
    world.launched(1);
    world.replayed();
    world.supervisor(1, false);
    world.configured(&specs);
    expect(&world.shutdown(), &["shutdown.begun", "run.stopping a"]);
    let fact = Fact::Alive { identity: identity(101), started: world.now };
    let decision = world.surveyed(vec![(1, "a", fact)]);
    let step = "run.stop_step a 0";
    expect(&decision, &["supervisor.surveyed", "run.adopted a", step, "> TERM 1 process cont"]);
    let decision = world.ended("a", 1, exited(0), false);
    expect(&decision, &["run.ended a exit 0", "> forget 1", "> exit 0 keep=false"]);
}

#[test]
fn a_shutdown_goes_on_under_the_next_supervisor_and_starts_nothing() {
    let specs = [spec("a"), JobSpec { depends_on: vec![name("a")], ..spec("b") }];
    let mut world = World::with(&specs);
    world.launched(1);
    world.launched(2);
    expect(
        &world.shutdown(),
        &["shutdown.begun", "run.stopping b", "run.stop_step b 0", "> TERM 2 process cont"],
    );
    world.replayed();
    world.successor();
    expect(&world.configured(&specs), &[]);
    // `b` ended while there was no supervisor: it is not started again, and `a` has its turn.
    let (a, ended) = (
        Fact::Alive { identity: identity(101), started: world.now },
        Fact::Ended { record: Box::new(record("b", 2, exited(0), (None, world.now))), leftovers: false },
    );
    let decision = world.surveyed(vec![(1, "a", a), (2, "b", ended)]);
    let told = told(&decision);
    assert!(told.iter().any(|line| line == "run.stopping a"), "{told:?}");
    assert!(!told.iter().any(|line| line.starts_with("run.requested")), "{told:?}");
    let decision = world.ended("a", 1, exited(0), false);
    expect(&decision, &["run.ended a exit 0", "> forget 1", "> exit 0 keep=false"]);
    // Killed before it could say that: said again.
    world.replayed();
    world.successor();
    expect(&world.surveyed(Vec::new()), &["supervisor.surveyed", "> exit 0 keep=false"]);
    // Another instance begins anew.
    world.replayed();
    world.supervisor(1, false);
    world.configured(&specs);
    assert!(self::told(&world.surveyed(Vec::new())).iter().any(|line| line.starts_with("run.requested a")));
}

#[test]
fn an_end_costs_the_same_however_many_jobs_there_are() {
    let a_hundred_ends = |jobs: u128| {
        let specs: Vec<JobSpec> =
            (1..=jobs).map(|n| JobSpec { restart: Restart::Always, ..spec(&format!("j{n:04}")) }).collect();
        let mut world = World::with(&specs);
        for n in 1..=jobs {
            world.launched(n);
        }
        let begun = std::time::Instant::now();
        for n in 1..=100 {
            world.ended(&format!("j{n:04}"), n, exited(1), false);
        }
        begun.elapsed()
    };
    // Copying the memory for each would cost ten times as much. The best of some, for a busy machine.
    let ratios = (0..5).map(|_| a_hundred_ends(1000).as_secs_f64() / a_hundred_ends(100).as_secs_f64());
    let best = ratios.fold(f64::MAX, f64::min);
    assert!(best < 5.0, "{best}");
}
