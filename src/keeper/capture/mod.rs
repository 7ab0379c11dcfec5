//! Capture: from the FIFOs of runs to the files under `output/`.
//!
//! One worker thread per output device, so that a disk that hangs stops only the runs that write to it.
//! A worker waits in one `epoll_wait` for all its FIFOs and moves what is there by `splice(2)`; a byte is in
//! the pipe or in the file, and nowhere else, at every instruction. What is kept in memory (positions,
//! counters, the last index record) can be found again from the files.
//!
//! Fairness: a FIFO that is ready gets a bounded share, then the next one, in the order in which they
//! became ready. When nothing happens, nothing wakes up.
//!
//! Two helper threads per device come into being with the first rotation: one deletes old segments, one
//! (with the lowest priority) compresses closed ones.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::core::ids::RunId;
use crate::core::spec::Output;

mod background;
mod index;
mod run;
mod sink;
mod worker;

#[cfg(test)]
mod tests;

use worker::{Command, Mailbox};

/// A run whose output is to be captured.
#[derive(Debug)]
pub struct AddRun {
    /// The run.
    pub run: RunId,
    /// Where its files go; created with the first byte if it is missing.
    pub output_dir: PathBuf,
    /// Capture settings.
    pub settings: Output,
    /// Reading end of the standard output's FIFO, non-blocking.
    pub stdout: OwnedFd,
    /// Reading end of the standard error output's FIFO, non-blocking.
    pub stderr: OwnedFd,
    /// Whether a keeper before this one has captured this run: its job has opened the FIFOs already.
    pub resumed: bool,
}

/// What was captured of a run so far, in bytes. Offsets at the end of the series, so that what an earlier
/// keeper captured is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// From stdout; from both streams in merged mode.
    pub stdout_bytes: u64,
    /// From stderr in separate mode.
    pub stderr_bytes: u64,
    /// Thrown away, because the disk refused them and the policy is `drop`.
    pub dropped: u64,
}

/// News from the workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaptureEvent {
    /// Answer to [`Capture::drain`]: what was in the pipes then is on disk, or is refused by it.
    Drained {
        /// The run.
        run: RunId,
        /// Bytes so far.
        totals: Totals,
        /// Whether there can be no more: nobody holds a FIFO, and the pipes are empty.
        complete: bool,
    },
    /// Nobody holds any of the run's FIFOs for writing. Told again if somebody opens one and goes away.
    HolderGone {
        /// The run.
        run: RunId,
    },
    /// The disk refuses a run's bytes, or takes them again.
    Stall {
        /// The run.
        run: RunId,
        /// Error number; 0 when the disk takes bytes again.
        errno: i32,
        /// Bytes dropped so far.
        dropped: u64,
    },
    /// Answer to [`Capture::remove`]: the descriptors are closed.
    Closed {
        /// The run.
        run: RunId,
        /// Bytes in all.
        totals: Totals,
    },
    /// A worker ended by an error of its own, and its runs are not captured: the keeper should be replaced.
    /// Nothing is lost as long as the FIFOs are held.
    Failed {
        /// Error number, 0 without one.
        errno: i32,
        /// What it was doing.
        what: &'static str,
    },
}

/// How workers tell their news. Called on their threads, and on callers' threads with the routes locked: it
/// must neither wait for long nor call [`Capture`].
trait Tell: Fn(CaptureEvent) + Send {
    fn boxed(&self) -> Notify;
}

impl<F: Fn(CaptureEvent) + Send + Clone + 'static> Tell for F {
    fn boxed(&self) -> Notify {
        Notify(Box::new(self.clone()))
    }
}

struct Notify(Box<dyn Tell>);

impl Notify {
    fn tell(&self, event: CaptureEvent) {
        (self.0)(event);
    }
}

