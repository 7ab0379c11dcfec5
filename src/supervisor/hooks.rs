//! Hooks: commands around the runs of a job. See [`crate::core::hook`] for what is promised.
//!
//! Each is in the hands of a helper, see [`commands`]. A launch waits here for its `before_start`; what becomes of it is
//! known to nobody else, so a survey leaves these runs alone. As long as we live, no hook of a run that is waited
//! for begins twice: what it came to while nothing could be done about it is told when that is over. After our death
//! the next supervisor asks for the same `before_stop`, and is told how that one ended; it has another run for the job,
//! whose `before_start` begins when that of the run before has been ended.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;

use tokio::sync::mpsc;

use super::commands::{self, Wrong};
use super::main_loop::{Supervisor, Turn};
use crate::core::Decision;
use crate::core::event::Event;
use crate::core::hook::When;
use crate::core::ids::{JobName, RunId};
use crate::core::input::Input;
use crate::core::job::Phase;
use crate::core::outcome::Outcome;
use crate::core::spec::JobSpec;

/// Stack of a thread that starts a command and waits for it.
const STACK: usize = 128 * 1024;

/// A hook that was waited for has ended.
#[derive(Debug)]
pub(super) struct Ended {
    run: RunId,
    when: When,
    result: Result<(), Wrong>,
}

/// Launches and stops that wait for their hook.
#[derive(Debug)]
pub(super) struct Hooks {
    starting: BTreeMap<RunId, Starting>,
    /// Runs whose `before_stop` has begun, and whether it has ended.
    stopping: BTreeMap<RunId, bool>,
    /// Ends that nothing could be done about yet.
    late: Vec<Ended>,
    /// The last line of the `before_start` for which a job has no run. It is not for the event log: who knows what it is.
    pub(super) said: BTreeMap<JobName, String>,
    tell: mpsc::Sender<Ended>,
}

#[derive(Debug)]
struct Starting {
    attempt: u64,
    spec: Box<JobSpec>,
    /// Gone: nobody waits for it any more.
    _wanted: Option<UnixStream>,
}

/// What a hook is told about.
#[derive(Debug)]
pub(super) struct About {
    pub(super) when: When,
    pub(super) job: JobName,
    pub(super) run: Option<RunId>,
    pub(super) pid: Option<i32>,
    pub(super) outcome: Option<Outcome>,
}

impl Hooks {
    pub(super) fn new() -> (Self, mpsc::Receiver<Ended>) {
        let (tell, ended) = mpsc::channel(64);
        let (starting, stopping) = (BTreeMap::new(), BTreeMap::new());
        (Self { starting, stopping, late: Vec::new(), said: BTreeMap::new(), tell }, ended)
    }

    /// Whether the launch of this run waits here.
    pub(super) fn holds(&self, run: RunId) -> bool {
        self.starting.contains_key(&run)
    }

    /// The runs whose launch waits here.
    pub(super) fn starting(&self) -> BTreeSet<RunId> {
        self.starting.keys().copied().collect()
    }
}

impl Supervisor {
    /// Has the `before_start` of a run run, if there is one; the launch follows when that has succeeded.
    pub(super) fn hook_before_launch(&mut self, run: RunId, attempt: u64, spec: &JobSpec) -> bool {
        if spec.hook(When::BeforeStart).is_none() {
            return false;
        }
        // Without it the hook is merely not ended before its time.
        let (wanted, told) = UnixStream::pair().ok().unzip();
        let starting = Starting { attempt, spec: Box::new(spec.clone()), _wanted: wanted };
        self.hooks.starting.insert(run, starting);
        let about = About {
            when: When::BeforeStart,
            job: spec.name.clone(),
            run: Some(run),
            pid: None,
            outcome: None,
        };
        if let Err(error) = self.run_hook(&about, spec, told) {
            self.hooks.starting.remove(&run);
            let errno = error.raw_os_error().unwrap_or_default();
            self.never_launched(run, Outcome::NotStarted { step: "before_start hook".to_owned(), errno });
        }
        true
    }

    /// Starts a hook that is not part of a launch. The ladder has a time limit of its own for its hook.
    pub(super) fn hook(&mut self, about: &About, spec: &JobSpec) {
        let stopped = about.run.filter(|_| about.when == When::BeforeStop);
        if let Some(run) = stopped
            && let Some(ended) = self.hooks.stopping.get(&run)
        {
            // A survey has asked for it once more.
            let again = Ended { run, when: When::BeforeStop, result: Ok(()) };
            self.hooks.late.extend(ended.then_some(again));
            return;
        }
        match self.run_hook(about, spec, None) {
            Ok(()) => {
                let lives = stopped.filter(|run| self.state.job_of(*run).is_some());
                self.hooks.stopping.extend(lives.map(|run| (run, false)));
            }
            Err(error) => {
                tracing::error!(job = %about.job, hook = about.when.as_str(), %error, "a hook cannot be run");
            }
        }
    }

