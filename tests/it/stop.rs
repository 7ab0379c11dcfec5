//! How a job is stopped: the ladder, whom it reaches, and that it stays stopped.

use std::time::Duration;

use crate::common::{Daemon, job, pid_of, procs, until};

#[test]
fn stop_ends_a_job_by_term_and_it_stays_down() {
    let daemon = Daemon::start(&job("j", "hang", "restart = \"always\""));
    daemon.wait_running("j");
    daemon.cli(["stop", "j"]).expect(0);
    let job = daemon.wait_state("j", "stopped");
    assert_eq!(job["want"], "down", "{job:#}");
    assert_eq!(job["outcome"]["signal"], 15, "{job:#}");
    assert_eq!(job["outcome"]["asked"]["operator"]["verb"], "stop", "{job:#}");
    assert!(job["pid"].is_null(), "{job:#}");
    assert_eq!(daemon.events_of("run.requested", "j").len(), 1);
    // Once more is no error.
    daemon.cli(["stop", "j"]).expect(0);
    daemon.cli(["start", "j"]).expect(0);
    daemon.wait_running("j");
}

#[test]
fn who_ignores_term_is_killed_when_the_time_is_over() {
    let daemon = Daemon::start(&job(
        "j",
        "ignore TERM print ready\\n hang",
        "stop = { signal = \"TERM\", timeout = \"200ms\" }",
    ));
    daemon.wait_line("j", "ready");
    daemon.cli(["stop", "j"]).expect(0);
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 9);
}

#[test]
fn the_ladder_is_climbed_rung_by_rung() {
    let daemon = Daemon::start(&job(
        "j",
        "ignore INT HUP print ready\\n hang",
        "stop = [{ signal = \"INT\", timeout = \"50ms\" }, { signal = \"HUP\", timeout = \"50ms\" }, \
         { signal = \"USR1\", timeout = \"30s\" }]",
    ));
    daemon.wait_line("j", "ready");
    daemon.cli(["stop", "j"]).expect(0);
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 10);
}

#[test]
fn a_stopped_process_hears_term() {
    let daemon = Daemon::start(&job("j", "stop-self hang", "stop = { signal = \"TERM\", timeout = \"1h\" }"));
    let (pid, _) = daemon.wait_running("j");
    until("a stopped process", || procs::stat(pid).filter(|fields| fields[0] == "T"));
    daemon.cli(["stop", "j"]).expect(0);
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 15);
}

#[test]
fn a_command_can_stop_a_job() {
    let daemon = Daemon::start(&job(
        "j",
        "hang",
        "stop = { command = [\"/bin/sh\", \"-c\", \
         \"echo $OUTLIVE_PID $OUTLIVE_JOB > @dir@/stopped; kill -USR1 $OUTLIVE_PID\"], timeout = \"1h\" }",
    ));
    let (pid, _) = daemon.wait_running("j");
    daemon.cli(["stop", "j"]).expect(0);
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 10);
    assert_eq!(daemon.read("stopped"), format!("{pid} j\n"));
}

#[test]
fn a_stop_command_that_fails_is_followed_by_the_next_rung() {
    let daemon = Daemon::start(&job(
        "j",
        "hang",
        "stop = [{ command = [\"/bin/false\"], timeout = \"1h\" }, { signal = \"USR2\", timeout = \"1h\" }]",
    ));
    daemon.wait_running("j");
    daemon.cli(["stop", "j"]).expect(0);
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 12);
}

#[test]
fn a_stop_command_is_ended_with_its_rung() {
    let daemon = Daemon::start(&job(
        "j",
        "hang",
        "stop = [{ command = [\"/bin/sh\", \"-c\", \"echo $$$$ > @dir@/stops; exec sleep 1000\"], timeout = \"300ms\" }, \
         { signal = \"USR2\", timeout = \"1h\" }]",
    ));
    daemon.wait_running("j");
    daemon.cli(["stop", "j"]).expect(0);
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 12);
    let command: i32 = daemon.read("stops").trim().parse().unwrap();
    until("its end", || (!procs::is_alive(command)).then_some(()));
}

