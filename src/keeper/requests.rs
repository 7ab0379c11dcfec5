//! What a supervisor asks, and the answers.

use super::listen::die_at;
use super::main_loop::{Keeper, generation_file};
use super::run::{Phase, Run};
use super::tree;
use crate::core::ids::{Generation, RunId};
use crate::core::outcome::Asked;
use crate::core::rung::Rung;
use crate::core::spec::KillScope;
use crate::core::time::Stamp;
use crate::state_dir::atomic;
use crate::sys::clock;
use crate::wire::keeper::{Answer, FromKeeper, MIN_VERSION, Numbered, Refusal, Request, RunStatus, VERSION};

type Answered = Result<Answer, Refusal>;

/// The run that a request is about, which must have been started before.
pub(super) fn about(request: &Request) -> Option<RunId> {
    match request {
        Request::Signal { run, .. }
        | Request::Stdin { run, .. }
        | Request::Forget { run }
        | Request::Disown { run } => Some(*run),
        Request::Hello { .. }
        | Request::Inventory
        | Request::Beats { .. }
        | Request::Launch(_)
        | Request::HandOver
        | Request::Goodbye => None,
    }
}

impl Keeper {
    pub(super) fn answer(&mut self, number: u64, numbered: Numbered) {
        let Some(Numbered { id, request }) = self.postpone(number, numbered) else { return };
        let result = match (self.refused(number, &request), request) {
            (_, Request::HandOver) => return self.hand_over(number, id),
            (Some(refusal), _) => Err(refusal),
            (None, Request::Launch(launch)) => {
                if self.launch((number, id), launch) {
                    return;
                }
                Err(Refusal::SeenRun)
            }
            (None, request) => self.grant(number, request),
        };
        self.say(number, &FromKeeper::Reply { id, result });
    }

    /// A supervisor must introduce itself, and must be the newest.
    fn refused(&self, number: u64, request: &Request) -> Option<Refusal> {
        let generation = match request {
            Request::Hello { generation, .. } => Some(*generation),
            _ => self.links.get(number).and_then(|connection| connection.generation),
        };
        match generation {
            None => Some(Refusal::Bad { why: "the first request must be hello".to_owned() }),
            Some(generation) if generation < self.newest => {
                Some(Refusal::OldGeneration { newest: self.newest })
            }
            Some(_) => None,
        }
    }

    fn grant(&mut self, number: u64, request: Request) -> Answered {
        match request {
            Request::Hello { min_version, version, generation } => {
                self.hello(number, min_version, version, generation)
            }
            Request::Inventory => {
                for run in self.runs.values_mut() {
                    run.leftovers.told |= run.leftovers.any();
                }
                Ok(Answer::Inventory { runs: self.runs.values().map(|run| self.status(run)).collect() })
            }
            Request::Beats { runs } => Ok(Answer::Beats { beats: self.beats(&runs) }),
            Request::Signal { run, signal, scope, cont, asked, rung } => {
                self.signal_by(run, (signal, scope, cont), asked, rung)
            }
            Request::Stdin { run, data, close } => self.stdin(run, &data, close),
            Request::Forget { run } => {
                self.forget(run);
                Ok(Answer::Done)
            }
            Request::Disown { run } => {
                let known = self.runs.get_mut(&run).ok_or(Refusal::UnknownRun)?;
                known.leftovers.disowned = true;
                self.put_away_if_over(run);
                Ok(Answer::Done)
            }
            Request::Goodbye => {
                if let Some(connection) = self.links.get_mut(number) {
                    connection.goodbye = true;
                }
                // The instance ends, and there is no init left that could tell us so.
                if self.init.alive().is_none() {
                    self.end();
                }
                Ok(Answer::Done)
            }
            Request::Launch(_) | Request::HandOver => {
                Err(Refusal::Bad { why: "this is answered elsewhere".to_owned() })
            }
        }
    }

    /// The latest beats of these. Who is asked about is heard first: what it sent while we were stopped was in time.
    fn beats(&mut self, runs: &[RunId]) -> Vec<(RunId, Stamp)> {
        for id in runs {
            self.hear(*id);
        }
        let live = runs.iter().filter_map(|id| self.runs.get(id)).filter(|run| run.is_live());
        live.filter_map(|run| Some((run.id, run.listening.as_ref()?.told.beat?))).collect()
    }

