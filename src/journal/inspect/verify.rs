//! Every file, from its first byte to its last, and what a start would make of them.
//!
//! Two readings decide: the one that a start does says what is lost; one of the whole history, whatever
//! checkpoints cover, says what is wrong in which file. Beside that, a sealed segment has to be the one that
//! its successor's header names by SHA-256, and a checkpoint has to be what the one before it and the
//! segments in between give.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::super::append::hex;
use super::super::checkpoint::{self, Loaded, Unusable};
use super::super::fs::{Fs, RealFs};
use super::super::open::Odd;
use super::super::recover::{self, Aside, Reading};
use super::super::report::{Damage, Kind, Report};
use super::super::sealed;
use super::super::segment::{Dirs, Header, list};
use super::super::{JournalError, old};
use crate::core::state::State;

/// Whether anything has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every file is what was written, but for what is kept aside already.
    Clean,
    /// Some file is not; nothing is missing from what a start would know.
    Covered,
    /// Something that was acknowledged cannot be read.
    Loss,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Lines of the log.
    Segment,
    /// The memory after a line.
    Checkpoint,
}

/// Something in a file that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flaw {
    /// Where.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What became of them.
    pub kind: Kind,
    /// What is wrong.
    pub why: String,
    /// There is a copy of them in `quarantine/`, and a checkpoint covers them: all that could be done is done.
    pub kept: bool,
}

/// What was found of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Which.
    pub file: PathBuf,
    /// What it is.
    pub what: What,
    /// Its length.
    pub bytes: u64,
    /// The lines in it, or the entities.
    pub lines: u64,
    /// Number of its first line; of a checkpoint that of the last line it covers.
    pub first: u64,
    /// Number of its last line.
    pub last: u64,
    /// What is wrong with it.
    pub flaws: Vec<Flaw>,
    /// What is worth a word and is no damage.
    pub remarks: Vec<String>,
}

/// What was found of all of them.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// What it comes to.
    pub verdict: Verdict,
    /// File by file: segments, then checkpoints, by number.
    pub files: Vec<FileReport>,
    /// Ranges of lines that are missing from the history and are in no start's way: a checkpoint covers them.
    pub history_lost: Vec<(u64, u64)>,
    /// What a start would find.
    pub start: Report,
}

/// Checks everything; `on_file` is told what is looked at next. Writes nothing.
///
/// # Errors
/// If a file cannot be read, or was written by a later build.
pub fn verify(state_dir: &Path, on_file: &mut dyn FnMut(&Path)) -> Result<Verified, JournalError> {
    let (fs, dirs) = (RealFs, Dirs::of(state_dir));
    super::settled(&fs, &dirs, || Ok(check(&fs, &dirs, on_file)?.verified))
}

/// What was found, and the bytes that nobody has kept aside yet.
pub(in crate::journal) struct Checked {
    pub(in crate::journal) verified: Verified,
    /// File, offset and bytes.
    pub(in crate::journal) odd: Vec<(PathBuf, u64, Vec<u8>)>,
    /// Checkpoints that are of no use.
    pub(in crate::journal) spoilt: Vec<PathBuf>,
}

pub(in crate::journal) fn check(
    fs: &dyn Fs,
    dirs: &Dirs,
    on_file: &mut dyn FnMut(&Path),
) -> Result<Checked, JournalError> {
    let start = recover::read(fs, &dirs.state, State::new(), None, &mut |_, _| {})?;
    let history = recover::read_all(fs, dirs, &mut |_, _| {})?;
    let copies = fs.list(&dirs.quarantine).unwrap_or_default();
    let mut check = Check {
        fs,
        dirs,
        covered: start.report.checkpoint.unwrap_or(0),
        copies,
        files: Vec::new(),
        odd: Vec::new(),
        spoilt: Vec::new(),
    };
    check.segments(&history, on_file)?;
    check.checkpoints(on_file)?;
    let older = check.usable().nth(1).map_or(0, |file| file.first);
    let history_lost: Vec<(u64, u64)> =
        history.report.lost.iter().copied().filter(|range| !start.report.lost.contains(range)).collect();
    let explained = |(first, last): &(u64, u64)| *last <= older || check.is_kept(*first);
    let known = history_lost.iter().all(explained);
    let flawed = check.files.iter().flat_map(|file| &file.flaws).any(|flaw| !flaw.kept);
    let verdict = if start.report.is_lossy() {
        Verdict::Loss
    } else if flawed || !known || start.report.is_damaged() {
        Verdict::Covered
    } else {
        Verdict::Clean
    };
    let Check { files, odd, spoilt, .. } = check;
    let verified = Verified { verdict, files, history_lost, start: start.report };
    Ok(Checked { verified, odd, spoilt })
}

struct Check<'a> {
    fs: &'a dyn Fs,
    dirs: &'a Dirs,
    /// The last line that the newest usable checkpoint covers.
    covered: u64,
    /// Names in `quarantine/`.
    copies: Vec<String>,
    files: Vec<FileReport>,
    odd: Vec<(PathBuf, u64, Vec<u8>)>,
    spoilt: Vec<PathBuf>,
}

