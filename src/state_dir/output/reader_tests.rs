//! A reader against directories as a keeper leaves them.

use std::io::Write;
use std::os::unix::fs::FileExt;

use super::super::Stream;
use super::super::index::{self, DROPPED};
use super::*;

fn put(dir: &Path, series: Series, start: u64, data: &[u8]) {
    disk::create_or_truncate(&series.plain(dir, start), 0o600).unwrap().write_all(data).unwrap();
}

fn pack(dir: &Path, series: Series, start: u64) {
    let plain = series.plain(dir, start);
    let file = disk::create_or_truncate(&series.compressed(dir, start), 0o600).unwrap();
    let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gz.write_all(&std::fs::read(&plain).unwrap()).unwrap();
    gz.finish().unwrap();
    std::fs::remove_file(plain).unwrap();
}

fn all(reader: &mut Reader, series: Series, from: u64, max: usize) -> (u64, Vec<u8>) {
    let (mut at, mut data, mut first) = (from, Vec::new(), None);
    loop {
        let chunk = reader.read_at(series, at, max).unwrap();
        if chunk.data.is_empty() {
            return (first.unwrap_or(from), data);
        }
        first.get_or_insert(chunk.offset);
        at = chunk.offset + chunk.data.len() as u64;
        data.extend(chunk.data);
    }
}

#[test]
fn a_missing_directory_is_empty_and_may_come_later() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("output");
    let mut reader = Reader::open(&out).unwrap();
    assert!(reader.series().is_empty());
    assert_eq!(reader.read_at(Series::Merged, 0, 10).unwrap().data, b"");
    assert_eq!(reader.tail_offset(Series::Merged, 3).unwrap(), 0);
    assert_eq!(reader.since_offset(Series::Merged, 0).unwrap(), 0);
    std::fs::create_dir(&out).unwrap();
    put(&out, Series::Merged, 0, b"hello\n");
    assert_eq!(all(&mut reader, Series::Merged, 0, 4).1, b"hello\n");
    assert_eq!(reader.series(), [Series::Merged]);
}

#[test]
fn follows_through_growth_rotation_compression_and_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    put(dir, Series::Merged, 0, b"one\ntwo\n");
    let mut reader = Reader::open(dir).unwrap();
    assert_eq!(all(&mut reader, Series::Merged, 0, 3).1, b"one\ntwo\n");
    put(dir, Series::Merged, 8, b"three\n");
    pack(dir, Series::Merged, 0);
    assert_eq!(all(&mut reader, Series::Merged, 2, 3), (2, b"e\ntwo\nthree\n".to_vec()));
    let mut late = Reader::open(dir).unwrap();
    for max in [1, 2, 100] {
        assert_eq!(all(&mut late, Series::Merged, 0, max), (0, b"one\ntwo\nthree\n".to_vec()));
    }
    put(dir, Series::Merged, 14, b"four\n");
    std::fs::remove_file(Series::Merged.compressed(dir, 0)).unwrap();
    std::fs::remove_file(Series::Merged.plain(dir, 8)).unwrap();
    assert_eq!(all(&mut late, Series::Merged, 1, 100), (14, b"four\n".to_vec()));
    assert_eq!(late.first_offset(Series::Merged), 14);
    assert_eq!(late.end_offset(Series::Merged), 19);
    assert_eq!(late.read_at(Series::Merged, 500, 10).unwrap(), Chunk { offset: 500, data: vec![] });
}

#[test]
fn a_hole_between_segments_is_stepped_over() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), Series::Stderr, 0, b"aa\n");
    put(dir.path(), Series::Stderr, 10, b"bb\n");
    let mut reader = Reader::open(dir.path()).unwrap();
    assert_eq!(reader.read_at(Series::Stderr, 3, 10).unwrap(), Chunk { offset: 10, data: b"bb\n".to_vec() });
}

