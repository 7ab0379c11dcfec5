//! Stop commands: with hooks the one kind of process that the supervisor itself starts.
//!
//! A command that outlives us becomes init's orphan and is reaped there; the ladder's timeout, which is in
//! the log, goes on to the next rung.

use std::process::{Command, Stdio};

use super::launching;
use super::main_loop::Supervisor;
use crate::core::ids::{JobName, RunId};
use crate::core::spec::JobSpec;

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
    let mut command = match helper(supervisor, run, job, &argv, spec) {
        Ok(command) => command,
        Err(error) => {
            tracing::error!(%job, %error, "the user of a stop command is not known");
            // The next rung is due when its time is over, if nobody hears this.
            let _ = tell.try_send((run, false));
            return;
        }
    };
    command.env("OUTLIVE_PID", pid.to_string());
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

/// A command beside the runs of a job: in its directory, as its user, with its environment.
///
/// # Errors
/// If its user is not known.
pub(super) fn helper(
    supervisor: &Supervisor,
    run: RunId,
    job: &JobName,
    argv: &[String],
    spec: &JobSpec,
) -> std::io::Result<Command> {
    let mut command = Command::new(argv.first().map_or("", String::as_str));
    command.args(argv.get(1..).unwrap_or_default());
    command.env_clear().envs(launching::variables(spec));
    command.env("OUTLIVE_JOB", job.as_str()).env("OUTLIVE_RUN_ID", run.to_string());
    command.env("OUTLIVE_HELPER", "stop");
    command.env("OUTLIVE_SOCKET", &supervisor.socket);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    if spec.user.is_some() || spec.group.is_some() {
        // As somebody else it might do what its owner may not.
        let launch = launching::launch(run, 0, spec, (&supervisor.socket, None))
            .map_err(|cannot| std::io::Error::from_raw_os_error(cannot.errno))?;
        if let Some(user) = launch.user {
            use std::os::unix::process::CommandExt;
            command.uid(user.uid).gid(user.gid);
        }
    }
    Ok(command)
}
