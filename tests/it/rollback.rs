//! What is done whole or undone: a reload, a start of several jobs, and whoever dies in the middle of it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Daemon, job, procs, until};

const OLD: &str = "of-the-old-configuration";
const NEW: &str = "of-the-new-configuration";

fn env(value: &str) -> String {
    format!("env = {{ SECRET = \"{value}\" }}")
}

fn old() -> String {
    [job("changed", "hang", &env(OLD)), job("gone", "hang", ""), job("same", "hang", "")].concat()
}

fn new(added: &str) -> String {
    [job("changed", "hang", &env(NEW)), job("added", added, "restart = \"never\""), job("same", "hang", "")]
        .concat()
}

/// An instance whose supervisor dies where the file `die` says.
fn mortal() -> Daemon {
    let mut daemon = Daemon::prepare(&old());
    daemon.env.push(("OUTLIVE_TEST_DIE_AT".to_owned(), daemon.path("die").display().to_string()));
    daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "0".to_owned()));
    daemon.up();
    for name in ["changed", "gone", "same"] {
        daemon.wait_running(name);
    }
    daemon
}

fn secret(pid: i32) -> String {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    let mine = environ.split('\0').find_map(|line| line.strip_prefix("SECRET="));
    mine.unwrap_or_default().to_owned()
}

/// The last operation, when it is over.
fn end(daemon: &Daemon) -> Value {
    until("the end of the operation", || {
        let all = daemon.get("/v1/sagas").filter(|reply| reply.code == 200)?.json();
        let last = all.as_array()?.last()?.clone();
        last["ended"].is_string().then_some(last)
    })
}

/// The old configuration is in force, and every job is what it was.
fn assert_old(daemon: &Daemon, what: &str) {
    until(&format!("the old run of `changed`, {what}"), || {
        let (pid, _) = daemon.wait_running("changed");
        (secret(pid) == OLD).then_some(())
    });
    daemon.wait_running("gone");
    daemon.wait_running("same");
    until("`added` to be forgotten", || daemon.try_job("added").is_none().then_some(()));
    for name in ["gone", "same", "changed"] {
        assert_eq!(daemon.job(name)["want"], "up", "{name} {what}");
    }
}

fn assert_new(daemon: &Daemon, what: &str) {
    until(&format!("the new run of `changed`, {what}"), || {
        let (pid, _) = daemon.wait_running("changed");
        (secret(pid) == NEW).then_some(())
    });
    daemon.wait_running("added");
    until("`gone` to be forgotten", || daemon.try_job("gone").is_none().then_some(()));
}

/// No file below a directory has these bytes.
fn assert_nowhere(dir: &Path, text: &str) {
    // What goes while it is looked for is nowhere, too.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            assert_nowhere(&path, text);
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(!found, "{text:?} is in {}", path.display());
        }
    }
}

#[test]
fn a_configuration_whose_jobs_come_up_stays() {
    let daemon = mortal();
    let same = daemon.wait_running("same");
    daemon.write_config(&new("hang"));
    let said = daemon.cli(["reload", "--or-rollback", "--within", "60s"]).expect(0).text();
    assert!(said.contains("+ added: new") && said.contains("every job it adds or changes is up"), "{said}");
    assert_new(&daemon, "after a reload");
    assert_eq!((daemon.wait_running("same"), end(&daemon)["state"].as_str().unwrap()), (same, "done"));
    let again = daemon.cli(["reload", "--or-rollback", "--json"]).expect(0).json();
    assert_eq!((&again["unchanged"], &again["end"]["state"]), (&3.into(), &"done".into()), "{again:#}");
    assert_nowhere(&daemon.state_dir(), NEW);
}

