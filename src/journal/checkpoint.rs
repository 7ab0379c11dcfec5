//! Checkpoints: the memory after some line, as a file of its own.
//!
//! ```text
//! {"v":2,"ckpt":18341,"t":…,"g":7,"sw":"0.3.1","min_reader":2,"prev":"00000000","crc":"…"}
//! {"job":"web",…,"prev":"…","crc":"…"}
//! {"end":true,"seq":18341,"n":1000,"bytes":580123,"sha256":"…","journal_crc":"…","prev":"…","crc":"…"}
//! ```
//!
//! A sealed line for each entity, in one chain with header and footer. The footer says how much there
//! must be, and the checksum of the line of the event log that follows on.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::append::hex;
use super::fs::{Fs, ReadAt};
use super::line::closed;
use super::planted::{Fault, planted};
use super::report::{Damage, Kind};
use super::scan::scan;
use super::sealed::{self, Sealed, unseal};
use super::segment::{Dirs, Named};
use super::{JournalError, VERSION, line, mend, segment};
use crate::core::ids::Generation;
use crate::core::rest::{Place, Shelf};
use crate::core::state::State;
use crate::core::time::Stamp;

/// Bytes written at a time.
const CHUNK: usize = 1 << 20;

/// No line of ours is so long.
const LINE_MAX: usize = 1 << 28;

#[derive(Serialize, Deserialize)]
struct Header {
    v: u32,
    ckpt: u64,
    t: i64,
    m: u64,
    g: Generation,
    sw: String,
    min_reader: u32,
    /// Ended runs that were remembered for each job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep_runs: Option<usize>,
}

impl Header {
    fn behind(&self, seq: u64, crc: u32) -> Behind {
        let at = Stamp { boot_us: self.m, wall_us: self.t };
        Behind { seq, crc, at, generation: self.g }
    }
}

#[derive(Serialize, Deserialize)]
struct Footer {
    end: bool,
    seq: u64,
    /// Lines between header and footer.
    n: u64,
    /// Bytes before the footer.
    bytes: u64,
    /// Of those bytes.
    sha256: String,
    /// Checksum of line `seq` of the event log.
    journal_crc: String,
}

/// Which line a checkpoint stands behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) seq: u64,
    pub(super) crc: u32,
    pub(super) at: Stamp,
    pub(super) generation: Generation,
}

/// What a checkpoint holds.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) state: State,
    pub(super) behind: Behind,
    pub(super) bytes: u64,
    /// Lines between header and footer.
    pub(super) entities: u64,
    /// What the header says of who made it: the build, and how many ended runs it remembered.
    pub(super) by: (String, Option<usize>),
    /// What the footer says of the bytes before it: how many, and their SHA-256.
    pub(super) sum: (u64, String),
    /// Lines that were put right, with the bytes that were in the file.
    pub(super) mended: Vec<(Damage, Vec<u8>)>,
}

/// Writes one: under another name, synced, read back and compared, named, the name synced. Its length.
pub(super) fn write(fs: &dyn Fs, dirs: &Dirs, state: &State, behind: &Behind) -> Result<u64, JournalError> {
    let path = dirs.checkpoint(behind.seq);
    let temp = path.with_extension("jsonl.tmp");
    let written = fill(fs, &temp, state, behind).and_then(|len| {
        fs.rename(&temp, &path).map_err(JournalError::io("rename", &temp))?;
        Ok(len)
    });
    if written.is_err() {
        // Space may be what is missing. The first error matters.
        let _ = fs.unlink(&temp);
    }
    if !planted(Fault::CheckpointNameUnsynced) {
        fs.sync_dir(&dirs.checkpoints).map_err(JournalError::io("sync", &dirs.checkpoints))?;
    }
    written
}

