//! The writer's thread: many wait, one writes.
//!
//! Who has something to record encodes it into a buffer; the thread takes the buffer, writes it at once,
//! syncs once, and answers everyone in it. There is no timer: batches form while the disk is busy. When
//! nothing followed a batch for a second, it is marked, see [`Journal::mark`]. A second thread makes
//! checkpoints out of files, beside all this.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::append::{Batch, Journal, bodies};
use super::checkpoint::{self, Behind};
use super::fold::Folding;
use super::line::Entry;
use super::{JournalError, SEAL_EVENTS};
use crate::core::state::State;

/// Silence after which the last batch is marked.
const MARK_AFTER: Duration = Duration::from_secs(1);

/// Told the number of the last line once it is durable, or why it is not. Dropped if the thread is gone.
pub type Answer = Box<dyn FnOnce(Result<u64, JournalError>) + Send>;

/// The way to the thread.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    keep_runs: Arc<AtomicUsize>,
    unreadable: Arc<AtomicBool>,
    thread: Option<JoinHandle<Journal>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    batch: Batch,
    waiting: Vec<(u64, Answer)>,
    heal: Vec<Answer>,
    checkpoint: Vec<Answer>,
    memory: Vec<Memory>,
    /// Why nothing is taken any more.
    refused: Option<String>,
    closed: bool,
    /// Not another byte is written.
    abandoned: bool,
    /// The thread is gone: who asks is told so by the loss of the answer.
    ended: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Shared {
    /// A thread that panicked holding the lock has left the queue whole: it does nothing in between.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A memory to be written down, the number of the last decision in it, and who waits for it.
type Memory = (Box<State>, u64, Answer);

/// A checkpoint to be made.
enum Order {
    /// Out of files, up to this line, for those who wait for it.
    Fold(u64, Vec<Answer>),
    /// Out of a memory.
    Write(Box<State>, Behind, Answer),
}

impl Writer {
    /// Gives the log to a thread of its own.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(journal: Journal) -> io::Result<Self> {
        let queue = Queue {
            batch: Batch::new(journal.last_seq(), journal.last_crc()),
            refused: journal.poisoned().map(str::to_owned),
            ..Queue::default()
        };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), work: Condvar::new() });
        let last_bytes = Arc::new(AtomicU64::new(0));
        let (orders, receive) = channel();
        let keep_runs = journal.folding().keep_runs;
        let unreadable = Arc::new(AtomicBool::new(false));
        let folder = Folder {
            folding: journal.folding(),
            orders: receive,
            last_bytes: Arc::clone(&last_bytes),
            unreadable: Arc::clone(&unreadable),
        };
        let folder = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || folder.run())?;
        let thread = Thread {
            journal,
            shared: Arc::clone(&shared),
            written: None,
            opened: Instant::now(),
            lines: 0,
            orders,
            folder,
            last_bytes,
        };
        let thread = std::thread::Builder::new().name("journal".to_owned()).stack_size(512 * 1024).spawn(
            move || {
                let _ending = Ending(Arc::clone(&thread.shared));
                thread.run()
            },
        )?;
        Ok(Self { shared, keep_runs, unreadable, thread: Some(thread) })
    }

    /// Hands decisions over; the answer comes when they are durable, or will not be.
    pub fn submit(&self, entries: &[Entry], answer: Answer) {
        // Before the lock: only numbers and checksums have to wait for their turn.
        let encoded = bodies(entries);
        let refused = {
            let mut queue = self.shared.lock();
            if queue.ended {
                return;
            }
            match (&queue.refused, encoded) {
                (Some(first), _) => JournalError::Poisoned { first: first.clone() },
                (None, Ok(bodies)) => {
                    queue.batch.add(&bodies);
                    let last = queue.batch.last;
                    queue.waiting.push((last, answer));
                    drop(queue);
                    self.shared.work.notify_one();
                    return;
                }
                (None, Err(error)) => error,
            }
        };
        answer(Err(refused));
    }

    /// Asks for another try after an error; the answer is the number of the last durable line.
    pub fn heal(&self, answer: Answer) {
        self.ask(|queue| queue.heal.push(answer));
    }

    /// Asks for a checkpoint of everything handed over so far; the answer is the last line it covers.
    pub fn checkpoint(&self, answer: Answer) {
        self.ask(|queue| queue.checkpoint.push(answer));
    }

    /// Asks for a checkpoint made of the memory itself, which knows everything up to line `seq`: for when the files
    /// cannot be read. The answer is the last line it covers, or an error if something was decided after that.
    pub fn checkpoint_of(&self, state: State, seq: u64, answer: Answer) {
        self.ask(|queue| queue.memory.push((Box::new(state), seq, answer)));
    }

    /// Whether files have been found, since this was asked last, that read otherwise than they were written.
    #[must_use]
    pub fn found_unreadable(&self) -> bool {
        self.unreadable.swap(false, Ordering::Relaxed)
    }

    fn ask(&self, what: impl FnOnce(&mut Queue)) {
        let mut queue = self.shared.lock();
        if !queue.ended {
            what(&mut queue);
            drop(queue);
            self.shared.work.notify_one();
        }
    }

    /// Ended runs that checkpoints remember for each job, from now on.
    pub fn keep_runs(&self, keep: usize) {
        self.keep_runs.store(keep, Ordering::Relaxed);
    }

    /// Ends without another byte: somebody else writes now.
    pub fn abandon(&self) {
        self.shared.lock().abandoned = true;
        self.shared.work.notify_one();
    }

    /// Ends the threads when everything handed over is written; gives the log back.
    #[must_use]
    pub fn close(mut self) -> Option<Journal> {
        self.end()
    }

    fn end(&mut self) -> Option<Journal> {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
        self.thread.take()?.join().ok()
    }
}

