//! How a run ended is known exactly: its code, its signal, or the step that failed before it ran.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::{Daemon, is_root, job, misbehave, until};

const TASKS: &str = "[defaults]\nkind = \"task\"\n";

#[test]
fn exit_codes_are_kept() {
    let codes = [0, 1, 3, 127, 137, 255];
    let jobs: String = codes.iter().map(|c| job(&format!("c{c}"), &format!("exit {c}"), "")).collect();
    let daemon = Daemon::start(&(TASKS.to_owned() + &jobs));
    for code in codes {
        let outcome = daemon.wait_ended(&format!("c{code}"));
        assert_eq!(outcome["kind"], "exited", "{outcome:#}");
        assert_eq!(outcome["code"], code, "{outcome:#}");
        assert_eq!(outcome["signal"], Value::Null, "{outcome:#}");
    }
}

#[test]
fn signals_are_signals_and_not_numbers_above_128() {
    let signals = [("HUP", 1), ("KILL", 9), ("SEGV", 11), ("TERM", 15)];
    let jobs: String = signals.iter().map(|(s, _)| job(s, &format!("signal {s}"), "")).collect();
    let daemon = Daemon::start(&(TASKS.to_owned() + &jobs));
    for (name, number) in signals {
        let outcome = daemon.wait_ended(name);
        assert_eq!(outcome["kind"], "signaled", "{outcome:#}");
        assert_eq!(outcome["signal"], number, "{outcome:#}");
        assert_eq!(outcome["code"], Value::Null, "{outcome:#}");
    }
}

/// Whether the kernel dumps core here is asked of the kernel.
#[test]
fn a_core_dump_is_noted() {
    let daemon = Daemon::start(&format!(
        "{TASKS}{}{}",
        job("with", "signal ABRT", "rlimits = { core = \"unlimited\" }\ncwd = \"@dir@\""),
        job("without", "signal ABRT", "rlimits = { core = 0 }\ncwd = \"@dir@\""),
    ));
    let shell = format!("ulimit -c unlimited; exec {} signal ABRT", misbehave().display());
    let direct = Command::new("/bin/sh")
        .args(["-c", &shell])
        // Not beside the jobs: there is one file name for all of them.
        .current_dir(daemon.state_dir())
        .stdin(Stdio::null())
        .status()
        .unwrap();
    let with = daemon.wait_ended("with");
    assert_eq!(with["signal"], 6, "{with:#}");
    assert_eq!(with["core"], direct.core_dumped(), "{with:#}");
    let without = daemon.wait_ended("without");
    assert_eq!(without["signal"], 6, "{without:#}");
    assert_eq!(without["core"], false, "{without:#}");
}

