//! The command line: exit codes, JSON and nothing else, waiting.

use std::process::Stdio;

use serde_json::Value;

use crate::common::{Daemon, PATIENCE, job, misbehave, wait_child};

#[test]
fn status_says_by_its_code_whether_all_is_well() {
    let daemon = Daemon::start(&[job("up", "hang", ""), job("down", "hang", "autostart = false")].concat());
    daemon.wait_running("up");
    assert_eq!(daemon.cli(["status", "up"]).code, 0);
    assert_eq!(daemon.cli(["status", "down"]).code, 3);
    assert_eq!(daemon.cli(["status", "nobody"]).code, 4);
    let mut elsewhere = Daemon::prepare("");
    assert_eq!(elsewhere.cli(["status"]).code, 3, "no instance");
    elsewhere.up();
    assert_eq!(elsewhere.cli(["status"]).code, 0, "nothing is wrong where nothing is asked");
}

#[test]
fn status_as_json_is_the_contract() {
    let daemon = Daemon::start(
        &[
            job("svc", "hang", ""),
            job("done", "exit 3", "kind = \"task\""),
            job("cut", "signal KILL", "kind = \"task\""),
        ]
        .concat(),
    );
    let (pid, run) = daemon.wait_running("svc");
    daemon.wait_ended("done");
    daemon.wait_ended("cut");
    let status = daemon.cli(["status", "--json"]).json();
    assert!(status["instance"]["version"].is_string(), "{status:#}");
    assert_eq!(status["instance"]["state"], "running", "{status:#}");
    for role in ["init", "keeper", "supervisor"] {
        assert!(status["instance"]["roles"][role]["pid"].is_i64(), "{status:#}");
    }
    let job = |name: &str| status["jobs"].as_array().unwrap().iter().find(|j| j["name"] == name).unwrap();
    let svc = job("svc");
    assert_eq!(svc["kind"], "service");
    assert_eq!(svc["state"], "running");
    assert_eq!(svc["want"], "up");
    assert_eq!(svc["pid"], pid);
    assert_eq!(svc["run"], run.as_str());
    assert_eq!(svc["restarts"], 0);
    assert!(svc["since"].is_string());
    assert_eq!(svc["outcome"], Value::Null);
    let done = job("done");
    assert_eq!(done["kind"], "task");
    assert_eq!(done["state"], "exited");
    assert_eq!(done["pid"], Value::Null);
    assert_eq!(done["outcome"]["kind"], "exited");
    assert_eq!(done["outcome"]["code"], 3);
    assert_eq!(job("cut")["outcome"]["kind"], "signaled");
    assert_eq!(job("cut")["outcome"]["signal"], 9);
}

#[test]
fn the_table_for_people_names_every_job() {
    let daemon = Daemon::start(&[job("one", "hang", ""), job("two", "exit 3", "kind = \"task\"")].concat());
    daemon.wait_running("one");
    daemon.wait_ended("two");
    let table = daemon.cli(["status"]).text();
    for word in ["one", "two", "running", "exit 3"] {
        assert!(table.contains(word), "no {word:?} in\n{table}");
    }
}

#[test]
fn run_and_wait_gives_the_jobs_own_code() {
    let daemon = Daemon::start("");
    let program = misbehave();
    let program = program.to_str().unwrap();
    for code in [0, 3, 42] {
        let said = daemon.cli(["run", "--wait", "--", program, "exit", &code.to_string()]);
        assert_eq!(said.code, code, "{said:?}");
    }
    assert_eq!(daemon.cli(["run", "--wait", "--", program, "signal", "TERM"]).code, 143);
    assert_eq!(daemon.cli(["run", "--wait", "--", "/no/such/program"]).code, 127);
}

#[test]
fn run_starts_an_instance_where_there_is_none() {
    let daemon = Daemon::prepare("");
    let said = daemon.cli(["run", "--wait", "--name", "j", "--", misbehave().to_str().unwrap(), "exit", "6"]);
    assert_eq!(said.code, 6, "{said:?}");
    assert_eq!(daemon.job("j")["outcome"]["code"], 6);
}

