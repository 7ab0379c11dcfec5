//! Rules at their limits, and what is remembered of what they raise.

use super::super::input::Input;
use super::super::job::{PastEnd, PastRun};
use super::super::outcome::Asked;
use super::super::state::State;
use super::super::stats::Cause;
use super::super::tests::{World, exited, name, run};
use super::*;

fn at(ms: u64) -> Stamp {
    Stamp { boot_us: 1_000_000, wall_us: 1_763_600_000_000_000 }.plus(Millis(ms))
}

fn figure(value: f64, count: u64) -> Option<Figure> {
    Some(Figure { value, count })
}

/// What is raised by these figures alone.
fn raised_by(figures: &Figures) -> Vec<String> {
    let verdict = judge(&Alerts::default(), figures, at(0));
    verdict
        .changes
        .iter()
        .map(|change| match change {
            Change::Raise(alert) => alert.id.clone(),
            Change::Clear(alert) => panic!("{alert:?} was never raised"),
        })
        .collect()
}

#[test]
fn each_rule_is_exact_at_its_limit() {
    let none: [&str; 0] = [];
    type Set = fn(&mut Figures, Option<Figure>);
    // What is just not bad, what just is, of how many at least.
    let rules: [(&str, Set, f64, f64, u64); 6] = [
        ("RECOVERY_FAILURE_RATE_HIGH", |f, v| f.success_percent = v, 99.0, 98.999, 10),
        ("RECOVERY_TIME_HIGH", |f, v| f.recovery_seconds = v, 30.0, 30.001, 3),
        ("DATA_LOSS_HIGH", |f, v| f.loss_percent = v, 0.1, 0.101, 1),
        ("AVAILABILITY_LOW", |f, v| f.up_percent = v, 99.9, 99.899, 600),
        ("SYNC_FAILURES", |f, v| f.failed_writes = v, 0.999, 1.0, 1),
        ("CORRUPTION_HIGH", |f, v| f.damage_percent = v, 5.0, 5.001, 1),
    ];
    for (id, set, good, bad, min) in rules {
        let mut figures = Figures::default();
        set(&mut figures, figure(good, min));
        assert_eq!(raised_by(&figures), none, "{id} at {good}");
        set(&mut figures, figure(bad, min));
        assert_eq!(raised_by(&figures), [id], "{id} at {bad}");
        set(&mut figures, figure(bad, min - 1));
        assert_eq!(raised_by(&figures), none, "{id} of {}", min - 1);
        set(&mut figures, None);
        assert_eq!(raised_by(&figures), none, "{id} without a figure");
    }
    let job = |job: JobFigures| Figures { jobs: [(name("a"), job)].into(), ..Figures::default() };
    let plain = JobFigures { wanted: true, ..JobFigures::default() };
    assert_eq!(raised_by(&job(JobFigures { failures: 4, changes: 5, ..plain.clone() })), none);
    assert_eq!(raised_by(&job(JobFigures { failures: 5, ..plain.clone() })), ["CRASH_LOOP"]);
    let gave_up = Some("too much".to_owned());
    assert_eq!(raised_by(&job(JobFigures { given_up: gave_up, ..plain.clone() })), ["CRASH_LOOP"]);
    assert_eq!(raised_by(&job(JobFigures { changes: 6, ..plain.clone() })), ["FLAPPING"]);
    let up = |ms| JobFigures { failures: 9, up_for: Some(Millis(ms)), ..plain.clone() };
    assert_eq!(raised_by(&job(up(9_999))), ["CRASH_LOOP"]);
    assert_eq!(raised_by(&job(up(10_000))), none);
}

/// A world that lives through verdicts.
fn live(world: &mut World, figures: &Figures) -> (Vec<&'static str>, Option<u64>) {
    let verdict = judge(world.state.alerts(), figures, world.now);
    let words = verdict.changes.iter().map(|change| match change {
        Change::Raise(_) => "raise",
        Change::Clear(_) => "clear",
    });
    let words = words.collect();
    world.feed(Input::Alerts { changes: verdict.changes.clone() });
    (words, verdict.again.map(|ms| ms.0))
}

