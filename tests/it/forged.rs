//! A bare pid is never trusted: files that name a stranger, files that are garbage, and files of nobody.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::common::{Daemon, Innocent, PATIENCE, job, procs, until};

fn kill_all_roles(daemon: &Daemon) {
    for role in ["init", "supervisor", "keeper"].map(|role| daemon.role(role)) {
        let handle = procs::handle(role).unwrap();
        procs::send(&handle, Signal::KILL);
        assert!(procs::wait_dead(&handle, PATIENCE));
    }
}

fn kill(pid: i32) {
    let handle = procs::handle(pid).unwrap();
    procs::send(&handle, Signal::KILL);
    assert!(procs::wait_dead(&handle, PATIENCE));
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// Puts one number in the place of another in every small file of these directories.
fn replace_number(dirs: &[PathBuf], old: i32, new: i32) -> usize {
    let mut changed = 0;
    for file in dirs.iter().flat_map(|dir| files_below(dir)) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let (old, new) = (old.to_string(), new.to_string());
        let mut result = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(&old) {
            let (before, after) = (&rest[..at], &rest[at + old.len()..]);
            let part_of_more = before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-')
                || after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
            result += before;
            result += if part_of_more { &old } else { &new };
            rest = after;
        }
        result += rest;
        if result != text {
            fs::remove_file(&file).unwrap();
            fs::OpenOptions::new().write(true).create(true).truncate(true).open(&file).unwrap();
            overwrite(&file, result.as_bytes());
            changed += 1;
        }
    }
    changed
}

