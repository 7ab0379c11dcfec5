//! What a job's runs leave in its history.

use std::collections::VecDeque;

use super::event::Event;
use super::ids::RunId;
use super::outcome::{Asked, Outcome, Rusage};
use super::stats::Cause;
use super::time::Stamp;

/// A run as the history shows it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PastRun {
    /// The run.
    pub run: RunId,
    /// Which try.
    pub attempt: u64,
    /// When it was asked for.
    pub requested: Stamp,
    /// When it was started.
    pub started: Option<Stamp>,
    /// Main process; only meaningful while it lives.
    pub pid: Option<i32>,
    /// Its end, if it has ended.
    pub end: Option<Box<PastEnd>>,
}

/// The end of a run as the history shows it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PastEnd {
    /// When.
    pub at: Stamp,
    /// How.
    pub outcome: Outcome,
    /// Who asked for it.
    pub asked: Asked,
    /// Resource use.
    pub rusage: Option<Rusage>,
    /// Bytes captured, both streams.
    pub output_bytes: u64,
    /// How it counts; absent in records of earlier builds, and if it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// Notes an event in a job's history.
pub(super) fn note_past(past: &mut VecDeque<PastRun>, event: &Event, keep: usize) {
    let find = |past: &mut VecDeque<PastRun>, run: RunId| past.iter().rposition(|p| p.run == run);
    match event {
        Event::RunRequested { run, attempt, at, .. } => {
            past.push_back(PastRun {
                run: *run,
                attempt: *attempt,
                requested: *at,
                started: None,
                pid: None,
                end: None,
            });
            // The one just asked for is not among those kept: it has not ended.
            while past.len() > keep.saturating_add(1) {
                past.pop_front();
            }
        }
        Event::RunStarted { run, identity, at: started, .. }
        | Event::RunAdopted { run, identity, started, .. } => {
            if let Some(i) = find(past, *run) {
                past[i].started = Some(*started);
                past[i].pid = Some(identity.pid);
            }
        }
        Event::RunEnded { record, failures, .. } => {
            if let Some(i) = find(past, record.run) {
                past[i].started = past[i].started.or(record.started);
                past[i].pid = None;
                past[i].end = Some(Box::new(PastEnd {
                    at: record.ended,
                    outcome: record.outcome.clone(),
                    asked: record.asked.clone(),
                    rusage: record.rusage,
                    output_bytes: record.stdout_bytes.saturating_add(record.stderr_bytes),
                    cause: Cause::of(&record.outcome, &record.asked, *failures > 0),
                }));
            }
        }
        _ => {}
    }
}
