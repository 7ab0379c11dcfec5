//! The control socket: what it answers, and that nothing sent to it does harm.

use std::io::{Read, Write};

use serde_json::json;

use crate::common::{Daemon, http, job, procs};

#[test]
fn the_routes_answer() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    let (pid, run) = daemon.wait_running("j");
    for path in
        ["/v1/version", "/v1/health", "/v1/ready", "/v1/status", "/v1/jobs/j/runs", "/v1/openapi.json"]
    {
        let reply = daemon.get(path).unwrap();
        assert_eq!(reply.code, 200, "{path}: {}", reply.text());
    }
    let job = daemon.get("/v1/jobs/j").unwrap().json();
    assert_eq!(job["pid"], pid, "{job:#}");
    let runs = daemon.get("/v1/jobs/j/runs").unwrap().json();
    assert!(runs.to_string().contains(&run), "{runs:#}");
    let openapi = daemon.get("/v1/openapi.json").unwrap().json();
    for path in ["/v1/status", "/v1/events", "/v1/shutdown", "/v1/reload"] {
        assert!(openapi["paths"][path].is_object(), "{path} is not described");
    }
}

#[test]
fn verbs_work_over_the_socket() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    let (_, run) = daemon.wait_running("j");
    assert_eq!(daemon.post("/v1/jobs/j/restart", &json!(null)).code, 200);
    let (_, run) = daemon.wait_next_run("j", &run);
    let reply = daemon.post("/v1/jobs/j/signal", &json!({"signal": "KILL"}));
    assert_eq!(reply.code, 200, "{}", reply.text());
    daemon.wait_next_run("j", &run);
    let reply = daemon.post("/v1/jobs/j/stop", &json!(null)).json();
    assert_eq!(reply["jobs"][0]["name"], "j", "{reply:#}");
    daemon.wait_state("j", "stopped");
    let reply = daemon.post("/v1/run", &json!({"command": ["/bin/sh", "-c", "exit 5"], "name": "once"}));
    assert_eq!(reply.code, 201, "{}", reply.text());
    assert_eq!(daemon.wait_ended("once")["code"], 5);
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    daemon.wait_running("j");
    let cases = [
        ("GET", "/", None, 404),
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/v1/jobs/nobody", None, 404),
        ("POST", "/v1/jobs/nobody/stop", None, 404),
        ("GET", "/v1/jobs/nobody/output", None, 404),
        ("DELETE", "/v1/status", None, 405),
        ("GET", "/v1/shutdown", None, 405),
        ("POST", "/v1/jobs/j/signal", Some("{\"signal\": \"NONSENSE\"}"), 400),
        ("POST", "/v1/jobs/j/signal", Some("{}"), 400),
        ("POST", "/v1/jobs/j/signal", Some("garbage"), 400),
        ("POST", "/v1/run", Some("{\"command\": []}"), 400),
        ("POST", "/v1/run", Some("[1, 2"), 400),
        ("POST", "/v1/run", Some("{\"command\": [\"x\"], \"name\": \"../x\"}"), 400),
        ("GET", "/v1/events?since=abc", None, 400),
        ("GET", "/v1/jobs/j/output?offset=-1", None, 400),
    ];
    for (method, path, body, code) in cases {
        let reply = http::request(&daemon.socket(), method, path, body.map(str::as_bytes)).unwrap();
        assert_eq!(reply.code, code, "{method} {path} {body:?}: {}", reply.text());
        let error = reply.json();
        assert!(!error["error"].as_str().unwrap().is_empty(), "{method} {path}: {error:#}");
        assert!(!error["code"].as_str().unwrap().is_empty(), "{method} {path}: {error:#}");
    }
    assert_eq!(daemon.job("j")["state"], "running");
}

#[test]
fn garbage_is_answered_and_nothing_else() {
    let mut daemon = Daemon::start(&job("j", "hang", ""));
    let before = daemon.wait_running("j");
    let supervisor = daemon.role("supervisor");
    let huge_header =
        [b"GET /v1/status HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 200_000], b"\r\n\r\n".to_vec()].concat();
    let many_headers =
        [b"GET /v1/status HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(5000), b"\r\n".to_vec()].concat();
    let huge_body = b"POST /v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n{".to_vec();
    let cases: [(&str, Vec<u8>); 7] = [
        ("noise", (0..=255).collect()),
        ("no version", b"GET /\r\n\r\n".to_vec()),
        (
            "lies about its length",
            b"POST /v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}".to_vec(),
        ),
        ("huge header", huge_header),
        ("many headers", many_headers),
        ("huge body", huge_body),
        ("nothing", Vec::new()),
    ];
    for (what, bytes) in cases {
        // Refused by an answer or by a closed connection; never by silence.
        if let Ok(answer) = http::raw(&daemon.socket(), &bytes)
            && let Ok(reply) = http::parse(&answer)
        {
            assert!((400..500).contains(&reply.code), "{what}: {reply:?}");
        }
        assert_eq!(daemon.get("/v1/health").unwrap().code, 200, "after {what}");
    }
    daemon.wait_ready();
    assert_eq!(daemon.role("supervisor"), supervisor);
    assert_eq!(daemon.wait_running("j"), before);
}

#[test]
fn many_idle_connections_do_not_lock_out_the_others() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    daemon.wait_running("j");
    let idle: Vec<_> = (0..50).map(|_| http::connect(&daemon.socket()).unwrap()).collect();
    let mut half = http::connect(&daemon.socket()).unwrap();
    half.write_all(b"GET /v1/sta").unwrap();
    assert_eq!(daemon.get("/v1/health").unwrap().code, 200);
    assert_eq!(daemon.cli(["status"]).code, 0);
    drop(idle);
}

#[test]
fn events_are_followed_as_they_happen() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    daemon.wait_running("j");
    let mut stream = http::connect(&daemon.socket()).unwrap();
    stream.write_all(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    let mut read_until = |word: &str| {
        let mut buffer = [0; 4096];
        while !text.contains(word) {
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "the stream ended before {word}: {text}");
            text += &String::from_utf8_lossy(&buffer[..n]);
        }
    };
    read_until("run.started");
    daemon.cli(["stop", "j"]).expect(0);
    read_until("run.ended");
}

#[test]
fn the_socket_is_back_after_each_death() {
    let mut daemon = Daemon::start("");
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(daemon.get("/v1/health").unwrap().code, 200);
    assert!(procs::is_alive(daemon.role("supervisor")));
}
