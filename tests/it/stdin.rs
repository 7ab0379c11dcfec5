//! What a job reads: nothing, what is sent to it, or a file.

use crate::common::{Daemon, http, job, until};

#[test]
fn without_more_there_is_nothing_to_read() {
    let daemon = Daemon::start(&job("j", "read-stdin", "kind = \"task\""));
    assert_eq!(daemon.wait_ended("j")["code"], 0);
    assert_eq!(daemon.log("j"), "eof\n");
}

#[test]
fn what_is_sent_arrives_and_the_pipe_stays_open() {
    let daemon = Daemon::start(&job("j", "read-stdin", "kind = \"task\"\nstdin = \"keep\""));
    daemon.wait_running("j");
    daemon.cli_with_input(["send", "j"], b"one\n").expect(0);
    daemon.wait_line("j", "one");
    daemon.cli_with_input(["send", "j"], b"two\n").expect(0);
    daemon.wait_line("j", "two");
    assert_eq!(daemon.job("j")["state"], "running");
    let reply =
        http::request(&daemon.socket(), "POST", "/v1/jobs/j/stdin?close=true", Some(b"three\n")).unwrap();
    assert_eq!(reply.code, 200, "{}", reply.text());
    assert_eq!(daemon.wait_ended("j")["code"], 0);
    assert_eq!(daemon.log("j"), "one\ntwo\nthree\neof\n");
}

#[test]
fn the_pipe_outlives_supervisor_and_keeper() {
    let mut daemon = Daemon::start(&job("j", "read-stdin", "kind = \"task\"\nstdin = \"keep\""));
    daemon.wait_running("j");
    for role in ["supervisor", "keeper"] {
        let old = daemon.kill_role(role);
        daemon.wait_role_back(role, old);
        daemon.cli_with_input(["send", "j"], format!("after {role}\n").as_bytes()).expect(0);
        daemon.wait_line("j", &format!("after {role}"));
    }
    assert!(!daemon.log("j").contains("eof"));
}

#[test]
fn a_file_can_be_read() {
    let mut daemon =
        Daemon::prepare(&job("j", "read-stdin", "kind = \"task\"\nstdin = { file = \"@dir@/input\" }"));
    daemon.write("input", "from a file\n");
    daemon.up();
    assert_eq!(daemon.wait_ended("j")["code"], 0);
    assert_eq!(daemon.log("j"), "from a file\neof\n");
}

#[test]
fn a_pipe_that_nobody_writes_to_holds_nobody_up() {
    let pipe = |name| job(name, "read-stdin", "stdin = { file = \"@dir@/input\" }");
    let mut daemon = Daemon::prepare(&[pipe("a"), pipe("b"), pipe("c"), pipe("d"), pipe("e")].concat());
    let mut input = daemon.gate("input");
    daemon.up();
    for name in ["a", "b", "c", "d", "e"] {
        daemon.wait_running(name);
    }
    input.release_line();
    until("one that read it", || {
        ["a", "b", "c", "d", "e"].iter().any(|n| daemon.log(n) == "\n").then_some(())
    });
}

#[test]
fn sending_to_a_job_without_a_pipe_is_an_error() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    daemon.wait_running("j");
    let said = daemon.cli_with_input(["send", "j"], b"hello\n");
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("stdin"), "{said:?}");
    assert_eq!(daemon.job("j")["state"], "running");
}
