//! The clocks. Nothing else in the project reads one.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of `CLOCK_BOOTTIME`: monotonic, counts through suspend, starts anew at each boot.
#[must_use]
pub fn boot_us() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1000
}

/// Microseconds since 1970-01-01 UTC.
#[must_use]
pub fn wall_us() -> i64 {
    let t = clock_gettime(ClockId::Realtime);
    t.tv_sec * 1_000_000 + t.tv_nsec / 1000
}
