//! What was answered holds: requests in a row, a kill in the middle of them, and the account of every answer.
//!
//! One, two or all three of init, keeper and supervisor die while jobs are started, stopped and restarted,
//! tasks submitted and the configuration reloaded. When all is well again, every answer holds; what nobody
//! answered holds whole or not at all. Each task says in a file of its own who started it: exactly once.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::common::ledger::{Excuse, Ledger};
use super::common::random::Random;
use super::common::{Daemon, PATIENCE, procs, until};
use super::plan::Case;

/// Rounds between two looks at everything since the beginning.
const AUDIT_EVERY: u64 = 100;

const ROLES: [&str; 3] = ["init", "keeper", "supervisor"];

pub struct Rounds {
    daemon: Daemon,
    ledger: Ledger,
    random: Random,
    kills: u64,
}

impl Rounds {
    pub fn new(seed: u64) -> Self {
        let (ledger, config) = Ledger::new("");
        let mut daemon = Daemon::prepare(&config);
        daemon.keep_when_failed = true;
        // This many deaths are no sign that something is wrong with the supervisor.
        daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "0".to_owned()));
        fs::create_dir(daemon.path("out")).unwrap();
        daemon.up();
        Self { daemon, ledger, random: Random::new(seed), kills: 0 }
    }

    /// So many rounds; what does not hold, and the counts in words.
    pub fn run(mut self, count: u64) -> (Vec<String>, String) {
        let mut faults = self.ledger.settle(&self.daemon, Excuse::None);
        for n in 1..=count {
            if !faults.is_empty() {
                break;
            }
            let case = self.case(n);
            faults = self.round(case);
            if n == count || n.is_multiple_of(AUDIT_EVERY) {
                faults.extend(self.ledger.audit(&self.daemon, Excuse::Outcomes));
            }
            faults.iter_mut().for_each(|fault| *fault = format!("round {n}, {case:?}: {fault}"));
        }
        self.daemon.failed = !faults.is_empty();
        let Ledger { answers, unanswered, .. } = self.ledger;
        let kills = self.kills;
        (faults, format!("{kills} kills, {answers} answers kept, {unanswered} requests unanswered"))
    }

    /// A new init starts others at once; one that has seen many deaths takes its time.
    fn case(&mut self, n: u64) -> Case {
        loop {
            let case = Case::ALL[usize::try_from(self.random.between(0, 6)).unwrap()];
            if case.ends_init() || !n.is_multiple_of(2) {
                return case;
            }
        }
    }

    fn round(&mut self, case: Case) -> Vec<String> {
        let old = ROLES.map(|role| (role, self.daemon.role(role)));
        let mut victims: Vec<OwnedFd> = old
            .iter()
            .filter(|(role, _)| case.roles().contains(role))
            .map(|(_, pid)| procs::handle(*pid).unwrap())
            .collect();
        self.random.shuffle(&mut victims);
        self.load(&victims);
        for victim in &victims {
            assert!(procs::wait_dead(victim, PATIENCE), "{case:?} does not die");
        }
        self.kills += victims.len() as u64;
        if case.ends_init() {
            self.daemon.restart();
        }
        until("all roles, and others than before", || {
            let status = self.daemon.try_status()?;
            let new = |(role, pid): &(&str, i32)| {
                let now = status["instance"]["roles"][role]["pid"].as_i64();
                now.is_some() && (!case.roles().contains(role) || now != Some(i64::from(*pid)))
            };
            let ready = || self.daemon.get("/v1/ready").is_some_and(|reply| reply.code == 200);
            (old.iter().all(new) && ready()).then_some(())
        });
        let excuse = if case.knows_all() { Excuse::None } else { Excuse::Outcomes };
        self.ledger.settle(&self.daemon, excuse)
    }

    /// Asks for this and that, while somebody else kills in the middle of it.
    fn load(&mut self, victims: &[OwnedFd]) {
        let before = self.random.between(0, 25);
        let pauses: Vec<u64> = victims.iter().map(|_| self.random.between(0, 2000)).collect();
        let (asked, killed) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while asked.load(Ordering::Relaxed) < before {
                    procs::moment(Duration::from_micros(50));
                }
                for (victim, pause) in victims.iter().zip(pauses) {
                    procs::moment(Duration::from_micros(pause));
                    procs::send(victim, Signal::KILL);
                }
                killed.store(true, Ordering::Relaxed);
            });
            // Where the supervisor lives on, it is asked a little longer.
            let mut more = self.random.between(1, 4);
            while more > 0 && self.ledger.step(&self.daemon, &mut self.random).is_ok() {
                more -= u64::from(killed.load(Ordering::Relaxed));
                if asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(8) {
                    self.ledger.look(&self.daemon);
                }
            }
            asked.store(u64::MAX, Ordering::Relaxed);
        });
    }

    /// All die at once, and the event log forgets its end. What does not hold then.
    pub fn forget_the_end(mut self) -> Vec<String> {
        let victims = ROLES.map(|role| procs::handle(self.daemon.role(role)).unwrap());
        assert_eq!(self.ledger.settle(&self.daemon, Excuse::None), Vec::<String>::new());
        for _ in 0..10 {
            self.ledger.step(&self.daemon, &mut self.random).unwrap();
        }
        for victim in &victims {
            procs::send(victim, Signal::KILL);
            assert!(procs::wait_dead(victim, PATIENCE));
        }
        let dir = self.daemon.state_dir().join("journal");
        let segments = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let newest: PathBuf =
            segments.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).max().unwrap();
        let text = fs::read_to_string(&newest).unwrap();
        // The header, and the first of what was decided.
        let kept: usize = text.split_inclusive('\n').take(12).map(str::len).sum();
        fs::File::options().write(true).open(&newest).unwrap().set_len(kept as u64).unwrap();
        self.daemon.restart();
        self.ledger.patience = Duration::from_secs(3);
        self.ledger.settle(&self.daemon, Excuse::Outcomes)
    }
}