#[test]
fn one_job_that_does_not_come_up_puts_the_old_configuration_back() {
    for (added, why) in [("exit 3", "added: it ended after "), ("no-such-word", "added: it ended after ")] {
        let mut daemon = mortal();
        let same = daemon.wait_running("same");
        daemon.write_config(&new(added));
        let said = daemon.cli(["reload", "--or-rollback"]).expect(7);
        assert!(said.stderr.contains("reload rolled back: ") && said.stderr.contains(why), "{said:?}");
        assert_old(&daemon, "after the command");
        assert_eq!(daemon.wait_running("same"), same);
        // The file says what is not in force; the next supervisor goes on with what is.
        assert_eq!(daemon.status()["instance"]["config_changed"], true);
        let old = daemon.kill_role("supervisor");
        daemon.wait_role_back("supervisor", old);
        assert_old(&daemon, "after another supervisor");
        assert_nowhere(&daemon.state_dir(), OLD);
        assert_nowhere(&daemon.state_dir(), NEW);
    }
}

#[test]
fn a_job_that_takes_too_long_is_named_and_one_that_cannot_be_started_too() {
    let daemon = mortal();
    let late = job("added", "hang", "start_grace = \"10m\"");
    daemon.write_config(&[old(), late].concat());
    let said = daemon.cli(["reload", "--or-rollback", "--within", "100ms", "--json"]).expect(7);
    let end = &said.json()["end"];
    assert_eq!((&end["state"], &end["job"]), (&"rolled_back".into(), &"added".into()), "{end:#}");
    assert_eq!(end["why"], "not up within 100ms: added (starting)", "{end:#}");
    assert_old(&daemon, "after the time");

    daemon.write_config(&[old(), "[job.added]\ncommand = [\"/nowhere/at/all\"]\n".to_owned()].concat());
    let said = daemon.cli(["reload", "--or-rollback"]).expect(7);
    assert!(said.stderr.contains("added: never started: exec: No such file"), "{said:?}");
    assert_old(&daemon, "after a missing program");
}

#[test]
fn while_one_is_under_way_there_is_no_other() {
    let daemon = mortal();
    let late = job("added", "hang", "start_grace = \"10m\"");
    daemon.write_config(&[old(), late].concat());
    let begun = daemon.post("/v1/reload?or_rollback=true&within_ms=600000", &Value::Null);
    assert_eq!((begun.code, &begun.json()["saga"]), (200, &1.into()), "{}", begun.text());
    for path in ["/v1/reload", "/v1/reload?or_rollback=true", "/v1/jobs/same/start?or_rollback=true"] {
        let reply = daemon.post(path, &Value::Null);
        assert!(reply.code == 409 && reply.text().contains("under way"), "{path}: {}", reply.text());
    }
    let view = daemon.get("/v1/sagas/1").unwrap().json();
    assert_eq!((&view["state"], &view["pending"]), (&"running".into(), &serde_json::json!(["added"])));
    // Somebody who stops the job that is waited for has decided.
    daemon.cli(["stop", "added"]).expect(0);
    assert_eq!(end(&daemon)["state"], "done");
    for (path, code) in [("/v1/sagas/7", 404), ("/v1/sagas/x", 400)] {
        assert_eq!(daemon.get(path).unwrap().code, code, "{path}");
    }
}

/// Applies a configuration and kills the supervisor at these points on the way.
fn die_on_the_way(config: &str, points: &[&str]) -> Daemon {
    let mut daemon = mortal();
    let supervisor = daemon.role("supervisor");
    daemon.write_config(config);
    daemon.write("die", &points.iter().map(|point| format!("{point}\n")).collect::<String>());
    let said = daemon.cli(["reload", "--or-rollback", "--within", "60s"]);
    until(&format!("the death at {points:?}; {said:?}"), || daemon.read("die").is_empty().then_some(()));
    daemon.wait_role_back("supervisor", supervisor);
    daemon
}

