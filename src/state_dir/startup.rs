//! What is kept about starts: the marker of the one under way, the log of the last ones, the latest report.
//!
//! The marker is there from the first phase of a start until it is ready. Who finds one at the next start knows
//! that the one before was aborted, and where.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::StateDir;
use super::records::{ReadError, read_json, to_json};
use super::{atomic, quarantine};
use crate::core::report::StartReport;
use crate::core::time::Stamp;

/// Version of [`Marker`] that this build writes.
pub const VERSION: u32 = 1;

/// Starts that the log remembers.
pub const LOG_MAX: usize = 10;

/// A start under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Version of this layout.
    pub v: u32,
    /// Its id.
    pub startup_id: String,
    /// When it began.
    pub started_at: Stamp,
    /// The boot it belongs to.
    pub boot_id: String,
    /// The supervisor.
    pub pid: i32,
    /// Phases that are over.
    pub phases_completed: Vec<String>,
    /// Phases at work.
    pub current_phase: Vec<String>,
    /// Which start in a row this is, counted from 1.
    pub attempt: usize,
    /// When the aborted starts right before this one began.
    pub aborted: Vec<Stamp>,
}

impl StateDir {
    /// The marker of the start under way.
    #[must_use]
    pub fn startup_marker(&self) -> PathBuf {
        self.0.join("startup-marker.json")
    }

    /// The last starts, one a line, in short.
    #[must_use]
    pub fn startup_log(&self) -> PathBuf {
        self.0.join("startup-log.jsonl")
    }

    /// The report of the last start, in full.
    #[must_use]
    pub fn recovery_report(&self) -> PathBuf {
        self.0.join("recovery-report.json")
    }

    /// The marker that an aborted start has left. One that cannot be read is set aside: that it is there
    /// says that a start was aborted, and nothing more.
    pub fn take_marker(&self) -> io::Result<Option<Marker>> {
        match read_json(&self.startup_marker()) {
            Ok(marker) => Ok(marker),
            Err(ReadError::Bad { .. }) => {
                quarantine::set_aside(self, &self.startup_marker(), "not a startup marker").map(|_| None)
            }
            Err(ReadError::Io { source, .. }) => Err(source),
        }
    }

    /// Writes the marker; survives the death of processes.
    pub fn write_marker(&self, marker: &Marker) -> io::Result<()> {
        atomic::write_unsynced(&self.startup_marker(), &to_json(marker)?, 0o600)
    }

    /// The start is over.
    pub fn remove_marker(&self) -> io::Result<()> {
        remove(&self.startup_marker())
    }

    /// Says that nothing of the event log could be read and that nobody has decided yet what follows from it.
    #[must_use]
    pub fn unreadable_log(&self) -> PathBuf {
        self.0.join("unreadable-log")
    }

    /// Notes that nothing of the event log could be read: the next start has to know it, too.
    pub fn note_unreadable_log(&self, at: Stamp) -> io::Result<()> {
        atomic::write(&self.unreadable_log(), format!("{}\n", at.rfc3339()).as_bytes(), 0o600)
    }

    /// An operator, or the configuration, has decided what follows from it.
    pub fn forget_unreadable_log(&self) -> io::Result<()> {
        remove(&self.unreadable_log())
    }

    /// The last starts, oldest first. Lines that cannot be read are left out.
    pub fn read_startup_log(&self) -> io::Result<Vec<StartReport>> {
        let text = match std::fs::read_to_string(self.startup_log()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Adds a start to the log, in place of one of the same id, and forgets the oldest.
    pub fn log_startup(&self, report: &StartReport) -> io::Result<()> {
        let mut all = self.read_startup_log().unwrap_or_default();
        all.retain(|known| known.id != report.id);
        all.push(report.clone().in_short());
        let from = all.len().saturating_sub(LOG_MAX);
        let mut bytes = Vec::new();
        for report in &all[from..] {
            bytes.extend(to_json(report)?);
        }
        atomic::write(&self.startup_log(), &bytes, 0o600)
    }

    /// Keeps the report of the last start, in full.
    pub fn write_report(&self, report: &StartReport) -> io::Result<()> {
        atomic::write_unsynced(&self.recovery_report(), &to_json(report)?, 0o600)
    }

    /// The report of the last start.
    pub fn read_report(&self) -> Result<Option<StartReport>, ReadError> {
        read_json(&self.recovery_report())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::report::{Entries, RunsReport, StartResult};

    fn report(id: &str) -> StartReport {
        StartReport {
            v: 1,
            id: id.to_owned(),
            generation: 1,
            began: "1970-01-01T00:00:00.000Z".to_owned(),
            ended: None,
            took_ms: 1,
            result: StartResult::Done,
            recovery_mode: None,
            aborted_before: 0,
            phases: Vec::new(),
            runs: Some(RunsReport::default()),
            damage: Vec::new(),
            assessment: None,
            notes: Vec::new(),
            entries: Entries::default(),
        }
    }

    #[test]
    fn the_log_keeps_the_last_ten_starts_and_one_line_for_each() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path().join("s")).unwrap();
        assert!(state.read_startup_log().unwrap().is_empty());
        for n in 0..12 {
            state.log_startup(&report(&n.to_string())).unwrap();
        }
        let mut last = report("11");
        last.result = StartResult::Aborted;
        state.log_startup(&last).unwrap();
        let ids: Vec<String> = state.read_startup_log().unwrap().into_iter().map(|r| r.id).collect();
        assert_eq!(ids, (2..12).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(state.read_startup_log().unwrap().pop().unwrap().result, StartResult::Aborted);
    }

    #[test]
    fn a_marker_is_there_until_it_is_removed_and_a_damaged_one_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path().join("s")).unwrap();
        assert_eq!(state.take_marker().unwrap(), None);
        let marker = Marker {
            v: VERSION,
            startup_id: "a".to_owned(),
            started_at: Stamp::default(),
            boot_id: "b".to_owned(),
            pid: 1,
            phases_completed: vec!["lock".to_owned()],
            current_phase: vec!["journal".to_owned()],
            attempt: 2,
            aborted: vec![Stamp::default()],
        };
        state.write_marker(&marker).unwrap();
        assert_eq!(state.take_marker().unwrap(), Some(marker));
        state.remove_marker().unwrap();
        state.remove_marker().unwrap();
        atomic::write(&state.startup_marker(), b"{", 0o600).unwrap();
        assert_eq!(state.take_marker().unwrap(), None);
        assert!(!state.startup_marker().exists());
    }
}
