//! Hooks: commands around the runs of a job.

use rustix::process::Signal;

use crate::common::{Daemon, is_root, job, procs, skip, until};

const QUICK: &str = "backoff = { initial = \"1ms\", max = \"1ms\" }\nstart_limit = { count = 0 }\n";

/// A hook that says what it is told, as one line of the file `hooks`.
fn tells(name: &str) -> String {
    format!(
        "hooks.{name} = [\"/bin/sh\", \"-c\", \"echo $OUTLIVE_HOOK $OUTLIVE_JOB $OUTLIVE_RUN_ID \
         pid=$OUTLIVE_PID code=$OUTLIVE_EXIT_CODE outcome=$OUTLIVE_OUTCOME >> @dir@/hooks\"]\n"
    )
}

/// A hook that says that it is there and waits for the test.
fn waits(name: &str, timeout: &str) -> String {
    format!(
        "hooks.{name} = {{ command = [\"@misbehave@\", \"mark\", \"@dir@/hooks\", \"{name} {{pid}}\", \"gate\", \
         \"@dir@/door\"], timeout = \"{timeout}\" }}\n"
    )
}

fn lines(daemon: &Daemon) -> Vec<String> {
    daemon.read("hooks").lines().map(str::to_owned).collect()
}

fn wait_lines(daemon: &Daemon, n: usize) -> Vec<String> {
    until(&format!("{n} lines of hooks"), || Some(lines(daemon)).filter(|lines| lines.len() >= n))
}

/// The process that a line of a waiting hook names.
fn pid_in(line: &str) -> i32 {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn each_hook_runs_at_its_time_and_is_told_what_it_is_about() {
    let names = ["before_start", "after_start", "before_stop", "after_exit", "on_fatal"];
    let hooks = names.map(tells).concat();
    let daemon = Daemon::start(&job("j", "hang", &hooks));
    let (pid, run) = daemon.wait_running("j");
    wait_lines(&daemon, 2);
    daemon.cli(["stop", "j"]).expect(0);
    let all = wait_lines(&daemon, 4);
    assert_eq!(
        all,
        [
            format!("before_start j {run} pid= code= outcome="),
            format!("after_start j {run} pid={pid} code= outcome="),
            format!("before_stop j {run} pid={pid} code= outcome="),
            format!("after_exit j {run} pid= code=143 outcome=signal 15 (TERM)"),
        ]
    );
}

#[test]
fn what_is_given_up_or_hangs_is_told() {
    let limit = "start_limit = { count = 1 }\n";
    let daemon = Daemon::start(&job("j", "exit 7", &(limit.to_owned() + &tells("on_fatal"))));
    let run = daemon.wait_state("j", "fatal")["run"].as_str().unwrap().to_owned();
    assert_eq!(wait_lines(&daemon, 1), [format!("on_fatal j {run} pid= code=7 outcome=exit 7")]);

    let says =
        "hooks.on_frozen = [\"sh\", \"-c\", \"echo $OUTLIVE_HOOK $OUTLIVE_PID: $OUTLIVE_WHY > @dir@/why\"]\n";
    let hangs = "heartbeat = { output = \"200ms\" }\non_frozen = []\n";
    let daemon = Daemon::start(&job("j", "hang", &format!("{hangs}{says}")));
    let (pid, _) = daemon.wait_running("j");
    let why = until("the hook", || Some(daemon.read("why")).filter(|text| text.ends_with('\n')));
    assert_eq!(why, format!("on_frozen {pid}: no output for 200ms\n"));
}

#[test]
fn a_run_whose_before_start_fails_or_takes_too_long_never_started_and_is_tried_again() {
    let fails = "hooks.before_start = [\"@misbehave@\", \"mark\", \"@dir@/hooks\", \"exit\", \"3\"]\n";
    let slow = waits("before_start", "100ms");
    let config = [
        job("fails", "mark @dir@/started", &format!("restart = \"on-failure\"\n{QUICK}{fails}")),
        job("slow", "mark @dir@/started", &format!("restart = \"never\"\n{slow}")),
    ];
    let mut daemon = Daemon::prepare(&config.concat());
    let _door = daemon.gate("door");
    daemon.up();
    until("three tries", || (daemon.events_of("run.ended", "fails").len() >= 3).then_some(()));
    let slow = daemon.wait_state("slow", "exited");
    assert_eq!(slow["outcome"]["text"], "never started: before_start hook: not done within 100ms, killed");
    assert_eq!(slow["outcome"]["kind"], "not_started");
    let text = &daemon.events_of("run.ended", "fails")[0]["record"]["outcome"]["step"];
    assert_eq!(text, "before_start hook: exit 3");
    assert_eq!(daemon.read("started"), "");
    let waited = lines(&daemon).into_iter().find(|line| line.starts_with("before_start ")).unwrap();
    until("the end of the hook", || (!procs::is_alive(pid_in(&waited))).then_some(()));
}

#[test]
fn a_before_start_under_way_when_the_supervisor_dies_is_ended_before_that_of_the_next_run_begins() {
    let mut daemon = Daemon::prepare(&job(
        "j",
        "mark @dir@/started hang",
        &(waits("before_start", "1m") + "start_grace = \"0s\""),
    ));
    let mut door = daemon.gate("door");
    daemon.up();
    let first = pid_in(&wait_lines(&daemon, 1)[0]);
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let second = pid_in(&wait_lines(&daemon, 2)[1]);
    assert!(!procs::is_alive(first), "nobody waits for it any more");
    assert!(procs::is_alive(second));
    assert_eq!(daemon.read("started"), "", "the hook of the second try is still under way");
    door.release();
    let (_, run) = daemon.wait_running("j");
    let ended = daemon.events_of("run.ended", "j");
    assert_eq!((ended.len(), &ended[0]["record"]["outcome"]["kind"]), (1, &"cancelled".into()), "{ended:#?}");
    until("the mark", || daemon.read("started").contains(&run).then_some(()));
    assert_eq!((daemon.read("started").lines().count(), lines(&daemon).len()), (1, 2));
}

#[test]
fn a_run_that_is_stopped_during_its_before_start_is_not_launched_and_its_hook_is_killed() {
    let mut daemon = Daemon::prepare(&job("j", "mark @dir@/started hang", &waits("before_start", "1h")));
    let _door = daemon.gate("door");
    daemon.up();
    let hook = pid_in(&wait_lines(&daemon, 1)[0]);
    daemon.cli(["stop", "j"]).expect(0);
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["kind"], "cancelled");
    until("the end of the hook", || (!procs::is_alive(hook)).then_some(()));
    assert_eq!(daemon.read("started"), "");
    daemon.cli(["start", "j"]).expect(0);
    wait_lines(&daemon, 2);
}

