//! A keeper that promises what the real one does, in its own words: the types of the protocol are the real
//! ones.
//!
//! It refuses a run id that it has seen and a supervisor older than the newest it has met; it makes runs
//! step by step, with the claim as the only decision; it answers for the inventory when no start is under
//! way; it tells ends again until it is told to forget them.

use std::collections::{BTreeMap, VecDeque};

use outlive::core::identity::Identity;
use outlive::core::ids::{Generation, JobName, RunId};
use outlive::core::outcome::{Asked, ExitRecord, Outcome};
use outlive::core::time::Stamp;
use outlive::wire::keeper::{Answer, FromKeeper, Launch, Notice, Refusal, Request, RunStatus};

use crate::host::{Claim, Host, RunFiles, Stage};
use crate::mistakes::Mistake;
use crate::oracle::{Broken, Oracle};
use crate::random::Rng;

/// One connection between a supervisor and a keeper.
#[derive(Debug, Default)]
pub(crate) struct Conn {
    pub(crate) generation: Option<Generation>,
    pub(crate) to_keeper: VecDeque<(u64, Request)>,
    pub(crate) to_supervisor: VecDeque<FromKeeper>,
    /// Nobody is there any more at this end; what was sent may still arrive.
    pub(crate) supervisor_gone: bool,
    pub(crate) keeper_gone: bool,
}

pub(crate) type Conns = BTreeMap<u64, Conn>;

/// How far a start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Asked,
    Directories,
    Forked,
    Claimed,
}

#[derive(Debug)]
struct Begun {
    by: (u64, u64),
    launch: Box<Launch>,
    step: Step,
    failed: Option<i32>,
    later: Vec<(u64, u64, Request)>,
}

/// A run as the keeper knows it.
#[derive(Debug, Clone)]
struct Run {
    job: JobName,
    identity: Option<Identity>,
    started: Option<Stamp>,
    ended: Option<Box<ExitRecord>>,
    asked: Asked,
    told_leftovers: bool,
    forgotten: bool,
}

/// The keeper's process.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    runs: BTreeMap<RunId, Run>,
    begun: BTreeMap<RunId, Begun>,
    inventories: Vec<(u64, u64)>,
}

/// What the keeper works with.
pub(crate) struct Around<'a> {
    pub(crate) host: &'a mut Host,
    pub(crate) conns: &'a mut Conns,
    /// The newest supervisor; kept in a file of the runtime directory.
    pub(crate) newest: &'a mut Generation,
    pub(crate) rng: &'a mut Rng,
    pub(crate) oracle: &'a mut Oracle,
    pub(crate) mistake: Option<Mistake>,
    pub(crate) calm: bool,
}

