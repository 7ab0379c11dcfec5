//! The product's sentence: any of our processes may be killed at any time, and no job notices.

use serde_json::Value;

use crate::common::{Daemon, job, procs, until};

/// Three that write numbered lines for ever.
fn tickers() -> String {
    (1..=3).map(|n| job(&format!("t{n}"), "lines 0 1ms", "restart = \"always\"")).collect()
}

/// Process and run ids of the tickers.
fn running(daemon: &Daemon) -> Vec<(i32, String)> {
    (1..=3).map(|n| daemon.wait_running(&format!("t{n}"))).collect()
}

/// Waits for a hundred more lines of each and checks that none is missing, doubled or out of order.
fn assert_unbroken(daemon: &Daemon, runs: &[(i32, String)]) {
    for (n, (_, run)) in runs.iter().enumerate() {
        let name = format!("t{}", n + 1);
        let lines = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'\n').count();
        let before = lines(&daemon.raw(&name, Some(run)));
        let bytes = until("a hundred more lines", || {
            let bytes = daemon.raw(&name, Some(run));
            (lines(&bytes) >= before + 100).then_some(bytes)
        });
        let text = String::from_utf8(bytes).unwrap();
        for (n, line) in text.split_inclusive('\n').filter(|l| l.ends_with('\n')).enumerate() {
            assert_eq!(line.trim_end(), (n + 1).to_string(), "in {name}");
        }
    }
}

#[test]
fn killing_the_supervisor_disturbs_nothing() {
    let mut daemon = Daemon::start(&tickers());
    let before = running(&daemon);
    for _ in 0..3 {
        let (init, keeper) = (daemon.role("init"), daemon.role("keeper"));
        let old = daemon.kill_role("supervisor");
        daemon.wait_role_back("supervisor", old);
        assert_eq!((daemon.role("init"), daemon.role("keeper")), (init, keeper));
        assert_eq!(running(&daemon), before);
        assert_unbroken(&daemon, &before);
    }
    assert_eq!(daemon.job("t1")["adopted"], true);
    assert_eq!(daemon.job("t1")["restarts"], 0);
    assert!(daemon.events_of("run.ended", "t1").is_empty());
}

#[test]
fn killing_the_keeper_disturbs_nothing() {
    let mut daemon = Daemon::start(&tickers());
    let before = running(&daemon);
    for _ in 0..3 {
        let (init, supervisor) = (daemon.role("init"), daemon.role("supervisor"));
        let old = daemon.kill_role("keeper");
        daemon.wait_role_back("keeper", old);
        assert_eq!((daemon.role("init"), daemon.role("supervisor")), (init, supervisor));
        assert_eq!(running(&daemon), before);
        assert_unbroken(&daemon, &before);
    }
    assert!(daemon.events_of("run.ended", "t1").is_empty());
}

#[test]
fn killing_init_disturbs_nothing_and_the_next_up_takes_its_place() {
    let mut daemon = Daemon::start(&tickers());
    let before = running(&daemon);
    let old = daemon.kill_role("init");
    // Nobody starts anything in its place; the others go on.
    until("init to be missed", || {
        daemon.try_status()?["instance"]["roles"]["init"]["pid"].is_null().then_some(())
    });
    assert_eq!(running(&daemon), before);
    assert_unbroken(&daemon, &before);
    daemon.restart();
    assert_ne!(daemon.role("init"), old);
    assert_eq!(running(&daemon), before);
    assert_unbroken(&daemon, &before);
    assert!(daemon.events_of("run.ended", "t1").is_empty());
}

#[test]
fn killing_all_three_disturbs_nothing() {
    let mut daemon = Daemon::start(&tickers());
    let before = running(&daemon);
    for role in ["init", "keeper", "supervisor"] {
        let pid = procs::roles(daemon.home(), role)[0];
        let handle = procs::handle(pid).unwrap();
        procs::send(&handle, rustix::process::Signal::KILL);
        assert!(procs::wait_dead(&handle, crate::common::PATIENCE));
    }
    assert!(daemon.try_status().is_none());
    daemon.restart();
    assert_eq!(running(&daemon), before);
    assert_unbroken(&daemon, &before);
    assert!(daemon.events_of("run.ended", "t1").is_empty());
}

