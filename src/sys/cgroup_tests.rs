//! Paths, and limits on groups that are made up and on one that is real.

use super::*;

const MOUNTS: &str = "24 1 0:22 / /proc rw - proc proc rw\n\
    31 1 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n";

#[test]
fn our_own_group_is_found_below_its_mount() {
    let found = own_group("8:pids:/x\n0::/system.slice/outlive.service\n", MOUNTS);
    assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/unified/system.slice/outlive.service")));
    let nested = "31 1 0:27 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
    let found = own_group("0::/docker/abc/leaf\n", nested);
    assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/leaf")));
}

#[test]
fn the_root_group_is_the_hosts() {
    assert_eq!(own_group("0::/\n", MOUNTS), None);
    assert_eq!(own_group("8:pids:/x\n", MOUNTS), None);
    assert_eq!(own_group("0::/a\n", "24 1 0:22 / /proc rw - proc proc rw\n"), None);
}

#[test]
fn around_a_group_for_our_own_processes_is_the_delegated_one() {
    let found = own_group("0::/system.slice/x.service/outlive.roles\n", MOUNTS);
    assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/unified/system.slice/x.service")));
    // What is around this one belongs to the host.
    let found = own_group("0::/outlive.roles\n", MOUNTS);
    assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/unified/outlive.roles")));
}

/// Directories that look like OWN/outlive.runs/RUN, with these empty files in the last one.
fn fake(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("own/outlive.runs/run");
    std::fs::create_dir_all(&run).unwrap();
    for file in files {
        super::super::disk::create_new(&run.join(file), 0o600).unwrap();
    }
    for around in run.ancestors().skip(1).take(2) {
        super::super::disk::create_new(&around.join("cgroup.subtree_control"), 0o600).unwrap();
    }
    (dir, run)
}

#[test]
fn limits_are_written_where_the_controllers_are_and_said_to_be_missing_elsewhere() {
    let all = Limits { memory: Some(1 << 20), pids: Some(7), cpu_percent: Some(150) };
    let (_dir, run) = fake(&["memory.max", "memory.oom.group", "memory.swap.max", "cpu.max"]);
    let applied = limit(&run, all);
    assert_eq!(applied, Applied { memory: true, pids: false, cpu: true });
    let read = |file: &str| std::fs::read_to_string(run.join(file)).unwrap();
    assert_eq!((read("memory.max"), read("cpu.max")), ("1048576".into(), "150000 100000".into()));
    assert_eq!((read("memory.oom.group"), read("memory.swap.max")), ("1".into(), "0".into()));
    // It was asked for, first of the outer group.
    for around in run.ancestors().skip(1).take(2) {
        assert_eq!(std::fs::read_to_string(around.join("cgroup.subtree_control")).unwrap(), "+pids");
    }
    assert!(!run.join("pids.max").exists());
    assert_eq!(limit(Path::new("/nowhere/a/b"), all), Applied::default());
}

#[test]
fn what_is_not_limited_is_not_touched() {
    let (_dir, run) = fake(&["memory.max", "pids.max", "cpu.max"]);
    assert_eq!(limit(&run, Limits::default()), Applied::default());
    assert_eq!(std::fs::read(run.join("memory.max")).unwrap(), b"");
}

#[test]
fn kills_and_usage_are_read_as_far_as_there_are_controllers() {
    let (_dir, run) = fake(&[]);
    assert_eq!((usage(&run), oom_kills(&run)), (None, None));
    let put_new = |file: &str, text: &str| {
        let mut file = super::super::disk::create_new(&run.join(file), 0o600).unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    put_new("cpu.stat", "usage_usec 42\nuser_usec 1\n");
    put_new("memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n");
    let expected = GroupUsage { cpu_us: Some(42), ..GroupUsage::default() };
    assert_eq!((usage(&run), oom_kills(&run)), (Some(expected), Some(1)));
}

#[test]
fn a_real_group_tells_its_cpu_time_and_takes_the_limits_that_it_can() {
    let own = std::fs::read_to_string("/proc/self/mountinfo")
        .ok()
        .and_then(|mounts| mounted("0::/\n", &mounts))
        .map(|(point, _)| point.join(format!("outlive-unit-{}", std::process::id())));
    let Some(own) = own.filter(|own| std::fs::create_dir(own).is_ok()) else {
        return eprintln!("skipped: no control group of version 2 can be made here");
    };
    let run = own.join("outlive.runs/run");
    std::fs::create_dir_all(&run).unwrap();
    let there = std::fs::read_to_string(own.join("cgroup.controllers")).unwrap();
    let wanted = Limits { memory: Some(64 << 20), pids: Some(9), cpu_percent: Some(50) };
    let applied = limit(&run, wanted);
    let (usage, kills) = (usage(&run), oom_kills(&run));
    let limits = ["memory.max", "pids.max", "cpu.max"].map(|file| std::fs::read_to_string(run.join(file)));
    for group in [&run, run.parent().unwrap(), &own] {
        std::fs::remove_dir(group).unwrap();
    }
    let has = |name: &str| there.split_whitespace().any(|word| word == name);
    let expected = Applied { memory: has("memory"), pids: has("pids"), cpu: has("cpu") };
    assert_eq!(applied, expected, "{there}");
    assert_eq!(usage.and_then(|usage| usage.cpu_us), Some(0));
    assert_eq!(kills, applied.memory.then_some(0));
    let [memory, pids, cpu] = limits.map(|text| text.ok().map(|text| text.trim().to_owned()));
    assert_eq!(memory, applied.memory.then(|| (64u64 << 20).to_string()));
    assert_eq!(pids, applied.pids.then(|| "9".to_owned()));
    assert_eq!(cpu, applied.cpu.then(|| "50000 100000".to_owned()));
}
