//! One point: an instance, a request or an exit, a kill before the N-th system call, and the account of
//! what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::common::{Daemon, Gate, http, job, procs};
use super::trace::{Count, Over, Tracer};

/// Longest wait until all is well after a kill.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// The code that the job ends with.
const CODE: i64 = 7;

/// What is going on while somebody is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// From the request of a start to its record.
    Start,
    /// From the exit of the main process to the record of its outcome.
    End,
    /// From the exit to the record of the start of the next run.
    Restart,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Supervisor,
    Keeper,
    /// The child of a start, before its `execve`.
    Child,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Keeper => "keeper",
            Self::Child => "child",
        }
    }

    /// The process that is traced.
    fn traced(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Keeper | Self::Child => "keeper",
        }
    }
}

/// What became of the start, or of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Course {
    /// The run that was asked for first lives; an end is as told, and nothing follows.
    Straight,
    /// A first run never ran, and another followed.
    Again,
    /// The request was not heard, and had to be repeated.
    Unheard,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A run started twice, or two at once.
    Duplicate,
    /// An outcome that nobody knows, or that is not the one told.
    Lost,
    /// Anything else.
    Wrong,
}

/// The account of one point.
#[derive(Debug)]
pub struct Report {
    /// `None`: everything was done before the N-th system call.
    pub killed_before: Option<u64>,
    pub course: Course,
    pub faults: Vec<(Fault, String)>,
}

/// An instance with one job.
pub struct Bench {
    daemon: Daemon,
    gate: Gate,
    phase: Phase,
    /// Deaths of roles so far: each makes the next restart of a role slower.
    pub deaths: u32,
}

