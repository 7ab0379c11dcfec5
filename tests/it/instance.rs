//! An instance as a whole: its directories, a second one for the same state, signals, shutdown.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::common::{Daemon, PATIENCE, is_root, job, procs, run, skip, until, wait_child};

#[test]
fn the_roles_are_named_in_ps_and_belong_together() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    for role in ["init", "keeper", "supervisor"] {
        let pid = daemon.role(role);
        assert_eq!(procs::title(pid), format!("outlive: {role}"));
        assert_eq!(procs::roles(daemon.home(), role), [pid]);
    }
    let init = daemon.role("init");
    assert_eq!(procs::parent(daemon.role("keeper")), Some(init));
    assert_eq!(procs::parent(daemon.role("supervisor")), Some(init));
}

#[test]
fn the_socket_is_for_its_owner_alone() {
    let daemon = Daemon::start("");
    let mode = fs::metadata(daemon.socket()).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    let mode = fs::metadata(daemon.state_dir()).unwrap().mode() & 0o077;
    assert_eq!(mode, 0, "{mode:o}");
}

fn assert_nothing_left(daemon: &Daemon) {
    daemon.wait_nothing_left();
    let left: Vec<PathBuf> = special_files(&daemon.runtime_dir());
    assert!(left.is_empty(), "{left:?}");
    assert!(fs::read_dir(daemon.runtime_dir().join("runs")).map_or(0, Iterator::count) == 0);
}

/// Sockets and FIFOs below a directory.
fn special_files(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(special_files(&entry.path()));
        } else if kind.is_socket() || kind.is_fifo() {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn shutdown_leaves_nothing_behind() {
    let mut daemon = Daemon::start(
        &[
            job("j", "leave-child daemonise hang", ""),
            job("k", "ignore TERM hang", "stop = { signal = \"TERM\", timeout = \"100ms\" }"),
        ]
        .concat(),
    );
    daemon.wait_running("j");
    daemon.wait_running("k");
    daemon.cli(["shutdown"]).expect(0);
    assert_eq!(daemon.wait_up_ended(), 0);
    assert_nothing_left(&daemon);
    // And it begins again where it was told to be.
    daemon.up();
    daemon.wait_running("j");
}

#[test]
fn term_and_int_to_init_are_a_shutdown() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start(&job("j", "hang", ""));
        daemon.wait_running("j");
        procs::send(&procs::handle(daemon.role("init")).unwrap(), signal);
        assert_eq!(daemon.wait_up_ended(), 0, "{signal:?}");
        assert_nothing_left(&daemon);
        let ended = daemon.events_of("run.ended", "j");
        assert_eq!(ended[0]["record"]["asked"], "shutdown", "{ended:#?}");
    }
}

#[test]
fn a_shutdown_that_keeps_jobs_ends_us_and_the_next_up_adopts_them() {
    let mut daemon = Daemon::start(&job("j", "lines 0 1ms", ""));
    let before = daemon.wait_running("j");
    daemon.cli(["shutdown", "--keep-jobs"]).expect(0);
    assert_eq!(daemon.wait_up_ended(), 0);
    let handle = procs::handle(before.0).unwrap();
    for role in ["init", "keeper", "supervisor"] {
        assert!(procs::roles(daemon.home(), role).is_empty(), "{role}");
    }
    assert!(!procs::wait_dead(&handle, std::time::Duration::from_millis(100)));
    daemon.up();
    assert_eq!(daemon.wait_running("j"), before);
    let text = daemon.wait_log("j", "lines", |log| log.lines().count() > 200);
    for (n, line) in text.split_inclusive('\n').filter(|l| l.ends_with('\n')).enumerate() {
        assert_eq!(line.trim_end(), (n + 1).to_string());
    }
}

#[test]
fn a_second_up_stands_in_and_forwards() {
    let mut daemon = Daemon::start(&job("j", "hang", ""));
    let before = daemon.wait_running("j");
    let roles = ["init", "keeper", "supervisor"].map(|role| daemon.role(role));
    let mut second = daemon.spawn_up();
    // It has found the instance when it says so; until then there is nothing to compare.
    until("the second to speak", || daemon.read("up.log").contains("stand").then_some(()));
    assert!(second.try_wait().unwrap().is_none(), "it stays in the foreground");
    assert_eq!(["init", "keeper", "supervisor"].map(|role| daemon.role(role)), roles);
    assert_eq!(daemon.wait_running("j"), before);
    let handle = procs::handle(second.id().cast_signed()).unwrap();
    procs::send(&handle, Signal::TERM);
    assert_eq!(wait_child(&mut second, PATIENCE), Some(0));
    assert_eq!(daemon.wait_up_ended(), 0);
    assert_nothing_left(&daemon);
}

