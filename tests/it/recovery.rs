//! Every start is a recovery: it can be printed before it is done, watched while it runs, read afterwards,
//! killed at any of its phases, and repeated without harm.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Daemon, PATIENCE, http, job, procs, until};

/// The phases of a start in which a death is an aborted start, because its marker is there by then.
const MARKED: [&str; 7] = ["journal", "keeper", "survey", "settle", "ready", "resume", "strays"];

const SERVICE: &str = "restart = \"always\"\nbackoff = { initial = \"0s\" }";

/// Two services that run for ever and a task that has ended.
fn jobs() -> String {
    [
        job("one", "mark @dir@/one hang", SERVICE),
        job("two", "mark @dir@/two hang", SERVICE),
        job("task", "mark @dir@/task exit 3", "kind = \"task\""),
    ]
    .concat()
}

fn started() -> (Daemon, [(i32, String); 2]) {
    let mut daemon = Daemon::prepare(&jobs());
    daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "0".to_owned()));
    daemon.up();
    daemon.wait_ended("task");
    let running = ["one", "two"].map(|name| daemon.wait_running(name));
    (daemon, running)
}

/// The report of the latest start, when it is over and written down.
#[track_caller]
fn report(daemon: &Daemon) -> Value {
    until("the end of the start", || {
        let report = daemon.get("/v1/recovery")?.json();
        let kept: Value = serde_json::from_str(&daemon.read("state/recovery-report.json")).ok()?;
        (report["ended"].is_string() && kept["id"] == report["id"]).then_some(report)
    })
}

/// Class and acts of each job that a report has a line for.
fn lines(runs: &Value) -> BTreeMap<String, Value> {
    let items = runs["items"].as_array().unwrap().iter();
    items.map(|i| (i["job"].as_str().unwrap().to_owned(), json!([i["class"], i["acts"]]))).collect()
}

fn adopted(names: &[&str]) -> BTreeMap<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), json!(["adoptable", ["adopt"]]))).collect()
}

#[track_caller]
fn kill(pid: i32) {
    let handle = procs::handle(pid).unwrap();
    procs::send(&handle, rustix::process::Signal::KILL);
    assert!(procs::wait_dead(&handle, PATIENCE));
}

fn kill_all_roles(daemon: &Daemon) {
    for role in ["init", "keeper", "supervisor"] {
        for pid in procs::roles(daemon.home(), role) {
            kill(pid);
        }
    }
}

