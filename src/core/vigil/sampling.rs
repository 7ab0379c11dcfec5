//! What is seen of the processes of a run: whether they are stuck, and whether they use too much.

use std::collections::VecDeque;

use crate::core::fault::Fault;
use crate::core::restart::in_words;
use crate::core::time::Millis;
use crate::core::watch::Watch;

use super::Sampled;
use super::pulse::{ILL_US, again_us};

/// Between two looks at the processes of a run, in microseconds.
pub(super) const SAMPLE_US: u64 = 5_000_000;
/// From one look that finds it stopped to the next, which decides.
const STOPPED_AGAIN_US: u64 = 1_000_000;
/// How long a run may wait for the kernel without a break. Disks and network file systems that come back take
/// less than a minute; the kernel itself speaks of a hung task after two.
const BLOCKED_US: u64 = 60_000_000;
/// What is said of a run that is stopped.
pub(super) const STOPPED: &str = "stopped by a signal (process state T)";
/// The time over which use of the CPU is averaged.
const CPU_WINDOW_US: u64 = 30_000_000;

/// What is known of its processes.
#[derive(Debug, Clone, Default)]
pub(super) struct Sampling {
    pub(super) next_us: u64,
    pub(super) every_us: u64,
    pub(super) looking: bool,
    pub(super) latest: Option<Sampled>,
    /// Since when it has been seen stopped, or waiting for the kernel, without a break.
    pub(super) stopped_us: Option<u64>,
    pub(super) blocked_us: Option<u64>,
    /// Moments and CPU times within the window, the latest last.
    pub(super) cpu: VecDeque<(u64, u64)>,
    pub(super) looked_us: u64,
}

impl Sampling {
    pub(super) fn new(watch: &Watch, now_us: u64) -> Self {
        // Four looks tell a pause of the CPU from a look at a bad moment.
        let cpu_us =
            watch.heartbeat.cpu.map(|cpu| (cpu.0.saturating_mul(1000) / 4).clamp(100_000, SAMPLE_US));
        let every_us = cpu_us.unwrap_or(SAMPLE_US);
        Self { next_us: now_us.next_multiple_of(every_us), every_us, ..Self::default() }
    }

    /// What was seen before is of another time.
    pub(super) fn away(&mut self, now_us: u64) {
        (self.stopped_us, self.blocked_us) = (None, None);
        self.cpu.clear();
        if !self.looking {
            self.next_us = now_us;
        }
    }

    /// Notes what was seen. True if it has used the CPU since the look before.
    pub(super) fn note(&mut self, seen: Option<Sampled>, now_us: u64) -> bool {
        let looked_us = std::mem::replace(&mut self.looked_us, now_us);
        self.looking = false;
        // All runs at the same moment: to look at a thousand at once costs far less than at each alone.
        self.next_us = (now_us + 1).next_multiple_of(self.every_us);
        let Some(seen) = seen else { return false };
        let busy = self.latest.is_some_and(|latest| latest.cpu_us != seen.cpu_us);
        self.latest = Some(seen);
        // `t` is a debugger's stop, and it is watched by who debugs it.
        let since = |known: Option<u64>, is: bool| is.then(|| known.unwrap_or(now_us));
        self.stopped_us = since(self.stopped_us, seen.state == b'T');
        // Who waits for a slow disk all the time gets on; who gets nowhere at all is blocked.
        let stuck = seen.state == b'D' && !busy && now_us - looked_us <= 2 * self.every_us + ILL_US;
        self.blocked_us = since(self.blocked_us.filter(|_| stuck), seen.state == b'D');
        if let Some(since_us) = self.stopped_us {
            let again_us = if since_us == now_us { STOPPED_AGAIN_US } else { again_us(now_us - since_us) };
            self.next_us = self.next_us.min(now_us + again_us);
        }
        while self.cpu.front().is_some_and(|(at, _)| at + CPU_WINDOW_US < now_us) && self.cpu.len() > 1 {
            self.cpu.pop_front();
        }
        self.cpu.push_back((now_us, seen.cpu_us));
        busy
    }

    /// Whether it was seen since then to be neither stopped nor waiting for the kernel.
    pub(super) fn is_well(&self, since_us: u64) -> bool {
        let seen = self.looked_us >= since_us && self.latest.is_some();
        seen && self.stopped_us.is_none() && self.blocked_us.is_none()
    }

    pub(super) fn stuck(&self, now_us: u64) -> Option<(Fault, String)> {
        let looked = |since: &u64, for_us: u64| self.looked_us.min(now_us) >= since + for_us;
        if self.stopped_us.is_some_and(|since| looked(&since, STOPPED_AGAIN_US)) {
            return Some((Fault::Stopped, STOPPED.to_owned()));
        }
        if self.blocked_us.is_some_and(|since| looked(&since, BLOCKED_US)) {
            let time = in_words(Millis(BLOCKED_US / 1000));
            return Some((Fault::Blocked, format!("waiting for the kernel for {time} (process state D)")));
        }
        None
    }

    /// What it uses more of than it may.
    pub(super) fn exceeds(&self, watch: &Watch) -> Option<(Fault, String)> {
        let (limits, seen) = (&watch.limits, self.latest?);
        if let Some(limit) = limits.memory.filter(|limit| seen.memory > *limit) {
            let (used, limit) = (bytes(seen.memory), bytes(limit));
            return Some((Fault::Memory, format!("uses {used} of memory, and may use {limit}")));
        }
        if let Some(limit) = limits.pids.filter(|limit| seen.tasks > *limit) {
            return Some((
                Fault::Pids,
                format!("has {} processes and threads, and may have {limit}", seen.tasks),
            ));
        }
        // A kernel that holds it to its limit gives it that much in bursts, and we are not exact to the millisecond.
        let used = self.cpu_percent()?;
        let limit = limits.cpu.filter(|limit| used > u64::from(*limit) + u64::from(*limit / 50) + 1)?;
        Some((Fault::Cpu, format!("uses {used} % of a core, and may use {limit} %")))
    }

    /// Use of the CPU over the whole window, in percent of a core; `None` before that is over.
    pub(super) fn cpu_percent(&self) -> Option<u64> {
        let ((from_us, before), (to_us, after)) = (self.cpu.front()?, self.cpu.back()?);
        let span_us = to_us.saturating_sub(*from_us);
        (span_us >= CPU_WINDOW_US - self.every_us && span_us > 0)
            .then(|| after.saturating_sub(*before).saturating_mul(100) / span_us)
    }
}

/// A size as people write it.
fn bytes(n: u64) -> String {
    let (shift, unit) = match n {
        n if n < 1 << 10 => return format!("{n} bytes"),
        n if n < 1 << 20 => (10, "KiB"),
        n if n < 1 << 30 => (20, "MiB"),
        _ => (30, "GiB"),
    };
    let tenths = ((n & ((1 << shift) - 1)) * 10) >> shift;
    format!("{}.{tenths} {unit}", n >> shift)
}
