//! The files of the event log are read again from time to time, so that what rots is found while somebody still
//! knows what was in it: this supervisor. Its memory is written down first, the damage set aside afterwards.
//!
//! A thread of its own does it, at the lowest priorities; it asks the loop for two things: to hand the memory to
//! the log's writer, and for a copy of it, which has to be what a replay gives.

use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::asks::Reply;
use super::handle::{Answer, AskError};
use super::main_loop::{Supervisor, Turn};
use super::words;
use crate::core::input::Input;
use crate::core::outcome::Asked;
use crate::core::state::State;
use crate::journal::JournalError;
use crate::journal::inspect::{self, Scrubbed};
use crate::sys::{clock, memory, thread};
use crate::wire::control::ScrubReply;

/// When the files are read for the first time after a start, which has read what it needs of them.
const FIRST: Duration = Duration::from_secs(60);
/// How often they are read after that.
const EVERY: Duration = Duration::from_secs(6 * 3600);
/// How often a checkpoint is tried, because something may be decided in between.
const TRIES: usize = 20;
/// The most jobs with which the memory is compared with a replay: the loop makes a copy of them.
const COMPARED_JOBS: usize = 2000;

/// What the thread tells the loop.
#[derive(Debug)]
pub(super) enum FromScrub {
    /// Write the memory down: the last line that the checkpoint covers, or why there is none.
    Checkpoint(oneshot::Sender<Result<u64, String>>),
    /// The same out of files, where the memory cannot read what rests in one of them.
    Fold(oneshot::Sender<Result<u64, String>>),
    /// What is remembered after which line; nothing if there is too much of it.
    Compare(oneshot::Sender<(State, u64)>),
    /// What it came to.
    Done(Result<ScrubReply, String>),
}

/// How far the loop is with it.
#[derive(Debug)]
pub(super) struct Scrubbing {
    /// When the files are read next, boot clock in microseconds.
    due_us: u64,
    running: bool,
    waiting: Vec<Answer<ScrubReply>>,
    /// What the thread has asked for in this turn.
    asked: Vec<FromScrub>,
    tell: mpsc::Sender<FromScrub>,
}

impl Scrubbing {
    pub(super) fn new() -> (Self, mpsc::Receiver<FromScrub>) {
        let (tell, told) = mpsc::channel(4);
        let due_us = after(FIRST);
        (Self { due_us, running: false, waiting: Vec::new(), asked: Vec::new(), tell }, told)
    }

    /// When the files are read next, if that is known.
    pub(super) fn next_us(&self) -> Option<u64> {
        (!self.running).then_some(self.due_us)
    }
}

