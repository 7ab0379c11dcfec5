//! Hooks: commands around the runs of a job. See [`crate::core::hook`] for what is promised.
//!
//! Each runs in a process group of its own, so that all of it can be ended when its time is over. One that
//! outlives us becomes init's orphan. A launch waits here for its `before_start`; what becomes of it is
//! known to nobody else, so a survey leaves these runs alone. As long as we live, no hook of a run that is waited
//! for begins twice: what it came to while nothing could be done about it is told when that is over.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use tokio::sync::mpsc;

use super::main_loop::{Supervisor, Turn};
use super::stop_command;
use crate::core::Decision;
use crate::core::event::Event;
use crate::core::hook::When;
use crate::core::ids::{JobName, RunId};
use crate::core::input::Input;
use crate::core::job::Phase;
use crate::core::outcome::Outcome;
use crate::core::spec::JobSpec;
use crate::core::time::Millis;
use crate::sys::{clock, pidfd};

/// Stack of a thread that starts a command and waits for it.
const STACK: usize = 128 * 1024;

/// A hook that was waited for has ended.
#[derive(Debug)]
pub(super) struct Ended {
    run: RunId,
    when: When,
    /// What was wrong, in words.
    result: Result<(), String>,
}

/// Launches and stops that wait for their hook.
#[derive(Debug)]
pub(super) struct Hooks {
    starting: BTreeMap<RunId, Starting>,
    /// Runs whose `before_stop` has begun, and whether it has ended.
    stopping: BTreeMap<RunId, bool>,
    /// Ends that nothing could be done about yet.
    late: Vec<Ended>,
    tell: mpsc::Sender<Ended>,
}

#[derive(Debug)]
struct Starting {
    attempt: u64,
    spec: Box<JobSpec>,
    /// Gone: nobody waits for it any more.
    _wanted: Option<UnixStream>,
}

/// What a hook is told about.
#[derive(Debug)]
pub(super) struct About {
    pub(super) when: When,
    pub(super) job: JobName,
    pub(super) run: Option<RunId>,
    pub(super) pid: Option<i32>,
    pub(super) outcome: Option<Outcome>,
}

impl Hooks {
    pub(super) fn new() -> (Self, mpsc::Receiver<Ended>) {
        let (tell, ended) = mpsc::channel(64);
        (Self { starting: BTreeMap::new(), stopping: BTreeMap::new(), late: Vec::new(), tell }, ended)
    }

    /// Whether the launch of this run waits here.
    pub(super) fn holds(&self, run: RunId) -> bool {
        self.starting.contains_key(&run)
    }

    /// The runs whose launch waits here.
    pub(super) fn starting(&self) -> BTreeSet<RunId> {
        self.starting.keys().copied().collect()
    }
}

impl Supervisor {
    /// Has the `before_start` of a run run, if there is one; the launch follows when that has succeeded.
    pub(super) fn hook_before_launch(&mut self, run: RunId, attempt: u64, spec: &JobSpec) -> bool {
        if spec.hook(When::BeforeStart).is_none() {
            return false;
        }
        // Without it the hook is merely not ended before its time.
        let (wanted, told) = UnixStream::pair().ok().unzip();
        let starting = Starting { attempt, spec: Box::new(spec.clone()), _wanted: wanted };
        self.hooks.starting.insert(run, starting);
        let about = About {
            when: When::BeforeStart,
            job: spec.name.clone(),
            run: Some(run),
            pid: None,
            outcome: None,
        };
        if let Err(error) = self.run_hook(&about, spec, told) {
            self.hooks.starting.remove(&run);
            let errno = error.raw_os_error().unwrap_or_default();
            self.never_launched(run, Outcome::NotStarted { step: "before_start hook".to_owned(), errno });
        }
        true
    }

