//! Laws that hold whatever happens in whatever order: thousands of seeded histories with crashes of the
//! supervisor and of the keeper at any point, effects performed or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::Decision;
use super::super::event::{Event, Want};
use super::super::fault::Fault;
use super::super::hook::When;
use super::super::ids::{JobName, RunId};
use super::super::input::Input;
use super::super::instance::{Life, Link};
use super::super::job::Phase;
use super::super::life::counts_as_up;
use super::super::outcome::Asked;
use super::super::progress::Said;
use super::super::queue::Entry;
use super::super::rest::{Place, Shelf};
use super::super::spec::{JobSpec, KillScope, Leftovers};
use super::super::state::State;
use super::super::time::{Millis, Stamp};
use super::model::{Keeper, Rng};
use super::random::{JOBS, random_spec};
use super::{World, epoch, exited, identity, name, operator, record, run, spec};

pub(super) struct History {
    pub(super) world: World,
    pub(super) keeper: Keeper,
    pub(super) rng: Rng,
    pub(super) specs: Vec<JobSpec>,
    /// The settings before a saga, and which.
    pub(super) before: Option<(u64, Vec<JobSpec>)>,
    pub(super) calm: bool,
    pub(super) epoch: u64,
    pub(super) submitted: u32,
    /// Set when the instance has ended.
    pub(super) over: bool,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let specs = JOBS.iter().map(|job| random_spec(&mut rng, job)).collect();
        let mut keeper = Keeper::default();
        keeper.most_leftovers = rng.one_in(3);
        let mut this = Self {
            world: World::bare(),
            keeper,
            rng,
            specs,
            before: None,
            calm: false,
            epoch: 1,
            submitted: 0,
            over: false,
        };
        this.begin();
        this
    }

    /// A supervisor starts over what is recorded. Anything may be asked of it before it has its survey.
    fn begin(&mut self) {
        self.world.replayed();
        self.keep_one_configuration();
        let specs: Vec<_> = self.specs.iter().cloned().map(std::sync::Arc::new).collect();
        self.world.state.set_specs(&specs);
        self.keeper.inbox.clear();
        self.over = false;
        let recovery = !self.calm && self.rng.one_in(8);
        let decision = self.world.supervisor(self.epoch, recovery);
        self.after(&decision, &Input::Tick);
        self.feed(Input::Configured { specs: self.specs.clone(), by: Asked::Nobody });
        if !self.calm && self.rng.one_in(3) {
            self.ask();
        }
        if !self.over {
            self.survey();
        }
    }

    fn survey(&mut self) {
        // What it hears before the survey may be told again by it.
        while !self.keeper.inbox.is_empty() && self.rng.one_in(3) {
            self.hear();
        }
        let survey = self.keeper.survey(&self.world.state, self.world.now, &mut self.rng);
        self.feed(Input::Surveyed(survey));
    }

    /// Decides, checks, performs; or dies on the way.
    fn feed(&mut self, input: Input) {
        let decision = self.world.feed(input.clone());
        self.after(&decision, &input);
        self.keep_one_configuration();
        let dies = !self.calm && self.rng.one_in(60);
        let performed =
            if dies { self.rng.below(decision.effects.len() as u64 + 1) as usize } else { usize::MAX };
        let exits = self.keeper.exits;
        for effect in decision.effects.iter().take(performed) {
            self.keeper.perform(effect, self.world.now, &mut self.rng, self.calm);
        }
        if self.keeper.exits > exits {
            self.over = true;
        } else if dies {
            self.begin();
        }
    }

    fn hear(&mut self) {
        if self.keeper.inbox.is_empty() {
            return;
        }
        let input = if self.calm || !self.rng.one_in(6) {
            self.keeper.inbox.remove(0)
        } else {
            self.keeper.inbox[0].clone()
        };
        self.feed(input);
    }

    /// Something is observed of a run, or told by it.
    fn say_how_it_is(&mut self) {
        let Some(run) = self.world.state.live_runs().map(|(run, _)| run).last() else { return };
        let until = self.world.now.plus(Millis(self.rng.below(2000)));
        let fault = Fault::ALL[self.rng.below(Fault::ALL.len() as u64) as usize];
        let input = match self.rng.below(6) {
            0 => Input::Well { run },
            1 => Input::Extended { run, until },
            2..=3 => Input::Unwell { run, fault, why: "so".to_owned() },
            _ => Input::Ready { run },
        };
        self.feed(input);
    }

    fn ask(&mut self) {
        let mut jobs: Vec<JobName> = self.world.state.jobs().map(|(job, _)| job.clone()).collect();
        jobs.push(name("nobody"));
        let n = 1 + self.rng.below(2) as usize;
        let jobs: Vec<JobName> =
            (0..n).map(|_| jobs[self.rng.below(jobs.len() as u64) as usize].clone()).collect();
        if self.rng.one_in(3) {
            self.say_how_it_is();
            return;
        }
        let input = match self.rng.below(12) {
            0..=1 => Input::Start { jobs, force: self.rng.one_in(2), by: operator("start") },
            2 => Input::StartOrRollBack { jobs, by: operator("start"), within: Millis(self.rng.below(4000)) },
            3..=5 => Input::Stop { jobs, by: operator("stop") },
            6..=7 => Input::Restart { jobs, by: operator("restart") },
            8 => Input::Signal {
                job: jobs[0].clone(),
                signal: 1,
                scope: KillScope::Mixed,
                by: operator("signal"),
            },
            9 => {
                // The driver refuses one while another is under way.
                if self.world.state.sagas.open.is_some() || self.world.state.instance.shutdown.is_some() {
                    return;
                }
                let old = self.specs.clone();
                self.change_specs();
                let (specs, by) = (self.specs.clone(), operator("reload"));
                if self.rng.one_in(2) {
                    self.before = Some((self.world.state.sagas.begun + 1, old));
                    Input::ReloadOrRollBack { specs, by, within: Millis(self.rng.below(4000)) }
                } else {
                    Input::Configured { specs, by }
                }
            }
            10 => {
                self.submitted += 1;
                let mut spec = random_spec(&mut self.rng, &format!("z{}", self.submitted % 5));
                spec.depends_on.truncate(1);
                let held = spec.queue.is_some() && self.rng.one_in(4);
                let entry = Entry { held, ..Entry::default() };
                Input::Submitted { spec: Box::new(spec), entry, by: operator("run") }
            }
            _ if self.rng.one_in(4) => {
                Input::Shutdown { keep_jobs: self.rng.one_in(3), by: operator("shutdown") }
            }
            _ => {
                let Some(run) = self.world.state.live_runs().map(|(run, _)| run).last() else { return };
                let token = ["", "a", "b"][self.rng.below(3) as usize].to_owned();
                let resume = self.rng.one_in(2).then_some(token);
                Input::Published { run, said: Said { progress: Some(7), text: None, resume } }
            }
        };
        self.feed(input);
    }

    fn step(&mut self) {
        if self.over {
            // The next instance.
            self.begin();
            return;
        }
        if self.rng.one_in(150) {
            self.keeper.reboot();
            self.epoch += 1;
            self.world.now.boot_us = 1000;
            self.begin();
            return;
        }
        match self.rng.below(20) {
            0..=6 => {
                self.keeper.happen(self.world.now, &mut self.rng, false);
            }
            7..=12 => self.hear(),
            13..=14 => self.ask(),
            15..=16 => {
                let ms = self.rng.below(800);
                self.world.pass(ms);
                self.feed(Input::Tick);
            }
            17 => self.tick_to_deadline(),
            18 if self.rng.one_in(4) => {
                self.keeper.inbox.clear();
                self.feed(Input::KeeperLost);
                for _ in 0..self.rng.below(4) {
                    if !self.over {
                        self.ask();
                    }
                }
                if !self.over {
                    self.survey();
                }
            }
            18 => self.old_news(),
            _ if self.rng.one_in(4) => self.begin(),
            _ => {}
        }
    }

    fn tick_to_deadline(&mut self) {
        let Some(at) = self.world.state.next_deadline() else { return };
        if at.boot_us > self.world.now.boot_us {
            self.world.now = Stamp { boot_us: at.boot_us, wall_us: self.world.now.wall_us + 1 };
        }
        let generation = self.world.generation;
        self.feed(Input::Tick);
        if generation == self.world.generation && !self.over && self.world.state.sagas.open.is_some() {
            // That it has failed is one decision, its undo another.
            self.feed(Input::Tick);
        }
        if generation == self.world.generation && !self.over {
            let next = self.world.state.next_deadline();
            let now = self.world.now;
            let jobs =
                || self.world.state.jobs().map(|(job, _)| self.tail_of(job)).collect::<Vec<_>>().join("\n\n");
            assert!(
                next.is_none_or(|next| next.boot_us > now.boot_us),
                "a deadline that does nothing: {next:?} at {now:?}, {:?}\n{}",
                self.world.state.instance,
                jobs()
            );
        }
    }

    /// News of a run that nobody asked for, or that is over.
    fn old_news(&mut self) {
        let strange = run(u128::MAX - u128::from(self.rng.below(100)));
        let ended: Vec<RunId> = self
            .world
            .log
            .iter()
            .flat_map(|(_, events)| events)
            .filter_map(|event| match event {
                Event::RunEnded { record, leftovers: false, .. } => Some(record.run),
                _ => None,
            })
            .collect();
        let old = ended.get(self.rng.below(ended.len() as u64 + 1) as usize).copied().unwrap_or(strange);
        let number = u128::from_be_bytes(*old.as_bytes());
        let record = Box::new(record("a", number, exited(0), (None, self.world.now)));
        for input in [
            Input::Launched { run: old, identity: identity(9), at: self.world.now },
            Input::Refused { run: old, outcome: exited(1) },
            Input::Ended { record, leftovers: self.rng.one_in(2) },
            Input::TreeGone { run: old },
            Input::StopCommandEnded { run: old, step: 0, ok: false },
            Input::HookEnded { run: old },
        ] {
            let before = self.world.state.clone();
            let decision = self.world.feed(input);
            assert_eq!(decision.events, [], "old news of {old}");
            assert!(self.world.state == before);
        }
    }

    /// What must hold after every decision.
    fn after(&self, decision: &Decision, input: &Input) {
        let state = &self.world.state;
        let mut live = BTreeMap::new();
        let mut deadline: Option<Stamp> = None;
        for (job, known) in state.jobs() {
            if let Some(run) = known.run() {
                assert!(live.insert(run, job.clone()).is_none());
            }
            if let Some(at) = known.deadline() {
                deadline = Some(deadline.map_or(at, |first| first.min(at)));
            }
            self.wait_ends(job, &known.phase);
            assert!(
                !known.removed || known.run().is_some(),
                "{job} is removed and has no run, after {input:?}"
            );
        }
        let indexed: BTreeMap<RunId, JobName> =
            state.live_runs().map(|(run, job)| (run, job.clone())).collect();
        assert_eq!(indexed, live);
        if state.instance.link == Link::Working && state.instance.shutdown.is_none() {
            let deadline = [deadline, state.saga_deadline()].into_iter().flatten().min();
            assert_eq!(state.next_deadline(), deadline);
        }
        if state.instance.link != Link::Working {
            let acts = decision.effects.iter().any(|effect| {
                use super::super::effect::Effect;
                matches!(
                    effect,
                    Effect::Launch { .. }
                        | Effect::Signal { .. }
                        | Effect::RunStopCommand { .. }
                        | Effect::RunHook { when: When::BeforeStop, .. }
                )
            });
            assert!(!acts, "{decision:?} without a keeper");
        }
    }

    /// Whatever waits has a deadline, or waits for the keeper, or for another job.
    fn wait_ends(&self, job: &JobName, phase: &Phase) {
        let state = &self.world.state;
        if state.instance.link != Link::Working {
            return;
        }
        match phase {
            Phase::Waiting => {
                let deps = state.spec(job).map(|spec| spec.depends_on.clone()).unwrap_or_default();
                let all = deps.iter().all(|dep| match (state.job(dep), state.spec(dep)) {
                    (Some(job), Some(spec)) => counts_as_up(job, spec),
                    _ => false,
                });
                let tails =
                    || deps.iter().chain([job]).map(|job| self.tail_of(job)).collect::<Vec<_>>().join("\n\n");
                assert!(!all, "{job} waits for nothing after\n{}", tails());
                assert!(state.instance.shutdown.is_none(), "{job} waits in a shutdown");
            }
            Phase::Queued => super::queues::no_turn_is_missed(state),
            Phase::Stopping { process: Some(_), ladder, .. } => assert!(ladder.is_some(), "{job}"),
            Phase::Leftovers { ladder: None, stop, .. } => {
                let waited = state.spec(job).is_some_and(|spec| spec.leftovers == Leftovers::Wait);
                assert!(stop.is_none() && waited, "{job} has leftovers nobody stops");
            }
            Phase::Backoff { .. } => assert!(state.instance.shutdown.is_none(), "{job}"),
            Phase::Stopped
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { process: None, .. }
            | Phase::Leftovers { ladder: Some(_), .. }
            | Phase::Held { .. }
            | Phase::Exited
            | Phase::Fatal { .. } => {}
        }
    }

    fn check_replay(&self, through_json: bool) {
        let mut replayed = State::new();
        for (at, events) in &self.world.log {
            for event in events {
                if through_json {
                    let text = serde_json::to_string(event).unwrap();
                    let read: Event = serde_json::from_str(&text).unwrap();
                    assert_eq!(read, *event, "{text}");
                    replayed.apply(&read, *at);
                } else {
                    replayed.apply(event, *at);
                }
            }
        }
        // Taken down to lines anywhere on the way, and lived on from there.
        let log = &self.world.log;
        for cut in [log.len() / 2, log.len()] {
            let mut restored = State::new();
            for (n, (at, events)) in log.iter().enumerate() {
                if n == cut {
                    restored = Memory::through_lines(&restored);
                }
                events.iter().for_each(|event| restored.apply(event, *at));
            }
            if cut == log.len() {
                restored = Memory::through_lines(&restored);
            }
            assert!(restored == replayed, "restored at {cut} is\n{restored:#?}\nit was\n{replayed:#?}");
        }
        let mut live = self.world.state.clone();
        for state in [&mut live, &mut replayed] {
            state.specs.clear();
            state.dependents.clear();
            state.before = None;
        }
        assert!(live == replayed, "replay gives\n{replayed:#?}\nlived was\n{live:#?}");
    }

    fn check_ended_once(&self) {
        let mut ended = BTreeSet::new();
        let mut requested = BTreeSet::new();
        for event in self.world.log.iter().flat_map(|(_, events)| events) {
            match event {
                Event::RunEnded { record, .. } => {
                    assert!(ended.insert(record.run), "{} ended twice", record.run)
                }
                Event::RunRequested { run, .. } => assert!(requested.insert(*run)),
                _ => {}
            }
        }
        assert!(ended.is_subset(&requested));
        let live: BTreeSet<RunId> = self.world.state.live_runs().map(|(run, _)| run).collect();
        for (run, job) in self.keeper.live() {
            assert!(live.contains(&run), "nobody looks after {run} of {job}");
        }
    }

    /// The last that was recorded of a job, for a failing test to show.
    fn tail_of(&self, job: &JobName) -> String {
        let events = self.world.log.iter().flat_map(|(_, events)| events);
        let its: Vec<String> = events
            .filter(|event| event.job().is_none_or(|of| of == job))
            .map(|event| format!("{event:?}"))
            .collect();
        its[its.len().saturating_sub(25)..].join("\n")
    }

    /// No more accidents: everything comes to rest where it was wanted.
    fn settle(&mut self) {
        self.calm = true;
        self.begin();
        if self.world.state.instance.recovery {
            self.feed(Input::LeaveRecovery { by: operator("recover exit") });
        }
        for _ in 0..2000 {
            if !self.keeper.inbox.is_empty() {
                self.hear();
            } else if !self.keeper.happen(self.world.now, &mut self.rng, true) {
                if self.world.state.next_deadline().is_none() {
                    break;
                }
                // All is well from here on, and every run says so.
                let live: Vec<RunId> = self.world.state.live_runs().map(|(run, _)| run).collect();
                for run in live {
                    self.feed(Input::Ready { run });
                    self.feed(Input::Well { run });
                }
                self.tick_to_deadline();
            }
        }
        let state = &self.world.state;
        assert_eq!((state.next_deadline(), state.instance.life), (None, Life::Continued));
        assert!(state.sagas.open.is_none() && self.before.is_none(), "{:?}", state.sagas);
        self.check_sagas();
        for (job, known) in state.jobs() {
            match (&known.phase, known.want) {
                (Phase::Stopped | Phase::Exited, Want::Down) => {}
                (
                    Phase::Running { .. }
                    | Phase::Exited
                    | Phase::Fatal { .. }
                    | Phase::Waiting
                    | Phase::Queued,
                    Want::Up,
                ) => {}
                other => panic!("{job} came to rest as {other:?} after\n{}", self.tail_of(job)),
            }
        }
    }
}

