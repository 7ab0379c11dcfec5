//! The writer, without its thread: one batch at a time, each durable or the end of writing.
//!
//! A write or sync that fails leaves unknown how much of it is on the disk, and the kernel reports success
//! the next time. So the file is never touched again. [`Journal::heal`] begins a new one, named by the
//! number after the last durable line: from there on it counts instead of whatever the old one holds.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::fold::Folding;
use super::fs::{Appending, Fs};
use super::line::{self, Body, Entry};
use super::open::{Born, Opening};
use super::planted::{Fault, planted};
use super::report::Report;
use super::segment::{self, Dirs, Header, Why};
use super::{BALLAST_BYTES, JournalError, SEGMENT_BYTES, UNFOLDED_BYTES};
use crate::core::ids::Generation;
use crate::core::time::Stamp;

/// The open log. There is one writer, held off from a second by the lock of the state directory.
#[derive(Debug)]
pub struct Journal {
    fs: Arc<dyn Fs>,
    dirs: Dirs,
    open: Option<Open>,
    /// Number and checksum of the last durable line.
    durable: u64,
    crc: u32,
    /// Number of the last line that is no mark.
    decided: u64,
    /// Stamp and writer of the last line, for lines and headers of our own.
    by: (Stamp, Generation),
    /// The last batch was a mark.
    marked: bool,
    /// What is left to be done before the first write.
    opening: Option<Opening>,
    /// The error that ended writing, once there was one.
    poisoned: Option<String>,
    /// Bytes of lines since the last checkpoint was begun, and its length.
    unfolded: u64,
    checkpoint_bytes: u64,
    /// Something is not what was written: a checkpoint is due whatever there is to fold.
    damaged: bool,
    folding: Folding,
    /// Bytes after which the open segment is followed by another.
    pub(super) segment_bytes: u64,
}

/// The open segment.
#[derive(Debug)]
struct Open {
    file: Box<dyn Appending>,
    first: u64,
    len: u64,
    sum: Sha256,
    /// Lines that are no marks.
    lines: u64,
}

impl Open {
    fn new(born: Born) -> Self {
        let Born { file, first, bytes } = born;
        let mut sum = Sha256::new();
        sum.update(&bytes);
        Self { file, first, len: bytes.len() as u64, sum, lines: 0 }
    }
}

impl Journal {
    pub(super) fn begin(mut opening: Opening, report: &mut Report) -> Self {
        let born = opening.run(report);
        let (durable, crc) = opening.last();
        let mut this = Self {
            fs: opening.fs(),
            dirs: opening.dirs(),
            open: None,
            durable,
            crc,
            decided: durable,
            by: opening.by,
            marked: false,
            unfolded: opening.unfolded,
            checkpoint_bytes: opening.checkpoint_bytes,
            damaged: opening.damaged,
            folding: opening.folding(),
            opening: Some(opening),
            poisoned: None,
            segment_bytes: SEGMENT_BYTES,
        };
        match born {
            Ok(born) => this.opened(born),
            Err(error) => this.poison(&error),
        }
        this
    }

    fn opened(&mut self, born: Born) {
        self.open = Some(Open::new(born));
        self.opening = None;
        self.poisoned = None;
        self.put_ballast();
    }

