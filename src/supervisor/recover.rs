//! A recovery that somebody asks for: look again at what there is, say or do what follows from it.
//!
//! The same survey and the same decision as at a start. Asking is answered by the keeper in the order of our
//! requests, so it is asked at the end of a turn, when all starts of the turn have been asked for: those are in
//! its inventory, and runs asked for later are left out. Otherwise a run under way would be taken for one that
//! never was, and started twice.

use std::collections::BTreeSet;

use super::asks::{Reply, operator};
use super::handle::{Answer, AskError, Peer};
use super::main_loop::{Supervisor, Turn};
use super::perform::Pending;
use super::survey::{Open, survey};
use crate::core::ids::RunId;
use crate::core::input::{Input, Survey};
use crate::core::instance::Link;
use crate::core::reconcile::check::check;
use crate::core::reconcile::plan::{self, Before};
use crate::core::report::RunsReport;
use crate::wire::control::{ActReply, ActResult};
use crate::wire::keeper::{Request, RunStatus};

/// Who asked for what, while the keeper is asked.
#[derive(Debug)]
pub(super) struct Asked {
    dry_run: bool,
    peer: Peer,
    reply: Answer<RunsReport>,
    /// The runs that lived then.
    live: BTreeSet<RunId>,
}

impl Asked {
    /// The keeper is gone.
    pub(super) fn cut_off(self) {
        let _ = self.reply.send(Err(AskError::Recovering));
    }
}

impl Supervisor {
    pub(super) fn recover(&mut self, dry_run: bool, peer: Peer, reply: Answer<RunsReport>) {
        if let Some(read_only) = self.read_only.as_ref().filter(|_| !dry_run) {
            let _ = reply.send(Err(AskError::ReadOnly(read_only.why.clone())));
            return;
        }
        if self.keeper.is_none() || !self.state.is_settled() {
            let _ = reply.send(Err(AskError::Recovering));
            return;
        }
        self.recoveries.push(Asked { dry_run, peer, reply, live: BTreeSet::new() });
    }

    /// Asks the keeper, once everything that was decided in this turn has been asked of it.
    pub(super) fn ask_for_recoveries(&mut self) {
        for mut asked in std::mem::take(&mut self.recoveries) {
            // The keeper does not know of a start that waits for its turn or its hook, or could not be asked for.
            let unknown = |run: &RunId| {
                self.pace.holds(*run)
                    || self.hooks.holds(*run)
                    || self.refused.iter().any(|(refused, _)| refused == run)
            };
            asked.live = self.state.live_runs().map(|(run, _)| run).filter(|run| !unknown(run)).collect();
            self.request(Request::Inventory, Pending::Recover(Box::new(asked)));
        }
    }

    pub(super) fn recover_answered(&mut self, asked: Asked, inventory: Vec<RunStatus>, turn: &mut Turn) {
        let Asked { dry_run, peer, reply, live } = asked;
        // When a survey of everything is on its way, this one, of less, must not be taken for it.
        if (self.read_only.is_some() && !dry_run) || self.state.instance.link != Link::Working {
            let _ = reply.send(Err(AskError::Recovering));
            return;
        }
        let open: Vec<Open> = self.open_runs().into_iter().filter(|open| live.contains(&open.run)).collect();
        let mut facts = survey(&self.state_dir, &self.epoch, open, inventory, !dry_run);
        // Asked for since, and perhaps not known to the keeper when it answered.
        facts.runs.retain(|found| live.contains(&found.run) || self.state.job_of(found.run).is_none());
        if dry_run {
            let report = plan::plan(&self.state, &facts, super::main_loop::now());
            let _ = reply.send(Ok(report));
            return;
        }
        let by = operator(peer, "recover");
        let said = Input::Noted { verb: "recover".to_owned(), job: None, detail: String::new(), by };
        self.decide(&said, turn);
        let report = self.settle(facts, turn);
        turn.replies.push(Reply::Recover(reply, Ok(report)));
    }

    /// Decides what follows from a survey. What it came to.
    pub(super) fn settle(&mut self, facts: Survey, turn: &mut Turn) -> RunsReport {
        let before = Before::of(&self.state);
        let input = Input::Surveyed(facts);
        let decision = self.decide(&input, turn);
        let Input::Surveyed(facts) = input else { return RunsReport::default() };
        let items = plan::told(&before, &facts, &decision.events);
        self.pace_starts(&before, &items);
        let mut runs = RunsReport::of(items);
        let checked = check(&before, &facts, &self.state);
        for violation in &checked.violations {
            tracing::error!("after the recovery: {violation}");
        }
        (runs.checks, runs.violations) = (checked.checks, checked.violations);
        runs
    }

    /// After damage, a checkpoint of what could be read is made before anything is changed: whatever this
    /// recovery does, what it began with is kept.
    pub(super) async fn keep_what_was_read(&mut self) {
        if !self.startup.is_damaged() {
            return;
        }
        match self.log.keep_memory(self.state.clone(), self.seq).await {
            Ok(seq) => {
                tracing::warn!(seq, "a checkpoint of what could be read was made before anything is changed");
                self.startup.checkpoint_before(seq);
            }
            Err(error) => tracing::error!("no checkpoint of what could be read can be made: {error}"),
        }
    }

    /// Every run that is held as not ended.
    pub(super) fn open_runs(&self) -> Vec<Open> {
        let open = |(run, job): (RunId, &crate::core::ids::JobName)| Open {
            run,
            job: job.clone(),
            this_epoch: self.in_this_epoch(run),
        };
        self.state.live_runs().map(open).collect()
    }

    /// Ends recovery mode.
    pub(super) fn leave_recovery(&mut self, peer: Peer, reply: Answer<ActReply>, turn: &mut Turn) {
        if !self.state.instance.recovery {
            let why = "the instance is not in recovery mode".to_owned();
            let _ = reply.send(Err(AskError::Conflict(why)));
            return;
        }
        if let Some(read_only) = &self.read_only {
            let _ = reply.send(Err(AskError::ReadOnly(read_only.why.clone())));
            return;
        }
        let decision = self.decide(&Input::LeaveRecovery { by: operator(peer, "recover exit") }, turn);
        self.recovery = false;
        self.queues_changed();
        let state_dir = self.state_dir.clone();
        // A file that stays makes the next start wait for an operator once more.
        tokio::task::spawn_blocking(move || state_dir.forget_unreadable_log());
        turn.changed = true;
        let items = plan::told(&Before::of(&self.state), &Survey::default(), &decision.events);
        let done = |item: crate::core::report::Item| {
            let text = item.acts.iter().map(|act| act.as_str()).collect::<Vec<_>>().join(", ");
            Some(ActResult { name: item.job?, changed: true, text, ok: true })
        };
        let reply_with = ActReply { jobs: items.into_iter().filter_map(done).collect(), saga: None };
        turn.replies.push(Reply::Act(reply, Ok(reply_with)));
    }
}
