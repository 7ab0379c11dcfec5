//! What the output routes need of a run's captured bytes; the files themselves belong to `state_dir`.

use std::io;
use std::path::Path;

/// Which of a job's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Stream {
    /// The word in queries and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One series of files: both streams in order of arrival, or one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Series {
    /// Both streams.
    Merged,
    /// One stream of a run that keeps them apart.
    Of(Stream),
}

/// Bytes of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where they stand; later than asked if older bytes were rotated away.
    pub offset: u64,
    /// The bytes; none at the end.
    pub data: Vec<u8>,
}

/// An entry of the time and stream index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// First byte it speaks of.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// Who wrote them.
    pub stream: Stream,
    /// When, in microseconds of the boot clock.
    pub boot_us: u64,
    /// When, in microseconds since 1970.
    pub wall_us: i64,
}

/// Reads one run's output while it is being written.
pub trait OutputReader: Send {
    /// Looks again at which files there are.
    fn refresh(&mut self) -> io::Result<()>;
    /// The series that exist.
    fn series(&self) -> Vec<Series>;
    /// The first byte that is still there.
    fn first_offset(&self, series: Series) -> u64;
    /// One past the last byte.
    fn end_offset(&self, series: Series) -> u64;
    /// At most `max` bytes from `offset` on.
    fn read_at(&mut self, series: Series, offset: u64, max: usize) -> io::Result<Chunk>;
    /// The index entries that touch `from..to`, in order; the last bytes may have none.
    fn records(&mut self, series: Series, from: u64, to: u64) -> io::Result<Vec<Record>>;
    /// Where the last `lines` lines begin.
    fn tail_offset(&mut self, series: Series, lines: u64) -> io::Result<u64>;
    /// Where the bytes captured at or after `wall_us` begin.
    fn since_offset(&mut self, series: Series, wall_us: i64) -> io::Result<u64>;
}

/// Opens the reader of an output directory; `NotFound` while the run has none.
pub type OpenOutput = fn(&Path) -> io::Result<Box<dyn OutputReader>>;
