//! Requests from the control socket and from signals: to inputs, and back to answers.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::handle::{Answer, Ask, AskError, Peer};
use super::main_loop::{Supervisor, Turn};
use super::perform::Pending;
use crate::config::{self, Config};
use crate::core::Decision;
use crate::core::ids::JobName;
use crate::core::input::Input;
use crate::core::outcome::Asked;
use crate::core::reload::ReloadPlan;
use crate::core::report::RunsReport;
use crate::core::spec::KillScope;
use crate::wire::control::{
    ActReply, ActResult, PublishReply, ReloadReply, RunReply, ScrubReply, StdinReply,
};
use crate::wire::init::HOLD_CONFIG;
use crate::wire::keeper::Request;
use crate::wire::queue::PauseReply;

/// An answer that waits until its decision is durable.
#[derive(Debug)]
pub(super) enum Reply {
    Act(Answer<ActReply>, Result<ActReply, AskError>),
    Run(Answer<RunReply>, Result<RunReply, AskError>),
    Reload(Answer<ReloadReply>, Result<ReloadReply, AskError>),
    Recover(Answer<RunsReport>, Result<RunsReport, AskError>),
    Scrub(Answer<ScrubReply>, Result<ScrubReply, AskError>),
    Shutdown(Answer<()>),
    Stdin(Answer<StdinReply>, Result<StdinReply, AskError>),
    Publish(Answer<PublishReply>, Result<PublishReply, AskError>),
    Pause(Answer<PauseReply>, Result<PauseReply, AskError>),
}

impl Reply {
    /// The decision is durable: say so. Whether anybody still listens is not our business.
    pub(super) fn send(self) {
        match self {
            Self::Act(to, answer) => drop(to.send(answer)),
            Self::Run(to, answer) => drop(to.send(answer)),
            Self::Reload(to, answer) => drop(to.send(answer)),
            Self::Recover(to, answer) => drop(to.send(answer)),
            Self::Scrub(to, answer) => drop(to.send(answer)),
            Self::Shutdown(to) => drop(to.send(Ok(()))),
            Self::Stdin(to, answer) => drop(to.send(answer)),
            Self::Publish(to, answer) => drop(to.send(answer)),
            Self::Pause(to, answer) => drop(to.send(answer)),
        }
    }

    /// It could not be made durable; `why` says whether it may turn up all the same.
    pub(super) fn fail(self, why: &str) {
        let error = || AskError::ReadOnly(why.to_owned());
        match self {
            Self::Act(to, _) => drop(to.send(Err(error()))),
            Self::Run(to, _) => drop(to.send(Err(error()))),
            Self::Reload(to, _) => drop(to.send(Err(error()))),
            Self::Recover(to, _) => drop(to.send(Err(error()))),
            Self::Scrub(to, answer) => drop(to.send(answer)),
            Self::Shutdown(to) => drop(to.send(Err(error()))),
            Self::Stdin(to, answer) => drop(to.send(answer)),
            Self::Publish(to, _) => drop(to.send(Err(error()))),
            Self::Pause(to, _) => drop(to.send(Err(error()))),
        }
    }
}

pub(super) fn operator(peer: Peer, verb: &str) -> Asked {
    Asked::Operator { uid: peer.uid, verb: verb.to_owned() }
}

pub(super) fn act_reply(decision: Decision) -> ActReply {
    let jobs = decision
        .answers
        .into_iter()
        .map(|answer| ActResult {
            name: answer.job,
            changed: answer.changed,
            text: answer.text,
            ok: answer.ok,
        })
        .collect();
    ActReply { jobs, saga: None }
}

impl Supervisor {
    pub(super) fn refused_now<T>(&self) -> Option<Result<T, AskError>> {
        self.read_only.as_ref().map(|read_only| Err(AskError::ReadOnly(read_only.why.clone())))
    }

    pub(super) fn ask(&mut self, ask: Ask, turn: &mut Turn) {
        match ask {
            Ask::Start { jobs, force, peer, reply } => {
                let by = operator(peer, if force { "start --force" } else { "start" });
                self.act(&Input::Start { jobs, force, by }, reply, turn);
            }
            Ask::Stop { jobs, peer, reply } => {
                self.act(&Input::Stop { jobs, by: operator(peer, "stop") }, reply, turn);
            }
            Ask::Restart { jobs, peer, reply } => {
                self.act(&Input::Restart { jobs, by: operator(peer, "restart") }, reply, turn);
            }
            Ask::Signal { jobs, signal, scope, peer, reply } => {
                self.signal(&jobs, (signal, scope), &operator(peer, "signal"), reply, turn);
            }
            Ask::Run { request, peer, reply } => self.submit(*request, peer, reply, turn),
            Ask::PauseQueue { queue, resume, peer, reply } => {
                self.pause_queue((&queue, resume), peer, reply, turn);
            }
            Ask::Move { jobs, request, peer, reply } => self.move_jobs(jobs, &request, peer, reply, turn),
            Ask::Stdin { job, data, close, reply } => self.stdin(&job, data, close, reply),
            Ask::StartOrRollBack { jobs, within, peer, reply } => {
                let answer =
                    self.refused_now().unwrap_or_else(|| self.start_or_roll_back(jobs, within, peer, turn));
                turn.replies.push(Reply::Act(reply, answer));
            }
            Ask::ReloadOrRollBack { within, peer, reply } => {
                let answer =
                    self.refused_now().unwrap_or_else(|| self.reload_or_roll_back(within, peer, turn));
                turn.replies.push(Reply::Reload(reply, answer));
            }
            Ask::Publish { run, said, peer, reply } => self.publish_progress((run, said), peer, reply, turn),
            Ask::Reload { plan, peer, reply } => {
                let by = peer.map_or(Asked::Reload, |peer| operator(peer, "reload"));
                let answer = self.refused_now().unwrap_or_else(|| self.reload(plan, by, turn));
                turn.replies.push(Reply::Reload(reply, answer));
            }
            Ask::Recover { dry_run, peer, reply } => self.recover(dry_run, peer, reply),
            Ask::LeaveRecovery { peer, reply } => self.leave_recovery(peer, reply, turn),
            Ask::Scrub { reply } => self.scrub_now(reply),
            Ask::Shutdown { keep_jobs, peer, reply } => self.shutdown(keep_jobs, peer, reply, turn),
        }
    }

