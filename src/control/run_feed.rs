//! One run's output as a sequence of pieces, each with its place, its stream and its time.
//!
//! A run has one series of files with both streams in it, or one series for each stream. Each series is a
//! lane. A lane reads a block of bytes and cuts it along the index; two lanes are merged by the index's
//! boot clock. What the index does not cover is passed on without a label at the end of a finished run.
//! While the run lives such bytes are held back for a moment, because the index entry is written right
//! after the bytes.
//!
//! Everything here blocks on files and runs on tokio's blocking pool.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::output::{OutputReader, Record, Series, Stream};

/// Bytes read from a lane at a time: large enough to be cheap, small enough that 256 connections are too.
const BLOCK: usize = 128 * 1024;

/// How long bytes without an index entry wait for one while the run lives.
const HOLD: Duration = Duration::from_millis(500);

/// Consecutive bytes of one series, one stream and one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) series: Series,
    pub(crate) stream: Option<Stream>,
    pub(crate) wall_us: Option<i64>,
    pub(crate) data: Vec<u8>,
    order: u64,
}

/// Where to begin or end: one offset for each series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Offsets {
    pub(crate) merged: Option<u64>,
    pub(crate) stdout: Option<u64>,
    pub(crate) stderr: Option<u64>,
}

impl Offsets {
    pub(crate) fn get(self, series: Series) -> Option<u64> {
        match series {
            Series::Merged => self.merged,
            Series::Of(Stream::Stdout) => self.stdout,
            Series::Of(Stream::Stderr) => self.stderr,
        }
    }

    pub(crate) fn set(&mut self, series: Series, offset: u64) {
        match series {
            Series::Merged => self.merged = Some(offset),
            Series::Of(Stream::Stdout) => self.stdout = Some(offset),
            Series::Of(Stream::Stderr) => self.stderr = Some(offset),
        }
    }
}

/// What is wanted of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Choice {
    /// Only this stream.
    pub(crate) only: Option<Stream>,
    /// Whether pieces must be labelled: for events and for timestamps.
    pub(crate) labels: bool,
    /// Where to begin; the first byte still there for a series not named.
    pub(crate) from: Offsets,
    /// Where to end; never for a series not named.
    pub(crate) to: Offsets,
    /// Lines to leave out at the beginning.
    pub(crate) skip_lines: u64,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// More may come.
    Live,
    /// What is there is all there will be.
    Over,
}

pub(crate) struct RunFeed {
    reader: Box<dyn OutputReader>,
    choice: Choice,
    lanes: Vec<Lane>,
}

struct Lane {
    series: Series,
    next: u64,
    queue: VecDeque<Piece>,
    held: Option<(u64, Instant)>,
}

impl RunFeed {
    pub(crate) fn new(reader: Box<dyn OutputReader>, choice: Choice) -> Self {
        Self { reader, choice, lanes: Vec::new() }
    }

    /// The next pieces in order, about a block; none when there is nothing more at present.
    pub(crate) fn step(&mut self, life: Life) -> io::Result<Vec<Piece>> {
        self.reader.refresh()?;
        self.find_lanes();
        let (mut out, mut bytes) = (Vec::new(), 0);
        while bytes < BLOCK {
            for lane in &mut self.lanes {
                if lane.queue.is_empty() {
                    lane.fill(self.reader.as_mut(), &self.choice, life)?;
                }
            }
            let first = self.lanes.iter_mut().filter(|lane| !lane.queue.is_empty());
            let Some(lane) = first.min_by_key(|lane| lane.queue.front().map_or(0, |p| p.order)) else {
                break;
            };
            let Some(piece) = lane.queue.pop_front() else { break };
            if let Some(piece) = self.wanted(piece) {
                bytes += piece.data.len();
                out.push(piece);
            }
        }
        Ok(out)
    }

    fn find_lanes(&mut self) {
        for series in self.reader.series() {
            let other = matches!((series, self.choice.only), (Series::Of(s), Some(only)) if s != only);
            if other || self.lanes.iter().any(|lane| lane.series == series) {
                continue;
            }
            let first = self.reader.first_offset(series);
            let next = self.choice.from.get(series).unwrap_or(first).max(first);
            self.lanes.push(Lane { series, next, queue: VecDeque::new(), held: None });
        }
    }