/// A task that waits at a door and ends with code 7.
fn at_the_door() -> (Daemon, crate::common::Gate) {
    let mut daemon = Daemon::prepare(&job(
        "j",
        "print waiting\\n gate @dir@/door print gone\\n exit 7",
        "kind = \"task\"",
    ));
    let door = daemon.gate("door");
    daemon.up();
    daemon.wait_line("j", "waiting");
    (daemon, door)
}

fn assert_ended_once_with_seven(daemon: &Daemon) {
    let outcome = daemon.wait_ended("j");
    assert_eq!(outcome["kind"], "exited", "{outcome:#}");
    assert_eq!(outcome["code"], 7, "{outcome:#}");
    assert_eq!(daemon.log("j"), "waiting\ngone\n");
    let ended = daemon.events_of("run.ended", "j");
    assert_eq!(ended.len(), 1, "{ended:#?}");
    assert_eq!(daemon.events_of("run.requested", "j").len(), 1);
}

#[test]
fn an_end_without_a_supervisor_is_recorded_once() {
    let (mut daemon, mut door) = at_the_door();
    let old = daemon.kill_role("supervisor");
    door.release();
    daemon.wait_role_back("supervisor", old);
    assert_ended_once_with_seven(&daemon);
}

#[test]
fn an_end_without_a_keeper_is_recorded_once() {
    let (mut daemon, mut door) = at_the_door();
    let old = daemon.kill_role("keeper");
    door.release();
    daemon.wait_role_back("keeper", old);
    assert_ended_once_with_seven(&daemon);
}

/// After the death of an init its runs are nobody's children here. Init's handle lets the next keeper know
/// how such a run ended while there was none.
#[test]
fn an_end_of_an_adopted_run_without_a_keeper_is_recorded_once() {
    let (mut daemon, mut door) = at_the_door();
    daemon.kill_role("init");
    daemon.restart();
    let (pid, _) = daemon.wait_running("j");
    let job = procs::handle(pid).unwrap();
    let init = procs::handle(daemon.role("init")).unwrap();
    procs::send(&init, rustix::process::Signal::STOP);
    let old = daemon.kill_role("keeper");
    door.release();
    assert!(procs::wait_dead(&job, crate::common::PATIENCE));
    procs::send(&init, rustix::process::Signal::CONT);
    daemon.wait_role_back("keeper", old);
    if kernel_tells_exit_codes_by_handle() {
        assert_ended_once_with_seven(&daemon);
    } else {
        assert_eq!(daemon.wait_ended("j")["kind"], "lost");
    }
}

/// From Linux 6.15 on the keeper's handle tells the exit code; before, nobody can know it.
fn kernel_tells_exit_codes_by_handle() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 15)
}

#[test]
fn an_end_without_init_is_recorded_once() {
    let (mut daemon, mut door) = at_the_door();
    daemon.kill_role("init");
    door.release();
    if kernel_tells_exit_codes_by_handle() {
        assert_ended_once_with_seven(&daemon);
    } else {
        assert_eq!(daemon.wait_ended("j")["kind"], "lost");
    }
    daemon.restart();
    assert_eq!(daemon.events_of("run.ended", "j").len(), 1);
    assert_eq!(daemon.job("j")["state"], "exited");
}

/// A service in the same place: what could not be known is said as lost, and then it is started again.
#[test]
fn an_end_while_nobody_lives_is_lost_and_said_so() {
    let mut daemon = Daemon::prepare(&job(
        "j",
        "mark @dir@/marks gate @dir@/door exit 7",
        "restart = \"always\"\nbackoff = { initial = \"1ms\" }",
    ));
    let mut door = daemon.gate("door");
    daemon.up();
    let (pid, run) = daemon.wait_running("j");
    let job = procs::handle(pid).unwrap();
    let roles: Vec<_> = ["init", "supervisor", "keeper"].map(|role| daemon.role(role)).to_vec();
    for role in roles {
        let handle = procs::handle(role).unwrap();
        procs::send(&handle, rustix::process::Signal::KILL);
        assert!(procs::wait_dead(&handle, crate::common::PATIENCE));
    }
    door.release();
    assert!(procs::wait_dead(&job, crate::common::PATIENCE));
    // Nobody of ours is its parent; while it is a zombie, root can still read how it ended.
    until("the reaping of the job", || procs::stat(pid).is_none().then_some(()));
    daemon.restart();
    daemon.wait_next_run("j", &run);
    let ended = daemon.events_of("run.ended", "j");
    assert_eq!(ended.len(), 1, "{ended:#?}");
    crate::common::assert_true_or_lost(&ended[0]["record"], ("exited", "code", 7));
    assert_eq!(daemon.read("marks").lines().count(), 2);
}

