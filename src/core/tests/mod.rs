//! Traces of one or a few jobs, and laws over random inputs.
#![allow(clippy::cast_possible_truncation, reason = "small numbers of a test")]

mod circuits;
mod groups;
mod heals;
mod hooks;
mod incidents;
mod laws;
mod laws_of_sagas;
mod missing;
mod model;
mod order;
mod queues;
mod random;
mod recoveries;
mod reloads;
mod restarts;
mod retries;
mod sagas;
mod stops;
mod survivors;

use super::effect::Effect;
use super::event::Event;
use super::identity::{Epoch, Identity};
use super::ids::{Generation, JobName, RunId};
use super::input::{Fact, Input, Survey, Surveyed};
use super::outcome::{Asked, ExitRecord, Outcome, Source};
use super::reconcile::check::check;
use super::reconcile::plan::{self, Before, plan};
use super::report::{Item, RunsReport};
use super::saga::{Broken, End};
use super::signal;
use super::spec::{JobSpec, KillScope, Restart, StopAct, StopStep};
use super::state::State;
use super::time::{Millis, Stamp};
use super::{Decision, Fresh, decide};

/// Run ids in order, and chance as the test wants it.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) next: u128,
    pub(super) chance: f64,
}

impl Fresh for Counter {
    fn run_id(&mut self) -> RunId {
        self.next += 1;
        run(self.next)
    }
    fn chance(&mut self) -> f64 {
        self.chance
    }
}

pub(super) fn run(n: u128) -> RunId {
    RunId::from_bytes(n.to_be_bytes())
}

pub(super) fn name(text: &str) -> JobName {
    JobName::new(text).unwrap()
}

pub(super) fn operator(verb: &str) -> Asked {
    Asked::Operator { uid: 1000, verb: verb.to_owned() }
}

pub(super) fn epoch(n: u64) -> Epoch {
    Epoch { boot_id: "boot".to_owned(), init: n }
}

pub(super) fn identity(pid: i32) -> Identity {
    Identity { pid, pidfs: u64::from(pid.unsigned_abs()) + 1000, start_ticks: 1, epoch: epoch(1) }
}

/// A job without delays, limits or grace: what a trace is not about must not show in it.
pub(super) fn spec(text: &str) -> JobSpec {
    let mut spec = JobSpec::new(name(text), vec!["true".to_owned()]);
    spec.backoff.initial = Millis(0);
    spec.backoff.jitter = 0.0;
    spec.start_limit.count = 0;
    spec.restart = Restart::OnFailure;
    spec
}

pub(super) fn signal_step(signal: i32, ms: u64) -> StopStep {
    StopStep { act: StopAct::Signal(signal), timeout: Millis(ms) }
}

pub(super) fn record(
    job: &str,
    n: u128,
    outcome: Outcome,
    (started, ended): (Option<Stamp>, Stamp),
) -> ExitRecord {
    ExitRecord {
        v: 1,
        run: run(n),
        job: name(job),
        outcome,
        source: Source::Wait,
        asked: Asked::Nobody,
        started,
        ended,
        rusage: None,
        stdout_bytes: 3,
        stderr_bytes: 4,
        dropped_bytes: 0,
        output_complete: true,
    }
}

pub(super) fn exited(code: i32) -> Outcome {
    Outcome::Exited { code }
}

/// A supervisor on a clock of the test's, with its log.
pub(super) struct World {
    pub(super) state: State,
    pub(super) log: Vec<(Stamp, Vec<Event>)>,
    pub(super) now: Stamp,
    pub(super) fresh: Counter,
    pub(super) generation: u64,
}

impl World {
    /// Empty, before any supervisor.
    pub(super) fn bare() -> Self {
        Self {
            state: State::new(),
            log: Vec::new(),
            now: Stamp { boot_us: 1_000_000, wall_us: 1_763_600_000_000_000 },
            fresh: Counter::default(),
            generation: 0,
        }
    }

    /// A working supervisor with these jobs.
    pub(super) fn with(specs: &[JobSpec]) -> Self {
        let mut world = Self::bare();
        world.supervisor(1, false);
        world.configured(specs);
        world.surveyed(Vec::new());
        world
    }

    pub(super) fn feed(&mut self, input: Input) -> Decision {
        let decision = decide(&self.state, &input, self.now, &mut self.fresh);
        let planned = match &input {
            Input::Surveyed(survey) => Some((Before::of(&self.state), plan(&self.state, survey, self.now))),
            _ => None,
        };
        if !decision.events.is_empty() {
            self.log.push((self.now, decision.events.clone()));
        }
        self.state.commit(&decision, self.now);
        if let (Input::Surveyed(survey), Some((before, planned))) = (&input, planned) {
            self.check_survey(&before, survey, &decision, &planned);
        }
        decision
    }

