//! One system call after the other fails: the supervisor's N-th sync, rename or write while it starts, while
//! something is changed, and while a run ends.
//!
//! strace(1) makes them fail, once or from then on, and lets go. Whatever was answered by then holds, nothing
//! is started twice, and the event log is written again.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::common::random::{Random, any_seed};
use super::common::{Daemon, Innocent, PATIENCE, procs, skip, until, wait_child};
use super::number;
use super::site::Site;

/// Whether there is one, and it may trace a process that is none of its own: a container may forbid it.
pub fn strace_works() -> Result<(), String> {
    let somebody = Innocent::start();
    let mut command = Command::new("strace");
    command.args(["-qq", "-o", "/dev/null", "-p", &somebody.pid().to_string()]);
    let child =
        command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    let mut strace = Strace { child };
    until("strace to take hold, or to end", || {
        if strace.child.try_wait().unwrap().is_some() {
            return Some(Err("it may not trace another process".to_owned()));
        }
        is_traced(Path::new("/proc").join(somebody.pid().to_string()).as_path()).then_some(Ok(()))
    })
}

/// Whether somebody traces the thread behind a directory in /proc.
fn is_traced(thread: &Path) -> bool {
    let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
    !status.lines().any(|line| line == "TracerPid:\t0")
}

/// More calls than any of these takes.
const POINTS_MAX: u64 = 60;
/// Deaths of a supervisor after which an instance is given up: each further one would take longer to answer.
const DEATHS_MAX: u32 = 3;

const ERRORS: [&str; 3] = ["EIO", "ENOSPC", "EROFS"];

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A supervisor starts.
    Start,
    /// A job is started, or stopped.
    Change,
    /// A run ends and is followed by another.
    End,
}

/// Which calls fail, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    DataSync,
    Sync,
    Rename,
    /// To the event log.
    Write,
}

impl Calls {
    const ALL: [Self; 4] = [Self::DataSync, Self::Sync, Self::Rename, Self::Write];

    const fn names(self) -> &'static str {
        match self {
            Self::DataSync => "fdatasync",
            Self::Sync => "fsync",
            Self::Rename => "rename,renameat,renameat2",
            Self::Write => "write,writev,pwrite64",
        }
    }
}

/// A tracer of processes and whoever they make. Dropping it lets them go.
pub struct Strace {
    child: Child,
}

impl Strace {
    /// Takes hold of a process; from then on the calls fail.
    fn attach(site: &Site, pid: i32, calls: Calls, (error, n, ever): (&str, u64, bool)) -> Self {
        let more = if ever { "+" } else { "" };
        // A descriptor that is no file of ours does not fail like this.
        let paths = if calls == Calls::Write { segments(&site.daemon) } else { Vec::new() };
        Self::inject(site, &[pid], calls.names(), &format!("error={error}:when={n}{more}"), &paths)
    }

    /// Takes hold of processes; from then on every sync of theirs takes longer than any test.
    pub fn slow_syncs(site: &Site, pids: &[i32]) -> Self {
        let delay = 10 * PATIENCE;
        Self::inject(site, pids, "fsync,fdatasync", &format!("delay_enter={}", delay.as_micros()), &[])
    }

    fn inject(site: &Site, pids: &[i32], calls: &str, what: &str, paths: &[PathBuf]) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(site.daemon.path("strace"));
        command.arg("-e").arg(format!("trace={calls}"));
        command.arg("-e").arg(format!("inject={calls}:{what}"));
        for path in paths {
            command.arg("-P").arg(path);
        }
        for pid in pids {
            command.arg("-p").arg(pid.to_string());
        }
        command.current_dir("/");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let this = Self { child };
        until("strace to take hold", || {
            let traced = |pid: &i32| {
                let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
                tasks.flatten().all(|task| is_traced(&task.path())).then_some(())
            };
            pids.iter().try_for_each(traced)
        });
        this
    }

    fn injected(daemon: &Daemon) -> bool {
        daemon.read("strace").contains("(INJECTED)")
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if let Some(handle) = procs::handle(self.child.id().cast_signed()) {
            procs::send(&handle, Signal::INT);
        }
        if wait_child(&mut self.child, PATIENCE).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The event log's open segment, and those that may follow, under both names that each has.
fn segments(daemon: &Daemon) -> Vec<PathBuf> {
    let dir = daemon.state_dir().join("journal");
    let last = daemon.event_lines().last().map_or(0, |line| line["seq"].as_u64().unwrap());
    // A new one may repeat the last write.
    (last.saturating_sub(20)..last + 20)
        .flat_map(|n| ["jsonl", "jsonl.tmp"].map(|kind| dir.join(format!("{n:020}.{kind}"))))
        .chain(fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path()))
        .collect()
}

struct Bench {
    site: Site,
    deaths: u32,
}

