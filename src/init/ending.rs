//! The end of the instance: in order, by the supervisor; or by init itself, when there is no supervisor that
//! could.

use std::os::fd::AsFd;

use super::root::Root;
use super::table::LIVE;
use crate::sys::shared::borrow;
use crate::sys::{clock, pidfd, socket};
use crate::wire::init::{Kind, Message};

/// How long keeper and supervisor may take to end when the instance is over, in microseconds.
pub(super) const QUIT_US: u64 = 5_000_000;
/// Grace between TERM and KILL when init has to stop the runs itself, in microseconds.
pub(super) const LAST_RESORT_US: u64 = 10_000_000;

/// Exit code when the supervisor could not be used to end the instance.
const EXIT_LAST_RESORT: u8 = 70;

impl Root {
    /// Nobody is left who could stop the runs in order, and an operator wants the end: TERM, grace, KILL.
    pub(super) fn stop_runs_ourselves(&mut self, now: u64) {
        if self.last_resort_us != 0 {
            return;
        }
        self.last_resort_us = now;
        self.signal_runs(libc::SIGTERM);
        self.signal_runs(libc::SIGCONT);
    }

    pub(super) fn signal_runs(&self, signal: i32) {
        for slot in self.table.slots() {
            if slot.state == LIVE
                && let Some(fd) = borrow(slot.pidfd)
            {
                let _ = pidfd::signal(fd, signal);
            }
        }
    }

    pub(super) fn begin_end(&mut self) {
        if self.ending_since_us == 0 {
            self.ending_since_us = clock::boot_us();
        }
        if let Some(fd) = borrow(self.table.keeper.socket) {
            let _ = socket::send(fd, &Message::new(Kind::Quit).encode(), &[], false);
        }
    }

    /// The exit code, once the instance has ended.
    pub(super) fn finish(&mut self) -> Option<u8> {
        let now = clock::boot_us();
        if self.last_resort_us != 0 {
            let all_gone = self.table.slots().iter().all(|slot| slot.state != LIVE);
            let late = now >= self.last_resort_us + LAST_RESORT_US;
            if late {
                self.signal_runs(libc::SIGKILL);
            }
            if (all_gone || late) && self.table.ending == 0 {
                self.table.ending = 1;
                self.table.exit_code = EXIT_LAST_RESORT;
                self.begin_end();
            }
        }
        if self.table.ending == 0 {
            return None;
        }
        if self.ending_since_us == 0 {
            self.begin_end();
        }
        let roles = [self.table.keeper.pid, self.table.supervisor.pid];
        if roles == [0, 0] {
            return Some(self.table.exit_code);
        }
        if now >= self.ending_since_us + QUIT_US {
            for pid in roles {
                // Children of ours that we have not reaped: the pid is theirs.
                if pid != 0
                    && let Ok(fd) = pidfd::open(pid)
                {
                    let _ = pidfd::signal(fd.as_fd(), libc::SIGKILL);
                }
            }
            self.ending_since_us = now;
        }
        None
    }
}
