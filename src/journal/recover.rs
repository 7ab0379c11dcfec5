//! Reading what is there, after whatever has happened to it. Writes nothing: what is to be kept aside and
//! where to go on is a value, for whoever wants to go on.
//!
//! The newest segment may end in an unfinished write, or in one that was finished and not yet synced.
//! Nobody was told of those. As a write begins only after the one before is durable, they are all of one
//! batch: the one with the highest `b` in the newest segment. So missing numbers from there on are a torn
//! tail, and below there they are a loss. In an older segment the name of the next one says how far it
//! was durable.

use std::path::{Path, PathBuf};

use super::checkpoint::{self, Loaded, Unusable};
use super::fs::Fs;
use super::line::{self, Line, Raw};
use super::planted::{Fault, planted};
use super::report::{Damage, Kind, Report};
use super::scan::{Piece, scan};
use super::segment::{Dirs, Header, Named, list};
use super::{JournalError, old};
use crate::core::ids::Generation;
use crate::core::state::State;
use crate::core::time::Stamp;

/// The lines of the newest batch: they may be in memory only, and go into the next segment once more.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    pub(super) first: u64,
    batch: u64,
    pub(super) prev: u32,
    pub(super) bytes: Vec<u8>,
}

/// Bytes to be kept aside before anything may change them.
#[derive(Debug)]
pub(super) struct Aside {
    /// Which of the report's entries it belongs to.
    pub(super) damage: usize,
    pub(super) bytes: Vec<u8>,
}

/// What was read, and what is needed to go on from there.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) state: State,
    pub(super) report: Report,
    /// Number of the last line applied.
    pub(super) applied: u64,
    /// Its checksum; `None` if it is missing.
    pub(super) crc: Option<u32>,
    /// Stamp and writer of the last line.
    pub(super) at: Stamp,
    pub(super) generation: Generation,
    pub(super) tail: Option<Tail>,
    pub(super) aside: Vec<Aside>,
    /// A segment of the first layout whose end may not be durable.
    pub(super) unsynced: Option<PathBuf>,
    /// Bytes of lines applied.
    pub(super) bytes: u64,
    /// Length of the checkpoint that was used; 0 if there is none.
    pub(super) checkpoint_bytes: u64,
    /// Checkpoints that are of no use, to be removed once they are kept aside.
    pub(super) spoilt: Vec<PathBuf>,
    until: u64,
    /// Whether what the lines say matters.
    remembers: bool,
    covered: u64,
    /// Whether anything could be read at all.
    understood: bool,
}

/// Where one segment ends.
struct Bounds<'a> {
    segment: &'a Named,
    /// The number from which the next segment counts.
    limit: u64,
    newest: bool,
    /// Missing numbers from here on were never acknowledged.
    torn_from: u64,
}

/// A stretch of damage not yet understood.
struct Bad {
    from: usize,
    to: usize,
    why: String,
}

impl Reading {
    pub(super) fn new(state: State, until: Option<u64>) -> Self {
        Self {
            state,
            report: Report::default(),
            applied: 0,
            crc: Some(0),
            at: Stamp::default(),
            generation: Generation::default(),
            tail: None,
            aside: Vec::new(),
            unsynced: None,
            bytes: 0,
            checkpoint_bytes: 0,
            spoilt: Vec::new(),
            until: until.unwrap_or(u64::MAX),
            remembers: true,
            covered: 0,
            understood: false,
        }
    }

