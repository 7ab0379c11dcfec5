//! What a new keeper finds, and takes back.
//!
//! Three sources, in this order:
//!
//! 1. init's table: children of init, with their descriptors. Their pids are pinned by init;
//! 2. an old keeper that still lives because init died before it: it hands over process descriptors and
//!    stdin ends, see [`super::hand_over`];
//! 3. the run directories in the runtime directory: each has the claim that its child made right before
//!    `execve`, with its identity and epoch.
//!
//! A run of the third kind is taken back only if its identity is proven. If its process is gone, how it
//! ended cannot be known any more, and it is recorded as lost. A run without a claim is cancelled by
//! linking the decision ourselves: exactly one of that and a late child's claim wins.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::end::captures;
use super::init_link::Held;
use super::launch::{c_path, identify, open_output, open_stdin, paperwork};
use super::main_loop::{Keeper, now};
use super::run::{End, Leftovers, Phase, Run, Signalled};
use crate::core::identity::{Epoch, Identity};
use crate::core::ids::{JobName, RunId};
use crate::core::outcome::{ExitRecord, Outcome, Source};
use crate::core::spec::{OnSupervisorDeath, OutputMode, Stdin};
use crate::state_dir::exit::read_exit;
use crate::state_dir::quarantine;
use crate::state_dir::records::{ReadError, RunRecord, read_json};
use crate::sys::spawn::Step;
use crate::sys::{identity, pidfd};
use crate::wire::init::{HELD, Kind};

/// What the decision of a run says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nobody has decided.
    None,
    /// The child claimed it.
    Exec {
        boot_id: String,
        init: u64,
        pid: i32,
        pidfs: u64,
        start_ticks: u64,
        /// What failed between the claim and the program.
        failed: Option<(Step, i32)>,
    },
    /// It was cancelled.
    Cancelled,
    /// There is something, and it is no claim.
    Unreadable,
}

impl Claim {
    pub(super) fn read(path: &Path) -> Self {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).unwrap_or(Self::Unreadable),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::None,
            Err(_) => Self::Unreadable,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut words = lines.next()?.split(' ');
        match words.next()? {
            "cancelled" => return Some(Self::Cancelled),
            "exec" => {}
            _ => return None,
        }
        let boot_id = words.next()?.trim_start_matches('-').to_owned();
        let (init, pid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let (pidfs, start_ticks) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let failed = lines.next().and_then(|line| {
            let mut words = line.strip_prefix("failed ")?.split(' ');
            Some((Step::from_number(words.next()?.parse().ok()?)?, words.next()?.parse().ok()?))
        });
        Some(Self::Exec { boot_id, init, pid, pidfs, start_ticks, failed })
    }
}

/// What an old keeper handed over for one run.
#[derive(Debug, Default)]
pub(super) struct Handed {
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) notify: Option<OwnedFd>,
    pub(super) ready: Option<OwnedFd>,
}

impl Keeper {
    pub(super) fn take_back(&mut self, mut handed: BTreeMap<RunId, Handed>) {
        for (id, held) in self.entries() {
            self.take_back_held(id, held, handed.remove(&id).unwrap_or_default());
        }
        for id in self.runtime.list_runs().unwrap_or_default() {
            if !self.runs.contains_key(&id) {
                self.take_back_found(id, handed.remove(&id).unwrap_or_default());
            }
        }
    }

