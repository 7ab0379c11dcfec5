//! What is true, whatever any of our processes believes: processes, init's table, the files of runs.

use std::collections::BTreeMap;

use outlive::core::identity::{Epoch, Identity};
use outlive::core::ids::{JobName, RunId};
use outlive::core::outcome::{Asked, ExitRecord, Outcome, Source};
use outlive::core::rung::Rung;
use outlive::core::spec::KillScope;
use outlive::core::time::Stamp;

use crate::random::Rng;

/// Where a process is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    /// Made, and not past `execve`.
    Forked,
    /// Runs its program.
    Live,
    /// Ended; init holds it until the keeper has recorded how.
    Zombie { outcome: Outcome, at: Stamp },
    /// Gone.
    Gone,
}

/// The main process of a run, and what belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct Proc {
    pub(crate) job: JobName,
    pub(crate) identity: Identity,
    pub(crate) started: Stamp,
    pub(crate) stage: Stage,
    /// Other processes of the run are there.
    pub(crate) leftovers: bool,
    /// Whether the supervisor has said to leave those alone.
    pub(crate) disowned: bool,
    /// Whether it ever ran its program.
    pub(crate) ran: bool,
    /// How it truly ended.
    pub(crate) end: Option<Outcome>,
    /// Whether how it ended may have become unknowable.
    pub(crate) unknowable: bool,
}

impl Proc {
    pub(crate) fn lives(&self) -> bool {
        matches!(self.stage, Stage::Forked | Stage::Live)
    }

    /// Whether anything of the run is there that nobody has let go of.
    pub(crate) fn exists(&self) -> bool {
        self.lives() || (self.leftovers && !self.disowned)
    }
}

/// Who has won the start of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    Open,
    Exec,
    Cancelled,
}

/// The files of a run.
#[derive(Debug, Clone)]
pub(crate) struct RunFiles {
    pub(crate) job: JobName,
    /// The run directory; it may be lost in a power cut as long as it was not synced.
    pub(crate) dir: bool,
    pub(crate) dir_synced: bool,
    /// The runtime directory, which no reboot survives, and the decision in it.
    pub(crate) runtime: bool,
    pub(crate) claim: Claim,
    /// The last rung whose signal was sent; in the runtime directory, too.
    pub(crate) sent: Option<Rung>,
    pub(crate) exit: Option<ExitRecord>,
    pub(crate) exit_synced: bool,
}

/// The host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) now: Stamp,
    pub(crate) epoch: Epoch,
    pub(crate) procs: BTreeMap<RunId, Proc>,
    pub(crate) files: BTreeMap<RunId, RunFiles>,
    /// Whether init lives.
    pub(crate) init: bool,
    pids: i32,
    epochs: u64,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            now: Stamp { boot_us: 5_000_000, wall_us: 1_763_600_000_000_000 },
            epoch: epoch(1),
            procs: BTreeMap::new(),
            files: BTreeMap::new(),
            init: false,
            pids: 1,
            epochs: 1,
        }
    }

    pub(crate) fn pass(&mut self, us: u64) {
        self.now.boot_us += us;
        self.now.wall_us += us as i64;
    }

    /// A process for a run, not yet past `execve`.
    pub(crate) fn fork(&mut self, run: RunId, job: &JobName) -> Identity {
        self.pids += 1;
        let identity = Identity {
            pid: self.pids,
            pidfs: self.pids as u64,
            start_ticks: self.now.boot_us / 10_000,
            epoch: self.epoch.clone(),
        };
        let proc = Proc {
            job: job.clone(),
            identity: identity.clone(),
            started: self.now,
            stage: Stage::Forked,
            leftovers: false,
            disowned: false,
            ran: false,
            end: None,
            unknowable: false,
        };
        self.procs.insert(run, proc);
        identity
    }

    /// The main process ends. Init holds it, if there is an init.
    pub(crate) fn end(&mut self, run: RunId, outcome: Outcome, leftovers: bool) {
        let (now, init) = (self.now, self.init);
        let Some(proc) = self.procs.get_mut(&run).filter(|proc| proc.lives()) else { return };
        proc.leftovers = leftovers;
        proc.end = Some(outcome.clone());
        proc.stage = Stage::Zombie { outcome, at: now };
        if !init {
            // Reaped by a stranger at once; the keeper's descriptor may tell, if there is a keeper.
            proc.unknowable = true;
        }
    }

    /// Signals a run. What a process makes of it is its own business, but for KILL.
    pub(crate) fn signal(
        &mut self,
        run: RunId,
        (signal, scope): (i32, KillScope),
        rng: &mut Rng,
        calm: bool,
    ) {
        let Some(proc) = self.procs.get_mut(&run) else { return };
        let obeys = signal == 9 || (calm && signal == 15) || (signal != 1 && rng.one_in(2));
        let whole = matches!(scope, KillScope::Tree | KillScope::Mixed);
        if !obeys {
            return;
        }
        if proc.lives() {
            let ran = proc.stage == Stage::Live;
            let more = ran && !calm && !whole && rng.one_in(3);
            let polite = signal != 9 && rng.one_in(3);
            let outcome =
                if polite { Outcome::Exited { code: 0 } } else { Outcome::Signaled { signal, core: false } };
            self.end(run, outcome, more);
        } else if whole {
            proc.leftovers = false;
        }
    }

    /// Every process is gone. `boot`: the clock begins anew; `cut`: so are files that were not synced.
    pub(crate) fn restart(&mut self, boot: bool, cut: bool, rng: &mut Rng) {
        self.epochs += 1;
        self.epoch = epoch(self.epochs);
        self.init = false;
        if boot {
            self.now.boot_us = 1_000_000 + rng.below(1_000_000);
            self.now.wall_us += 20_000_000;
        }
        for (run, proc) in &mut self.procs {
            // Its end was in memory only.
            if self.files.get(run).is_none_or(|files| files.exit.is_none()) {
                proc.unknowable = true;
            }
            proc.stage = Stage::Gone;
            proc.leftovers = false;
        }
        for (run, files) in &mut self.files {
            files.runtime = false;
            if cut && !files.exit_synced && files.exit.is_some() && rng.one_in(2) {
                files.exit = None;
                if let Some(proc) = self.procs.get_mut(run) {
                    proc.unknowable = true;
                }
            }
            if cut && !files.dir_synced && rng.one_in(2) {
                files.dir = false;
                files.exit = None;
                if let Some(proc) = self.procs.get_mut(run) {
                    proc.unknowable = true;
                }
            }
        }
    }

    /// The record of a run that ended.
    pub(crate) fn record(
        &self,
        run: RunId,
        job: &JobName,
        end: (Outcome, Stamp),
        asked: Asked,
    ) -> ExitRecord {
        let proc = self.procs.get(&run);
        let source = match end.0 {
            Outcome::Lost { .. } => Source::None,
            Outcome::Cancelled | Outcome::NotStarted { .. } => Source::Keeper,
            Outcome::Exited { .. } | Outcome::Signaled { .. } | Outcome::OomKilled => Source::Wait,
        };
        ExitRecord {
            v: 1,
            run,
            job: job.clone(),
            outcome: end.0,
            source,
            asked,
            started: proc.filter(|proc| proc.ran).map(|proc| proc.started),
            ended: end.1,
            rusage: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            dropped_bytes: 0,
            output_complete: true,
        }
    }
}

fn epoch(n: u64) -> Epoch {
    Epoch { boot_id: "16ba941f".to_owned(), init: n }
}
