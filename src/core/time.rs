//! Time as a value. Nothing here reads a clock: `sys::clock` does, and hands a [`Stamp`] in.

use serde::{Deserialize, Serialize};

/// One moment on both clocks.
///
/// `boot_us` decides (it never jumps, and counts through suspend, but means nothing after a reboot);
/// `wall_us` is for people and for comparing across reboots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Microseconds of `CLOCK_BOOTTIME`.
    #[serde(rename = "m")]
    pub boot_us: u64,
    /// Microseconds since 1970-01-01 UTC.
    #[serde(rename = "t")]
    pub wall_us: i64,
}

/// A length of time in milliseconds; every configured duration is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// Whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1000)
    }

    /// As the standard library's duration.
    #[must_use]
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl Stamp {
    /// This moment and `d` more, on both clocks.
    #[must_use]
    pub fn plus(self, d: Millis) -> Self {
        let us = d.0.saturating_mul(1000);
        Self {
            boot_us: self.boot_us.saturating_add(us),
            wall_us: self.wall_us.saturating_add(i64::try_from(us).unwrap_or(i64::MAX)),
        }
    }

    /// This moment less `d`, on both clocks; the boot clock not below 0.
    #[must_use]
    pub fn minus(self, d: Millis) -> Self {
        let us = d.0.saturating_mul(1000);
        Self {
            boot_us: self.boot_us.saturating_sub(us),
            wall_us: self.wall_us.saturating_sub(i64::try_from(us).unwrap_or(i64::MAX)),
        }
    }

    /// Milliseconds from `earlier` to this moment, by the boot clock; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.boot_us.saturating_sub(earlier.boot_us) / 1000)
    }

    /// The wall clock as RFC 3339 in UTC with milliseconds, for people and for JSON.
    #[must_use]
    pub fn rfc3339(self) -> String {
        chrono::DateTime::from_timestamp_micros(self.wall_us)
            .unwrap_or_default()
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    }
}
