//! The thread that pumps the runs of one device.
//!
//! A turn: wait for ready FIFOs, give each its share, then look at the mailbox and at what is due. The wait
//! has no time limit unless a disk refuses bytes or index records wait to be written.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::core::ids::RunId;
use crate::sys::splice::Peek;
use crate::sys::{clock, disk, fifo, thread};

use super::background::Background;
use super::index::Now;
use super::run::{Run, Watch};
use super::sink::{RETRY_US, Taken, Tools};
use super::{AddRun, CaptureEvent, Counters, Notify};

/// Most bytes one FIFO gets before the others have their turn, when others are ready too.
const SHARE: usize = 256 * 1024;
/// The same when it is alone: a megabyte is the most that an unprivileged user's pipe holds.
const ALONE: usize = 1024 * 1024;
/// Ready FIFOs taken from the kernel at once.
const BATCH: usize = 128;
/// Event data of the bell; FIFOs have smaller numbers.
const BELL: u64 = u64::MAX;

/// Time that index records of a flood may wait, in microseconds.
const FLUSH_US: u64 = 10_000;

/// Gathering: when small pieces come faster than this many in [`WINDOW_US`], the worker lets them collect
/// for [`GATHER_US`] before it looks again. A line then costs a share of a system call instead of three,
/// and a follower sees it that much later.
const BUSY_TURNS: u32 = 40;
const WINDOW_US: u64 = 10_000;
const GATHER_US: u64 = 5_000;
/// A piece from this size on is a flood, which must not be kept waiting: it would fill its pipe.
const LARGE: u64 = 4096;

/// What a worker is asked to do.
pub(super) enum Command {
    Add(Box<AddRun>, Arc<Counters>),
    Drain(RunId),
    Remove(RunId),
    Stop,
}

/// The way to a worker.
#[derive(Clone)]
pub(super) struct Mailbox {
    sender: Sender<Command>,
    bell: Arc<OwnedFd>,
}

impl Mailbox {
    /// Never waits: the queue has no limit, and holds a few entries per run at most.
    pub(super) fn send(&self, command: Command) {
        if self.sender.send(command).is_ok() {
            // The counter of an eventfd cannot overflow here, so the write cannot fail.
            let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
        }
    }
}

/// Starts a worker.
pub(super) fn start(notify: Notify) -> io::Result<(Mailbox, JoinHandle<()>)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, mail) = channel();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &*bell, EventData::new_u64(BELL), EventFlags::IN)?;
    let tools = Tools {
        peek: Peek::new()?,
        null: disk::open_rw(Path::new("/dev/null"))?,
        background: Background::default(),
    };
    let mut worker = Worker {
        epoll,
        bell: bell.clone(),
        mail,
        notify,
        tools,
        runs: Vec::new(),
        slots: HashMap::new(),
        free: Vec::new(),
        unwritten: Vec::new(),
        flush_at: None,
        retry_at: None,
        pace: Pace::default(),
    };
    let thread = std::thread::Builder::new().name("capture".into()).spawn(move || {
        let _ = thread::block_signals();
        let guard = PanicGuard(worker.notify.0.boxed());
        if let Err(e) = worker.work() {
            let errno = e.raw_os_error().unwrap_or(0);
            worker.notify.tell(CaptureEvent::Failed { errno, what: "waiting for output" });
        }
        worker.end();
        drop(guard);
    })?;
    Ok((Mailbox { sender, bell }, thread))
}

/// Tells that the thread is gone, should it go by a panic.
struct PanicGuard(Notify);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.tell(CaptureEvent::Failed { errno: 0, what: "panicked" });
        }
    }
}

/// How dense the turns are.
#[derive(Debug, Default)]
struct Pace {
    since: u64,
    turns: u32,
    flood: bool,
}

impl Pace {
    fn turn(&mut self, n: u64) {
        self.turns += 1;
        self.flood |= n >= LARGE;
    }

    /// Whether to let small pieces collect now.
    fn is_busy(&mut self) -> bool {
        if self.turns < BUSY_TURNS {
            return false;
        }
        let now = clock::boot_us();
        let busy = !self.flood && now.saturating_sub(self.since) < WINDOW_US;
        *self = Self { since: now, turns: 0, flood: false };
        busy
    }
}

struct Worker {
    epoll: OwnedFd,
    bell: Arc<OwnedFd>,
    mail: Receiver<Command>,
    notify: Notify,
    tools: Tools,
    runs: Vec<Option<Run>>,
    slots: HashMap<RunId, usize>,
    free: Vec<usize>,
    /// Slots of runs whose index records wait.
    unwritten: Vec<usize>,
    flush_at: Option<u64>,
    /// When stalled runs are tried again.
    retry_at: Option<u64>,
    pace: Pace,
}

