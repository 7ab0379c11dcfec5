//! How the control socket reaches the main loop: asks go in over a bounded channel and are answered once
//! their effect is durable; reads never reach the loop, they look at the latest published view.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

pub use super::live::{JobUsage, Live};
use crate::core::alerts::{Alerts, Raised};
use crate::core::ids::{JobName, QueueName, RunId};
use crate::core::progress::Said;
use crate::core::recoveries::Recoveries;
use crate::core::report::{RunsReport, StartReport};
use crate::core::rest::Rest;
use crate::core::spec::KillScope;
use crate::core::stats::Stats;
use crate::core::time::Millis;
pub use crate::sys::proc::Usage;
pub use crate::sys::sample::Sample;
use crate::wire::control::{
    ActReply, Instance, JobStatus, PublishReply, ReloadReply, RunReply, RunRequest, RunView, SagaView,
    ScrubReply, StdinReply,
};
use crate::wire::host::HostView;
use crate::wire::queue::{MoveRequest, PauseReply, QueueView};

/// Asks that may wait for the main loop; beyond that a client is told to come back (503, `busy`).
pub const ASKS_MAX: usize = 1024;

/// Phases of the start that may wait to be skipped.
pub const SKIPS_MAX: usize = 16;

/// What readers see: built by the main loop after each turn, never changed afterwards.
#[derive(Debug, Clone)]
pub struct View {
    /// The instance.
    pub instance: Arc<Instance>,
    /// The checks of the host.
    pub host: Arc<HostView>,
    /// Its jobs, but for those at rest.
    pub jobs: BTreeMap<JobName, Arc<JobStatus>>,
    /// Their runs, oldest first, the latest last.
    pub runs: BTreeMap<JobName, Arc<Vec<RunView>>>,
    /// Jobs at rest: looked up when somebody asks.
    pub rest: Rest,
    /// What the runs before the latest came to, of jobs that had more than one.
    pub stats: BTreeMap<JobName, Arc<Stats>>,
    /// Where to look for what live runs use.
    pub live: BTreeMap<JobName, Live>,
    /// Operations of several steps: the latest that are over, then the one under way.
    pub sagas: Vec<Arc<SagaView>>,
    /// The queues.
    pub queues: Vec<QueueView>,
    /// Runs of all of them together, at most.
    pub slots: Option<u32>,
    /// What is counted of the instance as a whole.
    pub insight: Insight,
    /// Sequence number of the last durable event.
    pub seq: u64,
    /// Whether the first survey is done and every wanted job has been asked for.
    pub ready: bool,
    /// Whether the event log has been read: before that, nobody knows which jobs there are.
    pub known: bool,
}

/// What is counted of the instance as a whole.
#[derive(Debug, Clone, Default)]
pub struct Insight {
    /// Incidents, and what became of them.
    pub recoveries: Arc<Recoveries>,
    /// What is raised, and what was.
    pub alerts: Arc<Alerts>,
    /// What is raised and cannot be recorded.
    pub unrecorded: Vec<Raised>,
    /// Entries of the event log that this supervisor has read, that were missing, and that were damaged.
    pub entries: [u64; 3],
    /// Writes of the event log that failed, or took far too long, since this supervisor began.
    pub failed_writes: u64,
}

/// Who asks: the peer of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Process id, for the log only.
    pub pid: i32,
}

/// Why an ask was not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No such job, run, …
    #[error("{0}")]
    NotFound(String),
    /// It makes no sense in the present state.
    #[error("{0}")]
    Conflict(String),
    /// The request itself is wrong; the lines say how.
    #[error("{error}")]
    Bad {
        /// In one line.
        error: String,
        /// One line for each thing wrong.
        details: Vec<String>,
    },
    /// It is somebody else's.
    #[error("{0}")]
    Forbidden(String),
    /// The event log cannot be written.
    #[error("nothing can be changed now: {0}")]
    ReadOnly(String),
    /// Still finding out what survived.
    #[error("still recovering, try again")]
    Recovering,
    /// Too many asks are waiting.
    #[error("too many requests are waiting, try again")]
    Busy,
    /// The supervisor is going away.
    #[error("the supervisor is ending")]
    Gone,
    /// Something else, in words.
    #[error("{0}")]
    Internal(String),
}

