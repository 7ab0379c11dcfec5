//! Starts on their way. Threads of their own make them, so that the file work of one start is done while
//! the child of another is on its way to its program, which its spawner has to wait for; and so that the
//! loop hears of ends, and signals, while many starts are asked for at once.
//!
//! A run that is being started belongs to its thread, and the loop knows no more of it than its id. Its
//! start is finished before anything else is done about it: what is asked about it meanwhile, and what
//! init tells about it, waits in [`Begun::later`]. When a keeper dies all its starts stop where they are,
//! and `survive` finds out how far each one came.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::event::EventfdFlags;

use super::capture::{AddRun, Totals};
use super::launch::{NotLaunched, Site, Started};
use super::main_loop::{Keeper, now};
use super::run::{End, Leftovers, Phase, Run};
use crate::core::identity::Identity;
use crate::core::ids::RunId;
use crate::core::outcome::{Asked, Outcome, Source};
use crate::core::spec::Output;
use crate::sys::clock;
use crate::sys::spawn::{Spawner, Step};
use crate::wire::init::Message;
use crate::wire::keeper::{Answer, FromKeeper, Launch, Notice, Numbered, Refusal};

/// Threads: with two, one works while the other waits for its child. More than four would only queue up
/// before init, which hears of every child.
const THREADS: (usize, usize) = (2, 4);

/// Longest time for which the paperwork about a started run waits while there are runs to be started.
const SETTLE_AFTER_US: u64 = 1_000_000;

/// A start that a thread is to make.
struct Order {
    launch: Box<Launch>,
    /// The socket to init, if init lived when this was asked for.
    init: Option<Arc<OwnedFd>>,
}

/// Starts that no thread has taken.
#[derive(Default)]
struct Orders {
    waiting: Mutex<VecDeque<Order>>,
    more: Condvar,
}

