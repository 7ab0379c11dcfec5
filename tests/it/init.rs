//! Init: what it keeps over its own `execve`, and when it becomes careful.

use crate::common::{Daemon, job, procs, until};
use rustix::process::Signal;

#[test]
fn an_outcome_that_nobody_has_recorded_survives_inits_own_exec() {
    let mut daemon = Daemon::prepare("");
    let mut gate = daemon.gate("gate");
    let path = daemon.path("gate");
    daemon.write_config(&job("a", &format!("gate {} exit 37", path.display()), "restart = \"never\""));
    daemon.up();
    let (pid, run) = daemon.wait_running("a");
    let init = daemon.role("init");
    let keeper = procs::handle(daemon.role("keeper")).unwrap();
    procs::send(&keeper, Signal::STOP);
    gate.release();
    until("the zombie", || (procs::stat(pid)?.first()? == "Z").then_some(()));
    let before = procs::stat(init).unwrap();
    // A new image of init: its arguments then name the table that it found.
    procs::send(&procs::handle(init).unwrap(), Signal::USR2);
    until("the new image", || procs::command_line(init).contains("--table").then_some(()));
    procs::send(&keeper, Signal::CONT);
    let ended = daemon.wait_ended("a");
    assert_eq!(ended["code"], 37, "{ended}");
    assert_eq!(daemon.job("a")["run"], run);
    assert_eq!(daemon.events_of("run.ended", "a").len(), 1);
    assert_eq!(procs::stat(init).unwrap()[19], before[19], "init is the same process");
    assert!(procs::parent(daemon.role("keeper")) == Some(init), "and the keeper the same child");
    daemon.cli(["shutdown"]).expect(0);
    assert_eq!(daemon.wait_up_ended(), 0);
    daemon.wait_nothing_left();
}

#[test]
fn five_deaths_of_the_supervisor_within_a_minute_lead_to_recovery_mode() {
    let mut daemon = Daemon::start(&job("a", "lines 0 5ms", "restart = \"always\""));
    let (pid, _) = daemon.wait_running("a");
    for _ in 0..5 {
        assert_eq!(daemon.status()["instance"]["state"], "running");
        let old = daemon.kill_role("supervisor");
        daemon.wait_role_back("supervisor", old);
    }
    let state = until("recovery mode", || {
        let state = daemon.try_status()?["instance"]["state"].clone();
        (state == "recovery").then_some(state)
    });
    assert_eq!(state, "recovery");
    assert_eq!(daemon.wait_running("a").0, pid, "what runs is watched on");
    procs::send(&procs::handle(pid).unwrap(), Signal::KILL);
    let ended = daemon.wait_job("a", "not running", |job| job["pid"].is_null());
    assert_ne!(ended["state"], "running", "nothing is started by itself");
    daemon.cli(["start", "a"]).expect(0);
    assert_ne!(daemon.wait_running("a").0, pid, "an operator's start works");
}

#[test]
fn a_job_may_ask_to_die_with_the_supervisor() {
    let config = [
        job("kept", "lines 0 5ms", ""),
        job("killed", "lines 0 5ms", "on_supervisor_death = \"kill\"\nrestart = \"never\""),
        job("patient", "lines 0 5ms", "on_supervisor_death = { kill_after = \"5m\" }"),
    ];
    let mut daemon = Daemon::start(&config.concat());
    let kept = daemon.wait_running("kept");
    let patient = daemon.wait_running("patient");
    daemon.wait_running("killed");
    let old = daemon.kill_role("supervisor");
    daemon.wait_role_back("supervisor", old);
    let ended = daemon.wait_ended("killed");
    assert_eq!(ended["signal"], 9, "{ended}");
    assert_eq!(ended["asked"], "supervisor_death", "{ended}");
    assert_eq!(daemon.wait_running("kept"), kept);
    assert_eq!(daemon.wait_running("patient"), patient);
}

#[test]
fn an_outcome_that_the_disk_refuses_is_kept_until_it_is_durable_elsewhere() {
    let mut daemon = Daemon::prepare("");
    let mut gate = daemon.gate("gate");
    let path = daemon.path("gate");
    daemon.write_config(&job("a", &format!("gate {} exit 38", path.display()), "restart = \"never\""));
    daemon.up();
    let (pid, run) = daemon.wait_running("a");
    // There is no place for `exit.json` any more.
    std::fs::remove_dir_all(daemon.run_dir(&run)).unwrap();
    let supervisor = procs::handle(daemon.role("supervisor")).unwrap();
    procs::send(&supervisor, Signal::STOP);
    gate.release();
    until("the zombie", || (procs::stat(pid)?.first()? == "Z").then_some(()));
    let keeper = procs::roles(daemon.home(), "keeper")[0];
    let dead = procs::handle(keeper).unwrap();
    procs::send(&dead, Signal::KILL);
    assert!(procs::wait_dead(&dead, crate::common::PATIENCE));
    procs::send(&supervisor, Signal::CONT);
    assert_eq!(daemon.wait_ended("a")["code"], 38);
    until("the end of the zombie", || procs::stat(pid).is_none().then_some(()));
}
