//! Stop ladders, leftovers and operators' stops, as traces.

use super::super::input::Input;
use super::super::outcome::Outcome;
use super::super::rung::{Of, Rung};
use super::super::spec::{JobSpec, KillScope, Leftovers, Restart, StopAct, StopStep};
use super::super::time::Millis;
use super::{Decision, Effect, World, exited, expect, name, operator, run, signal_step, spec};

fn running(a: JobSpec) -> World {
    let mut world = World::with(&[a]);
    world.launched(1);
    world
}

fn always(leftovers: Leftovers) -> JobSpec {
    JobSpec { restart: Restart::Always, leftovers, ..spec("a") }
}

#[test]
fn a_stop_climbs_the_ladder_and_kills_until_it_is_gone() {
    let mut a = always(Leftovers::Stop);
    a.stop = vec![signal_step(15, 1000), signal_step(2, 2000)];
    let mut world = running(a);
    let decision = world.stop("a");
    expect(&decision, &["job.want a Down", "run.stopping a", "run.stop_step a 0", "> TERM 1 process cont"]);
    assert_eq!(decision.answers[0].text, "stopping");
    expect(&world.tick_after(999), &[]);
    expect(&world.tick_after(1), &["run.stop_step a 1", "> INT 1 process cont"]);
    expect(&world.tick_after(2000), &["run.stop_step a 2 kill", "> KILL 1 tree"]);
    assert_eq!(world.reason("a"), "killed, waiting for it to go");
    expect(&world.tick_after(5000), &["run.stop_step a 2 kill", "> KILL 1 tree"]);
    let decision = world.ended("a", 1, Outcome::Signaled { signal: 9, core: false }, false);
    expect(&decision, &["run.ended a signal 9 (KILL)", "> forget 1"]);
    assert_eq!((world.word("a"), world.due_in()), ("stopped", None));
    assert_eq!(world.stop("a").answers[0].text, "not running");
}

#[test]
fn the_scope_of_the_job_holds_on_every_rung() {
    for (scope, first, last) in [
        (KillScope::Mixed, "> TERM 1 process cont", "> KILL 1 tree"),
        (KillScope::Tree, "> TERM 1 tree cont", "> KILL 1 tree"),
        (KillScope::Group, "> TERM 1 group cont", "> KILL 1 group"),
        (KillScope::Process, "> TERM 1 process cont", "> KILL 1 process"),
    ] {
        let mut a = spec("a");
        a.kill_scope = scope;
        let mut world = running(a);
        assert_eq!(super::told(&world.stop("a")).last().unwrap(), first);
        assert_eq!(super::told(&world.tick_after(10_000)).last().unwrap(), last);
    }
}

#[test]
fn stop_during_start_begins_the_ladder_at_launch() {
    let mut world = World::with(&[spec("a")]);
    expect(&world.stop("a"), &["job.want a Down", "run.stopping a"]);
    assert_eq!((world.word("a"), world.due_in()), ("stopping", None));
    let decision = world.launched(1);
    expect(&decision, &["run.started a", "run.stop_step a 0", "> TERM 1 process cont"]);
    world.ended("a", 1, exited(0), false);
    assert_eq!(world.word("a"), "stopped");
}

#[test]
fn stop_during_a_start_that_is_refused_is_over_with_it() {
    let mut world = World::with(&[always(Leftovers::Stop)]);
    world.stop("a");
    let decision = world.feed(Input::Refused { run: run(1), outcome: Outcome::Cancelled });
    expect(&decision, &["run.ended a cancelled before it ran", "> forget 1"]);
    assert_eq!(world.word("a"), "stopped");
}

#[test]
fn stop_while_backing_off_is_stopped_at_once() {
    let mut a = always(Leftovers::Stop);
    a.backoff.initial = Millis(100);
    let mut world = running(a);
    world.ended("a", 1, exited(1), false);
    let decision = world.stop("a");
    expect(&decision, &["job.want a Down"]);
    assert_eq!(decision.answers[0].text, "stopped");
    assert_eq!((world.word("a"), world.due_in()), ("stopped", None));
}

#[test]
fn start_during_stop_starts_again_when_it_has_stopped() {
    let mut world = running(spec("a"));
    world.stop("a");
    let decision = world.start("a");
    expect(&decision, &["job.want a Up"]);
    assert_eq!(decision.answers[0].text, "starts again when it has stopped");
    let decision = world.ended("a", 1, exited(0), false);
    expect(&decision, &["run.ended a exit 0", "run.requested a 2", "> forget 1", "> launch a 2 2"]);
}

#[test]
fn stop_during_restart_stays_stopped() {
    let mut world = running(spec("a"));
    expect(
        &world.restart("a"),
        &["job.want a Up", "run.stopping a then start", "run.stop_step a 0", "> TERM 1 process cont"],
    );
    world.stop("a");
    expect(&world.ended("a", 1, exited(0), false), &["run.ended a exit 0", "> forget 1"]);
    assert_eq!(world.word("a"), "stopped");
}

