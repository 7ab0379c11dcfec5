//! The fixture: one instance in a directory of its own, with everything it started ended at the end.
//!
//! Nothing here sleeps a fixed time: every wait has a deadline that is long and a condition that is
//! looked at often, or an event that wakes it.

pub mod http;
pub mod keeper;
pub mod ledger;
pub mod procs;
pub mod random;
mod tools;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

pub use tools::*;

/// The longest any single wait lasts before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that raises no event.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One instance. Dropping it ends all of it.
pub struct Daemon {
    dir: tempfile::TempDir,
    up: Option<Child>,
    /// Extra environment of `up` and of every command.
    pub env: Vec<(String, String)>,
    /// Command line that `up` is put behind, such as `sh -c '…; exec "$@"' sh`.
    pub wrapper: Vec<String>,
    /// File systems to unmount when everything has ended.
    pub unmount: Vec<PathBuf>,
    /// The state directory, relative to the instance's own.
    pub state: &'static str,
    /// Whether the directory stays when the test fails.
    pub keep_when_failed: bool,
    /// Whether something is wrong, for a test that says so later.
    pub failed: bool,
}

impl Daemon {
    /// Starts an instance with this configuration and waits until it is ready.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        let mut daemon = Self::prepare(config);
        daemon.up();
        daemon
    }

    /// Makes the directories and the configuration and starts nothing.
    pub fn prepare(config: &str) -> Self {
        // Not under TMPDIR: a socket's path has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("ol.").tempdir_in("/tmp").unwrap();
        // Jobs of another user have to get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let daemon = Self {
            dir,
            up: None,
            env: Vec::new(),
            wrapper: Vec::new(),
            unmount: Vec::new(),
            state: "state",
            keep_when_failed: false,
            failed: false,
        };
        daemon.write_config(config);
        daemon
    }

    /// The directory that everything of this instance is in.
    pub fn home(&self) -> &Path {
        self.dir.path()
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home().join(name)
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.path(self.state)
    }

    /// The runtime directory.
    pub fn runtime_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir().join("control.sock")
    }

    /// Writes the configuration: `@misbehave@` and `@dir@` are replaced.
    pub fn write_config(&self, config: &str) {
        let text = config
            .replace("@misbehave@", misbehave().to_str().unwrap())
            .replace("@dir@", self.home().to_str().unwrap());
        self.write("outlive.toml", &text);
    }

    /// Writes a file in the instance's directory.
    pub fn write(&self, name: &str, text: &str) {
        let mut file = File::create(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Reads a file in the instance's directory; empty if there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Starts `up` and waits until it is ready.
    #[track_caller]
    pub fn up(&mut self) {
        let child = self.spawn_up();
        self.up = Some(child);
        self.wait_ready();
    }

    /// Starts `up` in the foreground and waits for nothing. What it says goes to `up.log`.
    pub fn spawn_up(&self) -> Child {
        let log = OpenOptions::new().append(true).create(true).open(self.path("up.log")).unwrap();
        let mut command = self.command(["up", "-c", self.path("outlive.toml").to_str().unwrap()]);
        if let Some((program, args)) = self.wrapper.split_first() {
            let plain = command;
            command = Command::new(program);
            command.args(args).arg(plain.get_program()).args(plain.get_args()).current_dir(self.home());
            for (name, value) in plain.get_envs() {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// Starts `up` again on the same directories, after init was killed or the instance shut down.
    #[track_caller]
    pub fn restart(&mut self) {
        let mut before = 0;
        if let Some(mut old) = self.up.take() {
            before = old.id().cast_signed();
            wait_child(&mut old, PATIENCE).expect("the old `up` still lives");
        }
        self.up();
        // A supervisor without init answers, too, until a new one takes its place.
        self.wait_role_back("init", before);
    }

    /// Takes the `up` process out of the fixture's hands.
    pub fn take_up(&mut self) -> Child {
        self.up.take().expect("`up` was started")
    }

    /// Waits for the end of `up` and gives its exit code.
    #[track_caller]
    pub fn wait_up_ended(&mut self) -> i32 {
        let mut child = self.take_up();
        wait_child(&mut child, PATIENCE).unwrap_or_else(|| panic!("`up` does not end"))
    }

    /// Waits until the instance says that it is ready.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            if self.get("/v1/ready").is_some_and(|reply| reply.code == 200) {
                return;
            }
            if let Some(child) = &mut self.up
                && let Some(status) = child.try_wait().unwrap()
            {
                self.up = None;
                panic!("`up` ended before it was ready: {status}\n{}", self.read("up.log"));
            }
            assert!(Instant::now() < end, "not ready in {PATIENCE:?}\n{}", self.read("up.log"));
            procs::moment(LOOK_EVERY);
        }
    }

    /// A command of the program, pointed at this instance by its environment.
    pub fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"OUTLIVE_") {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .current_dir(self.home())
            .env("OUTLIVE_STATE_DIR", self.state_dir())
            .env("OUTLIVE_RUNTIME_DIR", self.runtime_dir())
            .env("OUTLIVE_TEST_HOME", self.home())
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Ends every process of the instance with SIGKILL, and the fixture's hold of `up`.
    #[track_caller]
    pub fn end_now(&mut self) {
        procs::end_instance(self.home());
        self.wait_nothing_left();
        if let Some(mut up) = self.up.take() {
            wait_child(&mut up, PATIENCE);
        }
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn cli<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Said {
        run(self.command(args).stdin(Stdio::null()))
    }

    /// Runs a command to its end, with this on its standard input.
    #[track_caller]
    pub fn cli_with_input<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I, input: &[u8]) -> Said {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut command = self.command(args);
        command.stdin(reader);
        writer.write_all(input).unwrap();
        drop(writer);
        run(&mut command)
    }

    /// `GET` on the control socket; `None` if nobody answers.
    pub fn get(&self, path: &str) -> Option<http::Reply> {
        http::request(&self.socket(), "GET", path, None).ok()
    }

    /// `POST` on the control socket.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> http::Reply {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        http::request(&self.socket(), "POST", path, Some(&body)).unwrap()
    }

    /// The status, if the supervisor answers.
    pub fn try_status(&self) -> Option<Value> {
        self.get("/v1/status").filter(|reply| reply.code == 200).map(|reply| reply.json())
    }

    /// The status, waiting for a supervisor that answers.
    #[track_caller]
    pub fn status(&self) -> Value {
        until("a status", || self.try_status())
    }

    /// One job of the status.
    #[track_caller]
    pub fn job(&self, name: &str) -> Value {
        self.try_job(name).unwrap_or_else(|| panic!("no job {name}: {:#}", self.status()))
    }

    /// One job of the status, if it is there.
    #[track_caller]
    pub fn try_job(&self, name: &str) -> Option<Value> {
        self.status()["jobs"].as_array().unwrap().iter().find(|job| job["name"] == name).cloned()
    }

    /// One job of the status, if a supervisor answers at once.
    pub fn try_job_now(&self, name: &str) -> Option<Value> {
        self.try_status()?["jobs"].as_array()?.iter().find(|job| job["name"] == name).cloned()
    }

    /// Waits until a job meets a condition.
    #[track_caller]
    pub fn wait_job(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(job) = self.try_job(name) {
                if condition(&job) {
                    return job;
                }
                last = job;
            }
            assert!(Instant::now() < end, "job {name} is not {what} in {PATIENCE:?}: {last:#}");
            procs::moment(LOOK_EVERY);
        }
    }

    /// Waits until a job is in this state.
    #[track_caller]
    pub fn wait_state(&self, name: &str, state: &str) -> Value {
        self.wait_job(name, state, |job| job["state"] == state)
    }

    /// Waits until a job runs, and gives its process and run ids.
    #[track_caller]
    pub fn wait_running(&self, name: &str) -> (i32, String) {
        let job = self.wait_job(name, "running", |job| job["state"] == "running" && job["pid"].is_i64());
        (pid_of(&job), job["run"].as_str().unwrap().to_owned())
    }

    /// Waits until a job runs with another run than this one.
    #[track_caller]
    pub fn wait_next_run(&self, name: &str, run: &str) -> (i32, String) {
        let job = self.wait_job(name, "running again", |job| {
            job["state"] == "running" && job["run"] != run && job["pid"].is_i64()
        });
        (pid_of(&job), job["run"].as_str().unwrap().to_owned())
    }

    /// Waits until a job has ended for good, and gives the outcome of its last run.
    #[track_caller]
    pub fn wait_ended(&self, name: &str) -> Value {
        let job = self.wait_job(name, "ended", |job| {
            ["exited", "fatal", "stopped"].iter().any(|state| job["state"] == *state) && job["pid"].is_null()
        });
        job["outcome"].clone()
    }

    /// The process id of a role, as the status tells it.
    #[track_caller]
    pub fn role(&self, role: &str) -> i32 {
        until(&format!("a living {role}"), || {
            let pid = self.try_status()?["instance"]["roles"][role]["pid"].as_i64()?;
            i32::try_from(pid).ok()
        })
    }

    /// The process id of init, also where no supervisor answers.
    #[track_caller]
    pub fn init_pid(&self) -> i32 {
        until("an init", || procs::roles(self.home(), "init").first().copied())
    }

    /// Kills a role with SIGKILL and waits for its death. Gives the pid that it had.
    #[track_caller]
    pub fn kill_role(&self, role: &str) -> i32 {
        let pid = self.role(role);
        let handle = procs::handle(pid).unwrap_or_else(|| panic!("{role} ({pid}) is gone"));
        assert_eq!(procs::title(pid), format!("outlive: {role}"));
        procs::send(&handle, Signal::KILL);
        assert!(procs::wait_dead(&handle, PATIENCE), "{role} ({pid}) does not die");
        pid
    }

    /// Waits until a role is there with another pid than this, and the instance is ready.
    #[track_caller]
    pub fn wait_role_back(&mut self, role: &str, old: i32) -> i32 {
        let pid = until(&format!("a new {role}"), || {
            let pid = self.try_status()?["instance"]["roles"][role]["pid"].as_i64()?;
            i32::try_from(pid).ok().filter(|pid| *pid != old)
        });
        self.wait_ready();
        pid
    }

    /// The captured bytes of a run (of the latest without one), exactly.
    #[track_caller]
    pub fn raw(&self, job: &str, run: Option<&str>) -> Vec<u8> {
        let mut args = vec!["logs", "--raw"];
        args.extend(run.iter().flat_map(|run| ["--run", run]));
        args.push(job);
        self.cli(args).expect(0).stdout
    }

    /// The captured bytes of one stream of the latest run.
    #[track_caller]
    pub fn raw_stream(&self, job: &str, stream: &str) -> Vec<u8> {
        self.cli(["logs", "--raw", "--stream", stream, job]).expect(0).stdout
    }

    /// Captured bytes of the latest run, as text.
    #[track_caller]
    pub fn log(&self, job: &str) -> String {
        String::from_utf8_lossy(&self.raw(job, None)).into_owned()
    }

    /// Waits until the output of the latest run meets a condition, and gives it.
    #[track_caller]
    pub fn wait_log(&self, job: &str, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = self.cli(["logs", "--raw", job]);
            let text = said.text();
            if said.code == 0 && condition(&text) {
                return text;
            }
            assert!(Instant::now() < end, "no {what} in the output of {job}: {said:?}");
            procs::moment(LOOK_EVERY * 3);
        }
    }

    /// Waits until a line is in the output of the latest run.
    #[track_caller]
    pub fn wait_line(&self, job: &str, line: &str) -> String {
        self.wait_log(job, line, |text| text.lines().any(|l| l == line))
    }

    /// Every line of the event log that counts, oldest first: a newer segment replaces what older ones
    /// hold from its first number on.
    pub fn event_lines(&self) -> Vec<Value> {
        self.event_lines_after(0)
    }

    /// Those with a higher number than this.
    pub fn event_lines_after(&self, after: u64) -> Vec<Value> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.state_dir().join("journal"))
            .map(|entries| entries.flatten().map(|e| e.path()).collect())
            .unwrap_or_default();
        files.retain(|f| f.extension().is_some_and(|e| e == "jsonl"));
        files.sort();
        let first = |file: &PathBuf| file.file_stem()?.to_str()?.parse::<u64>().ok();
        let mut lines = Vec::new();
        for (i, file) in files.iter().enumerate() {
            let limit = files.get(i + 1).and_then(first).unwrap_or(u64::MAX);
            if limit <= after {
                continue;
            }
            for line in fs::read_to_string(file).unwrap_or_default().lines() {
                // The last line may be in the making; the first is the header.
                let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
                if entry["seq"].as_u64().is_some_and(|seq| seq > after && seq < limit) {
                    lines.push(entry);
                }
            }
        }
        lines
    }

    /// Every recorded event, oldest first, each with the sequence number and time of its entry.
    pub fn events(&self) -> Vec<Value> {
        self.events_after(0)
    }

    /// Those in entries with a higher number than this.
    pub fn events_after(&self, after: u64) -> Vec<Value> {
        let mut events = Vec::new();
        for entry in self.event_lines_after(after) {
            for event in entry["ev"].as_array().unwrap_or(&Vec::new()) {
                let mut event = event.clone();
                event["seq"] = entry["seq"].clone();
                event["m"] = entry["m"].clone();
                events.push(event);
            }
        }
        events
    }

    /// The recorded events of this kind about this job.
    pub fn events_of(&self, kind: &str, job: &str) -> Vec<Value> {
        let about = |e: &Value| e["job"] == job || e["record"]["job"] == job;
        self.events().into_iter().filter(|e| e["k"] == kind && about(e)).collect()
    }

    /// The directory of a run.
    pub fn run_dir(&self, run: &str) -> PathBuf {
        self.state_dir().join("runs").join(run)
    }

    /// A door that a job waits at with `gate FILE` until the test lets it through.
    pub fn gate(&self, name: &str) -> Gate {
        let path = self.path(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        // Read-write: so that the job's open never waits, only its read does.
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(&path).unwrap();
        Gate { file }
    }

    /// Every living process of this instance.
    pub fn processes(&self) -> Vec<procs::Proc> {
        procs::of_instance(self.home())
    }

    /// Waits until nothing of this instance lives.
    #[track_caller]
    pub fn wait_nothing_left(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "still there: {left:#?}");
            procs::moment(LOOK_EVERY);
        }
    }

    fn explain(&self) {
        eprintln!("--- what {} said", self.path("up.log").display());
        eprintln!("{}", tail(&self.read("up.log"), 60));
        eprintln!("--- last events");
        for event in self.events().iter().rev().take(40).rev() {
            eprintln!("{event}");
        }
        eprintln!("--- processes");
        for process in self.processes() {
            eprintln!("{process:?}");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.failed |= std::thread::panicking();
        if self.failed {
            self.explain();
        }
        procs::end_instance(self.home());
        if let Some(mut child) = self.up.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for path in &self.unmount {
            // Some may be gone already.
            let _ = Command::new("umount").arg("-l").arg(path).stderr(Stdio::null()).status();
        }
        if (self.failed && self.keep_when_failed) || std::env::var_os("OUTLIVE_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.home().display());
            self.dir.disable_cleanup(true);
        }
    }
}
