//! The host, and ourselves: looked at from time to time, and helped when something fails.
//!
//! What is due and what it means is [`Monitor`]'s, which is pure. All checks share the loop's one timer. Looking
//! ([`looks`]) and acting ([`acts`]) is done outside the loop, which goes on whatever hangs there.

mod acts;
mod expire;
mod looks;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use super::main_loop::{Supervisor, Turn, now};
use crate::core::alerts::CheckFigures;
use crate::core::event::Want;
use crate::core::host::{Act, Condition, Due, HEAL, Heal, Kind, Monitor, Reading};
use crate::core::ids::{JobName, RunId};
use crate::core::input::Input;
use crate::core::job::Phase;
use crate::core::outcome::Asked;
use crate::core::view::Shown;
use crate::state_dir::layout::RuntimeDir;
use crate::sys::clock;

/// What was found, and may wait for the loop.
const NEWS_MAX: usize = 256;

/// The first round is no later than this after a start, which has enough to do.
const FIRST: Duration = Duration::from_secs(10);

/// Directories for output whose file systems are looked at. Many are those of instances, side by side.
const PATHS_MAX: usize = 64;

/// What fills up.
const FILLS: [Kind; 3] = [Kind::Memory, Kind::Disk, Kind::Inodes];

/// Characters of an event's detail.
const DETAIL_MAX: usize = 1000;

/// What the loop is told.
#[derive(Debug)]
pub(super) enum HostNews {
    /// A check is back.
    Told { name: String, serial: u64, answer: Result<Reading, String> },
    /// Which run uses most memory, in bytes.
    Largest { heal: Heal, found: Option<(RunId, u64)> },
    /// An act is over.
    Done { heal: Heal, result: Result<String, String> },
}

/// What is known about the host.
#[derive(Debug)]
pub(super) struct Host {
    /// From the first turn on.
    monitor: Option<Monitor>,
    /// Of the configuration that the checks are made by.
    digest: String,
    runtime: RuntimeDir,
    tell: mpsc::Sender<HostNews>,
    /// To be done when it is durable that it will be, with what is recorded about it.
    pending: Vec<(Heal, Input)>,
    /// What was done while nothing could be recorded.
    late: Vec<Input>,
    /// Acts under way: for which check, and which.
    busy: BTreeSet<(String, String)>,
    /// Room is made by one at a time: what one has removed the next need not.
    making_room: Arc<Mutex<()>>,
}

impl Host {
    /// Nothing is known yet; and where what is found comes from.
    pub(super) fn new(runtime: RuntimeDir) -> (Self, mpsc::Receiver<HostNews>) {
        let (tell, news) = mpsc::channel(NEWS_MAX);
        let host = Self {
            monitor: None,
            digest: String::new(),
            runtime,
            tell,
            pending: Vec::new(),
            late: Vec::new(),
            busy: BTreeSet::new(),
            making_room: Arc::default(),
        };
        (host, news)
    }

    /// When something is due, boot clock.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.monitor.as_ref()?.next_us()
    }

    /// What the checks of disks and memory say; `None`: none was made yet.
    pub(super) fn figures(&self) -> Option<BTreeMap<String, CheckFigures>> {
        let checks = self.monitor.as_ref()?.checks().iter();
        let figures = checks.filter_map(|check| {
            let kind = check.look.kind().filter(|kind| FILLS.contains(kind))?;
            let share = check.share().unwrap_or_default();
            // A disk that does not answer is not full.
            let answered = matches!(check.last, Some(Ok(_)));
            let failed = answered.then_some(check.condition() == Condition::Failed);
            let (limit, words) = (check.limit?, check.words().to_owned());
            Some((check.name.clone(), CheckFigures { kind, failed, share, limit, words }))
        });
        Some(figures.collect())
    }

    fn healed(&mut self, heal: &Heal, result: &'static str) {
        if let Some(monitor) = &mut self.monitor {
            monitor.healed(&heal.check, heal.act.as_str(), result);
        }
    }
}

