//! Runs that live and are unwell: what is done about them, rung by rung.

use super::super::fault::Fault;
use super::super::job::Phase;
use super::super::rung::{Of, Rung};
use super::super::spec::OnFatal;
use super::super::stats::Cause;
use super::super::watch::{FrozenStep, Limits, OnExceed, Ready, ReadyBy, Watch};
use super::*;

fn watched(text: &str, watch: Watch) -> JobSpec {
    JobSpec { watch: Some(Box::new(watch)), ..spec(text) }
}

fn unwell(world: &mut World, n: u128, fault: Fault) -> Decision {
    world.feed(Input::Unwell { run: run(n), fault, why: "it hangs".to_owned() })
}

fn well(world: &mut World, n: u128) -> Decision {
    world.feed(Input::Well { run: run(n) })
}

fn ready(timeout: u64) -> Watch {
    Watch { ready: Some(Ready { by: ReadyBy::Notify, timeout: Millis(timeout) }), ..Watch::default() }
}

#[test]
fn a_run_that_hangs_climbs_the_ladder_and_the_next_one_follows() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    let first = unwell(&mut world, 1, Fault::Silent);
    expect(&first, &["run.unwell a", "run.heal_step a", "> CONT 1 tree"]);
    assert_eq!(
        (world.word("a"), world.reason("a").as_str(), world.due_in()),
        ("frozen", "it hangs", Some(250))
    );
    assert_eq!(told(&unwell(&mut world, 1, Fault::Watchdog)), [""; 0], "one thing at a time");
    assert_eq!(told(&world.tick_after(249)), [""; 0]);
    assert_eq!(told(&world.feed(Input::Diagnosed { run: run(1) })), [""; 0], "not what this rung waits for");
    expect(&world.tick_after(1), &["run.heal_step a", "> diagnose 1 it hangs"]);
    assert_eq!(world.due_in(), Some(1000));
    let stop = ["run.heal_step a", "run.stopping a", "run.stop_step a 0", "> TERM 1 process cont"];
    expect(&world.feed(Input::Diagnosed { run: run(1) }), &stop);
    assert_eq!((world.word("a"), world.reason("a").as_str()), ("stopping", "it hangs"));
    // It ends with a success code, and has failed all the same.
    let next = ["run.ended a exit 0", "run.requested a 2", "> forget 1", "> launch a 2 2"];
    expect(&world.ended("a", 1, exited(0), false), &next);
    let job = world.state.job(&name("a")).unwrap();
    assert_eq!((job.failures, job.last_words().as_str()), (1, "it hangs: exit 0"));
    let past = world.state.runs(&name("a")).next().unwrap();
    assert_eq!(past.end.as_ref().unwrap().cause, Some(Cause::Unwell));
}

#[test]
fn who_was_seen_stopped_has_longer_to_show_that_it_goes_on() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    unwell(&mut world, 1, Fault::Stopped);
    assert_eq!(world.due_in(), Some(1000));
}

#[test]
fn the_answer_to_a_signal_for_a_dump_is_no_sign_of_life() {
    let dump = FrozenStep::Dump { signal: Some(3), wait: Millis(5000) };
    let ladder = |steps: &[FrozenStep]| Watch { on_frozen: Some(steps.to_vec()), ..Watch::default() };
    for (fault, counts) in [(Fault::Silent, false), (Fault::Idle, false), (Fault::Watchdog, true)] {
        let steps = [FrozenStep::Continue { wait: Millis(100) }, dump, FrozenStep::Restart];
        let mut world = World::with(&[watched("a", ladder(&steps))]);
        world.launched(1);
        unwell(&mut world, 1, fault);
        expect(
            &world.tick_after(100),
            &["run.heal_step a", "> diagnose 1 it hangs", "> QUIT 1 process cont"],
        );
        let said = told(&well(&mut world, 1));
        assert_eq!(said, if counts { vec!["run.well a"] } else { vec![] }, "{fault:?}");
        if !counts {
            let stop = ["run.heal_step a", "run.stopping a", "run.stop_step a 0", "> TERM 1 process cont"];
            expect(&world.tick_after(5000), &stop);
        }
    }
    // Before the signal, and where nothing else would be done, a sign is a sign.
    let mut world = World::with(&[watched("a", ladder(&[FrozenStep::Continue { wait: Millis(100) }, dump]))]);
    world.launched(1);
    unwell(&mut world, 1, Fault::Silent);
    expect(&well(&mut world, 1), &["run.well a"]);
    unwell(&mut world, 1, Fault::Silent);
    world.tick_after(100);
    expect(&well(&mut world, 1), &["run.well a"]);
}