impl Worker {
    fn work(&mut self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); BATCH];
        loop {
            let timeout = self.timeout();
            let events = match epoll::wait(&self.epoll, &mut buffer[..], timeout.as_ref()) {
                Ok((events, _)) => events,
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            let quota = if events.len() == 1 { ALONE } else { SHARE };
            let mut rung = false;
            for event in events {
                let (data, flags) = (event.data.u64(), event.flags);
                if data == BELL {
                    rung = true;
                } else if let Ok(slot) = usize::try_from(data / 2) {
                    self.ready(slot, usize::from(data % 2 == 1), flags, quota);
                }
            }
            if rung && !self.read_mail() {
                return Ok(());
            }
            self.do_what_is_due();
            if self.pace.is_busy() {
                self.gather();
            }
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        let due = match (self.flush_at, self.retry_at) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        Some(timespec(due.saturating_sub(clock::boot_us())))
    }

    /// Lets pieces collect; the bell is heard.
    fn gather(&self) {
        let mut fds = [PollFd::new(&*self.bell, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timespec(GATHER_US)));
    }

    /// One share for one FIFO.
    fn ready(&mut self, slot: usize, which: usize, flags: EventFlags, quota: usize) {
        let Some(Some(run)) = self.runs.get_mut(slot) else { return };
        let Some(fifo) = run.fifos.get_mut(which) else { return };
        if fifo.watch == Watch::Quiet {
            if flags.contains(EventFlags::HUP) {
                fifo.gone = true;
                self.after(slot);
            }
            return;
        }
        let taken = run.take(which, quota, &mut self.tools);
        let Some(fifo) = run.fifos.get_mut(which) else { return };
        let watch = match taken {
            Taken::Bytes { n, .. } => {
                self.pace.turn(n);
                fifo.gone = false;
                Watch::Level
            }
            // A spurious report; the kernel says HUP when the last holder goes.
            Taken::Nothing => {
                fifo.gone = false;
                Watch::Level
            }
            Taken::End => {
                fifo.gone = true;
                Watch::Edge
            }
            Taken::Refused => Watch::Quiet,
        };
        self.watch(slot, which, watch);
        self.after(slot);
    }

    /// Changes how a FIFO is watched, if it changes. All FIFOs of a sink that refuses are quiet.
    fn watch(&mut self, slot: usize, which: usize, watch: Watch) {
        let Some(Some(run)) = self.runs.get_mut(slot) else { return };
        let sink = run.fifos.get(which).map_or(0, |f| f.sink);
        for (n, fifo) in run.fifos.iter_mut().enumerate() {
            let concerned = n == which || (watch == Watch::Quiet && fifo.sink == sink);
            if !concerned || fifo.watch == watch {
                continue;
            }
            let flags = match watch {
                Watch::Level => EventFlags::IN,
                Watch::Edge => EventFlags::IN | EventFlags::ET,
                Watch::Quiet => EventFlags::ET,
            };
            let data = EventData::new_u64(slot as u64 * 2 + n as u64);
            if epoll::modify(&self.epoll, &fifo.fd, data, flags).is_ok() {
                fifo.watch = watch;
            }
        }
    }

    /// Publishes what a turn changed: counters, stalls, the last holder's end, records to be written.
    fn after(&mut self, slot: usize) {
        let Some(Some(run)) = self.runs.get_mut(slot) else { return };
        let totals = run.count();
        let stalled = run.stalled();
        if stalled.is_some() && !run.drops {
            self.retry_at.get_or_insert_with(|| clock::boot_us() + RETRY_US);
        }
        if run.has_unwritten_records() && !self.unwritten.contains(&slot) {
            self.unwritten.push(slot);
            self.flush_at.get_or_insert_with(|| clock::boot_us() + FLUSH_US);
        }
        if stalled.is_some() != run.told_stall {
            run.told_stall = stalled.is_some();
            let errno = stalled.unwrap_or(0);
            self.notify.tell(CaptureEvent::Stall { run: run.id, errno, dropped: totals.dropped });
        }
        let gone = run.fifos.iter().all(|f| f.gone);
        if gone != run.told_gone {
            run.told_gone = gone;
            if gone {
                self.notify.tell(CaptureEvent::HolderGone { run: run.id });
            }
        }
    }

    /// False when the worker is to end.
    fn read_mail(&mut self) -> bool {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut count);
        while let Ok(command) = self.mail.try_recv() {
            match command {
                Command::Add(add, counters) => self.add(*add, counters),
                Command::Drain(run) => self.drain(run),
                Command::Remove(run) => self.remove(run),
                Command::Stop => return false,
            }
        }
        true
    }

    fn add(&mut self, add: AddRun, counters: Arc<Counters>) {
        let (id, resumed) = (add.run, add.resumed);
        self.remove(id);
        let mut run = Run::new(add, counters);
        let slot = self.free.pop().unwrap_or(self.runs.len());
        for (n, fifo) in run.fifos.iter().enumerate() {
            let data = EventData::new_u64(slot as u64 * 2 + n as u64);
            if let Err(e) = epoll::add(&self.epoll, &fifo.fd, data, EventFlags::IN) {
                self.notify.tell(CaptureEvent::Failed { errno: e.raw_os_error(), what: "watching a FIFO" });
            }
        }
        if resumed {
            let now = Now::read();
            run.sinks.iter_mut().for_each(|sink| sink.resume(&mut self.tools, now));
        }
        if slot == self.runs.len() {
            self.runs.push(Some(run))
        } else {
            self.runs[slot] = Some(run)
        }
        self.slots.insert(id, slot);
        if resumed {
            // Nobody may be left, and then no hang-up is ever reported to an end opened after it.
            self.sweep(slot);
        }
        self.after(slot);
    }

    fn drain(&mut self, id: RunId) {
        let Some(&slot) = self.slots.get(&id) else { return };
        if let Some(Some(run)) = self.runs.get_mut(slot) {
            run.opened = true;
        }
        let complete = self.sweep(slot);
        self.flush(slot);
        self.after(slot);
        if let Some(Some(run)) = self.runs.get(slot) {
            self.notify.tell(CaptureEvent::Drained { run: id, totals: run.count(), complete });
        }
    }

    /// Takes what is in both pipes, and no more than they can hold. True if nothing can follow.
    fn sweep(&mut self, slot: usize) -> bool {
        let mut complete = true;
        for which in 0..2 {
            complete &= self.sweep_one(slot, which) == Some(Taken::End);
        }
        complete
    }

    fn sweep_one(&mut self, slot: usize, which: usize) -> Option<Taken> {
        let run = self.runs.get_mut(slot)?.as_mut()?;
        let fifo = run.fifos.get(which)?;
        // Twice: what is there now, and what a last writer that has gone already may have added meanwhile.
        let mut left = fifo::capacity(&fifo.fd).unwrap_or(ALONE) * 2;
        let mut last = Taken::Nothing;
        while left > 0 {
            last = run.take(which, left.min(ALONE), &mut self.tools);
            match last {
                Taken::Bytes { n, .. } => left = left.saturating_sub(usize::try_from(n).unwrap_or(left)),
                Taken::Nothing | Taken::End | Taken::Refused => break,
            }
        }
        let opened = run.opened;
        let fifo = run.fifos.get_mut(which)?;
        let watch = match last {
            Taken::End if opened => {
                fifo.gone = true;
                Watch::Edge
            }
            Taken::Refused => Watch::Quiet,
            Taken::End | Taken::Nothing | Taken::Bytes { .. } => {
                fifo.gone = false;
                Watch::Level
            }
        };
        self.watch(slot, which, watch);
        Some(last)
    }

    fn remove(&mut self, id: RunId) {
        let Some(slot) = self.slots.remove(&id) else { return };
        self.sweep(slot);
        self.flush(slot);
        let Some(run) = self.runs.get_mut(slot).and_then(Option::take) else { return };
        for fifo in &run.fifos {
            let _ = epoll::delete(&self.epoll, &fifo.fd);
        }
        self.free.push(slot);
        let totals = run.count();
        drop(run);
        self.notify.tell(CaptureEvent::Closed { run: id, totals });
    }

    fn flush(&mut self, slot: usize) {
        if let Some(Some(run)) = self.runs.get_mut(slot) {
            run.sinks.iter_mut().for_each(super::sink::Sink::flush);
        }
    }

    fn do_what_is_due(&mut self) {
        if self.flush_at.is_none() && self.retry_at.is_none() {
            return;
        }
        let now = clock::boot_us();
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            for slot in std::mem::take(&mut self.unwritten) {
                self.flush(slot);
                let Some(Some(run)) = self.runs.get(slot) else { continue };
                if run.has_unwritten_records() {
                    // The disk refuses them: no sooner than it may take them again.
                    self.unwritten.push(slot);
                    self.flush_at = Some(now + RETRY_US);
                }
            }
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for slot in 0..self.runs.len() {
                self.retry(slot);
            }
        }
    }

    /// Tries a stalled run again.
    fn retry(&mut self, slot: usize) {
        let Some(Some(run)) = self.runs.get(slot) else { return };
        if run.stalled().is_none() || run.drops {
            return;
        }
        self.sweep(slot);
        if let Some(Some(run)) = self.runs.get_mut(slot) {
            for n in 0..run.sinks.len() {
                if run.fifos.iter().all(|f| f.sink != n || f.watch != Watch::Quiet) {
                    run.sinks[n].forgive();
                }
            }
        }
        self.after(slot);
    }

    /// Closes everything; what is in the pipes stays there.
    fn end(self) {
        for mut run in self.runs.into_iter().flatten() {
            run.sinks.iter_mut().for_each(super::sink::Sink::flush);
        }
        self.tools.background.finish();
    }
}

fn timespec(us: u64) -> Timespec {
    let (secs, rest) = (us / 1_000_000, us % 1_000_000);
    Timespec {
        tv_sec: i64::try_from(secs).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(rest * 1000).unwrap_or(0),
    }
}
