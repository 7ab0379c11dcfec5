//! Deaths: of runs, which stay zombies until the keeper has recorded them, of orphans, which are reaped at
//! once, and of the two roles, which are started again.

use super::root::Root;
use super::table::LIVE;
use crate::sys::shared::{borrow, close};
use crate::sys::{clock, reap};

/// Supervisor deaths in a row after which a shutdown is init's own affair.
const GIVE_UP_DEATHS: u32 = 5;

impl Root {
    /// A pidfd says that this slot's process has ended.
    pub(super) fn look_at(&mut self, index: usize) {
        let Some(slot) = self.table.slots.get(index).copied() else { return };
        if slot.state == LIVE
            && slot.child == 1
            && let Ok(Some(ended)) = reap::peek(slot.pid)
            && self.table.ended(index, &ended)
            // A keeper that has not been told of the run yet would make nothing of its end.
            && (self.table.keeper_has_list == 0 || !self.tell_ended(index))
        {
            self.tell_keeper();
        }
    }

    pub(super) fn reap(&mut self) {
        self.bury_roles();
        // Children whose kernel gives no pidfd are asked one by one.
        for index in 0..self.table.slots().len() {
            let slot = &self.table.slots[index];
            if slot.state == LIVE && slot.child == 1 && slot.pidfd < 0 {
                self.look_at(index);
            }
        }
        while let Ok(Some(ended)) = reap::peek_any() {
            if ended.pid == self.table.keeper.pid || ended.pid == self.table.supervisor.pid {
                self.bury_roles();
                continue;
            }
            // A registration may still wait in the socket; only after reading it is a child a stranger.
            if self.table.find_child(ended.pid).is_none() {
                self.read_keeper();
            }
            match self.table.find_child(ended.pid) {
                // It stays a zombie until the keeper has recorded it, and hides whatever ended after it
                // that has no pidfd here. That is looked at again when it has been reaped.
                Some(index) => {
                    self.look_at(index);
                    return;
                }
                None => {
                    let _ = reap::reap(ended.pid);
                }
            }
        }
    }

    pub(super) fn bury_roles(&mut self) {
        let now = clock::boot_us();
        let pid = self.table.keeper.pid;
        if pid != 0 && matches!(reap::peek(pid), Ok(Some(_)) | Err(_)) {
            let _ = reap::reap(pid);
            // Nothing more may be sent to us from here on; what was sent is read. See the module.
            if let Some(fd) = borrow(self.table.keeper.socket) {
                let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Read);
                self.read_keeper();
            }
            close(self.table.keeper.socket);
            let due = self.table.keeper.account.died(now);
            self.table.keeper.socket = -1;
            self.table.keeper.pid = 0;
            self.table.keeper.due_us = due.max(1);
            self.table.keeper_is_new();
        }
        let pid = self.table.supervisor.pid;
        if pid != 0 && matches!(reap::peek(pid), Ok(Some(_)) | Err(_)) {
            // What it said last counts: it may have said that the instance is over.
            self.read_supervisor();
            let _ = reap::reap(pid);
            close(self.table.supervisor.socket);
            self.table.supervisor.socket = -1;
            self.table.supervisor.pid = 0;
            self.table.supervisor.due_us = self.table.supervisor.account.died(now);
            if self.table.shutdown_asked == 1
                && self.table.supervisor.account.failed_starts() >= GIVE_UP_DEATHS
            {
                self.stop_runs_ourselves(now);
            }
        }
    }
}
