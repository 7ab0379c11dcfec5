//! Who did what, why, and what it changed: the acts of operators and of recovery, told from the event log.
//!
//! The log already holds what was decided and who asked for it. What a job was before and after is found by
//! living through the log once more, so nothing has to be written twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::{Event, Want};
use super::host::HEAL;
use super::ids::{Generation, JobName, RunId};
use super::outcome::Asked;
use super::reconcile::plan;
use super::saga::End;
use super::state::State;
use super::time::Stamp;

/// One act on one job, or on the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// The entry of the event log that it is in.
    pub seq: u64,
    /// When.
    pub at: String,
    /// `user 1000`, `recovery`, `a signal`.
    pub who: String,
    /// The verb, or the acts of a recovery.
    pub what: String,
    /// The job; `None`: the instance.
    pub job: Option<JobName>,
    /// The run it was about.
    pub run: Option<RunId>,
    /// Why, where somebody or something gave a reason.
    #[serde(default)]
    pub why: String,
    /// What the job was before.
    #[serde(default)]
    pub before: String,
    /// What it was afterwards.
    #[serde(default)]
    pub after: String,
}

/// One entry of the event log.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its number.
    pub seq: u64,
    /// When.
    pub at: Stamp,
    /// The supervisor that wrote it.
    pub generation: Generation,
    /// What happened.
    pub events: &'a [Event],
}

/// Lives through one entry, and tells the deeds in it: none if nobody but a policy or a process did it.
pub fn live_through(state: &mut State, entry: &Entry<'_>) -> Vec<Deed> {
    let actor = actor(entry);
    let mut jobs: BTreeMap<JobName, Vec<&Event>> = BTreeMap::new();
    if actor.is_some() {
        for event in entry.events {
            if let Some(job) = event.job() {
                jobs.entry(job.clone()).or_default().push(event);
            }
        }
    }
    let before: Vec<String> = jobs.keys().map(|job| word(state, job)).collect();
    for event in entry.events {
        state.apply(event, entry.at);
    }
    let Some((who, verb)) = actor else { return Vec::new() };
    let at = entry.at.rfc3339();
    let deed = |job: Option<JobName>, run: Option<RunId>, what: String| Deed {
        seq: entry.seq,
        at: at.clone(),
        who: who.clone(),
        what,
        job,
        run,
        why: String::new(),
        before: String::new(),
        after: String::new(),
    };
    let mut deeds = Vec::new();
    for event in entry.events {
        match event {
            Event::Acted { job, detail, .. } if jobs.is_empty() => {
                let what = format!("{} {detail}", verb.as_deref().unwrap_or_default());
                deeds.push(deed(job.clone(), None, what.trim_end().to_owned()));
            }
            Event::OrphanFound { run, job } => {
                deeds.push(deed(job.clone(), Some(*run), "leave alone".to_owned()));
            }
            Event::SagaEnded { saga, end: End::RolledBack(broken) } => {
                let mut deed = deed(broken.job.clone(), None, format!("roll operation {saga} back"));
                deed.why.clone_from(&broken.why);
                deeds.push(deed);
            }
            Event::ShutdownBegun { .. } | Event::RecoveryLeft { .. } if jobs.is_empty() => {
                deeds.push(deed(None, None, verb.clone().unwrap_or_default()));
            }
            _ => {}
        }
    }
    for ((job, events), before) in jobs.into_iter().zip(before) {
        let acts: Vec<&str> = plan::acts(&events).iter().map(|act| act.as_str()).collect();
        let what = verb.clone().unwrap_or_else(|| acts.join(", "));
        if what.is_empty() {
            continue;
        }
        let after = word(state, &job);
        let (run, why) = (run_of(&events), why(&events));
        deeds.push(Deed { why, before, after, ..deed(Some(job), run, what) });
    }
    deeds
}

/// Who acts in this entry, and by which verb; recovery has acts instead of one.
fn actor(entry: &Entry<'_>) -> Option<(String, Option<String>)> {
    let undone = |event: &Event| matches!(event, Event::SagaEnded { end: End::RolledBack(_), .. });
    if entry.events.iter().any(undone) {
        return Some((format!("rollback (supervisor {})", entry.generation.0), None));
    }
    if let Some(found) = entry.events.iter().find_map(by).and_then(words) {
        return Some(found);
    }
    if let Some(rule) = entry.events.iter().find_map(healed_by) {
        return Some((rule.to_owned(), Some(HEAL.to_owned())));
    }
    let surveyed = entry.events.contains(&Event::Surveyed);
    surveyed.then(|| (format!("recovery (supervisor {})", entry.generation.0), None))
}

/// By which rule the host or we ourselves were healed.
fn healed_by(event: &Event) -> Option<&str> {
    match event {
        Event::Acted { verb, by: Asked::Policy { rule }, .. } if verb == HEAL => Some(rule),
        _ => None,
    }
}

