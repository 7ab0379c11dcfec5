//! Waiting for children. Only init does it, and the rest of the program must not.

use std::io;

/// How a child ended, as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Process id.
    pub pid: i32,
    /// `CLD_EXITED`, `CLD_KILLED` or `CLD_DUMPED`.
    pub code: i32,
    /// Exit code or signal number.
    pub status: i32,
    /// User CPU time in microseconds.
    pub user_us: u64,
    /// System CPU time in microseconds.
    pub system_us: u64,
    /// Largest resident set in KiB.
    pub max_rss_kib: u64,
}

impl Ended {
    /// From a wait status word (`WIFEXITED` and friends).
    #[must_use]
    pub fn from_wait_status(pid: i32, word: i32) -> Self {
        let (code, status) = if libc::WIFEXITED(word) {
            (libc::CLD_EXITED, libc::WEXITSTATUS(word))
        } else if libc::WCOREDUMP(word) {
            (libc::CLD_DUMPED, libc::WTERMSIG(word))
        } else {
            (libc::CLD_KILLED, libc::WTERMSIG(word))
        };
        Self { pid, code, status, ..Self::default() }
    }
}

fn wait(kind: libc::idtype_t, id: i32, options: i32) -> io::Result<Option<Ended>> {
    // SAFETY: all-zero is valid for both; the kernel fills them in.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both structures outlive the call. The raw call is used because the libc wrapper has no
        // `rusage` argument.
        let result = unsafe {
            libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, options | libc::WEXITED, &raw mut usage)
        };
        if result == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
    // SAFETY: waitid fills these fields for every child event, and leaves the pid 0 when there was none.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let micros = |t: libc::timeval| {
        u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_usec).unwrap_or(0)
    };
    Ok(Some(Ended {
        pid,
        code: info.si_code,
        status,
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    }))
}

/// Looks at any ended child and leaves it a zombie. `None`: no child has ended. `ECHILD`: no children.
pub fn peek_any() -> io::Result<Option<Ended>> {
    wait(libc::P_ALL, 0, libc::WNOHANG | libc::WNOWAIT)
}

/// Looks at one child and leaves it a zombie if it has ended.
pub fn peek(pid: i32) -> io::Result<Option<Ended>> {
    wait(libc::P_PID, pid, libc::WNOHANG | libc::WNOWAIT)
}

/// Reaps one child if it has ended.
pub fn reap(pid: i32) -> io::Result<Option<Ended>> {
    wait(libc::P_PID, pid, libc::WNOHANG)
}

/// Makes orphaned descendants children of this process. PID 1 has them anyway. False where the kernel
/// refuses.
#[must_use]
pub fn become_subreaper() -> bool {
    // SAFETY: sets an attribute of this process; no pointers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 }
}
