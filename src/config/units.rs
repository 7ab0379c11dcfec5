//! Durations, sizes, file modes: numbers that people write with a unit or in octal.

use crate::core::time::Millis;

/// Longest duration, about a hundred years: far below where arithmetic on times could overflow.
const LONGEST_MS: u64 = 100 * 365 * 86_400_000;

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Why a text is no duration, size or mode: the message and a suggestion.
pub(super) type Bad = (String, Option<String>);

/// Reads `500ms`, `10s`, `1m30s`, `2h`, `1d`: units from large to small, each at most once.
pub(super) fn duration(text: &str) -> Result<Millis, Bad> {
    let wrong = |suggestion: Option<String>| (format!("`{}` is no duration", shorten(text)), suggestion);
    let form = || Some("write a number with ms, s, m, h or d, as in \"500ms\" or \"1m30s\"".to_owned());
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err((
            format!("`{}` has no unit", shorten(text)),
            Some(format!("write \"{text}s\" for seconds")),
        ));
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut allowed = &DURATION_UNITS[..];
    if rest.is_empty() {
        return Err(wrong(form()));
    }
    while !rest.is_empty() {
        let (number, after) = split_at(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_at(after, |c| c.is_ascii_digit());
        let Some(at) = allowed.iter().position(|(name, _)| *name == unit) else {
            let in_order = DURATION_UNITS.iter().any(|(name, _)| *name == unit);
            let order = "write the units from large to small, each once, as in \"1h30m\"";
            return Err(wrong(if in_order { Some(order.to_owned()) } else { form() }));
        };
        let count: u64 = match number.parse() {
            Ok(count) => count,
            Err(_) if number.is_empty() => return Err(wrong(form())),
            Err(_) => return Err(too_long(text)),
        };
        total = match count.checked_mul(allowed[at].1).and_then(|ms| total.checked_add(ms)) {
            Some(total) if total <= LONGEST_MS => total,
            _ => return Err(too_long(text)),
        };
        allowed = &allowed[at + 1..];
        rest = after;
    }
    Ok(Millis(total))
}

fn too_long(text: &str) -> Bad {
    (format!("`{}` is longer than a hundred years", shorten(text)), None)
}

/// Reads `50MB` (powers of 1000), `64KiB` (powers of 1024) or a plain number of bytes.
pub(super) fn size(text: &str) -> Result<u64, Bad> {
    let (number, unit) = split_at(text, |c| !c.is_ascii_digit());
    let form = || Some("write \"50MB\" (a million bytes each) or \"64KiB\" (1024 bytes each)".to_owned());
    let unit = unit.trim_start();
    let factor = if unit.is_empty() {
        Some(1)
    } else {
        SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor)
    };
    let (Some(factor), false) = (factor, number.is_empty()) else {
        return Err((format!("`{}` is no size", shorten(text)), form()));
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    match bytes.filter(|bytes| i64::try_from(*bytes).is_ok()) {
        Some(bytes) => Ok(bytes),
        None => Err((format!("`{}` is more than a file can hold", shorten(text)), None)),
    }
}

/// Reads the octal digits of a file mode or mask, at most 0777: `022`, `0o600`.
pub(super) fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
        return None;
    }
    u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777)
}

fn split_at(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// A text for a message: not longer than a line.
pub(super) fn shorten(text: &str) -> String {
    let clean: String =
        text.chars().take(60).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if text.chars().nth(60).is_some() { format!("{clean}…") } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("36500d", LONGEST_MS),
        ] {
            assert_eq!(duration(text), Ok(Millis(ms)), "{text}");
        }
        for text in [
            "",
            " ",
            "s",
            "10 s",
            "-1s",
            "1.5s",
            "10sec",
            "1s1m",
            "1s1s",
            "s10",
            "1m30",
            "36501d",
            "é",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("10").unwrap_err().1.as_deref(), Some("write \"10s\" for seconds"));
        assert!(duration("1s1m").unwrap_err().1.unwrap().contains("large to small"));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("7", 7), ("50MB", 50_000_000), ("64KiB", 65_536), ("1 GiB", 1 << 30), ("3kb", 3000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "50M", "-1", "1.5MB", "1MBs", "9223372036854775808", "99999999TiB", "é"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes() {
        for (text, mode) in
            [("022", Some(0o22)), ("0", Some(0)), ("0o600", Some(0o600)), ("777", Some(0o777))]
        {
            assert_eq!(octal(text), mode, "{text}");
        }
        for text in ["", "0o", "8", "1000", "-1", "+7", "rw-", "77777777777777"] {
            assert_eq!(octal(text), None, "{text}");
        }
    }
}