/// Lets go of everyone who waits when the thread ends, however it does.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.ended = true;
        let gone = (std::mem::take(&mut queue.waiting), std::mem::take(&mut queue.heal));
        let more = (std::mem::take(&mut queue.checkpoint), std::mem::take(&mut queue.memory));
        drop(queue);
        drop((gone, more));
    }
}

/// Makes checkpoints.
struct Folder {
    folding: Folding,
    orders: Receiver<Order>,
    last_bytes: Arc<AtomicU64>,
    unreadable: Arc<AtomicBool>,
}

impl Folder {
    fn run(self) {
        for order in &self.orders {
            match order {
                Order::Fold(upto, waiting) => self.fold(upto, waiting),
                Order::Write(state, behind, answer) => {
                    let (fs, dirs) = (&*self.folding.fs, &self.folding.dirs);
                    let done = checkpoint::write(fs, dirs, &state, &behind);
                    if let Ok(bytes) = &done {
                        tracing::debug!(behind.seq, bytes, "a checkpoint of the memory was made");
                        self.last_bytes.store(*bytes, Ordering::Relaxed);
                    }
                    answer(
                        done.map(|_| behind.seq).map_err(|e| JournalError::Checkpoint { why: e.in_words() }),
                    );
                }
            }
        }
    }

    fn fold(&self, upto: u64, waiting: Vec<Answer>) {
        let done = self.folding.run(upto);
        match &done {
            Ok(folded) => {
                tracing::debug!(folded.seq, folded.bytes, "a checkpoint was made");
                self.last_bytes.store(folded.bytes, Ordering::Relaxed);
            }
            Err(error) => {
                let otherwise = matches!(error, JournalError::Io { what: "fold", .. });
                self.unreadable.fetch_or(otherwise, Ordering::Relaxed);
                tracing::warn!(upto, "no checkpoint can be made: {}", error.in_words());
            }
        }
        for answer in waiting {
            answer(match &done {
                Ok(folded) => Ok(folded.seq),
                Err(error) => Err(JournalError::Checkpoint { why: error.in_words() }),
            });
        }
    }
}

struct Thread {
    journal: Journal,
    shared: Arc<Shared>,
    /// When the last batch was written.
    written: Option<Instant>,
    /// When the first decision in the open segment was written, and how many there are.
    opened: Instant,
    lines: u64,
    orders: Sender<Order>,
    folder: JoinHandle<()>,
    last_bytes: Arc<AtomicU64>,
}

enum Work {
    Write(Batch, Vec<(u64, Answer)>),
    Heal(Vec<Answer>),
    Checkpoint(Vec<Answer>),
    Memory(Memory),
    Seal,
    End,
}

impl Thread {
    fn run(mut self) -> Journal {
        if self.journal.poisoned().is_none() && self.journal.wants_checkpoint() {
            self.order(Vec::new());
        }
        loop {
            match self.next() {
                Work::Write(batch, waiting) => self.write(&batch, waiting),
                Work::Heal(waiting) => self.heal(waiting),
                Work::Checkpoint(waiting) => self.checkpoint(waiting),
                Work::Memory(memory) => self.memory(memory),
                Work::Seal => self.seal(),
                Work::End => {
                    // What was ordered is still made.
                    drop(self.orders);
                    let _ = self.folder.join();
                    return self.journal;
                }
            }
        }
    }

