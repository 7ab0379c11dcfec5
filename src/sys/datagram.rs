//! Datagram sockets with names, for messages from many senders to one receiver.
//!
//! What the kernel promises: a datagram comes whole or cut, never mixed with another, in the order of the
//! sends. With `SO_PASSCRED` each carries the process id and user of who sent it; only root can say
//! another's. It stays in the socket until it is taken, whoever holds the socket; how many may wait is
//! `net.unix.max_dgram_qlen` at the time of the bind, then a sender waits, or gets `EAGAIN`. Descriptors in
//! it are open until it is taken.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};

/// Longest path of a socket in bytes: `sun_path` less its final NUL.
const PATH_BYTES_MAX: usize = 107;

/// The name of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A file.
    Path(PathBuf),
    /// A name that is no file and that everybody in the network namespace can send to.
    Abstract(String),
}

impl Address {
    /// This path, or the abstract name where it is too long for a socket.
    #[must_use]
    pub fn path_or(path: PathBuf, name: String) -> Self {
        if path.as_os_str().len() <= PATH_BYTES_MAX { Self::Path(path) } else { Self::Abstract(name) }
    }

    /// As programs expect it in their environment: abstract names begin with `@`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        match self {
            Self::Path(path) => path.as_os_str().as_bytes().to_vec(),
            Self::Abstract(name) => format!("@{name}").into_bytes(),
        }
    }
}

/// Makes a socket with this name that tells who sends, non-blocking. A file is for its owner alone, and
/// replaces one that a dead process left; the directory must keep others away.
pub fn bind(address: &Address) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    // Before it has a name: no message comes without its sender.
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    match address {
        Address::Path(path) => {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
            private(path)?;
        }
        Address::Abstract(name) => {
            rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        }
    }
    Ok(socket)
}

fn private(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600))?)
}

/// The first message of a socket, which stays there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peeked {
    /// Bytes in the buffer.
    pub len: usize,
    /// Whether there were more.
    pub cut: bool,
    /// Who sent it; 0 if that process is not of our pid namespace, or is not known.
    pub pid: i32,
}

/// Looks at the first message without taking it, and without waiting. `None`: there is none. Descriptors
/// that it carries are not opened here.
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<Peeked>> {
    const SPACE: usize = 32;
    // Room for the sender, and for nothing else: descriptors find no place.
    #[repr(align(8))]
    struct Control([u8; SPACE]);
    let mut control = Control([0; SPACE]);
    // SAFETY: all pointers are to local memory of the lengths that are given; the header is read only as
    // far as the kernel says that it wrote.
    unsafe {
        let credentials = u32::try_from(size_of::<libc::ucred>()).unwrap_or(0);
        let space = libc::CMSG_SPACE(credentials) as usize;
        if space > SPACE {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let len = loop {
            header.msg_controllen = space as _;
            let len = libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags);
            if let Ok(len) = usize::try_from(len) {
                break len;
            }
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                error => return Err(error),
            }
        };
        let mut pid = 0;
        let part = libc::CMSG_FIRSTHDR(&raw const header);
        if !part.is_null()
            && (*part).cmsg_level == libc::SOL_SOCKET
            && (*part).cmsg_type == libc::SCM_CREDENTIALS
        {
            pid = libc::CMSG_DATA(part).cast::<libc::ucred>().read_unaligned().pid;
        }
        Ok(Some(Peeked { len, cut: header.msg_flags & libc::MSG_TRUNC != 0, pid }))
    }
}

/// Takes the first message away, and closes the descriptors in it.
pub fn take(socket: impl AsFd) -> io::Result<()> {
    loop {
        match rustix::net::recv(&socket, &mut [0_u8; 0][..], RecvFlags::DONTWAIT) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_message_stays_until_it_is_taken_and_tells_who_sent_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let ours = bind(&Address::Path(path.clone())).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        for text in ["", "one", "a longer one"] {
            sender.send_to(text.as_bytes(), &path).unwrap();
        }
        let pid = std::process::id().cast_signed();
        let mut buffer = [0; 4];
        for (text, cut) in [("", false), ("one", false), ("a lo", true)] {
            for _ in 0..2 {
                let peeked = peek(&ours, &mut buffer).unwrap();
                assert_eq!(peeked, Some(Peeked { len: text.len(), cut, pid }), "{text}");
                assert_eq!(&buffer[..text.len()], text.as_bytes());
            }
            take(&ours).unwrap();
        }
        assert_eq!(peek(&ours, &mut buffer).unwrap(), None);
    }

    #[test]
    fn descriptors_in_a_message_are_closed_when_it_is_taken_and_never_opened_here() {
        use std::io::Read;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let ours = bind(&Address::Path(path.clone())).unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        socket::send(&sender, b"BARRIER=1", &[writer.as_fd()], false).unwrap();
        drop(writer);
        let mut buffer = [0; 64];
        assert!(peek(&ours, &mut buffer).unwrap().is_some());
        take(&ours).unwrap();
        // Ends only when nobody holds the other end any more.
        assert_eq!(reader.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_path_that_is_too_long_gets_a_name_that_is_no_file() {
        let name = format!("outlive-test-{}", std::process::id());
        let address = Address::path_or(PathBuf::from("/".repeat(108)), name.clone());
        assert_eq!(address.to_bytes(), format!("@{name}").into_bytes());
        let ours = bind(&address).unwrap();
        assert!(bind(&address).is_err(), "it is taken");
        drop(ours);
        bind(&address).unwrap();
    }
}
