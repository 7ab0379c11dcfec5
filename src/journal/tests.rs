//! Every torn length, every flipped byte, every refusal.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Entry, Journal, JournalError, Line, OpenReport, read_since};
use crate::core::event::{Event, Want};
use crate::core::ids::{Generation, JobName, RunId};
use crate::core::outcome::Asked;
use crate::core::time::Stamp;

fn stamp(n: u64) -> Stamp {
    Stamp { boot_us: n, wall_us: 1_763_600_000_000_000 + n as i64 }
}

fn entry(n: u64) -> Entry {
    let job = JobName::new(format!("job-{n}")).unwrap();
    let run = RunId::from_bytes(u128::from(n).to_be_bytes());
    let by = Asked::Operator { uid: 1000, verb: "start".to_owned() };
    Entry {
        at: stamp(n),
        generation: Generation(3),
        events: vec![
            Event::WantSet { job: job.clone(), want: Want::Up, by },
            Event::RunRequested { job, run, attempt: n, at: stamp(n) },
        ],
    }
}

fn open(dir: &Path) -> (Journal, OpenReport, Vec<Line>) {
    let mut lines = Vec::new();
    let (journal, report) = Journal::open(dir, |line| lines.push(line.clone())).unwrap();
    (journal, report, lines)
}

/// A log of `n` lines; returns its one segment.
fn written(dir: &Path, n: u64) -> PathBuf {
    let (mut journal, _, _) = open(dir);
    for i in 1..=n {
        assert_eq!(journal.append(&[entry(i)]).unwrap(), i);
    }
    dir.join("journal/00000000000000000001.jsonl")
}

fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

fn expect_lines(lines: &[Line], wanted: impl IntoIterator<Item = u64>) {
    let wanted: Vec<Line> = wanted.into_iter().map(|n| Line { seq: n, entry: entry(n) }).collect();
    assert_eq!(lines, wanted);
}

#[test]
fn gives_back_what_was_appended_and_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, report, lines) = open(dir.path());
    assert_eq!((report, lines.len(), journal.last_seq()), (OpenReport::default(), 0, 0));
    assert_eq!(journal.append(&[]).unwrap(), 0);
    assert_eq!(journal.append(&[entry(1), entry(2)]).unwrap(), 2);
    drop(journal);
    let (mut journal, report, lines) = open(dir.path());
    assert_eq!((report.lines, report.last_seq), (2, 2));
    expect_lines(&lines, 1..=2);
    assert_eq!(journal.append(&[entry(3)]).unwrap(), 3);
    let (_, _, lines) = open(dir.path());
    expect_lines(&lines, 1..=3);
}

#[test]
fn a_line_is_what_the_documentation_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), 1);
    let text = fs::read_to_string(path).unwrap();
    let start = r#"{"v":1,"seq":1,"t":1763600000000001,"m":1,"g":3,"ev":[{"k":"job.want","job":"job-1","#;
    assert!(text.starts_with(start) && text.ends_with("]}\n"), "{text}");
}

#[test]
fn cuts_a_last_line_torn_at_any_byte_and_keeps_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), 3);
    let full = fs::read(&path).unwrap();
    let two = full.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(1).unwrap().0 + 1;
    for len in two + 1..full.len() {
        overwrite(&path, &full[..len]);
        let (mut journal, report, lines) = open(dir.path());
        expect_lines(&lines, 1..=2);
        let torn = report.torn.unwrap();
        assert_eq!((torn.offset, torn.bytes), (two as u64, (len - two) as u64));
        assert_eq!(fs::read(&torn.copy).unwrap(), &full[two..len]);
        assert_eq!(fs::read(&path).unwrap(), &full[..two]);
        assert_eq!(journal.append(&[entry(3)]).unwrap(), 3);
        assert_eq!(fs::read(&path).unwrap(), full);
    }
    overwrite(&path, &full[..two]);
    let (_, report, lines) = open(dir.path());
    assert_eq!(report.torn, None);
    expect_lines(&lines, 1..=2);
}

#[test]
fn cuts_zeros_that_a_crash_left_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), 2);
    let full = fs::read(&path).unwrap();
    let mut longer = full.clone();
    longer.extend([0; 4096]);
    overwrite(&path, &longer);
    let (_, report, lines) = open(dir.path());
    assert_eq!(report.torn.unwrap().bytes, 4096);
    expect_lines(&lines, 1..=2);
    assert_eq!(fs::read(&path).unwrap(), full);
}

