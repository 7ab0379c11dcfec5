//! Circuit breakers, retries of what was given up, groups, and arguments for runs that go on.

use serde_json::Value;

use crate::common::{Daemon, job, until};

/// A job that fails until there is a file `good`.
fn until_good(name: &str, more: &str) -> String {
    format!(
        "[job.{name}]\ncommand = [\"/bin/sh\", \"-c\", \"test -e @dir@/good && exec @misbehave@ hang; exit 1\"]\n\
         restart = \"always\"\nbackoff = {{ initial = \"1ms\", max = \"1ms\" }}\nstart_limit = {{ count = 0 }}\n{more}\n"
    )
}

fn circuit(job: &Value) -> &str {
    job["breaker"].as_str().unwrap_or_default()
}

#[test]
fn an_open_circuit_stays_open_over_the_death_of_the_supervisor_and_only_force_starts_the_job() {
    let config = until_good("j", "breaker = { failures = 3, open_for = \"1h\" }") + &job("plain", "hang", "");
    let mut daemon = Daemon::start(&config);
    let open = daemon.wait_job("j", "an open circuit", |job| circuit(job) == "open");
    assert_eq!(open["state"], "backoff", "{open:#}");
    assert_eq!(open["reason"], "exit 1, 3 failures in a row, the circuit is open");
    let next_try = open["next_try"].as_str().unwrap().to_owned();
    assert!(daemon.job("plain")["breaker"].is_null());
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let after = daemon.job("j");
    assert_eq!((circuit(&after), after["next_try"].as_str()), ("open", Some(&*next_try)), "{after:#}");
    assert_eq!(daemon.events_of("run.requested", "j").len(), 3);
    for verb in ["start", "restart"] {
        let said = daemon.cli([verb, "j"]).expect(1);
        let text = format!("{}{}", said.text(), said.stderr);
        assert!(
            text.contains("the circuit is open after 3 failures in a row; the next try is due at"),
            "{text}"
        );
        assert!(text.contains(&next_try), "{text}");
    }
    let metrics = daemon.get("/metrics").unwrap().text();
    assert!(metrics.contains("outlive_job_breaker_state{job=\"j\",state=\"open\"} 1\n"), "{metrics}");
    assert!(metrics.contains("outlive_job_breaker_state{job=\"j\",state=\"closed\"} 0\n"), "{metrics}");
    assert!(!metrics.contains("outlive_job_breaker_state{job=\"plain\""), "{metrics}");
    daemon.write("good", "");
    daemon.cli(["start", "--force", "j"]).expect(0);
    let running = daemon.wait_state("j", "running");
    assert_eq!(circuit(&running), "closed");
    let audit = daemon.cli(["audit"]).expect(0).text();
    assert!(audit.contains("start --force"), "{audit}");
}

#[test]
fn one_run_is_on_trial_when_the_time_is_over_and_closes_the_circuit_when_it_lasts() {
    let daemon = Daemon::start(
        &until_good("j", "breaker = { failures = 2, open_for = \"400ms\" }")
            .replace("max = \"1ms\"", "max = \"1ms\", reset_after = \"300ms\""),
    );
    // A failed trial opens it again.
    until("two failed trials", || (daemon.events_of("run.on_trial", "j").len() >= 2).then_some(()));
    daemon.write("good", "");
    daemon.wait_job("j", "a closed circuit", |job| job["state"] == "running" && circuit(job) == "closed");
    assert_eq!(daemon.events_of("run.passed_trial", "j").len(), 1);
    // No start before its time.
    let events = daemon.events();
    for (n, open) in events.iter().enumerate().filter(|(_, e)| e["k"] == "job.backoff" && e["failures"] == 2)
    {
        let (from, to) = (open["m"].as_u64().unwrap(), open["until"]["m"].as_u64().unwrap());
        assert_eq!((to - from + 500) / 1000, 400, "{open}");
        if let Some(next) = events[n..].iter().find(|e| e["k"] == "run.requested") {
            assert!(next["at"]["m"].as_u64() >= Some(to), "{open} {next}");
        }
    }
}

