//! What an instance has promised: requests whose answers are kept, and what has to hold afterwards.
//!
//! An answer is a promise, whatever is killed or cut off behind it. A request that nobody answered may have
//! been heard or not, and is asked again before the next round, so that everything is sure again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::random::Random;
use super::{Daemon, PATIENCE, http, job, misbehave, procs};

/// Jobs that are started, stopped and restarted.
const JOBS: [&str; 4] = ["a", "b", "c", "d"];
/// Jobs that come and go with the configuration.
const COMING: [&str; 3] = ["x", "y", "z"];

/// Nobody answers.
#[derive(Debug)]
pub struct Gone;

/// A submitted task.
#[derive(Debug, Clone)]
struct Task {
    code: i64,
    /// Whether it was answered.
    sure: bool,
    /// The outcome that was seen.
    seen: Option<Value>,
}

/// Everything that was answered.
#[derive(Debug, Default)]
pub struct Ledger {
    wants: BTreeMap<&'static str, bool>,
    /// Jobs with a request that nobody answered.
    unsure: BTreeSet<&'static str>,
    /// Runs that an answered restart has to end.
    replaced: BTreeMap<&'static str, String>,
    /// Tasks since all was well the last time, and all before: those are over.
    tasks: BTreeMap<String, Task>,
    over: BTreeMap<String, Task>,
    /// The last entry of the event log when all was well the last time.
    settled: u64,
    /// Bytes of the tasks' marks then.
    marked: usize,
    /// Configured among those that come and go; and what the file says, if that was not answered.
    coming: BTreeSet<&'static str>,
    unsure_coming: Option<BTreeSet<&'static str>>,
    /// Other configuration, put before all.
    base: String,
    /// How long all may take to be well.
    pub patience: Duration,
    /// Answers so far.
    pub answers: u64,
    /// Requests without an answer.
    pub unanswered: u64,
    next: u64,
}

/// What a check may leave open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excuse {
    /// Nothing.
    None,
    /// Outcomes of runs, because everybody who could have known has died.
    Outcomes,
    /// Runs: their processes were ended, too.
    Runs,
}

impl Ledger {
    /// A ledger and the configuration to begin with.
    pub fn new(base: &str) -> (Self, String) {
        let wants = JOBS.map(|name| (name, true)).into();
        let ledger = Self { wants, base: base.to_owned(), patience: PATIENCE, ..Self::default() };
        let config = ledger.config(&ledger.coming);
        (ledger, config)
    }

    fn config(&self, coming: &BTreeSet<&'static str>) -> String {
        let policy = "restart = \"always\"\nbackoff = { initial = \"1ms\", max = \"5ms\" }\n\
                      start_limit = { count = 0 }\noutput = { dir = \"@dir@/out\" }";
        let one = |name: &str| job(name, &format!("lock @dir@/{name}.lock mark @dir@/marks hang"), policy);
        let jobs: String = JOBS.iter().chain(coming).map(|name| one(name)).collect();
        format!("{}\n{jobs}", self.base)
    }

