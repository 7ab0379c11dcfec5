//! What the command line may say about tasks that wait for their turn.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::when::parse_duration;
use crate::core::ids::{JobName, QueueName};

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The queue
    #[arg(short, long, value_name = "QUEUE", default_value = "default")]
    pub(crate) queue: QueueName,
    /// The highest goes first; among equals who came first
    #[arg(short, long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i32,
    /// Not before this job is up, or has done its work; may be given several times
    #[arg(long, value_name = "JOB")]
    pub(crate) after: Vec<JobName>,
    /// Not before this moment: 10m from now, or 2030-01-31T08:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub(crate) not_before: Option<String>,
    /// Not before it is released: outlive move --release
    #[arg(long)]
    pub(crate) hold: bool,
    /// The same key means the same job: nothing is submitted twice
    #[arg(long, value_name = "TEXT")]
    pub(crate) key: Option<String>,
    /// How long a run may take
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// How often a run that failed is tried again
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,
    /// Name of the job; one is made up if absent
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Working directory; the current one if absent
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Set a variable; NAME alone passes the current value on. Values are kept in the event log
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Wait for the end, and exit with the job's own code
    #[arg(long)]
    pub(crate) wait: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    #[command(subcommand)]
    pub(crate) what: Option<QueueWhat>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueWhat {
    /// Show queues, and who waits in them
    List {
        /// These alone
        #[arg(value_name = "QUEUE")]
        queues: Vec<QueueName>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Give no turns; what runs goes on
    Pause {
        /// In these
        #[arg(required = true, value_name = "QUEUE")]
        queues: Vec<QueueName>,
    },
    /// Give turns again
    Resume {
        /// In these
        #[arg(required = true, value_name = "QUEUE")]
        queues: Vec<QueueName>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// Jobs that wait for their turn: names, patterns
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
    /// To this queue
    #[arg(short, long, value_name = "QUEUE")]
    pub(crate) queue: Option<QueueName>,
    /// To this priority
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
    /// Before all others of its priority
    #[arg(long, conflicts_with = "last")]
    pub(crate) first: bool,
    /// Behind all others of its priority
    #[arg(long)]
    pub(crate) last: bool,
    /// Aside, until it is released
    #[arg(long, conflicts_with = "release")]
    pub(crate) hold: bool,
    /// Not aside any more
    #[arg(long)]
    pub(crate) release: bool,
    /// Aside, until this moment: 10m from now, or 2030-01-31T08:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub(crate) not_before: Option<String>,
}
