//! The last operation that ever happens, and the operation that is refused, for every one of them.

use super::rig::{Rig, Rng, setting};
use crate::journal::simulated::SimFs;

/// A life on a disk, the same for the same seed.
fn live(fs: SimFs, seed: u64, acts: u64) -> Result<Rig, String> {
    let mut rig = Rig::new(fs, seed);
    rig.start()?;
    for _ in 0..acts {
        rig.act()?;
    }
    Ok(rig)
}

/// Reads an image, and crashes at each operation of opening it; the outcome must be the same.
fn recovers(rig: &Rig, image: &SimFs, rng: &mut Rng) -> Result<u64, String> {
    let other = |fs: SimFs| Rig {
        fs,
        rng: Rng::new(1),
        journal: None,
        decided: rig.decided.clone(),
        states: rig.states.clone(),
        acknowledged: rig.acknowledged,
        clock: 0,
        folds: true,
    };
    let first = other(image.clone());
    let read = first.read().map_err(|e| e.to_string())?;
    first.judge(&read)?;
    let state = read.state;
    let mut images = 0;
    for op in 1.. {
        let fs = image.killed();
        fs.crash_at(op);
        let mut second = other(fs.clone());
        second.start()?;
        let done = fs.ops() < op;
        let third = other(if rng.one_in(2) { fs.cut(rng.choose()) } else { fs.killed() });
        let again = third.read().map_err(|e| e.to_string())?;
        if again.state != state {
            third.judge(&again).map_err(|e| format!("op {op} of opening: {e}"))?;
            if done {
                return Err(format!("another memory after opening: {}", again.report));
            }
        }
        images += 1;
        if done {
            return Ok(images);
        }
    }
    unreachable!()
}

/// Crashes at each operation of a life; all images that may be left.
pub(super) fn every_crash(seed: u64, acts: u64, most: usize) -> Result<(u64, u64), String> {
    let mut rng = Rng::new(seed);
    let (mut images, mut nested) = (0, 0);
    for op in 1.. {
        let fs = SimFs::default();
        fs.crash_at(op);
        let rig = live(fs.clone(), seed, acts)?;
        let left = fs.images(most, rng.choose());
        for image in left.iter().chain([&fs.killed()]) {
            images += 1;
            nested += recovers(&rig, image, &mut rng).map_err(|e| format!("seed {seed} op {op}: {e}"))?;
        }
        if fs.ops() < op {
            break;
        }
    }
    Ok((images, nested))
}

/// Refuses each operation of a life, goes on, and looks at what a crash leaves at the end.
pub(super) fn every_error(seed: u64, acts: u64, ways: u32) -> Result<u64, String> {
    let mut rng = Rng::new(seed);
    let mut runs = 0;
    for op in 1.. {
        let mut reached = false;
        for way in 0..ways {
            let fs = SimFs::default();
            fs.refuse(op, way);
            if way % 2 == 1 {
                fs.refuse(op + 1 + rng.below(6), way / 2);
            }
            let where_ = |e: String| format!("seed {seed} op {op} way {way}: {e}");
            let mut rig = live(fs.clone(), seed, acts).map_err(where_)?;
            if rig.rng.one_in(2) {
                rig.heal();
                rig.append(1);
            }
            reached |= fs.refused() > 0;
            for image in fs.images(6, rng.choose()).into_iter().chain([fs.killed()]) {
                let read = Rig::new(image, 1).read().map_err(|e| where_(e.to_string()))?;
                rig.judge(&read).map_err(where_)?;
                runs += 1;
            }
        }
        if !reached {
            break;
        }
    }
    Ok(runs)
}

/// Many lives on one disk, each ended by a crash or a kill, with errors in between.
pub(super) fn many_lives(seed: u64, lives: u64) -> Result<(), String> {
    let fs = SimFs::default();
    let mut rig = Rig::new(fs, seed);
    for life in 0..lives {
        let acts = rig.rng.below(25);
        let where_ = |e: String| format!("seed {seed} life {life}: {e}");
        if rig.rng.one_in(3) {
            let op = rig.rng.below(40);
            let way = rig.rng.below(6) as u32;
            rig.fs.refuse(rig.fs.ops() + op, way);
        }
        if rig.rng.one_in(2) {
            let op = rig.rng.below(60);
            rig.fs.crash_at(rig.fs.ops() + op);
        }
        rig.start().map_err(where_)?;
        for _ in 0..acts {
            rig.act().map_err(where_)?;
        }
        rig.journal = None;
        let fs = rig.fs.clone();
        rig.fs = if rig.rng.one_in(3) { fs.killed() } else { fs.cut(rig.rng.choose()) };
    }
    let read = rig.read().map_err(|e| e.to_string())?;
    rig.judge(&read)
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    let (mut images, mut nested) = (0, 0);
    for seed in 1..=setting("JOURNAL_CRASH_SEEDS", 2) {
        let (i, n) = every_crash(seed, setting("JOURNAL_CRASH_ACTS", 12), 24).unwrap();
        images += i;
        nested += n;
    }
    println!("{images} images, {nested} crashes while opening them");
}

#[test]
fn an_error_at_any_operation_loses_nothing_acknowledged_and_brings_back_nothing_void() {
    let mut runs = 0;
    for seed in 1..=setting("JOURNAL_ERROR_SEEDS", 3) {
        runs += every_error(seed, 20, 6).unwrap();
    }
    println!("{runs} disks after an error");
}

#[test]
fn many_lives_on_one_disk_tell_one_story() {
    for seed in 0..setting("JOURNAL_LIVES", 300) {
        many_lives(seed, 10).unwrap();
    }
}
