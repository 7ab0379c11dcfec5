//! What is promised of the files themselves.

use super::rig::{Rig, bare_sample, log_files, sample, stamp};
use crate::core::ids::Generation;
use crate::journal::JournalError;
use crate::journal::sealed;

/// Reading changes nothing, not even where there is nothing to read. How many files there were.
pub(super) fn dry(rig: &Rig) -> Result<usize, String> {
    for rig in [&Rig::new(crate::journal::simulated::SimFs::default(), 1), rig] {
        let (before, ops) = (rig.fs.files(), rig.fs.ops());
        rig.read().map_err(|e| e.to_string())?;
        if (rig.fs.files(), rig.fs.ops()) != (before, ops) {
            return Err("reading has changed something".to_owned());
        }
    }
    Ok(rig.fs.files().len())
}

/// Every line is one JSON value. How many.
pub(super) fn json(rig: &Rig) -> Result<usize, String> {
    let mut all = 0;
    for (path, bytes) in log_files(&rig.fs) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let value: Result<serde_json::Value, _> = serde_json::from_slice(line);
            value.map_err(|e| format!("{}: {e}", path.display()))?;
            all += 1;
        }
    }
    Ok(all)
}

/// A file that only a later build understands is refused by name, and nothing is touched. How many were tried.
pub(super) fn newer(rig: &Rig) -> Result<usize, String> {
    let files = log_files(&rig.fs);
    let newest = |dir: &str| files.iter().rfind(|(path, _)| path.starts_with(dir)).cloned();
    let headers = [("/s/journal", "seg"), ("/s/checkpoints", "ckpt")];
    let mut all = 0;
    for (path, bytes) in headers.iter().filter_map(|(dir, _)| newest(dir)) {
        let kind = headers.iter().find(|(dir, _)| path.starts_with(dir)).unwrap().1;
        let number: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let mut header = format!("{{\"v\":3,\"{kind}\":{number},\"min_reader\":3").into_bytes();
        sealed::seal(&mut header, 0, 0);
        let rest = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let fs = rig.fs.copy();
        fs.put(&path, &[&header, &bytes[rest..]].concat());
        let (before, ops) = (fs.files(), fs.ops());
        match Rig::new(fs.clone(), 1).read() {
            Err(JournalError::Newer { path: refused, version: 3 }) if refused == path => all += 1,
            other => return Err(format!("{}: {other:?}", path.display())),
        }
        if (fs.files(), fs.ops()) != (before, ops) {
            return Err("what is refused has been touched".to_owned());
        }
    }
    Ok(all)
}

/// A file with damage in it, and an opening that may die at any step and lose what it had not synced: what was
/// in the file is there, or it is in quarantine. How many deaths.
pub(super) fn aside(rig: &Rig) -> Result<usize, String> {
    let mut all = 0;
    for (path, bytes) in log_files(&rig.fs) {
        let mut wrong = bytes.clone();
        let middle = wrong.len() / 2;
        wrong[middle..middle + 40].fill(b'#');
        for op in 1.. {
            let fs = rig.fs.copy();
            fs.put(&path, &wrong);
            let last = fs.ops() + op;
            fs.crash_at(last);
            let read = Rig::new(fs.clone(), 1).read().map_err(|e| e.to_string())?;
            let damage = read.report.damage.iter().any(|damage| damage.file == path);
            drop(read.open(stamp(1), Generation(4)));
            let files = fs.cut(|_| 0).files();
            let kept = |whole: &[u8]| whole.windows(40).any(|bytes| bytes == [b'#'; 40]);
            let copied = files.iter().any(|(path, bytes)| path.starts_with("/s/quarantine") && kept(bytes));
            let there = files.get(&path) == Some(&wrong);
            let whole = !fs.has_crashed();
            if !there && !copied || whole && damage && !copied {
                return Err(format!("{} after {op} operations: its damage is gone", path.display()));
            }
            all += 1;
            if whole {
                break;
            }
        }
    }
    Ok(all)
}

#[test]
fn reading_writes_nothing() {
    assert!(dry(&sample(7, 20)).unwrap() > 2);
}

#[test]
fn every_line_is_json() {
    assert!(json(&sample(8, 30)).unwrap() > 30);
}

#[test]
fn a_log_of_a_later_build_is_refused_and_left_alone() {
    assert_eq!(newer(&sample(9, 20)).unwrap(), 2);
    assert_eq!(newer(&bare_sample(9, 20)).unwrap(), 1);
}

#[test]
fn what_cannot_be_read_is_kept_whenever_an_opening_dies() {
    assert!(aside(&sample(10, 12)).unwrap() > 20);
}
