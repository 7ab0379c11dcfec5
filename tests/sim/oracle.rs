//! What must be true, asked after every step. It keeps what was decided and what of it is durable, and looks
//! at what truly happens; it believes nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use outlive::core::Decision;
use outlive::core::event::{Event, Want};
use outlive::core::ids::{Generation, JobName, RunId};
use outlive::core::input::Input;
use outlive::core::outcome::Outcome;
use outlive::core::rung::Rung;
use outlive::core::spec::Kind;
use outlive::core::state::State;
use outlive::core::time::Stamp;
use outlive::journal::simulated::SimFs;
use outlive::journal::{Entry, Folded, JournalError, Line, Recovered};

use crate::host::{Claim, Host};
use crate::supervisor::Ask;

pub(crate) type Read = Recovered;

/// A law is broken: which, and how.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) check: &'static str,
    pub(crate) what: String,
}

impl Broken {
    pub(crate) fn new(check: &'static str, what: impl FnOnce() -> String) -> Self {
        Self { check, what: what() }
    }
}

/// The order in which runs were made, whatever the clock said.
fn made(run: RunId) -> u64 {
    run.as_bytes()[8..].iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn law(holds: bool, check: &'static str, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::new(check, what)) }
}

/// Whether an operator's stop holds, from a line on.
#[derive(Debug)]
struct Stop {
    seq: u64,
    job: JobName,
    holds: bool,
}

/// A job of which runs were started, and nothing of that is remembered.
#[derive(Debug)]
struct Suspect {
    job: JobName,
    runs: BTreeSet<RunId>,
    /// Whether it is known that entries are missing; otherwise only the files can tell.
    told: bool,
    /// The line by which an operator has released it.
    released: Option<u64>,
}

/// The truth about what was decided.
#[derive(Debug)]
pub(crate) struct Oracle {
    /// Every line that was decided and is not void, by number from 1 on; marks are empty.
    lines: Vec<Entry>,
    /// How many of them are durable for sure.
    acked: u64,
    /// Lines that were decided in the turn so far.
    upcoming: u64,
    /// The memory after those.
    base: State,
    /// Runs that durable lines ask for, and those whose end is in one.
    requested: BTreeSet<RunId>,
    ended: BTreeSet<RunId>,
    /// Signals of ladders that were sent.
    rungs: BTreeSet<(RunId, Rung)>,
    stops: Vec<Stop>,
    suspects: Vec<Suspect>,
    /// The file system was damaged behind our back.
    pub(crate) damaged: bool,
    /// There was one damage only, of a sort that costs nothing: the law that says so.
    pub(crate) harmless: Option<&'static str>,
    /// Ranges that are known to be missing.
    holes: Vec<(u64, u64)>,
    /// Something that was durable is gone for good.
    pub(crate) lossy: bool,
    /// Runs that truly ran, with how often.
    runs: BTreeMap<RunId, u32>,
    pub(crate) counts: Counts,
}

/// How much of everything there was, so that a simulation in which nothing happens is noticed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) decisions: u64,
    pub(crate) launches: u64,
    pub(crate) supervisors: u64,
    pub(crate) recoveries: u64,
    pub(crate) checkpoints: u64,
    pub(crate) heals: u64,
    pub(crate) refusals: u64,
    pub(crate) losses: u64,
    pub(crate) reboots: u64,
    pub(crate) held: u64,
}

impl Counts {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.decisions += other.decisions;
        self.launches += other.launches;
        self.supervisors += other.supervisors;
        self.recoveries += other.recoveries;
        self.checkpoints += other.checkpoints;
        self.heals += other.heals;
        self.refusals += other.refusals;
        self.losses += other.losses;
        self.reboots += other.reboots;
        self.held += other.held;
    }
}

