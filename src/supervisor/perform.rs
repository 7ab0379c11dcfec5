//! One function for each effect, and what becomes of the keeper's answers.

use std::time::Duration;

use tokio::sync::mpsc;

use super::asks::Reply;
use super::hooks::About;
use super::keeper_link::News;
use super::launching;
use super::main_loop::{Supervisor, Turn};
use super::pace::Waiting;
use super::survey::{beyond, survey};
use crate::core::effect::Effect;
use crate::core::ids::RunId;
use crate::core::input::{Fact, Input, Surveyed};
use crate::core::instance::Link;
use crate::core::outcome::Outcome;
use crate::core::severity::contradictions;
use crate::core::spec::JobSpec;
use crate::wire::control::StdinReply;
use crate::wire::keeper::{Answer, Notice, Refusal, Request, RunStatus, TOLD_VERSION};

use super::handle::AskError;

/// How long the keeper may take to hear our farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a request to the keeper was about.
#[derive(Debug)]
pub(super) enum Pending {
    /// A launch.
    Launch(RunId),
    /// Somebody's bytes for a stdin.
    Stdin(super::handle::Answer<StdinReply>),
    /// The latest beats of these runs, asked for then (boot clock).
    Beats(Vec<RunId>, u64),
    /// An inventory for a new survey.
    Survey,
    /// A recovery that somebody asked for.
    Recover(Box<super::recover::Asked>),
    /// Our farewell.
    Goodbye,
    /// Nothing that anybody waits for.
    Nothing,
}

