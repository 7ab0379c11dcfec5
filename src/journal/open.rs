//! Opening: every line is read once, in order; a torn tail is cut; damage is set aside and reported.
//!
//! Any step may be the last one before a crash. Bytes are copied to quarantine, durably, before they are
//! cut; a copy that is there already is not made again; and reading changes nothing else. So opening
//! after a crash within opening comes to the same end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::line::{Line, Read, decode, head};
use super::segment::{self, Piece, Segment, pieces};
use super::{Journal, JournalError, VERSION};

/// Bytes that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What is wrong with them.
    pub why: String,
    /// The copy of them in quarantine.
    pub copy: PathBuf,
}

/// What was found at opening.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenReport {
    /// Lines read.
    pub lines: u64,
    /// Number of the last line; 0 if there is none.
    pub last_seq: u64,
    /// What was cut off the end: a write that a crash interrupted, never acknowledged.
    pub torn: Option<Damage>,
    /// What was skipped elsewhere. Something is missing from memory.
    pub damaged: Vec<Damage>,
    /// First and last of each range of numbers that is missing.
    pub missing: Vec<(u64, u64)>,
    /// Lines whose number had been there before; ignored.
    pub repeated: u64,
}

/// Opens the log of a state directory, or begins one; hands every line to `on_line`, in order.
pub(super) fn open(
    state_dir: &Path,
    on_line: &mut dyn FnMut(&Line),
) -> Result<(Journal, OpenReport), JournalError> {
    let dir = segment::dir(state_dir);
    segment::make_dir(&dir)?;
    let mut report = OpenReport::default();
    let segments = segment::list(&dir)?;
    let Some((newest, older)) = segments.split_last() else {
        let (file, segment) = segment::create(&dir, 1)?;
        return Ok((Journal::new(dir, file, segment.path, (0, 0)), report));
    };
    let quarantine = state_dir.join("quarantine");
    for (segment, next) in older.iter().zip(&segments[1..]) {
        let limit = Some(next.first);
        let mut reading = Reading { segment, limit, quarantine: &quarantine, report: &mut report, on_line };
        let (_, tail) = reading.run()?;
        report.damaged.extend(tail);
    }
    // What a killed predecessor wrote but did not sync is read here from memory; it must not be acted
    // upon before it is on the disk.
    let file = segment::open(newest)?;
    file.sync_data().map_err(JournalError::io("sync", &newest.path))?;
    let mut reading =
        Reading { segment: newest, limit: None, quarantine: &quarantine, report: &mut report, on_line };
    let (whole, tail) = reading.run()?;
    if let Some(damage) = tail {
        cut(&file, &newest.path, whole)?;
        report.torn = Some(damage);
    }
    let last = report.last_seq;
    Ok((Journal::new(dir, file, newest.path.clone(), (whole, last)), report))
}

fn cut(file: &File, path: &Path, len: u64) -> Result<(), JournalError> {
    file.set_len(len).map_err(JournalError::io("cut", path))?;
    file.sync_all().map_err(JournalError::io("sync", path))
}

struct Reading<'a> {
    segment: &'a Segment,
    /// The number at which the next segment begins.
    limit: Option<u64>,
    quarantine: &'a Path,
    report: &'a mut OpenReport,
    on_line: &'a mut dyn FnMut(&Line),
}

