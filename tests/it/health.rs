//! The host and the instance are checked, and what is configured is done about what fails. The checks fail for
//! real: limits are so low that they are reached, or a file is missing that a check wants.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;

use serde_json::{Value, json};

use crate::common::{Daemon, job, procs, skip, until};

/// Settings with everything off that a machine may have too little of, and quick rounds.
const QUIET: &str = "[health]\ninterval = \"50ms\"\nheal_after = 2\nmemory = \"off\"\ninodes = \"off\"\n\
    open_files = \"off\"\npids = \"off\"\n";

/// The same, with nothing wrong with any disk.
fn quiet() -> String {
    format!("{QUIET}disk = \"off\"\n")
}

/// A check that wants a file to be there.
fn wants(file: &str, heal: &str) -> String {
    format!(
        "[health.check.file]\nexec = [\"/bin/sh\", \"-c\", \"test -e @dir@/{file}\"]\ninterval = \"50ms\"\n\
         failures = 2\nheal = {heal}\n"
    )
}

fn health(daemon: &Daemon) -> Value {
    daemon.get("/v1/health").unwrap().json()
}

fn check(daemon: &Daemon, name: &str) -> Option<Value> {
    health(daemon)["checks"].as_array()?.iter().find(|check| check["name"] == name).cloned()
}

#[track_caller]
fn wait_check(daemon: &Daemon, name: &str, state: &str) -> Value {
    until(&format!("check {name} {state}"), || check(daemon, name).filter(|check| check["state"] == state))
}

/// What was done, as the audit tells it, oldest first.
fn heals(daemon: &Daemon) -> Vec<String> {
    let deeds = daemon.cli(["audit", "--json", "-n", "1000"]).expect(0).json();
    let mut deeds: Vec<Value> = deeds.as_array().unwrap().clone();
    deeds.sort_by_key(|deed| deed["seq"].as_u64());
    let heal = |deed: &Value| deed["what"].as_str().is_some_and(|what| what.starts_with("heal "));
    let words =
        |deed: &Value| format!("{} | {}", deed["who"].as_str().unwrap(), deed["what"].as_str().unwrap());
    deeds.iter().filter(|deed| heal(deed)).map(words).collect()
}

/// The names in a directory.
fn names(dir: std::path::PathBuf) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_is_well_is_shown_with_its_figures() {
    let daemon = Daemon::start(&format!("[health]\ninterval = \"50ms\"\n{}", job("a", "hang", "")));
    for name in ["control", "event_log", "keeper", "inotify", "pids", "memory"] {
        until(&format!("a look at {name}"), || check(&daemon, name).filter(|check| check["at"].is_string()));
    }
    let control = wait_check(&daemon, "control", "ok");
    assert_eq!((&control["text"], &control["heal_after"]), (&json!("answers"), &json!(3)));
    let disk = format!("disk:{}", daemon.state_dir().display());
    let disk = until("the disk", || check(&daemon, &disk).filter(|check| check["percent"].is_number()));
    assert_eq!(disk["limit"], json!(90.0), "{disk:#}");
    // State and runtime directory are on one file system here: one of them is enough.
    until("one check for each disk", || {
        let health = health(&daemon);
        let checks = health["checks"].as_array()?;
        (checks.iter().filter(|c| c["name"].as_str().unwrap().starts_with("disk:")).count() == 1)
            .then_some(())
    });
    let metrics = daemon.get("/metrics").unwrap().text();
    for line in ["outlive_health_check{check=\"control\",state=\"ok\"} 1", "outlive_health_score "] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(metrics.contains("outlive_health_value_ratio{check=\"pids\"} 0"), "{metrics}");
    daemon.write_config("[health]\nenabled = false\n[job.a]\ncommand = [\"@misbehave@\", \"hang\"]\n");
    daemon.cli(["reload"]).expect(0);
    let off = until("no checks", || Some(health(&daemon)).filter(|health| health["checks"] == json!([])));
    assert_eq!((&off["healthy"], &off["status"]), (&json!(true), &json!("healthy")), "{off:#}");
}

