//! An event log of which nothing can be read: no run is doubled, and what else happens is for the configuration
//! to say.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Daemon, PATIENCE, job, procs, until};

const SERVICE: &str = "restart = \"always\"\nbackoff = { initial = \"0s\" }";

fn jobs(policy: &str) -> String {
    [
        if policy.is_empty() {
            String::new()
        } else {
            format!("[supervisor]\non_unreadable_log = {policy:?}\n")
        },
        job("one", "mark @dir@/one hang", SERVICE),
        job("two", "mark @dir@/two hang", SERVICE),
        job("task", "mark @dir@/task exit 3", "kind = \"task\""),
        job("down", "mark @dir@/down hang", SERVICE),
    ]
    .concat()
}

/// Two services that run, a task that has ended, a service that was stopped.
fn started(policy: &str) -> (Daemon, [(i32, String); 2]) {
    let mut daemon = Daemon::prepare(&jobs(policy));
    daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "0".to_owned()));
    daemon.env.push(("OUTLIVE_TEST_DIE_AT".to_owned(), daemon.path("die").display().to_string()));
    daemon.up();
    daemon.wait_ended("task");
    daemon.wait_running("down");
    daemon.cli(["stop", "down"]).expect(0);
    let running = ["one", "two"].map(|name| daemon.wait_running(name));
    until("the end of the start", || daemon.get("/v1/recovery")?.json()["ended"].is_string().then_some(()));
    (daemon, running)
}

#[track_caller]
fn kill(pid: i32) {
    let handle = procs::handle(pid).unwrap();
    procs::send(&handle, Signal::KILL);
    assert!(procs::wait_dead(&handle, PATIENCE));
}

fn kill_all_roles(daemon: &Daemon) {
    for role in ["init", "keeper", "supervisor"] {
        for pid in procs::roles(daemon.home(), role) {
            kill(pid);
        }
    }
}