impl Supervisor {
    pub(super) fn request(&mut self, request: Request, pending: Pending) {
        let Some(keeper) = &self.keeper else {
            // The survey that follows settles whatever this was about.
            match pending {
                Pending::Stdin(reply) => {
                    let why = "the keeper is not there, try again".to_owned();
                    let _ = reply.send(Err(AskError::Conflict(why)));
                }
                Pending::Recover(asked) => asked.cut_off(),
                Pending::Launch(_)
                | Pending::Beats(..)
                | Pending::Survey
                | Pending::Goodbye
                | Pending::Nothing => {}
            }
            return;
        };
        self.next_request += 1;
        keeper.send(self.next_request, request);
        if !matches!(pending, Pending::Nothing) {
            self.pending.insert(self.next_request, pending);
        }
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { run, attempt, spec } => {
                if let Some(Waiting { attempt, spec }) = self.pace.wait(run, Waiting { attempt, spec }) {
                    self.launch(run, attempt, &spec);
                }
            }
            Effect::Signal { run, signal, scope, cont, asked, rung } => {
                let request = Request::Signal { run, signal, scope, cont, asked, rung };
                self.request(request, Pending::Nothing);
            }
            Effect::RunStopCommand { run, step, job, pid, argv, timeout, spec } => {
                self.stop_command((run, step), &job, pid, (&argv, timeout), &spec);
            }
            Effect::Diagnose { run, job, identity, why } => self.diagnose(run, &job, identity, &why),
            Effect::RunHook { when, job, run, pid, outcome, spec } => {
                self.hook(&About { when, job, run, pid, outcome }, &spec);
            }
            Effect::Forget { run } => self.request(Request::Forget { run }, Pending::Nothing),
            Effect::Disown { run } => self.request(Request::Disown { run }, Pending::Nothing),
            Effect::Exit { keep_jobs, code } => self.end(keep_jobs, code),
        }
    }

    pub(super) fn launch(&mut self, run: RunId, attempt: u64, spec: &JobSpec) {
        if !self.hook_before_launch(run, attempt, spec) {
            self.launch_now(run, attempt, spec);
        }
    }

    pub(super) fn launch_now(&mut self, run: RunId, attempt: u64, spec: &JobSpec) {
        // The last token that was recorded: whoever goes on has the newest.
        let resume = self.state.published(&spec.name).and_then(|known| known.said.resume.as_deref());
        match launching::launch(run, attempt, spec, (&self.socket, resume)) {
            Ok(launch) => {
                self.vigils.launched(run, launch.limits);
                self.request(Request::Launch(Box::new(launch)), Pending::Launch(run));
            }
            Err(cannot) => {
                tracing::error!(job = %spec.name, step = cannot.step, errno = cannot.errno, "cannot be started");
                let outcome = Outcome::NotStarted { step: cannot.step, errno: cannot.errno };
                self.pace.answered(run);
                self.refused.push((run, outcome));
            }
        }
    }

    fn end(&mut self, keep_jobs: bool, code: u8) {
        tracing::info!(keep_jobs, code, "the instance ends");
        self.request(Request::Goodbye, Pending::Goodbye);
        // Nobody will answer there any more. If init is gone, nobody else removes it either.
        let _ = std::fs::remove_file(&self.socket);
        self.init.end_instance(keep_jobs, code);
        self.exit = Some(code);
    }

    pub(super) fn keeper_news(&mut self, news: News, turn: &mut Turn) {
        match news {
            News::Up { pid, version, init, runs, requests } => {
                // Without an init it is the keeper of one that is dead, about to be replaced; whether ours
                // lives, our own socket tells.
                tracing::debug!(pid, init, runs = runs.len(), "the keeper is there");
                self.startup.done("keeper");
                self.keeper = Some(requests);
                self.keeper_pid = Some(pid);
                self.keeper_tells = version >= TOLD_VERSION;
                self.survey(runs, turn);
                turn.changed = true;
            }
            News::Down => {
                tracing::warn!("the keeper is gone");
                self.keeper = None;
                self.keeper_pid = None;
                for (_, pending) in std::mem::take(&mut self.pending) {
                    match pending {
                        Pending::Stdin(reply) => {
                            let why = "the keeper is gone; how much was written is not known".to_owned();
                            let _ = reply.send(Err(AskError::Internal(why)));
                        }
                        Pending::Recover(asked) => asked.cut_off(),
                        Pending::Launch(_)
                        | Pending::Beats(..)
                        | Pending::Survey
                        | Pending::Goodbye
                        | Pending::Nothing => {}
                    }
                }
                self.observe(&Input::KeeperLost, turn);
                self.all_fare_differently();
                self.beats_lost();
                turn.changed = true;
            }
            News::Replaced { newest } => {
                tracing::error!(newest = newest.0, "another supervisor has taken over; ending");
                self.log.abandon();
                self.exit = Some(0);
            }
            News::Notice(notice) => self.notice(notice, turn),
            News::Reply { id, result } => {
                if let Some(pending) = self.pending.remove(&id) {
                    self.answered(pending, result, turn);
                }
            }
        }
    }

    fn survey(&mut self, inventory: Vec<RunStatus>, turn: &mut Turn) {
        if self.read_only.is_some() {
            return;
        }
        // A start that still waits is found not to have happened.
        self.pace.clear();
        self.hear_all(&inventory, turn);
        self.hear_before_judging(turn);
        let told: Vec<RunStatus> = inventory.iter().filter(|status| status.told.is_some()).cloned().collect();
        self.startup.begin("survey");
        let pending = self.hooks.starting();
        let open = self.open_runs().into_iter().filter(|open| !pending.contains(&open.run)).collect();
        let mut facts = survey(&self.state_dir, &self.epoch, open, inventory, true);
        facts.pending = pending;
        if self.state.instance.link == Link::Recovering {
            facts.runs.extend(beyond(&self.state_dir, &self.state, &facts, true));
        }
        self.startup.done("survey");
        self.forget_helpers();
        let alive = |found: &&Surveyed| matches!(found.fact, Fact::Alive { .. });
        let damaged =
            facts.runs.iter().filter(alive).filter_map(|found| Some((found.run, found.damage.clone()?)));
        self.vigils.damaged = damaged.collect();
        self.startup.begin("settle");
        let runs = self.settle(facts, turn);
        self.settling = true;
        self.hear_all(&told, turn);
        self.judge_all();
        self.all_fare_differently();
        self.queues_changed();
        if self.startup.is_pending("settle") {
            self.startup.contradictions(contradictions(&self.state));
            self.startup.found(runs);
        }
    }

    /// Whether a run was asked for since the boot (or container start) we live in.
    pub(super) fn in_this_epoch(&self, run: RunId) -> bool {
        !self.state.is_of_earlier_epoch(run)
    }

    fn notice(&mut self, notice: Notice, turn: &mut Turn) {
        match notice {
            Notice::Ended { record, leftovers } => {
                tracing::info!(job = %record.job, run = %record.run, outcome = record.outcome.describe(), "ended");
                self.observe(&Input::Ended { record, leftovers }, turn);
            }
            Notice::TreeGone { run } => self.observe(&Input::TreeGone { run }, turn),
            Notice::LogStall { run, errno, dropped } => self.log_stall(run, errno, dropped, turn),
            // The keeper's init, which need not be ours.
            Notice::InitGone => {}
            Notice::Told { run, told } => self.hear(run, told, turn),
        }
    }

    fn log_stall(&mut self, run: RunId, errno: i32, dropped: u64, turn: &mut Turn) {
        let job = self.state.job_of(run).map(ToString::to_string).unwrap_or_default();
        if errno == 0 {
            tracing::info!(%job, %run, dropped, "the disk takes its output again");
            self.stalled.remove(&run);
        } else {
            let why = std::io::Error::from_raw_os_error(errno);
            tracing::warn!(%job, %run, %why, dropped, "the disk refuses its output");
            self.stalled.insert(run, format!("output of {job}: {why}"));
        }
        turn.changed = true;
    }

    fn answered(&mut self, pending: Pending, result: Result<Answer, Refusal>, turn: &mut Turn) {
        match pending {
            Pending::Launch(run) => self.launch_answered(run, result, turn),
            Pending::Stdin(reply) => {
                let answer = match result {
                    Ok(Answer::Written { bytes }) => Ok(StdinReply { bytes }),
                    Ok(_) => Err(AskError::Internal("the keeper answered something else".to_owned())),
                    Err(refusal) => Err(AskError::Conflict(refusal.to_string())),
                };
                turn.replies.push(Reply::Stdin(reply, answer));
            }
            // One that comes after another has settled everything knows nothing of what was asked for since.
            Pending::Survey => match result {
                Ok(Answer::Inventory { runs }) if self.state.instance.link != Link::Working => {
                    self.survey(runs, turn);
                }
                _ => {}
            },
            Pending::Recover(asked) => match result {
                Ok(Answer::Inventory { runs }) => self.recover_answered(*asked, runs, turn),
                _ => asked.cut_off(),
            },
            Pending::Beats(asked, asked_us) => match result {
                Ok(Answer::Beats { beats }) => self.beats(&asked, beats, asked_us),
                // It cannot say: that is no fault of the runs.
                _ => self.beats_unknown(&asked),
            },
            Pending::Goodbye | Pending::Nothing => {}
        }
    }

    /// Waits until the keeper has heard our farewell: without it, it would wait for a successor.
    pub(super) async fn farewell(&mut self, keeper: &mut mpsc::Receiver<News>) {
        let said = |pending: &Pending| matches!(pending, Pending::Goodbye);
        while self.keeper.is_some() && self.pending.values().any(said) {
            match tokio::time::timeout(FAREWELL, keeper.recv()).await {
                Ok(Some(News::Reply { id, .. })) => {
                    self.pending.remove(&id);
                }
                Ok(Some(News::Notice(_) | News::Up { .. })) => {}
                Ok(Some(News::Down | News::Replaced { .. }) | None) | Err(_) => return,
            }
        }
    }

    fn launch_answered(&mut self, run: RunId, result: Result<Answer, Refusal>, turn: &mut Turn) {
        self.pace.answered(run);
        let outcome = match result {
            Ok(Answer::Launched { identity, at }) => {
                self.observe(&Input::Launched { run, identity, at }, turn);
                return;
            }
            // The keeper has recorded it and tells its end by a notice.
            Err(Refusal::NotStarted { .. }) => return,
            Err(Refusal::System { what, errno }) => Outcome::NotStarted { step: what, errno },
            Err(refusal) => Outcome::NotStarted { step: refusal.to_string(), errno: 0 },
            Ok(_) => Outcome::NotStarted { step: "the keeper answered something else".to_owned(), errno: 0 },
        };
        tracing::error!(%run, outcome = outcome.describe(), "not started");
        self.observe(&Input::Refused { run, outcome }, turn);
    }
}
