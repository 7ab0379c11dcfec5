//! The operator's word and the configuration's: what holds over restarts, and what a reload changes.

use rustix::process::Signal;

use crate::common::{Daemon, job, procs, until};

fn names(list: &serde_json::Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect()
}

fn four(changed: &str, last: &str) -> String {
    [
        job("same", "hang", ""),
        job("changed", "hang", changed),
        job("tuned", "hang", if changed.is_empty() { "" } else { "start_limit = { count = 99 }" }),
        job(last, "hang", ""),
    ]
    .concat()
}

#[test]
fn a_reload_touches_only_what_changed() {
    let daemon = Daemon::start(&four("", "removed"));
    let before = ["same", "changed", "tuned", "removed"].map(|name| daemon.wait_running(name));
    daemon.write_config(&four("env = { NEW = \"1\" }", "added"));

    let plan = daemon.cli(["reload", "--plan", "--json"]).expect(0).json();
    assert_eq!(plan["applied"], false, "{plan:#}");
    assert_eq!(names(&plan["added"]), ["added"], "{plan:#}");
    assert_eq!(names(&plan["removed"]), ["removed"], "{plan:#}");
    assert_eq!(names(&plan["restarted"]), ["changed"], "{plan:#}");
    assert_eq!(names(&plan["updated"]), ["tuned"], "{plan:#}");
    assert_eq!(plan["unchanged"], 1, "{plan:#}");
    assert_eq!(daemon.wait_running("changed"), before[1], "a plan changes nothing");
    assert!(daemon.try_job("added").is_none());

    let done = daemon.cli(["reload", "--json"]).expect(0).json();
    assert_eq!(done["applied"], true, "{done:#}");
    daemon.wait_running("added");
    daemon.wait_next_run("changed", &before[1].1);
    until("it to be forgotten", || daemon.try_job("removed").is_none().then_some(()));
    assert!(!procs::is_alive(before[3].0));
    assert_eq!(daemon.wait_running("same"), before[0]);
    assert_eq!(daemon.wait_running("tuned"), before[2]);

    let again = daemon.cli(["reload", "--json"]).expect(0).json();
    assert_eq!(again["unchanged"], 4, "{again:#}");
    assert_eq!(daemon.wait_running("same"), before[0]);
}

#[test]
fn a_bad_configuration_is_refused_whole() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    let before = daemon.wait_running("j");
    daemon.write_config("[job.j]\ncommand = 5\n[job.k]\ncomand = [\"x\"]\n");
    let said = daemon.cli(["reload"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("outlive.toml:2") && said.stderr.contains("comand"), "{said:?}");
    assert_eq!(daemon.wait_running("j"), before);
    assert!(daemon.try_job("k").is_none());
    // And a supervisor that starts beside that file goes on with what is known.
    let mut daemon = daemon;
    let old = daemon.kill_role("supervisor");
    let status = until("another supervisor", || {
        let status = daemon.try_status()?;
        (status["instance"]["roles"]["supervisor"]["pid"].as_i64()? != i64::from(old)).then_some(status)
    });
    assert!(procs::is_alive(before.0), "{status:#}");
    daemon.write_config(&job("j", "hang", ""));
    daemon.cli(["reload"]).expect(0);
    daemon.wait_ready();
    assert_eq!(daemon.wait_running("j"), before);
}

#[test]
fn hup_to_init_is_a_reload() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    let before = daemon.wait_running("j");
    daemon.write_config(&[job("j", "hang", ""), job("k", "hang", "")].concat());
    procs::send(&procs::handle(daemon.role("init")).unwrap(), Signal::HUP);
    daemon.wait_running("k");
    assert_eq!(daemon.wait_running("j"), before);
}

