//! Queues, as clients see and change them.

use serde::{Deserialize, Serialize};

use super::words::StateWord;
use crate::core::ids::{JobName, QueueName};

/// Where a job stands in line, or stood when its turn came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceView {
    /// In which line.
    pub queue: QueueName,
    /// The highest goes first.
    pub priority: i32,
    /// Among equals the lowest goes first.
    pub number: u64,
    /// It stands aside until it is released.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// It stands aside until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// Its name.
    pub name: QueueName,
    /// Runs that there may be at once; `None`: it is not configured any more, and nobody gets a turn.
    pub slots: Option<u32>,
    /// Slots that are taken.
    pub running: usize,
    /// Who waits for a turn.
    pub waiting: usize,
    /// No turn is given.
    pub paused: bool,
}

/// A job that has a slot or waits for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// The job.
    pub name: JobName,
    /// Where it is.
    pub state: StateWord,
    /// Since when.
    pub since: String,
    /// Its place.
    pub place: PlaceView,
    /// How many turns in its queue come before it, and its own, counted from 1; `None`: it is not in line.
    pub position: Option<usize>,
    /// Why it waits.
    pub why: String,
}

/// `GET /v1/queues[?queue=NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuesReply {
    /// Runs of all queues together, at most.
    pub slots: Option<u32>,
    /// The queues.
    pub queues: Vec<QueueView>,
    /// Who has a slot, then who waits, in the order of the turns.
    pub jobs: Vec<Queued>,
}

/// `POST /v1/queues/NAME/pause` and `resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseReply {
    /// Whether no turn is given now.
    pub paused: bool,
    /// Whether that was different before.
    pub changed: bool,
}

/// `POST /v1/jobs/NAME/move`: what is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// To another queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// Another priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// True: it stands aside until it is released; false: it does not any more, also if it waited for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<bool>,
    /// Not before this moment (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// Before all others of its priority.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
    /// Behind all others of its priority.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}
