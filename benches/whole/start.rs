//! Cold start, from the launch of `outlive up` to the last child's first instruction; and shutdown, from
//! the signal to init's end.

use crate::Settings;
use crate::floor::Floor;
use crate::instance::{Home, Instance};
use crate::marks::{Marks, START, last, now_ns};
use crate::report::{Bar, Report};

const MS: f64 = 1e6;

fn floor_start(settings: &Settings, n: usize) -> (f64, f64) {
    let home = Home::new(&settings.dir);
    let mut marks = Marks::new(home.0.join("marks"));
    let mut floor = Floor::idle(&marks, n);
    let begun = now_ns();
    floor.spawn_all();
    let started = (last(&marks.all(n, START)) - begun) as f64 / MS;
    let begun = now_ns();
    floor.kill_all(libc::SIGTERM);
    while !floor.pids.is_empty() {
        floor.reap();
    }
    (started, (now_ns() - begun) as f64 / MS)
}

fn our_start(settings: &Settings, n: usize, more: &str) -> (f64, f64) {
    let home = Home::new(&settings.dir);
    let mut marks = Marks::new(home.0.join("marks"));
    let mut instance = Instance::idle(settings, home, &marks, n, more);
    let all = marks.all(n, START);
    let started = (last(&all) - instance.launched_ns) as f64 / MS;
    instance.wait_ready();
    let stopped = instance.stop() as f64 / MS;
    for mark in all.values() {
        assert!(!crate::proc::is_alive(mark.pid as i32), "a job lives on after the shutdown");
    }
    (started, stopped)
}

/// The figures of all rounds: ours with capture, ours without, the floor; started and stopped each.
fn rounds(settings: &Settings, n: usize) -> [(Vec<f64>, Vec<f64>); 3] {
    let mut all: [(Vec<f64>, Vec<f64>); 3] = Default::default();
    for _ in 0..settings.reps {
        let round = [
            our_start(settings, n, ""),
            our_start(settings, n, "output = { mode = \"none\" }\n"),
            floor_start(settings, n),
        ];
        for (list, (started, stopped)) in all.iter_mut().zip(round) {
            list.0.push(started);
            list.1.push(stopped);
        }
    }
    all
}

/// Launch to the last child's first instruction.
pub(crate) fn cold_start(settings: &Settings, report: &mut Report) {
    for &n in &settings.n {
        let bar = if n == 1000 { Bar::Ratio(1.5) } else { Bar::None };
        let [captured, none, floor] = rounds(settings, n);
        report.less(format!("cold start of {n}"), "ms", captured.0, floor.0.clone(), bar);
        report.less(format!("cold start of {n}, no output"), "ms", none.0, floor.0, bar);
    }
}

/// Signal to init's end.
pub(crate) fn shutdown(settings: &Settings, report: &mut Report) {
    let n = settings.most();
    let [captured, none, floor] = rounds(settings, n);
    report.less(format!("shutdown of {n}"), "ms", captured.1, floor.1.clone(), Bar::None);
    report.less(format!("shutdown of {n}, no output"), "ms", none.1, floor.1, Bar::None);
}