#[test]
fn a_stand_in_goes_when_the_instance_goes() {
    let mut daemon = Daemon::start("");
    let mut second = daemon.spawn_up();
    until("the second to speak", || daemon.read("up.log").contains("stand").then_some(()));
    daemon.cli(["shutdown"]).expect(0);
    assert_eq!(daemon.wait_up_ended(), 0);
    assert_eq!(wait_child(&mut second, PATIENCE), Some(0));
}

/// Accepted is accepted: whoever kills the supervisor in the middle of a shutdown gets a shutdown.
#[test]
fn a_shutdown_outlives_the_supervisor_that_began_it() {
    let mut daemon = Daemon::start(
        &[
            job("j", "hang", "restart = \"always\""),
            job("k", "ignore TERM hang", "stop = { signal = \"TERM\", timeout = \"400ms\" }"),
        ]
        .concat(),
    );
    daemon.wait_running("j");
    daemon.wait_running("k");
    daemon.cli(["shutdown", "--no-wait"]).expect(0);
    let supervisor = procs::roles(daemon.home(), "supervisor");
    for handle in supervisor.into_iter().filter_map(procs::handle) {
        procs::send(&handle, Signal::KILL);
    }
    assert_eq!(daemon.wait_up_ended(), 0);
    assert_nothing_left(&daemon);
    assert_eq!(daemon.events_of("run.requested", "j").len(), 1);
    // The next one is another instance.
    daemon.up();
    daemon.wait_running("j");
}

/// What a container wants: it ends when its job is beyond help, and says how.
#[test]
fn an_instance_ends_with_the_code_of_a_job_that_was_given_up() {
    let main =
        "on_fatal = \"exit\"\nstart_limit = { count = 2 }\nbackoff = { initial = \"0s\", max = \"0s\" }";
    let mut daemon = Daemon::start(&[job("main", "exit 37", main), job("side", "hang", "")].concat());
    assert_eq!(daemon.wait_up_ended(), 37);
    assert_nothing_left(&daemon);
    assert_eq!(daemon.events_of("run.requested", "main").len(), 2);
    let begun: Vec<_> = daemon.events().into_iter().filter(|e| e["k"] == "shutdown.begun").collect();
    assert_eq!(begun[0]["by"]["policy"]["rule"], "on_fatal of main", "{begun:#?}");
    until("its words", || {
        let log = daemon.read("up.log");
        (log.contains("given up") && log.contains("on_fatal of main")).then_some(())
    });
    // A supervisor that is killed meanwhile changes nothing.
    let slow = job("side", "ignore TERM hang", "stop = { signal = \"TERM\", timeout = \"400ms\" }");
    let mut daemon = Daemon::start(&[job("main", "exit 37", main), slow].concat());
    daemon.wait_state("side", "stopping");
    for handle in procs::roles(daemon.home(), "supervisor").into_iter().filter_map(procs::handle) {
        procs::send(&handle, Signal::KILL);
    }
    assert_eq!(daemon.wait_up_ended(), 37);
    assert_nothing_left(&daemon);
}

#[test]
fn a_shutdown_ends_everything_also_when_init_is_gone() {
    let mut daemon = Daemon::start(&job("j", "hang", ""));
    daemon.wait_running("j");
    daemon.kill_role("init");
    until("init to be missed", || {
        daemon.try_status()?["instance"]["roles"]["init"]["pid"].is_null().then_some(())
    });
    daemon.cli(["shutdown"]).expect(0);
    assert_nothing_left(&daemon);
    let mut old = daemon.take_up();
    assert!(wait_child(&mut old, PATIENCE).is_some());
}

#[test]
fn a_stand_in_takes_the_place_of_an_init_that_was_killed() {
    let mut daemon = Daemon::start(&job("j", "hang", ""));
    let before = daemon.wait_running("j");
    let mut second = daemon.spawn_up();
    until("the second to speak", || daemon.read("up.log").contains("standing in").then_some(()));
    let mut first = daemon.take_up();
    let old = daemon.kill_role("init");
    assert_eq!(wait_child(&mut first, PATIENCE), Some(128 + 9));
    assert_eq!(daemon.wait_role_back("init", old), second.id().cast_signed());
    assert_eq!(daemon.wait_running("j"), before);
    daemon.cli(["shutdown"]).expect(0);
    assert_eq!(wait_child(&mut second, PATIENCE), Some(0));
    assert_nothing_left(&daemon);
}

#[test]
fn up_can_go_to_the_background() {
    let daemon = Daemon::prepare(&job("j", "hang", ""));
    daemon.cli(["up", "--detach", "-c", "outlive.toml"]).expect(0);
    daemon.wait_running("j");
    assert_eq!(daemon.cli(["status"]).code, 0);
    daemon.cli(["shutdown"]).expect(0);
    assert_nothing_left(&daemon);
}

