//! One run as its worker sees it: two FIFOs, and one series of files or two.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::core::ids::RunId;
use crate::core::spec::{OnLogStall, OutputMode};
use crate::state_dir::output::{Series, Stream};

use super::sink::{Sink, Taken, Tools, Turn};
use super::{AddRun, Counters, Totals};

/// How a FIFO is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// Reported as long as there is something to take.
    Level,
    /// Nobody holds it: a hang-up, which would be reported without end, is told once, and so is a writer
    /// that comes back.
    Edge,
    /// Its bytes have nowhere to go: only the hang-up is told, once.
    Quiet,
}

/// One stream of a run.
#[derive(Debug)]
pub(super) struct Fifo {
    pub(super) fd: OwnedFd,
    pub(super) stream: Stream,
    /// Number of its sink in [`Run::sinks`].
    pub(super) sink: usize,
    pub(super) watch: Watch,
    /// Nobody holds the writing end.
    pub(super) gone: bool,
}

/// A run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) fifos: [Fifo; 2],
    pub(super) sinks: Vec<Sink>,
    pub(super) drops: bool,
    /// Whether its job has opened the FIFOs, as far as we know: then "nobody holds it" is an end.
    pub(super) opened: bool,
    pub(super) told_gone: bool,
    pub(super) told_stall: bool,
    counters: Arc<Counters>,
}

impl Run {
    pub(super) fn new(add: AddRun, counters: Arc<Counters>) -> Self {
        let AddRun { run: id, output_dir, settings, stdout, stderr, resumed } = add;
        let sink = |series| Sink::new(&output_dir, series, &settings);
        let sinks = match settings.mode {
            OutputMode::Separate => vec![sink(Series::Stdout), sink(Series::Stderr)],
            // Without capture the job writes to /dev/null; should bytes come all the same, they are kept.
            OutputMode::Merged | OutputMode::None => vec![sink(Series::Merged)],
        };
        let fifo = |fd, stream, sink| Fifo { fd, stream, sink, watch: Watch::Level, gone: false };
        let second = sinks.len() - 1;
        Self {
            id,
            fifos: [fifo(stdout, Stream::Stdout, 0), fifo(stderr, Stream::Stderr, second)],
            sinks,
            drops: settings.on_log_stall == OnLogStall::Drop,
            opened: resumed,
            told_gone: false,
            told_stall: false,
            counters,
        }
    }

    /// Publishes the counters and returns them.
    pub(super) fn count(&self) -> Totals {
        let dropped = self.sinks.iter().map(Sink::dropped).sum();
        self.counters.stdout.store(self.sinks.first().map_or(0, Sink::end), Ordering::Relaxed);
        self.counters.stderr.store(self.sinks.get(1).map_or(0, Sink::end), Ordering::Relaxed);
        self.counters.dropped.store(dropped, Ordering::Relaxed);
        self.counters.read()
    }

    /// Moves up to `quota` bytes of one FIFO.
    pub(super) fn take(&mut self, which: usize, quota: usize, tools: &mut Tools) -> Taken {
        let (Some(fifo), Some(other)) = (self.fifos.get(which), self.fifos.get(1 - which)) else {
            return Taken::Nothing;
        };
        let Some(sink) = self.sinks.get_mut(fifo.sink) else { return Taken::Nothing };
        let other = (other.sink == fifo.sink).then_some(&other.fd);
        sink.take(Turn { fifo: &fifo.fd, stream: fifo.stream, other, quota }, tools)
    }

    /// The first error for which the disk refuses.
    pub(super) fn stalled(&self) -> Option<i32> {
        self.sinks.iter().find_map(Sink::stalled)
    }

    pub(super) fn has_unwritten_records(&self) -> bool {
        self.sinks.iter().any(Sink::has_unwritten_records)
    }
}
