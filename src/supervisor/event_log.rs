//! The journal, on a thread of its own: a disk that does not answer must not silence the control socket.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use tokio::sync::oneshot;

use crate::journal::{Entry, Journal, JournalError, Line, OpenReport};

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
    pub(super) fn start(mut journal: Journal) -> std::io::Result<Self> {
        let (batches, receive) = channel::<(Vec<Entry>, Answer)>();
        std::thread::Builder::new().name("journal".to_owned()).stack_size(256 * 1024).spawn(move || {
            for (entries, answer) in receive {
                // Nobody waits any more only if the loop has ended.
                let _ = answer.send(journal.append(&entries));
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
    state_dir: &Path,
    apply: impl FnMut(&Line),
) -> Result<(Journal, OpenReport), JournalError> {
    Journal::open(state_dir, apply)
}
