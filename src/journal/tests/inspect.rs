//! Looking at the log: every damage is seen and told for what it costs, reading and dry runs change no byte,
//! a repair leaves nothing to do, and a replay is what was known then.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use super::rig::{Rig, Rng, bare_sample, log_files, sample, stamp, state_dir};
use crate::core::state::State;
use crate::journal::fs::Fs;
use crate::journal::inspect::lines::lines_on;
use crate::journal::inspect::repair::repair_on;
use crate::journal::inspect::scrub::scrub_on;
use crate::journal::inspect::stats::stats_on;
use crate::journal::inspect::verify::{Checked, check};
use crate::journal::inspect::{Item, Mode, Repaired, ReplayError, Verdict, What, fingerprint, replay_on};
use crate::journal::segment::Dirs;
use crate::journal::simulated::SimFs;

fn dirs() -> Dirs {
    Dirs::of(&state_dir())
}

fn verify(fs: &SimFs) -> Checked {
    check(fs, &dirs(), &mut |_| {}).unwrap()
}

fn repair(fs: &SimFs, mode: Mode) -> Repaired {
    let fs: Arc<dyn Fs> = Arc::new(fs.clone());
    repair_on(&fs, &state_dir(), mode, stamp(999)).unwrap()
}

/// A log with two checkpoints, segments before, between and behind them.
fn log(seed: u64) -> Rig {
    let rig = sample(seed, 30);
    let checkpoints =
        log_files(&rig.fs).iter().filter(|(path, _)| path.starts_with("/s/checkpoints")).count();
    assert_eq!(checkpoints, 2);
    rig
}

