//! What follows when nobody can know how a run ended, and how fast a host that comes back starts its jobs.

use std::fs::{self, File, FileTimes};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Daemon, PATIENCE, job, procs, until};

#[track_caller]
fn kill(pid: i32) {
    let handle = procs::handle(pid).unwrap();
    procs::send(&handle, rustix::process::Signal::KILL);
    assert!(procs::wait_dead(&handle, PATIENCE));
}

/// Everything dies at once, and with the runtime directory goes what a keeper could tell.
fn lose(daemon: &Daemon, pids: &[i32]) {
    for role in ["init", "keeper", "supervisor"] {
        procs::roles(daemon.home(), role).into_iter().for_each(kill);
    }
    for pid in pids {
        kill(*pid);
        until("the reaping of the job", || procs::stat(*pid).is_none().then_some(()));
    }
    fs::remove_dir_all(daemon.runtime_dir().join("runs")).unwrap();
}

fn report(daemon: &Daemon) -> Value {
    until("the end of the start", || {
        let report = daemon.get("/v1/recovery")?.json();
        report["ended"].is_string().then_some(report)
    })
}

fn item<'r>(report: &'r Value, job: &str) -> &'r Value {
    let items = report["runs"]["items"].as_array().unwrap();
    items.iter().find(|item| item["job"] == job).unwrap_or_else(|| panic!("no {job}: {report:#}"))
}

