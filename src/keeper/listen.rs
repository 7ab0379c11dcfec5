//! Listening to runs: the socket in `NOTIFY_SOCKET`, and the descriptor for readiness.
//!
//! # The socket
//!
//! Each run that is to tell things has one of its own, so a message is about that run and no other, and a run
//! that floods its socket holds up only itself. Who sends is proven, message by message, to be of the run
//! ([`tree::is_of_run`]); what anybody else sends, and what somebody sent who was gone before we could look,
//! is counted as rejected and changes nothing.
//!
//! # What is not lost
//!
//! A message is looked at, its effect is put on the disk (`told.json` in the runtime directory), and only then
//! is it taken from the socket. Whoever dies in between finds it there again; it then counts twice in the
//! counters and once in all else. While there is no keeper messages wait in the socket, which init holds too:
//! as many as the kernel lets wait, then the sender does. A beat alone changes nothing but a time of that
//! file (`state_dir::told`), and is told to nobody who does not ask.
//!
//! A supervisor is told all of it at once when something has changed that may be decided by; what is for people
//! (status, progress, the counters) at most ten times a second; and nothing while it has not read what waits
//! for it: then the latest state, once.
//!
//! The disk may refuse `told.json`. Then the memory is all there is, and it is tried again with the next
//! message and every half minute: a run is not to wait because our disk is full.
//!
//! # The descriptor
//!
//! A FIFO that the run holds open read-write, so that nothing ever gives it a SIGPIPE and its bytes wait. Its
//! content is copied with tee(2) and looked at; only what holds no line end is taken out. With the first line
//! end the run is ready, and nobody reads there any more.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags};

use super::launch::{notify_address, open_fifo};
use super::main_loop::{Keeper, NOTIFY, READY, now};
use super::run::Run;
use super::survive::Claim;
use super::told::{ignore, take_in};
use super::tree;
use crate::core::ids::RunId;
use crate::state_dir::records::{ReadError, RunRecord, read_json, to_json};
use crate::state_dir::{atomic, quarantine};
use crate::sys::{clock, datagram, identity, pidfd};
use crate::wire::keeper::{FromKeeper, Notice, TOLD_VERSION, Told};

/// Longest message in bytes; longer ones are ignored.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Most messages of one run that are handled in one turn of the loop.
const MESSAGES_PER_TURN: usize = 64;

/// Longest time for the messages of one run in one turn, in microseconds.
const TURN_US: u64 = 2_000;

/// Between two notices about what a run tells people only, in microseconds.
const PACE_US: u64 = 100_000;

/// Turns for what a run had said when it ended. A descendant may go on to talk; it is not waited for.
const LAST_TURNS: usize = 16;

/// What a run tells, and by what.
#[derive(Debug, Default)]
pub(super) struct Listening {
    pub(super) told: Told,
    /// The socket.
    notify: Option<Ear>,
    /// The FIFO for readiness.
    ready: Option<Ear>,
    /// Whether `told` is not all on the disk.
    unsaved: bool,
    /// When the supervisor was last told, boot clock.
    published_us: u64,
}

/// A descriptor that the loop watches.
#[derive(Debug)]
struct Ear {
    fd: OwnedFd,
    token: u64,
}

impl Keeper {
    /// Listens to a run that is in `runs`.
    pub(super) fn listen(&mut self, id: RunId, told: Told, notify: Option<OwnedFd>, ready: Option<OwnedFd>) {
        let notify = notify.and_then(|fd| self.ear(fd, NOTIFY, id));
        let ready = ready.and_then(|fd| self.ear(fd, READY, id));
        if let Some(run) = self.runs.get_mut(&id) {
            run.listening = Some(Box::new(Listening { told, notify, ready, ..Listening::default() }));
        }
    }

    fn ear(&mut self, fd: OwnedFd, kind: u64, id: RunId) -> Option<Ear> {
        let token = self.watch_words(fd.as_fd(), kind, id).ok()?;
        Some(Ear { fd, token })
    }

    /// What init is to hold: the socket, and the FIFO for readiness.
    pub(super) fn words(&self, id: RunId) -> [Option<BorrowedFd<'_>>; 2] {
        let listening = self.runs.get(&id).and_then(|run| run.listening.as_deref());
        let ears = listening.map_or([None, None], |words| [words.notify.as_ref(), words.ready.as_ref()]);
        ears.map(|ear| ear.map(|ear| ear.fd.as_fd()))
    }