    fn ask(&mut self, daemon: &Daemon, path: &str, body: &Value) -> Result<http::Reply, Gone> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        match http::request(&daemon.socket(), "POST", path, Some(&body)) {
            Ok(reply) if matches!(reply.code, 200 | 201) => {
                self.answers += 1;
                Ok(reply)
            }
            // Whoever is about to go, or has just come, may say so.
            Ok(reply) if reply.code != 503 => panic!("{path}: {} {}", reply.code, reply.text()),
            _ => {
                self.unanswered += 1;
                Err(Gone)
            }
        }
    }

    /// Asks for something, whatever chance says.
    pub fn step(&mut self, daemon: &Daemon, random: &mut Random) -> Result<(), Gone> {
        let name = JOBS[usize::try_from(random.between(0, 3)).unwrap()];
        match random.between(0, 9) {
            0..=2 => self.want(daemon, name, !self.wants[name]),
            3 => self.restart(daemon, name),
            4 => {
                let mut coming = self.coming.clone();
                let other = COMING[usize::try_from(random.between(0, 2)).unwrap()];
                if !coming.remove(other) {
                    coming.insert(other);
                }
                self.reload(daemon, coming)
            }
            _ => self.submit(daemon, random),
        }
    }

    fn want(&mut self, daemon: &Daemon, name: &'static str, up: bool) -> Result<(), Gone> {
        self.unsure.insert(name);
        let verb = if up { "start" } else { "stop" };
        self.ask(daemon, &format!("/v1/jobs/{name}/{verb}"), &Value::Null)?;
        self.wants.insert(name, up);
        self.unsure.remove(name);
        Ok(())
    }

    fn restart(&mut self, daemon: &Daemon, name: &'static str) -> Result<(), Gone> {
        let old = daemon.try_job_now(name).and_then(|job| Some(job["run"].as_str()?.to_owned()));
        self.unsure.insert(name);
        self.ask(daemon, &format!("/v1/jobs/{name}/restart"), &Value::Null)?;
        self.wants.insert(name, true);
        self.unsure.remove(name);
        self.replaced.extend(old.map(|run| (name, run)));
        Ok(())
    }

    fn submit(&mut self, daemon: &Daemon, random: &mut Random) -> Result<(), Gone> {
        self.next += 1;
        let (name, code) = (format!("t{}", self.next), random.between(0, 90).cast_signed());
        let tasks = daemon.path("tasks");
        let mut command = vec![misbehave().display().to_string(), "mark".to_owned()];
        command.extend([tasks.display().to_string(), "{job} {run}".to_owned()]);
        if random.between(0, 1) == 1 {
            command.extend(["sleep".to_owned(), format!("{}ms", random.between(1, 60))]);
        }
        command.extend(["exit".to_owned(), code.to_string()]);
        self.tasks.insert(name.clone(), Task { code, sure: false, seen: None });
        self.ask(daemon, "/v1/run", &json!({"name": name, "command": command}))?;
        self.tasks.get_mut(&name).unwrap().sure = true;
        Ok(())
    }

    fn reload(&mut self, daemon: &Daemon, coming: BTreeSet<&'static str>) -> Result<(), Gone> {
        daemon.write_config(&self.config(&coming));
        self.unsure_coming = Some(coming.clone());
        self.ask(daemon, "/v1/reload", &Value::Null)?;
        self.coming = coming;
        self.unsure_coming = None;
        Ok(())
    }

    /// Keeps the outcomes that the status shows: whoever has seen one relies on it.
    pub fn look(&mut self, daemon: &Daemon) {
        let Some(status) = daemon.try_status() else { return };
        for job in status["jobs"].as_array().unwrap() {
            if let Some(task) = self.tasks.get_mut(job["name"].as_str().unwrap())
                && job["outcome"].is_object()
                && job["state"] == "exited"
            {
                task.seen.get_or_insert_with(|| job["outcome"].clone());
            }
        }
    }

    /// Waits until everything that was promised holds; what does not. Then asks again for what is unsure.
    pub fn settle(&mut self, daemon: &Daemon, excuse: Excuse) -> Vec<String> {
        let end = Instant::now() + self.patience;
        let faults = loop {
            let mut faults = match daemon.try_status() {
                Some(status) => self.status_faults(&status),
                None => vec!["no status".to_owned()],
            };
            if faults.is_empty() {
                // Everything is over that can be: what is wrong now stays wrong.
                let marks = daemon.read("tasks");
                let events = daemon.events_after(self.settled);
                task_faults(&self.tasks, &marks[self.marked..], &events, excuse, &mut faults);
                for name in JOBS.iter().chain(&COMING) {
                    if !daemon.read(&format!("{name}.lock.overlap")).is_empty() {
                        faults.push(format!("two runs of {name} at once"));
                    }
                }
                break faults;
            }
            if Instant::now() > end {
                break faults;
            }
            procs::moment(Duration::from_millis(10));
        };
        if faults.is_empty() {
            self.look(daemon);
            if let Err(fault) = self.make_sure(daemon) {
                return vec![fault];
            }
        }
        faults
    }

    fn make_sure(&mut self, daemon: &Daemon) -> Result<(), String> {
        let again = |what: &str| format!("no answer when all is well: {what}");
        for name in std::mem::take(&mut self.unsure) {
            self.want(daemon, name, self.wants[name]).map_err(|Gone| again(name))?;
        }
        if self.unsure_coming.is_some() {
            self.reload(daemon, self.coming.clone()).map_err(|Gone| again("reload"))?;
        }
        // Half of a task is none: it is known and has ended like any other, or nobody knows it.
        let events = daemon.events_after(self.settled);
        let known: BTreeSet<String> = events
            .iter()
            .filter(|event| event["k"] == "job.submitted")
            .filter_map(|event| Some(event["spec"]["name"].as_str()?.to_owned()))
            .collect();
        self.tasks.retain(|name, task| task.sure || known.contains(name));
        self.over.append(&mut self.tasks);
        self.marked = daemon.read("tasks").len();
        self.settled = events.last().map_or(self.settled, |event| event["seq"].as_u64().unwrap());
        Ok(())
    }

    fn status_faults(&self, status: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        let jobs: BTreeMap<&str, &Value> = status["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| (job["name"].as_str().unwrap(), job))
            .collect();
        for (name, up) in &self.wants {
            let job = jobs.get(name).copied().unwrap_or(&Value::Null);
            let good = match (self.unsure.contains(name), up) {
                (true, _) => job["state"] == "running" || job["state"] == "stopped",
                (false, true) => job["state"] == "running" && job["want"] == "up",
                (false, false) => job["state"] == "stopped" && job["want"] == "down",
            };
            if !good {
                faults.push(format!("{name} is to be {}: {job}", if *up { "up" } else { "down" }));
            }
            if self.replaced.get(name).is_some_and(|old| job["run"] == old.as_str() && job["pid"].is_i64()) {
                faults.push(format!("{name} was to be restarted: {job}"));
            }
        }
        let coming: BTreeSet<&str> = COMING.into_iter().filter(|name| jobs.contains_key(name)).collect();
        let other = self.unsure_coming.as_ref();
        if coming != self.coming && other.is_none_or(|other| coming != *other) {
            faults.push(format!("configured are {coming:?}, and not {:?} or {other:?}", self.coming));
        }
        for (name, job) in self.tasks.keys().filter_map(|name| Some((name, jobs.get(name.as_str())?))) {
            if job["state"] != "exited" {
                faults.push(format!("{name} is not over: {job}"));
            }
        }
        faults
    }

    /// Everything since the beginning, when all is well.
    pub fn audit(&self, daemon: &Daemon, excuse: Excuse) -> Vec<String> {
        let mut faults = Vec::new();
        task_faults(&self.over, &daemon.read("tasks"), &daemon.events(), excuse, &mut faults);
        let mut expected = None;
        for line in daemon.event_lines() {
            let seq = line["seq"].as_u64().unwrap();
            if expected.is_some_and(|expected| seq != expected) {
                faults.push(format!("{expected:?} is missing before {seq}"));
            }
            expected = Some(seq + 1);
        }
        let mut requested = BTreeSet::new();
        for event in daemon.events() {
            if event["k"] == "run.requested" && !requested.insert(event["run"].as_str().unwrap().to_owned()) {
                faults.push(format!("asked for twice: {event}"));
            }
        }
        let marks = daemon.read("marks");
        let runs = marks.lines().filter_map(|line| line.split(' ').nth(2));
        let tasks = daemon.read("tasks");
        let mut started = BTreeSet::new();
        for run in runs.chain(tasks.lines().filter_map(|line| line.split(' ').nth(1))) {
            if !started.insert(run.to_owned()) {
                faults.push(format!("{run} was started twice"));
            }
            if !requested.contains(run) {
                faults.push(format!("{run} was started and is not in the event log"));
            }
        }
        faults
    }
}

