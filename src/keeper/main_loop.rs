//! The loop: init's messages, supervisors' requests, capture news, ends seen by pidfd, deadlines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

use super::capture_link::CaptureLink;
use super::init_link::InitLink;
use super::launch::Site;
use super::launcher;
use super::launching::Launching;
use super::link::{Incoming, Links};
use super::listen::MESSAGE_BYTES_MAX;
use super::run::{Phase, Run};
use super::tree::Ground;
use crate::core::identity::Epoch;
use crate::core::ids::{Generation, RunId};
use crate::core::time::Stamp;
use crate::state_dir::layout::{RuntimeDir, StateDir};
use crate::sys::kernel_log::KernelLog;
use crate::sys::{cgroup, clock, flock, identity, proc, shared, signals};
use crate::wire::init::Kind;
use crate::wire::keeper::{FromKeeper, Notice};

const INIT: u64 = 1;
const LISTENER: u64 = 2;
const CAPTURE: u64 = 3;
const LAUNCHED: u64 = 4;
const CONNECTION: u64 = 1 << 40;
const PROCESS: u64 = 2 << 40;
pub(super) const NOTIFY: u64 = 3 << 40;
pub(super) const READY: u64 = 4 << 40;
const KIND: u64 = 0xff << 40;

/// Between two beats of a sentinel, in microseconds. A sentinel is fresh for two minutes.
const BEAT_US: u64 = 30_000_000;

/// The number at which init left our socket.
const ROLE_SOCKET: i32 = 3;

/// How a keeper is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// State directory.
    pub state_dir: PathBuf,
    /// Runtime directory.
    pub runtime_dir: PathBuf,
    /// The soft limit of open files that `up` was started with, which runs get; none: the one we find.
    pub open_files: Option<u64>,
}

/// The keeper.
pub(super) struct Keeper {
    pub(super) state: StateDir,
    pub(super) runtime: RuntimeDir,
    pub(super) epoch: Epoch,
    pub(super) init: InitLink,
    pub(super) links: Links,
    pub(super) newest: Generation,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) capture: CaptureLink,
    pub(super) launching: Launching,
    /// Files whose content a thread of its own makes durable.
    pub(super) to_sync: Sender<File>,
    /// Where each run gets a control group, if a tree is delegated to us.
    pub(super) cgroups: Option<PathBuf>,
    pub(super) lists_children: bool,
    /// Whom the kernel has killed for memory, where it may be read.
    pub(super) kernel_log: KernelLog,
    /// Since when no supervisor is connected that did not say goodbye; `None`: one is, or it did.
    pub(super) supervisor_lost_us: Option<u64>,
    pub(super) quit: bool,
    /// Room for one message of a run.
    pub(super) message: Vec<u8>,
    /// Runs that have told something for people, and when the supervisor is to hear of it, boot clock.
    pub(super) unpublished: BTreeMap<RunId, u64>,
    epoll: OwnedFd,
    /// Processes watched for their end, and what runs tell things by, by epoll token.
    watched: BTreeMap<u64, RunId>,
    next_watch: u64,
    next_beat_us: u64,
    /// The earliest deadline of any run; `None` after anything that may have changed one, which words do not.
    due_us: Option<u64>,
    lock: flock::Lock,
}

