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
    let from = segments.partition_point(|segment| segment.first <= after + 1).saturating_sub(1);
    let mut lines: Vec<Line> = Vec::new();
    for segment in segments.iter().skip(from) {
        let path = &segment.path;
        let data = fs::read(path).map_err(JournalError::io("read", path))?;
        for piece in pieces(&data) {
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
