//! Watching over the runs: who is to be looked at and when, and what becomes of what was seen.
//!
//! The judging is [`Vigil`]'s, which is pure; the looking is done outside the loop ([`looks`], [`probe`]), so that
//! no slow file, process or server holds it up. What was seen comes back as [`Seen`]. All vigils share the loop's
//! one timer.
//!
//! Nothing of this is remembered over our own death. A new supervisor makes the vigils anew of the runs that it
//! adopts, and looks: the keeper knows the latest beats and all that runs have told, files have their times.

mod away;
mod hears;
mod limits;
mod looks;
mod lookup;
pub(super) mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::main_loop::{Supervisor, Turn, now};
use crate::core::event::Event;
use crate::core::ids::{JobName, RunId};
use crate::core::input::Input;
use crate::core::instance::Link;
use crate::core::job::Phase;
use crate::core::spec::JobSpec;
use crate::core::time::{Millis, Stamp};
use crate::core::vigil::{Judgement, Look, Sampled, Vigil};
use crate::core::watch::Role;
use crate::sys::{cgroup, clock};
use crate::wire::keeper::Told;

use looks::{LogWatch, Looks};
use probe::NoYes;

/// How long who could not be heard may take to tell that it is ready.
const HEARING: Millis = Millis::from_secs(10);

/// Stack of a thread that looks at one thing.
const STACK: usize = 256 * 1024;

/// What was seen, and may wait for the loop.
const SEEN_MAX: usize = 1024;

/// Between two turns the wall clock is not slewed by as much, in microseconds: it was set.
const CLOCK_SET_US: u64 = 1_000_000;

/// What was seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// By looking.
    Looked(Vec<Looked>),
    /// What its processes do was written down, or cannot be.
    Diagnosed { run: RunId, path: Option<PathBuf> },
    /// A probe was answered, or not.
    Probed { run: RunId, role: Role, answer: Result<(), NoYes>, asked_us: u64, at_us: u64 },
}

/// What one look has shown.
#[derive(Debug)]
pub(super) struct Looked {
    run: RunId,
    at_us: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// When a sign of life was given last, boot clock.
    Sign(Look, Option<u64>),
    /// What its processes do.
    Sample(Option<Sampled>),
    /// Whether the line that says that it is ready was there.
    Log(Box<LogWatch>, bool),
}

/// One run that is watched, or tells things.
#[derive(Debug)]
struct Watched {
    job: JobName,
    vigil: Vigil,
    next_us: Option<u64>,
    log: Option<Box<LogWatch>>,
}

/// All of them.
pub(super) struct Vigils {
    runs: BTreeMap<RunId, Watched>,
    due: BTreeSet<(u64, RunId)>,
    /// What live runs have told, also those that are not watched.
    told: BTreeMap<RunId, Box<Told>>,
    /// Where it was written down what live runs do that hang.
    pub(super) diagnoses: BTreeMap<RunId, PathBuf>,
    /// Live runs of which something on disk is damaged, and what.
    pub(super) damaged: BTreeMap<RunId, String>,
    /// Where each run has its control group, if a tree is delegated to us.
    groups: Option<PathBuf>,
    /// What the kernel holds live runs to, as far as this supervisor has asked for it.
    limited: limits::Limited,
    /// What the wall clock was ahead of the boot clock by at the latest turn, in microseconds.
    wall_ahead_us: Option<i64>,
    /// Runs that were unwell, and are not watched any more.
    well: Vec<RunId>,
    /// Runs that get more time to become ready, because we were away.
    extensions: Vec<(RunId, Stamp)>,
    tell: mpsc::Sender<Seen>,
}

impl Vigils {
    /// None yet, and where what is seen comes from.
    pub(super) fn new() -> (Self, mpsc::Receiver<Seen>) {
        let (tell, seen) = mpsc::channel(SEEN_MAX);
        let none = Self {
            runs: BTreeMap::new(),
            due: BTreeSet::new(),
            told: BTreeMap::new(),
            diagnoses: BTreeMap::new(),
            damaged: BTreeMap::new(),
            groups: cgroup::base(),
            limited: limits::Limited::default(),
            wall_ahead_us: None,
            extensions: Vec::new(),
            well: Vec::new(),
            tell,
        };
        (none, seen)
    }

    /// When the next one wants to be judged, boot clock.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The vigil over a run.
    pub(super) fn over(&self, run: RunId) -> Option<&Vigil> {
        self.runs.get(&run).map(|watched| &watched.vigil)
    }

    /// What a live run has told.
    pub(super) fn told_by(&self, run: RunId) -> Option<&Told> {
        self.told.get(&run).map(|told| &**told)
    }