/// A job with five ended runs, whose output is elsewhere, one that lives, and strangers beside them. All that may
/// go goes, whoever dies in the middle.
fn expires(deaths: &str) {
    let many = "restart = \"always\"\nbackoff = { initial = \"0s\" }\nstart_limit = { count = 5 }\n\
        output = { dir = \"@dir@/out\" }";
    let jobs = format!("{}{}", job("many", "print hello exit 1", many), job("live", "print hello hang", ""));
    let mut daemon = Daemon::prepare(&format!("{}{jobs}", quiet()));
    daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "0".to_owned()));
    let die_at = daemon.path("die-at");
    daemon.env.push(("OUTLIVE_TEST_DIE_AT".to_owned(), die_at.display().to_string()));
    daemon.up();
    daemon.wait_state("many", "fatal");
    let (pid, live) = daemon.wait_running("live");
    let latest = daemon.job("many")["run"].as_str().unwrap().to_owned();
    let runs = daemon.state_dir().join("runs");
    let before = names(runs.clone());
    assert_eq!(before.len(), 6, "{before:?}");
    // The keeper lets go of a run that has ended when the supervisor has recorded that.
    until("five runs that the keeper has forgotten", || {
        (names(daemon.runtime_dir().join("runs")) == BTreeSet::from([live.clone()])).then_some(())
    });

    // Nobody's, a run of nobody's, one that claims to be another, and one that is not known to have ended.
    let strangers = [
        "notes",
        "0190f0f0-0000-7000-8000-000000000001",
        "0190f0f0-0000-7000-8000-000000000002",
        "0190f0f0-0000-7000-8000-000000000003",
        "0190f0f0-0000-7000-8000-000000000004.expired",
    ];
    for name in strangers {
        fs::create_dir(runs.join(name)).unwrap();
        daemon.write(&format!("state/runs/{name}/precious"), "x");
    }
    let old = before.iter().find(|run| **run != latest && **run != live).unwrap();
    for file in ["run.json", "exit.json"] {
        fs::copy(runs.join(old).join(file), runs.join(strangers[2]).join(file)).unwrap();
    }
    let record = daemon.read(&format!("state/runs/{old}/run.json")).replace(old, strangers[3]);
    daemon.write(&format!("state/runs/{}/run.json", strangers[3]), &record);
    daemon.write("out/many/precious", "x");

    daemon.write("die-at", deaths);
    daemon.write_config(&format!("{QUIET}disk = \"0.01%\"\non_disk = [\"rotate\", \"expire\"]\n{jobs}"));
    let old_pid = daemon.role("supervisor");
    daemon.cli(["reload"]).expect(0);
    let mut kept: BTreeSet<String> = strangers.map(str::to_owned).into();
    kept.extend([latest.clone(), live.clone()]);
    until("only what has to stay", || (names(runs.clone()) == kept).then_some(()));
    assert_eq!(daemon.read("die-at"), "", "nobody died there");
    assert_eq!(daemon.role("supervisor") != old_pid, !deaths.is_empty());
    for name in strangers {
        assert_eq!(daemon.read(&format!("state/runs/{name}/precious")), "x");
    }
    let out = names(daemon.path("out/many"));
    assert_eq!(out, BTreeSet::from([latest.clone(), "precious".to_owned()]));
    assert_eq!(daemon.log("many"), "hello");
    assert_eq!((daemon.wait_running("live"), daemon.log("live")), ((pid, live), "hello".to_owned()));

    let disk = format!("disk:{}", daemon.state_dir().display());
    wait_check(&daemon, &disk, "failed");
    let reply = until("a reply that says so", || daemon.get("/v1/health").filter(|reply| reply.code == 503));
    assert_eq!((&reply.json()["status"], &reply.json()["healthy"]), (&json!("unhealthy"), &json!(false)));
    let shown = daemon.cli(["status"]).text();
    assert!(shown.contains(&format!("degraded: {disk}: ")), "{shown}");
    let done = heals(&daemon);
    for act in ["rotate", "expire"] {
        let first = format!("health {disk} | heal {act}: ");
        assert!(done.iter().any(|deed| deed.starts_with(&first)), "{first} in {done:#?}");
    }
    until("the number of heals", || {
        let metrics = daemon.get("/metrics")?.text();
        let line = format!("outlive_heals_total{{check=\"{disk}\",act=\"expire\",result=\"ok\"}}");
        metrics.contains(&line).then_some(())
    });
}