#[test]
fn other_bytes_torn_at_the_same_place_are_kept_beside_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), 1);
    let full = fs::read(&path).unwrap();
    let mut copies = Vec::new();
    for tail in [b"aaaa", b"bbbb", b"aaaa"] {
        overwrite(&path, &[&full[..], tail].concat());
        let (_, report, _) = open(dir.path());
        copies.push(report.torn.unwrap().copy);
        assert_eq!(fs::read(copies.last().unwrap()).unwrap(), tail);
    }
    assert!(copies[0] != copies[1] && copies[0] == copies[2], "{copies:?}");
}

#[test]
fn any_flipped_bit_in_the_middle_costs_at_most_its_own_line_or_the_two_it_joins() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), 4);
    let full = fs::read(&path).unwrap();
    let ends: Vec<usize> = (0..full.len()).filter(|i| full[*i] == b'\n').collect();
    for i in ends[0] + 1..=ends[1] {
        // Two bits of each byte, because each costs several syncs of a real disk.
        for bit in [i % 7, 7] {
            let mut bytes = full.clone();
            bytes[i] ^= 1 << bit;
            overwrite(&path, &bytes);
            let (_, report, lines) = open(dir.path());
            let has = |n: u64| lines.contains(&Line { seq: n, entry: entry(n) });
            let three = i == ends[1] || has(3);
            assert!(has(1) && three && has(4), "byte {i} bit {bit}: {report:?}");
            assert_eq!(report.torn, None);
            let silent = report.damaged.is_empty() && report.missing.is_empty() && report.repeated == 0;
            // A flip inside a text may leave a line that reads well.
            assert!(!silent || lines.len() == 4, "byte {i} bit {bit}");
            for damage in &report.damaged {
                let at = usize::try_from(damage.offset).unwrap();
                let kept = fs::read(&damage.copy).unwrap();
                assert_eq!(kept, &bytes[at..at + kept.len()]);
            }
            assert_eq!(fs::read(&path).unwrap(), bytes, "damage stays where it is");
        }
    }
}

#[test]
fn a_whole_line_it_does_not_understand_is_skipped_but_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(b"{\"v\":1,\"seq\":2,\"t\":0,\"m\":0,\"g\":9,\"ev\":[{\"k\":\"from.the.future\"}]}\n");
    overwrite(&path, &bytes);
    let (mut journal, report, lines) = open(dir.path());
    expect_lines(&lines, [1]);
    assert_eq!((report.damaged.len(), report.missing), (1, vec![(2, 2)]));
    assert!(report.damaged[0].why.contains("from.the.future"), "{:?}", report.damaged);
    assert_eq!(journal.append(&[entry(3)]).unwrap(), 3);
    assert!(fs::read(&path).unwrap().starts_with(&bytes));
    assert_eq!(read_since(dir.path(), 0, 10).unwrap().len(), 2);
}

#[test]
fn a_later_layout_is_refused_and_nothing_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(b"{\"v\":2,\"seq\":2,\"x\":0}\n{\"v\":2,\"se");
    overwrite(&path, &bytes);
    let error = Journal::open(dir.path(), |_| {}).unwrap_err();
    assert!(matches!(error, JournalError::Newer { version: 2, .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_repeated_line_is_ignored_and_a_gap_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), 5);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    overwrite(&path, [lines[0], lines[1], lines[1], lines[4]].concat().as_bytes());
    let (journal, report, got) = open(dir.path());
    expect_lines(&got, [1, 2, 5]);
    assert_eq!((report.repeated, report.missing, journal.last_seq()), (1, vec![(3, 4)], 5));
}

#[test]
fn goes_on_in_a_new_segment_named_by_its_first_line() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.segment_bytes = 1000;
    for i in 1..=20 {
        journal.append(&[entry(i)]).unwrap();
    }
    drop(journal);
    let mut names: Vec<String> = fs::read_dir(dir.path().join("journal"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() > 3, "{names:?}");
    for name in &names {
        let text = fs::read_to_string(dir.path().join("journal").join(name)).unwrap();
        let first: u64 = name.strip_suffix(".jsonl").unwrap().parse().unwrap();
        assert!(text.starts_with(&format!("{{\"v\":1,\"seq\":{first},")), "{name}");
    }
    let (_, report, lines) = open(dir.path());
    expect_lines(&lines, 1..=20);
    assert_eq!(report, OpenReport { lines: 20, last_seq: 20, ..OpenReport::default() });
    for after in 0..=20 {
        expect_lines(&read_since(dir.path(), after, 100).unwrap(), after + 1..=20);
        expect_lines(&read_since(dir.path(), after, 2).unwrap(), after + 1..=20.min(after + 2));
    }
}

