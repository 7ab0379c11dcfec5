//! On real files: what a supervisor sees.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::rig::{Rng, ended, entry, stamp, task};
use crate::core::event::Event;
use crate::core::ids::{Generation, JobName, RunId};
use crate::core::job::Phase;
use crate::core::outcome::Asked;
use crate::core::state::State;
use crate::journal::{Entry, Journal, JournalError, Kind, Line, Report, Since, read_since, recover};

fn entries(n: u64) -> Vec<Entry> {
    let mut rng = Rng::new(n);
    vec![entry(&mut rng, n)]
}

/// What is there, and a log to go on with.
fn open(dir: &Path) -> (Journal, Report, Vec<Line>) {
    let mut lines = Vec::new();
    let read = recover(dir, State::new(), &mut |_, line| lines.push(line.clone())).unwrap();
    let (journal, _, report) = read.open(stamp(1), Generation(3));
    assert_eq!(journal.poisoned(), None);
    (journal, report, lines)
}

/// The number and the first entry's stamp of each line that says something.
fn numbers(lines: &[Line]) -> Vec<(u64, u64)> {
    let said = lines.iter().filter(|line| !line.entry.events.is_empty());
    said.map(|line| (line.seq, line.entry.at.boot_us)).collect()
}

fn since(dir: &Path, after: u64, max: usize) -> Vec<(u64, u64)> {
    match read_since(dir, after, max).unwrap() {
        Since::Lines(lines) => numbers(&lines),
        Since::Expired { oldest } => panic!("{oldest}"),
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let all: BTreeSet<PathBuf> =
        fs::read_dir(dir.join("journal")).unwrap().map(|e| e.unwrap().path()).collect();
    all.into_iter().collect()
}

fn golden(layout: &str) -> tempfile::TempDir {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let dir = tempfile::tempdir().unwrap();
    for part in ["journal", "checkpoints"] {
        fs::create_dir(dir.path().join(part)).unwrap();
        for file in fs::read_dir(root.join("tests/data").join(layout).join(part)).into_iter().flatten() {
            let file = file.unwrap();
            fs::copy(file.path(), dir.path().join(part).join(file.file_name())).unwrap();
        }
    }
    dir
}

#[test]
fn gives_back_what_was_appended_and_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, report, lines) = open(dir.path());
    assert_eq!((report, lines.len(), journal.last_seq()), (Report::default(), 0, 0));
    assert_eq!(journal.append(&[]).unwrap(), 0);
    assert_eq!(journal.append(&[entries(1), entries(2)].concat()).unwrap(), 2);
    journal.mark().unwrap();
    journal.mark().unwrap();
    drop(journal);
    let (mut journal, report, lines) = open(dir.path());
    assert_eq!((report.lines, report.last_seq), (3, 3));
    assert_eq!(numbers(&lines), [(1, 1), (2, 2)]);
    assert_eq!(journal.append(&entries(4)).unwrap(), 4);
    let (_, report, lines) = open(dir.path());
    assert_eq!(numbers(&lines), [(1, 1), (2, 2), (4, 4)]);
    assert!(!report.is_damaged(), "{report}");
    // The mark was the newest batch: the next segment has it once more.
    assert_eq!((report.superseded, report.segments), (1, 2));
}

#[test]
fn every_line_is_json_and_every_segment_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    for n in 1..=5 {
        journal.append(&entries(n)).unwrap();
        journal.rotate().unwrap();
    }
    for (i, path) in segments(dir.path()).iter().enumerate() {
        let text = fs::read_to_string(path).unwrap();
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        let start = format!("{{\"v\":2,\"seg\":{},", i + 1);
        assert!(text.starts_with(&start) && text.contains("\"min_reader\":2"), "{text}");
        assert_eq!(text.contains("\"prev_sha256\""), i > 0, "{text}");
    }
}