impl Check<'_> {
    fn segments(&mut self, history: &Reading, on_file: &mut dyn FnMut(&Path)) -> Result<(), JournalError> {
        let (segments, _) = list(self.fs, &self.dirs.journal)?;
        let mut before: Option<(u64, String)> = None;
        for (i, segment) in segments.iter().enumerate() {
            on_file(&segment.path);
            let data = self.fs.read(&segment.path).map_err(JournalError::io("read", &segment.path))?;
            let next = segments.get(i + 1).map(|next| next.number);
            let header = header(&data);
            if let Some((len, sum)) = before.take() {
                self.compare_with_successor(header.as_ref(), len, &sum);
            }
            before = Some((data.len() as u64, hex(&Sha256::digest(&data))));
            let mut file = FileReport {
                file: segment.path.clone(),
                what: What::Segment,
                bytes: data.len() as u64,
                lines: 0,
                first: segment.number,
                last: next.map_or(history.applied, |next| next - 1),
                flaws: Vec::new(),
                remarks: Vec::new(),
            };
            let lines = data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
            file.lines = lines.saturating_sub(u64::from(header.is_some()));
            if header.is_none() && old::is_old(&data) {
                file.remarks.push("in the layout of an earlier version".to_owned());
            }
            let covered = file.last <= self.covered;
            for (at, damage) in history.report.damage.iter().enumerate() {
                if damage.file == segment.path {
                    self.flaw(&mut file, damage, bytes_of(&history.aside, at), (covered, next.is_none()));
                }
            }
            self.files.push(file);
        }
        Ok(())
    }

    /// Notes damage of a segment, unless it is the unfinished end of a write.
    fn flaw(
        &mut self,
        file: &mut FileReport,
        damage: &Damage,
        bytes: &[u8],
        (covered, newest): (bool, bool),
    ) {
        if damage.kind == Kind::Torn {
            if newest {
                let remark = format!("an unfinished write at its end, {} bytes", damage.bytes);
                file.remarks.push(remark);
            }
            return;
        }
        let kept = covered && self.is_copied(damage, bytes);
        file.flaws.push(Flaw {
            offset: damage.offset,
            bytes: damage.bytes,
            kind: damage.kind,
            why: damage.why.clone(),
            kept,
        });
        if !kept {
            self.odd.push((damage.file.clone(), damage.offset, bytes.to_vec()));
        }
    }

    fn is_copied(&self, damage: &Damage, bytes: &[u8]) -> bool {
        let odd = Odd { file: &damage.file, offset: damage.offset, bytes };
        self.copies.contains(&odd.copy_name(self.dirs))
    }

    /// The header of the next segment says what this one was when it was ended.
    fn compare_with_successor(&mut self, next: Option<&Header>, len: u64, sum: &str) {
        let Some(file) = self.files.last_mut() else { return };
        let Some((was_len, was_sum)) =
            next.and_then(|next| Some((next.prev_len?, next.prev_sha256.as_deref()?)))
        else {
            return;
        };
        // What is wrong line by line is said already.
        if (was_len, was_sum) != (len, sum) && file.flaws.is_empty() {
            file.flaws.push(Flaw {
                offset: 0,
                bytes: len,
                kind: Kind::Useless,
                why: format!("it is not the one that was ended: {was_len} bytes with SHA-256 {was_sum}"),
                kept: false,
            });
        }
    }

    fn checkpoints(&mut self, on_file: &mut dyn FnMut(&Path)) -> Result<(), JournalError> {
        let (checkpoints, _) = list(self.fs, &self.dirs.checkpoints)?;
        let mut older: Option<Loaded> = None;
        for named in &checkpoints {
            on_file(&named.path);
            let bytes = self.fs.size(&named.path).map_err(JournalError::io("look at", &named.path))?;
            let mut file = FileReport {
                file: named.path.clone(),
                what: What::Checkpoint,
                bytes,
                lines: 0,
                first: named.number,
                last: named.number,
                flaws: Vec::new(),
                remarks: Vec::new(),
            };
            match checkpoint::load(self.fs, named, &State::new()) {
                Ok(loaded) => {
                    file.lines = loaded.entities;
                    self.mended(&mut file, &loaded);
                    self.sum(&mut file, &loaded)?;
                    match self.refold(older.take(), &loaded)? {
                        Refolded::Same => {}
                        Refolded::Unknown(why) => file.remarks.push(why),
                        Refolded::Other => {
                            let why = "it is not what the events before it give".to_owned();
                            file.flaws.push(useless(bytes, why));
                        }
                    }
                    older = Some(loaded);
                }
                Err(Unusable::Damaged(why)) => self.unusable(&mut file, why),
                Err(Unusable::Fatal(JournalError::Io { source, .. })) => {
                    file.flaws.push(useless(bytes, format!("it cannot be read: {source}")));
                }
                Err(Unusable::Fatal(error)) => return Err(error),
            }
            self.files.push(file);
        }
        Ok(())
    }

    fn unusable(&mut self, file: &mut FileReport, why: String) {
        file.flaws.push(useless(file.bytes, why));
        if let Ok(data) = self.fs.read(&file.file) {
            self.odd.push((file.file.clone(), 0, data));
            self.spoilt.push(file.file.clone());
        }
    }

    fn mended(&mut self, file: &mut FileReport, loaded: &Loaded) {
        for (damage, bytes) in &loaded.mended {
            let kept = loaded.behind.seq < self.covered && self.is_copied(damage, bytes);
            let Damage { offset, bytes: len, kind, why, .. } = damage.clone();
            file.flaws.push(Flaw { offset, bytes: len, kind, why, kept });
            if !kept {
                self.odd.push((damage.file.clone(), offset, bytes.clone()));
            }
        }
    }

    /// The footer has the SHA-256 of all before it.
    fn sum(&self, file: &mut FileReport, loaded: &Loaded) -> Result<(), JournalError> {
        let (len, said) = &loaded.sum;
        let (_, sum) = checkpoint::summed_up_to(self.fs, &file.file, *len)?;
        if loaded.mended.is_empty() && hex(&sum) != *said {
            file.flaws.push(useless(file.bytes, "its SHA-256 is not the one in its last line".to_owned()));
        }
        Ok(())
    }

    /// Makes a checkpoint once more, out of the one before it and the segments in between.
    fn refold(&self, older: Option<Loaded>, loaded: &Loaded) -> Result<Refolded, JournalError> {
        let unknown = |why: &str| Ok(Refolded::Unknown(why.to_owned()));
        let (build, Some(keep_runs)) = &loaded.by else {
            return unknown("not made again: it does not say how many runs it remembers");
        };
        if build != env!("CARGO_PKG_VERSION") {
            return unknown("not made again: another build made it");
        }
        if older.as_ref().is_some_and(|older| older.by.1 != Some(*keep_runs)) {
            return unknown("not made again: `keep_runs` was changed before it");
        }
        let (segments, _) = list(self.fs, &self.dirs.journal)?;
        let from_the_first = segments.first().is_some_and(|segment| segment.number == 1);
        if older.is_none() && !from_the_first {
            return unknown("not made again: what led to it is no longer kept");
        }
        let mut state = State::new();
        state.keep_runs = *keep_runs;
        let mut reading = Reading::new(state, Some(loaded.behind.seq));
        if let Some(mut older) = older {
            older.state.keep_runs = *keep_runs;
            reading.go_on_behind(older);
        }
        reading.segments(self.fs, self.dirs, &mut |_, _| {})?;
        if !reading.report.lost.is_empty() || reading.applied != loaded.behind.seq {
            return unknown("not made again: lines that led to it are missing");
        }
        let same = digest(&reading.state)? == digest(&loaded.state)?;
        Ok(if same { Refolded::Same } else { Refolded::Other })
    }

    /// Checkpoints that a start could use, the newest first.
    fn usable(&self) -> impl Iterator<Item = &FileReport> {
        let usable = |file: &&FileReport| {
            file.what == What::Checkpoint && !file.flaws.iter().any(|flaw| flaw.kind == Kind::Useless)
        };
        self.files.iter().rev().filter(usable)
    }

    /// Whether a missing line was in a segment whose damage is kept aside.
    fn is_kept(&self, seq: u64) -> bool {
        let segment = self.files.iter().rev().find(|file| file.what == What::Segment && file.first <= seq);
        segment.is_some_and(|file| file.flaws.iter().any(|flaw| flaw.kept && flaw.kind == Kind::Lost))
    }
}