impl Keeper {
    /// A keeper begins: it takes back what init and the runtime directory know.
    pub(crate) fn begin(around: &mut Around<'_>) -> Self {
        let mut this = Self::default();
        let host = &mut *around.host;
        let known: Vec<RunId> =
            host.files.iter().filter(|(_, files)| files.runtime).map(|(run, _)| *run).collect();
        for run in known {
            let Some(files) = host.files.get_mut(&run) else { continue };
            let job = files.job.clone();
            let process = host.procs.get(&run).map(|proc| (proc.identity.clone(), proc.started));
            let held = host.procs.get(&run).is_some_and(|proc| proc.stage != Stage::Gone) && host.init;
            if files.claim == Claim::Open && !held {
                files.claim = Claim::Cancelled;
                if !files.dir {
                    files.runtime = false;
                    continue;
                }
            }
            let exit = files.exit.clone().map(Box::new);
            if files.claim == Claim::Cancelled && exit.is_some() {
                files.runtime = false;
                continue;
            }
            let mut taken = Run {
                job: job.clone(),
                identity: process.as_ref().map(|(identity, _)| identity.clone()),
                started: process.map(|(_, started)| started),
                ended: exit,
                asked: Asked::Nobody,
                told_leftovers: true,
                forgotten: false,
            };
            if taken.ended.is_none() {
                let failed = host.procs.get(&run).filter(|proc| !proc.ran).and_then(|proc| proc.end.clone());
                let end = match (files.claim, host.procs.get(&run).map(|proc| proc.stage.clone())) {
                    (Claim::Cancelled, _) => Some(Outcome::Cancelled),
                    // The claim itself tells what failed.
                    (Claim::Exec, Some(Stage::Gone)) if failed.is_some() => failed,
                    (_, Some(Stage::Gone) | None) => {
                        Some(Outcome::Lost { why: "it ended while nobody was left to see how".to_owned() })
                    }
                    // A process that ended without an init: reaped by a stranger, and nobody held it.
                    (_, Some(Stage::Zombie { .. })) if !host.init => {
                        if let Some(proc) = host.procs.get_mut(&run) {
                            proc.stage = Stage::Gone;
                        }
                        Some(Outcome::Lost { why: "it ended while nobody was left to see how".to_owned() })
                    }
                    (_, Some(Stage::Zombie { .. } | Stage::Forked | Stage::Live)) => None,
                };
                if let Some(outcome) = end {
                    let record = host.record(run, &job, (outcome, host.now), Asked::Nobody);
                    write_exit(host, run, &record);
                    taken.ended = Some(Box::new(record));
                }
            }
            this.runs.insert(run, taken);
        }
        this
    }

    /// Reads one request of a connection.
    pub(crate) fn request(&mut self, number: u64, around: &mut Around<'_>) -> Result<bool, Broken> {
        let Some(conn) = around.conns.get_mut(&number) else { return Ok(false) };
        let Some((id, request)) = conn.to_keeper.pop_front() else { return Ok(false) };
        self.answer(number, id, request, around)?;
        Ok(true)
    }

    fn answer(
        &mut self,
        number: u64,
        id: u64,
        request: Request,
        around: &mut Around<'_>,
    ) -> Result<(), Broken> {
        if matches!(request, Request::Inventory) && !self.begun.is_empty() {
            self.inventories.push((number, id));
            return Ok(());
        }
        if let Some(run) = about(&request)
            && let Some(begun) = self.begun.get_mut(&run)
        {
            begun.later.push((number, id, request));
            return Ok(());
        }
        let result = match (refused(number, &request, around), request) {
            (Some(refusal), _) => Err(refusal),
            (None, Request::Launch(launch)) => {
                if self.launch((number, id), launch, around)? {
                    return Ok(());
                }
                Err(Refusal::SeenRun)
            }
            (None, request) => self.grant(number, request, around)?,
        };
        say(number, FromKeeper::Reply { id, result }, around);
        Ok(())
    }

    fn launch(
        &mut self,
        by: (u64, u64),
        launch: Box<Launch>,
        around: &mut Around<'_>,
    ) -> Result<bool, Broken> {
        let run = launch.run;
        let generation = around.conns.get(&by.0).and_then(|conn| conn.generation);
        around.oracle.launch_arrives(run, generation.unwrap_or_default() < *around.newest)?;
        let seen = self.runs.contains_key(&run) || around.host.files.contains_key(&run);
        if self.begun.contains_key(&run) || (seen && around.mistake != Some(Mistake::SeenRunsForgotten)) {
            return Ok(false);
        }
        self.begun.insert(run, Begun { by, launch, step: Step::Asked, failed: None, later: Vec::new() });
        Ok(true)
    }

