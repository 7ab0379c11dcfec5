//! When an ended run is followed by another, how soon, and when that stops.

use serde_json::Value;

use crate::common::{Daemon, job, until};

const QUICK: &str = "backoff = { initial = \"1ms\", max = \"1ms\" }\nstart_limit = { count = 0 }\n";

fn lines(daemon: &Daemon, file: &str) -> Vec<String> {
    daemon.read(file).lines().map(str::to_owned).collect()
}

#[test]
fn always_restarts_after_a_clean_exit_with_a_new_run_id_and_the_next_attempt() {
    let daemon =
        Daemon::start(&job("j", "mark @dir@/marks exit 0", &format!("restart = \"always\"\n{QUICK}")));
    until("five starts", || (lines(&daemon, "marks").len() >= 5).then_some(()));
    let marks = lines(&daemon, "marks");
    let mut runs = Vec::new();
    for (n, mark) in marks.iter().enumerate() {
        let words: Vec<&str> = mark.split(' ').collect();
        assert_eq!(words[3], (n + 1).to_string(), "{marks:?}");
        runs.push(words[2].to_owned());
    }
    let in_order = runs.clone();
    runs.sort();
    runs.dedup();
    assert_eq!(runs, in_order, "run ids are new each time and sort by time");
    assert!(daemon.job("j")["restarts"].as_u64().unwrap() >= 4);
}

#[test]
fn on_failure_restarts_failures_only_and_success_codes_say_what_that_is() {
    let config = [
        job("clean", "mark @dir@/clean exit 0", &format!("restart = \"on-failure\"\n{QUICK}")),
        job("failing", "mark @dir@/failing exit 1", &format!("restart = \"on-failure\"\n{QUICK}")),
        job("killed", "mark @dir@/killed signal KILL", &format!("restart = \"on-failure\"\n{QUICK}")),
        job(
            "seven",
            "mark @dir@/seven exit 7",
            &format!("restart = \"on-failure\"\nsuccess_codes = [0, 7]\n{QUICK}"),
        ),
    ];
    let daemon = Daemon::start(&config.concat());
    until("three failures", || (lines(&daemon, "failing").len() >= 3).then_some(()));
    until("three kills", || (lines(&daemon, "killed").len() >= 3).then_some(()));
    assert_eq!(daemon.wait_state("clean", "exited")["outcome"]["code"], 0);
    assert_eq!(daemon.wait_state("seven", "exited")["outcome"]["code"], 7);
    assert_eq!(lines(&daemon, "clean").len(), 1);
    assert_eq!(lines(&daemon, "seven").len(), 1);
}

#[test]
fn never_means_once() {
    let daemon = Daemon::start(
        &[
            job("never", "mark @dir@/never exit 1", &format!("restart = \"never\"\n{QUICK}")),
            job("other", "mark @dir@/other exit 1", &format!("restart = \"always\"\n{QUICK}")),
        ]
        .concat(),
    );
    assert_eq!(daemon.wait_state("never", "exited")["outcome"]["code"], 1);
    until("others go on", || (lines(&daemon, "other").len() >= 5).then_some(()));
    assert_eq!(lines(&daemon, "never").len(), 1);
}

#[test]
fn a_task_is_not_restarted_unless_it_says_so() {
    let daemon = Daemon::start(&job("t", "mark @dir@/t exit 1", "kind = \"task\""));
    daemon.wait_state("t", "exited");
    assert_eq!(lines(&daemon, "t").len(), 1);
}