#[test]
fn a_before_stop_goes_on_over_the_deaths_of_supervisors_and_the_stop_waits_for_it() {
    let mut daemon = Daemon::prepare(&job("j", "hang", &waits("before_stop", "1h")));
    let mut door = daemon.gate("door");
    daemon.up();
    let (pid, _) = daemon.wait_running("j");
    daemon.cli(["stop", "--no-wait", "j"]).expect(0);
    let hook = pid_in(&wait_lines(&daemon, 1)[0]);
    for _ in 0..2 {
        let old = daemon.kill_role("supervisor");
        daemon.wait_role_back("supervisor", old);
    }
    assert!(procs::is_alive(pid) && procs::is_alive(hook));
    assert_eq!(daemon.job("j")["state"], "stopping");
    door.release();
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 15);
    assert_eq!(lines(&daemon).len(), 1, "{:?}", lines(&daemon));
    daemon.cli(["start", "j"]).expect(0);
    daemon.wait_running("j");
    door.release();
    daemon.cli(["stop", "j"]).expect(0);
    assert_eq!(lines(&daemon).len(), 2, "another stop is another occasion");
}

/// Without a supervisor until init goes on.
fn without_supervisor(daemon: &Daemon, meanwhile: impl FnOnce()) {
    let init = procs::handle(daemon.init_pid()).unwrap();
    procs::send(&init, Signal::STOP);
    let supervisor = procs::handle(daemon.role("supervisor")).unwrap();
    procs::send(&supervisor, Signal::KILL);
    assert!(procs::wait_dead(&supervisor, std::time::Duration::from_secs(20)));
    meanwhile();
    procs::send(&init, Signal::CONT);
}