    /// One step of one start. False if there is none under way.
    pub(crate) fn advance(&mut self, around: &mut Around<'_>) -> Result<bool, Broken> {
        let all: Vec<RunId> = self.begun.keys().copied().collect();
        let Some(run) = around.rng.pick(&all).copied() else { return Ok(false) };
        let Some(begun) = self.begun.get_mut(&run) else { return Ok(false) };
        let job = begun.launch.job.clone();
        match begun.step {
            Step::Asked => {
                begun.step = Step::Directories;
                let files = RunFiles {
                    job,
                    dir: true,
                    dir_synced: false,
                    runtime: true,
                    claim: Claim::Open,
                    sent: None,
                    exit: None,
                    exit_synced: false,
                };
                around.host.files.insert(run, files);
            }
            Step::Directories => {
                begun.step = Step::Forked;
                if !around.calm && around.rng.one_in(25) {
                    // The disk or the kernel refuses before there is a process.
                    if let Some(files) = around.host.files.get_mut(&run) {
                        (files.runtime, files.claim) = (false, Claim::Cancelled);
                    }
                    let refusal = Refusal::System { what: "making the process".to_owned(), errno: 11 };
                    self.finish(run, Err(refusal), around)?;
                } else {
                    around.host.fork(run, &job);
                }
            }
            Step::Forked => {
                begun.step = Step::Claimed;
                let fails = !around.calm && around.rng.one_in(20);
                if fails {
                    begun.failed = Some(2);
                    if let Some(proc) = around.host.procs.get_mut(&run) {
                        proc.stage = Stage::Gone;
                        proc.end = Some(Outcome::NotStarted { step: "exec".to_owned(), errno: 2 });
                    }
                    if let Some(files) = around.host.files.get_mut(&run) {
                        files.claim = Claim::Exec;
                    }
                } else {
                    exec(run, around)?;
                }
            }
            Step::Claimed => self.launched(run, around)?,
        }
        Ok(true)
    }

    fn launched(&mut self, run: RunId, around: &mut Around<'_>) -> Result<(), Broken> {
        let Some(begun) = self.begun.get(&run) else { return Ok(()) };
        let (job, failed) = (begun.launch.job.clone(), begun.failed);
        let Some(proc) = around.host.procs.get(&run) else { return Ok(()) };
        let (identity, at) = (proc.identity.clone(), proc.started);
        let known = Run {
            job: job.clone(),
            identity: Some(identity.clone()),
            started: Some(at),
            ended: None,
            asked: Asked::Nobody,
            told_leftovers: false,
            forgotten: false,
        };
        self.runs.insert(run, known);
        match failed {
            Some(errno) => {
                let outcome = Outcome::NotStarted { step: "exec".to_owned(), errno };
                let refusal = Refusal::NotStarted { step: "exec".to_owned(), errno };
                self.finish(run, Err(refusal), around)?;
                self.record(run, (outcome, around.host.now), around);
                Ok(())
            }
            None => self.finish(run, Ok(Answer::Launched { identity, at }), around),
        }
    }

    fn finish(
        &mut self,
        run: RunId,
        result: Result<Answer, Refusal>,
        around: &mut Around<'_>,
    ) -> Result<(), Broken> {
        let Some(begun) = self.begun.remove(&run) else { return Ok(()) };
        say(begun.by.0, FromKeeper::Reply { id: begun.by.1, result }, around);
        for (number, id, request) in begun.later {
            self.answer(number, id, request, around)?;
        }
        if self.begun.is_empty() {
            for (number, id) in std::mem::take(&mut self.inventories) {
                self.answer(number, id, Request::Inventory, around)?;
            }
        }
        Ok(())
    }

