//! Tasks that wait for their turn, on real processes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::{Daemon, http, job, procs, until};

/// Submits a task, and gives its name.
#[track_caller]
fn submit(daemon: &Daemon, args: &[&str], command: &str) -> String {
    let mut all = vec!["submit"];
    all.extend(args);
    all.extend(["--", "/bin/sh", "-c", command]);
    daemon.cli(all).expect(0).text().trim().to_owned()
}

fn lines(daemon: &Daemon, file: &str) -> Vec<String> {
    std::fs::read_to_string(daemon.path(file)).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn queues(daemon: &Daemon) -> Value {
    daemon.get("/v1/queues").unwrap().json()
}

/// Who stands in line, in order.
fn in_line(daemon: &Daemon) -> Vec<String> {
    let all = queues(daemon);
    let jobs = all["jobs"].as_array().unwrap().iter().filter(|job| !job["position"].is_null());
    jobs.map(|job| job["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn tasks_start_in_order_as_slots_get_free_also_over_the_deaths_of_everybody() {
    let mut daemon = Daemon::prepare("[queue.default]\nslots = 1\n");
    let mut door = daemon.gate("door");
    daemon.up();
    let dir = daemon.home().display().to_string();
    let waits = |word: &str| format!("echo {word} >> {dir}/order; head -c 1 {dir}/door > {dir}/null");
    submit(&daemon, &["--name", "first"], &waits("first"));
    for (name, priority) in [("low", "-1"), ("one", "0"), ("two", "0"), ("high", "5")] {
        submit(&daemon, &["--name", name, "--priority", priority], &waits(name));
    }
    assert_eq!(in_line(&daemon), ["high", "one", "two", "low"]);
    for (n, role) in ["supervisor", "keeper", "supervisor", "supervisor"].iter().enumerate() {
        until("the next one", || (lines(&daemon, "order").len() == n + 1).then_some(()));
        let old = daemon.kill_role(role);
        daemon.wait_role_back(role, old);
        assert_eq!(daemon.job("low")["reason"], "queue default: waits for its turn");
        door.release();
    }
    until("the last one", || (lines(&daemon, "order").len() == 5).then_some(()));
    door.release();
    for name in ["first", "high", "one", "two", "low"] {
        daemon.wait_state(name, "exited");
    }
    assert_eq!(lines(&daemon, "order"), ["first", "high", "one", "two", "low"]);
}

#[test]
fn what_waits_can_be_moved_held_and_cancelled_and_a_queue_paused() {
    let configured = job("configured", "hang", "autostart = false\nqueue = \"one\"");
    let queues = "[queue.default]\nslots = 1\n[queue.other]\nslots = 0\n[queue.one]\n";
    let daemon = Daemon::start(&(queues.to_owned() + &configured));
    let now = submit(&daemon, &[], "sleep 1000");
    assert_eq!(now, "sh-1");
    let said = |verb: &[&str]| daemon.cli(verb).expect(0).text();
    assert_eq!(said(&["start", "configured"]), "configured: starting\n");
    daemon.wait_running("configured");
    daemon.wait_running(&now);
    for name in ["a", "b", "c"] {
        submit(&daemon, &["--name", name], "true");
    }
    daemon.cli(["move", "c", "--first"]).expect(0);
    assert_eq!(in_line(&daemon), ["c", "a", "b"]);
    daemon.cli(["move", "a", "--hold"]).expect(0);
    daemon.cli(["cancel", "b"]).expect(0);
    assert_eq!(
        (in_line(&daemon), daemon.job("b")["state"].clone()),
        (vec!["c".to_owned()], json!("stopped"))
    );
    daemon.cli(["queue", "pause", "default"]).expect(0);
    daemon.cli(["cancel", &now]).expect(0);
    daemon.wait_state(&now, "stopped");
    let shown = daemon.cli(["queue"]).expect(0).text();
    assert!(shown.contains("default  1      0        1        paused"), "{shown}");
    assert!(shown.contains("held back until it is released"), "{shown}");
    daemon.cli(["queue", "resume", "default"]).expect(0);
    daemon.wait_state("c", "exited");
    assert_eq!(daemon.job("a")["state"], "queued");
    daemon.cli(["move", "a", "--queue", "other", "--release"]).expect(0);
    assert_eq!(daemon.job("a")["place"]["queue"], "other");
    daemon.cli(["move", "a", "--queue", "default"]).expect(0);
    daemon.wait_state("a", "exited");
    // What is no queue, and nowhere to go.
    assert!(
        daemon.cli(["queue", "pause", "nowhere"]).expect(1).stderr.contains("there is no queue \"nowhere\"")
    );
    assert!(daemon.cli(["move", "a", "--first"]).expect(1).stderr.contains("does not stand in line"));
    daemon.cli(["move", "a"]).expect(2);
    let refused = daemon.cli(["submit", "--queue", "nowhere", "true"]);
    assert!(refused.stderr.contains("there are: default, one, other"), "{refused:?}");
}

#[test]
fn who_submits_with_the_same_key_gets_the_same_job() {
    let daemon = Daemon::start("");
    let mark = format!("echo ran >> {}", daemon.path("ran").display());
    let names: BTreeSet<String> = (0..3).map(|_| submit(&daemon, &["--key", "order 17"], &mark)).collect();
    let other = submit(&daemon, &["--key", "order 18"], &mark);
    assert_eq!((names.len(), names.contains(&other)), (1, false), "{names:?} {other}");
    daemon.wait_state(names.first().unwrap(), "exited");
    daemon.wait_state(&other, "exited");
    assert_eq!(
        submit(&daemon, &["--key", "order 17"], &mark),
        *names.first().unwrap(),
        "also when it is over"
    );
    assert_eq!(lines(&daemon, "ran").len(), 2);
}

#[test]
fn a_task_waits_for_others_and_for_its_time_has_so_many_tries_and_so_long() {
    let daemon = Daemon::start("[queue.default]\nslots = 9\n");
    let dir = daemon.home().display().to_string();
    let first = submit(&daemon, &["--hold"], &format!("echo first >> {dir}/said"));
    let second = submit(&daemon, &["--after", &first], &format!("echo second >> {dir}/said"));
    assert_eq!(daemon.job(&second)["state"], "waiting");
    daemon.cli(["move", &first, "--release"]).expect(0);
    daemon.wait_state(&second, "exited");
    assert_eq!(lines(&daemon, "said"), ["first", "second"]);

    let later = submit(&daemon, &["--not-before", "1h"], "true");
    let seen = daemon.job(&later);
    assert!(seen["reason"].as_str().unwrap().starts_with("queue default: not before "), "{seen:#}");
    daemon.cli(["move", &later, "--not-before", "2001-01-01T00:00:00Z"]).expect(0);
    daemon.wait_state(&later, "exited");

    let fails = submit(&daemon, &["--retries", "2"], &format!("echo try >> {dir}/tries; exit 3"));
    let ended = daemon.wait_state(&fails, "exited");
    assert_eq!((ended["outcome"]["code"].as_i64(), lines(&daemon, "tries").len()), (Some(3), 3));
    assert_eq!(daemon.cli(["wait", &fails]).code, 3);

    let slow = submit(&daemon, &["--timeout", "200ms"], "exec sleep 1000");
    let outcome = daemon.wait_ended(&slow);
    assert!(outcome["text"].as_str().unwrap().contains("took longer than 200ms"), "{outcome:#}");
    let waits = daemon.cli(["submit", "--wait", "--", "/bin/sh", "-c", "exit 7"]);
    assert_eq!(waits.code, 7, "{waits:?}");
}

#[test]
fn a_reload_gives_a_queue_more_slots_and_one_that_is_gone_keeps_who_waits() {
    let daemon = Daemon::start("[queue.work]\nslots = 1\n");
    for name in ["a", "b"] {
        submit(&daemon, &["--name", name, "--queue", "work"], "sleep 1000");
    }
    daemon.wait_running("a");
    assert_eq!(daemon.job("b")["state"], "queued");
    daemon.write_config("");
    daemon.cli(["reload"]).expect(0);
    until("the reason", || {
        daemon.job("b")["reason"].as_str()?.contains("there is no such queue any more").then_some(())
    });
    daemon.write_config("[queue.work]\nslots = 2\n");
    daemon.cli(["reload"]).expect(0);
    daemon.wait_running("b");
    let wrong = daemon.cli(["check", "-c", daemon.path("wrong.toml").to_str().unwrap()]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

#[test]
fn a_hundred_tasks_over_eight_slots_run_once_each_while_everybody_is_killed() {
    let mut daemon = Daemon::prepare("[queue.default]\nslots = 8\n");
    daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "0".to_owned()));
    daemon.up();
    let dir = daemon.home().display().to_string();
    // Each says when it begins and ends, in one write.
    let script = format!(
        "echo b $OUTLIVE_JOB >> {dir}/said; sleep 0.0$(( $$ % 9 + 1 )); echo e $OUTLIVE_JOB >> {dir}/said"
    );
    let tasks = std::env::var("QUEUE_TASKS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_usize);
    let mut kills = 0;
    for n in 0..tasks {
        let key = format!("task {n}");
        let request = json!({ "command": ["/bin/sh", "-c", script], "queue": "default", "key": key });
        // An answer that is lost is asked for again: the key says that it is the same task.
        until("an answer", || {
            let body = serde_json::to_vec(&request).unwrap();
            let reply = http::request(&daemon.socket(), "POST", "/v1/run", Some(&body)).ok()?;
            (reply.code == 201).then_some(())
        });
        if n % 10 == 9 {
            let role = ["supervisor", "keeper"][kills % 2];
            daemon.kill_role(role);
            kills += 1;
        }
    }
    until("all of them", || {
        let ended = lines(&daemon, "said").iter().filter(|line| line.starts_with("e ")).count();
        (ended == tasks).then_some(())
    });
    let said = lines(&daemon, "said");
    let (mut running, mut most, mut seen) = (0_i32, 0, BTreeSet::new());
    for line in &said {
        let (what, job) = line.split_once(' ').unwrap();
        running += if what == "b" { 1 } else { -1 };
        most = most.max(running);
        assert!(seen.insert((what.to_owned(), job.to_owned())), "{job} ran twice");
    }
    assert!(most <= 8, "{most} at once");
    assert_eq!(said.len(), 2 * tasks);
    daemon.wait_ready();
    until("everybody at rest", || {
        let all = queues(&daemon);
        (all["queues"][0]["running"] == 0 && all["queues"][0]["waiting"] == 0).then_some(())
    });
    assert!(procs::roles(daemon.home(), "keeper").len() == 1);
}
