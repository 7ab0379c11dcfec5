//! The course of the test: start, kill, wait until all is well, check, and at the end look for what is left.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::account::{Account, Window};
use super::common::random::Random;
use super::common::{Daemon, PATIENCE, procs, until};
use super::plan::{self, Case, End, Plan};
use super::table::{self, Round};

/// How much of it.
pub struct Settings {
    pub seed: u64,
    /// Until so many kills, if given.
    pub kills: Option<u64>,
    /// Until so much time is over, if given.
    pub time: Option<Duration>,
    pub jobs: usize,
    /// Put before `up`.
    pub wrapper: Vec<String>,
    /// Who may be killed.
    pub cases: Vec<Case>,
}

/// Rounds between two checks of everything that ended meanwhile.
const CHECK_EVERY: usize = 10;

pub struct World {
    settings: Settings,
    random: Random,
    plans: Vec<Plan>,
    daemon: Daemon,
    account: Account,
    windows: Vec<Window>,
    rounds: Vec<Round>,
    /// Process and run of those that never end.
    lasting: BTreeMap<String, (i64, String)>,
    /// Each role's present life: since when it has been well, and how many before it were short.
    lives: BTreeMap<&'static str, (Instant, u32)>,
}

/// A role that became ready and lived this long is started again at once when it dies; after shorter lives
/// init waits longer and longer.
const CALM: Duration = Duration::from_millis(1100);
/// Short lives in a row, until the next one is let be a calm one.
const SHORT_LIVES: u32 = 3;

/// Says the seed when a test fails.
struct OnFailure(u64);

impl Drop for OnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("CHAOS_SEED={} makes the same choices again", self.0);
        }
    }
}

impl World {
    pub fn new(settings: Settings) -> Self {
        let mut random = Random::new(settings.seed);
        let plans = plan::jobs(settings.jobs, &mut random);
        let mut config = "[supervisor]\nkeep_runs = 1000000\n".to_owned();
        config.extend(plans.iter().map(|p| p.config.as_str()));
        let mut daemon = Daemon::prepare(&config);
        daemon.keep_when_failed = true;
        // This many deaths are no sign that something is wrong with the supervisor.
        daemon.env.push(("OUTLIVE_RECOVERY_AFTER".to_owned(), "0".to_owned()));
        daemon.wrapper.clone_from(&settings.wrapper);
        let (account, windows, rounds) = (Account::default(), Vec::new(), Vec::new());
        Self {
            settings,
            random,
            plans,
            daemon,
            account,
            windows,
            rounds,
            lasting: BTreeMap::new(),
            lives: BTreeMap::new(),
        }
    }

    pub fn run(mut self) {
        let _say = OnFailure(self.settings.seed);
        eprintln!("CHAOS_SEED={}", self.settings.seed);
        self.daemon.up();
        self.settle(&[]);
        self.lasting = self.look_at_lasting();
        let began = Instant::now();
        let mut order: Vec<Case> = Vec::new();
        while !self.is_enough(began) {
            let case = order.pop().unwrap_or_else(|| {
                order.clone_from(&self.settings.cases);
                self.random.shuffle(&mut order);
                order.pop().unwrap()
            });
            self.round(case);
            if self.rounds.len().is_multiple_of(CHECK_EVERY) {
                self.check();
            }
        }
        self.finish();
        let title = format!("seed {}, {} jobs", self.settings.seed, self.plans.len());
        table::print(&title, &self.settings.cases, &self.rounds, &self.account.fates);
    }

    fn is_enough(&self, began: Instant) -> bool {
        let kills: usize = self.rounds.iter().map(|r| r.case.roles().len()).sum();
        self.settings.kills.is_some_and(|wanted| kills as u64 >= wanted)
            || self.settings.time.is_some_and(|time| began.elapsed() >= time)
    }

    /// One round: wait a random while, kill, and wait until all is well.
    fn round(&mut self, case: Case) {
        let old = self.role_pids(case);
        let mut victims: Vec<OwnedFd> = old.iter().map(|(role, pid)| self.find(role, *pid)).collect();
        self.pace(&old, &victims);
        self.random.shuffle(&mut victims);
        procs::moment(Duration::from_micros(self.random.between(0, 120_000)));
        let from = boot_us();
        for victim in &victims {
            procs::send(victim, Signal::KILL);
            procs::moment(Duration::from_micros(self.random.between(0, 3) * self.random.between(0, 1000)));
        }
        let killed = Instant::now();
        for victim in &victims {
            assert!(procs::wait_dead(victim, PATIENCE), "{case:?} does not die");
        }
        if case.ends_init() {
            // Sometimes the others are alone for a while.
            procs::moment(Duration::from_micros(self.random.between(0, 1) * self.random.between(0, 60_000)));
            self.daemon.restart();
        }
        // In a new namespace numbers begin anew, and nobody of the old one answers.
        self.settle(if case == Case::Namespace { &[] } else { &old });
        let took = killed.elapsed();
        self.windows.push(Window { case, from, to: boot_us() });
        self.rounds.push(Round { case, took });
        let now = Instant::now();
        if case.ends_init() {
            self.lives.clear();
        }
        for role in case.roles() {
            self.lives.entry(role).or_insert((now, 0)).0 = now;
        }
        let now = self.look_at_lasting();
        if case == Case::Namespace {
            assert!(now.iter().all(|(name, new)| new.1 != self.lasting[name].1), "{now:?}");
            self.lasting.clone_from(&now);
        }
        assert_eq!(now, self.lasting, "after {case:?}: a job died that was not told to");
    }

