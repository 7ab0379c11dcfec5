//! Samples for the tests of the verbs, and the command line as a whole.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;

use crate::control::tests::fake::Stream::{Stderr, Stdout};
use crate::control::tests::fake::{Fake, name, run_id, soon};
use crate::core::ids::JobName;
use crate::core::report::RunsReport;
use crate::core::spec::Kind;
use crate::wire::control::{
    Instance, InstanceState, JobStatus, OutcomeView, Role, Roles, StateWord, WantWord,
};

pub(crate) fn instance() -> Instance {
    let role = |pid| Role { pid: Some(pid) };
    Instance {
        version: "0.1.0".to_owned(),
        state: InstanceState::Running,
        roles: Roles { init: role(1), keeper: role(2), supervisor: role(3) },
        since: "1970-01-01T00:00:00.000Z".to_owned(),
        generation: 4,
        state_dir: "/s".to_owned(),
        config: None,
        config_changed: false,
        degraded: Vec::new(),
        degraded_resources: Vec::new(),
        recovery_mode: None,
    }
}

pub(crate) fn job(name: &str, state: StateWord) -> JobStatus {
    JobStatus {
        name: JobName::new(name).unwrap(),
        kind: Kind::Service,
        state,
        want: WantWord::Up,
        pid: None,
        run: None,
        restarts: 0,
        since: "1970-01-01T00:00:00.000Z".to_owned(),
        started: None,
        outcome: None,
        reason: String::new(),
        adopted: false,
        next_try: None,
        depends_on: Vec::new(),
        command: vec!["true".to_owned()],
        progress: None,
        health: None,
        breaker: None,
        patterns: Vec::new(),
        place: None,
    }
}

pub(crate) fn outcome_view(kind: &str, code: Option<i32>) -> OutcomeView {
    OutcomeView {
        kind: kind.to_owned(),
        code,
        signal: None,
        core: None,
        step: None,
        errno: None,
        why: None,
        asked: None,
        at: None,
        text: code.map_or_else(|| kind.to_owned(), |code| format!("exit {code}")),
    }
}

/// A writer whose content can be looked at.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<u8>>>);

