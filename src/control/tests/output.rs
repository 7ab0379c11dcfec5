//! Captured output through the socket.

use super::super::output::Stream::{Stderr, Stdout};
use super::fake::{Fake, name, run_id, soon};
use crate::client::{Error, OutputItem, OutputQuery, OutputStream};

async fn text(fake: &Fake, query: OutputQuery) -> String {
    let answer = fake.client.output_raw(&name("api"), &query).await.unwrap();
    String::from_utf8(soon(answer.body.collect()).await.unwrap()).unwrap()
}

fn ask(change: impl FnOnce(&mut OutputQuery)) -> OutputQuery {
    let mut query = OutputQuery::default();
    change(&mut query);
    query
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// One run with both streams together: six bytes of each line.
fn merged() -> Fake {
    let fake = Fake::new();
    fake.add_run("api", run_id(1));
    for (at, stream, line) in
        [(1, Stdout, "out 1\n"), (2, Stderr, "err 1\n"), (3, Stdout, "out 2\n"), (4, Stderr, "err 2\n")]
    {
        fake.capture(run_id(1), "merged", stream, at, line.as_bytes());
    }
    fake
}

/// The same, apart.
fn separate() -> Fake {
    let fake = Fake::new();
    fake.add_run("api", run_id(1));
    for (at, stream, line) in
        [(1, Stdout, "out 1\n"), (2, Stderr, "err 1\n"), (3, Stdout, "out 2\n"), (4, Stderr, "err 2\n")]
    {
        fake.capture(run_id(1), stream.as_str(), stream, at, line.as_bytes());
    }
    fake
}

const ALL: &str = "out 1\nerr 1\nout 2\nerr 2\n";

#[tokio::test]
async fn a_job_without_output_has_an_empty_answer() {
    let fake = Fake::new();
    assert_eq!(text(&fake, OutputQuery::default()).await, "");
    fake.add_run("api", run_id(1));
    assert_eq!(text(&fake, OutputQuery::default()).await, "", "the run has no directory yet");
}

#[tokio::test]
async fn ranges_tails_and_times() {
    for fake in [merged(), separate()] {
        assert_eq!(text(&fake, OutputQuery::default()).await, ALL);
        assert_eq!(text(&fake, ask(|q| q.tail = Some(1))).await, "err 2\n");
        assert_eq!(text(&fake, ask(|q| q.tail = Some(3))).await, &ALL[6..]);
        assert_eq!(text(&fake, ask(|q| q.tail = Some(9))).await, ALL);
        assert_eq!(text(&fake, ask(|q| q.tail = Some(0))).await, "");
        assert_eq!(text(&fake, ask(|q| q.stream = some("stderr"))).await, "err 1\nerr 2\n");
        let last_out = ask(|q| (q.stream, q.tail) = (some("stdout"), Some(1)));
        assert_eq!(text(&fake, last_out).await, "out 2\n");
        assert_eq!(text(&fake, ask(|q| q.since = some("1970-01-01T00:00:03Z"))).await, &ALL[12..]);
        assert_eq!(text(&fake, ask(|q| q.since = some("10m"))).await, "");
        assert_eq!(text(&fake, ask(|q| q.limit = Some(8))).await, &ALL[..8]);
        let stamped = text(&fake, ask(|q| (q.timestamps, q.tail) = (true, Some(2)))).await;
        assert_eq!(stamped, "1970-01-01T00:00:03.000Z out 2\n1970-01-01T00:00:04.000Z err 2\n");
    }
}

#[tokio::test]
async fn offsets_lead_from_one_answer_to_the_next() {
    let fake = merged();
    let first = ask(|q| (q.offset, q.limit) = (some("3"), Some(5)));
    let answer = fake.client.output_raw(&name("api"), &first).await.unwrap();
    assert_eq!((answer.run, answer.offset.as_deref()), (Some(run_id(1)), Some("3")));
    assert_eq!(answer.next_offset.as_deref(), Some("8"));
    assert_eq!(answer.body.collect().await.unwrap(), &ALL.as_bytes()[3..8]);
    fake.rotate(run_id(1), "merged", 12);
    let answer = fake.client.output_raw(&name("api"), &ask(|q| q.offset = some("8"))).await.unwrap();
    assert_eq!((answer.offset.as_deref(), answer.next_offset.as_deref()), (Some("12"), Some("24")));
    assert_eq!(answer.body.collect().await.unwrap(), &ALL.as_bytes()[12..]);
}

#[tokio::test]
async fn offsets_of_separate_streams_come_in_pairs() {
    let fake = separate();
    let answer = fake.client.output_raw(&name("api"), &OutputQuery::default()).await.unwrap();
    assert_eq!(answer.next_offset.as_deref(), Some("stdout:12,stderr:12"));
    let pair = ask(|q| q.offset = some("stdout:6,stderr:12"));
    assert_eq!(text(&fake, pair).await, "out 2\n");
    let one = ask(|q| q.offset = some("6"));
    assert!(matches!(
        fake.client.output_raw(&name("api"), &one).await,
        Err(Error::Refused { status: 400, .. })
    ));
    let one = ask(|q| (q.offset, q.stream) = (some("6"), some("stderr")));
    assert_eq!(text(&fake, one).await, "err 2\n");
}

#[tokio::test]
async fn runs_are_chosen_and_tails_reach_back_over_them() {
    let fake = merged();
    fake.end_run("api", run_id(1));
    fake.add_run("api", run_id(2));
    fake.capture(run_id(2), "merged", Stdout, 5, b"second\n");
    assert_eq!(text(&fake, OutputQuery::default()).await, "second\n");
    assert_eq!(text(&fake, ask(|q| q.run = some("all"))).await, format!("{ALL}second\n"));
    assert_eq!(text(&fake, ask(|q| q.run = Some(run_id(1).to_string()))).await, ALL);
    let tail = ask(|q| (q.run, q.tail) = (some("all"), Some(2)));
    assert_eq!(text(&fake, tail).await, "err 2\nsecond\n");
    let unknown = ask(|q| q.run = Some(run_id(7).to_string()));
    let answer = fake.client.output_raw(&name("api"), &unknown).await;
    assert!(matches!(answer, Err(Error::Refused { status: 404, .. })));
}

#[tokio::test]
async fn wrong_questions_are_answered_with_what_is_wrong() {
    let fake = merged();
    for (wrong, word) in [
        (ask(|q| q.run = some("newest")), "run="),
        (ask(|q| q.stream = some("stdin")), "stream="),
        (ask(|q| q.offset = some("-1")), "offset="),
        (ask(|q| q.since = some("yesterday")), "since="),
        (ask(|q| (q.run, q.offset) = (some("all"), some("1"))), "offset"),
        (ask(|q| q.offset = some("stdout:1,stderr:1")), "one number"),
    ] {
        match fake.client.output_raw(&name("api"), &wrong).await {
            Err(Error::Refused { status: 400, reply }) => {
                assert!(reply.error.contains(word), "{}", reply.error);
            }
            other => panic!("{word}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn bytes_survive_whatever_they_are() {
    let fake = Fake::new();
    fake.add_run("api", run_id(1));
    fake.end_run("api", run_id(1));
    // Three blocks, no UTF-8, no line end.
    let data: Vec<u8> = (0..300_001_u32).map(|n| (n % 251) as u8).collect();
    fake.capture(run_id(1), "merged", Stdout, 1, &data);
    fake.capture_unindexed(run_id(1), "merged", b"tail without an index entry \xff");
    let whole = [&data[..], b"tail without an index entry \xff"].concat();
    let answer = fake.client.output_raw(&name("api"), &OutputQuery::default()).await.unwrap();
    assert!(soon(answer.body.collect()).await.unwrap() == whole);
    let mut stream = fake.client.output(&name("api"), &ask(|q| q.follow = true)).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < whole.len() {
        match soon(stream.next()).await.unwrap() {
            OutputItem::Piece(piece) => {
                assert_eq!(piece.offset, seen.len() as u64);
                seen.extend(piece.data);
            }
            OutputItem::End { .. } => panic!("ended early"),
        }
    }
    assert!(seen == whole);
}

async fn next_text(stream: &mut OutputStream) -> String {
    match soon(stream.next()).await.unwrap() {
        OutputItem::Piece(piece) => String::from_utf8(piece.data).unwrap(),
        OutputItem::End { complete } => format!("end {complete}"),
    }
}

#[tokio::test]
async fn following_goes_on_over_restarts_and_one_run_ends() {
    let fake = merged();
    let follow = ask(|q| (q.follow, q.tail) = (true, Some(1)));
    let mut all = fake.client.output(&name("api"), &follow).await.unwrap();
    let one = ask(|q| (q.follow, q.run, q.tail) = (true, Some(run_id(1).to_string()), Some(1)));
    let mut one = fake.client.output(&name("api"), &one).await.unwrap();
    assert_eq!(next_text(&mut all).await, "err 2\n");
    assert_eq!(next_text(&mut one).await, "err 2\n");
    fake.capture(run_id(1), "merged", Stdout, 5, b"more\n");
    assert_eq!(next_text(&mut all).await, "more\n");
    assert_eq!(next_text(&mut one).await, "more\n");
    fake.capture(run_id(1), "merged", Stdout, 6, b"last\n");
    fake.end_run("api", run_id(1));
    assert_eq!(next_text(&mut one).await, "last\n");
    assert_eq!(next_text(&mut one).await, "end true");
    assert_eq!(next_text(&mut all).await, "last\n");
    fake.add_run("api", run_id(2));
    fake.capture(run_id(2), "merged", Stderr, 7, b"again\n");
    assert_eq!(next_text(&mut all).await, "again\n");
    fake.change(|view| {
        view.jobs.remove(&name("api"));
        view.runs.remove(&name("api"));
    });
    assert_eq!(next_text(&mut all).await, "end true", "the job is gone");
}

#[tokio::test]
async fn a_stream_taken_up_again_goes_on_exactly_where_it_was() {
    let fake = merged();
    fake.end_run("api", run_id(1));
    fake.add_run("api", run_id(2));
    fake.capture(run_id(2), "merged", Stdout, 7, b"again\n");
    let resumed = ask(|q| {
        (q.run, q.offset, q.follow, q.onward) = (Some(run_id(1).to_string()), some("18"), true, true)
    });
    let mut stream = fake.client.output(&name("api"), &resumed).await.unwrap();
    assert_eq!(next_text(&mut stream).await, "err 2\n");
    assert_eq!(next_text(&mut stream).await, "again\n");
    fake.ending.send(true).unwrap();
    assert_eq!(next_text(&mut stream).await, "end false");
}

#[tokio::test]
async fn a_follower_of_a_job_that_never_ran_sees_its_first_run() {
    let fake = Fake::new();
    let mut stream = fake.client.output(&name("quiet"), &ask(|q| q.follow = true)).await.unwrap();
    fake.add_run("quiet", run_id(3));
    fake.capture(run_id(3), "stderr", Stderr, 1, b"first\n");
    match soon(stream.next()).await.unwrap() {
        OutputItem::Piece(piece) => {
            assert_eq!(
                (piece.run, piece.separate, piece.stream.as_deref()),
                (run_id(3), true, Some("stderr"))
            );
        }
        other @ OutputItem::End { .. } => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bytes_without_an_index_entry_come_after_a_moment() {
    let fake = Fake::new();
    fake.add_run("api", run_id(1));
    fake.capture_unindexed(run_id(1), "merged", b"no entry\n");
    let mut stream = fake.client.output(&name("api"), &ask(|q| q.follow = true)).await.unwrap();
    match soon(stream.next()).await.unwrap() {
        OutputItem::Piece(piece) => {
            assert_eq!((piece.stream, piece.at, piece.data), (None, None, b"no entry\n".to_vec()));
        }
        other @ OutputItem::End { .. } => panic!("{other:?}"),
    }
}
