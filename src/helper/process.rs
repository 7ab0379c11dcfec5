//! The helper's own process: one thread, one command, one answer.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
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
use crate::sys::{clock, exec, pidfd, proc, signals};

/// How much of what a command prints is kept, in bytes.
const SAID_BYTES_MAX: usize = 1024;

/// The longest that was ever told, in bytes.
const TOLD_BYTES_MAX: usize = 64 * 1024;

/// Does what its standard input says. Gives the exit code.
///
/// # Errors
/// If nobody is there to be told.
pub fn main() -> Result<u8, String> {
    // A command may end its group, and that is also this process. Nobody else has signals for it.
    signals::block_all();
    let (told, cut_short) = match read_task() {
        Ok(task) => perform_once(&task),
        Err(error) => (Told::cannot("its helper was not told what to do", &error), false),
    };
    let text = serde_json::to_vec(&told).map_err(|error| error.to_string())?;
    let _ = io::stdout().write_all(&text).and_then(|()| io::stdout().flush());
    if cut_short {
        // The group, and that is also this process.
        let _ = rustix::process::kill_current_process_group(rustix::process::Signal::KILL);
    }
    Ok(0)
}

/// A supervisor that died while it said what to do has not said it: the text ends too soon.
fn read_task() -> io::Result<Task> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn perform_once(task: &Task) -> (Told, bool) {
    let Some(once) = &task.once else { return perform(task) };
    match take_place(task, once) {
        Ok(Place::Done(told)) => (told, false),
        Ok(Place::Ours(lock)) => {
            let (told, cut_short) = perform(task);
            // Where it cannot be written, who comes next does it again.
            let _ = lock.append(&told);
            (told, cut_short)
        }
        Ok(Place::Taken(pid)) => {
            let told = Told::cannot("another is under way and does not end", &format_args!("process {pid}"));
            (told, false)
        }
        Err(_) => perform(task),
    }
}

enum Place {
    /// Somebody has done it for this occasion.
    Done(Told),
    /// It is ours to do, as long as this is open.
    Ours(Held),
    /// Somebody has the place, and cannot be ended.
    Taken(i32),
}

/// The lock, and where in its file the result is to be.
struct Held {
    file: File,
    end: u64,
}

impl Held {
    /// Writes the result behind the occasion, at once: whoever reads meanwhile sees that there is none yet.
    fn append(&self, told: &Told) -> io::Result<()> {
        self.file.write_all_at(&serde_json::to_vec(told)?, self.end)
    }
}

/// What the file of a lock says.
struct Note<'a> {
    occasion: &'a str,
    /// The helper, which leads its group.
    pid: i32,
    told: Option<Told>,
}

impl<'a> Note<'a> {
    /// `None`: it is about to be written.
    fn parse(text: &'a str) -> Option<Self> {
        let (head, rest) = text.split_once('\n')?;
        let (occasion, pid) = head.rsplit_once(' ')?;
        Some(Self { occasion, pid: pid.parse().ok()?, told: serde_json::from_str(rest).ok() })
    }
}

/// How long a look at a lock takes that says nothing yet, in milliseconds.
const MOMENT_MS: u32 = 10;