#[test]
fn signs_of_life_end_the_ladder() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    unwell(&mut world, 1, Fault::Stopped);
    world.pass(200);
    expect(&well(&mut world, 1), &["run.well a"]);
    assert_eq!((world.word("a"), world.due_in()), ("running", None));
    assert_eq!(told(&well(&mut world, 1)), [""; 0]);
    // What it ends by later is its own affair.
    let mut record = record("a", 1, exited(0), (Some(world.now), world.now));
    record.asked = Asked::Health { fault: Fault::Stopped, why: "it hangs".to_owned(), again: true };
    expect(
        &world.feed(Input::Ended { record: Box::new(record), leftovers: false }),
        &["run.ended a exit 0", "> forget 1"],
    );
    assert_eq!(world.word("a"), "exited");
}

#[test]
fn a_ladder_that_ends_with_stop_gives_the_job_up() {
    let steps = vec![FrozenStep::Stop];
    let mut world = World::with(&[JobSpec {
        on_fatal: OnFatal::Exit,
        ..watched("a", Watch { on_frozen: Some(steps), ..Watch::default() })
    }]);
    world.launched(1);
    unwell(&mut world, 1, Fault::Liveness);
    let ended = world.ended("a", 1, Outcome::Signaled { signal: 15, core: false }, false);
    let wanted = [
        "run.ended a signal 15 (TERM)",
        "job.gave_up a it hangs",
        "shutdown.begun",
        "> forget 1",
        "> exit 143 keep=false",
    ];
    expect(&ended, &wanted);
    assert_eq!(world.reason("a"), "it hangs, the last: it hangs: signal 15 (TERM)");
}

#[test]
fn a_ladder_without_a_stop_says_it_and_waits() {
    for steps in [vec![], vec![FrozenStep::Continue { wait: Millis(100) }]] {
        let rungs = steps.len() + 1;
        let mut world = World::with(&[watched("a", Watch { on_frozen: Some(steps), ..Watch::default() })]);
        world.launched(1);
        let mut events = told(&unwell(&mut world, 1, Fault::Idle));
        events.extend(told(&world.tick_after(100)));
        assert_eq!(events.iter().filter(|event| *event == "run.heal_step a").count(), rungs, "{events:?}");
        assert_eq!((world.due_in(), world.word("a")), (None, "frozen"));
        expect(&well(&mut world, 1), &["run.well a"]);
    }
}

#[test]
fn a_dump_signal_goes_to_the_main_process_and_is_waited_for() {
    let steps = vec![FrozenStep::Dump { signal: Some(3), wait: Millis(5000) }, FrozenStep::Restart];
    let mut world = World::with(&[watched("a", Watch { on_frozen: Some(steps), ..Watch::default() })]);
    world.launched(1);
    let dump = ["run.unwell a", "run.heal_step a", "> diagnose 1 it hangs", "> QUIT 1 process cont"];
    expect(&unwell(&mut world, 1, Fault::Watchdog), &dump);
    assert_eq!(world.due_in(), Some(5000));
    // It dies of it: the signal was ours.
    let mut record = record("a", 1, exited(2), (Some(world.now), world.now));
    record.asked = Asked::Health { fault: Fault::Watchdog, why: "it hangs".to_owned(), again: true };
    world.feed(Input::Ended { record: Box::new(record), leftovers: false });
    let past = world.state.runs(&name("a")).next().unwrap();
    assert_eq!(past.end.as_ref().unwrap().cause, Some(Cause::Unwell));
    assert_eq!(world.word("a"), "starting");
}

