//! One probe of one run: when it is asked, and what its answers come to.

use crate::core::watch::Probe;

/// A probe at work.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    interval_us: u64,
    failures_max: u32,
    successes_min: u32,
    next_us: u64,
    under_way: bool,
    /// Whether it may be asked at all.
    pub(super) open: bool,
    failures: u32,
    successes: u32,
    /// The latest verdict: as many successes, or failures, in a row as it takes.
    verdict: Option<bool>,
    /// Whether it has ever succeeded.
    succeeded: bool,
    why: String,
}

impl Asking {
    pub(super) fn new(probe: &Probe, started_us: u64, (now_us, salt): (u64, u64)) -> Self {
        let us = |ms: u64| ms.saturating_mul(1000);
        let interval_us = us(probe.interval.0);
        // A tenth of the interval, another one for each run: a thousand of them are not asked at once.
        let interval_us = interval_us + salt % (interval_us / 10).max(1);
        Self {
            interval_us,
            failures_max: probe.failures,
            successes_min: probe.successes,
            next_us: started_us.saturating_add(us(probe.delay.0)).max(now_us),
            under_way: false,
            open: true,
            failures: 0,
            successes: 0,
            verdict: None,
            succeeded: false,
            why: String::new(),
        }
    }

    /// Whether to ask now; it is under way then.
    pub(super) fn ask(&mut self, now_us: u64) -> bool {
        let ask = self.next_us().is_some_and(|at| at <= now_us);
        self.under_way |= ask;
        ask
    }

    pub(super) fn next_us(&self) -> Option<u64> {
        (self.open && !self.under_way).then_some(self.next_us)
    }

    /// It is asked again at once, and nothing is known of the question before.
    pub(super) fn again(&mut self, now_us: u64) {
        (self.under_way, self.next_us) = (false, now_us);
    }

    /// It was not asked, and is asked in its interval.
    pub(super) const fn put_off(&mut self, now_us: u64) {
        (self.under_way, self.next_us) = (false, now_us + self.interval_us);
    }

    pub(super) fn answered(&mut self, answer: Result<(), String>, now_us: u64) {
        self.under_way = false;
        self.next_us = now_us + self.interval_us;
        match answer {
            Ok(()) => {
                (self.successes, self.failures) = (self.successes.saturating_add(1), 0);
                if self.successes >= self.successes_min {
                    (self.verdict, self.succeeded) = (Some(true), true);
                }
            }
            Err(why) => {
                (self.failures, self.successes) = (self.failures.saturating_add(1), 0);
                self.why = why;
                if self.failures >= self.failures_max {
                    self.verdict = Some(false);
                }
            }
        }
    }

    /// Whether it has succeeded once.
    pub(super) fn succeeded(&self) -> bool {
        self.succeeded
    }

    /// Whether it has failed for now.
    pub(super) fn failed(&self) -> bool {
        self.verdict == Some(false)
    }

    /// How it failed.
    pub(super) fn words(&self) -> String {
        let times =
            if self.failures_max == 1 { "once".to_owned() } else { format!("{} times", self.failures_max) };
        format!("failed {times}: {}", self.why)
    }
}