    fn grant(
        &mut self,
        number: u64,
        request: Request,
        around: &mut Around<'_>,
    ) -> Result<Result<Answer, Refusal>, Broken> {
        Ok(match request {
            Request::Hello { generation, .. } => {
                *around.newest = (*around.newest).max(generation);
                if let Some(conn) = around.conns.get_mut(&number) {
                    conn.generation = Some(generation);
                }
                let (version, min_version) = (1, 1);
                Ok(Answer::Hello {
                    min_version,
                    version,
                    pid: 2,
                    build: String::new(),
                    init: around.host.init,
                })
            }
            Request::Inventory => Ok(Answer::Inventory { runs: self.inventory(around) }),
            Request::Signal { run, signal, scope, asked, rung, .. } => {
                let Some(known) = self.runs.get_mut(&run) else { return Ok(Err(Refusal::UnknownRun)) };
                let careless = around.mistake == Some(Mistake::SignalsForgotten);
                let files = around.host.files.get_mut(&run);
                if let (Some(rung), Some(files)) = (rung, files) {
                    if files.sent == Some(rung) && !careless {
                        return Ok(Ok(Answer::Done));
                    }
                    files.sent = Some(rung);
                    around.oracle.signalled(run, rung)?;
                }
                if known.ended.is_none() {
                    known.asked = asked;
                }
                around.host.signal(run, (signal, scope), around.rng, around.calm);
                Ok(Answer::Done)
            }
            Request::Forget { run } => {
                around.oracle.forget_arrives(run, around.host)?;
                if let Some(known) = self.runs.get_mut(&run).filter(|known| known.ended.is_some()) {
                    known.forgotten = true;
                    self.put_away(run, around);
                }
                Ok(Answer::Done)
            }
            Request::Beats { .. } => Ok(Answer::Beats { beats: Vec::new() }),
            Request::Disown { run } => {
                if let Some(proc) = around.host.procs.get_mut(&run) {
                    proc.disowned = true;
                }
                self.put_away(run, around);
                Ok(Answer::Done)
            }
            Request::Goodbye | Request::HandOver | Request::Stdin { .. } | Request::Launch(_) => {
                Ok(Answer::Done)
            }
        })
    }

    fn inventory(&mut self, around: &mut Around<'_>) -> Vec<RunStatus> {
        let silent = around.mistake == Some(Mistake::EndsToldOnce);
        let careless = around.mistake == Some(Mistake::SignalsForgotten);
        let mut all = Vec::with_capacity(self.runs.len());
        for (run, known) in &mut self.runs {
            let leftovers = leftovers(*run, around.host);
            known.told_leftovers |= leftovers;
            if silent && known.ended.is_some() {
                continue;
            }
            let files = around.host.files.get(run);
            all.push(RunStatus {
                run: *run,
                job: known.job.clone(),
                identity: known.identity.clone(),
                started: known.started,
                ended: known.ended.clone(),
                leftovers,
                output_bytes: 0,
                kill_in: None,
                told: None,
                rung: files.and_then(|files| files.sent).filter(|_| !careless),
            });
        }
        all
    }

    /// Looks at one run: an end that init tells, or a tree that is gone. False if there was nothing.
    pub(crate) fn look(&mut self, around: &mut Around<'_>) -> bool {
        for (run, known) in &mut self.runs {
            let Some(proc) = around.host.procs.get_mut(run) else { continue };
            if known.ended.is_none() {
                let (outcome, at) = match &proc.stage {
                    Stage::Zombie { outcome, at } => (outcome.clone(), *at),
                    Stage::Gone => match proc.end.clone() {
                        Some(outcome) => (outcome, around.host.now),
                        None => continue,
                    },
                    Stage::Forked | Stage::Live => continue,
                };
                // Without an init the kernel tells it to whoever held the process, or it does not.
                let told = around.host.init || !around.rng.one_in(4);
                let lost = Outcome::Lost { why: "init was gone".to_owned() };
                let run = *run;
                self.record(run, (if told { outcome } else { lost }, at), around);
                return true;
            }
            if known.told_leftovers && !proc.leftovers {
                known.told_leftovers = false;
                let run = *run;
                tell(&Notice::TreeGone { run }, around);
                self.put_away(run, around);
                return true;
            }
        }
        false
    }

    /// Whether there is anything to be done without being asked.
    pub(crate) fn has_work(&self, host: &Host) -> bool {
        let moved = |(run, known): (&RunId, &Run)| {
            host.procs.get(run).is_some_and(|proc| match known.ended {
                None => match proc.stage {
                    Stage::Zombie { .. } => true,
                    Stage::Gone => proc.end.is_some(),
                    Stage::Forked | Stage::Live => false,
                },
                Some(_) => known.told_leftovers && !proc.leftovers,
            })
        };
        !self.begun.is_empty() || self.runs.iter().any(moved)
    }

