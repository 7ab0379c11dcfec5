//! What comes out of right configurations.

use super::*;
use crate::config::{LogLevel, OnUnreadableLog, empty};
use crate::core::circuit::Breaker;
use crate::core::group::{GroupSpec, Strategy};
use crate::core::hook::{Hook, Hooks};
use crate::core::host::{Act, Custom, Kind as HealthKind};
use crate::core::ids::{JobName, QueueName};
use crate::core::spec::{
    Backoff, KillScope, Kind, Leftovers, OnFatal, OnLogStall, OnSupervisorDeath, Output, OutputMode,
    Recovery, Restart, Rlimit, StartLimit, Stdin, StopAct, StopStep,
};
use crate::core::time::Millis;
use crate::core::watch::{
    BeatFile, FrozenStep, Heartbeat, Limits, OnExceed, Probe, ProbeAsk, Probes, Ready, ReadyBy, Watch,
};

/// A file in which every key stands.
pub(in super::super) const EVERY_KEY: &str = r#"
include = []

[supervisor]
shutdown_timeout = "2m"
socket_mode = "0660"
socket_group = "www-data"
log_level = "debug"
keep_runs = 5
recovery_start_rate = 7
on_unreadable_log = "fresh"
slots = 9

[queue.builds]
slots = 3

[health]
enabled = true
interval = "20s"
timeout = "5s"
heal_after = 2
memory = "80%"
disk = "99.5%"
inodes = "off"
open_files = "70 %"
pids = "off"
pressure = "40%"
on_memory = ["hold-starts", "stop-lowest", "restart-largest"]
on_disk = { command = "clean up", timeout = "1m" }
on_inodes = ["expire"]
on_open_files = []
on_pids = [{ restart = "db" }]
on_pressure = ["rotate", { command = ["x"] }]
on_inotify = []
on_control = []
on_event_log = []
on_keeper = []

[health.check.web]
http = "http://127.0.0.1:8080/"
interval = "10s"
timeout = "1s"
failures = 4
heal = [{ restart = "web" }]

[defaults]
nice = 1
env = { LEVEL = "low", SHARED = "yes" }

[group.site]
jobs = ["db", "web:*"]
strategy = "rest-for-one"
start_limit = { count = 5, within = "1m" }

[job.db]
command = "db --port ${PORT}"

[job.web]
command = "web --name 'the {n}th' --port ${PORT}"
shell = false
resume_command = "web --resume {token} --name 'the {n}th'"
env = { LEVEL = "high", N = "{n}", COUNT = 3, ON = true }
env_file = []
inherit_env = ["PATH", "HOME"]
cwd = "."
user = "www-data"
group = 33
umask = "027"
nice = -5
oom_score_adj = 100
kind = "service"
instances = 2
autostart = false
restart = "on-failure"
success_codes = [0, 143]
start_grace = "2s"
kill_scope = "tree"
leftovers = "wait"
depends_on = ["db"]
stdin = "keep"
on_supervisor_death = { kill_after = "30s" }
recovery = "manual"
recovery_timeout = "2h"
on_fatal = "stop-all"
retry_fatal = "10m"
hooks = { before_start = "migrate {n}", after_start = ["true"], before_stop = { command = "drain", timeout = "1m" }, after_exit = "true", on_frozen = "true", on_fatal = { command = ["mail", "{n}"] } }
priority = -3
queue = "builds"
retries = 4
heartbeat = { notify = "15s", output = "10m", cpu = "5m", file = { path = "beat-{n}", timeout = "1m" } }
probe.liveness = { http = "http://127.0.0.1:80{n}/live", interval = "5s", timeout = "1s", failures = 2, successes = 3, delay = "4s" }
probe.readiness = { tcp = "localhost:80{n}" }
probe.startup = { exec = "check '{n} or so'" }
ready = { log = "^ready", timeout = "20s" }
max_runtime = "2h"
progress_timeout = "30m"
limits = { memory = "512MiB", cpu = "150%", pids = 20, on_exceed = { signal = "USR1" } }
on_frozen = ["continue", { continue = "3s" }, { dump = "QUIT", wait = "5s" }, "dump", "stop", "restart"]
rlimits = { nofile = 1024, core = "unlimited", stack = { soft = 8388608, hard = "unlimited" } }
backoff = { initial = "0s", factor = 1.5, max = "10s", jitter = 0, reset_after = "5m" }
start_limit = { count = 3, within = "30s" }
breaker = { failures = 3, open_for = "2m" }
stop = [{ command = ["web", "quit", "{n}"], timeout = "5s" }, { signal = "INT" }, { signal = 15, timeout = "1s" }]

