//! The files of the event log, looked at from outside: while an instance writes them, and when there is none.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::{Daemon, job, procs, run, skip, until};

const CLEAN: i32 = 0;
const DAMAGED: i32 = 5;
const LOSS: i32 = 6;

fn started() -> Daemon {
    let jobs = [job("one", "hang", "restart = \"always\""), job("task", "exit 3", "kind = \"task\"")];
    let daemon = Daemon::start(&jobs.concat());
    daemon.wait_running("one");
    daemon.wait_ended("task");
    daemon
}

/// The files of the log and their content.
fn log_files(daemon: &Daemon) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for dir in ["state/journal", "state/checkpoints"] {
        for entry in fs::read_dir(daemon.path(dir)).into_iter().flatten() {
            let path = entry.unwrap().path();
            files.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    files
}

/// The files of the log, and of everything beside it that a repair might touch.
fn all_files(daemon: &Daemon) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = log_files(daemon);
    for dir in ["state", "state/quarantine"] {
        for entry in fs::read_dir(daemon.path(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                files.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    files
}

/// The segments, the oldest first.
fn segments(daemon: &Daemon) -> Vec<PathBuf> {
    log_files(daemon).into_keys().filter(|path| path.parent().unwrap().ends_with("journal")).collect()
}

fn overwrite(path: &PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::File::create(path).and_then(|mut file| std::io::Write::write_all(&mut file, &bytes)).unwrap();
}

/// Spoils the first line behind the header of a segment: later ones may be in the next segment once more.
fn spoil_first_line(path: &PathBuf) {
    overwrite(path, |bytes| {
        let line = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        bytes[line + 60..line + 69].fill(b'?');
    });
}

#[test]
fn every_line_is_json_also_for_jq() {
    let daemon = started();
    daemon.cli(["shutdown"]).expect(0);
    let mut lines = 0;
    for (path, bytes) in log_files(&daemon) {
        assert!(bytes.ends_with(b"\n"), "{}", path.display());
        for line in bytes.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n') {
            let value: Value = serde_json::from_slice(line).unwrap();
            assert!(value.is_object(), "{}", path.display());
            lines += 1;
        }
    }
    assert!(lines > 8, "{lines}");
    if Command::new("jq").arg("--version").stdout(Stdio::null()).status().is_ok() {
        let said = run(Command::new("jq").args(["-e", "-c", "."]).args(log_files(&daemon).keys()));
        assert_eq!((said.code, said.text().lines().count()), (0, lines));
    }
    let shown = daemon.cli(["journal", "show", "--json"]).expect(0).text();
    let kinds: Vec<String> = shown
        .lines()
        .flat_map(|line| serde_json::from_str::<Value>(line).unwrap()["ev"].as_array().unwrap().clone())
        .map(|event| event["k"].as_str().unwrap().to_owned())
        .collect();
    let known: Vec<String> =
        daemon.events().iter().map(|event| event["k"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, known);
}

#[test]
fn what_is_shown_can_be_narrowed() {
    let daemon = started();
    let show = |args: &[&str]| -> Vec<String> {
        let said = daemon.cli(["journal", "show"].iter().chain(args)).expect(0);
        said.text().lines().map(str::to_owned).collect()
    };
    let ended = show(&["--kind", "run.ended"]);
    assert!(ended.len() == 1 && ended[0].contains("task") && ended[0].contains("code=3"), "{ended:?}");
    assert!(show(&["--job", "one"]).iter().all(|line| line.contains(" one ")));
    assert!(show(&["--job", "one", "--kind", "run.ended"]).is_empty());
    assert!(show(&["--since", "0s"]).is_empty() && !show(&["--since", "1h"]).is_empty());
    let first: Value = serde_json::from_str(&show(&["--json", "--from", "2", "--to", "2"])[0]).unwrap();
    assert_eq!(first["seq"], 2);
}

#[test]
fn a_running_instance_is_in_nobodys_way() {
    let daemon = started();
    for _ in 0..3 {
        let verified = daemon.cli(["journal", "verify", "--json"]).expect(CLEAN).json();
        assert_eq!(verified["verdict"], "clean");
        daemon.cli(["restart", "--wait", "one"]).expect(0);
    }
    let replayed = daemon.cli(["journal", "replay", "--json"]).expect(0).text();
    let entities: Vec<Value> = replayed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = entities.iter().filter_map(|entity| entity["job"].as_str()).collect();
    assert_eq!(names, ["one", "task"]);
    let stats = daemon.cli(["journal", "stats", "--json"]).expect(0).json();
    assert_eq!((&stats["jobs"], &stats["live_runs"]), (&json!(2), &json!(1)), "{stats:#}");
    assert_eq!(stats["events"]["run.ended"], json!(4), "{stats:#}");
}

#[test]
fn a_replay_tells_what_was_known_at_that_moment() {
    let daemon = started();
    let requested = &daemon.events_of("run.requested", "task")[0];
    let ended = &daemon.events_of("run.ended", "task")[0];
    let seq = |event: &Value| event["seq"].as_u64().unwrap();
    let state_at = |seq: u64| -> String {
        let text = daemon.cli(["journal", "replay", "--until", &seq.to_string()]).expect(0).text();
        let line = text.lines().find(|line| line.starts_with("task ")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{text}")).split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(state_at(seq(requested)), "starting");
    assert_eq!(state_at(seq(ended)), "exited");
    daemon.cli(["journal", "replay", "--until", "999999"]).expect(1);
}

#[test]
fn a_repair_keeps_its_hands_off_a_living_instance() {
    let mut daemon = started();
    let before = segments(&daemon);
    assert_eq!(daemon.cli(["journal", "repair"]).expect(0).text(), "nothing to do\n");
    // Whoever does not find the socket finds the locks.
    let lost = ["--socket", "/nowhere/at/all", "journal", "repair"];
    let said = daemon.cli(lost).expect(1);
    assert!(said.stderr.contains("an instance lives there"), "{said:?}");
    // So it is where a supervisor lives on without its init.
    daemon.kill_role("init");
    let mut up = daemon.take_up();
    up.wait().unwrap();
    let said = daemon.cli(lost).expect(1);
    assert!(said.stderr.contains("supervisor.lock"), "{said:?}");
    assert_eq!(segments(&daemon), before);
    daemon.up();
    daemon.cli(["journal", "verify"]).expect(CLEAN);
}

/// The end of a segment, so that it is sealed, and a checkpoint of everything before.
fn checkpoint(daemon: &mut Daemon) {
    daemon.cli(["shutdown", "--keep-jobs"]).expect(0);
    daemon.restart();
    daemon.wait_running("one");
}

#[test]
fn what_rots_under_a_living_instance_is_found_and_healed() {
    let mut daemon = started();
    let running = daemon.wait_running("one");
    checkpoint(&mut daemon);
    daemon.cli(["restart", "--wait", "one"]).expect(0);
    // The segment that is about to be sealed holds what no checkpoint covers.
    let uncovered = segments(&daemon).pop().unwrap();
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let (pid, run) = daemon.wait_running("one");
    assert_ne!(run, running.1);
    let files = log_files(&daemon);
    let a_checkpoint = files.keys().find(|path| path.parent().unwrap().ends_with("checkpoints")).unwrap();
    spoil_first_line(&uncovered);
    for path in [a_checkpoint, &segments(&daemon)[0]] {
        overwrite(path, |bytes| bytes[150] ^= 0xff);
    }
    daemon.cli(["journal", "verify"]).expect(LOSS);
    let reply = daemon.post("/v1/journal/scrub", &Value::Null).json();
    assert_eq!((&reply["sound"], &reply["why"]), (&json!(true), &Value::Null), "{reply:#}");
    assert!(reply["flaws"].as_array().unwrap().len() >= 3 && reply["kept"].as_u64() >= Some(3), "{reply:#}");
    // The log has a thread of its own.
    until("its words", || {
        let log = daemon.read("up.log");
        (log.contains("damaged") && log.contains("whole again")).then_some(())
    });
    let noted = daemon.events().into_iter().filter(|event| event["verb"] == "scrub").count();
    assert_eq!(noted, 1);
    assert_eq!(daemon.status()["instance"]["degraded"], json!([]));
    // Everything is whole: for a look from outside, for the next scrub, for the next supervisor.
    daemon.cli(["journal", "verify"]).expect(CLEAN);
    assert_eq!(daemon.cli(["journal", "repair"]).expect(0).text(), "nothing to do\n");
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let report = until("the end of the start", || {
        let report = daemon.get("/v1/recovery")?.json();
        report["ended"].is_string().then_some(report)
    });
    assert_eq!((&report["entries"]["lost"], &report["damage"]), (&json!(0), &json!([])), "{report:#}");
    assert_eq!(daemon.wait_running("one"), (pid, run));
}

/// The checkpoint at the end cannot be made out of files any more: the memory is still there.
#[test]
fn an_orderly_end_saves_what_has_rotted() {
    let mut daemon = started();
    let running = daemon.wait_running("one");
    let uncovered = segments(&daemon).pop().unwrap();
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    spoil_first_line(&uncovered);
    daemon.cli(["journal", "verify"]).expect(LOSS);
    daemon.cli(["shutdown", "--keep-jobs"]).expect(0);
    daemon.restart();
    assert_eq!(daemon.wait_running("one"), running);
    assert_eq!(daemon.get("/v1/recovery").unwrap().json()["entries"]["lost"], 0);
    daemon.cli(["journal", "repair"]).expect(0);
    daemon.cli(["journal", "verify"]).expect(CLEAN);
}

#[test]
fn damage_that_cannot_be_healed_is_a_mark_until_it_can() {
    let mut daemon = started();
    checkpoint(&mut daemon);
    let a_checkpoint = |path: &PathBuf| path.parent().unwrap().ends_with("checkpoints");
    let path = log_files(&daemon).into_keys().find(a_checkpoint).unwrap();
    overwrite(&path, |bytes| bytes.truncate(bytes.len() / 2));
    // Nothing can be kept aside in a directory that is a file.
    let quarantine = daemon.path("state/quarantine");
    fs::remove_dir_all(&quarantine).unwrap();
    fs::File::create(&quarantine).unwrap();
    let said = daemon.cli(["journal", "repair"]).expect(DAMAGED);
    assert!(said.stderr.contains("quarantine"), "{said:?}");
    let marks = daemon.status()["instance"]["degraded_resources"].clone();
    assert_eq!(marks[0]["resource"], "journal-files", "{marks:#}");
    fs::remove_file(&quarantine).unwrap();
    daemon.cli(["journal", "repair"]).expect(0);
    assert_eq!(daemon.status()["instance"]["degraded_resources"], json!([]));
    daemon.cli(["journal", "verify"]).expect(CLEAN);
}

#[test]
fn damage_is_found_told_for_what_it_costs_and_put_in_order() {
    let mut daemon = started();
    daemon.cli(["shutdown"]).expect(0);
    until("the end of the instance", || daemon.processes().is_empty().then_some(()));
    daemon.cli(["journal", "verify"]).expect(CLEAN);
    spoil_first_line(&segments(&daemon)[0]);
    let before = all_files(&daemon);
    let said = daemon.cli(["journal", "verify"]).expect(DAMAGED).text();
    assert!(said.contains("1 flaw") && said.contains("nothing is missing"), "{said}");
    let planned = daemon.cli(["journal", "repair", "--dry-run"]).expect(0).text();
    assert_eq!(all_files(&daemon), before, "a dry run changes no byte");
    let done = daemon.cli(["journal", "repair"]).expect(0).text();
    assert_eq!(planned.replace("planned only", "done"), done);
    assert_eq!(daemon.cli(["journal", "repair"]).expect(0).text(), "nothing to do\n");
    let said = daemon.cli(["journal", "verify"]).expect(CLEAN).text();
    assert!(said.contains("set aside before"), "{said}");
    assert!(fs::read_dir(daemon.path("state/quarantine")).unwrap().count() > 0);
    daemon.take_up().wait().unwrap();
    daemon.up();
    let report = until("the end of the start", || {
        let report = daemon.get("/v1/recovery")?.json();
        report["ended"].is_string().then_some(report)
    });
    assert_eq!((&report["entries"]["lost"], &report["damage"]), (&json!(0), &json!([])), "{report:#}");
    daemon.wait_running("one");
}

#[test]
fn a_loss_is_never_repaired_without_a_word() {
    let daemon = started();
    daemon.cli(["shutdown", "--keep-jobs"]).expect(0);
    let no_checkpoint = |path: &PathBuf| path.parent().unwrap().ends_with("checkpoints");
    for path in log_files(&daemon).keys().filter(|path| no_checkpoint(path)) {
        fs::remove_file(path).unwrap();
    }
    spoil_first_line(&segments(&daemon)[0]);
    let before = all_files(&daemon);
    daemon.cli(["journal", "verify"]).expect(LOSS);
    until("the end of the roles", || {
        let said = daemon.cli(["journal", "repair"]);
        (said.code == LOSS).then_some(())
    });
    let changed = |(path, bytes): (&PathBuf, &Vec<u8>)| {
        let lock = path.extension().is_some_and(|e| e == "lock") || path.ends_with("lock");
        !lock && all_files(&daemon).get(path) != Some(bytes)
    };
    assert!(!before.iter().any(changed));
    daemon.cli(["journal", "repair", "--accept-loss"]).expect(0);
    assert_eq!(daemon.cli(["journal", "repair"]).expect(0).text(), "nothing to do\n");
    assert_ne!(daemon.cli(["journal", "verify"]).code, LOSS);
}

#[test]
fn damage_met_at_a_start_is_judged_and_what_could_be_read_is_kept_first() {
    let mut daemon = started();
    let running = daemon.wait_running("one");
    let sound = until("the end of the start", || {
        let report = daemon.get("/v1/recovery")?.json();
        report["ended"].is_string().then_some(report)
    });
    let judged = &sound["assessment"];
    assert_eq!(
        (&judged["findings"], &judged["integrity_percent"]),
        (&json!([]), &json!(100.0)),
        "{judged:#}"
    );
    assert_eq!(judged["checkpoint_before"], serde_json::Value::Null, "{judged:#}");
    daemon.cli(["shutdown", "--keep-jobs"]).expect(0);
    until("the end of the roles", || {
        let roles = ["init", "keeper", "supervisor"];
        roles.iter().all(|role| procs::roles(daemon.home(), role).is_empty()).then_some(())
    });
    let no_checkpoint = |path: &PathBuf| path.parent().unwrap().ends_with("checkpoints");
    for path in log_files(&daemon).keys().filter(|path| no_checkpoint(path)) {
        fs::remove_file(path).unwrap();
    }
    spoil_first_line(&segments(&daemon)[0]);
    daemon.restart();
    let report = until("the end of the start", || {
        let report = daemon.get("/v1/recovery")?.json();
        report["ended"].is_string().then_some(report)
    });
    let judged = &report["assessment"];
    let first = &judged["findings"][0];
    assert_eq!(
        (&first["severity"], &first["strategy"]),
        (&json!("integrity"), &json!("partial")),
        "{judged:#}"
    );
    assert_eq!((&judged["lines_lost"], &judged["ranges_lost"]), (&json!(1), &json!([[1, 1]])), "{judged:#}");
    for (figure, least) in [("loss_percent", 0.1), ("bytes_quarantined", 1.0), ("checkpoint_before", 1.0)] {
        assert!(judged[figure].as_f64().is_some_and(|n| n >= least), "{figure}: {judged:#}");
    }
    assert!(judged["integrity_percent"].as_f64().is_some_and(|n| n < 100.0), "{judged:#}");
    assert_eq!(daemon.wait_running("one"), running);
    let text = daemon.cli(["recover", "report"]).expect(0).text();
    for part in
        ["integrity: 1 entries of the event log are missing", "before anything was changed, a checkpoint"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    until("the alert", || {
        let raised = daemon.get("/api/alerts")?.json()["raised"].as_array()?.clone();
        raised.iter().any(|alert| alert["id"] == "DATA_LOSS_HIGH").then_some(())
    });
}

#[test]
fn ground_that_does_not_hold_is_said_once() {
    let Ok(memory) = tempfile::Builder::new().prefix("ol.").tempdir_in("/dev/shm") else {
        return skip("there is no /dev/shm");
    };
    let kind = rustix::fs::statfs(memory.path()).unwrap().f_type;
    let mut daemon = Daemon::prepare("");
    daemon.env.push(("OUTLIVE_STATE_DIR".to_owned(), memory.path().join("state").display().to_string()));
    daemon.up();
    let said = daemon.cli(["recover", "report"]).expect(0).text();
    let in_memory = kind == 0x0102_1994;
    assert_eq!(said.contains("is in memory"), in_memory, "{said}");
    assert_eq!(daemon.read("up.log").matches("is in memory").count(), usize::from(in_memory));
    let degraded = daemon.status()["instance"]["degraded"].clone();
    assert_eq!(degraded, json!([]), "it is no mark");
    daemon.cli(["shutdown"]).expect(0);
}
