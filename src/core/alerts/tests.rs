//! Rules at their limits, and what is remembered of what they raise.

use super::super::input::Input;
use super::super::state::State;
use super::super::tests::{World, name};
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
    let rules: [(&str, Set, f64, f64, u64); 8] = [
        ("RECOVERY_FAILURE_RATE_HIGH", |f, v| f.success_percent = v, 99.0, 98.999, 10),
        ("RECOVERY_TIME_HIGH", |f, v| f.recovery_seconds = v, 30.0, 30.001, 3),
        ("DATA_LOSS_HIGH", |f, v| f.loss_percent = v, 0.1, 0.101, 1),
        ("AVAILABILITY_LOW", |f, v| f.up_percent = v, 99.9, 99.899, 600),
        ("DISK_FULL", |f, v| f.disk_percent = v, 95.0, 95.001, 1),
        ("MEMORY_HIGH", |f, v| f.memory_percent = v, 95.0, 95.001, 1),
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
    let disk = |percent| Figures { disk_percent: figure(percent, 1), ..Figures::default() };
    assert_eq!(live(&mut world, &disk(94.0)), (vec![], None), "nothing to wait for");
    assert_eq!(live(&mut world, &disk(96.0)), (vec!["raise"], Some(30_000)));
    for percent in [99.0, 95.0, 90.001] {
        assert_eq!(live(&mut world, &disk(percent)), (vec![], Some(30_000)), "{percent}");
    }
    assert_eq!(live(&mut world, &Figures::default()), (vec![], Some(30_000)), "nobody knows");
    world.pass(1000);
    assert_eq!(live(&mut world, &disk(90.0)), (vec!["clear"], None));
    world.pass(59_999);
    assert_eq!(live(&mut world, &disk(96.0)), (vec![], Some(1)));
    world.pass(1);
    assert_eq!(live(&mut world, &disk(96.0)), (vec!["raise"], Some(30_000)));
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