/// Names and contents of everything below a directory.
pub fn hash(dir: &Path) -> u64 {
    fn walk(dir: &Path, hasher: &mut DefaultHasher) {
        let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            path.hash(hasher);
            let kind = path.symlink_metadata().unwrap();
            (kind.len(), kind.is_dir()).hash(hasher);
            if kind.is_dir() {
                walk(&path, hasher);
            } else if kind.is_file() {
                fs::read(&path).unwrap().hash(hasher);
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    walk(dir, &mut hasher);
    hasher.finish()
}

#[track_caller]
fn assert_sound(report: &Value) {
    assert_eq!(report["result"], "done", "{report:#}");
    assert_eq!(report["runs"]["violations"], json!([]), "{report:#}");
    assert!(report["runs"]["checks"].as_u64().unwrap() > 5, "{report:#}");
    assert_eq!(report["entries"]["lost"], 0, "{report:#}");
    assert_eq!(report["damage"], json!([]), "{report:#}");
    for phase in report["phases"].as_array().unwrap() {
        assert_eq!(phase["state"], "done", "{report:#}");
    }
}

#[test]
fn a_fresh_start_is_a_recovery_with_nothing_found() {
    let (daemon, _) = started();
    let report = report(&daemon);
    assert_sound(&report);
    let runs = &report["runs"];
    assert_eq!((&runs["classes"], &runs["acts"]), (&json!({"restartable": 3}), &json!({"start": 3})));
    assert_eq!((&report["generation"], &report["recovery_mode"]), (&json!(1), &Value::Null));
    let text = daemon.cli(["recover", "report"]).expect(0).text();
    for part in ["start 1 of ", ": done after ", "journal    ", "found: 3 restartable", "0 lost (0.00 %)"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert_eq!(daemon.cli(["recover", "report", "--json"]).expect(0).json(), report);
    assert!(!daemon.state_dir().join("startup-marker.json").exists());
}

#[test]
fn a_report_says_exactly_what_became_of_each_run() {
    let (mut daemon, running) = started();
    for roles in [&["supervisor"][..], &["keeper", "supervisor"], &["init", "keeper", "supervisor"]] {
        let pids: Vec<i32> = roles.iter().map(|role| daemon.role(role)).collect();
        pids.iter().for_each(|pid| kill(*pid));
        if roles[0] == "init" {
            daemon.restart();
        } else {
            daemon.wait_role_back("supervisor", *pids.last().unwrap());
        }
        let report = report(&daemon);
        assert_sound(&report);
        assert_eq!(lines(&report["runs"]), adopted(&["one", "two"]), "{roles:?}: {report:#}");
        assert_eq!(["one", "two"].map(|name| daemon.wait_running(name)), running);
    }
    // What ends while nobody is there is told as such, and another run of a service follows.
    kill_all_roles(&daemon);
    kill(running[0].0);
    until("the reaping of the job", || procs::stat(running[0].0).is_none().then_some(()));
    daemon.restart();
    let report = report(&daemon);
    let lines = lines(&report["runs"]);
    assert_eq!(lines["two"], json!(["adoptable", ["adopt"]]), "{report:#}");
    assert_eq!(lines["one"][1][0], "record_end", "{report:#}");
    assert!(["lost", "ended_meanwhile"].contains(&lines["one"][0].as_str().unwrap()), "{report:#}");
    let item = report["runs"]["items"].as_array().unwrap().iter().find(|i| i["job"] == "one").unwrap();
    assert_eq!(item["run"], running[0].1, "{report:#}");
    let (_, next) = daemon.wait_next_run("one", &running[0].1);
    assert!(item["next"].is_null() || item["next"] == next, "{report:#}");
    assert_eq!(daemon.events_of("run.ended", "one").len(), 1);
    // The log is written when the start is over.
    until("five starts in the log", || {
        let starts = daemon.get("/v1/recovery/starts")?.json();
        let done = starts.as_array()?.iter().filter(|start| start["result"] == "done").count();
        (done == 5 && starts.as_array()?.len() == 5).then_some(())
    });
}

#[test]
fn a_recovery_on_request_has_nothing_to_do_and_again_nothing() {
    let (mut daemon, running) = started();
    let idle = |daemon: &Daemon| {
        for args in [&["recover", "--dry-run"][..], &["recover"], &["recover"]] {
            assert_eq!(daemon.cli(args).expect(0).text(), "nothing to do\n");
        }
        assert_eq!(daemon.cli(["recover", "--json"]).expect(0).json()["items"], json!([]));
    };
    idle(&daemon);
    let old = daemon.kill_role("keeper");
    daemon.wait_role_back("keeper", old);
    idle(&daemon);
    assert_eq!(["one", "two"].map(|name| daemon.wait_running(name)), running);
    assert_eq!(daemon.events_of("run.requested", "one").len(), 1);
}

#[test]
fn a_recovery_in_the_middle_of_many_starts_takes_none_for_lost() {
    const JOBS: usize = 40;
    let jobs: String = (0..JOBS)
        .map(|n| job(&format!("j{n}"), &format!("mark @dir@/m{n} hang"), "autostart = false"))
        .collect();
    let daemon = Daemon::start(&jobs);
    let (socket, done) = (daemon.socket(), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        let recoveries: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let reply = http::request(&socket, "POST", "/v1/recovery/run", Some(b"")).unwrap();
                        assert_eq!(reply.json()["items"], json!([]));
                    }
                })
            })
            .collect();
        for n in 0..JOBS {
            let reply = daemon.post(&format!("/v1/jobs/j{n}/start"), &Value::Null);
            assert_eq!(reply.code, 200);
        }
        (0..JOBS).for_each(|n| drop(daemon.wait_running(&format!("j{n}"))));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        recoveries.into_iter().for_each(|thread| thread.join().unwrap());
    });
    for n in 0..JOBS {
        assert_eq!(daemon.events_of("run.requested", &format!("j{n}")).len(), 1);
        assert_eq!(daemon.read(&format!("m{n}")).lines().count(), 1, "j{n} was started once");
    }
}