    /// Number of the last durable line; 0 if there is none.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.durable
    }

    /// Number of the last durable line that is no mark; of one that was there at the beginning it may be one.
    pub(super) const fn last_decision(&self) -> u64 {
        self.decided
    }

    /// Checksum of that line.
    pub(super) const fn last_crc(&self) -> u32 {
        self.crc
    }

    /// Stamp and writer of that line.
    pub(super) const fn by(&self) -> (Stamp, Generation) {
        self.by
    }

    /// The error that ended writing, if one has.
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Appends decisions with one write and one sync, and returns the number of the last line. When this
    /// returns, they survive a power cut.
    ///
    /// # Errors
    /// After any error but [`JournalError::Encode`] and [`JournalError::Poisoned`] it is unknown whether
    /// the lines will be there if this process dies now. After [`Journal::heal`] they are surely not.
    pub fn append(&mut self, entries: &[Entry]) -> Result<u64, JournalError> {
        let mut batch = Batch::new(self.durable, self.crc);
        batch.add(&bodies(entries)?);
        self.commit(&batch)
    }

    /// Makes a batch durable that was begun behind the last durable line.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<u64, JournalError> {
        if let Some(first) = &self.poisoned {
            return Err(JournalError::Poisoned { first: first.clone() });
        }
        if batch.bytes.is_empty() {
            return Ok(self.durable);
        }
        if self.open.as_ref().is_some_and(|open| open.len >= self.segment_bytes) {
            self.rotate()?;
        }
        let Some(open) = &mut self.open else {
            return Err(JournalError::Poisoned { first: "no segment is open".to_owned() });
        };
        let path = self.dirs.segment(open.first);
        let written = put(&mut *open.file, &batch.bytes, &path);
        if let Err(error) = written {
            self.poison(&error);
            return Err(error);
        }
        open.len += batch.bytes.len() as u64;
        open.sum.update(&batch.bytes);
        self.unfolded += batch.bytes.len() as u64;
        open.lines += batch.decisions;
        self.durable = batch.last;
        self.crc = batch.crc;
        self.by = batch.by.unwrap_or(self.by);
        self.marked = batch.decisions == 0;
        if !self.marked {
            self.decided = self.durable;
        }
        Ok(self.durable)
    }

    /// Writes a line that says nothing, as a batch of its own: from then on the batch before it is surely
    /// no unfinished write. Does nothing if there is none to speak of.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn mark(&mut self) -> Result<(), JournalError> {
        if !self.wants_mark() {
            return Ok(());
        }
        let batch = Batch::mark(self.durable, self.crc, self.by)?;
        self.commit(&batch).map(drop)
    }

    /// Whether the last batch could still be taken for an unfinished write.
    pub(super) fn wants_mark(&self) -> bool {
        let written = self.open.as_ref().is_some_and(|open| open.lines > 0);
        written && !self.marked && self.poisoned.is_none()
    }

    /// Ends the open segment and begins the next. An empty one is left as it is.
    ///
    /// # Errors
    /// If the disk refuses. Nothing more is written then, as after a failed write.
    pub fn rotate(&mut self) -> Result<(), JournalError> {
        let Some(open) = self.open.as_ref().filter(|open| open.first <= self.durable) else { return Ok(()) };
        let mut header = Header::new(self.durable + 1, Why::Rotate, self.by);
        header.prev_len = Some(open.len);
        header.prev_sha256 = Some(hex(&open.sum.clone().finalize()));
        self.next_segment(&header).inspect_err(|error| self.poison(error))?;
        self.put_ballast();
        Ok(())
    }

    /// Tries to write again after an error, in a new segment. On success nothing of the batch that failed
    /// will ever be read.
    ///
    /// # Errors
    /// If the disk still refuses.
    pub fn heal(&mut self) -> Result<(), JournalError> {
        if self.poisoned.is_none() {
            return Ok(());
        }
        // Space is what is missing most often.
        let _ = self.fs.unlink(&self.dirs.state.join(BALLAST));
        if planted(Fault::SyncRetried) && self.open.is_some() {
            self.poisoned = None;
            return Ok(());
        }
        if let Some(mut opening) = self.opening.take() {
            let born = opening.run(&mut Report::default());
            self.opening = Some(opening);
            self.opened(born?);
            return Ok(());
        }
        self.next_segment(&Header::new(self.durable + 1, Why::Heal, self.by))?;
        self.poisoned = None;
        Ok(())
    }

    /// How to make a checkpoint of what is here.
    #[must_use]
    pub fn folding(&self) -> Folding {
        self.folding.clone()
    }

    /// Whether so much has been written since the last checkpoint that another is due.
    pub(super) const fn wants_checkpoint(&self) -> bool {
        let half = self.checkpoint_bytes / 2;
        let most = if half > UNFOLDED_BYTES { half } else { UNFOLDED_BYTES };
        (self.unfolded > most || self.damaged) && self.durable > 0
    }

    /// Notes that a checkpoint was begun, the last one having this length.
    pub(super) fn checkpoint_begun(&mut self, last_bytes: u64) {
        self.unfolded = 0;
        self.damaged = false;
        self.checkpoint_bytes = last_bytes.max(self.checkpoint_bytes);
    }

    fn next_segment(&mut self, header: &Header) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        segment::seal_value(&mut bytes, header, self.crc)?;
        let file = segment::be_born(&*self.fs, &self.dirs.segment(header.seg), &bytes)?;
        self.open = Some(Open::new(Born { file, first: header.seg, bytes }));
        Ok(())
    }

    /// Puts another file in the place of the open segment: a test's way to a disk that refuses.
    #[cfg(test)]
    pub(super) fn write_to(&mut self, path: &str) {
        use super::fs::RealFs;
        if let Some(open) = &mut self.open {
            open.file = RealFs.create(std::path::Path::new(path)).unwrap();
            open.len = 0;
        }
    }

    fn poison(&mut self, error: &JournalError) {
        if self.poisoned.is_none() {
            self.poisoned = Some(error.in_words());
        }
    }

    /// Keeps some space back, for the moment when there is none.
    fn put_ballast(&self) {
        let path = self.dirs.state.join(BALLAST);
        if self.fs.size(&path).is_ok_and(|size| size >= BALLAST_BYTES) {
            return;
        }
        // Never the last space: that is what it is for.
        if self.fs.free(&self.dirs.state).is_ok_and(|free| free < 4 * BALLAST_BYTES) {
            return;
        }
        let put = self.fs.create(&path).and_then(|mut file| file.allocate(BALLAST_BYTES));
        if put.is_err() {
            let _ = self.fs.unlink(&path);
        }
    }
}