    /// Whatever was found: what was planned is what was done, the laws of a recovery hold, and there is
    /// nothing to do about the same survey a second time.
    fn check_survey(&self, before: &Before, survey: &Survey, decision: &Decision, planned: &RunsReport) {
        let mut done = plan::told(before, survey, &decision.events);
        done.iter_mut().for_each(|item| item.next = None);
        // Only chance makes a difference: when a next try is due.
        let plain = |items: &[Item]| -> Vec<_> {
            items.iter().map(|i| (i.job.clone(), i.run, i.class, i.acts.clone())).collect()
        };
        assert_eq!(plain(&planned.items), plain(&done));
        let checked = check(before, survey, &self.state);
        assert!(checked.violations.is_empty(), "{checked:?} after {survey:?}");
        let known = |found: &&Surveyed| {
            before.live.contains_key(&found.run) || self.state.orphans.contains_key(&found.run)
        };
        let known: Vec<Surveyed> = survey.runs.iter().filter(known).cloned().collect();
        let again = plan(&self.state, &Survey { runs: known, ..Survey::default() }, self.now);
        assert!(again.is_idle(), "{again:#?} again after {survey:?}");
    }

    pub(super) fn supervisor(&mut self, epoch_no: u64, recovery: bool) -> Decision {
        self.generation += 1;
        self.feed(Input::SupervisorStarted {
            generation: Generation(self.generation),
            version: "1".to_owned(),
            epoch: epoch(epoch_no),
            recovery,
            // Each supervisor of these tests is the first of an instance.
            born_us: self.now.boot_us + 1,
        })
    }

    /// Another supervisor of an instance that has been there from the beginning.
    pub(super) fn successor(&mut self) -> Decision {
        self.generation += 1;
        self.feed(Input::SupervisorStarted {
            generation: Generation(self.generation),
            version: "1".to_owned(),
            epoch: epoch(1),
            recovery: false,
            born_us: 0,
        })
    }

    /// The supervisor is killed: what it held is gone, what it recorded is not.
    pub(super) fn replayed(&mut self) {
        let mut state = State::new();
        // Handed in, like the settings of jobs.
        state.queues.settings = self.state.queues.settings.clone();
        for (at, events) in &self.log {
            for event in events {
                state.apply(event, *at);
            }
        }
        // Init holds these two.
        if let Some(before) = self.state.before.take() {
            state.set_before(before.to_vec());
        }
        self.state = state;
    }

    pub(super) fn configured(&mut self, specs: &[JobSpec]) -> Decision {
        self.feed(Input::Configured { specs: specs.to_vec(), by: Asked::Nobody })
    }

    pub(super) fn reload(&mut self, specs: &[JobSpec]) -> Decision {
        self.feed(Input::Configured { specs: specs.to_vec(), by: operator("reload") })
    }

    pub(super) fn surveyed(&mut self, facts: Vec<(u128, &str, Fact)>) -> Decision {
        let runs =
            facts.into_iter().map(|(n, job, fact)| Surveyed::new(run(n), Some(name(job)), fact)).collect();
        self.feed(Input::Surveyed(Survey { runs, ..Survey::default() }))
    }

    pub(super) fn start(&mut self, job: &str) -> Decision {
        self.feed(Input::Start { jobs: vec![name(job)], force: false, by: operator("start") })
    }

    pub(super) fn stop(&mut self, job: &str) -> Decision {
        self.feed(Input::Stop { jobs: vec![name(job)], by: operator("stop") })
    }

    pub(super) fn restart(&mut self, job: &str) -> Decision {
        self.feed(Input::Restart { jobs: vec![name(job)], by: operator("restart") })
    }

    pub(super) fn shutdown(&mut self) -> Decision {
        self.feed(Input::Shutdown { keep_jobs: false, by: operator("shutdown") })
    }

    pub(super) fn launched(&mut self, n: u128) -> Decision {
        self.feed(Input::Launched { run: run(n), identity: identity(n as i32 + 100), at: self.now })
    }

    pub(super) fn ended(&mut self, job: &str, n: u128, outcome: Outcome, leftovers: bool) -> Decision {
        let started =
            self.state.runs(&name(job)).find(|past| past.run == run(n)).and_then(|past| past.started);
        let record = Box::new(record(job, n, outcome, (started, self.now)));
        self.feed(Input::Ended { record, leftovers })
    }

    pub(super) fn tree_gone(&mut self, n: u128) -> Decision {
        self.feed(Input::TreeGone { run: run(n) })
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now = self.now.plus(Millis(ms));
    }

