//! When the event log cannot be written.
//!
//! A failed sync is never repeated as if nothing had happened: what it left on the disk is not known. The
//! supervisor stops changing anything. Jobs run on, output is captured, ends are recorded by the keeper.
//! After a while a new segment is tried, behind the last entry that is durable for sure: what failed is void
//! from then on. The state is read back up to there, and a survey brings it up to date.

use std::time::Duration;

use super::main_loop::{Supervisor, Turn};
use crate::core::input::Input;
use crate::core::outcome::Asked;
use crate::core::state::State;
use crate::journal;
use crate::sys::clock;
use crate::wire::keeper::Request;

/// First wait before the log is tried again, in microseconds; it doubles up to [`LONGEST_US`].
const FIRST_US: u64 = 1_000_000;
/// Longest wait, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// Nothing can be recorded.
#[derive(Debug)]
pub(super) struct ReadOnly {
    pub(super) why: String,
    delay_us: u64,
    retry_at_us: u64,
}

impl ReadOnly {
    /// How long until the next try.
    pub(super) fn wait(&self, now_us: u64) -> Duration {
        Duration::from_micros(self.retry_at_us.saturating_sub(now_us))
    }
}

impl Supervisor {
    pub(super) fn become_read_only(&mut self, why: String) {
        let delay_us = self.read_only.as_ref().map_or(FIRST_US, |old| (old.delay_us * 2).min(LONGEST_US));
        tracing::error!(%why, "the event log cannot be written: nothing is started or changed until it can");
        self.degraded.insert("journal", format!("the event log cannot be written: {why}"));
        self.read_only = Some(ReadOnly { why, delay_us, retry_at_us: clock::boot_us() + delay_us });
        self.dirty.extend(self.state.awake().map(|(name, _)| name.clone()));
    }

    /// Tries to write again, when it is time.
    pub(super) async fn retry_log(&mut self, turn: &mut Turn) {
        let Some(read_only) = &self.read_only else { return };
        if read_only.retry_at_us > clock::boot_us() {
            return;
        }
        match self.read_back().await {
            Err(why) => self.become_read_only(why),
            Ok((state, seq)) => {
                tracing::info!("the event log can be written again");
                self.read_only = None;
                self.degraded.remove("journal");
                self.state = state;
                self.show_rest();
                self.seq = seq;
                self.keep_one_configuration();
                if let Some(before) = &self.before {
                    self.state.set_before(before.config.jobs.clone());
                }
                self.state.shutdown_timeout = self.config.supervisor.shutdown_timeout;
                self.state.queues.settings = self.config.queues.clone();
                let specs: Vec<_> = self.config.jobs.iter().cloned().map(std::sync::Arc::new).collect();
                self.state.set_specs(&specs);
                if self.state.instance.generation != self.generation {
                    // Not even our own beginning is recorded.
                    self.decide(&self.started(), turn);
                }
                // Whatever was decided and not recorded did not happen; what happened meanwhile is asked.
                self.decide(&Input::KeeperLost, turn);
                self.decide(&Input::Configured { specs: self.config.jobs.clone(), by: Asked::Nobody }, turn);
                self.watch_anew();
                self.request(Request::Inventory, super::perform::Pending::Survey);
                self.dirty.extend(self.state.awake().map(|(name, _)| name.clone()));
            }
        }
        turn.changed = true;
    }

    /// The memory up to the last durable entry, and its number.
    async fn read_back(&self) -> Result<(State, u64), String> {
        let seq = self.log.heal().await.map_err(|e| e.to_string())?;
        let mut state = State::new();
        state.keep_runs = super::start::keep_runs(&self.config);
        let dir = self.state_dir.0.clone();
        let read = move || journal::recover(&dir, state, &mut |_, _| {}).map_err(|e| e.to_string());
        // In a thread of its own: those that everybody shares may be waiting for another disk.
        let (tell, told) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("read-back".to_owned());
        thread.spawn(move || drop(tell.send(read()))).map_err(|e| format!("no thread: {e}"))?;
        let read = told.await.map_err(|e| e.to_string())??;
        // What was missing before may be covered by a checkpoint by now.
        let known = read.report.lost.iter().all(|range| self.lost.contains(range));
        if read.last_seq() < seq || !known {
            return Err(format!("it cannot be read back:\n{}", read.report));
        }
        Ok((read.state, seq))
    }
}
