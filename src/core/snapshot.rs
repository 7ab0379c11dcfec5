//! The memory as lines, and back: what a checkpoint holds.
//!
//! One line is one JSON object and one entity: a job with its history, the instance, an orphan. What the
//! state can work out again (indexes, deadlines) is in none. A state that was folded from events and one
//! restored from its lines are equal, but for what is handed in beside the events.
//!
//! A line that begins with `{"job":"…","rest":` is that of a job at rest ([`super::rest`]): it is left where
//! it is.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::alerts::Alerts;
use super::ids::{JobName, QueueName, RunId};
use super::instance::Instance;
use super::job::{Job, PastRun};
use super::progress::Published;
use super::queue::Stands;
use super::recoveries::{Incident, Totals};
use super::rest::{Place, Shelf, is_at_rest};
use super::saga::Sagas;
use super::spec::JobSpec;
use super::state::{Entry, State};
use super::stats::Stats;

/// Fields in the order of how often they are needed; the settings, the longest part, come last.
#[derive(Serialize)]
struct JobOut<'a> {
    job: &'a JobName,
    /// Its place among those that are over, if it is at rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<u64>,
    /// The same, if it is over but not at rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    over: Option<u64>,
    s: &'a Job,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    earlier: bool,
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    past: &'a VecDeque<PastRun>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<&'a Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<&'a Published>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<&'a Incident>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<&'a JobSpec>,
}

#[derive(Serialize)]
struct InstanceOut<'a> {
    instance: &'a Instance,
    /// How many submitted jobs have come to an end so far.
    overs: u64,
    #[serde(skip_serializing_if = "Sagas::is_empty")]
    sagas: &'a Sagas,
    #[serde(skip_serializing_if = "Totals::is_empty")]
    recoveries: &'a Totals,
    #[serde(skip_serializing_if = "Alerts::is_empty")]
    alerts: &'a Alerts,
    /// The highest number of a place in a line.
    #[serde(skip_serializing_if = "is_nought")]
    places: u64,
    /// Queues that are paused.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    paused: &'a BTreeSet<QueueName>,
}

#[derive(Serialize)]
struct OrphanOut<'a> {
    orphan: &'a RunId,
    #[serde(skip_serializing_if = "Option::is_none")]
    says: Option<&'a JobName>,
}

/// Any line. Fields that a later build adds are ignored.
#[derive(Deserialize)]
struct In {
    job: Option<JobName>,
    rest: Option<u64>,
    over: Option<u64>,
    s: Option<Job>,
    #[serde(default)]
    earlier: bool,
    #[serde(default)]
    past: VecDeque<PastRun>,
    stats: Option<Stats>,
    published: Option<Box<Published>>,
    incident: Option<Incident>,
    spec: Option<Box<JobSpec>>,
    instance: Option<Instance>,
    #[serde(default)]
    overs: u64,
    /// In earlier checkpoints: submitted jobs that are over, the oldest first.
    #[serde(default)]
    finished: Vec<JobName>,
    #[serde(default)]
    sagas: Sagas,
    recoveries: Option<Box<Totals>>,
    alerts: Option<Box<Alerts>>,
    #[serde(default)]
    places: u64,
    #[serde(default)]
    paused: BTreeSet<QueueName>,
    orphan: Option<RunId>,
    /// The job that an orphan says it belongs to.
    says: Option<JobName>,
}

/// Why a line cannot be taken back.
#[derive(Debug, thiserror::Error)]
pub enum BadEntity {
    /// No such JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Nothing that this build knows.
    #[error("it is no entity")]
    Unknown,
}

impl State {
    /// Hands every entity to `line`, as a JSON object, in an order that depends on nothing but the state.
    ///
    /// # Errors
    /// Those of `line`.
    pub fn entities<E: From<serde_json::Error>>(
        &self,
        mut line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = Vec::new();
        let mut put = |bytes: &mut Vec<u8>| {
            let done = line(bytes);
            bytes.clear();
            done
        };
        let instance = InstanceOut {
            instance: &self.instance,
            overs: self.overs,
            sagas: &self.sagas,
            recoveries: &self.recoveries.totals,
            alerts: &self.alerts,
            places: self.queues.numbers,
            paused: &self.queues.paused,
        };
        serde_json::to_writer(&mut bytes, &instance)?;
        put(&mut bytes)?;
        for name in self.names() {
            match self.rest.line(name) {
                Some(Ok(same)) => bytes = same,
                Some(Err(why)) => return Err(serde_json::Error::io(std::io::Error::other(why)).into()),
                None => self.job_line(name, &mut bytes)?,
            }
            put(&mut bytes)?;
        }
        for (orphan, says) in &self.orphans {
            serde_json::to_writer(&mut bytes, &OrphanOut { orphan, says: says.as_ref() })?;
            put(&mut bytes)?;
        }
        Ok(())
    }

    fn job_line(&self, name: &JobName, bytes: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let Some(entry) = self.entry(name) else { return Ok(()) };
        let Entry { job, past, stats, over, published } = entry;
        let spec = self.spec(name).filter(|_| job.submitted);
        let (rest, over) = if is_at_rest(job, spec) { (*over, None) } else { (None, *over) };
        let earlier = job.run().is_some_and(|run| self.earlier.contains(&run));
        serde_json::to_writer(
            bytes,
            &JobOut {
                job: name,
                rest,
                over,
                s: job,
                earlier,
                past,
                stats: stats.as_deref(),
                published: published.as_deref(),
                incident: self.recoveries.of(name),
                spec,
            },
        )
    }

