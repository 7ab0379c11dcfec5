//! Runs that live and are unwell, on real processes: each sign of life, each probe, each limit, and what is done.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use rustix::process::{Resource, Rlimit, Signal, getrlimit};
use serde_json::Value;

use crate::common::{Daemon, job, procs, skip, until};

const QUICK: &str = "backoff = { initial = \"1ms\", max = \"1ms\" }\nstart_limit = { count = 0 }\n";

/// A job of a shell line.
fn shell(name: &str, line: &str, keys: &str) -> String {
    format!("[job.{name}]\ncommand = [\"/bin/sh\", \"-c\", '''{line}''']\n{QUICK}{keys}\n")
}

fn events(daemon: &Daemon, kind: &str) -> Vec<Value> {
    daemon.events().into_iter().filter(|event| event["k"] == kind).collect()
}

/// The first fault that was found of a job, and what was said of it.
#[track_caller]
fn fault(daemon: &Daemon, name: &str) -> (String, String) {
    until(&format!("{name} unwell"), || {
        let found = events(daemon, "run.unwell").into_iter().find(|event| event["job"] == name)?;
        let text = |key: &str| found[key].as_str().unwrap().to_owned();
        Some((text("fault"), text("why")))
    })
}

/// The first end of a run of a job: its cause as the history has it.
#[track_caller]
fn first_cause(daemon: &Daemon, name: &str) -> String {
    until(&format!("an end of {name}"), || {
        let runs = daemon.get(&format!("/v1/jobs/{name}/runs"))?.json();
        let cause =
            runs["runs"].as_array().or_else(|| runs.as_array())?.first()?["cause"].as_str()?.to_owned();
        Some(cause)
    })
}

#[test]
fn each_sign_of_life_that_is_missing_is_named_and_the_next_run_follows() {
    let config = [
        shell("output", "echo one; exec sleep 1000", "heartbeat = { output = \"300ms\" }"),
        shell("cpu", "exec sleep 1000", "heartbeat = { cpu = \"400ms\" }"),
        shell(
            "file",
            "touch @dir@/beat; exec sleep 1000",
            "heartbeat = { file = { path = \"@dir@/beat\", timeout = \"300ms\" } }",
        ),
        shell("progress", "exec sleep 1000", "progress_timeout = \"300ms\""),
        shell("long", "exec sleep 1000", "max_runtime = \"300ms\""),
        job(
            "beats",
            "sd-notify READY=1 beat 20ms 5 hang",
            &format!("heartbeat = {{ notify = \"300ms\" }}\n{QUICK}"),
        ),
        job(
            "trigger",
            "sd-notify WATCHDOG=trigger hang",
            &format!("heartbeat = {{ notify = \"1000s\" }}\n{QUICK}"),
        ),
    ];
    let daemon = Daemon::start(&config.concat());
    for (name, wanted, why) in [
        ("output", "silent", "no output for 300ms"),
        ("cpu", "idle", "no use of the CPU for 400ms"),
        ("file", "file", "was not touched for 300ms"),
        ("progress", "no_progress", "no word about its progress for 300ms"),
        ("long", "max_runtime", "took longer than 300ms"),
        ("beats", "watchdog", "no WATCHDOG=1 for 300ms"),
        ("trigger", "trigger", "WATCHDOG=trigger"),
    ] {
        let found = fault(&daemon, name);
        assert_eq!(found.0, wanted, "{name}: {found:?}");
        assert!(found.1.contains(why), "{name}: {found:?}");
        assert_eq!(first_cause(&daemon, name), "unwell", "{name}");
        until("another run", || (daemon.job(name)["restarts"].as_u64()? > 0).then_some(()));
    }
}

