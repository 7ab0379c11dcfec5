//! Reading captured output while it is written, rotated, compressed and deleted.
//!
//! A reader holds no lock and can hold nobody up. It works from a listing of the directory that is out of
//! date at any moment; whenever a file is not what the listing says, it lists again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::index::{IndexFile, Record};
use super::source::Source;
use super::{Found, Series, scan, segments, unpacked_len};
use crate::sys::disk;

/// How often a moving directory is listed again within one call. Each time is one rotation or compression
/// that happened in the microseconds since the last listing.
const PATIENCE: u32 = 8;

/// How much of a plain segment is looked at in one step when searching backwards.
const STEP: u64 = 64 * 1024;

/// A stretch of captured bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Offset of the first byte: higher than asked if older bytes are gone.
    pub offset: u64,
    /// The bytes; empty at the end.
    pub data: Vec<u8>,
}

/// Reads one run's output.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    tracks: Vec<Track>,
    open: Option<Open>,
}

/// One series as last listed.
#[derive(Debug)]
struct Track {
    series: Series,
    segments: Vec<Found>,
    end: u64,
}

/// Which segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    series: Series,
    start: u64,
}

/// The segment read last, kept open because the next read most likely goes on there.
#[derive(Debug)]
struct Open {
    place: Place,
    source: Source,
}

impl Reader {
    /// Opens an `output` directory. One that does not exist yet is empty.
    pub fn open(output_dir: &Path) -> io::Result<Self> {
        let mut reader = Self { dir: output_dir.to_owned(), tracks: Vec::new(), open: None };
        reader.refresh()?;
        Ok(reader)
    }

    /// Looks again at what is there: new series, new ends, what is gone.
    pub fn refresh(&mut self) -> io::Result<()> {
        for _ in 0..PATIENCE {
            if self.list()? {
                break;
            }
        }
        Ok(())
    }

    /// The series that have bytes.
    #[must_use]
    pub fn series(&self) -> Vec<Series> {
        self.tracks.iter().map(|t| t.series).collect()
    }

    /// Offset of the oldest byte that is still there, as of the last look.
    #[must_use]
    pub fn first_offset(&self, series: Series) -> u64 {
        self.track(series).and_then(|t| t.segments.first()).map_or(0, |s| s.start)
    }

    /// The offset after the newest byte, as of the last look.
    #[must_use]
    pub fn end_offset(&self, series: Series) -> u64 {
        self.track(series).map_or(0, |t| t.end)
    }

    /// Reads up to `max` bytes from `offset`, at most to the end of a segment. Looks again by itself where
    /// it must, so that calling it in a loop follows the output. Past the end the data is empty.
    pub fn read_at(&mut self, series: Series, offset: u64, max: usize) -> io::Result<Chunk> {
        let mut fresh = false;
        let mut at = offset;
        for _ in 0..PATIENCE {
            let Some((segment, next)) = self.find(series, at) else {
                if fresh {
                    break;
                }
                self.refresh()?;
                fresh = true;
                continue;
            };
            at = at.max(segment.start);
            let place = Place { series, start: segment.start };
            match self.read_segment(place, at - segment.start, max)? {
                Some(data) if !data.is_empty() || max == 0 => return Ok(Chunk { offset: at, data }),
                // The segment is older than another one and has nothing here: its bytes end here.
                Some(_) if fresh && next.is_some() => at = next.unwrap_or(at),
                Some(_) if fresh => break,
                // Deleted, or at its end as far as the last look knows.
                _ => {
                    self.open = None;
                    self.refresh()?;
                    fresh = true;
                }
            }
        }
        Ok(Chunk { offset: at, data: Vec::new() })
    }

