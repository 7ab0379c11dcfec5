//! Starts that recovery makes take their turn; see [`crate::core::pace`].

use super::main_loop::Supervisor;
use crate::core::Decision;
use crate::core::event::Event;
use crate::core::ids::RunId;
use crate::core::outcome::Outcome;
use crate::core::reconcile::plan::Before;
use crate::core::report::Item;
use crate::core::spec::JobSpec;
use crate::sys::clock;

/// A launch that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) attempt: u64,
    pub(super) spec: Box<JobSpec>,
}

impl Supervisor {
    /// The starts among what a survey came to take their turn, unless it is the job's first.
    pub(super) fn pace_starts(&mut self, before: &Before, items: &[Item]) {
        self.pace.set_rate(self.config.supervisor.recovery_start_rate);
        for item in items {
            if let (Some(job), Some(next)) = (&item.job, item.next)
                && before.has_run(job)
            {
                self.pace.expect(next, item.class);
            }
        }
    }

    /// Makes the starts whose turn it is. Never while a survey is due, which would not know of them, nor while
    /// nothing can be recorded.
    pub(super) fn make_starts(&mut self) {
        while self.may_judge()
            && self.state.instance.held.is_none()
            && let Some((run, Waiting { attempt, spec })) = self.pace.next(clock::boot_us())
        {
            self.launch(run, attempt, &spec);
        }
        if self.startup.is_running("resume") {
            let left = u64::try_from(self.pace.waiting()).unwrap_or(0);
            if left == 0 {
                self.startup.done("resume");
            } else {
                self.startup.left("resume", left);
            }
        }
    }

    /// A run that is stopped before it was its turn never ran.
    pub(super) fn call_off_starts(&mut self, decision: &Decision) {
        if self.pace.waiting() == 0 {
            return;
        }
        let stopped = decision.events.iter().filter_map(|event| match event {
            Event::StopBegun { run, .. } => Some(*run),
            _ => None,
        });
        for run in stopped.collect::<Vec<RunId>>() {
            if self.pace.cancel(run) {
                self.refused.push((run, Outcome::Cancelled));
            }
        }
    }
}
