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
//! 3. control group, descriptors 0 to 2 and perhaps one more, limits, niceness;
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

mod child;
mod text;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use child::{Child, start};

pub(super) use child::become_user;

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
    pub fds: [RawFd; 5],
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
    /// A path that is opened for reading and writing at this number, which is above 2.
    pub extra: Option<(CString, RawFd)>,
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