    /// Takes the newest checkpoint that can be used.
    fn checkpoint(&mut self, fs: &dyn Fs, dirs: &Dirs) -> Result<(), JournalError> {
        let (checkpoints, unfinished) = list(fs, &dirs.checkpoints)?;
        self.report.unfinished += unfinished.len() as u64;
        let until = self.until;
        for file in checkpoints.iter().rev().filter(|file| file.number <= until) {
            match checkpoint::load(fs, file, &self.state) {
                Ok(loaded) => {
                    self.go_on_behind(loaded);
                    return Ok(());
                }
                Err(Unusable::Damaged(why)) => self.spoilt(file, fs.read(&file.path).ok(), why),
                Err(Unusable::Fatal(JournalError::Io { source, .. })) => {
                    self.spoilt(file, None, source.to_string());
                }
                Err(Unusable::Fatal(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Goes on from a checkpoint.
    pub(super) fn go_on_behind(&mut self, loaded: Loaded) {
        let Loaded { state, behind, bytes, mended, .. } = loaded;
        self.state = state;
        self.covered = behind.seq;
        self.applied = behind.seq;
        self.crc = Some(behind.crc);
        self.at = behind.at;
        self.generation = behind.generation;
        self.understood = true;
        self.checkpoint_bytes = bytes;
        self.report.checkpoint = Some(behind.seq);
        for (damage, bytes) in mended {
            self.report.mended += 1;
            self.aside.push(Aside { damage: self.report.damage.len(), bytes });
            self.report.damage.push(damage);
        }
    }

    /// A checkpoint that cannot be used. One that cannot even be read stays where it is.
    fn spoilt(&mut self, file: &Named, bytes: Option<Vec<u8>>, why: String) {
        let len = bytes.as_ref().map_or(0, Vec::len) as u64;
        if let Some(bytes) = bytes {
            self.aside.push(Aside { damage: self.report.damage.len(), bytes });
            self.spoilt.push(file.path.clone());
        }
        let (file, kind) = (file.path.clone(), Kind::Useless);
        self.report.damage.push(Damage { file, offset: 0, bytes: len, kind, why, copy: None });
    }

    /// Reads the segments of a state directory.
    pub(super) fn segments(
        &mut self,
        fs: &dyn Fs,
        dirs: &Dirs,
        on_line: &mut dyn FnMut(&State, &Line),
    ) -> Result<(), JournalError> {
        let (segments, unfinished) = list(fs, &dirs.journal)?;
        self.report.unfinished += unfinished.len() as u64;
        for (i, segment) in segments.iter().enumerate() {
            let next = segments.get(i + 1).map(|next| next.number);
            if self.covered > 0 && next.is_some_and(|next| next <= self.covered + 1) {
                self.report.covered_segments += 1;
                continue;
            }
            if segment.number > self.until {
                break;
            }
            if segment.number > self.applied + 1 {
                self.lost(segment.number - 1);
            }
            let data = fs.read(&segment.path).map_err(JournalError::io("read", &segment.path))?;
            self.report.segments += 1;
            let limit = next.filter(|_| !planted(Fault::NoSuperseding)).unwrap_or(u64::MAX);
            let mut bounds = Bounds { segment, limit, newest: next.is_none(), torn_from: segment.number };
            if old::is_old(&data) {
                self.old_segment(&data, &bounds, on_line);
            } else {
                self.segment(&data, &mut bounds, on_line)?;
            }
            if let Some(next) = next
                && self.applied + 1 < next
                && self.applied < self.until
            {
                self.lost((next - 1).min(self.until));
            }
        }
        self.report.last_seq = self.applied;
        self.report.unreadable = !self.understood && !self.report.damage.is_empty();
        Ok(())
    }

    fn segment(
        &mut self,
        data: &[u8],
        bounds: &mut Bounds<'_>,
        on_line: &mut dyn FnMut(&State, &Line),
    ) -> Result<(), JournalError> {
        let pieces = scan(data, self.crc);
        let raws = self.understand(&pieces, bounds)?;
        let mut bad: Option<Bad> = None;
        for at in in_order(&raws) {
            let (piece, raw) = (&pieces[at], &raws[at]);
            let end = piece.offset + piece.len;
            let Some(good) = &piece.good else {
                extend(&mut bad, piece, "no whole line");
                continue;
            };
            if good.mended {
                self.report.mended += 1;
                let why = "a wrong bit was put right".to_owned();
                self.damaged(bounds, (piece.offset, end), data, (Kind::Mended, why));
            }
            if good.is_header() {
                if Header::parse(&good.sealed()).is_none_or(|header| header.seg != bounds.segment.number) {
                    let why = "the header of another segment".to_owned();
                    self.damaged(bounds, (piece.offset, end), data, (Kind::Useless, why));
                }
                // It says where the chain goes on if what was before it is missing.
                self.crc = self.crc.or(Some(good.prev));
                continue;
            }
            let Some(raw) = raw else {
                extend(&mut bad, piece, "a whole line of something else");
                continue;
            };
            if raw.seq > self.until {
                break;
            }
            if raw.seq >= bounds.limit {
                self.report.superseded += 1;
                continue;
            }
            if raw.seq <= self.applied {
                if raw.seq > self.covered {
                    self.report.duplicates += 1;
                }
                continue;
            }
            if raw.seq > self.applied + 1 {
                if bounds.newest && self.applied + 1 >= bounds.torn_from {
                    let from = bad.take().map_or(piece.offset, |bad| bad.from);
                    self.torn(bounds, from, data, &pieces);
                    return Ok(());
                }
                self.settle(&mut bad, bounds, data, Kind::Lost);
                self.lost(raw.seq - 1);
            } else if self.crc.is_some_and(|crc| crc != good.prev) && !planted(Fault::ChainIgnored) {
                extend(&mut bad, piece, "it was written behind another line");
                continue;
            } else {
                self.settle(&mut bad, bounds, data, Kind::Useless);
            }
            match raw.line() {
                Ok(line) => {
                    self.keep_tail(raw, good.prev, &good.bytes, bounds);
                    self.apply(&line, on_line);
                }
                Err(why) => {
                    let why = (Kind::Lost, format!("not understood: {why}"));
                    self.damaged(bounds, (piece.offset, end), data, why);
                    self.lost(raw.seq);
                }
            }
            self.crc = Some(good.crc);
            self.bytes += piece.len as u64;
        }
        self.end_of_segment(bad, bounds, data, &pieces);
        Ok(())
    }

    /// Takes every proved line apart, and finds out what in this segment was surely acknowledged.
    fn understand<'p>(
        &mut self,
        pieces: &'p [Piece<'_>],
        bounds: &mut Bounds<'_>,
    ) -> Result<Vec<Option<Raw<'p>>>, JournalError> {
        let mut raws = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let Some(good) = &piece.good else {
                raws.push(None);
                continue;
            };
            self.understood = true;
            let sealed = good.sealed();
            if let Some(version) = line::newer(&sealed) {
                return Err(JournalError::Newer { path: bounds.segment.path.clone(), version });
            }
            if good.is_header() {
                let born = Header::parse(&sealed).filter(|header| header.seg == bounds.segment.number);
                bounds.torn_from =
                    bounds.torn_from.max(born.map_or(0, |header| header.has.saturating_add(1)));
                raws.push(None);
                continue;
            }
            let raw = line::parse(&sealed);
            bounds.torn_from = bounds.torn_from.max(raw.as_ref().map_or(0, |raw| raw.batch));
            raws.push(raw);
        }
        if planted(Fault::NoBatchRule) {
            bounds.torn_from = u64::MAX;
        } else if planted(Fault::AllIsTorn) {
            bounds.torn_from = 0;
        }
        Ok(raws)
    }

    fn end_of_segment(&mut self, bad: Option<Bad>, bounds: &Bounds<'_>, data: &[u8], pieces: &[Piece<'_>]) {
        let mut bad = bad;
        if bounds.newest && self.applied + 1 < bounds.torn_from && self.applied < self.until {
            self.settle(&mut bad, bounds, data, Kind::Lost);
            self.lost(bounds.torn_from - 1);
        }
        let missing = !bounds.newest && self.applied + 1 < bounds.limit && self.applied < self.until;
        if missing {
            self.settle(&mut bad, bounds, data, Kind::Lost);
        } else if let Some(bad) = bad {
            self.torn(bounds, bad.from, data, pieces);
        }
    }