#[test]
fn a_log_as_it_was_written_is_sound_and_every_line_is_shown() {
    for seed in 0..20 {
        let rig = log(seed);
        let before = rig.fs.files();
        let found = verify(&rig.fs).verified;
        assert_eq!(found.verdict, Verdict::Clean, "seed {seed}: {found:#?}");
        assert!(found.files.iter().all(|file| file.flaws.is_empty()), "seed {seed}: {found:#?}");
        let made_again = found.files.iter().filter(|file| file.what == What::Checkpoint);
        assert!(made_again.filter(|file| file.remarks.is_empty()).count() > 0, "seed {seed}: {found:#?}");
        let first = found.files[0].first;
        let mut seen = Vec::new();
        lines_on(&rig.fs, &dirs(), 0, &mut |item| {
            assert!(matches!(item, Item::Line(_)), "seed {seed}: {item:?}");
            if let Item::Line(text) = item {
                let value: serde_json::Value = serde_json::from_slice(text.bytes).unwrap();
                assert_eq!(value["seq"], text.seq);
                seen.push((text.seq, value["ev"].as_array().unwrap().len()));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        let decided = rig.decided.iter().enumerate().map(|(n, entry)| (n as u64 + 1, entry.events.len()));
        let expected: Vec<_> = decided.skip_while(|(seq, _)| *seq < first).collect();
        assert_eq!(seen, expected, "seed {seed}");
        let stats = stats_on(&rig.fs, &dirs()).unwrap();
        assert_eq!(stats.decisions + stats.marks, expected.len() as u64);
        let events: u64 = stats.events.values().sum();
        assert_eq!(events, expected.iter().map(|(_, n)| *n as u64).sum::<u64>());
        assert_eq!(stats.jobs, rig.states.last().unwrap().jobs().count() as u64);
        assert_eq!(repair(&rig.fs, Mode::Careful).steps, Vec::<String>::new(), "seed {seed}");
        assert_eq!(rig.fs.files(), before, "seed {seed}: looking changes nothing");
    }
}

#[test]
fn every_line_of_every_file_is_json() {
    let rig = log(3);
    let mut lines = 0;
    for (path, bytes) in log_files(&rig.fs) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or_else(|| panic!("{}", path.display()));
            let value: serde_json::Value = serde_json::from_slice(line).unwrap();
            assert!(value.is_object(), "{}", path.display());
            lines += 1;
        }
    }
    assert!(lines > 20, "{lines}");
}

/// Every bit of every file, each `step`th of them: seen, said to cost nothing, and repaired for good.
#[test]
fn a_flipped_bit_is_seen_wherever_it_is_and_can_be_repaired() {
    let rig = log(5);
    let whole = rig.states.last().unwrap();
    for (path, bytes) in log_files(&rig.fs) {
        for bit in (0..bytes.len() * 8).step_by(211) {
            let fs = rig.fs.copy();
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            fs.put(&path, &wrong);
            let what = format!("{} bit {bit}", path.display());
            let found = verify(&fs).verified;
            assert_eq!(found.verdict, Verdict::Covered, "{what}: {found:#?}");
            let file = found.files.iter().find(|file| file.file == path).unwrap();
            assert!(!file.flaws.is_empty(), "{what}: {found:#?}");
            repaired_for_good(&fs, &what);
            assert_eq!(Rig::new(fs, 1).read().unwrap().state, *whole, "{what}");
        }
    }
}

#[track_caller]
fn repaired_for_good(fs: &SimFs, what: &str) {
    let before = fs.files();
    let planned = repair(fs, Mode::DryRun);
    assert_eq!(fs.files(), before, "{what}: a dry run changes no byte");
    let done = repair(fs, Mode::Careful);
    assert!(done.done && !planned.done, "{what}: {done:?}");
    assert_eq!(planned.steps, done.steps, "{what}");
    let again = repair(fs, Mode::Careful);
    assert_eq!((again.steps, again.done), (Vec::new(), false), "{what}: twice is once");
    let found = verify(fs).verified;
    assert_eq!(found.verdict, Verdict::Clean, "{what}: {found:#?}");
    let newest = found.files.iter().rfind(|file| file.what == What::Checkpoint);
    assert_eq!(newest.map(|file| file.last), Some(found.start.last_seq), "{what}: {found:#?}");
}

/// Files of which another copy of the same is at hand, cut in two or emptied.
#[test]
fn a_spoilt_checkpoint_costs_nothing_and_is_replaced() {
    let rig = log(7);
    for (path, bytes) in log_files(&rig.fs) {
        if !path.starts_with("/s/checkpoints") {
            continue;
        }
        for wrong in [&bytes[..bytes.len() / 2], &[]] {
            let fs = rig.fs.copy();
            fs.put(&path, wrong);
            let what = format!("{} of {} bytes", path.display(), wrong.len());
            let found = verify(&fs).verified;
            assert_eq!(found.verdict, Verdict::Covered, "{what}: {found:#?}");
            repaired_for_good(&fs, &what);
            assert_eq!(Rig::new(fs, 1).read().unwrap().state, *rig.states.last().unwrap(), "{what}");
        }
    }
}

#[test]
fn a_checkpoint_that_says_something_else_is_noticed() {
    // The memory of another log, written as it should be: every checksum in it is right.
    let (rig, other) = (log(11), log(12));
    let (path, _) =
        log_files(&rig.fs).into_iter().rfind(|(path, _)| path.starts_with("/s/checkpoints")).unwrap();
    let seq: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let behind = crate::journal::checkpoint::Behind {
        seq,
        crc: 0,
        at: stamp(1),
        generation: crate::core::ids::Generation(3),
    };
    let fs = rig.fs.copy();
    fs.unlink(&path).unwrap();
    crate::journal::checkpoint::write(&fs, &dirs(), other.states.last().unwrap(), &behind).unwrap();
    let found = verify(&fs).verified;
    let file = found.files.iter().find(|file| file.file == path).unwrap();
    assert!(file.flaws.iter().any(|flaw| flaw.why.contains("not what the events")), "{found:#?}");
}

/// The middle of a segment that nothing covers: lines are gone, and nobody is told otherwise.
#[test]
fn a_loss_is_a_loss_until_somebody_accepts_it() {
    let mut tried = 0;
    for seed in 0..40 {
        let rig = bare_sample(seed, 30);
        let (path, bytes) = log_files(&rig.fs).into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
        let fs = rig.fs.copy();
        let mut wrong = bytes.clone();
        let (from, to) = (bytes.len() / 3, bytes.len() * 2 / 3);
        let mut rng = Rng::new(seed);
        wrong[from..to].iter_mut().for_each(|byte| *byte = rng.next() as u8);
        fs.put(&path, &wrong);
        let found = verify(&fs).verified;
        if found.verdict != Verdict::Loss {
            // It was superseded, or a tail.
            continue;
        }
        tried += 1;
        let before = fs.files();
        let refused = repair(&fs, Mode::Careful);
        assert!(!refused.done && !refused.lost.is_empty(), "seed {seed}: {refused:?}");
        assert_eq!(fs.files(), before, "seed {seed}: nothing is changed without a word");
        let done = repair(&fs, Mode::AcceptLoss);
        assert_eq!((done.done, &done.steps), (true, &refused.steps), "seed {seed}");
        let found = verify(&fs).verified;
        assert_ne!(found.verdict, Verdict::Loss, "seed {seed}: {found:#?}");
        assert_eq!(repair(&fs, Mode::Careful).steps, Vec::<String>::new(), "seed {seed}");
        let mut missing = false;
        lines_on(&fs, &dirs(), 0, &mut |item| {
            missing |= matches!(item, Item::Missing(..));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(missing, "seed {seed}: the history has a hole and says so");
    }
    assert!(tried > 10, "{tried}");
}

/// A flaw is told until a checkpoint covers it and a copy is kept, and never again.
#[test]
fn a_scrub_sees_every_flaw_until_it_is_dealt_with() {
    let rig = log(5);
    let sound = scrub_on(&rig.fs, &dirs()).unwrap();
    assert_eq!(sound.flaws, Vec::<String>::new());
    let (whole, last) = (rig.states.last().unwrap(), rig.decided.len() as u64);
    let behind = crate::journal::checkpoint::Behind {
        seq: last,
        crc: rig.journal.as_ref().unwrap().last_crc(),
        at: stamp(1),
        generation: crate::core::ids::Generation(3),
    };
    for (path, bytes) in log_files(&rig.fs) {
        for at in (0..bytes.len()).step_by(37) {
            let fs = rig.fs.copy();
            let mut wrong = bytes.clone();
            wrong[at] ^= 0xff;
            fs.put(&path, &wrong);
            let what = format!("{} byte {at}", path.display());
            let found = scrub_on(&fs, &dirs()).unwrap();
            let tail = found.flaws.is_empty()
                && path
                    == log_files(&rig.fs).iter().rfind(|(path, _)| path.starts_with("/s/journal")).unwrap().0;
            assert!(tail || !found.flaws.is_empty(), "{what}: {:?}", found.flaws);
            // What the supervisor does: its memory first.
            crate::journal::checkpoint::write(&fs, &dirs(), whole, &behind).unwrap();
            found.set_aside_on(&fs, &dirs(), last).unwrap();
            assert_eq!(scrub_on(&fs, &dirs()).unwrap().flaws, Vec::<String>::new(), "{what}");
            let read = Rig::new(fs, 1).read().unwrap();
            assert_eq!(
                (read.state == *whole, read.report.is_lossy()),
                (true, false),
                "{what}: {}",
                read.report
            );
        }
    }
}

#[test]
fn a_replay_is_what_was_known_then() {
    for seed in [1, 2, 3] {
        let rig = log(seed);
        let newest = rig.decided.len() as u64;
        let mut told = 0;
        for seq in 1..=newest {
            match replay_on(&rig.fs, &state_dir(), Some(seq), State::new()) {
                Ok(replayed) => {
                    assert_eq!(replayed.state, rig.states[seq as usize], "seed {seed}, line {seq}");
                    assert_eq!((replayed.seq, replayed.lost.len()), (seq, 0));
                    let print = |state: &State| fingerprint(state).unwrap();
                    assert_eq!(print(&replayed.state), print(&rig.states[seq as usize]));
                    let mut other = replayed.state.clone();
                    other.instance.generation.0 += 1;
                    assert_ne!(print(&replayed.state), print(&other));
                    told += 1;
                }
                Err(ReplayError::TooOld { wanted, oldest }) => {
                    assert!(wanted == seq && oldest > seq && told == 0, "seed {seed}, line {seq}");
                }
                Err(error) => panic!("seed {seed}, line {seq}: {error}"),
            }
        }
        assert!(told > 3, "seed {seed}: {told} of {newest}");
        assert!(matches!(
            replay_on(&rig.fs, &state_dir(), Some(newest + 1), State::new()),
            Err(ReplayError::TooNew { newest: known, .. }) if known == newest
        ));
        let whole = replay_on(&rig.fs, &state_dir(), None, State::new()).unwrap();
        assert_eq!((whole.seq, &whole.state), (newest, &rig.states[newest as usize]));
    }
}

#[test]
fn a_sealed_segment_put_in_place_of_another_is_noticed() {
    let rig = log(9);
    let files: Vec<(PathBuf, Vec<u8>)> = log_files(&rig.fs);
    let segments: Vec<_> = files.iter().filter(|(path, _)| path.starts_with("/s/journal")).collect();
    let (path, bytes) = segments[0];
    let fs = rig.fs.copy();
    // Cut at the end of a line: every line that is left is whole.
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let Some((_, kept)) = lines.split_last() else { panic!("no lines") };
    fs.put(path, &kept.concat());
    let found = verify(&fs).verified;
    assert_ne!(found.verdict, Verdict::Clean, "{found:#?}");
}
