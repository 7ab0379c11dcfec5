//! An instance without processes.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub(crate) use super::super::output::Stream;
use super::super::output::{Chunk, OutputReader, Record, Series};
use super::super::serve::{Limits, serve_with};
use super::super::{Sources, bind};
use crate::client::Client;
use crate::core::ids::{JobName, RunId};
use crate::core::report::{Entries, RunsReport, StartReport, StartResult};
use crate::core::rest::Rest;
use crate::core::spec::Kind;
use crate::supervisor::handle::{Ask, AskError, Handle, Insight, View};
use crate::wire::control::{
    ActReply, ActResult, EventView, Instance, InstanceState, JobStatus, OutcomeView, PublishReply,
    ReloadReply, Role, Roles, RunReply, RunView, ScrubReply, StateWord, StdinReply, WantWord,
};
use crate::wire::queue::PauseReply;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Fails a test that would hang.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("it takes too long")
}

pub(crate) fn name(text: &str) -> JobName {
    JobName::new(text).unwrap()
}

pub(crate) fn run_id(n: u8) -> RunId {
    RunId::from_bytes([n; 16])
}

pub(crate) struct Fake {
    pub(crate) client: Client,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    pub(crate) ending: watch::Sender<bool>,
    pub(crate) served: JoinHandle<()>,
    handle: Handle,
    sources: Sources,
    limits: Limits,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self::of(
            Sources {
                output: open_output,
                events: read_events,
                deeds: |_, _, _| Ok(VecDeque::new()),
                starts: |_| Ok(Vec::new()),
            },
            limits,
        )
    }

    /// With the files that a keeper and a supervisor write.
    pub(crate) fn of_files() -> Self {
        Self::of(Sources::FILES, Limits::default())
    }

    fn of(sources: Sources, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("c.sock");
        let listener = bind(&socket, 0o600, None).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        let (view, view_rx) = watch::channel(Arc::new(first_view()));
        let (asks, asks_rx) = mpsc::channel(8);
        let (ending, ending_rx) = watch::channel(false);
        let asked = Arc::default();
        tokio::spawn(main_loop(asks_rx, Arc::clone(&asked)));
        let (skips, _) = mpsc::channel(1);
        let (_, start) = watch::channel(Arc::new(start_report()));
        let state_dir = dir.path().to_owned();
        let handle = Handle { asks, skips, view: view_rx, start, state_dir };
        let served = tokio::spawn(serve_with(listener, handle.clone(), sources, ending_rx, limits));
        Self { client: Client::new(socket), dir, view, asked, ending, served, handle, sources, limits }
    }

    /// Kills the server with all its connections, and starts another in its place.
    pub(crate) async fn replace(&mut self) {
        self.served.abort();
        let _ = (&mut self.served).await;
        let listener = bind(self.client.socket(), 0o600, None).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        let ending = self.ending.subscribe();
        let (handle, sources) = (self.handle.clone(), self.sources);
        self.served = tokio::spawn(serve_with(listener, handle, sources, ending, self.limits));
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| change(Arc::make_mut(view)));
    }

    /// Gives a job another run, the latest.
    pub(crate) fn add_run(&self, job: &str, run: RunId) {
        self.change(|view| {
            let mut runs = view.runs.get(&name(job)).map(|runs| runs.to_vec()).unwrap_or_default();
            runs.push(run_view(job, run));
            view.runs.insert(name(job), Arc::new(runs));
        });
    }

    pub(crate) fn end_run(&self, job: &str, run: RunId) {
        self.change(|view| {
            let mut runs = view.runs[&name(job)].to_vec();
            for known in runs.iter_mut().filter(|known| known.run == run) {
                known.ended = Some("1970-01-01T00:00:09.000Z".to_owned());
            }
            view.runs.insert(name(job), Arc::new(runs));
        });
    }

    pub(crate) fn output_dir(&self, run: RunId) -> PathBuf {
        self.dir.path().join("runs").join(run.to_string()).join("output")
    }

    /// Captures bytes: `file` is `merged`, `stdout` or `stderr`; `at` in seconds since 1970.
    pub(crate) fn capture(&self, run: RunId, file: &str, stream: Stream, at: u64, data: &[u8]) {
        let dir = self.output_dir(run);
        let offset = std::fs::metadata(dir.join(file)).map_or(0, |meta| meta.len());
        self.capture_unindexed(run, file, data);
        let line = format!("{offset} {} {} {at}\n", data.len(), stream.as_str());
        append(&dir.join(format!("{file}.index")), line.as_bytes());
    }

    pub(crate) fn capture_unindexed(&self, run: RunId, file: &str, data: &[u8]) {
        let dir = self.output_dir(run);
        std::fs::create_dir_all(&dir).unwrap();
        append(&dir.join(file), data);
    }

    /// Rotates away everything before `offset`.
    pub(crate) fn rotate(&self, run: RunId, file: &str, offset: u64) {
        let path = self.output_dir(run).join(format!("{file}.first"));
        append(&path, format!("{offset}\n").as_bytes());
    }

    pub(crate) fn record_event(&self, seq: u64) {
        let event = EventView {
            seq,
            at: "1970-01-01T00:00:00.000Z".to_owned(),
            events: vec![serde_json::json!({ "k": "job.removed", "job": "web" })],
        };
        let line = serde_json::to_string(&event).unwrap() + "\n";
        append(&self.dir.path().join("events"), line.as_bytes());
        self.change(|view| view.seq = seq);
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn append(path: &Path, data: &[u8]) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(data).unwrap();
}

