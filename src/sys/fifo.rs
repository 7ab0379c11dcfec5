//! Named FIFOs, which carry a run's output.
//!
//! What the kernel promises: bytes wait in the pipe as long as anybody has either end open. A reader that
//! opens with `O_NONBLOCK` never waits for a writer. Hang-up is reported when the last writer has gone, and
//! not before a first one came after the reader's open; a read on an empty pipe without writers gives 0,
//! and with writers `EAGAIN`, whenever the reader came.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, CWD, FileType, Mode, OFlags};

/// Makes a FIFO. `mode` is subject to the umask.
pub fn create(path: &Path, mode: u32) -> io::Result<()> {
    Ok(fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(mode), 0)?)
}

/// Opens the reading end, non-blocking. Fails with `InvalidInput` if `path` is no FIFO.
pub fn open_read(path: &Path) -> io::Result<OwnedFd> {
    open(path, OFlags::RDONLY | OFlags::NONBLOCK)
}

/// Opens both ends at once, as a job does: it can neither lose its reader nor wait for one.
pub fn open_both(path: &Path) -> io::Result<OwnedFd> {
    open(path, OFlags::RDWR)
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let fd = fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    if FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) != FileType::Fifo {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO"));
    }
    Ok(fd)
}

/// Bytes waiting in the pipe.
pub fn queued(fifo: impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(fifo)?)
}

/// Bytes the pipe can hold.
pub fn capacity(fifo: impl AsFd) -> io::Result<usize> {
    Ok(rustix::pipe::fcntl_getpipe_size(fifo)?)
}

/// Asks for a capacity and returns the one that was granted: an unprivileged user has a quota over all pipes.
pub fn set_capacity(fifo: impl AsFd, bytes: usize) -> io::Result<usize> {
    Ok(rustix::pipe::fcntl_setpipe_size(fifo, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_while_somebody_holds_the_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        create(&path, 0o600).unwrap();
        let reader = open_read(&path).unwrap();
        let mut buf = [0u8; 8];
        assert_eq!(rustix::io::read(&reader, &mut buf).unwrap(), 0);
        let job = open_both(&path).unwrap();
        assert_eq!(rustix::io::read(&reader, &mut buf), Err(rustix::io::Errno::AGAIN));
        rustix::io::write(&job, b"abc").unwrap();
        drop(job);
        let again = open_read(&path).unwrap();
        drop(reader);
        assert_eq!(queued(&again).unwrap(), 3);
        assert!(set_capacity(&again, 256 * 1024).unwrap() <= capacity(&again).unwrap());
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        crate::sys::disk::create_new(&path, 0o600).unwrap();
        assert_eq!(open_read(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
