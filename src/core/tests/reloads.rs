//! Reloading, as traces.

use super::super::input::Input;
use super::super::queue::Entry;
use super::super::reload::plan;
use super::super::spec::{JobSpec, Restart};
use super::super::time::Millis;
use super::{World, exited, expect, name, operator, spec, told};

#[test]
fn only_what_changed_about_the_process_restarts() {
    let specs = [spec("gone"), spec("new-command"), spec("new-policy"), spec("same")];
    let mut world = World::with(&specs);
    for n in 1..=4 {
        world.launched(n);
    }
    let mut new = vec![spec("new-command"), spec("new-policy"), spec("same"), spec("fresh")];
    new[0].command = vec!["false".to_owned()];
    new[1].restart = Restart::Never;
    let planned = plan(&world.state, &new);
    assert_eq!(
        (&planned.added, &planned.removed, &planned.restarted, &planned.updated, &planned.unchanged),
        (
            &vec![name("fresh")],
            &vec![name("gone")],
            &vec![name("new-command")],
            &vec![name("new-policy")],
            &vec![name("same")]
        )
    );
    let decision = world.reload(&new);
    expect(
        &decision,
        &[
            "job.removed gone",
            "job.added fresh Up",
            "run.stopping gone",
            "run.stop_step gone 0",
            "run.stopping new-command then start",
            "run.stop_step new-command 0",
            "run.requested fresh 1",
            "> TERM 1 process cont",
            "> TERM 2 process cont",
            "> launch fresh 5 1",
        ],
    );
    let decision = world.ended("new-command", 2, exited(0), false);
    let launch = decision.effects.iter().find_map(|effect| match effect {
        super::Effect::Launch { spec, .. } => Some(spec.command.clone()),
        _ => None,
    });
    assert_eq!(launch, Some(vec!["false".to_owned()]));
    world.ended("gone", 1, exited(0), false);
    assert_eq!((world.word("gone"), world.state.spec(&name("gone"))), ("gone", None));
    assert_eq!(plan(&world.state, &new).unchanged.len(), 4);
}

#[test]
fn a_job_that_is_added_while_the_keeper_is_away_starts_when_it_is_back() {
    let mut world = World::with(&[]);
    world.feed(Input::KeeperLost);
    let decision = world.reload(&[spec("fresh")]);
    expect(&decision, &["job.added fresh Up", "job.waiting fresh"]);
    let decision = world.surveyed(Vec::new());
    expect(&decision, &["supervisor.surveyed", "run.requested fresh 1", "> launch fresh 1 1"]);
}

#[test]
fn a_removed_job_is_stopped_by_the_ladder_it_had() {
    let mut a = spec("a");
    a.stop = vec![super::signal_step(3, 70)];
    let mut world = World::with(&[a]);
    world.launched(1);
    assert_eq!(told(&world.reload(&[])).last().unwrap(), "> QUIT 1 process cont");
    assert_eq!(told(&world.tick_after(70)).last().unwrap(), "> KILL 1 tree");
    assert!(!world.start("a").answers[0].ok);
}

#[test]
fn a_job_that_comes_back_while_its_old_run_is_stopped_starts_after_it() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    world.reload(&[]);
    expect(&world.reload(&[spec("a")]), &["job.added a Up"]);
    let decision = world.ended("a", 1, exited(0), false);
    expect(&decision, &["run.ended a exit 0", "run.requested a 2", "> forget 1", "> launch a 2 2"]);
}

#[test]
fn an_operators_stop_stays_a_stop() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    world.stop("a");
    world.ended("a", 1, exited(0), false);
    let changed = JobSpec { nice: Some(5), ..spec("a") };
    expect(&world.reload(&[changed]), &[]);
    assert_eq!(world.word("a"), "stopped");
}

#[test]
fn a_job_given_up_tries_again_with_new_settings() {
    let mut a = JobSpec { restart: Restart::Always, ..spec("a") };
    a.start_limit.count = 1;
    let mut world = World::with(&[a.clone()]);
    world.launched(1);
    world.ended("a", 1, exited(1), false);
    assert_eq!(world.word("a"), "fatal");
    let longer = JobSpec { start_grace: Millis(5), ..a.clone() };
    expect(&world.reload(&[longer]), &[]);
    let changed = JobSpec { cwd: Some("/tmp".to_owned()), ..a };
    expect(&world.reload(&[changed]), &["job.want a Up", "run.requested a 2", "> launch a 2 2"]);
}

#[test]
fn submitted_jobs_are_none_of_the_configurations_business() {
    let mut world = World::with(&[]);
    world.feed(Input::Submitted { spec: Box::new(spec("a")), entry: Entry::default(), by: operator("run") });
    world.launched(1);
    expect(&world.reload(&[]), &[]);
    let decision = world.reload(&[JobSpec { nice: Some(1), ..spec("a") }]);
    expect(&decision, &[]);
    assert_eq!(plan(&world.state, &[spec("a")]).blocked, [name("a")]);
    assert_eq!(world.state.spec(&name("a")), Some(&spec("a")));
    world.ended("a", 1, exited(0), false);
    // Its name is free once it is over.
    let decision = world.reload(&[spec("a")]);
    expect(&decision, &["job.removed a", "job.added a Up", "run.requested a 1", "> launch a 2 1"]);
}

#[test]
fn new_settings_are_forgotten_by_a_crash_and_known_again_by_the_configuration() {
    let old = [spec("a")];
    let mut world = World::with(&old);
    world.launched(1);
    world.replayed();
    assert_eq!(world.state.spec(&name("a")), None);
    world.supervisor(1, false);
    // The settings its predecessor had accepted are known: the difference to them counts.
    world.state.set_specs(&old.clone().map(std::sync::Arc::new));
    let changed = JobSpec { nice: Some(1), ..spec("a") };
    expect(&world.configured(&[changed]), &["run.stopping a then start"]);
}

#[test]
fn a_new_dependency_that_is_already_up_lets_a_waiting_job_go() {
    let waits = |dep: &str| JobSpec { depends_on: vec![name(dep)], ..spec("w") };
    let off = JobSpec { autostart: false, ..spec("off") };
    let mut world = World::with(&[spec("up"), off.clone()]);
    world.launched(1);
    world.reload(&[spec("up"), off.clone(), waits("off")]);
    assert_eq!(world.word("w"), "waiting");
    expect(&world.reload(&[spec("up"), off, waits("up")]), &["run.requested w 1", "> launch w 2 1"]);
}
