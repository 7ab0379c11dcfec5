//! The loop: signals, starts that are due, and init's own `execve`. What is told is in `messages`, who dies in
//! `deaths`, how it all ends in `ending`.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

use super::ending::{LAST_RESORT_US, QUIT_US};
use super::table::{HELD_MAX, LIVE, MAGIC, SLOTS, Table};
use crate::sys::exec::{Prepared, set_close_on_exec};
use crate::sys::shared::{Shared, borrow, inherit};
use crate::sys::{clock, pidfd, reap, signals, socket};

const SIGNALS: u64 = 1;
pub(super) const KEEPER: u64 = 2;
const SUPERVISOR: u64 = 3;
const FIRST_SLOT: u64 = 16;

/// The number at which a role finds its socket to init.
const ROLE_SOCKET: i32 = 3;
/// The numbers at which a supervisor finds the descriptors that its predecessor had held: the first
/// number for slot 0, and so on. A number at which nothing is open means that nothing is held.
const HELD: i32 = 4;
/// Descriptors that are given to a child are kept above the numbers that it will use.
pub(super) const FREE_FROM: i32 = 10;

/// How init is started.
#[derive(Debug)]
pub struct Options {
    /// Arguments passed on to both roles, after the role's own name.
    pub arguments: Vec<CString>,
    /// Supervisor deaths within a minute that lead to recovery mode; 0: never.
    pub recovery_after: usize,
    /// Descriptors that must survive init's own `execve`: the lock file.
    pub keep_open: Vec<i32>,
    /// The table left by an earlier image of this process.
    pub table: Option<i32>,
}

struct Programs {
    keeper: Prepared,
    /// Indexed by recovery mode.
    supervisor: [Prepared; 2],
    again: Prepared,
}

pub(super) struct Root {
    pub(super) table: Shared<Table>,
    pub(super) epoll: OwnedFd,
    signals: OwnedFd,
    programs: Programs,
    recovery_after: usize,
    keep_open: Vec<i32>,
    /// When the instance began to end, boot clock; 0: it has not.
    pub(super) ending_since_us: u64,
    pub(super) last_resort_us: u64,
}

/// Runs until the instance is over; the exit code.
pub fn run(options: Options) -> io::Result<u8> {
    let signals = signals::block_all_and_open(&[
        libc::SIGCHLD,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGHUP,
        libc::SIGUSR2,
    ])?;
    signals::default_dispositions();
    crate::sys::exec::close_on_exec_from(3);
    crate::sys::exec::raise_descriptor_limit();
    let _ = reap::become_subreaper();
    let (table, fresh) = match options.table {
        Some(number) => (Shared::<Table>::map(inherit(number)?)?, false),
        None => (Shared::<Table>::new("outlive-init")?, true),
    };
    let programs = programs(&options, table.as_raw_fd());
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut root = Root {
        table,
        epoll,
        signals,
        programs,
        recovery_after: options.recovery_after,
        keep_open: options.keep_open,
        ending_since_us: 0,
        last_resort_us: 0,
    };
    if fresh {
        root.table.reset();
    } else if root.table.magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the table has another layout"));
    }
    epoll::add(&root.epoll, &root.signals, EventData::new_u64(SIGNALS), EventFlags::IN)?;
    root.take_over();
    root.reap();
    loop {
        if let Some(code) = root.turn() {
            return Ok(code);
        }
    }
}

fn programs(options: &Options, table: i32) -> Programs {
    let with = |name: &str, more: &[String]| {
        let own = CString::new(name).into_iter();
        let more = more.iter().filter_map(|text| CString::new(text.as_str()).ok());
        Prepared::new(own.chain(options.arguments.iter().cloned()).chain(more).collect())
    };
    let mut again = vec!["--table".to_owned(), table.to_string()];
    for fd in &options.keep_open {
        again.extend(["--keep-open".to_owned(), fd.to_string()]);
    }
    Programs {
        keeper: with("outlive: keeper", &[]),
        supervisor: [
            with("outlive: supervisor", &[]),
            with("outlive: supervisor", &["--recovery".to_owned()]),
        ],
        again: with("outlive: init", &again),
    }
}

impl Root {
    /// After init's own `execve`: watch again what the table holds.
    fn take_over(&mut self) {
        for (socket, token) in
            [(self.table.keeper.socket, KEEPER), (self.table.supervisor.socket, SUPERVISOR)]
        {
            set_close_on_exec(socket, true);
            self.watch(socket, token, EventFlags::IN);
        }
        for fd in self.table.held {
            set_close_on_exec(fd, true);
        }
        for index in 0..self.table.slots().len() {
            let slot = self.table.slots[index];
            for fd in slot.fds.into_iter().chain([slot.pidfd]) {
                set_close_on_exec(fd, true);
            }
            self.watch_slot(index);
        }
    }

    fn watch(&self, fd: i32, token: u64, flags: EventFlags) {
        if let Some(fd) = borrow(fd) {
            let _ = epoll::add(&self.epoll, fd, EventData::new_u64(token), flags);
        }
    }

    pub(super) fn watch_slot(&mut self, index: usize) {
        let slot = &mut self.table.slots[index];
        if slot.state != LIVE || slot.child == 0 {
            return;
        }
        if slot.pidfd < 0 {
            // A live child or a zombie of ours: its pid cannot have been reused.
            slot.pidfd = pidfd::open(slot.pid).map_or(-1, IntoRawFd::into_raw_fd);
        }
        let fd = slot.pidfd;
        let token = FIRST_SLOT + u64::try_from(index).unwrap_or(0);
        self.watch(fd, token, EventFlags::IN | EventFlags::ONESHOT);
    }

