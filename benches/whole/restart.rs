//! From the kill of a child to its successor's first instruction: one at a time, and all at once.

use std::collections::BTreeMap;

use crate::Settings;
use crate::floor::Floor;
use crate::instance::{Home, Instance};
use crate::marks::{Mark, Marks, START, last, now_ns, pause_ms};
use crate::report::{Bar, Report, quantile};

const MS: f64 = 1e6;

/// Between two kills, so that each finds a calm machine.
const GAP_MS: i32 = 8;

fn kill(pid: u32) {
    // SAFETY: a job of an instance of ours, alive a moment ago, or a child of ours.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
}

/// Kills children in turn; `again` does what is needed for the next one to come. Milliseconds each.
fn latencies(
    settings: &Settings,
    marks: &mut Marks,
    alive: &mut BTreeMap<u32, Mark>,
    mut again: impl FnMut(usize),
) -> Vec<f64> {
    let n = alive.len();
    (0..settings.kills)
        .map(|kill_number| {
            let id = (kill_number * 7919 % n) as u32;
            let begun = now_ns();
            kill(alive[&id].pid);
            again(id as usize);
            let mark = marks.one(id, START);
            alive.insert(id, mark);
            pause_ms(GAP_MS);
            (mark.ns - begun) as f64 / MS
        })
        .collect()
}

fn ours(settings: &Settings, n: usize) -> Vec<f64> {
    let home = Home::new(&settings.dir);
    let mut marks = Marks::new(home.0.join("marks"));
    let instance = Instance::idle(settings, home, &marks, n, "");
    let mut alive = marks.all(n, START);
    instance.wait_ready();
    pause_ms(1000);
    latencies(settings, &mut marks, &mut alive, |_| {})
}

fn floor(settings: &Settings, n: usize) -> Vec<f64> {
    let home = Home::new(&settings.dir);
    let mut marks = Marks::new(home.0.join("marks"));
    let mut floor = Floor::idle(&marks, n);
    floor.spawn_all();
    let mut alive = marks.all(n, START);
    pause_ms(200);
    latencies(settings, &mut marks, &mut alive, |_| {
        if let Some(dead) = floor.reap() {
            floor.spawn(dead);
        }
    })
}

/// One at a time.
pub(crate) fn single(settings: &Settings, report: &mut Report) {
    for &n in &settings.n {
        let mut all: [Vec<f64>; 4] = Default::default();
        for _ in 0..settings.reps {
            let (ours, floor) = (ours(settings, n), floor(settings, n));
            for (list, value) in all.iter_mut().zip([
                quantile(&ours, 0.5),
                quantile(&floor, 0.5),
                quantile(&ours, 0.99),
                quantile(&floor, 0.99),
            ]) {
                list.push(value);
            }
        }
        let [p50, floor50, p99, floor99] = all;
        report.less(format!("restart at {n}, p50"), "ms", p50, floor50, Bar::Above(2.0));
        report.less(format!("restart at {n}, p99"), "ms", p99, floor99, Bar::None);
    }
}

/// All at once.
pub(crate) fn storm(settings: &Settings, report: &mut Report) {
    let n = settings.most();
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..settings.reps {
        let home = Home::new(&settings.dir);
        let mut marks = Marks::new(home.0.join("marks"));
        let instance = Instance::idle(settings, home, &marks, n, "");
        let alive = marks.all(n, START);
        instance.wait_ready();
        pause_ms(1000);
        let begun = now_ns();
        alive.values().for_each(|mark| kill(mark.pid));
        ours.push((last(&marks.all(n, START)) - begun) as f64 / MS);
        drop(instance);
        let home = Home::new(&settings.dir);
        let mut marks = Marks::new(home.0.join("marks"));
        let mut floor = Floor::idle(&marks, n);
        floor.spawn_all();
        marks.all(n, START);
        let begun = now_ns();
        floor.kill_all(libc::SIGKILL);
        for _ in 0..n {
            if let Some(dead) = floor.reap() {
                floor.spawn(dead);
            }
        }
        floors.push((last(&marks.all(n, START)) - begun) as f64 / MS);
    }
    report.less(format!("storm of {n} kills, all back"), "ms", ours, floors, Bar::None);
}
