//! Queues: jobs that wait for their turn.
//!
//! A job of a queue gets a [`Place`] when a start of it is asked for: its priority, and a number that says who came
//! first. Of those whose turn it can be, the one of the highest priority goes first, and among equals who came first.
//! A queue has so many slots, and the instance may have a number of slots for all of them; a slot is taken from the
//! moment a run is asked for until nothing of it is left.
//!
//! That a job stands in line is a phase of its own, so it lasts over the death of everything, a reboot included; the
//! turn and the request of the run are one decision. At the end of every decision turns are given as long as there are
//! slots and somebody can use them: nothing that frees a slot has to remember to wake anybody.
//!
//! A task whose run ended badly and that is to be tried again keeps its place; one that somebody starts again gets a
//! new one.

mod lines;

use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::event::Event;
use super::ids::{JobName, QueueName};
use super::job::Phase;
use super::life;
use super::outcome::Asked;
use super::spec::JobSpec;
use super::time::Stamp;

pub(super) use lines::{Lines, Stands};
pub use lines::{Queues, Settings, Ticket};

/// The number before the first place: there is room for those that are moved before all others.
pub(super) const FIRST: u64 = 1 << 32;

/// Slots of a queue that does not say how many.
pub const SLOTS: u32 = 1;

/// Where a job stands in line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// In which line.
    pub queue: QueueName,
    /// The highest goes first.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub priority: i32,
    /// Among equals the lowest goes first. No two jobs have the same.
    pub number: u64,
    /// It stands aside until somebody says otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// It stands aside until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Stamp>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_nought(n: &i32) -> bool {
    *n == 0
}

impl Place {
    /// Whether its turn may come now.
    #[must_use]
    pub const fn is_in_line(&self) -> bool {
        !self.held && self.not_before.is_none()
    }
}

/// How a submitted task enters its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// It waits until somebody releases it.
    pub held: bool,
    /// Not before this moment, wall clock in microseconds.
    pub not_before_us: Option<i64>,
}

/// Gives a job that is submitted its place.
pub(super) fn enter(d: &mut Draft<'_>, spec: &JobSpec, entry: Entry) {
    let Some(queue) = &spec.queue else { return };
    let not_before = entry.not_before_us.and_then(|us| later(d.now, us));
    let place = Place {
        queue: queue.clone(),
        priority: spec.priority,
        number: d.next_number(),
        held: entry.held,
        not_before,
    };
    d.record(Event::Queued { job: spec.name.clone(), place: Box::new(place) });
}

/// The same moment on both clocks, if it lies ahead.
pub(super) fn later(now: Stamp, wall_us: i64) -> Option<Stamp> {
    let ahead = u64::try_from(wall_us.saturating_sub(now.wall_us)).ok().filter(|us| *us > 0)?;
    Some(Stamp { boot_us: now.boot_us.saturating_add(ahead), wall_us })
}

/// A start of a job of a queue: it gets in line, unless it stands there.
pub(super) fn line_up(d: &mut Draft<'_>, name: &JobName, spec: &JobSpec, queue: &QueueName) {
    let Some(job) = d.job(name) else { return };
    let in_line = matches!(job.phase, Phase::Queued);
    let place = match &job.place {
        Some(place) if in_line && place.queue == *queue => return,
        Some(place) => Place { queue: queue.clone(), ..(**place).clone() },
        None => Place {
            queue: queue.clone(),
            priority: spec.priority,
            number: d.next_number(),
            held: false,
            not_before: None,
        },
    };
    d.record(Event::Queued { job: name.clone(), place: Box::new(place) });
}

/// The time of a job that was not to start before it has come.
pub(super) fn due(d: &mut Draft<'_>, name: &JobName) {
    let Some(place) = d.job(name).and_then(|job| job.place.as_deref()) else { return };
    if place.not_before.is_some_and(|at| at.boot_us <= d.now.boot_us) {
        let place = Box::new(Place { not_before: None, ..place.clone() });
        d.record(Event::Queued { job: name.clone(), place });
    }
}

/// Gives turns as long as there are slots, and somebody who can use them.
pub(super) fn give_turns(d: &mut Draft<'_>) {
    if d.lines.is_empty(&d.base.queues) || !may(d) {
        return;
    }
    while let Some(name) = next(d) {
        let Some(spec) = d.spec(&name) else { return };
        life::request(d, &name, &spec);
        // Whatever came in between, nobody is asked for twice.
        if d.job(&name).is_some_and(|job| job.phase == Phase::Queued) {
            return;
        }
    }
}