fn after(time: Duration) -> u64 {
    clock::boot_us().saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

impl Supervisor {
    /// Somebody asks for it now. One that is under way answers for all.
    pub(super) fn scrub_now(&mut self, reply: Answer<ScrubReply>) {
        self.scrubbing.waiting.push(reply);
        self.scrub();
    }

    pub(super) fn scrub_if_due(&mut self) {
        // A checkpoint that cannot be made out of files says that there is something to find.
        if self.log.found_unreadable() || self.scrubbing.next_us().is_some_and(|due| due <= clock::boot_us())
        {
            self.scrub();
        }
    }

    fn scrub(&mut self) {
        if self.scrubbing.running {
            return;
        }
        let (dir, tell) = (self.state_dir.0.clone(), self.scrubbing.tell.clone());
        let thread =
            std::thread::Builder::new().name("scrub".to_owned()).stack_size(512 * 1024).spawn(move || {
                let _ = thread::block_signals();
                let _ = thread::lower_priority();
                let _ = thread::idle_disk();
                let done = work(&dir, &tell);
                memory::give_back();
                let _ = tell.blocking_send(FromScrub::Done(done));
            });
        self.scrubbing.running = true;
        match thread {
            Ok(_) => {}
            Err(error) => {
                let tell = self.scrubbing.tell.clone();
                let _ = tell.try_send(FromScrub::Done(Err(format!("no thread: {error}"))));
            }
        }
    }

    pub(super) fn scrub_asked(&mut self, asked: FromScrub, turn: &mut Turn) {
        match asked {
            FromScrub::Done(done) => self.scrubbed(done, turn),
            // When all that was decided is durable.
            asked => self.scrubbing.asked.push(asked),
        }
    }

    /// Answers the thread at the end of a turn: what is remembered is what is recorded.
    pub(super) fn answer_scrub(&mut self) {
        for asked in std::mem::take(&mut self.scrubbing.asked) {
            let (tell, of_memory) = match asked {
                FromScrub::Checkpoint(tell) => (tell, true),
                FromScrub::Fold(tell) => (tell, false),
                FromScrub::Compare(tell) => {
                    if self.read_only.is_none() && self.state.names().count() <= COMPARED_JOBS {
                        let _ = tell.send((self.state.clone(), self.seq));
                    }
                    continue;
                }
                FromScrub::Done(_) => continue,
            };
            if let Some(read_only) = &self.read_only {
                let _ = tell.send(Err(read_only.why.clone()));
                continue;
            }
            let answer = Box::new(move |done: Result<u64, JournalError>| {
                let _ = tell.send(done.map_err(|error| error.to_string()));
            });
            if of_memory {
                self.log.checkpoint_of(self.state.clone(), self.seq, answer);
            } else {
                self.log.checkpoint(answer);
            }
        }
    }

    /// Says what it came to, and remembers when to do it again.
    fn scrubbed(&mut self, done: Result<ScrubReply, String>, turn: &mut Turn) {
        self.scrubbing.running = false;
        self.scrubbing.due_us = after(EVERY);
        let sound = match &done {
            Err(why) => {
                tracing::warn!(%why, "the files of the event log cannot be checked");
                Some(format!("the files of the event log cannot be checked: {why}"))
            }
            Ok(reply) => {
                for flaw in &reply.flaws {
                    tracing::error!("the event log is damaged: {flaw}");
                }
                match (&reply.why, reply.checkpoint) {
                    (Some(why), _) => Some(format!("the event log is not as it should be: {why}")),
                    (None, Some(seq)) => {
                        tracing::warn!(
                            seq,
                            kept = reply.kept,
                            "the event log was damaged and is whole again"
                        );
                        self.note_scrub(reply, turn);
                        None
                    }
                    (None, None) => None,
                }
            }
        };
        match sound {
            Some(why) => self.degraded.insert("journal-files", why),
            None => self.degraded.remove("journal-files"),
        };
        turn.changed = true;
        for waiting in std::mem::take(&mut self.scrubbing.waiting) {
            turn.replies.push(Reply::Scrub(waiting, done.clone().map_err(AskError::Internal)));
        }
    }

    fn note_scrub(&mut self, reply: &ScrubReply, turn: &mut Turn) {
        let detail =
            format!("{} flaws in the event log, set aside: {}", reply.flaws.len(), reply.flaws.join("; "));
        let detail = detail.chars().take(DETAIL_MAX).collect();
        let by = Asked::Policy { rule: "scrub".to_owned() };
        self.observe(&Input::Noted { verb: "scrub".to_owned(), job: None, detail, by }, turn);
    }
}

/// Characters of an event's detail.
const DETAIL_MAX: usize = 1000;

/// Reads everything, and puts in order what can be. On a thread of its own.
fn work(dir: &Path, tell: &mpsc::Sender<FromScrub>) -> Result<ScrubReply, String> {
    let found = inspect::scrub(dir).map_err(|error| words(&error))?;
    if found.flaws.is_empty() {
        let why = differs(dir, tell);
        return Ok(ScrubReply { sound: why.is_none(), why, ..ScrubReply::default() });
    }
    let mut reply = ScrubReply { flaws: found.flaws.clone(), ..ScrubReply::default() };
    match heal(dir, tell, &found) {
        Ok((seq, kept)) => (reply.checkpoint, reply.kept) = (Some(seq), kept),
        Err(why) => {
            reply.why = Some(why);
            return Ok(reply);
        }
    }
    let left = inspect::scrub(dir).map_err(|error| words(&error))?.flaws;
    reply.sound = left.is_empty();
    reply.why = (!reply.sound).then(|| left.join("; "));
    Ok(reply)
}

/// First a new checkpoint, then the copies.
fn heal(dir: &Path, tell: &mpsc::Sender<FromScrub>, found: &Scrubbed) -> Result<(u64, usize), String> {
    let mut made = Err("no checkpoint was made".to_owned());
    for _ in 0..TRIES {
        made = ask(tell, FromScrub::Checkpoint).unwrap_or_else(|| Err("the supervisor is ending".to_owned()));
        if made.is_ok() {
            break;
        }
    }
    let seq = match made {
        Ok(seq) => seq,
        Err(why) => ask(tell, FromScrub::Fold)
            .unwrap_or_else(|| Err("the supervisor is ending".to_owned()))
            .map_err(|error| format!("{why}; {error}"))?,
    };
    let kept = found.set_aside(dir, seq).map_err(|error| words(&error))?;
    Ok((seq, kept))
}

/// Whether the memory is another than what a replay gives, in words.
fn differs(dir: &Path, tell: &mpsc::Sender<FromScrub>) -> Option<String> {
    let (state, seq) = ask(tell, FromScrub::Compare)?;
    let replayed = inspect::replay_keeping(dir, seq, state.keep_runs).ok()?;
    if !replayed.lost.is_empty() {
        return None;
    }
    let same = inspect::fingerprint(&replayed.state).ok()? == inspect::fingerprint(&state).ok()?;
    (!same)
        .then(|| format!("what is remembered after line {seq} is not what a replay of the event log gives"))
}

/// Asks the loop; nothing if it does not answer.
fn ask<T>(tell: &mpsc::Sender<FromScrub>, what: impl FnOnce(oneshot::Sender<T>) -> FromScrub) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    tell.blocking_send(what(reply)).ok()?;
    answer.blocking_recv().ok()
}
