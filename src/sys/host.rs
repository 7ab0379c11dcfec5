//! What the host, or the container that we are in, has left: memory, processes, descriptors, disks.
//!
//! In a container the numbers in `/proc` are those of the host. Where a control group (version 2) around us
//! has a limit, that is what counts. Every answer may be missing: an old kernel, no `/proc`, no right to look.

use std::io;
use std::path::{Path, PathBuf};

use super::cgroup::{self, number};

/// Memory in use and how much there may be, in bytes: of the control group around us that has least left, if
/// one has a limit, else of the host. Files that are cached and could be let go do not count as used.
#[must_use]
pub fn memory() -> Option<(u64, u64)> {
    memory_in(Path::new("/"))
}

fn memory_in(root: &Path) -> Option<(u64, u64)> {
    let of_group = |group: &Path| Some((cgroup::memory_in(group)?, number(&group.join("memory.max"))?));
    tightest(root, of_group).or_else(|| parse_memory(&text(root, "proc/meminfo")?))
}

/// In use and all, in bytes, of `/proc/meminfo`.
fn parse_memory(text: &str) -> Option<(u64, u64)> {
    let bytes = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let all = bytes("MemTotal")?;
    Some((all.saturating_sub(bytes("MemAvailable")?), all))
}

/// How long something was waited for, in percent of the last ten seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stall {
    /// At least one task waited.
    pub some: f64,
    /// All that had something to do waited; for the CPU of a host always 0.
    pub full: f64,
}

/// Pressure stall information; what the kernel does not tell is missing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressure {
    /// Waiting for a CPU.
    pub cpu: Option<Stall>,
    /// Waiting for memory.
    pub memory: Option<Stall>,
    /// Waiting for disks.
    pub io: Option<Stall>,
}

/// The pressure on the host; `None` where the kernel does not measure it.
#[must_use]
pub fn pressure() -> Option<Pressure> {
    pressure_in(Path::new("/"))
}

fn pressure_in(root: &Path) -> Option<Pressure> {
    let stall = |name: &str| parse_stall(&text(root, &format!("proc/pressure/{name}"))?);
    let pressure = Pressure { cpu: stall("cpu"), memory: stall("memory"), io: stall("io") };
    (pressure != Pressure::default()).then_some(pressure)
}

/// `some avg10=1.25 avg60=…` and a line `full`, which old kernels do not have for the CPU.
fn parse_stall(text: &str) -> Option<Stall> {
    let average = |kind: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let value = rest.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
        value.parse::<f64>().ok().filter(|percent| percent.is_finite())
    };
    Some(Stall { some: average("some ")?, full: average("full ").unwrap_or(0.0) })
}

/// Processes and threads that there are, and may be: of the control group around us that has least left, if
/// one has a limit, else of the host.
#[must_use]
pub fn pids() -> Option<(u64, u64)> {
    pids_in(Path::new("/"))
}

fn pids_in(root: &Path) -> Option<(u64, u64)> {
    let of_group =
        |group: &Path| Some((number(&group.join("pids.current"))?, number(&group.join("pids.max"))?));
    tightest(root, of_group).or_else(|| {
        let used = parse_tasks(&text(root, "proc/loadavg")?)?;
        let limits = ["proc/sys/kernel/pid_max", "proc/sys/kernel/threads-max"];
        let limit = limits.iter().filter_map(|path| number(&root.join(path))).min()?;
        Some((used, limit))
    })
}

/// The second number of `running/all` in `/proc/loadavg`: processes and threads.
fn parse_tasks(text: &str) -> Option<u64> {
    text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// Open files of the whole host and how many there may be (`fs.file-max`).
#[must_use]
pub fn open_files() -> Option<(u64, u64)> {
    parse_files(&text(Path::new("/"), "proc/sys/fs/file-nr")?)
}

/// Allocated, free (since Linux 2.6 always 0), most.
fn parse_files(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let (allocated, free, most) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((allocated.saturating_sub(free), most))
}

/// What one user may have of inotify. How much is in use is not told anywhere: it would take a look at
/// every descriptor of every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inotify {
    /// Watches.
    pub watches: u64,
    /// Instances.
    pub instances: u64,
}

