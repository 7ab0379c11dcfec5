//! Who stands in which line, as an index beside the jobs: worked out from them, never stored.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::event::Event;
use super::super::ids::{JobName, QueueName};
use super::super::job::{Job, Phase};

/// One in a line. The least goes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    priority: Reverse<i32>,
    number: u64,
    /// Whose it is.
    pub job: JobName,
}

impl Ticket {
    pub(super) const fn priority(&self) -> i32 {
        self.priority.0
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }
}

/// What the configuration says of queues; handed in, like the settings of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The queues there are, and how many runs of each there may be at once.
    pub slots: BTreeMap<QueueName, u32>,
    /// How many runs of all of them together; `None`: as many as there are slots.
    pub all: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { slots: BTreeMap::from([(QueueName::default(), super::SLOTS)]), all: None }
    }
}

impl Settings {
    pub(super) fn all_slots(&self) -> usize {
        self.all.map_or(usize::MAX, |all| all as usize)
    }
}

/// Everything about queues that outlives a decision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Queues {
    /// What the configuration says.
    pub settings: Settings,
    /// Queues in which no turn is given.
    pub paused: BTreeSet<QueueName>,
    /// The highest number that was given to a place.
    pub numbers: u64,
    waiting: BTreeMap<QueueName, BTreeSet<Ticket>>,
    busy: BTreeMap<QueueName, usize>,
}

/// What a job means for the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Stands {
    /// It waits for its turn.
    InLine(QueueName, Ticket),
    /// It has a slot.
    HasSlot(QueueName),
}

impl Stands {
    pub(in super::super) fn of(name: &JobName, job: &Job) -> Option<Self> {
        let place = job.place.as_deref()?;
        let ticket = || Ticket { priority: Reverse(place.priority), number: place.number, job: name.clone() };
        if job.removed && job.run().is_none() {
            None
        } else if job.run().is_some() {
            Some(Self::HasSlot(place.queue.clone()))
        } else if job.phase == Phase::Queued && place.is_in_line() {
            Some(Self::InLine(place.queue.clone(), ticket()))
        } else {
            None
        }
    }
}

/// From what a job stood for to what it stands for.
type Change = (Option<Stands>, Option<Stands>);

impl Queues {
    /// Remembers what has become of a job.
    pub(in super::super) fn change(&mut self, (before, after): Change) {
        if before == after {
            return;
        }
        match before {
            Some(Stands::InLine(queue, ticket)) => {
                if let Some(line) = self.waiting.get_mut(&queue) {
                    line.remove(&ticket);
                    if line.is_empty() {
                        self.waiting.remove(&queue);
                    }
                }
            }
            Some(Stands::HasSlot(queue)) => {
                if let Some(busy) = self.busy.get_mut(&queue) {
                    *busy = busy.saturating_sub(1);
                    if *busy == 0 {
                        self.busy.remove(&queue);
                    }
                }
            }
            None => {}
        }
        match after {
            Some(Stands::InLine(queue, ticket)) => {
                self.waiting.entry(queue).or_default().insert(ticket);
            }
            Some(Stands::HasSlot(queue)) => *self.busy.entry(queue).or_default() += 1,
            None => {}
        }
    }

    /// Remembers an event of a queue, or the number of a place.
    pub(in super::super) fn note(&mut self, event: &Event) {
        match event {
            Event::Queued { place, .. } => self.numbers = self.numbers.max(place.number),
            Event::QueuePaused { queue, .. } => {
                self.paused.insert(queue.clone());
            }
            Event::QueueResumed { queue, .. } => {
                self.paused.remove(queue);
            }
            _ => {}
        }
    }

    /// Those in line, in the order of their turns.
    pub fn in_line(&self, queue: &QueueName) -> impl Iterator<Item = &Ticket> {
        self.waiting.get(queue).into_iter().flatten()
    }

    /// How many stand in line.
    #[must_use]
    pub fn waiting(&self, queue: &QueueName) -> usize {
        self.waiting.get(queue).map_or(0, BTreeSet::len)
    }

    /// How many slots are taken.
    #[must_use]
    pub fn busy(&self, queue: &QueueName) -> usize {
        self.busy.get(queue).copied().unwrap_or(0)
    }

    /// All queues that are configured, or in which somebody waits or runs.
    #[must_use]
    pub fn names(&self) -> BTreeSet<QueueName> {
        let all = self.settings.slots.keys().chain(self.waiting.keys()).chain(self.busy.keys());
        all.chain(&self.paused).cloned().collect()
    }
}

/// What a decision in the making has changed in the lines.
#[derive(Debug, Default)]
pub(in super::super) struct Lines {
    come: BTreeMap<QueueName, BTreeSet<Ticket>>,
    gone: BTreeSet<(QueueName, Ticket)>,
    busy: BTreeMap<QueueName, isize>,
    /// Whether it is paused by now, where that has changed.
    paused: BTreeMap<QueueName, bool>,
    /// Numbers given since.
    pub(in super::super) given: u64,
}

impl Lines {
    pub(in super::super) fn change(&mut self, (before, after): Change) {
        if before == after {
            return;
        }
        match before {
            Some(Stands::InLine(queue, ticket)) => {
                let new = self.come.get_mut(&queue).is_some_and(|line| line.remove(&ticket));
                if !new {
                    self.gone.insert((queue, ticket));
                }
            }
            Some(Stands::HasSlot(queue)) => *self.busy.entry(queue).or_default() -= 1,
            None => {}
        }
        match after {
            Some(Stands::InLine(queue, ticket)) => {
                let back = self.gone.remove(&(queue.clone(), ticket.clone()));
                if !back {
                    self.come.entry(queue).or_default().insert(ticket);
                }
            }
            Some(Stands::HasSlot(queue)) => *self.busy.entry(queue).or_default() += 1,
            None => {}
        }
    }

    pub(in super::super) fn note(&mut self, event: &Event) {
        match event {
            Event::QueuePaused { queue, .. } => drop(self.paused.insert(queue.clone(), true)),
            Event::QueueResumed { queue, .. } => drop(self.paused.insert(queue.clone(), false)),
            _ => {}
        }
    }

    /// Whether nobody stands in any line.
    pub(super) fn is_empty(&self, base: &Queues) -> bool {
        base.waiting.is_empty() && self.come.values().all(BTreeSet::is_empty)
    }

    pub(super) fn is_paused(&self, base: &Queues, queue: &QueueName) -> bool {
        self.paused.get(queue).copied().unwrap_or_else(|| base.paused.contains(queue))
    }

    pub(super) fn busy(&self, base: &Queues, queue: &QueueName) -> usize {
        base.busy(queue).saturating_add_signed(self.busy.get(queue).copied().unwrap_or(0))
    }

    pub(super) fn busy_in_all(&self, base: &Queues) -> usize {
        let all: usize = base.busy.values().sum();
        all.saturating_add_signed(self.busy.values().sum())
    }

    /// Those in line, in the order of their turns.
    pub(super) fn in_line<'a>(
        &'a self,
        base: &'a Queues,
        queue: &'a QueueName,
    ) -> impl Iterator<Item = &'a Ticket> {
        let mut old = base
            .in_line(queue)
            .filter(|ticket| self.gone.is_empty() || !self.gone.contains(&(queue.clone(), (*ticket).clone())))
            .peekable();
        let mut new = self.come.get(queue).into_iter().flatten().peekable();
        std::iter::from_fn(move || match (old.peek(), new.peek()) {
            (Some(a), Some(b)) if b < a => new.next(),
            (Some(_), _) => old.next(),
            (None, _) => new.next(),
        })
    }
}