#[test]
fn a_stop_command_that_fails_makes_way_at_once_one_that_succeeds_has_its_time() {
    let quit = StopStep { act: StopAct::Command(vec!["quit".to_owned()]), timeout: Millis(3000) };
    let mut a = spec("a");
    a.stop = vec![quit, signal_step(15, 1000)];
    for (ok, wait) in [(true, 3000), (false, 0)] {
        let mut world = running(a.clone());
        let decision = world.stop("a");
        expect(
            &decision,
            &["job.want a Down", "run.stopping a", "run.stop_step a 0", "> command 1 101 quit"],
        );
        let decision = world.feed(Input::StopCommandEnded { run: run(1), step: 0, ok });
        let decision = if ok {
            expect(&decision, &[]);
            world.tick_after(wait)
        } else {
            decision
        };
        expect(&decision, &["run.stop_step a 1", "> TERM 1 process cont"]);
        // Told again, or late: the rung in progress is no command.
        expect(&world.feed(Input::StopCommandEnded { run: run(1), step: 0, ok: false }), &[]);
    }
}

#[test]
fn leftovers_are_stopped_as_a_tree_before_the_next_run() {
    let mut world = running(always(Leftovers::Stop));
    let decision = world.ended("a", 1, exited(1), true);
    expect(&decision, &["run.ended a exit 1, leftovers", "run.stop_step a 0", "> TERM 1 tree cont"]);
    assert_eq!(world.word("a"), "stopping");
    expect(&world.tick_after(10_000), &["run.stop_step a 1 kill", "> KILL 1 tree"]);
    let decision = world.tree_gone(1);
    expect(&decision, &["run.tree_gone a", "run.requested a 2", "> forget 1", "> launch a 2 2"]);
}

#[test]
fn leftovers_may_be_waited_for_and_a_stop_does_not_wait() {
    let mut world = running(always(Leftovers::Wait));
    expect(&world.ended("a", 1, exited(1), true), &["run.ended a exit 1, leftovers"]);
    assert_eq!(world.due_in(), None);
    // Wanting it again is no reason to end what is waited for.
    expect(&world.start("a"), &["job.want a Up"]);
    let decision = world.stop("a");
    expect(&decision, &["job.want a Down", "run.stopping a", "run.stop_step a 0", "> TERM 1 tree cont"]);
    expect(&world.tree_gone(1), &["run.tree_gone a", "> forget 1"]);
    assert_eq!(world.word("a"), "stopped");
}

#[test]
fn ignored_leftovers_are_disowned_and_the_next_run_starts_beside_them() {
    let mut world = running(always(Leftovers::Ignore));
    let decision = world.ended("a", 1, exited(1), true);
    expect(
        &decision,
        &[
            "run.ended a exit 1, leftovers",
            "run.disowned a",
            "run.requested a 2",
            "> disown 1",
            "> forget 1",
            "> launch a 2 2",
        ],
    );
    expect(&world.tree_gone(1), &["> forget 1"]);
}

#[test]
fn leftovers_of_a_stopped_run_get_a_ladder_of_their_own_unless_it_was_killed() {
    let mut world = running(always(Leftovers::Stop));
    world.stop("a");
    let decision = world.ended("a", 1, exited(0), true);
    expect(&decision, &["run.ended a exit 0, leftovers", "run.stop_step a 0", "> TERM 1 tree cont"]);
    let mut world = running(always(Leftovers::Stop));
    world.stop("a");
    world.tick_after(10_000);
    let decision = world.ended("a", 1, exited(0), true);
    expect(&decision, &["run.ended a exit 0, leftovers", "run.stop_step a 1 kill", "> KILL 1 tree"]);
}

#[test]
fn an_operators_signal_reaches_the_live_run_and_nothing_else() {
    let mut world = running(spec("a"));
    let hup = |scope| Input::Signal { job: name("a"), signal: 1, scope, by: operator("signal") };
    expect(&world.feed(hup(KillScope::Mixed)), &["> HUP 1 process"]);
    expect(&world.feed(hup(KillScope::Tree)), &["> HUP 1 tree"]);
    world.feed(Input::KeeperLost);
    let decision = world.feed(hup(KillScope::Mixed));
    assert_eq!((decision.effects.len(), decision.answers[0].ok), (0, false));
    let mut world = World::with(&[spec("a")]);
    assert!(!world.feed(hup(KillScope::Mixed)).answers[0].ok);
}

#[test]
fn a_job_whose_settings_are_unknown_can_be_stopped_but_not_started() {
    let mut world = running(spec("a"));
    world.replayed();
    world.supervisor(1, false);
    // No configuration was read.
    let alive = super::Fact::Alive { identity: super::identity(101), started: world.now };
    world.surveyed(vec![(1, "a", alive)]);
    let decision = world.stop("a");
    expect(&decision, &["job.want a Down", "run.stopping a", "run.stop_step a 0", "> TERM 1 process cont"]);
    world.ended("a", 1, exited(0), false);
    let decision = world.start("a");
    expect(&decision, &[]);
    assert_eq!(decision.answers[0].text, "its settings are not known yet");
}