fn fill(fs: &dyn Fs, temp: &Path, state: &State, behind: &Behind) -> Result<u64, JournalError> {
    let mut file = fs.create(temp).map_err(JournalError::io("create", temp))?;
    let mut sum = Sha256::new();
    let (mut chunk, mut len, mut n) = (Vec::with_capacity(CHUNK), 0u64, 0u64);
    let header = Header {
        v: VERSION,
        ckpt: behind.seq,
        t: behind.at.wall_us,
        m: behind.at.boot_us,
        g: behind.generation,
        sw: env!("CARGO_PKG_VERSION").to_owned(),
        min_reader: VERSION,
        keep_runs: Some(state.keep_runs),
    };
    let mut crc = segment::seal_value(&mut chunk, &header, 0)?;
    state.entities(|entity| {
        if n == 1 && planted(Fault::CheckpointForgets) {
            return Ok(());
        }
        let start = chunk.len();
        chunk.extend_from_slice(entity.strip_suffix(b"}").unwrap_or(entity));
        crc = sealed::seal(&mut chunk, start, crc);
        n += 1;
        if chunk.len() >= CHUNK {
            file.append(&chunk).map_err(JournalError::io("write", temp))?;
            sum.update(&chunk);
            len += chunk.len() as u64;
            chunk.clear();
        }
        Ok::<(), JournalError>(())
    })?;
    sum.update(&chunk);
    len += chunk.len() as u64;
    let footer = Footer {
        end: true,
        seq: behind.seq,
        n,
        bytes: len,
        sha256: hex(&sum.clone().finalize()),
        journal_crc: format!("{:08x}", behind.crc),
    };
    let start = chunk.len();
    segment::seal_value(&mut chunk, &footer, crc)?;
    sum.update(&chunk[start..]);
    len += (chunk.len() - start) as u64;
    file.append(&chunk).map_err(JournalError::io("write", temp))?;
    if !planted(Fault::CheckpointNamedUnsynced) {
        file.sync().map_err(JournalError::io("sync", temp))?;
    }
    let back = summed(fs, temp)?;
    if back == (len, sum.finalize().into()) {
        Ok(len)
    } else {
        let differs = std::io::Error::other("what is read back is not what was written");
        Err(JournalError::io("trust", temp)(differs))
    }
}

/// Length and SHA-256 of a file.
fn summed(fs: &dyn Fs, path: &Path) -> Result<(u64, [u8; 32]), JournalError> {
    summed_up_to(fs, path, u64::MAX)
}

/// The same of its first bytes.
pub(super) fn summed_up_to(fs: &dyn Fs, path: &Path, bytes: u64) -> Result<(u64, [u8; 32]), JournalError> {
    let read = || JournalError::io("read", path);
    let file = fs.reader(path).map_err(read())?.take(bytes);
    let mut reader = BufReader::with_capacity(CHUNK / 4, file);
    let (mut sum, mut len) = (Sha256::new(), 0);
    loop {
        let bytes = reader.fill_buf().map_err(read())?;
        if bytes.is_empty() {
            return Ok((len, sum.finalize().into()));
        }
        sum.update(bytes);
        let n = bytes.len();
        len += n as u64;
        reader.consume(n);
    }
}

/// Why a checkpoint cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It is damaged.
    Damaged(String),
    /// It cannot be read, or only by a later build.
    Fatal(JournalError),
}

/// Reads one into `state`, which is empty.
pub(super) fn load(fs: &dyn Fs, file: &Named, empty: &State) -> Result<Loaded, Unusable> {
    match quick(fs, file, empty.clone()) {
        Err(Unusable::Damaged(_)) => thorough(fs, file, empty.clone()),
        other => other,
    }
}

/// Line by line, as long as all is well.
fn quick(fs: &dyn Fs, file: &Named, state: State) -> Result<Loaded, Unusable> {
    let failed = |e| Unusable::Fatal(JournalError::io("read", &file.path)(e));
    let opened = Arc::new(Opened { file: fs.random(&file.path).map_err(failed)?, path: file.path.clone() });
    let shelf: Arc<dyn Shelf> = Arc::clone(&opened) as _;
    let mut filling = Filling::new(file, state);
    let (mut buffer, mut filled, mut offset) = (vec![0; CHUNK / 4], 0, 0);
    loop {
        let n = opened.file.read_at(&mut buffer[filled..], offset + filled as u64).map_err(failed)?;
        filled += n;
        let mut done = 0;
        for end in memchr::memchr_iter(b'\n', &buffer[..filled]) {
            let line = &buffer[done..end];
            let sealed = unseal(line).ok_or_else(|| Unusable::Damaged("no whole line".to_owned()))?;
            filling.line(&sealed, line, Some((&shelf, offset + done as u64)))?;
            done = end + 1;
        }
        if n == 0 {
            let rest = if done == filled { None } else { Some("its last line has no end") };
            return rest
                .map_or_else(|| filling.done(Vec::new()), |why| Err(Unusable::Damaged(why.to_owned())));
        }
        buffer.copy_within(done..filled, 0);
        filled -= done;
        offset += done as u64;
        if filled == buffer.len() {
            if filled > LINE_MAX {
                return Err(Unusable::Damaged("a line without an end".to_owned()));
            }
            buffer.resize(filled * 2, 0);
        }
    }
}

/// A checkpoint that lines are read from, now and then.
#[derive(Debug)]
struct Opened {
    file: Box<dyn ReadAt>,
    path: PathBuf,
}

/// A line that has rotted since it was proved, put right. Its neighbours are not at hand; that it is JSON and
/// about the right job has to do.
fn mended(line: &[u8]) -> Option<Vec<u8>> {
    let all = mend::one_bit(line).into_iter();
    let mut whole = all.filter_map(|line| unseal(&line).map(|sealed| closed(sealed.body)));
    whole.find(|line| serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok())
}