/// Counters that a worker writes and anybody reads.
#[derive(Debug, Default)]
struct Counters {
    stdout: AtomicU64,
    stderr: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    fn read(&self) -> Totals {
        Totals {
            stdout_bytes: self.stdout.load(Ordering::Relaxed),
            stderr_bytes: self.stderr.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

/// Owner of the workers. All calls return at once; what they bring about is told by events.
pub struct Capture {
    routes: Arc<Mutex<Routes>>,
}

/// Who captures what.
struct Routes {
    notify: Notify,
    /// Device of each directory that holds run directories, learnt once.
    devices: HashMap<PathBuf, u64>,
    workers: HashMap<u64, Mailbox>,
    threads: Vec<JoinHandle<()>>,
    runs: HashMap<RunId, Entry>,
    closed: bool,
}

struct Entry {
    counters: Arc<Counters>,
    route: Route,
}

enum Route {
    /// The device is being found out; what is asked meanwhile waits here.
    Placing(Vec<Command>),
    At(Mailbox),
}

impl Capture {
    /// No worker yet: they come with the runs. `notify` is called on several threads, must not wait for
    /// long, and must not call this object: sending on a channel is what it is for.
    pub fn new(notify: impl Fn(CaptureEvent) + Send + Clone + 'static) -> Self {
        let routes = Routes {
            notify: Notify(Box::new(notify)),
            devices: HashMap::new(),
            workers: HashMap::new(),
            threads: Vec::new(),
            runs: HashMap::new(),
            closed: false,
        };
        Self { routes: Arc::new(Mutex::new(routes)) }
    }

    /// Captures a run from now on. An error means that a thread could not be made, and nothing is captured.
    ///
    /// The first run under a directory never seen before is placed by a thread of its own, because looking
    /// at a disk that hangs would hang the caller.
    pub fn add(&self, run: AddRun) -> io::Result<()> {
        let mut routes = self.lock();
        let counters = Arc::new(Counters::default());
        let id = run.run;
        let base = base_of(&run);
        let dir = run.output_dir.clone();
        let add = Command::Add(Box::new(run), counters.clone());
        if let Some(&device) = routes.devices.get(&base) {
            let mailbox = routes.worker(device)?;
            mailbox.send(add);
            routes.runs.insert(id, Entry { counters, route: Route::At(mailbox) });
            return Ok(());
        }
        routes.runs.insert(id, Entry { counters, route: Route::Placing(vec![add]) });
        let shared = self.routes.clone();
        let placed = std::thread::Builder::new().name("capture-place".into()).spawn(move || {
            let _ = crate::sys::thread::block_signals();
            let device = device_of(&dir);
            lock(&shared).place(id, base, device);
        });
        placed.map(drop).inspect_err(|_| drop(routes.runs.remove(&id)))
    }

    /// The main process has ended: take what is in the pipes now, then tell [`CaptureEvent::Drained`].
    ///
    /// Capture goes on while anybody holds a FIFO. At most what the pipes can hold is taken before the
    /// answer, so that a flooding left-over process cannot delay it. An unknown run is answered with zeros.
    pub fn drain(&self, run: RunId) {
        self.lock().send(run, Command::Drain(run));
    }

    /// Takes what is in the pipes now, closes the files and the FIFOs, and tells [`CaptureEvent::Closed`].
    pub fn remove(&self, run: RunId) {
        let mut routes = self.lock();
        routes.send(run, Command::Remove(run));
        if matches!(routes.runs.get(&run), Some(Entry { route: Route::At(_), .. })) {
            routes.runs.remove(&run);
        }
    }

    /// Bytes captured so far; zeros for an unknown run.
    #[must_use]
    pub fn totals(&self, run: RunId) -> Totals {
        self.lock().runs.get(&run).map(|e| e.counters.read()).unwrap_or_default()
    }

    /// Ends all workers and waits for them. What is in the pipes stays there.
    pub fn finish(self) {
        let threads = self.lock().close();
        for thread in threads {
            // A worker that panicked has said so on stderr; there is nothing left to do about it here.
            let _ = thread.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Routes> {
        lock(&self.routes)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.lock().close();
    }
}

fn lock(routes: &Mutex<Routes>) -> MutexGuard<'_, Routes> {
    // Every change under the lock is complete in itself, so a panic elsewhere leaves nothing half done.
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Routes {
    fn worker(&mut self, device: u64) -> io::Result<Mailbox> {
        if self.closed {
            return Err(io::Error::other("capture has been ended"));
        }
        if let Some(mailbox) = self.workers.get(&device) {
            return Ok(mailbox.clone());
        }
        let (mailbox, thread) = worker::start(self.notify.0.boxed())?;
        self.workers.insert(device, mailbox.clone());
        self.threads.push(thread);
        Ok(mailbox)
    }

    fn place(&mut self, run: RunId, base: PathBuf, device: u64) {
        let mailbox = self.worker(device).inspect_err(|e| {
            let errno = e.raw_os_error().unwrap_or(0);
            self.notify.tell(CaptureEvent::Failed { errno, what: "starting a worker" });
        });
        let Some(entry) = self.runs.remove(&run) else { return };
        let Route::Placing(waiting) = entry.route else { return };
        let removed = waiting.iter().any(|c| matches!(c, Command::Remove(_)));
        if let Ok(mailbox) = mailbox {
            self.devices.insert(base, device);
            if !removed {
                let route = Route::At(mailbox.clone());
                self.runs.insert(run, Entry { counters: entry.counters, route });
            }
            waiting.into_iter().for_each(|command| mailbox.send(command));
        } else {
            waiting.into_iter().for_each(|command| self.refuse(command));
        }
    }

    fn send(&mut self, run: RunId, command: Command) {
        match self.runs.get_mut(&run).map(|e| &mut e.route) {
            Some(Route::Placing(waiting)) => waiting.push(command),
            Some(Route::At(mailbox)) => mailbox.send(command),
            None => self.refuse(command),
        }
    }

    /// Answers for a run that nobody captures.
    fn refuse(&self, command: Command) {
        let totals = Totals::default();
        match command {
            Command::Drain(run) => self.notify.tell(CaptureEvent::Drained { run, totals, complete: false }),
            Command::Remove(run) => self.notify.tell(CaptureEvent::Closed { run, totals }),
            Command::Add(..) | Command::Stop => {}
        }
    }

    fn close(&mut self) -> Vec<JoinHandle<()>> {
        self.closed = true;
        for (_, mailbox) in self.workers.drain() {
            mailbox.send(Command::Stop);
        }
        std::mem::take(&mut self.threads)
    }
}

/// The directory that stands for the disk: the one that was configured, or else the one that holds all run
/// directories, given `…/runs/<id>/output`.
fn base_of(run: &AddRun) -> PathBuf {
    let runs = || run.output_dir.parent().and_then(Path::parent).map(Path::to_owned);
    let configured = run.settings.dir.as_ref().map(PathBuf::from);
    configured.or_else(runs).unwrap_or_else(|| run.output_dir.clone())
}

/// The device of a directory, or of the nearest parent that exists.
fn device_of(dir: &Path) -> u64 {
    dir.ancestors().find_map(|d| d.metadata().ok()).map_or(0, |m| m.dev())
}
