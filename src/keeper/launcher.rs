//! The threads that start runs, and their queue. A thread starts whatever waits to be started, and does the
//! paperwork about started runs (any thread's) when nothing does: a thousand programs that were asked for
//! at once should run before a thousand links are made.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::EventfdFlags;

use super::launch::{NotLaunched, Site, Started};
use crate::core::identity::Identity;
use crate::sys::clock;
use crate::sys::spawn::Spawner;
use crate::wire::keeper::Launch;

/// Threads: with two, one works while the other waits for its child. More than four would only queue up
/// before init, which hears of every child.
const THREADS: (usize, usize) = (2, 4);

/// Longest time for which the paperwork about a started run waits while there are runs to be started.
const SETTLE_AFTER_US: u64 = 1_000_000;

/// A start that a thread is to make.
pub(super) struct Order {
    pub(super) launch: Box<Launch>,
    /// The socket to init, if init lived when this was asked for.
    pub(super) init: Option<Arc<OwnedFd>>,
}

/// How a start went; `None`: a thread is gone.
pub(super) type News = Option<(Box<Launch>, Result<(Started, Identity), NotLaunched>)>;

/// What there is to do for a thread.
#[allow(clippy::large_enum_variant, reason = "one of them is looked at, and is gone")]
enum Work {
    Start(Order),
    Settle(Box<Launch>, Started),
}

#[derive(Default)]
struct Waiting {
    orders: VecDeque<Order>,
    started: VecDeque<(Box<Launch>, Started)>,
    /// Processes of runs that are started, until the loop knows the run.
    pids: BTreeSet<i32>,
}

impl Waiting {
    fn next(&mut self) -> Option<Work> {
        let late = |(_, first): &(Box<Launch>, Started)| {
            clock::boot_us() > first.at.boot_us.saturating_add(SETTLE_AFTER_US)
        };
        if !self.started.front().is_some_and(late)
            && let Some(order) = self.orders.pop_front()
        {
            return Some(Work::Start(order));
        }
        self.started.pop_front().map(|(launch, run)| Work::Settle(launch, run))
    }
}

/// What no thread has taken.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Work {
        let mut waiting = self.lock();
        loop {
            match waiting.next() {
                Some(work) => return work,
                None => waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// The threads.
pub(super) struct Launcher {
    queue: Arc<Queue>,
    news: Receiver<News>,
    bell: Arc<OwnedFd>,
}

/// Makes the places to spawn from. Early: their descriptors must have low numbers, see `sys::spawn`.
pub(super) fn spawners() -> io::Result<Vec<Spawner>> {
    let count = std::thread::available_parallelism().map_or(THREADS.0, std::num::NonZero::get);
    (0..count.clamp(THREADS.0, THREADS.1)).map(|_| Spawner::new()).collect()
}

impl Launcher {
    /// Starts a thread for each place.
    pub(super) fn new(site: Site, spawners: Vec<Spawner>) -> io::Result<Self> {
        let bell = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (tell, news) = channel();
        let (site, queue) = (Arc::new(site), Arc::new(Queue::default()));
        for spawner in spawners {
            let worker = Worker {
                site: Arc::clone(&site),
                queue: Arc::clone(&queue),
                news: tell.clone(),
                bell: Arc::clone(&bell),
            };
            std::thread::Builder::new()
                .name("launch".to_owned())
                .stack_size(256 * 1024)
                .spawn(move || worker.work(&spawner))?;
        }
        Ok(Self { queue, news, bell })
    }

    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    pub(super) fn put(&self, order: Order) {
        self.queue.lock().orders.push_back(order);
        self.queue.more.notify_one();
    }

    /// Processes of runs that the loop has not taken over yet.
    pub(super) fn started(&self) -> Vec<i32> {
        self.queue.lock().pids.iter().copied().collect()
    }

    /// The loop has taken over the run of this process.
    pub(super) fn taken_over(&self, pid: i32) {
        self.queue.lock().pids.remove(&pid);
    }

    /// What has happened; the bell is silenced first, so that nothing is missed.
    pub(super) fn news(&self) -> Vec<News> {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut counter);
        self.news.try_iter().collect()
    }

    /// The next news, waited for.
    pub(super) fn wait(&self, time: Duration) -> Result<News, RecvTimeoutError> {
        self.news.recv_timeout(time)
    }
}

struct Worker {
    site: Arc<Site>,
    queue: Arc<Queue>,
    news: Sender<News>,
    bell: Arc<OwnedFd>,
}

impl Worker {
    fn work(self, spawner: &Spawner) {
        loop {
            match self.queue.take() {
                Work::Start(Order { launch, init }) => {
                    let socket = init.as_ref().map(|socket| socket.as_fd());
                    match self.site.launch(spawner, &launch, socket) {
                        Ok(run) => {
                            let mut waiting = self.queue.lock();
                            waiting.pids.insert(run.child.pid);
                            waiting.started.push_back((launch, run));
                            drop(waiting);
                            self.queue.more.notify_one();
                        }
                        Err(error) => self.tell(Some((launch, Err(error)))),
                    }
                }
                Work::Settle(launch, run) => {
                    let identity = self.site.settle(&launch, &run);
                    self.tell(Some((launch, Ok((run, identity)))));
                }
            }
        }
    }

    fn tell(&self, news: News) {
        // The receiver lives as long as the keeper's loop; a full counter is a rung bell too.
        let _ = self.news.send(news);
        let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell(None);
        }
    }
}
