//! The memory of a start: the event log, read to its end, and what to do where it cannot be read.
//!
//! A log of which nothing can be read (or that is gone, with run directories to prove that there was one) leaves
//! open what runs. Nothing may then be started beside a run that lives. So the run directories are asked: what
//! they hold goes into the first line of the new log, as if it had been there, and the survey settles it like
//! any other run. Until that line is durable, every further start finds the same and does the same. What comes
//! after that is the operator's to say (`on_unreadable_log`); that nobody has said yet is a file, written before
//! the new log is.

use std::collections::BTreeMap;
use std::path::Path;

use super::main_loop::now;
use super::rebuild;
use super::start::Options;
use super::startup::Startup;
use super::words;
use crate::config::{Config, OnUnreadableLog};
use crate::core::event::Event;
use crate::core::ids::{Generation, JobName};
use crate::core::report::Entries;
use crate::core::severity::Read;
use crate::core::spec::Kind as JobKind;
use crate::core::state::State;
use crate::core::time::Stamp;
use crate::journal::{self, Entry, Journal, JournalError, Kind, Recovered, Report};
use crate::keeper;
use crate::state_dir::layout::{RuntimeDir, StateDir};

/// Exit code of an instance that has ended because nothing of its log can be read: that of `outlive journal`
/// for a loss.
const EXIT_UNREADABLE: u8 = 6;

/// The event log, read to its end.
pub(super) struct Memory {
    pub(super) journal: Journal,
    pub(super) state: State,
    /// This supervisor's.
    pub(super) generation: Generation,
    /// What is missing from the event log.
    pub(super) lost: Vec<(u64, u64)>,
    /// Why nothing is started before somebody says so.
    nothing_is_known: Option<&'static str>,
    read: Read,
    entries: Entries,
    damage: Vec<String>,
    /// What is doubtful about the ground it stands on.
    ground: Option<String>,
}

impl Memory {
    /// For the report of the start.
    pub(super) fn tell(&self, startup: &mut Startup) {
        if let Some(why) = self.nothing_is_known {
            startup.nothing_is_known(why);
        }
        startup.entries(self.entries);
        startup.read(self.read.clone());
        startup.damage(self.damage.iter().cloned());
        startup.note(self.ground.clone());
    }
}

/// Why there is none.
pub(super) enum NoMemory {
    /// It cannot be read now.
    Failed {
        why: String,
        /// Whether it may be tried again.
        again: bool,
    },
    /// The configuration wants the instance to end.
    End { why: String, code: u8 },
}

impl NoMemory {
    fn again(error: &dyn std::error::Error) -> Self {
        Self::Failed { why: words(error), again: true }
    }
}

/// What is needed to read it.
pub(super) struct Reader {
    state_dir: StateDir,
    runtime_dir: RuntimeDir,
    keep_runs: usize,
    policy: OnUnreadableLog,
    /// The configured jobs; `None` if that is not known.
    kinds: Option<BTreeMap<JobName, JobKind>>,
}

impl Reader {
    pub(super) fn new(options: &Options, config: &Config, unusable: bool) -> Self {
        let kinds = config.jobs.iter().map(|spec| (spec.name.clone(), spec.kind)).collect();
        Self {
            state_dir: StateDir(options.state_dir.clone()),
            runtime_dir: RuntimeDir(options.runtime_dir.clone()),
            keep_runs: super::start::keep_runs(config),
            policy: config.supervisor.on_unreadable_log,
            kinds: (!unusable).then_some(kinds),
        }
    }

    /// Remembers everything that is in the event log, says what is wrong with it, and begins to write.
    pub(super) fn read(&self) -> Result<Memory, NoMemory> {
        let mut state = State::new();
        state.keep_runs = self.keep_runs;
        let recovered = journal::recover(&self.state_dir.0, state, &mut |_, _| {}).map_err(|error| {
            NoMemory::Failed { again: matches!(error, JournalError::Io { .. }), why: words(&error) }
        })?;
        let gone = self.is_gone(&recovered.report)?;
        let nothing_is_known = self.nothing_is_known(gone)?;
        self.state_dir.upgrade_format().map_err(|error| NoMemory::again(&error))?;
        // A keeper that lives has met supervisors that the log may not know of any more.
        let known = recovered.state.instance.generation.max(keeper::newest_generation(&self.runtime_dir));
        let generation = Generation(known.0 + 1);
        let (journal, state, report) = self.begin(recovered, known, gone)?;
        let damage = report_damage(&report);
        if let Some(why) = journal.poisoned() {
            tracing::error!("the event log cannot be written: {why}");
        }
        let lost = report.lost.iter().map(|(first, last)| last.saturating_sub(*first) + 1).sum();
        let entries = Entries { read: report.lines, lost };
        let read = what_was_read(&report);
        let ground = super::ground::look(&self.state_dir.0);
        if let Some(doubt) = &ground {
            tracing::warn!("{doubt}");
        }
        Ok(Memory {
            journal,
            state,
            generation,
            lost: report.lost,
            nothing_is_known,
            read,
            entries,
            damage,
            ground,
        })
    }

