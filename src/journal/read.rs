//! Reading beside the writer: for clients that ask what has happened. Never touches the writer.

use std::path::Path;

use super::JournalError;
use super::fs::{Fs, RealFs};
use super::line::{self, Line};
use super::old;
use super::sealed;
use super::segment::{Dirs, list};

/// What has happened after some line.
#[derive(Debug, Clone, PartialEq)]
pub enum Since {
    /// The lines, in order.
    Lines(Vec<Line>),
    /// The line after it is no longer kept.
    Expired {
        /// The oldest that is.
        oldest: u64,
    },
}

/// At most `max` lines after number `after`, in order. A line that is being written is not there yet;
/// one that cannot be read is left out, and so is one that says nothing. The newest lines may not be
/// durable yet: a caller who must not tell of those compares with the last durable number.
///
/// # Errors
/// If a segment cannot be read.
pub fn read_since(state_dir: &Path, after: u64, max: usize) -> Result<Since, JournalError> {
    let (fs, dirs) = (RealFs, Dirs::of(state_dir));
    let (segments, _) = list(&fs, &dirs.journal)?;
    if let Some(oldest) = segments.first().map(|segment| segment.number)
        && oldest > after.saturating_add(1)
    {
        return Ok(Since::Expired { oldest });
    }
    // The last segment that begins at or before the wanted line, and all behind it.
    let from =
        segments.partition_point(|segment| segment.number <= after.saturating_add(1)).saturating_sub(1);
    let mut lines: Vec<Line> = Vec::new();
    for (i, segment) in segments.iter().enumerate().skip(from) {
        let limit = segments.get(i + 1).map_or(u64::MAX, |next| next.number);
        let data = match fs.read(&segment.path) {
            Ok(data) => data,
            // Too old meanwhile: whoever asks again is told so.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(JournalError::io("read", &segment.path)(e)),
        };
        let known = lines.last().map_or(after, |line| line.seq);
        for (offset, bytes) in whole_lines(&data, start(&data, known)) {
            if lines.len() >= max {
                return Ok(Since::Lines(lines));
            }
            let known = lines.last().map_or(after, |line| line.seq);
            if offset > 0 && number(bytes).is_some_and(|seq| seq <= known) {
                continue;
            }
            if let Some(line) = decode(bytes)
                && line.seq > known
                && line.seq < limit
                && !line.entry.events.is_empty()
            {
                lines.push(line);
            }
        }
    }
    Ok(Since::Lines(lines))
}

/// Lines that a newline ends, from a place on, with where they are.
fn whole_lines(data: &[u8], from: usize) -> impl Iterator<Item = (usize, &[u8])> {
    let mut offset = from;
    data.get(from..).unwrap_or_default().split_inclusive(|byte| *byte == b'\n').filter_map(move |piece| {
        let at = offset;
        offset += piece.len();
        piece.strip_suffix(b"\n").map(|bytes| (at, bytes))
    })
}

/// The number in a line of either layout, unproved.
fn number(bytes: &[u8]) -> Option<u64> {
    let rest = bytes.strip_prefix(b"{\"v\":2,\"seq\":").map(line::number);
    rest.map_or_else(|| old::seq(bytes), |found| found.map(|(seq, _)| seq))
}

fn decode(bytes: &[u8]) -> Option<Line> {
    match sealed::unseal(bytes) {
        Some(sealed) => line::parse(&sealed)?.line().ok(),
        None => old::decode(bytes).ok(),
    }
}

/// Where to begin to look for the line after number `after`: at or a little before it. Numbers grow, so
/// this looks at a few lines only; a client that follows the log asks again for each new line.
fn start(data: &[u8], after: u64) -> usize {
    let (mut low, mut high) = (0, data.len());
    while high - low > 4096 {
        let middle = low + (high - low) / 2;
        let line = data[middle..high].iter().position(|byte| *byte == b'\n').map(|i| middle + i + 1);
        let next = line.and_then(|at| whole_lines(&data[..high], at).next());
        match next.and_then(|(at, bytes)| Some((at, number(bytes)?))) {
            Some((at, seq)) if seq <= after => low = at,
            Some(_) => high = middle,
            // A long line, or one that cannot be read: from here on every line is looked at.
            None => break,
        }
    }
    low
}
