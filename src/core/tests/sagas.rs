//! Operations of several steps: done whole, or undone, whoever dies in between.

use super::super::event::Want;
use super::super::input::{Fact, Input};
use super::super::outcome::Outcome;
use super::super::saga::{End, Force};
use super::super::spec::{JobSpec, Kind, Restart};
use super::super::time::Millis;
use super::{World, exited, expect, identity, name, operator, spec, told};

const TERM: Outcome = Outcome::Signaled { signal: 15, core: false };

fn with_nice(job: &str, nice: i32) -> JobSpec {
    JobSpec { nice: Some(nice), ..spec(job) }
}

fn old() -> Vec<JobSpec> {
    vec![spec("changed"), spec("gone"), spec("same")]
}

fn new() -> Vec<JobSpec> {
    vec![spec("added"), with_nice("changed", 5), spec("same")]
}

impl World {
    fn reload_or_roll_back(&mut self, specs: &[JobSpec]) -> super::Decision {
        let (specs, by) = (specs.to_vec(), operator("reload"));
        self.feed(Input::ReloadOrRollBack { specs, by, within: Millis(30_000) })
    }

    fn end_of_saga(&self) -> Option<&End> {
        assert!(self.state.sagas.open.is_none());
        self.state.sagas.ended.back().map(|ended| &ended.end)
    }

    /// Ticks until nothing is due.
    fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..20 {
            if self.due_in() != Some(0) {
                return all;
            }
            all.extend(told(&self.feed(Input::Tick)));
        }
        panic!("something is due again and again: {all:?}");
    }

    /// A new supervisor that has both configurations from init, and finds these runs alive.
    fn next_supervisor(&mut self, specs: &[JobSpec], live: &[(u128, &str)]) {
        self.replayed();
        self.successor();
        self.state.set_specs(&specs.iter().cloned().map(std::sync::Arc::new).collect::<Vec<_>>());
        self.configured(specs);
        let started = self.now;
        let alive = |(n, job): &(u128, &'static str)| {
            (*n, *job, Fact::Alive { identity: identity(*n as i32 + 100), started })
        };
        let live: Vec<(u128, &'static str)> = live.iter().map(|(n, job)| (*n, leak(job))).collect();
        self.surveyed(live.iter().map(alive).collect());
    }
}

fn leak(text: &str) -> &'static str {
    ["added", "changed", "gone", "same"].into_iter().find(|known| *known == text).unwrap()
}

/// Three jobs run; a reload adds one, changes one and removes one.
fn begun() -> World {
    let mut world = World::with(&old());
    for n in 1..=3 {
        world.launched(n);
    }
    world.pass(5000);
    let decision = world.reload_or_roll_back(&new());
    expect(
        &decision,
        &[
            "saga.begun",
            "job.want gone Down",
            "job.added added Up",
            "run.stopping gone",
            "run.stop_step gone 0",
            "run.stopping changed then start",
            "run.stop_step changed 0",
            "run.requested added 1",
            "> TERM 2 process cont",
            "> TERM 1 process cont",
            "> launch added 4 1",
        ],
    );
    world
}

#[test]
fn it_is_done_when_all_that_is_new_has_lasted_a_while_and_only_then_is_the_rest_forgotten() {
    let mut world = begun();
    world.launched(4);
    world.ended("changed", 1, TERM, false);
    world.ended("gone", 2, TERM, false);
    world.launched(5);
    assert_eq!((world.due_in(), world.word("gone")), (Some(1000), "stopped"));
    expect(
        &world.tick_after(1000),
        &["saga.step_done added", "saga.step_done changed", "saga.ended done", "job.removed gone"],
    );
    assert_eq!((world.end_of_saga(), world.word("gone")), (Some(&End::Done), "gone"));
    assert_eq!(world.state.sagas.in_force(1), Force::New);
    assert_eq!((world.due_in(), world.state.before.is_none()), (None, true));
}

