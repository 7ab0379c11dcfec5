//! The files behind the routes: captured output and the event log, as they lie in the state directory.

use std::io;
use std::path::Path;

use super::output::{Chunk, OutputReader, Record, Series, Stream};
use crate::core::time::Stamp;
use crate::state_dir::output::{self as on_disk, Reader};
use crate::wire::control::EventView;

struct Files(Reader);

const fn to_disk(series: Series) -> on_disk::Series {
    match series {
        Series::Merged => on_disk::Series::Merged,
        Series::Of(Stream::Stdout) => on_disk::Series::Stdout,
        Series::Of(Stream::Stderr) => on_disk::Series::Stderr,
    }
}

const fn from_disk(series: on_disk::Series) -> Series {
    match series {
        on_disk::Series::Merged => Series::Merged,
        on_disk::Series::Stdout => Series::Of(Stream::Stdout),
        on_disk::Series::Stderr => Series::Of(Stream::Stderr),
    }
}

impl OutputReader for Files {
    fn refresh(&mut self) -> io::Result<()> {
        self.0.refresh()
    }

    fn series(&self) -> Vec<Series> {
        self.0.series().into_iter().map(from_disk).collect()
    }

    fn first_offset(&self, series: Series) -> u64 {
        self.0.first_offset(to_disk(series))
    }

    fn end_offset(&self, series: Series) -> u64 {
        self.0.end_offset(to_disk(series))
    }

    fn read_at(&mut self, series: Series, offset: u64, max: usize) -> io::Result<Chunk> {
        let chunk = self.0.read_at(to_disk(series), offset, max)?;
        Ok(Chunk { offset: chunk.offset, data: chunk.data })
    }

    fn records(&mut self, series: Series, from: u64, to: u64) -> io::Result<Vec<Record>> {
        let records = self.0.records(to_disk(series), from, to)?;
        // Records of bytes that were thrown away describe no bytes of the files.
        let kept = records.into_iter().filter(|record| !record.is_dropped());
        Ok(kept
            .map(|record| Record {
                offset: record.offset,
                len: u64::from(record.len),
                stream: match record.stream {
                    on_disk::Stream::Stdout => Stream::Stdout,
                    on_disk::Stream::Stderr => Stream::Stderr,
                },
                boot_us: record.boot_us,
                wall_us: record.wall_us,
            })
            .collect())
    }

    fn tail_offset(&mut self, series: Series, lines: u64) -> io::Result<u64> {
        self.0.tail_offset(to_disk(series), usize::try_from(lines).unwrap_or(usize::MAX))
    }

    fn since_offset(&mut self, series: Series, wall_us: i64) -> io::Result<u64> {
        self.0.since_offset(to_disk(series), wall_us)
    }
}

/// Opens a run's captured output; `NotFound` while it has none.
///
/// # Errors
///
/// What the file system says.
pub fn open_output(dir: &Path) -> io::Result<Box<dyn OutputReader>> {
    Ok(Box::new(Files(Reader::open(dir)?)))
}

/// Reads at most `max` lines of the event log after a sequence number.
///
/// # Errors
///
/// What the file system says.
pub fn read_events(state_dir: &Path, since: u64, max: usize) -> io::Result<Vec<EventView>> {
    let lines = crate::journal::read_since(state_dir, since, max).map_err(io::Error::other)?;
    lines
        .into_iter()
        .map(|line| {
            let events = line.entry.events.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
            Ok(EventView { seq: line.seq, at: Stamp::rfc3339(line.entry.at), events })
        })
        .collect()
}
