//! For tests: a disk that promises no more than POSIX does. What was not synced may be lost, kept, cut or
//! zeroed, any of the names that were changed since a directory was synced may be old or new, and any
//! operation may be refused. After a refused sync the kernel believes that everything is written.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fs::{Appending, Fs, ReadAt};

pub use super::planted::{Fault, plant};

/// Error numbers, the same on every Linux.
const ENOENT: i32 = 2;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A handle on one disk; clones share it.
#[derive(Debug, Clone, Default)]
pub struct SimFs(Arc<Mutex<Disk>>);

#[derive(Debug, Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    dirs: BTreeMap<PathBuf, Dir>,
    ops: u64,
    crash_at: Option<u64>,
    /// Operations that are refused, with the way in which they are.
    refusals: BTreeMap<u64, u32>,
    refused: u64,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// What a reader sees.
    cache: Vec<u8>,
    /// What is on the disk for sure.
    disk: Vec<u8>,
    /// Bytes from here on are still to be written.
    dirty_from: usize,
}

#[derive(Debug, Clone, Default)]
struct Dir {
    now: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    pending: Vec<DirOp>,
}

#[derive(Debug, Clone)]
enum DirOp {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
}

impl Dir {
    fn change(&mut self, op: DirOp) {
        op.run(&mut self.now);
        self.pending.push(op);
    }
}

impl DirOp {
    fn run(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

/// Ways in which unsynced bytes may survive a power cut.
const WAYS: usize = 10;

impl Inode {
    fn unsynced(&self) -> bool {
        self.dirty_from < self.cache.len()
    }

    /// The content after a power cut.
    fn after(&self, way: usize) -> Vec<u8> {
        if !self.unsynced() {
            return self.disk.clone();
        }
        let dirty = &self.cache[self.dirty_from..];
        let n = dirty.len();
        let (kept, zero): (usize, std::ops::Range<usize>) = match way {
            0 => return self.disk.clone(),
            1 => (n, 0..0),
            2 => (1, 0..0),
            3 => (n / 4, 0..0),
            4 => (n / 2, 0..0),
            5 => (n * 3 / 4, 0..0),
            6 => (n - 1, 0..0),
            7 => (n, 0..n),
            8 => (n, 0..n / 2),
            _ => (n, n / 2..n),
        };
        let mut content = self.disk.clone();
        content.resize(self.dirty_from, 0);
        content.extend_from_slice(&dirty[..kept]);
        for at in zero {
            content[self.dirty_from + at] = 0;
        }
        content
    }
}

/// Directory and name.
fn split(path: &Path) -> (&Path, &str) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    (path.parent().unwrap_or(path), name)
}

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl Disk {
    fn crashed(&self) -> bool {
        self.crash_at.is_some_and(|at| self.ops >= at)
    }

    /// Counts an operation; the way in which it is refused, if it is.
    fn step(&mut self) -> io::Result<Option<u32>> {
        self.ops += 1;
        if self.crashed() {
            return Err(error(EIO));
        }
        let refused = self.refusals.get(&self.ops).copied();
        self.refused += u64::from(refused.is_some());
        Ok(refused)
    }

    fn dir(&mut self, path: &Path) -> (&mut Dir, String) {
        let (parent, name) = split(path);
        let dir = self.dirs.entry(parent.to_owned()).or_default();
        (dir, name.to_owned())
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let (parent, name) = split(path);
        let found = self.dirs.get(parent).and_then(|dir| dir.now.get(name));
        found.copied().ok_or_else(|| error(ENOENT))
    }

    /// The disk after a power cut, each unsynced thing decided by `choose(ways)`.
    fn image(&self, mut choose: impl FnMut(usize) -> usize) -> Self {
        let (mut inodes, mut dirs) = (Vec::new(), BTreeMap::new());
        for (path, dir) in &self.dirs {
            let mut names = dir.durable.clone();
            for op in &dir.pending {
                if choose(2) == 1 {
                    op.run(&mut names);
                }
            }
            // What has no name any more is gone.
            for number in names.values_mut() {
                let inode = &self.inodes[*number];
                let way = if inode.unsynced() { choose(WAYS) } else { 0 };
                let disk = inode.after(way);
                *number = inodes.len();
                inodes.push(Inode { cache: disk.clone(), dirty_from: disk.len(), disk });
            }
            dirs.insert(path.clone(), Dir { now: names.clone(), durable: names, pending: Vec::new() });
        }
        Self { inodes, dirs, ..Self::default() }
    }
}

impl SimFs {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations so far that change something.
    pub fn ops(&self) -> u64 {
        self.lock().ops
    }