#[test]
fn a_supervisor_killed_on_the_way_back_is_followed_by_one_that_goes_back() {
    let bad = new("exit 3");
    for point in ["saga:recorded", "saga:performed", "saga:ended"] {
        let daemon = die_on_the_way(&bad, &[point]);
        let end = end(&daemon);
        assert_eq!(
            (&end["state"], &end["job"]),
            (&"rolled_back".into(), &"added".into()),
            "{point}: {end:#}"
        );
        assert_old(&daemon, point);
        assert_nowhere(&daemon.state_dir(), NEW);
    }
    // Nothing of it was recorded: it never was, although init held the new configuration already.
    let daemon = die_on_the_way(&bad, &["saga:held"]);
    assert_old(&daemon, "saga:held");
    assert_eq!(daemon.get("/v1/sagas").unwrap().json(), serde_json::json!([]));
    assert_eq!(daemon.status()["instance"]["config_changed"], true);
}

#[test]
fn a_supervisor_killed_on_the_way_forward_is_followed_by_one_that_goes_on() {
    let good = new("hang");
    for points in [&["saga:recorded"][..], &["saga:performed"], &["saga:ended"], &["saga:recorded", "survey"]]
    {
        let daemon = die_on_the_way(&good, points);
        let end = end(&daemon);
        assert_eq!(end["state"], "done", "{points:?}: {end:#}");
        assert_new(&daemon, &format!("{points:?}"));
        assert_nowhere(&daemon.state_dir(), OLD);
    }
}

#[test]
fn a_keeper_killed_in_the_middle_changes_nothing_about_the_end() {
    for (added, state) in [("hang", "done"), ("exit 3", "rolled_back")] {
        let mut daemon = mortal();
        daemon.write_config(&new(added));
        let reply = daemon.post("/v1/reload?or_rollback=true&within_ms=60000", &Value::Null);
        assert_eq!(reply.code, 200, "{}", reply.text());
        let old = daemon.kill_role("keeper");
        daemon.wait_role_back("keeper", old);
        let end = end(&daemon);
        assert_eq!(end["state"], state, "{end:#}");
        if state == "done" { assert_new(&daemon, "keeper") } else { assert_old(&daemon, "keeper") }
    }
}

#[test]
fn without_init_there_is_no_way_back_and_it_says_so() {
    let mut daemon = mortal();
    let late = job("added", "hang", "start_grace = \"10m\"");
    daemon.write_config(&[old(), late].concat());
    let reply = daemon.post("/v1/reload?or_rollback=true&within_ms=600000", &Value::Null);
    assert_eq!(reply.code, 200, "{}", reply.text());
    for role in ["init", "keeper", "supervisor"] {
        for pid in procs::roles(daemon.home(), role) {
            let handle = procs::handle(pid).unwrap();
            procs::send(&handle, rustix::process::Signal::KILL);
            assert!(procs::wait_dead(&handle, crate::common::PATIENCE));
        }
    }
    daemon.restart();
    let end = end(&daemon);
    assert_eq!(end["state"], "abandoned", "{end:#}");
    assert!(end["why"].as_str().unwrap().contains("the configuration file is in force"), "{end:#}");
    daemon.wait_state("added", "starting");
    daemon.cli(["reload"]).expect(0);
}

#[test]
fn jobs_started_together_are_stopped_together_if_one_fails() {
    let off = "autostart = false";
    let config = [
        job("db", "hang", off),
        job("web", "exit 4", &format!("{off}\ndepends_on = [\"db\"]\nrestart = \"never\"")),
        job("good", "hang", off),
    ];
    let daemon = Daemon::start(&config.concat());
    let said = daemon.cli(["start", "--or-rollback", "web", "good"]).expect(7);
    assert!(said.stderr.contains("start rolled back: web: it ended after"), "{said:?}");
    for name in ["db", "good"] {
        let job = daemon.wait_job(name, "stopped again", |job| job["state"] == "stopped");
        assert_eq!(job["want"], "down", "{job:#}");
    }
    daemon.cli(["start", "--or-rollback", "--within", "60s", "good", "db"]).expect(0);
    daemon.wait_running("good");
    daemon.wait_running("db");
}
