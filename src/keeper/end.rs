//! The end of a run: seen once, recorded, acknowledged, and everything of it put away.
//!
//! The order is the promise. The end is seen from the process, never from end-of-file. The worker takes
//! what the pipe holds; `exit.json` is written; only then does init hear that it may reap, and only then
//! is the supervisor told. Whoever dies in between: init tells again, or the file is there.

use std::os::fd::AsFd;
use std::path::PathBuf;

use super::capture::{CaptureEvent, Totals};
use super::main_loop::{Keeper, now};
use super::run::{DRAIN_US, End, Phase, Run, outcome_of};
use super::tree::{self, Target};
use crate::core::ids::RunId;
use crate::core::outcome::{Asked, ExitRecord, Outcome, Rusage, Source};
use crate::core::spec::{KillScope, OnSupervisorDeath, OutputMode};
use crate::core::time::Stamp;
use crate::state_dir::exit::ExitSlot;
use crate::sys::reap::Ended;
use crate::sys::{cgroup, clock, pidfd, proc};
use crate::wire::init::Message;
use crate::wire::keeper::Notice;

impl Keeper {
    /// Init says how a run's main process ended, and waits for our acknowledgement.
    pub(super) fn exited(&mut self, message: &Message, at: Stamp) {
        if self.ended_early(message, at) {
            return;
        }
        let Some(run) = self.runs.get_mut(&message.run) else {
            // Recorded and forgotten before: the acknowledgement was lost with a keeper.
            self.init.ack(message.run, message.pid);
            self.init.release(message.run, message.pid);
            return;
        };
        // Of an init that has gone meanwhile it is nobody's any more.
        run.child = self.init.alive().is_some();
        match &run.phase {
            // The disk refused the record: the supervisor's word is waited for, see `forget`.
            Phase::Ended { .. } if !run.recorded => {}
            Phase::Ended { .. } => {
                self.init.ack(message.run, message.pid);
                if run.put_away {
                    // Let go of before it was acknowledged, which init does not do.
                    self.init.release(message.run, message.pid);
                }
                self.put_away_if_over(message.run);
            }
            Phase::Ending { .. } => {}
            Phase::Live => {
                let ended = Ended {
                    pid: message.pid,
                    code: message.code,
                    status: message.status,
                    user_us: message.user_us,
                    system_us: message.system_us,
                    max_rss_kib: message.max_rss_kib,
                };
                let rusage = Rusage {
                    user_us: ended.user_us,
                    system_us: ended.system_us,
                    max_rss_kib: ended.max_rss_kib,
                };
                // A child that failed on its way to execve says so in its claim; its exit code is not
                // the program's.
                let (outcome, source) = match self.failed_before_exec(message.run) {
                    Some(outcome) => (outcome, Source::Keeper),
                    None => (outcome_of(&ended), Source::Wait),
                };
                self.begin_end(message.run, End { outcome, source, rusage: Some(rusage), at });
            }
        }
    }

    /// A watched process has ended, or was reaped: the main process of a run that init does not wait
    /// for, or something that was left over.
    pub(super) fn look_at(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        match run.phase {
            Phase::Live if self.init.alive().is_none() || !run.child => self.look_at_main(id),
            Phase::Live | Phase::Ending { .. } => {}
            Phase::Ended { .. } => self.look_at_leftovers(id),
        }
    }

    /// How a process ended that is nobody's child here. Until it is reaped by whoever inherited it, only
    /// root can read the status of the zombie; afterwards the descriptor tells (Linux 6.15).
    pub(super) fn look_at_main(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let Some(fd) = run.pidfd.as_ref() else { return };
        if !pidfd::has_ended(fd.as_fd()) {
            return;
        }
        let pid = run.pid();
        let (outcome, source) = if let Some(outcome) = self.failed_before_exec(id) {
            (outcome, Source::Keeper)
        } else if let Some(word) = pidfd::exit_status(fd.as_fd()) {
            (outcome_of(&Ended::from_wait_status(pid, word)), Source::PidfdInfo)
        } else if let Some(stat) = self.zombie_of(run) {
            if !rustix::process::geteuid().is_root() {
                // Not for us to read; the reaping gives another event.
                return;
            }
            (outcome_of(&Ended::from_wait_status(pid, stat.exit_code)), Source::ProcStat)
        } else if let Some(word) = pidfd::exit_status(fd.as_fd()) {
            // It was reaped between the two looks.
            (outcome_of(&Ended::from_wait_status(pid, word)), Source::PidfdInfo)
        } else {
            let why = "init was gone, and this kernel does not tell how another's child ended";
            (Outcome::Lost { why: why.to_owned() }, Source::None)
        };
        self.begin_end(id, End { outcome, source, rusage: None, at: now() });
    }

