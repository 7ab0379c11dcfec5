//! A supervisor that does what the real one does around the real core and the real event log: gather,
//! decide, remember, make durable, and only then act and answer.

mod act;
mod log;
mod survey;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use outlive::core::effect::Effect;
use outlive::core::event::Event;
use outlive::core::fault::Fault;
use outlive::core::ids::{Generation, JobName, RunId};
use outlive::core::input::{Fact, Input, Survey, Surveyed};
use outlive::core::instance::Link;
use outlive::core::job::{Job, Phase};
use outlive::core::outcome::{Asked, Outcome};
use outlive::core::pace::Pace;
use outlive::core::reconcile::check::check;
use outlive::core::reconcile::plan::{self, Before};
use outlive::core::spec::JobSpec;
use outlive::core::state::State;
use outlive::core::time::Millis;
use outlive::core::{Decision, Fresh, decide};
use outlive::journal::{Entry, Folding, Journal};
use outlive::wire::keeper::{Answer, FromKeeper, Launch, Notice, Refusal, Request, RunStatus};

use crate::host::Host;
use crate::keeper::Conns;
use crate::mistakes::Mistake;
use crate::oracle::{Broken, Oracle, Read};
use crate::random::Rng;
use outlive::journal::simulated::SimFs;

pub(crate) const STATE_DIR: &str = "/s";

/// Ended runs remembered for each job: few, so that some are forgotten.
const KEEP_RUNS: usize = 3;

/// What a supervisor works with.
pub(crate) struct Ground<'a> {
    pub(crate) fs: &'a SimFs,
    pub(crate) host: &'a mut Host,
    pub(crate) conns: &'a mut Conns,
    pub(crate) rng: &'a mut Rng,
    pub(crate) oracle: &'a mut Oracle,
    pub(crate) ids: &'a mut u64,
    /// The configuration in force that init holds for the next supervisor.
    pub(crate) held_config: &'a mut Option<Vec<JobSpec>>,
    pub(crate) config_file: &'a [JobSpec],
    pub(crate) mistake: Option<Mistake>,
    /// The newest supervisor that the keeper has met, as its file says.
    pub(crate) newest: Generation,
    /// Whether this supervisor is one that another has replaced.
    pub(crate) stale: bool,
    /// The last words, if somebody listens.
    pub(crate) words: &'a mut Option<Vec<String>>,
}

impl Ground<'_> {
    fn say(&mut self, words: impl FnOnce() -> String) {
        if let Some(all) = self.words {
            all.push(format!("             {}", words()));
        }
    }
}

/// What an operator asks for.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Start(Vec<JobName>),
    Stop(Vec<JobName>),
    Restart(Vec<JobName>),
    Signal(JobName, i32),
    Submit(Box<JobSpec>),
    Reload,
    Recover,
    LeaveRecovery,
    Shutdown {
        keep_jobs: bool,
    },
    /// Something is observed of a run that lives, or told by it.
    Look,
    /// Nothing is wrong with any run, and all are ready.
    AllWell,
}

/// An answer that waits until what it says is durable.
#[derive(Debug)]
struct Reply {
    ask: Ask,
    /// Whether anything was decided; otherwise it says no, at once and for sure.
    granted: bool,
}

/// Why a turn did not come to its end.
#[derive(Debug)]
pub(crate) enum Cut {
    /// A law is broken.
    Broken(Broken),
    /// The process died at an operation of the disk.
    Died,
}

