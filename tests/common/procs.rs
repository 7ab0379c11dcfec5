//! Processes as the kernel shows them: which belong to one instance, and how to end exactly those.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What a process of an instance is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `init`, `keeper` or `supervisor`.
    Role(String),
    /// A process of this run.
    Run(String),
    /// A client, or something whose environment says nothing.
    Other,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proc {
    /// Its id.
    pub pid: i32,
    /// What it is.
    pub part: Part,
    /// Its command line, with spaces between the arguments.
    pub command: String,
}

/// Every living process that belongs to the instance in `home`: by its environment, its open files or
/// its working directory. Never by name, and never this process.
pub fn of_instance(home: &Path) -> Vec<Proc> {
    let me = std::process::id().cast_signed();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found: Vec<Proc> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != me && is_alive(*pid) && belongs(*pid, home))
        .map(look)
        .collect();
    found.sort();
    found
}

/// The role processes among [`of_instance`].
pub fn roles(home: &Path, role: &str) -> Vec<i32> {
    let wanted = Part::Role(role.to_owned());
    of_instance(home).into_iter().filter(|p| p.part == wanted).map(|p| p.pid).collect()
}

/// The processes of one run.
pub fn of_run(home: &Path, run: &str) -> Vec<i32> {
    let wanted = Part::Run(run.to_owned());
    of_instance(home).into_iter().filter(|p| p.part == wanted).map(|p| p.pid).collect()
}

fn look(pid: i32) -> Proc {
    let command = command_line(pid);
    let run = environ(pid)
        .split(|b| *b == 0)
        .find_map(|var| var.strip_prefix(b"OUTLIVE_RUN_ID="))
        .map(|id| String::from_utf8_lossy(id).into_owned());
    let part = match (command.strip_prefix("outlive: "), run) {
        // The role's name is its first argument; the rest is what it was told.
        (Some(role), _) => Part::Role(role.split(' ').next().unwrap_or_default().to_owned()),
        (None, Some(run)) => Part::Run(run),
        (None, None) => Part::Other,
    };
    Proc { pid, part, command }
}

fn belongs(pid: i32, home: &Path) -> bool {
    // A child of this test that has not executed yet, on its way to be another instance's `up`, has copies of
    // all our descriptors. Looked at before those: what it executes later has them no more.
    let executable = |who: &str| fs::read_link(Path::new("/proc").join(who).join("exe")).ok();
    if executable(&pid.to_string()) == executable("self") {
        return false;
    }
    let needle = home.as_os_str().as_encoded_bytes();
    let environ = environ(pid);
    if environ.windows(needle.len()).any(|window| window == needle) {
        return true;
    }
    let proc = Path::new("/proc").join(pid.to_string());
    let in_home = |link: &Path| fs::read_link(link).is_ok_and(|target| target.starts_with(home));
    in_home(&proc.join("cwd"))
        || fs::read_dir(proc.join("fd")).is_ok_and(|fds| fds.flatten().any(|fd| in_home(&fd.path())))
}

fn environ(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}

/// The command line with spaces between the arguments; empty for a zombie.
pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim().to_owned()
}

/// The first word that `ps` shows: the name the process was started by.
pub fn title(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// The fields of `/proc/PID/stat` after the command name: `[0]` is the state, `[1]` the parent.
pub fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// The id that a process has in its own pid namespace.
pub fn innermost_pid(pid: i32) -> Option<i64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

/// Whether there is such a process and it is no zombie.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

/// The parent's id.
pub fn parent(pid: i32) -> Option<i32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// A handle that a recycled pid cannot fool; `None` if there is no such process.
pub fn handle(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// Sends a signal through a handle.
pub fn send(handle: &OwnedFd, signal: Signal) {
    // The process may have ended meanwhile: that is what the caller waits for anyway.
    let _ = pidfd_send_signal(handle, signal);
}

/// Waits until the process behind the handle has ended. False when the time is over.
pub fn wait_dead(handle: &OwnedFd, within: Duration) -> bool {
    wait_readable(handle, within)
}

/// Waits until the descriptor is readable. False when the time is over.
pub fn wait_readable(fd: &impl std::os::fd::AsFd, within: Duration) -> bool {
    let end = Instant::now() + within;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Lets a moment pass between two looks at something that raises no event.
pub fn moment(length: Duration) {
    let _ = poll(&mut [], Some(&timespec(length)));
}

fn timespec(length: Duration) -> Timespec {
    Timespec { tv_sec: length.as_secs().cast_signed(), tv_nsec: length.subsec_nanos().into() }
}

/// Ends every process of the instance, init first so that nothing is started again; what appears
/// meanwhile is ended in the next round.
pub fn end_instance(home: &Path) {
    for _ in 0..50 {
        let mut found = of_instance(home);
        if found.is_empty() {
            return;
        }
        found.sort_by_key(|p| (p.part != Part::Role("init".into()), p.pid));
        let handles: Vec<OwnedFd> = found
            .iter()
            .filter_map(|p| {
                let handle = handle(p.pid)?;
                // Looked at again with the handle in hand: now the pid cannot change its owner unnoticed.
                belongs(p.pid, home).then_some(handle)
            })
            .inspect(|handle| send(handle, Signal::KILL))
            .collect();
        for handle in &handles {
            wait_dead(handle, Duration::from_secs(5));
        }
    }
}
