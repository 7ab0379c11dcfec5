//! Starting a run: the hand-written clone and exec.
//!
//! `clone(CLONE_PARENT)` makes the child a child of *our* parent, init, from birth: who spawned it may
//! die without anybody losing its exit code. `CLONE_VM | CLONE_VFORK` makes it as fast as `vfork`: no
//! page tables are copied, the caller is suspended until the child has executed or ended.
//!
//! The order in the child is the start protocol:
//!
//! 1. own session and process group;
//! 2. register with init: run id, pid, and the descriptors init is to hold in escrow. A failure while
//!    init lives means that our spawner has been replaced: the child ends, nothing has run;
//! 3. control group, descriptors 0 to 2, limits, niceness;
//! 4. claim the start: write who it is into a file and `link(2)` it as the decision of the run. If
//!    somebody has linked a cancellation first, the child ends, nothing has run;
//! 5. user, directory, dispositions, signal mask, `execve`.
//!
//! A failure is told through a close-on-exec pipe as (step, errno), and also written behind the claim,
//! so that it is not taken for an exit of the program if nobody is left to read the pipe.
//!
//! The child begins with the spawner's descriptors, not with a copy of them, and then keeps only the first
//! few in a table of its own: a keeper of a thousand runs has thousands, and copying and closing them all
//! would cost more than everything else here. So nothing may be opened or closed before that.
//!
//! In the child only system calls on memory prepared by the parent are made: no allocation, no locks.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

pub use super::step::Step;

/// How a standard descriptor is made.
#[derive(Debug, Clone)]
pub enum Stdio {
    /// Opened by the child at this path with these `open(2)` flags.
    Open(CString, i32),
    /// The same as standard output.
    LikeStdout,
}

/// The message by which the child registers with init.
#[derive(Debug, Clone, Copy)]
pub struct Register<'a> {
    /// Connected socket to init.
    pub socket: BorrowedFd<'a>,
    /// The message; the child writes its pid at `pid_at`, little-endian.
    pub message: [u8; 64],
    /// Where the pid goes.
    pub pid_at: usize,
    /// Descriptors to hold; -1 marks an empty place and ends the list.
    pub fds: [RawFd; 3],
}

/// Where the start is claimed.
#[derive(Debug)]
pub struct Claim {
    /// A fresh name for the claim itself.
    pub temporary: CString,
    /// The name that exactly one claimant gets.
    pub decision: CString,
    /// First part of the content; the child appends `PID PIDFS START\n`.
    pub prefix: Vec<u8>,
}

/// Everything a child needs.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Programs to try, in order; the next one after `ENOENT`, `ENOTDIR` or `EACCES`.
    pub programs: Vec<CString>,
    /// Argument vector.
    pub argv: Vec<CString>,
    /// Environment.
    pub env: Vec<CString>,
    /// Working directory.
    pub cwd: CString,
    /// Descriptors 0, 1, 2.
    pub stdio: [Stdio; 3],
    /// User, group, supplementary groups.
    pub user: Option<(u32, u32, Vec<u32>)>,
    /// File creation mask.
    pub umask: Option<u32>,
    /// Resource, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Niceness.
    pub nice: Option<i32>,
    /// Text for `/proc/self/oom_score_adj`.
    pub oom_score_adj: Option<CString>,
    /// The member list of the control group to be in.
    pub cgroup: Option<CString>,
    /// How to register, if there is an init.
    pub register: Option<Register<'a>>,
    /// Init's process id, to tell a replaced spawner from a dead init.
    pub init: i32,
    /// The start decision.
    pub claim: Claim,
}

/// A started child, past `execve` or on its way to tell why not.
#[derive(Debug)]
pub struct Spawned {
    /// Process id.
    pub pid: i32,
    /// Its descriptor, where the kernel gives one.
    pub pidfd: Option<OwnedFd>,
    /// What failed, if the child said so or was killed before it came to its program.
    pub failed: Option<(Step, i32)>,
}

/// A place to spawn from: a stack for the child and the pipe it reports through. One per thread.
#[derive(Debug)]
pub struct Spawner {
    stack: *mut libc::c_void,
    report_read: OwnedFd,
    report_write: OwnedFd,
    /// Whether `close_range(2)` can give a child a table of its own.
    detaches: bool,
    /// Whether a process can be told from others by its inode in pidfs.
    has_pidfs: bool,
}

// SAFETY: the mapping belongs to the spawner alone, and is touched only by the child of a `spawn` that waits
// for it.
unsafe impl Send for Spawner {}

const STACK_BYTES: usize = 128 * 1024;

/// Longest time between a dying init's last message and its children's new parent, in milliseconds.
const INIT_DIES_MS: u32 = 200;

/// What the child sees: pointers into the plan, resolved before the clone.
struct Child<'a> {
    plan: &'a Plan<'a>,
    argv: Vec<*const libc::c_char>,
    /// `/bin/sh`, a place for the program, and the arguments: for a script without `#!`.
    shell_argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    report: RawFd,
    mask: libc::sigset_t,
    needs_start_time: bool,
    decision_fd: RawFd,
    /// Set by the child right before its first `execve`. It writes into the memory that it shares with the
    /// parent: a child that was killed on its way, perhaps before init ever heard of it, leaves it unset.
    executing: bool,
    /// The descriptors from this number on do not go along; `None`: the table was copied as a whole.
    detach_from: Option<libc::c_uint>,
}

