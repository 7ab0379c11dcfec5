//! Process descriptors: the only way anything here sends a signal.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `PIDFD_SIGNAL_PROCESS_GROUP` (Linux 6.9): the group led by this very process, also after it was
/// reaped; `ESRCH` if the number has been reused.
const SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// `_IOWR(0xFF, 11, struct pidfd_info)` with the 64-byte first version of the structure.
const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info` as of Linux 6.13.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup_id: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

/// Opens a descriptor for a process, also for a zombie.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a non-negative result is a descriptor nobody else owns.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: just returned by the kernel; pidfds are close-on-exec from birth.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send(pidfd: impl AsFd, signal: i32, flags: libc::c_uint) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open; a null siginfo is allowed.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), flags)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Signals the process; signal 0 only asks whether it is there.
pub fn signal(pidfd: impl AsFd, number: i32) -> io::Result<()> {
    send(pidfd, number, 0)
}

/// Signals the process group that this process leads or led. `EINVAL` before Linux 6.9.
pub fn signal_group(pidfd: impl AsFd, number: i32) -> io::Result<()> {
    send(pidfd, number, SIGNAL_PROCESS_GROUP)
}

/// The wait status of a process that has been reaped by whoever is its parent, if this descriptor was
/// opened before that and the kernel keeps it (Linux 6.15). `None`: not reaped yet, or not known.
#[must_use]
pub fn exit_status(pidfd: impl AsFd) -> Option<i32> {
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // SAFETY: the structure is as long as the request number says and outlives the call.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Whether the process has ended (it may be a zombie).
#[must_use]
pub fn has_ended(pidfd: impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(n) if n > 0)
}

/// Waits until the process has ended, at most this many milliseconds. True if it has.
#[must_use]
pub fn wait_ended(pidfd: impl AsFd, timeout_ms: u32) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let until = super::clock::boot_us() + u64::from(timeout_ms) * 1000;
    loop {
        let left = until.saturating_sub(super::clock::boot_us());
        let spec = Timespec {
            tv_sec: i64::try_from(left / 1_000_000).unwrap_or(0),
            tv_nsec: i64::try_from(left % 1_000_000).unwrap_or(0) * 1000,
        };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&spec)) {
            Ok(n) => return n > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
