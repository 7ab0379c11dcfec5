//! What leaves the process, and what operators ask.

use super::*;

impl Supervisor {
    pub(super) fn perform(&mut self, effect: Effect, seq: u64, ground: &mut Ground<'_>) -> Result<(), Cut> {
        ground.oracle.performs(seq, ground.stale)?;
        match effect {
            Effect::Launch { run, attempt, spec } => {
                if let Some(Waiting { attempt, spec }) = self.pace.wait(run, Waiting { attempt, spec }) {
                    self.launch(run, attempt, &spec, ground)?;
                }
            }
            Effect::Signal { run, signal, scope, cont, asked, rung } => {
                if self.read_only.is_some() && !matches!(asked, Asked::Operator { .. }) {
                    return Err(Broken::new("J25", || format!("{run} is signalled while read-only")).into());
                }
                self.request(Request::Signal { run, signal, scope, cont, asked, rung }, None, ground);
            }
            Effect::Diagnose { .. } | Effect::RunHook { .. } => {}
            Effect::RunStopCommand { run, step, .. } => {
                let ok = ground.rng.one_in(2);
                if ok && ground.rng.one_in(2) {
                    ground.host.end(run, Outcome::Exited { code: 0 }, false);
                }
                self.commands.push_back((run, step, ok));
            }
            Effect::Forget { run } => self.request(Request::Forget { run }, None, ground),
            Effect::Disown { run } => self.request(Request::Disown { run }, None, ground),
            Effect::Exit { keep_jobs, .. } => {
                ground.oracle.exits(keep_jobs, &self.state, ground.host)?;
                self.request(Request::Goodbye, None, ground);
                self.exit = Some(keep_jobs);
            }
        }
        Ok(())
    }

    pub(super) fn launch(
        &mut self,
        run: RunId,
        attempt: u64,
        spec: &JobSpec,
        ground: &mut Ground<'_>,
    ) -> Result<(), Cut> {
        if self.read_only.is_some() {
            return Err(Broken::new("J25", || format!("{run} is started while read-only")).into());
        }
        if ground.rng.one_in(60) {
            // No such user, most likely: it could not even be asked for.
            self.pace.answered(run);
            self.refused.push((run, Outcome::NotStarted { step: "user".to_owned(), errno: 2 }));
            return Ok(());
        }
        let launch = launch_of(run, attempt, spec);
        let again = ground.rng.one_in(40).then(|| launch.clone());
        self.request(Request::Launch(launch), Some(Pending::Launch(run)), ground);
        if let Some(launch) = again {
            // A request that arrives twice; nobody waits for the second answer.
            self.request(Request::Launch(launch), None, ground);
        }
        Ok(())
    }

    pub(super) fn request(&mut self, request: Request, pending: Option<Pending>, ground: &mut Ground<'_>) {
        let conn = self.conn.and_then(|(number, _)| ground.conns.get_mut(&number));
        let Some(conn) = conn.filter(|_| self.keeper) else { return };
        self.next_request += 1;
        if !conn.keeper_gone {
            conn.to_keeper.push_back((self.next_request, request));
        }
        if let Some(pending) = pending {
            self.pending.insert(self.next_request, pending);
        }
    }

    pub(super) fn make_starts(&mut self, ground: &mut Ground<'_>) -> Result<(), Cut> {
        while self.state.instance.link == Link::Working
            && (self.read_only.is_none() || ground.mistake == Some(Mistake::PacedWhileReadOnly))
            && let Some((run, Waiting { attempt, spec })) = self.pace.next(ground.host.now.boot_us)
        {
            self.launch(run, attempt, &spec, ground)?;
        }
        Ok(())
    }

    pub(super) fn ask_for_recoveries(&mut self, ground: &mut Ground<'_>) {
        for _ in 0..std::mem::take(&mut self.recoveries) {
            let unknown =
                |run: &RunId| self.pace.holds(*run) || self.refused.iter().any(|(refused, _)| refused == run);
            let live = self.state.live_runs().map(|(run, _)| run).filter(|run| !unknown(run)).collect();
            self.request(Request::Inventory, Some(Pending::Recover(live)), ground);
        }
    }