    /// The lines of the batch that may not be durable.
    fn keep_tail(&mut self, raw: &Raw<'_>, prev: u32, bytes: &[u8], bounds: &Bounds<'_>) {
        if !bounds.newest {
            return;
        }
        let tail = self.tail.get_or_insert_default();
        if tail.bytes.is_empty() || tail.batch != raw.batch {
            (tail.first, tail.batch, tail.prev) = (raw.seq, raw.batch, prev);
            tail.bytes.clear();
        }
        tail.bytes.extend_from_slice(bytes);
        tail.bytes.push(b'\n');
    }

    fn apply(&mut self, line: &Line, on_line: &mut dyn FnMut(&State, &Line)) {
        let Line { seq, entry } = line;
        on_line(&self.state, line);
        let half = planted(Fault::HalfALine);
        let events = entry.events.iter().take(if half { 1 } else { usize::MAX });
        for event in events.filter(|_| self.remembers) {
            self.state.apply(event, entry.at);
        }
        if entry.generation < self.generation {
            self.report.stale_writers += 1;
        }
        self.understood = true;
        self.generation = self.generation.max(entry.generation);
        self.at = entry.at;
        self.applied = *seq;
        self.report.lines += 1;
    }

    /// Notes that everything up to `last` is missing.
    fn lost(&mut self, last: u64) {
        let first = self.applied + 1;
        match self.report.lost.last_mut() {
            Some(range) if range.1 + 1 == first => range.1 = last,
            _ => self.report.lost.push((first, last)),
        }
        self.state.missed(last.saturating_sub(self.applied));
        self.applied = last;
        self.crc = None;
        self.tail = None;
    }

    fn settle(&mut self, bad: &mut Option<Bad>, bounds: &Bounds<'_>, data: &[u8], kind: Kind) {
        if let Some(Bad { from, to, why }) = bad.take() {
            self.damaged(bounds, (from, to), data, (kind, why));
        }
    }