#[test]
fn an_operators_stop_holds_over_everything_until_an_operators_start() {
    let mut daemon =
        Daemon::start(&[job("j", "hang", "restart = \"always\""), job("k", "hang", "")].concat());
    daemon.wait_running("j");
    let other = daemon.wait_running("k");
    daemon.cli(["stop", "j"]).expect(0);
    daemon.wait_state("j", "stopped");

    let still_down = |daemon: &Daemon, after: &str| {
        let job = daemon.job("j");
        assert_eq!(job["want"], "down", "after {after}: {job:#}");
        assert_eq!(job["state"], "stopped", "after {after}: {job:#}");
        assert_eq!(daemon.events_of("run.requested", "j").len(), 1, "after {after}");
    };
    for role in ["supervisor", "keeper"] {
        let old = daemon.kill_role(role);
        daemon.wait_role_back(role, old);
        still_down(&daemon, role);
    }
    daemon.cli(["reload"]).expect(0);
    still_down(&daemon, "reload");
    daemon.write_config(&[job("j", "hang", "env = { A = \"b\" }"), job("k", "hang", "")].concat());
    daemon.cli(["reload"]).expect(0);
    still_down(&daemon, "a reload that changes it");
    daemon.kill_role("init");
    daemon.restart();
    still_down(&daemon, "init");
    assert_eq!(daemon.wait_running("k"), other);
    daemon.cli(["shutdown"]).expect(0);
    daemon.wait_up_ended();
    daemon.up();
    daemon.wait_running("k");
    still_down(&daemon, "shutdown and up");

    daemon.cli(["start", "j"]).expect(0);
    daemon.wait_running("j");
}

/// A new supervisor goes on with what is in force, not with what the file says by now.
#[test]
fn a_file_that_differs_from_what_is_in_force_is_shown() {
    let mut daemon = Daemon::start(&job("j", "hang", ""));
    assert_eq!(daemon.status()["instance"]["config_changed"], false);
    let before = daemon.wait_running("j");
    daemon.write_config(&job("j", "sleep 1000s", ""));
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(daemon.status()["instance"]["config_changed"], true);
    assert_eq!(daemon.wait_running("j"), before);
    daemon.cli(["reload"]).expect(0);
    assert_eq!(daemon.status()["instance"]["config_changed"], false);
    daemon.wait_next_run("j", &before.1);
}

#[test]
fn a_submitted_job_survives_reload_and_restart() {
    let mut daemon = Daemon::start(&job("j", "hang", ""));
    daemon
        .cli(["run", "--name", "extra", "--", crate::common::misbehave().to_str().unwrap(), "hang"])
        .expect(0);
    let extra = daemon.wait_running("extra");
    daemon.cli(["reload"]).expect(0);
    assert_eq!(daemon.wait_running("extra"), extra);
    daemon.kill_role("init");
    daemon.restart();
    assert_eq!(daemon.wait_running("extra"), extra);
}

#[test]
fn a_job_that_leaves_takes_the_directories_of_its_runs_along_whoever_saw_them_end() {
    let leaving = job("leaving", "print hello\\n exit 3", "kind = \"task\"");
    let mut daemon = Daemon::start(&format!("{leaving}{}", job("staying", "hang", "")));
    daemon.wait_ended("leaving");
    let run = daemon.job("leaving")["run"].as_str().unwrap().to_owned();
    assert!(daemon.run_dir(&run).is_dir());
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    daemon.write_config(&job("staying", "hang", ""));
    daemon.cli(["reload"]).expect(0);
    until("the directory to go", || (!daemon.run_dir(&run).exists()).then_some(()));
}

/// Two hundred submitted jobs that are over are remembered, and not one directory more.
#[test]
fn submitted_jobs_that_are_forgotten_leave_no_directories() {
    let mut daemon = Daemon::start("");
    let submit = |daemon: &Daemon| {
        let body = serde_json::json!({"command": ["/bin/true"]});
        assert_eq!(daemon.post("/v1/run", &body).code, 201);
    };
    (0..120).for_each(|_| submit(&daemon));
    let over = |daemon: &Daemon| {
        until("the end of all", || {
            let status = daemon.try_status()?;
            let jobs = status["jobs"].as_array()?;
            jobs.iter().all(|job| job["state"] == "exited").then_some(jobs.len())
        })
    };
    over(&daemon);
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    (0..120).for_each(|_| submit(&daemon));
    assert_eq!(over(&daemon), 200);
    let count = |name: &str| std::fs::read_dir(daemon.state_dir().join(name)).unwrap().count();
    until("directories for two hundred", || (count("runs") == 200 && count("jobs") == 200).then_some(()));
}