    /// Starts a hook that is not part of a launch. The ladder has a time limit of its own for its hook.
    pub(super) fn hook(&mut self, about: &About, spec: &JobSpec) {
        let stopped = about.run.filter(|_| about.when == When::BeforeStop);
        if let Some(run) = stopped
            && let Some(ended) = self.hooks.stopping.get(&run)
        {
            // A survey has asked for it once more.
            let again = Ended { run, when: When::BeforeStop, result: Ok(()) };
            self.hooks.late.extend(ended.then_some(again));
            return;
        }
        match self.run_hook(about, spec, None) {
            Ok(()) => {
                let lives = stopped.filter(|run| self.state.job_of(*run).is_some());
                self.hooks.stopping.extend(lives.map(|run| (run, false)));
            }
            Err(error) => {
                tracing::error!(job = %about.job, hook = about.when.as_str(), %error, "a hook cannot be run");
            }
        }
    }

    /// Starts a hook, with a thread of its own that waits for its end. `wanted`: see [`live`].
    fn run_hook(&self, about: &About, spec: &JobSpec, wanted: Option<UnixStream>) -> std::io::Result<()> {
        let Some(hook) = spec.hook(about.when) else { return Ok(()) };
        let run = about.run.unwrap_or(RunId::from_bytes([0; 16]));
        let mut command = stop_command::command(spec, &hook.command, (run, None), &self.socket)?;
        command.env("OUTLIVE_HELPER", "hook").env("OUTLIVE_HOOK", about.when.as_str());
        if about.run.is_none() {
            command.env_remove("OUTLIVE_RUN_ID");
        }
        if let Some(pid) = about.pid {
            command.env("OUTLIVE_PID", pid.to_string());
        }
        if let Some(outcome) = &about.outcome {
            command.env("OUTLIVE_OUTCOME", outcome.describe());
            command.env("OUTLIVE_EXIT_CODE", outcome.shell_code().to_string());
        }
        if matches!(about.when, When::OnFrozen | When::OnFatal) {
            command.env("OUTLIVE_WHY", self.state.reason(&about.job));
        }
        command.process_group(0);
        let (job, when, timeout) = (about.job.clone(), about.when, hook.timeout);
        let tell = matches!(when, When::BeforeStart | When::BeforeStop).then(|| self.hooks.tell.clone());
        let end = move |result: Result<(), String>| {
            if let Err(why) = &result {
                tracing::warn!(%job, %run, hook = when.as_str(), why, "a hook failed");
            }
            Ended { run, when, result }
        };
        let waiting = std::thread::Builder::new().name("hook".to_owned()).stack_size(STACK);
        let spawned = waiting.spawn(move || {
            let ended = end(live(command, timeout, wanted.as_ref()));
            if let Some(tell) = tell {
                let _ = tell.blocking_send(ended);
            }
        });
        spawned.map(drop)
    }

    /// A hook that was waited for has ended.
    pub(super) fn hook_ended(&mut self, ended: Ended, turn: &mut Turn) {
        let Ended { run, when, result } = ended;
        if when == When::BeforeStop {
            if let Some(ended) = self.hooks.stopping.get_mut(&run) {
                *ended = true;
            }
            self.observe(&Input::HookEnded { run }, turn);
            return;
        }
        // While nothing can be recorded, or a survey is due, nothing is started.
        if !self.may_judge() {
            self.hooks.late.push(Ended { run, when, result });
            return;
        }
        let Some(Starting { attempt, spec, .. }) = self.hooks.starting.remove(&run) else { return };
        let wanted = self.state.job(&spec.name).is_some_and(|job| job.phase == Phase::Starting { run });
        match result {
            _ if !wanted => self.never_launched(run, Outcome::Cancelled),
            Ok(()) => self.launch_now(run, attempt, &spec),
            Err(why) => {
                let step = format!("{} hook: {why}", when.as_str());
                self.never_launched(run, Outcome::NotStarted { step, errno: 0 });
            }
        }
    }

