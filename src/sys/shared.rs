//! A fixed table in a memory file: it outlives `execve` of the process that made it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::MemfdFlags;

/// Marks types that are valid for every bit pattern, zero included, and own nothing.
///
/// # Safety
///
/// Implement it only for `repr(C)` structures of plain integers.
pub unsafe trait Plain: Sized {}

/// Declares a `repr(C)` structure of plain integers as [`Plain`].
macro_rules! plain_data {
    ($type:ty) => {
        #[allow(unsafe_code, reason = "the promise of `Plain`, made by the type's author")]
        // SAFETY: the type is `repr(C)`, made of integers only, and owns nothing.
        unsafe impl $crate::sys::shared::Plain for $type {}
    };
}
pub(crate) use plain_data;

/// One `T`, mapped from a memory file.
#[derive(Debug)]
pub struct Shared<T: Plain> {
    fd: OwnedFd,
    at: *mut T,
}

impl<T: Plain> Shared<T> {
    /// A new one, all zero. Pages that are never touched cost nothing.
    pub fn new(name: &str) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, u64::try_from(size_of::<T>()).unwrap_or(0))?;
        Self::map(fd)
    }

    /// Maps one that an earlier image of this process has left.
    pub fn map(fd: OwnedFd) -> io::Result<Self> {
        if usize::try_from(rustix::fs::fstat(&fd)?.st_size) != Ok(size_of::<T>()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the table has another size"));
        }
        // SAFETY: a shared mapping of our own file with the length just checked.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { fd, at: at.cast() })
    }

    /// The descriptor, to be kept open over `execve`.
    #[must_use]
    pub fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

impl<T: Plain> std::ops::Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: mapped with this size, page-aligned, valid for every bit pattern, and only this process
        // has the file.
        unsafe { &*self.at }
    }
}

impl<T: Plain> std::ops::DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { &mut *self.at }
    }
}

impl<T: Plain> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length.
        unsafe { libc::munmap(self.at.cast(), size_of::<T>()) };
    }
}

/// Takes over a descriptor by its number.
///
/// # Errors
///
/// `EBADF` if nothing is open there. The caller must know that nothing else owns it: it is meant for
/// descriptors that an earlier image of this process, or the parent, left open at an agreed number.
pub fn inherit(number: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: F_GETFD only asks.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    super::exec::set_close_on_exec(number, true);
    // SAFETY: it is open, and by the contract above nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes a descriptor that is kept as a number in a table.
pub fn close(number: i32) {
    if number >= 0 {
        // SAFETY: the table owned it, and forgets it now.
        unsafe { libc::close(number) };
    }
}

/// Borrows a descriptor that is kept as a number in a table.
#[must_use]
pub fn borrow<'a>(number: i32) -> Option<std::os::fd::BorrowedFd<'a>> {
    // SAFETY: tables keep only numbers that they own; the borrow is used for one call.
    (number >= 0).then(|| unsafe { std::os::fd::BorrowedFd::borrow_raw(number) })
}
