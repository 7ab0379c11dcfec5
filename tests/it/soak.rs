//! Crashes and freezes, many of them, and what our own figures say of them beside what was seen from outside.
//!
//! From outside nobody sees the moment at which we saw something; but it lies between two that can be seen. So each
//! incident is measured twice: from the latest moment at which it can have begun to the earliest at which it can
//! have been over, and the other way round. Our figures have to lie between the two. `SOAK_INCIDENTS` makes it a
//! longer one: 1,000 take some minutes.

use std::sync::Mutex;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Daemon, job, procs, until};

const JOBS: usize = 8;

/// Clock ticks in which the kernel tells the start of a process: 10 ms, and as much for rounding.
const TICK_MS: f64 = 20.0;

fn incidents() -> usize {
    std::env::var("SOAK_INCIDENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

/// At least and at most so many milliseconds.
type Bounds = (f64, f64);

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

/// Milliseconds since a process was started, by the kernel's word.
fn age_ms(pid: i32) -> Option<f64> {
    let ticks: f64 = procs::stat(pid)?.get(21)?.parse().ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    Some((uptime - ticks / 100.0) * 1000.0)
}

/// It is killed, and another run follows.
fn crash(daemon: &Daemon, name: &str) -> Bounds {
    let (pid, run) = daemon.wait_running(name);
    let handle = procs::handle(pid).unwrap();
    let begun = Instant::now();
    procs::send(&handle, Signal::KILL);
    next_run(daemon, name, (&run, &handle), begun)
}

/// It is stopped; its ladder begins with a restart.
fn hang(daemon: &Daemon, name: &str) -> Bounds {
    let (pid, run) = daemon.wait_running(name);
    let handle = procs::handle(pid).unwrap();
    let begun = Instant::now();
    procs::send(&handle, Signal::STOP);
    next_run(daemon, name, (&run, &handle), begun)
}

fn next_run(
    daemon: &Daemon,
    name: &str,
    (run, old): (&str, &std::os::fd::OwnedFd),
    begun: Instant,
) -> Bounds {
    assert!(procs::wait_dead(old, crate::common::PATIENCE), "{name} does not end");
    let dead = Instant::now();
    let (pid, _) = daemon.wait_next_run(name, run);
    let seen = Instant::now();
    let age = age_ms(pid).unwrap_or(0.0);
    // It was started before it was seen, so long ago; and not before the old one was dead.
    ((ms(dead, seen) - age - TICK_MS).max(0.0), ms(begun, seen))
}

/// It is stopped, and goes on after a `CONT` of ours.
fn freeze(daemon: &Daemon, name: &str) -> Bounds {
    let (pid, run) = daemon.wait_running(name);
    let wells = || daemon.events().iter().filter(|e| e["k"] == "run.well" && e["job"] == name).count();
    let before = wells();
    let begun = Instant::now();
    procs::send(&procs::handle(pid).unwrap(), Signal::STOP);
    until("it is well again", || (wells() > before).then_some(()));
    let seen = Instant::now();
    assert_eq!(daemon.wait_running(name), (pid, run), "it was never ended");
    (0.0, ms(begun, seen))
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

#[track_caller]
fn between(what: &str, ours: &Value, low: f64, high: f64) {
    let ours = ours.as_f64().unwrap() * 1000.0;
    // Ours is cut to milliseconds.
    assert!(low - 1.0 <= ours && ours <= high + 1.0, "{what}: {ours} ms is not from {low} to {high}");
}

#[test]
fn our_figures_of_recoveries_are_those_seen_from_outside() {
    let keys = |ladder: &str| {
        format!(
            "backoff = {{ initial = \"5ms\", max = \"5ms\" }}\nstart_limit = {{ count = 0 }}\n\
             heartbeat = {{ notify = \"500ms\" }}\non_frozen = {ladder}\n"
        )
    };
    let mut config: String = (0..JOBS)
        .map(|n| {
            let ladder = if n % 2 == 0 { "[\"restart\"]" } else { "[{ continue = \"20s\" }]" };
            job(&format!("j{n}"), "beat 50ms", &keys(ladder))
        })
        .collect();
    config += &job("hopeless", "exit 1", "start_limit = { count = 1, within = \"1h\" }\n");
    let daemon = Daemon::start(&config);
    daemon.wait_state("hopeless", "fatal");
    let all = Mutex::new(Vec::new());
    let each = incidents().div_ceil(JOBS);
    std::thread::scope(|scope| {
        for n in 0..JOBS {
            let (all, daemon) = (&all, &daemon);
            scope.spawn(move || {
                let name = format!("j{n}");
                for round in 0..each {
                    let bounds = match (round % 2, n % 2) {
                        (0, _) => crash(daemon, &name),
                        (_, 0) => hang(daemon, &name),
                        (_, _) => freeze(daemon, &name),
                    };
                    all.lock().unwrap().push(bounds);
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    let metrics = daemon.get("/api/admin/recovery/metrics").unwrap().json();
    let recovered = all.len();
    assert_eq!(metrics["recovered"].as_u64(), Some(recovered as u64), "{metrics:#}");
    assert_eq!((metrics["failed"].as_u64(), metrics["open"].as_u64()), (Some(1), Some(0)), "{metrics:#}");
    let rate = recovered as f64 / (recovered + 1) as f64;
    assert!((metrics["recovery_success_rate"].as_f64().unwrap() - rate).abs() < 1e-6, "{metrics:#}");
    let bounds = |which: fn(&Bounds) -> f64| {
        let mut all: Vec<f64> = all.iter().map(which).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let (low, high) = (bounds(|bounds| bounds.0), bounds(|bounds| bounds.1));
    let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
    between("the mean", &metrics["mean_seconds"], mean(&low), mean(&high));
    between("P95", &metrics["p95_seconds"], percentile(&low, 95), percentile(&high, 95));
    between("P99", &metrics["p99_seconds"], percentile(&low, 99), percentile(&high, 99));
    if all.len() >= 1000 {
        eprintln!(
            "{} incidents: {metrics:#}\nfrom outside: mean {} to {} ms",
            all.len(),
            mean(&low),
            mean(&high)
        );
    }
}
