//! Several of one job, and jobs that need each other.

use crate::common::{Daemon, job};

#[test]
fn instances_are_jobs_of_their_own_with_a_number() {
    let daemon = Daemon::start(
        "[job.w]\nkind = \"task\"\ninstances = 3\ncommand = [\"@misbehave@\", \"print\", \"number {n}\", \"exit\", \"{n}\"]\n",
    );
    for n in 1..=3 {
        let name = format!("w:{n}");
        assert_eq!(daemon.wait_ended(&name)["code"], n);
        assert_eq!(daemon.log(&name), format!("number {n}"));
    }
}

#[test]
fn a_base_name_means_all_instances_and_a_pattern_what_it_matches() {
    let daemon = Daemon::start(
        &["[job.w]\ninstances = 2\ncommand = [\"@misbehave@\", \"hang\"]\n", &job("other", "hang", "")]
            .concat(),
    );
    for name in ["w:1", "w:2", "other"] {
        daemon.wait_running(name);
    }
    daemon.cli(["stop", "w"]).expect(0);
    daemon.wait_state("w:1", "stopped");
    daemon.wait_state("w:2", "stopped");
    assert_eq!(daemon.job("other")["state"], "running");
    daemon.cli(["start", "w:*"]).expect(0);
    daemon.wait_running("w:1");
    daemon.wait_running("w:2");
    daemon.cli(["stop", "o*"]).expect(0);
    daemon.wait_state("other", "stopped");
    assert_eq!(daemon.job("w:1")["state"], "running");
}

const CHAIN: [(&str, &str); 3] = [("a", "depends_on = [\"b\"]"), ("b", "depends_on = [\"c\"]"), ("c", "")];

#[test]
fn jobs_start_after_those_they_need_and_stop_before_them() {
    let config: String = CHAIN.iter().map(|(name, more)| job(name, "hang", more)).collect();
    let mut daemon = Daemon::start(&config);
    for name in ["a", "b", "c"] {
        daemon.wait_running(name);
    }
    assert_eq!(jobs_of(&daemon, "run.requested"), ["c", "b", "a"]);
    daemon.cli(["shutdown"]).expect(0);
    assert_eq!(daemon.wait_up_ended(), 0);
    assert_eq!(jobs_of(&daemon, "run.ended"), ["a", "b", "c"]);
}

/// The jobs that events of this kind are about, in order.
fn jobs_of(daemon: &Daemon, kind: &str) -> Vec<String> {
    let events = daemon.events();
    events.iter().filter(|e| e["k"] == kind).map(|e| e["job"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_job_waits_for_one_that_is_not_up() {
    let daemon = Daemon::start(
        &[job("needy", "hang", "depends_on = [\"base\"]"), job("base", "hang", "autostart = false")].concat(),
    );
    // Starting the one that is needed lets the other go on; whether a start pulls it up is the job's own
    // business, but they never come in the wrong order.
    daemon.cli(["start", "base", "needy"]).expect(0);
    daemon.wait_running("base");
    daemon.wait_running("needy");
    assert_eq!(jobs_of(&daemon, "run.requested"), ["base", "needy"]);
}

#[test]
fn a_cycle_is_an_error_that_shows_the_way_round() {
    let daemon = Daemon::prepare(
        &[job("a", "hang", "depends_on = [\"b\"]"), job("b", "hang", "depends_on = [\"a\"]")].concat(),
    );
    let said = daemon.cli(["check", "-c", "outlive.toml"]).expect(2);
    assert!(said.stderr.contains('a') && said.stderr.contains('b'), "{said:?}");
    assert!(said.stderr.to_lowercase().contains("cycle"), "{said:?}");
}
