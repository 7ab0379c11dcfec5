//! Every decision, and nothing else: no clock, no I/O, no logging, no async.
//!
//! ```text
//! decide(&State, Input, now, fresh) -> Decision { events, effects }   chooses; touches nothing
//! apply(&mut State, &Event)                                           remembers; never fails
//! next_deadline(&State) -> Option<Stamp>                              the only timer there is
//! ```
//!
//! The log stores events, so a replay is a fold of [`apply`]: what was decided happens again as it was
//! decided, also under a newer build that would decide otherwise.

pub mod alerts;
pub mod audit;
pub mod circuit;
pub mod effect;
pub mod event;
pub mod fault;
pub mod freshness;
pub mod graph;
pub mod group;
pub mod hook;
pub mod host;
pub mod identity;
pub mod ids;
pub mod ill;
pub mod input;
pub mod instance;
pub mod job;
pub mod outcome;
pub mod pace;
pub mod patterns;
pub mod phases;
pub mod progress;
pub mod queue;
pub mod quick;
pub mod reconcile;
pub mod recoveries;
pub mod reload;
pub mod report;
pub mod rest;
pub mod rung;
pub mod saga;
pub mod select;
pub mod severity;
pub mod signal;
pub mod snapshot;
pub mod spec;
pub mod state;
pub mod stats;
pub mod time;
pub mod view;
pub mod vigil;
pub mod watch;

mod ask;
mod draft;
mod ends;
mod heal;
mod life;
mod past;
mod restart;
mod stop;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use effect::Effect;
use event::Event;
use ids::{JobName, RunId};
use input::Input;
use spec::JobSpec;
use state::State;
use time::Stamp;

use draft::Draft;

/// Where run ids and chance come from.
pub trait Fresh {
    /// A run id nobody has had before.
    fn run_id(&mut self) -> RunId;
    /// A number from 0.0 to 1.0, for jitter.
    fn chance(&mut self) -> f64;
}

/// What is to be recorded, and then done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    /// What happened; recorded together or not at all.
    pub events: Vec<Event>,
    /// What follows, in order, once the events are durable.
    pub effects: Vec<Effect>,
    /// What to tell the operator who asked, a line for each job.
    pub answers: Vec<ActAnswer>,
    /// Settings of all configured jobs from now on, when the input brought them. They are memory
    /// without being events: see [`State::commit`].
    pub specs: Option<Vec<Arc<JobSpec>>>,
}

/// What a verb did to one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActAnswer {
    /// The job.
    pub job: JobName,
    /// Whether anything changed.
    pub changed: bool,
    /// False if it could not be done; `text` says why.
    pub ok: bool,
    /// In words: `starting`, `already running`, …
    pub text: String,
}