/// Waits for the lock, and sees to it that it becomes free: for as long as the command may take.
fn take_place(task: &Task, once: &Once) -> io::Result<Place> {
    let until = clock::boot_us().saturating_add(task.timeout.0.saturating_mul(1000));
    let mut tried = flock::open(&once.file)?;
    loop {
        let (lock, holder) = match tried {
            Tried::Held(lock) => return placed(lock, task, once),
            Tried::Busy(lock, holder) => (lock, holder),
        };
        let left_ms = until.saturating_sub(clock::boot_us()) / 1000;
        if left_ms == 0 {
            return Ok(Place::Taken(holder.pid));
        }
        let left_ms = u32::try_from(left_ms).unwrap_or(u32::MAX);
        let process = pidfd::open(holder.pid);
        tried = flock::retry(lock)?;
        // Who holds the lock after its process was opened is that process.
        let Tried::Busy(lock, still) = &tried else { continue };
        let Ok(process) = process else {
            // It has just ended, or lives where we cannot see it.
            let moment = Timespec { tv_sec: 0, tv_nsec: i64::from(MOMENT_MS) * 1_000_000 };
            let _ = poll(&mut [], Some(&moment));
            continue;
        };
        if still.pid != holder.pid {
            continue;
        }
        let text = read(lock)?;
        let wait_ms = match Note::parse(&text) {
            Some(note) if note.occasion == once.occasion => left_ms,
            // It is about to say for whom, and still says for whom it was before.
            Some(note) if note.pid != holder.pid => MOMENT_MS,
            None => MOMENT_MS,
            Some(_) => {
                end_group(&process, holder.pid);
                left_ms
            }
        };
        let _ = pidfd::wait_ended(&process, wait_ms);
        if let Tried::Busy(lock, _) = tried {
            tried = flock::retry(lock)?;
        }
    }
}

/// Before Linux 6.9 a group is found by its number alone, which is its leader's as long as that is there.
fn end_group(leader: &OwnedFd, pid: i32) {
    let by_number = pidfd::signal_group(leader, signal::KILL)
        .is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL));
    if let Some(group) = rustix::process::Pid::from_raw(pid).filter(|_| by_number) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

fn placed(lock: Lock, task: &Task, once: &Once) -> io::Result<Place> {
    let text = read(&lock)?;
    match Note::parse(&text) {
        Some(Note { occasion, told: Some(told), .. }) if occasion == once.occasion => {
            return Ok(Place::Done(told));
        }
        // Its helper was killed before it could tell.
        Some(Note { pid, told: None, .. }) => end_rest(pid, task),
        Some(_) | None => {}
    }
    let file = File::from(lock.into_fd());
    let head = format!("{} {}\n", once.occasion, std::process::id());
    // Between the two it says nothing, and whoever looks looks again.
    file.set_len(0)?;
    file.write_all_at(head.as_bytes(), 0)?;
    Ok(Place::Ours(Held { file, end: head.len() as u64 }))
}

/// Ends what is left of the group of a helper that is gone: processes with its number that have the marks of a
/// command about the same job.
fn end_rest(group: i32, task: &Task) {
    let marked = |pid: i32| {
        proc::environment_value(pid, "OUTLIVE_HELPER").is_some()
            && proc::environment_value(pid, "OUTLIVE_JOB").as_deref() == task.variable("OUTLIVE_JOB")
    };
    let rest = proc::all().into_iter().filter_map(proc::stat);
    let rest = rest.filter(|listed| listed.group == group && marked(listed.pid));
    let all: Vec<OwnedFd> = rest.filter_map(|listed| proc::open_listed(&listed)).collect();
    for process in &all {
        let _ = pidfd::signal(process, signal::KILL);
    }
    for process in &all {
        let _ = pidfd::wait_ended(process, 1000);
    }
}

/// By the very descriptor that has the lock: to close another one would give it up.
fn read(lock: &Lock) -> io::Result<String> {
    let mut bytes = vec![0; TOLD_BYTES_MAX];
    let length = rustix::io::pread(lock, &mut bytes, 0)?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
    let pairs = task.env.iter().filter_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        Some((OsStr::from_bytes(&pair[..at]), OsStr::from_bytes(&pair[at + 1..])))
    });
    command
        .env_clear()
        .envs(pairs)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(theirs.try_clone()?)
        .stderr(theirs);
    match (&task.user, &task.cwd) {
        (Some(user), cwd) => {
            exec::as_user(&mut command, (user.uid, user.gid, user.groups.clone()), cwd.as_deref())?;
        }
        (None, Some(cwd)) => {
            command.current_dir(cwd);
        }
        (None, None) => {}
    }
    exec::with_all_signals(&mut command);
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