    /// Init's table, complete. Ends that init tells in between are kept for the loop by init itself.
    fn entries(&mut self) -> Vec<(RunId, Held)> {
        let mut entries = Vec::new();
        let mut ended = Vec::new();
        loop {
            match self.init.next() {
                Ok(Some((message, fds))) => match message.kind {
                    Kind::Entry => entries.push((message.run, Held::from_entry(&message, fds))),
                    Kind::EntriesEnd => break,
                    Kind::Exited => ended.push(message),
                    Kind::Quit => self.end(),
                    _ => {}
                },
                Ok(None) => match self.init.socket() {
                    Some(socket) => {
                        use rustix::event::{PollFd, PollFlags, poll};
                        let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], None);
                    }
                    None => break,
                },
                Err(_) => {
                    self.init.lost();
                    break;
                }
            }
        }
        debug_assert!(ended.is_empty(), "init lists everything before it tells an end");
        entries
    }

    /// A run that init holds: its pid is pinned, or its end was acknowledged.
    fn take_back_held(&mut self, id: RunId, held: Held, handed: Handed) {
        let record = self.read_run(id);
        let pidfd = match (held.acked, held.child) {
            (true, _) => None,
            // Init has not reaped it: the number is its own.
            (false, true) => pidfd::open(held.pid).ok().or(handed.pidfd),
            (false, false) => held.pidfd.or(handed.pidfd).or_else(|| self.prove_claim(id)),
        };
        let known = pidfd.is_some();
        let identity = identify(&self.epoch, held.pid, pidfd.as_ref());
        if known {
            self.make_up_paperwork(id, record.as_ref(), &identity);
        }
        let recorded = self.recorded_end(id);
        let over = held.acked || recorded.is_some();
        self.insert(id, record.as_ref(), Some(identity), pidfd, held.child);
        let stdin = held.stdin.or(handed.stdin);
        if let Some(run) = self.runs.get_mut(&id) {
            run.stdin = stdin.filter(|_| !over);
        }
        let words = (held.notify.or(handed.notify), held.ready.or(handed.ready));
        let gone = over || (!held.child && !known);
        if self.listen_again(id, record.as_ref(), words, gone) {
            self.renew_escrow(id);
        }
        let runtime = self.runtime.run(id);
        let mode = record.as_ref().map_or(OutputMode::Merged, |record| record.output.mode);
        if captures(mode)
            && let (Ok(stdout), Ok(stderr)) =
                (reopen(held.stdout, &runtime.stdout()), reopen(held.stderr, &runtime.stderr()))
        {
            let settings = record.map(|record| record.output);
            let settings =
                settings.unwrap_or_else(|| crate::core::spec::JobSpec::new(unknown_job(), Vec::new()).output);
            self.begin_capture(id, settings, stdout, stderr, true);
        }
        match recorded {
            Some(record) => self.recall_end(id, record, held.child && !held.acked),
            None if held.acked => self.end_lost(id, "its end was recorded, and the record is gone"),
            None if !held.child && !known => self.end_lost(id, "it ended while nobody was left to see how"),
            None if !held.child => {
                self.watch_main(id);
                self.look_at_main(id);
            }
            // Init tells its end when it comes, or has come.
            None => {}
        }
    }

    /// The end was recorded before: acknowledge it again, and look what is left of the tree.
    fn recall_end(&mut self, id: RunId, record: ExitRecord, unacknowledged: bool) {
        let known = self.known();
        let Some(run) = self.runs.get(&id) else { return };
        let target = self.target(run, unacknowledged);
        let members = super::tree::members(&target, self.ground(&known), &[]);
        for member in &members {
            self.watch(member.pidfd.as_fd(), id);
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.phase = Phase::Ended { record: Box::new(record) };
        run.recorded = true;
        // The worker says when nobody holds the FIFOs; until then somebody may.
        run.leftovers = Leftovers { members, fifo_held: run.captured, disowned: false, told: true };
        let (pid, captured) = (run.pid(), run.captured);
        if unacknowledged {
            self.init.ack(id, pid);
        }
        if captured {
            self.capture.capture.drain(id);
        }
        self.look_at(id);
    }

    /// The process that claimed a run, if that very process lives.
    fn prove_claim(&self, id: RunId) -> Option<OwnedFd> {
        let Claim::Exec { boot_id, init, pid, pidfs, start_ticks, .. } =
            Claim::read(&self.runtime.run(id).decision())
        else {
            return None;
        };
        let same_epoch = Epoch { boot_id, init } == self.epoch;
        same_epoch.then(|| identity::proven(pid, pidfs, start_ticks)).flatten()
    }

    /// A run that only the runtime directory knows.
    fn take_back_found(&mut self, id: RunId, handed: Handed) {
        let decision = self.runtime.run(id).decision();
        let mut claim = Claim::read(&decision);
        if claim == Claim::None && self.cancel(id).is_ok() {
            claim = Claim::Cancelled;
        } else if claim == Claim::None {
            claim = Claim::read(&decision);
        }
        if claim == Claim::Cancelled && !self.state.run(id).0.exists() {
            // The launch did not get beyond this directory. Without any directory the run counts as
            // cancelled, and the supervisor knows whose it was.
            let _ = std::fs::remove_dir_all(&self.runtime.run(id).0);
            return;
        }
        let record = self.read_run(id);
        match claim {
            Claim::Exec { boot_id, init, pid, pidfs, start_ticks, failed } => {
                let identity = Identity { pid, pidfs, start_ticks, epoch: Epoch { boot_id, init } };
                let pidfd = handed.pidfd.or_else(|| self.prove_claim(id));
                let handed = Handed { pidfd, ..handed };
                self.adopt(id, record.as_ref(), identity, handed, failed);
            }
            Claim::Cancelled | Claim::None => {
                if self.recorded_end(id).is_none() {
                    self.insert(id, record.as_ref(), None, None, false);
                    self.end_with(id, Outcome::Cancelled, Source::Keeper);
                } else {
                    let _ = std::fs::remove_dir_all(&self.runtime.run(id).0);
                }
            }
            Claim::Unreadable => {
                let _ = quarantine::set_aside(&self.state, &decision, "not a start decision");
                self.insert(id, record.as_ref(), None, None, false);
                self.end_lost(id, "its start decision cannot be read");
            }
        }
    }

    /// Takes back a claimed run with its identity proven (it has a pidfd), or says that it is lost.
    fn adopt(
        &mut self,
        id: RunId,
        record: Option<&RunRecord>,
        identity: Identity,
        Handed { pidfd, stdin, stdout, stderr, notify, ready }: Handed,
        failed: Option<(Step, i32)>,
    ) {
        let alive = pidfd.is_some();
        let pid = identity.pid;
        // The claim has no start time where the kernel has pidfs; now that it is proven, complete it.
        let identity = if alive { identify(&self.epoch, pid, pidfd.as_ref()) } else { identity };
        if alive {
            self.make_up_paperwork(id, record, &identity);
        }
        self.insert(id, record, Some(identity), pidfd, false);
        let runtime = self.runtime.run(id);
        let mode = record.map_or(OutputMode::Merged, |record| record.output.mode);
        let mut escrow = [const { None }; HELD];
        if captures(mode)
            && let (Ok(stdout), Ok(stderr)) =
                (reopen(stdout, &runtime.stdout()), reopen(stderr, &runtime.stderr()))
        {
            escrow[0] = stdout.try_clone().ok();
            escrow[1] = stderr.try_clone().ok();
            let settings = record.map_or_else(
                || crate::core::spec::JobSpec::new(unknown_job(), Vec::new()).output,
                |record| record.output.clone(),
            );
            self.begin_capture(id, settings, stdout, stderr, true);
        }
        if record.is_some_and(|record| record.stdin == Stdin::Keep) && alive {
            let stdin = stdin.or_else(|| open_stdin(&runtime.stdin()).ok());
            escrow[2] = stdin.as_ref().and_then(|fd| fd.try_clone().ok());
            if let Some(run) = self.runs.get_mut(&id) {
                run.stdin = stdin;
            }
        }
        let recorded = self.recorded_end(id);
        self.listen_again(id, record, (notify, ready), recorded.is_some() || !alive);
        [escrow[3], escrow[4]] = self.words(id).map(|fd| fd.and_then(|fd| fd.try_clone_to_owned().ok()));
        if let Some(recorded) = recorded {
            self.recall_end(id, recorded, false);
        } else if alive {
            let pidfd = self.runs.get(&id).and_then(|run| run.pidfd.as_ref());
            let escrow = escrow.each_ref().map(|fd| fd.as_ref().map(AsFd::as_fd));
            self.init.hold(id, pid, escrow, pidfd.map(AsFd::as_fd));
            self.watch_main(id);
            self.look_at_main(id);
        } else if let Some((step, errno)) = failed {
            self.end_with(id, Outcome::NotStarted { step: step.as_str().to_owned(), errno }, Source::Keeper);
        } else {
            self.end_lost(id, "it ended while nobody was left to see how");
        }
    }

    /// Makes up for what the dead keeper had not come to about a run that lives.
    fn make_up_paperwork(&self, id: RunId, record: Option<&RunRecord>, identity: &Identity) {
        let Some(record) = record else { return };
        if !matches!(self.state.run(id).read_sentinel(), Ok(Some(_))) {
            paperwork(&self.state, id, &record.job, identity, record.requested_at);
        }
    }

    fn insert(
        &mut self,
        id: RunId,
        record: Option<&RunRecord>,
        identity: Option<Identity>,
        pidfd: Option<OwnedFd>,
        child: bool,
    ) {
        let sentinel = self.state.run(id).read_sentinel().ok().flatten();
        let started = sentinel.map(|sentinel| sentinel.started).or_else(|| record.map(|r| r.requested_at));
        let run = Run {
            id,
            job: record.map_or_else(unknown_job, |record| record.job.clone()),
            on_supervisor_death: record.map_or(OnSupervisorDeath::Keep, |record| record.on_supervisor_death),
            identity,
            pidfd,
            started,
            stdin: None,
            listening: None,
            phase: Phase::Live,
            leftovers: Leftovers::default(),
            signalled: self.read_signalled(id),
            child,
            captured: false,
            stalled: false,
            recorded: false,
            put_away: false,
            forgotten: false,
            slot: None,
            killed_for_supervisor: false,
        };
        self.runs.insert(id, run);
    }

    fn end_lost(&mut self, id: RunId, why: &str) {
        self.end_with(id, Outcome::Lost { why: why.to_owned() }, Source::None);
    }

    fn end_with(&mut self, id: RunId, outcome: Outcome, source: Source) {
        let Some(run) = self.runs.get(&id) else { return };
        let end = End { outcome, source, rusage: None, at: now() };
        let record = run.record(&end, self.capture.capture.totals(id), !run.captured);
        self.write_record(id, &record);
        self.recall_end(id, record, false);
    }

    /// The recorded end of a run; a record that cannot be read is set aside.
    fn recorded_end(&self, id: RunId) -> Option<ExitRecord> {
        let dir = self.state.run(id);
        match read_exit(&dir) {
            Ok(record) => record.filter(|record| record.run == id),
            Err(ReadError::Bad { .. }) => {
                let _ = quarantine::set_aside(&self.state, &dir.exit_json(), "not an exit record");
                None
            }
            Err(_) => None,
        }
    }

    fn read_run(&self, id: RunId) -> Option<RunRecord> {
        let dir = self.state.run(id);
        match dir.read_run() {
            Ok(record) => record,
            Err(ReadError::Bad { .. }) => {
                let _ = quarantine::set_aside(&self.state, &dir.run_json(), "not a run record");
                None
            }
            Err(_) => None,
        }
    }

    fn read_signalled(&self, id: RunId) -> Signalled {
        let path = self.runtime.run(id).signalled();
        match read_json(&path) {
            Ok(signalled) => signalled.unwrap_or_default(),
            Err(ReadError::Bad { .. }) => {
                let _ = quarantine::set_aside(&self.state, &path, "not what a run was sent");
                Signalled::default()
            }
            Err(_) => Signalled::default(),
        }
    }

    /// Tries to win the start decision for "never".
    fn cancel(&self, id: RunId) -> io::Result<()> {
        let dir = self.runtime.run(id);
        let temporary = dir.0.join("cancel");
        crate::state_dir::atomic::write_unsynced(&temporary, b"cancelled\n", 0o600)?;
        let linked = rustix::fs::link(c_path(&temporary)?, c_path(&dir.decision())?);
        let _ = std::fs::remove_file(&temporary);
        Ok(linked?)
    }

    /// Gives init fresh copies of what it should hold of a run.
    pub(super) fn renew_escrow(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let runtime = self.runtime.run(id);
        let (stdout, stderr) = (open_output(&runtime.stdout()).ok(), open_output(&runtime.stderr()).ok());
        let [stdout, stderr, stdin] =
            [stdout.as_ref(), stderr.as_ref(), run.stdin.as_ref()].map(|fd| fd.map(AsFd::as_fd));
        let [notify, ready] = self.words(id);
        // Of a child init has its own.
        self.init.hold(id, run.pid(), [stdout, stderr, stdin, notify, ready], None);
    }
}