#[test]
fn jobs_of_a_new_keeper_are_supervised_like_any_other() {
    let mut daemon = Daemon::start(&tickers());
    let before = running(&daemon);
    let old = daemon.kill_role("keeper");
    daemon.wait_role_back("keeper", old);
    daemon.cli(["restart", "t2"]).expect(0);
    let (_, run) = daemon.wait_next_run("t2", &before[1].1);
    let ended = daemon.events_of("run.ended", "t2");
    assert_eq!(ended[0]["record"]["outcome"]["signal"], 15, "{ended:#?}");
    assert_unbroken(&daemon, &[before[0].clone(), (0, run), before[2].clone()]);
}

#[test]
fn a_supervisor_that_keeps_dying_is_started_in_recovery_mode() {
    let daemon = Daemon::start(&tickers());
    let before = running(&daemon);
    for _ in 0..5 {
        let old = daemon.kill_role("supervisor");
        until("another one", || {
            let pid = daemon.try_status()?["instance"]["roles"]["supervisor"]["pid"].as_i64()?;
            (pid != i64::from(old)).then_some(())
        });
    }
    let status = until("recovery mode", || {
        daemon.try_status().filter(|status| status["instance"]["state"] == "recovery")
    });
    assert!(status["jobs"].as_array().unwrap().len() == 3, "{status:#}");
    assert_eq!(running(&daemon), before);
    assert_unbroken(&daemon, &before);
}

#[test]
fn a_job_may_want_to_die_with_the_supervisor() {
    let mut daemon = Daemon::start(
        &[
            job("with", "hang", "restart = \"never\"\non_supervisor_death = \"kill\""),
            job("soon", "hang", "restart = \"never\"\non_supervisor_death = { kill_after = \"1h\" }"),
            job("without", "hang", "restart = \"never\""),
        ]
        .concat(),
    );
    let pids = ["with", "soon", "without"].map(|name| daemon.wait_running(name).0);
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let outcome = daemon.wait_ended("with");
    assert_eq!(outcome["signal"], 9, "{outcome:#}");
    assert_eq!(outcome["asked"], Value::from("supervisor_death"), "{outcome:#}");
    assert!(!procs::is_alive(pids[0]));
    assert!(procs::is_alive(pids[1]) && procs::is_alive(pids[2]));
}

#[test]
fn events_are_numbered_without_a_gap_over_all_of_it() {
    let mut daemon = Daemon::start(&tickers());
    running(&daemon);
    for role in ["supervisor", "keeper", "supervisor"] {
        let old = daemon.kill_role(role);
        daemon.wait_role_back(role, old);
    }
    daemon.kill_role("init");
    daemon.restart();
    let seqs: Vec<u64> = daemon.event_lines().iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = (seqs[0]..=*seqs.last().unwrap()).collect();
    assert_eq!(seqs, expected);
}

#[test]
fn files_that_a_killed_keeper_did_not_come_to_are_made_up_for() {
    let mut daemon = Daemon::start(&job("j", "hang", ""));
    let (pid, run) = daemon.wait_running("j");
    let (dir, current) = (daemon.run_dir(&run), daemon.state_dir().join("jobs/j/current"));
    let sentinel = std::fs::read(dir.join("sentinel.json")).unwrap();
    // As a keeper leaves it that is killed right after a start, also in the middle of a file.
    std::fs::File::create(dir.join("sentinel.json")).unwrap();
    std::fs::remove_file(dir.join("pid")).unwrap();
    std::fs::remove_file(&current).unwrap();
    let old = daemon.kill_role("keeper");
    daemon.wait_role_back("keeper", old);
    assert_eq!(std::fs::read_to_string(dir.join("pid")).unwrap(), format!("{pid}\n"));
    assert!(std::fs::read_link(&current).unwrap().ends_with(&run));
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let made_up = parsed(&std::fs::read(dir.join("sentinel.json")).unwrap());
    assert_eq!(made_up["identity"], parsed(&sentinel)["identity"]);
    assert_eq!(daemon.wait_running("j"), (pid, run));
}