fn by(event: &Event) -> Option<(&Asked, &'static str)> {
    match event {
        Event::Acted { by, .. } => Some((by, "reload")),
        Event::WantSet { by, .. } | Event::StopBegun { by, .. } => Some((by, "reload")),
        Event::JobSubmitted { by, .. } => Some((by, "run")),
        Event::ShutdownBegun { by, .. } => Some((by, "shutdown")),
        Event::RecoveryLeft { by } => Some((by, "recover exit")),
        _ => None,
    }
}

/// Nobody and policies do nothing that anybody would be asked about.
fn words((by, verb): (&Asked, &'static str)) -> Option<(String, Option<String>)> {
    match by {
        Asked::Operator { uid, verb } => Some((format!("user {uid}"), Some(verb.clone()))),
        Asked::Reload | Asked::Shutdown => Some(("a signal".to_owned(), Some(verb.to_owned()))),
        Asked::Nobody
        | Asked::SupervisorDeath
        | Asked::Policy { .. }
        | Asked::Health { .. }
        | Asked::Group { .. } => None,
    }
}

fn word(state: &State, job: &JobName) -> String {
    let Some(job) = state.job(job) else { return "not known".to_owned() };
    let wanted = if job.want == Want::Up { "wanted" } else { "not wanted" };
    format!("{}, {wanted}", job.shown().as_str())
}

fn run_of(events: &[&Event]) -> Option<RunId> {
    events.iter().find_map(|event| match event {
        Event::RunAdopted { run, .. } | Event::StopBegun { run, .. } | Event::RunRequested { run, .. } => {
            Some(*run)
        }
        Event::RunEnded { record, .. } => Some(record.run),
        _ => None,
    })
}

fn why(events: &[&Event]) -> String {
    let said = events.iter().rev().find_map(|event| match event {
        Event::GaveUp { why, .. } => Some(why.clone()),
        Event::RunEnded { record, .. } => Some(record.outcome.describe()),
        _ => None,
    });
    said.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::input::{Fact, Input};
    use super::super::outcome::Outcome;
    use super::super::tests::{World, exited, identity, operator, spec};
    use super::*;

    /// The deeds of a whole log, in short.
    fn deeds(world: &World) -> Vec<String> {
        let mut state = State::new();
        let mut all = Vec::new();
        for (n, (at, events)) in (1..).zip(&world.log) {
            let entry = Entry { seq: n, at: *at, generation: Generation(7), events };
            all.extend(live_through(&mut state, &entry));
        }
        let short = |deed: Deed| {
            let job = deed.job.map_or_else(|| "-".to_owned(), |job| job.to_string());
            let words = [deed.who, deed.what, job, deed.before, deed.after, deed.why];
            words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" | ")
        };
        all.into_iter().map(short).collect()
    }

    #[test]
    fn a_rollback_is_accounted_for_with_its_reason() {
        let mut world = World::with(&[]);
        let specs = vec![spec("a")];
        world.feed(Input::ReloadOrRollBack {
            specs,
            by: operator("reload"),
            within: crate::core::time::Millis(1000),
        });
        world.ended("a", 1, exited(2), false);
        world.feed(Input::Tick);
        assert_eq!(
            deeds(&world),
            [
                "user 1000 | reload | a | not known | starting, wanted",
                "rollback (supervisor 7) | roll operation 1 back | a | exit 2",
                "rollback (supervisor 7) | stop | a | starting, wanted | stopping, not wanted",
            ]
        );
    }

    #[test]
    fn operators_and_recovery_are_accounted_for_and_processes_are_not() {
        let specs = [spec("a")];
        let mut world = World::with(&specs);
        world.launched(1);
        world.stop("a");
        world.ended("a", 1, Outcome::Signaled { signal: 15, core: false }, false);
        world.start("a");
        world.launched(2);
        world.reload(&specs);
        world.replayed();
        world.supervisor(1, false);
        world.configured(&specs);
        let fact = Fact::Alive { identity: identity(5), started: world.now };
        world.surveyed(vec![(2, "a", fact)]);
        world.ended("a", 2, exited(1), false);
        world.feed(Input::Noted {
            verb: "recover".to_owned(),
            job: None,
            detail: String::new(),
            by: operator("recover"),
        });
        world.feed(Input::Shutdown { keep_jobs: true, by: Asked::Shutdown });
        assert_eq!(
            deeds(&world),
            [
                "recovery (supervisor 7) | start | a | stopped, wanted | starting, wanted",
                "user 1000 | stop | a | running, wanted | stopping, not wanted",
                "user 1000 | start | a | stopped, not wanted | starting, wanted",
                "user 1000 | reload | -",
                "recovery (supervisor 7) | adopt | a | running, wanted | running, wanted",
                "user 1000 | recover | -",
                "a signal | shutdown | -",
            ]
        );
    }
}
