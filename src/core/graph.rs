//! Dependency order: who is started before whom, and the same backwards for the end.
//!
//! An edge points from a job to one that it needs. A dependency that is not among the given jobs is no edge:
//! whether an unknown name is an error is for the reader of the configuration to say. A dependency on the
//! name of a job with instances means all of its instances.
//!
//! Nothing here recurses, so a chain of any length is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::ids::JobName;
use super::spec::JobSpec;

/// Jobs that need each other in a ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Cycle {
    /// The ring; each needs the next, and the last is the first again.
    pub path: Vec<JobName>,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.path.iter().enumerate() {
            if i > 0 {
                f.write_str(" -> ")?;
            }
            write!(f, "{name}")?;
        }
        Ok(())
    }
}

/// The jobs in layers: each job comes after everything it needs, and the jobs of one layer need none of
/// each other, so that they may start together. Within a layer the given order is kept.
///
/// # Errors
/// The first ring found, when there is one.
pub fn order<'a>(specs: impl IntoIterator<Item = &'a JobSpec>) -> Result<Vec<Vec<JobName>>, Cycle> {
    let (layers, rings) = Graph::new(specs.into_iter().map(|s| (&s.name, s.depends_on.as_slice()))).peel();
    match rings.into_iter().next() {
        Some(ring) => Err(ring),
        None => Ok(layers),
    }
}

/// The layers of [`order`] from the last to the first: the order in which jobs are stopped.
///
/// # Errors
/// As [`order`].
pub fn stop_order<'a>(specs: impl IntoIterator<Item = &'a JobSpec>) -> Result<Vec<Vec<JobName>>, Cycle> {
    let mut layers = order(specs)?;
    layers.reverse();
    Ok(layers)
}

/// Every ring among jobs given as (name, what it needs). Rings that share a job are reported once; when
/// that one is broken, the next shows.
#[must_use]
pub fn cycles<'a>(jobs: impl IntoIterator<Item = (&'a JobName, &'a [JobName])>) -> Vec<Cycle> {
    Graph::new(jobs).peel().1
}

/// Jobs by index, in the given order.
struct Graph<'a> {
    names: Vec<&'a JobName>,
    /// What each needs; ascending, each at most once.
    needs: Vec<Vec<usize>>,
}

impl<'a> Graph<'a> {
    fn new(jobs: impl IntoIterator<Item = (&'a JobName, &'a [JobName])>) -> Self {
        let jobs: Vec<(&JobName, &[JobName])> = jobs.into_iter().collect();
        let mut exact: BTreeMap<&str, usize> = BTreeMap::new();
        let mut instances: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, (name, _)) in jobs.iter().enumerate() {
            exact.insert(name.as_str(), i);
            if name.base() != name.as_str() {
                instances.entry(name.base()).or_default().push(i);
            }
        }
        let needs = jobs.iter().map(|(_, wanted)| {
            let mut found: BTreeSet<usize> = BTreeSet::new();
            for name in *wanted {
                match exact.get(name.as_str()) {
                    Some(i) => found.extend([*i]),
                    None => found.extend(instances.get(name.as_str()).into_iter().flatten()),
                }
            }
            found.into_iter().collect()
        });
        Self { needs: needs.collect(), names: jobs.iter().map(|(name, _)| *name).collect() }
    }

    /// Takes away, layer by layer, the jobs whose needs are all gone. Where that stops, every job left
    /// needs another that is left, so following any of them must come round: that ring is noted and taken
    /// away too.
    fn peel(&self) -> (Vec<Vec<JobName>>, Vec<Cycle>) {
        let mut open: Vec<usize> = self.needs.iter().map(Vec::len).collect();
        let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); self.needs.len()];
        for (job, needs) in self.needs.iter().enumerate() {
            for need in needs {
                needed_by[*need].push(job);
            }
        }
        let mut gone = vec![false; self.needs.len()];
        let mut next: Vec<usize> = (0..open.len()).filter(|i| open[*i] == 0).collect();
        let (mut layers, mut rings) = (Vec::new(), Vec::new());
        let mut search_from = 0;
        loop {
            while !next.is_empty() {
                next.sort_unstable();
                for job in &next {
                    gone[*job] = true;
                }
                layers.push(next.iter().map(|i| self.names[*i].clone()).collect());
                next = release(&next, &needed_by, &mut open, &gone);
            }
            while gone.get(search_from) == Some(&true) {
                search_from += 1;
            }
            if search_from == gone.len() {
                return (layers, rings);
            }
            let ring = self.ring(search_from, &gone);
            for job in &ring {
                gone[*job] = true;
            }
            next = release(&ring, &needed_by, &mut open, &gone);
            let path = ring.iter().chain(ring.first()).map(|i| self.names[*i].clone()).collect();
            rings.push(Cycle { path });
        }
    }

    /// Follows needs from `start` until a job comes again; the ring begins with its earliest job.
    fn ring(&self, start: usize, gone: &[bool]) -> Vec<usize> {
        let mut walk: Vec<usize> = Vec::new();
        let mut seen_at: BTreeMap<usize, usize> = BTreeMap::new();
        let mut at = start;
        loop {
            if let Some(from) = seen_at.get(&at) {
                let mut ring = walk.split_off(*from);
                let earliest = ring.iter().enumerate().min_by_key(|(_, job)| **job).map_or(0, |(i, _)| i);
                ring.rotate_left(earliest);
                return ring;
            }
            seen_at.insert(at, walk.len());
            walk.push(at);
            match self.needs[at].iter().find(|need| !gone[**need]) {
                Some(need) => at = *need,
                // Not reachable while every job left needs another; a ring of one ends the walk all the same.
                None => return vec![at],
            }
        }
    }
}

