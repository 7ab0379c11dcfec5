//! A disk that refuses output stops only those who write to it, and loses nothing unless told to.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::{Daemon, is_root, job, run, skip, until};

/// A file system of its own with little room.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(daemon: &mut Daemon, size: &str) -> Option<Self> {
        let path = daemon.path("small");
        fs::create_dir(&path).unwrap();
        let disk = Self { path };
        let mounted = disk.call("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "none"]);
        daemon.unmount.extend(mounted.then(|| disk.path.clone()));
        mounted.then_some(disk)
    }

    fn grow(&self, size: &str) {
        assert!(self.call("mount", &["-o", &format!("remount,size={size}")]));
    }

    fn call(&self, program: &str, args: &[&str]) -> bool {
        run(Command::new(program).args(args).arg(&self.path)).code == 0
    }
}

/// A prepared instance with a small disk, or nothing where none can be mounted.
fn with_small_disk(config: &str) -> Option<(SmallDisk, Daemon)> {
    if !is_root() {
        skip("only root can mount a small disk");
        return None;
    }
    let mut daemon = Daemon::prepare(config);
    let Some(disk) = SmallDisk::mount(&mut daemon, "256k") else {
        skip("a small disk cannot be mounted here");
        return None;
    };
    Some((disk, daemon))
}

fn config(policy: &str) -> String {
    [
        job(
            "full",
            "flood 2000000 100 exit 3",
            &format!("kind = \"task\"\noutput = {{ dir = \"@dir@/small\", on_log_stall = \"{policy}\", compress = false }}"),
        ),
        job("ticker", "lines 0 1ms", ""),
    ]
    .concat()
}

/// Others start, write, end and are stopped as if nothing were wrong.
fn assert_others_go_on(daemon: &Daemon) {
    let count = |daemon: &Daemon| daemon.log("ticker").lines().count();
    let before = count(daemon);
    until("more lines of the other", || (count(daemon) > before + 50).then_some(()));
    let said = daemon.cli(["run", "--wait", "--", "/bin/sh", "-c", "echo hello; exit 9"]);
    assert_eq!(said.code, 9, "{said:?}");
}

#[test]
fn block_waits_for_room_and_then_loses_nothing() {
    let Some((disk, mut daemon)) = with_small_disk(&config("block")) else { return };
    daemon.up();
    until("the stall to be said", || {
        let status = daemon.try_status()?;
        (!status["instance"]["degraded"].as_array()?.is_empty()).then_some(())
    });
    assert_others_go_on(&daemon);
    assert_eq!(daemon.job("full")["state"], "running");
    // Nor does a new keeper lose what waits.
    let old = daemon.kill_role("keeper");
    daemon.wait_role_back("keeper", old);
    assert_others_go_on(&daemon);
    disk.grow("20m");
    assert_eq!(daemon.wait_ended("full")["code"], 3);
    let bytes = until("all of it", || Some(daemon.raw("full", None)).filter(|b| b.len() == 2_000_000));
    assert!(bytes.chunks(100).all(|line| line[99] == b'\n' && line[..99].iter().all(|b| *b == b'x')));
}

#[test]
fn drop_goes_on_and_counts_what_is_lost() {
    let Some((_, mut daemon)) = with_small_disk(&config("drop")) else { return };
    daemon.up();
    assert_eq!(daemon.wait_ended("full")["code"], 3);
    assert_others_go_on(&daemon);
    let ended = daemon.events_of("run.ended", "full");
    let record = &ended[0]["record"];
    let dropped = record["dropped_bytes"].as_u64().unwrap();
    assert!(dropped > 0, "{record:#}");
    assert_eq!(record["stdout_bytes"].as_u64().unwrap() + dropped, 2_000_000, "{record:#}");
}
