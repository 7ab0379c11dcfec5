//! A disk that is full.

use serde_json::Value;

use super::common::{Daemon, job, procs, until};
use super::machine::{Disk, in_own_mounts};
use super::site::{STATE, Site};

const FULL: &str = "No space left on device";

/// Fills the disk with the state, looks at what still works, frees it, and counts.
fn filled(site: &mut Site, disk: &Disk) {
    site.up();
    let (again, run) = site.daemon.wait_running("again");
    let (door, _) = site.daemon.wait_running("door");
    assert_eq!(site.want("a", false).0, 200);
    disk.fill();
    let first = site.until_refused();
    assert!(first["error"].as_str().unwrap().contains(FULL), "{first:#}");
    site.assert_all_refused(FULL);
    site.assert_ticking();

    // What ends meanwhile is collected, and nothing follows it.
    let (before, events) = (site.starts(), site.daemon.events().len());
    site.door.release();
    procs::send(&procs::handle(again).unwrap(), rustix::process::Signal::KILL);
    for pid in [again, door] {
        until("the reaping of what ended", || procs::stat(pid).is_none().then_some(()));
    }
    site.assert_all_refused(FULL);
    assert_eq!(site.starts(), before, "started without a record");
    assert_eq!(site.daemon.events().len(), events, "written on a full disk");

    disk.free();
    site.wait_healed();
    site.assert_door_told();
    let (_, next) = site.daemon.wait_next_run("again", &run);
    until("its mark", || site.starts().contains_key(&next).then_some(()));
    let ended = site.daemon.events_of("run.ended", "again");
    assert_eq!(ended.len(), 1, "{ended:#?}");
    assert_eq!(ended[0]["record"]["outcome"]["signal"], 9, "{ended:#?}");
    site.assert_kept();
    assert_eq!(site.want("a", true).0, 200);

    let old = site.daemon.kill_role("supervisor");
    site.daemon.wait_role_back("supervisor", old);
    site.assert_door_told();
    site.assert_kept();
    site.assert_ticking();
}

#[test]
fn a_full_disk_in_memory_refuses_changes_and_loses_nothing() {
    in_own_mounts(|| {
        let mut site = Site::prepare();
        let Some(disk) = Disk::tmpfs(&mut site.daemon, "disk", "2m") else { return };
        filled(&mut site, &disk);
    });
}

#[test]
fn a_full_ext4_refuses_changes_and_loses_nothing() {
    in_own_mounts(|| {
        let mut site = Site::prepare();
        let Some(disk) = Disk::ext4(&mut site.daemon, "disk", 16 << 20) else { return };
        filled(&mut site, &disk);
    });
}

/// With room for it, space is kept back; a disk that others fill is then healed by giving that up.
#[test]
fn a_full_disk_is_written_again_by_giving_up_the_space_kept_back() {
    in_own_mounts(|| {
        let mut site = Site::prepare();
        let Some(disk) = Disk::tmpfs(&mut site.daemon, "disk", "24m") else { return };
        site.up();
        let ballast = site.daemon.state_dir().join("ballast");
        assert!(ballast.exists());
        disk.fill();
        let first = site.until_refused();
        assert!(first["error"].as_str().unwrap().contains(FULL), "{first:#}");
        site.wait_healed();
        assert!(!ballast.exists(), "it was given up");
        site.assert_kept();
        assert_eq!(site.want("a", false).0, 200);
        site.assert_kept();
    });
}

