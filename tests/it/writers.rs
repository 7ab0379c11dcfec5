//! A state directory has one writer, whoever else believes to be it.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::Signal;

use crate::common::{Daemon, PATIENCE, job, procs, until, wait_child};

const SERVICE: &str = "restart = \"always\"\nbackoff = { initial = \"0s\" }";

fn services() -> String {
    ["a", "b"]
        .map(|name| job(name, &format!("lock @dir@/{name}.lock mark @dir@/{name} hang"), SERVICE))
        .concat()
}

/// One process of each role, one run of each job, never started again, and an event log of one piece.
#[track_caller]
fn assert_one_of_each(daemon: &Daemon, running: &[(i32, String)]) {
    for role in ["init", "keeper", "supervisor"] {
        assert_eq!(procs::roles(daemon.home(), role), [daemon.role(role)], "{role}");
    }
    for (name, running) in ["a", "b"].iter().zip(running) {
        assert_eq!(daemon.wait_running(name), *running);
        assert_eq!(daemon.read(name).lines().count(), 1, "{name} was started once");
        assert_eq!(daemon.events_of("run.requested", name).len(), 1);
        assert_eq!(daemon.read(&format!("{name}.lock.overlap")), "");
    }
    let lines = daemon.event_lines();
    let mut generation = 0;
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(line["seq"], n + 1, "{line}");
        let now = line["g"].as_u64().unwrap();
        assert!(now >= generation, "an old supervisor has written after a new one: {line}");
        generation = now;
    }
}

#[test]
fn of_many_that_start_at_once_one_is_the_instance_and_the_others_name_it() {
    let mut daemon = Daemon::prepare(&services());
    let mut children: Vec<_> = (0..6).map(|_| daemon.spawn_up()).collect();
    daemon.wait_ready();
    let init = daemon.role("init");
    let said = format!("an instance is running here already (process {init}); standing in for it");
    until("five to say who has it", || (daemon.read("up.log").matches(&said).count() == 5).then_some(()));
    let running = ["a", "b"].map(|name| daemon.wait_running(name));
    until("both marks", || ["a", "b"].iter().all(|name| !daemon.read(name).is_empty()).then_some(()));
    assert_one_of_each(&daemon, &running);
    assert_eq!(daemon.events().iter().filter(|e| e["k"] == "supervisor.started").count(), 1);
    daemon.cli(["shutdown"]).expect(0);
    for child in &mut children {
        assert_eq!(wait_child(child, PATIENCE), Some(0));
    }
    daemon.wait_nothing_left();
}

/// An instance whose supervisor has been stopped by somebody, and whose init is gone.
fn with_a_stopped_supervisor() -> (Daemon, OwnedFd, [(i32, String); 2]) {
    let daemon = Daemon::start(&services());
    let running = ["a", "b"].map(|name| daemon.wait_running(name));
    until("both marks", || ["a", "b"].iter().all(|name| !daemon.read(name).is_empty()).then_some(()));
    let old = daemon.role("supervisor");
    let init = procs::handle(daemon.role("init")).unwrap();
    let handle = procs::handle(old).unwrap();
    procs::send(&handle, Signal::STOP);
    until("the supervisor to stop", || procs::stat(old).is_some_and(|s| s[0] == "T").then_some(()));
    procs::send(&init, Signal::KILL);
    assert!(procs::wait_dead(&init, PATIENCE));
    (daemon, handle, running)
}

#[test]
fn a_supervisor_that_was_stopped_is_gone_before_the_next_one_writes() {
    let (mut daemon, old, running) = with_a_stopped_supervisor();
    daemon.restart();
    assert!(procs::wait_dead(&old, PATIENCE));
    procs::send(&old, Signal::CONT);
    assert_one_of_each(&daemon, &running);
    assert_eq!(daemon.event_lines().last().unwrap()["g"], 2);
}

/// Locks do not hold off everybody: here somebody has removed the file, and the socket that the old one answers
/// at. The supervisor that goes on belongs to an older generation, so the keeper does nothing for it; and what
/// it writes counts for nothing, because the new one's segment does instead.
#[test]
fn a_supervisor_that_goes_on_after_the_next_one_has_begun_commands_nothing() {
    let (mut daemon, old, running) = with_a_stopped_supervisor();
    fs::remove_file(daemon.state_dir().join("supervisor.lock")).unwrap();
    fs::remove_file(daemon.socket()).unwrap();
    daemon.restart();
    assert!(!procs::wait_dead(&old, std::time::Duration::ZERO), "it is to go on");
    // What it would start again, and what it knows nothing of.
    daemon.cli(["stop", "b"]).expect(0);
    daemon.wait_state("b", "stopped");
    procs::send(&old, Signal::CONT);
    assert!(procs::wait_dead(&old, PATIENCE), "it has nothing to do here any more");
    daemon.cli(["start", "b"]).expect(0);
    let next = daemon.wait_next_run("b", &running[1].1);
    until("its mark", || (daemon.read("b").lines().count() == 2).then_some(()));
    let before = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", before);
    assert_eq!(daemon.wait_running("a"), running[0]);
    assert_eq!(daemon.wait_running("b"), next);
    assert_eq!(daemon.events_of("run.requested", "a").len(), 1);
    assert_eq!(daemon.events_of("run.requested", "b").len(), 2);
    assert_eq!((daemon.read("a").lines().count(), daemon.read("b").lines().count()), (1, 2));
    assert_eq!(daemon.job("a")["restarts"], 0);
}
