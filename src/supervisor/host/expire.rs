//! Room on a full file system: directories of ended runs are removed, the oldest first, and closed output of
//! ended runs is compressed.
//!
//! Only what is proven to be ours and over is touched. A run's directory has its id for a name, a `run.json` and
//! an `exit.json` that say the same; the keeper has forgotten it, so its runtime directory is gone; it is not
//! among those that live, nor the latest of its job. It is renamed first, in one step. Who dies in the middle
//! leaves a directory that is still whole, or one with the other name, in which `run.json` goes last: it is
//! removed the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::core::host::{Kind, Share};
use crate::core::ids::{JobName, RunId};
use crate::state_dir::exit::read_exit;
use crate::state_dir::layout::{RunDir, RuntimeDir, StateDir};
use crate::state_dir::output::{self, Series};
use crate::sys::host;

use super::super::saga::die_if_asked;

/// Ends the name of a directory that is being removed.
const GOING: &str = ".expired";

/// What there is to make room in, and what has to stay.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) state: StateDir,
    pub(super) runtime: RuntimeDir,
    /// Runs that live or may live, and the latest of each job.
    pub(super) kept: BTreeSet<RunId>,
}

/// What has too little room.
#[derive(Debug, Clone)]
pub(super) struct Goal {
    pub(super) kind: Kind,
    pub(super) path: PathBuf,
    /// How much may be in use in the end.
    pub(super) aim: Share,
}

impl Goal {
    fn device(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(&self.path)?.dev())
    }

    fn is_reached(&self) -> io::Result<bool> {
        let disk = host::disk(&self.path)?;
        let share = if self.kind == Kind::Inodes {
            Share::of(disk.inodes.saturating_sub(disk.inodes_free), disk.inodes)
        } else {
            Share::of(disk.used, disk.used.saturating_add(disk.available))
        };
        Ok(share <= self.aim)
    }
}

/// An ended run, proven to be ours.
#[derive(Debug)]
struct Ended {
    run: RunId,
    job: JobName,
    dir: RunDir,
    /// Its output, where that is elsewhere.
    elsewhere: Option<PathBuf>,
}

/// How many were done, and the first of the errors that kept others from it.
#[derive(Default)]
struct Count {
    done: u64,
    first: Option<io::Error>,
}

impl Count {
    fn note(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.done += 1,
            // Somebody else has done it, or is about it.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock) => {}
            Err(error) => {
                tracing::warn!(%error, "while making room");
                self.first.get_or_insert(error);
            }
        }
    }

    /// It has failed if nothing could be done.
    fn result(self) -> io::Result<u64> {
        self.first.filter(|_| self.done == 0).map_or(Ok(self.done), Err)
    }
}

/// Removes directories until the goal is reached; how many. What cannot be removed is passed over.
pub(super) fn expire(site: &Site, goal: &Goal) -> io::Result<u64> {
    let device = goal.device()?;
    let mut count = Count::default();
    finish_what_was_begun(site, &mut count)?;
    for ended in ended(site)?.iter().filter(|ended| ended.is_on(device)) {
        if goal.is_reached()? {
            break;
        }
        count.note(expire_one(site, ended));
    }
    count.result()
}

fn expire_one(site: &Site, ended: &Ended) -> io::Result<()> {
    // A run that has become the latest meanwhile has another id: what was kept is kept.
    let going = site.state.runs().join(format!("{}{GOING}", ended.run));
    // `NotFound`: nobody remembers it any more, and it went for that.
    std::fs::rename(&ended.dir.0, &going)?;
    die_if_asked("heal:expire");
    tracing::info!(job = %ended.job, run = %ended.run, "its directory is removed to make room");
    remove(&RunDir(going), ended.run, &ended.job)
}

/// Compresses closed segments of ended runs; how many.
pub(super) fn rotate(site: &Site, goal: &Goal) -> io::Result<u64> {
    let device = goal.device()?;
    let mut count = Count::default();
    for ended in ended_with_latest(site)?.iter().filter(|ended| ended.is_on(device)) {
        let dir = ended.dir.output();
        let Ok(names) = output::scan(&dir) else { continue };
        for series in Series::ALL {
            let found = output::segments(&names, series);
            // The newest is always plain.
            let (_, closed) =
                found.split_last().map_or((None, &found[..]), |(last, rest)| (Some(last), rest));
            for segment in closed.iter().filter(|segment| segment.plain) {
                count.note(output::compress(&dir, series, segment.start, &AtomicBool::new(false)));
            }
        }
    }
    count.result()
}

