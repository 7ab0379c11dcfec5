//! Jobs at rest: tasks that are over, and that nothing but an operator's verb starts again.
//!
//! There may be very many of them, and hardly ever does a decision ask for one. So the memory holds their
//! names, and where their line is in the checkpoint it was restored from. Whoever wants to know more reads
//! it ([`Rest::get`] keeps what was read, [`Rest::look`] does not). A job that anything happens to wakes up:
//! from then on it is in memory like all others, but for its settings, which never change: they are read when
//! somebody asks for them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use super::event::Want;
use super::ids::JobName;
use super::job::{Job, PastRun, Phase};
use super::progress::Published;
use super::snapshot::{self, BadEntity, JobLine};
use super::spec::{JobSpec, Kind};
use super::state::Entry;
use super::stats::Stats;
use super::time::Stamp;

/// Where lines of entities are kept.
pub trait Shelf: Debug + Send + Sync {
    /// One line, as a JSON object that proved itself.
    ///
    /// # Errors
    /// Why it cannot be had, in words.
    fn fetch(&self, place: Place) -> Result<Vec<u8>, String>;
}

/// Where a line is: its offset in the file and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u64);

/// A line has less than this many bytes, or its job stays in memory.
const LEN_BITS: u32 = 20;

impl Place {
    /// Offset and length of a line; `None` if they are too large.
    #[must_use]
    pub fn new(offset: u64, len: usize) -> Option<Self> {
        let len = u64::try_from(len).ok().filter(|len| len >> LEN_BITS == 0)?;
        (offset >> (64 - LEN_BITS) == 0).then_some(Self(offset << LEN_BITS | len))
    }

    /// Where it begins.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 >> LEN_BITS
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.0 & ((1 << LEN_BITS) - 1)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// What is known of a job at rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Rested {
    pub(super) entry: Entry,
    pub(super) spec: Option<Arc<JobSpec>>,
}

impl Rested {
    /// The job.
    #[must_use]
    pub const fn job(&self) -> &Job {
        &self.entry.job
    }

    /// Its settings.
    #[must_use]
    pub fn spec(&self) -> Option<&JobSpec> {
        self.spec.as_deref()
    }

    /// What its runs before the latest came to.
    #[must_use]
    pub const fn stats(&self) -> Option<&Arc<Stats>> {
        self.entry.stats.as_ref()
    }

    /// What it has published.
    #[must_use]
    pub fn published(&self) -> Option<&Published> {
        self.entry.published.as_deref()
    }

    /// Its runs, the latest last.
    pub fn runs(&self) -> impl Iterator<Item = &PastRun> {
        self.entry.past.iter()
    }
}

#[derive(Debug)]
struct Item {
    name: JobName,
    place: Place,
    read: OnceLock<Box<Rested>>,
    /// Of one that woke up.
    spec: OnceLock<Option<Arc<JobSpec>>>,
}

#[derive(Debug, Default)]
struct List {
    shelf: Option<Arc<dyn Shelf>>,
    /// By name.
    items: Vec<Item>,
}

/// All jobs at rest. A copy shares everything that is large.
#[derive(Debug, Clone, Default)]
pub struct Rest {
    list: Arc<List>,
    /// Those of them that are at rest no longer.
    woken: BTreeSet<JobName>,
    /// Whether an epoch has begun since their lines were written.
    other_epoch: bool,
}

impl Rest {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.items.len() - self.woken.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &JobName> {
        self.list.items.iter().map(|item| &item.name).filter(|name| !self.woken.contains(*name))
    }

    /// Whether a job is at rest.
    #[must_use]
    pub fn contains(&self, name: &JobName) -> bool {
        self.find(name).is_some()
    }

    /// What is known of a job, kept from now on.
    #[must_use]
    pub fn get(&self, name: &JobName) -> Option<&Rested> {
        let item = self.find(name)?;
        Some(item.read.get_or_init(|| Box::new(self.read(item, snapshot::job))))
    }

    /// What is known of a job, read for this time only.
    #[must_use]
    pub fn look(&self, name: &JobName) -> Option<Rested> {
        let item = self.find(name)?;
        Some(item.read.get().map_or_else(|| self.read(item, snapshot::job), |read| (**read).clone()))
    }

    /// The line of a job as it was written; `None` if it would be written otherwise today.
    pub(super) fn line(&self, name: &JobName) -> Option<Result<Vec<u8>, String>> {
        let item = self.find(name).filter(|_| !self.other_epoch)?;
        Some(self.fetch(item))
    }

