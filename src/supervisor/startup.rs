//! The start of this supervisor: which phases it has, how far it is, and what is kept about it.
//!
//! Each step is told to readers at once, and to a thread that keeps the marker: a disk that hangs must not
//! hold up the start. The thread removes the marker when the instance is ready: who dies after that has not
//! aborted a start. When all phases are over, it writes the report and the log, and ends.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::main_loop::now;
use crate::core::phases::{
    ABORTED_MAX, CannotSkip, Phase, Progress, Record, Standing, WrongPhases, recently_aborted,
};
use crate::core::report::{Class, Entries, PhaseReport, RunsReport, StartReport, StartResult, VERSION};
use crate::core::severity::{Assessment, Read, assess};
use crate::core::time::Stamp;
use crate::state_dir::layout::StateDir;
use crate::state_dir::startup::{self as files, Marker};
use crate::sys::identity;

const fn phase(name: &'static str, depends_on: &'static [&'static str]) -> Phase {
    Phase { name, depends_on, critical: true, allow_degraded: false }
}

const fn optional(name: &'static str, depends_on: &'static [&'static str]) -> Phase {
    Phase { name, depends_on, critical: false, allow_degraded: true }
}

/// The phases of a start.
pub(super) const PHASES: [Phase; 11] = [
    // There is one supervisor.
    phase("lock", &[]),
    // The settings in force; without them, jobs are watched and can be stopped.
    optional("configuration", &[]),
    // Whether the starts before this one were aborted, and that this one is under way.
    optional("marker", &["lock"]),
    // The control socket answers.
    phase("socket", &["lock", "configuration"]),
    // The event log is read, and what it says is remembered.
    phase("journal", &["marker", "configuration"]),
    // The keeper is met, and tells what it holds.
    phase("keeper", &["journal"]),
    // What the keeper and the disk say of every run.
    phase("survey", &["keeper"]),
    // Adopted, ended, given up: decided and durable.
    phase("settle", &["survey"]),
    // Whoever waits for the instance is told.
    phase("ready", &["settle", "socket"]),
    // Starts that follow from it have been asked for.
    phase("resume", &["settle"]),
    // Run directories that nobody remembers are looked for.
    optional("strays", &["settle"]),
];

/// What the thread is told.
enum Note {
    Marker(Box<Marker>),
    Ready,
    Over(Box<StartReport>),
}

/// A start.
pub(super) struct Startup {
    progress: Progress,
    report: StartReport,
    began: Stamp,
    aborted: Vec<Stamp>,
    read: Option<Read>,
    contradictions: Vec<String>,
    checkpoint_before: Option<u64>,
    state_dir: StateDir,
    tell: watch::Sender<Arc<StartReport>>,
    files: Option<(Sender<Note>, JoinHandle<()>)>,
}

/// What the phase `marker` finds.
pub(super) struct Earlier {
    marker: Option<Marker>,
}

impl Startup {
    /// A start that begins now, and where readers see how far it is.
    pub(super) fn new(
        state_dir: StateDir,
        recovery: bool,
    ) -> Result<(Self, watch::Receiver<Arc<StartReport>>), WrongPhases> {
        let began = now();
        let report = StartReport {
            v: VERSION,
            id: uuid::Uuid::now_v7().to_string(),
            generation: 0,
            began: began.rfc3339(),
            ended: None,
            took_ms: 0,
            result: StartResult::Running,
            recovery_mode: recovery.then(|| "too many supervisors have died within a minute".to_owned()),
            aborted_before: 0,
            phases: Vec::new(),
            runs: None,
            damage: Vec::new(),
            assessment: None,
            notes: Vec::new(),
            entries: Entries::default(),
        };
        let progress = Progress::new(&PHASES)?;
        let (tell, watch) = watch::channel(Arc::new(report.clone()));
        let mut startup = Self {
            progress,
            report,
            began,
            aborted: Vec::new(),
            read: None,
            contradictions: Vec::new(),
            checkpoint_before: None,
            state_dir,
            tell,
            files: None,
        };
        startup.publish();
        Ok((startup, watch))
    }

    /// Looks for what an aborted start has left. Blocks.
    pub(super) fn look_back(state_dir: &StateDir) -> std::io::Result<Earlier> {
        state_dir.take_marker().map(|marker| Earlier { marker })
    }

    /// Remembers it, and leaves a marker of our own. `rule`: whether many aborted starts in a row lead to
    /// recovery mode. Blocks for a moment.
    pub(super) fn mark(&mut self, earlier: Earlier, rule: bool) -> std::io::Result<()> {
        if let Some(marker) = earlier.marker {
            tracing::warn!(phases = marker.current_phase.join(", "), "the start before this one was aborted");
            let mut aborted = marker.aborted.clone();
            aborted.push(marker.started_at);
            self.aborted = recently_aborted(&aborted, self.began);
            self.log_aborted(&marker);
        }
        self.report.aborted_before = self.aborted.len();
        if rule && self.aborted.len() >= ABORTED_MAX && self.report.recovery_mode.is_none() {
            let why = format!("{} starts in a row were aborted", self.aborted.len());
            self.report.recovery_mode = Some(why);
        }
        self.state_dir.write_marker(&self.marker())?;
        let (send, notes) = channel();
        let state_dir = self.state_dir.clone();
        let thread = std::thread::Builder::new()
            .name("startup".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || keep(&state_dir, &notes))?;
        self.files = Some((send, thread));
        Ok(())
    }

    fn log_aborted(&self, marker: &Marker) {
        let known = self.state_dir.read_startup_log().unwrap_or_default();
        if known.iter().any(|start| start.id == marker.startup_id) {
            return;
        }
        let phase = |name: &String, state| PhaseReport {
            name: name.clone(),
            depends_on: Vec::new(),
            critical: false,
            state,
            why: None,
            tries: 1,
            after_ms: None,
            took_ms: None,
            count: None,
        };
        let completed = marker.phases_completed.iter().map(|name| phase(name, Standing::Done));
        let current = marker.current_phase.iter().map(|name| phase(name, Standing::Running));
        let report = StartReport {
            id: marker.startup_id.clone(),
            began: marker.started_at.rfc3339(),
            result: StartResult::Aborted,
            recovery_mode: None,
            aborted_before: marker.aborted.len(),
            phases: completed.chain(current).collect(),
            ..self.report.clone()
        };
        if let Err(error) = self.state_dir.log_startup(&report) {
            tracing::warn!(%error, "the aborted start cannot be logged");
        }
    }

    fn marker(&self) -> Marker {
        let names = |wanted: fn(&Record) -> bool| -> Vec<String> {
            let records = self.progress.records().iter().filter(|record| wanted(record));
            records.map(|record| record.phase.name.to_owned()).collect()
        };
        Marker {
            v: files::VERSION,
            startup_id: self.report.id.clone(),
            started_at: self.began,
            boot_id: identity::boot_id(),
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            phases_completed: names(|record| record.standing.is_over()),
            current_phase: names(|record| matches!(record.standing, Standing::Running | Standing::Retrying)),
            attempt: self.aborted.len() + 1,
            aborted: self.aborted.clone(),
        }
    }

    /// Nobody knows what was running: everything is watched and nothing is started.
    pub(super) fn nothing_is_known(&mut self, why: &str) {
        self.report.recovery_mode.get_or_insert_with(|| why.to_owned());
    }

    /// Whether the supervisor before was in recovery mode, and this one is for that reason: for the reason of the first.
    pub(super) fn succeeds(&mut self, in_recovery: bool) {
        if in_recovery && self.report.recovery_mode.is_none() {
            let known = self.state_dir.read_startup_log().unwrap_or_default();
            let first = known.into_iter().rev().find_map(|start| start.recovery_mode);
            let unknown = || "the supervisor before this one was, and nobody has ended it since".to_owned();
            self.report.recovery_mode = Some(first.unwrap_or_else(unknown));
        }
    }

    /// Why this start is in recovery mode, if it is.
    pub(super) fn recovery_mode(&self) -> Option<&str> {
        self.report.recovery_mode.as_deref()
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(super) fn due(&self) -> Vec<&'static str> {
        self.progress.due(now())
    }

    pub(super) fn begin(&mut self, name: &str) {
        self.progress.begin(name, now());
        self.changed();
        #[cfg(debug_assertions)]
        self.die_if_asked(name);
    }

    pub(super) fn done(&mut self, name: &str) {
        self.progress.done(name, now());
        self.changed();
    }

    /// The instance is ready.
    pub(super) fn ready(&mut self) {
        if self.is_pending("ready") {
            self.begin("ready");
            if let Some((files, _)) = &self.files {
                let _ = files.send(Note::Ready);
            }
            self.done("ready");
        }
    }

    pub(super) fn fail(&mut self, name: &str, why: &str, again: bool) {
        tracing::warn!(phase = name, why, "a phase of the start failed");
        self.progress.fail(name, why, again, now());
        self.changed();
    }

    pub(super) fn hold(&mut self, name: &str, why: &str) {
        self.progress.hold(name, why);
        self.changed();
    }

    pub(super) fn count(&mut self, name: &str, done: u64, total: u64) {
        self.progress.count(name, done, total);
        self.publish();
    }

    pub(super) fn skip(&mut self, name: &str, by: &str) -> Result<(), CannotSkip> {
        let name = self.progress.skip(name, by, now())?;
        tracing::info!(phase = name, by, "a phase of the start is skipped");
        self.changed();
        Ok(())
    }

    /// Whether a phase is at work.
    pub(super) fn is_running(&self, name: &str) -> bool {
        self.progress.get(name).is_some_and(|record| record.standing == Standing::Running)
    }

    /// So much of a phase is left to do. The most there ever was is the whole.
    pub(super) fn left(&mut self, name: &str, left: u64) {
        let known = self.progress.get(name).and_then(|record| record.count);
        let total = known.map_or(left, |(_, total)| total.max(left));
        if known != Some((total - left, total)) {
            self.count(name, total - left, total);
        }
    }

    /// Whether a phase may still be waited for.
    pub(super) fn is_pending(&self, name: &str) -> bool {
        self.progress.get(name).is_some_and(|record| !record.standing.is_over())
    }

    /// Resources that this start left with a mark.
    pub(super) fn marks(&self) -> Vec<(String, String)> {
        let mut marks = Vec::new();
        let lost = self.report.entries.lost;
        if lost > 0 {
            marks.push(("journal".to_owned(), format!("the event log has lost {lost} entries")));
        }
        for record in self.progress.records() {
            // A configuration that cannot be used has a mark of its own, which a reload removes.
            let missing = matches!(record.standing, Standing::Degraded | Standing::Skipped);
            if missing && record.phase.name != "configuration" {
                let (name, why) = (record.phase.name, record.why.as_deref().unwrap_or_default());
                marks.push((format!("phase:{name}"), format!("the start went on without {name}: {why}")));
            }
        }
        let items = self.report.runs.iter().flat_map(|runs| &runs.items);
        for item in items.filter(|item| item.class == Class::Corrupt) {
            if let Some(run) = item.run {
                let job = item.job.as_ref().map(|job| format!(" of {job}")).unwrap_or_default();
                marks.push((format!("run:{run}"), format!("run {run}{job}: {}", item.found)));
            }
        }
        marks
    }

    pub(super) fn generation(&mut self, generation: u64) {
        self.report.generation = generation;
    }

    pub(super) fn entries(&mut self, entries: Entries) {
        self.report.entries = entries;
    }

    pub(super) fn read(&mut self, read: Read) {
        self.read = Some(read);
    }

    /// Entries of the event log that were read, that are missing, and that were not what was written.
    pub(super) fn log_figures(&self) -> [u64; 3] {
        let Entries { read, lost } = self.report.entries;
        let mended = self.read.as_ref().map_or(0, |read| read.mended);
        [read, lost, lost.saturating_add(mended)]
    }

    /// Whether what was read is not what was written.
    pub(super) fn is_damaged(&self) -> bool {
        self.read.as_ref().is_some_and(|read| read.damaged)
    }

    pub(super) fn checkpoint_before(&mut self, seq: u64) {
        self.checkpoint_before = Some(seq);
        self.publish();
    }

    pub(super) fn contradictions(&mut self, contradictions: Vec<String>) {
        self.contradictions = contradictions;
    }

    pub(super) fn damage(&mut self, what: impl IntoIterator<Item = String>) {
        self.report.damage.extend(what);
    }

    pub(super) fn note(&mut self, what: impl IntoIterator<Item = String>) {
        self.report.notes.extend(what);
    }

    /// What was found of runs. Later surveys of the same start (the keeper died) add to the first.
    pub(super) fn found(&mut self, runs: RunsReport) {
        self.report.runs = Some(runs);
        self.publish();
    }

    fn changed(&mut self) {
        self.publish();
        let over = self.progress.is_over();
        if over {
            let mut phases = self.report.phases.iter();
            let degraded = phases.any(|phase| phase.state == Standing::Degraded);
            self.report.result = if degraded { StartResult::Degraded } else { StartResult::Done };
            self.report.ended = Some(now().rfc3339());
            self.report.took_ms = now().since(self.began).0;
            let last = Box::new((*self.publish()).clone());
            if let Some((files, _)) = self.files.take() {
                let _ = files.send(Note::Over(last));
            }
        } else if let Some((files, _)) = &self.files
            && self.is_pending("ready")
        {
            let _ = files.send(Note::Marker(Box::new(self.marker())));
        }
    }

    /// Tells readers.
    fn publish(&mut self) -> Arc<StartReport> {
        if let Some(read) = &self.read {
            let judged = assess(read, self.report.runs.as_ref(), &self.contradictions);
            self.report.assessment = Some(Assessment { checkpoint_before: self.checkpoint_before, ..judged });
        }
        if self.report.ended.is_none() {
            let began = self.began;
            self.report.phases =
                self.progress.records().iter().map(|record| phase_report(record, began)).collect();
            self.report.took_ms = now().since(began).0;
        }
        let report = Arc::new(self.report.clone());
        self.tell.send_replace(Arc::clone(&report));
        report
    }

    /// The start has failed. The marker stays, so that it counts.
    pub(super) fn give_up(mut self) {
        self.report.result = StartResult::Failed;
        let report = self.publish();
        if let Some((files, thread)) = self.files.take() {
            let _ = files.send(Note::Over(Box::new((*report).clone())));
            drop(files);
            let _ = thread.join();
        }
    }

    /// The configuration says not to start like this. No marker stays: it is no accident.
    pub(super) fn refuse(self) {
        let state_dir = self.state_dir.clone();
        self.give_up();
        let _ = state_dir.remove_marker();
    }

    /// The instance ends on purpose before its start is over: that is no aborted start.
    pub(super) fn called_off(&mut self) {
        if let Some((files, thread)) = self.files.take() {
            drop(files);
            let _ = thread.join();
            let marker = self.state_dir.take_marker().ok().flatten();
            if marker.is_some_and(|marker| marker.startup_id == self.report.id) {
                let _ = self.state_dir.remove_marker();
            }
        }
    }

    /// For tests: dies at this phase if the first line of the file that the environment names says so, and
    /// takes the line away, so that the next start gets further.
    #[cfg(debug_assertions)]
    fn die_if_asked(&mut self, name: &str) {
        if take_death(name) {
            // The file has one writer.
            if let Some((files, thread)) = self.files.take() {
                drop(files);
                let _ = thread.join();
                let _ = self.state_dir.write_marker(&self.marker());
            }
            let own = rustix::process::getpid();
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        }
    }
}

/// For tests: whether the file that the environment names says that it is time to die.
#[cfg(debug_assertions)]
pub(super) fn take_death(name: &str) -> bool {
    let Some(path) = std::env::var_os("OUTLIVE_TEST_DIE_AT").map(std::path::PathBuf::from) else {
        return false;
    };
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let Some((first, rest)) = text.split_once('\n') else { return false };
    first == name && crate::state_dir::atomic::write_unsynced(&path, rest.as_bytes(), 0o600).is_ok()
}

fn phase_report(record: &Record, began: Stamp) -> PhaseReport {
    let phase = record.phase;
    let first = record.began;
    PhaseReport {
        name: phase.name.to_owned(),
        depends_on: phase.depends_on.iter().map(|name| (*name).to_owned()).collect(),
        critical: phase.critical,
        state: record.standing,
        why: record.why.clone(),
        tries: record.tries,
        after_ms: first.map(|at| at.since(began).0),
        took_ms: first.map(|at| record.ended.unwrap_or_else(now).since(at).0),
        count: record.count,
    }
}

/// Keeps the marker up to date, and at the end writes down what came of it.
fn keep(state_dir: &StateDir, notes: &Receiver<Note>) {
    let said = |what: &str, result: std::io::Result<()>| {
        if let Err(error) = result {
            tracing::warn!(%error, "{what} cannot be written");
        }
    };
    while let Ok(note) = notes.recv() {
        match note {
            Note::Marker(marker) => said("the startup marker", state_dir.write_marker(&marker)),
            Note::Ready => said("the startup marker", state_dir.remove_marker()),
            Note::Over(report) => {
                said("the startup log", state_dir.log_startup(&report));
                said("the report of this start", state_dir.write_report(&report));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::phases::rows;

    #[test]
    fn the_phases_of_a_start_can_all_come_to_an_end() {
        let rows = rows(&PHASES).unwrap();
        assert_eq!(rows[0], ["lock", "configuration"]);
        assert!(
            rows.iter().flatten().position(|p| *p == "socket")
                < rows.iter().flatten().position(|p| *p == "journal")
        );
        assert_eq!(rows.last().unwrap(), &["ready", "resume", "strays"]);
        for name in ["configuration", "marker", "strays"] {
            let phase = PHASES.iter().find(|phase| phase.name == name).unwrap();
            assert!(!phase.critical && phase.allow_degraded);
        }
    }
}
