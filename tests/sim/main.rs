//! The whole of outlive in one thread and under one seed: the real core and the real event log, a disk, a
//! host, a keeper and people who are simulated. After every step an oracle asks whether every promise is kept.
//!
//! `SIM_SEEDS` seeds from `SIM_FIRST` on, `SIM_STEPS` steps each; `SIM_SEED` lives through one and tells its
//! last `SIM_WORDS` steps. `SIM_TABLE=1` prints which law notices which mistake; with it, or with `SIM_SEEDS`,
//! those that show seldom are looked for as well.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "small numbers of a test"
)]

mod host;
mod keeper;
mod mistakes;
mod oracle;
mod random;
mod supervisor;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mistakes::Mistake;
use oracle::{Broken, Counts};
use outlive::journal::simulated::plant;
use world::World;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

fn steps() -> u64 {
    setting("SIM_STEPS").unwrap_or(500)
}

/// Lives through one seed.
fn live(seed: u64, steps: u64, mistake: Option<Mistake>) -> Result<(u64, Counts), Broken> {
    if let Some(Mistake::Journal(fault)) = mistake {
        plant(Some(fault));
    }
    let mut world = World::new(seed, mistake, false);
    let done = world.live(steps);
    plant(None);
    done.map(|()| (world.hash(), world.oracle.counts))
}

/// Lives through it once more, and tells the end of the story.
fn tell(seed: u64, steps: u64) -> String {
    let mut world = World::new(seed, None, true);
    let done = world.live(steps);
    let words = world.last_words(setting("SIM_WORDS").unwrap_or(60) as usize).join("\n");
    match done {
        Ok(()) => format!("{words}\nseed {seed}: all is well"),
        Err(Broken { check, what }) => {
            format!("{words}\nseed {seed}: {check}: {what}\nonce more: SIM_SEED={seed} SIM_STEPS={steps}")
        }
    }
}

#[test]
fn every_promise_is_kept_in_every_world() {
    let steps = steps();
    if let Some(seed) = setting("SIM_SEED") {
        let told = tell(seed, steps);
        println!("{told}");
        assert!(told.ends_with("all is well"), "seed {seed}");
        return;
    }
    let (first, seeds) = (setting("SIM_FIRST").unwrap_or(1), setting("SIM_SEEDS").unwrap_or(100));
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let (failed, total) = (Mutex::new(None), Mutex::new(Counts::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let said = Mutex::new(began);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || failed.lock().unwrap().is_some() {
                        return;
                    }
                    let lived = std::panic::catch_unwind(|| live(seed, steps, None));
                    match lived {
                        Ok(Ok((_, counts))) => total.lock().unwrap().add(&counts),
                        Ok(Err(_)) | Err(_) => drop(failed.lock().unwrap().get_or_insert(seed)),
                    }
                    let n = done.fetch_add(1, Ordering::Relaxed) + 1;
                    let mut said = said.lock().unwrap();
                    if said.elapsed() > Duration::from_secs(10) {
                        *said = Instant::now();
                        eprintln!("{n} of {seeds} seeds in {:.0?}", began.elapsed());
                    }
                }
            });
        }
    });
    if let Some(seed) = failed.into_inner().unwrap() {
        panic!("{}", tell(seed, steps));
    }
    let total = total.into_inner().unwrap();
    println!("{seeds} seeds of {steps} steps in {:.1?}: {total:?}", began.elapsed());
    assert!(total.launches > 3 * seeds && total.recoveries > seeds && total.checkpoints > seeds / 2);
}

/// Seeds that a mistake may take until it is noticed.
const PATIENCE: u64 = 6000;

/// The first law that notices a mistake, with the seed.
fn noticed(mistake: Mistake, by: &[&str]) -> Result<(u64, Broken), String> {
    let mut others = BTreeMap::new();
    for seed in 1..=PATIENCE {
        match std::panic::catch_unwind(|| live(seed, 500, Some(mistake))) {
            Ok(Err(broken)) if by.contains(&broken.check) => return Ok((seed, broken)),
            Ok(Err(broken)) => *others.entry(broken.check).or_insert(0_u32) += 1,
            Ok(Ok(_)) => {}
            Err(_) => return Err(format!("{mistake:?}: a panic in seed {seed}")),
        }
    }
    Err(format!("{mistake:?} is noticed by {others:?}, and not by {by:?}"))
}

#[test]
fn every_mistake_is_noticed_by_the_law_that_is_there_for_it() {
    let patient = setting("SIM_TABLE").or_else(|| setting("SIM_SEEDS")).is_some();
    let next = AtomicU64::new(0);
    let rows = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((mistake, by)) =
                    mistakes::ALL.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    if mistakes::is_rare(*mistake) && !patient {
                        continue;
                    }
                    let began = Instant::now();
                    let row = noticed(*mistake, by);
                    rows.lock().unwrap().push((format!("{mistake:?}"), row, began.elapsed()));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    if setting("SIM_TABLE").is_some() {
        for (mistake, row, took) in &rows {
            match row {
                Ok((seed, Broken { check, what })) => {
                    let what: String = what.chars().take(90).collect();
                    println!(
                        "{mistake:<36} {check:<9} seed {seed:<5} {took:>6.1?}  {}",
                        what.replace('\n', " ")
                    );
                }
                Err(why) => println!("{mistake:<36} NOT NOTICED {took:.1?}: {why}"),
            }
        }
    }
    let unnoticed: Vec<&String> = rows.iter().filter_map(|(_, row, _)| row.as_ref().err()).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn the_same_seed_lives_the_same_life() {
    for seed in 1..=10 {
        let one = live(seed, 300, None).unwrap_or_else(|_| panic!("{}", tell(seed, 300)));
        let two = live(seed, 300, None).unwrap();
        assert_eq!(one.0, two.0, "seed {seed}");
        assert_ne!(one.0, live(seed + 1000, 300, None).unwrap().0);
    }
}