impl Shelf for Opened {
    fn fetch(&self, place: Place) -> Result<Vec<u8>, String> {
        let mut line = vec![0; usize::try_from(place.len()).unwrap_or(0)];
        let mut filled = 0;
        let read = loop {
            match self.file.read_at(&mut line[filled..], place.offset() + filled as u64) {
                Ok(0) => break Ok(()),
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e.to_string()),
            }
        };
        let whole = unseal(&line).map(|sealed| closed(sealed.body)).or_else(|| mended(&line));
        read.and_then(|()| whole.ok_or_else(|| "its line is damaged".to_owned())).map_err(|why| {
            let why = format!("{} at {}: {why}", self.path.display(), place.offset());
            tracing::error!("a job that is over cannot be looked up: {why}");
            why
        })
    }
}

/// With the whole file at hand, to put single wrong bits right.
fn thorough(fs: &dyn Fs, file: &Named, state: State) -> Result<Loaded, Unusable> {
    let read = fs.read(&file.path);
    let data = read.map_err(|e| Unusable::Fatal(JournalError::io("read", &file.path)(e)))?;
    let mut filling = Filling::new(file, state);
    let mut mended = Vec::new();
    for piece in scan(&data, Some(0)) {
        let Some(good) = &piece.good else {
            return Err(Unusable::Damaged(format!("no whole line at {}", piece.offset)));
        };
        if good.mended {
            let damage = Damage {
                file: file.path.clone(),
                offset: piece.offset as u64,
                bytes: piece.len as u64,
                kind: Kind::Mended,
                why: "a wrong bit was put right".to_owned(),
                copy: None,
            };
            mended.push((damage, data[piece.offset..piece.offset + piece.len].to_vec()));
        }
        filling.line(&good.sealed(), &good.bytes, None)?;
    }
    filling.done(mended)
}

/// A checkpoint half read.
struct Filling {
    number: u64,
    path: PathBuf,
    state: State,
    crc: u32,
    len: u64,
    n: u64,
    header: Option<Header>,
    behind: Option<Behind>,
    sum: (u64, String),
}

impl Filling {
    fn new(file: &Named, state: State) -> Self {
        let (number, path) = (file.number, file.path.clone());
        let sum = (0, String::new());
        Self { number, path, state, crc: 0, len: 0, n: 0, header: None, behind: None, sum }
    }

    /// Takes a line. `kept` says where in the file it stays.
    fn line(
        &mut self,
        sealed: &Sealed<'_>,
        whole: &[u8],
        kept: Option<(&Arc<dyn Shelf>, u64)>,
    ) -> Result<(), Unusable> {
        let damaged = |why: String| Unusable::Damaged(why);
        if sealed.prev != self.crc || self.behind.is_some() {
            return Err(damaged("a line is missing or in the wrong place".to_owned()));
        }
        self.crc = sealed.crc;
        if let Some(header) = &self.header {
            if sealed.body.starts_with(b"{\"end\":") {
                let footer: Footer =
                    serde_json::from_slice(&closed(sealed.body)).map_err(|e| damaged(e.to_string()))?;
                let same = (footer.seq, footer.n, footer.bytes) == (self.number, self.n, self.len);
                let crc = u32::from_str_radix(&footer.journal_crc, 16).ok().filter(|_| same);
                let crc = crc.ok_or_else(|| damaged("its end does not fit".to_owned()))?;
                self.behind = Some(header.behind(footer.seq, crc));
                self.sum = (footer.bytes, footer.sha256);
            } else {
                self.state.restore(whole, kept).map_err(|e| damaged(e.to_string()))?;
                self.n += 1;
            }
        } else {
            if let Some(version) = line::newer(sealed) {
                return Err(Unusable::Fatal(JournalError::Newer { path: self.path.clone(), version }));
            }
            let header: Header =
                serde_json::from_slice(&closed(sealed.body)).map_err(|e| damaged(e.to_string()))?;
            if header.ckpt != self.number {
                return Err(damaged("it is another one under this name".to_owned()));
            }
            self.header = Some(header);
        }
        self.len += whole.len() as u64 + 1;
        Ok(())
    }

    fn done(self, mended: Vec<(Damage, Vec<u8>)>) -> Result<Loaded, Unusable> {
        let no_end = || Unusable::Damaged("it has no end".to_owned());
        let header = self.header.ok_or_else(no_end)?;
        let unended = planted(Fault::EndNotChecked).then(|| header.behind(self.number, 0));
        let behind = self.behind.or(unended).ok_or_else(no_end)?;
        let Self { mut state, len, n, sum, .. } = self;
        state.restored();
        let by = (header.sw, header.keep_runs);
        Ok(Loaded { state, behind, bytes: len, entities: n, by, sum, mended })
    }
}
