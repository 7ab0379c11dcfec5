//! The end of a world: no more accidents, and everything has to come to rest where it was wanted.

use super::*;

impl World {
    /// No more accidents: everything comes to rest where it was wanted.
    pub(super) fn rest(&mut self) -> Result<(), Broken> {
        self.calm = true;
        self.fs.calm();
        self.stale = None;
        self.note("calm", 0);
        let mut quiet = 0;
        for _ in 0..CALM_STEPS {
            self.host.pass(1000);
            if self.calm_step()? {
                quiet = 0;
            } else {
                quiet += 1;
                if quiet == 3 {
                    return self.at_rest();
                }
            }
        }
        Err(Broken::new("liveness", || "it does not come to rest".to_owned()))
    }

    /// Whether anything happened.
    pub(super) fn calm_step(&mut self) -> Result<bool, Broken> {
        if !self.up {
            self.start_instance()?;
        } else if self.keeper.is_none() {
            self.start_keeper()?;
        } else if self.sup.is_none() {
            self.start_supervisor()?;
        } else if !self.host.init {
            self.host.init = true;
        } else if self.keeper_is_busy() {
            self.keeper_works()?;
        } else if let Some(run) = self.unfinished_child() {
            self.finish_child(run)?;
        } else if self.sup.as_ref().is_some_and(|sup| sup.connection().is_none() || sup.has_news(&self.conns))
        {
            self.supervisor_turn(None)?;
        } else if self.sup.as_ref().is_some_and(|sup| sup.state.instance.recovery && !sup.is_read_only()) {
            self.supervisor_turn(Some(Ask::LeaveRecovery))?;
        } else if self.sup.as_ref().is_some_and(|sup| sup.waits_for_word() && !sup.is_read_only()) {
            self.supervisor_turn(Some(Ask::AllWell))?;
        } else if self.sup.as_ref().is_some_and(|sup| sup.next_deadline(self.host.now.boot_us).is_some()) {
            self.time_passes()?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn supervisor_is_busy(&self) -> bool {
        let now = self.host.now.boot_us;
        self.sup.as_ref().is_some_and(|sup| {
            let due = sup.next_deadline(now).is_some_and(|at| at <= now);
            due || sup.connection().is_none() || sup.has_news(&self.conns)
        })
    }

    pub(super) fn keeper_is_busy(&mut self) -> bool {
        let waiting = self.conns.values().any(|conn| !conn.keeper_gone && !conn.to_keeper.is_empty());
        waiting || self.keeper.as_ref().is_some_and(|keeper| keeper.has_work(&self.host))
    }

    pub(super) fn unfinished_child(&self) -> Option<RunId> {
        let unfinished =
            |stage: &Stage, leftovers: bool| *stage == Stage::Forked || (leftovers && *stage != Stage::Live);
        let mut all = self.host.procs.iter();
        all.find(|(_, proc)| unfinished(&proc.stage, proc.leftovers && !proc.disowned)).map(|(run, _)| *run)
    }

    pub(super) fn finish_child(&mut self, run: RunId) -> Result<(), Broken> {
        let forked = self.host.procs.get(&run).is_some_and(|proc| proc.stage == Stage::Forked);
        if forked {
            exec(run, &mut self.around())?;
        } else if let Some(proc) = self.host.procs.get_mut(&run) {
            proc.leftovers = false;
        }
        self.note("child goes on", 0);
        Ok(())
    }

    pub(super) fn at_rest(&self) -> Result<(), Broken> {
        let Some(sup) = &self.sup else { return Err(Broken::new("liveness", || "no supervisor".to_owned())) };
        let state = &sup.state;
        if sup.is_read_only() {
            return Err(Broken::new("liveness", || "still read-only".to_owned()));
        }
        for (name, job) in state.jobs() {
            let fine = match (&job.phase, job.want) {
                (Phase::Stopped | Phase::Exited, Want::Down) => true,
                (Phase::Running { run, .. }, Want::Up) => {
                    self.host.procs.get(run).is_some_and(|proc| proc.stage == Stage::Live)
                }
                (Phase::Exited | Phase::Fatal { .. } | Phase::Waiting, Want::Up) => true,
                (Phase::Held { .. }, Want::Up) => self.oracle.lossy,
                _ => false,
            };
            if !fine {
                return Err(Broken::new("liveness", || format!("{name} came to rest as {job:?}")));
            }
        }
        self.oracle.true_ends(state, &self.host)?;
        self.oracle.all_known(state, &self.host)
    }
}