[job.web.output]
mode = "separate"
max_size = "64KiB"
keep = 3
compress = false
on_log_stall = "drop"
dir = "logs/{n}"
"#;

fn step(act: StopAct, timeout: u64) -> StopStep {
    StopStep { act, timeout: Millis::from_secs(timeout) }
}

/// What follows on what, as the second `web` has it.
fn policy() -> JobSpec {
    let argv = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let hook = |words: &[&str], secs| Some(Hook { command: argv(words), timeout: Millis::from_secs(secs) });
    JobSpec {
        queue: Some(QueueName::new("builds").unwrap()),
        retries: Some(4),
        hooks: Some(Box::new(Hooks {
            before_start: hook(&["migrate", "2"], 30),
            after_start: hook(&["true"], 30),
            before_stop: hook(&["drain"], 60),
            after_exit: hook(&["true"], 30),
            on_frozen: hook(&["true"], 30),
            on_fatal: hook(&["mail", "2"], 30),
        })),
        resume_command: Some(argv(&["web", "--resume", "{token}", "--name", "the 2th"]).into()),
        in_group: Some(Box::new(GroupSpec {
            name: "site".into(),
            strategy: Strategy::RestForOne,
            members: ["db", "web:1", "web:2"].map(|name| JobName::new(name).unwrap()).into(),
            start_limit: Some(StartLimit { count: 5, within: Millis::from_secs(60) }),
        })),
        retry_fatal: Some(Millis::from_secs(600)),
        breaker: Some(Box::new(Breaker { failures: 3, open_for: Millis::from_secs(120) })),
        ..JobSpec::new(JobName::new("web:2").unwrap(), Vec::new())
    }
}

#[test]
fn every_key_arrives() {
    let (dir, config) = good(EVERY_KEY);
    let here = dir.path().display().to_string();
    assert!(config.jobs.iter().map(|j| j.name.as_str()).eq(["db", "web:1", "web:2"]));
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let argv = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let wanted = JobSpec {
        name: JobName::new("web:2").unwrap(),
        kind: Kind::Service,
        command: argv(&["web", "--name", "the 2th", "--port", "8080"]),
        env: map(&[("LEVEL", "high"), ("SHARED", "yes"), ("N", "2"), ("COUNT", "3"), ("ON", "true")]),
        inherit_env: Some(argv(&["PATH", "HOME"])),
        cwd: Some(here.clone()),
        user: Some("www-data".into()),
        group: Some("33".into()),
        umask: Some(0o027),
        rlimits: [
            ("nofile".to_owned(), Rlimit { soft: Some(1024), hard: Some(1024) }),
            ("core".to_owned(), Rlimit { soft: None, hard: None }),
            ("stack".to_owned(), Rlimit { soft: Some(8_388_608), hard: None }),
        ]
        .into(),
        nice: Some(-5),
        oom_score_adj: Some(100),
        autostart: false,
        restart: Restart::OnFailure,
        success_codes: vec![0, 143],
        backoff: Backoff {
            initial: Millis(0),
            factor: 1.5,
            max: Millis::from_secs(10),
            jitter: 0.0,
            reset_after: Millis::from_secs(300),
        },
        start_limit: StartLimit { count: 3, within: Millis::from_secs(30) },
        start_grace: Millis::from_secs(2),
        stop: vec![
            step(StopAct::Command(argv(&["web", "quit", "2"])), 5),
            step(StopAct::Signal(2), 10),
            step(StopAct::Signal(15), 1),
        ],
        kill_scope: KillScope::Tree,
        leftovers: Leftovers::Wait,
        depends_on: vec![JobName::new("db").unwrap()],
        output: Output {
            mode: OutputMode::Separate,
            max_size: 65_536,
            keep: 3,
            compress: false,
            on_log_stall: OnLogStall::Drop,
            dir: Some(format!("{here}/logs/2")),
        },
        stdin: Stdin::Keep,
        on_supervisor_death: OnSupervisorDeath::KillAfter(Millis::from_secs(30)),
        recovery: Recovery::Manual,
        recovery_timeout: Millis::from_secs(7200),
        priority: -3,
        on_fatal: OnFatal::StopAll,
        watch: Some(Box::new(every_watch(&here))),
        ..policy()
    };
    assert_eq!(config.jobs[2], wanted);
    let s = &config.supervisor;
    assert_eq!((s.shutdown_timeout, s.socket_mode, s.keep_runs), (Millis::from_secs(120), 0o660, 5));
    assert_eq!(s.recovery_start_rate, 7);
    assert_eq!(s.on_unreadable_log, OnUnreadableLog::Fresh);
    assert_eq!((s.socket_group.as_deref(), s.log_level), (Some("www-data"), LogLevel::Debug));
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
}

