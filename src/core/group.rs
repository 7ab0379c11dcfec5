//! Jobs that belong together: what the failure of one means for the others.
//!
//! The words are those of Erlang's supervisors. Each member carries its group in its settings, so nothing else has
//! to be known. A member that failed by itself, and is to be started again, takes others with it: they are
//! stopped by their own ladders, and started again when they are down, in the order of their dependencies. What an
//! operator does to one member is about that one alone.
//!
//! When more restarts than allowed happen in the group, all of it is given up: whoever is to look finds it as a
//! whole. A restart counts for the member whose failure it was, and is remembered with it.

use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::ends;
use super::event::{Event, Want};
use super::ids::JobName;
use super::job::{Job, Phase, STARTS_MAX};
use super::life::{News, tell};
use super::outcome::{Asked, Outcome};
use super::restart::{in_words, well};
use super::spec::{JobSpec, StartLimit};
use super::stop;

/// Which members are restarted with one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// None.
    #[default]
    OneForOne,
    /// All others.
    OneForAll,
    /// Those that come after it.
    RestForOne,
}

/// A group, as each of its members knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Its name.
    pub name: String,
    /// Who is restarted with whom.
    pub strategy: Strategy,
    /// All members, in order.
    pub members: Vec<JobName>,
    /// Restarts in the whole group; more of them end it. `None`: as many as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_limit: Option<StartLimit>,
}

/// A member is to be started again by its restart policy. True if the group was given up instead.
pub(super) fn member_restarts(d: &mut Draft<'_>, name: &JobName, interrupted: bool) -> bool {
    let (Some(job), Some(spec)) = (d.job(name), d.spec(name)) else { return false };
    let Some(group) = spec.in_group.as_deref() else { return false };
    if interrupted || !failed(&spec, job) || d.ending() || d.instance.recovery {
        return false;
    }
    if let Some(why) = one_too_many(d, group) {
        give_up(d, name, group, &why);
        return true;
    }
    if group.start_limit.is_some() {
        d.record(Event::GroupRestart { job: name.clone(), group: group.name.clone() });
    }
    let from = match group.strategy {
        Strategy::OneForOne => return false,
        Strategy::OneForAll => 0,
        Strategy::RestForOne => group.members.iter().position(|member| member == name).map_or(0, |at| at + 1),
    };
    let by = Asked::Policy { rule: format!("group {}: {name} failed", group.name) };
    for member in group.members.iter().skip(from).filter(|member| *member != name) {
        if d.job(member).is_some_and(is_running) && of_group(d, member, group) {
            tell(d, member, &News::Halt { by: &by, then_start: true });
        }
    }
    false
}

/// Whether its latest run came to a bad end by itself.
fn failed(spec: &JobSpec, job: &Job) -> bool {
    job.last.as_ref().is_some_and(|last| last.outcome != Outcome::Cancelled && !well(spec, last))
}

fn is_running(job: &Job) -> bool {
    job.want == Want::Up && matches!(job.phase, Phase::Starting { .. } | Phase::Running { .. })
}

/// A submitted job may have taken the name of a member.
fn of_group(d: &Draft<'_>, member: &JobName, group: &GroupSpec) -> bool {
    d.spec(member).is_some_and(|spec| spec.in_group.as_ref().is_some_and(|of| of.name == group.name))
}

/// Whether another restart is more than the group may have; in words if so.
fn one_too_many(d: &Draft<'_>, group: &GroupSpec) -> Option<String> {
    let limit = group.start_limit.as_ref()?;
    let count = (limit.count as usize).min(STARTS_MAX);
    if count == 0 {
        return None;
    }
    let from = d.now.boot_us.saturating_sub(limit.within.0.saturating_mul(1000));
    let of = |member: &JobName| {
        d.job(member).map_or(0, |job| job.group_restarts.iter().filter(|at| **at > from).count())
    };
    let restarts: usize = group.members.iter().map(of).sum();
    (restarts >= count).then(|| {
        format!("group {}: more than {count} restarts within {}", group.name, in_words(limit.within))
    })
}

/// All of the group is given up: what lives of it is stopped, and stays so.
fn give_up(d: &mut Draft<'_>, name: &JobName, group: &GroupSpec, why: &str) {
    let by = Asked::Group { group: group.name.clone(), why: why.to_owned() };
    ends::give_up(d, name, why);
    for member in group.members.iter().filter(|member| *member != name) {
        let Some(job) = d.job(member).filter(|job| job.want == Want::Up && !d.ending()) else { continue };
        if !of_group(d, member, group) {
            continue;
        }
        match (job.run(), &job.phase) {
            (Some(run), _) => stop::begin(d, member, run, (&by, false)),
            (None, Phase::Exited | Phase::Fatal { .. } | Phase::Held { .. }) => {}
            (None, _) => ends::give_up(d, member, why),
        }
    }
}

/// Why the job is given up at the end of its run: its group was, while it was being stopped.
pub(super) fn was_given_up(d: &Draft<'_>, name: &JobName) -> Option<String> {
    match &d.base.job(name)?.phase {
        Phase::Stopping { stop, .. } | Phase::Leftovers { stop: Some(stop), .. } => match &stop.by {
            Asked::Group { why, .. } => Some(why.clone()),
            Asked::Nobody
            | Asked::Operator { .. }
            | Asked::Reload
            | Asked::Shutdown
            | Asked::SupervisorDeath
            | Asked::Policy { .. }
            | Asked::Health { .. } => None,
        },
        Phase::Stopped
        | Phase::Waiting
        | Phase::Queued
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Leftovers { stop: None, .. }
        | Phase::Backoff { .. }
        | Phase::Held { .. }
        | Phase::Exited
        | Phase::Fatal { .. } => None,
    }
}