    /// Listens to a run that an earlier keeper started; of one that is `over` only what it had told is read.
    /// What was lost with all its holders is made anew. True if init does not hold what it should.
    pub(super) fn listen_again(
        &mut self,
        id: RunId,
        record: Option<&RunRecord>,
        (notify, ready): (Option<OwnedFd>, Option<OwnedFd>),
        over: bool,
    ) -> bool {
        let wants_notify = notify.is_some() || record.is_some_and(|record| record.notify);
        let wants_ready = ready.is_some() || record.is_some_and(|record| record.ready_fd.is_some());
        if !wants_notify && !wants_ready {
            return false;
        }
        let told = self.read_told(id);
        let runtime = self.runtime.run(id);
        let had = [notify.is_some(), ready.is_some()];
        let owner = record.and_then(|record| record.user.as_ref()).map(|user| (user.uid, user.gid));
        let bind = || datagram::bind(&notify_address(&runtime, id, owner)).ok();
        let notify = if over || !wants_notify { None } else { notify.or_else(bind) };
        let open = || open_fifo(&runtime.ready()).ok();
        let deaf = over || !wants_ready || told.ready.is_some();
        let ready = if deaf { None } else { ready.or_else(open) };
        let has = [notify.is_some(), ready.is_some()];
        self.listen(id, told, notify, ready);
        had != has
    }

    fn read_told(&self, id: RunId) -> Told {
        let runtime = self.runtime.run(id);
        let path = runtime.told();
        // Before it is read: that may change its times.
        let beat = runtime.marked_beat(now());
        let mut told: Told = match read_json(&path) {
            Ok(told) => told.unwrap_or_default(),
            Err(ReadError::Bad { .. }) => {
                let _ = quarantine::set_aside(&self.state, &path, "not what a run has told");
                Told::default()
            }
            Err(_) => Told::default(),
        };
        if told.beat.is_some() {
            told.beat = told.beat.max(beat);
        }
        told
    }

    /// Handles messages of a run, and tells the supervisor if they say anything but that it is well.
    pub(super) fn hear(&mut self, id: RunId) {
        let mut message = std::mem::take(&mut self.message);
        self.hear_some(id, &mut message);
        self.message = message;
    }

    /// False: there is nothing left to hear.
    fn hear_some(&mut self, id: RunId, message: &mut [u8]) -> bool {
        let Some(listening) = self.listening(id) else { return false };
        let before = listening.told.clone();
        let began = clock::boot_us();
        let mut known = None;
        let mut more = true;
        for _ in 0..MESSAGES_PER_TURN {
            more = self.hear_one(id, message, &mut known);
            if !more || clock::boot_us() - began > TURN_US {
                break;
            }
        }
        self.save_if_unsaved(id);
        self.publish(id, &before);
        more
    }

    /// False: there is no message.
    fn hear_one(&mut self, id: RunId, message: &mut [u8], known: &mut Option<BTreeSet<i32>>) -> bool {
        let Some(run) = self.runs.get(&id) else { return false };
        let Some(listening) = run.listening.as_deref() else { return false };
        let Some(ear) = &listening.notify else { return false };
        let Ok(Some(peeked)) = datagram::peek(&ear.fd, message) else { return false };
        die_at("keeper.peeked");
        let mut told = listening.told.clone();
        let mut of_run = |pid: i32| self.is_of_run(run, pid, known);
        if !of_run(peeked.pid) {
            told.rejected = told.rejected.saturating_add(1);
        } else if peeked.cut {
            ignore(&mut told);
        } else {
            take_in(&mut told, message.get(..peeked.len).unwrap_or_default(), now(), of_run);
        }
        self.note(id, told);
        die_at("keeper.noted");
        if let Some(ear) = self.listening(id).and_then(|listening| listening.notify.as_ref()) {
            let _ = datagram::take(&ear.fd);
        }
        true
    }

    /// Whether a process that was named by its number is of the run.
    fn is_of_run(&self, run: &Run, pid: i32, known: &mut Option<BTreeSet<i32>>) -> bool {
        if pid <= 0 {
            return false;
        }
        let target = self.target(run, self.leader_is_pinned(run));
        if pid == target.leader {
            return target.leader_pinned;
        }
        let look = || &self.known() | &self.starting();
        let cached = known.is_some();
        let found = tree::is_of_run(&target, pid, self.ground(known.get_or_insert_with(look)));
        // To turn somebody away an older list will do.
        found && (!cached || tree::is_of_run(&target, pid, self.ground(known.insert(look()))))
    }

