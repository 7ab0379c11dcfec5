//! The loop. One turn:
//!
//! 1. gather: wait for one input or the next deadline, then take everything that already waits;
//! 2. decide: each input in order, each decision remembered at once;
//! 3. make durable: all events of the turn with one write and one sync;
//! 4. perform the effects, answer those who asked;
//! 5. publish the new view.
//!
//! No effect before its events are durable, no answer before that. Nobody else holds the state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::accepted::Before;
use super::alerting::Alerting;
use super::event_log::EventLog;
use super::handle::{Ask, Skip, View};
use super::host::{Host, HostNews};
use super::init_link::{FromInit, InitLink};
use super::keeper_link::{News, Requests};
use super::pace::Waiting;
use super::patterns::{Learned, Patterns};
use super::perform::Pending;
use super::read_only::ReadOnly;
use super::scrub::{FromScrub, Scrubbing};
use super::stalled::STALLED;
use super::startup::Startup;
use super::strays::Strays;
use super::vigils::{Seen, Vigils};
use crate::config::Config;
use crate::core::effect::Effect;
use crate::core::event::Event;
use crate::core::identity::Epoch;
use crate::core::ids::{Generation, JobName, RunId};
use crate::core::input::Input;
use crate::core::outcome::{Asked, Outcome};
use crate::core::pace::Pace;
use crate::core::progress::Published;
use crate::core::state::State;
use crate::core::time::Stamp;
use crate::core::{Decision, Fresh};
use crate::journal::Entry;
use crate::state_dir::layout::{RuntimeDir, StateDir};
use crate::sys::clock;

/// Requests to the keeper at once that leave memory worth giving back.
const CROWD: usize = 100;

/// Inputs taken in one turn: enough for a storm to share syncs, few enough to answer in between.
const TURN_MAX: usize = 512;

/// The same after we were away: all that was told meanwhile is heard before anything is judged by its silence.
const TURN_AFTER_MAX: usize = 1 << 16;

/// What a turn is about.
#[derive(Debug)]
pub(super) enum Happening {
    Keeper(News),
    Init(FromInit),
    Ask(Ask),
    StopCommandEnded { run: RunId, step: u32, ok: bool },
    HookEnded(super::hooks::Ended),
    Skip(Skip),
    Strays(Result<Strays, String>),
    Scrub(FromScrub),
    Seen(Seen),
    Learned(Learned),
    Host(HostNews),
    Deadline,
}

/// Everything that happens comes in here.
pub(super) struct Sources {
    pub(super) keeper: mpsc::Receiver<News>,
    pub(super) init: mpsc::Receiver<FromInit>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) stop_commands: mpsc::Receiver<(RunId, u32, bool)>,
    pub(super) hooks: mpsc::Receiver<super::hooks::Ended>,
    pub(super) skips: mpsc::Receiver<Skip>,
    pub(super) strays: mpsc::Receiver<Result<Strays, String>>,
    pub(super) scrub: mpsc::Receiver<FromScrub>,
    pub(super) seen: mpsc::Receiver<Seen>,
    pub(super) learned: mpsc::Receiver<Learned>,
    pub(super) host: mpsc::Receiver<HostNews>,
}

