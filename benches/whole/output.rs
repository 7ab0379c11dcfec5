//! Captured output: one job that floods, beside a bare splice loop; and many that write steadily.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::Settings;
use crate::floor::Floor;
use crate::instance::{Home, Instance, configuration};
use crate::marks::{self, DONE, Marks, START, now_ns};
use crate::proc;
use crate::report::{Bar, Report};

const GIB: f64 = (1_u64 << 30) as f64;
const PIPE: i32 = 256 * 1024;
const TURN: u64 = 50_000_000;
const KEPT: u64 = 2;

/// How a flood went: MB/s, and milliseconds of processor time for a GiB.
type Went = (f64, f64);

fn went(bytes: u64, took_ns: u64, cpu_ns: u64) -> Went {
    (bytes as f64 / 1e6 / (took_ns as f64 / 1e9), cpu_ns as f64 / 1e6 / (bytes as f64 / GIB))
}

fn flood_words(block: u64, bytes: u64) -> Vec<String> {
    vec!["flood".to_owned(), block.to_string(), bytes.to_string()]
}

/// The configuration's word for an output that is never turned, or as the floor turns it.
fn output_setting(turn: bool) -> String {
    let size = if turn { format!("\"{TURN}B\"") } else { "\"0\"".to_owned() };
    format!("output = {{ max_size = {size}, keep = {KEPT}, compress = false }}\n")
}

fn ours(settings: &Settings, block: u64, bytes: u64, turn: bool) -> Went {
    let home = Home::new(&settings.dir);
    let mut marks = Marks::new(home.0.join("marks"));
    let command = marks::child(&marks.path, 0, &flood_words(block, bytes));
    let defaults =
        format!("kind = \"task\"\nrestart = \"never\"\nautostart = false\n{}", output_setting(turn));
    let instance = Instance::start(settings, home, &configuration(&defaults, &[command]));
    instance.wait_ready();
    let keeper = instance.role("keeper").unwrap();
    touch(bytes);
    let cpu = proc::cpu_ns(keeper);
    instance.post("/v1/jobs/j0/start");
    let begun = marks.one(0, START).ns;
    let done = marks.one(0, DONE).ns;
    // The rest of the pipe is a quarter of a MiB.
    marks::pause_ms(100);
    let went = went(bytes, done - begun, proc::cpu_ns(keeper) - cpu);
    if !turn {
        let held = size_of_logs(&instance.home.0.join("state/jobs/j0/current/output"));
        assert_eq!(held, bytes, "bytes were lost");
    }
    went
}

fn logs(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut list: Vec<_> = std::fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    list.sort();
    list
}

fn size_of_logs(dir: &Path) -> u64 {
    logs(dir).iter().map(|path| path.metadata().map_or(0, |m| m.len())).sum()
}

fn thread_cpu_ns() -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to local memory.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

/// A pipe, a file, `splice` in between; a new file every so often, as ours.
fn floor(settings: &Settings, block: u64, bytes: u64, turn: bool) -> Went {
    let home = Home::new(&settings.dir);
    let mut marks = Marks::new(home.0.join("marks"));
    let mut ends = [0; 2];
    // SAFETY: makes a pipe.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        libc::fcntl(ends[0], libc::F_SETPIPE_SZ, PIPE);
    }
    let mut child = Floor::new(vec![marks::child(&marks.path, 0, &flood_words(block, bytes))], ends[1]);
    touch(bytes);
    child.spawn(0);
    let file = |number: u64| File::create(home.0.join(format!("{number:06}.log"))).unwrap();
    let (mut out, mut number, mut left, mut in_file) = (file(0), 0, bytes, 0);
    let cpu = thread_cpu_ns();
    while left > 0 {
        // SAFETY: two descriptors of ours.
        let n = unsafe {
            libc::splice(
                ends[0],
                std::ptr::null_mut(),
                out.as_raw_fd(),
                std::ptr::null_mut(),
                1 << 20,
                libc::SPLICE_F_MOVE,
            )
        };
        let n = u64::try_from(n).unwrap_or_else(|_| panic!("splice: {}", std::io::Error::last_os_error()));
        left -= n;
        in_file += n;
        if turn && in_file >= TURN {
            number += 1;
            (out, in_file) = (file(number), 0);
            if number > KEPT {
                let _ = std::fs::remove_file(home.0.join(format!("{:06}.log", number - KEPT)));
            }
        }
    }
    let cpu = thread_cpu_ns() - cpu;
    let both: Vec<_> = wait_both(&mut marks);
    // SAFETY: both are ours.
    unsafe {
        libc::close(ends[0]);
        libc::close(ends[1]);
    }
    went(bytes, both[1] - both[0], cpu)
}