/// Where an answer goes.
pub type Answer<T> = oneshot::Sender<Result<T, AskError>>;

/// A change somebody asks for.
#[derive(Debug)]
pub enum Ask {
    /// Start these jobs.
    Start {
        /// Resolved names.
        jobs: Vec<JobName>,
        /// Also where a circuit is open.
        force: bool,
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<ActReply>,
    },
    /// Stop these jobs.
    Stop {
        /// Resolved names.
        jobs: Vec<JobName>,
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<ActReply>,
    },
    /// Restart these jobs.
    Restart {
        /// Resolved names.
        jobs: Vec<JobName>,
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<ActReply>,
    },
    /// Signal these jobs.
    Signal {
        /// Resolved names.
        jobs: Vec<JobName>,
        /// Signal number.
        signal: i32,
        /// Whom it reaches; `None`: the main process, or what the job's own scope says.
        scope: Option<KillScope>,
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<ActReply>,
    },
    /// Submit a job.
    Run {
        /// What.
        request: Box<RunRequest>,
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<RunReply>,
    },
    /// Give no turns in a queue, or give them again.
    PauseQueue {
        /// Which.
        queue: QueueName,
        /// Whether they are given again.
        resume: bool,
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<PauseReply>,
    },
    /// Move jobs that wait for their turn.
    Move {
        /// Resolved names.
        jobs: Vec<JobName>,
        /// Where.
        request: Box<MoveRequest>,
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<ActReply>,
    },
    /// Write to a job's stdin.
    Stdin {
        /// Which job.
        job: JobName,
        /// What.
        data: Vec<u8>,
        /// Whether to close it afterwards.
        close: bool,
        /// Answer.
        reply: Answer<StdinReply>,
    },
    /// Read the configuration again, and apply or only plan it.
    Reload {
        /// Only plan.
        plan: bool,
        /// Who; `None`: a signal asked.
        peer: Option<Peer>,
        /// Answer.
        reply: Answer<ReloadReply>,
    },
    /// A run says something about itself.
    Publish {
        /// Which.
        run: RunId,
        /// What.
        said: Said,
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<PublishReply>,
    },
    /// Start these jobs, and stop them again if one does not come up.
    StartOrRollBack {
        /// Resolved names.
        jobs: Vec<JobName>,
        /// How long it may take.
        within: Millis,
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<ActReply>,
    },
    /// Read the configuration again and apply it, and put the old one back if a job does not come up.
    ReloadOrRollBack {
        /// How long it may take.
        within: Millis,
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<ReloadReply>,
    },
    /// Look again at what there is, and do what follows from it, or only say it.
    Recover {
        /// Only say it.
        dry_run: bool,
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<RunsReport>,
    },
    /// End recovery mode.
    LeaveRecovery {
        /// Who.
        peer: Peer,
        /// Answer.
        reply: Answer<ActReply>,
    },
    /// Read all files of the event log, and put in order what can be.
    Scrub {
        /// Answer.
        reply: Answer<ScrubReply>,
    },
    /// End the instance. Answered when the shutdown has begun.
    Shutdown {
        /// Leave the jobs running.
        keep_jobs: bool,
        /// Who; `None`: a signal asked.
        peer: Option<Peer>,
        /// Answer.
        reply: Answer<()>,
    },
}

/// A phase of the start is to be left out. Apart from other asks, because it is heard from the beginning.
#[derive(Debug)]
pub struct Skip {
    /// Its name.
    pub phase: String,
    /// Who.
    pub peer: Peer,
    /// Answer.
    pub reply: Answer<()>,
}

/// The control socket's end.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Asks for the main loop.
    pub asks: mpsc::Sender<Ask>,
    /// Phases to be left out.
    pub skips: mpsc::Sender<Skip>,
    /// How far the start is, and what came of it.
    pub start: watch::Receiver<Arc<StartReport>>,
    /// The latest view.
    pub view: watch::Receiver<Arc<View>>,
    /// State directory: runs, output and the event log are read from there.
    pub state_dir: PathBuf,
}

impl Handle {
    /// The directory of a run.
    #[must_use]
    pub fn run_dir(&self, run: RunId) -> PathBuf {
        self.state_dir.join("runs").join(run.to_string())
    }
}
