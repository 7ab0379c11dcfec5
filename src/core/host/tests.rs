//! Schedules in virtual time, at the limits exactly.

use super::super::input::{Fact, Input};
use super::super::tests::{World, exited, expect, identity, spec};
use super::super::time::Stamp;
use super::super::watch::ProbeAsk;
use super::*;

const SECOND: u64 = 1_000_000;

fn at(seconds: u64) -> Stamp {
    Stamp { boot_us: seconds * SECOND, wall_us: 0 }
}

/// Memory alone, at 85 %.
fn only(kinds: &[Kind]) -> Settings {
    let mut settings = Settings::default();
    settings.limits.retain(|kind, _| kinds.contains(kind));
    settings
}

fn at_share(hundredths: u32) -> Result<Reading, String> {
    Ok(Reading {
        share: Some(Share(hundredths)),
        text: format!("{} in use", Share(hundredths)),
        device: None,
    })
}

fn yes() -> Result<Reading, String> {
    Ok(Reading::default())
}

/// Begins what is due and answers the check of this name at once; of the others all is well.
fn round(monitor: &mut Monitor, name: &str, answer: &Result<Reading, String>, now: Stamp) -> Due {
    let begun = monitor.due(now);
    let mut all = Due { begin: begun.begin.clone(), heals: begun.heals, turned: begun.turned };
    for begin in begun.begin {
        let said = if begin.name == name { answer.clone() } else { yes() };
        let due = monitor.told(&begin.name, begin.serial, said, now);
        all.heals.extend(due.heals);
        all.turned.extend(due.turned);
    }
    all
}

fn check<'a>(monitor: &'a Monitor, name: &str) -> &'a Check {
    monitor.checks().iter().find(|check| check.name == name).unwrap()
}

fn acts(due: &Due) -> Vec<&'static str> {
    due.heals.iter().map(|heal| heal.act.as_str()).collect()
}

#[test]
fn shares_are_exact_and_print_as_people_write_them() {
    assert_eq!(Share::of(85, 100), Share::percent(85));
    assert_eq!((Share::of(u64::MAX, u64::MAX), Share::of(1, 0)), (Share::ALL, Share(0)));
    assert_eq!(Share::of(8499, 10_000), Share(8499));
    let words: Vec<String> = [8500, 8450, 8451, 5].map(Share).iter().map(ToString::to_string).collect();
    assert_eq!(words, ["85 %", "84.5 %", "84.51 %", "0.05 %"]);
}

#[test]
fn a_check_fails_at_its_limit_and_is_well_two_points_below() {
    let mut monitor = Monitor::new(&only(&[Kind::Memory]), &[], false, 0);
    let mut now = 0;
    let mut next = |monitor: &mut Monitor, share| {
        now += 30;
        round(monitor, "memory", &at_share(share), at(now))
    };
    assert_eq!(acts(&next(&mut monitor, 8499)), [""; 0]);
    assert_eq!(check(&monitor, "memory").condition(), Condition::Ok);
    next(&mut monitor, 8500);
    next(&mut monitor, 8500);
    assert_eq!((check(&monitor, "memory").condition(), monitor.holds_starts()), (Condition::Failing, None));
    let third = next(&mut monitor, 8500);
    assert_eq!((acts(&third), third.turned.len()), (vec!["hold-starts"], 1));
    assert_eq!(monitor.holds_starts().unwrap(), "memory: 85 % in use; the limit is 85 %");
    // In between it is neither well nor another failure.
    for _ in 0..5 {
        assert_eq!(next(&mut monitor, 8499).heals, []);
        assert_eq!(next(&mut monitor, 8301).heals, []);
        assert_eq!(check(&monitor, "memory").condition(), Condition::Failed);
    }
    let well = next(&mut monitor, 8300);
    assert_eq!(well.turned, [("memory".to_owned(), None)]);
    assert_eq!((check(&monitor, "memory").count, monitor.holds_starts()), (0, None));
}

#[test]
fn an_act_is_done_again_only_after_as_many_more_failures() {
    let mut monitor = Monitor::new(&only(&[Kind::Disk]), &["/s".to_owned()], false, 0);
    let done: Vec<usize> = (1..=10)
        .filter(|n| {
            let due = round(&mut monitor, "disk:/s", &at_share(9000), at(*n as u64 * 30));
            !due.heals.is_empty() && acts(&due) == ["rotate", "expire"]
        })
        .collect();
    assert_eq!(done, [3, 6, 9]);
}