#[test]
fn a_dry_run_changes_no_byte_and_says_what_the_start_then_does() {
    let (mut daemon, running) = started();
    report(&daemon);
    let before = hash(&daemon.state_dir());
    daemon.cli(["recover", "--dry-run"]).expect(0);
    assert_eq!(hash(&daemon.state_dir()), before, "with an instance");

    kill_all_roles(&daemon);
    kill(running[1].0);
    until("the reaping of the job", || procs::stat(running[1].0).is_none().then_some(()));
    let (state, run) = (hash(&daemon.state_dir()), hash(&daemon.runtime_dir()));
    let planned = daemon.cli(["recover", "--dry-run", "--json", "-c", "outlive.toml"]).expect(0).json();
    let text = daemon.cli(["recover", "--dry-run", "-c", "outlive.toml"]).expect(0).text();
    assert!(text.ends_with("planned only\n"), "{text}");
    assert_eq!((hash(&daemon.state_dir()), hash(&daemon.runtime_dir())), (state, run), "without an instance");
    assert_eq!(lines(&planned)["one"], json!(["adoptable", ["adopt"]]), "{planned:#}");

    daemon.restart();
    let done = report(&daemon);
    // What comes after that may differ: a keeper can see what is left of a run.
    let acts = |runs: &Value| lines(runs).into_iter().map(|(job, line)| (job, line[1][0].clone())).collect();
    let (planned, done): (BTreeMap<_, _>, BTreeMap<_, _>) = (acts(&planned), acts(&done["runs"]));
    assert_eq!(planned, done);
    daemon.wait_next_run("two", &running[1].1);
}

/// A file that names the phases at which the next starts die.
fn die_at(daemon: &Daemon, phases: &[&str]) {
    let text: String = phases.iter().map(|phase| format!("{phase}\n")).collect();
    daemon.write("die", &text);
}

fn mortal() -> (Daemon, [(i32, String); 2]) {
    let mut daemon = Daemon::prepare(&jobs());
    daemon.env.push(("OUTLIVE_TEST_DIE_AT".to_owned(), daemon.path("die").display().to_string()));
    daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "0".to_owned()));
    daemon.up();
    daemon.wait_ended("task");
    report(&daemon);
    let running = ["one", "two"].map(|name| daemon.wait_running(name));
    (daemon, running)
}

