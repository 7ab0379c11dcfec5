//! The fixture itself: it finds what belongs to an instance, ends that, and nobody else.

use std::process::{Command, Stdio};

use crate::common::{Daemon, Innocent, http, misbehave, procs, until};

#[test]
fn what_belongs_to_an_instance_is_found_and_ended_and_strangers_are_not() {
    let daemon = Daemon::prepare("");
    let mut stranger = Innocent::start();
    // Found by the environment: a child that waits, its daemonised child, and one with closed stdio.
    let mut child = Command::new(misbehave())
        .args(["daemonise", "leave-child", "hang"])
        .env("SOME_NAME", daemon.home())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Found by an open file.
    let log = std::fs::File::create(daemon.path("file")).unwrap();
    let mut writer = Command::new(misbehave())
        .arg("hang")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .spawn()
        .unwrap();
    let found = until("all four", || Some(daemon.processes()).filter(|found| found.len() == 4));
    let pids: Vec<i32> = found.iter().map(|p| p.pid).collect();
    assert!(pids.contains(&child.id().cast_signed()) && pids.contains(&writer.id().cast_signed()));
    assert!(!pids.contains(&stranger.pid()));
    procs::end_instance(daemon.home());
    assert!(daemon.processes().is_empty());
    assert!(stranger.lives());
    child.wait().unwrap();
    writer.wait().unwrap();
}

#[test]
fn chunked_answers_are_put_together() {
    let answer =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n5;x=y\r\npedia\r\n0\r\n\r\n";
    let reply = http::parse(answer).unwrap();
    assert_eq!((reply.code, reply.text().as_str()), (200, "wikipedia"));
    assert!(http::parse(b"nonsense").is_err());
}
