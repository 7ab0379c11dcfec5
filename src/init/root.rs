//! The loop: signals, deaths, messages, starts that are due.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

use super::table::{FREE, HELD_MAX, LIVE, MAGIC, REAPED, SLOTS, TOLD, Table, ZOMBIE};
use crate::sys::exec::{Prepared, set_close_on_exec};
use crate::sys::shared::{Shared, borrow, close, inherit};
use crate::sys::{clock, pidfd, reap, signals, socket};
use crate::wire::init::{ACKED, BYTES, CHILD, FDS_PIDFD, FDS_STDERR, FDS_STDIN, FDS_STDOUT, Kind, Message};

const SIGNALS: u64 = 1;
const KEEPER: u64 = 2;
const SUPERVISOR: u64 = 3;
const FIRST_SLOT: u64 = 16;

/// The number at which a role finds its socket to init.
const ROLE_SOCKET: i32 = 3;
/// The numbers at which a supervisor finds the descriptors that its predecessor had held: the first
/// number for slot 0, and so on. A number at which nothing is open means that nothing is held.
const HELD: i32 = 4;
/// Descriptors that are given to a child are kept above the numbers that it will use.
const FREE_FROM: i32 = 10;

/// How long keeper and supervisor may take to end when the instance is over, in microseconds.
const QUIT_US: u64 = 5_000_000;
/// Grace between TERM and KILL when init has to stop the runs itself, in microseconds.
const LAST_RESORT_US: u64 = 10_000_000;
/// Supervisor deaths in a row after which a shutdown is init's own affair.
const GIVE_UP_DEATHS: u32 = 5;

/// Exit code when the supervisor could not be used to end the instance.
const EXIT_LAST_RESORT: u8 = 70;

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

struct Root {
    table: Shared<Table>,
    epoll: OwnedFd,
    signals: OwnedFd,
    programs: Programs,
    recovery_after: usize,
    keep_open: Vec<i32>,
    /// When the instance began to end, boot clock; 0: it has not.
    ending_since_us: u64,
    last_resort_us: u64,
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

    fn watch_slot(&mut self, index: usize) {
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

    /// Passes on what operators' signals asked for. A shutdown is told to every supervisor there is until
    /// the instance has ended; a reload once.
    fn tell_supervisor(&mut self) {
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
    fn tell_keeper(&mut self) {
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
                let held = [slot.fds[0], slot.fds[1], slot.fds[2], pidfd].map(borrow);
                let mut list = [fd; 4];
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
    fn tell_ended(&mut self, index: usize) -> bool {
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

/// Messages from the two roles.
impl Root {
    fn read_keeper(&mut self) {
        let mut buffer = [0; BYTES];
        while let Some(fd) = borrow(self.table.keeper.socket) {
            match socket::receive(fd, &mut buffer) {
                Ok(Some(received)) if received.len > 0 => {
                    if let Some(message) = Message::decode(&buffer[..received.len]) {
                        self.from_keeper(&message, received.fds);
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

    fn from_keeper(&mut self, message: &Message, fds: [Option<OwnedFd>; socket::FDS_MAX]) {
        match message.kind {
            Kind::Register => {
                let mut came = fds.into_iter().flatten();
                let mut take = |bit: u8| if message.fds & bit == 0 { None } else { came.next() };
                let fds = [take(FDS_STDOUT), take(FDS_STDERR), take(FDS_STDIN)];
                let pidfd = take(FDS_PIDFD);
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

    fn read_supervisor(&mut self) {
        let mut buffer = [0; BYTES];
        while let Some(fd) = borrow(self.table.supervisor.socket) {
            match socket::receive(fd, &mut buffer) {
                Ok(Some(received)) if received.len > 0 => {
                    if let Some(message) = Message::decode(&buffer[..received.len]) {
                        self.from_supervisor(&message, received.fds);
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

    fn from_supervisor(&mut self, message: &Message, fds: [Option<OwnedFd>; socket::FDS_MAX]) {
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

/// Deaths.
impl Root {
    /// A pidfd says that this slot's process has ended.
    fn look_at(&mut self, index: usize) {
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

    fn reap(&mut self) {
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

    fn bury_roles(&mut self) {
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

    /// Nobody is left who could stop the runs in order, and an operator wants the end: TERM, grace, KILL.
    fn stop_runs_ourselves(&mut self, now: u64) {
        if self.last_resort_us != 0 {
            return;
        }
        self.last_resort_us = now;
        self.signal_runs(libc::SIGTERM);
        self.signal_runs(libc::SIGCONT);
    }

    fn signal_runs(&self, signal: i32) {
        for slot in self.table.slots() {
            if slot.state == LIVE
                && let Some(fd) = borrow(slot.pidfd)
            {
                let _ = pidfd::signal(fd, signal);
            }
        }
    }

    fn begin_end(&mut self) {
        if self.ending_since_us == 0 {
            self.ending_since_us = clock::boot_us();
        }
        if let Some(fd) = borrow(self.table.keeper.socket) {
            let _ = socket::send(fd, &Message::new(Kind::Quit).encode(), &[], false);
        }
    }

    /// The exit code, once the instance has ended.
    fn finish(&mut self) -> Option<u8> {
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

    /// Replaces this image by a fresh one of the same executable, with the table and everything in it.
    /// Returns only if that failed; then everything goes on as before.
    fn execute_again(&mut self) {
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