#[test]
fn the_delay_grows_by_its_factor_up_to_its_maximum() {
    let daemon = Daemon::start(&job(
        "j",
        "exit 1",
        "restart = \"always\"\nstart_limit = { count = 0 }\n\
         backoff = { initial = \"40ms\", factor = 2.0, max = \"160ms\", jitter = 0.0, reset_after = \"1m\" }",
    ));
    let delays: Vec<u64> = until("five delays", || {
        let backoffs = daemon.events_of("job.backoff", "j");
        (backoffs.len() >= 5).then(|| backoffs.iter().map(delay_ms).collect())
    });
    assert_eq!(delays[..5], [40, 80, 160, 160, 160]);
    // Nothing starts before it is due.
    let events = daemon.events();
    for (n, backoff) in events.iter().enumerate().filter(|(_, e)| e["k"] == "job.backoff") {
        if let Some(next) = events[n..].iter().find(|e| e["k"] == "run.requested") {
            assert!(next["at"]["m"].as_u64() >= backoff["until"]["m"].as_u64(), "{backoff} {next}");
        }
    }
}

/// From the decision to the next try.
fn delay_ms(backoff: &Value) -> u64 {
    let (from, to) = (backoff["m"].as_u64().unwrap(), backoff["until"]["m"].as_u64().unwrap());
    (to - from + 500) / 1000
}

#[test]
fn the_delay_is_shown_while_it_lasts() {
    let daemon = Daemon::start(&job(
        "j",
        "exit 1",
        "restart = \"always\"\nbackoff = { initial = \"1h\", max = \"1h\", jitter = 0.0 }",
    ));
    let job = daemon.wait_state("j", "backoff");
    assert_eq!(job["want"], "up", "{job:#}");
    assert!(job["next_try"].is_string(), "{job:#}");
    assert!(job["pid"].is_null(), "{job:#}");
    // Who starts it by hand does not wait.
    daemon.cli(["start", "j"]).expect(0);
    until("a second run", || (daemon.events_of("run.ended", "j").len() == 2).then_some(()));
}

#[test]
fn too_many_starts_are_fatal_and_a_start_by_hand_begins_anew() {
    let daemon = Daemon::start(&job(
        "j",
        "mark @dir@/marks exit 1",
        "restart = \"always\"\nbackoff = { initial = \"1ms\", max = \"1ms\" }\n\
         start_limit = { count = 3, within = \"1m\" }",
    ));
    let job = daemon.wait_state("j", "fatal");
    assert_eq!(lines(&daemon, "marks").len(), 3);
    assert!(!job["reason"].as_str().unwrap().is_empty(), "{job:#}");
    assert_eq!(job["outcome"]["code"], 1, "{job:#}");
    daemon.cli(["start", "j"]).expect(0);
    until("more starts", || (lines(&daemon, "marks").len() > 3).then_some(()));
}

#[test]
fn a_run_shorter_than_its_start_grace_is_a_failure_whatever_its_code() {
    let daemon = Daemon::start(&job(
        "j",
        "mark @dir@/marks exit 0",
        &format!("restart = \"on-failure\"\nstart_grace = \"10s\"\n{QUICK}"),
    ));
    until("another try", || (lines(&daemon, "marks").len() >= 2).then_some(()));
}

#[test]
fn a_job_is_starting_until_its_grace_is_over() {
    let daemon = Daemon::start(
        &[job("slow", "hang", "start_grace = \"1h\""), job("quick", "hang", "start_grace = \"50ms\"")]
            .concat(),
    );
    daemon.wait_running("quick");
    let slow = daemon.wait_job("slow", "there", |job| job["pid"].is_i64());
    assert_eq!(slow["state"], "starting", "{slow:#}");
}

#[test]
fn restart_by_hand_replaces_the_run() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    let (pid, run) = daemon.wait_running("j");
    daemon.cli(["restart", "j"]).expect(0);
    let (new_pid, _) = daemon.wait_next_run("j", &run);
    assert_ne!(new_pid, pid);
    let ended = daemon.events_of("run.ended", "j");
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["record"]["outcome"]["signal"], 15);
    assert_eq!(ended[0]["record"]["asked"]["operator"]["verb"], "restart", "{:#}", ended[0]);
    assert_eq!(daemon.job("j")["want"], "up");
}
