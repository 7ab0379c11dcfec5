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
    pub(in crate::journal) odd: Vec<OddBytes>,
    /// Checkpoints that are of no use.
    pub(in crate::journal) spoilt: Vec<PathBuf>,
}

/// Bytes that are not what was written.
#[derive(Debug)]
pub(in crate::journal) struct OddBytes {
    pub(in crate::journal) file: PathBuf,
    pub(in crate::journal) offset: u64,
    pub(in crate::journal) bytes: Vec<u8>,
    /// Which of the files, and which of its flaws.
    at: (usize, usize),
    /// There is a copy of them.
    copied: bool,
}

pub(in crate::journal) fn check(
    fs: &dyn Fs,
    dirs: &Dirs,
    on_file: &mut dyn FnMut(&Path),
) -> Result<Checked, JournalError> {
    let start = recover::read(fs, &dirs.state, State::new(), None, &mut |_, _| {})?;
    let history = recover::read_all(fs, dirs)?;
    let mut check = Check::new(fs, dirs, true);
    check.segments(&history, on_file)?;
    check.checkpoints(on_file)?;
    check.settle(start.report.checkpoint.unwrap_or(0));
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

/// What is wrong in which file, and no more: one memory at a time, and nothing is made again.
pub(super) struct Skimmed {
    /// Each flaw that nobody has dealt with, in words.
    pub(super) words: Vec<String>,
    pub(super) odd: Vec<OddBytes>,
    pub(super) spoilt: Vec<PathBuf>,
}

pub(super) fn skim(fs: &dyn Fs, dirs: &Dirs) -> Result<Skimmed, JournalError> {
    let mut check = Check::new(fs, dirs, false);
    // First, because a checkpoint that is made meanwhile covers more than this says.
    check.checkpoints(&mut |_| {})?;
    let covered = check.usable().next().map_or(0, |file| file.last);
    let history = recover::read_all(fs, dirs)?;
    check.segments(&history, &mut |_| {})?;
    check.settle(covered);
    let mut words = Vec::new();
    for file in &check.files {
        for flaw in file.flaws.iter().filter(|flaw| !flaw.kept) {
            words.push(format!("{} at {}, {} bytes: {}", file.short(), flaw.offset, flaw.bytes, flaw.why));
        }
    }
    for (from, to) in history.report.lost.iter().filter(|(_, to)| *to > covered) {
        words.push(format!("lines {from} to {to} are missing"));
    }
    let Check { odd, spoilt, .. } = check;
    Ok(Skimmed { words, odd, spoilt })
}

struct Check<'a> {
    fs: &'a dyn Fs,
    dirs: &'a Dirs,
    /// Whether checkpoints are made again and compared.
    refolds: bool,
    /// Names in `quarantine/`.
    copies: Vec<String>,
    files: Vec<FileReport>,
    odd: Vec<OddBytes>,
    spoilt: Vec<PathBuf>,
}

impl<'a> Check<'a> {
    fn new(fs: &'a dyn Fs, dirs: &'a Dirs, refolds: bool) -> Self {
        let copies = fs.list(&dirs.quarantine).unwrap_or_default();
        Self { fs, dirs, refolds, copies, files: Vec::new(), odd: Vec::new(), spoilt: Vec::new() }
    }

    /// Says of each flaw whether it is dealt with: there is a copy, and a checkpoint covers it.
    fn settle(&mut self, covered: u64) {
        let files = &mut self.files;
        self.odd.retain(|odd| {
            let file = &mut files[odd.at.0];
            let needless = match file.what {
                What::Segment => file.last <= covered,
                What::Checkpoint => file.last < covered,
            };
            let kept = odd.copied && needless && !self.spoilt.contains(&odd.file);
            file.flaws[odd.at.1].kept = kept;
            !kept
        });
    }

    /// Notes a flaw of a file whose report is in the making, with the bytes it is about.
    fn odd(&mut self, file: &mut FileReport, damage: &Damage, bytes: &[u8]) {
        let Damage { offset, bytes: len, kind, why, .. } = damage.clone();
        let copied = {
            let odd = Odd { file: &damage.file, offset, bytes };
            self.copies.contains(&odd.copy_name(self.dirs))
        };
        let at = (self.files.len(), file.flaws.len());
        file.flaws.push(Flaw { offset, bytes: len, kind, why, kept: false });
        let (file, bytes) = (damage.file.clone(), bytes.to_vec());
        self.odd.push(OddBytes { file, offset, bytes, at, copied });
    }