/// The descriptor that was handed over, or the FIFO opened again by its name.
fn reopen(fd: Option<OwnedFd>, path: &Path) -> io::Result<OwnedFd> {
    fd.map_or_else(|| open_output(path), Ok)
}

/// The name for a run whose record cannot be read.
fn unknown_job() -> JobName {
    JobName::new("unknown").unwrap_or_else(|_| unreachable!("a plain word is a job name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_read_as_the_child_writes_it() {
        let claim = Claim::parse("exec 1b-2c 42 1234 99887 0\n");
        let expected = Claim::Exec {
            boot_id: "1b-2c".to_owned(),
            init: 42,
            pid: 1234,
            pidfs: 99887,
            start_ticks: 0,
            failed: None,
        };
        assert_eq!(claim, Some(expected));
        let Some(Claim::Exec { failed, .. }) = Claim::parse("exec - 42 1234 99887 0\nfailed 14 2\n") else {
            panic!("no claim");
        };
        assert_eq!(failed, Some((Step::Chdir, 2)));
        assert_eq!(Claim::parse("cancelled\n"), Some(Claim::Cancelled));
        for bad in ["", "exec", "exec a b c d e", "exec a 1 2 3", "no", "exec a 1 99999999999 1 1"] {
            assert_eq!(Claim::parse(bad), None, "{bad:?}");
        }
    }
}