#[test]
fn queues_arrive_and_there_is_always_one() {
    let (_dir, config) = good(EVERY_KEY);
    let slots: Vec<(&str, u32)> = config.queues.slots.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!((slots, config.queues.all), (vec![("builds", 3), ("default", 1)], Some(9)));
    let (_dir, config) = good("");
    assert_eq!(config.queues, crate::core::queue::Settings::default());
}

#[test]
fn a_job_that_says_little_has_the_defaults() {
    let (dir, config) = good("[job.a]\ncommand = \"true\"\n[job.t]\ncommand = \"true\"\nkind = \"task\"\n");
    let wanted = JobSpec {
        cwd: Some(dir.path().display().to_string()),
        restart: Restart::Always,
        ..JobSpec::new(JobName::new("a").unwrap(), vec!["true".into()])
    };
    assert_eq!(config.jobs[0], wanted);
    assert_eq!((config.jobs[1].kind, config.jobs[1].restart), (Kind::Task, Restart::Never));
    assert_eq!(config.supervisor, empty().supervisor);
    let (_dir, config) = good("# nothing\n");
    assert_eq!(config.jobs, []);
}

#[test]
fn commands_are_lists_or_split_or_for_the_shell() {
    for (lines, wanted) in [
        ("command = [\"a b\", \"$x\", \"|\"]", &["a b", "$x", "|"][..]),
        ("command = \"a 'b c' d\\\\ e\"", &["a", "b c", "d e"]),
        ("command = 'x \"${HOME}/a b\" ${NOPE:-c d}'", &["x", "/home/me/a b", "c d"]),
        ("command = '''\n  x \\\n  --long\n'''", &["x", "--long"]),
        (
            "shell = true\ncommand = 'i=$((1+1)); echo \"$i ${PORT}\" > $${f}'",
            &["/bin/sh", "-c", "i=$((1+1)); echo \"$i 8080\" > ${f}"],
        ),
    ] {
        assert_eq!(job(lines).command, wanted, "{lines}");
    }
}

#[test]
fn defaults_are_layered_key_by_key() {
    let text = r#"
        [defaults]
        kind = "task"
        env = { A = "default", B = "default", C = "default" }
        rlimits = { nofile = 1, core = 2 }
        backoff = { initial = "1s", max = "9s" }
        output = { keep = 2, mode = "separate" }
        start_limit = { count = 1 }
        stop = [{ signal = "INT" }]
        [job.plain]
        command = "x"
        [job.own]
        command = "x"
        kind = "service"
        env_file = ["a.env", "b.env"]
        env = { C = "job" }
        rlimits = { core = 3 }
        backoff = { max = "8s" }
        output = { keep = 4 }
        stop = { signal = "HUP" }
    "#;
    let dir = Dir::new(&[("outlive.toml", text), ("a.env", "B=a\nC=a\nD=a ${HOME}\n"), ("b.env", "D=b\n")]);
    let config = dir.load().unwrap();
    let [plain, own] = &config.jobs[..] else { panic!() };
    let value = |job: &JobSpec, name: &str| job.env.get(name).cloned().unwrap_or_default();
    assert_eq!(["A", "B", "C", "D"].map(|n| value(plain, n)), ["default", "default", "default", ""]);
    assert_eq!(["A", "B", "C", "D"].map(|n| value(own, n)), ["default", "a", "job", "b"]);
    assert_eq!((plain.kind, plain.restart), (Kind::Task, Restart::Never));
    assert_eq!((own.kind, own.restart), (Kind::Service, Restart::Always));
    assert_eq!((own.rlimits["nofile"].soft, own.rlimits["core"].soft), (Some(1), Some(3)));
    assert_eq!((own.backoff.initial, own.backoff.max), (Millis(1000), Millis(8000)));
    assert_eq!((own.output.mode, own.output.keep), (OutputMode::Separate, 4));
    assert_eq!((own.start_limit.count, own.start_limit.within), (1, Millis::from_secs(60)));
    assert_eq!((&plain.stop[0].act, &own.stop[0].act), (&StopAct::Signal(2), &StopAct::Signal(1)));
    assert_eq!((own.stop.len(), config.files.len()), (1, 3));
}