#[test]
fn a_task_that_hangs_is_not_run_twice_unless_its_policy_says_so() {
    let mut world = World::with(&[JobSpec { restart: Restart::Never, ..spec("a") }]);
    world.launched(1);
    unwell(&mut world, 1, Fault::NoProgress);
    world.tick_after(250);
    world.tick_after(1000);
    let ended = world.ended("a", 1, exited(0), false);
    expect(&ended, &["run.ended a exit 0", "> forget 1"]);
    assert_eq!((world.word("a"), world.reason("a").as_str()), ("exited", "it hangs: exit 0"));
}

#[test]
fn an_operators_stop_takes_the_place_of_ours() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    unwell(&mut world, 1, Fault::MaxRuntime);
    assert_eq!(world.word("a"), "stopping");
    world.stop("a");
    world.ended("a", 1, exited(0), false);
    let job = world.state.job(&name("a")).unwrap();
    assert_eq!((world.word("a"), job.failures), ("stopped", 0));
}

#[test]
fn what_a_run_has_failed_by_ends_it_whatever_else_is_wrong() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    unwell(&mut world, 1, Fault::Silent);
    let over = ["run.unwell a", "run.stopping a", "run.stop_step a 0", "> TERM 1 process cont"];
    expect(&unwell(&mut world, 1, Fault::MaxRuntime), &over);
    assert_eq!(told(&unwell(&mut world, 1, Fault::Startup)), [""; 0], "it is on its way out");
}

#[test]
fn who_uses_too_much_gets_what_is_configured() {
    for (on_exceed, wanted, word) in [
        (OnExceed::Notify, vec!["run.unwell a"], "running"),
        (OnExceed::Signal(10), vec!["run.unwell a", "> USR1 1 process"], "running"),
        (
            OnExceed::Restart,
            vec!["run.unwell a", "run.stopping a", "run.stop_step a 0", "> TERM 1 process cont"],
            "stopping",
        ),
        (
            OnExceed::Stop,
            vec!["run.unwell a", "run.stopping a", "run.stop_step a 0", "> TERM 1 process cont"],
            "stopping",
        ),
    ] {
        let limits = Limits { memory: Some(1), on_exceed, ..Limits::default() };
        let mut world = World::with(&[watched("a", Watch { limits, ..Watch::default() })]);
        world.launched(1);
        expect(&unwell(&mut world, 1, Fault::Memory), &wanted);
        assert_eq!((world.word("a"), world.reason("a").as_str()), (word, "it hangs"));
        assert_eq!(told(&unwell(&mut world, 1, Fault::Memory)), [""; 0], "said once");
        if word == "running" {
            expect(&well(&mut world, 1), &["run.well a"]);
            expect(&unwell(&mut world, 1, Fault::Cpu), &wanted);
            continue;
        }
        let after = world.ended("a", 1, exited(0), false);
        let gave_up = after.events.iter().any(|event| matches!(event, Event::GaveUp { .. }));
        assert_eq!(gave_up, on_exceed == OnExceed::Stop);
    }
}

#[test]
fn a_run_is_up_when_it_says_so_and_not_before() {
    let after_a = JobSpec { depends_on: vec![name("a")], ..spec("b") };
    let mut world = World::with(&[watched("a", ready(5000)), after_a]);
    world.launched(1);
    assert_eq!((world.word("a"), world.word("b"), world.due_in()), ("starting", "waiting", Some(5000)));
    world.pass(4999);
    let up = world.feed(Input::Ready { run: run(1) });
    expect(&up, &["run.ready a", "run.requested b 1", "> launch b 2 1"]);
    assert_eq!((world.word("a"), world.due_in()), ("running", None));
    assert_eq!(told(&world.feed(Input::Ready { run: run(1) })), [""; 0]);
}