    fn turn(&mut self) -> Option<u8> {
        self.start_what_is_due();
        let mut space = [MaybeUninit::<Event>::uninit(); 64];
        let timeout = self.timeout();
        let events = match epoll::wait(&self.epoll, &mut space[..], timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(_) => return None,
        };
        let mut ended = false;
        for event in events.iter() {
            let flags = event.flags;
            match event.data.u64() {
                SIGNALS => ended |= self.read_signals(),
                KEEPER => {
                    if flags.contains(EventFlags::OUT) {
                        self.tell_keeper();
                    }
                    self.read_keeper();
                }
                SUPERVISOR => self.read_supervisor(),
                token => {
                    let index = usize::try_from(token - FIRST_SLOT).unwrap_or(SLOTS);
                    self.look_at(index);
                }
            }
        }
        if ended {
            self.reap();
        }
        self.finish()
    }

    fn timeout(&self) -> Option<Timespec> {
        let now = clock::boot_us();
        let mut due = u64::MAX;
        for role in [&self.table.keeper, &self.table.supervisor] {
            if role.pid == 0 && self.table.ending == 0 {
                due = due.min(role.due_us);
            }
        }
        if self.ending_since_us != 0 {
            due = due.min(self.ending_since_us + QUIT_US);
        }
        if self.last_resort_us != 0 {
            due = due.min(self.last_resort_us + LAST_RESORT_US);
        }
        let left = (due != u64::MAX).then(|| due.saturating_sub(now))?;
        Some(Timespec {
            tv_sec: i64::try_from(left / 1_000_000).unwrap_or(0),
            tv_nsec: i64::try_from(left % 1_000_000).unwrap_or(0) * 1000,
        })
    }

    fn start_what_is_due(&mut self) {
        let now = clock::boot_us();
        if self.table.ending == 1 {
            return;
        }
        if self.table.keeper.pid == 0 && self.table.keeper.due_us <= now {
            match start(&self.programs.keeper, &[]) {
                Ok((pid, ours)) => {
                    self.table.keeper.pid = pid;
                    self.table.keeper.socket = ours;
                    self.table.keeper.account.born(now);
                    self.watch(ours, KEEPER, EventFlags::IN);
                    self.table.keeper_is_new();
                    self.tell_keeper();
                }
                Err(_) => self.table.keeper.due_us = self.table.keeper.account.died(now).max(now + 100_000),
            }
        }
        if self.table.supervisor.pid == 0 && self.table.supervisor.due_us <= now && self.last_resort_us == 0 {
            let recovery = self.table.supervisor.account.needs_recovery_mode(now, self.recovery_after);
            let program = &self.programs.supervisor[usize::from(recovery)];
            match start(program, &self.table.held) {
                Ok((pid, ours)) => {
                    self.table.supervisor.pid = pid;
                    self.table.supervisor.socket = ours;
                    self.table.supervisor.account.born(now);
                    self.watch(ours, SUPERVISOR, EventFlags::IN);
                    self.tell_supervisor();
                }
                Err(_) => {
                    self.table.supervisor.due_us = self.table.supervisor.account.died(now).max(now + 100_000)
                }
            }
        }
    }

    /// Reads all waiting signals; true if a child may have ended.
    fn read_signals(&mut self) -> bool {
        let mut ended = false;
        while let Some((signal, _)) = signals::read(&self.signals) {
            match signal {
                libc::SIGCHLD => ended = true,
                libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => {
                    self.table.shutdown_asked = 1;
                    self.tell_supervisor();
                }
                libc::SIGHUP => {
                    self.table.reload_asked = 1;
                    self.tell_supervisor();
                }
                libc::SIGUSR2 => self.execute_again(),
                _ => {}
            }
        }
        ended
    }
}

/// Starts a role: its process id, and our end of its socket.
fn start(program: &Prepared, held: &[i32]) -> io::Result<(i32, i32)> {
    let (ours, theirs) = socket::pair()?;
    // Everything out of the way of the numbers that the child will use.
    let theirs = rustix::io::fcntl_dupfd_cloexec(&theirs, FREE_FROM)?;
    let mut fds = [(theirs.as_raw_fd(), ROLE_SOCKET); 1 + HELD_MAX];
    let mut count = 1;
    for (number, fd) in (HELD..).zip(held) {
        if *fd >= 0 {
            fds[count] = (*fd, number);
            count += 1;
        }
    }
    let pid = program.spawn(&fds[..count])?;
    Ok((pid, ours.into_raw_fd()))
}

impl Root {
    /// Replaces this image by a fresh one of the same executable, with the table and everything in it.
    /// Returns only if that failed; then everything goes on as before.
    pub(super) fn execute_again(&mut self) {
        self.set_all_close_on_exec(false);
        let _ = self.programs.again.exec();
        self.set_all_close_on_exec(true);
    }

    fn set_all_close_on_exec(&self, on: bool) {
        set_close_on_exec(self.table.as_raw_fd(), on);
        for fd in &self.keep_open {
            set_close_on_exec(*fd, on);
        }
        let sockets = [self.table.keeper.socket, self.table.supervisor.socket];
        for fd in sockets.into_iter().chain(self.table.held) {
            set_close_on_exec(fd, on);
        }
        for slot in self.table.slots() {
            for fd in slot.fds.into_iter().chain([slot.pidfd]) {
                set_close_on_exec(fd, on);
            }
        }
    }
}
