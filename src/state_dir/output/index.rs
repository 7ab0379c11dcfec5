//! The index of a series: fixed records of 32 bytes, little-endian, in the order of their offsets.
//!
//! ```text
//! offset u64 | len u32 | stream u8 | flags u8 | 0 u16 | boot_us u64 | wall_us u64
//! ```
//!
//! A record covers `len` bytes from `offset`, all of one stream, the first of which was captured at the
//! given time; bytes within 10 ms share a record. Where the stream changes, the record is written before the
//! first byte, with a length of 0, so that whoever finds the files after a crash knows whose bytes the last
//! ones are. Records of segments that were deleted are punched out of
//! the file and read as zeros; so do blocks that a power cut kept from the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Stream;

/// Size of a record, in bytes.
pub const SIZE: u64 = 32;
const BYTES: usize = 32;

/// `len` bytes were thrown away here; they are in no file, and offsets do not count them.
pub const DROPPED: u8 = 1;
/// The time is a guess, and the stream may be: whoever captured the bytes died, or could not write the index.
pub const RECOVERED: u8 = 2;
/// Somewhere before this record bytes of this series were dropped.
pub const DROPPED_BEFORE: u8 = 4;

/// Who wrote a stretch of bytes, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Offset of the first byte.
    pub offset: u64,
    /// How many bytes. 0: the writer was about to take bytes of this stream, and may have.
    pub len: u32,
    /// Which stream.
    pub stream: Stream,
    /// [`DROPPED`], [`RECOVERED`], [`DROPPED_BEFORE`].
    pub flags: u8,
    /// Time of the first byte, boot clock, microseconds.
    pub boot_us: u64,
    /// Time of the first byte, wall clock, microseconds since 1970.
    pub wall_us: i64,
}

impl Record {
    /// Whether this stands for bytes that were thrown away.
    #[must_use]
    pub const fn is_dropped(&self) -> bool {
        self.flags & DROPPED != 0
    }

    /// The offset after the last byte on disk.
    #[must_use]
    pub const fn end(&self) -> u64 {
        if self.is_dropped() { self.offset } else { self.offset.saturating_add(self.len as u64) }
    }

    /// As on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[0..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12] = match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        bytes[13] = self.flags;
        bytes[16..24].copy_from_slice(&self.boot_us.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.wall_us.to_le_bytes());
        bytes
    }

    /// From disk; `None` for zeros and for anything else that is no record.
    #[must_use]
    pub fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let stream = match bytes[12] {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return None,
        };
        let len = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let (offset, boot_us, wall_us) = (word(0), word(16), word(24).cast_signed());
        Some(Self { offset, len, stream, flags: bytes[13], boot_us, wall_us })
    }
}

/// An index, open for reading.
#[derive(Debug)]
pub struct IndexFile<'a> {
    file: &'a File,
    /// Whole records in the file; a last, partial one does not count.
    pub count: u64,
}

impl<'a> IndexFile<'a> {
    /// Looks at the size of the file.
    pub fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, count: file.metadata()?.len() / SIZE })
    }

    /// Record number `n`; `None` for a hole.
    pub fn get(&self, n: u64) -> io::Result<Option<Record>> {
        let mut bytes = [0; BYTES];
        match self.file.read_exact_at(&mut bytes, n.saturating_mul(SIZE)) {
            Ok(()) => Ok(Record::decode(&bytes)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Number of the first record for which `before` is false. Holes are before everything.
    ///
    /// `before` must be true for a first part of the records and false for the rest.
    pub fn partition(&self, before: impl Fn(&Record) -> bool) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle)?.is_none_or(|r| before(&r)) { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// Calls `each` with the records from number `from` on, until it says false.
    pub fn each(&self, from: u64, mut each: impl FnMut(Record) -> bool) -> io::Result<()> {
        const AT_ONCE: u64 = 512;
        let mut buf = vec![0; BYTES * 512];
        let mut n = from;
        while n < self.count {
            let some = AT_ONCE.min(self.count - n);
            let part = usize::try_from(some * SIZE).unwrap_or(0).min(buf.len());
            let got = self.file.read_at(&mut buf[..part], n * SIZE)?;
            if got < BYTES {
                return Ok(());
            }
            for bytes in buf[..got].chunks_exact(BYTES) {
                let record = bytes.try_into().ok().and_then(Record::decode);
                if let Some(record) = record
                    && !each(record)
                {
                    return Ok(());
                }
            }
            n += (got / BYTES) as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, len: u32, flags: u8) -> Record {
        Record { offset, len, stream: Stream::Stderr, flags, boot_us: 9, wall_us: -5 }
    }

    #[test]
    fn the_layout_is_fixed() {
        let bytes =
            Record { offset: 1, len: 2, stream: Stream::Stdout, flags: 3, boot_us: 4, wall_us: 5 }.encode();
        let expected =
            [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 3, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes, expected);
        for r in [record(u64::MAX, u32::MAX, 0), record(0, 1, DROPPED)] {
            assert_eq!(Record::decode(&r.encode()), Some(r));
            assert!(r.end() >= r.offset);
        }
        assert_eq!(Record::decode(&[0; 32]), None);
        assert_eq!(Record::decode(&[255; 32]), None);
    }

    #[test]
    fn finds_records_behind_holes_and_before_a_torn_tail() {
        let file = tempfile::tempfile().unwrap();
        for n in 5..10u64 {
            file.write_all_at(&record(n * 100, 100, 0).encode(), n * SIZE).unwrap();
        }
        file.write_all_at(&[1; 13], 10 * SIZE).unwrap();
        let index = IndexFile::new(&file).unwrap();
        assert_eq!(index.count, 10);
        assert_eq!(index.partition(|r| r.end() <= 650).unwrap(), 6);
        assert_eq!(index.partition(|r| r.end() < 1).unwrap(), 5);
        assert_eq!(index.partition(|_| true).unwrap(), 10);
        let mut offsets = Vec::new();
        index
            .each(0, |r| {
                offsets.push(r.offset);
                r.offset < 800
            })
            .unwrap();
        assert_eq!(offsets, [500, 600, 700, 800]);
    }
}