#[test]
fn who_gives_its_signs_is_left_alone() {
    let config = [
        shell("output", "while :; do echo x; sleep 0.05; done", "heartbeat = { output = \"3s\" }"),
        shell("cpu", "while :; do :; done", "heartbeat = { cpu = \"2s\" }"),
        shell(
            "file",
            "while :; do touch @dir@/beat; sleep 0.05; done",
            "heartbeat = { file = { path = \"@dir@/beat\", timeout = \"3s\" } }",
        ),
        job("beats", "beat 50ms", "heartbeat = { notify = \"3s\" }"),
        job("short", "hang", "heartbeat = { output = \"100ms\" }\non_frozen = []"),
    ];
    let mut daemon = Daemon::start(&config.concat());
    // So long that each was looked at: one that is only reported on shows that time passes.
    assert_eq!(fault(&daemon, "short").0, "silent");
    let looked = |daemon: &Daemon| {
        let sign = daemon.job("beats")["health"]["last_sign"].as_str().map(str::to_owned);
        (sign, daemon.job("beats")["run"].clone())
    };
    let (_, run) = looked(&daemon);
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    until("five seconds of them", || {
        let up = daemon.read("up.log").contains("ready");
        let since =
            daemon.job("short")["health"]["since"].as_str()?.parse::<chrono::DateTime<chrono::Utc>>().ok()?;
        (up && chrono::Utc::now() - since > chrono::TimeDelta::seconds(5)).then_some(())
    });
    for name in ["output", "cpu", "file", "beats"] {
        let job = daemon.job(name);
        assert_eq!((job["state"].as_str(), job["restarts"].as_u64()), (Some("running"), Some(0)), "{job:#}");
        assert_eq!(job["health"]["verdict"], "healthy", "{job:#}");
    }
    assert_eq!(looked(&daemon).1, run);
    // Reported on, and nothing else.
    let short = daemon.job("short");
    assert_eq!(
        (short["state"].as_str(), short["health"]["verdict"].as_str()),
        (Some("frozen"), Some("frozen"))
    );
    let said = daemon.cli(["status", "short"]);
    assert_eq!(said.code, 3);
    assert!(said.text().contains("no output for 100ms"), "{}", said.text());
}

