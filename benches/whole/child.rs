//! What runs as a job, and in the floor: writes down its first moment, then does what it is told.

use std::io::Write;
use std::process::ExitCode;

use crate::marks::{self, Mark};

/// The first argument that makes this executable a child.
pub(crate) const MARK: &str = "--child";

/// `--child MARKS ID WHAT [ARGUMENT…]`
pub(crate) fn run(began: u64, mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let (Some(path), Some(id)) = (arguments.next(), arguments.next()) else { return ExitCode::from(98) };
    let id: u32 = id.parse().unwrap_or(u32::MAX);
    let mark = |ns, kind| marks::append(&path, &Mark { ns, id, pid: std::process::id(), kind });
    mark(began, marks::START);
    let what = arguments.next().unwrap_or_default();
    let numbers: Vec<u64> = arguments.filter_map(|text| text.parse().ok()).collect();
    match (what.as_str(), numbers.as_slice()) {
        ("flood", [block, bytes]) => {
            flood(*block, *bytes);
            mark(marks::now_ns(), marks::DONE);
        }
        ("lines", [rate, count]) => {
            lines(began, *rate, *count);
            mark(marks::now_ns(), marks::DONE);
        }
        ("beat", [every_ms]) => {
            beat(*every_ms, u64::MAX);
        }
        ("hang-after", [every_ms, beats]) => {
            mark(beat(*every_ms, *beats), marks::DONE);
            hang();
        }
        _ => hang(),
    }
    ExitCode::SUCCESS
}

fn hang() {
    loop {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
}

/// So many signs of life to the notify socket; when the last one was sent.
fn beat(every_ms: u64, beats: u64) -> u64 {
    let address = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
    let mut sent = marks::now_ns();
    let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() else { return sent };
    for number in 1..=beats {
        sent = marks::now_ns();
        let _ = socket.send_to(b"WATCHDOG=1", &address);
        if number < beats {
            std::thread::sleep(std::time::Duration::from_millis(every_ms));
        }
    }
    sent
}

/// Lines of 64 bytes in writes of `block` bytes.
fn flood(block: u64, bytes: u64) {
    let line = b"a line of sixty-four bytes, as much like another as can be....\n\n";
    let data: Vec<u8> = line.iter().copied().cycle().take(block as usize).collect();
    let mut out = std::fs::File::from(proc_stdout());
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block) as usize;
        if out.write_all(&data[..now]).is_err() {
            return;
        }
        left -= now as u64;
    }
}

/// `count` numbered lines, one write each, `rate` in a second.
fn lines(began: u64, rate: u64, count: u64) {
    let mut out = std::fs::File::from(proc_stdout());
    for number in 0..count {
        let due = began + number * 1_000_000_000 / rate;
        let at =
            libc::timespec { tv_sec: (due / 1_000_000_000) as i64, tv_nsec: (due % 1_000_000_000) as i64 };
        // SAFETY: waits until a moment.
        unsafe {
            libc::clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                libc::TIMER_ABSTIME,
                &raw const at,
                std::ptr::null_mut(),
            )
        };
        if writeln!(out, "a numbered line {number}").is_err() {
            return;
        }
    }
}

/// Unbuffered.
fn proc_stdout() -> std::os::fd::OwnedFd {
    use std::os::fd::AsFd;
    std::io::stdout().as_fd().try_clone_to_owned().unwrap()
}
