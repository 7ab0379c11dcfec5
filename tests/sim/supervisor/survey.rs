//! What survived, from the inventory and the files.

use super::*;

impl Supervisor {
    pub(super) fn survey(
        &mut self,
        inventory: Vec<RunStatus>,
        turn: &mut Turn,
        ground: &mut Ground<'_>,
    ) -> Result<(), Cut> {
        if self.read_only.is_some() {
            return Ok(());
        }
        self.pace.clear();
        let facts = self.facts(self.open_runs(), inventory, ground);
        self.settle(facts, turn, ground)
    }

    pub(super) fn settle(
        &mut self,
        facts: Survey,
        turn: &mut Turn,
        ground: &mut Ground<'_>,
    ) -> Result<(), Cut> {
        let mut facts = facts;
        match ground.mistake {
            Some(Mistake::HeldRuleOff) => {
                self.state.instance.settled = self.state.instance.missing;
                facts.runs.retain(|found| !self.state.is_beyond(found.run, found.job.as_ref()));
            }
            Some(Mistake::StrangersLeftAlone) => {
                for found in facts.runs.iter_mut().filter(|found| self.state.job_of(found.run).is_none()) {
                    found.job = None;
                }
            }
            _ => {}
        }
        let before = Before::of(&self.state);
        let input = Input::Surveyed(facts);
        let decision = self.decide(&input, turn, ground)?;
        let Input::Surveyed(facts) = input else { return Ok(()) };
        for item in plan::told(&before, &facts, &decision.events) {
            if let (Some(job), Some(next)) = (&item.job, item.next)
                && before.has_run(job)
            {
                self.pace.expect(next, item.class);
            }
        }
        let checked = check(&before, &facts, &self.state);
        match checked.violations.first() {
            // Histories are cut: of many runs that are taken back at once the first is soon forgotten.
            Some(first) if !ground.stale && !ground.oracle.lossy => {
                Err(Broken::new("laws", || first.clone()).into())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn open_runs(&self) -> Vec<(RunId, JobName, bool)> {
        let open = |(run, job): (RunId, &JobName)| (run, job.clone(), !self.state.is_of_earlier_epoch(run));
        self.state.live_runs().map(open).collect()
    }

    /// What the inventory and the files say about the open runs.
    pub(super) fn facts(
        &self,
        open: Vec<(RunId, JobName, bool)>,
        inventory: Vec<RunStatus>,
        ground: &Ground<'_>,
    ) -> Survey {
        if ground.mistake == Some(Mistake::SurveyIgnored) {
            return Survey::default();
        }
        let listed: BTreeSet<RunId> = inventory.iter().map(|status| status.run).collect();
        let mut runs: Vec<Surveyed> =
            inventory.into_iter().map(|status| from_keeper(status, ground.host)).collect();
        for (run, job, this_epoch) in open.into_iter().filter(|(run, _, _)| !listed.contains(run)) {
            runs.push(from_files((run, job), this_epoch, ground));
        }
        if self.state.instance.link == Link::Recovering {
            let found: BTreeSet<RunId> = runs.iter().map(|found| found.run).collect();
            let late = ground.host.files.iter().filter(|(run, files)| {
                files.dir && !found.contains(run) && self.state.is_beyond(**run, Some(&files.job))
            });
            runs.extend(late.map(|(run, files)| from_files((*run, files.job.clone()), true, ground)));
        }
        Survey { runs, ..Survey::default() }
    }
}

fn from_keeper(status: RunStatus, host: &Host) -> Surveyed {
    let fact = match (status.ended, status.identity) {
        (Some(record), _) => Fact::Ended { record, leftovers: status.leftovers },
        (None, Some(identity)) if identity.epoch == host.epoch => {
            Fact::Alive { identity, started: status.started.unwrap_or_default() }
        }
        (None, _) => Fact::Lost { why: "the keeper holds it without a proven identity".to_owned() },
    };
    Surveyed { rung: status.rung, ..Surveyed::new(status.run, Some(status.job), fact) }
}

/// What the files say of a run that no keeper lists.
fn from_files((run, job): (RunId, JobName), this_epoch: bool, ground: &Ground<'_>) -> Surveyed {
    let files = ground.host.files.get(&run).filter(|files| files.dir);
    if let Some(record) = files.and_then(|files| files.exit.clone()) {
        let fact = Fact::Ended { record: Box::new(record), leftovers: false };
        return Surveyed::new(run, Some(job), fact);
    }
    let careless = ground.mistake == Some(Mistake::EpochIgnored);
    if (this_epoch || careless) && files.is_none() {
        return Surveyed::new(run, Some(job), Fact::Cancelled);
    }
    Surveyed::new(run, Some(job), Fact::Lost { why: "no record".to_owned() })
}
