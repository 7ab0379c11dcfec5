//! Writing the index of one series.
//!
//! Records that are not on disk yet wait in `tail`, of which the last one may still grow; a write puts all
//! of them at `pos` and leaves only the last. A write error stops nothing: the records wait, and when they
//! become many they are melted into one that says it is a guess.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::state_dir::output::index::{DROPPED, DROPPED_BEFORE, IndexFile, RECOVERED, SIZE};
use crate::state_dir::output::{Record, Series, Stream};
use crate::sys::{clock, disk};

/// Bytes of one stream that arrive within this time share a record.
const COALESCE_US: u64 = 10_000;

/// Records that wait for a disk that refuses the index. More are melted: times are worth less than memory.
const MOST_WAITING: usize = 64;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) boot_us: u64,
    pub(super) wall_us: i64,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { boot_us: clock::boot_us(), wall_us: clock::wall_us() }
    }
}

/// What happened to some bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Note {
    pub(super) stream: Stream,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) flags: u8,
}

/// The writing end of an index.
#[derive(Debug, Default)]
pub(super) struct Index {
    file: Option<File>,
    /// Where `tail[0]` belongs in the file.
    pos: u64,
    tail: Vec<Record>,
    dirty: bool,
    dropped_before: bool,
}

impl Index {
    /// Opens the index of a series whose data ends at `end`, and mends it: a partial or senseless end is cut,
    /// records beyond the data are cut, bytes without a record get one that says it is a guess.
    ///
    /// Returns the bytes that were dropped so far, by the records.
    pub(super) fn open(
        &mut self,
        dir: &Path,
        series: Series,
        end: u64,
        data: Option<&File>,
    ) -> io::Result<u64> {
        let file = disk::open_or_create(&series.index(dir), 0o600)?;
        let index = IndexFile::new(&file)?;
        let mut count = index.count;
        let mut last = None;
        while count > 0 {
            match index.get(count - 1)? {
                Some(record) if record.offset < end || ends_there(&record, end) => {
                    last = Some(record);
                    break;
                }
                _ => count -= 1,
            }
        }
        let mut dropped = 0;
        self.dropped_before = last.is_some_and(|r| r.flags & (DROPPED | DROPPED_BEFORE) != 0);
        if self.dropped_before {
            index.each(0, |r| {
                dropped += if r.is_dropped() { u64::from(r.len) } else { 0 };
                true
            })?;
        }
        if let Some(record) = last.as_mut().filter(|r| r.end() > end) {
            record.len = u32::try_from(end - record.offset).unwrap_or(record.len);
        }
        file.set_len(count * SIZE)?;
        self.pos = if last.is_some() { (count - 1) * SIZE } else { 0 };
        self.tail.clear();
        self.tail.extend(last);
        self.file = Some(file);
        // What lies before the first segment that is left needs no record.
        let covered = last.map_or(0, |r| r.end());
        if covered < end {
            self.tail.pop_if(|r| r.len == 0);
            let stream = last.map_or(series.usual_stream(), |r| r.stream);
            self.guess(stream, covered, end, data);
        }
        Ok(dropped)
    }

    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Records that are not closed or not written.
    pub(super) fn waiting(&self) -> usize {
        self.tail.len()
    }

    /// Whether somebody deleted the file.
    pub(super) fn is_deleted(&self) -> bool {
        self.file.as_ref().is_some_and(|f| f.metadata().is_ok_and(|m| m.nlink() == 0))
    }

    /// Starts a new file, because the old one was deleted; what waits is kept.
    pub(super) fn reopen(&mut self, dir: &Path, series: Series) -> io::Result<()> {
        self.file = None;
        let file = disk::open_or_create(&series.index(dir), 0o600)?;
        self.pos = file.metadata()?.len() / SIZE * SIZE;
        self.file = Some(file);
        self.dirty |= !self.tail.is_empty();
        Ok(())
    }