/// The supervisor.
pub(super) struct Supervisor {
    pub(super) state: State,
    pub(super) log: EventLog,
    pub(super) read_only: Option<ReadOnly>,
    pub(super) generation: Generation,
    pub(super) recovery: bool,
    pub(super) startup: Startup,
    /// Whether the turn settles a survey.
    pub(super) settling: bool,
    /// When the instance began, boot clock.
    pub(super) born_us: u64,
    pub(super) epoch: Epoch,
    pub(super) init: InitLink,
    pub(super) keeper: Option<Requests>,
    pub(super) keeper_pid: Option<i32>,
    /// Whether the keeper knows what runs tell; one of an earlier build does not.
    pub(super) keeper_tells: bool,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) next_request: u64,
    pub(super) config: Config,
    /// The configuration before a reload that may still be rolled back.
    pub(super) before: Option<Before>,
    pub(super) config_path: Option<PathBuf>,
    /// Whether the file says something else than what is in force.
    pub(super) config_changed: bool,
    pub(super) state_dir: StateDir,
    pub(super) socket: PathBuf,
    pub(super) since: Stamp,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) dirty: BTreeSet<JobName>,
    /// What is wrong, for the view.
    pub(super) degraded: BTreeMap<&'static str, String>,
    /// What was missing from the event log when it was read.
    pub(super) lost: Vec<(u64, u64)>,
    /// Jobs that somebody has to look at, and why.
    pub(super) needs_a_look: BTreeMap<JobName, String>,
    /// Runs whose output the disk refuses, in words.
    pub(super) stalled: BTreeMap<RunId, String>,
    /// Runs that could not even be asked for, and how they count.
    pub(super) refused: Vec<(RunId, Outcome)>,
    /// What runs have published since it was last recorded.
    pub(super) newest: BTreeMap<JobName, Published>,
    /// Recoveries that were asked for in this turn.
    pub(super) recoveries: Vec<super::recover::Asked>,
    /// Watching over the files of the event log.
    pub(super) scrubbing: Scrubbing,
    /// Looking at figures.
    pub(super) alerting: Alerting,
    /// What may help whoever looks for a cause.
    pub(super) patterns: Patterns,
    /// Starts made by recovery that wait for their turn.
    pub(super) pace: Pace<Waiting>,
    /// Watching over the runs.
    pub(super) vigils: Vigils,
    /// There may be other slots in the queues than when turns were given last.
    pub(super) slots_changed: bool,
    /// The latest numbers in the names that were made up for submitted jobs.
    pub(super) names: BTreeMap<String, u64>,
    /// Where the sockets and the locks of helpers are.
    pub(super) runtime: RuntimeDir,
    /// Starts that wait for their hook.
    pub(super) hooks: super::hooks::Hooks,
    /// Watching over the host and ourselves.
    pub(super) host: Host,
    /// The runs each job had at the last look, to see which it has no longer.
    pub(super) known_runs: BTreeMap<JobName, Vec<RunId>>,
    pub(super) tell_stop_command: mpsc::Sender<(RunId, u32, bool)>,
    pub(super) tell_strays: mpsc::Sender<Result<Strays, String>>,
    pub(super) ready_said: bool,
    /// Whether there were many requests to the keeper at once since the last time there were none.
    pub(super) crowded: bool,
    pub(super) seq: u64,
    /// Set when the instance is over for us.
    pub(super) exit: Option<u8>,
}

/// What one turn gathers before it is durable.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) entries: Vec<Entry>,
    pub(super) effects: Vec<Effect>,
    /// Answers that wait for durability; `Err` text when it cannot be had.
    pub(super) replies: Vec<super::asks::Reply>,
    /// Whether the instance part of the view changed.
    pub(super) changed: bool,
}

/// Run ids and chance.
pub(super) struct Entropy;

impl Fresh for Entropy {
    fn run_id(&mut self) -> RunId {
        RunId::from_bytes(*uuid::Uuid::now_v7().as_bytes())
    }

    fn chance(&mut self) -> f64 {
        // The random part of a fresh UUID; 32 bits are plenty for jitter.
        let bytes = *uuid::Uuid::now_v7().as_bytes();
        let number = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        f64::from(number) / f64::from(u32::MAX)
    }
}

/// This moment.
pub(super) fn now() -> Stamp {
    Stamp { boot_us: clock::boot_us(), wall_us: clock::wall_us() }
}