#[test]
fn between_the_thresholds_nothing_changes_and_a_cleared_one_has_a_pause() {
    let mut world = World::with(&[]);
    let slow = |secs| Figures { recovery_seconds: figure(secs, 3), ..Figures::default() };
    assert_eq!(live(&mut world, &slow(29.0)), (vec![], None), "nothing to wait for");
    assert_eq!(live(&mut world, &slow(31.0)), (vec!["raise"], Some(30_000)));
    for secs in [99.0, 30.0, 20.001] {
        assert_eq!(live(&mut world, &slow(secs)), (vec![], Some(30_000)), "{secs}");
    }
    assert_eq!(live(&mut world, &Figures::default()), (vec![], Some(30_000)), "nobody knows");
    world.pass(1000);
    assert_eq!(live(&mut world, &slow(20.0)), (vec!["clear"], None));
    world.pass(59_999);
    assert_eq!(live(&mut world, &slow(31.0)), (vec![], Some(1)));
    world.pass(1);
    assert_eq!(live(&mut world, &slow(31.0)), (vec!["raise"], Some(30_000)));
    let alerts = world.state.alerts().clone();
    assert_eq!((alerts.raised.len(), alerts.cleared.len()), (1, 1));
    // What is raised survives, by events and by a checkpoint.
    let mut restored = State::new();
    let take = |line: &[u8]| -> Result<(), serde_json::Error> {
        restored.restore(line, None).unwrap();
        Ok(())
    };
    world.state.entities(take).unwrap();
    assert_eq!(restored, world.state);
    world.replayed();
    assert_eq!(*world.state.alerts(), alerts);
    world.successor();
    assert_eq!(*world.state.alerts(), alerts);
}

#[test]
fn what_a_check_of_the_host_says_is_raised_and_cleared_with_it() {
    let check = |kind, failed| CheckFigures {
        kind,
        failed,
        share: Share(9123),
        limit: Share::percent(90),
        words: "91.23 % in use".to_owned(),
    };
    let checks = |all: &[(&str, CheckFigures)]| Figures {
        checks: Some(all.iter().map(|(name, check)| ((*name).to_owned(), check.clone())).collect()),
        ..Figures::default()
    };
    let says = |failed| {
        checks(&[("disk:/a", check(Kind::Disk, failed)), ("inodes:/a", check(Kind::Inodes, failed))])
    };
    let mut world = World::with(&[]);
    assert_eq!(live(&mut world, &says(Some(false))), (vec![], None));
    assert_eq!(live(&mut world, &says(None)), (vec![], None), "it has said nothing");
    assert_eq!(live(&mut world, &says(Some(true))).0, ["raise", "raise"]);
    let raised = world.state.alerts().raised[0].alert.clone();
    assert_eq!((raised.id.as_str(), raised.subject.as_str()), ("DISK_FULL", "disk:/a"));
    assert_eq!((raised.value, raised.threshold), (91.23, 90.0));
    assert_eq!(raised.message, "disk:/a: 91.23 % in use");
    for nothing_said in [says(None), says(Some(true)), Figures::default()] {
        assert_eq!(live(&mut world, &nothing_said).0, [""; 0]);
    }
    let one_less = checks(&[("disk:/a", check(Kind::Disk, Some(true)))]);
    assert_eq!(live(&mut world, &one_less).0, ["clear"], "a check that is not made any more");
    assert_eq!(live(&mut world, &says(Some(false))).0, ["clear"]);
    let memory = checks(&[("memory", check(Kind::Memory, Some(true)))]);
    assert_eq!(live(&mut world, &memory).0, ["raise"]);
    assert_eq!(world.state.alerts().raised[0].alert.id, "MEMORY_HIGH");
    assert_eq!(live(&mut world, &checks(&[])).0, ["clear"]);
}