/// How often, in the test that stops a job and sees it go on.
fn rounds() -> usize {
    std::env::var("OUTLIVE_TEST_STOPS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

#[test]
fn a_stopped_job_goes_on_and_is_healthy_again_without_a_new_run() {
    let daemon = Daemon::start(&job("j", "beat 20ms", "heartbeat = { notify = \"400ms\" }"));
    let (pid, run) = daemon.wait_running("j");
    for round in 1..=rounds() {
        procs::send(&procs::handle(pid).unwrap(), Signal::STOP);
        until("it is found stopped", || (events(&daemon, "run.unwell").len() >= round).then_some(()));
        until("it is well again", || (events(&daemon, "run.well").len() >= round).then_some(()));
        let unwell = events(&daemon, "run.unwell");
        assert_eq!(unwell[round - 1]["fault"], "stopped", "{unwell:#?}");
        let now = daemon.wait_state("j", "running");
        assert_eq!(
            (now["pid"].as_i64(), now["run"].as_str()),
            (Some(i64::from(pid)), Some(&*run)),
            "round {round}"
        );
    }
    assert_eq!(daemon.job("j")["restarts"], 0);
}

#[test]
fn a_watchdog_that_stops_while_the_supervisor_is_dead_is_noticed_by_the_next_one() {
    let mut daemon = Daemon::start(&job(
        "j",
        "sd-notify WATCHDOG=1 hang",
        &format!("heartbeat = {{ notify = \"2s\" }}\n{QUICK}"),
    ));
    let (_, run) = daemon.wait_running("j");
    // Its last beat was at its start. The supervisor dies before the time is over.
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    daemon.wait_next_run("j", &run);
    let unwell = &events(&daemon, "run.unwell")[0];
    let started = events(&daemon, "run.started").remove(0);
    let us = |event: &Value| event["at"]["m"].as_u64().or_else(|| event["m"].as_u64()).unwrap();
    let silent = us(unwell) - us(&started);
    // Counted from the beat, not from the new supervisor: the machine may be slow, but not early.
    assert!(silent >= 1_900_000, "{silent}: {unwell} {started}");
    assert_eq!(unwell["fault"], "watchdog");
}

#[test]
fn the_keepers_death_does_not_make_a_beating_job_look_dead() {
    let mut daemon = Daemon::start(&job("j", "beat 20ms", "heartbeat = { notify = \"1s\" }"));
    let (pid, _) = daemon.wait_running("j");
    for _ in 0..3 {
        let old = daemon.kill_role("keeper");
        daemon.wait_role_back("keeper", old);
    }
    let from = daemon.job("j")["health"]["last_sign"].as_str().unwrap().to_owned();
    // Looked at again, and found beating.
    until("a later sign", || {
        daemon.cli(["signal", "URG", "j"]);
        (daemon.job("j")["health"]["last_sign"].as_str()? > &*from).then_some(())
    });
    assert_eq!(daemon.wait_running("j").0, pid);
    assert!(events(&daemon, "run.unwell").is_empty());
}

#[test]
fn a_run_says_by_each_way_that_it_is_ready_and_dependents_wait_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = [
        job("fd", "gate @dir@/gate ready-fd 3 hang", "ready = { fd = 3 }"),
        job("notify", "gate @dir@/gate sd-notify READY=1 hang", "ready = { notify = true }"),
        job("log", "gate @dir@/gate print listening\\n hang", "ready = { log = '(?i)LISTENING\\b' }"),
        job(
            "probe",
            "hang",
            &format!(
                "ready = {{ probe = true }}\nprobe.readiness = {{ tcp = \"127.0.0.1:{port}\", interval = \"50ms\" }}"
            ),
        ),
        job("after", "hang", "depends_on = [\"fd\", \"notify\", \"log\", \"probe\"]"),
    ];
    let mut daemon = Daemon::prepare(&config.concat());
    let mut gate = daemon.gate("gate");
    daemon.up();
    daemon.wait_running("probe");
    for name in ["fd", "notify", "log"] {
        daemon.wait_state(name, "starting");
    }
    daemon.wait_state("after", "waiting");
    // What they say while nobody decides is heard all the same.
    let old = daemon.kill_role("supervisor");
    gate.release();
    gate.release();
    gate.release();
    daemon.wait_role_back("supervisor", old);
    for name in ["fd", "notify", "log", "after"] {
        daemon.wait_running(name);
        assert_eq!(daemon.job(name)["restarts"], 0, "{name}");
    }
}

#[test]
fn a_run_that_is_not_ready_in_time_has_failed_and_may_ask_for_more() {
    let config = [
        job("late", "hang", &format!("ready = {{ notify = true, timeout = \"200ms\" }}\n{QUICK}")),
        job(
            "asks",
            "sd-notify EXTEND_TIMEOUT_USEC=600000000 gate @dir@/gate sd-notify READY=1 hang",
            &format!("ready = {{ notify = true, timeout = \"2s\" }}\n{QUICK}"),
        ),
    ];
    let mut daemon = Daemon::prepare(&config.concat());
    let mut gate = daemon.gate("gate");
    daemon.up();
    assert_eq!(fault(&daemon, "late"), ("not_ready".to_owned(), "not ready within 200ms".to_owned()));
    assert_eq!(first_cause(&daemon, "late"), "unwell");
    let extended = until("more time", || events(&daemon, "run.extended").into_iter().next());
    assert_eq!(extended["job"], "asks");
    gate.release();
    daemon.wait_running("asks");
    assert_eq!(daemon.job("asks")["restarts"], 0);
}

/// Answers each connection with this status until it is dropped.
fn http_server(status: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        }
    });
    port
}

