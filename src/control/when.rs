//! Times in queries: a moment, or how long ago.

use chrono::DateTime;
use rustix::time::{ClockId, clock_gettime};

/// Microseconds since 1970 by the wall clock. Only what people ask for is measured with it.
pub(crate) fn now_us() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000)
}

/// Reads `2026-01-31T12:00:00Z`, or `90s`, `10m`, `1h30m`, `2d` before `now_us`.
pub(crate) fn since(text: &str, now_us: i64) -> Option<i64> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Some(moment.timestamp_micros());
    }
    Some(now_us.saturating_sub(duration_us(text)?))
}

/// Reads a sequence of numbers with units; a bare number is in seconds.
fn duration_us(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(i64::from(seconds) * 1_000_000);
    }
    let (mut rest, mut total) = (text, 0_i64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 1000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return None,
        };
        rest = &rest[end..];
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_moments_and_ages() {
        assert_eq!(since("1970-01-01T00:00:01Z", 0), Some(1_000_000));
        assert_eq!(since("1970-01-01T01:00:00+01:00", 5), Some(0));
        for (text, age) in [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("7", 7)] {
            assert_eq!(since(text, 0), Some(-age * 1_000_000), "{text}");
        }
        for text in ["", "m", "10x", "yesterday", "-5m", "1.5h", "99999999999999999999d", "1é"] {
            assert_eq!(since(text, 0), None, "{text}");
        }
    }
}
