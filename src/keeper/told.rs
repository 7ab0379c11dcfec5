//! What a run tells: the messages of `sd_notify(3)`, read without trusting a byte of them.
//!
//! A message is lines of `NAME=value`. These have a meaning here:
//!
//! | name | value |
//! |---|---|
//! | `READY`, `STOPPING`, `RELOADING` | `1` |
//! | `WATCHDOG` | `1`: a beat; `trigger`: it says itself that it is not well |
//! | `WATCHDOG_USEC`, `EXTEND_TIMEOUT_USEC` | microseconds, rounded up to milliseconds |
//! | `STATUS` | text for people |
//! | `MAINPID` | a process of the run |
//! | `ERRNO`, `EXIT_STATUS` | a number |
//! | `X_PROGRESS` | 0 to 100 |
//! | `X_RESUME` | what the next run of the job is to go on with; empty: nothing |
//!
//! Other names are somebody else's, and left alone (`BARRIER` among them: it is answered by taking the
//! message, which closes the descriptor in it). A line without `=`, and a value that makes no sense, are
//! counted and change nothing; the other lines of the message count all the same.

use crate::core::time::{Millis, Stamp};
use crate::wire::keeper::{Extend, Told};

/// Longest status in bytes; the rest is cut off.
const STATUS_BYTES_MAX: usize = 512;
/// Longest resume token in bytes; a longer one would be of no use cut.
const RESUME_BYTES_MAX: usize = 4096;

/// Takes in one message of the run itself. `belongs` says whether a process is of the run.
pub(super) fn take_in(told: &mut Told, message: &[u8], now: Stamp, belongs: impl FnOnce(i32) -> bool) {
    let mut said_something = false;
    // To look at a process costs more than to name it, so only the last one is looked at.
    let mut main_pid = None;
    for line in message.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        said_something = true;
        let pair = std::str::from_utf8(line).ok().and_then(|line| line.split_once('='));
        let understood = match pair {
            Some(("MAINPID", value)) => {
                main_pid = Some(value);
                Some(())
            }
            Some((name, value)) => take_in_pair(told, (name, value), now),
            None => None,
        };
        if understood.is_none() {
            ignore(told);
        }
    }
    if let Some(value) = main_pid {
        match number(value, 1..=i32::MAX).filter(|pid| belongs(*pid)) {
            Some(pid) => told.main_pid = Some(pid),
            None => ignore(told),
        }
    }
    if !said_something {
        ignore(told);
    }
}

/// Notes a message or a value that makes no sense.
pub(super) fn ignore(told: &mut Told) {
    told.ignored = told.ignored.saturating_add(1);
}

/// `None`: the value makes no sense.
fn take_in_pair(told: &mut Told, (name, value): (&str, &str), now: Stamp) -> Option<()> {
    match name {
        "READY" => {
            one(value)?;
            told.ready.get_or_insert(now);
            told.reloading = None;
        }
        "RELOADING" => {
            one(value)?;
            told.reloading = Some(now);
        }
        "STOPPING" => {
            one(value)?;
            told.stopping.get_or_insert(now);
        }
        "WATCHDOG" if value == "trigger" => told.trigger = Some(now),
        "WATCHDOG" => {
            one(value)?;
            told.beat = Some(now);
        }
        "WATCHDOG_USEC" => {
            told.watchdog = Some(micros(value)?);
            told.watchdog_at = Some(now);
        }
        "EXTEND_TIMEOUT_USEC" => told.extend = Some(Extend { at: now, by: micros(value)? }),
        "STATUS" => {
            told.status = text_for_people(value);
            told.progress_at = Some(now);
        }
        "ERRNO" => told.errno = Some(number(value, 0..=i32::MAX)?),
        "EXIT_STATUS" => told.exit_status = Some(number(value, 0..=255)?),
        "X_PROGRESS" => {
            told.progress = Some(u8::try_from(number(value, 0..=100)?).ok()?);
            told.progress_at = Some(now);
        }
        "X_RESUME" => {
            if value.len() > RESUME_BYTES_MAX || value.contains(char::is_control) {
                return None;
            }
            told.resume = Some(value.to_owned());
            (told.resume_at, told.progress_at) = (Some(now), Some(now));
        }
        _ => {}
    }
    Some(())
}

fn one(value: &str) -> Option<()> {
    (value == "1").then_some(())
}