/// The keeper has it, and the supervisor has heard it: neither says it again.
#[test]
fn what_a_run_tells_while_nothing_can_be_recorded_is_recorded_afterwards() {
    in_own_mounts(|| {
        let mut site = Site::prepare();
        let Some(disk) = Disk::tmpfs(&mut site.daemon, "disk", "2m") else { return };
        let daemon = &mut site.daemon;
        let out = "output = { dir = \"@dir@/out\" }";
        let script = "sd-notify READY=1 sd-notify X_RESUME=first gate @dir@/tell sd-notify X_RESUME=second \
                      sd-notify ERRNO=7 hang";
        let teller = job("teller", script, &format!("ready = {{ notify = true }}\n{out}"));
        let other = job("other", "hang", out);
        daemon.write_config(&format!("{teller}{other}"));
        let mut tell = daemon.gate("tell");
        daemon.up();
        let token = |job: &Value| job["progress"]["resume_token"].as_str().map(str::to_owned);
        daemon.wait_job("teller", "first token", |job| token(job).as_deref() == Some("first"));
        daemon.wait_running("other");
        disk.fill();
        refuse(daemon);
        tell.release();
        daemon.wait_job("teller", "word that was heard", |job| job["health"]["errno"] == 7);
        assert_eq!(token(&daemon.job("teller")).as_deref(), Some("first"));
        disk.free();
        daemon.wait_job("teller", "second token", |job| token(job).as_deref() == Some("second"));
        let old = daemon.kill_role("supervisor");
        daemon.wait_role_back("supervisor", old);
        assert_eq!(token(&daemon.job("teller")).as_deref(), Some("second"));
    });
}

/// Changes a job until that is refused.
fn refuse(daemon: &Daemon) {
    let refused = (0..2000).find(|n| {
        let verb = if n % 2 == 0 { "stop" } else { "start" };
        daemon.post(&format!("/v1/jobs/other/{verb}"), &Value::Null).code == 503
    });
    assert!(refused.is_some(), "a full disk takes everything");
}

#[test]
fn hooks_that_end_while_the_disk_is_full_have_ended_and_none_begins_twice() {
    in_own_mounts(|| {
        let waits = |name: &str| {
            let words = format!("\"mark\", \"@dir@/hooks\", \"{name} {{pid}}\", \"gate\", \"@dir@/{name}\"");
            format!("hooks.{name} = {{ command = [\"@misbehave@\", {words}], timeout = \"5m\" }}\n")
        };
        let out = "output = { dir = \"@dir@/out\" }\n";
        let config = [
            job("starts", "hang", &(waits("before_start") + out)),
            job("stops", "hang", &(waits("before_stop") + out)),
            job("still-starts", "hang", &(waits("before_start").replace("@dir@/before", "@dir@/late") + out)),
            job("still-stops", "hang", &(waits("before_stop").replace("@dir@/before", "@dir@/late") + out)),
            job("other", "hang", out),
        ];
        let mut daemon = Daemon::prepare(&config.concat());
        daemon.state = STATE;
        std::fs::create_dir(daemon.path("out")).unwrap();
        let Some(disk) = Disk::tmpfs(&mut daemon, "disk", "2m") else { return };
        let early = ["before_start", "before_stop"].map(|name| daemon.gate(name));
        let late = ["late_start", "late_stop"].map(|name| daemon.gate(name));
        daemon.up();
        for name in ["stops", "still-stops"] {
            daemon.wait_running(name);
            daemon.cli(["stop", "--no-wait", name]).expect(0);
        }
        let lines = || daemon.read("hooks").lines().map(str::to_owned).collect::<Vec<_>>();
        until("four hooks", || (lines().len() == 4).then_some(()));
        let run = |name: &str| daemon.job(name)["run"].clone();
        let runs = ["starts", "still-starts"].map(run);

        disk.fill();
        refuse(&daemon);
        early.into_iter().for_each(|mut door| door.release());
        let alive = || {
            let pids = lines().into_iter().filter_map(|line| line.rsplit(' ').next()?.parse().ok());
            pids.filter(|pid| procs::is_alive(*pid)).count()
        };
        until("the end of two of them", || (alive() == 2).then_some(()));
        disk.free();
        daemon.wait_running("starts");
        daemon.wait_state("stops", "stopped");
        assert_eq!(alive(), 2, "{:?}", lines());
        late.into_iter().for_each(|mut door| door.release());
        daemon.wait_running("still-starts");
        assert_eq!(daemon.wait_state("still-stops", "stopped")["outcome"]["signal"], 15);
        assert_eq!(runs, ["starts", "still-starts"].map(run));
        assert_eq!(lines().len(), 4, "{:?}", lines());
    });
}
