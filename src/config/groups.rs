//! `[group.NAME]`: which jobs belong together, with unknown and doubled ones reported.

use std::collections::BTreeMap;

use crate::core::group::{GroupSpec, Strategy};
use crate::core::ids::JobName;
use crate::core::spec::StartLimit;
use crate::core::time::Millis;

use super::dependencies::Resolver;
use super::error::Report;
use super::job::{Layers, START_LIMIT_KEYS, start_limit};
use super::node::{Node, Table};

/// Every key of `[group.NAME]`.
pub(super) const GROUP_KEYS: &[&str] = &["jobs", "strategy", "start_limit"];

/// Most members of one group: each of them carries the list of all.
const MOST: usize = 1000;

/// The start limit of a group that has one and does not say more.
const START_LIMIT: StartLimit = StartLimit { count: 10, within: Millis::from_secs(60) };

/// The groups, by the names of their members.
#[derive(Default)]
pub(super) struct Groups {
    all: Vec<GroupSpec>,
    of: BTreeMap<JobName, usize>,
}

impl Groups {
    /// The group of a job.
    pub(super) fn of(&self, job: &JobName) -> Option<GroupSpec> {
        self.of.get(job).and_then(|at| self.all.get(*at)).cloned()
    }
}

/// Reads all groups.
pub(super) fn resolve(report: &Report, nodes: &[(&str, Node<'_>)], lookup: &Resolver<'_>) -> Groups {
    let mut groups = Groups::default();
    for (name, node) in nodes {
        match JobName::new(*name) {
            Ok(_) if !name.contains(':') => {}
            Ok(_) => node.key_error(format!("`{name}` is no name of a group: it has a `:`"), None),
            Err(e) => node.key_error(format!("`{name}` is no name of a group: {e}"), None),
        }
        let Some(table) = node.table("a table", GROUP_KEYS) else { continue };
        let (strategy, start_limit) = (strategy(&table), limit(&table));
        groups.all.push(GroupSpec { name: (*name).to_owned(), strategy, members: Vec::new(), start_limit });
        members(&mut groups, node, &table, lookup);
    }
    // A file with an error is refused; until then the lists of a group that is too large are not copied.
    if report.count() > 0 { Groups::default() } else { groups }
}

fn strategy(table: &Table<'_>) -> Strategy {
    let strategies = [
        ("one-for-one", Strategy::OneForOne),
        ("one-for-all", Strategy::OneForAll),
        ("rest-for-one", Strategy::RestForOne),
    ];
    table.get("strategy").and_then(|n| n.choice(&strategies)).unwrap_or_default()
}

fn limit(table: &Table<'_>) -> Option<StartLimit> {
    let own = table.get("start_limit")?.table("a table { count, within }", START_LIMIT_KEYS)?;
    let mut limit = START_LIMIT;
    start_limit(&Layers { own: Some(own), defaults: None }, &mut limit);
    Some(limit)
}

/// Reads the members of the latest group.
fn members(groups: &mut Groups, node: &Node<'_>, table: &Table<'_>, lookup: &Resolver<'_>) {
    let at = groups.all.len() - 1;
    let Some(jobs) = table.get("jobs") else {
        if !table.has_slip_of("jobs") {
            node.missing("`jobs`", Some("write `jobs = [\"a\", \"b\"]`".to_owned()));
        }
        return;
    };
    let Some(texts) = jobs.list("a list of job names") else { return };
    if texts.is_empty() {
        jobs.error("a group without members", None);
    }
    for text in texts {
        let Some(written) = text.string("a job name") else { continue };
        for job in lookup.jobs(written.strip_suffix(":*").unwrap_or(written), &text) {
            if let Some(other) = groups.of.get(&job) {
                let other = &groups.all[*other].name;
                text.error(format!("`{job}` is in the group `{other}` already"), None);
                break;
            }
            groups.of.insert(job.clone(), at);
            groups.all[at].members.push(job);
        }
    }
    if groups.all[at].members.len() > MOST {
        jobs.error(format!("more than {MOST} members"), None);
    }
}