    /// Applies the stream filter and the lines to leave out.
    fn wanted(&mut self, mut piece: Piece) -> Option<Piece> {
        if let (Some(only), Series::Merged) = (self.choice.only, piece.series)
            && piece.stream.unwrap_or(Stream::Stdout) != only
        {
            return None;
        }
        if self.choice.skip_lines > 0 {
            let mut cut = piece.data.len();
            for (at, _) in piece.data.iter().enumerate().filter(|(_, b)| **b == b'\n') {
                self.choice.skip_lines -= 1;
                if self.choice.skip_lines == 0 {
                    cut = at + 1;
                    break;
                }
            }
            piece.data.drain(..cut);
            piece.offset += cut as u64;
        }
        (!piece.data.is_empty()).then_some(piece)
    }
}

impl Lane {
    fn fill(&mut self, reader: &mut dyn OutputReader, choice: &Choice, life: Life) -> io::Result<()> {
        let end = choice.to.get(self.series).unwrap_or(u64::MAX);
        if self.next >= end {
            return Ok(());
        }
        let max = usize::try_from(end - self.next).unwrap_or(BLOCK).min(BLOCK);
        let chunk = reader.read_at(self.series, self.next, max)?;
        if chunk.data.is_empty() || chunk.offset >= end {
            return Ok(());
        }
        let mut data = chunk.data;
        data.truncate(usize::try_from(end - chunk.offset).unwrap_or(usize::MAX));
        // The index decides about the stream, the time, and the order of two series.
        let indexed = choice.labels
            || choice.only.is_some() && self.series == Series::Merged
            || choice.only.is_none() && self.series != Series::Merged;
        if !indexed {
            self.next = chunk.offset + data.len() as u64;
            self.queue.push_back(Piece::new(self.series, chunk.offset, data, None));
            return Ok(());
        }
        let records = reader.records(self.series, chunk.offset, chunk.offset + data.len() as u64)?;
        let labelled = cut(self.series, chunk.offset, &data, &records, &mut self.queue);
        self.next = chunk.offset + labelled as u64;
        if labelled < data.len() && (labelled == 0 || life == Life::Over) && self.may_pass(life) {
            let rest = data.split_off(labelled);
            let (offset, order) = (self.next, self.queue.back().map_or(0, |p| p.order));
            self.next += rest.len() as u64;
            self.queue.push_back(Piece { order, ..Piece::new(self.series, offset, rest, None) });
        }
        Ok(())
    }

    /// Whether bytes at `next` that have no index entry have waited long enough for one.
    fn may_pass(&mut self, life: Life) -> bool {
        match self.held {
            _ if life == Life::Over => true,
            Some((at, since)) if at == self.next => since.elapsed() >= HOLD,
            _ => {
                self.held = Some((self.next, Instant::now()));
                false
            }
        }
    }
}

impl Piece {
    fn new(series: Series, offset: u64, data: Vec<u8>, record: Option<&Record>) -> Self {
        let known = match series {
            Series::Merged => record.map(|r| r.stream),
            Series::Of(stream) => Some(stream),
        };
        Self {
            offset,
            series,
            stream: known,
            wall_us: record.map(|r| r.wall_us),
            data,
            order: record.map_or(0, |r| r.boot_us),
        }
    }

    /// One past its last byte.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// Cuts `data`, which begins at `offset`, along `records`; a hole between two records becomes a piece
/// without a label. Answers how many bytes that took; the rest comes after the last record.
fn cut(series: Series, offset: u64, data: &[u8], records: &[Record], out: &mut VecDeque<Piece>) -> usize {
    let mut done = 0;
    for record in records {
        let index =
            |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX).min(data.len());
        let (begin, end) = (index(record.offset).max(done), index(record.offset.saturating_add(record.len)));
        if end <= begin {
            continue;
        }
        if begin > done {
            let hole = Piece::new(series, offset + done as u64, data[done..begin].to_vec(), None);
            out.push_back(Piece { order: record.boot_us, ..hole });
        }
        let piece = Piece::new(series, offset + begin as u64, data[begin..end].to_vec(), Some(record));
        // Small writes of one stream in the same millisecond travel together.
        match out.back_mut() {
            Some(last) if last.joins(&piece) => last.data.extend_from_slice(&piece.data),
            _ => out.push_back(piece),
        }
        done = end;
    }
    done
}

impl Piece {
    fn joins(&self, next: &Self) -> bool {
        let ms = |piece: &Self| piece.wall_us.map(|us| us.div_euclid(1000));
        self.stream == next.stream
            && self.wall_us.is_some()
            && ms(self) == ms(next)
            && self.end() == next.offset
    }
}
