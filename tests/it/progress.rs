//! What a job says about itself, and the token that its next run finds.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Daemon, PATIENCE, job, procs, until};

/// Says which token it found, publishes another, and waits.
const WORKER: &str = r#"
[job.worker]
kind = "task"
restart = "on-failure"
backoff = { initial = "0s" }
start_limit = { count = 0 }
shell = true
command = '''
echo "run $OUTLIVE_ATTEMPT found <$OUTLIVE_RESUME_TOKEN>"
"${OUTLIVE_EXE}" publish --progress 4$OUTLIVE_ATTEMPT --message "page $OUTLIVE_ATTEMPT" --resume-token "page-$OUTLIVE_ATTEMPT" || exit 77
echo "run $OUTLIVE_ATTEMPT published"
exec sleep infinity
'''
"#;

fn kill(pid: i32) {
    let handle = procs::handle(pid).unwrap();
    procs::send(&handle, Signal::KILL);
    assert!(procs::wait_dead(&handle, PATIENCE));
}

fn progress(daemon: &Daemon) -> Value {
    daemon.job("worker")["progress"].clone()
}

#[test]
fn a_token_is_there_for_the_next_run_whoever_died() {
    let mut daemon = Daemon::start(WORKER);
    daemon.wait_line("worker", "run 1 published");
    let (pid, run) = daemon.wait_running("worker");
    let said = progress(&daemon);
    assert_eq!(
        (&said["percent"], &said["text"], &said["resume_token"]),
        (&json!(41), &json!("page 1"), &json!("page-1"))
    );
    assert!(daemon.cli(["status", "worker"]).text().contains("41 %, page 1"));
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(progress(&daemon), said, "after another supervisor");
    kill(pid);
    daemon.wait_next_run("worker", &run);
    daemon.wait_line("worker", "run 2 published");
    assert!(daemon.log("worker").contains("run 2 found <page-1>"), "{}", daemon.log("worker"));

    // Nobody is left who could know how the run ended.
    let (pid, _) = daemon.wait_running("worker");
    for role in ["init", "keeper", "supervisor"] {
        for pid in procs::roles(daemon.home(), role) {
            kill(pid);
        }
    }
    kill(pid);
    until("the reaping of the job", || procs::stat(pid).is_none().then_some(()));
    let plan = daemon.cli(["recover", "--dry-run", "--json"]).expect(0).json();
    let item = &plan["items"][0];
    assert_eq!(item["class"], "resumable", "{plan:#}");
    assert!(item["why"].as_str().unwrap().contains("resume token"), "{plan:#}");
    daemon.restart();
    daemon.wait_line("worker", "run 3 found <page-2>");
}

#[test]
fn bare_progress_is_shown_and_recorded_once_a_second_and_nonsense_is_refused() {
    let daemon = Daemon::start(WORKER);
    daemon.wait_line("worker", "run 1 published");
    let (_, run) = daemon.wait_running("worker");
    let path = format!("/v1/runs/{run}/progress");
    let recorded = || daemon.events_of("run.progress", "worker").len();
    let before = recorded();
    let (mut most, began) = (before, std::time::Instant::now());
    for percent in 0..=100 {
        let reply = daemon.post(&path, &json!({ "progress": percent }));
        assert_eq!(reply.code, 200, "{}", reply.text());
        assert_eq!(reply.json()["resume_token"], false);
        most += usize::from(reply.json()["recorded"] == true);
        assert_eq!(progress(&daemon)["percent"], percent, "the newest is shown");
    }
    assert_eq!(recorded(), most);
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(most - before <= seconds + 2, "{most} of 101 recorded in {seconds} s");
    let token = daemon.post(&path, &json!({ "resume_token": "t" })).json();
    assert_eq!(token, json!({ "recorded": true, "resume_token": true }));
    assert_eq!(recorded(), most + 1);

    for (body, code) in [
        (json!({}), 400),
        (json!({ "progress": 101 }), 400),
        (json!({ "resume_token": "a\nb" }), 400),
        (json!({ "resumetoken": "t" }), 400),
    ] {
        assert_eq!(daemon.post(&path, &body).code, code, "{body}");
    }
    let never = "/v1/runs/00000000-0000-7000-8000-000000000000/progress";
    assert_eq!(daemon.post(never, &json!({ "progress": 1 })).code, 404);
    assert_eq!(daemon.post("/v1/runs/x/progress", &json!({ "progress": 1 })).code, 400);
    let outside = daemon.cli(["publish", "--progress", "1"]).expect(2);
    assert!(outside.stderr.contains("OUTLIVE_RUN_ID is not set"), "{outside:?}");
    daemon.cli(["publish", "--run", &run]).expect(2);
    daemon.cli(["stop", "worker"]).expect(0);
    let late = daemon.cli(["publish", "--run", &run, "--progress", "1"]).expect(1);
    assert!(late.stderr.contains("is over, or never was"), "{late:?}");
}

const AGAIN: &str = "restart = \"always\"\nbackoff = { initial = \"0s\" }\nstart_limit = { count = 0 }\n";

#[test]
fn an_empty_word_takes_back_the_token_of_the_run() {
    let resumes = "resume_command = [\"@misbehave@\", \"print\", \"resumed\\\\n\", \"hang\"]";
    let script = "print new\\n sd-notify X_RESUME=p7 sd-notify X_RESUME= exit 3";
    let daemon =
        Daemon::start(&job("a", script, &format!("{AGAIN}{resumes}\nheartbeat = {{ notify = \"1h\" }}")));
    let third = daemon.wait_job("a", "third run", |job| job["restarts"].as_u64() >= Some(2));
    assert_eq!(third["progress"]["resume_token"], Value::Null, "{third:#}");
    assert!(!daemon.log("a").contains("resumed"));
}

#[test]
fn the_latest_token_counts_however_it_was_said_and_whoever_died() {
    let script = "@misbehave@ sd-notify X_RESUME=a hang & sleep 2.5; \"${OUTLIVE_EXE}\" publish --resume-token b; \
                  echo said; exec sleep 1000";
    let config =
        format!("[job.a]\nshell = true\ncommand = {script:?}\nheartbeat = {{ notify = \"1h\" }}\n{AGAIN}");
    let mut daemon = Daemon::start(&config);
    daemon.wait_line("a", "said");
    let told = daemon.job("a");
    assert_eq!(told["progress"]["resume_token"], "b", "{told:#}");
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    daemon.wait_ready();
    assert_eq!(daemon.job("a")["progress"]["resume_token"], "b");
    // The same keeper says what the run had told it also to this one.
    assert_eq!(daemon.events_of("run.progress", "a").len(), 2);
}
