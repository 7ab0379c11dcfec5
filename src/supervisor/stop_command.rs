//! Commands about runs, which the supervisor itself starts: stop commands, hooks, and what probes ask by.
//!
//! A stop command that outlives us becomes init's orphan and is reaped there; the ladder's timeout, which is in
//! the log, goes on to the next rung.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::launching;
use super::main_loop::Supervisor;
use crate::core::ids::{JobName, RunId};
use crate::core::spec::JobSpec;
use crate::sys::exec;

/// A command about a run of a job: with the environment, the directory, the user and the groups of the job.
///
/// # Errors
/// If its user is not known: as somebody else it might do what its owner may not.
pub(super) fn command(
    spec: &JobSpec,
    argv: &[String],
    (run, pid): (RunId, Option<i32>),
    socket: &Path,
) -> io::Result<Command> {
    let mut command = Command::new(argv.first().map_or("", String::as_str));
    command.args(argv.get(1..).unwrap_or_default());
    command.env_clear().envs(launching::variables(spec));
    command.env("OUTLIVE_JOB", spec.name.as_str()).env("OUTLIVE_RUN_ID", run.to_string());
    command.env("OUTLIVE_HELPER", "stop").env("OUTLIVE_SOCKET", socket);
    if let Some(pid) = pid {
        command.env("OUTLIVE_PID", pid.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let user = launching::user(spec).map_err(|cannot| io::Error::from_raw_os_error(cannot.errno))?;
    match (user, &spec.cwd) {
        (Some(user), cwd) => {
            exec::as_user(&mut command, (user.uid, user.gid, user.groups), cwd.as_deref())?;
        }
        (None, Some(cwd)) => {
            command.current_dir(cwd);
        }
        (None, None) => {}
    }
    Ok(command)
}

/// Starts the command; its end is told to the loop.
pub(super) fn run(
    supervisor: &Supervisor,
    run: RunId,
    job: &JobName,
    pid: i32,
    argv: &[String],
    spec: &JobSpec,
) {
    let tell = supervisor.tell_stop_command.clone();
    let mut command = match command(spec, argv, (run, Some(pid)), &supervisor.socket) {
        Ok(command) => command,
        Err(error) => {
            tracing::error!(%job, %error, "the user of a stop command is not known");
            // The next rung is due when its time is over, if nobody hears this.
            let _ = tell.try_send((run, false));
            return;
        }
    };
    let job = job.clone();
    super::vigils::aside(move || {
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