impl Bench {
    pub fn new(phase: Phase) -> Self {
        let script = "lock @dir@/w.lock mark @dir@/marks gate @dir@/gate print {run} exit 7";
        let restart = if phase == Phase::End { "never" } else { "always" };
        let policy = format!(
            "autostart = false\nrestart = {restart:?}\nbackoff = {{ initial = \"1ms\", max = \"5ms\" }}\n\
             start_limit = {{ count = 0 }}\n"
        );
        let mut daemon = Daemon::prepare(&job("w", script, &policy));
        daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "0".to_owned()));
        let gate = daemon.gate("gate");
        daemon.up();
        Self { daemon, gate, phase, deaths: 0 }
    }

    /// Does what the phase is about, killing `role` before its N-th system call.
    pub fn point(&mut self, role: Role, n: u64, rest: Duration) -> Result<Report, String> {
        let old = self.prepare()?;
        let mark = self.daemon.events().last().map_or(0, |event| event["seq"].as_u64().unwrap_or(0));
        let pid = self.daemon.role(role.traced());
        let count = if role == Role::Child { Count::Child } else { Count::Own };
        let mut tracer = Tracer::seize(pid, count).map_err(|e| format!("cannot trace {pid}: {e}"))?;
        tracer.quiet(Duration::from_millis(15))?;
        let request = self.trigger()?;
        let over = {
            let this = &*self;
            tracer.run_to(n, rest, || this.is_recorded(mark, old.as_deref()))?
        };
        let (killed_before, gone) = match over {
            Over::Done => {
                drop(tracer);
                (None, None)
            }
            Over::Reached(tid, number) => {
                tracer.kill(if role == Role::Child { tid } else { pid })?;
                if role == Role::Child {
                    (Some(number), None)
                } else {
                    self.deaths += 1;
                    (Some(number), Some(pid))
                }
            }
        };
        let heard = request.map(acknowledged);
        let unheard = self.settle(role, gone, heard, old.as_deref())?;
        self.account(mark, old.as_deref(), (killed_before, unheard, role))
    }

    /// Brings the job to where the phase begins. The run that is to end, if one is.
    fn prepare(&mut self) -> Result<Option<String>, String> {
        let job = self.daemon.job("w");
        match self.phase {
            Phase::Start => {
                if job["want"] == "up" {
                    self.ask("stop")?;
                }
                self.wait("stopped", |job| job["pid"].is_null() && job["state"] == "stopped")?;
                Ok(None)
            }
            Phase::End | Phase::Restart => {
                if job["state"] != "running" {
                    self.ask("start")?;
                }
                let job = self.wait("running", |job| job["state"] == "running" && job["pid"].is_i64())?;
                let run = text(&job["run"]);
                self.look("its mark", || (self.marks().get(&run) == Some(&1)).then_some(()))?;
                Ok(Some(run))
            }
        }
    }

    fn trigger(&mut self) -> Result<Option<UnixStream>, String> {
        if self.phase != Phase::Start {
            self.gate.release();
            return Ok(None);
        }
        let mut stream = http::connect(&self.daemon.socket()).map_err(|e| e.to_string())?;
        let request = "POST /v1/jobs/w/start HTTP/1.1\r\nHost: outlive\r\nConnection: close\r\n\
                       Content-Length: 0\r\n\r\n";
        stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
        Ok(Some(stream))
    }

    /// Whether the event log has what the phase ends with.
    fn is_recorded(&self, mark: u64, old: Option<&str>) -> bool {
        let since = |kind: &str| {
            let events = self.daemon.events_of(kind, "w");
            events.into_iter().filter(move |e| e["seq"].as_u64().unwrap_or(0) > mark)
        };
        let ended = || since("run.ended").any(|e| e["record"]["run"].as_str() == old);
        let started = || since("run.started").next().is_some();
        match self.phase {
            Phase::Start => started(),
            Phase::End => ended(),
            Phase::Restart => ended() && started(),
        }
    }

    /// Waits until all is well. True if the request had to be repeated.
    fn settle(
        &self,
        role: Role,
        gone: Option<i32>,
        heard: Option<bool>,
        old: Option<&str>,
    ) -> Result<bool, String> {
        self.look("instance that is ready", || {
            let status = self.daemon.try_status()?;
            let now = status["instance"]["roles"][role.traced()]["pid"].as_i64()?;
            if gone.is_some_and(|gone| i64::from(gone) == now) {
                return None;
            }
            self.daemon.get("/v1/ready").filter(|reply| reply.code == 200).map(drop)
        })?;
        let mut unheard = false;
        if heard == Some(false) && self.daemon.job("w")["want"] != "up" {
            unheard = true;
            self.ask("start")?;
        }
        match self.phase {
            Phase::End => self.wait("exited", |job| job["state"] == "exited" && job["pid"].is_null())?,
            // A run that was killed before its program may count as running for a moment: only what has
            // marked its start does run.
            Phase::Start | Phase::Restart => self.wait("running", |job| {
                job["state"] == "running"
                    && job["pid"].is_i64()
                    && job["run"].as_str() != old
                    && self.marks().contains_key(&text(&job["run"]))
            })?,
        };
        Ok(unheard)
    }

    /// Holds the event log, the job's own marks, the processes and the files against each other.
    fn account(
        &self,
        mark: u64,
        old: Option<&str>,
        (killed_before, unheard, role): (Option<u64>, bool, Role),
    ) -> Result<Report, String> {
        let job = self.daemon.job("w");
        let live: BTreeSet<String> =
            if job["pid"].is_i64() { BTreeSet::from([text(&job["run"])]) } else { BTreeSet::new() };
        let mut faults = Vec::new();
        let processes = self.look_long(|| self.live_processes() == live);
        if !processes {
            faults.push((
                Fault::Duplicate,
                format!("processes of {:?}, wanted {live:?}", self.live_processes()),
            ));
        }
        if !self.daemon.read("w.lock.overlap").is_empty() {
            faults.push((Fault::Duplicate, "two runs at once".to_owned()));
        }
        if !self.look_long(|| self.directories() == live) {
            let left = self.directories();
            faults.push((Fault::Wrong, format!("runtime directories {left:?}, wanted {live:?}")));
        }
        let events: Vec<Value> =
            self.daemon.events().into_iter().filter(|e| e["seq"].as_u64().unwrap_or(0) > mark).collect();
        let requested: Vec<String> =
            events.iter().filter(|e| e["k"] == "run.requested").map(|e| text(&e["run"])).collect();
        self.check_runs(&requested, &live, &mut faults);
        for run in requested.iter().filter(|run| !live.contains(*run)) {
            self.check_never_ran(run, &events, role, &mut faults);
        }
        if let Some(old) = old {
            self.check_old(old, &events, &mut faults);
        }
        if events.iter().any(|e| e["k"] == "run.orphan") {
            faults.push((Fault::Wrong, "a run of nobody".to_owned()));
        }
        for run in &live {
            let told = events.iter().any(|e| {
                (e["k"] == "run.started" || e["k"] == "run.adopted") && e["run"].as_str() == Some(run)
            });
            if !told {
                faults.push((Fault::Wrong, format!("the start of {run} is not recorded")));
            }
        }
        let wanted = usize::from(self.phase != Phase::End);
        let course = match (unheard, requested.len()) {
            (true, _) => Course::Unheard,
            (false, n) if n > wanted => Course::Again,
            (false, _) => Course::Straight,
        };
        Ok(Report { killed_before, course, faults })
    }

    /// Every run was asked for once and started at most once; what lives was asked for.
    fn check_runs(&self, requested: &[String], live: &BTreeSet<String>, faults: &mut Vec<(Fault, String)>) {
        let distinct: BTreeSet<&String> = requested.iter().collect();
        if distinct.len() != requested.len() {
            faults.push((Fault::Duplicate, format!("asked for twice: {requested:?}")));
        }
        if !live.iter().all(|run| distinct.contains(run)) {
            faults.push((Fault::Duplicate, format!("lives and was not asked for: {live:?}")));
        }
        for (run, times) in self.marks() {
            if times != 1 {
                faults.push((Fault::Duplicate, format!("{run} started {times} times")));
            }
        }
    }

    /// A run that was asked for and does not live has one end, which says that it never ran.
    fn check_never_ran(&self, run: &str, events: &[Value], role: Role, faults: &mut Vec<(Fault, String)>) {
        let ends = ends_of(run, events);
        let [record] = ends.as_slice() else {
            return faults.push((Fault::Lost, format!("{} ends of {run}: {ends:?}", ends.len())));
        };
        let outcome = &record["outcome"];
        let never = outcome["kind"] == "cancelled" || outcome["kind"] == "not_started";
        // After its claim a child is the run: how the kernel says it ended is how it ended.
        let killed = role == Role::Child && outcome["kind"] == "signaled" && outcome["signal"] == 9;
        if !never && !killed {
            faults.push((Fault::Lost, format!("{run} ended with {outcome}")));
        }
        if self.marks().contains_key(run) {
            faults.push((Fault::Duplicate, format!("{run} did run: {outcome}")));
        }
    }

    /// The run that was told to end has one end, the one it was told, and all of its output.
    fn check_old(&self, run: &str, events: &[Value], faults: &mut Vec<(Fault, String)>) {
        let ends = ends_of(run, events);
        match ends.as_slice() {
            [record] if record["outcome"]["kind"] == "exited" && record["outcome"]["code"] == CODE => {}
            _ => faults.push((Fault::Lost, format!("{} ends of {run}: {ends:?}", ends.len()))),
        }
        let path = format!("/v1/jobs/w/output?run={run}");
        let said = self.daemon.get(&path).map(|reply| (reply.code, reply.text()));
        if said != Some((200, run.to_owned())) {
            faults.push((Fault::Wrong, format!("output of {run}: {said:?}")));
        }
    }

    fn ask(&self, verb: &str) -> Result<(), String> {
        let path = format!("/v1/jobs/w/{verb}");
        self.look(verb, || {
            let reply = http::request(&self.daemon.socket(), "POST", &path, Some(b"")).ok()?;
            (reply.code == 200).then_some(())
        })
    }

    fn wait(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value, String> {
        self.look(&format!("job that is {what}"), || {
            let status = self.daemon.try_status()?;
            let job = status["jobs"].as_array()?.iter().find(|job| job["name"] == "w")?;
            condition(job).then(|| job.clone())
        })
    }

    fn look<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if Instant::now() > end {
                return Err(format!("no {what} in {PATIENCE:?}: {}", self.explain()));
            }
            procs::moment(LOOK_EVERY);
        }
    }

    /// Whether something comes true.
    fn look_long(&self, condition: impl Fn() -> bool) -> bool {
        self.look("such state", || condition().then_some(())).is_ok()
    }

    /// What can be said about an instance in which something is wrong.
    pub fn explain(&self) -> String {
        let events: Vec<String> =
            self.daemon.events().iter().rev().take(14).rev().map(Value::to_string).collect();
        let status = self.daemon.try_status().map_or(Value::Null, |status| status["jobs"][0].clone());
        let said = super::common::tail(&self.daemon.read("up.log"), 12);
        let processes = self.daemon.processes();
        format!("job {status}\nprocesses {processes:?}\nevents\n{}\nsaid\n{said}\n", events.join("\n"))
    }

    /// How often each run marked its start.
    fn marks(&self) -> BTreeMap<String, u32> {
        let mut marks = BTreeMap::new();
        for line in self.daemon.read("marks").lines() {
            *marks.entry(line.split(' ').nth(2).unwrap_or_default().to_owned()).or_insert(0) += 1;
        }
        marks
    }

    fn live_processes(&self) -> BTreeSet<String> {
        let runs = self.daemon.processes().into_iter().filter_map(|process| match process.part {
            procs::Part::Run(run) => Some(run),
            _ => None,
        });
        runs.collect()
    }

    fn directories(&self) -> BTreeSet<String> {
        let dir = fs::read_dir(self.daemon.runtime_dir().join("runs"));
        let names = dir.map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        });
        names.unwrap_or_default()
    }
}

/// Whether the request on this connection was answered with success.
fn acknowledged(mut stream: UnixStream) -> bool {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    read.is_ok() && http::parse(&answer).is_ok_and(|reply| reply.code == 200)
}

fn ends_of(run: &str, events: &[Value]) -> Vec<Value> {
    let ends = events.iter().filter(|e| e["k"] == "run.ended" && e["record"]["run"].as_str() == Some(run));
    ends.map(|e| e["record"].clone()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