#[test]
fn a_new_job_that_fails_puts_everything_back() {
    let mut world = begun();
    world.launched(4);
    world.ended("changed", 1, TERM, false);
    world.launched(5);
    world.pass(300);
    let decision = world.ended("added", 4, exited(3), false);
    assert_eq!(told(&decision)[..2], ["run.ended added exit 3", "run.requested added 2"]);
    assert!(told(&decision).contains(&"saga.undoing added: it ended after 300ms: exit 3".to_owned()));
    assert_eq!(
        world.settle(),
        [
            "saga.ended rolled back",
            "job.removed added",
            "run.stopping added",
            "run.stopping changed then start",
            "run.stop_step changed 0",
            "job.want gone Up",
            "> TERM 5 process cont",
        ]
    );
    assert_eq!(world.state.spec(&name("changed")), Some(&spec("changed")));
    assert_eq!(world.state.sagas.in_force(1), Force::Old);
    // What was still on its way there comes back by itself.
    let decision = world.ended("gone", 2, TERM, false);
    assert!(told(&decision).contains(&"run.requested gone 2".to_owned()));
    let decision = world.ended("changed", 5, TERM, false);
    assert!(told(&decision).contains(&"run.requested changed 3".to_owned()));
    world.launched(6);
    world.ended("added", 6, TERM, false);
    assert_eq!((world.word("added"), world.word("same")), ("gone", "running"));
}

#[test]
fn what_cannot_be_started_or_never_comes_up_puts_everything_back() {
    let mut world = begun();
    let outcome = Outcome::NotStarted { step: "exec".to_owned(), errno: 2 };
    let decision = world.feed(Input::Refused { run: super::run(4), outcome });
    assert!(told(&decision).iter().any(|line| line.starts_with("saga.undoing added: never started: exec")));
    world.settle();
    assert!(
        matches!(world.end_of_saga(), Some(End::RolledBack(broken)) if broken.job == Some(name("added")))
    );

    let mut world = begun();
    world.launched(4);
    let told = told(&world.tick_after(30_000));
    assert_eq!(told[1], "saga.undoing changed: not up within 30s: changed (stopping)", "{told:?}");
    world.settle();
    assert!(matches!(world.end_of_saga(), Some(End::RolledBack(_))));
    // The old run still ends; the one that follows has the old settings.
    let decision = world.ended("changed", 1, TERM, false);
    let nice = decision.effects.iter().find_map(|effect| match effect {
        super::Effect::Launch { spec, .. } => Some(spec.nice),
        _ => None,
    });
    assert_eq!(nice, Some(None));
}

#[test]
fn the_end_of_an_old_run_breaks_nothing_and_a_stop_by_an_operator_is_no_failure() {
    let mut world = begun();
    world.launched(4);
    world.ended("changed", 1, exited(7), false);
    world.launched(5);
    world.stop("changed");
    world.ended("changed", 5, TERM, false);
    world.pass(1000);
    world.settle();
    assert_eq!(world.end_of_saga(), Some(&End::Done));
    assert_eq!(world.state.job(&name("changed")).unwrap().want, Want::Down);
}

#[test]
fn a_task_counts_when_it_runs_or_has_done_its_work() {
    let mut task = spec("added");
    (task.kind, task.restart) = (Kind::Task, Restart::Never);
    for (code, end) in [(0, true), (1, false)] {
        let mut world = World::with(&[]);
        world.reload_or_roll_back(std::slice::from_ref(&task));
        world.launched(1);
        world.ended("added", 1, exited(code), false);
        world.settle();
        assert_eq!(world.end_of_saga() == Some(&End::Done), end);
    }
}

#[test]
fn a_reload_that_changes_nothing_is_done_at_once_and_one_at_a_time_is_under_way() {
    let mut world = World::with(&old());
    for n in 1..=3 {
        world.launched(n);
    }
    world.reload_or_roll_back(&old());
    assert_eq!(world.settle(), ["saga.ended done"]);
    let mut world = begun();
    expect(&world.reload_or_roll_back(&old()), &[]);
}