impl Sources {
    /// Waits for something to happen.
    async fn next(&mut self, deadline: Option<Stamp>, retry: Option<Duration>) -> Option<Happening> {
        let until_deadline =
            deadline.map(|at| Duration::from_micros(at.boot_us.saturating_sub(clock::boot_us())));
        let wait = match (until_deadline, retry) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let timer = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(news) = self.keeper.recv() => Some(Happening::Keeper(news)),
            Some(said) = self.init.recv() => Some(Happening::Init(said)),
            Some((run, step, ok)) = self.stop_commands.recv() => {
                Some(Happening::StopCommandEnded { run, step, ok })
            },
            Some(ended) = self.hooks.recv() => Some(Happening::HookEnded(ended)),
            Some(skip) = self.skips.recv() => Some(Happening::Skip(skip)),
            Some(strays) = self.strays.recv() => Some(Happening::Strays(strays)),
            Some(asked) = self.scrub.recv() => Some(Happening::Scrub(asked)),
            Some(seen) = self.seen.recv() => Some(Happening::Seen(seen)),
            Some(learned) = self.learned.recv() => Some(Happening::Learned(learned)),
            Some(news) = self.host.recv() => Some(Happening::Host(news)),
            Some(ask) = self.asks.recv() => Some(Happening::Ask(ask)),
            () = timer => Some(Happening::Deadline),
            else => None,
        }
    }

    /// What already waits; requests last.
    fn waiting(&mut self) -> Option<Happening> {
        if let Ok(news) = self.keeper.try_recv() {
            return Some(Happening::Keeper(news));
        }
        if let Ok(said) = self.init.try_recv() {
            return Some(Happening::Init(said));
        }
        if let Ok((run, step, ok)) = self.stop_commands.try_recv() {
            return Some(Happening::StopCommandEnded { run, step, ok });
        }
        if let Ok(seen) = self.seen.try_recv() {
            return Some(Happening::Seen(seen));
        }
        if let Ok(news) = self.host.try_recv() {
            return Some(Happening::Host(news));
        }
        self.asks.try_recv().ok().map(Happening::Ask)
    }
}

impl Supervisor {
    /// Runs until the instance is over, or another supervisor has our place. The exit code.
    pub(super) async fn run(mut self, mut sources: Sources) -> u8 {
        self.keep_what_was_read().await;
        let mut first = Some(self.begin());
        self.startup.begin("keeper");
        loop {
            let mut turn = match first.take() {
                Some(turn) => turn,
                None if self.has_what_waited() => self.turn_of_what_waited(),
                None => {
                    let retry = self.read_only.as_ref().map(|read_only| read_only.wait(clock::boot_us()));
                    let (deadline, before_us) = (self.next_deadline(), clock::boot_us());
                    let Some(happening) = sources.next(deadline, retry).await else {
                        return 0;
                    };
                    let away = self.was_away(deadline.filter(|at| at.boot_us > before_us)).await;
                    let mut turn = Turn::default();
                    self.handle(happening, &mut turn);
                    let most = if away { TURN_AFTER_MAX } else { TURN_MAX };
                    for _ in 1..most {
                        let Some(more) = sources.waiting() else { break };
                        self.handle(more, &mut turn);
                    }
                    turn
                }
            };
            self.retry_log(&mut turn).await;
            self.extend(&mut turn);
            self.tick_if_due(&mut turn);
            self.judge(&mut turn);
            self.look_at_figures(&mut turn);
            self.tend_host(&mut turn);
            self.complete(turn).await;
            self.give_back_after_a_crowd();
            if let Some(code) = self.exit {
                self.startup.called_off();
                self.farewell(&mut sources.keeper).await;
                if self.read_only.is_none() {
                    self.log.finish(self.state, self.seq).await;
                }
                return code;
            }
        }
    }

    /// The first turn: who we are, and what is configured.
    fn begin(&mut self) -> Turn {
        let mut turn = Turn { changed: true, ..Turn::default() };
        self.decide(&self.started(), &mut turn);
        self.state.shutdown_timeout = self.config.supervisor.shutdown_timeout;
        self.state.queues.settings = self.config.queues.clone();
        self.state.keep_runs = super::start::keep_runs(&self.config);
        if !self.degraded.contains_key("configuration") {
            let specs = self.config.jobs.clone();
            self.decide(&Input::Configured { specs, by: Asked::Nobody }, &mut turn);
        }
        turn
    }

    /// What is recorded first.
    pub(super) fn started(&self) -> Input {
        Input::SupervisorStarted {
            generation: self.generation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.epoch.clone(),
            recovery: self.recovery,
            born_us: self.born_us,
        }
    }