    /// From this operation on nothing happens any more.
    pub fn crash_at(&self, op: u64) {
        self.lock().crash_at = Some(op);
    }

    /// Whether the last operation that ever happens is over.
    pub fn has_crashed(&self) -> bool {
        self.lock().crashed()
    }

    /// The disk goes on, for another process than the one that was killed, and refuses nothing any more.
    pub fn calm(&self) {
        let mut disk = self.lock();
        disk.crash_at = None;
        disk.refusals.clear();
    }

    /// Whether the file of the highest name in a directory would survive a power cut: its name, and its content.
    pub fn is_durable(&self, dir: &Path) -> bool {
        let disk = self.lock();
        let newest = disk.dirs.get(dir).and_then(|dir| {
            let (name, number) = dir.now.iter().rfind(|(name, _)| name.ends_with(".jsonl"))?;
            Some((dir.durable.get(name) == Some(number), &disk.inodes[*number]))
        });
        newest.is_none_or(|(named, inode)| named && !inode.unsynced() && inode.cache == inode.disk)
    }

    /// Refuses one operation, in one of several ways.
    pub fn refuse(&self, op: u64, way: u32) {
        self.lock().refusals.insert(op, way);
    }

    /// How many operations were refused.
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// The disk for another process after this one was killed: nothing is lost, nothing is synced.
    pub fn killed(&self) -> Self {
        let mut disk = self.lock().clone();
        disk.crash_at = None;
        disk.refusals.clear();
        disk.ops = 0;
        Self(Arc::new(Mutex::new(disk)))
    }

    /// One disk as a power cut may leave it, each unsynced thing decided by `choose(ways)`.
    pub fn cut(&self, choose: impl FnMut(usize) -> usize) -> Self {
        let disk = self.lock().image(choose);
        Self(Arc::new(Mutex::new(disk)))
    }

    /// Disks as a power cut may leave them: all if there are at most `most`, else the plainest two and
    /// chance.
    pub fn images(&self, most: usize, mut chance: impl FnMut(usize) -> usize) -> Vec<Self> {
        let disk = self.lock();
        let mut ways = Vec::new();
        disk.image(|n| {
            ways.push(n);
            0
        });
        let all = ways.iter().try_fold(1usize, |all, n| all.checked_mul(*n).filter(|all| *all <= most));
        let pick = |digits: &[usize]| {
            let mut digits = digits.iter();
            Self(Arc::new(Mutex::new(disk.image(|_| digits.next().copied().unwrap_or(0)))))
        };
        match all {
            Some(all) => (0..all)
                .map(|mut n| {
                    let digits: Vec<usize> = ways
                        .iter()
                        .map(|ways| {
                            let digit = n % ways;
                            n /= ways;
                            digit
                        })
                        .collect();
                    pick(&digits)
                })
                .collect(),
            None => (0..most)
                .map(|i| {
                    let digits: Vec<usize> =
                        ways.iter().map(|ways| if i < 2 { i } else { chance(*ways) }).collect();
                    pick(&digits)
                })
                .collect(),
        }
    }

    /// All files with their content.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let disk = self.lock();
        let mut files = BTreeMap::new();
        for (path, dir) in &disk.dirs {
            for (name, inode) in &dir.now {
                files.insert(path.join(name), disk.inodes[*inode].cache.clone());
            }
        }
        files
    }