/// What a survey makes of a run that is being stopped, whose keeper has sent the signal of this rung.
fn surveyed_with(world: &mut World, rung: Option<Rung>) -> Decision {
    let alive = super::Fact::Alive { identity: super::identity(101), started: world.now };
    let found = super::Surveyed { rung, ..super::Surveyed::new(super::run(1), Some(name("a")), alive) };
    world.feed(Input::Surveyed(super::Survey { runs: vec![found], ..super::Survey::default() }))
}

/// A run that is being stopped, and the rung whose signal that was.
fn stopping() -> (World, Rung) {
    let mut world = running(spec("a"));
    let decision = world.stop("a");
    let Some(Effect::Signal { rung: Some(rung), .. }) = decision.effects.first() else {
        panic!("{decision:?}")
    };
    assert!(matches!(rung, Rung { of: Of::Stop { .. }, step: 0 }), "{rung:?}");
    (world, *rung)
}

#[test]
fn a_rung_whose_signal_was_sent_goes_on_and_one_whose_was_not_begins() {
    let away = || {
        let (mut world, rung) = stopping();
        world.pass(4000);
        world.feed(Input::KeeperLost);
        world.pass(1000);
        (world, rung)
    };
    let again: &[&str] =
        &["supervisor.surveyed", "run.adopted a", "run.stop_step a 0", "> TERM 1 process cont"];
    let (_, rung) = away();
    let of = Of::Leftovers { since_us: world_time(rung) };
    // Of another stop, whose lines are missing from the log.
    let earlier = Of::Stop { since_us: world_time(rung) - 1 };
    let others =
        [None, Some(Rung { step: 1, ..rung }), Some(Rung { of, ..rung }), Some(Rung { of: earlier, ..rung })];
    for other in others {
        let (mut world, _) = away();
        expect(&surveyed_with(&mut world, other), again);
        assert_eq!(world.due_in(), Some(10_000), "{other:?}");
    }
    let (mut world, rung) = away();
    expect(&surveyed_with(&mut world, Some(rung)), &["supervisor.surveyed", "run.adopted a"]);
    assert_eq!(world.due_in(), Some(5000));
    expect(&world.tick_after(5000), &["run.stop_step a 1 kill", "> KILL 1 tree"]);
    // KILL may come as often as it likes.
    world.feed(Input::KeeperLost);
    let again: &[&str] = &["supervisor.surveyed", "run.adopted a", "run.stop_step a 1 kill", "> KILL 1 tree"];
    expect(&surveyed_with(&mut world, Some(Rung { step: 1, ..rung })), again);
}

fn world_time(rung: Rung) -> u64 {
    let (Of::Stop { since_us } | Of::Leftovers { since_us } | Of::Frozen { since_us }) = rung.of;
    since_us
}

#[test]
fn who_asks_for_a_stop_again_does_not_begin_it_anew() {
    let (mut world, rung) = stopping();
    world.pass(1000);
    world.feed(Input::Restart { jobs: vec![name("a")], by: operator("restart") });
    world.feed(Input::KeeperLost);
    expect(&surveyed_with(&mut world, Some(rung)), &["supervisor.surveyed", "run.adopted a"]);
}

#[test]
fn a_rung_that_was_over_while_nobody_was_there_is_followed_by_the_next() {
    let (mut world, rung) = stopping();
    world.feed(Input::KeeperLost);
    world.pass(10_000);
    let back = surveyed_with(&mut world, Some(rung));
    expect(&back, &["supervisor.surveyed", "run.adopted a", "run.stop_step a 1 kill", "> KILL 1 tree"]);
}

#[test]
fn a_stop_command_is_asked_for_once_more_and_its_time_goes_on() {
    let command = StopStep { act: StopAct::Command(vec!["drain".to_owned()]), timeout: Millis(9000) };
    let mut world = running(JobSpec { stop: vec![command], ..spec("a") });
    world.stop("a");
    world.feed(Input::KeeperLost);
    world.pass(4000);
    let back = surveyed_with(&mut world, None);
    assert_eq!(back.events.len(), 2, "{back:?}");
    assert!(matches!(back.effects[..], [Effect::RunStopCommand { step: 0, .. }]), "{back:?}");
    assert_eq!(world.due_in(), Some(5000));
}

#[test]
fn the_end_of_an_earlier_stop_command_says_nothing_about_a_later_one() {
    let step = |word: &str| StopStep { act: StopAct::Command(vec![word.to_owned()]), timeout: Millis(1000) };
    let mut world = running(JobSpec { stop: vec![step("one"), step("two")], ..spec("a") });
    world.stop("a");
    world.tick_after(1000);
    expect(&world.feed(Input::StopCommandEnded { run: run(1), step: 0, ok: false }), &[]);
    let decision = world.feed(Input::StopCommandEnded { run: run(1), step: 1, ok: false });
    expect(&decision, &["run.stop_step a 2 kill", "> KILL 1 tree"]);
}
