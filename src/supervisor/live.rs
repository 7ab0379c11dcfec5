//! What live runs use, looked up when somebody asks: nobody pays for figures that nobody reads.

use std::path::PathBuf;

use super::handle::{Sample, View};
use super::main_loop::Supervisor;
use crate::core::ids::JobName;
use crate::core::job::Job;
use crate::state_dir::output::Reader;
use crate::sys::sample::{self, Wanted};

/// Where to look.
#[derive(Debug, Clone)]
pub struct Live {
    wanted: Wanted,
    output: PathBuf,
}

/// What a live run uses.
#[derive(Debug, Clone, Copy)]
pub struct JobUsage {
    /// All its processes.
    pub processes: Sample,
    /// Bytes it has written so far, both streams.
    pub output_bytes: u64,
}

impl Supervisor {
    /// Where to look for what a job's live run uses.
    pub(super) fn live(&self, job: &Job) -> Option<Live> {
        let run = job.run()?;
        Some(Live { wanted: self.wanted(run, job)?, output: self.state_dir.run(run).output() })
    }
}

impl View {
    /// What each live run uses: read now, from `/proc` and from the disk.
    #[must_use]
    pub fn usage(&self) -> Vec<(&JobName, JobUsage)> {
        let wanted: Vec<Wanted> = self.live.values().map(|live| live.wanted.clone()).collect();
        let samples = sample::sample(&wanted, true);
        let all = self.live.iter().zip(samples);
        all.filter_map(|((name, live), processes)| {
            let output_bytes = written(live).unwrap_or(0);
            Some((name, JobUsage { processes: processes?, output_bytes }))
        })
        .collect()
    }
}

fn written(live: &Live) -> Option<u64> {
    let reader = Reader::open(&live.output).ok()?;
    Some(reader.series().into_iter().map(|series| reader.end_offset(series)).sum())
}
