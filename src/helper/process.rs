//! The helper's own process: one thread, one command, one answer.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Once, Task, Told};
use crate::core::outcome::Outcome;
use crate::core::signal;
use crate::core::time::Millis;
use crate::sys::flock::{self, Lock, Tried};
use crate::sys::{clock, exec, pidfd};

/// How much of what a command prints is kept, in bytes.
const SAID_BYTES_MAX: usize = 2048;

/// The longest that was ever told, in bytes.
const TOLD_BYTES_MAX: usize = 64 * 1024;

/// Does what its only argument says. Gives the exit code.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> Result<u8, String> {
    let task = arguments.next().ok_or("it is told nothing to do")?;
    let task = task.to_str().ok_or("what it is told is no text")?;
    let task: Task = serde_json::from_str(task).map_err(|error| error.to_string())?;
    let (told, cut_short) = match &task.once {
        None => perform(&task),
        Some(once) => match take_place(once) {
            Ok(Place::Done(told)) => (told, false),
            Ok(Place::Ours(file)) => {
                let (told, cut_short) = perform(&task);
                // Where it cannot be written, who comes next does it again.
                let _ = note(&file, once, Some(&told));
                (told, cut_short)
            }
            Err(error) => (Told::cannot("its lock", &error), false),
        },
    };
    let text = serde_json::to_vec(&told).map_err(|error| error.to_string())?;
    let _ = io::stdout().write_all(&text).and_then(|()| io::stdout().flush());
    if cut_short {
        // The group, and that is also this process.
        let _ = rustix::process::kill_current_process_group(rustix::process::Signal::KILL);
    }
    Ok(0)
}

enum Place {
    /// Somebody has done it for this occasion.
    Done(Told),
    /// It is ours to do, as long as this is open.
    Ours(File),
}

fn take_place(once: &Once) -> io::Result<Place> {
    let mut lock = match flock::open(&once.file)? {
        Tried::Held(lock) => return placed(lock, once),
        Tried::Busy(lock, _) => lock,
    };
    if occasion(&read(&lock)?) != Some(&once.occasion) {
        lock = match end_other(lock)? {
            Tried::Held(lock) | Tried::Busy(lock, _) => lock,
        };
    }
    placed(flock::wait(lock)?, once)
}

/// Ends who holds the lock, if that is still there. Who holds it after its process was opened is that process.
fn end_other(lock: Lock) -> io::Result<Tried> {
    let (lock, holder) = match flock::retry(lock)? {
        Tried::Busy(lock, holder) => (lock, holder),
        held @ Tried::Held(_) => return Ok(held),
    };
    let Ok(process) = pidfd::open(holder.pid) else { return flock::retry(lock) };
    let tried = flock::retry(lock)?;
    if matches!(&tried, Tried::Busy(_, still) if still.pid == holder.pid) {
        end_group(&process, holder.pid);
    }
    Ok(tried)
}