    /// Takes a job in. They come in the order of their names, or [`Rest::settle`] puts them into it.
    pub(super) fn put(&mut self, shelf: &Arc<dyn Shelf>, name: JobName, place: Place) {
        // While it is filled, nobody else has it; an empty one may come from a copy.
        if self.list.items.is_empty() {
            self.list = Arc::default();
        }
        if let Some(list) = Arc::get_mut(&mut self.list) {
            list.shelf.get_or_insert_with(|| Arc::clone(shelf));
            list.items.push(Item { name, place, read: OnceLock::new(), spec: OnceLock::new() });
        }
    }

    /// All are in.
    pub(super) fn settle(&mut self) {
        if let Some(list) = Arc::get_mut(&mut self.list) {
            if !list.items.is_sorted_by(|a, b| a.name < b.name) {
                list.items.sort_by(|a, b| a.name.cmp(&b.name));
                list.items.dedup_by(|a, b| a.name == b.name);
            }
            list.items.shrink_to_fit();
        }
    }

    /// Takes a job out. Its settings are left out if they may be: [`Rest::spec`] has them.
    pub(super) fn wake(&mut self, name: &JobName) -> Option<Rested> {
        let item = self.find(name)?;
        let rested = self.read(item, snapshot::job_without_spec);
        self.woken.insert(name.clone());
        Some(rested)
    }

    /// The settings of a job that is at rest, or was when the memory was read.
    pub(super) fn spec(&self, name: &JobName) -> Option<&Arc<JobSpec>> {
        let items = &self.list.items;
        let item = &items[items.binary_search_by(|item| item.name.cmp(name)).ok()?];
        match item.read.get() {
            Some(read) => read.spec.as_ref(),
            None => item.spec.get_or_init(|| self.read(item, snapshot::job).spec).as_ref(),
        }
    }

    /// Leaves a job out: it is at rest no longer.
    pub fn forget(&mut self, name: &JobName) {
        if self.contains(name) {
            self.woken.insert(name.clone());
        }
    }

    /// The stamps of the boot clock in their lines mean nothing any more.
    pub(super) fn meet_epoch(&mut self) {
        self.other_epoch = true;
        if let Some(list) = Arc::get_mut(&mut self.list) {
            for item in &mut list.items {
                item.read.take();
            }
        } else if self.list.items.iter().any(|item| item.read.get().is_some()) {
            // A copy of the memory lives in the other epoch: what was read for it stays with it.
            let again = |item: &Item| Item {
                name: item.name.clone(),
                place: item.place,
                read: OnceLock::new(),
                spec: item.spec.clone(),
            };
            let items = self.list.items.iter().map(again).collect();
            self.list = Arc::new(List { shelf: self.list.shelf.clone(), items });
        }
    }

    fn find(&self, name: &JobName) -> Option<&Item> {
        let items = &self.list.items;
        let at = items.binary_search_by(|item| item.name.cmp(name)).ok()?;
        (!self.woken.contains(name)).then(|| &items[at])
    }

    fn fetch(&self, item: &Item) -> Result<Vec<u8>, String> {
        match &self.list.shelf {
            Some(shelf) => shelf.fetch(item.place),
            None => Err("nobody knows where".to_owned()),
        }
    }

    fn read(&self, item: &Item, how: fn(&[u8]) -> Result<JobLine, BadEntity>) -> Rested {
        let read = self.fetch(item).and_then(|line| {
            let read = how(&line).map_err(|error| error.to_string())?;
            if read.name == item.name { Ok(read) } else { Err("it is another job's line".to_owned()) }
        });
        let mut rested = match read {
            Ok(read) => Rested { entry: read.entry, spec: read.spec },
            Err(why) => unreadable(&why),
        };
        if self.other_epoch {
            rested.entry.job.window.clear();
        }
        rested
    }
}

/// A job of which only the name is left. It is not forgotten, and nothing starts it.
fn unreadable(why: &str) -> Rested {
    let mut job = Job::new(Want::Down, true, Stamp::default());
    let why = format!("what was known of it cannot be read: {why}");
    job.phase = Phase::Fatal { why, retry_at: None };
    Rested {
        entry: Entry {
            job,
            past: std::collections::VecDeque::new(),
            stats: None,
            over: None,
            published: None,
        },
        spec: None,
    }
}

/// Whether a job rests: nothing but an operator's verb starts it again, whatever becomes of the instance.
pub(super) fn is_at_rest(job: &Job, spec: Option<&JobSpec>) -> bool {
    let task = spec.is_some_and(|spec| spec.kind == Kind::Task && job.last.is_some());
    job.submitted && !job.removed && job.phase == Phase::Exited && task
}
