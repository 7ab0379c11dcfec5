//! What it costs to see what a thousand runs use, beside a bare loop that reads the same files.
//!
//! Processor time of this process and not time that passes: the work is the kernel's, done for us.

use std::fs;

use outlive::sys::sample::{Wanted, sample};

use crate::Settings;
use crate::floor::Floor;
use crate::marks::{Marks, START};
use crate::report::{Bar, Report, quantile};

/// How often runs are looked at.
const INTERVAL_MS: f64 = 5000.0;
/// Rounds, of which each measures both.
const ROUNDS: usize = 20;

fn cpu_ms() -> f64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to local memory.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut at) };
    at.tv_sec as f64 * 1e3 + at.tv_nsec as f64 / 1e6
}

fn cost(mut work: impl FnMut()) -> f64 {
    let before = cpu_ms();
    work();
    cpu_ms() - before
}

/// Opens, reads and closes, and looks at nothing.
fn read_all(paths: &[String], buffer: &mut [u8]) {
    use std::io::Read;
    for path in paths {
        if let Ok(mut file) = fs::File::open(path) {
            while file.read(buffer).is_ok_and(|n| n == buffer.len()) {}
        }
    }
}

/// The files that have to be read for these processes.
fn files(pids: &[i32], names: &[&str]) -> Vec<String> {
    pids.iter().flat_map(|pid| names.iter().map(move |name| format!("/proc/{pid}/{name}"))).collect()
}

/// Children of ours that do nothing, as the main processes of so many runs.
pub(crate) fn sampling(settings: &Settings, report: &mut Report) {
    let n = settings.most();
    let dir = settings.dir.join(format!("outlive-bench-sample-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let mut marks = Marks::new(dir.join("marks"));
    let mut floor = Floor::idle(&marks, n);
    floor.spawn_all();
    marks.all(n, START);
    let pids: Vec<i32> = floor.pids.keys().copied().collect();
    let runs = |pids: &[i32]| -> Vec<Wanted> {
        pids.iter().map(|pid| Wanted { pid: *pid, ..Wanted::default() }).collect()
    };
    let all = runs(&pids);
    // So few that the lists of children are read instead of all there is.
    let few = &pids[..n.div_ceil(5)];
    let some = runs(few);
    let list = |few: &[i32]| -> Vec<String> {
        let children = few.iter().map(|pid| format!("/proc/{pid}/task/{pid}/children"));
        files(few, &["stat"]).into_iter().chain(children).collect()
    };
    measure(report, format!("sampling {n} runs"), &all, false, &files(&pids, &["stat"]), Bar::AtMost(100.0));
    measure(report, format!("sampling {} of {n} runs", few.len()), &some, false, &list(few), Bar::None);
    let names = ["stat", "smaps_rollup", "io"];
    measure(report, format!("sampling {n} runs in detail"), &all, true, &files(&pids, &names), Bar::None);
    floor.end();
    drop(marks);
    let _ = fs::remove_dir_all(&dir);
}

fn measure(report: &mut Report, name: String, wanted: &[Wanted], detail: bool, paths: &[String], bar: Bar) {
    let mut buffer = vec![0; 4096];
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(cost(|| {
            let samples = sample(wanted, detail);
            assert!(samples.iter().all(Option::is_some), "some were not found");
        }));
        floor.push(cost(|| read_all(paths, &mut buffer)));
    }
    eprintln!("  {name}: {:.2} % of a core every 5 s", quantile(&ours, 0.5) / INTERVAL_MS * 100.0);
    report.less(name, "ms CPU", ours, floor, bar);
}