/// Chooses what follows from an input. Touches nothing: the caller records the events, remembers them
/// with [`State::commit`], and then performs the effects in order.
///
/// `now` must not go back from one call to the next within an epoch.
pub fn decide(state: &State, input: &Input, now: Stamp, fresh: &mut dyn Fresh) -> Decision {
    let mut d = Draft::new(state, now, fresh);
    match input {
        Input::SupervisorStarted { generation, version, epoch, recovery, born_us } => {
            let begun = d.instance.shutdown.as_ref().filter(|_| d.instance.epoch == *epoch);
            let ending = begun.is_some_and(|shutdown| shutdown.since.boot_us >= *born_us);
            d.record(Event::SupervisorStarted {
                generation: *generation,
                version: version.clone(),
                epoch: epoch.clone(),
                recovery: *recovery || state.stays_in_recovery(epoch, *born_us),
                ending,
                born_us: *born_us,
            });
        }
        Input::Configured { specs, by } => reload::configured(&mut d, specs, by),
        Input::ReloadOrRollBack { specs, by, within } => saga::reload(&mut d, specs, by, *within),
        Input::StartOrRollBack { jobs, by, within } => saga::start(&mut d, jobs, by, *within),
        Input::Submitted { spec, entry, by } => ask::submit(&mut d, spec, *entry, by),
        Input::Move { jobs, shift, by } => queue::shift(&mut d, jobs, shift, by),
        Input::PauseQueue { queue, resume, by } => queue::pause(&mut d, queue, *resume, by),
        Input::Start { jobs, force, by } => ask::start(&mut d, jobs, *force, by),
        Input::Stop { jobs, by } => ask::stop(&mut d, jobs, by),
        Input::Restart { jobs, by } => ask::restart(&mut d, jobs, by),
        Input::Signal { job, signal, scope, by } => ask::signal(&mut d, job, (*signal, *scope), by),
        Input::Shutdown { keep_jobs, by } => stop::shutdown(&mut d, *keep_jobs, by),
        Input::Noted { verb, job, detail, by } => {
            let (verb, job, detail, by) = (verb.clone(), job.clone(), detail.clone(), by.clone());
            d.record(Event::Acted { verb, job, detail, by });
        }
        Input::HoldStarts { why } => life::hold_starts(&mut d, why),
        Input::ReleaseStarts => life::release_starts(&mut d),
        Input::LeaveRecovery { by } => reconcile::leave_recovery(&mut d, by),
        Input::Surveyed(survey) => reconcile::surveyed(&mut d, survey),
        Input::Launched { run, identity, at } => {
            life::news_of_run(&mut d, *run, &life::News::Launched { identity, at: *at });
        }
        Input::Refused { run, outcome } => {
            life::news_of_run(&mut d, *run, &life::News::Refused { outcome });
        }
        Input::Ended { record, leftovers } => {
            let news = life::News::Ended { record, leftovers: *leftovers, interrupted: false };
            life::news_of_run(&mut d, record.run, &news);
        }
        Input::TreeGone { run } => life::news_of_run(&mut d, *run, &life::News::TreeGone),
        Input::StopCommandEnded { run, step, ok } => {
            life::news_of_run(&mut d, *run, &life::News::StopCommandEnded { step: *step, ok: *ok });
        }
        Input::HookEnded { run } => life::news_of_run(&mut d, *run, &life::News::HookEnded),
        Input::Ready { run } => life::news_of_run(&mut d, *run, &life::News::Ready),
        Input::Extended { run, until } => {
            life::news_of_run(&mut d, *run, &life::News::Extended { until: *until });
        }
        Input::Unwell { run, fault, why } => {
            life::news_of_run(&mut d, *run, &life::News::Unwell { fault: *fault, why });
        }
        Input::Diagnosed { run } => life::news_of_run(&mut d, *run, &life::News::Diagnosed),
        Input::Well { run } => life::news_of_run(&mut d, *run, &life::News::Well),
        Input::Published { run, said } => progress::publish(&mut d, *run, said),
        Input::Alerts { changes } => alerts::record(&mut d, changes),
        Input::KeeperLost => d.keeper_lost(),
        Input::Tick => tick(&mut d),
    }
    saga::follow(&mut d);
    queue::give_turns(&mut d);
    d.finish()
}

/// Remembers one event; see [`State::apply`].
pub fn apply(state: &mut State, event: &Event, at: Stamp) {
    state.apply(event, at);
}

/// When [`decide`] wants its next `Input::Tick`; see [`State::next_deadline`].
#[must_use]
pub fn next_deadline(state: &State) -> Option<Stamp> {
    state.next_deadline()
}

fn tick(d: &mut Draft<'_>) {
    if !d.working() {
        return;
    }
    if d.base.forced_at().is_some_and(|at| at.boot_us <= d.now.boot_us) {
        stop::force(d);
    }
    saga::due(d);
    let due: Vec<JobName> = d.base.due(d.now).cloned().collect();
    for job in &due {
        life::tell(d, job, &life::News::Due);
    }
}