#[test]
fn a_check_that_hangs_fails_in_time_and_is_not_begun_again() {
    let mut settings = only(&[]);
    settings.on.insert(Kind::Control, vec![Act::Rotate]);
    let mut monitor = Monitor::new(&settings, &[], false, 0);
    let begin = monitor.due(at(0)).begin;
    let serial = begin.iter().find(|begin| begin.name == "control").unwrap().serial;
    for begin in begin.iter().filter(|begin| begin.name != "control") {
        monitor.told(&begin.name, begin.serial, yes(), at(0));
    }
    assert_eq!(monitor.next_us(), Some(10 * SECOND));
    assert_eq!(monitor.due(Stamp { boot_us: 10 * SECOND - 1, wall_us: 0 }), Due::default());
    assert_eq!(monitor.due(at(10)), Due::default());
    assert_eq!(
        (check(&monitor, "control").count, check(&monitor, "control").words()),
        (1, "no answer within 10000 ms")
    );
    // It still hangs: another failure in each interval, and no second one beside it.
    let again = |monitor: &mut Monitor, seconds| {
        let due = monitor.due(at(seconds));
        assert!(due.begin.iter().all(|begin| begin.name != "control"), "{due:?}");
        for begin in &due.begin {
            monitor.told(&begin.name, begin.serial, yes(), at(seconds));
        }
        acts(&due).len()
    };
    assert_eq!((again(&mut monitor, 40), again(&mut monitor, 70)), (0, 1));
    assert_eq!(check(&monitor, "control").condition(), Condition::Failed);
    // What comes too late says nothing, but lets the next one begin.
    assert_eq!(monitor.told("control", serial, yes(), at(71)), Due::default());
    assert_eq!(check(&monitor, "control").condition(), Condition::Failed);
    let due = monitor.due(at(100));
    let begin = due.begin.iter().find(|begin| begin.name == "control").unwrap();
    assert_eq!(monitor.told("control", serial, yes(), at(100)), Due::default(), "another time");
    let due = monitor.told("control", begin.serial, yes(), at(100));
    assert_eq!(due.turned, [("control".to_owned(), None)]);
}

#[test]
fn one_check_for_each_file_system_is_enough() {
    let paths = ["/state", "/run", "/out"].map(str::to_owned);
    let mut monitor = Monitor::new(&only(&[Kind::Disk]), &paths, false, 0);
    let due = monitor.due(at(0));
    let on = |name: &str| match name {
        "disk:/run" => 2,
        _ => 1,
    };
    // Whichever answers first.
    for begin in due.begin.iter().rev() {
        let device = begin.name.starts_with("disk:").then(|| on(&begin.name));
        let reading = Reading { share: Some(Share(100)), text: String::new(), device };
        monitor.told(&begin.name, begin.serial, Ok(reading), at(0));
    }
    let disks: Vec<&str> =
        monitor.checks().iter().map(|c| c.name.as_str()).filter(|name| name.starts_with("disk:")).collect();
    assert_eq!(disks, ["disk:/state", "disk:/run"]);
}

#[test]
fn what_held_starts_before_us_holds_them_until_all_was_well_once() {
    let settings = only(&[Kind::Memory]);
    let mut monitor = Monitor::new(&settings, &[], true, 0);
    assert_eq!(monitor.holds_starts().as_deref(), Some("memory"));
    round(&mut monitor, "memory", &at_share(8600), at(0));
    assert!(monitor.holds_starts().is_some(), "one failure is no reason to let go");
    round(&mut monitor, "memory", &at_share(8499), at(30));
    assert_eq!(monitor.holds_starts(), None);
    assert_eq!(Monitor::new(&settings, &[], false, 0).holds_starts(), None);
    let off = Settings { enabled: false, ..settings };
    assert_eq!(Monitor::new(&off, &[], true, 0).holds_starts(), None, "nobody would ever let them go");
}

#[test]
fn at_most_one_job_is_stopped_in_each_interval() {
    let mut settings = only(&[Kind::Memory, Kind::Pids]);
    settings.heal_after = 1;
    for kind in [Kind::Memory, Kind::Pids] {
        settings.on.insert(kind, vec![Act::StopLowest]);
    }
    let mut monitor = Monitor::new(&settings, &[], false, 0);
    for n in 0..4 {
        let now = at(n * 30);
        let mut stops = 0;
        for begin in monitor.due(now).begin {
            let full = ["memory", "pids"].contains(&&*begin.name);
            let said = if full { at_share(9900) } else { yes() };
            stops += monitor.told(&begin.name, begin.serial, said, now).heals.len();
        }
        assert_eq!(stops, 1, "round {n}");
    }
}

#[test]
fn the_trend_is_told_from_five_points_on() {
    for (from, to, trend) in [
        (5000, 4500, Trend::Improving),
        (5000, 4501, Trend::Stable),
        (5000, 5499, Trend::Stable),
        (5000, 5500, Trend::Degrading),
    ] {
        let mut monitor = Monitor::new(&only(&[Kind::Memory]), &[], false, 0);
        for n in 0..15 {
            let share = if n < 10 { from } else { to };
            round(&mut monitor, "memory", &at_share(share), at(n * 30));
        }
        assert_eq!(check(&monitor, "memory").trend(), trend, "{from} to {to}");
    }
}

