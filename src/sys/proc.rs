//! `/proc`: parents, sessions, start times, environments. Everything here may be missing, and a process
//! may vanish between two reads; both give `None`.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

/// What `/proc/PID/stat` tells that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: i32,
    /// State letter: `R`, `S`, `D`, `T`, `Z`, …
    pub state: u8,
    /// Parent.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Session.
    pub session: i32,
    /// Start time in clock ticks after boot (field 22).
    pub start_ticks: u64,
    /// Wait status of a zombie (field 52); 0 also when the reader may not see it, so trust it only as root.
    pub exit_code: i32,
}

/// Reads `/proc/PID/stat`.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    let mut file = std::fs::File::open(format!("/proc/{pid}/stat")).ok()?;
    // 52 numbers and a name of at most 64 bytes: the kernel gives it whole in one read.
    let mut bytes = [0; 2048];
    let len = std::io::Read::read(&mut file, &mut bytes).ok()?;
    parse_stat(bytes.get(..len)?)
}

/// The command may hold spaces and parentheses: fields are counted after the last `)`.
fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let text = String::from_utf8_lossy(bytes);
    let pid = text.split(' ').next()?.parse().ok()?;
    let after = text.get(text.rfind(')')? + 2..)?;
    let fields: Vec<&str> = after.trim_end().split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    Some(Stat {
        pid,
        state: *fields.first()?.as_bytes().first()?,
        parent: i32::try_from(number(4)?).ok()?,
        group: i32::try_from(number(5)?).ok()?,
        session: i32::try_from(number(6)?).ok()?,
        start_ticks: u64::try_from(number(22)?).ok()?,
        exit_code: number(52).and_then(|n| i32::try_from(n).ok()).unwrap_or(0),
    })
}

/// What a process has used so far, and uses now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Seconds of CPU time, user and system.
    pub cpu_seconds: f64,
    /// Resident set in bytes.
    pub rss_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors, if we may look.
    pub open_files: Option<u64>,
}

/// Reads `/proc/PID/stat` (fields 14, 15, 20 and 24) and counts `/proc/PID/fd`.
#[must_use]
pub fn usage(pid: i32) -> Option<Usage> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)?;
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    #[allow(clippy::cast_precision_loss, reason = "2^53 ticks are a million years")]
    let cpu_seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Some(Usage {
        cpu_seconds,
        rss_bytes: number(24)?.saturating_mul(page),
        threads: number(20)?,
        open_files: std::fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|fds| fds.count() as u64),
    })
}

/// The children of all threads of a process; empty where the kernel does not list them.
#[must_use]
pub fn children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return found };
    for thread in threads.flatten() {
        if let Ok(text) = std::fs::read_to_string(thread.path().join("children")) {
            found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    found
}

/// Whether the kernel lists children at all.
#[must_use]
pub fn lists_children() -> bool {
    std::path::Path::new("/proc/self/task").exists()
        && std::fs::read(format!("/proc/self/task/{}/children", rustix::thread::gettid().as_raw_nonzero()))
            .is_ok()
}

/// Every process id there is now.
#[must_use]
pub fn all() -> Vec<i32> {
    std::fs::read_dir("/proc").map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect(),
    )
}

/// The value of a variable in the environment a process was started with, if we may see it.
#[must_use]
pub fn environment_value(pid: i32, name: &str) -> Option<Vec<u8>> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    bytes.split(|b| *b == 0).find_map(|entry| {
        let rest = entry.strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=").map(<[u8]>::to_vec)
    })
}

/// Processes that have one of these paths open for writing, as far as we may look.
#[must_use]
pub fn holders(paths: &[std::path::PathBuf]) -> Vec<Stat> {
    let holds = |pid: &i32| {
        std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
            fds.flatten().any(|fd| {
                std::fs::read_link(fd.path()).is_ok_and(|target| paths.contains(&target))
                    // The link's own permissions say how the descriptor was opened.
                    && fd.metadata().is_ok_and(|link| link.permissions().mode() & 0o200 != 0)
            })
        })
    };
    // The start time is read before the descriptors: if the pid is reused in between, it will not match.
    all().into_iter().filter_map(stat).filter(|listed| holds(&listed.pid)).collect()
}

/// Opens a process listed a moment ago, and makes sure it is still that one: the descriptor pins the
/// process, and its start time must be the one that was read together with its pid.
#[must_use]
pub fn open_listed(listed: &Stat) -> Option<std::os::fd::OwnedFd> {
    let fd = super::pidfd::open(listed.pid).ok()?;
    let same = stat(listed.pid).is_some_and(|now| now.start_ticks == listed.start_ticks);
    (same && !super::pidfd::has_ended(fd.as_fd())).then_some(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 256\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.pid, stat.state, stat.parent, stat.group, stat.session), (42, b'S', 1, 42, 42));
        assert_eq!(stat.start_ticks, 98765);
    }

    #[test]
    fn who_only_reads_a_fifo_does_not_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        crate::sys::fifo::create(&path, 0o600).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let held = || holders(std::slice::from_ref(&path)).iter().any(|stat| stat.pid == me);
        let reader = super::super::disk::open_read(&path).unwrap();
        assert!(!held());
        let writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert!(held());
        drop((reader, writer));
        assert!(!held());
    }

    #[test]
    fn reads_its_own_process() {
        let me = i32::try_from(std::process::id()).unwrap();
        let stat = stat(me).unwrap();
        assert_eq!(stat.pid, me);
        assert!(stat.start_ticks > 0);
        assert!(open_listed(&stat).is_some());
        assert!(open_listed(&Stat { start_ticks: stat.start_ticks + 1, ..stat }).is_none());
    }
}