    fn hello(&mut self, number: u64, min_version: u32, version: u32, generation: Generation) -> Answered {
        if version < MIN_VERSION || min_version > VERSION {
            return Err(Refusal::Version { min_version: MIN_VERSION, version: VERSION });
        }
        if generation > self.newest {
            let path = generation_file(&self.runtime);
            atomic::write_unsynced(&path, generation.0.to_string().as_bytes(), 0o600).map_err(|error| {
                Refusal::System {
                    what: format!("writing {}", path.display()),
                    errno: error.raw_os_error().unwrap_or(0),
                }
            })?;
            self.newest = generation;
        }
        if let Some(connection) = self.links.get_mut(number) {
            connection.generation = Some(generation);
            connection.version = version;
        }
        self.supervisor_lost_us = None;
        Ok(Answer::Hello {
            min_version: MIN_VERSION,
            version: VERSION,
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            init: self.init.alive().is_some(),
        })
    }

    fn status(&self, run: &Run) -> RunStatus {
        let totals = self.capture.capture.totals(run.id);
        RunStatus {
            run: run.id,
            job: run.job.clone(),
            identity: run.identity.clone(),
            started: run.started,
            ended: match &run.phase {
                Phase::Ended { record } => Some(record.clone()),
                Phase::Live | Phase::Ending { .. } => None,
            },
            leftovers: run.leftovers.any(),
            output_bytes: totals.stdout_bytes + totals.stderr_bytes,
            kill_in: None,
            told: run.listening.as_ref().map(|listening| Box::new(listening.told.clone())),
            rung: run.signalled.rung,
        }
    }

    /// Signals a run, and remembers why. What it is asked to send once was sent if it knows that rung.
    fn signal_by(
        &mut self,
        id: RunId,
        what: (i32, KillScope, bool),
        asked: Asked,
        rung: Option<Rung>,
    ) -> Answered {
        let run = self.runs.get_mut(&id).ok_or(Refusal::UnknownRun)?;
        let sent = rung.is_some() && run.signalled.rung == rung;
        if run.is_live() {
            run.signalled.asked = asked;
            run.signalled.at_us = clock::boot_us();
            run.signalled.killed |= what.0 == libc::SIGKILL;
        }
        if sent {
            self.save_signalled(id);
            return Ok(Answer::Done);
        }
        self.signal_run(id, what)?;
        die_at("keeper.signalled");
        if let Some(run) = self.runs.get_mut(&id) {
            run.signalled.rung = rung.or(run.signalled.rung);
        }
        self.save_signalled(id);
        Ok(Answer::Done)
    }

    /// Where this cannot be written, a keeper after us does not know who asked, and what was sent once may be sent again.
    pub(super) fn save_signalled(&self, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        if let Ok(text) = serde_json::to_vec(&run.signalled) {
            let _ = atomic::write_unsynced(&self.runtime.run(id).signalled(), &text, 0o600);
        }
    }

    /// Signals a run, identity-bound.
    pub(super) fn signal_run(
        &self,
        id: RunId,
        (signal, scope, cont): (i32, KillScope, bool),
    ) -> Result<Answer, Refusal> {
        let run = self.runs.get(&id).ok_or(Refusal::UnknownRun)?;
        let Some(leader) = run.pidfd.as_ref() else {
            return Err(Refusal::NotPossible { what: "has ended".to_owned() });
        };
        let known = self.known();
        let target = self.target(run, run.is_pinned() && (run.child || run.is_live()));
        let reached =
            tree::signal(&target, leader, (signal, scope, cont), self.ground(&known), &run.leftovers.members);
        if reached { Ok(Answer::Done) } else { Err(Refusal::NotPossible { what: "has ended".to_owned() }) }
    }

    fn stdin(&mut self, id: RunId, data: &[u8], close: bool) -> Answered {
        let run = self.runs.get_mut(&id).ok_or(Refusal::UnknownRun)?;
        if !run.is_live() {
            return Err(Refusal::NotPossible { what: "has ended".to_owned() });
        }
        let Some(stdin) = run.stdin.as_ref() else {
            return Err(Refusal::NotPossible {
                what: "has no open stdin; it needs `stdin = \"keep\"`, or `run --stdin`".to_owned(),
            });
        };
        let mut written = 0;
        while written < data.len() {
            match rustix::io::write(stdin, &data[written..]) {
                Ok(n) => written += n,
                Err(rustix::io::Errno::INTR) => {}
                // Full: the rest is for the caller to send again.
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => {
                    return Err(Refusal::System { what: "writing".to_owned(), errno: error.raw_os_error() });
                }
            }
        }
        if close && written == data.len() {
            run.stdin = None;
            // Init's copy must go too, or the run would never read the end.
            self.renew_escrow(id);
        }
        Ok(Answer::Written { bytes: u64::try_from(written).unwrap_or(0) })
    }
}