    fn put(&mut self, run: RunId, job: JobName, vigil: Vigil) {
        let log = self.runs.get_mut(&run).and_then(|old| old.log.take());
        self.remove(run);
        self.runs.insert(run, Watched { job, vigil, next_us: None, log });
        self.schedule(run);
    }

    /// Files have the time of the wall clock. When that was set, they say nothing until they are touched again.
    fn mind_the_clock(&mut self, now_us: u64) {
        let ahead_us = clock::wall_us().saturating_sub(i64::try_from(now_us).unwrap_or(i64::MAX));
        let Some(before_us) = self.wall_ahead_us.replace(ahead_us) else { return };
        if ahead_us.abs_diff(before_us) < CLOCK_SET_US {
            return;
        }
        tracing::warn!(by_ms = (ahead_us - before_us) / 1000, "the clock was set");
        let all: Vec<RunId> = self.runs.keys().copied().collect();
        for run in all {
            self.change(run, |vigil| vigil.clock_was_set(now_us));
        }
    }

    fn remove(&mut self, run: RunId) {
        if let Some(Watched { next_us: Some(at), .. }) = self.runs.remove(&run) {
            self.due.remove(&(at, run));
        }
    }

    /// Puts a run where its next look is due.
    fn schedule(&mut self, run: RunId) {
        let Some(watched) = self.runs.get_mut(&run) else { return };
        let next_us = watched.vigil.next_us();
        if next_us != watched.next_us {
            if let Some(at) = watched.next_us {
                self.due.remove(&(at, run));
            }
            if let Some(at) = next_us {
                self.due.insert((at, run));
            }
            watched.next_us = next_us;
        }
    }

    /// Changes one vigil, if there is one.
    fn change(&mut self, run: RunId, how: impl FnOnce(&mut Vigil)) {
        if let Some(watched) = self.runs.get_mut(&run) {
            how(&mut watched.vigil);
            self.schedule(run);
        }
    }
}

impl Supervisor {
    /// What was decided means that a run is watched from here on, or no longer.
    pub(super) fn follow(&mut self, events: &[Event], specs: Option<&[Arc<JobSpec>]>) {
        for event in events {
            match event {
                Event::RunStarted { run, .. } | Event::RunAdopted { run, .. } => self.watch_over(*run),
                Event::RunReady { run, .. } => {
                    self.vigils.change(*run, |vigil| vigil.is_ready(clock::boot_us()));
                }
                Event::RunProgress { run, .. } => self.made_progress(*run),
                // A run that is being stopped is left alone.
                Event::StopBegun { run, .. } => self.vigils.remove(*run),
                Event::RunEnded { record, .. } => {
                    self.vigils.remove(record.run);
                    self.vigils.told.remove(&record.run);
                    self.vigils.damaged.remove(&record.run);
                    self.vigils.diagnoses.remove(&record.run);
                    self.vigils.limited.forget(record.run);
                }
                _ => {}
            }
        }
        let live = specs.map(|_| self.state.live_runs().map(|(run, _)| run).collect::<Vec<_>>());
        for run in live.unwrap_or_default() {
            self.watch_over(run);
        }
    }

    pub(super) fn made_progress(&mut self, run: RunId) {
        let at_us = clock::boot_us();
        self.vigils.change(run, |vigil| vigil.progress(at_us, at_us));
    }

    /// Begins a vigil over a run, or begins it anew because it is to be watched differently.
    fn watch_over(&mut self, run: RunId) {
        let Some(name) = self.state.job_of(run).cloned() else { return };
        let spec = self.state.shared_spec(&name).cloned();
        let Some(spec) = spec else { return };
        self.vigils.limit(run, &spec);
        let Some(job) = self.state.job(&name) else { return };
        let Phase::Running { process, ready_at, ill, .. } = &job.phase else { return };
        if self.vigils.over(run).is_some_and(|vigil| vigil.is_by(&spec)) {
            return;
        }
        let now_us = clock::boot_us();
        let salt = run.as_bytes()[8..].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        // Across a restart of the host the start of the run means nothing; but then it does not live.
        let started_us = process.started.boot_us.min(now_us);
        let Some(mut vigil) = Vigil::new(&spec, started_us, ready_at.is_none(), (now_us, salt)) else {
            self.vigils.remove(run);
            // What was wrong is not looked for any more.
            self.vigils.well.extend(ill.is_some().then_some(run));
            return;
        };
        let was_ill = ill.is_some();
        if was_ill {
            vigil.hurry(now_us);
        }
        if let Some(said) = self.state.published(&name).filter(|known| known.run == run) {
            vigil.progress(said.at.boot_us, now_us);
        }
        self.vigils.put(run, name, vigil);
        if let Some(told) = self.vigils.told.get(&run).cloned() {
            self.vigils.change(run, |vigil| hears::tell(vigil, &told, now_us));
        }
        if was_ill {
            self.judge_soon(run);
        }
    }

