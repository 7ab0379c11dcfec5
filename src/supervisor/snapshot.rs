//! What a run looks like that hangs, written down for people before anybody ends it.
//!
//! A text file in the run directory: what each process and thread of the tree is waiting for, which files it
//! has open, its limits and memory, and the last lines of its output. The kernel lets us see some of it only
//! as root or as the owner; each part says so when it could not be read. Environments are never written:
//! they are where secrets are kept.
//!
//! Everything is bounded, but for one thing. To read the command line of a process one may have to wait for
//! what it waits for, so that is not done while a thread of it is in uninterruptible sleep; who falls into
//! it at that very moment may still hold us up. So the caller calls from a thread that may hang.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::core::identity::{Epoch, Identity};
use crate::core::ids::RunId;
use crate::core::time::Stamp;
use crate::state_dir::atomic;
use crate::state_dir::layout::{RunDir, StateDir};
use crate::state_dir::output::Reader;
use crate::sys::sample::{self, Wanted};
use crate::sys::{cgroup, identity, pidfd, proc};

/// Snapshots kept of one run.
const KEPT: usize = 10;
/// Processes shown of a tree.
const PROCESSES_MAX: usize = 64;
/// Threads shown of a process.
const THREADS_MAX: usize = 64;
/// Open files shown of a process.
const FILES_MAX: usize = 256;
/// Bytes read of one file of the kernel.
const FILE_BYTES: u64 = 16 * 1024;
/// Lines of output shown, and the bytes that they may have, of all series together.
const LINES: usize = 100;
const OUTPUT_BYTES: u64 = 64 * 1024;
/// Bytes of the whole file.
const BYTES_MAX: usize = 1024 * 1024;
/// What is kept free for the output: a byte that is no text may take four.
const ROOM_FOR_OUTPUT: usize = 4 * (OUTPUT_BYTES as usize) + 1024;

/// Writes a snapshot of a run into its directory; the oldest go when there are too many.
///
/// # Errors
///
/// `NotFound` if that process is gone, or is of another boot; else what the disk said.
pub(super) fn write(
    state: &StateDir,
    run: RunId,
    identity: &Identity,
    why: &str,
    at: Stamp,
) -> io::Result<PathBuf> {
    let here = Epoch { boot_id: identity::boot_id(), init: identity::init_token() };
    let proven = identity::proven(identity.pid, identity.pidfs, identity.start_ticks);
    let Some(handle) = proven.filter(|_| identity.epoch == here) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the main process is gone"));
    };
    let mut text = Text::new(BYTES_MAX - ROOM_FOR_OUTPUT);
    text.line(&format!("run {run} at {}: {why}", at.rfc3339()));
    let group = cgroup::of(identity.pid)
        .filter(|group| group.file_name().is_some_and(|name| name.to_str() == Some(&run.to_string())));
    let wanted =
        Wanted { pid: identity.pid, start_ticks: identity.start_ticks, pidfs: identity.pidfs, group };
    let pids = sample::members(&wanted);
    text.line(&format!("{} processes", pids.len()));
    for pid in pids.iter().take(PROCESSES_MAX) {
        process(&mut text, *pid);
    }
    if pids.len() > PROCESSES_MAX {
        text.line(&format!("\n{} more processes are not shown", pids.len() - PROCESSES_MAX));
    }
    if pidfd::has_ended(handle.as_fd()) {
        text.line("\nthe main process ended while this was written");
    }
    let dir = state.run(run);
    text.room(BYTES_MAX);
    output(&mut text, &dir);
    keep(&dir, &text.0)
}

/// Puts the file in place, under the next number.
fn keep(dir: &RunDir, text: &str) -> io::Result<PathBuf> {
    let mut numbers = dir.diagnoses()?;
    let number = numbers.last().map_or(1, |last| last.saturating_add(1));
    let path = dir.diagnosis(number);
    atomic::write(&path, text.as_bytes(), 0o600)?;
    numbers.push(number);
    for old in numbers.iter().rev().skip(KEPT) {
        let _ = std::fs::remove_file(dir.diagnosis(*old));
    }
    Ok(path)
}

/// A text that does not grow over its bound, and says where it was cut.
struct Text(String, usize);

const CUT: &str = "(cut here: too long)\n";

impl Text {
    fn new(most: usize) -> Self {
        Self(String::new(), most - CUT.len())
    }

    /// From here on it may be this long; what was cut stays cut.
    fn room(&mut self, most: usize) {
        self.1 = most - CUT.len();
    }

    fn line(&mut self, line: &str) {
        if self.0.len() + line.len() < self.1 {
            self.0.push_str(line);
            self.0.push('\n');
        } else if !self.0.ends_with(CUT) {
            self.0.push_str(CUT);
        }
    }

    /// One fact, or why it is not known.
    fn fact(&mut self, name: &str, value: io::Result<String>) {
        match value {
            Ok(value) => self.line(&format!("{name}: {value}")),
            Err(error) => self.line(&format!("{name}: not readable: {error}")),
        }
    }

    /// Several lines below a name.
    fn block(&mut self, name: &str, value: io::Result<Vec<String>>) {
        match value {
            Ok(lines) => {
                self.line(&format!("{name}:"));
                for line in lines {
                    self.line(&format!("  {line}"));
                }
            }
            Err(error) => self.line(&format!("{name}: not readable: {error}")),
        }
    }
}