    pub(super) fn tick_after(&mut self, ms: u64) -> Decision {
        self.pass(ms);
        self.feed(Input::Tick)
    }

    pub(super) fn word(&self, job: &str) -> &'static str {
        self.state.job(&name(job)).map_or("gone", |job| job.shown().as_str())
    }

    pub(super) fn reason(&self, job: &str) -> String {
        self.state.reason(&name(job))
    }

    /// Milliseconds to the next deadline.
    pub(super) fn due_in(&self) -> Option<u64> {
        self.state.next_deadline().map(|at| at.since(self.now).0)
    }
}

/// A decision in short: its events, then its effects.
pub(super) fn told(decision: &Decision) -> Vec<String> {
    // That an operator acted is for the record; what came of it is what a trace is about.
    let events = decision.events.iter().filter(|event| !matches!(event, Event::Acted { .. }));
    let events = events.map(event_in_short);
    let effects = decision.effects.iter().map(|effect| format!("> {}", effect_in_short(effect)));
    events.chain(effects).collect()
}

fn event_in_short(event: &Event) -> String {
    let json = serde_json::to_value(event).unwrap();
    let kind = json["k"].as_str().unwrap();
    match event {
        Event::WantSet { job, want, .. } => format!("{kind} {job} {want:?}"),
        Event::JobAdded { job, want } => format!("{kind} {job} {want:?}"),
        Event::StopBegun { job, then_start: true, .. } => format!("{kind} {job} then start"),
        Event::StopStepBegun { job, hook: true, .. } => format!("{kind} {job} hook"),
        Event::StopStepBegun { job, step, kill: true, .. } => format!("{kind} {job} {step} kill"),
        Event::StopStepBegun { job, step, .. } => format!("{kind} {job} {step}"),
        Event::RunRequested { job, attempt, .. } => format!("{kind} {job} {attempt}"),
        Event::RunEnded { job, record, leftovers: true, .. } => {
            format!("{kind} {job} {}, leftovers", record.outcome.describe())
        }
        Event::RunEnded { job, record, .. } => format!("{kind} {job} {}", record.outcome.describe()),
        Event::BackedOff { job, failures, .. } => format!("{kind} {job} {failures}"),
        Event::GaveUp { job, why, .. } => format!("{kind} {job} {why}"),
        Event::SagaStepDone { step, .. } => format!("{kind} {step}"),
        Event::SagaUndoing { broken: Broken { job, why }, .. } => {
            format!("{kind} {}: {why}", job.as_ref().map_or("-", JobName::as_str))
        }
        Event::SagaEnded { end, .. } => match end {
            End::Done => format!("{kind} done"),
            End::RolledBack(_) => format!("{kind} rolled back"),
            End::Abandoned { why } => format!("{kind} abandoned: {why}"),
        },
        _ => event.job().map_or(kind.to_owned(), |job| format!("{kind} {job}")),
    }
}

fn number(run: RunId) -> u128 {
    u128::from_be_bytes(*run.as_bytes())
}

fn effect_in_short(effect: &Effect) -> String {
    match effect {
        Effect::Launch { run, attempt, spec } => format!("launch {} {} {attempt}", spec.name, number(*run)),
        Effect::Signal { run, signal: sig, scope, cont, .. } => {
            let cont = if *cont { " cont" } else { "" };
            let scope = match scope {
                KillScope::Mixed => "mixed",
                KillScope::Tree => "tree",
                KillScope::Group => "group",
                KillScope::Process => "process",
            };
            format!("{} {} {scope}{cont}", signal::name(*sig).unwrap(), number(*run))
        }
        Effect::RunStopCommand { run, pid, argv, .. } => {
            format!("command {} {pid} {}", number(*run), argv.join(" "))
        }
        Effect::RunHook { when, run, pid, outcome, .. } => {
            let mut words = format!("hook {}", when.as_str());
            run.iter().for_each(|run| words += &format!(" {}", number(*run)));
            pid.iter().for_each(|pid| words += &format!(" pid {pid}"));
            outcome.iter().for_each(|outcome| words += &format!(" {}", outcome.describe()));
            words
        }
        Effect::Diagnose { run, why, .. } => format!("diagnose {} {why}", number(*run)),
        Effect::Forget { run } => format!("forget {}", number(*run)),
        Effect::Disown { run } => format!("disown {}", number(*run)),
        Effect::Exit { keep_jobs, code } => format!("exit {code} keep={keep_jobs}"),
    }
}

/// Compares a decision in short.
#[track_caller]
pub(super) fn expect(decision: &Decision, wanted: &[&str]) {
    assert_eq!(told(decision), wanted);
}