impl From<Broken> for Cut {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

#[derive(Debug)]
enum Pending {
    Launch(RunId),
    Survey,
    Recover(BTreeSet<RunId>),
}

#[derive(Debug)]
struct Waiting {
    attempt: u64,
    spec: Box<JobSpec>,
}

#[derive(Debug, Default)]
struct Turn {
    entries: Vec<Entry>,
    effects: Vec<Effect>,
    replies: Vec<Reply>,
}

#[derive(Debug)]
struct ReadOnly {
    delay_us: u64,
    retry_at_us: u64,
}

/// The supervisor's process.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) state: State,
    journal: Journal,
    pub(crate) generation: Generation,
    recovery: bool,
    born_us: u64,
    config: Vec<JobSpec>,
    read_only: Option<ReadOnly>,
    lost: Vec<(u64, u64)>,
    /// The connection, and whether its inventory has come.
    conn: Option<(u64, bool)>,
    keeper: bool,
    pending: BTreeMap<u64, Pending>,
    next_request: u64,
    pace: Pace<Waiting>,
    refused: Vec<(RunId, Outcome)>,
    recoveries: u32,
    commands: VecDeque<(RunId, u32, bool)>,
    fold: Option<(Folding, u64)>,
    /// Whether it says that it is there, for a start that is over.
    pub(crate) exit: Option<bool>,
    /// Whether the keeper obeys a newer one.
    pub(crate) replaced: bool,
}

struct Ids<'a> {
    rng: &'a mut Rng,
    next: &'a mut u64,
    wall_us: i64,
}

impl Fresh for Ids<'_> {
    fn run_id(&mut self) -> RunId {
        *self.next += 1;
        let ms = (self.wall_us / 1000) as u64;
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        bytes[6] = 0x70;
        bytes[8..].copy_from_slice(&self.next.to_be_bytes());
        RunId::from_bytes(bytes)
    }

    fn chance(&mut self) -> f64 {
        self.rng.below(1001) as f64 / 1000.0
    }
}

pub(crate) fn read(fs: &SimFs, oracle: &mut Oracle) -> Result<Read, Broken> {
    let mut state = State::new();
    state.keep_runs = KEEP_RUNS;
    let fs: Arc<dyn outlive::journal::Fs> = Arc::new(fs.clone());
    let mut wrong = None;
    let read = outlive::journal::recover_on(fs, Path::new(STATE_DIR), state, &mut |_, line| {
        oracle.line(line, &mut wrong);
    });
    let read = read.map_err(|error| Broken::new("J6", || format!("it cannot be read: {error}")))?;
    match wrong {
        Some(broken) => Err(broken),
        None => Ok(read),
    }
}

impl Supervisor {
    /// A supervisor begins: it reads the log, begins to write, and records that it is there.
    pub(crate) fn begin(ground: &mut Ground<'_>, recovery: bool, born_us: u64) -> Result<Self, Cut> {
        let read = read(ground.fs, ground.oracle)?;
        ground.say(|| format!("read, missing {}: {}", read.state.instance.missing, read.report));
        ground.oracle.judge(&read)?;
        // A keeper that lives has met supervisors that the log may not know of any more.
        let generation = Generation(read.state.instance.generation.max(ground.newest).0 + 1);
        let (journal, mut state, report) = read.open(ground.host.now, generation);
        if ground.fs.has_crashed() {
            return Err(Cut::Died);
        }
        if journal.poisoned().is_none() {
            ground.oracle.opened(journal.last_seq());
        }
        let inherited = ground.held_config.clone();
        let config = inherited.clone().unwrap_or_else(|| ground.config_file.to_vec());
        match inherited {
            Some(_) => state.set_specs(&arcs(&config)),
            None => *ground.held_config = Some(config.clone()),
        }
        let mut this = Self {
            state,
            journal,
            generation,
            recovery,
            born_us,
            config,
            read_only: None,
            lost: report.lost,
            conn: None,
            keeper: false,
            pending: BTreeMap::new(),
            next_request: 1,
            pace: Pace::new([0, 1, 5][ground.rng.index(3)]),
            refused: Vec::new(),
            recoveries: 0,
            commands: VecDeque::new(),
            fold: None,
            exit: None,
            replaced: false,
        };
        ground.oracle.turns();
        let mut turn = Turn::default();
        this.decide(&this.started(ground), &mut turn, ground)?;
        let specs = this.config.clone();
        this.decide(&Input::Configured { specs, by: Asked::Nobody }, &mut turn, ground)?;
        this.complete(turn, ground)?;
        Ok(this)
    }