impl Orders {
    fn put(&self, order: Order) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        self.more.notify_one();
    }

    fn try_take(&self) -> Option<Order> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn take(&self) -> Order {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match waiting.pop_front() {
                Some(order) => return order,
                None => waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// How it went; `None`: the thread is gone.
type News = Option<(Box<Launch>, Result<(Started, Identity), NotLaunched>)>;

/// A start that was asked for and is not finished.
#[derive(Debug)]
struct Begun {
    /// Whom to answer: the connection, and the number of the request.
    asked_by: (u64, u64),
    later: Vec<Later>,
}

/// What has to wait for the end of a start.
#[derive(Debug)]
enum Later {
    /// A request from this connection.
    Request(u64, Numbered),
    /// The end of the main process, told by init.
    Exited(Message),
}

/// The threads, and what they were given to do.
pub(super) struct Launching {
    orders: Arc<Orders>,
    news: Receiver<News>,
    bell: Arc<OwnedFd>,
    begun: BTreeMap<RunId, Begun>,
}

/// Makes the places to spawn from. Early: their descriptors must have low numbers, see `sys::spawn`.
pub(super) fn spawners() -> io::Result<Vec<Spawner>> {
    let count = std::thread::available_parallelism().map_or(THREADS.0, std::num::NonZero::get);
    (0..count.clamp(THREADS.0, THREADS.1)).map(|_| Spawner::new()).collect()
}

impl Launching {
    /// Starts a thread for each place.
    pub(super) fn new(site: Site, spawners: Vec<Spawner>) -> io::Result<Self> {
        let bell = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (tell, news) = channel();
        let (site, orders) = (Arc::new(site), Arc::new(Orders::default()));
        for spawner in spawners {
            let worker = Worker {
                site: Arc::clone(&site),
                orders: Arc::clone(&orders),
                news: tell.clone(),
                bell: Arc::clone(&bell),
            };
            std::thread::Builder::new()
                .name("launch".to_owned())
                .stack_size(256 * 1024)
                .spawn(move || worker.work(&spawner))?;
        }
        Ok(Self { orders, news, bell, begun: BTreeMap::new() })
    }

    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// What has happened; the bell is silenced first, so that nothing is missed.
    fn take_news(&self) -> Vec<News> {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut counter);
        self.news.try_iter().collect()
    }
}

struct Worker {
    site: Arc<Site>,
    orders: Arc<Orders>,
    news: Sender<News>,
    bell: Arc<OwnedFd>,
}

impl Worker {
    /// Starts runs as long as there are any to start, and does the paperwork about them afterwards: a
    /// thousand programs that were asked for at once should run before a thousand links are made.
    fn work(self, spawner: &Spawner) {
        let mut started: VecDeque<(Box<Launch>, Started)> = VecDeque::new();
        loop {
            let order = match started.front() {
                Some((_, first)) if clock::boot_us() > first.at.boot_us + SETTLE_AFTER_US => None,
                Some(_) => self.orders.try_take(),
                None => Some(self.orders.take()),
            };
            if let Some(Order { launch, init }) = order {
                match self.site.launch(spawner, &launch, init.as_ref().map(|socket| socket.as_fd())) {
                    Ok(run) => started.push_back((launch, run)),
                    Err(error) => self.tell(Some((launch, Err(error)))),
                }
            } else if let Some((launch, run)) = started.pop_front() {
                let identity = self.site.settle(&launch, &run);
                self.tell(Some((launch, Ok((run, identity)))));
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

impl Keeper {
    /// Has a run started; the answer follows when that is done. False if its id was seen before.
    pub(super) fn launch(&mut self, asked_by: (u64, u64), launch: Box<Launch>) -> bool {
        if self.runs.contains_key(&launch.run) || self.launching.begun.contains_key(&launch.run) {
            return false;
        }
        self.launching.begun.insert(launch.run, Begun { asked_by, later: Vec::new() });
        self.launching.orders.put(Order { launch, init: self.init.share() });
        true
    }

    /// A request about a run waits until the run has been started.
    pub(super) fn postpone(&mut self, run: RunId, number: u64, request: Numbered) -> Option<Numbered> {
        match self.launching.begun.get_mut(&run) {
            Some(begun) => {
                begun.later.push(Later::Request(number, request));
                None
            }
            None => Some(request),
        }
    }

    /// The end of a run that is still being started; true if it has to wait.
    pub(super) fn ended_early(&mut self, message: &Message) -> bool {
        let begun = self.launching.begun.get_mut(&message.run);
        begun.map(|begun| begun.later.push(Later::Exited(*message))).is_some()
    }

    pub(super) fn launch_news(&mut self) {
        for news in self.launching.take_news() {
            self.launch_ended(news);
        }
    }

    /// Waits until every start that was asked for is finished.
    pub(super) fn finish_launches(&mut self) {
        while !self.launching.begun.is_empty() && !self.quit {
            match self.launching.news.recv() {
                Ok(news) => self.launch_ended(news),
                Err(_) => self.quit = true,
            }
        }
    }

    fn launch_ended(&mut self, news: News) {
        let Some((launch, result)) = news else {
            // A thread is gone, and its start with it. A new keeper finds out how far that came.
            self.quit = true;
            return;
        };
        let Some(begun) = self.launching.begun.remove(&launch.run) else { return };
        let result = match result {
            Ok((started, identity)) => self.launched(&launch, started, identity),
            Err(NotLaunched::Seen) => Err(Refusal::SeenRun),
            Err(NotLaunched::Files { what, errno }) => Err(Refusal::System { what, errno }),
        };
        let (number, id) = begun.asked_by;
        self.say(number, &FromKeeper::Reply { id, result });
        for later in begun.later {
            match later {
                Later::Request(number, request) => self.answer(number, request),
                Later::Exited(message) => self.exited(&message),
            }
        }
    }

    /// Takes over a run from the thread that started it.
    fn launched(&mut self, launch: &Launch, run: Started, identity: Identity) -> Result<Answer, Refusal> {
        let Started { at, slot, fifos, child } = run;
        let run = Run {
            id: launch.run,
            job: launch.job.clone(),
            on_supervisor_death: launch.on_supervisor_death,
            identity: Some(identity.clone()),
            pidfd: child.pidfd,
            started: Some(at),
            stdin: fifos.stdin,
            phase: Phase::Live,
            leftovers: Leftovers::default(),
            asked: Asked::Nobody,
            child: self.init.alive().is_some(),
            captured: false,
            stalled: false,
            recorded: false,
            put_away: false,
            forgotten: false,
            slot: Some(slot),
            killed_for_supervisor: false,
        };
        self.runs.insert(launch.run, run);
        if let Some((step, errno)) = child.failed {
            self.not_started(launch.run, step, errno);
            return Err(Refusal::NotStarted { step: step.as_str().to_owned(), errno });
        }
        if let (Some(stdout), Some(stderr)) = (fifos.stdout, fifos.stderr) {
            self.begin_capture(launch.run, launch.output.clone(), stdout, stderr, false);
        }
        if self.init.alive().is_none() {
            self.watch_main(launch.run);
            self.look_at_main(launch.run);
        }
        Ok(Answer::Launched { identity, at })
    }

    pub(super) fn begin_capture(
        &mut self,
        id: RunId,
        settings: Output,
        stdout: OwnedFd,
        stderr: OwnedFd,
        resumed: bool,
    ) {
        let output_dir = self.state.run(id).output();
        let added =
            self.capture.capture.add(AddRun { run: id, output_dir, settings, stdout, stderr, resumed });
        match (added, self.runs.get_mut(&id)) {
            (Ok(()), Some(run)) => run.captured = true,
            (Ok(()), None) => self.capture.capture.remove(id),
            // No thread to be had: the bytes wait in the FIFO, and the next keeper takes them.
            (Err(error), _) => {
                let errno = error.raw_os_error().unwrap_or(0);
                self.tell(&Notice::LogStall { run: id, errno, dropped: 0 });
            }
        }
    }

    /// A child that did not get to its program: recorded at once. If it registered with init, init tells
    /// of its end too, and is acknowledged then.
    fn not_started(&mut self, id: RunId, step: Step, errno: i32) {
        let outcome = match step {
            Step::Claim if errno == libc::EEXIST => Outcome::Cancelled,
            _ => Outcome::NotStarted { step: step.as_str().to_owned(), errno },
        };
        let Some(run) = self.runs.get(&id) else { return };
        let end = End { outcome, source: Source::Keeper, rusage: None, at: now() };
        let record = run.record(&end, Totals::default(), true);
        self.write_record(id, &record);
        if let Some(run) = self.runs.get_mut(&id) {
            run.stdin = None;
            run.phase = Phase::Ended { record: Box::new(record.clone()) };
        }
        self.tell(&Notice::Ended { record: Box::new(record), leftovers: false });
        self.put_away_if_over(id);
    }
}