/// An instance for each phase: one that has seen many supervisors die lets the next one wait.
#[test]
fn a_start_killed_at_any_phase_is_finished_by_the_next_one() {
    for phase in ["lock", "configuration", "marker", "socket"].into_iter().chain(MARKED) {
        let (mut daemon, running) = mortal();
        let task = daemon.job("task");
        die_at(&daemon, &[phase]);
        let old = daemon.kill_role("supervisor");
        until("the death of the next supervisor", || daemon.read("die").is_empty().then_some(()));
        let report = until(&format!("a start that is over, after {phase}"), || {
            let report = daemon.get("/v1/recovery").filter(|reply| reply.code == 200)?.json();
            let aborted = report["aborted_before"].as_u64()? > 0 || !MARKED.contains(&phase);
            (aborted && report["generation"].as_u64()? > 1 && report["ended"].is_string()).then_some(report)
        });
        daemon.wait_role_back("supervisor", old);
        assert_sound(&report);
        assert_eq!(lines(&report["runs"]), adopted(&["one", "two"]), "{phase}: {report:#}");
        assert_eq!(["one", "two"].map(|name| daemon.wait_running(name)), running, "{phase}");
        assert_eq!(daemon.job("task"), task, "{phase}");
        if MARKED.contains(&phase) {
            let starts = daemon.get("/v1/recovery/starts").unwrap().json();
            let aborted = starts.as_array().unwrap().iter().find(|start| start["result"] == "aborted");
            let aborted = aborted.unwrap_or_else(|| panic!("{phase}: {starts:#}"));
            let mut phases = aborted["phases"].as_array().unwrap().iter();
            let named = phases.any(|p| p["state"] == "running" && p["name"] == phase);
            assert!(named, "{phase}: {starts:#}");
        }
        for name in ["one", "two", "task"] {
            assert_eq!(daemon.read(name).lines().count(), 1, "{name} was started once");
            assert_eq!(daemon.events_of("run.requested", name).len(), 1);
        }
    }
}

#[test]
fn three_aborted_starts_lead_to_recovery_mode_and_an_operator_leads_out_of_it() {
    let mut daemon = Daemon::prepare(&jobs());
    daemon.env.push(("OUTLIVE_TEST_DIE_AT".to_owned(), daemon.path("die").display().to_string()));
    // More deaths than there will be: only the aborted starts can be the reason.
    daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "16".to_owned()));
    daemon.up();
    daemon.wait_ended("task");
    let running = ["one", "two"].map(|name| daemon.wait_running(name));
    report(&daemon);
    die_at(&daemon, &["journal", "survey", "settle"]);
    daemon.kill_role("supervisor");
    let status = until("recovery mode", || {
        daemon.try_status().filter(|status| status["instance"]["state"] == "recovery")
    });
    let said = &status["instance"]["recovery_mode"];
    assert!(said.to_string().contains("3 starts in a row were aborted"), "{status:#}");
    let report = report(&daemon);
    assert_eq!((&report["aborted_before"], &report["result"]), (&json!(3), &json!("done")), "{report:#}");
    assert!(report["recovery_mode"].as_str().unwrap().contains("aborted"), "{report:#}");
    assert_eq!(["one", "two"].map(|name| daemon.wait_running(name)), running);

    // Only the command ends it.
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let status = daemon.status();
    assert_eq!(status["instance"]["state"], "recovery", "{status:#}");
    assert!(status["instance"]["recovery_mode"].as_str().unwrap().contains("3 starts in a row were aborted"));
    // Everything is watched and nothing is started by itself.
    kill(running[0].0);
    daemon.wait_state("one", "stopped");
    assert_eq!(daemon.cli(["recover", "exit"]).expect(0).text(), "one: start\nrecovery mode is over\n");
    daemon.wait_next_run("one", &running[0].1);
    let status = daemon.status();
    assert_eq!(status["instance"]["state"], "running");
    assert_eq!(status["instance"]["recovery_mode"], Value::Null);
    assert!(daemon.cli(["recover", "exit"]).expect(1).stderr.contains("not in recovery mode"));
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(daemon.status()["instance"]["state"], "running");
}

