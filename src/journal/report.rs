//! What was found in the event log, for people and for programs.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// What became of bytes that are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The end of a write that a crash or an error interrupted; nobody was told of it. Left out.
    Torn,
    /// Something that had been acknowledged is not readable. Left out.
    Lost,
    /// One wrong bit was found and put right; nothing is missing.
    Mended,
    /// Whole lines that nobody can use, but that are not missing either: an older one is at hand.
    Useless,
}

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What became of them.
    pub kind: Kind,
    /// What is wrong with them.
    pub why: String,
    /// The copy of them in quarantine, once there is one.
    pub copy: Option<PathBuf>,
}

/// What reading the event log found. Says the same for a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// The checkpoint that was used: the number of the last line it covers.
    pub checkpoint: Option<u64>,
    /// Segments read.
    pub segments: u64,
    /// Segments left aside because the checkpoint covers them.
    pub covered_segments: u64,
    /// Lines applied.
    pub lines: u64,
    /// Number of the last line; 0 if there is none.
    pub last_seq: u64,
    /// Lines whose number had been there before; left out.
    pub duplicates: u64,
    /// Lines in whose place a newer segment has others; left out.
    pub superseded: u64,
    /// Bytes of unfinished writes.
    pub torn_bytes: u64,
    /// Whole lines among them.
    pub torn_lines: u64,
    /// First and last of each range of numbers that is missing.
    pub lost: Vec<(u64, u64)>,
    /// Lines that were put right.
    pub mended: u64,
    /// Lines written by a supervisor older than the writer of the line before: two wrote at once.
    pub stale_writers: u64,
    /// Files without a final name, left by a crash.
    pub unfinished: u64,
    /// Whether some of it is in the layout of an earlier version.
    pub older_layout: bool,
    /// There are files, and nothing in them could be read: the caller decides what that means.
    pub unreadable: bool,
    /// Every stretch of bytes that is not what was written.
    pub damage: Vec<Damage>,
}

impl Report {
    /// Whether something that had been acknowledged is missing.
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        !self.lost.is_empty() || self.unreadable
    }

    /// Whether not one line and no checkpoint could be read, be it because there is none.
    #[must_use]
    pub const fn knows_nothing(&self) -> bool {
        self.checkpoint.is_none() && self.lines == 0
    }

    /// Whether a file holds something else than what was written, be it put right or not. An unfinished
    /// end is no such thing: every crash may leave one.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.is_lossy() || self.damage.iter().any(|damage| damage.kind != Kind::Torn)
    }

    /// The report as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.checkpoint {
            Some(seq) => write!(f, "checkpoint {seq} and ")?,
            None => write!(f, "no checkpoint, ")?,
        }
        writeln!(f, "{} lines from {} segments, up to number {}", self.lines, self.segments, self.last_seq)?;
        for (what, n) in [
            ("segments that the checkpoint covers", self.covered_segments),
            ("lines that were there twice", self.duplicates),
            ("lines that a newer segment replaces", self.superseded),
            ("bytes of unfinished writes", self.torn_bytes),
            ("whole lines among those", self.torn_lines),
            ("lines with a wrong bit that was put right", self.mended),
            ("lines of a supervisor that should have been gone", self.stale_writers),
            ("unfinished files", self.unfinished),
        ] {
            if n > 0 {
                writeln!(f, "{n} {what}")?;
            }
        }
        if self.older_layout {
            writeln!(f, "some of it is in the layout of an earlier version")?;
        }
        for (first, last) in &self.lost {
            writeln!(f, "MISSING: {first} to {last}")?;
        }
        if self.unreadable {
            writeln!(f, "NOTHING of it can be read")?;
        }
        for damage in &self.damage {
            let Damage { file, offset, bytes, kind, why, copy } = damage;
            write!(f, "{} at {offset}, {bytes} bytes, {kind:?}: {why}", file.display())?;
            match copy {
                Some(copy) => writeln!(f, " (kept as {})", copy.display())?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}
