//! Which bytes of which runs an output request means.

use std::io;
use std::path::PathBuf;

use super::output::{OpenOutput, OutputReader, Series, Stream};
use super::run_feed::{Choice, Life, Offsets, RunFeed};
use crate::core::ids::RunId;

/// Where to begin, as the request says it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Begin {
    /// `offset=`.
    pub(crate) offset: Option<OffsetArg>,
    /// `tail=`: lines from the end.
    pub(crate) tail: Option<u64>,
    /// `since=`: microseconds since 1970.
    pub(crate) since_us: Option<i64>,
}

/// An offset: a number, or one for each stream of a run that keeps them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OffsetArg {
    /// In the only series there is.
    One(u64),
    /// In each stream's.
    Each { stdout: u64, stderr: u64 },
}

impl std::str::FromStr for OffsetArg {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(n) = text.parse() {
            return Ok(Self::One(n));
        }
        let (out, err) = text.split_once(',').ok_or(())?;
        let number = |part: &str, name: &str| part.strip_prefix(name)?.strip_prefix(':')?.parse().ok();
        match (number(out, "stdout"), number(err, "stderr")) {
            (Some(stdout), Some(stderr)) => Ok(Self::Each { stdout, stderr }),
            _ => Err(()),
        }
    }
}

/// One run's share of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) run: RunId,
    pub(crate) choice: Choice,
}

/// Why there is no plan.
#[derive(Debug)]
pub(crate) enum PlanError {
    Bad(&'static str),
    Io(io::Error),
}

impl From<io::Error> for PlanError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// What all parts of a plan have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Common {
    pub(crate) only: Option<Stream>,
    pub(crate) labels: bool,
    /// Whether the answer goes on, so that the last part has no end.
    pub(crate) open_end: bool,
    pub(crate) begin: Begin,
}

/// Plans the answer from these runs, oldest first. Blocks on files.
///
/// A tail may reach back over several runs: the latest is asked first, and the runs before it for the
/// lines that are still missing.
pub(crate) fn plan(
    open: OpenOutput,
    runs: Vec<(RunId, PathBuf)>,
    common: Common,
) -> Result<Vec<Part>, PlanError> {
    let mut parts = Vec::new();
    let mut missing = common.begin.tail;
    let last = runs.len().saturating_sub(1);
    for (index, (run, dir)) in runs.into_iter().enumerate().rev() {
        if missing == Some(0) && index != last {
            break;
        }
        let mut choice = Choice { only: common.only, labels: common.labels, ..Choice::default() };
        match open(&dir) {
            Ok(mut reader) => {
                reader.refresh()?;
                range(reader.as_mut(), &mut choice, &common)?;
                if let Some(lines) = missing {
                    missing = Some(lines - tail(open, &dir, &mut choice, lines)?);
                }
            }
            // The run has captured nothing yet.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        if common.open_end && index == last {
            choice.to = Offsets::default();
        }
        parts.push(Part { run, choice });
    }
    parts.reverse();
    Ok(parts)
}

/// The lanes that a choice looks at.
fn lanes(reader: &dyn OutputReader, only: Option<Stream>) -> Vec<Series> {
    let wanted = |s: &Series| match (s, only) {
        (Series::Of(stream), Some(only)) => *stream == only,
        _ => true,
    };
    reader.series().into_iter().filter(wanted).collect()
}

fn range(reader: &mut dyn OutputReader, choice: &mut Choice, common: &Common) -> Result<(), PlanError> {
    let lanes = lanes(reader, choice.only);
    for &series in &lanes {
        let (first, end) = (reader.first_offset(series), reader.end_offset(series));
        let asked = match (common.begin.offset, series) {
            (None, _) => first,
            (Some(OffsetArg::One(n)), _) if lanes.len() == 1 => n,
            (Some(OffsetArg::One(_)), _) => {
                return Err(PlanError::Bad(
                    "this run keeps its streams apart: ask for one with stream=, or give the offset as \
                     stdout:N,stderr:N",
                ));
            }
            (Some(OffsetArg::Each { .. }), Series::Merged) => {
                return Err(PlanError::Bad("this run keeps both streams together: the offset is one number"));
            }
            (Some(OffsetArg::Each { stdout, .. }), Series::Of(Stream::Stdout)) => stdout,
            (Some(OffsetArg::Each { stderr, .. }), Series::Of(Stream::Stderr)) => stderr,
        };
        let since = match common.begin.since_us {
            Some(us) => reader.since_offset(series, us)?,
            None => first,
        };
        choice.from.set(series, asked.max(since).max(first));
        choice.to.set(series, end);
    }
    Ok(())
}

/// Moves the beginning of `choice` to its last `lines` lines; answers how many lines it then has.
///
/// Where one series is wanted whole, its reader knows. Where a stream is filtered out of a series, or two
/// series are merged, the lines are counted, going back further as long as there are too few.
fn tail(open: OpenOutput, dir: &std::path::Path, choice: &mut Choice, lines: u64) -> io::Result<u64> {
    let mut reader = open(dir)?;
    reader.refresh()?;
    let lanes = lanes(reader.as_ref(), choice.only);
    let floor = choice.from;
    let mut back = lines;
    loop {
        let mut all = true;
        for &series in &lanes {
            let least = floor.get(series).unwrap_or(0);
            let from =
                if lines == 0 { reader.end_offset(series) } else { reader.tail_offset(series, back)? };
            all &= from <= least;
            choice.from.set(series, from.max(least));
        }
        if lines == 0 {
            return Ok(0);
        }
        let whole = lanes.len() == 1 && (lanes[0] != Series::Merged || choice.only.is_none());
        if whole && !all {
            return Ok(lines);
        }
        let have = count_lines(open(dir)?, *choice)?;
        if have >= lines || all {
            choice.skip_lines = have.saturating_sub(lines);
            return Ok(have.min(lines));
        }
        back = back.saturating_mul(4);
    }
}

/// Lines in a choice; an unfinished last line counts.
fn count_lines(reader: Box<dyn OutputReader>, choice: Choice) -> io::Result<u64> {
    let mut feed = RunFeed::new(reader, Choice { skip_lines: 0, ..choice });
    let (mut lines, mut last) = (0, b'\n');
    loop {
        let pieces = feed.step(Life::Over)?;
        if pieces.is_empty() {
            return Ok(lines + u64::from(last != b'\n'));
        }
        for piece in &pieces {
            lines += piece.data.iter().filter(|b| **b == b'\n').count() as u64;
            last = piece.data.last().copied().unwrap_or(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_of_an_offset() {
        assert_eq!("12".parse(), Ok(OffsetArg::One(12)));
        assert_eq!("stdout:1,stderr:2".parse(), Ok(OffsetArg::Each { stdout: 1, stderr: 2 }));
        for text in ["", "-1", "stdout:1", "stderr:1,stdout:2", "stdout:,stderr:1"] {
            assert_eq!(text.parse::<OffsetArg>(), Err(()), "{text}");
        }
    }
}