/// Whether anything is started by itself. In recovery mode, which somebody is to look into, the lines stand.
fn may(d: &Draft<'_>) -> bool {
    let still = d.ending() || d.putting_off || d.holding || d.instance.recovery;
    !still && d.working() && d.instance.held.is_none()
}

/// Whose turn it is.
fn next(d: &Draft<'_>) -> Option<JobName> {
    let queues = &d.base.queues;
    if d.lines.busy_in_all(queues) >= queues.settings.all_slots() {
        return None;
    }
    let open = queues.settings.slots.iter().filter(|(queue, slots)| {
        !d.lines.is_paused(queues, queue) && d.lines.busy(queues, queue) < **slots as usize
    });
    let first =
        open.filter_map(|(queue, _)| d.lines.in_line(queues, queue).find(|ticket| can_start(d, ticket)));
    first.min().map(|ticket| ticket.job.clone())
}

/// Whether nothing else stands in the way of a job whose turn it is.
fn can_start(d: &Draft<'_>, ticket: &Ticket) -> bool {
    let name = &ticket.job;
    d.spec(name).is_some_and(|spec| life::may_start_now(d, name, &spec))
}

/// Stops giving turns in a queue, or gives them again.
pub(super) fn pause(d: &mut Draft<'_>, queue: &QueueName, resume: bool, by: &Asked) {
    let (queue, by, paused) = (queue.clone(), by.clone(), d.lines.is_paused(&d.base.queues, queue));
    match (resume, paused) {
        (false, false) => d.record(Event::QueuePaused { queue, by }),
        (true, true) => d.record(Event::QueueResumed { queue, by }),
        (false, true) | (true, false) => {}
    }
}

/// Where a job in line is to stand instead; what is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shift {
    /// In another queue.
    pub queue: Option<QueueName>,
    /// With another priority.
    pub priority: Option<i32>,
    /// Aside until it is released, or not any more.
    pub hold: Option<bool>,
    /// Aside until then, wall clock in microseconds.
    pub not_before_us: Option<i64>,
    /// Before all others of its priority.
    pub first: bool,
    /// Behind them.
    pub last: bool,
}

/// Moves jobs that wait for their turn.
pub(super) fn shift(d: &mut Draft<'_>, jobs: &[JobName], shift: &Shift, by: &Asked) {
    for name in jobs {
        let Some(job) = d.job(name) else {
            d.refuse(name, "no such job");
            continue;
        };
        let waits = job.phase == Phase::Waiting;
        let Some(place) = job.place.as_deref().filter(|_| waits || job.phase == Phase::Queued).cloned()
        else {
            let why = format!("it does not stand in line, it is {}", job.shown().as_str());
            d.refuse(name, why);
            continue;
        };
        let new = shifted(d, &place, shift);
        if new == place {
            d.answer(name, false, "stands there already");
            continue;
        }
        let detail = format!("queue {}, priority {}", new.queue, new.priority);
        let (verb, job) = ("move".to_owned(), Some(name.clone()));
        d.record(Event::Acted { verb, job, detail, by: by.clone() });
        d.record(Event::Queued { job: name.clone(), place: Box::new(new) });
        if waits {
            // It still waits for what it depends on.
            life::start(d, name);
        }
        d.answer(name, true, "moved");
    }
}

fn shifted(d: &mut Draft<'_>, place: &Place, shift: &Shift) -> Place {
    let mut new = place.clone();
    new.queue = shift.queue.clone().unwrap_or(new.queue);
    new.priority = shift.priority.unwrap_or(new.priority);
    if let Some(hold) = shift.hold {
        new.held = hold;
        if !hold {
            new.not_before = None;
        }
    }
    if let Some(us) = shift.not_before_us {
        new.not_before = later(d.now, us);
    }
    if shift.last {
        new.number = d.next_number();
    }
    if shift.first {
        let line = d.lines.in_line(&d.base.queues, &new.queue);
        let lowest = line.filter(|ticket| ticket.priority() == new.priority).map(Ticket::number).min();
        new.number = lowest.map_or(new.number, |lowest| lowest.saturating_sub(1).min(new.number));
    }
    new
}
