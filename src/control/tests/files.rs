//! The files as keeper and supervisor write them.

use std::io::Write;
use std::path::Path;

use super::fake::{Fake, name, run_id, soon};
use crate::client::{OutputItem, OutputQuery, Since};
use crate::core::event::Event;
use crate::core::ids::Generation;
use crate::core::state::State;
use crate::core::time::Stamp;
use crate::journal::{Entry, recover};
use crate::state_dir::output::{Record, Series, Stream};

/// Appends bytes and their index entry.
fn capture(dir: &Path, stream: Stream, second: u64, data: &[u8]) {
    std::fs::create_dir_all(dir).unwrap();
    let append = |path: &Path, data: &[u8]| {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(data).unwrap();
    };
    let file = Series::Merged.plain(dir, 0);
    let offset = std::fs::metadata(&file).map_or(0, |meta| meta.len());
    let (boot_us, wall_us) = (second * 1_000_000, i64::try_from(second).unwrap() * 1_000_000);
    let len = u32::try_from(data.len()).unwrap();
    append(&file, data);
    append(&Series::Merged.index(dir), &Record { offset, len, stream, flags: 0, boot_us, wall_us }.encode());
}

#[tokio::test]
async fn captured_output_is_read_filtered_and_followed() {
    let fake = Fake::of_files();
    fake.add_run("api", run_id(1));
    let dir = fake.output_dir(run_id(1));
    let follow = OutputQuery { follow: true, ..OutputQuery::default() };
    let mut stream = fake.client.output(&name("api"), &follow).await.unwrap();
    capture(&dir, Stream::Stdout, 1, b"one\n");
    capture(&dir, Stream::Stderr, 2, b"two\n");
    capture(&dir, Stream::Stdout, 3, b"three\n");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match soon(stream.next()).await.unwrap() {
            OutputItem::Piece(piece) => {
                seen.push((piece.stream.unwrap(), piece.at.unwrap(), String::from_utf8(piece.data).unwrap()));
            }
            other @ OutputItem::End { .. } => panic!("{other:?}"),
        }
    }
    let expected = [("stdout", 1, "one\n"), ("stderr", 2, "two\n"), ("stdout", 3, "three\n")]
        .map(|(s, n, text)| (s.to_owned(), format!("1970-01-01T00:00:0{n}.000Z"), text.to_owned()));
    assert_eq!(seen, expected);
    for (stream, tail, text) in [
        ("all", None, "one\ntwo\nthree\n"),
        ("stdout", None, "one\nthree\n"),
        ("stdout", Some(2), "one\nthree\n"),
        ("stderr", Some(1), "two\n"),
    ] {
        let query = OutputQuery { stream: Some(stream.to_owned()), tail, ..OutputQuery::default() };
        let answer = fake.client.output_raw(&name("api"), &query).await.unwrap();
        assert_eq!(String::from_utf8(soon(answer.body.collect()).await.unwrap()).unwrap(), text, "{stream}");
    }
}

#[tokio::test]
async fn the_event_log_is_read_up_to_what_is_durable() {
    let fake = Fake::of_files();
    let journal = recover(fake.dir.path(), State::new(), &mut |_, _| {}).unwrap();
    let mut journal = journal.open(Stamp::default(), Generation(1)).0;
    let entry = Entry {
        at: Stamp { boot_us: 1, wall_us: 1_000_000 },
        generation: Generation(1),
        events: vec![Event::JobRemoved { job: name("api") }],
    };
    let last = journal.append(&[entry.clone(), entry.clone(), entry]).unwrap();
    fake.change(|view| view.seq = last - 1);
    let mut events = fake.client.events(Since::Beginning, None, false).await.unwrap();
    let (first, _) = soon(events.next()).await.unwrap().unwrap();
    assert_eq!((first.seq, first.at.as_str()), (last - 2, "1970-01-01T00:00:01.000Z"));
    assert_eq!(first.events, [serde_json::json!({ "k": "job.removed", "job": "api" })]);
    assert_eq!(soon(events.next()).await.unwrap().unwrap().0.seq, last - 1);
    assert!(soon(events.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn events_that_are_no_longer_kept_have_expired() {
    let fake = Fake::of_files();
    let journal = recover(fake.dir.path(), State::new(), &mut |_, _| {}).unwrap();
    let mut journal = journal.open(Stamp::default(), Generation(1)).0;
    let entry = Entry {
        at: Stamp { boot_us: 1, wall_us: 1_000_000 },
        generation: Generation(1),
        events: vec![Event::JobRemoved { job: name("api") }],
    };
    for _ in 0..3 {
        journal.append(std::slice::from_ref(&entry)).unwrap();
        journal.rotate().unwrap();
    }
    std::fs::remove_file(fake.dir.path().join("journal/00000000000000000001.jsonl")).unwrap();
    fake.change(|view| view.seq = 3);
    // Who names no entry gets what there is.
    let mut events = fake.client.events(Since::Beginning, None, false).await.unwrap();
    assert_eq!(soon(events.next()).await.unwrap().unwrap().0.seq, 2);
    let mut events = fake.client.events(Since::Seq(1), None, false).await.unwrap();
    assert_eq!(soon(events.next()).await.unwrap().unwrap().0.seq, 2);
    std::fs::remove_file(fake.dir.path().join("journal/00000000000000000002.jsonl")).unwrap();
    let error = fake.client.events(Since::Seq(1), None, false).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("events before 3 are no longer kept"), "{error}");
}
