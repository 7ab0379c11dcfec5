//! What outlives the main process of its run: found, waited for, stopped or left alone as told; and a new
//! run never starts before the old one's tree is gone.

use serde_json::Value;

use crate::common::{Daemon, job, procs, until};

const QUICK: &str = "restart = \"always\"\nbackoff = { initial = \"1ms\" }\nstart_limit = { count = 0 }\n";

/// The process that a line such as `daemon 123` names.
fn named(log: &str, word: &str) -> i32 {
    let line = log.lines().find_map(|l| l.strip_prefix(word));
    line.unwrap_or_else(|| panic!("no {word} in {log:?}")).trim().parse().unwrap()
}

/// The tree of run `n` was gone before run `n + 1` was asked for.
fn assert_one_tree_at_a_time(events: &[Value]) {
    let mut busy: Option<&Value> = None;
    for event in events {
        match event["k"].as_str().unwrap() {
            "run.requested" => {
                assert!(busy.is_none(), "asked for beside {}: {event}", busy.unwrap());
                busy = Some(event);
            }
            "run.ended" if event["leftovers"] == false => busy = None,
            "run.tree_gone" => busy = None,
            _ => {}
        }
    }
}

#[test]
fn a_daemonised_grandchild_is_stopped_before_the_next_run() {
    let mut daemon = Daemon::prepare(&job("j", "daemonise gate @dir@/door exit 0", QUICK));
    let mut door = daemon.gate("door");
    daemon.up();
    let (_, run) = daemon.wait_running("j");
    let log = daemon.wait_log("j", "daemon", |log| log.starts_with("daemon ") && log.ends_with('\n'));
    let grandchild = named(&log, "daemon ");
    assert!(procs::is_alive(grandchild));
    door.release();
    daemon.wait_next_run("j", &run);
    assert!(!procs::is_alive(grandchild));
    assert_one_tree_at_a_time(&daemon.events());
}

#[test]
fn leftovers_that_ignore_term_are_killed() {
    let daemon = Daemon::start(&job(
        "j",
        "ignore TERM daemonise exit 0",
        "kind = \"task\"\nstop = { signal = \"TERM\", timeout = \"100ms\" }",
    ));
    let outcome = daemon.wait_ended("j");
    assert_eq!(outcome["code"], 0, "the main process ended by itself: {outcome:#}");
    let run = daemon.job("j")["run"].as_str().unwrap().to_owned();
    until("an empty tree", || procs::of_run(daemon.home(), &run).is_empty().then_some(()));
}

#[test]
fn a_child_that_closed_its_output_is_found_by_its_session() {
    let daemon = Daemon::start(&job("j", "leave-child exit 0", "kind = \"task\""));
    daemon.wait_ended("j");
    let run = daemon.job("j")["run"].as_str().unwrap().to_owned();
    until("an empty tree", || procs::of_run(daemon.home(), &run).is_empty().then_some(()));
}

#[test]
fn the_end_of_the_last_of_several_is_seen() {
    // Without output, nothing but their own ends tells of them.
    let mut daemon = Daemon::prepare(&format!(
        "[job.j]\nleftovers = \"wait\"\n{QUICK}
command = [\"/bin/sh\", \"-c\", \"for n in 1 2 3; do sh -c \\\"read x < @dir@/door$n\\\" >/dev/null 2>&1 & done; exit 0\"]\n"
    ));
    let mut doors = [1, 2, 3].map(|n| daemon.gate(&format!("door{n}")));
    daemon.up();
    let first = until("leftovers", || {
        let ended = daemon.events_of("run.ended", "j");
        let run = ended.first().filter(|e| e["leftovers"] == true)?["record"]["run"].as_str()?.to_owned();
        (procs::of_run(daemon.home(), &run).len() == 3).then_some(run)
    });
    for (n, door) in doors.iter_mut().enumerate() {
        assert_eq!(daemon.events_of("run.requested", "j").len(), 1, "nothing starts beside the rest");
        door.release_line();
        until("the end of one", || (procs::of_run(daemon.home(), &first).len() == 2 - n).then_some(()));
    }
    until("the next run", || (daemon.events_of("run.requested", "j").len() > 1).then_some(()));
}

#[test]
fn wait_lets_them_finish_and_keeps_what_they_say() {
    let mut daemon = Daemon::prepare(&format!(
        "[job.j]\nleftovers = \"wait\"\n{QUICK}
command = [\"/bin/sh\", \"-c\", \"(setsid sh -c 'read x < @dir@/door; echo bye') & echo hello; exit 0\"]\n"
    ));
    let mut door = daemon.gate("door");
    daemon.up();
    let (first, leftovers) = until("leftovers", || {
        let ended = daemon.events_of("run.ended", "j");
        let last = ended.iter().find(|e| e["leftovers"] == true)?;
        let run = last["record"]["run"].as_str()?.to_owned();
        let alive = procs::of_run(daemon.home(), &run);
        (!alive.is_empty()).then_some((run, alive))
    });
    let before = daemon.events_of("run.requested", "j").len();
    assert!(leftovers.iter().all(|pid| procs::is_alive(*pid)));
    assert_eq!(daemon.events_of("run.requested", "j").len(), before, "nothing starts beside it");
    assert_eq!(daemon.raw("j", Some(&first)), b"hello\n");
    door.release_line();
    // The next run is over in a moment, too: its request is what stays visible.
    until("the next run", || (daemon.events_of("run.requested", "j").len() > before).then_some(()));
    assert_eq!(daemon.raw("j", Some(&first)), b"hello\nbye\n");
    assert_one_tree_at_a_time(&daemon.events());
}

#[test]
fn ignore_leaves_them_alone() {
    let mut daemon = Daemon::prepare(&job(
        "j",
        "daemonise gate @dir@/door exit 0",
        &format!("leftovers = \"ignore\"\n{QUICK}"),
    ));
    let mut door = daemon.gate("door");
    daemon.up();
    let (_, run) = daemon.wait_running("j");
    let log = daemon.wait_log("j", "daemon", |log| log.starts_with("daemon ") && log.ends_with('\n'));
    door.release();
    daemon.wait_next_run("j", &run);
    let grandchild = named(&log, "daemon ");
    assert!(procs::is_alive(grandchild));
    daemon.cli(["stop", "j"]).expect(0);
    daemon.wait_state("j", "stopped");
    assert!(procs::is_alive(grandchild));
}

#[test]
fn leftovers_are_known_to_the_next_supervisor_and_the_next_keeper() {
    for role in ["supervisor", "keeper"] {
        let mut daemon =
            Daemon::prepare(&job("j", "daemonise exit 0", &format!("leftovers = \"wait\"\n{QUICK}")));
        daemon.up();
        let ended = until("leftovers", || {
            daemon.events_of("run.ended", "j").into_iter().find(|e| e["leftovers"] == true)
        });
        let run = ended["record"]["run"].as_str().unwrap().to_owned();
        let old = daemon.kill_role(role);
        daemon.wait_role_back(role, old);
        let requested = daemon.events_of("run.requested", "j").len();
        let left = until("one leftover", || {
            let left = procs::of_run(daemon.home(), &run);
            (left.len() == 1).then(|| left[0])
        });
        assert_eq!(daemon.events_of("run.requested", "j").len(), requested, "nothing starts beside it");
        procs::send(&procs::handle(left).unwrap(), rustix::process::Signal::KILL);
        until("the next run", || (daemon.events_of("run.requested", "j").len() > requested).then_some(()));
        assert_one_tree_at_a_time(&daemon.events());
    }
}