    fn zombie_of(&self, run: &Run) -> Option<proc::Stat> {
        let identity = run.identity.as_ref()?;
        proc::stat(identity.pid).filter(|stat| stat.state == b'Z' && stat.start_ticks == identity.start_ticks)
    }

    /// SIGKILL that nobody asked us for: the out-of-memory killer's, if the run's control group counts such
    /// a kill, or the kernel's log names the main process since its start. Neither may be there to be read,
    /// and only such an end is worth the look.
    fn name_oom_kill(&mut self, id: RunId, outcome: Outcome) -> Outcome {
        let Some(run) = self.runs.get(&id) else { return outcome };
        let ours = run.signalled.killed || run.killed_for_supervisor;
        if ours || !matches!(outcome, Outcome::Signaled { signal: libc::SIGKILL, .. }) {
            return outcome;
        }
        let counted = self.group_of(id).as_deref().and_then(cgroup::oom_kills).is_some_and(|kills| kills > 0);
        let (pid, started) = (run.pid(), run.started);
        if counted || started.is_some_and(|started| self.kernel_log.has_killed(pid, started.boot_us)) {
            return Outcome::OomKilled;
        }
        outcome
    }

    fn begin_end(&mut self, id: RunId, end: End) {
        self.hear_out(id);
        let end = End { outcome: self.name_oom_kill(id, end.outcome), ..end };
        let Some(run) = self.runs.get_mut(&id) else { return };
        let captured = run.captured;
        run.phase = Phase::Ending { end, deadline_us: clock::boot_us() + DRAIN_US };
        if captured {
            self.capture.capture.drain(id);
        } else {
            self.finish(id, Totals::default(), true);
        }
    }

    /// A run whose worker does not answer, because its disk does not: the record says that the output is
    /// not complete, and nobody waits any longer.
    pub(super) fn finish_late_drains(&mut self, now_us: u64) {
        let late =
            |run: &&Run| matches!(run.phase, Phase::Ending { deadline_us, .. } if deadline_us <= now_us);
        let late: Vec<RunId> = self.runs.values().filter(late).map(|run| run.id).collect();
        for id in late {
            self.finish(id, self.capture.capture.totals(id), false);
        }
    }

    pub(super) fn capture_news(&mut self) {
        for event in self.capture.news() {
            match event {
                CaptureEvent::Drained { run, totals, complete } => self.drained(run, totals, complete),
                CaptureEvent::HolderGone { run } => {
                    if let Some(known) = self.runs.get_mut(&run) {
                        known.leftovers.fifo_held = false;
                    }
                    self.look_at(run);
                }
                CaptureEvent::Stall { run, errno, dropped } => self.stalled(run, errno, dropped),
                CaptureEvent::Closed { .. } => {}
                // A worker is gone, and nothing of it can be mended here. A new keeper starts with new
                // workers; the FIFOs keep what is in them.
                CaptureEvent::Failed { .. } => self.quit = true,
            }
        }
    }