enum Refolded {
    Same,
    Other,
    Unknown(String),
}

fn useless(bytes: u64, why: String) -> Flaw {
    Flaw { offset: 0, bytes, kind: Kind::Useless, why, kept: false }
}

/// The bytes that belong to an entry of a report.
fn bytes_of(aside: &[Aside], damage: usize) -> &[u8] {
    aside.iter().find(|aside| aside.damage == damage).map_or(&[], |aside| &aside.bytes)
}

/// The header of a segment, if it is whole.
fn header(data: &[u8]) -> Option<Header> {
    let first = data.split(|byte| *byte == b'\n').next()?;
    Header::parse(&sealed::unseal(first)?)
}

fn digest(state: &State) -> Result<[u8; 32], JournalError> {
    let mut sum = Sha256::new();
    state.entities(|entity| {
        sum.update(entity);
        sum.update(b"\n");
        Ok::<(), serde_json::Error>(())
    })?;
    Ok(sum.finalize().into())
}

impl FileReport {
    /// The name of the file with the directory it is in.
    #[must_use]
    pub fn short(&self) -> String {
        short(&self.file)
    }
}

/// The last two parts of a path.
pub(super) fn short(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match (path.parent().and_then(name), name(path)) {
        (Some(dir), Some(file)) => format!("{dir}/{file}"),
        (_, file) => file.unwrap_or_default(),
    }
}