#[test]
fn a_full_disk_is_freed_of_ended_runs_and_of_nothing_else() {
    expires("");
}

#[test]
fn who_dies_while_ended_runs_are_removed_has_it_finished_by_the_next() {
    expires("heal:expire\nheal:expire-file\n");
}

#[test]
fn a_directory_that_cannot_be_removed_keeps_no_other_from_it() {
    let many = "restart = \"always\"\nbackoff = { initial = \"0s\" }\nstart_limit = { count = 4 }\n\
        output = { dir = \"@dir@/out\" }";
    let jobs = job("many", "print hello exit 1", many);
    let daemon = Daemon::start(&format!("{}{jobs}", quiet()));
    daemon.wait_state("many", "fatal");
    let latest = daemon.job("many")["run"].as_str().unwrap().to_owned();
    until("runs that the keeper has forgotten", || {
        names(daemon.runtime_dir().join("runs")).is_empty().then_some(())
    });
    let runs = daemon.state_dir().join("runs");
    let oldest = names(runs.clone()).into_iter().next().unwrap();
    // What is no directory cannot be removed as one.
    let output = format!("out/many/{oldest}");
    fs::remove_dir_all(daemon.path(&output)).unwrap();
    daemon.write(&output, "x");
    daemon.write_config(&format!("{QUIET}disk = \"0.01%\"\non_disk = [\"expire\"]\n{jobs}"));
    daemon.cli(["reload"]).expect(0);
    let kept = BTreeSet::from([latest, format!("{oldest}.expired")]);
    until("all others are gone", || (names(runs.clone()) == kept).then_some(()));
    // Also later, when it is met first.
    let before = daemon.job("many")["run"].clone();
    daemon.cli(["start", "many"]).expect(0);
    daemon.wait_job("many", "fatal again", |job| job["state"] == "fatal" && job["run"] != before);
    until("none but the latest", || (names(runs.clone()).len() == 2).then_some(()));
    assert_eq!(daemon.read(&output), "x");
}

#[test]
fn what_is_run_for_a_check_has_no_signal_blocked_and_the_usual_priority() {
    let looks = |file: &str| {
        let look = format!("cat /proc/self/status > @dir@/{file}; nice > @dir@/{file}-nice; exit 1");
        format!("[\"/bin/sh\", \"-c\", \"{look}\"]")
    };
    let check = format!(
        "[health.check.own]\nexec = {}\ninterval = \"50ms\"\nfailures = 1\n\
         heal = {{ command = {} }}\n",
        looks("check"),
        looks("heal")
    );
    let daemon = Daemon::start(&format!("{}{check}", quiet()));
    let nice = rustix::process::nice(0).unwrap().to_string();
    for file in ["check", "heal"] {
        let text =
            until("what it has inherited", || Some(daemon.read(file)).filter(|text| text.contains("SigBlk")));
        assert!(text.contains("SigBlk:\t0000000000000000"), "{file}: {text}");
        let found = until("its priority", || {
            Some(daemon.read(&format!("{file}-nice"))).filter(|n| n.ends_with('\n'))
        });
        assert_eq!(found.trim(), nice, "{file}");
    }
}