    fn drained(&mut self, id: RunId, totals: Totals, complete: bool) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        match run.phase {
            Phase::Live => {}
            Phase::Ending { .. } => self.finish(id, totals, complete),
            Phase::Ended { .. } if complete => {
                run.stalled = false;
                run.leftovers.fifo_held = false;
                self.look_at(id);
            }
            Phase::Ended { .. } => {}
        }
    }

    fn stalled(&mut self, id: RunId, errno: i32, dropped: u64) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.stalled = errno != 0;
            if errno == 0 && matches!(run.phase, Phase::Ended { .. }) {
                // What waited for the disk is taken now; the answer lets go of the pipes.
                self.capture.capture.drain(id);
            }
        }
        self.tell(&Notice::LogStall { run: id, errno, dropped });
    }

    /// Records the end, lets init reap, tells the supervisor.
    fn finish(&mut self, id: RunId, totals: Totals, complete: bool) {
        let Some(run) = self.runs.get(&id) else { return };
        let Phase::Ending { end, .. } = &run.phase else { return };
        let record = run.record(end, totals, complete);
        let fifo_held = run.captured && !complete;
        // While the main process is still a zombie its session number is pinned: look now.
        let known = self.known();
        let target = self.target(run, run.child);
        let mut members = tree::members(&target, self.ground(&known), &[]);
        if members.is_empty() && fifo_held {
            members = self.fifo_holders(id);
        }
        self.write_record(id, &record);
        for member in &members {
            self.watch(member.pidfd.as_fd(), id);
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.leftovers.members = members;
        run.leftovers.fifo_held = fifo_held;
        run.stdin = None;
        run.phase = Phase::Ended { record: Box::new(record.clone()) };
        let (pid, child, leftovers) = (run.pid(), run.child, run.leftovers.any());
        run.leftovers.told = leftovers;
        if child && run.recorded {
            self.init.ack(id, pid);
        }
        self.tell(&Notice::Ended { record: Box::new(record), leftovers });
        // A member may have ended between being found and being watched.
        self.look_at_leftovers(id);
    }

    /// Puts `exit.json` in place. If the disk refuses even that, init keeps the zombie until it does not:
    /// the supervisor is told all the same, and its event log holds the outcome.
    pub(super) fn write_record(&mut self, id: RunId, record: &ExitRecord) {
        let dir = self.state.run(id);
        let slot = self.runs.get_mut(&id).and_then(|run| run.slot.take());
        let slot = slot.map_or_else(|| ExitSlot::prepare(&dir), Ok);
        if let Ok(file) = slot.and_then(|slot| slot.commit(record)) {
            let _ = self.to_sync.send(file);
            if let Some(run) = self.runs.get_mut(&id) {
                run.recorded = true;
            }
        }
    }

    /// The supervisor has made the end of a run durable. One that could not be recorded here is let go of
    /// only now: until then init would have told it again to another keeper.
    pub(super) fn forget(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if !matches!(run.phase, Phase::Ended { .. }) {
            return;
        }
        run.forgotten = true;
        let late = run.child && !std::mem::replace(&mut run.recorded, true);
        let (pid, put_away) = (run.pid(), run.put_away);
        if late {
            self.init.ack(id, pid);
            if put_away {
                self.init.release(id, pid);
            }
        }
        self.put_away_if_over(id);
    }

    /// Whether anything of an ended run is still there; when not, everything of it is put away.
    fn look_at_leftovers(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        if run.leftovers.members.iter().any(|m| pidfd::has_ended(m.pidfd.as_fd())) {
            let known = self.known();
            let target = self.target(run, false);
            let mut members = tree::members(&target, self.ground(&known), &run.leftovers.members);
            if members.is_empty() && run.leftovers.fifo_held {
                members = self.fifo_holders(id);
            }
            let Some(run) = self.runs.get_mut(&id) else { return };
            // One that was found before keeps its descriptor: the watch ends with that.
            let mut kept = std::mem::take(&mut run.leftovers.members);
            kept.retain(|m| !pidfd::has_ended(m.pidfd.as_fd()));
            members.retain(|m| kept.iter().all(|k| k.pid != m.pid));
            for member in &members {
                self.watch(member.pidfd.as_fd(), id);
            }
            kept.append(&mut members);
            if let Some(run) = self.runs.get_mut(&id) {
                run.leftovers.members = kept;
            }
        }
        if let Some(run) = self.runs.get_mut(&id)
            && !run.leftovers.any()
            && std::mem::take(&mut run.leftovers.told)
        {
            self.tell(&Notice::TreeGone { run: id });
        }
        self.put_away_if_over(id);
    }

    /// What to look for when the tree of a run is meant.
    pub(super) fn target(&self, run: &Run, leader_pinned: bool) -> Target {
        Target { run: run.id, leader: run.pid(), leader_pinned, group: self.group_of(run.id) }
    }

    /// The control group of a run, if there is one.
    pub(super) fn group_of(&self, id: RunId) -> Option<PathBuf> {
        self.cgroups.as_ref().map(|base| base.join(id.to_string()))
    }

    /// Processes that hold one of the run's FIFOs, whatever their parents, sessions or environments.
    fn fifo_holders(&self, id: RunId) -> Vec<tree::Member> {
        let dir = self.runtime.run(id);
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let known = self.known();
        proc::holders(&[dir.stdout(), dir.stderr()])
            .into_iter()
            .filter(|stat| {
                stat.pid != own && Some(stat.pid) != self.init.alive() && !known.contains(&stat.pid)
            })
            .filter_map(|stat| {
                let pidfd = proc::open_listed(&stat)?;
                Some(tree::Member { pid: stat.pid, pidfd, session: stat.session })
            })
            .collect()
    }

    /// Ended, and nothing left: the capture, the FIFOs and the escrow go. What the supervisor has not
    /// acknowledged stays in the inventory.
    pub(super) fn put_away_if_over(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if !matches!(run.phase, Phase::Ended { .. }) || run.leftovers.any() {
            return;
        }
        if run.stalled && run.captured {
            // Bytes wait in the pipes for the disk.
            return;
        }
        let (pid, captured, forgotten) = (run.pid(), run.captured, run.forgotten);
        if !std::mem::replace(&mut run.put_away, true) {
            run.captured = false;
            run.pidfd = None;
            run.leftovers.members.clear();
            if captured {
                self.capture.capture.remove(id);
            }
            // A claim that comes too late finds no directory, and its child ends without having run.
            let _ = std::fs::remove_dir_all(&self.runtime.run(id).0);
            if let Some(group) = self.group_of(id) {
                // Not while something disowned is in it.
                let _ = std::fs::remove_dir(group);
            }
            self.init.release(id, pid);
        }
        if forgotten {
            self.runs.remove(&id);
        }
    }

    /// When `kill_after` runs out for the first run, if no supervisor comes.
    pub(super) fn next_kill_deadline(&self) -> u64 {
        let Some(since) = self.supervisor_lost_us else { return u64::MAX };
        let deadline = |run: &Run| match run.on_supervisor_death {
            OnSupervisorDeath::Keep => None,
            OnSupervisorDeath::Kill => Some(since),
            OnSupervisorDeath::KillAfter(after) => Some(since + after.0 * 1000),
        };
        let pending = |run: &&Run| run.is_live() && !run.killed_for_supervisor;
        self.runs.values().filter(pending).filter_map(deadline).min().unwrap_or(u64::MAX)
    }

    pub(super) fn kill_for_dead_supervisor(&mut self, now_us: u64) {
        let Some(since) = self.supervisor_lost_us else { return };
        let due = |run: &&mut Run| {
            run.is_live()
                && !run.killed_for_supervisor
                && match run.on_supervisor_death {
                    OnSupervisorDeath::Keep => false,
                    OnSupervisorDeath::Kill => true,
                    OnSupervisorDeath::KillAfter(after) => since + after.0 * 1000 <= now_us,
                }
        };
        let mut ids = Vec::new();
        for run in self.runs.values_mut().filter(due) {
            run.killed_for_supervisor = true;
            run.signalled.asked = Asked::SupervisorDeath;
            ids.push(run.id);
        }
        for id in ids {
            let _ = self.signal_run(id, (libc::SIGKILL, KillScope::Tree, false));
            self.save_signalled(id);
        }
    }

    /// What the claim says about a child that ended before `execve`.
    pub(super) fn failed_before_exec(&self, id: RunId) -> Option<Outcome> {
        use super::survive::Claim;
        match Claim::read(&self.runtime.run(id).decision()) {
            Claim::Exec { failed: Some((step, errno)), .. } => {
                Some(Outcome::NotStarted { step: step.as_str().to_owned(), errno })
            }
            Claim::Exec { failed: None, .. } => None,
            Claim::Cancelled => Some(Outcome::Cancelled),
            Claim::None => Some(Outcome::NotStarted {
                step: crate::sys::spawn::Step::Killed.as_str().to_owned(),
                errno: 0,
            }),
            Claim::Unreadable => None,
        }
    }
}

/// Whether a run's output is captured at all.
pub(super) fn captures(mode: OutputMode) -> bool {
    mode != OutputMode::None
}