    /// Starts a hook, with a thread of its own that waits for its end. `wanted`: see [`commands::Helped::live`].
    fn run_hook(&self, about: &About, spec: &JobSpec, wanted: Option<UnixStream>) -> std::io::Result<()> {
        let Some(hook) = spec.hook(about.when) else { return Ok(()) };
        let ids = (about.run, about.pid);
        let mut environment = commands::environment(spec, ids, &self.socket, "hook");
        let mut tell = |name: &str, value: String| environment.push((name.into(), value.into()));
        tell("OUTLIVE_HOOK", about.when.as_str().to_owned());
        if let Some(outcome) = &about.outcome {
            tell("OUTLIVE_OUTCOME", outcome.describe());
            tell("OUTLIVE_EXIT_CODE", outcome.shell_code().to_string());
        }
        if matches!(about.when, When::OnFrozen | When::OnFatal) {
            tell("OUTLIVE_WHY", self.state.reason(&about.job));
        }
        // Whose end is waited for is asked for once more by the next supervisor.
        let waited_for = matches!(about.when, When::BeforeStart | When::BeforeStop);
        let run = about.run.unwrap_or(RunId::from_bytes([0; 16]));
        let once = waited_for.then(|| (about.when.as_str(), run.to_string()));
        let helped = self.helped(spec, (&hook.command, hook.timeout), environment, once)?;
        let (job, when) = (about.job.clone(), about.when);
        let tell = waited_for.then(|| self.hooks.tell.clone());
        let end = move |result: Result<(), Wrong>| {
            if let Err(wrong) = &result {
                let why = wrong.in_full();
                tracing::warn!(%job, %run, hook = when.as_str(), why, "a hook failed");
            }
            Ended { run, when, result }
        };
        let waiting = std::thread::Builder::new().name("hook".to_owned()).stack_size(STACK);
        let spawned = waiting.spawn(move || {
            let ended = end(helped.live(wanted.as_ref()));
            if let Some(tell) = tell {
                let _ = tell.blocking_send(ended);
            }
        });
        spawned.map(drop)
    }

    /// A hook that was waited for has ended.
    pub(super) fn hook_ended(&mut self, ended: Ended, turn: &mut Turn) {
        let Ended { run, when, result } = ended;
        if when == When::BeforeStop {
            if let Some(ended) = self.hooks.stopping.get_mut(&run) {
                *ended = true;
            }
            self.observe(&Input::HookEnded { run }, turn);
            return;
        }
        // While nothing can be recorded, or a survey is due, nothing is started.
        if !self.may_judge() {
            self.hooks.late.push(Ended { run, when, result });
            return;
        }
        let Some(Starting { attempt, spec, .. }) = self.hooks.starting.remove(&run) else { return };
        let wanted = self.state.job(&spec.name).is_some_and(|job| job.phase == Phase::Starting { run });
        match result {
            _ if !wanted => self.never_launched(run, Outcome::Cancelled),
            Ok(()) => self.launch_now(run, attempt, &spec),
            Err(Wrong { why, said }) => {
                self.hooks.said.extend(said.map(|said| (spec.name.clone(), said)));
                let step = format!("{} hook: {why}", when.as_str());
                self.never_launched(run, Outcome::NotStarted { step, errno: 0 });
            }
        }
    }

    /// Whether there are ends of hooks about which something can be done now.
    pub(super) fn has_late_hooks(&self) -> bool {
        self.may_judge() && !self.hooks.late.is_empty()
    }

    /// Does about them what could not be done before.
    pub(super) fn late_hooks(&mut self, turn: &mut Turn) {
        for ended in std::mem::take(&mut self.hooks.late) {
            self.hook_ended(ended, turn);
        }
    }

    fn never_launched(&mut self, run: RunId, outcome: Outcome) {
        self.pace.answered(run);
        self.refused.push((run, outcome));
    }

    /// A run that is stopped while its launch waits never ran; its hook is ended. What is over has no hooks to wait
    /// for.
    pub(super) fn call_off_hooks(&mut self, decision: &Decision) {
        for event in &decision.events {
            match event {
                Event::StopBegun { run, .. } if self.hooks.starting.remove(run).is_some() => {
                    self.never_launched(*run, Outcome::Cancelled);
                }
                Event::RunRequested { job, .. } | Event::JobRemoved { job } => {
                    drop(self.hooks.said.remove(job))
                }
                Event::RunEnded { record, .. } => {
                    self.hooks.starting.remove(&record.run);
                    self.hooks.stopping.remove(&record.run);
                }
                _ => {}
            }
        }
    }
}
