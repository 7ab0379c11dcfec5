//! A disk that turns read-only in the middle, and one that promises more than it has.

use std::fs::File;
use std::io::Write;

use super::common::{procs, skip, until};
use super::machine::{Disk, call, in_own_mounts};
use super::site::{IDLE, Site};

const READ_ONLY: &str = "Read-only file system";

/// Everything of ours ends without a word, the jobs go on; the disk is put right, and an instance started.
fn put_right(site: &mut Site, disk: &Disk) {
    for role in ["init", "supervisor", "keeper"] {
        for handle in procs::roles(site.daemon.home(), role).into_iter().filter_map(procs::handle) {
            procs::send(&handle, rustix::process::Signal::KILL);
            assert!(procs::wait_dead(&handle, super::common::PATIENCE), "{role} does not die");
        }
    }
    disk.unmount();
    disk.repair();
    assert!(disk.mount());
    site.daemon.restart();
}

#[test]
fn a_file_system_that_turns_read_only_is_said_to_be_and_takes_no_job_with_it() {
    in_own_mounts(|| {
        let mut site = Site::prepare();
        let Some(disk) = Disk::ext4(&mut site.daemon, "disk", 24 << 20) else { return };
        site.up();
        let ticker = site.daemon.wait_running("ticker");
        let (again, run) = site.daemon.wait_running("again");
        assert_eq!(site.want("a", false).0, 200);
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", disk.device());
        let Ok(mut file) = File::options().write(true).open(&trigger) else {
            return skip(&format!("{trigger} is not there: no error of the file system can be made"));
        };
        file.write_all(b"a test").unwrap();
        let first = site.until_refused();
        assert!(first["error"].as_str().unwrap().contains(READ_ONLY), "{first:#}");
        site.assert_all_refused(READ_ONLY);
        site.assert_ticking();
        let before = site.starts();
        procs::send(&procs::handle(again).unwrap(), rustix::process::Signal::KILL);
        until("its end", || (!procs::is_alive(again)).then_some(()));
        site.assert_all_refused(READ_ONLY);
        assert_eq!(site.starts(), before, "started without a record");

        // Some kernels let the file system be written again where it is; else it has to be mounted anew.
        let at = disk.at.to_str().unwrap();
        if call("mount", &["-o", "remount,rw", at]) {
            site.wait_healed();
        } else {
            put_right(&mut site, &disk);
        }
        assert_eq!(site.daemon.wait_running("ticker"), ticker);
        site.daemon.wait_next_run("again", &run);
        assert_eq!(site.daemon.events_of("run.ended", "again").len(), 1);
        site.assert_kept();
        site.assert_ticking();
        assert_eq!(site.want("a", true).0, 200);
        site.door.release();
        site.assert_door_told();
        site.assert_kept();
    });
}

/// The sync of a file fails, the kernel forgets what it could not write, and the next sync succeeds.
#[track_caller]
fn assert_second_sync_lies(disk: &Disk) {
    let mut file = File::create(disk.at.join("proof")).unwrap();
    file.write_all(&[b'x'; 64 << 10]).unwrap();
    let first = file.sync_data();
    let second = file.sync_data();
    assert!(first.is_err() && second.is_ok(), "{first:?}, {second:?}");
}

/// A device without space, then with it again, then read anew: what does not hold at the end, and the number
/// of segments that were begun to write again.
fn out_of_space_below(fault: Option<&str>) -> Option<(Vec<String>, usize)> {
    let mut site = Site::with_fault(fault);
    let disk = Disk::thin(&mut site.daemon, "disk")?;
    site.up();
    let below = disk.below();
    below.fill();
    assert_second_sync_lies(&disk);
    let first = site.until_refused();
    let why = first["error"].as_str().unwrap();
    assert!(why.contains("cannot sync"), "{why}");
    let writable = disk.options().split(',').all(|option| option != "ro" && option != "emergency_ro");
    assert!(writable, "the file system itself gave up: {}", disk.options());
    let reason = if why.contains("No space") { "No space left on device" } else { "Input/output error" };
    site.assert_all_refused(reason);
    site.assert_ticking();
    let segments = || std::fs::read_dir(site.daemon.state_dir().join("journal")).unwrap().count();
    let before = segments();
    below.free();
    site.wait_healed();
    let begun = segments() - before;
    if fault.is_none() {
        site.assert_kept();
    }
    for name in IDLE {
        assert_eq!(site.want(name, false).0, 200);
    }
    // What the kernel still shows may not be on the disk: read it again from there.
    put_right(&mut site, &disk);
    let faults = site.faults();
    if faults.is_empty() {
        site.assert_kept();
        assert_eq!(site.want("a", true).0, 200);
        site.assert_kept();
    }
    Some((faults, begun))
}

#[test]
fn a_sync_that_failed_is_not_believed_the_next_time() {
    in_own_mounts(|| {
        let Some((faults, begun)) = out_of_space_below(None) else { return };
        assert!(faults.is_empty(), "{faults:#?}");
        assert!(begun > 0, "it is written in a new segment");
    });
}

/// What this is worth: with a mistake built in, it does not pass.
#[test]
fn a_sync_tried_again_is_found_out() {
    in_own_mounts(|| {
        let Some((faults, begun)) = out_of_space_below(Some("SyncRetried")) else { return };
        assert!(!faults.is_empty() && begun == 0, "nobody notices: {begun} segments");
    });
}
