//! Jobs that are submitted, and what is asked of queues.

use super::asks::{Reply, act_reply, operator};
use super::handle::{Answer, AskError, Peer};
use super::main_loop::{Supervisor, Turn};
use crate::core::ids::{JobName, QueueName};
use crate::core::input::Input;
use crate::core::job::Phase;
use crate::core::queue::{Entry, Shift};
use crate::core::spec::{JobSpec, Kind, Restart, Stdin};
use crate::core::time::Millis;
use crate::wire::control::{ActReply, RunReply, RunRequest};
use crate::wire::queue::{MoveRequest, PauseReply, PlaceView, QueueView};

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 1024;

fn bad(error: impl Into<String>) -> AskError {
    AskError::Bad { error: error.into(), details: Vec::new() }
}

/// A moment in words of RFC 3339, in microseconds of the wall clock.
fn moment(text: &str) -> Result<i64, AskError> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|at| at.timestamp_micros())
        .map_err(|error| bad(format!("{text:?} is no moment in the form of RFC 3339: {error}")))
}

impl Supervisor {
    pub(super) fn submit(
        &mut self,
        request: RunRequest,
        peer: Peer,
        reply: Answer<RunReply>,
        turn: &mut Turn,
    ) {
        let answer = self.refused_now().unwrap_or_else(|| self.submitted(request, peer, turn));
        turn.replies.push(Reply::Run(reply, answer));
    }

    fn submitted(&mut self, request: RunRequest, peer: Peer, turn: &mut Turn) -> Result<RunReply, AskError> {
        let not_before_us = request.not_before.as_deref().map(moment).transpose()?;
        let entry = Entry { held: request.hold, not_before_us };
        let verb = if request.queue.is_some() { "submit" } else { "run" };
        if request.queue.is_none() && (entry != Entry::default() || request.priority != 0) {
            return Err(bad("hold, not_before and priority mean nothing without a queue"));
        }
        if let Some(queue) = request.queue.as_ref().filter(|queue| !self.has_queue(queue)) {
            return Err(bad(self.no_queue(queue)));
        }
        if let Some(name) = self.known_by_key(&request)? {
            return Ok(RunReply { name, existing: true });
        }
        let spec = Box::new(self.spec_of(request)?);
        let name = spec.name.clone();
        let decision = self.decide(&Input::Submitted { spec, entry, by: operator(peer, verb) }, turn);
        match decision.answers.into_iter().find(|answer| !answer.ok) {
            Some(refused) => Err(AskError::Conflict(refused.text)),
            None => Ok(RunReply { name, existing: false }),
        }
    }

    fn has_queue(&self, queue: &QueueName) -> bool {
        self.state.queues.settings.slots.contains_key(queue)
    }

    fn no_queue(&self, queue: &QueueName) -> String {
        let all: Vec<&str> = self.state.queues.settings.slots.keys().map(QueueName::as_str).collect();
        format!("there is no queue {:?}; there are: {}", queue.as_str(), all.join(", "))
    }