#[test]
fn instances_know_their_number_everywhere() {
    let text = r#"
        [job.shard]
        command = ["run", "--id={n}", "{{n}}"]
        instances = 3
        env = { ID = "{n}" }
        env_file = "{n}.env"
        cwd = "d{n}"
        stdin = { file = "d{n}/in" }
        [job.reader]
        command = "read"
        instances = 2
        depends_on = ["shard:{n}", "shard:3"]
        [job.all]
        command = "x"
        depends_on = ["shard", "shard:1", "one"]
        [job.one]
        command = "x"
        instances = 1
    "#;
    let files = ["1", "2", "3"].map(|n| (format!("d{n}/in"), format!("{n}.env"), format!("F=file{n}\n")));
    let dir = Dir::new(&[("outlive.toml", text)]);
    for (stdin, env_file, vars) in &files {
        dir.write(stdin, b"");
        dir.write(env_file, vars.as_bytes());
    }
    let config = dir.load().unwrap();
    let find = |name: &str| config.jobs.iter().find(|j| j.name.as_str() == name).unwrap();
    let needs = |name: &str| find(name).depends_on.iter().map(JobName::as_str).collect::<Vec<_>>();
    let second = find("shard:2");
    assert_eq!(second.command, ["run", "--id=2", "{n}"]);
    assert_eq!((second.env["ID"].as_str(), second.env["F"].as_str()), ("2", "file2"));
    assert!(second.cwd.as_ref().unwrap().ends_with("/d2"));
    assert!(matches!(&second.stdin, Stdin::File(path) if path.ends_with("/d2/in")));
    assert_eq!(needs("reader:1"), ["shard:3", "shard:1"]);
    assert_eq!(needs("reader:2"), ["shard:3", "shard:2"]);
    assert_eq!(needs("all"), ["shard:1", "shard:2", "shard:3", "one:1"]);
    assert_eq!(config.jobs.len(), 3 + 2 + 1 + 1);
}

#[test]
fn ten_thousand_instances_are_read_in_a_moment() {
    let (_dir, config) = good("[job.a]\ncommand = \"x {n}\"\ninstances = 10000\ncwd = \"/\"\n");
    assert_eq!((config.jobs.len(), config.jobs[9999].command[1].as_str()), (10_000, "10000"));
}

#[test]
fn included_files_bring_jobs_and_their_own_directory() {
    let dir = Dir::new(&[
        (
            "outlive.toml",
            "include = [\"conf.d/*.toml\", \"conf.d/b.toml\", \"*.toml\"]\n[defaults]\nnice = 3\n[job.main]\ncommand = \"x\"\n",
        ),
        ("conf.d/b.toml", "[job.b]\ncommand = \"x\"\ncwd = \"sub\"\ndepends_on = [\"main\", \"a\"]\n"),
        ("conf.d/a.toml", "[job.a]\ncommand = \"x\"\n"),
        ("conf.d/.#a.toml", "[job.a]\nnonsense"),
        ("conf.d/sub/x", ""),
    ]);
    let config = dir.load().unwrap();
    let here = dir.path().display().to_string();
    let jobs: Vec<(&str, &str)> =
        config.jobs.iter().map(|j| (j.name.as_str(), j.cwd.as_deref().unwrap())).collect();
    let sub = format!("{here}/conf.d/sub");
    assert_eq!(jobs, [("main", here.as_str()), ("a", here.as_str()), ("b", sub.as_str())]);
    assert!(config.jobs.iter().all(|j| j.nice == Some(3)));
    let files: Vec<PathBuf> =
        ["outlive.toml", "conf.d/a.toml", "conf.d/b.toml"].iter().map(|f| dir.path().join(f)).collect();
    assert_eq!(config.files, files);
}

