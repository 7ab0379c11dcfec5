//! A keeper that keeps the truth: which runs exist, whatever anybody believes.
//!
//! It loses messages, repeats them and delivers them late. It checks the one promise that matters at the
//! place where it would be broken: when it is asked to start a run.

use std::collections::BTreeMap;

use super::super::effect::Effect;
use super::super::hook::When;
use super::super::ids::{JobName, RunId};
use super::super::input::{Fact, Input, Survey, Surveyed};
use super::super::outcome::{ExitRecord, Outcome};
use super::super::signal::KILL;
use super::super::spec::KillScope;
use super::super::state::State;
use super::super::time::Stamp;
use super::{identity, record};

/// xorshift64*: enough chance for tests, the same on every machine.
#[derive(Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to `n - 1`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What is true of a run.
#[derive(Debug, Clone)]
enum Truth {
    /// The request has arrived, nothing has been done about it.
    Asked,
    Live {
        pid: i32,
        started: Stamp,
    },
    /// The main process has ended.
    Ended {
        record: Box<ExitRecord>,
        leftovers: bool,
    },
    /// Never ran and never will.
    Cancelled,
    /// Gone without a record.
    Lost,
}

#[derive(Debug, Clone)]
struct Known {
    job: JobName,
    truth: Truth,
    disowned: bool,
}

