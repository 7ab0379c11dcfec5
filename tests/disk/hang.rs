//! A disk that does not answer for a while.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::common::{http, procs, until};
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

        drop(frozen);
        let (code, said) = told.recv_timeout(super::common::PATIENCE).unwrap().unwrap();
        changing.join().unwrap();
        assert_eq!(code, 200, "{said}");
        site.promised.wants.insert("a".to_owned(), false);
        until("the reaping of what ended", || procs::stat(again).is_none().then_some(()));
        site.daemon.wait_next_run("again", &run);
        site.assert_door_told();
        site.assert_kept();
        site.assert_ticking();
    });
}
