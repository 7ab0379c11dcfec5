//! Time in which nobody watched: the host was suspended, the container paused, we were stopped.
//!
//! The boot clock goes on meanwhile, and the jobs may or may not have. So nobody's silence counts for that time:
//! every run has as long as it may anew, and what waits to become ready as much more time. A loop that finds its
//! deadline long past knows that it was away.

use std::time::Duration;

use super::super::main_loop::Supervisor;
use crate::core::ids::RunId;
use crate::core::job::Phase;
use crate::core::time::{Millis, Stamp};
use crate::core::watch::Role;
use crate::sys::clock;

/// How late a deadline is met by a busy host or a slow disk; who is later was away.
const AWAY_US: u64 = 3_000_000;

/// How long it takes others in this process to read what has arrived meanwhile.
const HEARING: Duration = Duration::from_millis(100);

impl Supervisor {
    /// Whether we were away when this was due. If so, what has arrived meanwhile waits for the loop now.
    pub(in super::super) async fn was_away(&mut self, deadline: Option<Stamp>) -> bool {
        let late_us = deadline.map_or(0, |at| clock::boot_us().saturating_sub(at.boot_us));
        if late_us < AWAY_US {
            return false;
        }
        tracing::warn!(
            seconds = late_us / 1_000_000,
            "nobody watched for a while: signs of life are awaited anew"
        );
        tokio::time::sleep(HEARING).await;
        let now_us = clock::boot_us();
        let all: Vec<RunId> = self.vigils.runs.keys().copied().collect();
        for run in all {
            self.vigils.change(run, |vigil| vigil.away(late_us, now_us));
        }
        let later = Millis(late_us / 1000);
        let waiting = self.state.live_runs().filter_map(|(run, name)| match &self.state.job(name)?.phase {
            Phase::Running { ready_at: Some(at), .. } => Some((run, at.plus(later))),
            _ => None,
        });
        self.vigils.extensions = waiting.collect();
        true
    }

    /// Whether an answer came so late that we were away: it says nothing of the run.
    pub(super) fn is_late(&self, run: RunId, role: Role, took_us: u64) -> bool {
        let spec = self.state.job_of(run).and_then(|name| self.state.spec(name));
        let probe = spec.and_then(|spec| spec.watch.as_ref()?.probe.of(role));
        probe.is_some_and(|probe| took_us > probe.timeout.0.saturating_mul(1000).saturating_add(AWAY_US))
    }
}
