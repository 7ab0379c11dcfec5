//! Every cut, every flipped bit, and worse: never a panic, never a wrong memory without a word.

use std::path::PathBuf;

use super::rig::{Rig, Rng, bare_sample, log_files, sample, setting, stamp};
use crate::core::ids::Generation;
use crate::journal::simulated::SimFs;
use crate::journal::{Kind, Recovered};

/// What is read from a damaged copy.
fn read(fs: SimFs) -> Result<Recovered, String> {
    Rig::new(fs, 1).read().map_err(|e| e.to_string())
}

/// The same memory; or an earlier one with a word about what was cut or is missing. Whether it is the same.
fn not_silent(rig: &Rig, read: &Recovered, what: &str) -> Result<bool, String> {
    let whole = rig.states.last().unwrap();
    if read.state == *whole {
        return Ok(true);
    }
    let report = &read.report;
    let prefix = rig.states.get(read.last_seq() as usize) == Some(&read.state);
    let strange = report.damage.iter().any(|damage| damage.why.contains("another segment"));
    let said = report.is_lossy() || (prefix && (report.torn_bytes > 0 || strange));
    // A file that ends at the end of a write shows no trace of what followed.
    let cut = what == "cut" && prefix && report.damage.iter().all(|damage| damage.kind == Kind::Useless);
    if said || cut { Ok(false) } else { Err(format!("{what}, and not a word: {report}")) }
}

/// Every cut of every file. How many, and how many without any effect.
pub(super) fn cuts(rig: &Rig) -> Result<(u64, u64), String> {
    let (mut all, mut same) = (0, 0);
    for (path, bytes) in log_files(&rig.fs) {
        for len in 0..bytes.len() {
            let fs = rig.fs.copy();
            fs.put(&path, &bytes[..len]);
            all += 1;
            same += u64::from(not_silent(rig, &read(fs)?, "cut")?);
        }
    }
    Ok((all, same))
}

/// Every flipped bit of every file; each `step`th of them.
pub(super) fn flips(rig: &Rig, step: usize) -> Result<u64, String> {
    let mut all = 0;
    let used = used_files(rig);
    for (path, bytes) in log_files(&rig.fs) {
        for n in (0..bytes.len() * 8).step_by(step) {
            let fs = rig.fs.copy();
            let mut wrong = bytes.clone();
            wrong[n / 8] ^= 1 << (n % 8);
            fs.put(&path, &wrong);
            let read = read(fs)?;
            let same =
                read.state == *rig.states.last().unwrap() && read.last_seq() == rig.decided.len() as u64;
            let told = !read.report.damage.is_empty() || !used.contains(&path);
            if !same || !told || read.report.is_lossy() {
                return Err(format!("{} bit {n}: {}", path.display(), read.report));
            }
            all += 1;
        }
    }
    Ok(all)
}

/// One of many ways to spoil a file.
fn spoil(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let len = bytes.len() as u64;
    let at = rng.below(len) as usize;
    let n = (1 + rng.below(512)).min(len - at as u64) as usize;
    match rng.below(7) {
        0 => bytes[at..at + n].fill(0),
        1 => {
            for byte in &mut bytes[at..at + n] {
                *byte = rng.next() as u8;
            }
        }
        2 => drop(bytes.drain(at..at + n)),
        3 => {
            let copy = bytes[at..at + n].to_vec();
            bytes.splice(at..at, copy);
        }
        _ => {
            let mut lines = split(bytes);
            let (a, b) = (rng.below(lines.len() as u64) as usize, rng.below(lines.len() as u64) as usize);
            match rng.below(3) {
                0 => drop(lines.remove(a)),
                1 => lines.swap(a, b),
                _ => {
                    let line = lines[a].clone();
                    lines.insert(b, line);
                }
            }
            *bytes = lines.concat();
        }
    }
}

/// The files that a start reads: the newest checkpoint, and what it does not cover.
fn used_files(rig: &Rig) -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let all: Vec<PathBuf> = log_files(&rig.fs).into_iter().map(|(path, _)| path).collect();
    let checkpoint = all.iter().rfind(|path| path.starts_with("/s/checkpoints"));
    let covered = checkpoint.map_or(0, number);
    let segments: Vec<&PathBuf> = all.iter().filter(|path| path.starts_with("/s/journal")).collect();
    let next = segments.iter().skip(1).map(|next| number(next)).chain([u64::MAX]);
    let needed = segments.iter().zip(next).filter(|(_, next)| *next > covered + 1).map(|(path, _)| *path);
    checkpoint.into_iter().chain(needed).cloned().collect()
}

/// Any one file that the newest checkpoint stands for is destroyed, or it is itself.
pub(super) fn one_gone(rig: &Rig) -> Result<u64, String> {
    let files = log_files(&rig.fs);
    let used = used_files(rig);
    let spare = |path: &PathBuf| path.starts_with("/s/checkpoints") || !used.contains(path);
    let mut all = 0;
    for (path, bytes) in files.iter().filter(|(path, _)| spare(path)) {
        let half = bytes.len() / 2;
        let mut wrongs = vec![Vec::new(), bytes[..half].to_vec()];
        wrongs.push([&bytes[..half], &[7; 99], &bytes[half..]].concat());
        let mut lines = split(bytes);
        while lines.pop().is_some() {
            wrongs.push(lines.concat());
        }
        for wrong in wrongs {
            let fs = rig.fs.copy();
            fs.put(path, &wrong);
            let found = read(fs)?;
            if found.state != *rig.states.last().unwrap() || found.report.is_lossy() {
                return Err(format!("{} destroyed: {}", path.display(), found.report));
            }
            all += 1;
        }
    }
    Ok(all)
}