/// One process. What turns out to be of another one with its number is thrown away.
fn process(text: &mut Text, pid: i32) {
    let Some(stat) = proc::stat(pid) else { return };
    let (before, threads) = (text.0.len(), threads(pid));
    text.line(&format!("\nprocess {pid}"));
    text.fact("name", read(pid, "comm"));
    let stuck = threads.iter().flatten().any(|thread| thread.state == "D");
    if stuck {
        text.line("command: not read: it is in uninterruptible sleep");
    } else {
        text.fact("command", read(pid, "cmdline"));
    }
    text.line(&format!("parent: {}, session: {}", stat.parent, stat.session));
    text.line(&format!("state: {} ({})", char::from(stat.state), state_word(stat.state)));
    text.fact("waits in", read(pid, "wchan"));
    text.fact("system call", read(pid, "syscall"));
    text.block("stack", lines(pid, "stack"));
    let shown = threads.map(|threads| {
        let mut shown: Vec<String> = threads.iter().map(Thread::line).collect();
        if shown.len() == THREADS_MAX {
            shown.push("there may be more".to_owned());
        }
        shown
    });
    text.block("threads (number, state, name, waits in)", shown);
    text.block("open files", open_files(pid));
    text.block("limits", lines(pid, "limits"));
    let of_memory = |line: &String| line.starts_with("Vm") || line.starts_with("Rss");
    text.block("memory", lines(pid, "status").map(|all| all.into_iter().filter(of_memory).collect()));
    if proc::stat(pid).is_none_or(|now| now.start_ticks != stat.start_ticks) {
        text.0.truncate(before);
        text.line(&format!("\nprocess {pid} ended meanwhile"));
    }
}

struct Thread {
    number: i32,
    state: String,
    name: String,
    wait: String,
}

impl Thread {
    fn line(&self) -> String {
        format!("{} {} {} {}", self.number, self.state, self.name, self.wait)
    }
}

fn threads(pid: i32) -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten().take(THREADS_MAX) {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let of = |file: &str| read(pid, &format!("task/{number}/{file}")).unwrap_or_else(|_| "?".to_owned());
        let stat = of("stat");
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.get(..1)).unwrap_or("?").to_owned();
        threads.push(Thread { number, state, name: of("comm"), wait: of("wchan") });
    }
    Ok(threads)
}

/// Where each descriptor leads; nothing is opened for that.
fn open_files(pid: i32) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        if files.len() == FILES_MAX {
            files.push("there are more".to_owned());
            break;
        }
        let target = match std::fs::read_link(entry.path()) {
            Ok(target) => clean(target.as_os_str().as_encoded_bytes()),
            Err(error) => format!("not readable: {error}"),
        };
        files.push(format!("{} -> {target}", entry.file_name().to_string_lossy()));
    }
    Ok(files)
}

fn bytes(pid: i32, file: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(format!("/proc/{pid}/{file}"))?.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file of one line; its arguments, if it is a command line.
fn read(pid: i32, file: &str) -> io::Result<String> {
    let mut bytes = bytes(pid, file)?;
    while bytes.last().is_some_and(|last| matches!(last, 0 | b'\n')) {
        bytes.pop();
    }
    bytes.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    Ok(clean(&bytes))
}

fn lines(pid: i32, file: &str) -> io::Result<Vec<String>> {
    Ok(bytes(pid, file)?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(clean).collect())
}

/// What a person can read without harm to the terminal.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c == '\t' { ' ' } else { c }).fold(String::new(), |mut clean, c| {
        if c.is_control() {
            clean.push('?');
        } else {
            clean.push(c);
        }
        clean
    })
}

const fn state_word(state: u8) -> &'static str {
    match state {
        b'R' => "runs or could",
        b'S' => "sleeps",
        b'D' => "uninterruptible sleep",
        b'T' => "stopped",
        b't' => "stopped by a debugger",
        b'Z' => "zombie",
        b'X' => "dead",
        b'I' => "idle",
        _ => "?",
    }
}

/// The last lines of what it has written.
fn output(text: &mut Text, dir: &RunDir) {
    let tails = tails(dir);
    match tails {
        Ok(tails) if tails.is_empty() => text.line("\nno output"),
        Ok(tails) => {
            for (name, lines) in tails {
                text.block(&format!("\nlast lines of the output ({name})"), Ok(lines));
            }
        }
        Err(error) => text.line(&format!("\noutput: not readable: {error}")),
    }
}

fn tails(dir: &RunDir) -> io::Result<Vec<(String, Vec<String>)>> {
    let mut reader = Reader::open(&dir.output())?;
    let all = reader.series();
    let share = OUTPUT_BYTES / (all.len().max(1) as u64);
    let mut tails = Vec::new();
    for series in all {
        let end = reader.end_offset(series);
        let mut at = end.saturating_sub(share);
        let mut bytes = Vec::new();
        while at < end {
            let chunk = reader.read_at(series, at, usize::try_from(end - at).unwrap_or(0))?;
            if chunk.data.is_empty() {
                break;
            }
            at = chunk.offset.saturating_add(chunk.data.len() as u64);
            bytes.extend(chunk.data);
        }
        let whole = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let mut lines: Vec<String> = whole.rsplit(|byte| *byte == b'\n').take(LINES).map(clean).collect();
        lines.reverse();
        tails.push((format!("{series:?}").to_lowercase(), lines));
    }
    Ok(tails)
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
