//! What a job finds when it begins: signals, descriptors, session, ids, limits, environment.

use std::collections::BTreeMap;

use crate::common::{Daemon, is_root, job, skip, until};

const TASKS: &str = "[defaults]\nkind = \"task\"\n";

/// `name value` lines as a map.
fn table(log: &str) -> BTreeMap<&str, &str> {
    log.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect()
}

fn said(config: &str) -> String {
    let daemon = Daemon::start(&(TASKS.to_owned() + config));
    assert_eq!(daemon.wait_ended("j")["code"], 0);
    daemon.log("j")
}

#[test]
fn signals_are_as_after_boot_whatever_we_were_started_with() {
    let mut daemon = Daemon::prepare(&(TASKS.to_owned() + &job("j", "signals", "")));
    daemon.wrapper =
        ["/bin/sh", "-c", "trap '' USR1 PIPE CHLD TERM; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    daemon.up();
    assert_eq!(daemon.wait_ended("j")["code"], 0);
    assert_eq!(daemon.log("j"), "blocked 0000000000000000\nignored 0000000000000000\n");
}

#[test]
fn only_three_descriptors_are_open_whatever_we_were_started_with() {
    let mut daemon = Daemon::prepare(&(TASKS.to_owned() + &job("j", "fds", "")));
    daemon.wrapper =
        ["/bin/sh", "-c", "exec 7</dev/null 9>>/dev/null; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    daemon.up();
    assert_eq!(daemon.wait_ended("j")["code"], 0);
    let log = daemon.log("j");
    let fds = table(&log);
    assert_eq!(fds.keys().copied().collect::<Vec<_>>(), ["0", "1", "2"], "{log}");
    assert_eq!(fds["0"], "/dev/null");
    let run = daemon.job("j")["run"].as_str().unwrap().to_owned();
    for fd in ["1", "2"] {
        assert!(fds[fd].contains(&run), "{log}");
    }
}

#[test]
fn starts_at_the_same_time_leave_each_others_descriptors_alone() {
    const JOBS: usize = 40;
    let jobs: String = (0..JOBS).map(|n| job(&format!("j{n}"), "fds", "autostart = false")).collect();
    let daemon = Daemon::start(&(TASKS.to_owned() + &jobs));
    let keeper = daemon.role("keeper");
    let open = || std::fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count();
    let before = open();
    daemon.cli(["start", "*"]).expect(0);
    for n in 0..JOBS {
        let name = format!("j{n}");
        assert_eq!(daemon.wait_ended(&name)["code"], 0);
        let log = daemon.log(&name);
        let fds = table(&log);
        assert_eq!(fds.keys().copied().collect::<Vec<_>>(), ["0", "1", "2"], "{log}");
        let run = daemon.job(&name)["run"].as_str().unwrap().to_owned();
        assert!(fds["1"].contains(&run) && fds["2"].contains(&run), "{run}: {log}");
    }
    // The first output of all makes a worker, with an epoll, a bell, a pipe and a null device.
    until("the keeper's own descriptors", || (open() <= before + 6).then_some(()));
    assert_eq!(daemon.role("keeper"), keeper);
}

#[test]
fn each_run_leads_a_session_and_a_group_and_is_a_child_of_init() {
    let daemon = Daemon::start(&job("j", "ids print .\\n hang", ""));
    let (pid, _) = daemon.wait_running("j");
    let log = daemon.wait_line("j", ".");
    let ids = table(&log);
    for name in ["pid", "pgid", "sid"] {
        assert_eq!(ids[name], pid.to_string(), "{log}");
    }
    assert_eq!(ids["ppid"], daemon.role("init").to_string(), "{log}");
}

#[test]
fn the_parent_is_init_even_for_runs_of_a_new_keeper() {
    let mut daemon = Daemon::start(&job("j", "ids print .\\n hang", "autostart = false"));
    let old = daemon.kill_role("keeper");
    daemon.wait_role_back("keeper", old);
    daemon.cli(["start", "j"]).expect(0);
    let log = daemon.wait_line("j", ".");
    assert_eq!(table(&log)["ppid"], daemon.role("init").to_string(), "{log}");
}

#[test]
fn umask_nice_directory_and_oom_score_are_as_configured() {
    let log = said(&job(
        "j",
        "umask nice cwd oom",
        "umask = \"027\"\nnice = 5\ncwd = \"/usr\"\noom_score_adj = 321",
    ));
    assert_eq!(log, "umask 0027\nnice 5\ncwd /usr\noom 321\n");
}

#[test]
fn limits_are_as_configured() {
    let log = said(&job(
        "j",
        "limits",
        "rlimits = { nofile = { soft = 100, hard = 200 }, core = 0, stack = 1048576 }",
    ));
    let limits = table(&log);
    assert_eq!(limits["nofile"], "100 200", "{log}");
    assert_eq!(limits["core"], "0 0", "{log}");
    assert_eq!(limits["stack"], "1048576 1048576", "{log}");
}

/// We raise our own limit of open files; a job that asks for nothing gets what `up` was started with.
#[test]
fn limits_that_are_not_configured_are_those_of_whoever_started_us() {
    let mut daemon = Daemon::prepare(&(TASKS.to_owned() + &job("j", "limits", "")));
    daemon.wrapper = ["/bin/sh", "-c", "ulimit -Sn 777; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    daemon.up();
    assert_eq!(daemon.wait_ended("j")["code"], 0);
    let log = daemon.log("j");
    assert!(table(&log)["nofile"].starts_with("777 "), "{log}");
}

#[test]
fn without_a_directory_it_is_the_one_of_the_configuration() {
    let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "cwd", "")));
    daemon.wait_ended("j");
    assert_eq!(daemon.log("j"), format!("cwd {}\n", daemon.home().display()));
}

