//! Commands about runs, which the supervisor itself starts: stop commands, and what probes ask by.
//!
//! A stop command that outlives us becomes init's orphan and is reaped there; the ladder's timeout, which is in
//! the log, goes on to the next rung.

use std::path::Path;
use std::process::{Command, Stdio};

use super::launching;
use super::main_loop::Supervisor;
use crate::core::ids::{JobName, RunId};
use crate::core::spec::JobSpec;

/// A command about a run of a job: with the environment, the directory and the user of the job.
pub(super) fn command(
    spec: &JobSpec,
    argv: Vec<String>,
    (run, pid): (RunId, Option<i32>),
    socket: &Path,
) -> Command {
    let mut command = Command::new(argv.first().map_or("", String::as_str));
    command.args(argv.get(1..).unwrap_or_default());
    command.env_clear().envs(launching::variables(spec));
    command.env("OUTLIVE_JOB", spec.name.as_str()).env("OUTLIVE_RUN_ID", run.to_string());
    command.env("OUTLIVE_SOCKET", socket);
    if let Some(pid) = pid {
        command.env("OUTLIVE_PID", pid.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    if spec.user.is_some() || spec.group.is_some() {
        match launching::launch(run, 0, spec, (socket, None)) {
            Ok(launch) => {
                if let Some(user) = launch.user {
                    use std::os::unix::process::CommandExt;
                    command.uid(user.uid).gid(user.gid);
                }
            }
            Err(cannot) => {
                tracing::error!(job = %spec.name, step = cannot.step, "the user of a helper is not known");
            }
        }
    }
    command
}

/// Starts the command; its end is told to the loop.
pub(super) fn run(
    supervisor: &Supervisor,
    run: RunId,
    job: &JobName,
    pid: i32,
    argv: Vec<String>,
    spec: &JobSpec,
) {
    let tell = supervisor.tell_stop_command.clone();
    let mut command = command(spec, argv, (run, Some(pid)), &supervisor.socket);
    command.env("OUTLIVE_HELPER", "stop");
    let job = job.clone();
    tokio::task::spawn_blocking(move || {
        let ok = match command.status() {
            Ok(status) => status.success(),
            Err(error) => {
                tracing::error!(%job, %error, "the stop command cannot be started");
                false
            }
        };
        let _ = tell.blocking_send((run, ok));
    });
}
