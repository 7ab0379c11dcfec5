//! Where a control group tree is delegated, nothing of a run escapes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::{Daemon, job, procs, skip, until};

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
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let group = Path::new(point).join(format!("outlive-test-{}-{number}", std::process::id()));
        fs::create_dir(&group).ok()?;
        Some(Self(group))
    }

    /// Has the kernel count memory for each run, and limit that of all of them.
    fn limit_memory(&self, bytes: u64) -> std::io::Result<()> {
        let put = |path: PathBuf, text: &str| {
            std::io::Write::write_all(&mut fs::OpenOptions::new().write(true).open(path)?, text.as_bytes())
        };
        let runs = self.0.join("outlive.runs");
        fs::create_dir(&runs)?;
        put(self.0.join("cgroup.subtree_control"), "+memory")?;
        put(runs.join("cgroup.subtree_control"), "+memory")?;
        let _ = put(self.0.join("memory.swap.max"), "0");
        put(self.0.join("memory.max"), &bytes.to_string())
    }

    /// A file of the group of a run.
    fn of_run(&self, run: &str, file: &str) -> String {
        fs::read_to_string(self.0.join("outlive.runs").join(run).join(file)).unwrap_or_default()
    }

    /// Whether it comes with this file: the controller is ours to use.
    fn has(&self, file: &str) -> bool {
        self.0.join(file).exists()
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

#[test]
fn who_is_killed_for_its_memory_has_ended_by_that_and_not_by_a_signal() {
    let Some(group) = Delegated::make() else {
        return skip("no control group of version 2 can be made here");
    };
    if let Err(error) = group.limit_memory(64 << 20) {
        return skip(&format!("no control group can limit memory here: {error}"));
    }
    let greedy = "[job.greedy]\nkind = \"task\"\ncommand = [\"tail\", \"/dev/zero\"]\n";
    let killed = job("killed", "signal KILL", "kind = \"task\"");
    let mut daemon = Daemon::prepare(&format!("{greedy}{killed}"));
    daemon.wrapper = vec!["env".to_owned(), format!("OUTLIVE_CGROUP={}", group.0.display())];
    daemon.up();
    assert_eq!(daemon.wait_ended("greedy")["kind"], "oom_killed");
    // Nobody asked for this one either, but the kernel has counted nothing.
    assert_eq!(daemon.wait_ended("killed")["kind"], "signaled");
    drop(daemon);
}

#[test]
fn the_kernel_holds_each_run_to_its_own_limits() {
    let Some(group) = Delegated::make() else {
        return skip("no control group of version 2 can be made here");
    };
    if let Some(missing) = ["memory.max", "pids.max", "cpu.max"].iter().find(|file| !group.has(file)) {
        return skip(&format!("no {missing} in a control group that is made here"));
    }
    let greedy = "kind = \"task\"\ncommand = [\"tail\", \"/dev/zero\"]\n";
    let forks = "for i in 1 2 3 4 5 6; do sleep 600 & done; wait";
    let mut daemon = Daemon::prepare(&format!(
        "[job.memory]\n{greedy}limits = {{ memory = \"32MiB\" }}\n\
         [job.pids]\nkind = \"task\"\nshell = true\ncommand = {forks:?}\nlimits = {{ pids = 3 }}\n\
         [job.cpu]\nshell = true\ncommand = \"while :; do :; done\"\nlimits = {{ cpu = \"5%\" }}\n\
         [job.free]\ncommand = [\"sleep\", \"600\"]\n"
    ));
    daemon.wrapper = vec!["env".to_owned(), format!("OUTLIVE_CGROUP={}", group.0.display())];
    daemon.up();
    assert_eq!(daemon.wait_ended("memory")["kind"], "oom_killed");
    // Most shells give up when they cannot fork, those that were let through end with it or with the run.
    daemon.wait_log("pids", "fork that is refused", |text| text.contains("fork"));
    daemon.wait_running("cpu");
    let run = daemon.job("cpu")["run"].as_str().unwrap().to_owned();
    assert_eq!(group.of_run(&run, "cpu.max"), "5000 100000\n");
    until("a pause that the kernel makes", || {
        let stat = group.of_run(&run, "cpu.stat");
        let throttled = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "))?;
        (throttled != "0").then_some(())
    });
    assert_eq!(
        daemon.job("cpu")["health"]["verdict"],
        "healthy",
        "who is held to its limit has not passed it"
    );
    let free = daemon.job("free")["run"].as_str().unwrap().to_owned();
    for (file, text) in [("memory.max", "max\n"), ("pids.max", "max\n"), ("cpu.max", "max 100000\n")] {
        assert_eq!(group.of_run(&free, file), text, "nobody has limited this one: {file}");
    }

    // Other limits are in force at once, and those that are gone are lifted.
    let jobs = |cpu: &str, free: &str| {
        format!(
            "[job.cpu]\nshell = true\ncommand = \"while :; do :; done\"\n{cpu}\n\
             [job.free]\ncommand = [\"sleep\", \"600\"]\n{free}\n"
        )
    };
    let reads = |run: &str, file: &str, text: &str| {
        until(&format!("{file} of {text}"), || (group.of_run(run, file).trim() == text).then_some(()));
    };
    daemon.write_config(&jobs("limits = { cpu = \"20%\" }", "limits = { memory = \"64MiB\", pids = 9 }"));
    daemon.cli(["reload"]).expect(0);
    reads(&run, "cpu.max", "20000 100000");
    reads(&free, "memory.max", "67108864");
    reads(&free, "pids.max", "9");
    // Also by a supervisor that did not start them.
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    daemon.write_config(&jobs("", "limits = { memory = \"64MiB\", on_exceed = \"notify\" }"));
    daemon.cli(["reload"]).expect(0);
    reads(&run, "cpu.max", "max 100000");
    reads(&free, "memory.max", "max");
    reads(&free, "pids.max", "max");
    assert_eq!((&daemon.job("cpu")["run"], &daemon.job("free")["run"]), (&run.into(), &free.into()));
    drop(daemon);
}

#[test]
fn who_is_killed_because_the_machine_has_no_memory_has_ended_by_that_as_the_kernel_log_says() {
    if std::env::var_os("OUTLIVE_TEST_MACHINE").is_none() {
        return skip(
            "this uses up the memory of the machine; OUTLIVE_TEST_MACHINE=1 says that nobody else needs it",
        );
    }
    // Of all, the kernel takes this one.
    let greedy = "[job.greedy]\nkind = \"task\"\ncommand = [\"tail\", \"/dev/zero\"]\noom_score_adj = 1000\n";
    let mut daemon = Daemon::prepare(&format!("{greedy}{}", job("killed", "signal KILL", "kind = \"task\"")));
    daemon.env.push(("OUTLIVE_CGROUP".to_owned(), "off".to_owned()));
    daemon.up();
    assert_eq!(daemon.wait_ended("killed")["kind"], "signaled");
    assert_eq!(daemon.wait_ended("greedy")["kind"], "oom_killed");
}