    /// When something is due: in the core, the turn of a start, a look at the files of the event log, at a run, or at the host.
    fn next_deadline(&self) -> Option<Stamp> {
        let may = self.may_judge() && self.state.instance.held.is_none();
        // While nothing can be recorded nothing is decided, however long it is due.
        let state = self.state.next_deadline().filter(|_| self.read_only.is_none());
        let turn = self.pace.next_at(clock::boot_us()).filter(|_| may);
        let turn = turn.map(|boot_us| Stamp { boot_us, wall_us: 0 });
        let scrub = self.scrubbing.next_us().map(|boot_us| Stamp { boot_us, wall_us: 0 });
        let vigil = self.vigils.next_us().filter(|_| self.may_judge());
        let vigil = vigil.map(|boot_us| Stamp { boot_us, wall_us: 0 });
        let host = self.host.next_us().map(|boot_us| Stamp { boot_us, wall_us: 0 });
        let memory = self.next_look_at_memory().map(|boot_us| Stamp { boot_us, wall_us: 0 });
        [state, turn, scrub, vigil, host, memory, self.next_look()]
            .into_iter()
            .flatten()
            .min_by_key(|at| at.boot_us)
    }

    /// Whether there is something to be told or given that came up while something else was decided.
    fn has_what_waited(&self) -> bool {
        let turns = self.slots_changed && self.may_judge();
        !self.refused.is_empty() || self.has_late_hooks() || turns
    }

    fn turn_of_what_waited(&mut self) -> Turn {
        let mut turn = Turn::default();
        if std::mem::take(&mut self.slots_changed) {
            self.observe(&Input::Tick, &mut turn);
        }
        if self.has_late_hooks() {
            self.late_hooks(&mut turn);
        }
        for (run, outcome) in std::mem::take(&mut self.refused) {
            self.observe(&Input::Refused { run, outcome }, &mut turn);
        }
        turn
    }

    /// Decides one input and remembers the decision.
    pub(super) fn decide(&mut self, input: &Input, turn: &mut Turn) -> Decision {
        let at = now();
        let mut decision = crate::core::decide(&self.state, input, at, &mut Entropy);
        // A job that wakes up, or is forgotten, may have directories.
        for job in decision.events.iter().filter_map(|event| event.job()) {
            if self.state.rest().contains(job) {
                self.known_runs.insert(job.clone(), self.state.runs(job).map(|past| past.run).collect());
            }
        }
        self.state.commit(&decision, at);
        self.dirty.extend(decision.events.iter().filter_map(|event| event.job().cloned()));
        self.dirty.extend(decision.answers.iter().map(|answer| answer.job.clone()));
        if let Some(specs) = &decision.specs {
            self.dirty.extend(specs.iter().map(|spec| spec.name.clone()));
        }
        self.call_off_starts(&decision);
        self.follow(&decision.events, decision.specs.as_deref());
        self.call_off_hooks(&decision);
        turn.effects.append(&mut decision.effects);
        decision.events.iter().for_each(say);
        if !decision.events.is_empty() {
            let events = decision.events.clone();
            turn.entries.push(Entry { at, generation: self.generation, events });
        }
        decision
    }

    fn tick_if_due(&mut self, turn: &mut Turn) {
        // A tick may leave a new deadline that is due at once; a bounded number of them, so that a
        // mistake there cannot stop everything else.
        for _ in 0..64 {
            let due = self.state.next_deadline().is_some_and(|at| at.boot_us <= clock::boot_us());
            if !due || self.read_only.is_some() {
                return;
            }
            self.decide(&Input::Tick, turn);
        }
    }

    /// Durable, performed, answered, published.
    async fn complete(&mut self, turn: Turn) {
        let Turn { entries, effects, replies, mut changed } = turn;
        let (mut failed, recorded) = (None, !entries.is_empty());
        if !entries.is_empty() {
            let (appended, waited) = self.append(entries).await;
            changed |= !waited.is_zero();
            if waited >= STALLED || appended.is_err() {
                self.alerting.write_failed();
            }
            match appended {
                Ok(seq) => self.seq = seq,
                Err(error) => failed = Some(error.to_string()),
            }
        }
        if let Some(why) = failed {
            for reply in replies {
                reply.fail(&why);
            }
            self.startup.hold("settle", &why);
            self.become_read_only(why);
        } else {
            super::saga::die_if_asked(self.saga_point());
            self.keep_one_configuration();
            let settled = std::mem::take(&mut self.settling);
            if settled {
                self.startup.done("settle");
            }
            for effect in effects {
                self.perform(effect);
            }
            super::saga::die_if_asked("saga:performed");
            for reply in replies {
                reply.send();
            }
            if settled && self.startup.is_pending("resume") {
                self.startup.begin("resume");
                self.look_for_strays();
            }
        }
        if changed || recorded || !self.dirty.is_empty() {
            for job in self.dirty.clone() {
                self.prune(&job);
            }
            self.publish();
        }
        self.perform_heals();
        self.make_starts();
        self.ask_for_recoveries();
        self.answer_scrub();
        self.scrub_if_due();
        self.look_at_memory();
        self.say_ready();
    }