    fn started(&self, ground: &Ground<'_>) -> Input {
        Input::SupervisorStarted {
            generation: self.generation,
            version: "1".to_owned(),
            epoch: ground.host.epoch.clone(),
            recovery: self.recovery,
            born_us: self.born_us,
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only.is_some()
    }

    pub(crate) const fn connection(&self) -> Option<u64> {
        match self.conn {
            Some((number, _)) => Some(number),
            None => None,
        }
    }

    /// Connects to a keeper, and introduces itself.
    pub(crate) fn connect(&mut self, number: u64, conns: &mut Conns) {
        let conn = conns.entry(number).or_default();
        let hello = Request::Hello { min_version: 1, version: 1, generation: self.generation };
        conn.to_keeper.extend([(0, hello), (1, Request::Inventory)]);
        self.conn = Some((number, false));
    }

    /// When something is due.
    pub(crate) fn next_deadline(&self, now_us: u64) -> Option<u64> {
        if let Some(read_only) = &self.read_only {
            return Some(read_only.retry_at_us);
        }
        let turn = self.pace.next_at(now_us).filter(|_| self.state.instance.link == Link::Working);
        let core = self.state.next_deadline().map(|at| at.boot_us);
        core.into_iter().chain(turn).min()
    }

    /// Whether anything waits to be heard.
    pub(crate) fn has_news(&self, conns: &Conns) -> bool {
        let conn = self.conn.and_then(|(number, _)| conns.get(&number));
        !self.refused.is_empty()
            || !self.commands.is_empty()
            || conn.is_some_and(|conn| !conn.to_supervisor.is_empty() || conn.keeper_gone)
    }

    /// One turn: at most `most` pieces of news, and what an operator asks.
    pub(crate) fn turn(&mut self, most: u64, ask: Option<Ask>, ground: &mut Ground<'_>) -> Result<(), Cut> {
        if !ground.stale {
            ground.oracle.turns();
        }
        let mut turn = Turn::default();
        if self.refused.is_empty() {
            for _ in 0..most {
                if !self.hear(&mut turn, ground)? {
                    break;
                }
            }
            if let Some(ask) = ask {
                self.ask(ask, &mut turn, ground)?;
            }
        } else {
            for (run, outcome) in std::mem::take(&mut self.refused) {
                self.observe(&Input::Refused { run, outcome }, &mut turn, ground)?;
            }
        }
        self.retry_log(&mut turn, ground)?;
        self.tick_if_due(&mut turn, ground)?;
        self.complete(turn, ground)
    }

    /// Whether a run is to say that it is ready, or that it is well.
    pub(crate) fn waits_for_word(&self) -> bool {
        let link = self.state.instance.link == Link::Working;
        let waits = |job: &Job| matches!(&job.phase, Phase::Running { ready_at, ill, .. } if ready_at.is_some() || ill.is_some());
        link && self.state.awake().any(|(_, job)| waits(job))
    }

    /// One piece of news. False if there is none.
    fn hear(&mut self, turn: &mut Turn, ground: &mut Ground<'_>) -> Result<bool, Cut> {
        if let Some((run, step, ok)) = self.commands.pop_front() {
            self.observe(&Input::StopCommandEnded { run, step, ok }, turn, ground)?;
            return Ok(true);
        }
        let Some((number, introduced)) = self.conn else { return Ok(false) };
        let Some(conn) = ground.conns.get_mut(&number) else { return Ok(false) };
        let Some(message) = conn.to_supervisor.pop_front() else {
            if !conn.keeper_gone {
                return Ok(false);
            }
            self.conn = None;
            if introduced {
                self.keeper = false;
                self.pending.clear();
                self.observe(&Input::KeeperLost, turn, ground)?;
            }
            return Ok(true);
        };
        match message {
            FromKeeper::Reply { result: Err(Refusal::OldGeneration { .. }), .. } if !introduced => {
                self.replaced = true;
                self.exit = Some(true);
            }
            FromKeeper::Reply { result: Ok(Answer::Inventory { runs }), .. } if !introduced => {
                self.conn = Some((number, true));
                self.keeper = true;
                self.survey(runs, turn, ground)?;
            }
            _ if !introduced => {}
            FromKeeper::Notice(notice) => self.notice(notice, turn, ground)?,
            FromKeeper::Reply { id, result } => {
                if let Some(pending) = self.pending.remove(&id) {
                    self.answered(pending, result, turn, ground)?;
                }
            }
        }
        Ok(true)
    }

    fn notice(&mut self, notice: Notice, turn: &mut Turn, ground: &mut Ground<'_>) -> Result<(), Cut> {
        match notice {
            Notice::Ended { record, leftovers } => {
                self.observe(&Input::Ended { record, leftovers }, turn, ground)
            }
            Notice::TreeGone { run } => self.observe(&Input::TreeGone { run }, turn, ground),
            Notice::LogStall { .. } | Notice::InitGone | Notice::Told { .. } => Ok(()),
        }
    }

    fn answered(
        &mut self,
        pending: Pending,
        result: Result<Answer, Refusal>,
        turn: &mut Turn,
        ground: &mut Ground<'_>,
    ) -> Result<(), Cut> {
        match pending {
            Pending::Launch(run) => {
                self.pace.answered(run);
                let outcome = match result {
                    Ok(Answer::Launched { identity, at }) => {
                        return self.observe(&Input::Launched { run, identity, at }, turn, ground);
                    }
                    // The keeper has recorded it and tells its end by a notice.
                    Err(Refusal::NotStarted { .. }) => return Ok(()),
                    Err(Refusal::System { what, errno }) => Outcome::NotStarted { step: what, errno },
                    Err(refusal) => Outcome::NotStarted { step: refusal.to_string(), errno: 0 },
                    Ok(_) => Outcome::NotStarted { step: "another answer".to_owned(), errno: 0 },
                };
                self.observe(&Input::Refused { run, outcome }, turn, ground)
            }
            Pending::Survey => match result {
                Ok(Answer::Inventory { runs })
                    if self.state.instance.link != Link::Working
                        || ground.mistake == Some(Mistake::LateSurveyTaken) =>
                {
                    self.survey(runs, turn, ground)
                }
                _ => Ok(()),
            },
            Pending::Recover(live) => match result {
                Ok(Answer::Inventory { runs })
                    if self.read_only.is_none()
                        && (self.state.instance.link == Link::Working
                            || ground.mistake == Some(Mistake::RecoveryTakenForSurvey)) =>
                {
                    let open =
                        self.open_runs().into_iter().filter(|(run, _, _)| live.contains(run)).collect();
                    let mut facts = self.facts(open, runs, ground);
                    facts
                        .runs
                        .retain(|found| live.contains(&found.run) || self.state.job_of(found.run).is_none());
                    self.settle(facts, turn, ground)
                }
                _ => Ok(()),
            },
        }
    }

    /// An observation. While nothing can be recorded it is left to the survey that follows.
    fn observe(&mut self, input: &Input, turn: &mut Turn, ground: &mut Ground<'_>) -> Result<(), Cut> {
        if self.read_only.is_none() {
            self.decide(input, turn, ground)?;
        }
        Ok(())
    }

    fn decide(&mut self, input: &Input, turn: &mut Turn, ground: &mut Ground<'_>) -> Result<Decision, Cut> {
        let at = ground.host.now;
        let mut ids = Ids { rng: ground.rng, next: ground.ids, wall_us: at.wall_us };
        let mut decision = decide(&self.state, input, at, &mut ids);
        crate::mistakes::spoil(ground.mistake, input, &self.state, &mut decision);
        ground.say(|| {
            let events: Vec<String> = decision.events.iter().map(brief).collect();
            format!("{} -> {}", in_short(&format!("{input:?}")), events.join(", "))
        });
        if !ground.stale {
            ground.oracle.decided(input, &self.state, &decision, ground.host)?;
        }
        self.state.commit(&decision, at);
        if !ground.stale {
            ground.oracle.sane(&self.state, &decision)?;
        }
        self.call_off_starts(&decision);
        turn.effects.append(&mut decision.effects);
        if !decision.events.is_empty() {
            let events = decision.events.clone();
            turn.entries.push(Entry { at, generation: self.generation, events });
        }
        Ok(decision)
    }

    fn call_off_starts(&mut self, decision: &Decision) {
        if self.pace.waiting() == 0 {
            return;
        }
        for event in &decision.events {
            if let Event::StopBegun { run, .. } = event
                && self.pace.cancel(*run)
            {
                self.refused.push((*run, Outcome::Cancelled));
            }
        }
    }

    fn tick_if_due(&mut self, turn: &mut Turn, ground: &mut Ground<'_>) -> Result<(), Cut> {
        if ground.mistake == Some(Mistake::DeadlinesMissed) {
            return Ok(());
        }
        for round in 0.. {
            let now = ground.host.now.boot_us;
            let due = self.state.next_deadline().is_some_and(|at| at.boot_us <= now);
            if !due || self.read_only.is_some() {
                break;
            }
            if round == 64 {
                return Err(Broken::new("liveness", || "a deadline that does nothing".to_owned()).into());
            }
            self.decide(&Input::Tick, turn, ground)?;
        }
        Ok(())
    }

    /// Durable, performed, answered.
    fn complete(&mut self, turn: Turn, ground: &mut Ground<'_>) -> Result<(), Cut> {
        let Turn { entries, effects, replies } = turn;
        let last = self.journal.last_seq() + entries.len() as u64;
        let (early, effects): (Vec<_>, Vec<_>) =
            effects.into_iter().partition(|effect| crate::mistakes::is_early(ground.mistake, effect));
        for effect in early {
            if !matches!(effect, Effect::Forget { .. }) {
                ground.oracle.performs(last, ground.stale)?;
            }
            self.perform(effect, self.journal.last_seq(), ground)?;
        }
        if ground.mistake == Some(Mistake::AnswersBeforeSync) {
            for reply in &replies {
                answer(reply, last, ground)?;
            }
        }
        let failed = !entries.is_empty() && !self.append(entries, ground)?;
        if failed {
            for reply in replies {
                ground.oracle.refused(&reply.ask);
            }
            self.become_read_only(ground);
            if ground.mistake != Some(Mistake::ReadOnlyIgnored) {
                self.make_starts(ground)?;
                self.ask_for_recoveries(ground);
                return Ok(());
            }
            self.read_only = None;
            for effect in effects {
                self.perform(effect, last, ground)?;
            }
            return Ok(());
        }
        for effect in effects {
            self.perform(effect, last, ground)?;
        }
        for reply in &replies {
            answer(reply, last, ground)?;
        }
        self.make_starts(ground)?;
        self.ask_for_recoveries(ground);
        Ok(())
    }
}

fn answer(reply: &Reply, seq: u64, ground: &mut Ground<'_>) -> Result<(), Cut> {
    if !reply.granted {
        ground.oracle.refused(&reply.ask);
        return Ok(());
    }
    ground.oracle.answers(seq, ground.stale)?;
    Ok(())
}

fn brief(event: &Event) -> String {
    let mut text =
        serde_json::to_value(event).map(|value| value["k"].as_str().unwrap_or_default().to_owned());
    if let (Ok(text), Some(job)) = (&mut text, event.job()) {
        text.push(' ');
        text.push_str(job.as_str());
    }
    text.unwrap_or_default()
}

fn in_short(text: &str) -> String {
    text.chars().take(160).collect()
}

fn arcs(specs: &[JobSpec]) -> Vec<Arc<JobSpec>> {
    specs.iter().cloned().map(Arc::new).collect()
}