    /// The memory is another one than what was watched by: nothing of that was recorded.
    pub(super) fn watch_anew(&mut self) {
        self.vigils.runs.clear();
        self.vigils.due.clear();
        let live: Vec<RunId> = self.state.live_runs().map(|(run, _)| run).collect();
        for run in live {
            self.watch_over(run);
        }
        // What runs have told comes back with the inventory, and is then new to what is remembered.
        self.vigils.told.clear();
    }

    /// Before a survey after which all that is due is decided: who has to tell that it is ready, and could not be
    /// heard meanwhile, has a moment for it.
    pub(super) fn hear_before_judging(&mut self, turn: &mut Turn) {
        let until = now().plus(HEARING);
        let late: Vec<RunId> = self
            .state
            .live_runs()
            .filter(|(_, name)| self.state.spec(name).is_some_and(|spec| spec.ready().is_some()))
            .filter_map(|(run, name)| match &self.state.job(name)?.phase {
                Phase::Running { ready_at: Some(at), .. } if at.boot_us < until.boot_us => Some(run),
                _ => None,
            })
            .collect();
        for run in late {
            self.observe(&Input::Extended { run, until }, turn);
        }
    }

    /// Judges all whose time has come. Nothing is judged while nothing could be done about it: what is wrong will
    /// still be wrong.
    pub(super) fn judge(&mut self, turn: &mut Turn) {
        if !self.may_judge() {
            return;
        }
        let mut looks = Looks::default();
        let now_us = clock::boot_us();
        self.vigils.mind_the_clock(now_us);
        // Each once, whatever it wants: time does not stand still for a vigil.
        let due: Vec<(u64, RunId)> =
            self.vigils.due.iter().take_while(|(at, _)| *at <= now_us).copied().collect();
        for (at, run) in due {
            self.vigils.due.remove(&(at, run));
            let Some(watched) = self.vigils.runs.get_mut(&run) else { continue };
            watched.next_us = None;
            let judgement = watched.vigil.judge(now_us);
            self.vigils.schedule(run);
            self.judged(run, judgement, &mut looks, turn);
        }
        self.look(looks);
    }

    /// Before anything that is due: what waits to become ready has more time, because we were away; and what was
    /// unwell by settings that are gone is well.
    pub(super) fn extend(&mut self, turn: &mut Turn) {
        for (run, until) in std::mem::take(&mut self.vigils.extensions) {
            self.observe(&Input::Extended { run, until }, turn);
        }
        for run in std::mem::take(&mut self.vigils.well) {
            self.observe(&Input::Well { run }, turn);
        }
    }

    /// Whether something could be done about what is found.
    pub(super) fn may_judge(&self) -> bool {
        self.state.instance.link == Link::Working && self.read_only.is_none()
    }

    /// What could not be done before may be done now.
    pub(super) fn judge_all(&mut self) {
        let now_us = clock::boot_us();
        let all: Vec<RunId> = self.vigils.runs.keys().copied().collect();
        for run in all {
            let Some(watched) = self.vigils.runs.get_mut(&run) else { continue };
            if let Some(at) = watched.next_us.replace(now_us) {
                self.vigils.due.remove(&(at, run));
            }
            self.vigils.due.insert((now_us, run));
        }
    }

    fn judged(&mut self, run: RunId, judgement: Judgement, looks: &mut Looks, turn: &mut Turn) {
        for look in judgement.looks {
            self.arrange(run, look, looks);
        }
        if judgement.ready {
            self.observe(&Input::Ready { run }, turn);
        }
        let Some(job) = self.state.job_of(run).and_then(|name| self.state.job(name)) else { return };
        match (judgement.fault, job.ill()) {
            (Some((fault, why)), _) => {
                self.observe(&Input::Unwell { run, fault, why }, turn);
            }
            (None, Some(ill)) => {
                let (fault, since_us) = (ill.fault, ill.since.boot_us);
                let over = self.vigils.over(run).is_some_and(|vigil| vigil.is_over(fault, since_us));
                if over {
                    self.observe(&Input::Well { run }, turn);
                }
            }
            (None, None) => {}
        }
    }