fn overwrite(file: &Path, bytes: &[u8]) {
    use std::io::Write;
    fs::File::create(file).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_stranger_with_the_recorded_pid_is_neither_adopted_nor_signalled() {
    let mut daemon = Daemon::start(&job(
        "j",
        "ignore TERM hang",
        "restart = \"always\"\nbackoff = { initial = \"1ms\" }\nstop = { signal = \"TERM\", timeout = \"100ms\" }",
    ));
    let (pid, run) = daemon.wait_running("j");
    let mut innocent = Innocent::start();
    kill_all_roles(&daemon);
    kill(pid);
    let dirs = [daemon.run_dir(&run), daemon.runtime_dir().join("runs").join(&run)];
    assert!(replace_number(&dirs, pid, innocent.pid()) > 0, "no file names the process");
    // The event log names it as well.
    replace_number(&[daemon.state_dir().join("journal")], pid, innocent.pid());
    daemon.restart();
    let (new, _) = daemon.wait_next_run("j", &run);
    assert_ne!(new, innocent.pid());
    let ended = daemon.events_of("run.ended", "j");
    assert_eq!(ended.len(), 1, "{ended:#?}");
    assert_eq!(ended[0]["record"]["outcome"]["kind"], "lost", "{ended:#?}");
    daemon.cli(["stop", "j"]).expect(0);
    daemon.wait_state("j", "stopped");
    daemon.cli(["shutdown"]).expect(0);
    assert_eq!(daemon.wait_up_ended(), 0);
    assert!(innocent.lives());
}

/// Group kill is bound to an identity too: the group of a dead leader may be a stranger's.
#[test]
fn the_group_and_session_of_a_dead_run_are_not_signalled() {
    let mut daemon = Daemon::start(&job("j", "hang", "kill_scope = \"group\"\nrestart = \"never\""));
    let (pid, run) = daemon.wait_running("j");
    let mut innocent = Innocent::start_as_leader();
    kill_all_roles(&daemon);
    kill(pid);
    let dirs = [daemon.run_dir(&run), daemon.runtime_dir().join("runs").join(&run)];
    replace_number(&dirs, pid, innocent.pid());
    replace_number(&[daemon.state_dir().join("journal")], pid, innocent.pid());
    daemon.restart();
    assert_eq!(daemon.wait_ended("j")["kind"], "lost");
    daemon.cli(["stop", "j"]).expect(0);
    let signalled = daemon.cli(["signal", "KILL", "j"]);
    assert_ne!(signalled.code, 0, "there is nobody to signal: {signalled:?}");
    daemon.cli(["shutdown"]).expect(0);
    assert_eq!(daemon.wait_up_ended(), 0);
    assert!(innocent.lives());
}

#[test]
fn garbage_in_one_run_directory_does_not_hold_up_the_rest() {
    let mut daemon = Daemon::start(
        &["broken", "fine"]
            .map(|name| job(name, "hang", "restart = \"always\"\nbackoff = { initial = \"1ms\" }"))
            .concat(),
    );
    let (broken_pid, broken_run) = daemon.wait_running("broken");
    let (fine_pid, fine_run) = daemon.wait_running("fine");
    kill_all_roles(&daemon);
    kill(broken_pid);
    for file in files_below(&daemon.run_dir(&broken_run)) {
        overwrite(&file, b"\x00\xff{garbage");
    }
    overwrite(&daemon.run_dir(&broken_run).join("exit.json"), b"{\"v\": 1, \"outc");
    let strange = daemon.state_dir().join("runs");
    fs::create_dir(strange.join("not-a-run-id")).unwrap();
    overwrite(&strange.join("not-a-run-id").join("file"), b"kept");
    fs::create_dir(strange.join("01234567-89ab-7def-8123-456789abcdef")).unwrap();
    overwrite(&strange.join("a-file"), b"kept too");
    daemon.restart();
    assert_eq!(daemon.wait_running("fine"), (fine_pid, fine_run));
    daemon.wait_next_run("broken", &broken_run);
    let ended = daemon.events_of("run.ended", "broken");
    crate::common::assert_true_or_lost(&ended[0]["record"], ("signaled", "signal", 9));
    // Nothing is thrown away.
    let kept = files_below(&daemon.state_dir());
    for bytes in ["kept", "kept too"] {
        assert!(kept.iter().any(|f| fs::read_to_string(f).is_ok_and(|t| t == bytes)), "{bytes} is gone");
    }
}

#[test]
fn a_living_run_whose_files_are_garbage_is_not_started_twice() {
    let mut daemon = Daemon::start(&job(
        "j",
        "lock @dir@/only-one hang",
        "restart = \"always\"\nbackoff = { initial = \"1ms\" }",
    ));
    let (pid, run) = daemon.wait_running("j");
    for file in files_below(&daemon.run_dir(&run)) {
        if file.extension().is_some_and(|e| e == "json") {
            overwrite(&file, b"garbage");
        }
    }
    for role in ["supervisor", "keeper"] {
        let old = daemon.kill_role(role);
        daemon.wait_role_back(role, old);
        assert_eq!(daemon.wait_running("j"), (pid, run.clone()), "after the death of the {role}");
    }
    assert_eq!(daemon.read("only-one.overlap"), "");
}

#[test]
fn a_torn_last_event_is_no_obstacle() {
    let mut daemon = Daemon::start(&job("j", "hang", ""));
    let before = daemon.wait_running("j");
    kill_all_roles(&daemon);
    let mut files = files_below(&daemon.state_dir().join("journal"));
    files.sort();
    let last = files.last().unwrap();
    let mut bytes = fs::read(last).unwrap();
    bytes.extend_from_slice(b"{\"v\":1,\"seq\":99999,\"ev\":[{\"k\":\"run.en");
    overwrite(last, &bytes);
    daemon.restart();
    assert_eq!(daemon.wait_running("j"), before);
    // What is written after it can be read again.
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(daemon.wait_running("j"), before);
    daemon.cli(["stop", "j"]).expect(0);
    daemon.wait_state("j", "stopped");
}

#[test]
fn a_run_that_no_job_accounts_for_is_reported_and_left_alone() {
    let mut daemon = Daemon::start(&[job("stays", "hang", ""), job("goes", "hang", "")].concat());
    let (pid, _) = daemon.wait_running("goes");
    daemon.wait_running("stays");
    kill_all_roles(&daemon);
    // Configuration and history forget it; the process lives.
    daemon.write_config(&job("stays", "hang", ""));
    for part in ["journal", "checkpoints"] {
        for file in files_below(&daemon.state_dir().join(part)) {
            fs::remove_file(file).unwrap();
        }
    }
    daemon.restart();
    until("a report", || daemon.events().into_iter().find(|e| e["k"] == "run.orphan"));
    assert!(procs::is_alive(pid));
    // Its job comes back: nothing is started beside it, and on request it is a run of that job.
    daemon.write_config(&[job("stays", "hang", ""), job("goes", "hang", "")].concat());
    daemon.cli(["reload"]).expect(0);
    daemon.cli(["start", "goes"]).expect(0);
    let waiting = daemon.wait_state("goes", "waiting");
    assert!(waiting["reason"].as_str().unwrap().contains("`outlive recover`"), "{waiting:#}");
    daemon.cli(["recover"]).expect(0);
    assert_eq!(daemon.wait_running("goes").0, pid);
}

#[test]
fn a_task_whose_start_may_be_missing_is_held_until_somebody_starts_it() {
    let task = job("once", "exit 0", "kind = \"task\"");
    let mut daemon = Daemon::start(&[task, job("up", "hang", "")].concat());
    daemon.wait_state("once", "exited");
    daemon.wait_running("up");
    kill_all_roles(&daemon);
    // Neither the event log nor a run directory tells of its start.
    for dir in fs::read_dir(daemon.state_dir().join("runs")).unwrap().flatten() {
        let record = fs::read_to_string(dir.path().join("run.json")).unwrap();
        if record.contains("\"once\"") {
            fs::remove_dir_all(dir.path()).unwrap();
        }
    }
    let mut spoilt = 0;
    for file in files_below(&daemon.state_dir().join("journal")) {
        let text = fs::read_to_string(&file).unwrap();
        let wrong = text.replace("\"run.requested\",\"job\":\"once\"", "\"###.#########\",\"###\":\"once\"");
        spoilt += usize::from(wrong != text);
        overwrite(&file, wrong.as_bytes());
    }
    assert!(spoilt > 0, "no line asks for a run of it");
    daemon.restart();
    let held = daemon.wait_state("once", "held");
    assert!(held["reason"].as_str().unwrap().contains("missing"), "{held:#}");
    daemon.wait_running("up");
    // It stays held over another start.
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    daemon.wait_running("up");
    assert_eq!(daemon.job("once")["state"], "held");
    daemon.cli(["start", "--held"]).expect(0);
    daemon.wait_state("once", "exited");
    let none = daemon.cli(["start", "--held"]).expect(0);
    assert!(none.stderr.contains("no job is held"), "{}", none.stderr);
}
