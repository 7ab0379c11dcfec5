//! Snapshots of real trees that are stopped.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::state_dir::output::Series;
use crate::sys::disk;

fn run_id() -> RunId {
    "01890000-0000-7000-8000-000000000001".parse().unwrap()
}

/// A stopped shell and its child, ended at the end.
struct Stopped {
    child: Child,
    identity: Identity,
}

impl Stopped {
    fn start() -> Self {
        let mut child = Command::new("setsid")
            .args(["sh", "-c", "sh -c 'echo ready; kill -STOP $$' & wait; :"])
            .env("SECRET_OF_THE_JOB", "hunter2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pid = i32::try_from(child.id()).unwrap();
        let identity = Identity {
            pid,
            pidfs: identity::pidfs_inode(pidfd::open(pid).unwrap()),
            start_ticks: proc::stat(pid).unwrap().start_ticks,
            epoch: Epoch { boot_id: identity::boot_id(), init: identity::init_token() },
        };
        let stopped = Self { child, identity };
        stopped.send(libc::SIGSTOP);
        // A wait that takes nothing: it ends when all of the process has stopped.
        let id = rustix::process::Pid::from_raw(pid).unwrap();
        let flags = rustix::process::WaitIdOptions::STOPPED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(id), flags).unwrap();
        stopped
    }

    fn tree(&self) -> Vec<i32> {
        let Identity { pid, pidfs, start_ticks, .. } = self.identity;
        sample::members(&Wanted { pid, start_ticks, pidfs, group: None })
    }

    fn send(&self, signal: i32) {
        for pid in self.tree() {
            let _ = pidfd::open(pid).and_then(|fd| pidfd::signal(&fd, signal));
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.send(libc::SIGKILL);
        let _ = self.child.wait();
    }
}

fn state() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(dir.path().join("state")).unwrap();
    state.run(run_id()).create().unwrap();
    (dir, state)
}

fn take(state: &StateDir, identity: &Identity) -> io::Result<PathBuf> {
    write(state, run_id(), identity, "no sign of life for 30 s", Stamp::default())
}

#[test]
fn a_stopped_tree_is_shown_with_its_output_and_without_its_environment() {
    let (_dir, state) = state();
    let output = state.run(run_id()).output();
    std::fs::create_dir(&output).unwrap();
    let mut file = disk::create_new(&Series::Merged.plain(&output, 0), 0o600).unwrap();
    for n in 0..200 {
        writeln!(file, "line {n}\x1b[31m").unwrap();
    }
    let stopped = Stopped::start();
    let path = take(&state, &stopped.identity).unwrap();
    assert_eq!(path, state.run(run_id()).diagnosis(1));
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains("1970-01-01T00:00:00.000Z: no sign of life for 30 s\n2 processes\n"), "{text}");
    for pid in stopped.tree() {
        assert!(text.contains(&format!("process {pid}\n")), "{text}");
    }
    for part in [
        "state: T (stopped)",
        "command: sh -c sh -c 'echo",
        "command: sh -c echo ready",
        "1 -> pipe:[",
        "Max open files",
        "VmRSS:",
        "threads (",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    // Whatever we may see of these, each is there or says why it is not.
    for part in ["waits in: ", "system call: ", "stack:"] {
        assert_eq!(text.matches(&format!("\n{part}")).count(), 2, "{part} in\n{text}");
    }
    assert!(!text.contains("hunter2") && !text.contains("SECRET_OF_THE_JOB"), "{text}");
    assert!(
        text.ends_with("  line 199?[31m\n") && text.contains("  line 100?") && !text.contains("line 99?")
    );
}

#[test]
fn another_process_with_the_number_is_not_shown() {
    let (_dir, state) = state();
    let stopped = Stopped::start();
    let other = Identity { pidfs: 0, start_ticks: 1, ..stopped.identity.clone() };
    let other_boot = Identity { epoch: Epoch::default(), ..stopped.identity.clone() };
    for identity in [other, other_boot] {
        assert_eq!(take(&state, &identity).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
    assert_eq!(state.run(run_id()).diagnoses().unwrap(), [0u32; 0]);
}

#[test]
fn the_newest_ten_are_kept_and_numbers_go_on() {
    let (_dir, state) = state();
    let stopped = Stopped::start();
    for _ in 0..12 {
        take(&state, &stopped.identity).unwrap();
    }
    assert_eq!(state.run(run_id()).diagnoses().unwrap(), (3..=12).collect::<Vec<u32>>());
}

#[test]
fn a_text_that_grows_too_long_is_cut_once_and_leaves_room_for_what_comes_after() {
    let mut text = Text::new(200);
    for _ in 0..100 {
        text.line("a line of some length");
    }
    assert!(text.0.len() <= 200 && text.0.matches(CUT).count() == 1, "{}", text.0);
    text.room(300);
    text.line("the end");
    assert!(text.0.ends_with("the end\n"));
}

#[test]
fn output_of_long_lines_without_text_stays_small() {
    let (_dir, state) = state();
    let output = state.run(run_id()).output();
    std::fs::create_dir(&output).unwrap();
    for series in [Series::Stdout, Series::Stderr] {
        let mut file = disk::create_new(&series.plain(&output, 0), 0o600).unwrap();
        file.write_all(&vec![0xff; 200_000]).unwrap();
    }
    let stopped = Stopped::start();
    let path = take(&state, &stopped.identity).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains("(stdout):") && text.contains("(stderr):") && !text.contains(CUT));
    assert!(text.len() < 300_000, "{}", text.len());
}