    fn handle(&mut self, happening: Happening, turn: &mut Turn) {
        match happening {
            Happening::Keeper(news) => self.keeper_news(news, turn),
            Happening::Init(said) => self.init_said(said, turn),
            Happening::Ask(ask) => self.ask(ask, turn),
            Happening::StopCommandEnded { run, step, ok } => {
                self.observe(&Input::StopCommandEnded { run, step, ok }, turn);
            }
            Happening::HookEnded(ended) => self.hook_ended(ended, turn),
            Happening::Skip(skip) => super::early::skip_one(&mut self.startup, skip),
            Happening::Strays(found) => self.strays_found(found),
            Happening::Scrub(asked) => self.scrub_asked(asked, turn),
            Happening::Seen(seen) => self.seen(seen, turn),
            Happening::Learned(learned) => self.learned(learned),
            Happening::Host(news) => self.host_news(news, turn),
            // Whatever is due is looked for in every turn.
            Happening::Deadline => {}
        }
    }

    /// An observation. While nothing can be recorded it is left to the survey that follows.
    pub(super) fn observe(&mut self, input: &Input, turn: &mut Turn) {
        if self.read_only.is_none() {
            self.decide(input, turn);
        }
    }

    fn init_said(&mut self, said: FromInit, turn: &mut Turn) {
        match said {
            FromInit::Shutdown => {
                tracing::info!("a signal asks for the end of the instance");
                self.observe(&Input::Shutdown { keep_jobs: false, by: Asked::Shutdown }, turn);
            }
            FromInit::Reload => self.reload_by_signal(turn),
            FromInit::Gone => {
                tracing::warn!("init is gone: `outlive up` for the same state directory takes its place");
                self.init.pid = None;
                self.degraded.insert("init", "init is gone; `outlive up` takes its place".to_owned());
            }
        }
        turn.changed = true;
    }

    /// Many requests at once leave much free memory behind.
    fn give_back_after_a_crowd(&mut self) {
        self.crowded |= self.pending.len() >= CROWD;
        if self.crowded && self.pending.is_empty() {
            self.crowded = false;
            crate::sys::memory::give_back();
        }
    }

    fn say_ready(&mut self) {
        if !self.ready_said && self.keeper.is_some() && self.state.is_settled() {
            self.ready_said = true;
            // The start needed more than what comes now.
            crate::sys::memory::give_back();
            self.init.send(&crate::wire::init::Message::new(crate::wire::init::Kind::Ready), None);
            tracing::info!(generation = self.generation.0, "ready");
            self.startup.ready();
        }
    }
}

/// What somebody who reads our own log should not have to look for.
fn say(event: &Event) {
    match event {
        Event::GaveUp { job, why, until: None } => tracing::warn!(%job, why, "given up"),
        Event::GaveUp { job, why, until: Some(at) } => {
            tracing::warn!(%job, why, at = at.rfc3339(), "given up until then");
        }
        Event::Held { job, why } => tracing::warn!(%job, why, "held"),
        Event::OrphanFound { run, job } => {
            let job = job.as_ref().map_or("?", JobName::as_str);
            tracing::warn!(%run, job, "a run that no job accounts for is left alone");
        }
        Event::AlertRaised { alert } => {
            tracing::warn!(id = alert.id, subject = alert.subject, "alert: {}", alert.message);
        }
        Event::AlertCleared { alert } => {
            tracing::info!(id = alert.id, subject = alert.subject, "alert is over: {}", alert.message);
        }
        Event::ShutdownBegun { by: Asked::Policy { rule }, .. } => {
            tracing::warn!(rule, "the instance is to end");
        }
        _ => {}
    }
}