#[test]
fn the_digest_follows_every_file() {
    let dir = Dir::new(&[
        ("outlive.toml", "include = [\"b.toml\"]\n[job.a]\ncommand = \"x\"\nenv_file = \"a.env\"\n"),
        ("b.toml", "[job.b]\ncommand = \"x\"\n"),
        ("a.env", "A=1\n"),
    ]);
    let digest = || dir.load().unwrap().digest;
    let mut seen = vec![digest()];
    assert_eq!(digest(), seen[0]);
    dir.write("a.env", b"A=2\n");
    seen.push(digest());
    dir.write("b.toml", b"[job.b]\ncommand = \"y\"\n");
    seen.push(digest());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
}

#[test]
fn environment_values_may_stay_out_or_be_named() {
    assert_eq!(job("command = 'x'").inherit_env, None);
    assert_eq!(job("command = 'x'\ninherit_env = true").inherit_env, None);
    assert_eq!(job("command = 'x'\ninherit_env = false").inherit_env, Some(vec![]));
    assert_eq!(job("command = 'x'\ninherit_env = ['A']").inherit_env, Some(vec!["A".into()]));
}

#[test]
fn ids_masks_and_fates_in_all_their_forms() {
    assert_eq!(job("command = 'x'\nuser = 1000").user.as_deref(), Some("1000"));
    assert_eq!(job("command = 'x'\nuser = '1000'").user.as_deref(), Some("1000"));
    assert_eq!(job("command = 'x'\nuser = '${NOPE:-root}'").user.as_deref(), Some("root"));
    assert_eq!(job("command = 'x'\numask = 0o022").umask, Some(0o022));
    assert_eq!(job("command = 'x'\numask = 0").umask, Some(0));
    assert_eq!(
        job("command = 'x'\non_supervisor_death = 'kill'").on_supervisor_death,
        OnSupervisorDeath::Kill
    );
    assert_eq!(job("command = 'x'\nstdin = 'null'").stdin, Stdin::Null);
    assert_eq!(job("command = 'x'\noutput = { max_size = 0 }").output.max_size, 0);
    assert_eq!(job("command = 'x'\nstart_limit = { count = 0, within = '0s' }").start_limit.count, 0);
    assert_eq!(job("command = 'x'\nstop = { signal = 'SIGRTMIN+1' }").stop[0].act, StopAct::Signal(35));
}

#[test]
fn a_relative_path_to_the_file_is_made_absolute_for_the_jobs() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let relative = Path::new("examples/quickstart.toml");
    // Tests run in the root of the package.
    assert_eq!(std::env::current_dir().unwrap(), root);
    let config = crate::config::load(relative, &env()).unwrap();
    assert_eq!(config.jobs[0].cwd.as_deref(), root.join("examples").to_str());
    assert_eq!(config.files, [root.join(relative)]);
}

#[test]
fn the_first_default_file_wins_even_if_it_is_broken() {
    let dir = Dir::new(&[]);
    let home = dir.path().to_str().unwrap().to_owned();
    let env = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let paths = |pairs: &[(&str, &str)]| -> Vec<String> {
        crate::config::candidates(&env(pairs)).iter().map(|p| p.display().to_string()).collect()
    };
    let last = "/etc/outlive/outlive.toml";
    assert_eq!(paths(&[]), ["outlive.toml", last]);
    assert_eq!(paths(&[("HOME", "/h")]), ["outlive.toml", "/h/.config/outlive/outlive.toml", last]);
    assert_eq!(
        paths(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]),
        ["outlive.toml", "/x/outlive/outlive.toml", last]
    );
    assert_eq!(paths(&[("HOME", ""), ("XDG_CONFIG_HOME", "rel")]), ["outlive.toml", last]);

    let found = dir.path().join("outlive/outlive.toml");
    std::fs::create_dir_all(found.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("gone", &found).unwrap();
    assert_eq!(crate::config::find_default(&env(&[("XDG_CONFIG_HOME", &home)])), Some(found));
}

#[test]
fn the_examples_load_where_nothing_is_installed() {
    let paths = examples();
    assert!(paths.len() >= 3);
    for path in paths {
        let config = crate::config::load(&path, &BTreeMap::new()).unwrap_or_else(|e| panic!("{e}"));
        assert!(!config.jobs.is_empty(), "{}", path.display());
        for job in &config.jobs {
            if let [shell, "-c", text] = job.command.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                let read = std::process::Command::new(shell).args(["-n", "-c", text]).output().unwrap();
                assert!(read.status.success(), "{}: {read:?}", job.name);
            }
        }
    }
}