impl Oracle {
    pub(crate) fn new() -> Self {
        let mut base = State::new();
        base.keep_runs = 3;
        Self {
            lines: Vec::new(),
            acked: 0,
            upcoming: 0,
            base,
            requested: BTreeSet::new(),
            ended: BTreeSet::new(),
            rungs: BTreeSet::new(),
            stops: Vec::new(),
            suspects: Vec::new(),
            damaged: false,
            harmless: None,
            holes: Vec::new(),
            lossy: false,
            runs: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    // What the log is told, and what it tells.

    /// A turn begins.
    pub(crate) const fn turns(&mut self) {
        self.upcoming = 0;
    }

    /// These lines are written, or may be.
    pub(crate) fn appended(&mut self, entries: Vec<Entry>) {
        self.lines.extend(entries);
    }

    /// A mark may be written.
    pub(crate) fn marks(&mut self, (at, generation): (Stamp, Generation)) {
        self.lines.push(Entry { at, generation, events: Vec::new() });
    }

    pub(crate) fn unmarked(&mut self) {
        self.lines.pop();
    }

    /// Everything up to a line is said to be durable.
    pub(crate) fn acknowledged(&mut self, seq: u64, fs: &SimFs) -> Result<(), Broken> {
        law(seq == self.lines.len() as u64, "J4", || format!("{seq} is the last of {}", self.lines.len()))?;
        law(fs.is_durable(Path::new("/s/journal")), "J2", || format!("{seq} is not on the disk"))?;
        self.settle(seq);
        Ok(())
    }

    /// A fresh segment is there: what was read stays.
    pub(crate) fn opened(&mut self, last: u64) {
        self.forget_from(last);
        self.settle(last);
    }

    /// The log can be written again; what had failed is void.
    pub(crate) fn healed(&mut self, last: u64) {
        self.counts.heals += 1;
        self.forget_from(last);
        self.settle(last);
    }

    fn forget_from(&mut self, last: u64) {
        self.lines.truncate(last as usize);
        self.stops.retain(|stop| stop.seq <= last);
        for suspect in &mut self.suspects {
            suspect.released = suspect.released.filter(|seq| *seq <= last);
        }
    }

    fn settle(&mut self, last: u64) {
        while self.acked < last {
            let Some(entry) = self.lines.get(self.acked as usize) else { break };
            for event in &entry.events {
                self.base.apply(event, entry.at);
                match event {
                    Event::RunRequested { run, .. } => drop(self.requested.insert(*run)),
                    Event::RunEnded { record, .. } => drop(self.ended.insert(record.run)),
                    _ => {}
                }
            }
            self.acked += 1;
        }
    }

    /// A line that is read: each number once, and with what was written under it.
    pub(crate) fn line(&self, line: &Line, wrong: &mut Option<Broken>) {
        if self.damaged || wrong.is_some() {
            return;
        }
        let known = self.lines.get((line.seq as usize).wrapping_sub(1));
        let same = known.is_some_and(|entry| entry.events == line.entry.events);
        if !same {
            *wrong = Some(Broken::new("J4", || format!("line {} is {:?}", line.seq, line.entry)));
        }
    }

    /// What was read is a beginning of what was decided, with everything durable in it.
    pub(crate) fn judge(&mut self, read: &Read) -> Result<(), Broken> {
        self.counts.recoveries += 1;
        let (last, report) = (read.last_seq(), &read.report);
        let known = report.lost.iter().all(|range| self.holes.contains(range)) && !report.unreadable;
        let complete = last >= self.acked && last <= self.lines.len() as u64;
        let same = complete && {
            let mut fold = self.base.clone();
            for entry in &self.lines[self.acked as usize..last as usize] {
                for event in &entry.events {
                    fold.apply(event, entry.at);
                }
            }
            fold == read.state
        };
        if same && (known || self.damaged) {
            return Ok(());
        }
        if let Some(check) = self.harmless {
            return Err(Broken::new(check, || format!("one harmless damage, and a loss: {report}")));
        }
        if !self.damaged {
            law(known, "J9", || format!("a crash is taken for a loss: {report}"))?;
            let (acked, decided) = (self.acked, self.lines.len());
            law(last <= decided as u64, "J11", || format!("{last} read, {decided} decided"))?;
            law(last >= self.acked, "J1", || format!("{last} read, {acked} durable: {report}"))?;
            let check = if report.checkpoint.is_some_and(|seq| seq == last) { "J16" } else { "J1" };
            return Err(Broken::new(check, || format!("another memory at {last}: {report}")));
        }
        self.lost(read)
    }

    /// Damage has taken something that was durable.
    fn lost(&mut self, read: &Read) -> Result<(), Broken> {
        let (last, report) = (read.last_seq(), &read.report);
        let said = report.is_lossy() || report.is_damaged() || report.torn_bytes > 0;
        // A file that ends at the end of a write, or is gone, shows no trace of what followed.
        let cut = last < self.lines.len() as u64 && self.fold_to(last).is_none_or(|fold| fold == read.state);
        law(said || cut, "J7", || format!("another memory, and not a word: {report}"))?;
        self.counts.losses += 1;
        self.lossy = true;
        self.suspect(read);
        self.holes.clone_from(&report.lost);
        self.lines.truncate(last as usize);
        while (self.lines.len() as u64) < last {
            self.marks((Stamp::default(), Generation::default()));
        }
        self.base = read.state.clone();
        self.acked = last;
        let base = &self.base;
        // An end is known as long as its run is.
        let ended = |name| base.runs(name).filter(|past| past.end.is_some()).map(|past| past.run);
        self.ended = base.jobs().flat_map(|(name, _)| ended(name)).collect();
        let wants: BTreeMap<&JobName, Want> = base.jobs().map(|(name, job)| (name, job.want)).collect();
        self.stops.retain(|stop| wants.get(&stop.job) == Some(&Want::Down));
        for stop in &mut self.stops {
            stop.seq = stop.seq.min(last);
        }
        Ok(())
    }

    /// Notes which runs nobody remembers.
    fn suspect(&mut self, read: &Read) {
        let (last, report) = (read.last_seq(), &read.report);
        let gone = |seq: u64| {
            seq > last
                || report.unreadable
                || report.lost.iter().any(|(first, last)| (*first..=*last).contains(&seq))
        };
        // A hole that was there before has been dealt with: whoever is suspect because of it, is so already.
        let known = |seq: u64| self.holes.iter().any(|(first, last)| (*first..=*last).contains(&seq));
        let news =
            (1..).zip(&self.lines[..self.acked as usize]).filter(|(seq, _)| gone(*seq) && !known(*seq));
        for (seq, entry) in news {
            for event in &entry.events {
                if let Event::RunRequested { job, run, .. } = event
                    && self.runs.contains_key(run)
                    && !self.has_later_run(job, seq, &gone)
                {
                    let told = report.lost.iter().any(|hole| !self.holes.contains(hole));
                    let runs = BTreeSet::from([*run]);
                    self.suspects.push(Suspect { job: job.clone(), runs, told, released: None });
                }
            }
        }
    }

    /// Whether a later run of the job is remembered: then those before it are over.
    fn has_later_run(&self, job: &JobName, seq: u64, gone: &impl Fn(u64) -> bool) -> bool {
        let later = (1..).zip(&self.lines[..self.acked as usize]).skip(seq as usize);
        let requests = |entry: &Entry| {
            entry.events.iter().any(|event| matches!(event, Event::RunRequested { job: of, .. } if of == job))
        };
        later.filter(|(seq, _)| !gone(*seq)).any(|(_, entry)| requests(entry))
    }

    /// What an operator, or the configuration, has said about a job that may have run.
    fn release(&mut self, job: &JobName, seq: u64) {
        for suspect in self.suspects.iter_mut().filter(|suspect| suspect.job == *job) {
            suspect.released = suspect.released.or(Some(seq));
        }
    }

    /// What is a service when a loss is dealt with is kept up, whatever it may become later.
    fn release_services(&mut self, state: &State, seq: u64) {
        let service = |job: &JobName| state.spec(job).is_some_and(|spec| spec.kind == Kind::Service);
        for suspect in self.suspects.iter_mut().filter(|suspect| service(&suspect.job)) {
            suspect.released = suspect.released.or(Some(seq));
        }
    }

    /// The memory after a line, if all lines up to there are known.
    fn fold_to(&self, last: u64) -> Option<State> {
        if !self.holes.is_empty() || self.lossy {
            return None;
        }
        let mut state = State::new();
        state.keep_runs = self.base.keep_runs;
        for entry in self.lines.get(..last as usize)? {
            for event in &entry.events {
                state.apply(event, entry.at);
            }
        }
        Some(state)
    }

    /// A checkpoint was made, or not.
    pub(crate) fn folded(&mut self, upto: u64, done: Result<Folded, JournalError>) -> Result<(), Broken> {
        match done {
            Ok(folded) => {
                self.counts.checkpoints += 1;
                law(folded.seq == upto, "J16", || format!("a checkpoint of {} for {upto}", folded.seq))
            }
            // A disk that refuses is no mistake; one that gives back something else is.
            Err(JournalError::Io { what: "fold", source, .. }) if !self.damaged => {
                Err(Broken::new("J16", || source.to_string()))
            }
            Err(_) => Ok(()),
        }
    }

    // What is decided.

    pub(crate) fn decided(
        &mut self,
        input: &Input,
        before: &State,
        decision: &Decision,
        host: &Host,
    ) -> Result<(), Broken> {
        self.counts.decisions += 1;
        self.upcoming += u64::from(!decision.events.is_empty());
        let seq = self.lines.len() as u64 + self.upcoming;
        let asked = matches!(input, Input::Start { .. } | Input::Restart { .. } | Input::Submitted { .. });
        for event in &decision.events {
            self.perhaps_again(input, before, (event, seq), host)?;
            match event {
                Event::WantSet { job, want: Want::Down, .. } if matches!(input, Input::Stop { .. }) => {
                    self.stops.push(Stop { seq, job: job.clone(), holds: true });
                }
                Event::WantSet { job, want: Want::Up, .. } => {
                    let stopped = self.is_stopped(job);
                    law(!stopped || asked || self.lossy, "stop", || {
                        format!("{job} is wanted again by {input:?}")
                    })?;
                    if stopped {
                        self.stops.push(Stop { seq, job: job.clone(), holds: false });
                    }
                }
                Event::JobRemoved { job } | Event::JobAdded { job, .. } if self.is_stopped(job) => {
                    self.stops.push(Stop { seq, job: job.clone(), holds: false });
                }
                Event::JobSubmitted { spec, .. } if self.is_stopped(&spec.name) => {
                    self.stops.push(Stop { seq, job: spec.name.clone(), holds: false });
                }
                Event::RunRequested { job, run, attempt, .. } => {
                    // One that was there already is taken back, and stopped.
                    let starts = !host.files.contains_key(run);
                    law(!self.is_stopped(job) || !starts, "stop", || {
                        format!("{job} was stopped, and starts by {input:?}")
                    })?;
                    let known = before.job(job).map_or(0, |job| job.attempt);
                    law(*attempt > known, "counts", || format!("{job}: try {attempt} after {known}"))?;
                }
                Event::RunEnded { record, .. } => {
                    let again = self.ended.contains(&record.run);
                    law(!again, "J24", || format!("{} ends once more", record.run))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A task of which a run may be among what is missing is not started again by itself.
    fn perhaps_again(
        &mut self,
        input: &Input,
        before: &State,
        (event, seq): (&Event, u64),
        host: &Host,
    ) -> Result<(), Broken> {
        use Input::{Restart, Start, Stop, Submitted};
        let asked = matches!(input, Start { .. } | Restart { .. } | Submitted { .. } | Stop { .. });
        match event {
            Event::WantSet { job, .. } if asked => self.release(job, seq),
            Event::JobRemoved { job } | Event::JobAdded { job, .. } => self.release(job, seq),
            Event::JobSubmitted { spec, .. } => self.release(&spec.name, seq),
            Event::LossSettled { .. } => self.release_services(before, seq),
            Event::Held { .. } => self.counts.held += 1,
            Event::RunRequested { job, run, .. } => {
                // The runs of a job come one after the other: one that is found has ended those before it.
                if host.files.contains_key(run) {
                    for suspect in self.suspects.iter_mut().filter(|suspect| suspect.job == *job) {
                        suspect.runs.retain(|lost| made(*lost) > made(*run));
                    }
                }
                // The clock may have been set back: then nothing shows that a run is a late one.
                let there = |run: &RunId| {
                    host.files.get(run).is_some_and(|files| files.dir) && before.is_beyond(*run, Some(job))
                };
                let found = self.suspects.iter().find(|suspect| {
                    let known = suspect.told || suspect.runs.iter().any(there);
                    suspect.job == *job && suspect.released.is_none() && !suspect.runs.is_empty() && known
                });
                let task = before.spec(job).is_some_and(|spec| spec.kind == Kind::Task);
                let starts = !host.files.contains_key(run);
                law(found.is_none() || !task || !starts, "J23", || {
                    format!("{run} of {job} starts by {input:?}, and {found:?}")
                })?;
                if !task {
                    // A service is kept up, whatever it may become later.
                    self.release(job, seq);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_stopped(&self, job: &JobName) -> bool {
        self.stops.iter().rev().find(|stop| stop.job == *job).is_some_and(|stop| stop.holds)
    }

    /// Nothing absurd is remembered of the jobs that a decision changed.
    pub(crate) fn sane(&self, state: &State, decision: &Decision) -> Result<(), Broken> {
        for name in decision.events.iter().filter_map(Event::job) {
            let Some(job) = state.job(name) else { continue };
            let counts = self.lossy
                || job.starts <= job.attempt
                    && u64::from(job.failures) <= job.attempt
                    && job.window.len() as u64 <= job.attempt
                    && job.window.iter().zip(job.window.iter().skip(1)).all(|(a, b)| a <= b);
            law(counts, "counts", || format!("{name}: {job:?}"))?;
            let stopped = self.is_stopped(name) && job.want == Want::Up;
            law(!stopped, "stop", || format!("{name} was stopped, and is wanted"))?;
        }
        Ok(())
    }

    // What leaves the process, and what comes of it.

    /// An effect leaves.
    pub(crate) fn performs(&self, seq: u64, stale: bool) -> Result<(), Broken> {
        law(stale || seq <= self.acked, "J2", || format!("an effect of {seq}, {} durable", self.acked))
    }

    /// An answer that promises something leaves.
    pub(crate) fn answers(&self, seq: u64, stale: bool) -> Result<(), Broken> {
        law(stale || seq <= self.acked, "J2", || format!("an answer of {seq}, {} durable", self.acked))
    }

    /// A definite no leaves, or the word that nobody knows.
    pub(crate) fn refused(&mut self, _ask: &Ask) {
        self.counts.refusals += 1;
    }

    /// A request to start a run is granted by the keeper.
    pub(crate) fn launch_arrives(&self, run: RunId, stale: bool) -> Result<(), Broken> {
        law(!stale, "J17", || format!("a supervisor of the past starts {run}"))?;
        let known = self.requested.contains(&run);
        law(known || self.lossy, "J2", || format!("{run} is asked for, and that is not durable"))
    }

    /// The keeper is told to forget a run.
    pub(crate) fn forget_arrives(&self, run: RunId, host: &Host) -> Result<(), Broken> {
        let ran = host.procs.get(&run).is_some_and(|proc| proc.ran);
        let known = !ran || self.ended.contains(&run) || self.lossy;
        law(known, "J24", || format!("{run} is to be forgotten, and its end is not durable"))
    }

    /// The signal of a rung is sent.
    pub(crate) fn signalled(&mut self, run: RunId, rung: Rung) -> Result<(), Broken> {
        law(self.rungs.insert((run, rung)), "once", || format!("{run} gets the signal of {rung:?} again"))
    }

    /// A program begins.
    pub(crate) fn executes(&mut self, run: RunId, host: &Host) -> Result<(), Broken> {
        self.counts.launches += 1;
        let times = self.runs.entry(run).or_default();
        *times += 1;
        law(*times == 1, "J22", || format!("{run} runs for the second time"))?;
        let Some(job) = host.procs.get(&run).map(|proc| &proc.job) else { return Ok(()) };
        for (other, proc) in &host.procs {
            let beside = *other != run
                && proc.job == *job
                && proc.exists()
                && proc.stage != crate::host::Stage::Forked;
            law(!beside, "one life", || format!("{run} of {job} begins beside {other}: {proc:?}"))?;
        }
        Ok(())
    }

    /// The instance ends.
    pub(crate) fn exits(&self, keep_jobs: bool, state: &State, host: &Host) -> Result<(), Broken> {
        if keep_jobs {
            return Ok(());
        }
        let left = state.live_runs().find(|(run, _)| host.procs.get(run).is_some_and(|proc| proc.exists()));
        law(left.is_none(), "shutdown", || format!("the instance ends, and {left:?} lives"))
    }

    // When all is quiet.

    /// What is remembered of ends is true.
    pub(crate) fn true_ends(&self, state: &State, host: &Host) -> Result<(), Broken> {
        for (name, _) in state.jobs() {
            for past in state.runs(name) {
                let Some(end) = &past.end else { continue };
                let proc = host.procs.get(&past.run);
                let ran = proc.is_some_and(|proc| proc.ran);
                let holds = match &end.outcome {
                    Outcome::Lost { .. } => proc.is_none_or(|proc| proc.unknowable) || self.lossy,
                    Outcome::Cancelled => !ran,
                    Outcome::NotStarted { .. } => !ran,
                    known => proc.is_some_and(|proc| proc.end.as_ref() == Some(known)),
                };
                law(holds, "truth", || {
                    format!(
                        "{} of {name} is said to have ended as {:?}, and is {proc:?}",
                        past.run, end.outcome
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Nobody has lost sight of anything.
    pub(crate) fn all_known(&self, state: &State, host: &Host) -> Result<(), Broken> {
        for (run, proc) in host.procs.iter().filter(|(_, proc)| proc.ran) {
            let held = state.job_of(*run).is_some();
            let known = held || self.ended.contains(run);
            law(known || self.lossy, "J24", || format!("the end of {run} is nowhere: {proc:?}"))?;
            law(held || !proc.exists() || self.lossy, "sight", || {
                format!("nobody looks after {run}: {proc:?}")
            })?;
        }
        for (run, files) in &host.files {
            let cancelled = files.claim == Claim::Cancelled;
            law(!cancelled || !self.runs.contains_key(run), "J22", || {
                format!("{run} was cancelled, and ran")
            })?;
        }
        Ok(())
    }
}
