//! What runs tell: the socket in NOTIFY_SOCKET and the descriptor for readiness, and that nothing of it is
//! lost whoever of us dies. The supervisor is stopped, and the test speaks to the keeper in its place.

use std::process::{Command, Stdio};

use outlive::core::ids::RunId;
use outlive::wire::keeper::{Listen, Notice, Told, UserIds};
use rustix::process::Signal;

use crate::common::keeper::Keeper;
use crate::common::{Daemon, PATIENCE, is_root, misbehave, procs, skip, until};

fn by_socket() -> Listen {
    Listen { notify: true, ready_fd: None }
}

fn by_descriptor(number: i32) -> Listen {
    Listen { notify: false, ready_fd: Some(number) }
}

fn begin() -> (Daemon, Keeper) {
    let daemon = Daemon::start("");
    let keeper = Keeper::of(&daemon);
    (daemon, keeper)
}

fn socket_of(daemon: &Daemon, run: RunId) -> String {
    let path = daemon.runtime_dir().join("runs").join(run.to_string()).join("notify");
    path.to_str().unwrap().to_owned()
}

/// Whether there is such a program, and it starts.
fn works(program: &str, argument: &str) -> bool {
    let there = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let works = there.is_ok_and(|status| status.success());
    if !works {
        skip(&format!("there is no {program} here"));
    }
    works
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

/// Without the moments.
fn sorts(told: &Told) -> (bool, Option<&str>, u64, u64) {
    (told.ready.is_some(), told.status.as_deref(), told.rejected, told.ignored)
}

#[test]
fn the_systems_own_client_is_heard_and_its_barrier_answered() {
    if !works("systemd-notify", "--version") {
        return;
    }
    let (daemon, mut keeper) = begin();
    let script = "systemd-notify --ready --status='at work'; echo \"said $?\"; exec sleep 1000";
    let run = keeper.launch_command(&daemon, shell(script), by_socket(), None);
    let said = until("the client's end", || {
        let output = daemon.run_dir(&run.to_string()).join("output");
        let first = std::fs::read_dir(output).ok()?.flatten().find(|e| e.path().extension().is_some())?;
        std::fs::read_to_string(first.path()).ok().filter(|text| text.contains("said"))
    });
    // It waits for the barrier, and complains if that is not answered.
    assert_eq!(said, "said 0\n");
    assert_eq!(sorts(&keeper.told(run)), (true, Some("at work"), 0, 0));
    assert!(keeper.noticed(run).last().is_some_and(|told| told.ready.is_some()));
}

#[test]
fn a_plain_client_in_another_language_is_heard() {
    if !works("python3", "--version") {
        return;
    }
    let (daemon, mut keeper) = begin();
    let script = "import os, socket, time\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        s.connect(os.environ['NOTIFY_SOCKET'])\n\
        s.sendall(b'X_PROGRESS=40\\nX_RESUME=page 7\\nWATCHDOG_USEC=2500\\nnonsense')\n\
        s.sendall(b'STATUS=' + b'x' * 70000)\n\
        s.sendall(b'MAINPID=1')\n\
        s.sendall(b'MAINPID=%d' % os.getpid())\n\
        s.sendall(b'READY=1')\n\
        time.sleep(1000)";
    let argv = ["python3", "-c", script].map(str::to_owned).to_vec();
    let run = keeper.launch_command(&daemon, argv, by_socket(), None);
    let told = keeper.wait_told(run, "ready", |told| told.ready.is_some());
    assert_eq!((told.progress, told.resume.as_deref()), (Some(40), Some("page 7")));
    assert_eq!(told.watchdog.map(|time| time.0), Some(3));
    assert_eq!(told.main_pid, told.main_pid.filter(|pid| *pid > 1));
    // A line that makes no sense, a message that is too long, and a process of somebody else.
    assert_eq!(sorts(&told), (true, None, 0, 3));
}

#[test]
fn a_job_of_another_user_reaches_its_socket() {
    if !is_root() {
        return skip("only root may start a job as another user");
    }
    let (daemon, mut keeper) = begin();
    let argv = [misbehave().to_str().unwrap(), "sd-notify", "READY=1", "hang"].map(str::to_owned).to_vec();
    let user = UserIds { uid: 65534, gid: 65534, groups: vec![65534] };
    if !works_for(65534) {
        return skip("another user cannot reach the test's programs");
    }
    let run = keeper.launch_command(&daemon, argv, by_socket(), Some(user));
    let told = keeper.wait_told(run, "ready", |told| told.ready.is_some());
    assert_eq!(sorts(&told), (true, None, 0, 0));
}

fn works_for(uid: u32) -> bool {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(misbehave());
    command.args(["exit", "0"]).uid(uid).current_dir("/").status().is_ok_and(|status| status.success())
}

#[test]
fn what_is_said_while_there_is_no_keeper_is_heard_by_the_next() {
    let (daemon, mut keeper) = begin();
    let mut gate = daemon.gate("gate");
    let script = "gate gate sd-notify READY=1 sd-notify STATUS=on-my-way mark said yes hang";
    let run = keeper.launch(&daemon, script, by_socket());
    assert_eq!(keeper.told(run), Told::default());
    keeper.kill_and(&daemon, || {
        gate.release();
        until("the message", || (daemon.read("said") == "yes\n").then_some(()));
    });
    let told = keeper.wait_told(run, "told", |told| told.status.is_some());
    assert_eq!(sorts(&told), (true, Some("on-my-way"), 0, 0));
    // And by the one after that, from the disk.
    keeper.kill_and(&daemon, || ());
    assert_eq!(keeper.told(run), told);
}

#[test]
fn a_keeper_killed_before_or_after_it_noted_a_message_loses_nothing() {
    let mut daemon = Daemon::prepare("");
    daemon.env.push(("OUTLIVE_TEST_DIE_AT".to_owned(), daemon.path("die").display().to_string()));
    daemon.write(
        "die",
        "keeper.peeked\nkeeper.noted\nkeeper.noted\nkeeper.peeked\nkeeper.peeked\nkeeper.noted\n",
    );
    daemon.up();
    let mut keeper = Keeper::of(&daemon);
    let listen = Listen { notify: true, ready_fd: Some(9) };
    let script = "sd-notify X_PROGRESS=7 sd-notify X_RESUME=here sd-notify STATUS=fine ready-fd 9 hang";
    let run = keeper.launch(&daemon, script, listen);
    until("the last death", || daemon.read("die").is_empty().then_some(()));
    keeper.connect(&daemon);
    let told = until("everything", || {
        let status = keeper.ask(outlive::wire::keeper::Request::Inventory);
        let Some(Ok(outlive::wire::keeper::Answer::Inventory { runs })) = status else {
            keeper.connect(&daemon);
            return None;
        };
        let told = *runs.into_iter().find(|status| status.run == run)?.told?;
        (told.ready.is_some() && told.status.is_some()).then_some(told)
    });
    assert_eq!(sorts(&told), (true, Some("fine"), 0, 0));
    assert_eq!((told.progress, told.resume.as_deref()), (Some(7), Some("here")));
}

#[test]
fn another_runs_messages_are_counted_and_change_nothing() {
    let (daemon, mut keeper) = begin();
    let run = keeper.launch(&daemon, "hang", by_socket());
    let socket = socket_of(&daemon, run);
    let before = keeper.told(run);
    // Another run; one that pretends to be of this one; and a process of nobody that does.
    keeper.launch(&daemon, &format!("notify-other {socket} READY=1 hang"), Listen::default());
    keeper.wait_told(run, "rejected", |told| told.rejected == 1);
    let forged = format!(
        "OUTLIVE_RUN_ID={run} {} notify-other {socket} STATUS=forged hang & wait",
        misbehave().display()
    );
    keeper.launch_command(&daemon, shell(&forged), by_socket(), None);
    keeper.wait_told(run, "rejected", |told| told.rejected == 2);
    let mut stranger = Command::new(misbehave())
        .args(["notify-other", &socket, "X_RESUME=forged", "hang"])
        .env("OUTLIVE_RUN_ID", run.to_string())
        .env("OUTLIVE_TEST_HOME", daemon.home())
        .spawn()
        .unwrap();
    let told = keeper.wait_told(run, "rejected", |told| told.rejected == 3);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(told, Told { rejected: 3, ..before });
}

#[test]
fn the_whole_tree_of_a_run_may_speak_and_its_helpers_may_not() {
    let (daemon, mut keeper) = begin();
    let program = misbehave();
    let program = program.display();
    // A child; an orphan in a session of its own, which init has; and a stop command's like.
    let script = format!(
        "{program} sd-notify READY=1; (setsid {program} gate gate sd-notify STATUS=orphan hang &) ; \
         (OUTLIVE_HELPER=stop setsid {program} gate helper sd-notify X_RESUME=helper hang &) ; exec {program} hang"
    );
    let (mut gate, mut helper) = (daemon.gate("gate"), daemon.gate("helper"));
    let run = keeper.launch_command(&daemon, shell(&script), by_socket(), None);
    let orphans = || procs::of_run(daemon.home(), &run.to_string());
    let init = daemon.init_pid();
    until("the orphans", || {
        let theirs = orphans().into_iter().filter(|pid| procs::parent(*pid) == Some(init)).count();
        (theirs == 3).then_some(())
    });
    gate.release();
    let told = keeper.wait_told(run, "told", |told| told.status.is_some());
    helper.release();
    let rejected = keeper.wait_told(run, "rejected", |rejected| rejected.rejected > told.rejected);
    assert_eq!(rejected.resume, None);
    assert_eq!(rejected.status.as_deref(), Some("orphan"));
}

#[test]
fn readiness_by_descriptor_survives_the_death_of_the_keeper() {
    let (daemon, mut keeper) = begin();
    let mut gate = daemon.gate("gate");
    let run = keeper.launch(&daemon, "gate gate ready-fd 3 mark said yes hang", by_descriptor(3));
    keeper.kill_and(&daemon, || {
        gate.release();
        // Written and closed: only init has the other end.
        until("the newline", || (daemon.read("said") == "yes\n").then_some(()));
    });
    let told = keeper.wait_told(run, "ready", |told| told.ready.is_some());
    keeper.kill_and(&daemon, || ());
    assert_eq!(keeper.told(run), told);
}

#[test]
fn any_descriptor_from_3_to_255_may_tell_readiness_and_nothing_else_is_inherited() {
    let (daemon, mut keeper) = begin();
    for number in (3..24).chain([200, 255]) {
        let run = keeper.launch(&daemon, &format!("fds ready-fd {number} hang"), by_descriptor(number));
        keeper.wait_told(run, "ready", |told| told.ready.is_some());
        let output = daemon.run_dir(&run.to_string()).join("output");
        let text = until("the list", || {
            let log = std::fs::read_dir(&output).ok()?.flatten().find(|e| e.path().extension().is_some())?;
            std::fs::read_to_string(log.path()).ok().filter(|text| text.lines().count() == 4)
        });
        let numbers: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(numbers, ["0", "1", "2", &number.to_string()]);
    }
}

#[test]
fn who_closes_the_descriptor_without_a_word_is_not_ready_and_costs_nothing() {
    let (daemon, mut keeper) = begin();
    let script = "printf almost >&7; exec 7>&-; echo closed > closed; exec sleep 1000";
    let run = keeper.launch_command(&daemon, shell(script), by_descriptor(7), None);
    until("it to close", || (!daemon.read("closed").is_empty()).then_some(()));
    let busy = || procs::stat(keeper_pid(&daemon)).map(|stat| stat[11].parse::<u64>().unwrap());
    let before = busy().unwrap();
    procs::moment(std::time::Duration::from_millis(300));
    assert!(busy().unwrap() - before < 10, "the keeper goes round in circles");
    assert_eq!(keeper.told(run), Told::default());
}

fn keeper_pid(daemon: &Daemon) -> i32 {
    procs::roles(daemon.home(), "keeper")[0]
}

#[test]
fn beats_wake_nobody_and_the_last_one_is_known_to_the_next_keeper() {
    let (daemon, mut keeper) = begin();
    let run = keeper.launch(&daemon, "beat 2ms", by_socket());
    let quiet = keeper.launch(&daemon, "hang", by_socket());
    let first = until("a beat", || keeper.beat(run));
    until("another beat", || keeper.beat(run).filter(|beat| beat.boot_us > first.boot_us + 20_000));
    assert_eq!(keeper.beat(quiet), None);
    assert_eq!(keeper.noticed(run), Vec::<Told>::new());
    let pid = keeper.pid_of(run);
    procs::send(&procs::handle(pid).unwrap(), Signal::STOP);
    until("it to stop", || (procs::stat(pid)?.first()? == "T").then_some(()));
    let mut last = keeper.beat(run).unwrap();
    // What it had sent before it stopped.
    let last = until("the last one", || {
        procs::moment(std::time::Duration::from_millis(50));
        let now = keeper.beat(run).unwrap();
        (std::mem::replace(&mut last, now) == now).then_some(now)
    });
    keeper.kill_and(&daemon, || ());
    let again = keeper.beat(run).unwrap();
    assert_eq!(again.boot_us, last.boot_us);
    assert!((again.wall_us - last.wall_us).abs() < 1_000_000, "{again:?} {last:?}");
}

#[test]
fn a_run_that_floods_holds_up_nobody() {
    if !works("python3", "--version") {
        return;
    }
    let (daemon, mut keeper) = begin();
    let script = "import os, socket\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        s.connect(os.environ['NOTIFY_SOCKET'])\n\
        n = 0\n\
        while True:\n  n += 1\n  s.sendall(b'STATUS=%d' % n)";
    let argv = ["python3", "-c", script].map(str::to_owned).to_vec();
    let flood = keeper.launch_command(&daemon, argv, by_socket(), None);
    keeper.wait_told(flood, "told", |told| told.status.is_some());
    let began = std::time::Instant::now();
    for _ in 0..5 {
        let run = keeper.launch(&daemon, "sd-notify READY=1 hang", by_socket());
        keeper.wait_told(run, "ready", |told| told.ready.is_some());
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    let last = |told: &Told| told.status.as_ref().unwrap().parse::<u64>().unwrap();
    let count = last(&keeper.told(flood));
    keeper.wait_told(flood, "still heard", |told| last(told) > count);
}

#[test]
fn what_a_run_says_last_counts_and_nothing_after_its_end() {
    let (daemon, mut keeper) = begin();
    let mut gate = daemon.gate("gate");
    let program = misbehave();
    let script = format!(
        "{0} gate gate notify-other $NOTIFY_SOCKET STATUS=late mark late sent & \
         exec {0} sd-notify STATUS=last sd-notify STOPPING=1 sd-notify EXIT_STATUS=3 exit 3",
        program.display()
    );
    let run = keeper.launch_command(&daemon, shell(&script), by_socket(), None);
    let told = until("the end", || {
        let status = keeper.status(run);
        status.ended.as_ref()?;
        status.told
    });
    assert_eq!((told.status.as_deref(), told.exit_status), (Some("last"), Some(3)));
    assert!(told.stopping.is_some());
    let ended = keeper.notices.iter().position(|notice| matches!(notice, Notice::Ended { .. })).unwrap();
    let heard = |notice: &Notice| matches!(notice, Notice::Told { told, .. } if told.exit_status.is_some());
    assert!(keeper.notices[..ended].iter().any(heard), "{:?}", keeper.notices);
    gate.release();
    until("the end of the child", || keeper.notices_of_gone(run).then_some(()));
    assert_eq!(daemon.read("late"), "", "there is nobody to send to");
    assert_eq!(keeper.told(run), *told);
}

/// Starts a run that speaks by both ways when it is let through.
fn at_the_gate(daemon: &Daemon, keeper: &mut Keeper) -> (crate::common::Gate, RunId) {
    let gate = daemon.gate("gate");
    let listen = Listen { notify: true, ready_fd: Some(5) };
    let script = "sd-notify STATUS=before gate gate ready-fd 5 sd-notify X_PROGRESS=50 mark said yes hang";
    let run = keeper.launch(daemon, script, listen);
    keeper.wait_told(run, "told", |told| told.status.is_some());
    (gate, run)
}

fn both_ways(told: &Told) -> bool {
    told.ready.is_some() && told.progress == Some(50) && told.status.as_deref() == Some("before")
}

#[test]
fn a_keeper_that_hands_over_hands_over_what_runs_tell_things_by() {
    let (mut daemon, mut keeper) = begin();
    let (mut gate, run) = at_the_gate(&daemon, &mut keeper);
    let supervisor = procs::handle(procs::roles(daemon.home(), "supervisor")[0]).unwrap();
    let init = procs::handle(daemon.init_pid()).unwrap();
    // Stopped, the keeper takes nothing; what it does not take goes to its heir.
    let old = procs::handle(keeper.pid).unwrap();
    procs::send(&init, Signal::KILL);
    assert!(procs::wait_dead(&init, PATIENCE));
    procs::send(&old, Signal::STOP);
    gate.release();
    until("the messages", || (daemon.read("said") == "yes\n").then_some(()));
    procs::send(&supervisor, Signal::CONT);
    procs::send(&old, Signal::CONT);
    daemon.restart();
    let mut keeper = Keeper::of(&daemon);
    let told = keeper.wait_told(run, "told", both_ways);
    assert_eq!((told.rejected, told.ignored), (0, 0));
    // The new init has it all, too.
    keeper.kill_and(&daemon, || ());
    assert_eq!(keeper.told(run), told);
}

#[test]
fn a_run_may_tell_things_again_after_all_three_have_died() {
    let (mut daemon, mut keeper) = begin();
    let (mut gate, run) = at_the_gate(&daemon, &mut keeper);
    for role in ["init", "supervisor", "keeper"] {
        let role = procs::handle(procs::roles(daemon.home(), role)[0]).unwrap();
        procs::send(&role, Signal::KILL);
        assert!(procs::wait_dead(&role, PATIENCE));
    }
    daemon.restart();
    let mut keeper = Keeper::of(&daemon);
    gate.release();
    keeper.wait_told(run, "told", both_ways);
}

#[test]
fn what_init_holds_survives_its_own_exec() {
    let (daemon, mut keeper) = begin();
    let (mut gate, run) = at_the_gate(&daemon, &mut keeper);
    let init = daemon.init_pid();
    procs::send(&procs::handle(init).unwrap(), Signal::USR2);
    until("the new image", || procs::command_line(init).contains("--table").then_some(()));
    keeper.kill_and(&daemon, || {
        gate.release();
        until("the messages", || (daemon.read("said") == "yes\n").then_some(()));
    });
    keeper.wait_told(run, "told", both_ways);
}

#[test]
fn a_supervisor_that_does_not_read_is_told_the_latest_state_once_it_does() {
    if !works("python3", "--version") {
        return;
    }
    let (daemon, mut keeper) = begin();
    let script = "import os, socket, time\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        s.connect(os.environ['NOTIFY_SOCKET'])\n\
        for n in range(2000): s.sendall(b'X_RESUME=%04000d' % n)\n\
        s.sendall(b'STATUS=done')\n\
        time.sleep(1000)";
    let argv = ["python3", "-c", script].map(str::to_owned).to_vec();
    let run = keeper.launch_command(&daemon, argv, by_socket(), None);
    let file = daemon.runtime_dir().join("runs").join(run.to_string()).join("told.json");
    until("the end of it", || std::fs::read_to_string(&file).ok().filter(|text| text.contains("done")));
    until("the last notice", || {
        keeper.told(run);
        keeper.noticed(run).last().filter(|told| told.status.is_some()).map(drop)
    });
    let told = keeper.told(run);
    assert_eq!(told.resume.as_deref(), Some(format!("{:04000}", 1999).as_str()));
    let noticed = keeper.noticed(run);
    assert_eq!(noticed.last(), Some(&told));
    // What the socket takes before somebody reads, and a few more.
    assert!(noticed.len() < 300, "{} notices", noticed.len());
}
