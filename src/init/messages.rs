//! What init and the two roles say to each other.
//!
//! Nothing here waits: what the keeper's socket has no room for is told when it has, and the supervisor
//! is told again by the next one's start.

use std::os::fd::{IntoRawFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::root::{FREE_FROM, KEEPER, Root};
use super::table::{FREE, REAPED, TOLD, ZOMBIE};
use crate::sys::shared::{borrow, close};
use crate::sys::{reap, socket};
use crate::wire::init::{
    ACKED, BYTES, CHILD, FDS_NOTIFY, FDS_PIDFD, FDS_READY, FDS_STDERR, FDS_STDIN, FDS_STDOUT, Kind, Message,
};

/// To the roles.
impl Root {
    /// Passes on what operators' signals asked for. A shutdown is told to every supervisor there is until
    /// the instance has ended; a reload once.
    pub(super) fn tell_supervisor(&mut self) {
        let Some(fd) = borrow(self.table.supervisor.socket) else { return };
        if self.table.shutdown_asked == 1 {
            let _ = socket::send(fd, &Message::new(Kind::Shutdown).encode(), &[], false);
        }
        if self.table.reload_asked == 1
            && socket::send(fd, &Message::new(Kind::Reload).encode(), &[], false).is_ok()
        {
            self.table.reload_asked = 0;
        }
    }

    /// Tells the keeper everything it has not been told: what is held, then what has ended. When its
    /// socket is full the rest waits until it is writable.
    pub(super) fn tell_keeper(&mut self) {
        let Some(fd) = borrow(self.table.keeper.socket) else { return };
        let mut full = false;
        for index in 0..self.table.slots().len() {
            let slot = &mut self.table.slots[index];
            if slot.state == FREE {
                continue;
            }
            if slot.listed == 0 {
                let mut message = Message::about(Kind::Entry, slot.run_id(), slot.pid);
                message.flags =
                    if slot.child == 1 { CHILD } else { 0 } | if slot.state == REAPED { ACKED } else { 0 };
                let pidfd = if slot.child == 1 { -1 } else { slot.pidfd };
                message.fds = slot.held | if pidfd < 0 { 0 } else { FDS_PIDFD };
                let [stdout, stderr, stdin, notify, ready] = slot.fds;
                let held = [stdout, stderr, stdin, pidfd, notify, ready].map(borrow);
                let mut list = [fd; socket::FDS_MAX];
                let mut count = 0;
                for one in held.into_iter().flatten() {
                    list[count] = one;
                    count += 1;
                }
                if socket::send(fd, &message.encode(), &list[..count], false).is_err() {
                    full = true;
                    break;
                }
                slot.listed = 1;
            }
        }
        if !full && self.table.keeper_has_list == 0 {
            full = socket::send(fd, &Message::new(Kind::EntriesEnd).encode(), &[], false).is_err();
            self.table.keeper_has_list = u8::from(!full);
        }
        if !full {
            for index in 0..self.table.slots().len() {
                if self.table.slots[index].state == ZOMBIE && !self.tell_ended(index) {
                    full = true;
                    break;
                }
            }
        }
        let flags = if full { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        let _ = epoll::modify(&self.epoll, fd, EventData::new_u64(KEEPER), flags);
    }

    /// Tells the keeper how a run ended. False if its socket is full.
    pub(super) fn tell_ended(&mut self, index: usize) -> bool {
        let Some(fd) = borrow(self.table.keeper.socket) else { return true };
        let slot = &mut self.table.slots[index];
        let mut message = Message::about(Kind::Exited, slot.run_id(), slot.pid);
        message.code = slot.code;
        message.status = slot.status;
        message.user_us = u64::from(slot.user_ms) * 1000;
        message.system_us = u64::from(slot.system_ms) * 1000;
        message.max_rss_kib = u64::from(slot.max_rss_kib);
        let told = socket::send(fd, &message.encode(), &[], false).is_ok();
        if told {
            slot.state = TOLD;
        }
        told
    }
}

/// From the roles.
impl Root {
    pub(super) fn read_keeper(&mut self) {
        let mut buffer = [0; BYTES];
        while let Some(fd) = borrow(self.table.keeper.socket) {
            match socket::receive(fd, &mut buffer) {
                Ok(Some(received)) if received.len > 0 => {
                    if let Some(message) = Message::decode(&buffer[..received.len]) {
                        self.hear_keeper(&message, received.fds);
                    }
                }
                Ok(None) => return,
                // Closed: its death is or will be seen by its pid.
                Ok(Some(_)) | Err(_) => {
                    let _ = epoll::delete(&self.epoll, fd);
                    return;
                }
            }
        }
    }

    pub(super) fn hear_keeper(&mut self, message: &Message, fds: [Option<OwnedFd>; socket::FDS_MAX]) {
        match message.kind {
            Kind::Register => {
                let mut came = fds.into_iter().flatten();
                let mut take = |bit: u8| if message.fds & bit == 0 { None } else { came.next() };
                let [stdout, stderr, stdin] = [FDS_STDOUT, FDS_STDERR, FDS_STDIN].map(&mut take);
                let [pidfd, notify, ready] = [FDS_PIDFD, FDS_NOTIFY, FDS_READY].map(take);
                let fds = [stdout, stderr, stdin, notify, ready];
                let child = message.flags & CHILD != 0;
                let held = message.fds & !FDS_PIDFD;
                if let Some(index) = self.table.hold(message.run, message.pid, child, held, fds) {
                    if let Some(pidfd) = pidfd
                        && self.table.slots[index].child == 0
                    {
                        close(self.table.slots[index].pidfd);
                        self.table.slots[index].pidfd = pidfd.into_raw_fd();
                    }
                    self.watch_slot(index);
                }
            }
            Kind::Ack => {
                if let Some(index) = self.table.find_run(message.run) {
                    let slot = &mut self.table.slots[index];
                    if matches!(slot.state, ZOMBIE | TOLD) {
                        slot.state = REAPED;
                        let _ = reap::reap(slot.pid);
                        close(slot.pidfd);
                        slot.pidfd = -1;
                        self.reap();
                    }
                }
            }
            Kind::Release => {
                if let Some(index) = self.table.find_run(message.run)
                    && (self.table.slots[index].state == REAPED || self.table.slots[index].child == 0)
                {
                    self.table.free(index);
                }
            }
            Kind::Ready => self.table.keeper.account.ready(),
            _ => {}
        }
    }

    pub(super) fn read_supervisor(&mut self) {
        let mut buffer = [0; BYTES];
        while let Some(fd) = borrow(self.table.supervisor.socket) {
            match socket::receive(fd, &mut buffer) {
                Ok(Some(received)) if received.len > 0 => {
                    if let Some(message) = Message::decode(&buffer[..received.len]) {
                        self.hear_supervisor(&message, received.fds);
                    }
                }
                Ok(None) => return,
                Ok(Some(_)) | Err(_) => {
                    let _ = epoll::delete(&self.epoll, fd);
                    return;
                }
            }
        }
    }

    pub(super) fn hear_supervisor(&mut self, message: &Message, fds: [Option<OwnedFd>; socket::FDS_MAX]) {
        match message.kind {
            Kind::Ready => self.table.supervisor.account.ready(),
            Kind::Hold => {
                let fd = fds.into_iter().flatten().next();
                let slot = usize::try_from(message.status).ok().and_then(|n| self.table.held.get_mut(n));
                if let (Some(fd), Some(slot)) = (fd, slot)
                    && let Ok(moved) = rustix::io::fcntl_dupfd_cloexec(&fd, FREE_FROM)
                {
                    close(*slot);
                    *slot = moved.into_raw_fd();
                }
            }
            Kind::Exit => {
                self.table.ending = 1;
                self.table.exit_code = u8::try_from(message.status).unwrap_or(1);
                self.begin_end();
            }
            Kind::Reexec => self.execute_again(),
            _ => {}
        }
    }
}
