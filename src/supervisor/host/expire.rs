//! Room on a full file system: directories of ended runs are removed, the oldest first, and closed output of
//! ended runs is compressed.
//!
//! Only what is proven to be ours and over is touched. A run's directory has its id for a name, a `run.json` and
//! an `exit.json` that say the same; the keeper has forgotten it, so its runtime directory is gone; it is not
//! among those that live, nor the latest of its job. It is renamed first, in one step. Who dies in the middle
//! leaves a directory that is still whole, or one with the other name, in which `run.json` goes last: it is
//! removed the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::core::host::{Kind, Share};
use crate::core::ids::{JobName, RunId};
use crate::state_dir::exit::read_exit;
use crate::state_dir::layout::{RunDir, RuntimeDir, StateDir};
use crate::state_dir::output::{self, Series};
use crate::sys::{disk, host};

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

/// Removes directories until the goal is reached; how many.
pub(super) fn expire(site: &Site, goal: &Goal) -> io::Result<u64> {
    let device = goal.device()?;
    let mut removed = finish_what_was_begun(site)?;
    for ended in ended(site)?.iter().filter(|ended| ended.is_on(device)) {
        if goal.is_reached()? {
            break;
        }
        // A run that has become the latest meanwhile has another id: what was kept is kept.
        let going = site.state.runs().join(format!("{}{GOING}", ended.run));
        match std::fs::rename(&ended.dir.0, &going) {
            // Nobody remembers it any more, and it went for that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        }
        die_if_asked("heal:expire");
        tracing::info!(job = %ended.job, run = %ended.run, "its directory is removed to make room");
        remove(&RunDir(going), ended.run, &ended.job)?;
        removed += 1;
    }
    Ok(removed)
}

/// Compresses closed segments of ended runs; how many.
pub(super) fn rotate(site: &Site, goal: &Goal) -> io::Result<u64> {
    let device = goal.device()?;
    let mut count = 0;
    for ended in ended_with_latest(site)?.iter().filter(|ended| ended.is_on(device)) {
        let dir = ended.dir.output();
        let names = output::scan(&dir)?;
        for series in Series::ALL {
            let found = output::segments(&names, series);
            // The newest is always plain.
            let (_, closed) =
                found.split_last().map_or((None, &found[..]), |(last, rest)| (Some(last), rest));
            for segment in closed.iter().filter(|segment| segment.plain) {
                compress(&dir, series, segment.start)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// As the keeper does it: the compressed file gets its name when it is whole, and only then the plain one goes.
fn compress(dir: &Path, series: Series, start: u64) -> io::Result<()> {
    let (plain, packed) = (series.plain(dir, start), series.compressed(dir, start));
    if !packed.exists() {
        let aside = series.compressing(dir, start);
        let done = (|| {
            let to = disk::create_or_truncate(&aside, 0o600)?;
            pack(&mut disk::open_read(&plain)?, &to)?;
            disk::sync_data(&to)?;
            std::fs::rename(&aside, &packed)?;
            disk::sync_dir(dir)
        })();
        if let Err(error) = done {
            let _ = std::fs::remove_file(&aside);
            return Err(error);
        }
    }
    std::fs::remove_file(&plain)
}

fn pack(from: &mut File, to: &File) -> io::Result<()> {
    let mut gz = flate2::write::GzEncoder::new(to, flate2::Compression::fast());
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return gz.finish().map(drop),
            n => gz.write_all(&buffer[..n])?,
        }
    }
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
fn finish_what_was_begun(site: &Site) -> io::Result<u64> {
    let mut removed = 0;
    for entry in site.state.runs().read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let run = name.to_str().and_then(|name| name.strip_suffix(GOING)?.parse::<RunId>().ok());
        let (Some(run), true) = (run, entry.file_type()?.is_dir()) else { continue };
        let dir = RunDir(entry.path());
        match dir.read_run() {
            Ok(Some(record)) if record.run == run => remove(&dir, run, &record.job)?,
            // Nothing is left of it. If something is, that is not ours, and this fails.
            Ok(None) if std::fs::remove_dir(&dir.0).is_ok() => {}
            Ok(_) | Err(_) => continue,
        }
        removed += 1;
    }
    Ok(removed)
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