#[test]
fn two_disks_that_are_full_at_a_time_are_both_helped() {
    let Ok(memory) = tempfile::Builder::new().prefix("ol.").tempdir_in("/dev/shm") else {
        return skip("there is no /dev/shm");
    };
    let output = format!("output = {{ dir = \"{}\" }}", memory.path().display());
    let jobs = job("a", "hang", &output);
    let daemon = Daemon::start(&format!("{}{jobs}", quiet()));
    daemon.wait_running("a");
    let device = |path: &std::path::Path| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path).unwrap());
    if device(&daemon.state_dir()) == device(memory.path()) {
        return skip("/dev/shm is where the state is");
    }
    // Not even an empty disk is that empty.
    fs::File::create(memory.path().join("x")).unwrap().write_all(&vec![1; 16 << 20]).unwrap();
    daemon.write_config(&format!("{QUIET}disk = \"0.01%\"\non_disk = [\"expire\"]\n{jobs}"));
    daemon.cli(["reload"]).expect(0);
    for path in [daemon.state_dir(), memory.path().to_owned()] {
        let done = format!("check=\"disk:{}\",act=\"expire\",result=\"ok\"", path.display());
        until(&done, || daemon.get("/metrics")?.text().contains(&done).then_some(()));
    }
    assert!(!daemon.get("/metrics").unwrap().text().contains("result=\"busy\""));
}

#[test]
fn starts_are_held_while_a_check_is_failed_and_go_on_afterwards() {
    let jobs = format!("{}{}", job("a", "hang", ""), job("b", "hang", "autostart = false"));
    let mut daemon = Daemon::prepare(&format!("{}{}{jobs}", quiet(), wants("ok", "[\"hold-starts\"]")));
    daemon.write("ok", "");
    daemon.up();
    let (pid, _) = daemon.wait_running("a");
    wait_check(&daemon, "check:file", "ok");

    fs::remove_file(daemon.path("ok")).unwrap();
    until("held starts", || health(&daemon)["starts_held"].as_str().map(str::to_owned));
    let said = daemon.cli(["start", "b"]).text();
    assert!(said.contains("starts are held: check:file"), "{said}");
    procs::send(&procs::handle(pid).unwrap(), rustix::process::Signal::KILL);
    for name in ["a", "b"] {
        let job = daemon.wait_state(name, "waiting");
        assert!(job["reason"].as_str().unwrap().contains("starts are held: check:file"), "{job:#}");
    }
    let shown = daemon.cli(["status"]).text();
    assert!(shown.contains("degraded: no run is started: check:file"), "{shown}");

    // It lasts over our own death.
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    daemon.wait_ready();
    wait_check(&daemon, "check:file", "failed");
    for name in ["a", "b"] {
        daemon.wait_state(name, "waiting");
    }
    assert_eq!(daemon.events_of("run.requested", "a").len(), 1);

    daemon.write("ok", "");
    daemon.wait_running("a");
    daemon.wait_running("b");
    assert_eq!(health(&daemon)["starts_held"], Value::Null);
    let done = heals(&daemon);
    assert!(done[0].starts_with("health | heal hold-starts: check:file: exit 1"), "{done:#?}");
    assert!(done.last().unwrap().starts_with("health | heal release-starts"), "{done:#?}");
}