/// Counts down what `taken` were needed for; returns the jobs that need nothing any more.
fn release(taken: &[usize], needed_by: &[Vec<usize>], open: &mut [usize], gone: &[bool]) -> Vec<usize> {
    let mut free = Vec::new();
    for job in taken.iter().flat_map(|t| &needed_by[*t]) {
        open[*job] -= 1;
        if open[*job] == 0 && !gone[*job] {
            free.push(*job);
        }
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(jobs: &[(&str, &[&str])]) -> Vec<JobSpec> {
        let name = |n: &str| JobName::new(n).unwrap();
        let spec = |(job, needs): &(&str, &[&str])| {
            let mut spec = JobSpec::new(name(job), vec!["true".into()]);
            spec.depends_on = needs.iter().map(|n| name(n)).collect();
            spec
        };
        jobs.iter().map(spec).collect()
    }

    fn shown(layers: &[Vec<JobName>]) -> String {
        let layer = |l: &Vec<JobName>| l.iter().map(JobName::as_str).collect::<Vec<_>>().join(" ");
        layers.iter().map(layer).collect::<Vec<_>>().join(" | ")
    }

    fn all_cycles(jobs: &[(&str, &[&str])]) -> Vec<String> {
        let specs = specs(jobs);
        let edges = specs.iter().map(|s| (&s.name, s.depends_on.as_slice()));
        cycles(edges).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn layers_follow_the_needs_and_keep_the_given_order() {
        let jobs =
            specs(&[("z", &[]), ("web", &["db", "cache"]), ("db", &[]), ("cache", &["db"]), ("a", &[])]);
        assert_eq!(shown(&order(&jobs).unwrap()), "z db a | cache | web");
        assert_eq!(shown(&stop_order(&jobs).unwrap()), "web | cache | z db a");
        assert_eq!(order(&[]).unwrap(), Vec::<Vec<JobName>>::new());
    }

    #[test]
    fn a_name_with_instances_means_all_of_them() {
        let jobs = specs(&[("lb", &["web"]), ("one", &["web:1"]), ("web:1", &[]), ("web:2", &["one"])]);
        assert_eq!(shown(&order(&jobs).unwrap()), "web:1 | one | web:2 | lb");
    }

    #[test]
    fn a_need_that_is_not_there_or_is_named_twice_counts_as_it_should() {
        let jobs = specs(&[("web", &["db", "db", "nowhere"]), ("db", &[])]);
        assert_eq!(shown(&order(&jobs).unwrap()), "db | web");
    }

    #[test]
    fn rings_are_named_with_their_path() {
        assert_eq!(all_cycles(&[("a", &["a"])]), ["a -> a"]);
        assert_eq!(
            all_cycles(&[("x", &["b"]), ("c", &["a"]), ("b", &["c"]), ("a", &["b"])]),
            ["c -> a -> b -> c"]
        );
        let two: &[(&str, &[&str])] = &[("a", &["b"]), ("b", &["a"]), ("c", &["d"]), ("d", &["c", "a"])];
        assert_eq!(all_cycles(two), ["a -> b -> a", "c -> d -> c"]);
        assert_eq!(order(&specs(two)).unwrap_err().to_string(), "a -> b -> a");
    }

    #[test]
    fn only_the_ring_is_blamed_not_what_hangs_on_it() {
        assert_eq!(
            all_cycles(&[("top", &["a"]), ("a", &["b"]), ("b", &["a", "leaf"]), ("leaf", &[])]),
            ["a -> b -> a"]
        );
    }

    #[test]
    fn a_long_chain_and_a_long_ring_are_no_trouble() {
        let name = |i: usize| JobName::new(format!("j{i}")).unwrap();
        let mut jobs: Vec<JobSpec> = (0..20_000)
            .map(|i| {
                let mut spec = JobSpec::new(name(i), vec!["true".into()]);
                spec.depends_on = vec![name(i + 1)];
                spec
            })
            .collect();
        let layers = order(&jobs).unwrap();
        assert_eq!((layers.len(), layers[0][0].as_str()), (20_000, "j19999"));
        jobs[19_999].depends_on = vec![name(0)];
        assert_eq!(order(&jobs).unwrap_err().path.len(), 20_001);
    }
}
