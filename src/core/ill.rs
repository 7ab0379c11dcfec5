//! What a job remembers of a live run that is unwell, or has asked for more time.

use serde::{Deserialize, Serialize};

use super::event::Event;
use super::fault::Fault;
use super::ids::RunId;
use super::job::{Job, Phase};
use super::time::Stamp;

/// Something is wrong with a run that lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ill {
    /// What.
    pub fault: Fault,
    /// The same in words.
    pub why: String,
    /// Since when that is known.
    pub since: Stamp,
    /// The rung of the frozen ladder in progress, from 0; `None`: none was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// When the next rung is due; `None`: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Stamp>,
}

impl Job {
    /// Remembers an event about how its run fares.
    pub(super) fn fares(&mut self, event: &Event, at: Stamp) {
        match event {
            Event::RunReady { run: news, .. } => {
                if let Phase::Running { run, ready_at, ill, .. } = &mut self.phase
                    && run == news
                {
                    *ready_at = None;
                    // Late, and where nothing was done about it, not too late.
                    ill.take_if(|ill| ill.fault == Fault::NotReady);
                }
            }
            Event::RunExtended { run, until, .. } => self.extended(*run, *until),
            Event::RunUnwell { run, fault, why, .. } => {
                let ill = Ill { fault: *fault, why: why.clone(), since: at, step: None, until: None };
                self.feels(*run, Some(Box::new(ill)));
            }
            Event::HealStepBegun { run, step, until, .. } => {
                if let Phase::Running { run: known, ill: Some(ill), .. } = &mut self.phase
                    && known == run
                {
                    (ill.step, ill.until) = (Some(*step), *until);
                }
            }
            Event::RunWell { run, .. } => self.feels(*run, None),
            Event::TrialBegun { run, until, .. } if self.run() == Some(*run) => self.trial = Some(*until),
            Event::TrialPassed { run, .. } if self.run() == Some(*run) => {
                (self.failures, self.trial) = (0, None);
            }
            Event::TrialBegun { .. } | Event::TrialPassed { .. } => {}
            // Only these come here.
            other => debug_assert!(false, "{other:?} is not about how a run fares"),
        }
    }

    /// It is known what is wrong with a run, or that nothing is.
    fn feels(&mut self, news: RunId, what: Option<Box<Ill>>) {
        if let Phase::Running { run, ill, .. } = &mut self.phase
            && *run == news
        {
            *ill = what;
        }
    }

    /// A run was given more time for what it is doing.
    fn extended(&mut self, news: RunId, later: Stamp) {
        match &mut self.phase {
            Phase::Running { run, ready_at: Some(at), .. } if *run == news => *at = later,
            Phase::Stopping { run, ladder: Some(ladder), .. } if *run == news && !ladder.kill => {
                ladder.until = later;
            }
            Phase::Stopped
            | Phase::Waiting
            | Phase::Queued
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Leftovers { .. }
            | Phase::Backoff { .. }
            | Phase::Held { .. }
            | Phase::Exited
            | Phase::Fatal { .. } => {}
        }
    }
}