#[test]
fn each_probe_asks_and_who_does_not_answer_is_restarted() {
    let (good, bad) = (http_server("204 No Content"), http_server("500 No"));
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let probe =
        |ask: &str| format!("probe.liveness = {{ {ask}, interval = \"50ms\", failures = 2 }}\n{QUICK}");
    let config = [
        job("http", "hang", &probe(&format!("http = \"http://127.0.0.1:{good}/live\""))),
        job("http-bad", "hang", &probe(&format!("http = \"http://127.0.0.1:{bad}/live\""))),
        job("tcp", "hang", &probe(&format!("tcp = \"127.0.0.1:{good}\""))),
        job("tcp-bad", "hang", &probe(&format!("tcp = \"127.0.0.1:{closed}\""))),
        job("unix", "hang", &probe("unix = \"@dir@/listens\"")),
        job("unix-bad", "hang", &probe("unix = \"@dir@/nothing\"")),
        job(
            "exec",
            "hang",
            &probe("exec = [\"/bin/sh\", \"-c\", \"test $OUTLIVE_JOB = exec -a $OUTLIVE_PID -gt 1\"]"),
        ),
        job("exec-bad", "hang", &probe("exec = \"false\"")),
        job(
            "hangs",
            "hang",
            &format!(
                "probe.liveness = {{ exec = \"sleep 1000\", timeout = \"100ms\", failures = 1 }}\n{QUICK}"
            ),
        ),
    ];
    let mut daemon = Daemon::prepare(&config.concat());
    let _listener = UnixListener::bind(daemon.path("listens")).unwrap();
    daemon.up();
    for (name, why) in [
        ("http-bad", "liveness probe failed 2 times: status 500"),
        ("tcp-bad", "refused"),
        ("unix-bad", "No such file"),
        ("exec-bad", "exit 1"),
        ("hangs", "liveness probe failed once: no answer within 100 ms"),
    ] {
        let found = fault(&daemon, name);
        assert_eq!(found.0, "liveness", "{name}");
        assert!(found.1.contains(why), "{name}: {found:?}");
        until("another run", || (daemon.job(name)["restarts"].as_u64()? > 0).then_some(()));
    }
    for name in ["http", "tcp", "unix", "exec"] {
        let job = daemon.job(name);
        assert_eq!((job["state"].as_str(), job["restarts"].as_u64()), (Some("running"), Some(0)), "{job:#}");
    }
}

#[test]
fn a_startup_probe_holds_the_others_back_and_readiness_comes_and_goes() {
    let probe = "probe.startup = { exec = \"test -e @dir@/up\", interval = \"50ms\", failures = 1000 }\n\
        probe.readiness = { exec = \"test -e @dir@/usable\", interval = \"50ms\", failures = 1 }\n\
        probe.liveness = { exec = \"test -e @dir@/up\", interval = \"50ms\", failures = 1 }";
    let config = [
        job("j", "hang", probe),
        job(
            "dead",
            "hang",
            &format!("probe.startup = {{ exec = \"false\", interval = \"20ms\", failures = 3 }}\n{QUICK}"),
        ),
    ];
    let daemon = Daemon::start(&config.concat());
    assert_eq!(
        fault(&daemon, "dead"),
        ("startup".to_owned(), "startup probe failed 3 times: exit 1".to_owned())
    );
    daemon.wait_state("j", "starting");
    daemon.write("up", "");
    daemon.write("usable", "");
    let (pid, _) = daemon.wait_running("j");
    let verdict = |word: &str| {
        let word = word.to_owned();
        daemon.wait_job("j", &word.clone(), move |job| job["health"]["verdict"] == *word)
    };
    verdict("healthy");
    std::fs::remove_file(daemon.path("usable")).unwrap();
    let unready = verdict("unready");
    assert!(
        unready["health"]["why"].as_str().unwrap().contains("readiness probe failed once: exit 1"),
        "{unready:#}"
    );
    daemon.write("usable", "");
    verdict("healthy");
    assert_eq!(daemon.wait_running("j").0, pid, "it was never touched");
}

