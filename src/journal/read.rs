//! Reading beside the writer: for clients that ask what has happened. Never touches the writer.

use std::fs;
use std::path::Path;

use super::JournalError;
use super::line::{Line, Read, decode, head};
use super::segment::{self, pieces};

/// At most `max` lines after number `after`, in order. A line that is being written is not there yet;
/// one that cannot be read is left out. The newest lines may not be durable yet: a caller who must not
/// tell of those compares with the last durable number.
///
/// # Errors
/// If a segment cannot be read.
pub fn read_since(state_dir: &Path, after: u64, max: usize) -> Result<Vec<Line>, JournalError> {
    let segments = segment::list(&segment::dir(state_dir))?;
    // The last segment that begins at or before the wanted line, and all behind it.
    let from = segments.partition_point(|segment| segment.first <= after.saturating_add(1)).saturating_sub(1);
    let mut lines: Vec<Line> = Vec::new();
    for segment in segments.iter().skip(from) {
        let path = &segment.path;
        let data = fs::read(path).map_err(JournalError::io("read", path))?;
        for piece in pieces(&data[start(&data, after)..]) {
            if lines.len() >= max {
                return Ok(lines);
            }
            let known = lines.last().map_or(after, |line| line.seq);
            let wanted = piece.whole && head(piece.bytes).is_some_and(|head| head.seq > known);
            if wanted && let Read::Good(line) = decode(piece.bytes) {
                lines.push(line);
            }
        }
    }
    Ok(lines)
}

/// Where to begin to look for the line after number `after`: at or a little before it. Numbers grow, so
/// this looks at a few lines only; a client that follows the log asks again for each new line.
fn start(data: &[u8], after: u64) -> usize {
    let (mut low, mut high) = (0, data.len());
    while high - low > 4096 {
        let middle = low + (high - low) / 2;
        let line = data[middle..high].iter().position(|byte| *byte == b'\n').map(|i| middle + i + 1);
        let next = line.and_then(|at| pieces(&data[at..high]).next().map(|piece| (at, piece)));
        match next.and_then(|(at, piece)| Some((at, head(piece.bytes)?.seq))) {
            Some((at, seq)) if seq <= after => low = at,
            Some(_) => high = middle,
            // A long line, or one that cannot be read: from here on every line is looked at.
            None => break,
        }
    }
    low
}
