//! Commands about runs, which the supervisor itself starts: hooks, stop commands, and what probes ask by.
//!
//! A hook and a stop command outlive us, each in the hands of a [`crate::helper`], which holds it to its time and has the
//! next supervisor wait for it instead of running it beside itself. A probe is asked again anyway.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::launching;
use super::main_loop::Supervisor;
use crate::core::ids::{JobName, RunId};
use crate::core::spec::JobSpec;
use crate::core::time::Millis;
use crate::helper::{Once, Task, Told};
use crate::state_dir::layout::private_dir_all;
use crate::sys::{clock, exec, flock, pidfd};
use crate::wire::keeper::UserIds;

/// How much longer than its command a helper may take, in milliseconds. It may have had to wait for another one to end.
const HELPER_MS: u64 = 5000;

/// What a command about a job is told in its environment.
pub(super) fn environment(
    spec: &JobSpec,
    (run, pid): (Option<RunId>, Option<i32>),
    socket: &Path,
    kind: &str,
) -> Vec<(OsString, OsString)> {
    let mut all = launching::variables(spec);
    let mut tell = |name: &str, value: OsString| drop(all.insert(name.into(), value));
    tell("OUTLIVE_JOB", spec.name.as_str().into());
    tell("OUTLIVE_HELPER", kind.into());
    tell("OUTLIVE_SOCKET", socket.into());
    if let Some(run) = run {
        tell("OUTLIVE_RUN_ID", run.to_string().into());
    }
    if let Some(pid) = pid {
        tell("OUTLIVE_PID", pid.to_string().into());
    }
    // We may have been started by a job of another instance.
    if run.is_none() {
        all.remove(OsStr::new("OUTLIVE_RUN_ID"));
    }
    all.into_iter().collect()
}

/// As whom a command about a job runs.
///
/// # Errors
/// If that is not known: as somebody else it might do what its owner may not.
fn user(spec: &JobSpec) -> io::Result<Option<UserIds>> {
    launching::user(spec).map_err(|cannot| io::Error::from_raw_os_error(cannot.errno))
}

/// A command that ends with us, or soon after: in the directory of the job, as its user.
///
/// # Errors
/// If its user is not known.
pub(super) fn plain(
    spec: &JobSpec,
    argv: &[String],
    environment: Vec<(OsString, OsString)>,
) -> io::Result<Command> {
    let mut command = Command::new(argv.first().map_or("", String::as_str));
    command.args(argv.get(1..).unwrap_or_default()).env_clear().envs(environment);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match (user(spec)?, &spec.cwd) {
        (Some(user), cwd) => {
            exec::as_user(&mut command, (user.uid, user.gid, user.groups), cwd.as_deref())?;
        }
        (None, Some(cwd)) => {
            command.current_dir(cwd);
        }
        (None, None) => {}
    }
    Ok(command)
}

/// A command in the hands of a helper, about to begin.
#[derive(Debug)]
pub(super) struct Helped {
    process: Command,
    text: Vec<u8>,
    limit: Millis,
}

/// How a command ended that did not end with 0.
#[derive(Debug)]
pub(super) struct Wrong {
    /// In words.
    pub(super) why: String,
    /// The last line it printed.
    pub(super) said: Option<String>,
}

impl Wrong {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), said: None }
    }

    /// Both.
    pub(super) fn in_full(&self) -> String {
        self.said.as_ref().map_or_else(|| self.why.clone(), |said| format!("{}: {said}", self.why))
    }
}

