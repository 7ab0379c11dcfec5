//! The account: what the event log, the captured bytes and the jobs' own marks say must agree.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::common::{Daemon, PATIENCE, http, until};
use super::plan::{Case, End, Plan};

/// The time in which a kill may have had consequences: from just before it until all was well again, by
/// the boot clock in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub case: Case,
    pub from: u64,
    pub to: u64,
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// As told, and every line there.
    Exact,
    /// Nobody could know.
    Lost,
    /// It never ran.
    NeverRan,
}

/// Everything that was checked so far.
#[derive(Default)]
pub struct Account {
    seen: u64,
    /// Whether jobs have been told to stop.
    pub stopping: bool,
    requested: BTreeMap<String, String>,
    ended: BTreeSet<String>,
    /// Fates, with the case in whose window the run ended.
    pub fates: Vec<(Option<Case>, Fate)>,
}

impl Account {
    /// Reads the events since the last time and checks every run that ended.
    pub fn settle(&mut self, daemon: &Daemon, plans: &[Plan], windows: &[Window]) {
        let events = daemon.events();
        // Read after the events: the mark of a run that has ended is there.
        let started = starts(&daemon.read("marks"));
        let from = self.seen;
        for event in events {
            let seq = event["seq"].as_u64().unwrap();
            if seq < from {
                continue;
            }
            // An entry is written whole, so all of its events are here.
            self.seen = seq + 1;
            match event["k"].as_str().unwrap() {
                "run.requested" => {
                    let (run, job) = (text(&event["run"]), text(&event["job"]));
                    assert!(self.requested.insert(run.clone(), job).is_none(), "asked for twice: {run}");
                }
                "run.ended" => self.check_end(daemon, plans, windows, &started, &event),
                "run.orphan" => panic!("a run of nobody: {event}"),
                _ => {}
            }
        }
    }

    /// The runs that were asked for and have not ended.
    pub fn open(&self) -> Vec<(&String, &String)> {
        self.requested.iter().filter(|(run, _)| !self.ended.contains(*run)).collect()
    }

    fn check_end(
        &mut self,
        daemon: &Daemon,
        plans: &[Plan],
        windows: &[Window],
        started: &BTreeMap<String, u32>,
        event: &Value,
    ) {
        let record = &event["record"];
        let (run, job) = (text(&record["run"]), text(&record["job"]));
        assert!(self.ended.insert(run.clone()), "ended twice: {event}");
        assert_eq!(self.requested.get(&run), Some(&job), "ended without having been asked for: {event}");
        let plan = plans.iter().find(|plan| plan.name == job).unwrap();
        let at = record["ended"]["m"].as_u64().unwrap();
        let within: Vec<&Window> = windows.iter().filter(|w| w.from <= at && at <= w.to).collect();
        let case = within.last().map(|w| w.case);
        let excused = within.iter().any(|w| !w.case.knows_all());
        let outcome = &record["outcome"];
        let fate = match outcome["kind"].as_str().unwrap() {
            "lost" => {
                assert!(excused, "lost without need: {event}");
                assert!(!text(&outcome["why"]).is_empty(), "lost without a reason: {event}");
                Fate::Lost
            }
            "cancelled" | "not_started" => {
                assert!(!within.is_empty(), "not started though nobody was killed: {event}");
                Fate::NeverRan
            }
            _ => {
                let told = match plan.end {
                    End::Code(code) => outcome["kind"] == "exited" && outcome["code"] == code,
                    End::Signal(signal) => outcome["kind"] == "signaled" && outcome["signal"] == signal,
                    End::Never => record["asked"] == "shutdown" || record["asked"]["operator"].is_object(),
                };
                let asked = record["asked"] != "nobody";
                assert!(!asked || self.stopping, "nobody had asked for it: {event}");
                assert!(told || asked, "not what it was told to end with: {event}");
                Fate::Exact
            }
        };
        let starts = started.get(&run).copied().unwrap_or(0);
        assert!(starts <= 1, "started {starts} times: {event}");
        assert!(
            fate != Fate::Exact || starts == 1 || record["asked"] != "nobody",
            "ended but never started: {event}"
        );
        assert!(fate != Fate::NeverRan || starts == 0, "it did run: {event}");
        let (lines, bytes) = self.check_lines(daemon, &job, &run);
        let whole = record["asked"] == "nobody" && fate == Fate::Exact && !excused && plan.lines > 0;
        assert!(!whole || lines == plan.lines, "{lines} of {} lines: {event}", plan.lines);
        let counted = record["stdout_bytes"].as_u64().unwrap() + record["stderr_bytes"].as_u64().unwrap();
        let complete = record["output_complete"] == true;
        assert!(fate != Fate::Exact || excused || complete, "its output is not complete: {event}");
        assert!(fate != Fate::Exact || !complete || counted == bytes, "{bytes} bytes captured: {event}");
        assert!(fate != Fate::NeverRan || lines == 0, "it wrote {lines} lines: {event}");
        self.fates.push((case, fate));
    }

    /// Checks that the captured lines of a run are its numbered lines from the first on, and counts them
    /// and their bytes.
    pub fn check_lines(&self, daemon: &Daemon, job: &str, run: &str) -> (u64, u64) {
        let bytes = output(daemon, job, run);
        let text = String::from_utf8_lossy(&bytes);
        let mut count = 0;
        for line in text.split_inclusive('\n') {
            count += 1;
            let expected = format!("{run} {count}\n");
            // The last line may be on its way.
            let unfinished = !line.ends_with('\n') && expected.starts_with(line);
            assert!(line == expected || unfinished, "{job}: {line:?} where {expected:?} should be");
        }
        (count, bytes.len() as u64)
    }
}

/// The captured bytes of a run. One stream is empty, so that separate files make one series too.
fn output(daemon: &Daemon, job: &str, run: &str) -> Vec<u8> {
    let path = format!("/v1/jobs/{job}/output?run={run}");
    until(&format!("output of {job} {run} in {PATIENCE:?}"), || {
        let reply = http::request(&daemon.socket(), "GET", &path, None).ok()?;
        match reply.code {
            200 => Some(reply.body),
            404 => Some(Vec::new()),
            _ => None,
        }
    })
}

/// How often each run marked its start.
fn starts(marks: &str) -> BTreeMap<String, u32> {
    let mut starts = BTreeMap::new();
    for line in marks.lines() {
        *starts.entry(line.split(' ').nth(2).unwrap_or_default().to_owned()).or_insert(0) += 1;
    }
    starts
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