#[test]
fn a_crash_loop_is_over_when_the_job_is_up_for_a_while_or_is_not_wanted_or_is_gone() {
    let job = |job: JobFigures| Figures { jobs: [(name("a"), job)].into(), ..Figures::default() };
    let plain = JobFigures { failures: 7, wanted: true, ..JobFigures::default() };
    let over = [
        job(JobFigures { up_for: Some(STEADY), ..plain.clone() }),
        job(JobFigures { wanted: false, ..plain.clone() }),
        Figures::default(),
    ];
    for over in over {
        let mut world = World::with(&[]);
        assert_eq!(live(&mut world, &job(plain.clone())).0, ["raise"]);
        let nearly = job(JobFigures { up_for: Some(Millis(4000)), ..plain.clone() });
        assert_eq!(live(&mut world, &nearly), (vec![], Some(6000)));
        assert_eq!(live(&mut world, &over).0, ["clear"]);
    }
}

#[test]
fn only_who_is_up_for_a_while_comes_and_goes() {
    let now = at(2_000_000);
    // Started so many seconds ago, up for so long, ended by itself or because somebody asked.
    let past = |ago_s: u64, up: Option<u64>, cause| {
        let started = now.minus(Millis::from_secs(ago_s));
        let end = up.map(|up| {
            let at = started.plus(Millis(up));
            let (outcome, asked) = (exited(1), Asked::Nobody);
            Box::new(PastEnd { at, outcome, asked, rusage: None, output_bytes: 0, cause: Some(cause) })
        });
        PastRun { run: run(1), attempt: 1, requested: started, started: Some(started), pid: None, end }
    };
    let count = |runs: &[PastRun]| changes(runs.iter(), now);
    let failed = |ago_s, up_ms| past(ago_s, Some(up_ms), Cause::Failed);
    assert_eq!(count(&[failed(100, 10_000)]), 1, "it went down");
    assert_eq!(count(&[failed(100, 9_999)]), 0);
    assert_eq!(count(&[failed(100, 10_000), failed(80, 10_000), past(10, None, Cause::Failed)]), 4);
    assert_eq!(count(&[failed(100, 10_000), past(9, None, Cause::Failed)]), 1, "it may die at once");
    assert_eq!(count(&[past(100, Some(10_000), Cause::Asked), past(80, None, Cause::Failed)]), 0);
    assert_eq!(count(&[failed(610, 10_000), past(30, None, Cause::Failed)]), 2, "ten minutes ago");
    assert_eq!(count(&[failed(611, 10_000)]), 0, "that is too long ago");
}

#[test]
fn no_more_are_raised_or_remembered_than_fit() {
    let mut world = World::with(&[]);
    let bad = JobFigures { failures: 7, wanted: true, ..JobFigures::default() };
    let jobs = (0..RAISED_MAX + 20).map(|n| (name(&format!("j{n}")), bad.clone())).collect();
    live(&mut world, &Figures { jobs, ..Figures::default() });
    assert_eq!(world.state.alerts().raised.len(), RAISED_MAX);
    live(&mut world, &Figures::default());
    let jobs = (0..20).map(|n| (name(&format!("k{n}")), bad.clone())).collect();
    live(&mut world, &Figures { jobs, ..Figures::default() });
    live(&mut world, &Figures::default());
    let alerts = world.state.alerts();
    assert_eq!((alerts.raised.len(), alerts.cleared.len()), (0, CLEARED_MAX));
    assert_eq!(alerts.cleared[CLEARED_MAX - 1].alert.subject, "k9", "the latest");
}

#[test]
fn uptime_is_a_share_of_the_last_hour() {
    let mut uptime = Uptime::default();
    assert_eq!(uptime.percent(), None);
    uptime.note(0, 2, 2);
    uptime.note(300_000_000, 2, 1);
    uptime.note(600_000_000, 2, 2);
    assert_eq!(uptime.percent(), figure(75.0, 600));
    uptime.note(4 * 3_600_000_000, 2, 2);
    uptime.note(4 * 3_600_000_000 + 60_000_000, 2, 2);
    assert_eq!(uptime.percent().unwrap().value, 100.0);
}