#[test]
fn a_torn_end_of_an_older_segment_is_damage_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.segment_bytes = 1;
    for i in 1..=3 {
        journal.append(&[entry(i)]).unwrap();
    }
    drop(journal);
    let path = dir.path().join("journal/00000000000000000002.jsonl");
    let bytes = fs::read(&path).unwrap();
    overwrite(&path, &bytes[..bytes.len() - 5]);
    for _ in 0..2 {
        let (journal, report, lines) = open(dir.path());
        expect_lines(&lines, [1, 3]);
        assert_eq!((report.torn, report.damaged.len(), report.missing), (None, 1, vec![(2, 2)]));
        assert_eq!(journal.last_seq(), 3);
    }
    assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 1);
}

#[test]
fn a_segment_born_empty_by_a_crash_is_used() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 2);
    let path = dir.path().join("journal/00000000000000000003.jsonl");
    OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
    let (mut journal, _, lines) = open(dir.path());
    expect_lines(&lines, 1..=2);
    journal.append(&[entry(3)]).unwrap();
    assert!(fs::metadata(&path).unwrap().len() > 0);
    let (_, _, lines) = open(dir.path());
    expect_lines(&lines, 1..=3);
}

#[test]
fn a_full_disk_poisons_the_writer_and_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.append(&[entry(1)]).unwrap();
    journal.write_to(OpenOptions::new().append(true).open("/dev/full").unwrap());
    let error = journal.append(&[entry(2)]).unwrap_err();
    assert!(matches!(error, JournalError::Io { what: "write", .. }), "{error}");
    let again = journal.append(&[entry(2)]).unwrap_err();
    assert!(matches!(&again, JournalError::Poisoned { first } if first.contains("space")), "{again}");
    assert!(journal.poisoned().is_some() && journal.last_seq() == 1);
    let (_, _, lines) = open(dir.path());
    expect_lines(&lines, [1]);
}

#[test]
fn a_directory_that_takes_no_files_is_an_error_with_its_name() {
    // Refuses files from root too, unlike a directory without write permission.
    let error = Journal::open(Path::new("/proc/self/task"), |_| {}).unwrap_err();
    assert!(error.to_string().contains("/proc/self/task/journal"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    OpenOptions::new().write(true).create_new(true).open(dir.path().join("journal")).unwrap();
    assert!(matches!(Journal::open(dir.path(), |_| {}), Err(JournalError::Io { .. })));
}

#[test]
fn nothing_is_cut_when_it_cannot_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(b"{\"v\":1,\"se");
    overwrite(&path, &bytes);
    // A file in the place of the quarantine directory.
    OpenOptions::new().write(true).create_new(true).open(dir.path().join("quarantine")).unwrap();
    assert!(matches!(Journal::open(dir.path(), |_| {}), Err(JournalError::Io { .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn reading_beside_the_writer_leaves_out_the_line_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), 2);
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(b"{\"v\":1,\"seq\":3,\"t\":0").unwrap();
    expect_lines(&read_since(dir.path(), 0, 10).unwrap(), 1..=2);
    assert_eq!(read_since(dir.path(), 2, 10).unwrap(), []);
}

#[test]
fn a_hundred_thousand_lines_are_read_back_and_remembered_in_a_moment() {
    use crate::core::state::State;
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    let added = (1..=1000).map(|n| {
        let job = JobName::new(format!("job-{n}")).unwrap();
        Entry { events: vec![Event::JobAdded { job, want: Want::Up }], ..entry(n) }
    });
    journal.append(&added.collect::<Vec<_>>()).unwrap();
    for batch in 0..100 {
        let entries: Vec<Entry> = (1..=1000).map(|n| Entry { at: stamp(batch), ..entry(n) }).collect();
        journal.append(&entries).unwrap();
    }
    drop(journal);
    let begun = std::time::Instant::now();
    let mut state = State::new();
    let (_, report) = Journal::open(dir.path(), |line| {
        for event in &line.entry.events {
            state.apply(event, line.entry.at);
        }
    })
    .unwrap();
    let took = begun.elapsed();
    println!("{} lines: {took:?}", report.lines);
    for after in [0, 1, 4095, 50_000, 77_777, 100_998, 100_999, 101_000, 101_001, u64::MAX - 1] {
        let got: Vec<u64> = read_since(dir.path(), after, 3).unwrap().iter().map(|line| line.seq).collect();
        let wanted: Vec<u64> = (after + 1..=101_000).take(3).collect();
        assert_eq!(got, wanted);
    }
    assert_eq!((report.lines, report.last_seq, state.jobs().count()), (101_000, 101_000, 1000));
    // Without optimisation, on a busy machine.
    assert!(took.as_secs() < 60, "{took:?}");
}
