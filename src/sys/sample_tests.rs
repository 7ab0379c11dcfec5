//! Trees that are really there, and some that are made up, found in both ways.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::sys::disk;

/// Above the highest number that a process can have (`PID_MAX_LIMIT`).
const BASE: i32 = 5_000_000;

/// How the rest of a tree is looked for.
#[derive(Debug, Clone, Copy)]
enum Way {
    Walk,
    Pass,
}

/// A shell and what it started, ended at the end.
struct Family(Child);

impl Family {
    /// Runs a script as the leader of a session, until it says something.
    fn start(script: &str) -> Self {
        let mut child = Command::new("setsid")
            .args(["sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn wanted(&self) -> Wanted {
        let pid = i32::try_from(self.0.id()).unwrap();
        let start_ticks = proc::stat(pid).map_or(0, |stat| stat.start_ticks);
        Wanted { pid, start_ticks, ..Wanted::default() }
    }

    fn found_by(&self, way: Way) -> Vec<i32> {
        found_in(Path::new("/proc"), &self.wanted(), way)
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        // The main process first, so that nothing new is started; while it is a zombie, its session is known.
        let main = self.wanted().pid;
        end(main);
        for pid in self.found_by(Way::Pass).into_iter().filter(|pid| *pid != main) {
            end(pid);
        }
        let _ = self.0.wait();
    }
}

fn end(pid: i32) {
    if let Ok(fd) = pidfd::open(pid) {
        let _ = pidfd::signal(&fd, libc::SIGKILL);
        let _ = pidfd::wait_ended(&fd, 5000);
    }
}

fn found_in(root: &Path, wanted: &Wanted, way: Way) -> Vec<i32> {
    let mut reader = Reader::open(root).unwrap();
    let mut search = Search::new(&mut reader, std::slice::from_ref(wanted));
    search.take_known();
    match way {
        Way::Walk => search.walk(),
        Way::Pass => search.pass(),
    }
    let mut found: Vec<i32> =
        search.trees.iter().flatten().flat_map(|tree| tree.all().map(|(pid, _)| pid)).collect();
    found.sort_unstable();
    found
}

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    disk::create_or_truncate(path, 0o600).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_command_with_parentheses_and_spaces_does_not_shift_the_fields() {
    let text = b"42 (a) b (c) S 7 42 41 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 5 0 98765 123 77 0 0\n";
    let line = Line::parse(text).unwrap();
    let expected = Line {
        state: b'S',
        parent: 7,
        session: 41,
        ticks: 127,
        threads: 5,
        start_ticks: 98765,
        rss_pages: 77,
    };
    assert_eq!(line, expected);
    for cut in 0..text.len() - 10 {
        assert_eq!(Line::parse(&text[..cut]), None, "{cut}");
    }
}

#[test]
fn both_ways_find_the_same_tree() {
    let family = Family::start("sh -c 'sleep 600 & sleep 600 & echo ready; wait' & wait");
    let walked = family.found_by(Way::Walk);
    assert_eq!(walked.len(), 4);
    assert_eq!(family.found_by(Way::Pass), walked);
    let mut members = members(&family.wanted());
    members.sort_unstable();
    assert_eq!(members, walked);
}

#[test]
fn an_orphan_is_found_by_its_session_and_with_it_what_it_started() {
    let dir = tempfile::tempdir().unwrap();
    // Number, parent, session, with numbers that the kernel gives to nobody; ..10 is init, ..24 somebody
    // else's.
    let all = [(10, 1, 10), (20, 10, 20), (21, 20, 20), (22, 10, 20), (23, 22, 23), (24, 10, 24)];
    let all = all.map(|(pid, parent, session)| (BASE + pid, BASE + parent, BASE + session));
    for (pid, parent, session) in all {
        let stat = format!("{pid} (x) S {parent} 1 {session} 0 0 0 0 0 0 0 1 1 0 0 20 0 1 0 500 0 3 0 0\n");
        put(&dir.path().join(format!("{pid}/stat")), &stat);
        let children: Vec<String> =
            all.iter().filter(|(_, of, _)| *of == pid).map(|(pid, ..)| pid.to_string()).collect();
        put(&dir.path().join(format!("{pid}/task/{pid}/children")), &children.join(" "));
    }
    let wanted = Wanted { pid: BASE + 20, start_ticks: 500, ..Wanted::default() };
    for way in [Way::Walk, Way::Pass] {
        assert_eq!(found_in(dir.path(), &wanted, way), [20, 21, 22, 23].map(|pid| BASE + pid));
    }
    // Another process has the number by now.
    let another = Wanted { start_ticks: 501, ..wanted };
    assert!(found_in(dir.path(), &another, Way::Pass).is_empty());
}

#[test]
fn what_a_tree_uses_is_the_sum_of_it_and_who_is_gone_is_nobody() {
    let family = Family::start("sleep 600 & sleep 600 & echo ready; wait");
    let wanted = family.wanted();
    let gone = Wanted { start_ticks: wanted.start_ticks + 1, ..wanted.clone() };
    let by_inode = Wanted { start_ticks: 0, pidfs: 1, ..wanted.clone() };
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let own = Wanted { pid: me, ..Wanted::default() };
    let samples = sample(&[gone, wanted, by_inode, own], false);
    assert_eq!((samples[0], samples[2]), (None, None));
    let tree = samples[1].unwrap();
    assert_eq!((tree.processes, tree.threads), (3, 3));
    assert!(b"RS".contains(&tree.state), "{tree:?}");
    assert!(tree.rss_bytes > 100_000, "{tree:?}");
    assert_eq!((tree.pss_bytes, tree.open_files, tree.read_bytes), (None, None, None));
    let own = samples[3].unwrap();
    assert!(own.threads >= 1 && own.rss_bytes > 1_000_000, "{own:?}");
}

#[test]
fn details_are_of_the_whole_tree() {
    let family = Family::start("sleep 600 & echo ready; wait");
    let tree = sample(&[family.wanted()], true)[0].unwrap();
    assert!(tree.pss_bytes.is_some_and(|pss| pss > 4096 && pss < tree.rss_bytes), "{tree:?}");
    assert!(tree.open_files.is_some_and(|files| (4..50).contains(&files)), "{tree:?}");
    assert!(tree.read_bytes.is_some() && tree.written_bytes.is_some(), "{tree:?}");
}

#[test]
fn time_spent_is_seen_and_stays_seen_after_the_end_of_a_child() {
    let loops = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let family = Family::start(&format!("sh -c '{loops}'; echo ready; sleep 600"));
    let tree = sample(&[family.wanted()], false)[0].unwrap();
    assert!(tree.cpu_us >= 10_000, "{tree:?}");
}

#[test]
fn members_of_a_group_and_of_groups_in_it_belong_to_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let family = Family::start("echo ready; sleep 600");
    let other = family.wanted().pid;
    put(&dir.path().join("cgroup.procs"), &format!("{me}\n"));
    put(&dir.path().join("inner/cgroup.procs"), &format!("{other}\n"));
    put(&dir.path().join("cpu.stat"), "usage_usec 123456\nuser_usec 1\n");
    put(&dir.path().join("memory.current"), "7654321\n");
    let wanted = Wanted { pid: me, group: Some(dir.path().to_owned()), ..Wanted::default() };
    let found = members(&wanted);
    assert!(found.contains(&me) && found.contains(&other), "{found:?}");
    let seen = sample(std::slice::from_ref(&wanted), false)[0].unwrap();
    assert_eq!((seen.cpu_us, seen.rss_bytes), (123_456, 7_654_321));
    // A group in which the main process is not tells nothing about it.
    put(&dir.path().join("cgroup.procs"), "\n");
    assert_eq!(members(&wanted).first(), Some(&me));
    assert_ne!(sample(&[wanted], false)[0].unwrap().cpu_us, 123_456);
}