#[test]
fn a_log_in_the_first_layout_is_read_and_gone_on_with() {
    let dir = golden("layout-1");
    let (mut journal, report, lines) = open(dir.path());
    assert_eq!((report.lines, report.last_seq, report.older_layout), (20, 20, true));
    assert!(!report.is_damaged(), "{report}");
    assert_eq!(journal.append(&entries(21)).unwrap(), 21);
    drop(journal);
    let (_, again, more) = open(dir.path());
    assert_eq!((again.lines, again.lost.len()), (21, 0));
    assert_eq!(more[..20], lines);
    assert_eq!(since(dir.path(), 18, 9).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [19, 20, 21]);
}

#[test]
fn a_log_in_this_layout_is_read_the_same_by_its_checkpoints_and_without_them() {
    let dir = golden("layout-2");
    let read = |dir: &Path| recover(dir, State::new(), &mut |_, _| {}).unwrap();
    let newest = read(dir.path());
    assert_eq!((newest.report.checkpoint, newest.report.lines, newest.last_seq()), (Some(27), 4, 31));
    assert!(!newest.report.is_damaged() && newest.state.jobs().count() > 4, "{}", newest.report);
    fs::remove_file(dir.path().join("checkpoints/00000000000000000027.jsonl")).unwrap();
    let older = read(dir.path());
    assert_eq!((older.report.checkpoint, older.report.lines), (Some(24), 7));
    fs::remove_file(dir.path().join("checkpoints/00000000000000000024.jsonl")).unwrap();
    let none = read(dir.path());
    assert_eq!((none.report.checkpoint, none.report.lines, none.report.older_layout), (None, 31, true));
    // Earlier checkpoints know nothing of statistics and incidents, nor how many jobs have been over, nor what
    // orphans say.
    let said = |state: &State| {
        let mut all = Vec::new();
        let put = |line: &[u8]| {
            let mut entity: serde_json::Value = serde_json::from_slice(line)?;
            for later in ["stats", "over", "overs", "rest", "says", "recoveries", "incident"] {
                entity.as_object_mut().unwrap().remove(later);
            }
            for run in entity.get_mut("past").and_then(|past| past.as_array_mut()).into_iter().flatten() {
                run["end"].as_object_mut().map(|end| end.remove("cause"));
            }
            all.push(entity);
            Ok::<(), serde_json::Error>(())
        };
        state.entities(put).unwrap();
        all
    };
    assert!(said(&none.state).len() > 5);
    assert!(said(&newest.state) == said(&older.state) && said(&older.state) == said(&none.state));
}

#[test]
fn a_torn_end_of_the_first_layout_is_left_out_and_a_hole_is_told() {
    let dir = golden("layout-1");
    let path = segments(dir.path()).remove(0);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let spoilt = [&lines[..5].concat(), "no line\n", &lines[6..].concat(), "{\"v\":1,\"se"].concat();
    OpenOptions::new().write(true).truncate(true).open(&path).unwrap().write_all(spoilt.as_bytes()).unwrap();
    for _ in 0..2 {
        let (journal, report, _) = open(dir.path());
        assert_eq!((report.lost.clone(), report.torn_bytes, journal.last_seq()), (vec![(6, 6)], 10, 20));
        let kinds: Vec<Kind> = report.damage.iter().map(|damage| damage.kind).collect();
        assert_eq!(kinds, [Kind::Lost, Kind::Torn]);
        for damage in &report.damage {
            let kept = fs::read(damage.copy.as_ref().unwrap()).unwrap();
            let at = damage.offset as usize;
            assert_eq!(kept, &spoilt.as_bytes()[at..at + kept.len()]);
        }
    }
    assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 2);
}

#[test]
fn a_later_layout_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.append(&entries(1)).unwrap();
    let path = segments(dir.path()).remove(0);
    let mut later = b"{\"v\":3,\"seq\":2,\"x\":0".to_vec();
    super::super::sealed::seal(&mut later, 0, 7);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(&later).unwrap();
    let error = recover(dir.path(), State::new(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, JournalError::Newer { version: 3, .. }), "{error}");
    assert_eq!(segments(dir.path()).len(), 1);
}