    /// Main processes of runs that are being started, by their claims: each is there before the program is, so
    /// no program can pass for an orphan of another run because nobody knows it yet.
    fn starting(&self) -> BTreeSet<i32> {
        let claim = |id: RunId| match Claim::read(&self.runtime.run(id).decision()) {
            Claim::Exec { pid, .. } => Some(pid),
            Claim::None | Claim::Cancelled | Claim::Unreadable => None,
        };
        self.launching.begun_runs().filter_map(claim).collect()
    }

    /// Whether the number of the main process is still its own, be it as a zombie.
    fn leader_is_pinned(&self, run: &Run) -> bool {
        let waited_for = run.child && self.init.alive().is_some();
        let lives = || run.pidfd.as_ref().is_some_and(|fd| !pidfd::has_ended(fd.as_fd()));
        let is_there = || {
            run.identity.as_ref().is_some_and(|identity| {
                identity::proven(identity.pid, identity.pidfs, identity.start_ticks).is_some()
            })
        };
        waited_for || lives() || is_there()
    }

    fn listening(&mut self, id: RunId) -> Option<&mut Listening> {
        self.runs.get_mut(&id)?.listening.as_deref_mut()
    }

    /// Remembers what a run has told. On return it is safe from our death, but for the counters.
    fn note(&mut self, id: RunId, told: Told) {
        let runtime = self.runtime.run(id);
        let Some(listening) = self.listening(id) else { return };
        let before = std::mem::replace(&mut listening.told, told);
        let told = &listening.told;
        let counted = |of: &Told| (of.rejected, of.ignored);
        let rest = |of: &Told| Told { rejected: 0, ignored: 0, ..without_beat(of) };
        let first_beat = before.beat.is_none() && told.beat.is_some();
        if first_beat || rest(&before) != rest(told) {
            listening.unsaved = true;
            self.save_if_unsaved(id);
        } else if before.beat != told.beat {
            let marked = told.beat.is_some_and(|beat| runtime.mark_beat(beat.boot_us).is_ok());
            listening.unsaved |= !marked;
        } else if counted(&before) != counted(told) {
            // Whoever sends nonsense in a loop is not to have us write a file each time.
            listening.unsaved = true;
        }
    }

    fn save_if_unsaved(&mut self, id: RunId) {
        let path = self.runtime.run(id).told();
        let Some(listening) = self.listening(id).filter(|listening| listening.unsaved) else { return };
        let saved = to_json(&listening.told).and_then(|bytes| atomic::write_unsynced(&path, &bytes, 0o600));
        listening.unsaved = saved.is_err();
    }

    /// Tries again what the disk has refused.
    pub(super) fn save_all_unsaved(&mut self) {
        let unsaved = |run: &&Run| run.is_live() && run.listening.as_ref().is_some_and(|words| words.unsaved);
        let unsaved: Vec<RunId> = self.runs.values().filter(unsaved).map(|run| run.id).collect();
        for id in unsaved {
            self.save_if_unsaved(id);
        }
    }

    /// Tells the supervisor if anything but the beat is new, at once or after a while, and lets go of what is
    /// of no use any more.
    fn publish(&mut self, id: RunId, before: &Told) {
        let Some(listening) = self.listening(id) else { return };
        let told = &listening.told;
        if without_beat(told) == without_beat(before) {
            return;
        }
        let is_ready = told.ready.is_some();
        let due_us = listening.published_us + PACE_US;
        if for_machines(told) != for_machines(before) || due_us <= clock::boot_us() {
            self.publish_now(id);
        } else {
            self.unpublished.entry(id).or_insert(due_us);
        }
        if is_ready {
            self.close_ready(id);
        }
    }

    fn publish_now(&mut self, id: RunId) {
        self.unpublished.remove(&id);
        let Some(listening) = self.listening(id) else { return };
        listening.published_us = clock::boot_us();
        for number in self.links.current(self.newest) {
            if let Some(connection) = self.links.get_mut(number)
                && connection.version >= TOLD_VERSION
            {
                connection.untold.insert(id);
                self.tell_untold(number);
            }
        }
    }

    /// Tells a supervisor that has read what it was told before what runs have told meanwhile.
    pub(super) fn tell_untold(&mut self, number: u64) {
        while let Some(connection) = self.links.get_mut(number).filter(|connection| !connection.is_behind())
            && let Some(id) = connection.untold.pop_first()
        {
            if let Some(listening) = self.listening(id) {
                let told = Box::new(listening.told.clone());
                self.say(number, &FromKeeper::Notice(Notice::Told { run: id, told }));
            }
        }
    }