/// Digits alone: `parse` by itself would let a plus sign through.
fn digits(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

fn number(value: &str, range: std::ops::RangeInclusive<i32>) -> Option<i32> {
    i32::try_from(digits(value)?).ok().filter(|number| range.contains(number))
}

fn micros(value: &str) -> Option<Millis> {
    Some(Millis(digits(value)?.div_ceil(1000)))
}

fn text_for_people(value: &str) -> Option<String> {
    let end = value.floor_char_boundary(STATUS_BYTES_MAX);
    // A control character of two bytes becomes one space: it gets no longer.
    let text = value[..end].replace(char::is_control, " ");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Stamp = Stamp { boot_us: 7, wall_us: 70 };

    fn told(message: &[u8]) -> Told {
        let mut told = Told::default();
        take_in(&mut told, message, NOW, |pid| pid == 42);
        told
    }

    fn of(change: impl FnOnce(&mut Told)) -> Told {
        let mut told = Told::default();
        change(&mut told);
        told
    }

    #[test]
    fn every_name_means_what_it_says() {
        assert_eq!(told(b"READY=1"), of(|t| t.ready = Some(NOW)));
        assert_eq!(told(b"WATCHDOG=1\n"), of(|t| t.beat = Some(NOW)));
        assert_eq!(told(b"WATCHDOG=trigger"), of(|t| t.trigger = Some(NOW)));
        assert_eq!(
            told(b"WATCHDOG_USEC=1001"),
            of(|t| (t.watchdog, t.watchdog_at) = (Some(Millis(2)), Some(NOW)))
        );
        assert_eq!(
            told(b"WATCHDOG_USEC=0"),
            of(|t| (t.watchdog, t.watchdog_at) = (Some(Millis(0)), Some(NOW)))
        );
        let extend = Extend { at: NOW, by: Millis(20) };
        assert_eq!(told(b"EXTEND_TIMEOUT_USEC=20000"), of(|t| t.extend = Some(extend)));
        assert_eq!(told(b"STOPPING=1"), of(|t| t.stopping = Some(NOW)));
        assert_eq!(told(b"RELOADING=1\nMONOTONIC_USEC=5"), of(|t| t.reloading = Some(NOW)));
        let said = |status: &str| of(|t| (t.status, t.progress_at) = (Some(status.to_owned()), Some(NOW)));
        assert_eq!(told(b"STATUS=a = b"), said("a = b"));
        assert_eq!(told(b"MAINPID=42"), of(|t| t.main_pid = Some(42)));
        assert_eq!(
            told(b"ERRNO=2\nEXIT_STATUS=255"),
            of(|t| (t.errno, t.exit_status) = (Some(2), Some(255)))
        );
        assert_eq!(told(b"X_PROGRESS=100"), of(|t| (t.progress, t.progress_at) = (Some(100), Some(NOW))));
        let resumes = |token: &str| {
            let at = Some(NOW);
            of(|t| (t.resume, t.resume_at, t.progress_at) = (Some(token.to_owned()), at, at))
        };
        assert_eq!(told(b"X_RESUME=at 7"), resumes("at 7"));
        assert_eq!(told(b"X_RESUME=at 7\nX_RESUME="), resumes(""), "it takes back what was said before");
        assert_eq!(told(b"BARRIER=1\nFDSTORE=1\nX_OTHER=\xc3\xa9"), Told::default());
    }

    #[test]
    fn later_messages_win_and_ready_ends_a_reload_but_keeps_its_first_time() {
        let mut all = Told::default();
        let at = |boot_us| Stamp { boot_us, wall_us: 0 };
        for (n, message) in
            (1..).zip(["READY=1\nSTATUS=a", "RELOADING=1", "STATUS=b\nSTATUS=c", "READY=1", "STATUS="])
        {
            take_in(&mut all, message.as_bytes(), at(n), |_| false);
            match n {
                2 => assert_eq!((all.reloading, all.status.as_deref()), (Some(at(2)), Some("a"))),
                3 => assert_eq!(all.status.as_deref(), Some("c")),
                _ => assert_eq!(all.reloading, None),
            }
        }
        assert_eq!(all, of(|t| (t.ready, t.progress_at) = (Some(at(1)), Some(at(5)))));
    }

    #[test]
    fn nonsense_is_counted_and_changes_nothing_and_the_rest_of_the_message_counts() {
        for (message, times) in [
            (&b""[..], 1),
            (b"\n\n", 1),
            (b"READY", 1),
            (b"READY=2", 1),
            (b"READY=1 ", 1),
            (b"WATCHDOG=\nWATCHDOG=yes", 2),
            (b"WATCHDOG_USEC=-1", 1),
            (b"WATCHDOG_USEC=+1", 1),
            (b"WATCHDOG_USEC=", 1),
            (b"WATCHDOG_USEC=99999999999999999999", 1),
            (b"EXTEND_TIMEOUT_USEC=1s", 1),
            (b"MAINPID=43", 1),
            (b"MAINPID=0", 1),
            (b"MAINPID=42\nMAINPID=4294967338", 1),
            (b"X_PROGRESS=101\nX_PROGRESS=1.5", 2),
            (b"EXIT_STATUS=256\nERRNO=2147483648", 2),
            (b"X_RESUME=a\tb", 1),
            (b"STATUS=\xff", 1),
            (b"\xff\xfe", 1),
            (b"READY=1\0", 1),
        ] {
            assert_eq!(told(message), of(|t| t.ignored = times), "{}", message.escape_ascii());
        }
        let mixed = told(b"nonsense\nREADY=1\nX_PROGRESS=x\n");
        assert_eq!(mixed, of(|t| (t.ready, t.ignored) = (Some(NOW), 2)));
    }

    #[test]
    fn long_values_have_an_end() {
        let status = |text: &str| told(format!("STATUS={text}").as_bytes()).status.unwrap();
        assert_eq!(status("a\tb\u{85}c\u{7f}"), "a b c ");
        assert_eq!(status(&"x".repeat(60_000)).len(), 512);
        // Five hundred and eleven bytes and a character of two: it does not fit.
        let cut = status(&format!("{}é", "x".repeat(511)));
        assert_eq!(cut, "x".repeat(511));
        let resume = |n: usize| told(format!("X_RESUME={}", "x".repeat(n)).as_bytes());
        assert_eq!(resume(4096).resume.map(|text| text.len()), Some(4096));
        assert_eq!(resume(4097), of(|t| t.ignored = 1));
        let many = "STATUS=x\n".repeat(7281);
        assert_eq!(told(many.as_bytes()).status.as_deref(), Some("x"));
        assert_eq!(told(&vec![b'='; 64 * 1024]), Told::default());
        assert_eq!(told(&vec![b'\n'; 64 * 1024]), of(|t| t.ignored = 1));
    }
}
