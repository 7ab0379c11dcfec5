//! What the runs of a job came to is counted from what was recorded, whoever was killed meanwhile.

use serde_json::{Value, json};

use crate::common::{Daemon, job, until};

fn stats(daemon: &Daemon, name: &str) -> Value {
    daemon.get(&format!("/v1/jobs/{name}")).unwrap().json()["stats"].clone()
}

/// One that fails until it is given up, one that is over, one that has never run, and one that runs: its run.
pub fn four_fates() -> (Daemon, String) {
    let again =
        "restart = \"always\"\nbackoff = { initial = \"10ms\", max = \"10ms\" }\nstart_limit = { count = 3 }";
    let config = [
        job("failing", "exit 3", again),
        job("once", "exit 0", "kind = \"task\""),
        job("never", "hang", "autostart = false"),
        job("steady", "hang", ""),
    ];
    let daemon = Daemon::start(&config.concat());
    daemon.wait_state("failing", "fatal");
    daemon.wait_ended("once");
    let (_, run) = daemon.wait_running("steady");
    (daemon, run)
}

#[test]
fn ends_are_counted_by_cause_and_restarts_are_timed() {
    let (mut daemon, run) = four_fates();
    daemon.cli(["restart", "steady"]).expect(0);
    daemon.wait_next_run("steady", &run);

    let failing = stats(&daemon, "failing");
    assert_eq!((&failing["starts"], &failing["exits"]["failed"]), (&json!(3), &json!(3)), "{failing:#}");
    let times = &failing["restart_time"];
    let ms = |which: &str| times[which].as_u64().unwrap();
    assert_eq!(times["samples"], 2, "{failing:#}");
    assert!(
        ms("p50_ms") >= 10 && ms("p95_ms") >= ms("p50_ms") && ms("p99_ms") >= ms("p95_ms"),
        "{failing:#}"
    );
    assert!(failing["max_rss_kib"].as_u64().unwrap() > 0, "{failing:#}");
    let steady = stats(&daemon, "steady");
    assert_eq!(
        (&steady["exits"]["asked"], &steady["restart_time"]["samples"]),
        (&json!(1), &json!(1)),
        "{steady:#}"
    );
    assert_eq!(stats(&daemon, "once")["exits"]["ok"], 1);
    assert_eq!(
        (stats(&daemon, "never")["starts"].clone(), stats(&daemon, "never")["restart_time"].clone()),
        (json!(0), Value::Null)
    );
    let uptime = |stats: &Value| stats["uptime_ms"].as_u64().unwrap();
    until("the live run to be counted", || {
        (uptime(&stats(&daemon, "steady")) > uptime(&steady)).then_some(())
    });

    // The next supervisor has read the same.
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(stats(&daemon, "failing"), failing);
    let all = daemon.cli(["stats", "--json"]).expect(0).json();
    assert_eq!(all.as_array().unwrap().len(), 4);
    assert_eq!(all[0], json!({ "name": "failing", "stats": failing }));
    let text = daemon.cli(["stats", "failing", "once"]).expect(0).text();
    assert!(text.contains("3 failed") && text.contains("1 ok") && !text.contains("steady"), "{text}");
    assert_eq!(daemon.cli(["stats", "nobody"]).code, 1);
}
