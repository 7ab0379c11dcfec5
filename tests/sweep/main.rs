//! The sweep: supervisor, keeper or the child of a start is killed with SIGKILL before its first system
//! call after a request, before its second, and so on until the operation is over before it is reached.
//!
//! Between two system calls a process changes nothing that anybody else can see, but for memory that it
//! shares. So this is every moment at which a single death can make a difference, up to the order in which
//! threads come along.
//! After each kill, when all is well again:
//!
//! - every run was asked for once and started at most once, never two at a time;
//! - exactly as many runs live as are wanted;
//! - every run that was asked for and does not live has one recorded end: the one it was told, or that it
//!   never ran;
//! - all of its output is there; no directory and no process is left over.
//!
//! Every fifth system call by default (fewer of the long ones), with an offset from the seed; `SWEEP_FULL=1` for all of them,
//! `SWEEP_SEED` for another offset, `SWEEP_ONLY=keeper-start` for one row, `SWEEP_AT=17` for one point.
#![allow(missing_docs, unreachable_pub, reason = "nothing outside uses a test")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "the fixture serves several test binaries")]

#[path = "../common/mod.rs"]
mod common;

mod point;
mod told;
mod trace;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{skip, wait_child};
use point::{Bench, Course, Fault, Phase, Role};
use trace::{Count, Tracer};

/// Deaths of roles after which an instance is given up: each further one would take longer to answer.
const DEATHS_MAX: u32 = 3;
/// More system calls than any operation takes: something goes round in circles.
const POINTS_MAX: u64 = 3000;
/// Faults in a row of the table after which it is given up.
const FAULTS_MAX: usize = 8;
/// System calls between two points of the short sweep, for operations of a few dozen of them, and for the
/// keeper's long ones.
const STRIDE: u64 = 5;
const LONG_STRIDE: u64 = 17;

const ROWS: [(Role, Phase); 7] = [
    (Role::Supervisor, Phase::Start),
    (Role::Keeper, Phase::Start),
    (Role::Child, Phase::Start),
    (Role::Supervisor, Phase::End),
    (Role::Keeper, Phase::End),
    (Role::Supervisor, Phase::Restart),
    (Role::Keeper, Phase::Restart),
];

/// What is swept.
#[derive(Debug, Clone, Copy)]
struct Settings {
    full: bool,
    seed: u64,
    at: Option<u64>,
    /// When the short sweep is long enough.
    until: Option<Instant>,
}