#[test]
fn any_one_file_behind_the_newest_checkpoint_may_be_destroyed_and_that_one_as_well() {
    for seed in 0..20 {
        assert!(one_gone(&sample(40 + seed, 30)).unwrap() >= 9);
    }
}

#[test]
fn flipped_bits_are_put_right_behind_a_checkpoint_that_is_gone_as_well() {
    let mut rig = sample(4, setting("JOURNAL_FLIP_ACTS", 6));
    let newest = used_files(&rig).remove(0);
    rig.fs = rig.fs.copy();
    rig.fs.put(&newest, b"nothing");
    assert!(flips(&rig, 5).unwrap() > 3000);
}

/// Heavier damage, seeded. How many, and how many without any effect.
pub(super) fn smashes(rig: &Rig, seed: u64, n: u64) -> Result<(u64, u64), String> {
    let mut rng = Rng::new(seed);
    let mut same = 0;
    let files = log_files(&rig.fs);
    for _ in 0..n {
        let fs = rig.fs.copy();
        let mut what = "spoilt";
        for _ in 0..1 + rng.below(2) {
            let (path, bytes) = &files[rng.below(files.len() as u64) as usize];
            if rng.one_in(20) {
                let (other, _) = &files[rng.below(files.len() as u64) as usize];
                fs.put(other, bytes);
                what = "cut";
                continue;
            }
            let mut wrong = bytes.clone();
            spoil(&mut wrong, &mut rng);
            // Losing the end to the last byte is a cut.
            if bytes.starts_with(&wrong) {
                what = "cut";
            }
            fs.put(path, &wrong);
        }
        let found = read(fs.clone())?;
        same += u64::from(not_silent(rig, &found, what)?);
        // What was read once is read again, after going on as well.
        let (state, lost) = (found.state.clone(), found.report.lost.clone());
        let (journal, _, report) = found.open(stamp(1), Generation(4));
        let kept = report.damage.iter().all(|damage| damage.copy.is_some());
        let again = read(fs)?;
        if journal.poisoned().is_some() || !kept || again.state != state || again.report.lost != lost {
            return Err(format!("{report}\nand then\n{}", again.report));
        }
    }
    Ok((n, same))
}

/// Each line but the last unreadable, and each line another one that would verify there.
pub(super) fn lines(rig: &Rig, other: &Rig) -> Result<u64, String> {
    let others: Vec<Vec<u8>> =
        log_files(&other.fs).into_iter().flat_map(|(_, bytes)| split(&bytes)).collect();
    let seq = |line: &[u8]| {
        let line: serde_json::Value = serde_json::from_slice(line).ok()?;
        line["seq"].as_u64()
    };
    let mut all = 0;
    for (path, bytes) in log_files(&rig.fs) {
        let lines = split(&bytes);
        for at in 0..lines.len() {
            let Some(number) = seq(&lines[at]) else { continue };
            let fs = rig.fs.copy();
            let mut wrong = lines.clone();
            wrong[at][20..30].fill(b'#');
            fs.put(&path, &wrong.concat());
            let found = read(fs)?;
            let newest = number == rig.decided.len() as u64;
            if !newest && found.report.lost != [(number, number)] {
                return Err(format!("{number} is missing and not told: {}", found.report));
            }
            if let Some(stranger) = others.iter().find(|line| seq(line) == Some(number)) {
                let fs = rig.fs.copy();
                let mut wrong = lines.clone();
                wrong[at].clone_from(stranger);
                fs.put(&path, &wrong.concat());
                not_silent(rig, &read(fs)?, "a line of another log")?;
            }
            all += 1;
        }
    }
    Ok(all)
}

fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[test]
fn a_line_that_is_unreadable_or_another_is_told() {
    assert!(lines(&bare_sample(5, 30), &bare_sample(6, 30)).unwrap() > 20);
}

#[test]
fn every_cut_of_every_file_is_seen_or_costs_only_the_end() {
    let (all, same) = cuts(&sample(3, setting("JOURNAL_CUT_ACTS", 9))).unwrap();
    println!("{all} cuts, {same} without any effect");
    assert!(all > 1000);
}

#[test]
fn every_flipped_bit_of_every_file_is_put_right_and_told() {
    let all = flips(&sample(4, setting("JOURNAL_FLIP_ACTS", 6)), 1).unwrap();
    println!("{all} flips");
    assert!(all > 10_000);
}

#[test]
fn heavier_damage_is_never_silent() {
    for seed in 0..4 {
        let (all, same) = smashes(&sample(20 + seed, 25), seed, setting("JOURNAL_SMASHES", 600)).unwrap();
        println!("{all} damages, {same} without any effect");
    }
}
