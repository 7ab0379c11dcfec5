//! Clients that do what they should not.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::super::Limits;
use super::super::output::Stream::Stdout;
use super::fake::{Fake, run_id, soon};

async fn connect(fake: &Fake) -> UnixStream {
    UnixStream::connect(fake.client.socket()).await.unwrap()
}

/// What comes back before the connection is closed, or reset because the rest was not read.
async fn answer_to(stream: &mut UnixStream, bytes: &[u8]) -> String {
    // The server may close before it has everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count) = soon(stream.read(&mut buffer)).await {
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

async fn once(fake: &Fake, bytes: &[u8]) -> String {
    answer_to(&mut connect(fake).await, bytes).await
}

fn request(line: &str, rest: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{rest}\r\n").into_bytes()
}

#[tokio::test]
async fn garbage_is_a_400_and_nothing_else() {
    let fake = Fake::new();
    for garbage in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"{}\n\n",
        &[0xff; 300],
        b"\x16\x03\x01\x02\x00\x01\r\n",
    ] {
        let answer = once(&fake, garbage).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{garbage:?}: {answer:?}");
    }
    assert!(fake.client.version().await.is_ok());
}

#[tokio::test]
async fn wrong_paths_methods_parameters_and_bodies_are_told_apart() {
    let fake = Fake::new();
    for (bytes, status, word) in [
        (request("GET /", ""), "404", "\"not_found\""),
        (request("GET /v2/status", ""), "404", "/v2/status"),
        (request("POST /v1/status", ""), "405", "\"method_not_allowed\""),
        (request("GET /v1/jobs/api/start", ""), "405", "\"method_not_allowed\""),
        (request("GET /v1/status?jobs=api", ""), "400", "known: job"),
        (request("GET /v1/version?x=1", ""), "400", "none are"),
        (request("POST /v1/reload?plan=maybe", ""), "400", "neither true nor false"),
        (request("GET /v1/jobs/%ff", ""), "400", "\"bad_request\""),
        (request("GET /v1/jobs/a%2Fb", ""), "404", "a/b"),
        (request("GET /v1/jobs/..%2F..%2Fetc", ""), "404", "\"not_found\""),
        (request("POST /v1/run", ""), "400", "not as expected"),
        (request("POST /v1/run", "Content-Length: 2\r\n\r\n[]"), "400", "not as expected"),
        (request("POST /v1/jobs/api/signal", "Content-Length: 3\r\n\r\nHUP"), "400", "not as expected"),
        (request("GET /v1/jobs/web%3A1", ""), "200", "\"web:1\""),
        (request("GET /v1/health", ""), "200", "true"),
        (request("POST /v1/shutdown", "Content-Length: 0\r\n"), "202", "\"keep_jobs\":false"),
    ] {
        let answer = once(&fake, &bytes).await;
        let asked = String::from_utf8_lossy(&bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{asked}: {answer}");
        assert!(answer.contains(word), "{asked}: {answer}");
    }
}

#[tokio::test]
async fn large_headers_and_bodies_are_refused() {
    let fake = Fake::new();
    let header = format!("X: {}\r\n", "x".repeat(20 * 1024));
    let answer = once(&fake, &request("GET /v1/version", &header)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    let answer = once(&fake, &request("POST /v1/run", "Content-Length: 1048577\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("too_large"), "{answer:?}");
    // Without an announcement the limit is met on the way.
    let mut chunked = request("POST /v1/run", "Transfer-Encoding: chunked\r\n");
    chunked.extend_from_slice(format!("{:x}\r\n{}\r\n", 1_048_577, " ".repeat(1_048_577)).as_bytes());
    let answer = once(&fake, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:?}");
    let answer = once(&fake, &request("POST /v1/jobs/api/stdin", "Content-Length: 4194305\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:?}");
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn headers_that_do_not_come_close_the_connection() {
    let fake = Fake::with(Limits { header_time: Duration::from_millis(50), ..Limits::default() });
    let answer = once(&fake, b"GET /v1/version HTTP/1.1\r\nHost:").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer:?}");
    let answer = once(&fake, b"").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer:?}");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let fake = Fake::with(Limits { connections: 2, ..Limits::default() });
    let mut held = [connect(&fake).await, connect(&fake).await];
    for stream in &mut held {
        stream.write_all(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut byte = [0; 512];
        assert!(soon(stream.read(&mut byte)).await.unwrap() > 0, "it is being served");
    }
    let answer = once(&fake, &request("GET /v1/version", "")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"busy\""), "{answer:?}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer:?}");
    let [first, second] = held;
    drop(first);
    // The place is free once the server has seen the end of the connection.
    soon(async {
        while fake.client.version().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(second);
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_dropped_and_slows_nobody() {
    let fake = Fake::with(Limits { write_time: Duration::from_millis(300), ..Limits::default() });
    fake.add_run("api", run_id(1));
    fake.capture(run_id(1), "merged", Stdout, 1, &vec![b'x'; 8 * 1024 * 1024]);
    let mut slow = connect(&fake).await;
    slow.write_all(b"GET /v1/jobs/api/output?follow=true HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    for _ in 0..20 {
        soon(fake.client.status(&[])).await.unwrap();
    }
    // Nothing is read until the server has given up; then the rest of the answer is missing.
    soon(async {
        while !peer_is_gone(&slow) {
            fake.client.version().await.unwrap();
        }
    })
    .await;
    let mut taken = 0;
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = soon(slow.read(&mut buffer)).await {
        if count == 0 {
            break;
        }
        taken += count;
    }
    assert!(taken < 4 * 1024 * 1024, "{taken} bytes");
}

fn peer_is_gone(stream: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let mut look = [PollFd::new(stream, PollFlags::HUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut look, Some(&now)).unwrap();
    look[0].revents().contains(PollFlags::HUP)
}