/// The limits of inotify.
#[must_use]
pub fn inotify() -> Option<Inotify> {
    inotify_in(Path::new("/"))
}

fn inotify_in(root: &Path) -> Option<Inotify> {
    let dir = root.join("proc/sys/fs/inotify");
    Some(Inotify {
        watches: number(&dir.join("max_user_watches"))?,
        instances: number(&dir.join("max_user_instances"))?,
    })
}

/// Whether one more file could be watched: makes an instance of inotify, watches `/` with it, and gives both back.
///
/// # Errors
///
/// `EMFILE` where this user has no instance left, `ENOSPC` where no watch is left.
pub fn try_inotify() -> io::Result<()> {
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    let instance = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&instance, "/", WatchFlags::DELETE_SELF)?;
    Ok(())
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Its size in bytes.
    pub total: u64,
    /// What is used of it in bytes.
    pub used: u64,
    /// What we can still write in bytes: some is kept back for root.
    pub available: u64,
    /// Files it can have; 0 where there is no fixed number.
    pub inodes: u64,
    /// How many more it can have.
    pub inodes_free: u64,
    /// Its device number, by which two paths on the same one are known.
    pub device: u64,
}

impl Disk {
    /// The share of the space that is used, 0 to 1, of what we could have at all: as `df` shows it.
    #[must_use]
    pub fn used_share(&self) -> f64 {
        share(self.used, self.used.saturating_add(self.available))
    }

    /// The share of the files that is used, 0 to 1; 0 where there is no fixed number.
    #[must_use]
    pub fn inodes_used_share(&self) -> f64 {
        share(self.inodes.saturating_sub(self.inodes_free), self.inodes)
    }
}

#[allow(clippy::cast_precision_loss, reason = "a share needs no more digits")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The file system that a path is on. A file system on a network may let one wait for as long as it likes.
///
/// # Errors
///
/// Whatever statvfs(2) and stat(2) say.
pub fn disk(path: &Path) -> io::Result<Disk> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Disk {
        total: bytes(stat.f_blocks),
        used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        available: bytes(stat.f_bavail),
        inodes: stat.f_files,
        inodes_free: stat.f_favail,
        device: rustix::fs::stat(path)?.st_dev,
    })
}

fn text(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(root.join(path)).ok()
}

