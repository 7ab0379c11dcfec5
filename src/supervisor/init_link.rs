//! The socket to init.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::mpsc;

use crate::sys::{shared, socket};
use crate::wire::init::{BYTES, Kind, Message};

/// The number at which init left our socket.
const ROLE_SOCKET: i32 = 3;
/// The numbers at which init left what our predecessor had held: slot 0, slot 1.
const HELD: i32 = 4;

/// What init tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FromInit {
    /// An operator's signal: end the instance.
    Shutdown,
    /// An operator's signal: read the configuration again.
    Reload,
    /// Init has died.
    Gone,
}

/// Our end.
#[derive(Debug)]
pub(super) struct InitLink {
    socket: Option<OwnedFd>,
    /// Its process id, while it lives.
    pub(super) pid: Option<i32>,
}

/// Takes what init left open for us. Call once, before any descriptor is opened.
pub(super) fn inherit() -> (InitLink, [Option<OwnedFd>; 2]) {
    let socket = shared::inherit(ROLE_SOCKET).ok();
    let held = [shared::inherit(HELD).ok(), shared::inherit(HELD + 1).ok()];
    let pid = socket.as_ref().and_then(|_| rustix::process::getppid()).map(|pid| pid.as_raw_nonzero().get());
    (InitLink { socket, pid }, held)
}

impl InitLink {
    /// Sends a message; init always reads.
    pub(super) fn send(&self, message: &Message, held: Option<&OwnedFd>) {
        if let Some(socket) = &self.socket {
            let fds: Vec<_> = held.into_iter().map(AsFd::as_fd).collect();
            // The descriptor does not wait, because the listening side shares it; init reads all the time.
            while let Err(error) = socket::send(socket, &message.encode(), &fds, true) {
                if error.kind() != io::ErrorKind::WouldBlock {
                    break;
                }
                let _ = poll(&mut [PollFd::new(socket, PollFlags::OUT)], None);
            }
        }
    }

    /// Tells that the instance is over, and with which exit code.
    pub(super) fn end_instance(&self, keep_jobs: bool, code: u8) {
        let mut message = Message::new(Kind::Exit);
        message.status = i32::from(code);
        message.code = i32::from(keep_jobs);
        self.send(&message, None);
    }

    /// Asks init to hold a descriptor for our successor.
    pub(super) fn hold(&self, slot: i32, fd: &OwnedFd) {
        let mut message = Message::new(Kind::Hold);
        message.status = slot;
        self.send(&message, Some(fd));
    }

    /// Listens; must be called inside the runtime.
    pub(super) fn listen(&self) -> io::Result<mpsc::Receiver<FromInit>> {
        let (tell, news) = mpsc::channel(16);
        let Some(socket) = &self.socket else { return Ok(news) };
        // Nothing that init sends carries descriptors, so a datagram socket's reads do.
        let socket = std::os::unix::net::UnixDatagram::from(socket.try_clone()?);
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UnixDatagram::from_std(socket)?;
        tokio::spawn(async move {
            loop {
                let mut buffer = [0; BYTES];
                let said = match socket.recv(&mut buffer).await {
                    Ok(length) if length > 0 => {
                        match Message::decode(&buffer[..length]).map(|message| message.kind) {
                            Some(Kind::Shutdown) => FromInit::Shutdown,
                            Some(Kind::Reload) => FromInit::Reload,
                            _ => continue,
                        }
                    }
                    Ok(_) | Err(_) => FromInit::Gone,
                };
                if tell.send(said).await.is_err() || said == FromInit::Gone {
                    return;
                }
            }
        });
        Ok(news)
    }
}