    /// The job that was submitted with the same key.
    fn known_by_key(&self, request: &RunRequest) -> Result<Option<JobName>, AskError> {
        let Some(key) = &request.key else { return Ok(None) };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(bad(format!("a key has 1 to {KEY_BYTES_MAX} bytes")));
        }
        let same = |name: &JobName| {
            self.state.spec(name).is_some_and(|spec| spec.key.as_deref() == Some(key.as_str()))
        };
        if let Some(name) = &request.name {
            return Ok(Some(name.clone()).filter(same));
        }
        let known =
            by_key(&request.command, key).take_while(|name| self.state.job(name).is_some()).find(same);
        Ok(known)
    }

    fn spec_of(&mut self, request: RunRequest) -> Result<JobSpec, AskError> {
        if request.command.first().is_none_or(String::is_empty) {
            return Err(bad("the command is empty"));
        }
        let text = request.command.iter().chain(request.cwd.iter()).chain(request.env.values());
        if text.chain(request.env.keys()).any(|text| text.contains('\0')) {
            return Err(bad("a NUL byte cannot be passed to a program"));
        }
        if request.env.keys().any(|name| name.is_empty() || name.contains('=')) {
            return Err(bad("the name of a variable is empty or contains `=`"));
        }
        if request.cwd.as_ref().is_some_and(|cwd| !cwd.starts_with('/')) {
            return Err(bad("cwd must be an absolute path"));
        }
        if let Some(unknown) = request.after.iter().find(|name| self.state.job(name).is_none()) {
            return Err(bad(format!("after: there is no job {:?}", unknown.as_str())));
        }
        let name = match (request.name, &request.key) {
            (Some(name), _) if name.as_str().contains(':') => {
                return Err(bad("the name of a submitted job has no `:`"));
            }
            (Some(name), _) => name,
            (None, Some(key)) => {
                let free = by_key(&request.command, key).find(|name| self.state.job(name).is_none());
                free.unwrap_or_else(|| unreachable!("there are more numbers than jobs"))
            }
            (None, None) => self.free_name(&request.command),
        };
        let mut spec = JobSpec::new(name, request.command);
        spec.kind = request.kind.unwrap_or(Kind::Task);
        let retries = request.retries.filter(|retries| *retries > 0);
        spec.restart = request.restart.unwrap_or(match (spec.kind, retries) {
            (Kind::Service, _) => Restart::Always,
            (Kind::Task, Some(_)) => Restart::OnFailure,
            (Kind::Task, None) => Restart::Never,
        });
        if retries.is_some() {
            // The number of tries is what limits them.
            spec.start_limit.count = 0;
        }
        spec.retries = retries;
        spec.cwd = request.cwd;
        spec.env = request.env;
        spec.queue = request.queue;
        spec.priority = request.priority;
        spec.key = request.key.map(String::into_boxed_str);
        spec.depends_on = request.after;
        if let Some(ms) = request.timeout_ms {
            spec.watch.get_or_insert_default().max_runtime = Some(Millis(ms));
        }
        if request.stdin {
            spec.stdin = Stdin::Keep;
        }
        Ok(spec)
    }

    /// `sleep-1`, `sleep-2`, …: after the program, with a number nobody has. Numbers are not looked through anew for
    /// each of very many jobs.
    fn free_name(&mut self, command: &[String]) -> JobName {
        let base = base_of(command);
        let from = self.names.get(&base).copied().unwrap_or(1);
        let free = (from..).find_map(|n| {
            let name = JobName::new(format!("{base}-{n}")).ok()?;
            self.state.job(&name).is_none().then_some((n, name))
        });
        let Some((n, name)) = free else { unreachable!("there are more numbers than jobs") };
        self.names.insert(base, n);
        name
    }

    pub(super) fn pause_queue(
        &mut self,
        (queue, resume): (&QueueName, bool),
        peer: Peer,
        reply: Answer<PauseReply>,
        turn: &mut Turn,
    ) {
        let answer = self.refused_now().unwrap_or_else(|| {
            if !self.state.queues.names().contains(queue) {
                return Err(AskError::NotFound(self.no_queue(queue)));
            }
            let paused = self.state.queues.paused.contains(queue);
            let by = operator(peer, if resume { "queue resume" } else { "queue pause" });
            self.decide(&Input::PauseQueue { queue: queue.clone(), resume, by }, turn);
            self.queues_changed();
            Ok(PauseReply { paused: !resume, changed: paused == resume })
        });
        turn.replies.push(Reply::Pause(reply, answer));
    }

    pub(super) fn move_jobs(
        &mut self,
        jobs: Vec<JobName>,
        request: &MoveRequest,
        peer: Peer,
        reply: Answer<ActReply>,
        turn: &mut Turn,
    ) {
        let answer = self.refused_now().unwrap_or_else(|| {
            let shift = self.shift(request)?;
            Ok(act_reply(self.decide(&Input::Move { jobs, shift, by: operator(peer, "move") }, turn)))
        });
        turn.replies.push(Reply::Act(reply, answer));
    }

    fn shift(&self, request: &MoveRequest) -> Result<Shift, AskError> {
        if let Some(queue) = request.queue.as_ref().filter(|queue| !self.has_queue(queue)) {
            return Err(bad(self.no_queue(queue)));
        }
        if request.first && request.last {
            return Err(bad("it cannot be the first and the last"));
        }
        Ok(Shift {
            queue: request.queue.clone(),
            priority: request.priority,
            hold: request.hold,
            not_before_us: request.not_before.as_deref().map(moment).transpose()?,
            first: request.first,
            last: request.last,
        })
    }

    /// What is said of those who wait has changed.
    pub(super) fn queues_changed(&mut self) {
        let queued = self.state.awake().filter(|(_, job)| job.phase == Phase::Queued);
        self.dirty.extend(queued.map(|(name, _)| name.clone()));
    }

    /// The queues, for readers.
    pub(super) fn queue_views(&self) -> Vec<QueueView> {
        let queues = &self.state.queues;
        let view = |name: QueueName| QueueView {
            slots: queues.settings.slots.get(&name).copied(),
            running: queues.busy(&name),
            waiting: queues.waiting(&name),
            paused: queues.paused.contains(&name),
            name,
        };
        queues.names().into_iter().map(view).collect()
    }
}

/// A place, for readers.
pub(super) fn place_view(place: &crate::core::queue::Place) -> PlaceView {
    PlaceView {
        queue: place.queue.clone(),
        priority: place.priority,
        number: place.number,
        held: place.held,
        not_before: place.not_before.map(crate::core::time::Stamp::rfc3339),
    }
}

/// The name of a program as the beginning of the name of a job.
fn base_of(command: &[String]) -> String {
    let program = command.first().map_or("job", String::as_str).rsplit('/').next().unwrap_or("job");
    let clean: String =
        program.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(64).collect();
    let base = clean.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if base.is_empty() { "job".to_owned() } else { base.to_owned() }
}

/// The names a job with this key may have: the first unless another key has the same number.
fn by_key(command: &[String], key: &str) -> impl Iterator<Item = JobName> {
    // 64-bit FNV-1a; it tells keys apart, it keeps nobody out.
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let base = format!("{}-{hash:016x}", base_of(command));
    (1_u64..)
        .filter_map(move |n| JobName::new(if n == 1 { base.clone() } else { format!("{base}-{n}") }).ok())
}