impl Spawner {
    /// Prepares the stack and the pipe.
    pub fn new() -> io::Result<Self> {
        let (report_read, report_write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)?;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice.
        let stack = unsafe {
            libc::mmap(
                ptr::null_mut(),
                STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if stack == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { stack, report_read, report_write, detaches: can_detach(), has_pidfs: pidfs_exists() })
    }

    /// Starts a child of our parent. The calling thread waits until the child has executed or ended.
    pub fn spawn(&self, plan: &Plan<'_>) -> io::Result<Spawned> {
        let pointers =
            |list: &[CString]| -> Vec<_> { list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect() };
        let mut shell_argv = vec![c"/bin/sh".as_ptr(), ptr::null()];
        shell_argv.extend(pointers(plan.argv.get(1..).unwrap_or_default()));
        let mut child = Child {
            plan,
            argv: pointers(&plan.argv),
            shell_argv,
            env: pointers(&plan.env),
            report: self.report_write.as_raw_fd(),
            // SAFETY: all-zero is the empty set on Linux.
            mask: unsafe { std::mem::zeroed() },
            needs_start_time: !self.has_pidfs,
            decision_fd: -1,
            executing: false,
            detach_from: self.detaches.then(|| {
                let socket = plan.register.as_ref().map_or(2, |register| register.socket.as_raw_fd());
                libc::c_uint::try_from(socket.max(self.report_write.as_raw_fd()) + 1).unwrap_or(3)
            }),
        };
        let files = if child.detach_from.is_some() { libc::CLONE_FILES } else { 0 };
        let mut pidfd: RawFd = -1;
        // SAFETY: the stack is ours, large enough, and grows down from its end; the child runs `start` on
        // `child`, which outlives it because CLONE_VFORK suspends this thread until it has executed or
        // ended. Signals are blocked around it so that no handler of ours runs on shared memory.
        let pid = unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT | libc::SIGCHLD | files;
            let top = self.stack.byte_add(STACK_BYTES);
            let argument: *mut Child<'_> = &raw mut child;
            let mut pid = libc::clone(start, top, flags | libc::CLONE_PIDFD, argument.cast(), &raw mut pidfd);
            let error = io::Error::last_os_error();
            if pid < 0 && matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM)) {
                pid = libc::clone(start, top, flags, argument.cast());
            }
            let error = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
            if pid < 0 {
                return Err(error);
            }
            pid
        };
        // SAFETY: set by the kernel when CLONE_PIDFD worked, and nobody else's.
        let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
        // SAFETY: a local that the child, now gone from this memory, may have written to.
        let executing = unsafe { ptr::read_volatile(&raw const child.executing) };
        let killed = (!executing).then_some((Step::Killed, 0));
        Ok(Spawned { pid, pidfd, failed: self.read_report().or(killed) })
    }

    fn read_report(&self) -> Option<(Step, i32)> {
        let mut report = [0_u8; 8];
        match rustix::io::read(&self.report_read, &mut report) {
            Ok(8) => Some((
                Step::from_number(report[0]).unwrap_or(Step::Exec),
                i32::from_le_bytes([report[4], report[5], report[6], report[7]]),
            )),
            _ => None,
        }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no child runs on it any more.
        unsafe { libc::munmap(self.stack, STACK_BYTES) };
    }
}

fn pidfs_exists() -> bool {
    super::pidfd::open(rustix::process::getpid().as_raw_nonzero().get())
        .is_ok_and(|fd| super::identity::pidfs_inode(&fd) != 0)
}

/// Whether the kernel knows `close_range(2)`, and lets us use it. Asked in a way that changes nothing.
fn can_detach() -> bool {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: no descriptor has this number.
    unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, flags) == 0 }
}

/// The child's whole life before `execve`.
extern "C" fn start(argument: *mut libc::c_void) -> libc::c_int {
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
                check(Step::Groups, libc::setgroups(groups.len(), groups.as_ptr()))?;
                check(Step::Group, libc::setgid(*gid))?;
                check(Step::User, libc::setuid(*uid))?;
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

/// A line of text in a fixed buffer.
struct Line {
    bytes: [u8; 192],
    len: usize,
}

impl Line {
    const fn new() -> Self {
        Self { bytes: [0; 192], len: 0 }
    }

    fn push(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }
}

/// Field 22 of `/proc/self/stat`, without allocation; 0 if it cannot be read.
fn own_start_ticks() -> u64 {
    let mut buffer = [0_u8; 1024];
    // SAFETY: reads into local memory.
    let length = unsafe {
        let fd = libc::open(c"/proc/self/stat".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return 0;
        }
        let length = libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len());
        libc::close(fd);
        usize::try_from(length).unwrap_or(0)
    };
    let text = &buffer[..length.min(buffer.len())];
    let Some(end) = text.iter().rposition(|b| *b == b')') else { return 0 };
    let field = text[end..].split(|b| *b == b' ').nth(20).unwrap_or_default();
    field.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit.wrapping_sub(b'0')))
}

/// Searches a program without `/` along a `PATH` value, as `execvp(3)` does.
#[must_use]
pub fn programs(name: &CStr, path: &[u8]) -> Vec<CString> {
    if name.to_bytes().contains(&b'/') {
        return vec![name.to_owned()];
    }
    path.split(|b| *b == b':')
        .filter_map(|dir| {
            let mut full = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
            full.push(b'/');
            full.extend_from_slice(name.to_bytes());
            CString::new(full).ok()
        })
        .collect()
}
