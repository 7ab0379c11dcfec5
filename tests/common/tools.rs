//! Pieces that stand alone: what a command said, children of the test itself, waiting.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{LOOK_EVERY, PATIENCE, procs};

/// What a command line said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code; 128 + N for signal N, as a shell counts.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// Fails unless the exit code is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }
}

/// See [`Daemon::gate`].
pub struct Gate {
    pub(super) file: File,
}

impl Gate {
    /// Lets one process through.
    pub fn release(&mut self) {
        self.file.write_all(b".").unwrap();
    }

    /// Lets one reader of a line through.
    pub fn release_line(&mut self) {
        self.file.write_all(b"\n").unwrap();
    }
}

/// A child of the test itself that has nothing to do with any instance.
pub struct Innocent {
    child: Child,
}

impl Innocent {
    /// Starts one that does nothing.
    pub fn start() -> Self {
        Self::spawn(&mut Command::new(misbehave()))
    }

    /// Starts one that does nothing and leads a process group of its own.
    pub fn start_as_leader() -> Self {
        use std::os::unix::process::CommandExt;
        Self::spawn(Command::new(misbehave()).process_group(0))
    }

    fn spawn(command: &mut Command) -> Self {
        let child = command
            .arg("hang")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Whether it still lives.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A job with this script for `misbehave` (split at white space), and more lines of configuration.
pub fn job(name: &str, script: &str, more: &str) -> String {
    let words: Vec<String> = script.split_whitespace().map(|word| format!(", {word:?}")).collect();
    format!("[job.{name}]\ncommand = [\"@misbehave@\"{}]\n{more}\n", words.concat())
}

/// Looks until there is something, or fails.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "no {what} in {PATIENCE:?}");
        procs::moment(LOOK_EVERY);
    }
}

/// A run that ended while none of us lived: lost, with the reason why. Where whoever inherited the process
/// has not reaped it, its zombie still says how it ended; then the truth, and nothing else, is as good.
#[track_caller]
pub fn assert_true_or_lost(record: &Value, (kind, field, number): (&str, &str, i64)) {
    let outcome = &record["outcome"];
    if outcome["kind"] == "lost" {
        assert!(!outcome["why"].as_str().unwrap().is_empty(), "{record:#}");
    } else {
        assert_eq!(record["source"], "proc_stat", "{record:#}");
        assert_eq!(outcome["kind"], kind, "{record:#}");
        assert_eq!(outcome[field], number, "{record:#}");
    }
}

/// The process id in a job's status.
pub fn pid_of(job: &Value) -> i32 {
    i32::try_from(job["pid"].as_i64().unwrap()).unwrap()
}

/// Whether the tests may do what only root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says loudly that a test cannot be done here.
pub fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// The child that fails on request. Built if only this test was asked for.
pub fn misbehave() -> PathBuf {
    static BUILT: Once = Once::new();
    let profile = Path::new(env!("CARGO_BIN_EXE_outlive")).parent().unwrap();
    let path = profile.join("examples/misbehave");
    BUILT.call_once(|| {
        if !path.exists() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut command = Command::new(cargo);
            command.args(["build", "--example", "misbehave"]).current_dir(env!("CARGO_MANIFEST_DIR"));
            if profile.ends_with("release") {
                command.arg("--release");
            }
            assert!(command.status().unwrap().success(), "cannot build the example misbehave");
        }
    });
    path
}

/// Waits for a child with a deadline; its exit code, or 128 + N for signal N.
pub fn wait_child(child: &mut Child, within: Duration) -> Option<i32> {
    let handle: Option<OwnedFd> = procs::handle(child.id().cast_signed());
    if let Some(handle) = handle
        && !procs::wait_dead(&handle, within)
    {
        return None;
    }
    let status = child.wait().unwrap();
    Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Runs a command to its end and collects what it says; fails if it does not end.
#[track_caller]
pub fn run(command: &mut Command) -> Said {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = read_in_background(child.stdout.take().unwrap());
    let errors = read_in_background(child.stderr.take().unwrap());
    let code = wait_child(&mut child, PATIENCE * 2);
    if code.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    // Somebody else may hold the pipes, against all manners: then that is the failure, not a hang.
    let stdout = output.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{command:?} left its stdout open"));
    let stderr = errors.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{command:?} left its stderr open"));
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let said = Said { code: code.unwrap_or(-1), stdout, stderr };
    assert!(code.is_some(), "{command:?} does not end: {said:?}");
    said
}

fn read_in_background(mut from: impl Read + Send + 'static) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
