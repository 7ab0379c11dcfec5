//! The lines as they are in the files, one after the other, with a word about what cannot be read.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::super::fs::{Fs, RealFs};
use super::super::recover::in_order;
use super::super::scan::{Piece, scan};
use super::super::segment::{Dirs, Named, list};
use super::super::{JournalError, line, old};
use crate::core::ids::Generation;
use crate::core::time::Stamp;

/// What is met on the way.
#[derive(Debug)]
pub enum Item<'a> {
    /// A line that counts.
    Line(Text<'a>),
    /// Bytes that are no line.
    Damage {
        /// Where.
        file: &'a Path,
        /// From which byte on.
        offset: u64,
        /// How many.
        bytes: u64,
        /// What is wrong.
        why: &'a str,
    },
    /// Numbers that have no line: the first and the last.
    Missing(u64, u64),
}

/// A line, its events as they were written.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// Its number.
    pub seq: u64,
    /// When it was written.
    pub at: Stamp,
    /// By which supervisor.
    pub generation: Generation,
    /// All of it, without its newline; a wrong bit is put right.
    pub bytes: &'a [u8],
}

/// Hands over every line from number `from` on that counts, in order, until told to stop.
///
/// # Errors
/// If a segment cannot be read.
pub fn lines(
    state_dir: &Path,
    from: u64,
    on_item: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
) -> Result<(), JournalError> {
    lines_on(&RealFs, &Dirs::of(state_dir), from, on_item)
}

pub(in crate::journal) fn lines_on(
    fs: &dyn Fs,
    dirs: &Dirs,
    from: u64,
    on_item: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
) -> Result<(), JournalError> {
    let (segments, _) = list(fs, &dirs.journal)?;
    let skipped = segments.partition_point(|segment| segment.number <= from).saturating_sub(1);
    let mut walk = Walk { from, last: None, crc: None, on_item };
    for (i, segment) in segments.iter().enumerate().skip(skipped) {
        let limit = segments.get(i + 1).map_or(u64::MAX, |next| next.number);
        let data = match fs.read(&segment.path) {
            Ok(data) => data,
            // It was too old meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(JournalError::io("read", &segment.path)(e)),
        };
        let done = if old::is_old(&data) {
            walk.old_segment(segment, &data, limit)
        } else {
            walk.segment(segment, &data, limit)
        };
        if done.is_break() {
            break;
        }
    }
    Ok(())
}

struct Walk<'w> {
    from: u64,
    /// Number and checksum of the last line that counts.
    last: Option<u64>,
    crc: Option<u32>,
    on_item: &'w mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
}

impl Walk<'_> {
    fn segment(&mut self, segment: &Named, data: &[u8], limit: u64) -> ControlFlow<()> {
        let pieces = scan(data, self.crc);
        let raws: Vec<_> = pieces
            .iter()
            .map(|piece| piece.good.as_ref().filter(|good| !good.is_header()))
            .map(|good| good.and_then(|good| line::parse(&good.sealed())))
            .collect();
        for at in in_order(&raws) {
            let piece = &pieces[at];
            let Some(good) = &piece.good else {
                self.damage(&segment.path, piece, "no whole line")?;
                continue;
            };
            let Some(raw) = &raws[at] else {
                if !good.is_header() {
                    self.damage(&segment.path, piece, "a whole line of something else")?;
                }
                continue;
            };
            if raw.seq >= limit || self.last.is_some_and(|last| raw.seq <= last) {
                continue;
            }
            let follows = self.last.is_some_and(|last| raw.seq == last + 1);
            if follows && self.crc.is_some_and(|crc| crc != good.prev) {
                self.damage(&segment.path, piece, "it was written behind another line")?;
                continue;
            }
            let text = Text { seq: raw.seq, at: raw.at, generation: raw.generation, bytes: &good.bytes };
            self.line(text)?;
            self.crc = Some(good.crc);
        }
        ControlFlow::Continue(())
    }

    fn old_segment(&mut self, segment: &Named, data: &[u8], limit: u64) -> ControlFlow<()> {
        let mut offset = 0;
        for bytes in data.split_inclusive(|byte| *byte == b'\n') {
            let piece = Piece { offset, len: bytes.len(), good: None };
            offset += bytes.len();
            let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            match old::decode(bytes) {
                Ok(line) if line.seq >= limit || self.last.is_some_and(|last| line.seq <= last) => {}
                Ok(line) => {
                    let (at, generation) = (line.entry.at, line.entry.generation);
                    self.line(Text { seq: line.seq, at, generation, bytes })?;
                    self.crc = None;
                }
                Err(why) => self.damage(&segment.path, &piece, &why)?,
            }
        }
        ControlFlow::Continue(())
    }

    fn line(&mut self, text: Text<'_>) -> ControlFlow<()> {
        let expected = self.last.map_or(self.from, |last| last + 1);
        let known = self.last.is_some();
        self.last = Some(text.seq);
        if text.seq < self.from {
            return ControlFlow::Continue(());
        }
        if known && text.seq > expected {
            (self.on_item)(Item::Missing(expected.max(self.from), text.seq - 1))?;
        }
        (self.on_item)(Item::Line(text))
    }

    fn damage(&mut self, file: &Path, piece: &Piece<'_>, why: &str) -> ControlFlow<()> {
        let (offset, bytes) = (piece.offset as u64, piece.len as u64);
        (self.on_item)(Item::Damage { file, offset, bytes, why })
    }
}

/// Bytes of damage, as they are told.
impl Item<'_> {
    /// What is wrong, in words; `None` for a line.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        match self {
            Self::Line(_) => None,
            Self::Damage { file, offset, bytes, why } => {
                Some(format!("{} at {offset}, {bytes} bytes: {why}", PathBuf::from(file).display()))
            }
            Self::Missing(first, last) if first == last => Some(format!("line {first} is missing")),
            Self::Missing(first, last) => Some(format!("lines {first} to {last} are missing")),
        }
    }
}