/// What is used and may be used, of our own control group or the one around it that has least left.
fn tightest(root: &Path, read: impl Fn(&Path) -> Option<(u64, u64)>) -> Option<(u64, u64)> {
    let (point, below) =
        cgroup::mounted(&text(root, "proc/self/cgroup")?, &text(root, "proc/self/mountinfo")?)?;
    let point = root.join(point.strip_prefix("/").unwrap_or(&point));
    // A group of another namespace is told as a path upwards, and is not to be seen from here.
    if below.starts_with("..") {
        return None;
    }
    let groups: Vec<PathBuf> = below.ancestors().map(|part| point.join(part)).collect();
    groups.iter().filter_map(|group| read(group)).min_by_key(|(used, limit)| limit.saturating_sub(*used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A root with these files in it.
    fn fake(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            super::super::disk::create_new(&path, 0o600).unwrap().write_all(text.as_bytes()).unwrap();
        }
        dir
    }

    const HOST: &[(&str, &str)] = &[
        ("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n"),
        ("proc/loadavg", "0.1 0.2 0.3 4/321 12345\n"),
        ("proc/sys/kernel/pid_max", "32768\n"),
        ("proc/sys/kernel/threads-max", "4000\n"),
        ("proc/self/cgroup", "0::/a/b\n"),
        ("proc/self/mountinfo", "31 1 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
    ];

    #[test]
    fn without_a_limited_group_the_host_counts() {
        let root = fake(HOST);
        assert_eq!(memory_in(root.path()), Some((750 * 1024, 1000 * 1024)));
        assert_eq!(pids_in(root.path()), Some((321, 4000)));
    }

    #[test]
    fn the_group_with_least_left_counts_and_cached_files_are_not_used() {
        let groups = [
            ("sys/fs/cgroup/a/b/memory.current", "500000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.current", "700000\n"),
            ("sys/fs/cgroup/a/memory.max", "900000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 100000\n"),
            ("sys/fs/cgroup/a/b/pids.current", "7\n"),
            ("sys/fs/cgroup/a/b/pids.max", "10\n"),
            ("sys/fs/cgroup/a/pids.current", "7\n"),
            ("sys/fs/cgroup/a/pids.max", "50\n"),
        ];
        let root = fake(&[HOST, &groups].concat());
        assert_eq!(memory_in(root.path()), Some((600_000, 900_000)));
        assert_eq!(pids_in(root.path()), Some((7, 10)));
    }

    #[test]
    fn a_container_that_sees_its_own_group_as_the_root_has_its_limit() {
        let files = [
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", "31 1 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/pids.current", "3\n"),
            ("sys/fs/cgroup/pids.max", "99\n"),
        ];
        assert_eq!(pids_in(fake(&files).path()), Some((3, 99)));
    }

    #[test]
    fn pressure_is_read_as_far_as_the_kernel_tells() {
        let stall = parse_stall(
            "some avg10=1.25 avg60=0.10 avg300=0.00 total=1\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1\n",
        );
        assert_eq!(stall, Some(Stall { some: 1.25, full: 0.5 }));
        assert_eq!(parse_stall("some avg10=3.00 avg60=0 total=1\n"), Some(Stall { some: 3.0, full: 0.0 }));
        for wrong in ["", "some avg10=x\n", "some avg10=NaN\n", "full avg10=1\n"] {
            assert_eq!(parse_stall(wrong), None, "{wrong}");
        }
        let root = fake(&[("proc/pressure/io", "some avg10=3.00 total=1\n")]);
        let only_io = Pressure { io: Some(Stall { some: 3.0, full: 0.0 }), ..Pressure::default() };
        assert_eq!(pressure_in(root.path()), Some(only_io));
        assert_eq!(pressure_in(fake(&[]).path()), None);
    }

    #[test]
    fn counts_of_files_and_limits_of_inotify_are_read() {
        assert_eq!(parse_files("550\t0\t2466170\n"), Some((550, 2_466_170)));
        assert_eq!(parse_files("550\n"), None);
        let root = fake(&[
            ("proc/sys/fs/inotify/max_user_watches", "192536\n"),
            ("proc/sys/fs/inotify/max_user_instances", "128\n"),
        ]);
        assert_eq!(inotify_in(root.path()), Some(Inotify { watches: 192_536, instances: 128 }));
        assert_eq!(inotify_in(fake(&[]).path()), None);
    }

    #[test]
    fn a_file_can_be_watched_as_far_as_the_limits_go() {
        let inotify = inotify().unwrap();
        if inotify.watches > 0 && inotify.instances > 0 {
            // Others of this user may have taken all there are.
            let taken =
                [rustix::io::Errno::MFILE, rustix::io::Errno::NOSPC].map(rustix::io::Errno::raw_os_error);
            let error = try_inotify().err().and_then(|error| error.raw_os_error());
            assert!(error.is_none_or(|errno| taken.contains(&errno)), "{error:?}");
        }
    }

    #[test]
    fn this_machine_tells_something() {
        let (used, limit) = memory().unwrap();
        assert!(used > 0 && used <= limit * 2);
        assert!(pids().is_some_and(|(used, limit)| used > 0 && limit > 0));
        assert!(open_files().is_some_and(|(used, limit)| used > 0 && used < limit));
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(dir.path()).unwrap();
        assert!(disk.total > 0 && (0.0..=1.0).contains(&disk.used_share()), "{disk:?}");
        assert!((0.0..=1.0).contains(&disk.inodes_used_share()) && disk.device != 0);
        assert!(super::disk(&dir.path().join("missing")).is_err());
    }
}
