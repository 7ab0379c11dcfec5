//! Executing this very program again in another role.
//!
//! `/proc/self/exe` names the running executable even after the file was replaced or removed, so that a
//! restarted role is always the build that init is. Without /proc the path found at start is used.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr;

/// A prepared `execve` of ourselves: everything is allocated beforehand, so that it can be used between
/// `fork` and `execve`, and in a loop that must not allocate.
#[derive(Debug)]
pub struct Prepared {
    fallback: CString,
    _argv: Vec<CString>,
    _env: Vec<CString>,
    argv_pointers: Vec<*const libc::c_char>,
    env_pointers: Vec<*const libc::c_char>,
}

impl Prepared {
    /// Prepares an execution with these arguments, the first being the name `ps` shows, and the present
    /// environment.
    pub fn new(argv: Vec<CString>) -> Self {
        let fallback = std::env::current_exe()
            .ok()
            .and_then(|path| CString::new(path.as_os_str().as_bytes()).ok())
            .unwrap_or_default();
        let env: Vec<CString> = std::env::vars_os()
            .filter_map(|(name, value)| {
                let mut entry = name.into_vec();
                entry.push(b'=');
                entry.extend(value.into_vec());
                CString::new(entry).ok()
            })
            .collect();
        let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self {
            fallback,
            argv_pointers: pointers(&argv),
            env_pointers: pointers(&env),
            _argv: argv,
            _env: env,
        }
    }

    /// Replaces this process. Returns only on failure.
    pub fn exec(&self) -> io::Error {
        let own: &CStr = c"/proc/self/exe";
        for path in [own, &self.fallback] {
            // SAFETY: both arrays end with a null pointer and point into strings owned by `self`.
            unsafe { libc::execve(path.as_ptr(), self.argv_pointers.as_ptr(), self.env_pointers.as_ptr()) };
        }
        io::Error::last_os_error()
    }

    /// Starts a child with these descriptors, `(ours, its number)`, every signal let through. Does not
    /// allocate; the caller must have a single thread.
    pub fn spawn(&self, fds: &[(RawFd, RawFd)]) -> io::Result<i32> {
        // SAFETY: single-threaded by contract, so the child may go on as if nothing had happened; it only
        // makes system calls on prepared memory until it executes or exits.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        if pid > 0 {
            return Ok(pid);
        }
        for (from, to) in fds {
            // SAFETY: plain descriptor calls. dup2 onto itself would keep close-on-exec, so clear it.
            unsafe {
                if from == to {
                    libc::fcntl(*from, libc::F_SETFD, 0);
                } else if libc::dup2(*from, *to) < 0 {
                    libc::_exit(125);
                }
            }
        }
        super::signals::unblock_all();
        // A session of its own: a key pressed on init's terminal is init's business alone.
        // SAFETY: no pointers; a failure changes nothing that matters.
        unsafe { libc::setsid() };
        self.exec();
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(125) }
    }
}

/// Marks every descriptor from 3 up close-on-exec: what an ancestor left open must not reach a job.
pub fn close_on_exec_from(first: RawFd) {
    let first_number = u32::try_from(first).unwrap_or(3);
    // SAFETY: changes flags only.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first_number,
            u32::MAX,
            libc::c_int::from(4_i16), /* CLOEXEC */
        )
    };
    if done == 0 {
        return;
    }
    // Before Linux 5.11: one by one, as far as the limit reaches.
    // SAFETY: sysconf takes no pointers; fcntl on a closed number is a harmless error.
    let most = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(256, 65536);
    for fd in first..i32::try_from(most).unwrap_or(1024) {
        // SAFETY: as above.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Sets or clears close-on-exec.
pub fn set_close_on_exec(fd: RawFd, on: bool) {
    // SAFETY: changes a flag only; a closed number is a harmless error.
    unsafe { libc::fcntl(fd, libc::F_SETFD, if on { libc::FD_CLOEXEC } else { 0 }) };
}

/// Raises the limit on open descriptors to the hard limit; what the soft limit was is returned, because
/// jobs get that one back.
pub fn raise_descriptor_limit() -> Option<(u64, u64)> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok()?;
    Some((limit.current?, limit.maximum?))
}

/// The soft limit of open descriptors; none if there is no limit.
#[must_use]
pub fn open_files_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Makes a command start in a session of its own, so that nothing of this terminal reaches it.
pub fn in_a_session_of_its_own(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: setsid is safe to call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        })
    };
}

/// Lets every signal through to a command: the library lets it inherit what its parent has blocked.
pub fn with_all_signals(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: system calls that are safe to make between fork and exec.
    unsafe {
        command.pre_exec(|| {
            super::signals::unblock_all();
            Ok(())
        })
    };
}

/// Makes the kernel kill a command when the thread that started it ends: for processes of one thread.
pub fn dies_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let parent = rustix::process::getpid();
    let ask = move || {
        // SAFETY: no pointers.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // It may have ended before it was asked.
        let alive = rustix::process::getppid() == Some(parent);
        if alive { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: system calls without pointers, which are safe to make between fork and exec.
    unsafe { command.pre_exec(ask) };
}

/// Makes a command run as somebody else with these groups, in a directory that this user may enter. The library's
/// own way would leave it without supplementary groups.
///
/// # Errors
/// A path that holds a NUL.
pub fn as_user(
    command: &mut std::process::Command,
    (uid, gid, groups): (u32, u32, Vec<u32>),
    cwd: Option<&str>,
) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    let cwd = cwd.map(CString::new).transpose()?;
    let become_it = move || {
        super::spawn::become_user(uid, gid, &groups)
            .map_err(|(_, errno)| io::Error::from_raw_os_error(errno))?;
        if let Some(cwd) = &cwd {
            // SAFETY: the path is only read.
            let entered = unsafe { libc::chdir(cwd.as_ptr()) };
            if entered < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: system calls on prepared memory, which are safe to make between fork and exec.
    unsafe { command.pre_exec(become_it) };
    Ok(())
}
