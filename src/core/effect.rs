//! What the core may ask the world to do. An effect leaves nothing to choose, and is performed only after
//! the events of its decision are durable. Performing it twice is harmless, or refused by run id.

use super::hook::When;
use super::identity::Identity;
use super::ids::{JobName, RunId};
use super::outcome::{Asked, Outcome};
use super::rung::Rung;
use super::spec::{JobSpec, KillScope};
use super::time::Millis;

/// One act.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask the keeper to start a run, once its `before_start` hook, if it has one, has succeeded.
    Launch {
        /// The run.
        run: RunId,
        /// Which try, counted from 1.
        attempt: u64,
        /// The settings, as they are now.
        spec: Box<JobSpec>,
    },
    /// Ask the keeper to signal a run.
    Signal {
        /// The run.
        run: RunId,
        /// Signal number.
        signal: i32,
        /// Whom it reaches.
        scope: KillScope,
        /// Whether `CONT` follows.
        cont: bool,
        /// Who asked.
        asked: Asked,
        /// The rung whose signal this is; `None`: it may be sent again.
        rung: Option<Rung>,
    },
    /// Run a stop command for a run; its end comes back as `StopCommandEnded`.
    RunStopCommand {
        /// The run.
        run: RunId,
        /// Which rung of its ladder this is.
        step: u32,
        /// Its job.
        job: JobName,
        /// Main process, for `OUTLIVE_PID`.
        pid: i32,
        /// The command.
        argv: Vec<String>,
        /// How long it may take: as long as its rung.
        timeout: Millis,
        /// Settings of the job (environment, working directory, user).
        spec: Box<JobSpec>,
    },
    /// Run a hook. That `before_stop` has ended comes back as `HookEnded`; `before_start` is part of a launch, and
    /// none of these.
    RunHook {
        /// Which.
        when: When,
        /// Its job.
        job: JobName,
        /// The run it is about.
        run: Option<RunId>,
        /// The main process, where one lives.
        pid: Option<i32>,
        /// How the run ended, where it is over.
        outcome: Option<Outcome>,
        /// Settings of the job.
        spec: Box<JobSpec>,
    },
    /// Write into the run directory what the processes of a run are doing.
    Diagnose {
        /// The run.
        run: RunId,
        /// Its job.
        job: JobName,
        /// Its main process.
        identity: Identity,
        /// What is wrong with it.
        why: String,
    },
    /// Tell the keeper that this run's end is durable here.
    Forget {
        /// The run.
        run: RunId,
    },
    /// Tell the keeper to leave what is left of this run alone.
    Disown {
        /// The run.
        run: RunId,
    },
    /// Everything is stopped (or to be kept): end the instance with this exit code.
    Exit {
        /// Leave the jobs running.
        keep_jobs: bool,
        /// Exit code of the instance.
        code: u8,
    },
}