/// Runs until init says that the instance is over, or a new keeper has taken over.
pub fn run(options: &Options) -> io::Result<u8> {
    signals::block_all();
    signals::default_dispositions();
    let found = crate::sys::exec::raise_descriptor_limit();
    let descriptor_limit = found.map(|(soft, hard)| (options.open_files.unwrap_or(soft).min(hard), hard));
    let init = InitLink::new(shared::inherit(ROLE_SOCKET).ok());
    crate::sys::exec::close_on_exec_from(3);
    rustix::process::chdir("/")?;
    let state = StateDir(options.state_dir.clone());
    let runtime = RuntimeDir(options.runtime_dir.clone());
    // Its descriptors have low numbers, see `sys::spawn`.
    let spawners = launcher::spawners()?;
    let (lock, handed) = super::hand_over::take_place(&state, &runtime)?;
    let links = Links::listen(&runtime.keeper_socket())?;
    let newest = newest_generation(&runtime);
    let capture = CaptureLink::new()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, links.listener(), EventData::new_u64(LISTENER), EventFlags::IN)?;
    epoll::add(&epoll, capture.bell(), EventData::new_u64(CAPTURE), EventFlags::IN)?;
    if let Some(socket) = init.socket() {
        epoll::add(&epoll, socket, EventData::new_u64(INIT), EventFlags::IN)?;
    }
    let epoch = Epoch { boot_id: identity::boot_id(), init: identity::init_token() };
    let cgroups = cgroup::base();
    let site = Site {
        state: state.clone(),
        runtime: runtime.clone(),
        epoch: epoch.clone(),
        init: init.pid,
        cgroups: cgroups.clone(),
        descriptor_limit,
    };
    let launching = Launching::new(site, spawners)?;
    epoll::add(&epoll, launching.bell(), EventData::new_u64(LAUNCHED), EventFlags::IN)?;
    let mut keeper = Keeper {
        state,
        runtime,
        epoch,
        init,
        links,
        newest,
        runs: BTreeMap::new(),
        capture,
        launching,
        to_sync: sync_thread()?,
        cgroups,
        lists_children: proc::lists_children(),
        kernel_log: KernelLog::default(),
        supervisor_lost_us: None,
        quit: false,
        message: vec![0; MESSAGE_BYTES_MAX],
        unpublished: BTreeMap::new(),
        epoll,
        watched: BTreeMap::new(),
        next_watch: 0,
        next_beat_us: clock::boot_us() + BEAT_US,
        due_us: None,
        lock,
    };
    keeper.take_back(handed);
    keeper.init.ready();
    while !keeper.quit {
        keeper.turn();
    }
    // The lock is to go with the process, not before its threads.
    std::mem::forget(keeper.lock);
    keeper.capture.capture.finish();
    Ok(0)
}

/// The thread that syncs exit records: the loop never waits for a disk. A record that is written but not
/// yet synced survives the death of any process; the sync is for the death of the host.
fn sync_thread() -> io::Result<Sender<File>> {
    let (send, receive) = channel::<File>();
    std::thread::Builder::new().name("sync".to_owned()).stack_size(64 * 1024).spawn(move || {
        for file in receive {
            // Nobody waits for it, and a disk that fails here fails for the event log too, which says so.
            let _ = file.sync_data();
        }
    })?;
    Ok(send)
}

/// Where the newest generation is kept.
pub(super) fn generation_file(runtime: &RuntimeDir) -> PathBuf {
    runtime.0.join("generation")
}

/// The newest generation that any keeper of this runtime directory has met; 0 if there was none.
#[must_use]
pub fn newest_generation(runtime: &RuntimeDir) -> Generation {
    let text = std::fs::read_to_string(generation_file(runtime)).unwrap_or_default();
    Generation(text.trim().parse().unwrap_or(0))
}

/// This moment.
pub(super) fn now() -> Stamp {
    Stamp { boot_us: clock::boot_us(), wall_us: clock::wall_us() }
}

impl Keeper {
    fn turn(&mut self) {
        let mut space = [MaybeUninit::<Event>::uninit(); 128];
        let timeout = self.timeout();
        let events: Vec<(u64, EventFlags)> = match epoll::wait(&self.epoll, &mut space[..], timeout.as_ref())
        {
            Ok((events, _)) => events.iter().map(|event| (event.data.u64(), event.flags)).collect(),
            Err(_) => Vec::new(),
        };
        for (token, flags) in events {
            // What is not known any more must not be told.
            if self.quit {
                return;
            }
            if !matches!(token & KIND, NOTIFY | READY) {
                self.due_us = None;
            }
            match token {
                INIT => self.read_init(),
                LISTENER => self.accept(),
                CAPTURE => self.capture_news(),
                LAUNCHED => self.launch_news(),
                token if token & KIND == CONNECTION => self.serve(token & !KIND, flags),
                token if token & KIND == PROCESS => self.process_event(token),
                token if token & KIND == NOTIFY => self.heard(token, Self::hear),
                token if token & KIND == READY => self.heard(token, Self::look_whether_ready),
                _ => {}
            }
        }
        self.deadlines();
    }