#[test]
fn a_dry_run_changes_no_byte_and_says_what_a_real_one_says() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.append(&entries(1)).unwrap();
    let path = segments(dir.path()).remove(0);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"v\":2,\"se").unwrap();
    let look = || {
        let mut all: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        for part in ["", "journal", "quarantine", "checkpoints"] {
            for entry in fs::read_dir(dir.path().join(part)).unwrap().flatten() {
                if entry.file_type().unwrap().is_file() {
                    all.push((entry.path(), fs::read(entry.path()).unwrap()));
                }
            }
        }
        all.sort();
        all
    };
    let before = look();
    let dry = recover(dir.path(), State::new(), &mut |_, _| {}).unwrap();
    assert!(look() == before);
    let (_, mut real, _) = open(dir.path());
    assert_eq!((real.torn_bytes, real.damage.len()), (10, 1));
    real.damage.iter_mut().for_each(|damage| damage.copy = None);
    assert_eq!(dry.report, real);
    assert_eq!(real.json()["torn_bytes"], 10);
    assert!(real.to_string().contains("10 bytes of unfinished writes"), "{real}");
}

#[test]
fn a_full_disk_ends_writing_until_there_is_space_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    assert_eq!(dir.path().join("ballast").metadata().unwrap().len(), 4 << 20);
    journal.append(&entries(1)).unwrap();
    journal.write_to("/dev/full");
    let error = journal.append(&entries(2)).unwrap_err();
    assert!(matches!(error, JournalError::Io { what: "write", .. }), "{error}");
    let again = journal.append(&entries(2)).unwrap_err();
    assert!(matches!(&again, JournalError::Poisoned { first } if first.contains("space")), "{again}");
    assert!(journal.poisoned().is_some() && journal.last_seq() == 1);
    journal.heal().unwrap();
    assert!(!dir.path().join("ballast").exists(), "space is given back first");
    assert_eq!(journal.append(&entries(3)).unwrap(), 2);
    journal.rotate().unwrap();
    assert!(dir.path().join("ballast").exists());
    let (_, _, lines) = open(dir.path());
    assert_eq!(numbers(&lines), [(1, 1), (2, 3)]);
}

#[test]
fn a_directory_that_takes_no_files_is_read_only() {
    let dir = tempfile::tempdir().unwrap();
    OpenOptions::new().write(true).create_new(true).open(dir.path().join("quarantine")).unwrap();
    let read = recover(dir.path(), State::new(), &mut |_, _| {}).unwrap();
    let (mut journal, _, _) = read.open(stamp(1), Generation(1));
    assert!(journal.poisoned().is_some_and(|why| why.contains("quarantine")), "{journal:?}");
    assert!(matches!(journal.append(&entries(1)), Err(JournalError::Poisoned { .. })));
    assert!(journal.heal().is_err());
    fs::remove_file(dir.path().join("quarantine")).unwrap();
    journal.heal().unwrap();
    assert_eq!(journal.append(&entries(1)).unwrap(), 1);
}

#[test]
fn reading_beside_the_writer_gives_what_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.segment_bytes = 1000;
    let mut expected = Vec::new();
    for n in 1..=40 {
        expected.push((journal.append(&entries(n)).unwrap(), n));
        if n % 7 == 0 {
            journal.mark().unwrap();
        }
        if n % 11 == 0 {
            journal.write_to("/dev/full");
            journal.append(&entries(99)).unwrap_err();
            journal.heal().unwrap();
        }
    }
    drop(journal);
    let (mut journal, _, _) = open(dir.path());
    expected.push((journal.append(&entries(41)).unwrap(), 41));
    let mut file = OpenOptions::new().append(true).open(segments(dir.path()).pop().unwrap()).unwrap();
    file.write_all(b"{\"v\":2,\"seq\":99,\"b\":0").unwrap();
    for after in 0..=expected.last().unwrap().0 {
        let wanted: Vec<(u64, u64)> = expected.iter().copied().filter(|(seq, _)| *seq > after).collect();
        assert_eq!(since(dir.path(), after, 100), wanted, "after {after}");
        assert_eq!(since(dir.path(), after, 2), wanted[..wanted.len().min(2)], "after {after}");
    }
    let first = segments(dir.path());
    fs::remove_file(&first[0]).unwrap();
    let oldest: u64 = first[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(read_since(dir.path(), 0, 9).unwrap(), Since::Expired { oldest });
    assert_eq!(read_since(dir.path(), oldest - 2, 9).unwrap(), Since::Expired { oldest });
    assert!(matches!(read_since(dir.path(), oldest - 1, 9).unwrap(), Since::Lines(_)));
}