    /// Whether there was a log, and nothing of it can be read.
    fn is_gone(&self, report: &Report) -> Result<bool, NoMemory> {
        if !report.knows_nothing() {
            return Ok(false);
        }
        let runs = self.state_dir.list_runs().map_err(|error| NoMemory::again(&error))?;
        Ok(report.unreadable || !runs.is_empty())
    }

    /// What follows from that, before anything is written.
    fn nothing_is_known(&self, gone: bool) -> Result<Option<&'static str>, NoMemory> {
        let noted = |done: std::io::Result<()>| done.map_err(|error| NoMemory::again(&error));
        match self.policy {
            OnUnreadableLog::Exit if gone => Err(NoMemory::End {
                why: format!(
                    "nothing in the event log in {} can be read, and on_unreadable_log is \"exit\": nothing was \
                     changed, and jobs that run go on; `outlive journal verify` says what is wrong, \"recovery-mode\" \
                     adopts what runs and starts nothing, \"fresh\" begins anew",
                    self.state_dir.0.display()
                ),
                code: EXIT_UNREADABLE,
            }),
            OnUnreadableLog::RecoveryMode if gone => {
                noted(self.state_dir.note_unreadable_log(now()))?;
                Ok(Some(NOTHING_KNOWN))
            }
            OnUnreadableLog::RecoveryMode if self.state_dir.unreadable_log().exists() => {
                Ok(Some(NOTHING_KNOWN))
            }
            _ => {
                noted(self.state_dir.forget_unreadable_log())?;
                Ok(None)
            }
        }
    }

    /// Begins to write. What the run directories know and the log does not is recorded first.
    fn begin(
        &self,
        recovered: Recovered,
        known: Generation,
        gone: bool,
    ) -> Result<(Journal, State, Report), NoMemory> {
        let at = now();
        let lossy = recovered.report.is_lossy();
        let (mut journal, mut state, report) = recovered.open(at, Generation(known.0 + 1));
        if let Some(why) = journal.poisoned().filter(|_| gone) {
            // Nobody would know of runs that live.
            return Err(NoMemory::Failed { why: why.to_owned(), again: true });
        }
        if (gone || lossy) && journal.poisoned().is_none() {
            let events = self.rebuilt(&state, known, gone)?;
            self.record(&mut journal, &mut state, (at, known), events)?;
        }
        Ok((journal, state, report))
    }

    fn rebuilt(&self, state: &State, known: Generation, gone: bool) -> Result<Vec<Event>, NoMemory> {
        let found = rebuild::rebuild(&self.state_dir, state, self.kinds.as_ref())
            .map_err(|error| NoMemory::again(&error))?;
        let mut events = Vec::new();
        if gone {
            let (version, epoch) = (env!("CARGO_PKG_VERSION").to_owned(), found.epoch);
            let (recovery, ending) = (false, false);
            let born_us = 0;
            events.push(Event::SupervisorStarted {
                generation: known,
                version,
                epoch,
                recovery,
                ending,
                born_us,
            });
        }
        if !found.events.is_empty() {
            tracing::warn!(runs = found.runs, "what runs was read from the run directories");
        }
        events.extend(found.events);
        Ok(events)
    }

    fn record(
        &self,
        journal: &mut Journal,
        state: &mut State,
        (at, generation): (Stamp, Generation),
        events: Vec<Event>,
    ) -> Result<(), NoMemory> {
        if events.is_empty() {
            return Ok(());
        }
        for event in &events {
            state.apply(event, at);
        }
        let entry = Entry { at, generation, events };
        journal.append(&[entry]).map(drop).map_err(|error| NoMemory::again(&error))
    }
}

const NOTHING_KNOWN: &str = "nothing in the event log can be read";

fn what_was_read(report: &Report) -> Read {
    let useless = report.damage.iter().filter(|damage| damage.kind == Kind::Useless).count();
    let copied = report.damage.iter().filter(|damage| damage.copy.is_some()).map(|damage| damage.bytes);
    Read {
        lines: report.lines,
        lost: report.lost.clone(),
        mended: report.mended,
        useless: u64::try_from(useless).unwrap_or(u64::MAX),
        bytes_quarantined: copied.sum(),
        damaged: report.is_damaged(),
    }
}

/// Says what is wrong with the event log, in the log and in words for the report of the start.
fn report_damage(report: &Report) -> Vec<String> {
    let mut words = Vec::new();
    for damage in &report.damage {
        let (file, copy) = (damage.file.display(), damage.copy.as_deref().unwrap_or(Path::new("nowhere")));
        let (offset, copy, why) = (damage.offset, copy.display(), &damage.why);
        match damage.kind {
            Kind::Torn => tracing::info!(%file, offset, %copy, "the event log has an unfinished end: {why}"),
            _ => {
                tracing::warn!(%file, offset, %copy, "the event log is damaged here: {why}");
                words.push(format!("the event log, {file} at {offset}: {why}; kept in {copy}"));
            }
        }
    }
    for (first, last) in &report.lost {
        tracing::error!(first, last, "these entries of the event log are missing");
        words.push(format!("the event log: entries {first} to {last} are missing"));
    }
    words
}
