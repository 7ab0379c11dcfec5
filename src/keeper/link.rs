//! The connections of supervisors: frames in, frames out, never waiting for anybody.
//!
//! There is one supervisor at a time, but an old one that was stopped and goes on may still be
//! connected: each connection has the generation that its `Hello` named, and anything but the newest is
//! refused. The newest generation is kept in a file of the runtime directory, because a keeper that was
//! replaced must not forget it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    recv, send, socket_with,
};

use crate::core::ids::{Generation, RunId};
use crate::wire::frame::{self, Decoder};
use crate::wire::keeper::{FromKeeper, Numbered};

/// Connections at once. One supervisor and its predecessor need two; the rest is refused.
const CONNECTIONS_MAX: usize = 16;

/// Bytes that may wait for a supervisor that does not read. Then it is cut off: it will ask for the
/// inventory when it comes back, and nothing is lost.
const WAITING_MAX: usize = 64 * 1024 * 1024;

/// One connected supervisor.
#[derive(Debug)]
pub(super) struct Connection {
    fd: OwnedFd,
    decoder: Decoder,
    out: Vec<u8>,
    /// Bytes of `out` that are on their way.
    sent: usize,
    /// What its `Hello` said.
    pub(super) generation: Option<Generation>,
    /// The version that its `Hello` named; 0 before that.
    pub(super) version: u32,
    /// Runs whose words it is to be told when it has read what waits for it. They are not queued up: a run
    /// that talks a lot must not have a slow supervisor cut off.
    pub(super) untold: BTreeSet<RunId>,
    /// It said that it goes away on purpose.
    pub(super) goodbye: bool,
}

/// What reading gave.
pub(super) enum Incoming {
    /// Requests, in order.
    Requests(Vec<Numbered>),
    /// The connection has ended, or sent what is no frame; requests before that still count.
    Closed(Vec<Numbered>),
}

/// All connections, by a number that is never reused.
#[derive(Debug)]
pub(super) struct Links {
    listener: OwnedFd,
    connections: BTreeMap<u64, Connection>,
    next: u64,
}

impl Links {
    /// Listens at `path`, replacing what a dead keeper left there. The caller holds the keeper's lock.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        bind(&listener, &SocketAddrUnix::new(path)?)?;
        listen(&listener, 16)?;
        Ok(Self { listener, connections: BTreeMap::new(), next: 0 })
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes one waiting connection whose peer has our uid (or is root); its number.
    pub(super) fn accept(&mut self) -> Option<u64> {
        let fd = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&fd).ok()?;
        let allowed = peer.uid.is_root() || peer.uid == rustix::process::geteuid();
        if !allowed || self.connections.len() >= CONNECTIONS_MAX {
            return None;
        }
        self.next += 1;
        self.connections.insert(
            self.next,
            Connection {
                fd,
                decoder: Decoder::default(),
                out: Vec::new(),
                sent: 0,
                generation: None,
                version: 0,
                untold: BTreeSet::new(),
                goodbye: false,
            },
        );
        Some(self.next)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Connection> {
        self.connections.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&number)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Connection> {
        self.connections.remove(&number)
    }

    /// The numbers of all connections that said a generation of at least `newest`.
    pub(super) fn current(&self, newest: Generation) -> Vec<u64> {
        let speaks = |c: &Connection| c.generation.is_some_and(|g| g >= newest) && !c.goodbye;
        self.connections.iter().filter(|(_, c)| speaks(c)).map(|(number, _)| *number).collect()
    }

    /// Process ids of the connected supervisors.
    pub(super) fn peers(&self) -> Vec<i32> {
        self.connections
            .values()
            .filter_map(|c| rustix::net::sockopt::socket_peercred(&c.fd).ok())
            .map(|peer| peer.pid.as_raw_nonzero().get())
            .collect()
    }
}

impl Connection {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether bytes wait for the socket to take them.
    pub(super) fn is_behind(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Reads what is there.
    pub(super) fn read(&mut self) -> Incoming {
        let mut requests = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Incoming::Closed(requests),
                Ok((_, n)) => self.decoder.feed(&buffer[..n]),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => return Incoming::Requests(requests),
                Err(_) => return Incoming::Closed(requests),
            }
            loop {
                match self.decoder.take() {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(_) => return Incoming::Closed(requests),
                }
            }
        }
    }

    /// Queues a message and sends what the socket takes. False: cut this connection off.
    pub(super) fn say(&mut self, message: &FromKeeper) -> bool {
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        frame::encode(message, &mut self.out).is_ok()
            && self.flush()
            && self.out.len() - self.sent <= WAITING_MAX
    }

    /// Sends what the socket takes. False: the connection is broken.
    pub(super) fn flush(&mut self) -> bool {
        while self.sent < self.out.len() {
            match send(&self.fd, &self.out[self.sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(n) => self.sent += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}