fn live_through(seed: u64, steps: u32) -> (u32, u32) {
    let mut history = History::new(seed);
    for i in 0..steps {
        history.step();
        if i % 64 == 63 {
            history.check_replay(false);
        }
    }
    history.check_replay(false);
    history.settle();
    history.check_replay(true);
    history.check_ended_once();
    (history.keeper.launches, history.world.generation as u32)
}

#[test]
fn the_laws_hold_through_thousands_of_random_histories() {
    let histories = std::env::var("LAWS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let first = std::env::var("LAWS_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (mut launches, mut supervisors) = (0, 0);
    for seed in first..first + histories {
        let lived = std::panic::catch_unwind(|| live_through(seed, 150));
        let Ok((l, s)) = lived else { panic!("seed {seed}") };
        launches += l;
        supervisors += s;
    }
    println!("{histories} histories, {launches} launches, {supervisors} supervisors");
    let rested = RESTED.load(Ordering::Relaxed);
    println!("{rested} jobs were at rest");
    assert!(rested > histories as usize / 20);
    assert!(launches > 10 * histories as u32 && supervisors > 5 * histories as u32);
}

#[test]
fn another_epoch_is_another_life() {
    assert_ne!(epoch(1), epoch(2));
    let mut world = World::with(&[spec("a")]);
    world.launched(1);
    world.replayed();
    world.supervisor(2, false);
    assert_eq!(world.state.instance.life, Life::New);
    let same = world.state.instance.clone();
    world.replayed();
    world.supervisor(2, false);
    // The first supervisor of the new life died before its survey: its task is still to be done.
    assert_eq!(world.state.instance.life, same.life);
}

/// A shelf in memory.
#[derive(Debug, Default)]
struct Memory(Mutex<Vec<u8>>);

impl Shelf for Memory {
    fn fetch(&self, place: Place) -> Result<Vec<u8>, String> {
        let (from, len) = (usize::try_from(place.offset()).unwrap(), usize::try_from(place.len()).unwrap());
        Ok(self.0.lock().unwrap()[from..from + len].to_vec())
    }
}

impl Memory {
    /// The same memory, with everything at rest that may be.
    fn through_lines(state: &State) -> State {
        let (shelf, mut restored) = (Arc::new(Self::default()), State::new());
        let as_shelf: Arc<dyn Shelf> = Arc::clone(&shelf) as _;
        let put = |line: &[u8]| {
            let offset = shelf.0.lock().unwrap().len();
            shelf.0.lock().unwrap().extend_from_slice(line);
            restored.restore(line, Some((&as_shelf, offset as u64))).unwrap();
            Ok::<(), serde_json::Error>(())
        };
        state.entities(put).unwrap();
        restored.restored();
        assert_eq!(restored, *state);
        // What is at rest is told word for word as it was.
        let lines = |state: &State| {
            let mut all = Vec::new();
            let take = |line: &[u8]| {
                all.push(line.to_vec());
                Ok::<(), serde_json::Error>(())
            };
            state.entities(take).unwrap();
            all
        };
        assert_eq!(lines(&restored), lines(state));
        RESTED.fetch_add(restored.rest().len(), Ordering::Relaxed);
        restored
    }
}

/// Jobs that were at rest, to be sure that there are any.
static RESTED: AtomicUsize = AtomicUsize::new(0);
