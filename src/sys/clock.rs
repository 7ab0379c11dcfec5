//! The only place that reads clocks.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of `CLOCK_BOOTTIME`: never jumps, counts through suspend, starts anew at each boot.
#[must_use]
pub fn boot_us() -> u64 {
    u64::try_from(micros(ClockId::Boottime)).unwrap_or(0)
}

/// Microseconds since 1970-01-01 UTC, as the host believes.
#[must_use]
pub fn wall_us() -> i64 {
    micros(ClockId::Realtime)
}

/// Microseconds that the machine has slept since it was started.
#[must_use]
pub fn asleep_us() -> u64 {
    let awake = u64::try_from(micros(ClockId::Monotonic)).unwrap_or(0);
    // Read after the other one, this one is never behind it.
    boot_us().saturating_sub(awake)
}

fn micros(clock: ClockId) -> i64 {
    let t = clock_gettime(clock);
    t.tv_sec.saturating_mul(1_000_000).saturating_add(t.tv_nsec / 1000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn clocks_go_forward_and_the_wall_clock_is_of_this_century() {
        let first = super::boot_us();
        assert!(super::boot_us() >= first && first > 0);
        assert!(super::wall_us() > 1_600_000_000_000_000);
    }
}