#[test]
fn what_cannot_be_executed_says_which_step_failed_and_why() {
    let config = format!(
        "{TASKS}
[job.no-file]
command = [\"/no/such/program\"]
[job.no-name]
command = [\"no-such-program-in-any-path\"]
[job.no-right]
command = [\"@dir@/plain.txt\"]
[job.no-program]
command = [\"@dir@\"]
[job.no-interpreter]
command = [\"@dir@/script\"]
[job.fine]
command = [\"@misbehave@\", \"exit\", \"0\"]
"
    );
    let mut daemon = Daemon::prepare(&config);
    daemon.write("plain.txt", "text\n");
    daemon.write("script", "#!/no/such/interpreter\n");
    fs::set_permissions(daemon.path("script"), fs::Permissions::from_mode(0o755)).unwrap();
    daemon.up();
    let cases = [
        ("no-file", libc::ENOENT),
        ("no-name", libc::ENOENT),
        ("no-right", libc::EACCES),
        ("no-program", libc::EACCES),
        ("no-interpreter", libc::ENOENT),
    ];
    for (name, errno) in cases {
        let outcome = daemon.wait_ended(name);
        assert_eq!(outcome["kind"], "not_started", "{name}: {outcome:#}");
        assert_eq!(outcome["step"], "exec", "{name}: {outcome:#}");
        assert_eq!(outcome["errno"], errno, "{name}: {outcome:#}");
        assert!(outcome["text"].as_str().unwrap().contains("exec"), "{name}: {outcome:#}");
    }
    assert_eq!(daemon.wait_ended("fine")["code"], 0);
}

#[test]
fn a_directory_that_went_away_is_a_failed_chdir() {
    let mut daemon =
        Daemon::prepare(&(TASKS.to_owned() + &job("j", "exit 0", "cwd = \"@dir@/gone\"\nautostart = false")));
    fs::create_dir(daemon.path("gone")).unwrap();
    daemon.up();
    fs::remove_dir(daemon.path("gone")).unwrap();
    daemon.cli(["start", "j"]);
    let job = daemon.wait_job("j", "ended", |job| job["outcome"].is_object());
    assert_eq!(job["outcome"]["kind"], "not_started", "{job:#}");
    assert_eq!(job["outcome"]["step"], "chdir", "{job:#}");
    assert_eq!(job["outcome"]["errno"], libc::ENOENT, "{job:#}");
}

/// Such a child had told init of itself, and its failure is recorded before init has reaped it.
#[test]
fn starts_that_fail_leave_no_descriptors_in_init() {
    let daemon = Daemon::start(
        "[job.j]\ncommand = [\"/no/such/program\"]\nrestart = \"always\"\n\
         backoff = { initial = \"1ms\", max = \"1ms\" }\nstart_limit = { count = 30, within = \"1m\" }\n",
    );
    let init = daemon.role("init");
    daemon.wait_state("j", "fatal");
    until("descriptors of two sockets, signals, lock, table and a few more", || {
        let open = fs::read_dir(format!("/proc/{init}/fd")).unwrap().count();
        (open < 20).then_some(())
    });
}

#[test]
fn a_limit_that_the_kernel_refuses_is_named() {
    // More open files than the kernel allows anybody.
    let daemon =
        Daemon::start(&(TASKS.to_owned() + &job("j", "exit 0", "rlimits = { nofile = 100000000000 }")));
    let outcome = daemon.wait_ended("j");
    assert_eq!(outcome["kind"], "not_started", "{outcome:#}");
    assert!(outcome["step"].as_str().unwrap().contains("limit"), "{outcome:#}");
    assert_eq!(outcome["errno"], libc::EPERM, "{outcome:#}");
}

#[test]
fn a_failing_start_is_restarted_by_policy_and_given_up_by_the_limit() {
    let daemon = Daemon::start(
        "[job.j]\ncommand = [\"/no/such/program\"]\nrestart = \"always\"\n\
         backoff = { initial = \"1ms\", max = \"1ms\" }\nstart_limit = { count = 3, within = \"1m\" }\n",
    );
    let job = daemon.wait_state("j", "fatal");
    assert_eq!(job["outcome"]["kind"], "not_started", "{job:#}");
    assert_eq!(daemon.events_of("run.ended", "j").len(), 3);
}

#[test]
fn every_end_is_recorded_once_and_in_the_run_directory() {
    let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "print hello exit 5", "")));
    daemon.wait_ended("j");
    let ended = daemon.events_of("run.ended", "j");
    assert_eq!(ended.len(), 1, "{ended:#?}");
    let run = ended[0]["record"]["run"].as_str().unwrap();
    let record: Value =
        serde_json::from_str(&fs::read_to_string(daemon.run_dir(run).join("exit.json")).unwrap()).unwrap();
    assert_eq!(record["outcome"]["kind"], "exited", "{record:#}");
    assert_eq!(record["outcome"]["code"], 5, "{record:#}");
    assert_eq!(record["source"], "wait", "{record:#}");
    assert_eq!(record["stdout_bytes"], 5, "{record:#}");
    assert_eq!(record["output_complete"], true, "{record:#}");
}

#[test]
fn the_end_of_the_process_counts_and_not_the_end_of_its_output() {
    // The grandchild keeps stdout open for long after the main process has gone.
    let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "daemonise exit 4", "leftovers = \"ignore\"")));
    let outcome = daemon.wait_ended("j");
    assert_eq!(outcome["code"], 4, "{outcome:#}");
}

#[test]
fn a_user_that_does_not_exist_is_an_error_before_anything_starts() {
    let daemon = Daemon::prepare(&job("j", "exit 0", "user = \"no-such-user-here\""));
    let said = daemon.cli(["up", "-c", "outlive.toml"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("no-such-user-here"), "{said:?}");
    assert!(said.stderr.contains("outlive.toml:3"), "{said:?}");
    if is_root() {
        let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "ids exit 0", "user = 4242")));
        assert_eq!(daemon.wait_ended("j")["code"], 0, "a number needs no entry");
        assert!(daemon.log("j").contains("uid 4242\n"));
    }
}
