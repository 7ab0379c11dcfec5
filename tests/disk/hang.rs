//! A disk that does not answer for a while.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::common::{http, procs, skip, until};
use super::inject::{Strace, strace_works};
use super::machine::{Disk, call, in_own_mounts};
use super::site::Site;

/// A frozen file system: whoever writes there waits, and cannot even be killed. Dropping it lets them go on.
struct Frozen<'a>(&'a Disk);

impl<'a> Frozen<'a> {
    fn new(disk: &'a Disk) -> Option<Self> {
        call("fsfreeze", &["-f", disk.at.to_str().unwrap()]).then_some(Self(disk))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        call("fsfreeze", &["-u", self.0.at.to_str().unwrap()]);
    }
}

#[test]
fn a_disk_that_hangs_stops_neither_status_nor_capture_and_is_caught_up_with() {
    in_own_mounts(|| {
        let mut site = Site::prepare();
        let Some(disk) = Disk::ext4(&mut site.daemon, "disk", 24 << 20) else { return };
        site.up();
        let (again, run) = site.daemon.wait_running("again");
        let Some(frozen) = Frozen::new(&disk) else { return };
        // A change waits for the disk; whoever only looks does not.
        let (tell, told) = channel();
        let socket = site.daemon.socket();
        let changing = std::thread::spawn(move || {
            let reply = http::request(&socket, "POST", "/v1/jobs/a/stop", Some(b""));
            let _ = tell.send(reply.map(|reply| (reply.code, reply.text())));
        });
        assert!(told.recv_timeout(Duration::from_millis(300)).is_err(), "promised without the disk");
        site.assert_ticking();
        assert!(site.daemon.try_status().is_some());
        assert_eq!(site.daemon.get("/v1/health").unwrap().code, 200);

        procs::send(&procs::handle(again).unwrap(), rustix::process::Signal::KILL);
        until("its end", || (!procs::is_alive(again)).then_some(()));
        site.door.release();
        site.assert_ticking();
        assert!(site.daemon.try_status().is_some());
        assert!(told.try_recv().is_err(), "promised without the disk");
        let waits = |site: &Site| {
            let marks = site.daemon.try_status().unwrap()["instance"]["degraded_resources"].clone();
            let mut marks = marks.as_array().unwrap().iter();
            marks.any(|m| m["resource"] == "journal" && m["why"].as_str().unwrap().contains("not answered"))
        };
        until("the disk to be missed", || waits(&site).then_some(()));

        drop(frozen);
        let (code, said) = told.recv_timeout(super::common::PATIENCE).unwrap().unwrap();
        changing.join().unwrap();
        assert_eq!(code, 200, "{said}");
        site.promised.wants.insert("a".to_owned(), false);
        until("the reaping of what ended", || procs::stat(again).is_none().then_some(()));
        until("the disk to be well again", || (!waits(&site)).then_some(()));
        site.daemon.wait_next_run("again", &run);
        site.assert_door_told();
        site.assert_kept();
        site.assert_ticking();
    });
}

/// The same with a disk that takes what is written, and takes for ever to make it durable: here even what ends
/// is reaped at once, and only what was to follow waits.
#[test]
fn a_sync_that_takes_for_ever_delays_no_reaping_no_capture_and_no_status() {
    if let Err(why) = strace_works() {
        return skip(&format!("strace cannot make a sync slow here: {why}"));
    }
    let mut site = Site::prepare();
    std::fs::create_dir(site.daemon.path("disk")).unwrap();
    site.up();
    let (again, run) = site.daemon.wait_running("again");
    let slow = Strace::slow_syncs(&site, &[site.daemon.role("supervisor"), site.daemon.role("keeper")]);
    procs::send(&procs::handle(again).unwrap(), rustix::process::Signal::KILL);
    until("its reaping", || procs::stat(again).is_none().then_some(()));
    site.door.release();
    site.assert_ticking();
    assert!(site.daemon.try_status().is_some());
    // A change is answered when it is durable, and what ended is followed by another when that is.
    let (tell, told) = channel();
    let socket = site.daemon.socket();
    let changing = std::thread::spawn(move || {
        let reply = http::request(&socket, "POST", "/v1/jobs/a/stop", Some(b""));
        let _ = tell.send(reply.map(|reply| (reply.code, reply.text())));
    });
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err(), "promised without a sync");
    assert_eq!(site.starts().len(), 6, "started before it was durable");
    site.assert_ticking();
    assert!(site.daemon.try_status().is_some());

    drop(slow);
    let (code, said) = told.recv_timeout(super::common::PATIENCE).unwrap().unwrap();
    changing.join().unwrap();
    assert_eq!(code, 200, "{said}");
    site.promised.wants.insert("a".to_owned(), false);
    site.daemon.wait_next_run("again", &run);
    site.assert_door_told();
    site.assert_kept();
    site.assert_ticking();
}

/// Bytes captured of all jobs, without asking anybody.
fn captured(site: &Site) -> u64 {
    fn below(dir: &std::path::Path) -> u64 {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let sizes = entries.map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => below(&entry.path()),
            _ => entry.metadata().map_or(0, |meta| meta.len()),
        });
        sizes.sum()
    }
    below(&site.daemon.path("out"))
}

/// A process that waits for the disk cannot die: it is killed and there, and nobody may take its place yet.
#[test]
fn a_supervisor_killed_while_the_disk_hangs_is_followed_by_another_when_it_is_gone() {
    in_own_mounts(|| {
        let mut site = Site::prepare();
        let Some(disk) = Disk::ext4(&mut site.daemon, "disk", 24 << 20) else { return };
        site.up();
        let ticker = site.daemon.wait_running("ticker");
        let Some(frozen) = Frozen::new(&disk) else { return };
        let socket = site.daemon.socket();
        let changing =
            std::thread::spawn(move || http::request(&socket, "POST", "/v1/jobs/a/stop", Some(b"")).is_ok());
        let old = site.daemon.role("supervisor");
        let waits = || {
            let tasks = std::fs::read_dir(format!("/proc/{old}/task")).ok()?;
            let state = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat"));
            tasks.flatten().any(|t| state(t).is_ok_and(|s| s.contains(") D "))).then_some(())
        };
        until("the supervisor to wait for the disk", waits);
        let handle = procs::handle(old).unwrap();
        procs::send(&handle, rustix::process::Signal::KILL);
        let before = captured(&site);
        until("more output", || (captured(&site) > before + 200).then_some(()));
        assert!(!procs::wait_dead(&handle, Duration::ZERO), "it did not wait for the disk");
        let others = procs::roles(site.daemon.home(), "supervisor").into_iter().filter(|pid| *pid != old);
        assert_eq!(others.count(), 0, "two at once");

        drop(frozen);
        assert!(procs::wait_dead(&handle, super::common::PATIENCE));
        site.daemon.wait_role_back("supervisor", old);
        changing.join().unwrap();
        site.promised.unsure.insert("a".to_owned());
        site.make_sure();
        site.assert_kept();
        assert_eq!(site.daemon.wait_running("ticker"), ticker);
        site.assert_ticking();
    });
}
