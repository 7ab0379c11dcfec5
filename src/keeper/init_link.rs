//! The socket to init.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::core::ids::RunId;
use crate::sys::socket;
use crate::wire::init::{
    BYTES, CHILD, FDS_NOTIFY, FDS_PIDFD, FDS_READY, FDS_STDERR, FDS_STDIN, FDS_STDOUT, HELD, Kind, Message,
};

/// Init, as long as it lives.
#[derive(Debug)]
pub(super) struct InitLink {
    socket: Option<Arc<OwnedFd>>,
    gone: Option<Arc<OwnedFd>>,
    /// Init's process id; it stays known after its death, to tell its heirs apart.
    pub(super) pid: i32,
}

/// A run that init holds, with the descriptors that came along.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pid: i32,
    /// A child of this init: its pid is pinned until we acknowledge its end.
    pub(super) child: bool,
    /// Its end was acknowledged before.
    pub(super) acked: bool,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) notify: Option<OwnedFd>,
    pub(super) ready: Option<OwnedFd>,
    /// The main process of a run that is no child of init.
    pub(super) pidfd: Option<OwnedFd>,
}

impl InitLink {
    pub(super) fn new(socket: Option<OwnedFd>) -> Self {
        let pid = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        Self { socket: socket.map(Arc::new), gone: None, pid }
    }

    /// The socket, for a child to register by. It stays open for it, also when init is gone.
    pub(super) fn share(&self) -> Option<Arc<OwnedFd>> {
        self.socket.clone()
    }

    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_deref().map(AsFd::as_fd)
    }

    /// Init's process id while it lives.
    pub(super) fn alive(&self) -> Option<i32> {
        self.socket.as_ref().map(|_| self.pid)
    }

    /// The descriptor stays open: its low number must not go to another file, which children on their way
    /// would take along.
    pub(super) fn lost(&mut self) {
        self.gone = self.socket.take();
    }

    fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) {
        if let Some(socket) = &self.socket {
            // Init always reads; a failure means that it is gone, which its end of the socket tells.
            let _ = socket::send(socket, &message.encode(), fds, true);
        }
    }

    pub(super) fn ack(&self, run: RunId, pid: i32) {
        self.send(&Message::about(Kind::Ack, run, pid), &[]);
    }

    pub(super) fn release(&self, run: RunId, pid: i32) {
        self.send(&Message::about(Kind::Release, run, pid), &[]);
    }

    pub(super) fn ready(&self) {
        self.send(&Message::new(Kind::Ready), &[]);
    }

    /// The message by which a run is put into escrow; `CHILD` is set for a start.
    pub(super) fn registration(run: RunId, pid: i32, child: bool, held: [bool; HELD]) -> Message {
        let mut message = Message::about(Kind::Register, run, pid);
        message.flags = if child { CHILD } else { 0 };
        let bits = [FDS_STDOUT, FDS_STDERR, FDS_STDIN, FDS_NOTIFY, FDS_READY];
        message.fds = bits.iter().zip(held).filter(|(_, held)| *held).map(|(bit, _)| bit).sum();
        message
    }

    /// Puts an adopted run, no child of this init, into escrow; or renews what is held of any run.
    pub(super) fn hold(
        &self,
        run: RunId,
        pid: i32,
        fds: [Option<BorrowedFd<'_>>; HELD],
        pidfd: Option<BorrowedFd<'_>>,
    ) {
        let mut message = Self::registration(run, pid, false, fds.map(|fd| fd.is_some()));
        message.fds |= if pidfd.is_some() { FDS_PIDFD } else { 0 };
        let [stdout, stderr, stdin, notify, ready] = fds;
        let list = [stdout, stderr, stdin, pidfd, notify, ready];
        let list: Vec<BorrowedFd<'_>> = list.into_iter().flatten().collect();
        self.send(&message, &list);
    }

    /// The next message, without waiting. `Err`: init is gone.
    pub(super) fn next(&self) -> io::Result<Option<(Message, [Option<OwnedFd>; socket::FDS_MAX])>> {
        let Some(socket) = &self.socket else { return Ok(None) };
        let mut buffer = [0; BYTES];
        loop {
            let Some(received) = socket::receive(socket, &mut buffer)? else { return Ok(None) };
            if received.len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(message) = Message::decode(&buffer[..received.len]) {
                return Ok(Some((message, received.fds)));
            }
        }
    }
}

impl Held {
    pub(super) fn from_entry(message: &Message, fds: [Option<OwnedFd>; socket::FDS_MAX]) -> Self {
        let mut came = fds.into_iter().flatten();
        let mut take = |bit: u8| if message.fds & bit == 0 { None } else { came.next() };
        let (stdout, stderr, stdin) = (take(FDS_STDOUT), take(FDS_STDERR), take(FDS_STDIN));
        let (pidfd, notify, ready) = (take(FDS_PIDFD), take(FDS_NOTIFY), take(FDS_READY));
        Self {
            pid: message.pid,
            child: message.flags & CHILD != 0,
            acked: message.flags & crate::wire::init::ACKED != 0,
            stdout,
            stderr,
            stdin,
            notify,
            ready,
            pidfd,
        }
    }
}