#[test]
fn who_did_what_is_told_from_the_log() {
    let (mut daemon, _) = started();
    daemon.cli(["stop", "one"]).expect(0);
    daemon.cli(["signal", "CONT", "two"]).expect(0);
    daemon.cli(["reload"]).expect(0);
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    daemon.cli(["recover"]).expect(0);
    let deeds = daemon.cli(["audit", "--json"]).expect(0).json();
    let user = format!("user {}", rustix::process::geteuid().as_raw());
    let told = |who: &str| -> Vec<String> {
        let of = deeds.as_array().unwrap().iter().filter(|deed| deed["who"] == who);
        of.map(|d| format!("{} {}", d["what"].as_str().unwrap(), d["job"].as_str().unwrap_or("-"))).collect()
    };
    assert_eq!(told(&user), ["stop one", "signal CONT two", "reload -", "recover -"], "{deeds:#}");
    assert_eq!(told("recovery (supervisor 1)"), ["start one", "start task", "start two"], "{deeds:#}");
    assert_eq!(told("recovery (supervisor 2)"), ["adopt two"], "{deeds:#}");
    let stop = deeds.as_array().unwrap().iter().find(|deed| deed["what"] == "stop").unwrap();
    assert_eq!(
        (&stop["before"], &stop["after"]),
        (&json!("running, wanted"), &json!("stopping, not wanted"))
    );
    let text = daemon.cli(["audit", "-n", "1"]).expect(0).text();
    assert!(text.lines().count() == 2 && text.contains("recover"), "{text}");
}

#[test]
fn only_phases_that_may_be_missing_are_skipped_and_only_in_time() {
    let (daemon, _) = started();
    report(&daemon);
    for (phase, why) in [("journal", "cannot be skipped"), ("strays", "is done"), ("what", "no phase")] {
        let said = daemon.cli(["recover", "skip", phase]).expect(1);
        assert!(said.stderr.contains(why), "{said:?}");
    }
}

#[test]
fn a_phase_that_fails_is_tried_again_watched_and_left_out_by_hand() {
    let (mut daemon, running) = started();
    let first = report(&daemon);
    // Nobody can read a file that is a link to itself.
    let marker = daemon.state_dir().join("startup-marker.json");
    std::os::unix::fs::symlink(&marker, &marker).unwrap();
    let old = daemon.kill_role("supervisor");
    let phase = |report: &Value, name: &str| -> Value {
        let mut phases = report["phases"].as_array().unwrap().iter();
        phases.find(|phase| phase["name"] == name).unwrap().clone()
    };
    let early = until("a second try", || {
        let now = daemon.get("/v1/recovery")?.json();
        (now["id"] != first["id"] && phase(&now, "marker")["tries"] == 2).then_some(now)
    });
    assert_eq!(phase(&early, "socket")["state"], "done", "{early:#}");
    assert_eq!(phase(&early, "journal")["state"], "pending", "{early:#}");
    let status = daemon.get("/v1/status").unwrap();
    assert_eq!((status.code, &status.json()["code"]), (503, &json!("recovering")));
    assert_eq!(daemon.get("/v1/health").unwrap().code, 200);
    let said = daemon.cli(["status"]).expect(3).text();
    assert!(said.starts_with("recovering for ") && said.contains("marker"), "{said}");
    let said = daemon.cli(["recover", "skip", "marker"]).expect(0).text();
    assert_eq!(said, "phase marker is left out\n");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(["one", "two"].map(|name| daemon.wait_running(name)), running);
    let over = until("the end of the start", || {
        let report = daemon.get("/v1/recovery")?.json();
        report["ended"].is_string().then_some(report)
    });
    assert_eq!(phase(&over, "marker")["state"], "skipped", "{over:#}");
    assert_eq!(daemon.status()["instance"]["degraded_resources"][0]["resource"], "phase:marker");
}

#[test]
fn a_run_directory_that_nobody_remembers_is_reported_and_left_alone() {
    let (mut daemon, _) = started();
    let stray = daemon.state_dir().join("runs/00000000-0000-7000-8000-000000000001");
    fs::create_dir(&stray).unwrap();
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let report = report(&daemon);
    let damage = report["damage"].as_array().unwrap();
    assert_eq!(damage.len(), 1, "{report:#}");
    assert!(damage[0].as_str().unwrap().contains("never launched"), "{report:#}");
    assert!(stray.is_dir());
}