fn log_files(daemon: &Daemon) -> Vec<PathBuf> {
    let dirs = ["state/journal", "state/checkpoints"].map(|dir| daemon.path(dir));
    let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Nothing of the log can be read any more.
fn garble(daemon: &Daemon) {
    for path in log_files(daemon) {
        let lines = fs::read_to_string(&path).unwrap_or_default().lines().count();
        fs::File::create(&path).unwrap().write_all("?\n".repeat(lines).as_bytes()).unwrap();
    }
}

fn numbers(daemon: &Daemon) -> Vec<u64> {
    daemon.event_lines().iter().map(|line| line["seq"].as_u64().unwrap()).collect()
}

#[track_caller]
fn assert_started_once(daemon: &Daemon, names: &[&str]) {
    for name in names {
        assert_eq!(daemon.read(name).lines().count(), 1, "{name} was started once");
    }
}

#[test]
fn by_default_what_runs_is_adopted_and_nothing_is_started_until_somebody_says_so() {
    let (mut daemon, running) = started("");
    let last = *numbers(&daemon).last().unwrap();
    kill_all_roles(&daemon);
    garble(&daemon);
    daemon.restart();
    let status = daemon.status();
    assert_eq!(status["instance"]["state"], "recovery", "{status:#}");
    assert!(status["instance"]["recovery_mode"].to_string().contains("nothing in the event log"));
    assert_eq!(["one", "two"].map(|name| daemon.wait_running(name)), running);
    assert!(numbers(&daemon)[0] > last, "no number is used twice");
    // The next supervisor knows that nobody has said anything yet.
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(daemon.status()["instance"]["state"], "recovery");
    kill(running[0].0);
    daemon.wait_state("one", "stopped");
    assert_started_once(&daemon, &["one", "two", "task", "down"]);
    daemon.cli(["recover", "exit"]).expect(0);
    daemon.wait_next_run("one", &running[0].1);
    until("the note to go", || (!daemon.state_dir().join("unreadable-log").exists()).then_some(()));
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(daemon.status()["instance"]["state"], "running");
    assert_eq!(daemon.wait_running("two"), running[1]);
    assert_started_once(&daemon, &["two", "task", "down"]);
}

#[test]
fn a_keeper_that_lives_goes_on_with_a_supervisor_that_knows_nothing() {
    let (mut daemon, running) = started("fresh");
    // So that the keeper has met more supervisors than a new log could tell of.
    for _ in 0..2 {
        let old = daemon.kill_role("supervisor");
        daemon.wait_role_back("supervisor", old);
    }
    garble(&daemon);
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let status = daemon.status();
    assert_eq!(
        (&status["instance"]["state"], &status["instance"]["generation"]),
        (&json!("running"), &json!(4))
    );
    assert_eq!(["one", "two"].map(|name| daemon.wait_running(name)), running);
    assert_started_once(&daemon, &["one", "two", "task", "down"]);
}

#[test]
fn exit_ends_the_instance_with_a_code_of_its_own_and_leaves_everything_as_it_is() {
    let (mut daemon, running) = started("exit");
    kill_all_roles(&daemon);
    garble(&daemon);
    let before: Vec<(PathBuf, Vec<u8>)> =
        log_files(&daemon).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    daemon.take_up().wait().unwrap();
    for _ in 0..4 {
        let mut up = daemon.spawn_up();
        assert_eq!(up.wait().unwrap().code(), Some(6), "{}", daemon.read("up.log"));
    }
    let said = daemon.read("up.log");
    assert!(said.contains("on_unreadable_log") && said.contains("journal verify"), "{said}");
    for (path, bytes) in before {
        assert_eq!(fs::read(&path).unwrap(), bytes, "{}", path.display());
    }
    for (pid, _) in &running {
        assert!(procs::stat(*pid).is_some(), "{pid} runs on");
    }
    assert_eq!(daemon.cli(["up", "-c", "outlive.toml", "--detach"]).code, 6);
    daemon.cli(["journal", "verify"]).expect(6);
    daemon.cli(["journal", "repair", "--accept-loss"]).expect(6);
    // Somebody decides.
    daemon.write_config(&jobs("fresh"));
    daemon.up();
    assert_eq!(daemon.status()["instance"]["state"], "running");
    assert_eq!(["one", "two"].map(|name| daemon.wait_running(name)), running);
    assert_started_once(&daemon, &["one", "two", "task", "down"]);
}

#[test]
fn fresh_adopts_what_runs_and_starts_what_does_not() {
    let (mut daemon, running) = started("fresh");
    let last = *numbers(&daemon).last().unwrap();
    kill_all_roles(&daemon);
    kill(running[0].0);
    until("the reaping of the job", || procs::stat(running[0].0).is_none().then_some(()));
    garble(&daemon);
    let garbled = log_files(&daemon).len();
    daemon.restart();
    assert_eq!(daemon.status()["instance"]["state"], "running");
    assert_eq!(daemon.wait_running("two"), running[1]);
    daemon.wait_next_run("one", &running[0].1);
    assert!(numbers(&daemon)[0] > last, "no number is used twice");
    assert_started_once(&daemon, &["two", "task", "down"]);
    // That it runs is known before it has written its line.
    until("the second run's line", || (daemon.read("one").lines().count() == 2).then_some(()));
    let kept = fs::read_dir(daemon.path("state/quarantine")).unwrap().count();
    assert!(kept >= garbled, "{kept} of {garbled} files are kept aside");
    // What comes after it is an ordinary start.
    kill_all_roles(&daemon);
    daemon.restart();
    assert_eq!(daemon.wait_running("two"), running[1]);
    assert_started_once(&daemon, &["two", "task", "down"]);
}

#[test]
fn a_log_that_is_gone_is_one_that_cannot_be_read() {
    let (mut daemon, running) = started("");
    kill_all_roles(&daemon);
    for dir in ["state/journal", "state/checkpoints"] {
        let _ = fs::remove_dir_all(daemon.path(dir));
    }
    daemon.restart();
    assert_eq!(daemon.status()["instance"]["state"], "recovery");
    assert_eq!(["one", "two"].map(|name| daemon.wait_running(name)), running);
    assert_started_once(&daemon, &["one", "two", "task", "down"]);
}

/// Whoever dies on the way leaves a start that the next one finishes, and no run twice.
#[test]
fn a_fresh_start_may_die_at_any_phase() {
    for phase in ["marker", "journal", "keeper", "survey", "settle", "ready"] {
        let (mut daemon, running) = started("fresh");
        kill_all_roles(&daemon);
        garble(&daemon);
        daemon.write("die", &format!("{phase}\n{phase}\n"));
        daemon.restart();
        until("two deaths", || daemon.read("die").is_empty().then_some(()));
        daemon.wait_ready();
        assert_eq!(["one", "two"].map(|name| daemon.wait_running(name)), running, "{phase}");
        assert_started_once(&daemon, &["one", "two", "task", "down"]);
    }
}

/// The line that told of a run is gone, the run is not: the run directory knows.
#[test]
fn a_run_whose_request_is_lost_is_not_started_again() {
    let (mut daemon, running) = started("");
    kill_all_roles(&daemon);
    let about = |line: &Value, run: &str| line["ev"].to_string().contains(run);
    for path in log_files(&daemon).into_iter().filter(|path| path.starts_with(daemon.path("state/journal"))) {
        let text = fs::read_to_string(&path).unwrap();
        let kept: Vec<String> = text
            .lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line).unwrap();
                if about(&value, &running[0].1) { "?".repeat(line.len()) } else { line.to_owned() }
            })
            .collect();
        fs::File::create(&path).unwrap().write_all((kept.join("\n") + "\n").as_bytes()).unwrap();
    }
    let _ = fs::remove_dir_all(daemon.path("state/checkpoints"));
    daemon.restart();
    assert_eq!(["one", "two"].map(|name| daemon.wait_running(name)), running);
    assert_started_once(&daemon, &["one", "two", "task", "down"]);
}
