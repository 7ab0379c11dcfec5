//! One series of files: where the bytes of one FIFO, or of both, end up.
//!
//! The size of the newest segment is the truth; everything here is derived from it and can be derived
//! again. Rotation creates the next segment before anything happens to the last one, so at every instant
//! the newest file is the one to go on with.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::core::spec::{OnLogStall, Output};
use crate::state_dir::layout::private_dir_all;
use crate::state_dir::output::index::DROPPED;
use crate::state_dir::output::{Name, Series, Stream, scan, segments, unpacked_len};
use crate::sys::splice::{self, Moved, Peek};
use crate::sys::{disk, fifo};

use super::background::{Background, Closed};
use super::index::{Index, Note, Now};

/// How long a disk that refused is left alone, in microseconds. Also how long a deleted file can go
/// unnoticed while bytes arrive; what arrived meanwhile is saved from it.
pub(super) const RETRY_US: u64 = 1_000_000;

/// A segment without a line end is closed after this many bytes more than its limit.
const LINE_MAX: u64 = 1024 * 1024;

/// What all sinks of a worker share.
pub(super) struct Tools {
    pub(super) peek: Peek,
    pub(super) null: File,
    pub(super) background: Background,
}

/// One FIFO's turn.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) fifo: &'a OwnedFd,
    pub(super) stream: Stream,
    /// The FIFO that shares the series, if one does.
    pub(super) other: Option<&'a OwnedFd>,
    /// Most bytes.
    pub(super) quota: usize,
}

/// What one turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Bytes left the pipe, into the file or into nothing. `full`: there may be more in the pipe.
    Bytes { n: u64, full: bool },
    /// The pipe is empty, and somebody can write to it.
    Nothing,
    /// The pipe is empty, and nobody has it open for writing.
    End,
    /// The disk refuses, and the bytes stay in the pipe.
    Refused,
}

/// The disk refuses.
#[derive(Debug, Clone, Copy)]
struct Stall {
    errno: i32,
    retry_at: u64,
}

#[derive(Debug)]
struct Segment {
    file: File,
    start: u64,
    len: u64,
    /// When the file was last seen to have a name, by the boot clock, and its length then.
    seen_at: u64,
    seen_len: u64,
}

/// The files of one series.
#[derive(Debug)]
pub(super) struct Sink {
    dir: PathBuf,
    series: Series,
    settings: Output,
    segment: Option<Segment>,
    /// Starts of the segments before the newest.
    closed: VecDeque<u64>,
    end: u64,
    index: Index,
    /// When the index may be tried again after an error.
    index_retry_at: u64,
    rotate_retry_at: u64,
    stall: Option<Stall>,
    dropped: u64,
}

impl Sink {
    pub(super) fn new(dir: &Path, series: Series, settings: &Output) -> Self {
        Self {
            dir: dir.to_owned(),
            series,
            settings: settings.clone(),
            segment: None,
            closed: VecDeque::new(),
            end: 0,
            index: Index::default(),
            index_retry_at: 0,
            rotate_retry_at: 0,
            stall: None,
            dropped: 0,
        }
    }

    /// The offset after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes thrown away.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The error for which the disk refuses, if it does.
    pub(super) fn stalled(&self) -> Option<i32> {
        self.stall.map(|s| s.errno)
    }

    /// Whether index records wait for a better time to be written.
    pub(super) fn has_unwritten_records(&self) -> bool {
        self.index.is_dirty()
    }

    /// Takes up what an earlier keeper left: positions, closed segments, unfinished compressions.
    pub(super) fn resume(&mut self, tools: &mut Tools, now: Now) {
        let there = scan(&self.dir).is_ok_and(|names| !segments(&names, self.series).is_empty());
        if there && let Err(e) = self.open(tools, now) {
            self.refuse(&e, now);
        }
    }

    /// Moves bytes out of the pipe, into the file or as the policy for a refusing disk says.
    pub(super) fn take(&mut self, turn: Turn<'_>, tools: &mut Tools) -> Taken {
        let now = Now::read();
        let dropping = self.settings.on_log_stall == OnLogStall::Drop;
        if dropping && self.stall.is_some_and(|s| now.boot_us < s.retry_at) {
            return self.discard(turn, tools, now);
        }
        match self.try_take(turn, tools, now) {
            Ok(taken) => {
                if matches!(taken, Taken::Bytes { .. }) {
                    self.stall = None;
                }
                taken
            }
            Err(e) => {
                self.refuse(&e, now);
                if dropping { self.discard(turn, tools, now) } else { Taken::Refused }
            }
        }
    }

    /// Forgets a stall that has nothing left to wait for.
    pub(super) fn forgive(&mut self) {
        self.stall = None;
    }

    /// Writes index records that wait. An error is no harm: they wait on.
    pub(super) fn flush(&mut self) {
        if self.index.is_dirty() {
            let now = Now::read();
            self.write_index(now);
        }
    }

