//! What init remembers, as plain numbers in one fixed mapping.
//!
//! Descriptors are kept as numbers, because an owning type would close them when the process executes
//! itself anew. A number is -1 when there is none. Slots are found by a scan up to the highest one ever
//! used: 16,384 slots of 68 bytes are read in some tens of microseconds, and untouched pages cost nothing.

use std::os::fd::{IntoRawFd, OwnedFd};

use super::respawn::Account;
use crate::sys::reap::Ended;
use crate::sys::shared::close;
use crate::wire::init::{HELD, RunId};

/// Runs that can be held at once. Beyond that a run is started without escrow.
pub(super) const SLOTS: usize = 16_384;

/// Descriptors that a supervisor may have held: the accepted configuration, the control socket.
pub(super) const HELD_MAX: usize = 2;

/// The state of a slot.
pub(super) const FREE: u8 = 0;
pub(super) const LIVE: u8 = 1;
/// Ended, a zombie, to be told to the keeper.
pub(super) const ZOMBIE: u8 = 2;
/// Ended, a zombie, told to the present keeper.
pub(super) const TOLD: u8 = 3;
/// Reaped; the descriptors are held until the keeper lets go.
pub(super) const REAPED: u8 = 4;

/// One run.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Slot {
    pub(super) run: [u8; 16],
    pub(super) pid: i32,
    pub(super) state: u8,
    /// 1 if it is a child of this process.
    pub(super) child: u8,
    /// Which of `fds` are held: the bits of the wire.
    pub(super) held: u8,
    /// 1 once it was listed to the present keeper.
    pub(super) listed: u8,
    /// stdout, stderr, stdin, the socket it tells things to, the FIFO by which it says that it is ready.
    pub(super) fds: [i32; HELD],
    pub(super) pidfd: i32,
    pub(super) code: i32,
    pub(super) status: i32,
    pub(super) max_rss_kib: u32,
    pub(super) user_ms: u32,
    pub(super) system_ms: u32,
}

/// Everything.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Table {
    /// [`MAGIC`] when filled in.
    pub(super) magic: u64,
    pub(super) keeper: RoleState,
    pub(super) supervisor: RoleState,
    /// Descriptors held for the next supervisor, or -1.
    pub(super) held: [i32; HELD_MAX],
    /// 1: an operator's signal asked for the end.
    pub(super) shutdown_asked: u8,
    /// 1: an operator's signal asked for a reload that no supervisor has been told of.
    pub(super) reload_asked: u8,
    /// 1: the supervisor said that the instance is over.
    pub(super) ending: u8,
    /// 1: the present keeper has been told everything that was held when it came.
    pub(super) keeper_has_list: u8,
    pub(super) exit_code: u8,
    /// Highest slot ever used, plus one.
    pub(super) used: u32,
    pub(super) slots: [Slot; SLOTS],
}

/// Layout 2 of the table; 1 had three descriptors in a slot. An image of init that finds another layout than
/// its own, by this number or by the size of the file, ends without touching anything: keeper, supervisor and
/// runs go on as after any death of init. It does not happen by `execve`, which starts the same build again
/// even where its file was replaced (see `sys::exec`).
pub(super) const MAGIC: u64 = 0x6f75_746c_6976_6502;

/// One of our two children.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct RoleState {
    /// 0: not running.
    pub(super) pid: i32,
    /// Our end of its socket, or -1.
    pub(super) socket: i32,
    /// When to start it, boot clock.
    pub(super) due_us: u64,
    pub(super) account: Account,
}

crate::sys::shared::plain_data!(Table);

impl Table {
    pub(super) fn reset(&mut self) {
        self.magic = MAGIC;
        self.keeper.socket = -1;
        self.supervisor.socket = -1;
        self.held = [-1; HELD_MAX];
    }

    fn in_use(&self) -> usize {
        usize::try_from(self.used).unwrap_or(0).min(SLOTS)
    }

    /// The slots up to the highest one ever used.
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots[..self.in_use()]
    }

    pub(super) fn find_run(&self, run: RunId) -> Option<usize> {
        self.slots().iter().position(|slot| slot.state != FREE && &slot.run == run.as_bytes())
    }

    pub(super) fn find_child(&self, pid: i32) -> Option<usize> {
        self.slots()
            .iter()
            .position(|slot| slot.pid == pid && slot.child == 1 && slot.state != FREE && slot.state != REAPED)
    }

    /// Holds a run; a second registration of the same run replaces the descriptors of the first.
    pub(super) fn hold(
        &mut self,
        run: RunId,
        pid: i32,
        child: bool,
        held: u8,
        fds: [Option<OwnedFd>; HELD],
    ) -> Option<usize> {
        let index = self.find_run(run).or_else(|| {
            let used = self.in_use();
            let free = self.slots[..used].iter().position(|slot| slot.state == FREE);
            let index = free.or((used < SLOTS).then_some(used))?;
            self.used = self.used.max(u32::try_from(index + 1).unwrap_or(0));
            self.slots[index] = Slot::EMPTY;
            Some(index)
        })?;
        let slot = &mut self.slots[index];
        for fd in slot.fds {
            close(fd);
        }
        slot.fds = fds.map(|fd| fd.map_or(-1, IntoRawFd::into_raw_fd));
        if slot.state == FREE {
            slot.run = *run.as_bytes();
            slot.state = LIVE;
            slot.pid = pid;
            slot.child = u8::from(child);
            slot.listed = 1;
        }
        slot.held = held;
        Some(index)
    }

    /// Closes what a slot holds and frees it.
    pub(super) fn free(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        for fd in slot.fds.into_iter().chain([slot.pidfd]) {
            close(fd);
        }
        *slot = Slot::EMPTY;
        while self.used > 0 && self.slots[self.in_use() - 1].state == FREE {
            self.used -= 1;
        }
    }

    /// Notes how a run ended. False if that was noted before.
    pub(super) fn ended(&mut self, index: usize, ended: &Ended) -> bool {
        let slot = &mut self.slots[index];
        if slot.state != LIVE {
            return false;
        }
        slot.state = ZOMBIE;
        slot.code = ended.code;
        slot.status = ended.status;
        slot.max_rss_kib = u32::try_from(ended.max_rss_kib).unwrap_or(u32::MAX);
        slot.user_ms = u32::try_from(ended.user_us / 1000).unwrap_or(u32::MAX);
        slot.system_ms = u32::try_from(ended.system_us / 1000).unwrap_or(u32::MAX);
        true
    }

    /// A new keeper knows nothing: everything is listed and told again.
    pub(super) fn keeper_is_new(&mut self) {
        self.keeper_has_list = 0;
        let used = self.in_use();
        for slot in &mut self.slots[..used] {
            slot.listed = 0;
            if slot.state == TOLD {
                slot.state = ZOMBIE;
            }
        }
    }
}

impl Slot {
    const EMPTY: Self = Self {
        run: [0; 16],
        pid: 0,
        state: FREE,
        child: 0,
        held: 0,
        listed: 0,
        fds: [-1; HELD],
        pidfd: -1,
        code: 0,
        status: 0,
        max_rss_kib: 0,
        user_ms: 0,
        system_ms: 0,
    };

    pub(super) fn run_id(&self) -> RunId {
        RunId::from_bytes(self.run)
    }
}
