//! What a helper thread asks of the kernel for itself.

#![allow(unsafe_code, reason = "pthread_sigmask and ioprio_set have no safe wrapper among our dependencies")]

use std::io;

/// Blocks every signal in the calling thread, so that signals meant for the process reach the thread that
/// waits for them, and so that a file size limit is an error (`EFBIG`) rather than a death by `SIGXFSZ`.
pub fn block_signals() -> io::Result<()> {
    // SAFETY: `set` is a plain value that sigfillset fills before it is read; a null old set is allowed.
    let result = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Gives the calling thread the lowest ordinary priority (nice 19); the rest of the process keeps its own.
pub fn lower_priority() -> io::Result<()> {
    Ok(rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19)?)
}

/// Lets the calling thread use a disk only when nobody else does, where the kernel's scheduler knows of that.
pub fn idle_disk() -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: three plain numbers; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_lowers_itself_alone() {
        let before = rustix::process::getpriority_process(None).unwrap();
        std::thread::spawn(|| {
            super::block_signals().unwrap();
            super::lower_priority().unwrap();
            super::idle_disk().unwrap();
            assert_eq!(rustix::process::getpriority_process(None).unwrap(), 19);
        })
        .join()
        .unwrap();
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