    /// Everything from here to the end of the segment was never acknowledged.
    fn torn(&mut self, bounds: &Bounds<'_>, from: usize, data: &[u8], pieces: &[Piece<'_>]) {
        let lines = pieces.iter().filter(|piece| piece.offset >= from && piece.good.is_some()).count();
        self.report.torn_lines += lines as u64;
        self.report.torn_bytes += (data.len() - from) as u64;
        let why = (Kind::Torn, "an unfinished write".to_owned());
        self.damaged(bounds, (from, data.len()), data, why);
    }

    fn damaged(
        &mut self,
        bounds: &Bounds<'_>,
        (from, to): (usize, usize),
        data: &[u8],
        (kind, why): (Kind, String),
    ) {
        assert!(!planted(Fault::PanicsOnDamage), "planted");
        self.aside.push(Aside { damage: self.report.damage.len(), bytes: data[from..to].to_vec() });
        self.report.damage.push(Damage {
            file: bounds.segment.path.clone(),
            offset: from as u64,
            bytes: (to - from) as u64,
            kind,
            why,
            copy: None,
        });
    }

    /// A segment of the first layout. Unreadable pieces are damage only if something readable follows.
    fn old_segment(&mut self, data: &[u8], bounds: &Bounds<'_>, on_line: &mut dyn FnMut(&State, &Line)) {
        self.report.older_layout = true;
        if bounds.newest {
            self.unsynced = Some(bounds.segment.path.clone());
        }
        let mut bad: Option<Bad> = None;
        let mut offset = 0;
        for bytes in data.split_inclusive(|byte| *byte == b'\n') {
            let piece = Piece { offset, len: bytes.len(), good: None };
            offset += bytes.len();
            let whole = bytes.strip_suffix(b"\n").ok_or_else(|| "cut short".to_owned());
            let line = match whole.and_then(old::decode) {
                Ok(line) => line,
                Err(why) => {
                    extend(&mut bad, &piece, &why);
                    continue;
                }
            };
            if line.seq >= bounds.limit {
                // A damaged digit: the name of the next segment says how far the numbers go.
                extend(&mut bad, &piece, "its number is out of order");
                continue;
            }
            if line.seq <= self.applied {
                self.report.duplicates += u64::from(line.seq > self.covered);
                continue;
            }
            if line.seq > self.until {
                break;
            }
            let gap = line.seq > self.applied + 1;
            self.settle(&mut bad, bounds, data, if gap { Kind::Lost } else { Kind::Useless });
            if gap {
                self.lost(line.seq - 1);
            }
            self.apply(&line, on_line);
            self.crc = Some(crc32c::crc32c(bytes));
            self.bytes += bytes.len() as u64;
        }
        self.end_of_segment(bad, bounds, data, &[]);
    }
}

/// The places of all pieces, with lines that something has moved about put in the order of their numbers.
pub(super) fn in_order(raws: &[Option<Raw<'_>>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..raws.len()).collect();
    let lines: Vec<usize> = order.iter().copied().filter(|at| raws[*at].is_some()).collect();
    let seq = |at: &usize| raws[*at].as_ref().map(|raw| raw.seq);
    if !lines.is_sorted_by_key(seq) {
        let mut sorted = lines.clone();
        sorted.sort_by_key(seq);
        for (slot, at) in lines.into_iter().zip(sorted) {
            order[slot] = at;
        }
    }
    order
}

fn extend(bad: &mut Option<Bad>, piece: &Piece<'_>, why: &str) {
    let end = piece.offset + piece.len;
    match bad {
        Some(bad) => bad.to = end,
        None => *bad = Some(Bad { from: piece.offset, to: end, why: why.to_owned() }),
    }
}

/// Reads a state directory from its beginning, or up to a line. Writes nothing.
pub(super) fn read(
    fs: &dyn Fs,
    state_dir: &Path,
    state: State,
    until: Option<u64>,
    on_line: &mut dyn FnMut(&State, &Line),
) -> Result<Reading, JournalError> {
    let dirs = Dirs::of(state_dir);
    let mut reading = Reading::new(state, until);
    reading.checkpoint(fs, &dirs)?;
    reading.segments(fs, &dirs, on_line)?;
    Ok(reading)
}

/// Reads every segment there is, whatever checkpoints cover: what is wrong in the history. Remembers nothing.
pub(super) fn read_all(fs: &dyn Fs, dirs: &Dirs) -> Result<Reading, JournalError> {
    let mut reading = Reading::new(State::new(), None);
    reading.remembers = false;
    let first = list(fs, &dirs.journal)?.0.first().map_or(1, |segment| segment.number);
    if first > 1 {
        reading.applied = first - 1;
        reading.crc = None;
    }
    reading.segments(fs, dirs, &mut |_, _| {})?;
    Ok(reading)
}
