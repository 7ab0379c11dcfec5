//! The laws of operations that are done whole or undone: what a history needs for them.

use std::collections::BTreeSet;

use super::super::event::Event;
use super::super::ids::JobName;
use super::super::saga::Force;
use super::laws::History;
use super::random::{JOBS, random_spec};

impl History {
    /// What a supervisor does that holds two configurations.
    pub(super) fn keep_one_configuration(&mut self) {
        let Some((saga, _)) = &self.before else { return };
        match self.world.state.sagas.in_force(*saga) {
            Force::Open => {}
            Force::New => self.before = None,
            Force::Old => self.specs = self.before.take().unwrap().1,
        }
    }

    /// Makes the settings others than they are.
    pub(super) fn change_specs(&mut self) {
        let i = self.rng.below(self.specs.len() as u64) as usize;
        if self.rng.one_in(3) {
            self.specs.remove(i);
        } else {
            let job = self.specs[i].name.clone();
            self.specs[i] = random_spec(&mut self.rng, job.as_str());
        }
        for job in JOBS {
            if !self.specs.iter().any(|spec| spec.name.as_str() == job) && self.rng.one_in(2) {
                let spec = random_spec(&mut self.rng, job);
                self.specs.push(spec);
            }
        }
    }

    /// Every saga that began has ended, once.
    pub(super) fn check_sagas(&self) {
        let events = self.world.log.iter().flat_map(|(_, events)| events);
        let mut open = None;
        for event in events {
            match event {
                Event::SagaBegun { plan } => assert_eq!(open.replace(plan.id), None),
                Event::SagaEnded { saga, .. } => assert_eq!(open.take(), Some(*saga)),
                Event::SagaStepDone { saga, .. } | Event::SagaUndoing { saga, .. } => {
                    assert_eq!(open, Some(*saga));
                }
                _ => {}
            }
        }
        assert_eq!(open, None);
        let names = |specs: &mut dyn Iterator<Item = JobName>| specs.collect::<BTreeSet<_>>();
        let ours = names(&mut self.specs.iter().map(|spec| spec.name.clone()));
        let known = self.world.state.jobs().filter(|(_, job)| !job.submitted);
        assert_eq!(names(&mut known.map(|(name, _)| name.clone())), ours, "jobs, and those in force");
    }
}
