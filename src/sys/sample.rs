//! What many trees of processes use now, in one go and cheaply.
//!
//! A tree is the main process of a run and what belongs to it:
//!
//! - with a control group: its members, and those of the groups that they have made in it. Complete;
//! - else what descends from the main process, and of its parent's other children (which is where orphans
//!   go) those that are in the main process's session, with their descendants.
//!
//! Without a group, a process is missed that was left by its parent and has made a session of its own, as a
//! daemon does. Its environment would still name the run; to read the environments of all orphans every few
//! seconds costs more than it is worth. What such a process uses is not seen.
//!
//! There are two ways to find descendants. The kernel lists the children of a thread: one short file for
//! each thread of a tree. Or one pass over all of `/proc`, which tells the parent and session of everybody.
//! Which one is shorter is known beforehand, since the number of links of `/proc` tells how many processes
//! there are; so a thousand runs alone on a host cost one pass, and three runs among ten thousand others
//! three short files.
//!
//! Files are read as bytes into one buffer, without an allocation for each. A library for this (sysinfo) took three times
//! as long for a thousand processes, and knows neither groups nor sessions.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::{cgroup, pidfd, proc};

/// Groups in groups that are looked into.
const DEPTH_MAX: u32 = 8;

/// Pages of a process whose proportional set size is read: 256 MiB where pages have 4 KiB.
const PSS_PAGES_MAX: u64 = 65_536;

/// One run to look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Its main process.
    pub pid: i32,
    /// The start time of that process in clock ticks after boot; 0: unknown.
    pub start_ticks: u64,
    /// Its pidfs inode, which is looked at only where the start time is not known; 0: unknown.
    pub pidfs: u64,
    /// The run's control group.
    pub group: Option<PathBuf>,
}

/// What a tree of processes uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// Letter of the main process's state: `R`, `S`, `D`, `T`, `Z`, …
    pub state: u8,
    /// Processes that live, the main one included; zombies do not count.
    pub processes: u32,
    /// Their threads.
    pub threads: u32,
    /// CPU time in microseconds, user and system. Of a group: all that was ever in it. Else of those that
    /// are there, and of their children that were waited for: what an orphan used is gone with it, so
    /// this may go back.
    pub cpu_us: u64,
    /// Memory in bytes. Of a group with the memory controller: what is charged to it, without cached files
    /// that could be dropped. Else the sum of the resident sets, in which shared pages count several times.
    pub rss_bytes: u64,
    /// Proportional set size in bytes. Only in detail, and without processes that are large, because the kernel
    /// looks at every page while it holds their memory, or in uninterruptible sleep: to
    /// read it one may have to wait for what they wait for.
    pub pss_bytes: Option<u64>,
    /// Open descriptors. Only in detail.
    pub open_files: Option<u32>,
    /// Bytes fetched from storage. Only in detail, and if we may look.
    pub read_bytes: Option<u64>,
    /// Bytes sent to storage. Only in detail, and if we may look.
    pub written_bytes: Option<u64>,
}

/// Looks at all of these, in the same order. `None`: that process is gone, or another one has its number.
#[must_use]
pub fn sample(wanted: &[Wanted], detail: bool) -> Vec<Option<Sample>> {
    let Some(mut reader) = Reader::open(Path::new("/proc")) else { return vec![None; wanted.len()] };
    let trees = Search::new(&mut reader, wanted).run();
    let units = Units::now();
    trees
        .iter()
        .zip(wanted)
        .map(|(tree, wanted)| {
            let tree = tree.as_ref()?;
            let mut sample = tree.sum(&units);
            if let Some(group) = tree.grouped.then_some(wanted.group.as_deref()).flatten() {
                let usage = cgroup::usage(group).unwrap_or_default();
                sample.cpu_us = usage.cpu_us.unwrap_or(sample.cpu_us);
                sample.rss_bytes = usage.memory_bytes.unwrap_or(sample.rss_bytes);
                let tasks = usage.pids.map(|tasks| u32::try_from(tasks).unwrap_or(u32::MAX));
                sample.threads = tasks.unwrap_or(sample.threads);
            }
            if detail {
                tree.look_closer(&mut reader, &mut sample);
            }
            Some(sample)
        })
        .collect()
}

/// The processes of one tree, the main one first; empty if that is gone.
#[must_use]
pub fn members(wanted: &Wanted) -> Vec<i32> {
    let Some(mut reader) = Reader::open(Path::new("/proc")) else { return Vec::new() };
    let trees = Search::new(&mut reader, std::slice::from_ref(wanted)).run();
    trees.iter().flatten().flat_map(|tree| tree.all().map(|(pid, _)| pid)).collect()
}

/// What numbers in `/proc` stand for.
struct Units {
    page_bytes: u64,
    tick_us: u64,
}

