//! A recovery that dies at any of its phases and is finished by the next start comes to the same end as one
//! that nobody disturbs, from the same files.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::recovery::hash;
use crate::common::{Daemon, job, procs, run, until};

/// Every phase of a start, in some order in which they can run.
const PHASES: [&str; 11] = [
    "lock",
    "configuration",
    "marker",
    "socket",
    "journal",
    "keeper",
    "survey",
    "settle",
    "ready",
    "resume",
    "strays",
];

const JOBS: [&str; 7] = ["service", "stopped", "failed", "once", "again", "hand", "given"];

/// One of each kind that a recovery treats differently.
fn jobs() -> String {
    let one = |name: &str, script: &str, more: &str| job(name, &format!("mark @dir@/{name} {script}"), more);
    let always = "restart = \"always\"\nbackoff = { initial = \"0s\" }";
    [
        one("service", "hang", always),
        one("stopped", "hang", always),
        one("failed", "exit 3", "kind = \"task\""),
        one("once", "hang", "kind = \"task\""),
        one("again", "hang", "kind = \"task\"\nrestart = \"on-failure\"\nbackoff = { initial = \"0s\" }"),
        one("hand", "hang", &format!("{always}\nrecovery = \"manual\"")),
    ]
    .concat()
}

/// An instance that lost everything but its files while all kinds of jobs were there. A copy of the files is
/// in `copy`.
fn wrecked() -> Daemon {
    let mut daemon = Daemon::prepare(&jobs());
    daemon.env.push(("OUTLIVE_TEST_DIE_AT".to_owned(), daemon.path("die").display().to_string()));
    daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "0".to_owned()));
    daemon.up();
    daemon.wait_ended("failed");
    daemon.cli(["stop", "stopped"]).expect(0);
    daemon.wait_state("stopped", "stopped");
    let given = daemon.path("given");
    let command = [crate::common::misbehave(), "mark".into(), given, "hang".into()];
    let reply = daemon.post("/v1/run", &json!({"name": "given", "command": command}));
    assert_eq!(reply.code, 201, "{}", reply.text());
    for name in ["service", "once", "again", "hand", "given"] {
        daemon.wait_running(name);
        until("its mark", || (!daemon.read(name).is_empty()).then_some(()));
    }
    end(&mut daemon);
    copy(&daemon, "state", "copy");
    daemon
}

/// Everything dies, and with the runtime directory goes what a keeper could tell.
fn end(daemon: &mut Daemon) {
    procs::end_instance(daemon.home());
    let _ = crate::common::wait_child(&mut daemon.take_up(), crate::common::PATIENCE);
    fs::remove_dir_all(daemon.runtime_dir()).unwrap();
}

fn copy(daemon: &Daemon, from: &str, to: &str) {
    let _ = fs::remove_dir_all(daemon.path(to));
    let said = run(Command::new("cp").arg("-a").arg(daemon.path(from)).arg(daemon.path(to)));
    said.expect(0);
}

/// Starts on a copy of the files, dies where told, and waits until a start is over.
fn recovered(daemon: &mut Daemon, die_at: &[&str]) -> BTreeMap<String, Value> {
    copy(daemon, "copy", "state");
    for name in JOBS {
        daemon.write(name, "");
    }
    daemon.write("die", &die_at.iter().map(|phase| format!("{phase}\n")).collect::<String>());
    daemon.up();
    until(&format!("a start that is over, after {die_at:?}"), || {
        let report = daemon.get("/v1/recovery").filter(|reply| reply.code == 200)?.json();
        (daemon.read("die").is_empty() && report["result"] == "done").then_some(())
    });
    for name in ["service", "again"] {
        daemon.wait_running(name);
        until("its mark", || (!daemon.read(name).is_empty()).then_some(()));
    }
    let status = daemon.status();
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for job in status["jobs"].as_array().unwrap() {
        let name = job["name"].as_str().unwrap();
        // A run that was asked for, and called off before it was one, is a trace of the death.
        let ran = |outcome: &Value| outcome["kind"] != "cancelled";
        let outcomes: Vec<Value> = daemon
            .events_of("run.ended", name)
            .iter()
            .map(|event| json!([event["record"]["run"], event["record"]["outcome"]]))
            .filter(|pair| ran(&pair[1]))
            .collect();
        let starts = daemon.read(name).lines().count();
        let outcome = if job["pid"].is_i64() { &Value::Null } else { &job["outcome"]["kind"] };
        all.insert(
            name.to_owned(),
            json!({
                "state": job["state"], "want": job["want"], "outcome": outcome,
                "outcomes": outcomes, "starts": starts,
            }),
        );
    }
    assert_eq!(daemon.cli(["recover"]).expect(0).text(), "nothing to do\n", "after {die_at:?}");
    assert_eq!(daemon.cli(["recover"]).expect(0).text(), "nothing to do\n", "after {die_at:?}");
    end(daemon);
    all
}

#[test]
fn a_dry_run_of_a_recovery_with_much_to_do_changes_no_byte() {
    let daemon = wrecked();
    let before = hash(&daemon.state_dir());
    let args = ["recover", "--dry-run", "--json", "-c", "outlive.toml"];
    let plans = [0, 1].map(|_| daemon.cli(args).expect(0).json());
    assert_eq!(hash(&daemon.state_dir()), before);
    assert_eq!(plans[0]["items"], plans[1]["items"]);
    assert_eq!(plans[0]["items"].as_array().unwrap().len(), 5, "{:#}", plans[0]);
    assert!(!daemon.runtime_dir().exists());
}

#[test]
fn a_recovery_killed_at_any_phase_ends_like_one_that_was_not() {
    let mut daemon = wrecked();
    let undisturbed = recovered(&mut daemon, &[]);
    let states = |name: &str| (undisturbed[name]["state"].clone(), undisturbed[name]["starts"].clone());
    for (name, state, starts) in [
        ("service", "running", 1),
        ("stopped", "stopped", 0),
        ("failed", "exited", 0),
        ("once", "exited", 0),
        ("again", "running", 1),
        ("hand", "fatal", 0),
        ("given", "exited", 0),
    ] {
        assert_eq!(states(name), (json!(state), json!(starts)), "{name}: {undisturbed:#?}");
    }
    for phase in PHASES {
        assert_eq!(recovered(&mut daemon, &[phase]), undisturbed, "killed at {phase}");
    }
    assert_eq!(recovered(&mut daemon, &["journal", "settle", "resume"]), undisturbed, "killed three times");
}