    /// Something was seen.
    pub(super) fn seen(&mut self, seen: Seen, turn: &mut Turn) {
        match seen {
            Seen::Probed { run, role, answer: Err(_), asked_us, at_us }
                if self.is_late(run, role, at_us - asked_us) =>
            {
                self.vigils.change(run, |vigil| vigil.ask_again(role, at_us));
            }
            Seen::Probed { run, role, answer: Err(NoYes::Unasked(why)), at_us, .. } => {
                tracing::warn!(%run, probe = role.as_str(), why, "cannot be asked");
                self.vigils.change(run, |vigil| vigil.unasked(role, at_us));
            }
            Seen::Probed { run, role, answer, at_us, .. } => {
                let answer = answer.map_err(NoYes::words);
                if let Err(why) = &answer {
                    tracing::debug!(%run, probe = role.as_str(), why, "does not answer");
                }
                let before = self.vigils.over(run).and_then(Vigil::unready);
                self.vigils.change(run, |vigil| vigil.probed(role, answer, at_us));
                self.judge_soon(run);
                if before != self.vigils.over(run).and_then(Vigil::unready) {
                    self.dirty.extend(self.vigils.runs.get(&run).map(|watched| watched.job.clone()));
                }
            }
            Seen::Diagnosed { run, path } => {
                let job = self.state.job_of(run).and_then(|name| self.state.job(name));
                let lives = job.is_some_and(|job| job.pid().is_some());
                self.vigils.diagnoses.extend(path.filter(|_| lives).map(|path| (run, path)));
                self.dirty.extend(self.state.job_of(run).cloned());
                self.observe(&Input::Diagnosed { run }, turn);
            }
            Seen::Looked(all) => {
                for Looked { run, at_us, what } in all {
                    self.looked(run, at_us, what, turn);
                }
            }
        }
    }

    fn looked(&mut self, run: RunId, at_us: u64, what: What, turn: &mut Turn) {
        match what {
            What::Sign(look, seen_us) => {
                // Where the disk refuses its output it cannot be heard, whatever it says.
                let refused = look == Look::Output && self.stalled.contains_key(&run);
                let seen_us = if refused { Some(at_us) } else { seen_us };
                self.vigils.change(run, |vigil| vigil.looked(look, seen_us, at_us));
            }
            What::Sample(sample) => self.vigils.change(run, |vigil| vigil.sampled(sample, at_us)),
            What::Log(log, found) => {
                // It may be that another line is waited for by now.
                let spec = self.state.job_of(run).and_then(|job| self.state.spec(job));
                let found = found
                    && spec.and_then(|spec| spec.watch.as_deref()).is_some_and(|watch| log.is_for(watch));
                if let Some(watched) = self.vigils.runs.get_mut(&run) {
                    watched.log = Some(log);
                }
                self.vigils.change(run, |vigil| vigil.looked(Look::Log, None, at_us));
                if found {
                    self.observe(&Input::Ready { run }, turn);
                }
            }
        }
        self.judge_soon(run);
    }

    /// Has a run judged in this turn.
    fn judge_soon(&mut self, run: RunId) {
        let now_us = clock::boot_us();
        let Some(watched) = self.vigils.runs.get_mut(&run) else { return };
        if let Some(at) = watched.next_us.replace(now_us) {
            self.vigils.due.remove(&(at, run));
        }
        self.vigils.due.insert((now_us, run));
    }

    /// Writes down what the processes of a run that hangs are doing, in a thread that may hang with them.
    pub(super) fn diagnose(
        &self,
        run: RunId,
        job: &JobName,
        identity: crate::core::identity::Identity,
        why: &str,
    ) {
        tracing::warn!(%job, %run, pid = identity.pid, why, "hangs");
        let (state, job, why, at) = (self.state_dir.clone(), job.clone(), why.to_owned(), now());
        let tell = self.vigils.tell.clone();
        aside(move || {
            let written = super::snapshot::write(&state, run, &identity, &why, at);
            match &written {
                Ok(path) => {
                    tracing::info!(%job, %run, path = %path.display(), "what it does is written down")
                }
                Err(error) => tracing::warn!(%job, %run, %error, "what it does cannot be written down"),
            }
            let _ = tell.blocking_send(Seen::Diagnosed { run, path: written.ok() });
        });
    }
}

/// Does what may hang for ever in a thread of its own: the pool for what blocks is small, and shared with all else.
/// False: there is no thread for it, and it is not done.
pub(super) fn aside(work: impl FnOnce() + Send + 'static) -> bool {
    let thread = std::thread::Builder::new().name("look".to_owned()).stack_size(STACK);
    let begun = thread.spawn(work);
    if let Err(error) = &begun {
        tracing::warn!(%error, "no thread for a look at a run");
    }
    begun.is_ok()
}
