//! A test of the tests: each mistake that can be switched on is noticed by at least one of them.

use super::crash::{every_crash, every_error, many_lives};
use super::damage::{cuts, flips, lines, one_gone, smashes};
use super::promises::{aside, dry, json, newer};
use super::rig::{bare_sample, sample};
use crate::journal::simulated::{Fault, plant};

type Check = fn() -> Result<(), String>;

/// The checks in the order of what is fast, each as small as will do.
const CHECKS: [(&str, Check); 12] = [
    ("dry", || dry(&sample(4, 8)).map(drop)),
    ("json", || json(&sample(4, 8)).map(drop)),
    ("newer", || newer(&sample(4, 8)).map(drop)),
    ("aside", || aside(&sample(4, 8)).map(drop)),
    ("lives", || (0..150).try_for_each(|seed| many_lives(seed, 8))),
    ("flips", || flips(&sample(4, 8), 29).map(drop)),
    ("lines", || lines(&bare_sample(5, 30), &bare_sample(6, 30)).map(drop)),
    ("one gone", || (0..5).try_for_each(|seed| one_gone(&sample(40 + seed, 30)).map(drop))),
    ("cuts", || cuts(&sample(3, 6)).map(drop)),
    ("smashes", || smashes(&sample(21, 25), 1, 400).map(drop)),
    ("errors", || every_error(1, 14, 6).map(drop)),
    ("crashes", || every_crash(1, 10, 16).map(drop)),
];

const FAULTS: [Fault; 22] = [
    Fault::HalfALine,
    Fault::NothingSetAside,
    Fault::NewerIgnored,
    Fault::CheckpointForgets,
    Fault::NoJson,
    Fault::ReadingWrites,
    Fault::PanicsOnDamage,
    Fault::AckBeforeSync,
    Fault::SegmentNameUnsynced,
    Fault::SegmentNamedUnsynced,
    Fault::CheckpointNamedUnsynced,
    Fault::CheckpointNameUnsynced,
    Fault::OneGeneration,
    Fault::DeletesTooEarly,
    Fault::EndNotChecked,
    Fault::SyncRetried,
    Fault::NoBatchRule,
    Fault::AllIsTorn,
    Fault::NoSuperseding,
    Fault::ChainIgnored,
    Fault::NoMending,
    Fault::TailNotCopied,
];

#[test]
fn every_mistake_is_noticed_and_nothing_is_noticed_without_one() {
    let mut unnoticed = Vec::new();
    for fault in FAULTS {
        plant(Some(fault));
        // All of them, to print the table; the first that notices is enough otherwise.
        let all = super::rig::setting("JOURNAL_TABLE", 0) > 0;
        let mut by = Vec::new();
        for (name, check) in CHECKS {
            // One that panics has noticed, too.
            let notices = || !matches!(std::panic::catch_unwind(check), Ok(Ok(())));
            if (all || by.is_empty()) && notices() {
                by.push(name);
            }
        }
        println!("{fault:?}: {}", by.join(", "));
        if by.is_empty() {
            unnoticed.push(fault);
        }
    }
    plant(None);
    assert_eq!(unnoticed, []);
    for (name, check) in CHECKS {
        check().unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
