//! Where children write down moments: a FIFO that takes one record of 24 bytes at a time.
//!
//! A write of that size into a pipe is whole or not at all, so records of a thousand children never mix,
//! and nothing touches a disk.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};

/// The first instruction.
pub(crate) const START: u32 = 1;
/// All is written.
pub(crate) const DONE: u32 = 2;

const BYTES: usize = 24;

/// One moment of one child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) ns: u64,
    pub(crate) id: u32,
    pub(crate) pid: u32,
    pub(crate) kind: u32,
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to local memory.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

/// Adds a record.
pub(crate) fn append(path: &str, mark: &Mark) {
    let mut record = [0; BYTES];
    record[..8].copy_from_slice(&mark.ns.to_le_bytes());
    record[8..12].copy_from_slice(&mark.id.to_le_bytes());
    record[12..16].copy_from_slice(&mark.pid.to_le_bytes());
    record[16..20].copy_from_slice(&mark.kind.to_le_bytes());
    let Ok(path) = CString::new(path) else { return };
    // SAFETY: a prepared path and local memory.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        libc::write(fd, record.as_ptr().cast(), BYTES);
        libc::close(fd);
    }
}

/// The reader's side.
pub(crate) struct Marks {
    pub(crate) path: PathBuf,
    file: File,
    part: Vec<u8>,
}

impl Marks {
    pub(crate) fn new(path: PathBuf) -> Self {
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: makes a FIFO and opens it; the descriptor is nobody else's.
        let file = unsafe {
            assert_eq!(libc::mkfifo(name.as_ptr(), 0o600), 0, "mkfifo {}", path.display());
            let fd = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC);
            assert!(fd >= 0, "open {}", path.display());
            libc::fcntl(fd, libc::F_SETPIPE_SZ, 1 << 18);
            File::from_raw_fd(fd)
        };
        Self { path, file, part: Vec::new() }
    }

    /// All records that wait.
    pub(crate) fn take(&mut self) -> Vec<Mark> {
        let mut buffer = [0; BYTES * 512];
        while let Ok(n) = self.file.read(&mut buffer) {
            if n == 0 {
                break;
            }
            self.part.extend_from_slice(&buffer[..n]);
        }
        let whole = self.part.len() / BYTES * BYTES;
        let word = |r: &[u8], at: usize| u32::from_le_bytes(r[at..at + 4].try_into().unwrap());
        let marks = self.part[..whole]
            .chunks(BYTES)
            .map(|r| Mark {
                ns: u64::from_le_bytes(r[..8].try_into().unwrap()),
                id: word(r, 8),
                pid: word(r, 12),
                kind: word(r, 16),
            })
            .collect();
        self.part.drain(..whole);
        marks
    }

    /// Waits until a record is there, at most so long.
    fn wait(&self, ms: i32) {
        let mut fd = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure on the stack.
        unsafe { libc::poll(&raw mut fd, 1, ms) };
    }

    /// The first record of that kind from this child.
    pub(crate) fn one(&mut self, id: u32, kind: u32) -> Mark {
        let deadline = now_ns() + 60_000_000_000;
        loop {
            if let Some(mark) = self.take().into_iter().rfind(|mark| mark.id == id && mark.kind == kind) {
                return mark;
            }
            assert!(now_ns() < deadline, "child {id} did not come in a minute");
            self.wait(1000);
        }
    }

    /// Records of that kind from `n` different children, by their number. Looks every two milliseconds
    /// only, so as not to take the processor from those who start them.
    pub(crate) fn all(&mut self, n: usize, kind: u32) -> BTreeMap<u32, Mark> {
        let deadline = now_ns() + 300_000_000_000;
        let mut found = BTreeMap::new();
        loop {
            found
                .extend(self.take().into_iter().filter(|mark| mark.kind == kind).map(|mark| (mark.id, mark)));
            if found.len() >= n {
                return found;
            }
            assert!(now_ns() < deadline, "{} of {n} children came within five minutes", found.len());
            pause_ms(2);
        }
    }
}

/// The last of these moments.
pub(crate) fn last(marks: &BTreeMap<u32, Mark>) -> u64 {
    marks.values().map(|mark| mark.ns).max().unwrap_or(0)
}

/// Does nothing for a while: what is measured needs a calm moment between two events.
pub(crate) fn pause_ms(ms: i32) {
    // SAFETY: no descriptors.
    unsafe { libc::poll(std::ptr::null_mut(), 0, ms) };
}

/// The arguments of an idle child.
pub(crate) fn idle_child(marks: &Path, id: u32) -> Vec<String> {
    child(marks, id, &["idle".to_owned()])
}

/// The arguments of a child that beats this often, in milliseconds.
pub(crate) fn beating_child(marks: &Path, id: u32, every_ms: u64) -> Vec<String> {
    child(marks, id, &["beat".to_owned(), every_ms.to_string()])
}

/// The arguments of a child.
pub(crate) fn child(marks: &Path, id: u32, what: &[String]) -> Vec<String> {
    let exe = std::env::current_exe().unwrap();
    let mut list = vec![
        exe.display().to_string(),
        crate::child::MARK.to_owned(),
        marks.display().to_string(),
        id.to_string(),
    ];
    list.extend_from_slice(what);
    list
}
