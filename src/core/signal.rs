//! Signal names and numbers (Linux, all architectures we build for share these).

const NAMES: [(i32, &str); 31] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (4, "ILL"),
    (5, "TRAP"),
    (6, "ABRT"),
    (7, "BUS"),
    (8, "FPE"),
    (9, "KILL"),
    (10, "USR1"),
    (11, "SEGV"),
    (12, "USR2"),
    (13, "PIPE"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (17, "CHLD"),
    (18, "CONT"),
    (19, "STOP"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (23, "URG"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (28, "WINCH"),
    (29, "IO"),
    (30, "PWR"),
    (31, "SYS"),
];

/// `SIGTERM`.
pub const TERM: i32 = 15;
/// `SIGKILL`.
pub const KILL: i32 = 9;
/// `SIGCONT`.
pub const CONT: i32 = 18;
/// `SIGHUP`.
pub const HUP: i32 = 1;

/// The name without `SIG`, if the number is a standard signal.
#[must_use]
pub fn name(number: i32) -> Option<&'static str> {
    NAMES.iter().find(|(n, _)| *n == number).map(|(_, name)| *name)
}

/// Reads `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3` or `SIGRTMAX-1`.
#[must_use]
pub fn parse(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(n) = bare.parse::<i32>() {
        return (1..=64).contains(&n).then_some(n);
    }
    // glibc keeps 32 and 33 for itself, so a program's SIGRTMIN is 34.
    let real_time = |rest: &str, base: i32, sign: i32| -> Option<i32> {
        if rest.is_empty() {
            return Some(base);
        }
        let n: i32 = rest.get(1..)?.parse().ok()?;
        let wanted = if sign > 0 { '+' } else { '-' };
        (rest.starts_with(wanted) && (0..=30).contains(&n)).then_some(base + sign * n)
    };
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        return real_time(rest, 34, 1);
    }
    if let Some(rest) = bare.strip_prefix("RTMAX") {
        return real_time(rest, 64, -1);
    }
    match bare {
        "POLL" => Some(29),
        "IOT" => Some(6),
        "CLD" => Some(17),
        _ => NAMES.iter().find(|(_, name)| *name == bare).map(|(n, _)| *n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_spelling() {
        for text in ["TERM", "SIGTERM", "sigterm", "15", " Term "] {
            assert_eq!(parse(text), Some(15), "{text}");
        }
        assert_eq!(parse("RTMIN+3"), Some(37));
        assert_eq!(parse("SIGRTMAX-1"), Some(63));
        for text in ["", "0", "65", "-1", "SIGFOO", "RTMIN-1", "RTMIN+x"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
