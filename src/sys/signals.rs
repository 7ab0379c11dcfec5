//! Signal masks and signal descriptors.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Blocks every signal in the calling thread and gives a descriptor that delivers the listed ones.
///
/// Blocking comes first, so that nothing is lost between the two steps.
pub fn block_all_and_open(listed: &[i32]) -> io::Result<OwnedFd> {
    block_all();
    // SAFETY: an all-zero set is made valid by sigemptyset; the descriptor is ours when non-negative.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in listed {
            libc::sigaddset(&raw mut set, *signal);
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Blocks every signal in the calling thread (and those it starts).
pub fn block_all() {
    // SAFETY: sigfillset makes the set valid.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Lets every signal through in the calling thread.
pub fn unblock_all() {
    // SAFETY: sigemptyset makes the set valid.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Gives every signal but `PIPE` its default disposition; `PIPE` is ignored. What an ancestor had set to
/// be ignored would otherwise pass through `execve` to every job.
pub fn default_dispositions() {
    for signal in 1..=64 {
        let handler = if signal == libc::SIGPIPE { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: setting a disposition to a constant; numbers that cannot be set are refused, harmlessly.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Reads one signal number from a descriptor of [`block_all_and_open`]; `None` when none waits.
#[must_use]
pub fn read(fd: &OwnedFd) -> Option<(i32, u32)> {
    // SAFETY: a plain structure that the kernel fills; its size is passed.
    unsafe {
        let mut info: libc::signalfd_siginfo = std::mem::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        let got = libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size);
        (usize::try_from(got) == Ok(size)).then(|| (i32::try_from(info.ssi_signo).unwrap_or(0), info.ssi_pid))
    }
}