impl Reading<'_> {
    /// Reads one segment. Returns its length up to the end of the last whole line, and what follows.
    /// What follows is damage like any other in a segment that is not the newest.
    fn run(&mut self) -> Result<(u64, Option<Damage>), JournalError> {
        let path = &self.segment.path;
        let data = fs::read(path).map_err(JournalError::io("read", path))?;
        let mut whole = 0;
        // Unreadable pieces are damage only if a readable one follows.
        let mut pending: Option<(usize, String)> = None;
        let mut all = pieces(&data).peekable();
        while let Some(piece) = all.next() {
            let read =
                if piece.whole { decode(piece.bytes) } else { Read::Bad { why: "cut short".to_owned() } };
            match read {
                Read::Good(line) => {
                    self.flush(&data, &mut pending, piece.offset)?;
                    if self.leaps(line.seq, all.peek()) {
                        let why = "its number is out of order".to_owned();
                        let damage = self.set_aside(piece.bytes, piece.offset, why)?;
                        self.report.damaged.push(damage);
                    } else {
                        self.line(&line);
                    }
                    whole = piece.offset + piece.len;
                }
                Read::Foreign { v, seq, why } => {
                    self.flush(&data, &mut pending, piece.offset)?;
                    // A later build writes on in its layout: one of ours behind it means a damaged digit.
                    let ours = all
                        .peek()
                        .is_some_and(|next| matches!(head(next.bytes), Some(head) if head.v <= VERSION));
                    if v > VERSION && !ours {
                        return Err(JournalError::Newer { path: path.clone(), version: v });
                    }
                    self.foreign(&piece, (seq, why))?;
                    whole = piece.offset + piece.len;
                }
                Read::Bad { why } => {
                    pending.get_or_insert((piece.offset, why));
                }
            }
        }
        let tail = pending.map(|(from, why)| self.set_aside(&data[from..], from, why)).transpose()?;
        Ok((whole as u64, tail))
    }

    /// Whether a number is larger than what follows allows: one damaged digit must not make every later
    /// line look like a repetition.
    fn leaps(&self, seq: u64, next: Option<&Piece<'_>>) -> bool {
        seq > self.report.last_seq + 1
            && (self.limit.is_some_and(|limit| seq >= limit)
                || next.and_then(|piece| head(piece.bytes)).is_some_and(|next| next.seq <= seq))
    }

    /// The unreadable stretch before `to` is damage.
    fn flush(
        &mut self,
        data: &[u8],
        pending: &mut Option<(usize, String)>,
        to: usize,
    ) -> Result<(), JournalError> {
        if let Some((from, why)) = pending.take() {
            let damage = self.set_aside(&data[from..to], from, why)?;
            self.report.damaged.push(damage);
        }
        Ok(())
    }

    fn foreign(&mut self, piece: &Piece<'_>, (seq, why): (u64, String)) -> Result<(), JournalError> {
        let damage = self.set_aside(piece.bytes, piece.offset, why)?;
        self.report.damaged.push(damage);
        // Its number is spent even if it cannot be read, but a damaged number must not move ours far.
        if seq == self.report.last_seq + 1 {
            self.report.last_seq = seq;
            self.report.missing.push((seq, seq));
        }
        Ok(())
    }

    fn line(&mut self, line: &Line) {
        let last = self.report.last_seq;
        if line.seq <= last {
            self.report.repeated += 1;
            return;
        }
        if line.seq > last + 1 {
            self.report.missing.push((last + 1, line.seq - 1));
        }
        self.report.last_seq = line.seq;
        self.report.lines += 1;
        (self.on_line)(line);
    }

    fn set_aside(&self, bytes: &[u8], offset: usize, why: String) -> Result<Damage, JournalError> {
        let copy = keep_copy(self.quarantine, self.segment, (offset, bytes))?;
        let segment = self.segment.path.clone();
        Ok(Damage { segment, offset: offset as u64, bytes: bytes.len() as u64, why, copy })
    }
}

/// Copies bytes to quarantine, durably. The name says where they were; the same place may be damaged
/// more than once, so a number follows if other bytes have that name already.
fn keep_copy(
    quarantine: &Path,
    of: &Segment,
    (offset, bytes): (usize, &[u8]),
) -> Result<PathBuf, JournalError> {
    segment::make_dir(quarantine)?;
    let base = format!("journal-{:020}.{offset}-{}", of.first, bytes.len());
    for n in 0u32.. {
        let name = if n == 0 { base.clone() } else { format!("{base}.{n}") };
        let path = quarantine.join(name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                file.write_all(bytes).map_err(JournalError::io("write", &path))?;
                file.sync_all().map_err(JournalError::io("sync", &path))?;
                segment::sync_dir(quarantine)?;
                return Ok(path);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read(&path).is_ok_and(|known| known == bytes) {
                    return Ok(path);
                }
            }
            Err(e) => return Err(JournalError::io("create", &path)(e)),
        }
    }
    Err(JournalError::io("create", quarantine)(io::ErrorKind::AlreadyExists.into()))
}