#[test]
fn what_was_given_up_is_tried_again_at_the_time_that_is_shown() {
    let config = until_good("j", "retry_fatal = \"1h\"").replace("count = 0", "count = 2");
    let mut daemon = Daemon::start(&config);
    let fatal = daemon.wait_state("j", "fatal");
    let next_try = fatal["next_try"].as_str().unwrap().to_owned();
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(daemon.job("j")["next_try"].as_str(), Some(&*next_try));

    let config = config.replace("1h", "200ms");
    let daemon = Daemon::start(&config);
    until("two retries", || (daemon.events_of("job.retried", "j").len() >= 2).then_some(()));
    daemon.write("good", "");
    daemon.wait_state("j", "running");
}

#[test]
fn the_others_of_a_group_are_restarted_with_the_one_that_failed_and_nobody_else() {
    let group = "[group.g]\njobs = [\"a\", \"b\", \"c\"]\nstrategy = \"rest-for-one\"\n";
    let quick = "backoff = { initial = \"1ms\" }";
    let jobs = ["a", "b", "c", "d"].map(|name| job(name, "hang", quick)).concat();
    let daemon = Daemon::start(&format!("{jobs}{group}"));
    let before = ["a", "b", "c", "d"].map(|name| daemon.wait_running(name));
    daemon.cli(["signal", "KILL", "b"]).expect(0);
    for (name, (_, run)) in ["b", "c"].iter().zip(&before[1..]) {
        daemon.wait_next_run(name, run);
    }
    for (name, (_, run)) in [("a", &before[0]), ("d", &before[3])] {
        assert_eq!(daemon.job(name)["run"].as_str(), Some(&**run), "{name}");
    }
    // What an operator stops is about that one alone.
    let c = daemon.wait_running("c");
    daemon.cli(["stop", "a"]).expect(0);
    assert_eq!(daemon.wait_running("c"), c);
}

#[test]
fn a_group_with_too_many_restarts_is_given_up_as_a_whole() {
    let daemon = Daemon::start(&format!(
        "{}{}[group.g]\njobs = [\"bad\", \"good\"]\nstart_limit = {{ count = 2, within = \"1m\" }}\n",
        until_good("bad", ""),
        job("good", "hang", "")
    ));
    daemon.wait_state("bad", "fatal");
    let other = daemon.wait_state("good", "fatal");
    assert!(
        other["reason"].as_str().unwrap().starts_with("group g: more than 2 restarts within 1m"),
        "{other:#}"
    );
    assert_eq!(daemon.events_of("run.requested", "bad").len(), 3);
    daemon.cli(["start", "good"]).expect(0);
    daemon.wait_running("good");
}

#[test]
fn a_run_that_goes_on_has_the_arguments_for_that_with_the_token_in_one_of_them() {
    let mut daemon = Daemon::prepare(
        "[job.j]\ncommand = [\"@misbehave@\", \"gate\", \"@dir@/door\", \"exit\", \"1\"]\n\
         resume_command = [\"@misbehave@\", \"print\", \"<{token}>\", \"hang\"]\n\
         restart = \"always\"\nbackoff = { initial = \"1ms\" }\n",
    );
    let mut door = daemon.gate("door");
    daemon.up();
    let (_, run) = daemon.wait_running("j");
    let token = "page 7; $HOME 'x'";
    let reply =
        daemon.post(&format!("/v1/runs/{run}/progress"), &serde_json::json!({ "resume_token": token }));
    assert_eq!(reply.code, 200, "{}", reply.text());
    door.release();
    let (_, next) = daemon.wait_next_run("j", &run);
    daemon.wait_log("j", "the token", |log| log.contains(&format!("<{token}>")));
    let record = std::fs::read_to_string(daemon.run_dir(&next).join("run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert!(record.to_string().contains(&format!("<{token}>")), "{record:#}");
}