/// First and last moment of child 0.
fn wait_both(marks: &mut Marks) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(marks.take().into_iter().map(|mark| mark.ns));
        marks::pause_ms(1);
    }
    seen
}

/// Touches as much memory as the files will take, and gives it back. In a virtual machine the first touch
/// of a page costs many times its copying, and would be counted for whoever comes first.
fn touch(bytes: u64) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a mapping of our own, which nobody has a pointer into.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            bytes as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        );
        if at != libc::MAP_FAILED {
            libc::munmap(at, bytes as usize);
        }
    }
}

/// One job that writes as fast as it can.
pub(crate) fn flood(settings: &Settings, report: &mut Report) {
    let bytes = (settings.gib * GIB) as u64;
    for (block, turn) in [(65536, false), (4096, false), (65536, true), (4096, true)] {
        let (mut speed, mut cpu) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for _ in 0..settings.reps {
            let a = ours(settings, block, bytes, turn);
            let b = floor(settings, block, bytes, turn);
            speed.0.push(a.0);
            speed.1.push(b.0);
            cpu.0.push(a.1);
            cpu.1.push(b.1);
        }
        let name = format!("flood of {} KiB writes{}", block / 1024, if turn { ", 50 MB files" } else { "" });
        report.more(&name, "MB/s", speed.0, speed.1, Bar::Share(0.85));
        report.less(format!("{name}: CPU per GiB"), "ms", cpu.0, cpu.1, Bar::None);
    }
}

/// A hundred jobs of a thousand lines a second, every line looked for afterwards.
pub(crate) fn lines(settings: &Settings, report: &mut Report) {
    const JOBS: usize = 100;
    const RATE: u64 = 1000;
    let count = RATE * settings.seconds;
    let home = Home::new(&settings.dir);
    let mut marks = Marks::new(home.0.join("marks"));
    let words = ["lines".to_owned(), RATE.to_string(), count.to_string()];
    let commands: Vec<_> = (0..JOBS).map(|id| marks::child(&marks.path, id as u32, &words)).collect();
    let defaults = format!("kind = \"task\"\nrestart = \"never\"\n{}", output_setting(false));
    let mut instance = Instance::start(settings, home, &configuration(&defaults, &commands));
    let begun = now_ns();
    marks.all(JOBS, START);
    instance.wait_ready();
    let roles = instance.roles();
    let sum = |read: fn(i32) -> u64| roles.iter().map(|pid| read(*pid)).sum::<u64>() as f64;
    let cpu = sum(proc::cpu_ns);
    marks.all(JOBS, DONE);
    let cpu = sum(proc::cpu_ns) - cpu;
    let took = (now_ns() - begun) as f64;
    // The end of the instance waits for the last bytes of every run.
    instance.stop();
    let wanted: Vec<u8> = (0..count).flat_map(|n| format!("a numbered line {n}\n").into_bytes()).collect();
    let lost: usize = (0..JOBS)
        .map(|id| {
            let dir = instance.home.0.join(format!("state/jobs/j{id}/current/output"));
            let got: Vec<u8> = logs(&dir).iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
            if got == wanted { 0 } else { wanted.len().abs_diff(got.len()).max(1) }
        })
        .sum();
    report.less(
        format!("{JOBS} × {RATE} lines/s: bytes lost or wrong"),
        "",
        vec![lost as f64],
        Vec::new(),
        Bar::AtMost(0.0),
    );
    report.less(
        format!("{JOBS} × {RATE} lines/s: our CPU"),
        "%",
        vec![cpu / took * 100.0],
        Vec::new(),
        Bar::None,
    );
}