#[test]
fn wait_ends_with_the_job_or_with_its_time() {
    let mut daemon = Daemon::prepare(&job("j", "gate @dir@/door exit 3", "kind = \"task\""));
    let mut door = daemon.gate("door");
    daemon.up();
    daemon.wait_running("j");
    assert_eq!(daemon.cli(["wait", "--timeout", "100ms", "j"]).code, 124);
    let mut waiting =
        daemon.command(["wait", "j"]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    door.release();
    assert_eq!(wait_child(&mut waiting, PATIENCE), Some(3));
    assert_eq!(daemon.cli(["wait", "j"]).code, 3, "one that has ended");
}

#[test]
fn wait_survives_the_death_of_the_supervisor() {
    let mut daemon = Daemon::prepare(&job("j", "gate @dir@/door exit 3", "kind = \"task\""));
    let mut door = daemon.gate("door");
    daemon.up();
    daemon.wait_running("j");
    let mut waiting =
        daemon.command(["wait", "j"]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    door.release();
    assert_eq!(wait_child(&mut waiting, PATIENCE), Some(3));
}

#[test]
fn verbs_for_jobs_that_do_not_exist_fail_and_suggest() {
    let daemon = Daemon::start(&job("webserver", "hang", ""));
    daemon.wait_running("webserver");
    for verb in [&["start"][..], &["stop"], &["restart"], &["signal", "HUP"], &["wait"], &["logs"]] {
        let said = daemon.cli(verb.iter().copied().chain(["webservr"]));
        assert_ne!(said.code, 0, "{verb:?}");
        assert!(said.stderr.contains("webserver"), "{verb:?}: {said:?}");
        assert!(said.stdout.is_empty(), "{verb:?}: {said:?}");
    }
    assert_eq!(daemon.job("webserver")["state"], "running");
}

#[test]
fn nobody_at_the_socket_is_said_plainly() {
    let daemon = Daemon::prepare("");
    for verb in [&["stop", "x"][..], &["logs", "x"], &["shutdown"], &["reload"], &["events"]] {
        let said = daemon.cli(verb);
        assert_ne!(said.code, 0, "{verb:?}");
        assert!(!said.stderr.is_empty() && said.stdout.is_empty(), "{verb:?}: {said:?}");
        assert!(!said.stderr.contains("panicked"), "{verb:?}: {said:?}");
    }
}

#[test]
fn events_are_json_lines() {
    let daemon = Daemon::start(&job("j", "exit 0", "kind = \"task\""));
    daemon.wait_ended("j");
    let said = daemon.cli(["events", "--json"]).expect(0);
    let kinds: Vec<String> = said
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .flat_map(|entry| entry["events"].as_array().unwrap().clone())
        .map(|event| event["k"].as_str().unwrap().to_owned())
        .collect();
    for kind in ["supervisor.started", "run.requested", "run.started", "run.ended"] {
        assert!(kinds.iter().any(|k| k == kind), "no {kind} in {kinds:?}");
    }
    let people = daemon.cli(["events"]).expect(0).text();
    assert!(people.contains('j'), "{people}");
}

#[test]
fn check_reads_a_configuration_without_an_instance() {
    let daemon = Daemon::prepare(&job("j", "exit 0", ""));
    daemon.cli(["check", "-c", "outlive.toml"]).expect(0);
    daemon.write_config("[job.j]\ncomand = [\"x\"]\n");
    let said = daemon.cli(["check", "-c", "outlive.toml"]).expect(2);
    assert!(said.stderr.contains("outlive.toml:2:1") && said.stderr.contains("command"), "{said:?}");
    assert!(daemon.processes().is_empty());
}

#[test]
fn version_and_completions_need_no_instance() {
    let daemon = Daemon::prepare("");
    let said = daemon.cli(["version"]).expect(0);
    assert!(said.text().contains(env!("CARGO_PKG_VERSION")), "{said:?}");
    for shell in ["bash", "zsh", "fish"] {
        let said = daemon.cli(["completions", shell]).expect(0);
        assert!(said.text().contains("outlive"), "{shell}");
    }
    assert_eq!(daemon.cli(["no-such-verb"]).code, 2);
    assert_eq!(daemon.cli(["--help"]).code, 0);
}

#[test]
fn every_example_is_a_valid_configuration() {
    let daemon = Daemon::prepare("");
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut checked = 0;
    for entry in std::fs::read_dir(examples).unwrap().flatten() {
        if entry.path().extension().is_some_and(|e| e == "toml") {
            daemon.cli(["check", "-c", entry.path().to_str().unwrap()]).expect(0);
            checked += 1;
        }
    }
    assert!(checked >= 3, "{checked} examples");
}
