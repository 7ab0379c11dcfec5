//! Starts on their way. Threads of their own ([`super::launcher`]) make them, so that the file work of one start is done while
//! the child of another is on its way to its program, which its spawner has to wait for; and so that the
//! loop hears of ends, and signals, while many starts are asked for at once.
//!
//! A run that is being started belongs to its thread, and the loop knows no more of it than its id. Its
//! start is finished before anything else is done about it: what is asked about it meanwhile, and what
//! init tells about it, waits in [`Begun::later`]. When a keeper dies all its starts stop where they are,
//! and `survive` finds out how far each one came.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::capture::{AddRun, Totals};
use super::launch::{NotLaunched, Site, Started};
use super::launcher::{Launcher, News, Order};
use super::main_loop::{Keeper, now};
use super::requests::about;
use super::run::{End, Leftovers, Phase, Run, Signalled};
use crate::core::identity::Identity;
use crate::core::ids::RunId;
use crate::core::outcome::{Outcome, Source};
use crate::core::spec::Output;
use crate::core::time::Stamp;
use crate::sys::clock;
use crate::sys::spawn::{Spawner, Step};
use crate::wire::init::Message;
use crate::wire::keeper::{Answer, FromKeeper, Launch, Notice, Numbered, Refusal, Request, Told};

/// Starts at once that leave memory worth giving back.
const CROWD: usize = 100;

/// How long starts may hold up the end of a keeper, in microseconds.
const STARTS_US: u64 = 1_000_000;

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
    /// The end of the main process, told by init at this moment.
    Exited(Message, Stamp),
}

/// The starts that are on their way.
pub(super) struct Launching {
    launcher: Launcher,
    begun: BTreeMap<RunId, Begun>,
    /// Requests for the inventory, which has to name every run.
    inventories: Vec<(u64, Numbered)>,
    /// How many there were at once since the last time there were none.
    most: usize,
}

impl Launching {
    pub(super) fn new(site: Site, spawners: Vec<Spawner>) -> io::Result<Self> {
        let launcher = Launcher::new(site, spawners)?;
        Ok(Self { launcher, begun: BTreeMap::new(), inventories: Vec::new(), most: 0 })
    }

    /// Processes of runs that were started and are not known to the loop yet.
    pub(super) fn started(&self) -> Vec<i32> {
        self.launcher.started()
    }

    /// The runs that are being started.
    pub(super) fn begun_runs(&self) -> impl Iterator<Item = RunId> {
        self.begun.keys().copied()
    }

    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.launcher.bell()
    }
}

impl Keeper {
    /// Has a run started; the answer follows when that is done. False if its id was seen before.
    pub(super) fn launch(&mut self, asked_by: (u64, u64), launch: Box<Launch>) -> bool {
        if self.runs.contains_key(&launch.run) || self.launching.begun.contains_key(&launch.run) {
            return false;
        }
        self.launching.begun.insert(launch.run, Begun { asked_by, later: Vec::new() });
        self.launching.most = self.launching.most.max(self.launching.begun.len());
        self.launching.launcher.put(Order { launch, init: self.init.share() });
        true
    }

    /// A request that has to wait for a start, or for all of them, is kept; any other comes back.
    pub(super) fn postpone(&mut self, number: u64, request: Numbered) -> Option<Numbered> {
        if matches!(request.request, Request::Inventory) && !self.launching.begun.is_empty() {
            self.launching.inventories.push((number, request));
            return None;
        }
        match about(&request.request).and_then(|run| self.launching.begun.get_mut(&run)) {
            Some(begun) => {
                begun.later.push(Later::Request(number, request));
                None
            }
            None => Some(request),
        }
    }

    /// The end of a run that is still being started; true if it has to wait.
    pub(super) fn ended_early(&mut self, message: &Message, at: Stamp) -> bool {
        let begun = self.launching.begun.get_mut(&message.run);
        begun.map(|begun| begun.later.push(Later::Exited(*message, at))).is_some()
    }

    pub(super) fn launch_news(&mut self) {
        for news in self.launching.launcher.news() {
            self.launch_ended(news);
        }
    }

    /// Waits for the starts that were asked for, as long as they may reasonably take. One that hangs is
    /// found by the next keeper, as after a crash.
    pub(super) fn finish_launches(&mut self) {
        let until = clock::boot_us() + STARTS_US;
        while !self.launching.begun.is_empty() {
            let left = until.saturating_sub(clock::boot_us());
            match self.launching.launcher.wait(Duration::from_micros(left)) {
                Ok(news) => self.launch_ended(news),
                Err(_) => return,
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
                Later::Exited(message, at) => self.exited(&message, at),
            }
        }
        // Only now: what init told of the end, when it lived, is more than what can be seen without it.
        if self.init.alive().is_none() {
            self.watch_main(launch.run);
            self.look_at(launch.run);
        }
        if self.launching.begun.is_empty() {
            if std::mem::take(&mut self.launching.most) >= CROWD {
                crate::sys::memory::give_back();
            }
            for (number, request) in std::mem::take(&mut self.launching.inventories) {
                self.answer(number, request);
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
            listening: None,
            phase: Phase::Live,
            leftovers: Leftovers::default(),
            signalled: Signalled::default(),
            child: self.init.alive().is_some(),
            captured: false,
            stalled: false,
            recorded: false,
            put_away: false,
            forgotten: false,
            slot: Some(slot),
            killed_for_supervisor: false,
        };
        self.launching.launcher.taken_over(identity.pid);
        self.runs.insert(launch.run, run);
        if let Some((step, errno)) = child.failed {
            self.not_started(launch.run, step, errno);
            return Err(Refusal::NotStarted { step: step.as_str().to_owned(), errno });
        }
        if !launch.listen.is_default() {
            self.listen(launch.run, Told::default(), fifos.notify, fifos.ready);
        }
        if let (Some(stdout), Some(stderr)) = (fifos.stdout, fifos.stderr) {
            self.begin_capture(launch.run, launch.output.clone(), stdout, stderr, false);
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