    fn act(&mut self, input: &Input, reply: Answer<ActReply>, turn: &mut Turn) {
        let answer = self.refused_now().unwrap_or_else(|| Ok(act_reply(self.decide(input, turn))));
        turn.replies.push(Reply::Act(reply, answer));
    }

    fn signal(
        &mut self,
        jobs: &[JobName],
        (signal, scope): (i32, Option<KillScope>),
        by: &Asked,
        reply: Answer<ActReply>,
        turn: &mut Turn,
    ) {
        let mut all = ActReply { jobs: Vec::new(), saga: None };
        for job in jobs {
            let scope = scope.unwrap_or(KillScope::Process);
            let input = Input::Signal { job: job.clone(), signal, scope, by: by.clone() };
            let entries = turn.entries.len();
            all.jobs.extend(act_reply(self.decide(&input, turn)).jobs);
            // Allowed also while nothing can be recorded: it needs no promise.
            if self.read_only.is_some() {
                turn.entries.truncate(entries);
            }
        }
        turn.replies.push(Reply::Act(reply, Ok(all)));
    }

    fn shutdown(&mut self, keep_jobs: bool, peer: Option<Peer>, reply: Answer<()>, turn: &mut Turn) {
        if keep_jobs && self.init.pid == Some(1) {
            let why = "init is PID 1 here: when it ends, the kernel ends every job with it";
            let _ = reply.send(Err(AskError::Conflict(why.to_owned())));
            return;
        }
        let by = peer.map_or(Asked::Shutdown, |peer| operator(peer, "shutdown"));
        self.decide(&Input::Shutdown { keep_jobs, by }, turn);
        turn.changed = true;
        turn.replies.push(Reply::Shutdown(reply));
    }

    fn stdin(&mut self, job: &JobName, data: Vec<u8>, close: bool, reply: Answer<StdinReply>) {
        match self.state.job(job).and_then(crate::core::job::Job::run) {
            Some(run) => self.request(Request::Stdin { run, data, close }, Pending::Stdin(reply)),
            None => {
                let _ = reply.send(Err(AskError::Conflict(format!("{job} is not running"))));
            }
        }
    }

    pub(super) fn reload_by_signal(&mut self, turn: &mut Turn) {
        let (reply, _) = oneshot::channel();
        self.ask(Ask::Reload { plan: false, peer: None, reply }, turn);
    }

    fn reload(&mut self, plan: bool, by: Asked, turn: &mut Turn) -> Result<ReloadReply, AskError> {
        if self.state.instance.shutdown.is_some() {
            return Err(AskError::Conflict("the instance is shutting down".to_owned()));
        }
        if !plan {
            self.none_under_way()?;
        }
        let config = self.read_config()?;
        let planned = crate::core::reload::plan(&self.state, &config.jobs);
        if !plan {
            tracing::info!("the configuration is applied");
            self.decide(&Input::Configured { specs: config.jobs.clone(), by }, turn);
            self.accept(config);
        }
        turn.changed = true;
        Ok(reply_of(planned, !plan))
    }

    pub(super) fn read_config(&self) -> Result<Config, AskError> {
        let Some(path) = &self.config_path else {
            let why = "this instance was started without a configuration file";
            return Err(AskError::Conflict(why.to_owned()));
        };
        config::load(path, &loader_environment()).map_err(|errors| AskError::Bad {
            error: match errors.0.len() {
                1 => "the configuration has a mistake; nothing was changed".to_owned(),
                n => format!("the configuration has {n} mistakes; nothing was changed"),
            },
            details: errors.0.iter().map(ToString::to_string).collect(),
        })
    }

    /// From now on this configuration is in force, also for our successor.
    pub(super) fn accept(&mut self, config: Config) {
        match super::accepted::store(&config, self.before.as_ref()) {
            Ok(fd) => self.init.hold(HOLD_CONFIG, &fd),
            Err(error) => tracing::error!(%error, "the configuration cannot be kept for the next supervisor"),
        }
        self.state.shutdown_timeout = config.supervisor.shutdown_timeout;
        if self.state.queues.settings != config.queues {
            self.state.queues.settings = config.queues.clone();
            self.slots_changed = true;
            self.queues_changed();
        }
        self.state.keep_runs = super::start::keep_runs(&config);
        self.log.keep_runs(self.state.keep_runs);
        self.degraded.remove("configuration");
        self.config_changed = false;
        self.config = config;
    }
}

pub(super) fn reply_of(plan: ReloadPlan, applied: bool) -> ReloadReply {
    ReloadReply {
        applied,
        added: plan.added,
        removed: plan.removed,
        restarted: plan.restarted,
        updated: plan.updated,
        blocked: plan.blocked,
        unchanged: plan.unchanged.len(),
        saga: None,
    }
}

/// What `${VAR}` is taken from: our environment, and the path of this executable.
pub fn loader_environment() -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    if let Some(exe) = std::env::current_exe().ok().and_then(|path| path.into_os_string().into_string().ok())
    {
        env.insert("OUTLIVE_EXE".to_owned(), exe);
    }
    env
}
