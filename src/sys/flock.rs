//! Record locks: one process holds a file for life.
//!
//! `fcntl(F_SETLK)` rather than `flock`: a forked child that has not yet called `execve` shares an open
//! file description and would keep a `flock` alive after its parent's `SIGKILL`; a record lock belongs to
//! the process and is gone with it (and with the last child that still shares its table of descriptors, see
//! `sys::spawn`). It survives `execve` of the same process as long as the descriptor
//! stays open. Closing any descriptor of the file drops it, so each lock file is opened once per process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Who has a lock that we did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Process id; 0 if the holder lives in another pid namespace.
    pub pid: i32,
}

/// A lock held until the value is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    fd: OwnedFd,
}

/// What came of trying.
#[derive(Debug)]
pub enum Tried {
    /// It is ours.
    Held(Lock),
    /// Somebody else has it; the file is left open for another try.
    Busy(Lock, Holder),
}

fn record(kind: i32) -> libc::flock {
    // SAFETY: all-zero is a valid `flock`: whole file, from its start.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(kind).unwrap_or(0);
    lock.l_whence = i16::try_from(libc::SEEK_SET).unwrap_or(0);
    lock
}

/// Opens (or creates, mode 0600) the file and tries to lock it, without waiting.
pub fn open(path: &Path) -> io::Result<Tried> {
    let fd = rustix::fs::open(
        path,
        OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::from(0o600),
    )?;
    retry(Lock { fd })
}

/// Whether another process holds the lock of this file; false if there is no such file. Takes nothing, not
/// even for a moment. Not for a file that this process has locked.
#[must_use]
pub fn is_held(path: &Path) -> bool {
    let Ok(fd) = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
    else {
        return false;
    };
    let mut wanted = record(libc::F_WRLCK);
    // SAFETY: the descriptor is open; the kernel fills in who holds it.
    let asked = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETLK, &raw mut wanted) };
    asked == 0 && i32::from(wanted.l_type) != libc::F_UNLCK
}

/// Tries again.
pub fn retry(lock: Lock) -> io::Result<Tried> {
    let mut wanted = record(libc::F_WRLCK);
    loop {
        // SAFETY: the descriptor is open and `wanted` is a valid record for the length of the call.
        if unsafe { libc::fcntl(lock.fd.as_raw_fd(), libc::F_SETLK, &raw const wanted) } == 0 {
            return Ok(Tried::Held(lock));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EACCES | libc::EAGAIN) => break,
            _ => return Err(error),
        }
    }
    wanted = record(libc::F_WRLCK);
    // SAFETY: as above; the kernel fills in who holds it.
    if unsafe { libc::fcntl(lock.fd.as_raw_fd(), libc::F_GETLK, &raw mut wanted) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if i32::from(wanted.l_type) == libc::F_UNLCK {
        return retry(lock);
    }
    let holder = Holder { pid: wanted.l_pid.max(0) };
    Ok(Tried::Busy(lock, holder))
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Lock {
    /// The file itself; the lock lasts as long as it is open.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// The descriptor, to be kept open over `execve`.
    #[must_use]
    pub fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Takes over a descriptor that was kept open over `execve`; the lock came with it.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }
}
