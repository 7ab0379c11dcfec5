//! Small messages with descriptors over sequenced-packet sockets, without allocation.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Most descriptors one message carries.
pub const FDS_MAX: usize = 6;

/// A connected pair, both ends close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message. Never raises `SIGPIPE`; does not wait if `wait` is false (`EAGAIN`).
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>], wait: bool) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What one receive gave.
#[derive(Debug, Default)]
pub struct Received {
    /// Length of the message; 0: the other end is closed.
    pub len: usize,
    /// Descriptors that came with it, in order, close-on-exec.
    pub fds: [Option<OwnedFd>; FDS_MAX],
}

/// Receives one message without waiting. `None`: nothing there.
///
/// If the other end died with unread messages of ours, the kernel reports `ECONNRESET` once, before the
/// messages that the other end had sent. Those count: what was said before a death was said.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut reset = false;
    let message = loop {
        match recvmsg(
            &socket,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(message) => break message,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) if !reset => reset = true,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    };
    let mut received = Received { len: message.bytes, fds: [const { None }; FDS_MAX] };
    let mut slot = 0;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            for fd in fds {
                if let Some(place) = received.fds.get_mut(slot) {
                    *place = Some(fd);
                    slot += 1;
                }
            }
        }
    }
    Ok(Some(received))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_a_death_is_heard_though_the_dead_had_not_read_everything() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, b"never read", &[], false).unwrap();
        send(&theirs, b"first", &[ours.as_fd()], false).unwrap();
        send(&theirs, b"last", &[], false).unwrap();
        drop(theirs);
        let mut buffer = [0; 64];
        let first = receive(&ours, &mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..first.len], b"first");
        assert!(first.fds[0].is_some());
        let last = receive(&ours, &mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..last.len], b"last");
        assert_eq!(receive(&ours, &mut buffer).unwrap().unwrap().len, 0);
    }
}