    /// Tells what of a run that has ended was not told yet, also to who has not read everything: the end
    /// comes after it.
    fn publish_last(&mut self, id: RunId) {
        if self.unpublished.contains_key(&id) {
            self.publish_now(id);
        }
        let Some(told) = self.listening(id).map(|listening| Box::new(listening.told.clone())) else { return };
        for number in self.links.current(self.newest) {
            if self.links.get_mut(number).is_some_and(|connection| connection.untold.remove(&id)) {
                self.say(number, &FromKeeper::Notice(Notice::Told { run: id, told: told.clone() }));
            }
        }
    }

    /// Tells what had to wait its turn.
    pub(super) fn publish_late(&mut self, now_us: u64) {
        let due: Vec<RunId> =
            self.unpublished.iter().filter(|(_, due_us)| **due_us <= now_us).map(|(id, _)| *id).collect();
        for id in due {
            self.publish_now(id);
        }
    }

    /// The moment the next word is due to be told.
    pub(super) fn next_word_deadline(&self) -> u64 {
        self.unpublished.values().copied().min().unwrap_or(u64::MAX)
    }

    /// Nothing more can come by the FIFO for readiness.
    fn close_ready(&mut self, id: RunId) {
        if let Some(ear) = self.listening(id).and_then(|listening| listening.ready.take()) {
            self.unwatch_words(ear.fd.as_fd(), ear.token);
            self.renew_escrow(id);
        }
    }

    /// There is something in the FIFO for readiness.
    pub(super) fn look_whether_ready(&mut self, id: RunId) {
        let Some(listening) = self.listening(id) else { return };
        let Some(ear) = &listening.ready else { return };
        match find_line_end(ear.fd.as_fd()) {
            Ok(Said::Ready) => {
                die_at("keeper.peeked");
                let before = listening.told.clone();
                let mut told = before.clone();
                told.ready.get_or_insert(now());
                self.note(id, told);
                die_at("keeper.noted");
                self.publish(id, &before);
            }
            Ok(Said::NoMore) => self.close_ready(id),
            Ok(Said::NotYet) | Err(_) => {}
        }
    }

    /// The run has ended: what it had said before that counts, and nothing after it.
    pub(super) fn hear_out(&mut self, id: RunId) {
        if !self.runs.get(&id).is_some_and(|run| run.is_live() && run.listening.is_some()) {
            return;
        }
        self.look_whether_ready(id);
        let mut message = std::mem::take(&mut self.message);
        for _ in 0..LAST_TURNS {
            if !self.hear_some(id, &mut message) {
                break;
            }
        }
        self.message = message;
        self.publish_last(id);
        self.stop_listening(id);
    }

    fn stop_listening(&mut self, id: RunId) {
        let Some(listening) = self.listening(id) else { return };
        let ears = [listening.notify.take(), listening.ready.take()];
        if ears.iter().all(Option::is_none) {
            return;
        }
        for ear in ears.into_iter().flatten() {
            self.unwatch_words(ear.fd.as_fd(), ear.token);
        }
        // Init's copies too: who goes on to send is refused, and does not wait for ever.
        self.renew_escrow(id);
    }
}

fn without_beat(told: &Told) -> Told {
    Told { beat: None, ..told.clone() }
}

/// What something may be decided by.
fn for_machines(told: &Told) -> Told {
    let people = Told { status: None, progress: None, progress_at: None, ..without_beat(told) };
    Told { rejected: 0, ignored: 0, ..people }
}

/// What the FIFO for readiness says.
enum Said {
    /// There is a line end.
    Ready,
    /// There was something without a line end, which is taken out.
    NotYet,
    /// Nobody holds the other end.
    NoMore,
}

fn find_line_end(fifo: BorrowedFd<'_>) -> rustix::io::Result<Said> {
    const LOOK: usize = 4096;
    let mut bytes = [0; LOOK];
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let copied = rustix::pipe::tee(fifo, &write, LOOK, SpliceFlags::NONBLOCK)?;
    if copied == 0 {
        return Ok(Said::NoMore);
    }
    let seen = rustix::io::read(&read, &mut bytes[..copied.min(LOOK)])?;
    if memchr::memchr(b'\n', &bytes[..seen]).is_some() {
        return Ok(Said::Ready);
    }
    rustix::io::read(fifo, &mut bytes[..seen])?;
    Ok(Said::NotYet)
}

/// For tests: dies here if the file that the environment names says so.
#[cfg(debug_assertions)]
pub(super) fn die_at(name: &str) {
    let Some(path) = std::env::var_os("OUTLIVE_TEST_DIE_AT").map(std::path::PathBuf::from) else { return };
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let Some((first, rest)) = text.split_once('\n') else { return };
    if first == name && atomic::write_unsynced(&path, rest.as_bytes(), 0o600).is_ok() {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn die_at(_: &str) {}