impl Seen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Seen {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes down what it was asked, and fails in a way of its own.
fn fake_up(options: up::UpOptions) -> u8 {
    let mut file = std::fs::File::create(options.paths.state_dir.join("up")).unwrap();
    write!(file, "{:?} {}", options.config, options.detach).unwrap();
    77
}

const HOOKS: Hooks = Hooks {
    up: fake_up,
    plan: |_, _| Ok(RunsReport::default()),
    report: |_| Ok(None),
    format: |_| Ok(()),
    repair: |_, _| Err("not in this test".to_owned()),
};

/// What a command did.
struct Done {
    code: u8,
    stdout: String,
    stderr: String,
}

/// Starts a command on a thread of its own.
fn begin(dir: &Path, words: &[&str]) -> (Seen, tokio::task::JoinHandle<Done>) {
    let socket = dir.join("c.sock");
    let dir = dir.to_owned();
    let words: Vec<OsString> =
        std::iter::once("outlive").chain(words.iter().copied()).map(Into::into).collect();
    let seen = Seen::default();
    let stdout = seen.clone();
    let work = tokio::task::spawn_blocking(move || {
        let env = |variable: &str| match variable {
            "OUTLIVE_SOCKET" => Some(socket.clone().into_os_string()),
            "OUTLIVE_STATE_DIR" | "OUTLIVE_RUNTIME_DIR" => Some(dir.clone().into_os_string()),
            _ => None,
        };
        let stderr = Seen::default();
        let out = Out::to(Box::new(stdout.clone()), Box::new(stderr.clone()));
        let code = run(words, &env, HOOKS, out);
        Done { code, stdout: stdout.text(), stderr: stderr.text() }
    });
    (seen, work)
}

async fn outlive(dir: &Path, words: &[&str]) -> Done {
    soon(begin(dir, words).1).await.unwrap()
}

async fn until_seen(seen: &Seen, text: &str) {
    soon(async {
        while !seen.text().contains(text) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn help_lists_every_exit_code_and_mistakes_are_2() {
    let dir = tempfile::tempdir().unwrap();
    let help = outlive(dir.path(), &["--help"]).await;
    assert_eq!(help.code, code::OK);
    for (number, text) in code::TABLE {
        assert!(help.stdout.contains(&format!("{number:>5}  {text}")), "{number} {text}\n{}", help.stdout);
    }
    for wrong in [
        &["frobnicate"][..],
        &[],
        &["start"],
        &["run"],
        &["wait", "a", "--timeout", "soon"],
        &["signal", "NOPE", "a"],
        &["start", "a", "--timeout", "1s"],
        &["logs", "--raw", "--timestamps", "a"],
        &["run", "--name", "../x", "true"],
    ] {
        let done = outlive(dir.path(), wrong).await;
        assert_eq!(done.code, code::USAGE, "{wrong:?}: {}", done.stderr);
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{wrong:?}");
    }
}

#[tokio::test]
async fn without_an_instance_it_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    for (words, expected) in
        [(&["status", "--json"][..], 3), (&["stop", "a"], 1), (&["logs", "a"], 1), (&["wait", "a"], 1)]
    {
        let done = outlive(dir.path(), words).await;
        assert_eq!((done.code, done.stdout.as_str()), (expected, ""), "{words:?}");
        assert!(done.stderr.contains("no outlive instance answers on"), "{}", done.stderr);
        assert!(done.stderr.contains("`outlive up`"), "{}", done.stderr);
    }
    let version = outlive(dir.path(), &["version", "--json"]).await;
    let version: serde_json::Value = serde_json::from_str(&version.stdout).unwrap();
    assert!(version["version"].is_string() && version["instance"].is_null());
}

#[tokio::test]
async fn a_run_without_an_instance_starts_one() {
    let dir = tempfile::tempdir().unwrap();
    let done = outlive(dir.path(), &["run", "--", "make", "-j"]).await;
    assert_eq!(done.code, 77, "the failure of the start is passed on");
    assert_eq!(std::fs::read_to_string(dir.path().join("up")).unwrap(), "None true");
    outlive(dir.path(), &["up", "-c", "x.toml"]).await;
    assert_eq!(std::fs::read_to_string(dir.path().join("up")).unwrap(), "Some(\"x.toml\") false");
}

#[tokio::test]
async fn status_is_json_alone_and_its_codes_are_those_of_lsb() {
    let fake = Fake::new();
    let dir = fake.dir.path();
    let done = outlive(dir, &["status", "--json"]).await;
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let status: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(status["instance"]["roles"]["supervisor"]["pid"], 3);
    assert_eq!(status["jobs"][0]["name"], "api");
    assert!(status["jobs"][0]["outcome"].is_null());
    let table = outlive(dir, &["status", "web"]).await;
    assert_eq!(table.stdout.lines().count(), 4, "{}", table.stdout);
    fake.change(|view| {
        view.jobs.insert(name("api"), Arc::new(job("api", StateWord::Fatal)));
    });
    assert_eq!(outlive(dir, &["status"]).await.code, code::NOT_RUNNING);
    assert_eq!(outlive(dir, &["status", "web"]).await.code, code::OK);
    let unknown = outlive(dir, &["status", "wep"]).await;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (code::NO_SUCH_JOB, ""));
    assert!(unknown.stderr.contains("did you mean \"web:1\""), "{}", unknown.stderr);
}

#[tokio::test]
async fn verbs_say_what_was_done() {
    let fake = Fake::new();
    let dir = fake.dir.path();
    let done = outlive(dir, &["start", "web", "api"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (0, "web:1: done\nweb:2: done\napi: done\n"));
    let refused = outlive(dir, &["restart", "refuses"]).await;
    assert_eq!((refused.code, refused.stderr.as_str()), (1, "outlive: it refuses\n"));
    let none = outlive(dir, &["stop", "api", "nope"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (1, ""), "nothing is done if a name is wrong");
    assert_eq!(outlive(dir, &["signal", "USR1", "--scope", "group", "api"]).await.code, 0);
    assert_eq!(outlive(dir, &["send", "api", "--close", "hello", "there"]).await.code, 0);
    let bad = outlive(dir, &["reload"]).await;
    assert_eq!((bad.code, bad.stderr.as_str()), (2, "outlive: 2 mistakes\n  a\n  b\n"));
    assert_eq!(outlive(dir, &["reload", "--plan"]).await.stdout, "nothing differs\n");
    assert_eq!(outlive(dir, &["shutdown", "--no-wait"]).await.code, 0);
    assert_eq!(
        fake.asked(),
        [
            "start web:1 web:2",
            "start api",
            "restart refuses",
            "signal 10 Some(Group) api",
            "stdin api 12 false",
            "stdin api 0 true",
            "reload false",
            "reload true",
            "shutdown false",
        ]
    );
}

#[tokio::test]
async fn waiting_outlives_the_supervisor_and_gives_the_code_of_the_job() {
    let mut fake = Fake::new();
    let timeout = outlive(fake.dir.path(), &["wait", "api", "--timeout", "50ms"]).await;
    assert_eq!(timeout.code, code::TIMEOUT);
    let before = fake.view.receiver_count();
    let (_, wait) = begin(fake.dir.path(), &["wait", "api"]);
    let (_, stop) = begin(fake.dir.path(), &["stop", "api"]);
    let (_, ran) = begin(fake.dir.path(), &["run", "--name", "api", "--wait", "true"]);
    soon(async {
        // Each has its answer and listens for events. A request under way counts as a listener, too: only what
        // stays is one.
        let mut steady = 0;
        while steady < 20 {
            let listen = fake.asked().len() >= 2 && fake.view.receiver_count() >= before + 3;
            steady = if listen { steady + 1 } else { 0 };
            fake.client.version().await.unwrap();
        }
    })
    .await;
    fake.replace().await;
    fake.change(|view| {
        let mut ended = job("api", StateWord::Exited);
        ended.outcome = Some(outcome_view("exited", Some(42)));
        view.jobs.insert(name("api"), Arc::new(ended));
        view.seq += 1;
    });
    assert_eq!(soon(wait).await.unwrap().code, 42);
    assert_eq!(soon(ran).await.unwrap().code, 42);
    assert_eq!(soon(stop).await.unwrap().code, 0);
}

#[tokio::test]
async fn a_verb_waits_while_the_instance_recovers() {
    let fake = Fake::new();
    fake.change(|view| {
        view.ready = false;
        view.jobs.clear();
        Arc::make_mut(&mut view.instance).state = InstanceState::Recovering;
    });
    let (_, start) = begin(fake.dir.path(), &["start", "api"]);
    for _ in 0..20 {
        fake.client.version().await.unwrap();
    }
    assert!(!start.is_finished());
    fake.change(|view| {
        view.jobs.insert(name("api"), Arc::new(job("api", StateWord::Stopped)));
    });
    assert_eq!(soon(start).await.unwrap().stdout, "api: done\n");
}

#[tokio::test]
async fn logs_are_exact_prefixed_or_stamped() {
    let fake = Fake::new();
    let dir = fake.dir.path();
    for (job, run) in [("api", 1), ("quiet", 2)] {
        fake.add_run(job, run_id(run));
        fake.capture(run_id(run), "merged", Stdout, 1, format!("{job} 1\n").as_bytes());
        fake.capture(run_id(run), "merged", Stderr, 2, format!("{job} 2").as_bytes());
    }
    assert_eq!(outlive(dir, &["logs", "--raw", "api"]).await.stdout, "api 1\napi 2");
    assert_eq!(outlive(dir, &["logs", "-n", "1", "--stream", "stdout", "api"]).await.stdout, "api 1\n");
    let stamped = outlive(dir, &["logs", "--timestamps", "api"]).await;
    assert_eq!(stamped.stdout, "1970-01-01T00:00:01.000Z api 1\n1970-01-01T00:00:02.000Z api 2\n");
    let several = outlive(dir, &["logs", "api", "quiet"]).await;
    assert_eq!(several.stdout, "api   | api 1\napi   | api 2\nquiet | quiet 1\nquiet | quiet 2\n");
    assert_eq!(outlive(dir, &["logs", "--raw", "api", "quiet"]).await.code, code::USAGE);
    assert_eq!(outlive(dir, &["logs", "--run", "newest", "api"]).await.code, code::USAGE);
}

#[tokio::test]
async fn following_outlives_the_supervisor_without_a_gap() {
    let mut fake = Fake::new();
    fake.add_run("api", run_id(1));
    fake.capture(run_id(1), "merged", Stdout, 1, b"one\n");
    let (seen, logs) = begin(fake.dir.path(), &["logs", "-f", "--raw", "api"]);
    until_seen(&seen, "one\n").await;
    fake.replace().await;
    fake.capture(run_id(1), "merged", Stderr, 2, b"two\n");
    until_seen(&seen, "two\n").await;
    fake.end_run("api", run_id(1));
    fake.add_run("api", run_id(2));
    fake.capture(run_id(2), "merged", Stdout, 3, b"three\n");
    until_seen(&seen, "three\n").await;
    fake.replace().await;
    fake.capture(run_id(2), "merged", Stdout, 4, b"four\n");
    until_seen(&seen, "four\n").await;
    fake.ending.send(true).unwrap();
    let done = soon(logs).await.unwrap();
    assert_eq!((done.code, done.stdout.as_str()), (0, "one\ntwo\nthree\nfour\n"), "{}", done.stderr);
}

#[tokio::test]
async fn events_are_lines_and_follow_over_the_death_of_the_supervisor() {
    let mut fake = Fake::new();
    fake.record_event(1);
    let json = outlive(fake.dir.path(), &["events", "--json"]).await;
    let event: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(event["seq"], 1);
    let (seen, events) = begin(fake.dir.path(), &["events", "-f", "--since", "0"]);
    until_seen(&seen, "job.removed").await;
    fake.replace().await;
    fake.record_event(2);
    until_seen(&seen, "     2 ").await;
    assert_eq!(seen.text().lines().count(), 2, "{}", seen.text());
    fake.ending.send(true).unwrap();
    assert_eq!(soon(events).await.unwrap().code, 0);
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_command_quietly() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for words in [&["completions", "bash"][..], &["--help"], &["check", "--schema"]] {
        let stderr = Seen::default();
        let words = std::iter::once("outlive").chain(words.iter().copied()).map(OsString::from);
        let code = run(words, &|_| None, HOOKS, Out::to(Box::new(Gone), Box::new(stderr.clone())));
        assert_eq!((code, stderr.text().as_str()), (0, ""));
    }
}

#[tokio::test]
async fn check_counts_jobs_or_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let good = write("good.toml", "[job.a]\ncommand = [\"true\"]\ninstances = 2\n");
    let done = outlive(dir.path(), &["check", "-c", &good]).await;
    assert_eq!((done.code, done.stdout), (0, format!("{good}: good, 2 jobs\n")), "{}", done.stderr);
    let bad = write("bad.toml", "[job.a]\ncomand = [\"true\"]\n");
    let done = outlive(dir.path(), &["check", "-c", &bad]).await;
    assert_eq!((done.code, done.stdout.as_str()), (2, ""));
    assert!(done.stderr.starts_with(&format!("{bad}:2:1:")), "{}", done.stderr);
    assert!(done.stderr.contains("command") && done.stderr.contains("1 mistake\n"), "{}", done.stderr);
    let schema = outlive(dir.path(), &["check", "--schema"]).await.stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert!(schema["properties"]["job"].is_object());
    let script = outlive(dir.path(), &["completions", "zsh"]).await;
    assert!(script.stdout.contains("#compdef outlive"), "{}", script.stdout);
}

#[test]
fn the_argument_definitions_are_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}