#[test]
fn who_uses_too_much_is_dealt_with_as_configured() {
    let config = [
        // A shell and five that sleep.
        shell("pids", "for i in 1 2 3 4 5; do sleep 1000 & done; wait", "limits = { pids = 3 }"),
        shell("fits", "for i in 1 2; do sleep 1000 & done; wait", "limits = { pids = 3, memory = \"1GB\" }"),
        shell("memory", "exec sleep 1000", "limits = { memory = \"1KB\", on_exceed = \"stop\" }"),
        job("told", "hang", "limits = { memory = \"1KB\", on_exceed = \"notify\" }"),
        shell(
            "signalled",
            "trap 'echo heard >> @dir@/heard' USR1; while :; do sleep 0.05; done",
            "limits = { memory = \"1KB\", on_exceed = { signal = \"USR1\" } }",
        ),
    ];
    let mut daemon = Daemon::prepare(&config.concat());
    // Where a tree is delegated to us, the kernel would hold them to it.
    daemon.env.push(("OUTLIVE_CGROUP".to_owned(), "off".to_owned()));
    daemon.up();
    assert_eq!(
        fault(&daemon, "pids"),
        ("pids".to_owned(), "has 6 processes and threads, and may have 3".to_owned())
    );
    until("another run", || (daemon.job("pids")["restarts"].as_u64()? > 0).then_some(()));
    let (kind, why) = fault(&daemon, "memory");
    assert!(kind == "memory" && why.ends_with("may use 1000 bytes"), "{why}");
    let fatal = daemon.wait_state("memory", "fatal");
    assert!(fatal["reason"].as_str().unwrap().contains("of memory, and may use"), "{fatal:#}");
    fault(&daemon, "told");
    let told = daemon.wait_job("told", "unwell", |job| job["health"]["verdict"] == "unwell");
    assert_eq!((told["state"].as_str(), told["restarts"].as_u64()), (Some("running"), Some(0)));
    fault(&daemon, "signalled");
    until("the signal", || (!daemon.read("heard").is_empty()).then_some(()));
    assert_eq!(daemon.read("heard"), "heard\n", "once");
    assert_eq!(daemon.job("fits")["restarts"], 0);
}

#[test]
fn the_ladder_goes_rung_by_rung_and_a_snapshot_is_left_behind() {
    let config = job(
        "j",
        "print the-last-words\\n ignore TERM hang",
        "heartbeat = { output = \"200ms\" }\nrestart = \"never\"\nstop = { signal = \"TERM\", timeout = \"300ms\" }\n\
         on_frozen = [{ continue = \"50ms\" }, \"dump\", { dump = \"URG\", wait = \"50ms\" }, \"stop\", \"restart\"]",
    );
    let daemon = Daemon::start(&config);
    let ended = daemon.wait_ended("j");
    assert_eq!(ended["signal"], 9, "it ignored the first: {ended:#}");
    let text = ended["text"].as_str().unwrap();
    assert!(text.starts_with("no output for 200ms: signal 9"), "{text}");
    let rungs: Vec<Value> =
        events(&daemon, "run.heal_step").iter().map(|event| event["step"].clone()).collect();
    assert_eq!(rungs, [0, 1, 2, 3].map(Value::from));
    let run = daemon.job("j")["run"].as_str().unwrap().to_owned();
    let snapshot = std::fs::read_to_string(daemon.run_dir(&run).join("diagnosis-1.txt")).unwrap();
    for part in ["no output for 200ms", "misbehave", "the-last-words", "open files"] {
        assert!(snapshot.contains(part), "{part} in {snapshot}");
    }
    assert_eq!(daemon.job("j")["state"], "exited", "a task or service that is not to be restarted is not");
}