#[test]
fn what_ends_while_no_supervisor_is_there_has_ended_and_is_not_run_again() {
    let stop = "stop = [{ command = [\"@misbehave@\", \"mark\", \"@dir@/hooks\", \"stop {pid}\", \"gate\", \
                \"@dir@/door\", \"exit\", \"1\"], timeout = \"1h\" }, { signal = \"USR2\", timeout = \"1h\" }]\n";
    let config = job("hooked", "hang", &waits("before_stop", "1h")) + &job("stops", "hang", stop);
    let mut daemon = Daemon::prepare(&config);
    let mut door = daemon.gate("door");
    daemon.up();
    daemon.wait_running("hooked");
    daemon.wait_running("stops");
    daemon.cli(["stop", "--no-wait", "hooked", "stops"]).expect(0);
    let all: Vec<i32> = wait_lines(&daemon, 2).iter().map(|line| pid_in(line)).collect();
    without_supervisor(&daemon, || {
        door.release();
        door.release();
        for pid in &all {
            until("its end", || (!procs::is_alive(*pid)).then_some(()));
        }
    });
    assert_eq!(daemon.wait_state("hooked", "stopped")["outcome"]["signal"], 15);
    assert_eq!(daemon.wait_state("stops", "stopped")["outcome"]["signal"], 12, "the command has failed");
    assert_eq!(lines(&daemon).len(), 2, "{:?}", lines(&daemon));
}

#[test]
fn a_hook_is_ended_at_its_time_also_where_no_supervisor_is_there() {
    let mut daemon = Daemon::prepare(&job("j", "hang", &waits("after_start", "700ms")));
    let _door = daemon.gate("door");
    daemon.up();
    let hook = pid_in(&wait_lines(&daemon, 1)[0]);
    without_supervisor(&daemon, || until("its end", || (!procs::is_alive(hook)).then_some(())));
    daemon.wait_running("j");
}

#[test]
fn a_helper_that_is_killed_takes_its_command_along_and_that_is_run_again() {
    let mut daemon = Daemon::prepare(&job("j", "hang", &waits("before_stop", "1h")));
    let mut door = daemon.gate("door");
    daemon.up();
    daemon.wait_running("j");
    daemon.cli(["stop", "--no-wait", "j"]).expect(0);
    let first = pid_in(&wait_lines(&daemon, 1)[0]);
    without_supervisor(&daemon, || {
        let helper = procs::parent(first).unwrap();
        assert_eq!(procs::title(helper), "outlive: helper");
        procs::send(&procs::handle(helper).unwrap(), Signal::KILL);
        until("its end", || (!procs::is_alive(first)).then_some(()));
    });
    wait_lines(&daemon, 2);
    assert_eq!(daemon.job("j")["state"], "stopping");
    door.release();
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 15);
}

#[test]
fn a_hook_that_fails_is_quoted_and_not_recorded() {
    let hook = "hooks.before_start = [\"sh\", \"-c\", \"seq 100000; echo; echo no database >&2; exit 3\"]\n";
    let daemon = Daemon::start(&job("j", "hang", &format!("restart = \"never\"\n{hook}")));
    let seen = daemon.wait_state("j", "exited");
    assert_eq!(seen["outcome"]["text"], "never started: before_start hook: exit 3");
    assert_eq!(seen["reason"], "never started: before_start hook: exit 3: no database");
    let recorded = serde_json::to_string(&daemon.events()).unwrap();
    assert!(!recorded.contains("no database"), "{recorded}");
}