impl Known {
    fn exists(&self) -> bool {
        match &self.truth {
            Truth::Asked | Truth::Live { .. } => true,
            Truth::Ended { leftovers, .. } => *leftovers && !self.disowned,
            Truth::Cancelled | Truth::Lost => false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Keeper {
    runs: BTreeMap<RunId, Known>,
    /// What it has said and the supervisor has not heard yet.
    pub(super) inbox: Vec<Input>,
    pids: i32,
    pub(super) exits: u32,
    pub(super) launches: u32,
    pub(super) most_leftovers: bool,
}

impl Keeper {
    /// Performs an effect. `calm`: everything goes well.
    pub(super) fn perform(&mut self, effect: &Effect, now: Stamp, rng: &mut Rng, calm: bool) {
        match effect {
            Effect::Launch { run, spec, .. } => {
                if self.runs.contains_key(run) {
                    return;
                }
                let others = self.runs.iter().filter(|(_, known)| known.job == spec.name && known.exists());
                let others: Vec<_> = others.collect();
                assert!(others.is_empty(), "{run} of {} beside {others:?}", spec.name);
                self.launches += 1;
                let known = Known { job: spec.name.clone(), truth: Truth::Asked, disowned: false };
                self.runs.insert(*run, known);
            }
            Effect::Signal { run, signal, scope, .. } => self.signal(*run, (*signal, *scope), now, rng, calm),
            Effect::RunStopCommand { run, step, .. } => {
                self.inbox.push(Input::StopCommandEnded { run: *run, step: *step, ok: rng.one_in(2) });
            }
            Effect::RunHook { when: When::BeforeStop, run: Some(run), .. } if rng.one_in(2) => {
                self.inbox.push(Input::HookEnded { run: *run });
            }
            Effect::RunHook { .. } | Effect::Diagnose { .. } => {}
            Effect::Forget { run } => {
                let gone = self.runs.get(run).is_none_or(|known| !known.exists());
                assert!(gone, "{run} is to be forgotten while it exists");
            }
            Effect::Disown { run } => {
                if let Some(known) = self.runs.get_mut(run) {
                    known.disowned = true;
                }
            }
            Effect::Exit { keep_jobs, .. } => {
                self.exits += 1;
                let left = self.runs.values().any(Known::exists);
                assert!(*keep_jobs || !left, "the instance ends while {:?}", self.runs);
            }
        }
    }

    fn signal(
        &mut self,
        run: RunId,
        (signal, scope): (i32, KillScope),
        now: Stamp,
        rng: &mut Rng,
        calm: bool,
    ) {
        let Some(known) = self.runs.get(&run) else { return };
        let obeys = calm || signal == KILL || rng.one_in(2);
        match &known.truth {
            Truth::Live { .. } if obeys => {
                let leftovers = scope != KillScope::Tree && !calm && rng.one_in(3);
                self.end(run, Outcome::Signaled { signal, core: false }, leftovers, now);
            }
            Truth::Ended { leftovers: true, .. } if obeys && scope == KillScope::Tree => self.tree_goes(run),
            _ => {}
        }
    }

    /// Something happens in the world, if there is something that can.
    pub(super) fn happen(&mut self, now: Stamp, rng: &mut Rng, calm: bool) -> bool {
        let movable: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, known)| match &known.truth {
                Truth::Asked => true,
                Truth::Live { .. } => !calm,
                Truth::Ended { leftovers, .. } => *leftovers,
                Truth::Cancelled | Truth::Lost => false,
            })
            .map(|(run, _)| *run)
            .collect();
        if movable.is_empty() {
            return false;
        }
        let run = movable[rng.below(movable.len() as u64) as usize];
        match self.runs[&run].truth.clone() {
            Truth::Asked => self.execute(run, now, rng, calm),
            Truth::Live { .. } => {
                let outcome = match rng.below(3) {
                    0 => Outcome::Exited { code: 0 },
                    1 => Outcome::Exited { code: 1 },
                    _ => Outcome::OomKilled,
                };
                let leftovers = rng.one_in(if self.most_leftovers { 2 } else { 4 });
                self.end(run, outcome, leftovers, now);
            }
            Truth::Ended { .. } => self.tree_goes(run),
            Truth::Cancelled | Truth::Lost => {}
        }
        true
    }

    fn execute(&mut self, run: RunId, now: Stamp, rng: &mut Rng, calm: bool) {
        let known = self.runs.get_mut(&run).unwrap();
        if !calm && rng.one_in(8) {
            let outcome = Outcome::NotStarted { step: "exec".to_owned(), errno: 2 };
            let number = u128::from_be_bytes(*run.as_bytes());
            let record = record(known.job.as_str(), number, outcome.clone(), (None, now));
            known.truth = Truth::Ended { record: Box::new(record.clone()), leftovers: false };
            self.inbox.push(Input::Refused { run, outcome });
            self.inbox.push(Input::Ended { record: Box::new(record), leftovers: false });
            return;
        }
        self.pids += 1;
        known.truth = Truth::Live { pid: self.pids, started: now };
        self.inbox.push(Input::Launched { run, identity: identity(self.pids), at: now });
    }

    fn end(&mut self, run: RunId, outcome: Outcome, leftovers: bool, now: Stamp) {
        let known = self.runs.get_mut(&run).unwrap();
        let Truth::Live { started, .. } = known.truth else { return };
        let number = u128::from_be_bytes(*run.as_bytes());
        let record = Box::new(record(known.job.as_str(), number, outcome, (Some(started), now)));
        known.truth = Truth::Ended { record: record.clone(), leftovers };
        self.inbox.push(Input::Ended { record, leftovers });
    }

    fn tree_goes(&mut self, run: RunId) {
        let known = self.runs.get_mut(&run).unwrap();
        if let Truth::Ended { leftovers, .. } = &mut known.truth {
            *leftovers = false;
            self.inbox.push(Input::TreeGone { run });
        }
    }

    /// What a survey finds. Looking for a run that nobody has executed cancels it.
    pub(super) fn survey(&mut self, state: &State, now: Stamp, rng: &mut Rng) -> Survey {
        for (run, job) in state.live_runs() {
            self.runs.entry(run).or_insert_with(|| Known {
                job: job.clone(),
                truth: Truth::Cancelled,
                disowned: false,
            });
        }
        let all: Vec<RunId> = self.runs.keys().copied().collect();
        for run in all {
            if matches!(self.runs[&run].truth, Truth::Asked) {
                if rng.one_in(2) {
                    self.runs.get_mut(&run).unwrap().truth = Truth::Cancelled;
                } else {
                    self.execute(run, now, rng, true);
                }
            }
        }
        let mut runs: Vec<Surveyed> = self.runs.iter().map(|(run, known)| found(*run, known)).collect();
        // What nobody can know: the run is gone, and so is its record.
        for found in &mut runs {
            if matches!(found.fact, Fact::Alive { .. }) && rng.one_in(10) {
                self.runs.get_mut(&found.run).unwrap().truth = Truth::Lost;
                found.fact = Fact::Lost { why: "no record".to_owned() };
            }
        }
        Survey { runs, ..Survey::default() }
    }

    /// The host starts anew: no process is left, and of what ran there is no record.
    pub(super) fn reboot(&mut self) {
        for known in self.runs.values_mut() {
            match &mut known.truth {
                Truth::Asked => known.truth = Truth::Cancelled,
                Truth::Live { .. } => known.truth = Truth::Lost,
                Truth::Ended { leftovers, .. } => *leftovers = false,
                Truth::Cancelled | Truth::Lost => {}
            }
        }
    }

    /// Runs whose main process lives.
    pub(super) fn live(&self) -> impl Iterator<Item = (RunId, &JobName)> {
        let live = self.runs.iter().filter(|(_, known)| matches!(known.truth, Truth::Live { .. }));
        live.map(|(run, known)| (*run, &known.job))
    }
}

fn found(run: RunId, known: &Known) -> Surveyed {
    let fact = match &known.truth {
        Truth::Live { pid, started } => Fact::Alive { identity: identity(*pid), started: *started },
        Truth::Ended { record, leftovers } => {
            Fact::Ended { record: record.clone(), leftovers: *leftovers && !known.disowned }
        }
        Truth::Asked | Truth::Cancelled => Fact::Cancelled,
        Truth::Lost => Fact::Lost { why: "no record".to_owned() },
    };
    Surveyed::new(run, Some(known.job.clone()), fact)
}