    /// The stream of the last bytes, as far as that is known.
    pub(super) fn last_stream(&self) -> Option<Stream> {
        self.tail.last().map(|r| r.stream)
    }

    /// Notes that bytes of this stream are about to be taken, if the last ones were of another.
    pub(super) fn announce(&mut self, stream: Stream, offset: u64, now: Now) {
        if self.last_stream() != Some(stream) {
            self.tail.pop_if(|r| r.len == 0);
            self.append(stream, offset, 0, 0, now);
        }
    }

    /// Notes bytes. They are on disk after the next [`Self::flush`].
    pub(super) fn note(&mut self, note: Note, now: Now) {
        let Note { stream, mut offset, len: mut left, flags } = note;
        let drop = flags & DROPPED != 0;
        self.tail.pop_if(|r| drop && r.len == 0);
        while left > 0 {
            if !self.tail.last().is_some_and(|last| joins(last, &note, offset, now)) {
                self.append(stream, offset, 0, flags, now);
            }
            let Some(last) = self.tail.last_mut() else { return };
            if last.len == 0 {
                (last.boot_us, last.wall_us) = (now.boot_us, now.wall_us);
            }
            let more = u32::try_from(left).unwrap_or(u32::MAX).min(u32::MAX - last.len);
            last.len += more;
            left -= u64::from(more);
            offset += if drop { 0 } else { u64::from(more) };
        }
        self.dirty = true;
        self.dropped_before |= drop;
        if self.tail.len() > MOST_WAITING {
            self.melt();
        }
    }

    /// Writes what is not on disk. An error leaves everything to be tried again.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.dirty {
            return Ok(());
        }
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        match &self.tail[..] {
            [one] => file.write_all_at(&one.encode(), self.pos)?,
            many => {
                let bytes: Vec<u8> = many.iter().flat_map(Record::encode).collect();
                file.write_all_at(&bytes, self.pos)?;
            }
        }
        let done = self.tail.len().saturating_sub(1);
        self.tail.drain(..done);
        self.pos += done as u64 * SIZE;
        self.dirty = false;
        Ok(())
    }

    fn append(&mut self, stream: Stream, offset: u64, len: u32, flags: u8, now: Now) {
        let flags = flags | if self.dropped_before { DROPPED_BEFORE } else { 0 };
        let Now { boot_us, wall_us } = now;
        self.tail.push(Record { offset, len, stream, flags, boot_us, wall_us });
        self.dirty = true;
    }

    /// Joins neighbours that wait, wherever their bytes touch and none of them stands for dropped bytes. The
    /// first one stays: it may be on disk already.
    fn melt(&mut self) {
        let mut melted: Vec<Record> = Vec::with_capacity(self.tail.len());
        for (n, record) in self.tail.drain(..).enumerate() {
            match melted.last_mut() {
                Some(last)
                    if n > 1
                        && last.is_dropped() == record.is_dropped()
                        && (last.is_dropped() || last.end() == record.offset)
                        && last.len.checked_add(record.len).is_some() =>
                {
                    last.len += record.len;
                    last.flags |= record.flags | RECOVERED;
                }
                _ => melted.push(record),
            }
        }
        self.tail = melted;
    }

    /// Bytes that nobody lived to note get the time of the file.
    fn guess(&mut self, stream: Stream, from: u64, end: u64, data: Option<&File>) {
        let now = Now::read();
        let wall_us = data.and_then(|f| f.metadata().ok()).map_or(now.wall_us, |m| {
            m.mtime().saturating_mul(1_000_000).saturating_add(m.mtime_nsec() / 1000)
        });
        let ago = u64::try_from(now.wall_us.saturating_sub(wall_us)).unwrap_or(0);
        let then = Now { boot_us: now.boot_us.saturating_sub(ago), wall_us };
        self.note(Note { stream, offset: from, len: end - from, flags: RECOVERED }, then);
    }
}

/// A record without bytes in the file that belongs to the end of the data: a drop, or an announcement.
fn ends_there(record: &Record, end: u64) -> bool {
    record.offset == end && (record.is_dropped() || record.len == 0)
}