    /// Lets a role that has had too many short lives live on for a while.
    fn pace(&mut self, old: &[(&'static str, i64)], victims: &[OwnedFd]) {
        for ((role, _), victim) in old.iter().zip(victims) {
            let (since, short) = *self.lives.entry(role).or_insert((Instant::now(), 0));
            let left = CALM.saturating_sub(since.elapsed());
            let calm = left.is_zero() || short >= SHORT_LIVES;
            if calm {
                assert!(!procs::wait_dead(victim, left), "{role} died by itself");
            }
            self.lives.insert(role, (since, if calm { 0 } else { short + 1 }));
        }
    }

    /// The process ids that the status shows for those who are to die.
    fn role_pids(&self, case: Case) -> Vec<(&'static str, i64)> {
        let status = self.daemon.status();
        let pid = |role: &str| status["instance"]["roles"][role]["pid"].as_i64().expect("it was well");
        case.roles().iter().map(|role| (*role, pid(role))).collect()
    }

    /// The process that has this number where the instance lives. Its name alone is not enough: until
    /// `execve` a new run bears the name of the keeper.
    fn find(&self, role: &str, pid: i64) -> OwnedFd {
        let wanted = procs::Part::Role(role.to_owned());
        let is_it = |p: &procs::Proc| p.part == wanted && procs::innermost_pid(p.pid) == Some(pid);
        let found = self.daemon.processes().into_iter().find(is_it);
        procs::handle(found.unwrap_or_else(|| panic!("no {role} {pid}")).pid).expect("a role that lives")
    }

    /// Waits until all three roles live and are others than the old ones, the instance is ready and what
    /// is to last is running.
    fn settle(&mut self, old: &[(&str, i64)]) {
        let mut last = Value::Null;
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.daemon.try_status() {
                if self.is_well(&status, old) {
                    break;
                }
                last = status;
            }
            assert!(Instant::now() < end, "not well in {PATIENCE:?}: {last:#}");
            procs::moment(Duration::from_millis(5));
        }
    }

    /// The cheap looks first: listing all processes takes time from those that are to get well.
    fn is_well(&self, status: &Value, old: &[(&str, i64)]) -> bool {
        let roles = ["init", "keeper", "supervisor"];
        let lasting =
            |name: &Value| self.plans.iter().any(|p| p.end == End::Never && *name == p.name.as_str());
        let running = status["jobs"].as_array().is_some_and(|jobs| {
            jobs.len() == self.plans.len()
                && jobs.iter().filter(|job| lasting(&job["name"])).all(|job| job["state"] == "running")
        });
        let pid = |role: &str| status["instance"]["roles"][role]["pid"].as_i64();
        let known = roles.iter().all(|role| pid(role).is_some());
        let new = old.iter().all(|(role, old)| pid(role) != Some(*old));
        known && new && running && self.daemon.get("/v1/ready").is_some_and(|reply| reply.code == 200) && {
            let processes = self.daemon.processes();
            let count = |role: &str| {
                processes
                    .iter()
                    .filter(|p| matches!(&p.part, procs::Part::Role(name) if name == role))
                    .count()
            };
            roles.iter().all(|role| count(role) == 1)
        }
    }

    fn look_at_lasting(&self) -> BTreeMap<String, (i64, String)> {
        self.plans
            .iter()
            .filter(|plan| plan.end == End::Never)
            .map(|plan| {
                let job = self.daemon.job(&plan.name);
                let run = job["run"].as_str().unwrap_or_default().to_owned();
                (plan.name.clone(), (job["pid"].as_i64().unwrap_or(0), run))
            })
            .collect()
    }

    fn check(&mut self) {
        self.account.settle(&self.daemon, &self.plans, &self.windows);
        for plan in &self.plans {
            assert_eq!(self.daemon.read(&format!("{}.lock.overlap", plan.name)), "", "two runs at once");
        }
    }

    /// Stops what ends by itself and looks at what is left of it; then ends the instance.
    fn finish(&mut self) {
        let ending: Vec<String> =
            self.plans.iter().filter(|p| p.end != End::Never).map(|p| p.name.clone()).collect();
        let mut stop = vec!["stop".to_owned()];
        stop.extend(ending.iter().cloned());
        self.check();
        self.account.stopping = true;
        self.daemon.cli(&stop).expect(0);
        for name in &ending {
            self.daemon.wait_state(name, "stopped");
        }
        self.check();
        let mut open: Vec<String> = self.account.open().iter().map(|(run, _)| (*run).clone()).collect();
        let mut alive: Vec<String> = self.lasting.values().map(|(_, run)| run.clone()).collect();
        open.sort();
        alive.sort();
        assert_eq!(open, alive, "runs that were asked for and neither live nor ended");
        for (name, (_, run)) in &self.lasting {
            let (lines, _) = self.account.check_lines(&self.daemon, name, run);
            assert!(lines > 0, "{name} wrote nothing");
        }
        until("no directories of ended runs", || {
            let dir = std::fs::read_dir(self.daemon.runtime_dir().join("runs")).ok()?;
            let mut names: Vec<String> =
                dir.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            (names == alive).then_some(())
        });
        let strays: Vec<_> = self
            .daemon
            .processes()
            .into_iter()
            .filter(|p| matches!(&p.part, procs::Part::Run(run) if !alive.contains(run)))
            .collect();
        assert!(strays.is_empty(), "strays: {strays:#?}");
        self.daemon.cli(["shutdown"]).expect(0);
        let code = self.daemon.wait_up_ended();
        assert!(code == 0, "`up` ended with {code}");
        self.daemon.wait_nothing_left();
        let left = std::fs::read_dir(self.daemon.runtime_dir().join("runs")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "directories of runs are left");
    }
}

/// The boot clock in microseconds.
fn boot_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1_000_000 + now.tv_nsec.cast_unsigned() / 1000
}