impl Ended {
    /// Whether it has anything on this device.
    fn is_on(&self, device: u64) -> bool {
        let on = |path: &Path| std::fs::metadata(path).is_ok_and(|meta| meta.dev() == device);
        on(&self.dir.0) || self.elsewhere.as_deref().is_some_and(on)
    }
}

/// Ended runs that may go, oldest first.
fn ended(site: &Site) -> io::Result<Vec<Ended>> {
    let all = ended_with_latest(site)?;
    let mut latest: BTreeMap<&JobName, RunId> = BTreeMap::new();
    // Ids of runs are in the order of time.
    for ended in &all {
        latest.insert(&ended.job, ended.run);
    }
    let latest: BTreeSet<RunId> = latest.into_values().collect();
    Ok(all
        .into_iter()
        .filter(|ended| !site.kept.contains(&ended.run) && !latest.contains(&ended.run))
        .collect())
}

/// All ended runs that the keeper has forgotten, oldest first.
fn ended_with_latest(site: &Site) -> io::Result<Vec<Ended>> {
    let mut runs = site.state.list_runs()?;
    runs.sort_unstable();
    Ok(runs.into_iter().filter_map(|run| proven(site, run)).collect())
}

fn proven(site: &Site, run: RunId) -> Option<Ended> {
    let dir = site.state.run(run);
    let is_dir = std::fs::symlink_metadata(&dir.0).is_ok_and(|meta| meta.is_dir());
    if !is_dir || site.runtime.run(run).0.exists() {
        return None;
    }
    let record = dir.read_run().ok()??;
    let exit = read_exit(&dir).ok()??;
    let ours = record.run == run && exit.run == run && record.job == exit.job;
    // A latest run that is live for its job is kept by its id.
    ours.then(|| Ended { run, elsewhere: elsewhere(&dir, run, &record.job), job: record.job, dir })
}

/// Where its output is, if that is elsewhere and the path is one that a run of this job gets.
fn elsewhere(dir: &RunDir, run: RunId, job: &JobName) -> Option<PathBuf> {
    let target = std::fs::read_link(dir.output()).ok()?;
    let named = target.file_name()? == run.to_string().as_str();
    let owned = target.parent()?.file_name()? == job.as_str();
    (target.is_absolute() && named && owned).then_some(target)
}

/// Removes what another of us had begun to remove.
fn finish_what_was_begun(site: &Site, count: &mut Count) -> io::Result<()> {
    for entry in site.state.runs().read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let run = name.to_str().and_then(|name| name.strip_suffix(GOING)?.parse::<RunId>().ok());
        let (Some(run), true) = (run, entry.file_type()?.is_dir()) else { continue };
        let dir = RunDir(entry.path());
        match dir.read_run() {
            Ok(Some(record)) if record.run == run => count.note(remove(&dir, run, &record.job)),
            // Nothing is left of it. If something is, that is not ours, and this fails.
            Ok(None) if std::fs::remove_dir(&dir.0).is_ok() => count.note(Ok(())),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Removes a directory; what proves that it is ours goes last.
fn remove(dir: &RunDir, run: RunId, job: &JobName) -> io::Result<()> {
    if let Some(elsewhere) = elsewhere(dir, run, job) {
        gone(std::fs::remove_dir_all(elsewhere))?;
    }
    let proof = dir.run_json();
    for entry in dir.0.read_dir()? {
        let entry = entry?;
        let path = entry.path();
        if path == proof {
            continue;
        }
        if entry.file_type()?.is_dir() {
            gone(std::fs::remove_dir_all(&path))?;
        } else {
            gone(std::fs::remove_file(&path))?;
        }
        die_if_asked("heal:expire-file");
    }
    gone(std::fs::remove_file(proof))?;
    std::fs::remove_dir(&dir.0)
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