    fn next(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.lock();
        loop {
            if queue.abandoned {
                return Work::End;
            }
            if !queue.heal.is_empty() {
                return Work::Heal(std::mem::take(&mut queue.heal));
            }
            if !queue.waiting.is_empty() {
                let next = Batch::new(queue.batch.last, queue.batch.crc);
                let batch = std::mem::replace(&mut queue.batch, next);
                return Work::Write(batch, std::mem::take(&mut queue.waiting));
            }
            if !queue.checkpoint.is_empty() {
                return Work::Checkpoint(std::mem::take(&mut queue.checkpoint));
            }
            if let Some(memory) = queue.memory.pop() {
                return Work::Memory(memory);
            }
            let (mark, seal) = (self.mark_in(), self.seal_in());
            let due = |wait: Option<Duration>| wait.is_some_and(|wait| queue.closed || wait.is_zero());
            if due(mark)
                && let Ok(batch) = Batch::mark(queue.batch.last, queue.batch.crc, self.journal.by())
            {
                // Under the lock: what is encoded from now on is encoded behind the mark.
                queue.batch = Batch::new(batch.last, batch.crc);
                return Work::Write(batch, Vec::new());
            }
            if due(seal) {
                return Work::Seal;
            }
            if queue.closed {
                return Work::End;
            }
            queue = match [mark, seal].into_iter().flatten().min() {
                Some(wait) => {
                    let waited = shared.work.wait_timeout(queue, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// How long until the last batch is to be marked, if it is.
    fn mark_in(&self) -> Option<Duration> {
        let written = self.written?;
        self.journal.wants_mark().then(|| MARK_AFTER.saturating_sub(written.elapsed()))
    }

    /// How long until the open segment is to be ended, if anything is in it.
    fn seal_in(&self) -> Option<Duration> {
        let dirty = self.lines > 0 && self.journal.poisoned().is_none();
        dirty.then(|| seal_after(self.lines).saturating_sub(self.opened.elapsed()))
    }

    fn write(&mut self, batch: &Batch, waiting: Vec<(u64, Answer)>) {
        match self.journal.commit(batch) {
            Ok(_) => {
                self.written = Some(Instant::now());
                if self.lines == 0 {
                    self.opened = Instant::now();
                }
                self.lines += batch.decisions;
                for (seq, answer) in waiting {
                    answer(Ok(seq));
                }
            }
            Err(error) => {
                self.refuse();
                let why = error.in_words();
                for (_, answer) in waiting {
                    answer(Err(JournalError::Indeterminate { why: why.clone() }));
                }
            }
        }
    }

    fn seal(&mut self) {
        self.lines = 0;
        if self.journal.rotate().is_err() {
            self.refuse();
        } else if self.journal.wants_checkpoint() {
            self.order(Vec::new());
        }
    }

    fn checkpoint(&mut self, waiting: Vec<Answer>) {
        self.lines = 0;
        match self.journal.rotate() {
            Ok(()) if self.journal.poisoned().is_none() => self.order(waiting),
            _ => {
                self.refuse();
                let first = self.journal.poisoned().unwrap_or("an error");
                for answer in waiting {
                    answer(Err(JournalError::Poisoned { first: first.to_owned() }));
                }
            }
        }
    }

    fn order(&mut self, waiting: Vec<Answer>) {
        self.journal.checkpoint_begun(self.last_bytes.load(Ordering::Relaxed));
        // It ends after us.
        let _ = self.orders.send(Order::Fold(self.journal.last_seq(), waiting));
    }

    fn memory(&mut self, (state, seq, answer): Memory) {
        if seq < self.journal.last_decision() {
            let why = "something was decided meanwhile".to_owned();
            return answer(Err(JournalError::Checkpoint { why }));
        }
        self.lines = 0;
        if self.journal.rotate().is_err() || self.journal.poisoned().is_some() {
            self.refuse();
            let first = self.journal.poisoned().unwrap_or("an error").to_owned();
            return answer(Err(JournalError::Poisoned { first }));
        }
        self.journal.checkpoint_begun(self.last_bytes.load(Ordering::Relaxed));
        let (at, generation) = self.journal.by();
        let (seq, crc) = (self.journal.last_seq(), self.journal.last_crc());
        let _ = self.orders.send(Order::Write(state, Behind { seq, crc, at, generation }, answer));
    }

    /// Nothing is taken any more; what was not yet begun will not be.
    fn refuse(&self) {
        let first = self.journal.poisoned().unwrap_or("an error").to_owned();
        let waiting = {
            let mut queue = self.shared.lock();
            queue.refused = Some(first.clone());
            queue.batch = Batch::new(self.journal.last_seq(), self.journal.last_crc());
            std::mem::take(&mut queue.waiting)
        };
        for (_, answer) in waiting {
            answer(Err(JournalError::Poisoned { first: first.clone() }));
        }
    }

    fn heal(&mut self, waiting: Vec<Answer>) {
        let why = match self.journal.heal() {
            Ok(()) => {
                let mut queue = self.shared.lock();
                if queue.refused.take().is_some() {
                    queue.batch = Batch::new(self.journal.last_seq(), self.journal.last_crc());
                    self.lines = 0;
                }
                None
            }
            Err(error) => Some(error.in_words()),
        };
        for answer in waiting {
            answer(match &why {
                None => Ok(self.journal.last_seq()),
                Some(first) => Err(JournalError::Poisoned { first: first.clone() }),
            });
        }
    }
}

/// When a segment with so many decisions is ended, after its first: soon where much happens. Not within a
/// second, however much: the work of ending one is that of several writes.
const fn seal_after(lines: u64) -> Duration {
    match lines {
        SEAL_EVENTS.. => Duration::from_secs(1),
        20.. => Duration::from_secs(30),
        5.. => Duration::from_secs(120),
        _ => Duration::from_secs(300),
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.end());
    }
}
