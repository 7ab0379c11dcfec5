//! Incidents are counted once, whoever dies meanwhile; what somebody should look at is said, survives, and ends.

use serde_json::{Value, json};

use crate::common::{Daemon, job, procs, until};
use crate::metrics::metrics;

/// Fails as long as its door is not there, and waits at it for ever once it is.
fn without_door(more: &str) -> String {
    job("web", "print-err no-door\\n gate @dir@/door hang", more)
}

const QUICK: &str =
    "restart = \"always\"\nbackoff = { initial = \"20ms\", max = \"20ms\" }\nstart_limit = { count = 0 }";

fn alerts(daemon: &Daemon) -> Value {
    daemon.get("/api/alerts").unwrap().json()
}

/// Alerts of a list in short.
fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|alert| alert["id"].as_str().unwrap()).collect()
}

/// How often the event log says this of an alert.
fn said(daemon: &Daemon, kind: &str, id: &str) -> usize {
    daemon.events().iter().filter(|event| event["k"] == kind && event["id"] == id).count()
}

fn recovery(daemon: &Daemon) -> Value {
    daemon.get("/api/admin/recovery/metrics").unwrap().json()
}

#[test]
fn a_crash_loop_is_said_survives_the_supervisor_and_is_over_when_the_job_is_up() {
    let mut daemon = Daemon::start(&without_door(QUICK));
    let raised = until("the alert", || {
        Some(alerts(&daemon)).filter(|alerts| ids(&alerts["raised"]).contains(&"CRASH_LOOP"))
    });
    let one = raised["raised"].as_array().unwrap().iter().find(|alert| alert["id"] == "CRASH_LOOP").unwrap();
    assert_eq!((&one["subject"], &one["severity"]), (&json!("web"), &json!("critical")), "{one:#}");
    let patterns = until("what the failures have in common", || {
        let patterns = daemon.job("web")["patterns"].as_array().cloned().unwrap_or_default();
        patterns.iter().any(|words| words.as_str().unwrap().contains("same last line")).then_some(patterns)
    });
    assert!(patterns.iter().any(|words| words.as_str().unwrap().contains("exit 98")), "{patterns:?}");
    let status = daemon.cli(["status", "web"]).text();
    assert!(status.contains("alert (critical)") && status.contains("web: died"), "{status}");
    assert!(
        metrics(&daemon).contains_key(r#"outlive_alert{id="CRASH_LOOP",subject="web",severity="critical"}"#)
    );
    let common = recovery(&daemon)["common_failure_patterns"].clone();
    assert!(!common.as_array().unwrap().is_empty());

    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let after = alerts(&daemon);
    let still = after["raised"].as_array().unwrap().iter().find(|alert| alert["id"] == "CRASH_LOOP");
    assert_eq!(still.map(|alert| &alert["since"]), Some(&one["since"]), "{after:#}");
    assert_eq!(said(&daemon, "alert.raised", "CRASH_LOOP"), 1);

    let _door = daemon.gate("door");
    let over = until("the end of the alert", || {
        Some(alerts(&daemon)).filter(|alerts| ids(&alerts["recent"]).contains(&"CRASH_LOOP"))
    });
    assert!(!ids(&over["raised"]).contains(&"CRASH_LOOP"), "{over:#}");
    assert_eq!(said(&daemon, "alert.cleared", "CRASH_LOOP"), 1);
    let recovery = recovery(&daemon);
    assert_eq!((&recovery["open"], &recovery["failed"]), (&json!(0), &json!(0)), "{recovery:#}");
    assert!(recovery["by_cause"]["failed"]["recovered"].as_u64().unwrap() >= 5, "{recovery:#}");
}

#[test]
fn a_recovery_is_counted_once_over_the_death_of_a_supervisor() {
    let slow = "restart = \"always\"\nbackoff = { initial = \"2s\", max = \"2s\" }";
    let mut daemon = Daemon::start(&job("web", "hang", slow));
    let (pid, run) = daemon.wait_running("web");
    assert_eq!(recovery(&daemon)["recovery_success_rate"], Value::Null);
    procs::send(&procs::handle(pid).unwrap(), rustix::process::Signal::KILL);
    daemon.wait_state("web", "backoff");
    assert_eq!(metrics(&daemon)[r#"outlive_job_incident{job="web"}"#], 1.0);
    assert_eq!(recovery(&daemon)["open"], 1);
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    daemon.wait_next_run("web", &run);
    let once = |daemon: &Daemon| {
        let now = metrics(daemon);
        assert_eq!(now[r#"outlive_recoveries_total{cause="signal",result="recovered"}"#], 1.0);
        assert_eq!(now[r#"outlive_recovery_seconds_bucket{le="1"}"#], 0.0, "it has waited for two seconds");
        assert_eq!(now["outlive_recovery_seconds_count"], 1.0);
        assert!(!now.contains_key(r#"outlive_job_incident{job="web"}"#));
        assert!(now[r#"outlive_availability_ratio{job="web"}"#] < 1.0);
        let recovery = recovery(daemon);
        assert_eq!((&recovery["recovered"], &recovery["open"]), (&json!(1), &json!(0)), "{recovery:#}");
        assert_eq!((&recovery["failed"], &recovery["recovery_success_rate"]), (&json!(0), &json!(1.0)));
        assert!(recovery["p99_seconds"].as_f64().unwrap() >= 2.0, "{recovery:#}");
        recovery["by_cause"].clone()
    };
    let counted = once(&daemon);
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(once(&daemon), counted);
    // In order, and from the checkpoint at the end.
    daemon.cli(["shutdown"]).expect(0);
    daemon.restart();
    assert_eq!(once(&daemon), counted);
    let text = daemon.cli(["recover", "metrics"]).expect(0).text();
    assert!(text.contains("1 recovered, 0 failed (100.0 %), 0 open"), "{text}");
}

#[test]
fn what_is_given_up_has_failed_and_is_said_until_somebody_stops_it() {
    let limit = "restart = \"always\"\nbackoff = { initial = \"0s\" }\nstart_limit = { count = 2 }";
    let daemon = Daemon::start(&job("web", "exit 3", limit));
    daemon.wait_state("web", "fatal");
    until("the alert", || ids(&alerts(&daemon)["raised"]).contains(&"CRASH_LOOP").then_some(()));
    let now = recovery(&daemon);
    assert_eq!((&now["recovered"], &now["failed"]), (&json!(1), &json!(1)), "{now:#}");
    assert_eq!(now["recovery_success_rate"], 0.5);
    daemon.cli(["stop", "web"]).expect(0);
    until("the end of the alert", || alerts(&daemon)["raised"].as_array().unwrap().is_empty().then_some(()));
    assert_eq!(said(&daemon, "alert.cleared", "CRASH_LOOP"), 1);
    assert!(daemon.status()["alerts"].is_null());
}

/// How much is raised of what, and about whom.
fn raised(daemon: &Daemon, id: &str) -> Vec<Value> {
    let all = alerts(daemon)["raised"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|alert| alert["id"] == id).collect()
}

#[test]
fn a_full_disk_and_used_up_memory_are_said_as_the_checks_find_them() {
    let with = |share: &str| {
        let quiet = "inodes = \"off\"\nopen_files = \"off\"\npids = \"off\"\non_disk = []\non_memory = []\n";
        let limits = format!("disk = \"{share}\"\nmemory = \"{share}\"\n");
        format!("[health]\ninterval = \"50ms\"\nheal_after = 3\n{quiet}{limits}{}", job("a", "hang", ""))
    };
    // Any machine uses that much.
    let mut daemon = Daemon::start(&with("0.01%"));
    let disk = until("a full disk", || raised(&daemon, "DISK_FULL").into_iter().next());
    assert!(disk["subject"].as_str().unwrap().starts_with("disk:/"), "{disk:#}");
    assert_eq!((&disk["threshold"], &disk["severity"]), (&json!(0.01), &json!("critical")));
    assert!(disk["value"].as_f64().unwrap() >= 0.01, "{disk:#}");
    assert!(disk["message"].as_str().unwrap().contains("the limit is 0.01 %"), "{disk:#}");
    let memory = until("used up memory", || raised(&daemon, "MEMORY_HIGH").into_iter().next());
    assert_eq!(memory["subject"], "memory", "{memory:#}");
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(raised(&daemon, "MEMORY_HIGH")[0]["since"], memory["since"], "it is the same one");
    daemon.write_config(&with("100%"));
    daemon.cli(["reload"]).expect(0);
    until("the end of both", || {
        (raised(&daemon, "DISK_FULL").is_empty() && raised(&daemon, "MEMORY_HIGH").is_empty()).then_some(())
    });
    assert_eq!(said(&daemon, "alert.cleared", "MEMORY_HIGH"), 1);
}

#[test]
fn who_is_up_for_a_while_and_goes_again_and_again_flaps_and_is_in_no_crash_loop() {
    let config = job("web", "sleep 10100ms exit 1", QUICK);
    let daemon = Daemon::start(&config);
    daemon.wait_job("web", "second restart", |job| job["restarts"].as_u64() >= Some(2));
    let one = until("the alert", || raised(&daemon, "FLAPPING").into_iter().next());
    assert_eq!((&one["subject"], &one["threshold"]), (&json!("web"), &json!(6.0)), "{one:#}");
    assert!(raised(&daemon, "CRASH_LOOP").is_empty());
}

#[test]
fn jobs_that_are_given_up_are_failed_recoveries() {
    let limit = "restart = \"always\"\nbackoff = { initial = \"0s\" }\nstart_limit = { count = 2 }";
    let jobs: Vec<String> = (0..10).map(|n| job(&format!("j{n}"), "exit 3", limit)).collect();
    let daemon = Daemon::start(&jobs.concat());
    let one = until("the alert", || raised(&daemon, "RECOVERY_FAILURE_RATE_HIGH").into_iter().next());
    assert_eq!((&one["subject"], &one["severity"]), (&json!("instance"), &json!("critical")), "{one:#}");
    assert!(one["value"].as_f64().unwrap() < 99.0, "{one:#}");
}