/// Before Linux 6.9 a group is found by its number alone, which is its leader's as long as that is there.
fn end_group(leader: &OwnedFd, pid: i32) {
    if pidfd::signal_group(leader, signal::KILL).is_err()
        && let Some(group) = rustix::process::Pid::from_raw(pid)
    {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

fn placed(lock: Lock, once: &Once) -> io::Result<Place> {
    let text = read(&lock)?;
    let done = text.split_once('\n').filter(|(of, _)| *of == once.occasion);
    if let Some(told) = done.and_then(|(_, told)| serde_json::from_str(told).ok()) {
        return Ok(Place::Done(told));
    }
    let file = File::from(lock.into_fd());
    note(&file, once, None)?;
    Ok(Place::Ours(file))
}

fn occasion(text: &str) -> Option<&str> {
    text.split_once('\n').map(|(occasion, _)| occasion)
}

/// By the very descriptor that has the lock: to close another one would give it up.
fn read(lock: &Lock) -> io::Result<String> {
    let mut bytes = vec![0; TOLD_BYTES_MAX];
    let length = rustix::io::pread(lock, &mut bytes, 0)?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Says which occasion this is, and how it ended once it has.
fn note(file: &File, once: &Once, told: Option<&Told>) -> io::Result<()> {
    let told = told.map(serde_json::to_string).transpose()?.unwrap_or_default();
    file.set_len(0)?;
    file.write_all_at(format!("{}\n{told}", once.occasion).as_bytes(), 0)
}

/// Runs the command to its end, or as long as it may take. Then the rest is to be ended: true.
fn perform(task: &Task) -> (Told, bool) {
    let wrong = |wrong: String| Told { wrong: Some(wrong), said: String::new() };
    let (mut child, prints) = match spawn(task) {
        Ok(spawned) => spawned,
        Err(error) => return (Told::cannot("cannot be started", &error), false),
    };
    let handle = match pidfd::open(child.id().cast_signed()) {
        Ok(handle) => handle,
        Err(error) => return (wrong(format!("cannot be watched: {error}")), true),
    };
    let (ended, said) = follow(&handle, prints, task.timeout);
    if !ended {
        let limit = Duration::from_millis(task.timeout.0);
        return (Told { said, ..wrong(format!("not done within {limit:?}, killed")) }, true);
    }
    let wrong = match child.wait() {
        Ok(status) if status.success() => None,
        Ok(status) => Some(words(status)),
        Err(error) => Some(format!("its end is not known: {error}")),
    };
    (Told { wrong, said }, false)
}

/// Starts the command, and gives what it prints.
fn spawn(task: &Task) -> io::Result<(Child, PipeReader)> {
    let (program, arguments) = task.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (ours, theirs) = io::pipe()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(theirs.try_clone()?).stderr(theirs);
    match (&task.user, &task.cwd) {
        (Some(user), cwd) => {
            exec::as_user(&mut command, (user.uid, user.gid, user.groups.clone()), cwd.as_deref())?;
        }
        (None, Some(cwd)) => {
            command.current_dir(cwd);
        }
        (None, None) => {}
    }
    // After it has become somebody else, which would take this back.
    exec::dies_with_parent(&mut command);
    Ok((command.spawn()?, ours))
}

/// Waits for the end of a process, reading what it prints: a full pipe would hold it up. False: its time is over.
fn follow(process: &OwnedFd, mut prints: PipeReader, timeout: Millis) -> (bool, String) {
    let until = clock::boot_us().saturating_add(timeout.0.saturating_mul(1000));
    let mut said = Tail::default();
    let mut open = rustix::io::ioctl_fionbio(&prints, true).is_ok();
    let ended = loop {
        let left = until.saturating_sub(clock::boot_us());
        let time = Timespec {
            tv_sec: i64::try_from(left / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(left % 1_000_000).unwrap_or(0) * 1000,
        };
        let mut fds = vec![PollFd::new(process, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(&prints, PollFlags::IN));
        }
        let polled = poll(&mut fds, Some(&time));
        let over = !fds[0].revents().is_empty();
        match polled {
            Ok(0) | Err(rustix::io::Errno::INTR) if clock::boot_us() < until => continue,
            Ok(0) | Err(_) => break false,
            Ok(_) => {}
        }
        open = open && said.read(&mut prints);
        if over {
            break true;
        }
    };
    (ended, said.into_text())
}

/// The last of what was read.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads what is there, but not for ever. False: there will be no more.
    fn read(&mut self, from: &mut PipeReader) -> bool {
        let mut bytes = [0; SAID_BYTES_MAX];
        for _ in 0..64 {
            match from.read(&mut bytes) {
                Ok(0) => return false,
                Ok(length) => {
                    self.0.extend_from_slice(bytes.get(..length).unwrap_or_default());
                    self.0.drain(..self.0.len().saturating_sub(SAID_BYTES_MAX));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn into_text(self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
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