/// Starts a job with a child in its group and a grandchild in a session of its own, stops it, and says
/// who of the two is still there.
fn after_stop(scope: &str) -> (bool, bool) {
    let daemon = Daemon::start(&job(
        "j",
        "leave-child daemonise print ready\\n hang",
        &format!("kill_scope = \"{scope}\"\nleftovers = \"ignore\""),
    ));
    let log = daemon.wait_line("j", "ready");
    let pid = |word: &str| -> i32 {
        log.lines().find_map(|l| l.strip_prefix(word)).unwrap().trim().parse().unwrap()
    };
    let handles = [pid("child "), pid("daemon ")].map(|pid| procs::handle(pid).unwrap());
    daemon.cli(["stop", "j"]).expect(0);
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 15);
    // A signal that was sent before the end of the main process was seen has been delivered by now or is
    // about to be.
    let [child, grandchild] = handles.map(|h| !procs::wait_dead(&h, Duration::from_millis(300)));
    (child, grandchild)
}

#[test]
fn the_stop_signal_reaches_whom_the_scope_says() {
    assert_eq!(after_stop("process"), (true, true));
    assert_eq!(after_stop("mixed"), (true, true));
    assert_eq!(after_stop("group"), (false, true));
    assert_eq!(after_stop("tree"), (false, false));
}

#[test]
fn mixed_kills_the_whole_tree_of_who_does_not_listen() {
    let daemon = Daemon::start(&job(
        "j",
        "ignore TERM leave-child daemonise print ready\\n hang",
        "stop = { signal = \"TERM\", timeout = \"100ms\" }",
    ));
    daemon.wait_line("j", "ready");
    let (_, run) = daemon.wait_running("j");
    let handles: Vec<_> = procs::of_run(daemon.home(), &run).into_iter().filter_map(procs::handle).collect();
    assert_eq!(handles.len(), 3);
    daemon.cli(["stop", "j"]).expect(0);
    daemon.wait_state("j", "stopped");
    assert!(procs::of_run(daemon.home(), &run).is_empty());
}

#[test]
fn stop_ends_a_series_of_tries() {
    let daemon = Daemon::start(&job(
        "j",
        "exit 1",
        "restart = \"always\"\nbackoff = { initial = \"1h\", max = \"1h\" }",
    ));
    daemon.wait_state("j", "backoff");
    daemon.cli(["stop", "j"]).expect(0);
    let job = daemon.wait_state("j", "stopped");
    assert!(job["next_try"].is_null(), "{job:#}");
}

#[test]
fn a_signal_by_hand_is_only_a_signal() {
    let daemon = Daemon::start(&job("j", "hang", "restart = \"always\"\nbackoff = { initial = \"1ms\" }"));
    let (_, run) = daemon.wait_running("j");
    daemon.cli(["signal", "USR1", "j"]).expect(0);
    daemon.wait_next_run("j", &run);
    let ended = daemon.events_of("run.ended", "j");
    assert_eq!(ended[0]["record"]["outcome"]["signal"], 10, "{ended:#?}");
    assert_eq!(daemon.job("j")["want"], "up");
}

#[test]
fn a_stop_that_was_begun_goes_on_under_a_new_supervisor() {
    let mut daemon = Daemon::start(&job(
        "j",
        "ignore TERM print ready\\n hang",
        "stop = { signal = \"TERM\", timeout = \"1s\" }",
    ));
    daemon.wait_line("j", "ready");
    daemon.cli(["stop", "--no-wait", "j"]).expect(0);
    let pid = pid_of(&daemon.wait_state("j", "stopping"));
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let job = daemon.wait_state("j", "stopped");
    assert_eq!(job["outcome"]["signal"], 9, "{job:#}");
    assert_eq!(job["want"], "down", "{job:#}");
    assert!(!procs::is_alive(pid));
}