pub(super) const BALLAST: &str = "ballast";

fn put(file: &mut dyn Appending, bytes: &[u8], path: &std::path::Path) -> Result<(), JournalError> {
    file.append(bytes).map_err(JournalError::io("write", path))?;
    if planted(Fault::AckBeforeSync) {
        return Ok(());
    }
    file.sync().map_err(JournalError::io("sync", path))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Lines on their way to one write and one sync.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Number of the first line.
    first: u64,
    /// Number and checksum of the last line, or of the one before the first.
    pub(super) last: u64,
    pub(super) crc: u32,
    by: Option<(Stamp, Generation)>,
    /// Lines that are no marks.
    pub(super) decisions: u64,
}

impl Batch {
    /// An empty one behind a line.
    pub(super) fn new(last: u64, crc: u32) -> Self {
        Self { first: last + 1, last, crc, ..Self::default() }
    }

    /// A line that says nothing.
    pub(super) fn mark(
        last: u64,
        crc: u32,
        (at, generation): (Stamp, Generation),
    ) -> Result<Self, JournalError> {
        let mut batch = Self::new(last, crc);
        batch.add(&bodies(&[Entry { at, generation, events: Vec::new() }])?);
        batch.decisions = 0;
        Ok(batch)
    }

    /// Adds lines.
    pub(super) fn add(&mut self, bodies: &[Body]) {
        for body in bodies {
            self.last += 1;
            self.crc = line::encode(&mut self.bytes, (self.last, self.first), body, self.crc);
        }
        self.decisions += bodies.len() as u64;
        self.by = bodies.last().map(Body::by).or(self.by);
    }
}

/// Decisions as bytes: all, or the first error.
pub(super) fn bodies(entries: &[Entry]) -> Result<Vec<Body>, JournalError> {
    entries.iter().map(Body::of).collect()
}