impl Supervisor {
    /// Begins what is due, in every turn.
    pub(super) fn tend_host(&mut self, turn: &mut Turn) {
        self.configure_host();
        if self.read_only.is_none() {
            for note in std::mem::take(&mut self.host.late) {
                self.decide(&note, turn);
            }
        }
        let at = now();
        let Some(monitor) = self.host.monitor.as_mut() else { return };
        if monitor.next_us().is_some_and(|next| next <= at.boot_us) {
            let due = monitor.due(at);
            self.follow_host(due, turn);
        }
        self.hold_or_release(turn);
    }

    /// Whatever the configuration says now.
    fn configure_host(&mut self) {
        if self.host.monitor.is_some() && self.host.digest == self.config.digest {
            return;
        }
        self.host.digest.clone_from(&self.config.digest);
        let mut paths =
            vec![self.state_dir.0.display().to_string(), self.host.runtime.0.display().to_string()];
        for dir in self.config.jobs.iter().filter_map(|job| job.output.dir.as_ref()) {
            if paths.len() < PATHS_MAX && !paths.contains(dir) {
                paths.push(dir.clone());
            }
        }
        let (settings, now_us) = (&self.config.health, clock::boot_us());
        match &mut self.host.monitor {
            Some(monitor) => monitor.configure(settings, &paths, now_us),
            None => {
                let held = self.state.instance.held.is_some();
                let first = settings.interval.as_duration().min(FIRST);
                let first = if held { Duration::ZERO } else { first };
                let first_us = now_us.saturating_add(u64::try_from(first.as_micros()).unwrap_or(u64::MAX));
                self.host.monitor = Some(Monitor::new(settings, &paths, held, first_us));
            }
        }
    }

    pub(super) fn host_news(&mut self, news: HostNews, turn: &mut Turn) {
        turn.changed = true;
        match news {
            HostNews::Told { name, serial, answer } => {
                let Some(monitor) = self.host.monitor.as_mut() else { return };
                let due = monitor.told(&name, serial, answer, now());
                self.follow_host(due, turn);
            }
            HostNews::Largest { heal, found } => self.restart_largest(&heal, found, turn),
            HostNews::Done { heal, result } => {
                self.host.busy.remove(&(heal.check.clone(), heal.act.in_words()));
                let (check, act) = (&heal.check, heal.act.in_words());
                match &result {
                    Ok(text) => tracing::info!(check, act, "done: {text}"),
                    Err(why) => tracing::warn!(check, act, why, "failed"),
                }
                self.host.healed(&heal, if result.is_ok() { "ok" } else { "failed" });
            }
        }
    }

    fn follow_host(&mut self, due: Due, turn: &mut Turn) {
        for (check, fault) in &due.turned {
            match fault {
                Some(why) => tracing::warn!(check, why, "a check of the host has failed"),
                None => tracing::info!(check, "is well again"),
            }
            turn.changed = true;
        }
        self.begin_looks(due.begin);
        for heal in due.heals {
            self.heal(heal, turn);
        }
    }

    /// Has something done, or does it. What only concerns files is done when this turn is durable.
    fn heal(&mut self, heal: Heal, turn: &mut Turn) {
        match &heal.act {
            // For as long as the check is failed, not once.
            Act::HoldStarts => {}
            Act::Rotate | Act::Expire | Act::Command { .. } => {
                if !self.host.busy.insert((heal.check.clone(), heal.act.in_words())) {
                    self.host.healed(&heal, "busy");
                    return;
                }
                let note = noted(&heal, None, &heal.why);
                if self.read_only.is_none() {
                    self.decide(&note, turn);
                }
                self.host.pending.push((heal, note));
            }
            _ if !self.may_heal_jobs() => self.host.healed(&heal, "not_now"),
            Act::StopLowest => match crate::core::host::lowest(&self.state) {
                Some((job, _)) => {
                    self.decide(&noted(&heal, Some(&job), &heal.why), turn);
                    self.decide(&Input::Stop { jobs: vec![job], by: rule(&heal.check) }, turn);
                    self.host.healed(&heal, "ok");
                }
                None => self.host.healed(&heal, "nothing"),
            },
            Act::RestartLargest => self.look_for_largest(heal),
            Act::Restart(name) => {
                let mut jobs = self.jobs_called(name);
                jobs.retain(|job| self.is_to_run(job));
                if jobs.is_empty() {
                    self.host.healed(&heal, "nothing");
                    return;
                }
                self.decide(&noted(&heal, Some(name), &heal.why), turn);
                self.decide(&Input::Restart { jobs, by: rule(&heal.check) }, turn);
                self.host.healed(&heal, "ok");
            }
        }
    }