#[test]
fn the_next_supervisor_goes_on_where_the_last_one_was() {
    // Died right after the beginning was recorded: nothing was performed.
    let mut world = begun();
    world.next_supervisor(&new(), &[(1, "changed"), (2, "gone"), (3, "same")]);
    assert_eq!(world.word("gone"), "stopping");
    assert!(world.state.sagas.open.is_some(), "it is held, and not forgotten");
    // The start that nobody performed is lost, and followed by another.
    world.launched(5);
    world.ended("changed", 1, TERM, false);
    world.launched(6);
    world.ended("gone", 2, TERM, false);
    world.pass(1000);
    world.settle();
    assert_eq!((world.end_of_saga(), world.word("gone")), (Some(&End::Done), "gone"));

    // Died with the failure recorded: the undo is left to the next one.
    let mut world = begun();
    world.launched(4);
    world.ended("added", 4, exited(3), false);
    assert!(world.state.sagas.open.as_ref().unwrap().broken.is_some());
    world.next_supervisor(&new(), &[(1, "changed"), (2, "gone"), (3, "same")]);
    let told = world.settle();
    assert_eq!(told[..2], ["saga.ended rolled back", "job.removed added"], "{told:?}");
    assert_eq!(world.state.spec(&name("changed")), Some(&spec("changed")));
    world.ended("gone", 2, TERM, false);
    assert_eq!(world.word("gone"), "starting");

    // Died with the undo recorded: nothing is left of it but what follows by itself.
    let mut world = begun();
    world.launched(4);
    world.ended("added", 4, exited(3), false);
    world.settle();
    assert_eq!(world.state.sagas.in_force(1), Force::Old);
    world.next_supervisor(&old(), &[(1, "changed"), (2, "gone"), (3, "same")]);
    world.ended("changed", 1, TERM, false);
    world.ended("gone", 2, TERM, false);
    assert_eq!(
        (world.word("changed"), world.word("gone"), world.word("added")),
        ("starting", "starting", "gone")
    );
}

#[test]
fn while_the_keeper_is_away_nothing_is_judged() {
    let mut world = begun();
    world.launched(4);
    world.feed(Input::KeeperLost);
    assert_eq!(world.due_in(), None);
    world.pass(31_000);
    expect(&world.feed(Input::Tick), &[]);
    let started = world.now;
    let alive = |n: i32| Fact::Alive { identity: identity(n + 100), started };
    world.surveyed(vec![
        (1, "changed", alive(1)),
        (2, "gone", alive(2)),
        (3, "same", alive(3)),
        (4, "added", alive(4)),
    ]);
    let told = world.settle();
    assert!(told.contains(&"saga.ended rolled back".to_owned()), "{told:?}");
}

#[test]
fn without_the_settings_before_there_is_no_way_back_and_it_says_so() {
    for epoch in [1, 2] {
        let mut world = begun();
        world.launched(4);
        world.replayed();
        if epoch == 1 {
            world.state.before = None;
        }
        let decision = world.supervisor(epoch, false);
        let told = told(&decision);
        assert!(told[1].starts_with("saga.ended abandoned: the "), "{told:?}");
        world.configured(&new());
        world.surveyed(vec![]);
        assert!(world.state.sagas.open.is_none());
    }
    // An end of the instance is the end of everything.
    let mut world = begun();
    world.shutdown();
    assert!(matches!(world.end_of_saga(), Some(End::Abandoned { .. })));
}

#[test]
fn jobs_that_were_started_together_are_stopped_together() {
    let mut web = spec("web");
    web.depends_on = vec![name("db")];
    let mut specs = [spec("db"), web, spec("other")];
    specs.iter_mut().for_each(|spec| spec.autostart = false);
    let mut world = World::with(&specs);
    let start = |world: &mut World, jobs: &[&str]| {
        let jobs = jobs.iter().map(|job| name(job)).collect();
        world.feed(Input::StartOrRollBack { jobs, by: operator("start"), within: Millis(5000) })
    };
    let decision = start(&mut world, &["web", "nobody"]);
    assert!(decision.events.is_empty() && decision.answers.iter().any(|answer| !answer.ok));
    start(&mut world, &["web"]);
    world.launched(1);
    world.launched(2);
    world.pass(100);
    world.ended("web", 2, exited(1), false);
    world.settle();
    assert!(matches!(world.end_of_saga(), Some(End::RolledBack(broken)) if broken.job == Some(name("web"))));
    for job in ["db", "web"] {
        assert_eq!(world.state.job(&name(job)).unwrap().want, Want::Down, "{job}");
    }
    world.ended("db", 1, TERM, false);
    assert_eq!((world.word("db"), world.word("other")), ("stopped", "stopped"));
}

#[test]
fn which_configuration_is_in_force_follows_from_what_is_recorded() {
    let world = begun();
    assert_eq!(world.state.sagas.in_force(1), Force::Open);
    assert_eq!(world.state.sagas.in_force(2), Force::Old, "held, and never recorded");
    assert_eq!(World::with(&old()).state.sagas.in_force(1), Force::Old);
}