    /// What is seen of a live run, or told by one: true or not, it is decided by.
    fn look(&mut self, turn: &mut Turn, ground: &mut Ground<'_>) -> Result<(), Cut> {
        let live: Vec<RunId> = self.state.live_runs().map(|(run, _)| run).collect();
        if live.is_empty() {
            return Ok(());
        }
        let run = live[ground.rng.index(live.len())];
        let now = ground.host.now;
        let input = match ground.rng.below(8) {
            0 => Input::Well { run },
            1 => Input::Extended { run, until: now.plus(Millis(ground.rng.below(3000))) },
            2 => Input::Diagnosed { run },
            3..=5 => {
                let fault = Fault::ALL[ground.rng.index(Fault::ALL.len())];
                Input::Unwell { run, fault, why: "so".to_owned() }
            }
            _ => Input::Ready { run },
        };
        self.observe(&input, turn, ground)
    }

    pub(super) fn ask(&mut self, ask: Ask, turn: &mut Turn, ground: &mut Ground<'_>) -> Result<(), Cut> {
        let by = |verb: &str| Asked::Operator { uid: 1000, verb: verb.to_owned() };
        let input = match &ask {
            Ask::Start(jobs) => Input::Start { jobs: jobs.clone(), force: false, by: by("start") },
            Ask::Stop(jobs) => Input::Stop { jobs: jobs.clone(), by: by("stop") },
            Ask::Restart(jobs) => Input::Restart { jobs: jobs.clone(), by: by("restart") },
            Ask::Submit(spec) => {
                Input::Submitted { spec: spec.clone(), entry: Default::default(), by: by("run") }
            }
            Ask::LeaveRecovery => Input::LeaveRecovery { by: by("recover exit") },
            Ask::Shutdown { keep_jobs } => Input::Shutdown { keep_jobs: *keep_jobs, by: by("shutdown") },
            Ask::Reload => Input::Configured { specs: ground.config_file.to_vec(), by: by("reload") },
            Ask::Signal(job, signal) => Input::Signal {
                job: job.clone(),
                signal: *signal,
                scope: outlive::core::spec::KillScope::Process,
                by: by("signal"),
            },
            Ask::Look => return self.look(turn, ground),
            Ask::AllWell => {
                let live: Vec<RunId> = self.state.live_runs().map(|(run, _)| run).collect();
                for run in live {
                    self.observe(&Input::Ready { run }, turn, ground)?;
                    self.observe(&Input::Well { run }, turn, ground)?;
                }
                return Ok(());
            }
            Ask::Recover => {
                if self.read_only.is_none() && self.keeper && self.state.is_settled() {
                    self.recoveries += 1;
                }
                return Ok(());
            }
        };
        let signal = matches!(ask, Ask::Signal(..));
        if self.read_only.is_some() && !signal {
            ground.oracle.refused(&ask);
            return Ok(());
        }
        if matches!(ask, Ask::Reload) {
            if self.state.instance.shutdown.is_some() {
                return Ok(());
            }
            self.config = ground.config_file.to_vec();
            *ground.held_config = Some(self.config.clone());
        }
        let entries = turn.entries.len();
        let decision = self.decide(&input, turn, ground)?;
        if signal && self.read_only.is_some() {
            turn.entries.truncate(entries);
        }
        if matches!(ask, Ask::LeaveRecovery) {
            self.recovery = false;
        }
        let granted = !decision.events.is_empty();
        turn.replies.push(Reply { ask, granted });
        Ok(())
    }
}

fn launch_of(run: RunId, attempt: u64, spec: &JobSpec) -> Box<Launch> {
    Box::new(Launch {
        run,
        job: spec.name.clone(),
        attempt,
        argv: Vec::new(),
        env: Vec::new(),
        cwd: String::new(),
        user: None,
        umask: None,
        rlimits: Vec::new(),
        nice: spec.nice,
        oom_score_adj: None,
        stdin: spec.stdin.clone(),
        output: spec.output.clone(),
        on_supervisor_death: spec.on_supervisor_death,
        listen: outlive::wire::keeper::Listen::default(),
        limits: outlive::wire::keeper::GroupLimits::default(),
    })
}
