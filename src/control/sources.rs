//! The files behind the interface: captured output and the event log.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use super::Sources;
use super::events::Expired;
use super::output::{Chunk, OutputReader, Record, Series, Stream};
use crate::core::audit::{self, Deed};
use crate::core::report::StartReport;
use crate::core::state::State;
use crate::journal;
use crate::state_dir::layout::StateDir;
use crate::state_dir::output as files;
use crate::wire::control::EventView;

impl Sources {
    /// The files of a state directory.
    pub(crate) const FILES: Self =
        Self { output: open_output, events: read_events, deeds: read_deeds, starts: read_starts };
}

fn read_events(state_dir: &Path, since: u64, max: usize) -> io::Result<Vec<EventView>> {
    match journal::read_since(state_dir, since, max).map_err(io::Error::other)? {
        journal::Since::Lines(lines) => lines.into_iter().map(view).collect(),
        journal::Since::Expired { oldest } => Err(io::Error::other(Expired { oldest })),
    }
}

fn read_starts(state_dir: &Path) -> io::Result<Vec<StartReport>> {
    StateDir(state_dir.to_owned()).read_startup_log()
}

/// Entries of the event log that are lived through at a time.
const BLOCK: usize = 4096;

fn read_deeds(state_dir: &Path, until: u64, max: usize) -> io::Result<VecDeque<Deed>> {
    let (mut state, mut deeds, mut seq) = (State::new(), VecDeque::new(), 0);
    while seq < until {
        let lines = match journal::read_since(state_dir, seq, BLOCK).map_err(io::Error::other)? {
            journal::Since::Lines(lines) => lines,
            // What is no longer kept is not lived through: a state from before it is not told.
            journal::Since::Expired { oldest } => {
                seq = oldest.saturating_sub(1);
                continue;
            }
        };
        let Some(last) = lines.last() else { break };
        seq = last.seq;
        for line in lines.iter().filter(|line| line.seq <= until) {
            let (at, generation, events) = (line.entry.at, line.entry.generation, &line.entry.events);
            let entry = audit::Entry { seq: line.seq, at, generation, events };
            deeds.extend(audit::live_through(&mut state, &entry));
        }
        deeds.drain(..deeds.len().saturating_sub(max));
    }
    Ok(deeds)
}

fn view(line: journal::Line) -> io::Result<EventView> {
    let events = line.entry.events.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    Ok(EventView { seq: line.seq, at: line.entry.at.rfc3339(), events: events.map_err(io::Error::other)? })
}

/// Opens the output directory of a run.
fn open_output(dir: &Path) -> io::Result<Box<dyn OutputReader>> {
    Ok(Box::new(files::Reader::open(dir)?))
}

const fn series(series: Series) -> files::Series {
    match series {
        Series::Merged => files::Series::Merged,
        Series::Of(Stream::Stdout) => files::Series::Stdout,
        Series::Of(Stream::Stderr) => files::Series::Stderr,
    }
}

const fn stream(stream: files::Stream) -> Stream {
    match stream {
        files::Stream::Stdout => Stream::Stdout,
        files::Stream::Stderr => Stream::Stderr,
    }
}

impl OutputReader for files::Reader {
    fn refresh(&mut self) -> io::Result<()> {
        Self::refresh(self)
    }

    fn series(&self) -> Vec<Series> {
        let ours = |found| match found {
            files::Series::Merged => Series::Merged,
            files::Series::Stdout => Series::Of(Stream::Stdout),
            files::Series::Stderr => Series::Of(Stream::Stderr),
        };
        Self::series(self).into_iter().map(ours).collect()
    }

    fn first_offset(&self, of: Series) -> u64 {
        Self::first_offset(self, series(of))
    }

    fn end_offset(&self, of: Series) -> u64 {
        Self::end_offset(self, series(of))
    }

    fn read_at(&mut self, of: Series, offset: u64, max: usize) -> io::Result<Chunk> {
        let chunk = Self::read_at(self, series(of), offset, max)?;
        Ok(Chunk { offset: chunk.offset, data: chunk.data })
    }

    fn records(&mut self, of: Series, from: u64, to: u64) -> io::Result<Vec<Record>> {
        let found = Self::records(self, series(of), from, to)?;
        // Dropped bytes are in no file.
        let kept = found.into_iter().filter(|record| !record.is_dropped());
        Ok(kept
            .map(|record| Record {
                offset: record.offset,
                len: record.len.into(),
                stream: stream(record.stream),
                boot_us: record.boot_us,
                wall_us: record.wall_us,
            })
            .collect())
    }

    fn tail_offset(&mut self, of: Series, lines: u64) -> io::Result<u64> {
        Self::tail_offset(self, series(of), usize::try_from(lines).unwrap_or(usize::MAX))
    }

    fn since_offset(&mut self, of: Series, wall_us: i64) -> io::Result<u64> {
        Self::since_offset(self, series(of), wall_us)
    }
}