impl Bench {
    fn new() -> Self {
        let mut site = Site::prepare();
        fs::create_dir(site.daemon.path("disk")).unwrap();
        site.up();
        Self { site, deaths: 0 }
    }

    /// One point. Whether the N-th call was reached, and what is wrong afterwards.
    fn point(&mut self, phase: Phase, calls: Calls, how: (&str, u64, bool)) -> (bool, Vec<String>) {
        let _ = fs::remove_file(self.site.daemon.path("strace"));
        let marks = self.site.starts().len();
        match phase {
            Phase::Start => {
                let strace = Strace::attach(&self.site, self.site.daemon.role("init"), calls, how);
                let old = self.site.daemon.kill_role("supervisor");
                self.deaths += 1;
                until("a new supervisor, or an error", || {
                    let new = procs::roles(self.site.daemon.home(), "supervisor") != [old];
                    let ready = || self.site.daemon.get("/v1/ready").is_some_and(|reply| reply.code == 200);
                    (new && (Strace::injected(&self.site.daemon) || ready())).then_some(())
                });
                drop(strace);
            }
            Phase::Change => {
                let strace = Strace::attach(&self.site, self.site.daemon.role("supervisor"), calls, how);
                let up = !self.site.promised.wants["a"];
                let (code, said) = self.site.want("a", up);
                assert!(code == 200 || code == 503, "{code} {said:#}");
                drop(strace);
            }
            Phase::End => {
                let (pid, run) = self.site.daemon.wait_running("again");
                let strace = Strace::attach(&self.site, self.site.daemon.role("supervisor"), calls, how);
                let handle: OwnedFd = procs::handle(pid).unwrap();
                procs::send(&handle, Signal::KILL);
                until("an error, or the next run", || {
                    let next = self.site.daemon.try_job_now("again").filter(|job| {
                        job["state"] == "running" && job["run"] != run.as_str() && job["pid"].is_i64()
                    });
                    (next.is_some() || Strace::injected(&self.site.daemon)).then_some(())
                });
                drop(strace);
                self.site.daemon.wait_next_run("again", &run);
                until("its mark", || (self.site.starts().len() > marks).then_some(()));
                assert_eq!(self.site.starts().len(), marks + 1, "one more start");
            }
        }
        self.site.wait_healed();
        self.site.make_sure();
        let mut faults = self.site.faults();
        if self.site.daemon.read("up.log").contains("panicked") {
            faults.push("somebody panicked".to_owned());
        }
        (Strace::injected(&self.site.daemon), faults)
    }
}

/// Lets each call of a kind fail in turn, until there is none left. How many there were.
fn sweep(phase: Phase, calls: Calls, error: &str) -> u64 {
    let mut bench: Option<Bench> = None;
    for n in 1..=POINTS_MAX {
        for ever in [false, true] {
            let used = bench.take().filter(|bench| bench.deaths < DEATHS_MAX);
            let mut now = used.unwrap_or_else(Bench::new);
            let (reached, faults) = now.point(phase, calls, (error, n, ever));
            assert!(faults.is_empty(), "{phase:?} {calls:?} {error} {n} {ever}: {faults:#?}");
            if !reached {
                return n - 1;
            }
            bench = Some(now);
        }
    }
    panic!("{phase:?}: {calls:?} without end");
}

#[test]
fn whichever_call_fails_nothing_that_was_answered_is_lost() {
    if let Err(why) = strace_works() {
        return skip(&format!("strace cannot let system calls fail here: {why}"));
    }
    let seed = number("INJECT_SEED").unwrap_or_else(any_seed);
    let full = number("INJECT_FULL").is_some_and(|n| n != 0);
    eprintln!("INJECT_SEED={seed}");
    let mut random = Random::new(seed);
    let mut rows = Vec::new();
    for phase in [Phase::Start, Phase::Change, Phase::End] {
        for calls in Calls::ALL {
            let first = usize::try_from(random.between(0, 2)).unwrap();
            let errors = ERRORS.iter().enumerate().filter(|(n, _)| full || *n == first);
            rows.extend(errors.map(|(_, error)| (phase, calls, *error)));
        }
    }
    let next = std::sync::Mutex::new(rows.into_iter());
    let counts: Vec<(Phase, Calls, &str, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut counts = Vec::new();
                    loop {
                        let row = next.lock().unwrap().next();
                        let Some((phase, calls, error)) = row else { return counts };
                        counts.push((phase, calls, error, sweep(phase, calls, error)));
                    }
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for (phase, calls, error, count) in &counts {
        eprintln!("{phase:?} {calls:?} {error}: {count} calls, each failing once and from then on");
    }
    let reached = |phase, calls| counts.iter().any(|(p, c, _, n)| *p == phase && *c == calls && *n > 0);
    for phase in [Phase::Start, Phase::Change, Phase::End] {
        assert!(reached(phase, Calls::DataSync) && reached(phase, Calls::Write), "nothing failed: {phase:?}");
    }
}