    fn timeout(&mut self) -> Option<Timespec> {
        let due = self.due_us.unwrap_or_else(|| self.next_deadline());
        self.due_us = Some(due);
        let due = due.min(self.next_word_deadline());
        let left = (due != u64::MAX).then(|| due.saturating_sub(clock::boot_us()))?;
        Some(Timespec {
            tv_sec: i64::try_from(left / 1_000_000).unwrap_or(0),
            tv_nsec: i64::try_from(left % 1_000_000).unwrap_or(0) * 1000,
        })
    }

    /// When something is to be done about a run; nobody asks each of them again for a word that one says.
    fn next_deadline(&self) -> u64 {
        let due = self.next_end_deadline().min(self.next_kill_deadline());
        if self.runs.values().any(Run::is_live) { due.min(self.next_beat_us) } else { due }
    }

    fn deadlines(&mut self) {
        let now = clock::boot_us();
        self.publish_late(now);
        if self.due_us.is_some_and(|due| now < due) {
            return;
        }
        self.due_us = None;
        self.finish_late_drains(now);
        self.kill_for_dead_supervisor(now);
        if now >= self.next_beat_us {
            self.next_beat_us = now + BEAT_US;
            for run in self.runs.values().filter(|run| run.is_live()) {
                // A missed beat is not worth more than the next one.
                let _ = self.state.run(run.id).beat();
            }
            self.save_all_unsaved();
        }
    }

    fn read_init(&mut self) {
        loop {
            match self.init.next() {
                Ok(Some((message, _))) => match message.kind {
                    Kind::Exited => self.exited(&message, now()),
                    Kind::Quit => self.end(),
                    _ => {}
                },
                Ok(None) => return,
                Err(_) => {
                    self.init_gone();
                    return;
                }
            }
        }
    }

    /// The instance is over. Ends that are being recorded still are; runs that are left go on.
    pub(super) fn end(&mut self) {
        self.finish_launches();
        self.finish_ends();
        let _ = std::fs::remove_file(self.runtime.keeper_socket());
        self.quit = true;
    }

    /// Init is gone: runs are watched by their pidfds from now on.
    fn init_gone(&mut self) {
        if let Some(socket) = self.init.socket() {
            let _ = epoll::delete(&self.epoll, socket);
        }
        self.init.lost();
        let pinned: Vec<RunId> = self.runs.values().filter(|run| run.is_live()).map(|run| run.id).collect();
        for id in pinned {
            self.watch_main(id);
        }
        self.tell(&Notice::InitGone);
    }

    /// Watches a run's main process by its pidfd: for runs that init does not wait for.
    pub(super) fn watch_main(&mut self, id: RunId) {
        let Some(fd) = self.runs.get(&id).and_then(|run| run.pidfd.as_ref()) else { return };
        let fd = fd.as_fd().try_clone_to_owned();
        if let Ok(fd) = fd {
            self.watch(fd.as_fd(), id);
            // The registration lives as long as the process's description, which `run.pidfd` keeps.
            drop(fd);
        }
    }

    /// Watches a process; its end calls [`Keeper::process_event`] with the token. Edge-triggered: the end
    /// gives one event, the reaping another.
    pub(super) fn watch(&mut self, pidfd: BorrowedFd<'_>, id: RunId) {
        self.next_watch += 1;
        let token = PROCESS | self.next_watch;
        if epoll::add(&self.epoll, pidfd, EventData::new_u64(token), EventFlags::IN | EventFlags::ET).is_ok()
        {
            self.watched.insert(token, id);
        }
    }