#[test]
fn both_forms_of_a_segment_for_a_moment_are_one() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), Series::Merged, 0, b"one\n");
    pack(dir.path(), Series::Merged, 0);
    put(dir.path(), Series::Merged, 0, b"one\n");
    put(dir.path(), Series::Merged, 4, b"two\n");
    let mut reader = Reader::open(dir.path()).unwrap();
    assert_eq!(all(&mut reader, Series::Merged, 0, 64).1, b"one\ntwo\n");
    assert_eq!(reader.tail_offset(Series::Merged, 2).unwrap(), 0);
}

#[test]
fn tail_counts_lines_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..40_000).map(|n| format!("line {n}\n")).collect();
    let (a, rest) = text.split_at(200_000);
    let (b, c) = rest.split_at(150_000);
    put(dir.path(), Series::Stdout, 0, a.as_bytes());
    put(dir.path(), Series::Stdout, 200_000, b.as_bytes());
    put(dir.path(), Series::Stdout, 350_000, c.as_bytes());
    pack(dir.path(), Series::Stdout, 200_000);
    let mut reader = Reader::open(dir.path()).unwrap();
    for n in [1usize, 2, 1000, 9_000, 15_000, 30_000, 39_999, 40_000] {
        let at = reader.tail_offset(Series::Stdout, n).unwrap();
        let rest = &text[usize::try_from(at).unwrap()..];
        assert_eq!(rest.lines().count(), n);
        assert!(at == 0 || text.as_bytes()[usize::try_from(at).unwrap() - 1] == b'\n', "{n}");
    }
    assert_eq!(reader.tail_offset(Series::Stdout, 50_000).unwrap(), 0);
    assert_eq!(reader.tail_offset(Series::Stdout, 0).unwrap(), text.len() as u64);
    put(dir.path(), Series::Stdout, text.len() as u64, b"no end");
    assert_eq!(reader.tail_offset(Series::Stdout, 1).unwrap(), text.len() as u64);
}

#[test]
fn records_and_times() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), Series::Merged, 0, &[b'x'; 30]);
    let file = disk::create_new(&Series::Merged.index(dir.path()), 0o600).unwrap();
    let record = |offset, len, flags| Record {
        offset,
        len,
        stream: Stream::Stdout,
        flags,
        boot_us: 0,
        wall_us: 1000 + i64::try_from(offset).unwrap(),
    };
    let written = [record(0, 10, 0), record(10, 5, DROPPED), record(10, 10, 0), record(20, 5, 0)];
    for (n, r) in (0u64..).zip(&written) {
        file.write_all_at(&r.encode(), n * index::SIZE).unwrap();
    }
    let mut reader = Reader::open(dir.path()).unwrap();
    assert_eq!(reader.records(Series::Merged, 0, u64::MAX).unwrap(), written);
    assert_eq!(reader.records(Series::Merged, 10, 20).unwrap(), written[1..3]);
    assert_eq!(reader.records(Series::Merged, 5, 6).unwrap(), written[..1]);
    assert_eq!(reader.indexed_end(Series::Merged).unwrap(), 25);
    assert_eq!(reader.since_offset(Series::Merged, 0).unwrap(), 0);
    assert_eq!(reader.since_offset(Series::Merged, 1010).unwrap(), 10);
    assert_eq!(reader.since_offset(Series::Merged, 1011).unwrap(), 20);
    assert_eq!(reader.since_offset(Series::Merged, 9999).unwrap(), 25);
}

#[test]
fn a_damaged_compressed_segment_is_an_error_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    disk::create_new(&Series::Merged.compressed(dir.path(), 0), 0o600)
        .unwrap()
        .write_all(b"no gzip")
        .unwrap();
    put(dir.path(), Series::Merged, 10, b"fine\n");
    let mut reader = Reader::open(dir.path()).unwrap();
    assert!(reader.read_at(Series::Merged, 0, 10).is_err());
    assert_eq!(reader.read_at(Series::Merged, 10, 10).unwrap().data, b"fine\n");
}