    fn segments(&mut self, history: &Reading, on_file: &mut dyn FnMut(&Path)) -> Result<(), JournalError> {
        let (segments, _) = list(self.fs, &self.dirs.journal)?;
        let mut before: Option<(FileReport, Vec<u8>)> = None;
        for (i, segment) in segments.iter().enumerate() {
            on_file(&segment.path);
            let data = self.fs.read(&segment.path).map_err(JournalError::io("read", &segment.path))?;
            let next = segments.get(i + 1).map(|next| next.number);
            let header = header(&data);
            if let Some((mut file, data)) = before.take() {
                self.compare_with_successor(&mut file, &data, header.as_ref());
                self.files.push(file);
            }
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
            for (at, damage) in history.report.damage.iter().enumerate() {
                if damage.file != segment.path {
                    continue;
                }
                if damage.kind != Kind::Torn {
                    self.odd(&mut file, damage, bytes_of(&history.aside, at));
                } else if next.is_none() {
                    file.remarks.push(format!("an unfinished write at its end, {} bytes", damage.bytes));
                }
            }
            before = Some((file, data));
        }
        self.files.extend(before.map(|(file, _)| file));
        Ok(())
    }

    /// The header of the next segment says what this one was when it was ended.
    fn compare_with_successor(&mut self, file: &mut FileReport, data: &[u8], next: Option<&Header>) {
        let said = next.and_then(|next| Some((next.prev_len?, next.prev_sha256.as_deref()?)));
        let Some((len, sum)) = said else { return };
        // What is wrong line by line is said already.
        if !file.flaws.is_empty() || (len, sum) == (file.bytes, hex(&Sha256::digest(data)).as_str()) {
            return;
        }
        let damage = Damage {
            file: file.file.clone(),
            offset: 0,
            bytes: file.bytes,
            kind: Kind::Useless,
            why: format!("it is not the one that was ended: {len} bytes with SHA-256 {sum}"),
            copy: None,
        };
        self.odd(file, &damage, data);
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
                    for (damage, bytes) in &loaded.mended {
                        self.odd(&mut file, damage, bytes);
                    }
                    self.sum(&mut file, &loaded)?;
                    older = self.made_again(&mut file, older.take(), loaded)?;
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
        let Ok(data) = self.fs.read(&file.file) else {
            file.flaws.push(useless(file.bytes, why));
            return;
        };
        let damage = Damage {
            file: file.file.clone(),
            offset: 0,
            bytes: data.len() as u64,
            kind: Kind::Useless,
            why,
            copy: None,
        };
        self.odd(file, &damage, &data);
        self.spoilt.push(file.file.clone());
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

    /// Compares a checkpoint with what it was made of; gives it back for the next one.
    fn made_again(
        &self,
        file: &mut FileReport,
        older: Option<Loaded>,
        mut loaded: Loaded,
    ) -> Result<Option<Loaded>, JournalError> {
        if !self.refolds {
            return Ok(None);
        }
        match self.refold(older, &mut loaded)? {
            Refolded::Same => {}
            Refolded::Unknown(why) => file.remarks.push(why),
            Refolded::Other => {
                let why = "it is not what the events before it give".to_owned();
                file.flaws.push(useless(file.bytes, why));
            }
        }
        Ok(Some(loaded))
    }

    /// Makes a checkpoint once more, out of the one before it and the segments in between.
    fn refold(&self, older: Option<Loaded>, loaded: &mut Loaded) -> Result<Refolded, JournalError> {
        let unknown = |why: &str| Ok(Refolded::Unknown(why.to_owned()));
        let (build, Some(keep_runs)) = (loaded.by.0.clone(), loaded.by.1) else {
            return unknown("not made again: it does not say how many runs it remembers");
        };
        if build != env!("CARGO_PKG_VERSION") {
            return unknown("not made again: another build made it");
        }
        if older.as_ref().is_some_and(|older| older.by.1 != Some(keep_runs)) {
            return unknown("not made again: `keep_runs` was changed before it");
        }
        let (segments, _) = list(self.fs, &self.dirs.journal)?;
        let from_the_first = segments.first().is_some_and(|segment| segment.number == 1);
        if older.is_none() && !from_the_first {
            return unknown("not made again: what led to it is no longer kept");
        }
        let mut state = State::new();
        state.keep_runs = keep_runs;
        let mut reading = Reading::new(state, Some(loaded.behind.seq));
        if let Some(mut older) = older {
            older.state.keep_runs = keep_runs;
            reading.go_on_behind(older);
        }
        reading.segments(self.fs, self.dirs, &mut |_, _| {})?;
        if !reading.report.lost.is_empty() || reading.applied != loaded.behind.seq {
            return unknown("not made again: lines that led to it are missing");
        }
        // How many runs are remembered is handed in, and was not when it was read.
        loaded.state.keep_runs = keep_runs;
        Ok(if reading.state == loaded.state { Refolded::Same } else { Refolded::Other })
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