    /// Watches what a run tells things by; the token that its events have. Level-triggered: what is not read
    /// in one turn is read in the next.
    pub(super) fn watch_words(&mut self, fd: BorrowedFd<'_>, kind: u64, id: RunId) -> io::Result<u64> {
        self.next_watch += 1;
        let token = kind | self.next_watch;
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?;
        self.watched.insert(token, id);
        Ok(token)
    }

    /// Ends that. The registration does not go with the descriptor: init has another of the same.
    pub(super) fn unwatch_words(&mut self, fd: BorrowedFd<'_>, token: u64) {
        let _ = epoll::delete(&self.epoll, fd);
        self.watched.remove(&token);
    }

    fn heard(&mut self, token: u64, what: fn(&mut Self, RunId)) {
        if let Some(id) = self.watched.get(&token).copied() {
            what(self, id);
        }
    }

    fn process_event(&mut self, token: u64) {
        if let Some(id) = self.watched.get(&token).copied() {
            self.look_at(id);
            if !self.runs.contains_key(&id) {
                self.watched.retain(|_, run| *run != id);
            }
        }
    }

    /// Everything under init that is no orphan.
    pub(super) fn known(&self) -> BTreeSet<i32> {
        let roles = self.links.peers();
        self.runs
            .values()
            .filter(|run| run.is_pinned())
            .map(Run::pid)
            .chain(roles)
            .chain(self.launching.started())
            .chain([rustix::process::getpid().as_raw_nonzero().get()])
            .collect()
    }

    pub(super) fn ground<'a>(&self, known: &'a BTreeSet<i32>) -> Ground<'a> {
        Ground { init: self.init.alive(), known, lists_children: self.lists_children }
    }

    fn accept(&mut self) {
        if let Some(number) = self.links.accept()
            && let Some(connection) = self.links.get(number)
        {
            let _ = epoll::add(
                &self.epoll,
                connection.fd(),
                EventData::new_u64(CONNECTION | number),
                EventFlags::IN,
            );
        }
    }

    fn serve(&mut self, number: u64, flags: EventFlags) {
        let Some(connection) = self.links.get_mut(number) else { return };
        if flags.contains(EventFlags::OUT) && !connection.flush() {
            self.cut(number);
            return;
        }
        self.tell_untold(number);
        let Some(connection) = self.links.get_mut(number) else { return };
        let (requests, closed) = match connection.read() {
            Incoming::Requests(requests) => (requests, false),
            Incoming::Closed(requests) => (requests, true),
        };
        for request in requests {
            self.answer(number, request);
        }
        if closed {
            self.cut(number);
        } else {
            self.arm(number);
        }
    }

    /// Waits for writability only while something waits to be written.
    fn arm(&self, number: u64) {
        if let Some(connection) = self.links.get(number) {
            let flags =
                if connection.is_behind() { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let _ =
                epoll::modify(&self.epoll, connection.fd(), EventData::new_u64(CONNECTION | number), flags);
        }
    }

    pub(super) fn say(&mut self, number: u64, message: &FromKeeper) {
        if let Some(connection) = self.links.get_mut(number) {
            if connection.say(message) {
                self.arm(number);
            } else {
                self.cut(number);
            }
        }
    }

    /// Tells a notice to every supervisor of the newest generation.
    pub(super) fn tell(&mut self, notice: &Notice) {
        let message = FromKeeper::Notice(notice.clone());
        for number in self.links.current(self.newest) {
            self.say(number, &message);
        }
    }

    fn cut(&mut self, number: u64) {
        let Some(connection) = self.links.remove(number) else { return };
        self.due_us = None;
        let was_current = connection.generation.is_some_and(|g| g >= self.newest);
        if was_current && !connection.goodbye && self.links.current(self.newest).is_empty() {
            self.supervisor_lost_us = Some(clock::boot_us());
        }
    }

    /// The moment the next `Ending` run is given up waiting for.
    fn next_end_deadline(&self) -> u64 {
        let deadline = |run: &Run| match run.phase {
            Phase::Ending { deadline_us, .. } => Some(deadline_us),
            _ => None,
        };
        self.runs.values().filter_map(deadline).min().unwrap_or(u64::MAX)
    }
}