fn first_view() -> View {
    let role = |pid| Role { pid: Some(pid) };
    let names = ["api", "quiet", "refuses", "web:1", "web:2"];
    View {
        host: Arc::default(),
        instance: Arc::new(Instance {
            version: "1.2.3".to_owned(),
            state: InstanceState::Running,
            roles: Roles { init: role(1), keeper: role(2), supervisor: role(3) },
            since: "1970-01-01T00:00:00.000Z".to_owned(),
            generation: 1,
            state_dir: "/s".to_owned(),
            config: None,
            config_changed: false,
            degraded: Vec::new(),
            degraded_resources: Vec::new(),
            recovery_mode: None,
        }),
        jobs: names.iter().map(|n| (name(n), Arc::new(job(n)))).collect(),
        runs: BTreeMap::new(),
        rest: Rest::default(),
        stats: BTreeMap::new(),
        live: BTreeMap::new(),
        sagas: Vec::new(),
        queues: Vec::new(),
        slots: None,
        insight: Insight::default(),
        seq: 0,
        ready: true,
        known: true,
    }
}

fn start_report() -> StartReport {
    StartReport {
        v: 1,
        id: "a".to_owned(),
        generation: 1,
        began: "1970-01-01T00:00:00.000Z".to_owned(),
        ended: Some("1970-01-01T00:00:01.000Z".to_owned()),
        took_ms: 1000,
        result: StartResult::Done,
        recovery_mode: None,
        aborted_before: 0,
        phases: Vec::new(),
        runs: None,
        damage: Vec::new(),
        assessment: None,
        notes: Vec::new(),
        entries: Entries::default(),
    }
}

pub(crate) fn job(text: &str) -> JobStatus {
    JobStatus {
        name: name(text),
        kind: Kind::Service,
        state: StateWord::Running,
        want: WantWord::Up,
        pid: Some(9),
        run: None,
        restarts: 0,
        since: "1970-01-01T00:00:00.000Z".to_owned(),
        started: None,
        outcome: None,
        reason: String::new(),
        adopted: false,
        next_try: None,
        depends_on: Vec::new(),
        command: vec!["true".to_owned()],
        progress: None,
        health: None,
        breaker: None,
        patterns: Vec::new(),
        place: None,
    }
}

fn run_view(job: &str, run: RunId) -> RunView {
    RunView {
        run,
        job: name(job),
        attempt: 1,
        started: None,
        ended: None,
        pid: None,
        outcome: None::<OutcomeView>,
        cause: None,
        rusage: None,
        output_bytes: 0,
    }
}

async fn main_loop(mut asks: mpsc::Receiver<Ask>, asked: Arc<Mutex<Vec<String>>>) {
    let note = |text: String| asked.lock().unwrap().push(text);
    let act = |verb: &str, jobs: Vec<JobName>| -> Result<ActReply, AskError> {
        let names: Vec<&str> = jobs.iter().map(JobName::as_str).collect();
        note(format!("{verb} {}", names.join(" ")));
        if names == ["refuses"] {
            return Err(AskError::Conflict("it refuses".to_owned()));
        }
        let result = |name| ActResult { name, changed: true, text: "done".to_owned(), ok: true };
        Ok(ActReply { jobs: jobs.into_iter().map(result).collect(), saga: None })
    };
    while let Some(ask) = asks.recv().await {
        // A client that has gone does not hear the answer.
        match ask {
            Ask::Start { jobs, force, peer, reply } => {
                assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
                drop(reply.send(act(if force { "start --force" } else { "start" }, jobs)));
            }
            Ask::Stop { jobs, reply, .. } => drop(reply.send(act("stop", jobs))),
            Ask::Restart { jobs, reply, .. } => drop(reply.send(act("restart", jobs))),
            Ask::Signal { jobs, signal, scope, reply, .. } => {
                drop(reply.send(act(&format!("signal {signal} {scope:?}"), jobs)));
            }
            Ask::Run { request, reply, .. } => {
                note(format!("run {}", request.command.join(" ")));
                drop(reply.send(Ok(RunReply {
                    name: request.name.unwrap_or_else(|| name("made-up")),
                    existing: false,
                })));
            }
            Ask::PauseQueue { queue, resume, reply, .. } => {
                note(format!("pause {queue} {}", !resume));
                drop(reply.send(Ok(PauseReply { paused: !resume, changed: true })));
            }
            Ask::Move { jobs, request, reply, .. } => {
                drop(reply.send(act(&format!("move {:?}", request.priority), jobs)));
            }
            Ask::Stdin { job, data, close, reply } => {
                note(format!("stdin {job} {} {close}", data.len()));
                drop(reply.send(Ok(StdinReply { bytes: data.len() as u64 })));
            }
            Ask::Reload { plan, reply, .. } => {
                note(format!("reload {plan}"));
                let bad =
                    AskError::Bad { error: "2 mistakes".to_owned(), details: vec!["a".into(), "b".into()] };
                drop(reply.send(if plan { Ok(ReloadReply::default()) } else { Err(bad) }));
            }
            Ask::Publish { run, said, reply, .. } => {
                note(format!("publish {run} {:?} {:?}", said.progress, said.resume));
                drop(reply.send(Ok(PublishReply { recorded: true, resume_token: said.resume.is_some() })));
            }
            Ask::StartOrRollBack { jobs, within, reply, .. } => {
                drop(reply.send(act(&format!("start or roll back in {} ms", within.0), jobs)));
            }
            Ask::ReloadOrRollBack { within, reply, .. } => {
                note(format!("reload or roll back in {} ms", within.0));
                drop(reply.send(Ok(ReloadReply { saga: Some(3), ..ReloadReply::default() })));
            }
            Ask::Recover { dry_run, reply, .. } => {
                note(format!("recover {dry_run}"));
                drop(reply.send(Ok(RunsReport::default())));
            }
            Ask::Scrub { reply } => drop(reply.send(Ok(ScrubReply::default()))),
            Ask::LeaveRecovery { reply, .. } => drop(reply.send(act("leave", Vec::new()))),
            Ask::Shutdown { keep_jobs, reply, .. } => {
                note(format!("shutdown {keep_jobs}"));
                drop(reply.send(Ok(())));
            }
        }
    }
}