fn marks(daemon: &Daemon) -> Vec<String> {
    let health = daemon.get("/v1/health").unwrap().json();
    let resources = health["resources"].as_array().unwrap();
    assert_eq!(health["degraded"], !resources.is_empty(), "{health:#}");
    resources.iter().map(|mark| mark["resource"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_lost_run_is_followed_by_what_the_job_says() {
    let always = "restart = \"always\"\nbackoff = { initial = \"0s\" }";
    let task = "kind = \"task\"\nrestart = \"on-failure\"\nrecovery_timeout = \"10m\"";
    let mut daemon = Daemon::start(
        &[
            job("auto", "hang", always),
            job("fail", "hang", &format!("{always}\nrecovery = \"fail\"")),
            job("manual", "hang", &format!("{always}\nrecovery = \"manual\"")),
            job("old", "hang", task),
            job("young", "hang", task),
        ]
        .concat(),
    );
    let names = ["auto", "fail", "manual", "old", "young"];
    let running = names.map(|name| daemon.wait_running(name));
    lose(&daemon, &running.each_ref().map(|(pid, _)| *pid));
    let sentinel = File::open(daemon.run_dir(&running[3].1).join("sentinel.json")).unwrap();
    let old = sentinel.metadata().unwrap().modified().unwrap() - Duration::from_secs(3600);
    sentinel.set_times(FileTimes::new().set_modified(old)).unwrap();
    daemon.restart();
    let report = report(&daemon);
    for (name, acts) in [
        ("auto", json!(["record_end", "start"])),
        ("fail", json!(["record_end", "give_up"])),
        ("manual", json!(["record_end", "give_up"])),
        ("old", json!(["record_end", "give_up"])),
        ("young", json!(["record_end", "start"])),
    ] {
        let item = item(&report, name);
        assert_eq!((&item["class"], &item["acts"]), (&json!("lost"), &acts), "{report:#}");
    }
    daemon.wait_next_run("auto", &running[0].1);
    daemon.wait_next_run("young", &running[4].1);
    let why = item(&report, "old")["why"].as_str().unwrap();
    assert!(why.contains("recovery_timeout is 10m"), "{why}");
    assert_eq!(marks(&daemon), ["job:fail", "job:manual", "job:old"]);
    let text = daemon.cli(["status"]).text();
    assert!(text.contains("degraded: manual: lost: ") && text.contains("look at it"), "{text}");
    for name in ["fail", "manual", "old"] {
        assert_eq!(daemon.job(name)["state"], "fatal");
        daemon.cli(["start", name]).expect(0);
        daemon.wait_state(name, "running");
    }
    assert!(marks(&daemon).is_empty());
}

#[test]
fn a_damaged_record_is_set_aside_and_marks_its_run_alone() {
    let always = "restart = \"always\"\nbackoff = { initial = \"0s\" }";
    let mut daemon = Daemon::start(&[job("a", "hang", always), job("b", "hang", always)].concat());
    let running = ["a", "b"].map(|name| daemon.wait_running(name));
    lose(&daemon, &running.each_ref().map(|(pid, _)| *pid));
    let exit = format!("state/runs/{}/exit.json", running[0].1);
    daemon.write(&exit, "{\"v\":1,");
    let planned = daemon.cli(["recover", "--dry-run", "--json", "-c", "outlive.toml"]).expect(0).json();
    assert_eq!(planned["classes"], json!({"lost": 1, "corrupt": 1}), "{planned:#}");
    assert!(daemon.path(&exit).exists(), "a dry run sets nothing aside");
    daemon.restart();
    let report = report(&daemon);
    assert_eq!(item(&report, "a")["class"], "corrupt", "{report:#}");
    assert_eq!(item(&report, "b")["class"], "lost", "{report:#}");
    assert_eq!(marks(&daemon), [format!("run:{}", running[0].1)]);
    assert!(!daemon.path(&exit).exists());
    assert!(daemon.state_dir().join(format!("quarantine/{}-exit.json", running[0].1)).exists());
    for (name, (_, run)) in ["a", "b"].iter().zip(&running) {
        daemon.wait_next_run(name, run);
    }
}

/// Times at which runs were started, boot clock in microseconds, oldest first.
fn started_at(daemon: &Daemon) -> Vec<u64> {
    let events = daemon.events();
    let started = events.iter().filter(|event| event["k"] == "run.started");
    started.map(|event| event["at"]["m"].as_u64().unwrap()).collect()
}

#[test]
fn a_host_that_comes_back_starts_its_jobs_at_its_pace_and_a_new_one_at_once() {
    let jobs: String = (1..=6).map(|n| job(&format!("j{n}"), &format!("mark @dir@/m{n} hang"), "")).collect();
    let mut daemon = Daemon::start(&format!("[supervisor]\nrecovery_start_rate = 1\n{jobs}"));
    for n in 1..=6 {
        daemon.wait_state(&format!("j{n}"), "running");
    }
    let first = report(&daemon);
    let resume = |report: &Value| {
        let mut phases = report["phases"].as_array().unwrap().iter();
        phases.find(|phase| phase["name"] == "resume").unwrap().clone()
    };
    assert!(resume(&first)["count"].is_null(), "nothing waited for its turn: {first:#}");
    daemon.cli(["shutdown"]).expect(0);
    daemon.restart();
    let waiting = daemon.get("/v1/recovery").unwrap().json();
    assert_eq!(resume(&waiting)["state"], "running", "ready before the last of them: {waiting:#}");
    assert_eq!(resume(&waiting)["count"][1], 5, "{waiting:#}");
    // One that is stopped before its turn never runs; a recovery in between takes nothing for lost.
    assert_eq!(daemon.cli(["recover"]).expect(0).text(), "nothing to do\n");
    daemon.cli(["stop", "j6"]).expect(0);
    for n in 1..=5 {
        daemon.wait_state(&format!("j{n}"), "running");
    }
    assert_eq!(resume(&report(&daemon))["state"], "done");
    let started = started_at(&daemon);
    assert_eq!(started.len(), 6 + 5, "{started:?}");
    let gaps: Vec<u64> = started[6..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap > 900_000), "{gaps:?}");
    assert_eq!(daemon.job("j6")["state"], "stopped");
    assert_eq!(daemon.job("j6")["outcome"]["kind"], "cancelled");
    assert_eq!(daemon.read("m6").lines().count(), 1);
}
