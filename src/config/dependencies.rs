//! `depends_on`: from what is written to the names of jobs, with unknown names and rings reported.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::graph;
use crate::core::ids::JobName;

use super::error::Report;
use super::job::Template;
use super::node::Node;
use super::substitute::{has_instance, instantiate, shown};
use super::{suggest, units};

/// Most dependencies over all jobs: two jobs with ten thousand instances each could ask for a hundred million.
const MOST: usize = 1_000_000;

/// What one job and its instances need.
#[derive(Default)]
pub(super) struct Needs {
    /// Every instance.
    all: Vec<JobName>,
    /// Beside that, single instances, where `{n}` is in the name.
    each: BTreeMap<JobName, Vec<JobName>>,
}

impl Needs {
    /// What this job needs, each once.
    pub(super) fn of(&self, name: &JobName) -> Vec<JobName> {
        let own = self.each.get(name).map_or(&[][..], Vec::as_slice);
        let mut seen = BTreeSet::new();
        self.all.iter().chain(own).filter(|need| seen.insert(*need)).cloned().collect()
    }
}

/// Finds jobs by what is written.
pub(super) struct Resolver<'t> {
    by_name: BTreeMap<&'t str, &'t Template<'t>>,
    /// Every configured name, also of jobs that could not be read.
    names: &'t BTreeSet<&'t str>,
    /// Whether a name that is not known is an error.
    complete: bool,
}

/// The needs of each template, in their order.
pub(super) fn resolve(
    report: &Report,
    templates: &[Template<'_>],
    names: &BTreeSet<&str>,
    complete: bool,
) -> Vec<Needs> {
    let resolver = Resolver::new(templates, names, complete);
    let mut total = 0;
    let mut result = Vec::new();
    for template in templates {
        let mut needs = Needs::default();
        for (text, node) in &template.depends_on {
            let before = report.count();
            if has_instance(text) {
                for n in 1..=template.instances.unwrap_or(0) {
                    let found = resolver.jobs(&instantiate(text, n), node);
                    total += found.len();
                    needs.each.entry(template.name.instance(n)).or_default().extend(found);
                    if report.count() > before || total > MOST {
                        break;
                    }
                }
            } else {
                let found = resolver.jobs(text, node);
                let times = usize::try_from(template.instances.unwrap_or(1)).unwrap_or(usize::MAX);
                total = total.saturating_add(found.len().saturating_mul(times));
                needs.all.extend(found);
            }
            if total > MOST {
                node.error(format!("more than {MOST} dependencies between instances"), None);
                return templates.iter().map(|_| Needs::default()).collect();
            }
        }
        result.push(needs);
    }
    report_rings(templates, &result);
    result
}

impl<'t> Resolver<'t> {
    /// Among these.
    pub(super) fn new(templates: &'t [Template<'t>], names: &'t BTreeSet<&'t str>, complete: bool) -> Self {
        Self { by_name: templates.iter().map(|t| (t.name.as_str(), t)).collect(), names, complete }
    }

    /// The jobs that a text names: one, or all instances.
    pub(super) fn jobs(&self, text: &str, node: &Node<'_>) -> Vec<JobName> {
        let name = match JobName::new(text) {
            Ok(name) => name,
            Err(e) => {
                node.error(format!("`{}` is no job name: {e}", units::shorten(&shown(text))), None);
                return Vec::new();
            }
        };
        let Some(needed) = self.by_name.get(name.base()) else {
            if self.complete && !self.names.contains(name.base()) {
                let meant = suggest::did_you_mean(name.base(), self.names.iter().copied());
                node.error(format!("unknown job `{}`", name.base()), meant);
            }
            return Vec::new();
        };
        let count = needed.instances.unwrap_or(0);
        if name.base() == name.as_str() {
            let all: Vec<JobName> = (1..=count).map(|n| name.instance(n)).collect();
            return if needed.has_instances { all } else { vec![name] };
        }
        let number = name.as_str().rsplit(':').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        if (1..=count).contains(&number) {
            return vec![needed.name.instance(number)];
        }
        if needed.instances.is_some() || !needed.has_instances {
            let has = if count == 0 { "no instances".into() } else { format!("the instances 1 to {count}") };
            node.error(format!("unknown job `{name}`: `{}` has {has}", needed.name), None);
        }
        Vec::new()
    }
}

/// Reports each ring at the dependency of its first job. All instances of a job are written as one, so a ring
/// of jobs as they are written is one of instances, and the other way round.
fn report_rings(templates: &[Template<'_>], needs: &[Needs]) {
    let base = |name: &JobName| JobName::new(name.base()).ok();
    let edges: Vec<Vec<JobName>> = needs
        .iter()
        .map(|n| n.all.iter().chain(n.each.values().flatten()).filter_map(base).collect::<BTreeSet<_>>())
        .map(|set| set.into_iter().collect())
        .collect();
    for ring in graph::cycles(templates.iter().map(|t| &t.name).zip(edges.iter().map(Vec::as_slice))) {
        let template = ring.path.first().and_then(|first| templates.iter().find(|t| t.name == *first));
        let Some(template) = template else { continue };
        let next = ring.path.get(1).map_or("", JobName::as_str);
        let place = template.depends_on.iter().find(|(text, _)| text.split(':').next() == Some(next));
        let node = place.or(template.depends_on.first()).map_or(&template.node, |(_, node)| node);
        node.error(format!("dependency cycle: {ring}"), None);
    }
}
