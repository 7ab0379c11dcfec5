//! The kernel's own log, read for one thing: whom the out-of-memory killer has killed.
//!
//! Each read of `/dev/kmsg` gives one record, `<priority>,<number>,<microseconds>,<flags>;<text>`. The
//! priority tells who wrote it: 0 in its upper part is the kernel, and the kernel lets no program write
//! that. The moment is of a clock that nobody else has: it stands still while the machine sleeps and is
//! never corrected, so that it differs from ours by as much as a quartz goes wrong.
//!
//! The victim is named twice: in `oom-kill:…,pid=42,uid=0` before it gets the signal, and in `Killed process
//! 42 (name)` just after; the first may be left out where many are killed at once. The numbers are those of
//! the host, so that in a pid namespace of a container they mean others.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::clock;

/// Records read in one look; what is left is read in the next. A log of the usual size has some thousands.
const RECORDS_MAX: u32 = 20_000;

/// Victims remembered.
const VICTIMS_MAX: usize = 256;

/// A record has at most a text of 2 KiB and what belongs to it.
const RECORD_BYTES: usize = 8192;

/// The inode of the pid namespace that the kernel starts with (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// A process that was killed for its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// Its number.
    pub pid: i32,
    /// When, in microseconds of the log's own clock.
    pub log_us: u64,
}

/// The log as far as it was read. Nothing is opened before the first question.
#[derive(Debug, Default)]
pub struct KernelLog {
    file: Option<OwnedFd>,
    victims: Vec<Victim>,
}

impl KernelLog {
    /// Whether the kernel has killed this process for its memory since that moment of `CLOCK_BOOTTIME`, as
    /// far as we may know. The first question reads what the kernel still has of its log, each one after
    /// that what has come since. Never waits.
    pub fn has_killed(&mut self, pid: i32, since_boot_us: u64) -> bool {
        if self.file.is_none() {
            self.file = open();
        }
        self.read_on();
        let (now_us, slept_us) = (clock::boot_us(), clock::asleep_us());
        self.victims
            .iter()
            .any(|victim| victim.pid == pid && may_be_since(victim.log_us, since_boot_us, now_us, slept_us))
    }

    fn read_on(&mut self) {
        let Some(file) = &self.file else { return };
        let mut record = vec![0; RECORD_BYTES];
        for _ in 0..RECORDS_MAX {
            match rustix::io::read(file, record.as_mut_slice()) {
                Ok(len) => self.victims.extend(record.get(..len).and_then(victim)),
                // What was next has been overwritten; the read after it goes on behind the gap.
                Err(Errno::PIPE | Errno::INTR) => {}
                // `AGAIN`: at the end. Anything else: not for us.
                Err(_) => break,
            }
        }
        let extra = self.victims.len().saturating_sub(VICTIMS_MAX);
        self.victims.drain(..extra);
    }
}