    /// Takes one entity back. `kept` says where its line stays readable, if it does: then a job at rest is
    /// left there.
    ///
    /// # Errors
    /// If the line is none. The state is as it was then.
    pub fn restore(&mut self, line: &[u8], kept: Option<(&Arc<dyn Shelf>, u64)>) -> Result<(), BadEntity> {
        if let Some((shelf, offset)) = kept
            && let Some((name, over)) = at_rest(line)
            && let Some(place) = Place::new(offset, line.len())
        {
            self.finished.insert(over, name.clone());
            self.rest.put(shelf, name, place);
            return Ok(());
        }
        let In {
            job,
            rest,
            over,
            s,
            earlier,
            past,
            stats,
            published,
            incident,
            spec,
            instance,
            overs,
            finished,
            sagas,
            recoveries,
            alerts,
            places,
            paused,
            orphan,
            says,
        } = serde_json::from_slice(line)?;
        match (job, s, instance, orphan) {
            (Some(name), Some(job), None, None) => {
                self.instance.newest = self.instance.newest.max(past.iter().map(|past| past.run).max());
                // An earlier checkpoint says it elsewhere.
                let is_over = job.submitted && job.is_finished();
                let said = || self.finished.iter().find(|(_, other)| **other == name).map(|(n, _)| *n);
                let over = rest.or(over).or_else(|| if is_over { said() } else { None });
                if let Some(n) = over {
                    self.finished.insert(n, name.clone());
                }
                if let Some(run) = job.run() {
                    self.live.insert(run, name.clone());
                    if earlier {
                        self.earlier.insert(run);
                    }
                }
                self.index(&name, &job);
                if let Some(incident) = incident {
                    Arc::make_mut(&mut self.recoveries).open.insert(name.clone(), incident);
                }
                if let Some(spec) = spec {
                    self.insert_spec(Arc::new(*spec));
                }
                self.jobs.insert(name, Box::new(slim(job, past, (stats, published), over)));
            }
            (None, None, Some(instance), None) => {
                self.instance = instance;
                self.overs = overs.max(finished.len() as u64);
                self.finished = (1..).zip(finished).collect();
                self.sagas = sagas;
                (self.queues.numbers, self.queues.paused) = (places, paused);
                self.alerts = Arc::new(alerts.map(|alerts| *alerts).unwrap_or_default());
                Arc::make_mut(&mut self.recoveries).totals =
                    recoveries.map(|totals| *totals).unwrap_or_default();
            }
            (None, None, None, Some(orphan)) => {
                self.orphans.insert(orphan, says);
            }
            _ => return Err(BadEntity::Unknown),
        }
        Ok(())
    }

    fn index(&mut self, name: &JobName, job: &Job) {
        self.queues.change((None, Stands::of(name, job)));
        if let Some(at) = job.deadline() {
            self.deadlines.insert((at, name.clone()));
        }
    }

    /// Everything was taken back.
    pub fn restored(&mut self) {
        self.rest.settle();
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_nought(n: &u64) -> bool {
    *n == 0
}

/// Most of them will never grow again.
fn slim(
    mut job: Job,
    mut past: VecDeque<PastRun>,
    (stats, published): (Option<Stats>, Option<Box<Published>>),
    over: Option<u64>,
) -> Entry {
    past.shrink_to_fit();
    job.window.shrink_to_fit();
    Entry { job, past, stats: stats.map(Arc::new), over, published }
}

/// Name and place among those that are over, if this is the line of a job at rest.
fn at_rest(line: &[u8]) -> Option<(JobName, u64)> {
    let line = line.strip_prefix(b"{\"job\":\"")?;
    let end = memchr::memchr(b'"', line.get(..line.len().min(JobName::MAX_BYTES + 1))?)?;
    let rest = line[end..].strip_prefix(b"\",\"rest\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let over = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    Some((JobName::new(std::str::from_utf8(&line[..end]).ok()?).ok()?, over))
}

/// What the line of a job says.
pub(super) struct JobLine {
    pub(super) name: JobName,
    pub(super) entry: Entry,
    pub(super) spec: Option<Arc<JobSpec>>,
}

/// Reads the line of a job up to its settings, if nobody has to know which jobs it depends on.
pub(super) fn job_without_spec(line: &[u8]) -> Result<JobLine, BadEntity> {
    // Text of any kind has its quotes escaped, so this is where the last field begins.
    let spec = memchr::memmem::find(line, b",\"spec\":{\"name\":");
    let alone = |at: usize| memchr::memmem::find(&line[at..], b",\"depends_on\":[],").is_some();
    match spec {
        Some(at) if alone(at) => job(&[&line[..at], b"}"].concat()).or_else(|_| job(line)),
        _ => job(line),
    }
}

/// Reads the line of a job.
pub(super) fn job(line: &[u8]) -> Result<JobLine, BadEntity> {
    let In { job, rest, over, s, past, stats, published, spec, .. } = serde_json::from_slice(line)?;
    let (Some(name), Some(job)) = (job, s) else { return Err(BadEntity::Unknown) };
    Ok(JobLine {
        name,
        entry: slim(job, past, (stats, published), rest.or(over)),
        spec: spec.map(|spec| Arc::new(*spec)),
    })
}
