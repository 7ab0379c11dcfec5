//! Time for people: the clock, lengths of time read and written.

use std::time::Duration;

use chrono::{DateTime, Local};
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970 by the wall clock; only for what is shown.
pub(crate) fn now_ms() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
}

/// Reads `10s`, `5m`, `1h30m`, `250ms`; a bare number is in seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no length of time; write 30s, 5m, 1h30m or 250ms");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    if text.is_empty() {
        return Err(bad());
    }
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        rest = &rest[end..];
        total = number.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or_else(bad)?;
    }
    Ok(Duration::from_millis(total))
}

/// Milliseconds since 1970 of an RFC 3339 time.
pub(crate) fn parse_ms(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_millis())
}

/// A moment in microseconds since 1970, as the clock on the wall here shows it.
pub(crate) fn local(wall_us: i64) -> String {
    let at = DateTime::from_timestamp_micros(wall_us).unwrap_or_default();
    at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// How long ago `since` was, in two units at most: `12s`, `3m05s`, `2h07m`, `4d3h`.
pub(crate) fn ago(since: &str, now_ms: i64) -> String {
    parse_ms(since).map_or_else(|| "-".to_owned(), |then| length(now_ms - then))
}

/// How long until `at`; `now` if it is past.
pub(crate) fn until(at: &str, now_ms: i64) -> Option<String> {
    let left = parse_ms(at)? - now_ms;
    Some(if left <= 0 { "now".to_owned() } else { format!("in {}", length(left + 999)) })
}

/// A length of time in two units at most.
pub(crate) fn length(ms: i64) -> String {
    let seconds = (ms / 1000).max(0);
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m{s:02}s"),
        (0, _, _) => format!("{h}h{m:02}m"),
        _ => format!("{d}d{h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lengths_of_time() {
        for (text, ms) in [("5", 5000), ("250ms", 250), ("1h30m", 5_400_000), ("2d", 172_800_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "-1", "5x", "1.5s", "s", "99999999999999999999d"] {
            assert!(parse_duration(text).unwrap_err().contains("1h30m"), "{text}");
        }
    }

    #[test]
    fn writes_ages_in_two_units() {
        let ages = [0, 59, 60, 3599, 3600, 86_399, 86_400].map(|s| length(s * 1000));
        assert_eq!(ages, ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d0h"]);
        assert_eq!(ago("1970-01-01T00:00:10Z", 12_000), "2s");
        assert_eq!(ago("soon", 0), "-");
        assert_eq!(ago("1970-01-01T00:00:10Z", 0), "0s", "a clock that was set back");
        assert_eq!(until("1970-01-01T00:00:10Z", 7500).as_deref(), Some("in 3s"));
        assert_eq!(until("1970-01-01T00:00:10Z", 11_000).as_deref(), Some("now"));
    }
}