    /// Jobs are left alone while nothing could be done about them, in recovery mode and at the end.
    fn may_heal_jobs(&self) -> bool {
        let instance = &self.state.instance;
        self.may_judge() && instance.shutdown.is_none() && !instance.recovery
    }

    /// Whether a job is wanted, and not on its way out: what an operator has stopped stays stopped.
    fn is_to_run(&self, name: &JobName) -> bool {
        self.state.job(name).is_some_and(|job| job.want == Want::Up && job.shown() != Shown::Stopping)
    }

    /// The job of this name, or its instances.
    fn jobs_called(&self, name: &JobName) -> Vec<JobName> {
        if self.state.job(name).is_some() {
            return vec![name.clone()];
        }
        let instances = self.config.jobs.iter().map(|job| &job.name);
        instances.filter(|job| job.base() == name.as_str()).cloned().collect()
    }

    fn restart_largest(&mut self, heal: &Heal, found: Option<(RunId, u64)>, turn: &mut Turn) {
        let job = found.and_then(|(run, bytes)| Some((self.state.job_of(run)?.clone(), bytes)));
        match job.filter(|(job, _)| self.may_heal_jobs() && self.is_to_run(job)) {
            Some((job, bytes)) => {
                let why = format!("{} MiB; {}", bytes >> 20, heal.why);
                self.decide(&noted(heal, Some(&job), &why), turn);
                self.decide(&Input::Restart { jobs: vec![job], by: rule(&heal.check) }, turn);
                self.host.healed(heal, "ok");
            }
            None => self.host.healed(heal, "nothing"),
        }
    }

    /// Starts are held while a check says so, and let go when none does any more.
    fn hold_or_release(&mut self, turn: &mut Turn) {
        let Some(monitor) = self.host.monitor.as_mut().filter(|_| self.read_only.is_none()) else { return };
        let (holds, held) = (monitor.holds_starts(), self.state.instance.held.is_some());
        let act = match (&holds, held) {
            (Some(why), false) => (why.as_str(), "hold-starts", Input::HoldStarts { why: why.clone() }),
            (None, true) => ("all is well", "release-starts", Input::ReleaseStarts),
            (Some(_), true) | (None, false) => return,
        };
        if self.state.instance.link != crate::core::instance::Link::Working {
            return;
        }
        let (why, act, input) = act;
        let check = why.split(": ").next().unwrap_or(why);
        monitor.healed(check, act, "ok");
        if holds.is_none() {
            monitor.released();
        }
        tracing::warn!(why, "{act}");
        let by = Asked::Policy { rule: "health".to_owned() };
        let detail = shortened(format!("{act}: {why}"));
        self.decide(&Input::Noted { verb: HEAL.to_owned(), job: None, detail, by }, turn);
        self.decide(&input, turn);
        // What they say they wait for is another now.
        let waits = |phase: &Phase| matches!(phase, Phase::Waiting | Phase::Queued);
        let waiting = self.state.awake().filter(|(_, job)| waits(&job.phase));
        let waiting: Vec<JobName> = waiting.map(|(name, _)| name.clone()).collect();
        self.dirty.extend(waiting);
        turn.changed = true;
    }
}

fn rule(check: &str) -> Asked {
    Asked::Policy { rule: format!("health {check}") }
}

/// What is recorded before something is done.
fn noted(heal: &Heal, job: Option<&JobName>, why: &str) -> Input {
    tracing::warn!(check = heal.check, act = heal.act.in_words(), why, "healing");
    let detail = shortened(format!("{}: {why}", heal.act.in_words()));
    Input::Noted { verb: HEAL.to_owned(), job: job.cloned(), detail, by: rule(&heal.check) }
}

fn shortened(text: String) -> String {
    text.chars().take(DETAIL_MAX).collect()
}