    fn refuse(&mut self, error: &io::Error, now: Now) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        self.stall = Some(Stall { errno, retry_at: now.boot_us + RETRY_US });
    }

    fn try_take(&mut self, turn: Turn<'_>, tools: &mut Tools, now: Now) -> io::Result<Taken> {
        if self.segment.is_none() {
            // No byte, no file.
            match tools.peek.line_end(turn.fifo, 1)? {
                Moved::Bytes(_) => self.open(tools, now)?,
                Moved::Nothing => return Ok(Taken::Nothing),
                Moved::End => return Ok(Taken::End),
            }
        }
        let due = self.is_rotation_due(now) && fifo::queued(turn.fifo)? > 0;
        self.notice_deletion(now, due)?;
        if due {
            self.rotate(tools, now);
        }
        if let Some(other) = turn.other
            && self.index.last_stream() != Some(turn.stream)
        {
            self.change_stream(turn.stream, other, tools, now)?;
        }
        self.splice(turn, tools, now)
    }

    fn splice(&mut self, turn: Turn<'_>, tools: &mut Tools, now: Now) -> io::Result<Taken> {
        let Some(segment) = self.segment.as_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        let limit = if self.settings.max_size == 0 { u64::MAX } else { self.settings.max_size };
        let room = usize::try_from(limit.saturating_sub(segment.len)).unwrap_or(usize::MAX);
        let asked = if room > 0 {
            turn.quota.min(room)
        } else {
            // The line that crosses the limit: exactly its rest, and nothing of the next one.
            match tools.peek.line_end(turn.fifo, turn.quota)? {
                Moved::Bytes(n) => n,
                Moved::Nothing => return Ok(Taken::Nothing),
                Moved::End => return Ok(Taken::End),
            }
        };
        let n = match splice::to_file(turn.fifo, &segment.file, segment.len, asked)? {
            Moved::Bytes(n) => n as u64,
            Moved::Nothing => return Ok(Taken::Nothing),
            Moved::End => return Ok(Taken::End),
        };
        segment.len += n;
        let full = n == asked as u64;
        self.index.note(Note { stream: turn.stream, offset: self.end, len: n, flags: 0 }, now);
        self.end += n;
        // In a flood the next turn comes at once, and one write for several turns will do.
        if !full || room == 0 || self.index.waiting() > 1 {
            self.write_index(now);
        }
        Ok(Taken::Bytes { n, full })
    }

    /// Bytes of the other stream follow. A share, or a keeper's death, may have cut a line of the stream
    /// before: its rest goes first if it is there. Then the index is told, before the bytes move.
    fn change_stream(&mut self, to: Stream, other: &OwnedFd, tools: &mut Tools, now: Now) -> io::Result<()> {
        if let Some(from) = self.index.last_stream()
            && !self.is_at_line_end()
            && let Moved::Bytes(quota) = tools.peek.line_end(other, Peek::MAX)?
        {
            self.splice(Turn { fifo: other, stream: from, other: None, quota }, tools, now)?;
        }
        self.index.announce(to, self.end, now);
        self.write_index(now);
        Ok(())
    }

    fn discard(&mut self, turn: Turn<'_>, tools: &mut Tools, now: Now) -> Taken {
        match splice::to_null(turn.fifo, &tools.null, turn.quota) {
            Ok(Moved::Bytes(n)) => {
                let n = n as u64;
                self.dropped += n;
                self.index.note(Note { stream: turn.stream, offset: self.end, len: n, flags: DROPPED }, now);
                self.write_index(now);
                Taken::Bytes { n, full: n == turn.quota as u64 }
            }
            Ok(Moved::Nothing) => Taken::Nothing,
            Ok(Moved::End) => Taken::End,
            Err(_) => Taken::Refused,
        }
    }

    fn write_index(&mut self, now: Now) {
        if now.boot_us < self.index_retry_at {
            return;
        }
        if !self.index.is_open() && self.segment.is_some() {
            let data = self.segment.as_ref().map(|s| &s.file);
            let _ = self.index.open(&self.dir, self.series, self.end, data);
        }
        if self.index.flush().is_err() {
            self.index_retry_at = now.boot_us + RETRY_US;
        }
    }

    /// Opens the newest segment, or the first one.
    fn open(&mut self, tools: &mut Tools, now: Now) -> io::Result<()> {
        if self.segment.is_some() {
            return Ok(());
        }
        make_dir(&self.dir)?;
        let names = scan(&self.dir)?;
        for (name, path) in &names {
            if *name == Name::Leftover(self.series) {
                std::fs::remove_file(path)?;
            }
        }
        let mut found = segments(&names, self.series);
        let (segment, end) = match found.last() {
            Some(last) if last.plain => {
                let file = disk::open_rw(&self.series.plain(&self.dir, last.start))?;
                let len = file.metadata()?.len();
                let start = last.start;
                found.pop();
                (Segment { file, start, len, seen_at: now.boot_us, seen_len: len }, start + len)
            }
            Some(last) => {
                let packed = unpacked_len(&self.series.compressed(&self.dir, last.start))?;
                let end = last.start + packed;
                (create(&self.dir, self.series, end, now)?, end)
            }
            None => (create(&self.dir, self.series, self.end, now)?, self.end),
        };
        self.closed = found.iter().map(|f| f.start).collect();
        self.end = end;
        // The index is an aid: without it, capture goes on, and it is tried again later.
        let known = self.index.open(&self.dir, self.series, end, Some(&segment.file));
        self.dropped = self.dropped.max(known.unwrap_or(0));
        self.segment = Some(segment);
        for old in found.iter().filter(|f| f.plain && (self.settings.compress || f.compressed)) {
            tools.background.compress(self.closed_segment(old.start));
        }
        self.retire(tools);
        self.write_index(now);
        Ok(())
    }

    /// Whether the segment has its size, and ends with a line end or in an endless line.
    fn is_rotation_due(&self, now: Now) -> bool {
        let Some(segment) = self.segment.as_ref() else { return false };
        let limit = self.settings.max_size;
        if limit == 0 || segment.len < limit || now.boot_us < self.rotate_retry_at {
            return false;
        }
        segment.len >= limit.saturating_add(LINE_MAX) || self.is_at_line_end()
    }

    /// Whether the newest segment is empty or ends with a line end.
    fn is_at_line_end(&self) -> bool {
        let Some(segment) = self.segment.as_ref().filter(|s| s.len > 0) else { return true };
        let mut last = [0];
        segment.file.read_exact_at(&mut last, segment.len - 1).is_ok() && last == *b"\n"
    }

    /// Closes the segment: the next one first, so that the newest file is always the one to go on with.
    fn rotate(&mut self, tools: &mut Tools, now: Now) {
        let Some(segment) = self.segment.as_ref() else { return };
        let old = segment.start;
        match create(&self.dir, self.series, self.end, now) {
            Ok(next) => self.segment = Some(next),
            Err(_) => {
                // Too many open files, most likely. A segment that is too long is better than a stall.
                self.rotate_retry_at = now.boot_us + RETRY_US;
                return;
            }
        }
        self.closed.push_back(old);
        self.retire(tools);
        if self.settings.compress && self.closed.back() == Some(&old) {
            tools.background.compress(self.closed_segment(old));
        }
    }

    /// Has the oldest closed segments deleted, as many as are too many.
    fn retire(&mut self, tools: &mut Tools) {
        let keep = usize::try_from(self.settings.keep).unwrap_or(usize::MAX);
        while self.closed.len() > keep {
            let Some(start) = self.closed.pop_front() else { return };
            let newest = self.segment.as_ref().map_or(self.end, |s| s.start);
            let first_kept = self.closed.front().copied().unwrap_or(newest);
            tools.background.delete(self.closed_segment(start), first_kept);
        }
    }

    fn closed_segment(&self, start: u64) -> Closed {
        Closed { dir: self.dir.clone(), series: self.series, start }
    }

    /// Looks, once a second and before a rotation, whether somebody deleted the file that is being written. What was
    /// written since the last look is saved into a new file; what was there before was theirs to delete.
    fn notice_deletion(&mut self, now: Now, at_once: bool) -> io::Result<()> {
        let Some(segment) = self.segment.as_mut() else { return Ok(()) };
        if !at_once && now.boot_us.saturating_sub(segment.seen_at) < RETRY_US {
            return Ok(());
        }
        if segment.file.metadata()?.nlink() > 0 {
            (segment.seen_at, segment.seen_len) = (now.boot_us, segment.len);
        } else {
            make_dir(&self.dir)?;
            let start = segment.start + segment.seen_len;
            let mut next = create(&self.dir, self.series, start, now)?;
            copy(&segment.file, segment.seen_len, &next.file)?;
            next.len = segment.len - segment.seen_len;
            next.seen_len = next.len;
            *segment = next;
        }
        if self.index.is_deleted() {
            self.index.reopen(&self.dir, self.series)?;
        }
        Ok(())
    }
}

/// Makes the directory. Where the name is a link to a directory that is missing, makes that.
fn make_dir(dir: &Path) -> io::Result<()> {
    match private_dir_all(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match std::fs::read_link(dir) {
            Ok(target) => private_dir_all(&dir.parent().unwrap_or(dir).join(target)),
            Err(_) => Err(e),
        },
        other => other,
    }
}

/// Creates a segment. An empty file of that name is what a failed attempt left; it is taken over.
fn create(dir: &Path, series: Series, start: u64, now: Now) -> io::Result<Segment> {
    let path = series.plain(dir, start);
    let file = match disk::create_new(&path, 0o600) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.metadata()?.len() == 0 => {
            disk::open_rw(&path)?
        }
        other => other?,
    };
    Ok(Segment { file, start, len: 0, seen_at: now.boot_us, seen_len: 0 })
}

fn copy(from: &File, skip: u64, to: &File) -> io::Result<()> {
    let mut buf = vec![0; 64 * 1024];
    let mut done = 0;
    loop {
        let n = from.read_at(&mut buf, skip + done)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all_at(&buf[..n], done)?;
        done += n as u64;
    }
}