#[test]
fn a_job_that_is_still_being_started_is_stopped_when_it_has_been() {
    // More than can be started at once: most are asked to stop while they wait for their start.
    let jobs: String = (0..40).map(|n| job(&format!("j{n}"), "hang", "autostart = false")).collect();
    let daemon = Daemon::start(&jobs);
    daemon.cli(["start", "*"]).expect(0);
    daemon.cli(["stop", "*"]).expect(0);
    for n in 0..40 {
        let job = daemon.wait_state(&format!("j{n}"), "stopped");
        assert_eq!(job["pid"], serde_json::Value::Null, "{job:#}");
    }
    let left = daemon.processes().into_iter().filter(|p| matches!(p.part, procs::Part::Run(_)));
    assert_eq!(left.count(), 0);
}

/// Prints a line for each of the signals, and ends well by USR1.
fn counting(name: &str, signal: &str, keys: &str) -> String {
    let script = format!(
        "trap \"echo told\" {signal}; trap \"exit 0\" USR1; echo ready; while :; do /bin/sleep 0.02; done"
    );
    format!("[job.{name}]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n{keys}\n")
}

#[test]
fn a_signal_of_the_ladder_is_sent_once_over_the_deaths_of_supervisor_and_keeper() {
    let mut daemon = Daemon::start(&counting("j", "INT", "stop = { signal = \"INT\", timeout = \"1h\" }"));
    let (pid, _) = daemon.wait_running("j");
    daemon.wait_line("j", "ready");
    daemon.cli(["stop", "--no-wait", "j"]).expect(0);
    daemon.wait_line("j", "told");
    for role in ["supervisor", "keeper", "supervisor"] {
        let old = daemon.kill_role(role);
        daemon.wait_role_back(role, old);
    }
    assert_eq!(daemon.events_of("run.stop_step", "j").len(), 1, "its time has not begun anew");
    procs::send(&procs::handle(pid).unwrap(), rustix::process::Signal::USR1);
    let ended = daemon.wait_state("j", "stopped");
    assert_eq!(ended["outcome"]["code"], 0, "{ended:#}");
    assert_eq!(ended["outcome"]["asked"]["operator"]["verb"], "stop", "{ended:#}");
    assert_eq!(daemon.log("j"), "ready\ntold\n");
}

#[test]
fn a_keeper_that_dies_before_it_has_sent_the_signal_is_followed_by_one_that_sends_it() {
    let mut daemon = Daemon::prepare(&counting("j", "INT", "stop = { signal = \"INT\", timeout = \"1h\" }"));
    daemon.up();
    let (pid, _) = daemon.wait_running("j");
    daemon.wait_line("j", "ready");
    // Stopped, it takes no request.
    let keeper = daemon.role("keeper");
    let handle = procs::handle(keeper).unwrap();
    procs::send(&handle, rustix::process::Signal::STOP);
    daemon.cli(["stop", "--no-wait", "j"]).expect(0);
    until("the rung", || (!daemon.events_of("run.stop_step", "j").is_empty()).then_some(()));
    assert_eq!(daemon.log("j"), "ready\n");
    daemon.kill_role("keeper");
    daemon.wait_role_back("keeper", keeper);
    daemon.wait_line("j", "told");
    procs::send(&procs::handle(pid).unwrap(), rustix::process::Signal::USR1);
    daemon.wait_state("j", "stopped");
    assert_eq!(daemon.log("j"), "ready\ntold\n");
}

#[test]
fn the_time_of_a_rung_goes_on_while_the_supervisor_is_away() {
    // The rung is over when nobody is there to see it: KILL follows as soon as somebody is.
    let mut daemon =
        Daemon::start(&counting("j", "INT", "stop = { signal = \"INT\", timeout = \"1500ms\" }"));
    daemon.wait_running("j");
    daemon.wait_line("j", "ready");
    daemon.cli(["stop", "--no-wait", "j"]).expect(0);
    daemon.wait_line("j", "told");
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 9);
    let steps = daemon.events_of("run.stop_step", "j");
    let kills: Vec<bool> = steps.iter().map(|step| step["kill"] == true).collect();
    assert_eq!(kills[..2], [false, true], "{steps:#?}");
    assert_eq!(daemon.log("j"), "ready\ntold\n");
}