fn every_watch(here: &str) -> Watch {
    Watch {
        heartbeat: Heartbeat {
            notify: Some(Millis::from_secs(15)),
            output: Some(Millis::from_secs(600)),
            cpu: Some(Millis::from_secs(300)),
            file: Some(BeatFile { path: format!("{here}/beat-2"), timeout: Millis::from_secs(60) }),
        },
        probe: Probes {
            startup: Some(Probe::new(ProbeAsk::Exec(vec!["check".into(), "2 or so".into()]))),
            readiness: Some(Probe::new(ProbeAsk::Tcp("localhost:802".into()))),
            liveness: Some(Probe {
                ask: ProbeAsk::Http("http://127.0.0.1:802/live".into()),
                interval: Millis::from_secs(5),
                timeout: Millis::from_secs(1),
                failures: 2,
                successes: 3,
                delay: Millis::from_secs(4),
            }),
        },
        ready: Some(Ready { by: ReadyBy::Log("^ready".into()), timeout: Millis::from_secs(20) }),
        max_runtime: Some(Millis::from_secs(7200)),
        progress_timeout: Some(Millis::from_secs(1800)),
        limits: Limits {
            memory: Some(512 << 20),
            cpu: Some(150),
            pids: Some(20),
            on_exceed: OnExceed::Signal(10),
        },
        on_frozen: Some(vec![
            FrozenStep::Continue { wait: Millis(1000) },
            FrozenStep::Continue { wait: Millis(3000) },
            FrozenStep::Dump { signal: Some(3), wait: Millis(5000) },
            FrozenStep::Dump { signal: None, wait: Millis(0) },
            FrozenStep::Stop,
            FrozenStep::Restart,
        ]),
    }
}

#[test]
fn a_watchdog_that_does_not_say_how_long_has_fifteen_seconds() {
    let (_dir, config) = good("[job.a]\ncommand = \"x\"\nheartbeat = { notify = true }\n");
    let beat = config.jobs[0].watch.as_ref().map(|watch| watch.heartbeat.notify);
    assert_eq!(beat, Some(Some(Millis::from_secs(15))));
}

#[test]
fn who_asks_whether_it_can_be_used_waits_for_a_yes() {
    let (_dir, config) =
        good("[job.a]\ncommand = \"x\"\nprobe.readiness = { unix = \"a.sock\" }\n[job.b]\ncommand = \"x\"\n");
    let ready = config.jobs[0].ready().cloned();
    assert_eq!(ready, Some(Ready { by: ReadyBy::Probe, timeout: Millis::from_secs(90) }));
    assert!(config.jobs[0].watch.as_ref().is_some_and(|watch| !watch.listens()));
    assert_eq!(config.jobs[1].watch, None, "who asks for nothing pays for nothing");
}

#[test]
fn what_is_checked_and_done_about_it_arrives() {
    let (_dir, config) = good(EVERY_KEY);
    let health = &config.health;
    assert_eq!((health.enabled, health.interval, health.timeout), (true, Millis(20_000), Millis(5000)));
    assert_eq!(health.heal_after, 2);
    let limits: Vec<(&str, u32)> =
        health.limits.iter().map(|(kind, limit)| (kind.as_str(), limit.0)).collect();
    assert_eq!(limits, [("memory", 8000), ("disk", 9950), ("open_files", 7000), ("pressure", 4000)]);
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let command = |text: &str, ms| Act::Command { argv: words(text), timeout: Millis(ms) };
    let db = || Act::Restart(JobName::new("db").unwrap());
    for (kind, acts) in [
        (HealthKind::Memory, vec![Act::HoldStarts, Act::StopLowest, Act::RestartLargest]),
        (HealthKind::Disk, vec![command("clean up", 60_000)]),
        (HealthKind::Inodes, vec![Act::Expire]),
        (HealthKind::Pids, vec![db()]),
        (HealthKind::Pressure, vec![Act::Rotate, command("x", 30_000)]),
        (HealthKind::Keeper, vec![]),
    ] {
        assert_eq!(health.on[&kind], acts, "{kind:?}");
    }
    let web = Custom {
        ask: ProbeAsk::Http("http://127.0.0.1:8080/".to_owned()),
        interval: Millis(10_000),
        timeout: Millis(1000),
        failures: 4,
        // All of its instances.
        heal: vec![Act::Restart(JobName::new("web").unwrap())],
    };
    assert_eq!(health.checks, BTreeMap::from([("web".to_owned(), web)]));
}