#[test]
fn the_lowest_priority_is_stopped_first_and_among_equals_who_came_last() {
    let jobs = [
        job("keep", "hang", "priority = 5"),
        job("old", "hang", ""),
        job("new", "hang", "autostart = false"),
        job("low", "hang", "priority = -1"),
    ];
    let config = format!("{}{}{}", quiet(), wants("ok", "[\"stop-lowest\"]"), jobs.concat());
    let mut daemon = Daemon::prepare(&config);
    daemon.write("ok", "");
    daemon.up();
    for name in ["keep", "old", "low"] {
        daemon.wait_running(name);
    }
    daemon.cli(["start", "new"]).expect(0);
    daemon.wait_running("new");
    fs::remove_file(daemon.path("ok")).unwrap();
    for name in ["low", "new", "old", "keep"] {
        daemon.wait_state(name, "stopped");
    }
    daemon.write("ok", "");
    let stopped: Vec<String> = daemon
        .events()
        .iter()
        .filter(|event| event["k"] == "run.stopping")
        .map(|event| event["job"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(stopped, ["low", "new", "old", "keep"]);
    let done = heals(&daemon);
    assert_eq!(done.len(), 4, "{done:#?}");
    assert!(done[0].starts_with("health check:file | heal stop-lowest: exit 1"), "{done:#?}");
}

#[test]
fn a_check_of_ones_own_heals_by_restarting_a_job() {
    let web = "[job.web]\ncommand = [\"/bin/sh\", \"-c\", \"touch @dir@/ok; exec sleep 1000\"]\n";
    let config = format!("{}{}{web}", quiet(), wants("ok", "{ restart = \"web\" }"));
    let daemon = Daemon::start(&config);
    let (_, run) = daemon.wait_running("web");
    wait_check(&daemon, "check:file", "ok");
    fs::remove_file(daemon.path("ok")).unwrap();
    daemon.wait_next_run("web", &run);
    wait_check(&daemon, "check:file", "ok");
    let done = heals(&daemon);
    assert!(done[0].starts_with("health check:file | heal restart web: exit 1"), "{done:#?}");
}

#[test]
fn who_uses_most_memory_is_restarted() {
    let big =
        "x=$(head -c 40000000 /dev/zero | tr '\\\\0' x); touch @dir@/ok @dir@/grown; sleep 1000; echo $x";
    let big = format!("[job.big]\ncommand = [\"/bin/sh\", \"-c\", \"{big}\"]\n");
    // Long enough for it to grow anew before it is looked for again.
    let check = wants("ok", "[\"restart-largest\"]").replace("failures = 2", "failures = 40");
    let config = format!("{}{check}{}{big}", quiet(), job("small", "hang", ""));
    let mut daemon = Daemon::prepare(&config);
    daemon.write("ok", "");
    daemon.up();
    daemon.wait_running("small");
    let (_, run) = daemon.wait_running("big");
    until("a large process", || daemon.path("grown").exists().then_some(()));
    fs::remove_file(daemon.path("ok")).unwrap();
    daemon.wait_next_run("big", &run);
    wait_check(&daemon, "check:file", "ok");
    // The first; while it grows anew it is not the largest.
    let acted = daemon.events().into_iter().find(|event| event["verb"] == "heal").unwrap();
    assert_eq!(acted["job"], "big", "{acted:#}");
    assert!(acted["detail"].as_str().unwrap().starts_with("restart-largest: "), "{acted:#}");
}

#[test]
fn what_hangs_holds_nothing_up() {
    let hanging = "[health.check.hangs]\nexec = [\"/bin/sh\", \"-c\", \"sleep 1000\"]\ninterval = \"50ms\"\n\
        timeout = \"100ms\"\nfailures = 2\nheal = { command = [\"sleep\", \"1000\"], timeout = \"100ms\" }\n";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Nobody ever accepts there.
    let silent = format!(
        "[health.check.silent]\nhttp = \"http://{}/\"\ninterval = \"50ms\"\ntimeout = \"1h\"\n",
        listener.local_addr().unwrap()
    );
    let config = format!("{}{hanging}{silent}{}", quiet(), job("a", "hang", "autostart = false"));
    let daemon = Daemon::start(&config);
    let check = wait_check(&daemon, "check:hangs", "failed");
    assert_eq!(check["text"], "no answer within 100 ms", "{check:#}");
    wait_check(&daemon, "control", "ok");
    assert_eq!(wait_check(&daemon, "check:silent", "unknown")["at"], Value::Null);
    daemon.cli(["start", "a"]).expect(0);
    daemon.wait_running("a");
    until("a command that had its time", || {
        let heals = health(&daemon)["heals"].clone();
        let failed = |heal: &Value| heal["act"] == "command" && heal["result"] == "failed";
        heals.as_array()?.iter().any(failed).then_some(())
    });
    // Never two of them beside each other: the check, and what was run about it.
    let sleepers = daemon.processes();
    let sleepers = sleepers.iter().filter(|p| procs::command_line(p.pid).contains("sleep 1000")).count();
    assert!(sleepers <= 4, "{sleepers}");
    assert!(heals(&daemon)[0].starts_with("health check:hangs | heal command sleep 1000: no answer"));
}
