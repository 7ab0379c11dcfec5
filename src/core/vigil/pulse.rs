//! A sign of life that is expected again and again.

use crate::core::fault::Fault;
use crate::core::time::Millis;

use super::Look;
use super::sampling::SAMPLE_US;

/// Between two looks at what has just gone wrong; less often later.
pub(super) const ILL_US: u64 = 250_000;

/// A sign of life that is expected again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pulse {
    pub(super) fault: Fault,
    pub(super) look: Option<Look>,
    pub(super) timeout_us: u64,
    /// The latest sign, boot clock.
    pub(super) last_us: u64,
    /// The latest look; 0: none.
    pub(super) looked_us: u64,
    /// Whether a look is under way.
    pub(super) looking: bool,
}

impl Pulse {
    pub(super) fn new(fault: Fault, look: Option<Look>, timeout: Millis, last_us: u64) -> Self {
        let timeout_us = timeout.0.saturating_mul(1000);
        Self { fault, look, timeout_us, last_us, looked_us: 0, looking: false }
    }

    pub(super) const fn due_us(&self) -> u64 {
        self.last_us.saturating_add(self.timeout_us)
    }

    /// Whether it is known by now that no sign came in time. What a run tells by itself is known without a look.
    pub(super) fn is_missing(&self, now_us: u64) -> bool {
        let seen_us = if self.fault == Fault::NoProgress { now_us } else { self.looked_us };
        self.timeout_us > 0 && seen_us >= self.due_us()
    }

    /// When to look next.
    pub(super) fn next_us(&self) -> u64 {
        let due = self.due_us();
        if self.looking || self.timeout_us == 0 {
            u64::MAX
        } else if self.looked_us >= due {
            self.looked_us + again_us(self.looked_us - due)
        } else {
            due
        }
    }

    pub(super) fn sign(&mut self, at_us: u64, now_us: u64) {
        self.last_us = self.last_us.max(at_us.min(now_us));
    }

    pub(super) fn looked(&mut self, seen_us: Option<u64>, now_us: u64) {
        (self.looked_us, self.looking) = (now_us, false);
        if let Some(seen_us) = seen_us {
            self.sign(seen_us, now_us);
        }
    }
}

/// Between two looks at what has been wrong for so long.
pub(super) fn again_us(for_us: u64) -> u64 {
    (for_us / 20).clamp(ILL_US, SAMPLE_US)
}
