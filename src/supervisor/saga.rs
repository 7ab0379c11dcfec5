//! Operations of several steps: what is asked, which configuration is in force, and what readers see.
//!
//! The configuration before a reload is handed to init before the reload is recorded, and taken back after
//! its end is: whoever dies in between leaves a successor that has both, and the event log says which counts.

use std::sync::Arc;

use super::accepted::Before;
use super::asks::{act_reply, operator, reply_of};
use super::handle::{AskError, Peer};
use super::main_loop::{Supervisor, Turn};
use crate::core::ids::JobName;
use crate::core::input::Input;
use crate::core::saga::{End, Ended, Force, Saga};
use crate::core::time::Millis;
use crate::wire::control::{ActReply, ReloadReply, SagaState, SagaView};

impl Supervisor {
    pub(super) fn reload_or_roll_back(
        &mut self,
        within: Millis,
        peer: Peer,
        turn: &mut Turn,
    ) -> Result<ReloadReply, AskError> {
        self.may_begin()?;
        let config = self.read_config()?;
        let planned = crate::core::reload::plan(&self.state, &config.jobs);
        let specs = config.jobs.clone();
        self.decide(&Input::ReloadOrRollBack { specs, by: operator(peer, "reload"), within }, turn);
        let saga = self.state.sagas.begun;
        tracing::info!(saga, "the configuration is applied, and rolled back if a job does not come up");
        self.before = Some(Before { saga, config: self.config.clone() });
        self.accept(config);
        die_if_asked("saga:held");
        turn.changed = true;
        Ok(ReloadReply { saga: Some(saga), ..reply_of(planned, true) })
    }

    pub(super) fn start_or_roll_back(
        &mut self,
        jobs: Vec<JobName>,
        within: Millis,
        peer: Peer,
        turn: &mut Turn,
    ) -> Result<ActReply, AskError> {
        self.may_begin()?;
        let begun = self.state.sagas.begun;
        let input = Input::StartOrRollBack { jobs, by: operator(peer, "start"), within };
        let decision = self.decide(&input, turn);
        let saga = Some(self.state.sagas.begun).filter(|id| *id > begun);
        Ok(ActReply { saga, ..act_reply(decision) })
    }

    /// One at a time, and only while it can be undone.
    fn may_begin(&self) -> Result<(), AskError> {
        if self.state.instance.shutdown.is_some() {
            return Err(AskError::Conflict("the instance is shutting down".to_owned()));
        }
        if !self.state.is_settled() {
            return Err(AskError::Recovering);
        }
        self.none_under_way()
    }

    /// A reload in the middle of another would leave nothing to go back to.
    pub(super) fn none_under_way(&self) -> Result<(), AskError> {
        match &self.state.sagas.open {
            None => Ok(()),
            Some(saga) => {
                let verb = saga.plan.verb.as_str();
                Err(AskError::Conflict(format!(
                    "a {verb} that may be rolled back is under way, try again later"
                )))
            }
        }
    }

    /// Two configurations are at hand: which of them is in force follows from what is recorded.
    pub(super) fn keep_one_configuration(&mut self) {
        let Some(before) = self.before.take() else { return };
        match self.state.sagas.in_force(before.saga) {
            Force::Open => self.before = Some(before),
            Force::New => {
                tracing::info!(saga = before.saga, "the configuration stays");
                self.accept(self.config.clone());
            }
            Force::Old => {
                tracing::warn!(saga = before.saga, "the configuration before is in force again");
                self.accept(before.config);
                self.look_at_config();
            }
        }
    }

    /// For tests: where the saga is that this turn was about.
    pub(super) fn saga_point(&self) -> &'static str {
        let sagas = &self.state.sagas;
        match (&sagas.open, &self.before) {
            (Some(_), _) => "saga:recorded",
            (None, Some(_)) => "saga:ended",
            (None, None) => "-",
        }
    }

    /// What readers see: the latest that are over, then the one under way.
    pub(super) fn saga_views(&self) -> Vec<Arc<SagaView>> {
        let sagas = &self.state.sagas;
        let ended = sagas.ended.iter().map(ended_view);
        ended.chain(sagas.open.iter().map(|saga| open_view(saga))).map(Arc::new).collect()
    }
}

fn open_view(saga: &Saga) -> SagaView {
    let broken = saga.broken.as_ref();
    SagaView {
        id: saga.plan.id,
        verb: saga.plan.verb.as_str().to_owned(),
        state: if broken.is_some() { SagaState::Undoing } else { SagaState::Running },
        pending: saga.pending.iter().cloned().collect(),
        job: broken.and_then(|broken| broken.job.clone()),
        why: broken.map(|broken| broken.why.clone()),
        ended: None,
    }
}

fn ended_view(ended: &Ended) -> SagaView {
    let (state, job, why) = match &ended.end {
        End::Done => (SagaState::Done, None, None),
        End::RolledBack(broken) => (SagaState::RolledBack, broken.job.clone(), Some(broken.why.clone())),
        End::Abandoned { why } => (SagaState::Abandoned, None, Some(why.clone())),
    };
    SagaView {
        id: ended.id,
        verb: ended.verb.as_str().to_owned(),
        state,
        pending: Vec::new(),
        job,
        why,
        ended: Some(ended.at.rfc3339()),
    }
}

/// For tests: dies at this point if the first line of the file that the environment names says so, and takes
/// the line away.
pub(super) fn die_if_asked(point: &str) {
    #[cfg(debug_assertions)]
    if super::startup::take_death(point) {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
}