    /// The end of a run: recorded, then reaped, then told.
    fn record(&mut self, run: RunId, end: (Outcome, Stamp), around: &mut Around<'_>) {
        let Some(known) = self.runs.get_mut(&run) else { return };
        let record = around.host.record(run, &known.job, end, known.asked.clone());
        write_exit(around.host, run, &record);
        if let Some(proc) = around.host.procs.get_mut(&run) {
            proc.stage = Stage::Gone;
        }
        let leftovers = leftovers(run, around.host);
        known.told_leftovers = leftovers;
        known.ended = Some(Box::new(record.clone()));
        tell(&Notice::Ended { record: Box::new(record), leftovers }, around);
        self.put_away(run, around);
    }

    /// Ended, and nothing left: the runtime directory goes, and when it may be forgotten, so does the rest.
    fn put_away(&mut self, run: RunId, around: &mut Around<'_>) {
        let over =
            self.runs.get(&run).is_some_and(|known| known.ended.is_some()) && !leftovers(run, around.host);
        if !over {
            return;
        }
        if let Some(files) = around.host.files.get_mut(&run) {
            files.runtime = false;
        }
        if self.runs.get(&run).is_some_and(|known| known.forgotten) {
            self.runs.remove(&run);
        }
    }
}

/// A child is past its claim, or finds that it may not be.
pub(crate) fn exec(run: RunId, around: &mut Around<'_>) -> Result<(), Broken> {
    let Some(files) = around.host.files.get_mut(&run) else { return Ok(()) };
    if files.claim != Claim::Open {
        around.host.end(run, Outcome::Cancelled, false);
        return Ok(());
    }
    files.claim = Claim::Exec;
    around.oracle.executes(run, around.host)?;
    if let Some(proc) = around.host.procs.get_mut(&run) {
        proc.stage = Stage::Live;
        proc.ran = true;
    }
    Ok(())
}

fn leftovers(run: RunId, host: &Host) -> bool {
    host.procs.get(&run).is_some_and(|proc| proc.leftovers && !proc.disowned)
}

fn write_exit(host: &mut Host, run: RunId, record: &ExitRecord) {
    if let Some(files) = host.files.get_mut(&run) {
        files.exit = Some(record.clone());
        files.exit_synced = false;
    }
}

/// The run that a request is about, which must have been started before.
fn about(request: &Request) -> Option<RunId> {
    match request {
        Request::Signal { run, .. }
        | Request::Stdin { run, .. }
        | Request::Forget { run }
        | Request::Disown { run } => Some(*run),
        Request::Hello { .. }
        | Request::Inventory
        | Request::Beats { .. }
        | Request::Launch(_)
        | Request::HandOver
        | Request::Goodbye => None,
    }
}

fn refused(number: u64, request: &Request, around: &Around<'_>) -> Option<Refusal> {
    if around.mistake == Some(Mistake::GenerationUnchecked) {
        return None;
    }
    let generation = match request {
        Request::Hello { generation, .. } => Some(*generation),
        _ => around.conns.get(&number).and_then(|conn| conn.generation),
    };
    match generation {
        None => Some(Refusal::Bad { why: "the first request must be hello".to_owned() }),
        Some(generation) if generation < *around.newest => {
            Some(Refusal::OldGeneration { newest: *around.newest })
        }
        Some(_) => None,
    }
}

fn say(number: u64, message: FromKeeper, around: &mut Around<'_>) {
    if let Some(conn) = around.conns.get_mut(&number).filter(|conn| !conn.supervisor_gone) {
        conn.to_supervisor.push_back(message);
    }
}

fn tell(notice: &Notice, around: &mut Around<'_>) {
    for conn in around.conns.values_mut() {
        if conn.generation.is_some() && !conn.supervisor_gone && !conn.keeper_gone {
            conn.to_supervisor.push_back(FromKeeper::Notice(notice.clone()));
        }
    }
}
