//! Where a control group tree is delegated, nothing of a run escapes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Daemon, procs, skip, until};

/// A group to delegate, removed at the end.
struct Delegated(PathBuf);

impl Delegated {
    /// Makes one below the first hierarchy of version 2 that is mounted, if we may.
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let point = mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4))?
        })?;
        let group = Path::new(point).join(format!("outlive-test-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        Some(Self(group))
    }

    fn groups_of_runs(&self) -> usize {
        let entries = fs::read_dir(self.0.join("outlive.runs"));
        entries.map_or(0, |list| list.flatten().filter(|e| e.path().is_dir()).count())
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("outlive.runs"));
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_process_that_left_session_parent_output_and_environment_ends_with_its_run() {
    let Some(group) = Delegated::make() else {
        return skip("no control group of version 2 can be made here");
    };
    let script = "env -i setsid sh -c 'echo $$$$ > escaped; exec sleep 600' </dev/null >/dev/null 2>&1 & \
                  exec sleep 600";
    let mut daemon = Daemon::prepare(&format!(
        "[job.a]\nshell = true\ncommand = {script:?}\nstop = {{ timeout = \"1s\" }}\n"
    ));
    daemon.wrapper = vec!["env".to_owned(), format!("OUTLIVE_CGROUP={}", group.0.display())];
    daemon.up();
    daemon.wait_running("a");
    let escaped: i32 = until("the escaped process", || daemon.read("escaped").trim().parse().ok());
    let handle = procs::handle(escaped).unwrap();
    assert_eq!(group.groups_of_runs(), 1);
    // Also found by a keeper that has not started it.
    let old = daemon.kill_role("keeper");
    daemon.wait_role_back("keeper", old);
    daemon.cli(["stop", "a"]).expect(0);
    assert!(procs::wait_dead(&handle, crate::common::PATIENCE), "it escaped");
    assert_eq!(daemon.wait_state("a", "stopped")["pid"], serde_json::Value::Null);
    until("the removal of its group", || (group.groups_of_runs() == 0).then_some(()));
    drop(daemon);
}