impl Supervisor {
    /// A command that outlives us. `once`: of which kind it is, and for which occasion.
    ///
    /// # Errors
    /// If its user is not known.
    pub(super) fn helped(
        &self,
        spec: &JobSpec,
        (argv, timeout): (&[String], Millis),
        environment: Vec<(OsString, OsString)>,
        once: Option<(&str, String)>,
    ) -> io::Result<Helped> {
        // An earlier build that made the directories knew nothing of it. Without a place for a lock it runs all the same.
        let once = once.filter(|_| match private_dir_all(&self.runtime.helpers()) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(job = %spec.name, %error, "no place for the lock of a command");
                false
            }
        });
        let once =
            once.map(|(kind, occasion)| Once { file: self.runtime.helper(&spec.name, kind), occasion });
        let pair = |(name, value): (OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
        let env = environment.into_iter().map(pair).collect();
        let (command, cwd) = (argv.to_vec(), spec.cwd.clone());
        let text = Task { command, env, cwd, user: user(spec)?, timeout, once }.text()?;
        let limit = Millis(timeout.0.saturating_mul(2).saturating_add(HELPER_MS));
        Ok(Helped { process: Task::process(&self.socket)?, text, limit })
    }

    /// Removes what tells of commands about jobs that are gone. Blocks for a moment.
    pub(super) fn forget_helpers(&self) {
        let known = |file: &str| {
            let job = file.rsplit_once('.').and_then(|(job, _)| JobName::new(job).ok());
            job.is_some_and(|job| self.state.job(&job).is_some() || self.state.spec(&job).is_some())
        };
        for entry in self.runtime.helpers().read_dir().into_iter().flatten().flatten() {
            let gone = !entry.file_name().to_str().is_some_and(known);
            // Nobody waits for one that is under way; its file goes with a later start.
            if gone && !flock::is_held(&entry.path()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Runs a stop command; its end is told to the loop.
    pub(super) fn stop_command(
        &self,
        (run, step): (RunId, u32),
        job: &JobName,
        pid: i32,
        command: (&[String], Millis),
        spec: &JobSpec,
    ) {
        let tell = self.tell_stop_command.clone();
        let environment = environment(spec, (Some(run), Some(pid)), &self.socket, "stop");
        let helped = self.helped(spec, command, environment, Some(("stop", format!("{run} {step}"))));
        let job = job.clone();
        let helped = match helped {
            Ok(helped) => helped,
            Err(error) => {
                tracing::error!(%job, %error, "a stop command cannot be run");
                // The next rung is due when its time is over, if nobody hears this.
                let _ = tell.try_send((run, step, false));
                return;
            }
        };
        super::vigils::aside(move || {
            let result = helped.live(None);
            if let Err(wrong) = &result {
                tracing::warn!(%job, why = wrong.in_full(), "a stop command failed");
            }
            let _ = tell.blocking_send((run, step, result.is_ok()));
        });
    }
}

/// What ends the wait for a helper.
enum Woken {
    Ended,
    TooLong,
    Unwanted,
}

impl Helped {
    /// From its start to its end. `wanted`: when the other end of it is gone, nobody wants it any more.
    ///
    /// # Errors
    /// If it did not end with 0.
    pub(super) fn live(self, wanted: Option<&UnixStream>) -> Result<(), Wrong> {
        let (mut child, pidfd) = spawn(self.process).map_err(Wrong::new)?;
        // If it is gone by then, it has told nothing.
        drop(child.stdin.take().map(|mut stdin| stdin.write_all(&self.text)));
        let cut_short = match wait(&pidfd, self.limit, wanted) {
            Woken::Ended => None,
            Woken::TooLong => Some("its helper does not end, killed"),
            Woken::Unwanted => Some("not wanted any more, killed"),
        };
        if cut_short.is_some() {
            kill_group(&child, &pidfd);
        }
        let status = child.wait().map_err(|e| Wrong::new(format!("its end is not known: {e}")))?;
        if let Some(why) = cut_short {
            return Err(Wrong::new(why));
        }
        let told = child.stdout.take().map(|mut words| Told::read(&mut words));
        let Some(Ok(told)) = told else { return Err(Wrong::new(format!("its helper was ended: {status}"))) };
        let said = told.last_line().map(str::to_owned);
        told.wrong.map_or(Ok(()), |why| Err(Wrong { why, said }))
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
