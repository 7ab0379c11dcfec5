//! What runs publish about themselves.

use std::os::unix::fs::MetadataExt;

use super::asks::Reply;
use super::handle::{Answer, AskError, Peer};
use super::main_loop::{Supervisor, Turn, now};
use crate::core::identity::Identity;
use crate::core::ids::{JobName, RunId};
use crate::core::input::Input;
use crate::core::progress::{Published, Said, merge};
use crate::sys::identity::proven;
use crate::wire::control::{ProgressView, PublishReply};

impl Supervisor {
    pub(super) fn publish_progress(
        &mut self,
        (run, said): (RunId, Said),
        peer: Peer,
        reply: Answer<PublishReply>,
        turn: &mut Turn,
    ) {
        let answer = match self.may_publish(run, &said, peer) {
            Err(error) => Err(error),
            Ok(job) => {
                let token = said.resume.is_some();
                let decision = self.decide(&Input::Published { run, said: said.clone() }, turn);
                let recorded = !decision.events.is_empty();
                if recorded {
                    self.newest.remove(&job);
                } else {
                    self.keep_newest(&job, run, &said);
                }
                self.dirty.insert(job);
                self.made_progress(run);
                Ok(PublishReply { recorded, resume_token: token && recorded })
            }
        };
        turn.replies.push(Reply::Publish(reply, answer));
    }

    /// Root and our own user may do anything to a job; others, whom the socket lets in, speak for a run that
    /// is theirs.
    fn may_publish(&self, run: RunId, said: &Said, peer: Peer) -> Result<JobName, AskError> {
        said.check().map_err(|error| AskError::Bad { error: error.to_string(), details: Vec::new() })?;
        if let Some(read_only) = &self.read_only {
            return Err(AskError::ReadOnly(read_only.why.clone()));
        }
        let Some(job) = self.state.job_of(run).cloned() else {
            return Err(AskError::NotFound(format!("run {run} is over, or never was")));
        };
        let ours = peer.uid == 0 || peer.uid == rustix::process::geteuid().as_raw();
        let process = self.state.job(&job).and_then(crate::core::job::Job::identity);
        if !ours && process.and_then(owner) != Some(peer.uid) {
            return Err(AskError::Forbidden(format!("run {run} is not one of user {}", peer.uid)));
        }
        Ok(job)
    }

    /// What is too recent to be recorded is shown all the same.
    pub(super) fn keep_newest(&mut self, job: &JobName, run: RunId, said: &Said) {
        let known =
            self.newest.get(job).or_else(|| self.state.published(job)).filter(|known| known.run == run);
        let mut newest =
            known.cloned().unwrap_or_else(|| Published { run, at: now(), said: Said::default() });
        newest.at = now();
        merge(&mut newest.said, said);
        self.newest.insert(job.clone(), newest);
    }

    /// How far the latest run is, and the token for the next.
    pub(super) fn progress_of(&self, job: &JobName) -> Option<&Published> {
        self.newest.get(job).or_else(|| self.state.published(job))
    }

    /// What runs have said that are over is told no more.
    pub(super) fn forget_old_progress(&mut self) {
        let state = &self.state;
        self.newest.retain(|job, newest| state.job_of(newest.run) == Some(job));
    }
}

pub(super) fn progress_view(known: &Published) -> Box<ProgressView> {
    Box::new(ProgressView {
        run: known.run,
        at: known.at.rfc3339(),
        percent: known.said.progress,
        text: known.said.text.clone(),
        resume_token: known.said.resume.clone(),
    })
}

/// The user of a process. It is proven afterwards which process that is: the number may have gone to another.
fn owner(process: &Identity) -> Option<u32> {
    let uid = std::fs::metadata(format!("/proc/{}", process.pid)).ok()?.uid();
    proven(process.pid, process.pidfs, process.start_ticks).map(|_| uid)
}