#[test]
fn a_long_log_is_read_from_any_place() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    for batch in 0..20u64 {
        let all: Vec<Entry> = (0..1000).flat_map(|n| entries(batch * 1000 + n)).collect();
        journal.append(&all).unwrap();
    }
    for after in [0, 1, 4095, 10_000, 17_777, 19_999, 20_000, u64::MAX - 1] {
        let got: Vec<u64> = since(dir.path(), after, 3).iter().map(|(seq, _)| *seq).collect();
        let wanted: Vec<u64> = (after + 1..=20_000).take(3).collect();
        assert_eq!(got, wanted);
    }
}

/// A task that is over, and a checkpoint that says so.
fn at_rest(dir: &Path) -> JobName {
    let (mut journal, ..) = open(dir);
    let (at, run, job) = (stamp(1), RunId::from_bytes([7; 16]), JobName::new("once").unwrap());
    let record = ended(job.clone(), run, at, 0);
    let events = vec![
        Event::JobSubmitted { spec: Box::new(task(job.clone())), by: Asked::Nobody },
        Event::RunRequested { job: job.clone(), run, attempt: 1, at },
        Event::RunEnded {
            job: job.clone(),
            record: Box::new(record),
            leftovers: false,
            failures: 0,
            interrupted: false,
        },
    ];
    journal.append(&[Entry { at, generation: Generation(3), events }]).unwrap();
    journal.rotate().unwrap();
    journal.folding().run(journal.last_seq()).unwrap();
    job
}

#[test]
fn a_job_at_rest_is_read_when_asked_for_and_what_rots_meanwhile_is_put_right_or_said() {
    let dir = tempfile::tempdir().unwrap();
    let job = at_rest(dir.path());
    let read = || recover(dir.path(), State::new(), &mut |_, _| {}).unwrap().state;
    let right = read();
    assert_eq!((right.rest().len(), right.awake().count()), (1, 0));
    let (flipped, rotten) = (read(), read());
    assert_eq!(right.job(&job).unwrap().attempt, 1);
    assert_eq!(right.spec(&job).unwrap(), &task(job.clone()));
    let checkpoint = fs::read_dir(dir.path().join("checkpoints")).unwrap().next().unwrap().unwrap().path();
    let text = fs::read(&checkpoint).unwrap();
    let at = memchr::memmem::find(&text, b"\"attempt\":1").unwrap() as u64;
    let file = OpenOptions::new().write(true).open(&checkpoint).unwrap();
    let put = |bytes: &[u8]| std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).unwrap();
    // One wrong bit.
    put(b"\"ettempt\":1");
    assert!(flipped == right);
    put(b"............");
    let known = rotten.job(&job).unwrap();
    assert!(matches!(&known.phase, Phase::Fatal { why, .. } if why.contains("cannot be read")), "{known:?}");
    assert_eq!(rotten.spec(&job), None);
    // Nothing is lost of it: a start reads it out of the segments, and says so.
    let again = recover(dir.path(), State::new(), &mut |_, _| {}).unwrap();
    assert!(again.report.is_damaged() && again.report.lost.is_empty());
    assert!(again.state == right);
}
