//! What the kernel tells about processes.

use std::fs;

/// Orphans of what we start become our children, so that none can get lost.
pub(crate) fn become_subreaper() {
    // SAFETY: sets a flag.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// A thousand jobs need some descriptors.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads and writes a local structure.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

/// Ends every child and every orphan that has become ours, roles before jobs.
pub(crate) fn end_children() {
    let me = std::process::id().to_string();
    for _ in 0..1000 {
        let children: Vec<i32> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let parent =
                    stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1).map(str::to_owned));
                parent.as_deref() == Some(me.as_str())
            })
            .collect();
        if children.is_empty() {
            return;
        }
        for pid in children {
            // SAFETY: a child of ours that has not been reaped.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// Proportional set size in KiB.
pub(crate) fn pss_kib(pid: i32) -> u64 {
    field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// How often all threads of a process went to sleep.
pub(crate) fn sleeps(pid: i32) -> u64 {
    tasks(pid).iter().map(|dir| field(&format!("{dir}/status"), "voluntary_ctxt_switches:")).sum()
}

/// Nanoseconds of processor time of all its threads.
pub(crate) fn cpu_ns(pid: i32) -> u64 {
    let one = |dir: &String| -> Option<u64> {
        fs::read_to_string(format!("{dir}/schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    tasks(pid).iter().filter_map(one).sum()
}

fn tasks(pid: i32) -> Vec<String> {
    let list = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    list.map(|entry| entry.path().display().to_string()).collect()
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Whether there is such a process, and it has not ended.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