    /// The index records that touch the bytes from `from` to before `to`, and the drops in between.
    ///
    /// Bytes after the last record are not attributed yet: the index is written just after the bytes.
    pub fn records(&self, series: Series, from: u64, to: u64) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let Some(file) = self.index(series)? else { return Ok(records) };
        let index = IndexFile::new(&file)?;
        let first = index.partition(|r| if r.is_dropped() { r.offset < from } else { r.end() <= from })?;
        index.each(first, |record| {
            let inside = record.offset < to;
            if inside && record.len > 0 {
                records.push(record);
            }
            inside
        })?;
        Ok(records)
    }

    /// The offset up to which the index tells stream and time.
    pub fn indexed_end(&self, series: Series) -> io::Result<u64> {
        let Some(file) = self.index(series)? else { return Ok(0) };
        let index = IndexFile::new(&file)?;
        Ok(if index.count == 0 { 0 } else { index.get(index.count - 1)?.map_or(0, |r| r.end()) })
    }

    /// The offset from which on the last `n_lines` lines stand. A line without an end, at the end, counts.
    pub fn tail_offset(&mut self, series: Series, n_lines: usize) -> io::Result<u64> {
        self.refresh()?;
        let end = self.end_offset(series);
        if n_lines == 0 || end == 0 {
            return Ok(end);
        }
        let starts: Vec<u64> =
            self.track(series).map(|t| t.segments.iter().map(|s| s.start).collect()).unwrap_or_default();
        let (mut left, mut stop) = (n_lines as u64, end);
        for start in starts.into_iter().rev() {
            if let Some(at) = self.lines_back(Place { series, start }, stop, end, &mut left)? {
                return Ok(at);
            }
            stop = start;
        }
        Ok(self.first_offset(series))
    }

    /// The offset of the first byte captured at or after a moment of the wall clock (microseconds since
    /// 1970), to the precision of the index. The end, if there is none.
    pub fn since_offset(&mut self, series: Series, wall_us: i64) -> io::Result<u64> {
        self.refresh()?;
        let first = self.first_offset(series);
        let Some(file) = self.index(series)? else { return Ok(first) };
        let index = IndexFile::new(&file)?;
        let n = index.partition(|r| r.wall_us < wall_us)?;
        let found = if n < index.count { index.get(n)? } else { None };
        Ok(match found {
            Some(record) => record.offset.max(first),
            // What is not in the index yet was captured just now.
            None => self.indexed_end(series)?.clamp(first, self.end_offset(series).max(first)),
        })
    }

    fn track(&self, series: Series) -> Option<&Track> {
        self.tracks.iter().find(|t| t.series == series)
    }

    /// Lists the directory. False if it changed meanwhile in a way that matters.
    fn list(&mut self) -> io::Result<bool> {
        let names = scan(&self.dir)?;
        self.tracks.clear();
        for series in Series::ALL {
            let segments = segments(&names, series);
            let Some(last) = segments.last() else { continue };
            let measured = if last.plain {
                series.plain(&self.dir, last.start).metadata().map(|m| m.len())
            } else {
                unpacked_len(&series.compressed(&self.dir, last.start))
            };
            let len = match measured {
                Ok(len) => len,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(e),
            };
            let end = last.start.saturating_add(len);
            self.tracks.push(Track { series, segments, end });
        }
        Ok(true)
    }

    /// The segment that holds `offset`, or the first one after it; and where the one after that starts.
    fn find(&self, series: Series, offset: u64) -> Option<(Found, Option<u64>)> {
        let segments = &self.track(series)?.segments;
        let n = segments.partition_point(|s| s.start <= offset).saturating_sub(1);
        let segment = *segments.get(n)?;
        Some((segment, segments.get(n + 1).map(|s| s.start)))
    }

    /// Reads within one segment, `skip` bytes after its start. `None` if it is no longer there.
    fn read_segment(&mut self, place: Place, skip: u64, max: usize) -> io::Result<Option<Vec<u8>>> {
        let kept = self.open.take().filter(|o| o.place == place && o.source.can_go_to(skip));
        let mut open = match kept {
            Some(open) => open,
            None => match Source::open(&self.dir, place.series, place.start)? {
                Some(source) => Open { place, source },
                None => return Ok(None),
            },
        };
        let data = open.source.read(skip, max)?;
        self.open = Some(open);
        Ok(Some(data))
    }

    /// Counts line starts backwards through one segment, the end of which is `stop`. `Some` is the start of
    /// the line that was looked for.
    fn lines_back(&mut self, place: Place, stop: u64, end: u64, left: &mut u64) -> io::Result<Option<u64>> {
        let plain = self
            .track(place.series)
            .is_some_and(|t| t.segments.iter().any(|s| s.start == place.start && s.plain));
        // A compressed segment can only be read forwards: count all of it, and look closer if it is the one.
        let step = if plain { STEP } else { u64::MAX };
        let mut to = stop;
        while to > place.start {
            let from = to.saturating_sub(step).max(place.start);
            let ends = self.count_lines(place, from, to, end)?;
            if ends >= *left {
                return self.nth_line(place, from, to, ends - *left).map(Some);
            }
            *left -= ends;
            to = from;
        }
        Ok(None)
    }

    /// Line ends between two offsets of a segment, but for one that is the very last byte of all.
    fn count_lines(&mut self, place: Place, from: u64, to: u64, end: u64) -> io::Result<u64> {
        let mut count = 0;
        self.each_piece(place, from, to, |at, data| {
            count += data.iter().filter(|&&b| b == b'\n').count() as u64;
            let last = at + data.len() as u64 == end && data.last() == Some(&b'\n');
            count -= u64::from(last);
            true
        })?;
        Ok(count)
    }

    /// The offset behind line end number `n`, from 0, after `from`.
    fn nth_line(&mut self, place: Place, from: u64, to: u64, n: u64) -> io::Result<u64> {
        let (mut left, mut found) = (n, from);
        self.each_piece(place, from, to, |at, data| {
            for (i, _) in data.iter().enumerate().filter(|(_, b)| **b == b'\n') {
                if left == 0 {
                    found = at + i as u64 + 1;
                    return false;
                }
                left -= 1;
            }
            true
        })?;
        Ok(found)
    }

    fn each_piece(
        &mut self,
        place: Place,
        from: u64,
        to: u64,
        mut each: impl FnMut(u64, &[u8]) -> bool,
    ) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let max = usize::try_from(STEP.min(to - at)).unwrap_or(0);
            match self.read_segment(place, at - place.start, max)? {
                Some(data) if !data.is_empty() => {
                    if !each(at, &data) {
                        break;
                    }
                    at += data.len() as u64;
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn index(&self, series: Series) -> io::Result<Option<File>> {
        match disk::open_read(&series.index(&self.dir)) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