/// Whether bytes can become part of a record.
fn joins(last: &Record, note: &Note, offset: u64, now: Now) -> bool {
    let kind = DROPPED | RECOVERED;
    let soon = last.is_dropped() || last.len == 0 || now.boot_us.saturating_sub(last.boot_us) < COALESCE_US;
    let touches = last.end() == offset;
    last.stream == note.stream
        && last.flags & kind == note.flags & kind
        && touches
        && soon
        && last.len < u32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const MERGED: Series = Series::Merged;

    fn at(us: u64) -> Now {
        Now { boot_us: us, wall_us: 0 }
    }

    fn note(offset: u64, len: u64, flags: u8) -> Note {
        Note { stream: Stream::Stdout, offset, len, flags }
    }

    fn on_disk(dir: &Path) -> Vec<(u64, u32, u8)> {
        let file = disk::open_read(&MERGED.index(dir)).unwrap();
        let mut all = Vec::new();
        IndexFile::new(&file)
            .unwrap()
            .each(0, |r| {
                all.push((r.offset, r.len, r.flags));
                true
            })
            .unwrap();
        all
    }

    fn opened(dir: &Path, end: u64) -> Index {
        let mut index = Index::default();
        index.open(dir, MERGED, end, None).unwrap();
        index
    }

    #[test]
    fn bytes_close_in_time_share_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = opened(dir.path(), 0);
        for (n, us) in [(0, 0), (1, 9_999), (2, 10_000), (3, 15_000)] {
            index.note(note(n * 10, 10, 0), at(us));
            index.flush().unwrap();
        }
        index.note(Note { stream: Stream::Stderr, ..note(40, 1, 0) }, at(15_001));
        index.flush().unwrap();
        assert_eq!(on_disk(dir.path()), [(0, 20, 0), (20, 20, 0), (40, 1, 0)]);
    }

    #[test]
    fn drops_are_summed_up_and_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = opened(dir.path(), 0);
        index.note(note(0, 10, 0), at(0));
        index.note(note(10, 1 << 33, DROPPED), at(0));
        index.note(note(10, 5, DROPPED), at(0));
        index.note(note(10, 10, 0), at(1));
        index.flush().unwrap();
        let mut again = Index::default();
        assert_eq!(again.open(dir.path(), MERGED, 20, None).unwrap(), (1 << 33) + 5);
        assert_eq!(on_disk(dir.path()).last(), Some(&(10, 10, DROPPED_BEFORE)));
    }

    #[test]
    fn a_missing_tail_is_guessed_and_a_surplus_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = opened(dir.path(), 0);
        index.note(note(0, 10, 0), at(0));
        index.note(note(10, 10, 0), at(20_000));
        index.flush().unwrap();
        disk::open_rw(&MERGED.index(dir.path())).unwrap().write_all_at(&[0; 45], 2 * SIZE).unwrap();
        opened(dir.path(), 50).flush().unwrap();
        assert_eq!(on_disk(dir.path()), [(0, 10, 0), (10, 10, 0), (20, 30, RECOVERED)]);
        let mut index = opened(dir.path(), 15);
        index.note(note(15, 1, 0), at(u64::MAX));
        index.flush().unwrap();
        assert_eq!(on_disk(dir.path()), [(0, 10, 0), (10, 5, 0), (15, 1, 0)]);
    }

    #[test]
    fn records_that_cannot_be_written_melt_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = opened(dir.path(), 0);
        let file = index.file.take();
        for n in 0..1000 {
            index.note(note(n, 1, 0), at(n * 20_000));
            assert!(index.flush().is_err());
        }
        index.file = file;
        index.flush().unwrap();
        let records = on_disk(dir.path());
        assert!(records.len() <= MOST_WAITING + 1);
        let mut end = 0;
        for (offset, len, _) in records {
            assert_eq!(offset, end);
            end += u64::from(len);
        }
        assert_eq!(end, 1000);
    }
}