#[test]
fn who_answers_the_signal_for_a_dump_and_hangs_on_is_stopped_and_restarted() {
    let script = "trap 'echo my stack' QUIT; echo begun; while :; do sleep 1000 & wait $$!; done";
    let ladder = "heartbeat = { output = \"300ms\" }\nrestart = \"always\"\n\
                  on_frozen = [\"continue\", { dump = \"QUIT\", wait = \"700ms\" }, \"stop\", \"restart\"]";
    let daemon = Daemon::start(&shell("j", script, ladder));
    let (_, run) = daemon.wait_running("j");
    daemon.wait_next_run("j", &run);
    let ended = &daemon.events_of("run.ended", "j")[0]["record"];
    assert_eq!(ended["asked"]["health"]["fault"], "silent", "{ended:#}");
    assert!(events(&daemon, "run.well").is_empty());
}

#[test]
fn a_task_that_is_ended_for_hanging_has_failed_also_for_who_waits_for_it() {
    let script = "trap 'exit 0' TERM; echo begun; sleep 1000 & wait";
    let daemon = Daemon::start(&shell("j", script, "kind = \"task\"\nmax_runtime = \"300ms\""));
    let said = daemon.cli(["wait", "j"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("j: took longer than 300ms: exit 0"), "{said:?}");
    assert_eq!(daemon.cli(["status", "j"]).code, 3);
}

#[test]
fn the_ladder_goes_on_when_the_supervisor_dies_on_it() {
    let config = job(
        "j",
        "hang",
        &format!(
            "heartbeat = {{ output = \"100ms\" }}\non_frozen = [{{ continue = \"1s\" }}, \"restart\"]\n{QUICK}"
        ),
    );
    let mut daemon = Daemon::start(&config);
    let run =
        daemon.wait_job("j", "with a run", |job| job["run"].is_string())["run"].as_str().unwrap().to_owned();
    until("the first rung", || (!events(&daemon, "run.heal_step").is_empty()).then_some(()));
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    until("another run", || {
        let job = daemon.try_job("j")?;
        (job["run"] != *run && job["restarts"].as_u64()? >= 1).then_some(())
    });
    let mine = |event: &&Value| event["run"] == *run;
    assert_eq!(events(&daemon, "run.unwell").iter().filter(mine).count(), 1, "it is one incident");
}

#[test]
fn real_clients_drive_readiness_and_watchdog_and_strangers_do_not() {
    let python = "import os, socket, time\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        a = os.environ['NOTIFY_SOCKET']\n\
        a = '\\0' + a[1:] if a[0] == '@' else a\n\
        assert os.environ['WATCHDOG_USEC'] == '1500000'\n\
        s.sendto(b'READY=1\\nSTATUS=serving\\nX_PROGRESS=40', a)\n\
        while not os.path.exists('enough'):\n    s.sendto(b'WATCHDOG=1', a); time.sleep(0.05)\n\
        while True: time.sleep(1)\n";
    for program in ["python3", "systemd-notify"] {
        let there = std::process::Command::new(program).arg("--version").output();
        if !there.is_ok_and(|said| said.status.success()) {
            return skip(&format!("there is no {program} here"));
        }
    }
    let config = [
        format!(
            "[job.py]\ncommand = [\"python3\", \"client.py\"]\ncwd = \"@dir@\"\nready = {{ notify = true }}\n\
             heartbeat = {{ notify = \"1500ms\" }}\n{QUICK}"
        ),
        shell("sd", "systemd-notify --ready --status=up; exec sleep 1000", "ready = { notify = true }"),
        // It writes to the other's socket: `READY`, and a token.
        shell(
            "hostile",
            "for s in @dir@/run/runs/*/notify; do exec @misbehave@ notify-other $s 'WATCHDOG=trigger' hang; done",
            "depends_on = [\"py\"]",
        ),
    ];
    let mut daemon = Daemon::prepare(&config.concat());
    daemon.write("client.py", python);
    daemon.up();
    let (_, run) = daemon.wait_running("py");
    daemon.wait_running("sd");
    let shown = daemon.wait_job("py", "told", |job| job["progress"]["text"] == "serving");
    assert_eq!(shown["progress"]["percent"], 40, "{shown:#}");
    assert_eq!(daemon.wait_job("sd", "told", |job| job["progress"].is_object())["progress"]["text"], "up");
    until("the hostile message is counted", || {
        let rejected = |name: &str| daemon.job(name)["health"]["rejected"].as_u64().unwrap_or(0);
        (rejected("py") + rejected("sd") == 1).then_some(())
    });
    assert!(events(&daemon, "run.unwell").is_empty());
    // Its beats stop.
    daemon.write("enough", "");
    daemon.wait_next_run("py", &run);
    assert_eq!(fault(&daemon, "py").0, "watchdog");
}

#[test]
fn a_reload_changes_the_line_that_says_ready_and_what_was_written_before_counts() {
    let with = |line: &str| job("j", "print one\\n hang", &format!("ready = {{ log = \"^{line}$\" }}"));
    let daemon = Daemon::start(&with("two"));
    daemon.wait_line("j", "one");
    daemon.wait_state("j", "starting");
    let run = daemon.job("j")["run"].clone();
    daemon.write_config(&with("one"));
    assert_eq!(daemon.cli(["reload"]).code, 0);
    daemon.wait_running("j");
    assert_eq!(daemon.job("j")["run"], run);
}

#[test]
fn a_reload_changes_how_a_live_run_is_watched_and_does_not_touch_it() {
    let daemon = Daemon::start(&job("j", "hang", QUICK));
    let (pid, run) = daemon.wait_running("j");
    daemon.write_config(&job(
        "j",
        "hang",
        &format!("{QUICK}max_runtime = \"1h\"\nheartbeat = {{ output = \"1h\" }}"),
    ));
    assert_eq!(daemon.cli(["reload"]).code, 0);
    assert_eq!(daemon.wait_running("j"), (pid, run.clone()));
    daemon.write_config(&job("j", "hang", &format!("{QUICK}max_runtime = \"100ms\"")));
    assert_eq!(daemon.cli(["reload"]).code, 0);
    daemon.wait_job("j", "another run", |job| job["run"] != *run);
    assert_eq!(fault(&daemon, "j").0, "max_runtime");
}

#[test]
fn a_probe_that_cannot_be_asked_is_not_held_against_the_run() {
    let probe = "probe.liveness = { exec = \"/bin/true\", interval = \"50ms\", failures = 1 }\n";
    let daemon = Daemon::start(&job("j", "hang", &(probe.to_owned() + QUICK)));
    let (_, run) = daemon.wait_running("j");
    let supervisor = rustix::process::Pid::from_raw(daemon.role("supervisor"));
    let files = |limit: Rlimit| rustix::process::prlimit(supervisor, Resource::Nofile, limit).unwrap();
    let few = Rlimit { current: Some(3), maximum: getrlimit(Resource::Nofile).maximum };
    let before = files(few);
    until("probes that cannot be asked", || {
        (daemon.read("up.log").matches("cannot be asked").count() >= 3).then_some(())
    });
    files(before);
    let job = daemon.wait_running("j");
    assert_eq!(job.1, run);
    assert!(events(&daemon, "run.unwell").is_empty());
}

#[test]
fn the_signal_for_a_dump_is_sent_once_over_the_deaths_of_supervisor_and_keeper() {
    let keys = "heartbeat = { output = \"200ms\" }\n\
                on_frozen = [{ dump = \"QUIT\", wait = \"1h\" }, \"restart\"]";
    let script = "trap 'echo told' QUIT; echo ready; while :; do /bin/sleep 0.02; done";
    let mut daemon = Daemon::start(&shell("j", script, keys));
    daemon.wait_line("j", "told");
    for role in ["supervisor", "keeper", "supervisor"] {
        let old = daemon.kill_role(role);
        daemon.wait_role_back(role, old);
        until("it is known that it hangs", || (daemon.job("j")["state"] == "frozen").then_some(()));
    }
    assert_eq!(events(&daemon, "run.heal_step").len(), 1, "its time has not begun anew");
    assert_eq!(daemon.log("j"), "ready\ntold\n");
}