    /// Puts a file there, durably.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut disk = self.lock();
        let inode = disk.inodes.len();
        disk.inodes.push(Inode { cache: bytes.to_vec(), disk: bytes.to_vec(), dirty_from: bytes.len() });
        let (dir, name) = disk.dir(path);
        dir.now.insert(name.clone(), inode);
        dir.durable.insert(name, inode);
    }

    /// A disk of its own with the same content.
    pub fn copy(&self) -> Self {
        let fs = Self::default();
        for (path, bytes) in self.files() {
            fs.put(&path, &bytes);
        }
        fs
    }
}

#[derive(Debug)]
struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = &self.0[self.0.len().min(usize::try_from(offset).unwrap_or(usize::MAX))..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

impl Fs for SimFs {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.lock();
        Ok(disk.dirs.get(dir).map(|dir| dir.now.keys().cloned().collect()).unwrap_or_default())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = self.lock();
        Ok(disk.inodes[disk.find(path)?].cache.clone())
    }

    fn reader(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.read(path)?)))
    }

    fn random(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        Ok(Box::new(Bytes(self.read(path)?)))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.read(path).map(|bytes| bytes.len() as u64)
    }

    fn free(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        let mut disk = self.lock();
        let refused = disk.step()?;
        if refused.is_none_or(|way| way % 2 == 1) {
            let inode = disk.inodes.len();
            disk.inodes.push(Inode::default());
            let (dir, name) = disk.dir(path);
            dir.change(DirOp::Link(name, inode));
            if refused.is_none() {
                return Ok(Box::new(SimFile { fs: self.clone(), inode }));
            }
        }
        Err(error(ENOSPC))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let inode = self.lock().find(path)?;
        SimFile { fs: self.clone(), inode }.sync()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        let refused = disk.step()?;
        if refused.is_none_or(|way| way % 2 == 1) {
            let inode = disk.find(from)?;
            let to = split(to).1.to_owned();
            let (dir, from) = disk.dir(from);
            dir.change(DirOp::Rename(from, to, inode));
        }
        refused.map_or(Ok(()), |_| Err(error(EIO)))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        let refused = disk.step()?;
        disk.find(path)?;
        if refused.is_none_or(|way| way % 2 == 1) {
            let (dir, name) = disk.dir(path);
            dir.change(DirOp::Unlink(name));
        }
        refused.map_or(Ok(()), |_| Err(error(EIO)))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        let refused = disk.step()?;
        let dir = disk.dirs.entry(path.to_owned()).or_default();
        if refused.is_none_or(|way| way % 2 == 1) {
            dir.durable = dir.now.clone();
            dir.pending.clear();
        }
        refused.map_or(Ok(()), |_| Err(error(EIO)))
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.lock().dirs.entry(dir.to_owned()).or_default();
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    inode: usize,
}

impl Appending for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.fs.lock();
        let refused = disk.step()?;
        let taken = match refused {
            None => bytes.len(),
            Some(way) => bytes.len() * (way as usize % 3) / 2,
        };
        disk.inodes[self.inode].cache.extend_from_slice(&bytes[..taken]);
        refused.map_or(Ok(()), |_| Err(error(ENOSPC)))
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.fs.lock();
        let refused = disk.step()?;
        let inode = &mut disk.inodes[self.inode];
        let from = inode.dirty_from;
        inode.dirty_from = inode.cache.len();
        match refused.map(|way| way % 3) {
            // The pages are clean zeros.
            Some(0) => {
                inode.cache[from..].fill(0);
                inode.disk.clone_from(&inode.cache);
            }
            // The pages are clean and still show what is not on the disk.
            Some(1) => {}
            // All of it has arrived, and the answer is an error all the same.
            _ => {
                inode.disk.resize(from, 0);
                let new = inode.cache[from..].to_vec();
                inode.disk.extend_from_slice(&new);
            }
        }
        refused.map_or(Ok(()), |_| Err(error(EIO)))
    }

    fn allocate(&mut self, _: u64) -> io::Result<()> {
        let refused = self.fs.lock().step()?;
        refused.map_or(Ok(()), |_| Err(error(ENOSPC)))
    }
}