#[test]
fn a_run_that_is_not_ready_in_time_has_failed() {
    let mut world = World::with(&[watched("a", ready(5000))]);
    world.launched(1);
    let late = ["run.unwell a", "run.stopping a", "run.stop_step a 0", "> TERM 1 process cont"];
    expect(&world.tick_after(5000), &late);
    assert_eq!(world.reason("a"), "not ready within 5s");
    world.ended("a", 1, exited(0), false);
    assert_eq!(world.state.job(&name("a")).unwrap().failures, 1);
}

#[test]
fn more_time_is_given_to_who_asks_for_it() {
    let mut world = World::with(&[watched("a", ready(5000))]);
    world.launched(1);
    world.pass(4000);
    let until = world.now.plus(Millis(7000));
    expect(&world.feed(Input::Extended { run: run(1), until }), &["run.extended a"]);
    assert_eq!(world.due_in(), Some(7000));
    world.feed(Input::Ready { run: run(1) });
    assert_eq!(told(&world.feed(Input::Extended { run: run(1), until })), [""; 0], "it is up");
    world.stop("a");
    let until = world.now.plus(Millis(60_000));
    expect(&world.feed(Input::Extended { run: run(1), until }), &["run.extended a"]);
    assert_eq!(told(&world.tick_after(59_999)), [""; 0]);
    expect(&world.tick_after(1), &["run.stop_step a 1 kill", "> KILL 1 tree"]);
    assert_eq!(told(&world.feed(Input::Extended { run: run(1), until })), [""; 0], "not from this");
}

#[test]
fn another_supervisor_goes_on_at_the_rung_that_was_reached() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    let started = world.now;
    unwell(&mut world, 1, Fault::Silent);
    world.replayed();
    world.successor();
    world.configured(&[spec("a")]);
    let alive = Fact::Alive { identity: identity(101), started };
    let back = world.surveyed(vec![(1, "a", alive)]);
    expect(&back, &["supervisor.surveyed", "run.adopted a", "run.heal_step a", "> CONT 1 tree"]);
    assert_eq!(world.due_in(), Some(250));
    assert_eq!(told(&world.tick_after(250))[0], "run.heal_step a");
    // And one that was told to be ready by then is still waited for.
    let mut world = World::with(&[watched("a", ready(5000))]);
    world.launched(1);
    let started = world.now;
    world.pass(9000);
    world.replayed();
    world.successor();
    world.configured(&[watched("a", ready(5000))]);
    world.surveyed(vec![(1, "a", Fact::Alive { identity: identity(101), started })]);
    assert_eq!(
        (world.word("a"), world.due_in()),
        ("starting", Some(5000)),
        "what it told is yet to be heard"
    );
    assert_eq!(told(&world.tick_after(5000))[0], "run.unwell a");
}

#[test]
fn while_the_keeper_is_away_the_rung_waits_for_it() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    let started = world.now;
    unwell(&mut world, 1, Fault::Silent);
    world.feed(Input::KeeperLost);
    assert_eq!(world.due_in(), None);
    world.pass(60_000);
    let back = world.surveyed(vec![(1, "a", Fact::Alive { identity: identity(101), started })]);
    expect(&back, &["supervisor.surveyed", "run.heal_step a", "> CONT 1 tree"]);
}

#[test]
fn in_recovery_mode_it_is_said_and_nothing_is_done() {
    let mut world = World::bare();
    world.supervisor(1, true);
    world.configured(&[spec("a")]);
    world.surveyed(Vec::new());
    world.start("a");
    world.launched(1);
    expect(&unwell(&mut world, 1, Fault::Silent), &["run.unwell a"]);
    assert_eq!((world.word("a"), world.due_in()), ("frozen", None));
    let left = world.feed(Input::LeaveRecovery { by: operator("recover exit") });
    assert_eq!(told(&left), ["recovery.left", "run.heal_step a", "> CONT 1 tree"]);
}

