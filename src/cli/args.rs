//! What the command line may say. Only words and their forms; what they do is in each verb's file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::when::parse_duration;
use super::work_args::{MoveArgs, QueueArgs, SubmitArgs};

/// outlive: a process supervisor for Linux whose jobs outlive it.
#[derive(Debug, Parser)]
#[command(name = "outlive", version, about, after_help = super::AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Which instance is meant.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlaceArgs {
    /// State directory of the instance [env: OUTLIVE_STATE_DIR]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Which instance")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Runtime directory of the instance [env: OUTLIVE_RUNTIME_DIR]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Which instance")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Control socket of the instance [env: OUTLIVE_SOCKET]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Which instance")]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start an instance, or stand in for the one that runs
    Up(UpArgs),
    /// Run a command as a job of the instance; start one if none runs
    Run(RunArgs),
    /// Submit a task that waits for its turn in a queue
    Submit(SubmitArgs),
    /// Show queues: who has a slot, who waits, and why; pause and resume them
    Queue(QueueArgs),
    /// Move jobs that wait for their turn: to another queue or priority, to the front, aside
    Move(MoveArgs),
    /// Show the instance and its jobs
    Status(StatusArgs),
    /// Show what the runs of jobs came to: starts, ends by cause, restart times, peaks
    Stats(StatusArgs),
    /// Print captured output
    Logs(LogsArgs),
    /// Start jobs
    Start(StartArgs),
    /// Stop jobs, and wait until they are stopped; takes those that wait for a turn out of their queue
    #[command(visible_alias = "cancel")]
    Stop(StopArgs),
    /// Restart jobs
    Restart(RestartArgs),
    /// Send a signal to jobs
    Signal(SignalArgs),
    /// Read the configuration again and apply what differs
    Reload(ReloadArgs),
    /// Print what was decided
    Events(EventsArgs),
    /// Print who did what, and what it changed: operators and recovery
    Audit(AuditArgs),
    /// Look again at what survived and do what follows, or show what the last start did
    Recover(RecoverArgs),
    /// Look at the files of the event log, check them, put them in order; works without an instance
    Journal(JournalArgs),
    /// Wait for jobs; with one job, exit with its code
    Wait(WaitArgs),
    /// Write to a job's stdin
    Send(SendArgs),
    /// From within a job: say how far it is, and leave a token for its next run
    Publish(PublishArgs),
    /// Check a configuration without starting anything
    Check(CheckArgs),
    /// End the instance
    Shutdown(ShutdownArgs),
    /// Print versions
    Version(VersionArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// A small web page for trying things out, on 127.0.0.1 and $PORT (8080)
    #[command(hide = true)]
    DemoHttp,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Configuration file; else ./outlive.toml, then the user's, then the system's
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Return when the instance answers, and leave it running in the background
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Name of the job; one is made up if absent
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Working directory; the current one if absent
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Set a variable; NAME alone passes the current value on. Values are kept in the event log
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Keep it up (a task runs once to its end)
    #[arg(long)]
    pub(crate) service: bool,
    /// When an ended run is followed by another
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<RestartArg>,
    /// Keep stdin open for `outlive send`
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Wait for the end, and exit with the job's own code
    #[arg(long)]
    pub(crate) wait: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RestartArg {
    /// However it ended
    Always,
    /// Unless it exited with a success code
    OnFailure,
    /// Never
    Never,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Jobs: names, patterns, `web:*`, all
    #[arg(value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on with what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last lines of each job
    #[arg(short = 'n', long = "lines", value_name = "N")]
    pub(crate) lines: Option<u64>,
    /// Only what was captured since a time (RFC 3339) or an age (10m, 1h30m)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only one stream
    #[arg(long, value_name = "STREAM", default_value = "all")]
    pub(crate) stream: StreamArg,
    /// Which run: an id, latest or all
    #[arg(long, value_name = "RUN", default_value = "latest")]
    pub(crate) run: String,
    /// Put the time of capture in front of each line
    #[arg(long)]
    pub(crate) timestamps: bool,
    /// The captured bytes exactly, of one job
    #[arg(long, conflicts_with = "timestamps")]
    pub(crate) raw: bool,
    /// Jobs: names, patterns, `web:*`, all
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamArg {
    Stdout,
    Stderr,
    All,
}

impl StreamArg {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::All => "all",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Wait until they run (or have ended)
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait (30s, 5m)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "wait")]
    pub(crate) timeout: Option<Duration>,
    /// Wait until they run, and stop all of them again if one does not come up
    #[arg(long, conflicts_with_all = ["wait", "timeout"])]
    pub(crate) or_rollback: bool,
    /// With --or-rollback: how long they may take (30s)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "or_rollback")]
    pub(crate) within: Option<Duration>,
    /// Every job that is held because entries of the event log are missing
    #[arg(long, conflicts_with = "jobs")]
    pub(crate) held: bool,
    /// Also where the circuit breaker of a job is open
    #[arg(long, conflicts_with = "or_rollback")]
    pub(crate) force: bool,
    /// Jobs: names, patterns, `web:*`, all
    #[arg(required_unless_present = "held", value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Wait until they run (or have ended)
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait (30s, 5m)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "wait")]
    pub(crate) timeout: Option<Duration>,
    /// Jobs: names, patterns, `web:*`, all
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Return when the stop is decided (the default is to wait for it)
    #[arg(long, conflicts_with_all = ["wait", "timeout"])]
    pub(crate) no_wait: bool,
    /// Wait until they are stopped; the default
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait (30s, 5m)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Jobs: names, patterns, `web:*`, all
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SignalArgs {
    /// Name or number: HUP, SIGUSR1, 15, RTMIN+3
    #[arg(value_name = "SIGNAL")]
    pub(crate) signal: String,
    /// Whom it reaches; else what the job's own setting says
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Option<ScopeArg>,
    /// Jobs: names, patterns, `web:*`, all
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeArg {
    /// The main process
    Process,
    /// Its process group
    Group,
    /// Everything that belongs to the run
    Tree,
}

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Only say what would be done
    #[arg(long)]
    pub(crate) plan: bool,
    /// Put the old configuration back if a job that the new one adds or changes does not come up
    #[arg(long, conflicts_with = "plan")]
    pub(crate) or_rollback: bool,
    /// With --or-rollback: how long they may take (30s)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "or_rollback")]
    pub(crate) within: Option<Duration>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// How far it is, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) progress: Option<u8>,
    /// A line for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// What the next run finds in OUTLIVE_RESUME_TOKEN; durable when the command returns. Empty: none
    #[arg(long, value_name = "TOKEN")]
    pub(crate) resume_token: Option<String>,
    /// Which run; else the one this command is run by [env: OUTLIVE_RUN_ID]
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on with what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// JSON lines
    #[arg(long)]
    pub(crate) json: bool,
    /// Only what came after this sequence number
    #[arg(long, value_name = "N")]
    pub(crate) since: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only so many, the latest
    #[arg(short = 'n', long = "lines", value_name = "N")]
    pub(crate) lines: Option<u64>,
    /// One JSON list
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RecoverArgs {
    #[command(subcommand)]
    pub(crate) what: Option<RecoverWhat>,
    /// Only say what would be done; without an instance, what `outlive up` would do
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Configuration file, where no instance runs; else the one `outlive up` would use
    #[arg(short, long, value_name = "FILE", requires = "dry_run")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecoverWhat {
    /// Show the last start: its phases, what it found, what it did and why
    Report {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show what became of incidents: how many were recovered, and how long that took
    Metrics {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// End recovery mode: what is wanted is started again
    Exit,
    /// Leave out a phase of the start that waits or is tried again
    Skip {
        /// The phase, as the report names it
        #[arg(value_name = "PHASE")]
        phase: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct JournalArgs {
    #[command(subcommand)]
    pub(crate) what: JournalWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JournalWhat {
    /// Print the lines of the event log
    Show(ShowArgs),
    /// Check every segment and checkpoint from the first byte to the last
    Verify {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Set aside what is damaged and make a fresh checkpoint, as a start would
    Repair {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Go on although lines are missing that nothing brings back
        #[arg(long)]
        accept_loss: bool,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print what was known after a line
    Replay {
        /// The number of the line; else the newest
        #[arg(long, value_name = "SEQ")]
        until: Option<u64>,
        /// JSON lines: the entities, as a checkpoint has them
        #[arg(long)]
        json: bool,
    },
    /// Print how much there is of what
    Stats {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Only what is about this job
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Option<String>,
    /// Only events of this kind (run.ended, job.want, ...), or `mark` for lines without events
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// From this line on
    #[arg(long, value_name = "SEQ")]
    pub(crate) from: Option<u64>,
    /// Up to this line
    #[arg(long, value_name = "SEQ")]
    pub(crate) to: Option<u64>,
    /// Only what was written since a time (RFC 3339) or within an age (10m, 1h30m)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// The lines as they are in the files
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// How long to wait (30s, 5m); exit code 124 when it is over
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// What to wait for
    #[arg(long = "for", value_name = "WHAT", default_value = "ended")]
    pub(crate) what: WaitFor,
    /// Jobs: names, patterns, `web:*`, all
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitFor {
    /// It is stopped, as asked
    Stopped,
    /// Its present run has ended, whatever comes next
    Exited,
    /// It runs
    Running,
    /// It has ended and does not run again by itself
    Ended,
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Close the job's stdin afterwards
    #[arg(long)]
    pub(crate) close: bool,
    /// The job
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// The text, as one line; without it, everything from stdin as it is
    #[arg(value_name = "TEXT", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) text: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Configuration file; else the one `outlive up` would use
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the JSON schema of the configuration for editors
    #[arg(long, conflicts_with = "config")]
    pub(crate) schema: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShutdownArgs {
    /// Leave the jobs running; the next `outlive up` takes them over
    #[arg(long)]
    pub(crate) keep_jobs: bool,
    /// Wait until the instance has ended; the default
    #[arg(long)]
    pub(crate) wait: bool,
    /// Return when the end has begun
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}