#[test]
fn a_helper_has_nothing_of_the_environment_of_the_job() {
    let hook = "env = { SECRET = \"x\", LD_PRELOAD = \"\" }\nhooks.after_start = [\"@misbehave@\", \"mark\", \"@dir@/hooks\", \
                \"hook {pid}\", \"gate\", \"@dir@/door\"]\n";
    let mut daemon = Daemon::prepare(&job("j", "hang", hook));
    let mut door = daemon.gate("door");
    daemon.up();
    let hook = pid_in(&wait_lines(&daemon, 1)[0]);
    let variables = |pid: i32| {
        let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let names = bytes.split(|b| *b == 0).filter(|pair| !pair.is_empty());
        names
            .map(|pair| String::from_utf8_lossy(pair).split('=').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(variables(hook).contains(&"SECRET".to_owned()));
    assert_eq!(variables(procs::parent(hook).unwrap()), ["OUTLIVE_HELPER", "OUTLIVE_SOCKET"]);
    door.release();
}

#[test]
fn a_hook_may_signal_its_own_group_and_be_of_any_length() {
    let script = "trap 'echo cleaned >> @dir@/hooks; exit 0' TERM; kill 0; sleep 1000";
    let long = format!("{script} # {}", "\\\"".repeat(60_000));
    let hook = format!("hooks.before_stop = [\"sh\", \"-c\", \"{long}\"]\n");
    let daemon = Daemon::start(&job("j", "hang", &hook));
    daemon.wait_running("j");
    daemon.cli(["stop", "j"]).expect(0);
    assert_eq!(lines(&daemon), ["cleaned"]);
    assert_eq!(daemon.job("j")["outcome"]["signal"], 15);
}

#[test]
fn where_there_is_no_room_for_a_lock_a_command_runs_all_the_same() {
    let stop = "stop = { command = [\"/bin/sh\", \"-c\", \"kill -USR1 $OUTLIVE_PID\"], timeout = \"1h\" }\n";
    let daemon = Daemon::start(&job("j", "hang", &(tells("before_stop") + stop)));
    daemon.wait_running("j");
    // Whoever opens it for writing gets an error, root too.
    for what in ["before_stop", "stop"] {
        std::fs::create_dir(daemon.runtime_dir().join(format!("helpers/j.{what}"))).unwrap();
    }
    daemon.cli(["stop", "j"]).expect(0);
    assert_eq!(daemon.job("j")["outcome"]["signal"], 10);
    assert_eq!(lines(&daemon).len(), 1);
}

#[test]
fn what_is_left_of_a_hook_whose_helper_was_killed_is_ended_before_it_runs_again() {
    let hook = "hooks.before_stop = [\"sh\", \"-c\", \"@misbehave@ mark @dir@/hooks 'hook {pid}' gate @dir@/door & wait\"]\n";
    let mut daemon = Daemon::prepare(&job("j", "hang", hook));
    let mut door = daemon.gate("door");
    daemon.up();
    daemon.wait_running("j");
    daemon.cli(["stop", "--no-wait", "j"]).expect(0);
    let first = pid_in(&wait_lines(&daemon, 1)[0]);
    without_supervisor(&daemon, || {
        let shell = procs::parent(first).unwrap();
        let helper = procs::parent(shell).unwrap();
        assert_eq!(procs::title(helper), "outlive: helper");
        procs::send(&procs::handle(helper).unwrap(), Signal::KILL);
        until("the end of the shell", || (!procs::is_alive(shell)).then_some(()));
        assert!(procs::is_alive(first), "the kernel kills the child alone");
    });
    wait_lines(&daemon, 2);
    assert!(!procs::is_alive(first));
    door.release();
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 15);
}

#[test]
fn what_tells_of_commands_of_jobs_that_are_gone_is_removed() {
    let mut daemon = Daemon::start(&job("j", "hang", &tells("before_start")));
    daemon.wait_running("j");
    let files = |daemon: &Daemon| {
        let entries = std::fs::read_dir(daemon.runtime_dir().join("helpers")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(files(&daemon), ["j.before_start"]);
    daemon.write_config(&job("other", "hang", ""));
    daemon.cli(["reload"]).expect(0);
    until("the end of j", || daemon.try_job_now("j").is_none().then_some(()));
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    assert_eq!(files(&daemon), [""; 0]);
}

#[test]
fn a_stop_begins_when_before_stop_has_failed_or_its_time_is_over() {
    let fails = "hooks.before_stop = \"@misbehave@ exit 1\"\n";
    let config = job("fails", "hang", fails) + &job("slow", "hang", &waits("before_stop", "100ms"));
    let mut daemon = Daemon::prepare(&config);
    let _door = daemon.gate("door");
    daemon.up();
    for name in ["fails", "slow"] {
        daemon.wait_running(name);
        daemon.cli(["stop", name]).expect(0);
        assert_eq!(daemon.job(name)["outcome"]["signal"], 15, "{name}");
    }
    let hook = pid_in(&lines(&daemon)[0]);
    until("the end of the hook", || (!procs::is_alive(hook)).then_some(()));
}

#[test]
fn a_before_stop_under_way_when_the_keeper_dies_is_not_begun_again_and_the_stop_waits_for_it() {
    let mut daemon = Daemon::prepare(&job("j", "hang", &waits("before_stop", "1m")));
    let mut door = daemon.gate("door");
    daemon.up();
    let (pid, _) = daemon.wait_running("j");
    daemon.cli(["stop", "--no-wait", "j"]).expect(0);
    wait_lines(&daemon, 1);
    let old = daemon.kill_role("keeper");
    daemon.wait_role_back("keeper", old);
    // It is known by then what survived, and the stop waits for the same hook.
    let surveys = |event: &serde_json::Value| event["k"] == "supervisor.surveyed";
    until("another survey", || {
        (daemon.events().iter().filter(|event| surveys(event)).count() >= 2).then_some(())
    });
    assert!(procs::is_alive(pid));
    door.release();
    assert_eq!(daemon.wait_state("j", "stopped")["outcome"]["signal"], 15);
    assert_eq!(lines(&daemon).len(), 1, "{:?}", lines(&daemon));
}

#[test]
fn a_before_start_under_way_when_the_keeper_dies_goes_on_and_its_run_follows() {
    let mut daemon =
        Daemon::prepare(&job("j", "mark @dir@/started hang", &(waits("before_start", "1m") + QUICK)));
    let mut door = daemon.gate("door");
    daemon.up();
    let hook = pid_in(&wait_lines(&daemon, 1)[0]);
    let run = daemon.job("j")["run"].as_str().unwrap().to_owned();
    let old = daemon.kill_role("keeper");
    daemon.wait_role_back("keeper", old);
    assert!(procs::is_alive(hook));
    door.release();
    assert_eq!(daemon.wait_running("j").1, run);
    until("the mark", || daemon.read("started").contains(&run).then_some(()));
    assert_eq!((lines(&daemon).len(), daemon.read("started").lines().count()), (1, 1));
    assert!(daemon.events_of("run.ended", "j").is_empty());
}

#[test]
fn hooks_that_end_while_the_keeper_is_away_have_ended() {
    let config = job("starts", "hang", &(waits("before_start", "1m") + QUICK))
        + &job("stops", "hang", &waits("before_stop", "1m"));
    let mut daemon = Daemon::prepare(&config);
    let mut door = daemon.gate("door");
    daemon.up();
    let (pid, _) = daemon.wait_running("stops");
    daemon.cli(["stop", "--no-wait", "stops"]).expect(0);
    let hooks: Vec<i32> = wait_lines(&daemon, 2).iter().map(|line| pid_in(line)).collect();
    let run = daemon.job("starts")["run"].as_str().unwrap().to_owned();
    // Init does not bring another keeper before it goes on.
    let init = procs::handle(daemon.init_pid()).unwrap();
    procs::send(&init, Signal::STOP);
    let old = daemon.role("keeper");
    procs::send(&procs::handle(old).unwrap(), Signal::KILL);
    until("a supervisor without a keeper", || {
        daemon.try_status()?["instance"]["roles"]["keeper"]["pid"].is_null().then_some(())
    });
    door.release();
    door.release();
    for hook in hooks {
        until("the end of the hook", || (!procs::is_alive(hook)).then_some(()));
    }
    assert!(procs::is_alive(pid));
    procs::send(&init, Signal::CONT);
    assert_eq!(daemon.wait_running("starts").1, run);
    assert_eq!(daemon.wait_state("stops", "stopped")["outcome"]["signal"], 15);
    assert_eq!(lines(&daemon).len(), 2, "{:?}", lines(&daemon));
}

#[test]
fn hooks_stop_commands_and_probes_have_the_groups_of_the_job() {
    if !is_root() {
        return skip("only root can become another user");
    }
    let says = |who: &str| {
        let line = format!("echo {who} $(grep Groups: /proc/self/status) >> @dir@/groups");
        format!("[\"/bin/sh\", \"-c\", \"{line}\"]")
    };
    let config = format!(
        "[job.j]\ncommand = [\"/bin/sh\", \"-c\", \"echo job $(grep Groups: /proc/self/status) >> @dir@/groups; \
         exec sleep 1000\"]\nuser = 65534\ngroup = 65534\nhooks.before_start = {}\nstop = {{ command = {} }}\n\
         probe.startup = {{ exec = {} }}\n",
        says("hook"),
        says("stop"),
        says("probe")
    );
    let mut daemon = Daemon::prepare(&config);
    daemon.write("groups", "");
    std::os::unix::fs::chown(daemon.path("groups"), Some(65534), Some(65534)).unwrap();
    daemon.up();
    let said = |who: &str| {
        until(&format!("the groups of {who}"), || {
            let text = daemon.read("groups");
            let line = text.lines().find(|line| line.starts_with(who))?;
            line.strip_prefix(who).map(str::to_owned)
        })
    };
    let job = said("job");
    assert!(job.contains("65534"), "{job}");
    assert_eq!((said("hook"), said("probe")), (job.clone(), job.clone()));
    daemon.cli(["stop", "--no-wait", "j"]).expect(0);
    assert_eq!(said("stop"), job);
}
