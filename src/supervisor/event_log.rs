//! The journal, on a thread of its own: a disk that does not answer must not silence the control socket.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use tokio::sync::oneshot;

use crate::core::event::Event;
use crate::core::ids::Generation;
use crate::core::time::Stamp;
use crate::journal::{Journal, JournalError};

/// The events of one decision, and when it was made.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) at: Stamp,
    pub(super) events: Vec<Event>,
}

type Answer = oneshot::Sender<Result<u64, JournalError>>;

/// The way to the thread.
#[derive(Debug)]
pub(super) struct EventLog {
    batches: Sender<(Vec<Entry>, Answer)>,
}

/// Why a batch is not durable.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// The journal says why.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The thread is gone.
    #[error("the journal's thread has ended")]
    Gone,
}

impl EventLog {
    /// Gives the journal to its thread.
    pub(super) fn start(mut journal: Journal, generation: Generation) -> std::io::Result<Self> {
        let (batches, receive) = channel::<(Vec<Entry>, Answer)>();
        std::thread::Builder::new().name("journal".to_owned()).stack_size(256 * 1024).spawn(move || {
            for (entries, answer) in receive {
                let decisions = entries.into_iter().map(|entry| (entry.at, entry.events));
                let result = journal.append(generation, decisions);
                // Nobody waits any more only if the loop has ended.
                let _ = answer.send(result);
            }
        })?;
        Ok(Self { batches })
    }

    /// Makes a batch durable with one write and one sync; the last sequence number.
    pub(super) async fn append(&self, entries: Vec<Entry>) -> Result<u64, AppendError> {
        let (answer, result) = oneshot::channel();
        self.batches.send((entries, answer)).map_err(|_| AppendError::Gone)?;
        Ok(result.await.map_err(|_| AppendError::Gone)??)
    }
}

/// Reads everything there is into `apply`.
pub(super) fn open(
    dir: &Path,
    apply: impl FnMut(&crate::journal::Line),
) -> Result<(Journal, crate::journal::OpenReport), JournalError> {
    Journal::open(dir, apply)
}