#[test]
fn the_score_is_the_mean_and_critical_checks_count_alone() {
    let mut settings = only(&[Kind::Disk]);
    let ask = || ProbeAsk::Tcp("x:1".to_owned());
    for name in ["a", "b", "c", "d", "e"] {
        let (interval, timeout) = (settings.interval, settings.timeout);
        let heal = Vec::new();
        let custom = Custom { ask: ask(), interval, timeout, failures: 1, heal };
        settings.checks.insert(name.to_owned(), custom);
    }
    let mut monitor = Monitor::new(&settings, &["/s".to_owned()], false, 0);
    assert_eq!((monitor.score(), monitor.overall()), (100, Overall::Healthy), "nothing is known");
    // Ten checks: inotify, control, event_log, keeper, one disk, five of our own.
    let mut fail = |names: &[&str], n: u64| {
        for begin in monitor.due(at(n * 30)).begin {
            let said = if names.contains(&&*begin.name) { Err("no".to_owned()) } else { yes() };
            monitor.told(&begin.name, begin.serial, said, at(n * 30));
        }
        (monitor.score(), monitor.overall())
    };
    assert_eq!(fail(&["check:a"], 0), (90, Overall::Degraded));
    assert_eq!(fail(&["check:a", "check:b", "check:c", "check:d", "check:e"], 1), (50, Overall::Degraded));
    assert_eq!(fail(&[], 2), (100, Overall::Healthy));
    assert_eq!(fail(&["keeper"], 3), (96, Overall::Healthy), "a third of a failure");
    assert_eq!(fail(&["keeper"], 4).1, Overall::Healthy);
    assert_eq!(fail(&["keeper"], 5), (90, Overall::Unhealthy));
    let all = ["check:a", "check:b", "check:c", "check:d", "check:e", "control"];
    assert_eq!(fail(&all, 6), (46, Overall::Unhealthy));
}

#[test]
fn other_settings_keep_what_is_known_of_the_same_checks() {
    let mut settings = only(&[Kind::Memory]);
    let mut monitor = Monitor::new(&settings, &[], false, 0);
    for n in 0..3 {
        round(&mut monitor, "memory", &at_share(9000), at(n * 30));
    }
    settings.limits.insert(Kind::Memory, Share::percent(95));
    settings.on.insert(Kind::Memory, Vec::new());
    monitor.configure(&settings, &[], 61 * SECOND);
    assert_eq!((check(&monitor, "memory").condition(), monitor.holds_starts()), (Condition::Failed, None));
    let due = round(&mut monitor, "memory", &at_share(9000), at(61));
    assert_eq!(due.turned, [("memory".to_owned(), None)]);
}

#[test]
fn starts_wait_while_they_are_held_whoever_asks_and_go_on_afterwards() {
    let specs = [spec("a"), spec("b"), spec("c")];
    let mut world = World::with(&specs);
    for n in 1..=3 {
        world.launched(n);
    }
    world.stop("c");
    world.ended("c", 3, exited(0), false);
    let hold = || Input::HoldStarts { why: "memory: full".to_owned() };
    expect(&world.feed(hold()), &["starts.held"]);
    expect(&world.feed(hold()), &[]);
    // One fails and would be restarted, one an operator wants.
    world.ended("a", 1, exited(1), false);
    let answer = world.start("c").answers;
    assert_eq!(answer[0].text, "starts are held: memory: full");
    assert_eq!((world.word("a"), world.word("b"), world.word("c")), ("waiting", "running", "waiting"));
    assert_eq!(world.reason("c"), "starts are held: memory: full");
    // It lasts over our own death, and what is remembered is what was lived through.
    world.replayed();
    world.successor();
    world.configured(&specs);
    let alive = Fact::Alive { identity: identity(20), started: world.now };
    world.surveyed(vec![(2, "b", alive)]);
    assert_eq!((world.word("a"), world.word("c")), ("waiting", "waiting"));
    world.feed(Input::ReleaseStarts);
    assert_eq!((world.word("a"), world.word("c")), ("starting", "starting"));
    expect(&world.feed(Input::ReleaseStarts), &[]);
    // A restart of the host ends it.
    world.feed(hold());
    world.supervisor(2, false);
    assert_eq!(world.state.instance.held, None);
}

#[test]
fn the_lowest_priority_goes_first_and_among_equals_who_came_last() {
    let with = |name: &str, priority| {
        let mut spec = spec(name);
        spec.priority = priority;
        spec
    };
    let mut world = World::with(&[with("a", 0), with("b", -1), with("c", -1), with("d", -5)]);
    for n in 1..=4 {
        world.launched(n);
    }
    let lowest = |world: &World| super::lowest(&world.state).map(|(name, _)| name.to_string());
    assert_eq!(lowest(&world).as_deref(), Some("d"));
    // One that is on its way out is left alone.
    world.stop("d");
    assert_eq!(lowest(&world).as_deref(), Some("c"));
    world.stop("c");
    world.stop("b");
    assert_eq!(lowest(&world).as_deref(), Some("a"));
    world.stop("a");
    assert_eq!(lowest(&world), None);
}
