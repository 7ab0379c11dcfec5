//! Segments: where they are cut, how many stay, and readers meanwhile.

use std::fmt::Write as _;
use std::path::Path;

use crate::core::spec::Output;
use crate::state_dir::output::{Name, Reader, Series, scan, segments};

use super::rig::{Rig, names, read_all, settings, until, write_all};

fn lines(n: usize) -> String {
    (0..n).fold(String::new(), |mut text, i| {
        writeln!(text, "{i} {}", "-".repeat(i * 7 % 200)).unwrap();
        text
    })
}

fn plain(output: &Path) -> Vec<Vec<u8>> {
    segments(&scan(output).unwrap(), Series::Merged)
        .iter()
        .map(|s| std::fs::read(Series::Merged.plain(output, s.start)).unwrap())
        .collect()
}

#[test]
fn segments_end_with_a_line_and_are_as_long_as_they_should_be() {
    let rig = Rig::new();
    let job = rig.job(1, Output { max_size: 10_000, keep: 10_000, compress: false, ..settings() });
    let text = lines(20_000);
    write_all(&job.out, text.as_bytes());
    rig.drained(job.run);
    let parts = plain(&job.output);
    assert!(parts.len() > 100, "{}", parts.len());
    assert!(parts.concat() == text.as_bytes());
    for part in &parts[..parts.len() - 1] {
        assert_eq!(part.last(), Some(&b'\n'));
        assert!((10_000..10_300).contains(&part.len()), "{}", part.len());
    }
    assert!(parts.iter().all(|p| !p.is_empty()));
}

#[test]
fn lines_written_in_pieces_are_not_cut() {
    let rig = Rig::new();
    let job = rig.job(1, Output { max_size: 50, keep: 10_000, compress: false, ..settings() });
    let text = lines(50);
    for piece in text.as_bytes().chunks(7) {
        write_all(&job.out, piece);
        rig.drained(job.run);
    }
    let parts = plain(&job.output);
    assert!(parts.concat() == text.as_bytes());
    assert!(parts.len() > 20);
    assert!(parts.iter().all(|p| p.ends_with(b"\n")));
}

#[test]
fn an_endless_line_is_cut_in_the_end() {
    let rig = Rig::new();
    let job = rig.job(1, Output { max_size: 100_000, keep: 100, compress: false, ..settings() });
    write_all(&job.out, &vec![b'x'; 5_000_000]);
    rig.drained(job.run);
    let parts = plain(&job.output);
    assert_eq!(parts.concat().len(), 5_000_000);
    assert!((4..=5).contains(&parts.len()), "{}", parts.len());
}

#[test]
fn the_oldest_go_first_and_the_newest_is_never_compressed() {
    let rig = Rig::new();
    let job = rig.job(1, Output { max_size: 10_000, keep: 3, compress: true, ..settings() });
    let text = lines(5_000);
    write_all(&job.out, text.as_bytes());
    rig.drained(job.run);
    let compressed =
        |names: &[(Name, _)]| names.iter().filter(|(n, _)| matches!(n, Name::Compressed(..))).count();
    let files = |names: &[(Name, _)]| names.iter().filter(|(n, _)| !matches!(n, Name::Index(_))).count();
    until("three compressed segments beside the newest", || {
        let names = scan(&job.output).unwrap();
        files(&names) == 4 && compressed(&names) == 3
    });
    assert!(names(&job.output).iter().rfind(|n| *n != "index").unwrap().ends_with(".log"));
    let mut reader = Reader::open(&job.output).unwrap();
    let first = reader.first_offset(Series::Merged);
    assert!(first > 0);
    let (mut at, mut data) = (first, Vec::new());
    while at < reader.end_offset(Series::Merged) {
        let chunk = reader.read_at(Series::Merged, at, 3_000).unwrap();
        assert_eq!(chunk.offset, at);
        at += chunk.data.len() as u64;
        data.extend(chunk.data);
    }
    assert!(text.as_bytes().ends_with(&data) && data.len() as u64 == text.len() as u64 - first);
}

#[test]
fn keeping_none_keeps_the_newest() {
    let rig = Rig::new();
    let job = rig.job(1, Output { max_size: 1_000, keep: 0, compress: true, ..settings() });
    write_all(&job.out, lines(1_000).as_bytes());
    rig.drained(job.run);
    until("one segment", || names(&job.output).len() == 2);
    assert!(lines(1_000).as_bytes().ends_with(&plain(&job.output).concat()));
}

#[test]
fn a_size_of_zero_never_rotates() {
    let rig = Rig::new();
    let job = rig.job(1, Output { max_size: 0, ..settings() });
    write_all(&job.out, lines(5_000).as_bytes());
    rig.drained(job.run);
    assert_eq!(names(&job.output), ["00000000000000000000.log", "index"]);
}

#[test]
fn a_reader_follows_through_rotation_and_compression() {
    let rig = Rig::new();
    let job = rig.job(1, Output { max_size: 20_000, keep: 100_000, compress: true, ..settings() });
    let text = lines(30_000);
    std::thread::scope(|scope| {
        scope.spawn(|| text.as_bytes().chunks(5_000).for_each(|part| write_all(&job.out, part)));
        let mut reader = Reader::open(&job.output).unwrap();
        let mut data = Vec::new();
        until("all of it", || {
            let chunk = reader.read_at(Series::Merged, data.len() as u64, 7_000).unwrap();
            assert!(chunk.data.is_empty() || chunk.offset == data.len() as u64, "a gap at {}", data.len());
            let got = !chunk.data.is_empty();
            data.extend(chunk.data);
            while got && data.len() < text.len() {
                let chunk = reader.read_at(Series::Merged, data.len() as u64, 7_000).unwrap();
                if chunk.data.is_empty() {
                    break;
                }
                assert_eq!(chunk.offset, data.len() as u64);
                data.extend(chunk.data);
            }
            data.len() >= text.len()
        });
        assert!(data == text.as_bytes());
    });
    assert!(read_all(&job.output, Series::Merged) == text.as_bytes());
}
