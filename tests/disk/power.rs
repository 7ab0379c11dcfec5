//! The power fails: everything of ours and every job is gone at once, and with it whatever was not durable.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::common::ledger::{Excuse, Ledger};
use super::common::random::{Random, any_seed};
use super::common::{Daemon, procs};
use super::machine::{Disk, call, in_own_mounts, put_over};
use super::{number, site};

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A machine that can be switched off.
struct Machine {
    daemon: Daemon,
    disk: Disk,
    ledger: Ledger,
    random: Random,
    boots: u64,
    /// Whether each boot can have a boot clock of its own.
    clock: bool,
}

impl Machine {
    fn new(seed: u64, fault: Option<&str>) -> Option<Self> {
        let (ledger, config) = Ledger::new("");
        let mut daemon = Daemon::prepare(&config);
        daemon.state = site::STATE;
        daemon.env.extend(fault.map(|fault| ("OUTLIVE_TEST_FAULT".to_owned(), fault.to_owned())));
        fs::create_dir(daemon.path("out")).unwrap();
        let disk = Disk::ext4(&mut daemon, "disk", 64 << 20)?;
        let clock = call("unshare", &["--time", "--boottime", "-1", "true"]);
        if !clock {
            super::common::skip("the boot clock cannot begin anew: it goes on from boot to boot");
        }
        let mut machine = Self { daemon, disk, ledger, random: Random::new(seed), boots: 0, clock };
        machine.next_boot();
        if !put_over(&machine.daemon.path("boot"), BOOT_ID) {
            super::common::skip("the id of this boot cannot be changed");
            return None;
        }
        machine.daemon.unmount.insert(0, BOOT_ID.into());
        machine.daemon.up();
        Some(machine)
    }

    fn next_boot(&mut self) {
        self.boots += 1;
        // The boot clock begins anew.
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
        let back = format!("-{}", up.saturating_sub(5));
        self.daemon.wrapper = if self.clock {
            ["unshare", "--time", "--boottime", &back].map(str::to_owned).to_vec()
        } else {
            Vec::new()
        };
        self.daemon.write("boot", &format!("00000000-0000-4000-8000-{:012x}\n", self.boots));
    }

    /// Asks for this and that until the power fails in the middle of it.
    fn load(&mut self) {
        let asked = self.random.between(1, 60);
        let pause = Duration::from_micros(self.random.between(0, 3000));
        let victims: Vec<OwnedFd> = ["init", "keeper", "supervisor"]
            .iter()
            .flat_map(|role| procs::roles(self.daemon.home(), role))
            .map(|pid| procs::handle(pid).unwrap())
            .collect();
        assert_eq!(victims.len(), 3);
        let count = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while count.load(Ordering::Relaxed) < asked {
                    procs::moment(Duration::from_micros(50));
                }
                procs::moment(pause);
                victims.iter().for_each(|victim| procs::send(victim, Signal::KILL));
            });
            while self.ledger.step(&self.daemon, &mut self.random).is_ok() {
                if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(10) {
                    self.ledger.look(&self.daemon);
                }
            }
            // Nobody answers, though nobody was killed: then that is the end of this, too.
            count.store(u64::MAX, Ordering::Relaxed);
        });
        for victim in &victims {
            assert!(procs::wait_dead(victim, super::common::PATIENCE));
        }
    }

    /// From the dead processes to the next boot. What was written without a sync is gone: that proves that
    /// the power did fail.
    fn fail(&mut self) {
        procs::end_instance(self.daemon.home());
        self.daemon.wait_nothing_left();
        self.daemon.write("disk/unsynced", "gone");
        self.disk.cut();
        self.disk.unmount();
        assert!(self.disk.mount());
        assert!(!self.daemon.path("disk/unsynced").exists(), "the power did not fail");
        fs::remove_dir_all(self.daemon.runtime_dir()).unwrap();
        self.next_boot();
    }
}

/// So many times: load, power failure, start. What does not hold afterwards, and what was answered.
fn cycles(count: u64, seed: u64, fault: Option<&str>) -> Option<(Vec<String>, String)> {
    let mut machine = Machine::new(seed, fault)?;
    if fault.is_some() {
        // What is lost does not come back by waiting.
        machine.ledger.patience = Duration::from_secs(3);
    }
    let mut faults = Vec::new();
    for n in 1..=count {
        machine.load();
        machine.fail();
        machine.daemon.restart();
        faults = machine.ledger.settle(&machine.daemon, Excuse::Runs);
        if n == count || n.is_multiple_of(20) {
            faults.extend(machine.ledger.audit(&machine.daemon, Excuse::Runs));
        }
        if !faults.is_empty() {
            faults.push(format!("after power failure {n}"));
            break;
        }
    }
    let (answers, unanswered) = (machine.ledger.answers, machine.ledger.unanswered);
    Some((faults, format!("{answers} answers kept, {unanswered} requests unanswered")))
}

#[test]
fn a_power_failure_loses_nothing_that_was_answered_and_starts_nothing_twice() {
    let seed = number("POWER_SEED").unwrap_or_else(any_seed);
    let count = number("POWER_CYCLES").unwrap_or(6);
    eprintln!("POWER_SEED={seed}");
    in_own_mounts(|| {
        let Some((faults, said)) = cycles(count, seed, None) else { return };
        assert!(faults.is_empty(), "POWER_SEED={seed}: {faults:#?}");
        eprintln!("{count} power failures: {said}");
    });
}

/// What this is worth: with a mistake built in, it does not pass.
#[test]
fn an_answer_before_the_sync_does_not_outlive_the_power() {
    in_own_mounts(|| {
        let Some((faults, said)) = cycles(10, any_seed(), Some("AckBeforeSync")) else { return };
        let lost =
            faults.iter().any(|fault| fault.contains("recorded 0 times") || fault.contains("is to be"));
        assert!(lost, "nobody notices: {faults:?}, {said}");
    });
}