#[test]
fn who_is_on_its_way_out_is_left_alone() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    world.stop("a");
    for input in [
        Input::Unwell { run: run(1), fault: Fault::Silent, why: String::new() },
        Input::Well { run: run(1) },
        Input::Ready { run: run(1) },
        Input::Unwell { run: run(7), fault: Fault::Silent, why: String::new() },
    ] {
        assert_eq!(told(&world.feed(input)), [""; 0]);
    }
    assert!(matches!(world.state.job(&name("a")).unwrap().phase, Phase::Stopping { .. }));
}

#[test]
fn recovery_mode_takes_no_rung_that_falls_due_and_who_leaves_it_does() {
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    let started = world.now;
    unwell(&mut world, 1, Fault::Silent);
    world.replayed();
    world.supervisor(1, true);
    world.configured(&[spec("a")]);
    world.pass(60_000);
    world.surveyed(vec![(1, "a", Fact::Alive { identity: identity(101), started })]);
    let events = told(&world.feed(Input::Tick));
    assert!(!events.iter().any(|event| event.starts_with('>')), "{events:?}");
    assert_eq!((world.word("a"), world.due_in()), ("frozen", None));
    let left = world.feed(Input::LeaveRecovery { by: operator("recover exit") });
    assert_eq!(told(&left), ["recovery.left", "run.heal_step a", "> CONT 1 tree"]);
}

#[test]
fn who_hangs_is_healed_although_it_also_uses_too_much() {
    let limits = Limits { memory: Some(1), on_exceed: OnExceed::Notify, ..Limits::default() };
    let mut world = World::with(&[watched("a", Watch { limits, ..Watch::default() })]);
    world.launched(1);
    expect(&unwell(&mut world, 1, Fault::Memory), &["run.unwell a"]);
    let wanted = ["run.unwell a", "run.heal_step a", "> CONT 1 tree"];
    expect(&unwell(&mut world, 1, Fault::Silent), &wanted);
    assert_eq!(told(&unwell(&mut world, 1, Fault::Memory)), [""; 0]);
}

#[test]
fn a_dump_signal_that_was_sent_is_not_sent_again() {
    let steps = vec![FrozenStep::Dump { signal: Some(3), wait: Millis(4000) }, FrozenStep::Restart];
    let frozen = || {
        let watch = Watch { on_frozen: Some(steps.clone()), ..Watch::default() };
        let mut world = World::with(&[watched("a", watch)]);
        world.launched(1);
        let started = world.now;
        let decision = unwell(&mut world, 1, Fault::Silent);
        let sent = decision.effects.iter().find_map(|effect| match effect {
            Effect::Signal { rung, .. } => *rung,
            _ => None,
        });
        world.feed(Input::KeeperLost);
        (world, started, sent)
    };
    let back = |world: &mut World, started, rung| {
        let alive = Fact::Alive { identity: identity(101), started };
        let found = Surveyed { rung, ..Surveyed::new(run(1), Some(name("a")), alive) };
        told(&world.feed(Input::Surveyed(Survey { runs: vec![found], ..Survey::default() })))
    };
    let (mut world, started, sent) = frozen();
    assert!(sent.is_some());
    world.pass(1000);
    assert_eq!(back(&mut world, started, sent), ["supervisor.surveyed", "> diagnose 1 it hangs"]);
    assert_eq!(world.due_in(), Some(3000));
    // Of an earlier time it hung: it hangs anew.
    let (mut world, started, sent) = frozen();
    let earlier = sent.map(|rung| Rung { of: Of::Frozen { since_us: 1 }, ..rung });
    let again = back(&mut world, started, earlier);
    assert_eq!(again.len(), 4, "{again:?}");
    // Its time was over while nobody was there: somebody has to look first what came of it.
    let (mut world, started, sent) = frozen();
    world.pass(4000);
    let again = back(&mut world, started, sent);
    assert_eq!(again, ["supervisor.surveyed", "run.heal_step a", "> diagnose 1 it hangs"]);
    assert_eq!(world.due_in(), Some(250));
}
