//! The child between its birth and its program: system calls on memory that its parent has prepared, and
//! shares with it. No allocation, no locks, nothing of the C library that keeps a state.

use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use super::text::{Line, own_start_ticks};
use super::{Plan, Stdio, Step};

// Where ids once had 16 bits, the calls with the plain names still do.
#[cfg(not(any(target_arch = "arm", target_arch = "x86")))]
use libc::{SYS_setgid as SETGID, SYS_setgroups as SETGROUPS, SYS_setuid as SETUID};
#[cfg(any(target_arch = "arm", target_arch = "x86"))]
use libc::{SYS_setgid32 as SETGID, SYS_setgroups32 as SETGROUPS, SYS_setuid32 as SETUID};

/// Longest time between a dying init's last message and its children's new parent, in milliseconds.
const INIT_DIES_MS: u32 = 200;

/// What the child sees: pointers into the plan, resolved before the clone.
pub(super) struct Child<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) argv: Vec<*const libc::c_char>,
    /// `/bin/sh`, a place for the program, and the arguments: for a script without `#!`.
    pub(super) shell_argv: Vec<*const libc::c_char>,
    pub(super) env: Vec<*const libc::c_char>,
    pub(super) report: RawFd,
    pub(super) mask: libc::sigset_t,
    pub(super) needs_start_time: bool,
    pub(super) decision_fd: RawFd,
    /// Set by the child right before its first `execve`. It writes into the memory that it shares with the
    /// parent: a child that was killed on its way, perhaps before init ever heard of it, leaves it unset.
    pub(super) executing: bool,
    /// The descriptors from this number on do not go along; `None`: the table was copied as a whole.
    pub(super) detach_from: Option<libc::c_uint>,
}