impl Units {
    fn now() -> Self {
        Self {
            page_bytes: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
            tick_us: 1_000_000 / rustix::param::clock_ticks_per_second().max(1),
        }
    }
}

/// What `/proc/PID/stat` tells that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    state: u8,
    parent: i32,
    session: i32,
    /// Its own, and of children that were waited for.
    ticks: u64,
    threads: u32,
    start_ticks: u64,
    rss_pages: u64,
}

impl Line {
    /// The command may hold spaces and parentheses: fields are counted after the last `)`.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let after = bytes.get(memchr::memrchr(b')', bytes)? + 2..)?;
        let mut fields = after.split(|byte| matches!(byte, b' ' | b'\n'));
        let mut at = 3;
        // Fields by their numbers in proc(5), which must rise.
        let mut field = |number: usize| {
            let found = fields.nth(number - at);
            at = number + 1;
            found
        };
        let state = *field(3)?.first()?;
        let (parent, session) = (small(field(4)?)?, small(field(6)?)?);
        let mut ticks = 0u64;
        for n in 14..=17 {
            ticks = ticks.saturating_add(number(field(n)?).unwrap_or(0));
        }
        let threads = u32::try_from(number(field(20)?)?).ok()?;
        let (start_ticks, rss_pages) = (number(field(22)?)?, number(field(24)?)?);
        Some(Self { state, parent, session, ticks, threads, start_ticks, rss_pages })
    }

    const fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

/// Digits and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A process id. A session outside of our pid namespace is 0.
fn small(text: &[u8]) -> Option<i32> {
    i32::try_from(number(text)?).ok()
}

/// The process ids in a list, whatever separates them.
fn pids(text: &[u8]) -> impl Iterator<Item = i32> {
    text.split(u8::is_ascii_whitespace).filter_map(small)
}

/// Reads files below `/proc` into one buffer.
struct Reader {
    root: PathBuf,
    dir: OwnedFd,
    name: Vec<u8>,
    buffer: Vec<u8>,
}

impl Reader {
    fn open(root: &Path) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(root, flags, Mode::empty()).ok()?;
        Some(Self { root: root.to_owned(), dir, name: Vec::with_capacity(64), buffer: vec![0; 4096] })
    }

    fn open_file(&mut self, pid: i32, rest: &str) -> Option<OwnedFd> {
        self.name.clear();
        write!(self.name, "{pid}/{rest}\0").ok()?;
        let name = std::ffi::CStr::from_bytes_with_nul(&self.name).ok()?;
        rustix::fs::openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
    }

    /// A file that the kernel gives whole in one read.
    fn one(&mut self, pid: i32, rest: &str) -> Option<&[u8]> {
        let file = self.open_file(pid, rest)?;
        let len = rustix::io::read(&file, self.buffer.as_mut_slice()).ok()?;
        self.buffer.get(..len)
    }

    /// A file of any length.
    fn whole(&mut self, pid: i32, rest: &str) -> Option<&[u8]> {
        let file = self.open_file(pid, rest)?;
        let mut len = 0;
        loop {
            if len == self.buffer.len() {
                self.buffer.resize(len * 2, 0);
            }
            match rustix::io::read(&file, self.buffer.get_mut(len..)?).ok()? {
                0 => return self.buffer.get(..len),
                n => len += n,
            }
        }
    }

    fn line(&mut self, pid: i32) -> Option<Line> {
        Line::parse(self.one(pid, "stat")?)
    }

    /// The children of a process with this many threads, each of which may have some.
    fn children(&mut self, pid: i32, threads: u32, found: &mut Vec<i32>) {
        if threads <= 1 {
            found.extend(self.whole(pid, &format!("task/{pid}/children")).into_iter().flat_map(pids));
            return;
        }
        let Ok(list) = std::fs::read_dir(self.root.join(format!("{pid}/task"))) else { return };
        for thread in list.flatten() {
            let name = thread.file_name();
            let path = format!("task/{}/children", name.to_string_lossy());
            found.extend(self.whole(pid, &path).into_iter().flat_map(pids));
        }
    }

    /// How many processes there are on the host: what `/proc` has for its number of links. Too many in a
    /// pid namespace, where only some of them are shown.
    fn count(&self) -> usize {
        let links = rustix::fs::statat(&self.dir, c"", AtFlags::EMPTY_PATH).map_or(0, |stat| stat.st_nlink);
        usize::try_from(links).unwrap_or(usize::MAX)
    }

    fn everybody(&self) -> Vec<i32> {
        let Ok(list) = std::fs::read_dir(&self.root) else { return Vec::new() };
        list.flatten().filter_map(|entry| small(entry.file_name().as_encoded_bytes())).collect()
    }
}

