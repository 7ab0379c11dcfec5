//! One world: a host with a disk, an instance on it, people who ask, and accidents. A seed decides all.

mod accidents;
mod people;
mod rest;

use std::path::PathBuf;

use outlive::core::event::Want;
use outlive::core::ids::{Generation, JobName, RunId};
use outlive::core::job::Phase;
use outlive::core::outcome::Outcome;
use outlive::core::spec::{JobSpec, KillScope, Kind, Leftovers, Restart, StopAct, StopStep};
use outlive::core::time::Millis;
use outlive::core::watch::{FrozenStep, Limits, OnExceed, Ready, ReadyBy, Watch};
use outlive::journal::simulated::SimFs;

use crate::host::{Host, Stage};
use crate::keeper::{Around, Conns, Keeper, exec};
use crate::mistakes::Mistake;
use crate::oracle::{Broken, Oracle};
use crate::random::Rng;
use crate::supervisor::{Ask, Cut, Ground, Supervisor};

const JOBS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Steps after which everything has to be at rest once nothing happens any more.
const CALM_STEPS: u32 = 2000;

/// The world.
pub(crate) struct World {
    rng: Rng,
    fs: SimFs,
    host: Host,
    keeper: Option<Keeper>,
    newest: Generation,
    conns: Conns,
    conn_numbers: u64,
    sup: Option<Supervisor>,
    /// One that was stopped when another took its place, and does not know.
    stale: Option<Supervisor>,
    ids: u64,
    held_config: Option<Vec<JobSpec>>,
    config_file: Vec<JobSpec>,
    up: bool,
    born_us: u64,
    pub(crate) oracle: Oracle,
    mistake: Option<Mistake>,
    calm: bool,
    /// How often accidents happen: one in so many steps.
    accidents: u64,
    /// Whether bytes are damaged now and then.
    damages: bool,
    submitted: u64,
    hash: u64,
    /// The last words, if somebody listens.
    words: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, mistake: Option<Mistake>, listen: bool) -> Self {
        let mut rng = Rng::new(seed);
        let jobs = 2 + rng.index(JOBS.len() - 1);
        let config_file = JOBS[..jobs].iter().map(|job| people::any_spec(&mut rng, job)).collect();
        let accidents = [25, 40, 80, 400][rng.index(4)];
        let damages = rng.one_in(4) || mistake.is_some_and(crate::mistakes::needs_damage);
        Self {
            rng,
            fs: SimFs::default(),
            host: Host::new(),
            keeper: None,
            newest: Generation(0),
            conns: Conns::new(),
            conn_numbers: 0,
            sup: None,
            stale: None,
            ids: 0,
            held_config: None,
            config_file,
            up: false,
            born_us: 0,
            oracle: Oracle::new(),
            mistake,
            calm: false,
            accidents,
            damages,
            submitted: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            words: listen.then(Vec::new),
        }
    }

    /// Lives through so many steps, and then comes to rest.
    pub(crate) fn live(&mut self, steps: u64) -> Result<(), Broken> {
        for _ in 0..steps {
            self.step()?;
        }
        self.rest()
    }

    /// What everything that happened comes to.
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn last_words(&self, most: usize) -> &[String] {
        let words = self.words.as_deref().unwrap_or_default();
        &words[words.len().saturating_sub(most)..]
    }

    fn note(&mut self, what: &'static str, number: u64) {
        for byte in what.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.hash = (self.hash ^ number).wrapping_mul(0x0100_0000_01b3);
        if let Some(words) = &mut self.words {
            let clock = self.host.now.boot_us;
            let state = self.sup.as_ref().map(|sup| {
                let read_only = if sup.is_read_only() { "READ-ONLY " } else { "" };
                let jobs: Vec<String> = sup
                    .state
                    .jobs()
                    .map(|(name, job)| {
                        format!(
                            "{name}={}/{}",
                            job.shown().as_str(),
                            job.run().map_or_else(String::new, short)
                        )
                    })
                    .collect();
                format!("{read_only}{:?} {}", sup.state.instance.link, jobs.join(" "))
            });
            let truth: Vec<String> = self
                .host
                .procs
                .iter()
                .filter(|(_, proc)| proc.exists())
                .map(|(run, proc)| format!("{}:{}", proc.job, short(*run)))
                .collect();
            words.push(format!(
                "{clock:>10} {what} {number} | {} | lives: {}",
                state.unwrap_or_else(|| "no supervisor".to_owned()),
                truth.join(" ")
            ));
        }
    }

    fn ground(&mut self, stale: bool) -> Ground<'_> {
        Ground {
            fs: &self.fs,
            host: &mut self.host,
            conns: &mut self.conns,
            rng: &mut self.rng,
            oracle: &mut self.oracle,
            ids: &mut self.ids,
            held_config: &mut self.held_config,
            config_file: &self.config_file,
            mistake: self.mistake,
            newest: self.newest,
            stale,
            words: &mut self.words,
        }
    }

    fn around(&mut self) -> Around<'_> {
        Around {
            host: &mut self.host,
            conns: &mut self.conns,
            newest: &mut self.newest,
            rng: &mut self.rng,
            oracle: &mut self.oracle,
            mistake: self.mistake,
            calm: self.calm,
        }
    }

    fn step(&mut self) -> Result<(), Broken> {
        let us = self.rng.below(60_000);
        self.host.pass(us);
        if !self.up {
            return self.start_instance();
        }
        if self.sup.is_none() && self.rng.one_in(4) {
            return self.start_supervisor();
        }
        if self.keeper.is_none() && self.rng.one_in(4) {
            return self.start_keeper();
        }
        let accidents = self.accidents;
        if self.rng.one_in(accidents) {
            return self.accident();
        }
        match self.rng.below(100) {
            0..=29 if self.supervisor_is_busy() => self.supervisor_turn(None),
            0..=61 if self.keeper_is_busy() => self.keeper_works(),
            0..=61 if self.rng.one_in(2) => self.time_passes(),
            0..=61 => self.child_happens(),
            62..=71 => self.child_happens(),
            72..=81 => {
                let ask = self.any_ask();
                self.supervisor_turn(Some(ask))
            }
            82..=87 => self.time_passes(),
            88..=93 => {
                let what = self.rng.below(4);
                self.housekeeping(what)
            }
            94..=95 => {
                self.sync_files();
                Ok(())
            }
            96..=97 => self.stale_wakes(),
            _ => {
                self.host.now.wall_us += self.rng.below(4_000_000) as i64 - 2_000_000;
                Ok(())
            }
        }
    }

    // What the roles do.

    fn start_instance(&mut self) -> Result<(), Broken> {
        self.note("up", 0);
        self.up = true;
        self.host.init = true;
        self.born_us = self.host.now.boot_us;
        self.held_config = None;
        Ok(())
    }

    fn start_keeper(&mut self) -> Result<(), Broken> {
        self.keeper = Some(Keeper::begin(&mut self.around()));
        self.note("keeper", 0);
        Ok(())
    }

    fn start_supervisor(&mut self) -> Result<(), Broken> {
        let recovery = !self.calm && self.rng.one_in(12);
        if self.stale.is_some() && self.rng.one_in(2) {
            self.stale = None;
        }
        self.oracle.counts.supervisors += 1;
        let born = self.born_us;
        let begun = Supervisor::begin(&mut self.ground(false), recovery, born);
        match self.survived(begun)? {
            Some(sup) => {
                self.sup = Some(sup);
                self.note("supervisor", u64::from(recovery));
            }
            None => self.note("supervisor died", 0),
        }
        Ok(())
    }

    /// A process that died at an operation of the disk: with the host, or alone.
    fn survived<T>(&mut self, done: Result<T, Cut>) -> Result<Option<T>, Broken> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(Cut::Broken(broken)) => Err(broken),
            Err(Cut::Died) => {
                self.kill_supervisor();
                if self.rng.one_in(2) {
                    self.reboot(0);
                } else {
                    self.fs.calm();
                    self.note("killed at the disk", 0);
                }
                Ok(None)
            }
        }
    }

    fn supervisor_turn(&mut self, ask: Option<Ask>) -> Result<(), Broken> {
        let Some(mut sup) = self.sup.take() else { return Ok(()) };
        if sup.connection().is_none() && self.keeper.is_some() {
            self.conn_numbers += 1;
            sup.connect(self.conn_numbers, &mut self.conns);
        }
        let most = if ask.is_some() { self.rng.below(2) } else { 1 + self.rng.below(3) };
        let what = if ask.is_some() { "asked" } else { "turn" };
        let done = sup.turn(most, ask, &mut self.ground(false));
        let exit = sup.exit;
        let (replaced, number) = (sup.replaced, sup.connection());
        self.sup = Some(sup);
        self.note(what, most);
        if self.survived(done)?.is_none() {
            return Ok(());
        }
        if replaced {
            self.note("replaced", 0);
            self.kill_supervisor();
        } else if let Some(keep_jobs) = exit {
            self.end_instance(keep_jobs);
        } else if let Some(conn) = number.and_then(|number| self.conns.get(&number))
            && conn.keeper_gone
            && conn.to_supervisor.is_empty()
            && conn.supervisor_gone
        {
            self.conns.retain(|_, conn| !(conn.keeper_gone && conn.supervisor_gone));
        }
        Ok(())
    }

    fn end_instance(&mut self, keep_jobs: bool) {
        self.note("the instance ends", u64::from(keep_jobs));
        self.kill_supervisor();
        self.stale = None;
        self.kill_keeper();
        self.kill_init();
        self.held_config = None;
        self.up = false;
    }

    fn keeper_works(&mut self) -> Result<(), Broken> {
        let Some(mut keeper) = self.keeper.take() else { return Ok(()) };
        let done = (|| {
            for _ in 0..1 + self.rng.below(3) {
                let first = self.rng.below(3);
                let mut did = false;
                for way in 0..3 {
                    did = match (first + way) % 3 {
                        0 => self.keeper_reads(&mut keeper)?,
                        1 => keeper.advance(&mut self.around())?,
                        _ => keeper.look(&mut self.around()),
                    };
                    if did {
                        break;
                    }
                }
                if !did {
                    break;
                }
            }
            Ok(())
        })();
        self.keeper = Some(keeper);
        self.note("keeper works", 0);
        done
    }

    fn keeper_reads(&mut self, keeper: &mut Keeper) -> Result<bool, Broken> {
        let waiting = |conns: &Conns| -> Vec<u64> {
            let all = conns.iter().filter(|(_, conn)| !conn.keeper_gone && !conn.to_keeper.is_empty());
            all.map(|(number, _)| *number).collect()
        };
        let numbers = waiting(&self.conns);
        match self.rng.pick(&numbers).copied() {
            Some(number) => keeper.request(number, &mut self.around()),
            None => Ok(false),
        }
    }

    fn child_happens(&mut self) -> Result<(), Broken> {
        let movable: Vec<RunId> = self
            .host
            .procs
            .iter()
            .filter(|(_, proc)| proc.lives() || proc.leftovers)
            .map(|(run, _)| *run)
            .collect();
        let Some(run) = self.rng.pick(&movable).copied() else { return Ok(()) };
        let Some(proc) = self.host.procs.get_mut(&run) else { return Ok(()) };
        match proc.stage {
            // A keeper that makes the start takes the step itself.
            Stage::Forked if self.keeper.is_none() => exec(run, &mut self.around())?,
            Stage::Forked => {}
            Stage::Live => {
                let outcome = match self.rng.below(4) {
                    0 | 1 => Outcome::Exited { code: 0 },
                    2 => Outcome::Exited { code: 1 + self.rng.below(3) as i32 },
                    _ => Outcome::OomKilled,
                };
                let leftovers = self.rng.one_in(4);
                self.host.end(run, outcome, leftovers);
            }
            Stage::Zombie { .. } | Stage::Gone => proc.leftovers = false,
        }
        self.note("child", u64::from(run.as_bytes()[15]));
        Ok(())
    }

    /// To the next deadline, or some time.
    fn time_passes(&mut self) -> Result<(), Broken> {
        let now = self.host.now.boot_us;
        let next = self.sup.as_ref().and_then(|sup| sup.next_deadline(now));
        match next {
            Some(at) if at > now => self.host.pass(at - now),
            Some(_) => {}
            None => {
                let us = self.rng.below(2_000_000);
                self.host.pass(us);
            }
        }
        self.supervisor_turn(None)
    }

    fn housekeeping(&mut self, what: u64) -> Result<(), Broken> {
        let Some(mut sup) = self.sup.take() else { return Ok(()) };
        let done = sup.housekeeping(what, &mut self.ground(false));
        self.sup = Some(sup);
        self.note("housekeeping", what);
        let made = self.oracle.counts.checkpoints;
        self.survived(done)?;
        if what == 3 && made > 0 && self.sup.is_some() && self.rng.one_in(3) {
            // Nothing is written by looking.
            let read = crate::supervisor::read(&self.fs, &mut self.oracle)?;
            if !self.oracle.damaged {
                self.oracle.judge(&read)?;
            }
        }
        Ok(())
    }

    fn sync_files(&mut self) {
        for files in self.host.files.values_mut() {
            files.dir_synced = true;
            files.exit_synced = files.exit.is_some();
        }
    }

    fn stale_wakes(&mut self) -> Result<(), Broken> {
        // A supervisor takes the lock before it reads, and kills who holds it. So one that lives on for all
        // that has a successor with a log and a keeper of its own.
        let newest = self.newest;
        let replaced = |stale: &Supervisor| stale.generation < newest;
        let healthy = self.sup.as_ref().is_some_and(|sup| !sup.is_read_only());
        let ready = healthy && self.stale.as_ref().is_some_and(replaced);
        let Some(mut stale) = self.stale.take_if(|_| ready) else { return Ok(()) };
        let ask = self.any_ask();
        let done = stale.turn(2, Some(ask), &mut self.ground(true));
        self.note("a stale supervisor wakes", 0);
        if self.survived(done)?.is_some() && !stale.replaced && stale.exit.is_none() {
            self.stale = Some(stale);
        }
        Ok(())
    }
}

fn short(run: RunId) -> String {
    run.to_string()[32..].to_owned()
}