    /// Whether there are ends of hooks about which something can be done now.
    pub(super) fn has_late_hooks(&self) -> bool {
        self.may_judge() && !self.hooks.late.is_empty()
    }

    /// Does about them what could not be done before.
    pub(super) fn late_hooks(&mut self, turn: &mut Turn) {
        for ended in std::mem::take(&mut self.hooks.late) {
            self.hook_ended(ended, turn);
        }
    }

    fn never_launched(&mut self, run: RunId, outcome: Outcome) {
        self.pace.answered(run);
        self.refused.push((run, outcome));
    }

    /// A run that is stopped while its launch waits never ran; its hook is ended. What is over has no hooks to wait
    /// for.
    pub(super) fn call_off_hooks(&mut self, decision: &Decision) {
        for event in &decision.events {
            match event {
                Event::StopBegun { run, .. } if self.hooks.starting.remove(run).is_some() => {
                    self.never_launched(*run, Outcome::Cancelled);
                }
                Event::RunEnded { record, .. } => {
                    self.hooks.starting.remove(&record.run);
                    self.hooks.stopping.remove(&record.run);
                }
                _ => {}
            }
        }
    }
}

/// What ends the wait for a hook.
enum Woken {
    Ended,
    TooLong,
    Unwanted,
}

/// A hook from its start to its end. `wanted`: when the other end of it is gone, nobody wants it any more.
fn live(command: Command, timeout: Millis, wanted: Option<&UnixStream>) -> Result<(), String> {
    let (mut child, pidfd) = spawn(command)?;
    let cut_short = match wait(&pidfd, timeout, wanted) {
        Woken::Ended => None,
        Woken::TooLong => Some(format!("not done within {:?}, killed", Duration::from_millis(timeout.0))),
        Woken::Unwanted => Some("not wanted any more, killed".to_owned()),
    };
    if cut_short.is_some() {
        kill_group(&child, &pidfd);
    }
    let status = child.wait().map_err(|e| format!("its end is not known: {e}"))?;
    match cut_short {
        Some(why) => Err(why),
        None if status.success() => Ok(()),
        None => Err(words(status)),
    }
}

/// Waits for the end of a process without reaping it: as long as nobody has, its number is its own.
fn wait(pidfd: &OwnedFd, timeout: Millis, wanted: Option<&UnixStream>) -> Woken {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let until = clock::boot_us().saturating_add(timeout.0.saturating_mul(1000));
    loop {
        let left = until.saturating_sub(clock::boot_us());
        let time = Timespec {
            tv_sec: i64::try_from(left / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(left % 1_000_000).unwrap_or(0) * 1000,
        };
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        fds.extend(wanted.map(|wanted| PollFd::new(wanted, PollFlags::IN)));
        match poll(&mut fds, Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) if clock::boot_us() < until => {}
            Ok(0) | Err(_) => return Woken::TooLong,
            Ok(_) if !fds[0].revents().is_empty() => return Woken::Ended,
            Ok(_) => return Woken::Unwanted,
        }
    }
}

fn spawn(mut command: Command) -> Result<(Child, OwnedFd), String> {
    let mut child = command.spawn().map_err(|e| format!("cannot be started: {e}"))?;
    match pidfd::open(child.id().cast_signed()) {
        Ok(pidfd) => Ok((child, pidfd)),
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("cannot be watched: {e}"))
        }
    }
}

/// Before Linux 6.9 the group is found by its number, which is its leader's as long as nobody has waited for that.
fn kill_group(child: &Child, leader: &OwnedFd) {
    const KILL: i32 = crate::core::signal::KILL;
    if pidfd::signal_group(leader, KILL).is_err()
        && let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed())
    {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

fn words(status: ExitStatus) -> String {
    let outcome = match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Exited { code },
        (None, signal) => {
            Outcome::Signaled { signal: signal.unwrap_or_default(), core: status.core_dumped() }
        }
    };
    outcome.describe()
}