/// A main process and what belongs to it.
#[derive(Debug)]
struct Tree {
    pid: i32,
    main: Line,
    others: Vec<(i32, Line)>,
    /// Its members are those of a control group.
    grouped: bool,
}

impl Tree {
    fn all(&self) -> impl Iterator<Item = (i32, &Line)> {
        std::iter::once((self.pid, &self.main)).chain(self.others.iter().map(|(pid, line)| (*pid, line)))
    }

    fn sum(&self, units: &Units) -> Sample {
        let mut sample = Sample { state: self.main.state, ..Sample::default() };
        for (_, line) in self.all() {
            let us = line.ticks.saturating_mul(units.tick_us);
            sample.cpu_us = sample.cpu_us.saturating_add(us);
            let bytes = line.rss_pages.saturating_mul(units.page_bytes);
            sample.rss_bytes = sample.rss_bytes.saturating_add(bytes);
            if line.lives() {
                sample.processes += 1;
                sample.threads = sample.threads.saturating_add(line.threads);
            }
        }
        sample
    }

    fn look_closer(&self, reader: &mut Reader, sample: &mut Sample) {
        for (pid, line) in self.all().filter(|(_, line)| line.lives()) {
            if line.state != b'D' && line.rss_pages <= PSS_PAGES_MAX {
                let pss = reader.whole(pid, "smaps_rollup").and_then(|text| field(text, b"Pss:"));
                add(&mut sample.pss_bytes, pss.map(|kib| kib.saturating_mul(1024)));
            }
            let files = open_files(reader, pid);
            sample.open_files = match (sample.open_files, files) {
                (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
                (sum, more) => sum.or(more),
            };
            let io = reader.one(pid, "io");
            let (read, written) =
                io.map_or((None, None), |text| (field(text, b"read_bytes:"), field(text, b"write_bytes:")));
            add(&mut sample.read_bytes, read);
            add(&mut sample.written_bytes, written);
        }
    }
}

fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}

/// The number after a name at the beginning of a line.
fn field(text: &[u8], name: &[u8]) -> Option<u64> {
    let rest = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    number(rest.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?)
}

/// Since Linux 6.2 the size of the directory tells.
fn open_files(reader: &mut Reader, pid: i32) -> Option<u32> {
    let path = reader.root.join(format!("{pid}/fd"));
    let size = rustix::fs::statat(CWD, &path, AtFlags::empty()).ok()?.st_size;
    match u32::try_from(size) {
        Ok(size) if size > 0 => Some(size),
        _ => u32::try_from(std::fs::read_dir(&path).ok()?.count()).ok(),
    }
}

/// Finds the trees.
struct Search<'a> {
    reader: &'a mut Reader,
    wanted: &'a [Wanted],
    trees: Vec<Option<Tree>>,
    /// To which tree a process belongs.
    owners: HashMap<i32, usize>,
}

impl<'a> Search<'a> {
    fn new(reader: &'a mut Reader, wanted: &'a [Wanted]) -> Self {
        Self { reader, wanted, trees: Vec::with_capacity(wanted.len()), owners: HashMap::new() }
    }

    fn run(mut self) -> Vec<Option<Tree>> {
        self.take_known();
        let open = self.trees.iter().flatten().filter(|tree| !tree.grouped);
        let (runs, threads) = open.fold((0, 0), |(runs, threads), tree| {
            (runs + 1, threads + usize::try_from(tree.main.threads).unwrap_or(usize::MAX).max(1))
        });
        // A pass reads those that are not known yet, and lists all, which is cheaper by far.
        let all = self.reader.count();
        let pass = all.saturating_sub(self.owners.len()) + all / 4;
        if runs > 0 && threads <= pass && proc::lists_children() {
            self.walk();
        } else if runs > 0 {
            self.pass();
        }
        self.trees
    }

    /// The main processes, and the members of control groups.
    fn take_known(&mut self) {
        for (n, wanted) in self.wanted.iter().enumerate() {
            let line = self.reader.line(wanted.pid).filter(|line| is_meant(wanted, line));
            self.trees.push(line.map(|main| {
                self.owners.insert(wanted.pid, n);
                Tree { pid: wanted.pid, main, others: Vec::new(), grouped: false }
            }));
        }
        for (n, wanted) in self.wanted.iter().enumerate() {
            if let Some(group) = &wanted.group {
                self.take_group(n, group);
            }
        }
    }

    fn add(&mut self, n: usize, pid: i32, line: Line) {
        if let Some(Some(tree)) = self.trees.get_mut(n) {
            self.owners.insert(pid, n);
            tree.others.push((pid, line));
        }
    }

    /// A tree that is looked for by its descendants.
    fn is_open(&self, n: usize) -> bool {
        matches!(self.trees.get(n), Some(Some(tree)) if !tree.grouped)
    }