fn read_events(dir: &Path, since: u64, max: usize) -> io::Result<Vec<EventView>> {
    let text = match std::fs::read_to_string(dir.join("events")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let all = text.lines().map(|line| serde_json::from_str::<EventView>(line).unwrap());
    Ok(all.filter(|event| event.seq > since).take(max).collect())
}

struct FakeOutput(PathBuf);

fn open_output(dir: &Path) -> io::Result<Box<dyn OutputReader>> {
    std::fs::metadata(dir)?;
    Ok(Box::new(FakeOutput(dir.to_owned())))
}

impl FakeOutput {
    fn file(&self, series: Series) -> PathBuf {
        self.0.join(match series {
            Series::Merged => "merged",
            Series::Of(stream) => stream.as_str(),
        })
    }

    fn index(&self, series: Series) -> Vec<Record> {
        let text = std::fs::read_to_string(self.file(series).with_extension("index")).unwrap_or_default();
        let record = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let at: u64 = words[3].parse().unwrap();
            Record {
                offset: words[0].parse().unwrap(),
                len: words[1].parse().unwrap(),
                stream: if words[2] == "stdout" { Stream::Stdout } else { Stream::Stderr },
                boot_us: at * 1_000_000,
                wall_us: i64::try_from(at).unwrap() * 1_000_000,
            }
        };
        text.lines().map(record).collect()
    }
}

impl OutputReader for FakeOutput {
    fn refresh(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn series(&self) -> Vec<Series> {
        let all = [Series::Merged, Series::Of(Stream::Stdout), Series::Of(Stream::Stderr)];
        all.into_iter().filter(|series| self.file(*series).exists()).collect()
    }

    fn first_offset(&self, series: Series) -> u64 {
        let text = std::fs::read_to_string(self.file(series).with_extension("first")).unwrap_or_default();
        text.lines().last().map_or(0, |line| line.parse().unwrap())
    }

    fn end_offset(&self, series: Series) -> u64 {
        std::fs::metadata(self.file(series)).map_or(0, |meta| meta.len())
    }

    fn read_at(&mut self, series: Series, offset: u64, max: usize) -> io::Result<Chunk> {
        let all = std::fs::read(self.file(series))?;
        let offset = offset.max(self.first_offset(series));
        let from = usize::try_from(offset).unwrap().min(all.len());
        Ok(Chunk { offset, data: all[from..].iter().take(max).copied().collect() })
    }

    fn records(&mut self, series: Series, from: u64, to: u64) -> io::Result<Vec<Record>> {
        Ok(self.index(series).into_iter().filter(|r| r.offset < to && r.offset + r.len > from).collect())
    }

    fn tail_offset(&mut self, series: Series, lines: u64) -> io::Result<u64> {
        let all = std::fs::read(self.file(series))?;
        let body = all.strip_suffix(b"\n").unwrap_or(&all);
        let ends = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n');
        let begin = ends.map(|(at, _)| at as u64 + 1).nth(usize::try_from(lines).unwrap() - 1).unwrap_or(0);
        Ok(begin.max(self.first_offset(series)))
    }

    fn since_offset(&mut self, series: Series, wall_us: i64) -> io::Result<u64> {
        let found = self.index(series).into_iter().find(|r| r.wall_us >= wall_us).map(|r| r.offset);
        Ok(found.unwrap_or_else(|| self.end_offset(series)))
    }
}