/// One row of the table.
#[derive(Debug, Default)]
struct Row {
    points: u64,
    longest: u64,
    courses: BTreeMap<Course, u64>,
    faults: Vec<(Fault, String)>,
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn settings() -> Settings {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let full = number("SWEEP_FULL").is_some_and(|n| n != 0);
    Settings {
        full,
        seed: number("SWEEP_SEED").unwrap_or_else(|| clock.tv_sec.cast_unsigned()),
        at: number("SWEEP_AT"),
        until: (!full).then(|| Instant::now() + Duration::from_secs(20)),
    }
}

/// Whether a process may be traced here: a container may forbid it.
fn tracing_works() -> Result<(), String> {
    let mut child = std::process::Command::new(common::misbehave()).arg("hang").spawn().unwrap();
    let seized = Tracer::seize(child.id().cast_signed(), Count::Own);
    let result = match &seized {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    drop(seized);
    child.kill().unwrap();
    wait_child(&mut child, common::PATIENCE);
    result
}

/// Kills one role before every wanted system call of one phase.
fn sweep(role: Role, phase: Phase, settings: Settings) -> Row {
    let mut row = Row::default();
    let stride = match (settings.full, role, phase) {
        (true, _, _) => 1,
        (false, Role::Keeper, Phase::End | Phase::Restart) => LONG_STRIDE,
        (false, _, _) => STRIDE,
    };
    let mut n = settings.at.unwrap_or(1 + settings.seed % stride);
    let rest = Duration::from_millis(60);
    let mut bench: Option<Bench> = None;
    loop {
        let used = bench.take().filter(|bench| bench.deaths < DEATHS_MAX);
        let mut now = used.unwrap_or_else(|| Bench::new(phase));
        let place = format!("{} {phase:?} {n}", role.name());
        let over = match now.point(role, n, rest) {
            Ok(report) => {
                let call = report.killed_before;
                row.points += u64::from(call.is_some());
                if call.is_some() {
                    *row.courses.entry(report.course).or_default() += 1;
                }
                let sound = report.faults.is_empty();
                for (fault, why) in report.faults {
                    row.faults.push((fault, format!("{place}, before system call {call:?}: {why}")));
                }
                if sound {
                    bench = Some(now);
                } else {
                    eprintln!("FAULT at {place} ({call:?}): {:?}\n{}", row.faults.last(), now.explain());
                }
                call.is_none()
            }
            Err(why) => {
                eprintln!("FAULT at {place}: {why}");
                row.points += 1;
                row.faults.push((Fault::Wrong, format!("{place}: {why}")));
                false
            }
        };
        row.longest = n;
        let late = !over && settings.until.is_some_and(|until| Instant::now() >= until);
        if late {
            eprintln!("CUT SHORT for want of time: {} {phase:?} after system call {n}", role.name());
        }
        let hopeless = row.faults.len() >= FAULTS_MAX;
        if over || late || hopeless || settings.at.is_some() || n > POINTS_MAX {
            return row;
        }
        n += stride;
    }
}

fn print(rows: &[(Role, Phase, Row)]) {
    eprintln!(
        "\n{:<11} {:<8} {:>6} {:>6} {:>8} {:>6} {:>8} {:>10} {:>5} {:>6}",
        "killed", "during", "points", "up to", "straight", "again", "unheard", "duplicates", "lost", "wrong"
    );
    for (role, phase, row) in rows {
        let course = |course| row.courses.get(&course).copied().unwrap_or(0);
        let faults = |fault| row.faults.iter().filter(|(f, _)| *f == fault).count();
        eprintln!(
            "{:<11} {:<8} {:>6} {:>6} {:>8} {:>6} {:>8} {:>10} {:>5} {:>6}",
            role.name(),
            format!("{phase:?}").to_lowercase(),
            row.points,
            row.longest,
            course(Course::Straight),
            course(Course::Again),
            course(Course::Unheard),
            faults(Fault::Duplicate),
            faults(Fault::Lost),
            faults(Fault::Wrong),
        );
    }
}

#[test]
fn nothing_is_started_twice_and_no_outcome_lost_wherever_one_of_us_is_killed() {
    if let Err(why) = tracing_works() {
        return skip(&format!("processes cannot be traced here: {why}"));
    }
    let settings = settings();
    eprintln!("SWEEP_SEED={}", settings.seed);
    let only = std::env::var("SWEEP_ONLY").ok();
    let wanted = |role: Role, phase: Phase| {
        let name = format!("{}-{phase:?}", role.name()).to_lowercase();
        only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    };
    let rows: Vec<(Role, Phase, Row)> = std::thread::scope(|scope| {
        let threads: Vec<_> = ROWS
            .into_iter()
            .filter(|(role, phase)| wanted(*role, *phase))
            .map(|(role, phase)| (role, phase, scope.spawn(move || sweep(role, phase, settings))))
            .collect();
        threads.into_iter().map(|(role, phase, thread)| (role, phase, thread.join().unwrap())).collect()
    });
    print(&rows);
    let faults: Vec<&String> =
        rows.iter().flat_map(|(_, _, row)| row.faults.iter().map(|(_, why)| why)).collect();
    assert!(faults.is_empty(), "{} faults: {faults:#?}", faults.len());
    assert!(rows.iter().all(|(_, _, row)| row.points > 0 || settings.at.is_some()), "a row without a point");
}