#[test]
fn a_bad_configuration_starts_nothing() {
    let daemon = Daemon::prepare(
        "[supervisor]\nwhat = 1\n[job.a]\ncommand = [\"true\"]\nrestart = \"sometimes\"\nbackof = {}\n[job.b]\n",
    );
    for verb in [vec!["up", "-c", "outlive.toml"], vec!["check", "-c", "outlive.toml"]] {
        let said = daemon.cli(&verb).expect(2);
        // All of them at once, each with its place.
        for part in ["outlive.toml:2", "outlive.toml:5", "outlive.toml:6", "backoff", "command"] {
            assert!(said.stderr.contains(part), "{verb:?}: no {part} in {}", said.stderr);
        }
    }
    assert!(daemon.processes().is_empty());
    assert!(!daemon.runtime_dir().join("control.sock").exists());
}

#[test]
fn a_missing_configuration_is_an_error_that_names_it() {
    let daemon = Daemon::prepare("");
    let said = daemon.cli(["up", "-c", "/no/such/file.toml"]).expect(2);
    assert!(said.stderr.contains("/no/such/file.toml"), "{said:?}");
    assert!(daemon.processes().is_empty());
}

#[test]
fn without_a_path_the_file_of_the_directory_is_taken() {
    let daemon = Daemon::prepare(&job("j", "hang", ""));
    daemon.cli(["up", "--detach"]).expect(0);
    daemon.wait_running("j");
}

#[test]
fn options_choose_the_instance_like_the_environment() {
    let daemon = Daemon::start(&job("j", "hang", ""));
    daemon.wait_running("j");
    let mut bare = daemon.command(["--state-dir", daemon.state_dir().to_str().unwrap(), "--runtime-dir"]);
    bare.arg(daemon.runtime_dir())
        .arg("status")
        .env_remove("OUTLIVE_STATE_DIR")
        .env_remove("OUTLIVE_RUNTIME_DIR");
    run(&mut bare).expect(0);
    let mut bare = daemon.command(["--socket", daemon.socket().to_str().unwrap(), "status"]);
    bare.env_remove("OUTLIVE_STATE_DIR").env_remove("OUTLIVE_RUNTIME_DIR");
    run(&mut bare).expect(0);
    let mut bare = daemon.command(["status"]);
    bare.env_remove("OUTLIVE_STATE_DIR")
        .env_remove("OUTLIVE_RUNTIME_DIR")
        .env("OUTLIVE_SOCKET", daemon.socket());
    run(&mut bare).expect(0);
}

#[test]
fn a_state_directory_of_somebody_else_is_refused() {
    if !is_root() {
        return skip("only root can give a directory to somebody else");
    }
    let daemon = Daemon::prepare(&job("j", "hang", ""));
    fs::create_dir(daemon.state_dir()).unwrap();
    std::os::unix::fs::chown(daemon.state_dir(), Some(65534), Some(65534)).unwrap();
    let said = daemon.cli(["up", "-c", "outlive.toml"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains(daemon.state_dir().to_str().unwrap()), "{said:?}");
    assert!(said.stderr.contains("65534") || said.stderr.contains("own"), "{said:?}");
    assert!(daemon.processes().is_empty());
}

#[test]
fn a_directory_that_cannot_be_made_or_written_is_an_error_that_names_it() {
    // A file in the way stops root as well.
    for name in ["state", "run"] {
        let daemon = Daemon::prepare(&job("j", "hang", ""));
        daemon.write(name, "a file");
        let said = daemon.cli(["up", "-c", "outlive.toml"]);
        assert_ne!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains(daemon.path(name).to_str().unwrap()), "{said:?}");
        assert!(daemon.processes().is_empty());
    }
    if is_root() {
        return skip("root may write where the mode says nobody may");
    }
    let daemon = Daemon::prepare(&job("j", "hang", ""));
    fs::create_dir(daemon.state_dir()).unwrap();
    fs::set_permissions(daemon.state_dir(), fs::Permissions::from_mode(0o500)).unwrap();
    let said = daemon.cli(["up", "-c", "outlive.toml"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains(daemon.state_dir().to_str().unwrap()), "{said:?}");
}

#[test]
fn a_socket_path_that_is_too_long_is_an_error_and_not_a_truncation() {
    let mut daemon = Daemon::prepare("");
    let long = daemon.path(&"x".repeat(120));
    daemon.env.push(("OUTLIVE_RUNTIME_DIR".to_owned(), long.to_str().unwrap().to_owned()));
    let said = daemon.cli(["up", "-c", "outlive.toml"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("xxx"), "{said:?}");
    assert!(daemon.processes().is_empty());
}