/// How often each task marked a start.
fn starts(marks: &str) -> BTreeMap<String, u32> {
    let mut starts = BTreeMap::new();
    for line in marks.lines() {
        *starts.entry(line.split(' ').next().unwrap_or_default().to_owned()).or_insert(0) += 1;
    }
    starts
}

/// What the event log and the tasks themselves say, against what was promised.
fn task_faults(
    tasks: &BTreeMap<String, Task>,
    marks: &str,
    events: &[Value],
    excuse: Excuse,
    faults: &mut Vec<String>,
) {
    let starts = starts(marks);
    let mut ends: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    let mut submitted: BTreeMap<&str, u32> = BTreeMap::new();
    for event in events {
        match event["k"].as_str().unwrap() {
            "job.submitted" => {
                *submitted.entry(event["spec"]["name"].as_str().unwrap()).or_default() += 1;
            }
            "run.ended" => {
                let job = event["record"]["job"].as_str().unwrap();
                ends.entry(job).or_default().push(&event["record"]["outcome"]);
            }
            _ => {}
        }
    }
    for (name, task) in tasks {
        let known = submitted.get(name.as_str()).copied().unwrap_or(0);
        let count = starts.get(name).copied().unwrap_or(0);
        if known == 0 && !task.sure && count == 0 {
            continue;
        }
        if known != 1 {
            faults.push(format!("{name} was answered ({}) and is recorded {known} times", task.sure));
        }
        let ends = ends.get(name.as_str()).cloned().unwrap_or_default();
        let last = ends.last().copied().unwrap_or(&Value::Null);
        let told = last["kind"] == "exited" && last["code"] == task.code;
        let lost = last["kind"] == "lost" && excuse != Excuse::None;
        if !told && !lost {
            faults.push(format!("{name} has ended with {ends:?} and not with {}", task.code));
        }
        let as_seen = |seen: &Value| seen["kind"] == last["kind"] && seen["code"] == last["code"];
        if task.seen.as_ref().is_some_and(|seen| !as_seen(seen)) {
            faults.push(format!("{name} was over with {:?} and is now with {last}", task.seen));
        }
        if count > 1 || (count == 0 && (told || excuse != Excuse::Runs)) {
            faults.push(format!("{name} was started {count} times: {ends:?}"));
        }
    }
}
