//! One instance of the product, in directories of its own.

use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::marks::{self, Marks, now_ns};
use crate::{Settings, proc};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Directories of finished rounds. They are removed when all is measured: a file system that has just
/// removed thousands of files is slow at making new ones (ext4 passes over every inode number that was
/// freed in the last seconds), and the next round would pay for it.
static FINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes what the rounds left behind.
pub(crate) fn clean_up() {
    for dir in FINISHED.lock().unwrap().drain(..) {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// A directory that is removed in the end.
pub(crate) struct Home(pub(crate) PathBuf);

impl Home {
    pub(crate) fn new(base: &Path) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = base.join(format!("outlive-bench-{}-{number}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .unwrap_or_else(|e| panic!("making {}: {e}", dir.display()));
        Self(dir)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        FINISHED.lock().unwrap().push(std::mem::take(&mut self.0));
    }
}

/// Settings of idle services that are restarted at once.
pub(crate) const SERVICE: &str =
    "restart = \"always\"\nbackoff = { initial = \"0s\" }\nstart_limit = { count = 0 }\n";

/// A configuration: defaults, then one job for each command.
pub(crate) fn configuration(defaults: &str, commands: &[Vec<String>]) -> String {
    let mut text = format!("[defaults]\n{defaults}\n");
    for (id, command) in commands.iter().enumerate() {
        let list = Value::from(command.clone());
        text.push_str(&format!("[job.j{id}]\ncommand = {list}\n"));
    }
    text
}

/// A running instance.
pub(crate) struct Instance {
    init: Child,
    pub(crate) home: Home,
    /// The runtime directory, in memory where there is such a place, as `/run` is.
    runtime: Home,
    pub(crate) launched_ns: u64,
}

impl Instance {
    /// Starts `n` idle services.
    pub(crate) fn idle(settings: &Settings, home: Home, marks: &Marks, n: usize, more: &str) -> Self {
        let commands: Vec<_> = (0..n).map(|id| marks::idle_child(&marks.path, id as u32)).collect();
        Self::start(settings, home, &configuration(&format!("{SERVICE}{more}"), &commands))
    }

    /// Starts `n` services that send a sign of life every five seconds, a third of the time they have.
    pub(crate) fn beating(settings: &Settings, home: Home, marks: &Marks, n: usize) -> Self {
        let commands: Vec<_> = (0..n).map(|id| marks::beating_child(&marks.path, id as u32, 5000)).collect();
        let more = "heartbeat = { notify = \"15s\" }\n";
        Self::start(settings, home, &configuration(&format!("{SERVICE}{more}"), &commands))
    }

    pub(crate) fn start(settings: &Settings, home: Home, config: &str) -> Self {
        let file = home.0.join("outlive.toml");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(home.0.join("log")).unwrap();
        let mut command = Command::new(&settings.exe);
        command.args(["up", "-c"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let memory = Path::new("/dev/shm");
        let runtime = Home::new(if memory.is_dir() { memory } else { &settings.dir });
        command.env("OUTLIVE_STATE_DIR", home.0.join("state")).env("OUTLIVE_RUNTIME_DIR", &runtime.0);
        command.env("OUTLIVE_SOCKET", runtime.0.join("s")).env("OUTLIVE_RECOVERY_AFTER", "0");
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                // Should this driver be killed, init is asked to end the instance.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0);
                Ok(())
            });
        }
        let launched_ns = now_ns();
        let init = command.spawn().unwrap_or_else(|e| panic!("starting {}: {e}", settings.exe.display()));
        Self { init, home, runtime, launched_ns }
    }

    pub(crate) fn init(&self) -> i32 {
        self.init.id() as i32
    }

    /// The answer's code and body; `None` while nobody answers.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        self.ask("GET", path)
    }

    /// A verb without a body.
    pub(crate) fn post(&self, path: &str) {
        let answer = self.ask("POST", path);
        assert!(answer.as_ref().is_some_and(|(code, _)| *code < 300), "{path}: {answer:?}");
    }

    fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut socket = UnixStream::connect(self.runtime.0.join("s")).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The part about the instance itself, asked for with one job, so that the answer is short.
    pub(crate) fn about(&self) -> Option<Value> {
        // One of them there is.
        let ask = |job| self.get(&format!("/v1/status?job={job}")).filter(|(code, _)| *code == 200);
        let (_, body) = ask("j0").or_else(|| ask("worker-0"))?;
        let status: Value = serde_json::from_str(&body).ok()?;
        status.get("instance").cloned()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.get("/v1/ready").is_some_and(|(code, _)| code == 200)
    }

    pub(crate) fn wait_ready(&self) {
        let deadline = now_ns() + 60_000_000_000;
        while !self.is_ready() {
            assert!(now_ns() < deadline, "the instance was not ready within a minute: {}", self.log());
            marks::pause_ms(1);
        }
    }

    /// Process id of a role.
    pub(crate) fn role(&self, name: &str) -> Option<i32> {
        let pid = self.about()?["roles"][name]["pid"].as_i64()?;
        i32::try_from(pid).ok()
    }

    /// Init, keeper, supervisor.
    pub(crate) fn roles(&self) -> [i32; 3] {
        ["init", "keeper", "supervisor"].map(|name| self.role(name).unwrap_or_else(|| panic!("no {name}")))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.0.join("log")).unwrap_or_default()
    }

    /// Asks init to end the instance; nanoseconds until it has.
    pub(crate) fn stop(&mut self) -> u64 {
        let begun = now_ns();
        // SAFETY: a child of ours that has not been reaped.
        unsafe { libc::kill(self.init(), libc::SIGTERM) };
        let status = self.init.wait().unwrap();
        let took = now_ns() - begun;
        assert!(status.success(), "init ended with {status}: {}", self.log());
        took
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Ok(None) = self.init.try_wait() {
            // SAFETY: a child of ours that has not been reaped.
            unsafe { libc::kill(self.init(), libc::SIGTERM) };
            let deadline = now_ns() + 30_000_000_000;
            while let Ok(None) = self.init.try_wait() {
                if now_ns() > deadline {
                    break;
                }
                marks::pause_ms(5);
            }
        }
        proc::end_children();
    }
}