    fn take_group(&mut self, n: usize, group: &Path) {
        let mut found = Vec::new();
        if !self.is_open(n) || !group_members(group, DEPTH_MAX, &mut found) {
            return;
        }
        // A main process that was moved elsewhere has its children there.
        if !found.contains(&self.wanted[n].pid) {
            return;
        }
        if let Some(Some(tree)) = self.trees.get_mut(n) {
            tree.grouped = true;
        }
        for pid in found {
            if !self.owners.contains_key(&pid)
                && let Some(line) = self.reader.line(pid)
            {
                self.add(n, pid, line);
            }
        }
    }

    /// The tree in whose session a process is. The main process is there, so the number is not reused.
    fn by_session(&self, line: &Line) -> Option<usize> {
        let n = *self.owners.get(&line.session)?;
        (self.is_open(n) && self.wanted[n].pid == line.session).then_some(n)
    }

    /// By the kernel's lists of children.
    fn walk(&mut self) {
        let mut open: Vec<(i32, u32, usize)> = Vec::new();
        let mut parents = BTreeSet::new();
        for (n, tree) in self.trees.iter().enumerate() {
            if let Some(tree) = tree.as_ref().filter(|tree| !tree.grouped) {
                open.push((tree.pid, tree.main.threads, n));
                parents.insert(tree.main.parent);
            }
        }
        let mut found = Vec::new();
        for parent in parents {
            if parent == 0 || self.owners.contains_key(&parent) {
                continue;
            }
            let threads = self.reader.line(parent).map_or(1, |line| line.threads);
            self.reader.children(parent, threads, &mut found);
        }
        for pid in found {
            if self.owners.contains_key(&pid) {
                continue;
            }
            // One short call tells most of them apart: there may be a thousand runs that nobody asked about.
            let elsewhere = session(pid).is_some_and(|session| !self.owners.contains_key(&session));
            if !elsewhere
                && let Some(line) = self.reader.line(pid)
                && let Some(n) = self.by_session(&line)
            {
                self.add(n, pid, line);
                open.push((pid, line.threads, n));
            }
        }
        while let Some((parent, threads, n)) = open.pop() {
            let mut found = Vec::new();
            self.reader.children(parent, threads, &mut found);
            for pid in found {
                if self.owners.contains_key(&pid) {
                    continue;
                }
                if let Some(line) = self.reader.line(pid).filter(|line| line.parent == parent) {
                    self.add(n, pid, line);
                    open.push((pid, line.threads, n));
                }
            }
        }
    }

    /// By the parents and sessions of everybody.
    fn pass(&mut self) {
        let mut lines = HashMap::new();
        for pid in self.reader.everybody() {
            if !self.owners.contains_key(&pid)
                && let Some(line) = self.reader.line(pid)
            {
                lines.insert(pid, line);
            }
        }
        let mut strangers = HashSet::new();
        let mut way = Vec::new();
        for first in lines.keys() {
            way.clear();
            let mut pid = *first;
            let owner = loop {
                if let Some(n) = self.owners.get(&pid) {
                    break Some(*n).filter(|n| self.is_open(*n));
                }
                let Some(line) = lines.get(&pid).filter(|_| !strangers.contains(&pid)) else { break None };
                // The list is not of one moment: what looks like a circle ends somewhere.
                if way.len() > lines.len() {
                    break None;
                }
                way.push((pid, *line));
                if let Some(n) = self.by_session(line) {
                    break Some(n);
                }
                pid = line.parent;
            };
            for (pid, line) in &way {
                match owner {
                    Some(n) => self.add(n, *pid, *line),
                    None => drop(strangers.insert(*pid)),
                }
            }
        }
    }
}

/// The session of a process, if there is one that we can see.
fn session(pid: i32) -> Option<i32> {
    let session = rustix::process::getsid(rustix::process::Pid::from_raw(pid)).ok()?;
    Some(session.as_raw_nonzero().get())
}

/// Whether the process with this number is the one that is meant.
fn is_meant(wanted: &Wanted, line: &Line) -> bool {
    if wanted.start_ticks != 0 {
        return wanted.start_ticks == line.start_ticks;
    }
    wanted.pidfs == 0
        || pidfd::open(wanted.pid).is_ok_and(|fd| super::identity::pidfs_inode(&fd) == wanted.pidfs)
}

/// Adds the members of a group and of those in it. False if there is no such group.
fn group_members(group: &Path, depth: u32, found: &mut Vec<i32>) -> bool {
    let Ok(text) = std::fs::read(group.join("cgroup.procs")) else { return false };
    found.extend(pids(&text));
    // Two links and one for each group in it: mostly there is none, and nothing to list.
    if depth > 0 && rustix::fs::stat(group).is_ok_and(|stat| stat.st_nlink > 2) {
        for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                group_members(&entry.path(), depth - 1, found);
            }
        }
    }
    true
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