/// The child's whole life before `execve`.
pub(super) extern "C" fn start(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes a pointer to a `Child` that lives until this function has ended.
    let child = unsafe { &mut *argument.cast::<Child<'_>>() };
    let (step, errno) = child.run();
    child.report(step, errno);
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

fn errno() -> i32 {
    // SAFETY: the thread's own errno.
    unsafe { *libc::__errno_location() }
}

type Failed = (Step, i32);

fn check(step: Step, result: libc::c_int) -> Result<libc::c_int, Failed> {
    if result < 0 { Err((step, errno())) } else { Ok(result) }
}

/// Changes the user of this process alone. The functions of the C library would have all threads of a
/// process follow, and take a lock to find them: the spawner's threads, in memory that is the spawner's too.
pub(in crate::sys) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Failed> {
    // SAFETY: the list is only read.
    unsafe {
        let set = libc::syscall(SETGROUPS, groups.len(), groups.as_ptr());
        check(Step::Groups, i32::try_from(set).unwrap_or(-1))?;
        check(Step::Group, i32::try_from(libc::syscall(SETGID, gid)).unwrap_or(-1))?;
        check(Step::User, i32::try_from(libc::syscall(SETUID, uid)).unwrap_or(-1))?;
    }
    Ok(())
}

impl Child<'_> {
    fn run(&mut self) -> Failed {
        match self.prepare() {
            Ok(()) => self.execute(),
            Err(failed) => failed,
        }
    }

    fn report(&self, step: Step, errno: i32) {
        let mut message = [0_u8; 8];
        message[0] = step as u8;
        message[4..].copy_from_slice(&errno.to_le_bytes());
        // SAFETY: writes from local memory; eight bytes into a pipe are written whole or not at all.
        unsafe {
            if self.decision_fd >= 0 {
                let mut line = Line::new();
                line.push(b"failed ");
                line.number(u64::from(step as u8));
                line.push(b" ");
                line.number(u64::try_from(errno).unwrap_or(0));
                line.push(b"\n");
                libc::write(self.decision_fd, line.bytes.as_ptr().cast(), line.len);
            }
            libc::write(self.report, message.as_ptr().cast(), message.len());
        }
    }

    fn prepare(&mut self) -> Result<(), Failed> {
        // SAFETY: system calls on prepared memory only, in the whole function.
        unsafe {
            check(Step::Session, libc::setsid())?;
            self.register()?;
            self.detach()?;
            if let Some(list) = &self.plan.cgroup {
                let fd = check(Step::Cgroup, libc::open(list.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
                let moved = libc::write(fd, c"0".as_ptr().cast(), 1);
                check(Step::Cgroup, if moved == 1 { 0 } else { -1 })?;
                libc::close(fd);
            }
            self.stdio()?;
            self.extra()?;
            if let Some(mask) = self.plan.umask {
                libc::umask(mask);
            }
            for (resource, soft, hard) in &self.plan.rlimits {
                let limit = libc::rlimit { rlim_cur: *soft, rlim_max: *hard };
                check(Step::Rlimit, libc::setrlimit(*resource, &raw const limit))?;
            }
            if let Some(nice) = self.plan.nice {
                check(Step::Nice, libc::setpriority(libc::PRIO_PROCESS, 0, nice))?;
            }
            if let Some(text) = &self.plan.oom_score_adj {
                let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                check(Step::OomScore, fd)?;
                let wrote = libc::write(fd, text.as_ptr().cast(), text.as_bytes().len());
                check(Step::OomScore, if wrote < 0 { -1 } else { 0 })?;
                libc::close(fd);
            }
        }
        self.claim()?;
        // SAFETY: as above.
        unsafe {
            if let Some((uid, gid, groups)) = &self.plan.user {
                become_user(*uid, *gid, groups)?;
            }
            check(Step::Chdir, libc::chdir(self.plan.cwd.as_ptr()))?;
        }
        Ok(())
    }

    /// Tells init who we are and hands it the descriptors to hold. If that fails although init lives,
    /// our spawner is no longer init's keeper, and its start must not happen.
    fn register(&self) -> Result<(), Failed> {
        let Some(register) = &self.plan.register else { return Ok(()) };
        // SAFETY: the message, the control buffer and the structures all live in this frame.
        unsafe {
            let mut message = register.message;
            let pid = libc::getpid().to_le_bytes();
            message[register.pid_at..register.pid_at + 4].copy_from_slice(&pid);
            let count = register.fds.iter().take_while(|fd| **fd >= 0).count();
            let mut control = [0_u64; 8];
            let mut iov = libc::iovec { iov_base: message.as_mut_ptr().cast(), iov_len: message.len() };
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_iov = &raw mut iov;
            header.msg_iovlen = 1;
            if count > 0 {
                let bytes = u32::try_from(count * size_of::<RawFd>()).unwrap_or(0);
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
                let part = libc::CMSG_FIRSTHDR(&raw const header);
                (*part).cmsg_level = libc::SOL_SOCKET;
                (*part).cmsg_type = libc::SCM_RIGHTS;
                (*part).cmsg_len = libc::CMSG_LEN(bytes) as usize;
                ptr::copy_nonoverlapping(register.fds.as_ptr(), libc::CMSG_DATA(part).cast(), count);
            }
            loop {
                if libc::sendmsg(register.socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) >= 0 {
                    return Ok(());
                }
                let error = errno();
                if error == libc::EINTR {
                    continue;
                }
                return if self.init_lives() { Err((Step::Register, error)) } else { Ok(()) };
            }
        }
    }

    /// Whether init lives, seen a while after its socket failed: a dying process closes its descriptors
    /// before its children get another parent. If it does live, our spawner is dead, and nobody waits.
    fn init_lives(&self) -> bool {
        let moment = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        for _ in 0..INIT_DIES_MS {
            // SAFETY: no memory but `moment`.
            unsafe {
                if libc::getppid() != self.plan.init {
                    return false;
                }
                libc::nanosleep(&raw const moment, ptr::null_mut());
            }
        }
        true
    }

    /// Leaves the spawner's table of descriptors with the few that are still needed.
    fn detach(&self) -> Result<(), Failed> {
        let Some(first) = self.detach_from else { return Ok(()) };
        // SAFETY: no memory is touched.
        let done = unsafe {
            libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)
        };
        check(Step::Clone, if done == 0 { 0 } else { -1 }).map(|_| ())
    }

    fn stdio(&self) -> Result<(), Failed> {
        let steps = [Step::Stdin, Step::Stdout, Step::Stderr];
        for (number, (stdio, step)) in (0..).zip(self.plan.stdio.iter().zip(steps)) {
            // SAFETY: opens a prepared path and moves the descriptor into place.
            unsafe {
                match stdio {
                    Stdio::LikeStdout => {
                        check(step, libc::dup2(1, number))?;
                    }
                    Stdio::Open(path, flags) => {
                        let fd = check(step, libc::open(path.as_ptr(), flags | libc::O_NOCTTY))?;
                        if fd != number {
                            check(step, libc::dup2(fd, number))?;
                            libc::close(fd);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Opens the extra descriptor at its number. The pipe to report through may be there, and makes way;
    /// nobody else is needed any more who could: init has been told, and the claim's file comes later.
    fn extra(&mut self) -> Result<(), Failed> {
        let Some((path, number)) = &self.plan.extra else { return Ok(()) };
        let number = *number;
        // SAFETY: opens a prepared path and moves descriptors; no other memory is touched.
        unsafe {
            if self.report == number {
                let moved = libc::fcntl(self.report, libc::F_DUPFD_CLOEXEC, number + 1);
                self.report = check(Step::ReadyFd, moved)?;
            }
            let fd = check(Step::ReadyFd, libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NOCTTY))?;
            if fd != number {
                check(Step::ReadyFd, libc::dup2(fd, number))?;
                libc::close(fd);
            }
        }
        Ok(())
    }

    /// The one-winner decision: from here on this run counts as started.
    fn claim(&mut self) -> Result<(), Failed> {
        let claim = &self.plan.claim;
        let mut line = Line::new();
        // SAFETY: system calls on prepared memory; the descriptor stays open until `execve` closes it.
        unsafe {
            let pid = libc::getpid();
            let (mut pidfs, mut start) = (0, 0);
            if self.needs_start_time {
                start = own_start_ticks();
            } else {
                let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
                let mut stat: libc::stat = std::mem::zeroed();
                if let Ok(fd) = i32::try_from(fd)
                    && fd >= 0
                {
                    if libc::fstat(fd, &raw mut stat) == 0 {
                        pidfs = stat.st_ino;
                    }
                    libc::close(fd);
                }
            }
            line.push(&claim.prefix);
            line.number(u64::try_from(pid).unwrap_or(0));
            line.push(b" ");
            line.number(pidfs);
            line.push(b" ");
            line.number(start);
            line.push(b"\n");
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
            let fd = check(Step::Claim, libc::open(claim.temporary.as_ptr(), flags, 0o600))?;
            let wrote = libc::write(fd, line.bytes.as_ptr().cast(), line.len);
            check(Step::Claim, if usize::try_from(wrote) == Ok(line.len) { 0 } else { -1 })?;
            check(Step::Claim, libc::link(claim.temporary.as_ptr(), claim.decision.as_ptr()))?;
            self.decision_fd = fd;
            libc::unlink(claim.temporary.as_ptr());
        }
        Ok(())
    }

    fn execute(&mut self) -> Failed {
        let mut error = libc::ENOENT;
        // SAFETY: the arrays end with null pointers and point into the plan. `PIPE` is the one
        // disposition that the spawner does not have at its default.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut());
            ptr::write_volatile(&raw mut self.executing, true);
            for program in &self.plan.programs {
                libc::execve(program.as_ptr(), self.argv.as_ptr(), self.env.as_ptr());
                let this = errno();
                if this == libc::ENOEXEC {
                    self.shell_argv[1] = program.as_ptr();
                    libc::execve(c"/bin/sh".as_ptr(), self.shell_argv.as_ptr(), self.env.as_ptr());
                }
                match this {
                    // What exists but may not be executed says more than what does not exist.
                    libc::EACCES => error = libc::EACCES,
                    libc::ENOENT | libc::ENOTDIR => {}
                    other => return (Step::Exec, other),
                }
            }
        }
        (Step::Exec, error)
    }
}
