//! The journal's thread as the loop sees it: a disk that does not answer must not silence the control
//! socket.

use tokio::sync::oneshot;

use crate::core::state::State;
use crate::journal::{Answer, Entry, Journal, JournalError, Writer};

/// The way to the thread.
#[derive(Debug)]
pub(super) struct EventLog {
    writer: Writer,
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
    pub(super) fn start(journal: Journal) -> std::io::Result<Self> {
        Ok(Self { writer: Writer::start(journal)? })
    }

    /// Makes a batch durable with one write and one sync; the last sequence number.
    pub(super) async fn append(&self, entries: Vec<Entry>) -> Result<u64, AppendError> {
        self.ask(|answer| self.writer.submit(&entries, answer)).await
    }

    /// Tries to write again after an error; the last durable sequence number. What had failed before
    /// will then never be read.
    pub(super) async fn heal(&self) -> Result<u64, AppendError> {
        self.ask(|answer| self.writer.heal(answer)).await
    }

    /// Ends in order: a checkpoint of everything, for a quick start next time. If the files do not give one, the
    /// memory does, which knows everything up to line `seq`.
    pub(super) async fn finish(&self, state: State, seq: u64) {
        let Err(error) = self.ask(|answer| self.writer.checkpoint(answer)).await else { return };
        let why = match self.keep_memory(state, seq).await {
            Ok(seq) => return tracing::warn!(seq, "the checkpoint at the end is one of the memory: {error}"),
            Err(why) => why,
        };
        tracing::warn!("no checkpoint at the end: {error}; {why}");
    }

    /// Makes a checkpoint of the memory, which knows everything up to line `seq`; the line it covers.
    pub(super) async fn keep_memory(&self, state: State, seq: u64) -> Result<u64, AppendError> {
        self.ask(|answer| self.writer.checkpoint_of(state, seq, answer)).await
    }

    /// Asks for a checkpoint made of files.
    pub(super) fn checkpoint(&self, answer: Answer) {
        self.writer.checkpoint(answer);
    }

    /// Whether files have been found, since this was asked last, that read otherwise than they were written.
    pub(super) fn found_unreadable(&self) -> bool {
        self.writer.found_unreadable()
    }

    /// Asks for a checkpoint made of the memory itself, which knows everything up to line `seq`.
    pub(super) fn checkpoint_of(&self, state: State, seq: u64, answer: Answer) {
        self.writer.checkpoint_of(state, seq, answer);
    }

    /// Ended runs to remember for each job, from now on.
    pub(super) fn keep_runs(&self, keep: usize) {
        self.writer.keep_runs(keep);
    }

    /// Writes not another byte: another supervisor does.
    pub(super) fn abandon(&self) {
        self.writer.abandon();
    }

    async fn ask(&self, what: impl FnOnce(Answer)) -> Result<u64, AppendError> {
        let (tell, told) = oneshot::channel();
        // Nobody waits any more only if the loop has ended.
        what(Box::new(move |result| drop(tell.send(result))));
        Ok(told.await.map_err(|_| AppendError::Gone)??)
    }
}