fn environment(daemon: &Daemon) -> BTreeMap<String, String> {
    assert_eq!(daemon.wait_ended("j")["code"], 0);
    daemon
        .log("j")
        .lines()
        .filter_map(|l| l.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

#[test]
fn every_job_is_told_who_it_is() {
    let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "env", "")));
    let env = environment(&daemon);
    assert_eq!(env["OUTLIVE_JOB"], "j");
    assert_eq!(env["OUTLIVE_RUN_ID"], daemon.job("j")["run"].as_str().unwrap());
    assert_eq!(env["OUTLIVE_ATTEMPT"], "1");
    assert_eq!(env["OUTLIVE_SOCKET"], daemon.socket().to_str().unwrap());
}

#[test]
fn the_environment_is_inherited_and_added_to() {
    let mut daemon = Daemon::prepare(
        &(TASKS.to_owned()
            + &job(
                "j",
                "env",
                "env = { OWN = \"from job\", BOTH = \"job wins\" }\nenv_file = \"@dir@/more.env\"",
            )),
    );
    daemon.write("more.env", "FILED=from file\nBOTH=file loses\n");
    daemon.env.push(("INHERITED".to_owned(), "from up".to_owned()));
    daemon.up();
    let env = environment(&daemon);
    assert_eq!(env["OWN"], "from job");
    assert_eq!(env["FILED"], "from file");
    assert_eq!(env["BOTH"], "job wins");
    assert_eq!(env["INHERITED"], "from up");
}

#[test]
fn inheritance_can_be_narrowed_to_names_or_to_nothing() {
    for (setting, some) in [("[\"WANTED\"]", true), ("false", false)] {
        let mut daemon =
            Daemon::prepare(&(TASKS.to_owned() + &job("j", "env", &format!("inherit_env = {setting}"))));
        daemon.env.push(("WANTED".to_owned(), "yes".to_owned()));
        daemon.env.push(("UNWANTED".to_owned(), "no".to_owned()));
        daemon.up();
        let env = environment(&daemon);
        assert_eq!(env.contains_key("WANTED"), some, "{env:?}");
        assert!(!env.contains_key("UNWANTED"), "{env:?}");
        assert_eq!(env["OUTLIVE_JOB"], "j");
    }
}

#[test]
fn variables_are_put_into_the_configuration() {
    let mut daemon = Daemon::prepare(
        "[job.j]\nkind = \"task\"\ncommand = [\"/bin/sh\", \"-c\", \"echo ${GREETING:-hello} ${WHOM:?not set}\"]\n",
    );
    let said = daemon.cli(["up", "-c", "outlive.toml"]).expect(2);
    assert!(said.stderr.contains("WHOM") && said.stderr.contains("not set"), "{said:?}");
    daemon.env.push(("WHOM".to_owned(), "world".to_owned()));
    daemon.up();
    daemon.wait_ended("j");
    assert_eq!(daemon.log("j"), "hello world\n");
}

#[test]
fn a_command_is_a_list_or_words_or_a_line_for_the_shell() {
    let daemon = Daemon::start(
        "[defaults]\nkind = \"task\"
[job.words]\ncommand = \"/bin/echo one 'two  three' \\\"four\\\"\"
[job.list]\ncommand = [\"/bin/echo\", \"one\", \"$HOME;\"]
[job.shell]\nshell = true\ncommand = \"echo one | tr o 0; exit 3\"\n",
    );
    assert_eq!(daemon.wait_ended("words")["code"], 0);
    assert_eq!(daemon.log("words"), "one two  three four\n");
    daemon.wait_ended("list");
    assert_eq!(daemon.log("list"), "one $HOME;\n");
    assert_eq!(daemon.wait_ended("shell")["code"], 3);
    assert_eq!(daemon.log("shell"), "0ne\n");
}

#[test]
fn a_job_can_run_as_another_user() {
    if !is_root() {
        return skip("only root can become another user");
    }
    let daemon = Daemon::start(
        &(TASKS.to_owned() + &job("j", "ids stderr-truncate fds exit 0", "user = 65534\ngroup = 65534")),
    );
    let outcome = daemon.wait_ended("j");
    assert_eq!(outcome["code"], 0, "{outcome:#}");
    let log = daemon.log("j");
    let ids = table(&log);
    assert_eq!(ids["uid"], "65534", "{log}");
    assert_eq!(ids["euid"], "65534", "{log}");
    assert_eq!(ids["gid"], "65534", "{log}");
    assert!(!ids["groups"].split(',').any(|g| g == "0"), "{log}");
    // `> /dev/stderr` opens the FIFO anew: that takes the right to do so.
    assert!(log.contains("after truncation\n"), "{log}");
}

#[test]
fn a_job_cannot_be_anybody_when_we_are_not_root() {
    if is_root() {
        return skip("root can become anybody");
    }
    let daemon = Daemon::start(&(TASKS.to_owned() + &job("j", "exit 0", "user = 0")));
    let outcome = daemon.wait_ended("j");
    assert_eq!(outcome["kind"], "not_started", "{outcome:#}");
    assert_eq!(outcome["errno"], libc::EPERM, "{outcome:#}");
}