/// Opens the log at its oldest record, if it may be read and has our numbers.
fn open() -> Option<OwnedFd> {
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    if namespace.as_os_str() != FIRST_NAMESPACE {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open("/dev/kmsg", flags, Mode::empty()).ok()
}

/// Whether what the log says at `log_us` may have been at or after `since_us` of our clock.
///
/// The two differ by the time asleep, of which a part may have been before, and by how wrong an uncorrected
/// clock goes: a thousandth is more than any does. Too early by that much is harmless, since the number of
/// a process that was killed would have to be given out again within that time.
const fn may_be_since(log_us: u64, since_us: u64, now_us: u64, asleep_us: u64) -> bool {
    log_us.saturating_add(asleep_us).saturating_add(now_us / 1000 + 1_000_000) >= since_us
}

/// Whom a record names as killed, if it is one of that kind and from the kernel.
#[must_use]
pub fn victim(record: &[u8]) -> Option<Victim> {
    let text = String::from_utf8_lossy(record);
    let (head, rest) = text.split_once(';')?;
    let mut head = head.split(',');
    // The lower three bits are how bad it is.
    let facility = head.next()?.parse::<u32>().ok()? >> 3;
    let log_us = head.nth(1)?.parse().ok()?;
    if facility != 0 {
        return None;
    }
    // The lines below the first belong to a dictionary.
    let message = rest.lines().next()?;
    let digits = if let Some((before, after)) = message.split_once("Killed process ") {
        // "Out of memory: ", "Memory cgroup out of memory: ", and before Linux 5.2 nothing.
        if !(before.is_empty() || before.ends_with(": ")) {
            return None;
        }
        after
    } else {
        let list = message.strip_prefix("oom-kill:")?;
        // The name of the process stands before its number, and may hold anything.
        list.rsplit_once(",pid=")?.1
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    Some(Victim { pid: digits.get(..end)?.parse().ok()?, log_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "3,1182,74220943,-;Memory cgroup out of memory: Killed process 3021 (python3) \
        total-vm:131072kB, anon-rss:65212kB, file-rss:5120kB, shmem-rss:0kB, UID:1000 pgtables:180kB \
        oom_score_adj:0\n SUBSYSTEM=x\n";
    const GLOBAL: &str = "3,904,8812345678,-;Out of memory: Killed process 4242 (stress (x)) total-vm:9kB\n";
    const OLD: &str = "3,904,17,-;Killed process 77 (mysqld) total-vm:1kB, anon-rss:1kB, file-rss:0kB\n";
    const SUMMARY: &str = "6,1181,74220931,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,\
        mems_allowed=0,oom_memcg=/x,task_memcg=/x/y,task=evil,pid=1,uid=0,pid=3021,uid=1000\n";

    fn seen(text: &str) -> Option<(i32, u64)> {
        victim(text.as_bytes()).map(|victim| (victim.pid, victim.log_us))
    }

    #[test]
    fn the_kernels_lines_about_a_kill_name_the_process() {
        assert_eq!(seen(GROUP), Some((3021, 74_220_943)));
        assert_eq!(seen(GLOBAL), Some((4242, 8_812_345_678)));
        assert_eq!(seen(OLD), Some((77, 17)));
        assert_eq!(seen(SUMMARY), Some((3021, 74_220_931)));
    }

    #[test]
    fn other_lines_and_what_a_program_wrote_name_nobody() {
        // Priority 11 is facility 1: a user's.
        assert_eq!(seen(&GLOBAL.replacen("3,", "11,", 1)), None);
        for other in [
            "6,1,2,-;usb 1-1: new device\n",
            "4,1,2,-;audit: comm=\"Killed process 3 (x)\"\n",
            "6,1,2,-;oom_reaper: reaped process 3021 (python3), now anon-rss:0kB\n",
            "3,1,2,-;Out of memory: Killed process \n",
            "3,1;Out of memory: Killed process 3 (x)\n",
            "",
            "3,1,2,-",
        ] {
            assert_eq!(seen(other), None, "{other}");
        }
        assert_eq!(victim(b"\xff\xfe;\xff"), None);
    }

    #[test]
    fn an_old_line_about_another_process_with_the_number_does_not_count() {
        let hour = 3_600_000_000;
        assert!(may_be_since(hour + 5, hour, hour + 10, 0));
        assert!(!may_be_since(hour / 2, hour, hour + 10, 0));
        // The log's clock is slow by some milliseconds in the hour, and does not run in sleep.
        assert!(may_be_since(hour - 20_000, hour, hour + 10, 0));
        assert!(may_be_since(hour / 2, hour, hour + 10, hour / 2));
    }

    #[test]
    fn a_process_that_nobody_killed_is_not_in_the_log_and_nobody_waits_for_one() {
        let mut log = KernelLog::default();
        let me = rustix::process::getpid().as_raw_nonzero().get();
        assert!(!log.has_killed(me, clock::boot_us()));
        assert!(!log.has_killed(me, clock::boot_us()));
    }
}
