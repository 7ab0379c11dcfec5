//! What is done outside the loop: making room, running a command, and finding who uses most memory.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::main_loop::Supervisor;
use super::super::vigils::{aside, probe};
use super::HostNews;
use super::expire::{self, Goal, Site};
use crate::core::host::{Act, CLEARANCE, Heal, Kind, Settings, Share};
use crate::core::ids::RunId;
use crate::sys::{sample, thread};

/// One act, with all that it needs.
enum Work {
    Expire(Site, Goal),
    Rotate(Site, Goal),
    Run(std::process::Command, Duration),
}

impl Work {
    fn done(self, making_room: &Mutex<()>) -> Result<String, String> {
        let words = |error: std::io::Error| error.to_string();
        // Nothing is left half done in memory by who panicked with it.
        let one_at_a_time = || making_room.lock().unwrap_or_else(PoisonError::into_inner);
        match self {
            Self::Expire(site, goal) => {
                let _room = one_at_a_time();
                let n = expire::expire(&site, &goal).map_err(words)?;
                Ok(format!("{n} directories of ended runs removed"))
            }
            Self::Rotate(site, goal) => {
                let _room = one_at_a_time();
                let n = expire::rotate(&site, &goal).map_err(words)?;
                Ok(format!("{n} files of output compressed"))
            }
            Self::Run(command, time) => {
                probe::succeeds(command, time).map(|()| "exit 0".to_owned()).map_err(probe::NoYes::words)
            }
        }
    }
}

impl Supervisor {
    /// Does what this turn has recorded. Where that failed, it is recorded later: room may be what is missing.
    pub(in super::super) fn perform_heals(&mut self) {
        let pending = std::mem::take(&mut self.host.pending);
        if pending.is_empty() {
            return;
        }
        let mut works = Vec::new();
        for (heal, note) in pending {
            if self.read_only.is_some() {
                self.host.late.push(note);
            }
            match &heal.act {
                Act::Expire => {
                    works.push((Work::Expire(self.site(), self.goal(&heal.check)), heal));
                    if self.read_only.is_none() {
                        // What is older than the last but one is not needed after that.
                        self.log.checkpoint(Box::new(|_| ()));
                    }
                }
                Act::Rotate => works.push((Work::Rotate(self.site(), self.goal(&heal.check)), heal)),
                Act::Command { argv, timeout } => {
                    let command = self.command_of_check(&heal.check, argv);
                    works.push((Work::Run(command, timeout.as_duration()), heal));
                }
                Act::HoldStarts | Act::StopLowest | Act::RestartLargest | Act::Restart(_) => {}
            }
        }
        // Who makes room need not hold up a command, and takes no CPU from a job; a command inherits what it runs in.
        let (commands, room): (Vec<_>, Vec<_>) =
            works.into_iter().partition(|(work, _)| matches!(work, Work::Run(..)));
        self.do_aside(room, true);
        for command in commands {
            self.do_aside(vec![command], false);
        }
    }

    /// Does these one after the other, in a thread of their own.
    fn do_aside(&self, works: Vec<(Work, Heal)>, humbly: bool) {
        if works.is_empty() {
            return;
        }
        let (tell, making_room) = (self.host.tell.clone(), self.host.making_room.clone());
        let heals: Vec<Heal> = works.iter().map(|(_, heal)| heal.clone()).collect();
        let thread = std::thread::Builder::new().name("heal".to_owned()).stack_size(512 * 1024);
        let started = thread.spawn(move || {
            if humbly {
                let _ = thread::block_signals();
                let _ = thread::lower_priority();
            }
            for (work, heal) in works {
                let result = work.done(&making_room);
                let _ = tell.blocking_send(HostNews::Done { heal, result });
            }
        });
        if let Err(error) = started {
            for heal in heals {
                let result = Err(format!("no thread: {error}"));
                let _ = self.host.tell.try_send(HostNews::Done { heal, result });
            }
        }
    }

    fn site(&self) -> Site {
        let live = self.state.live_runs().map(|(run, _)| run);
        let latest = self.state.awake().filter_map(|(_, job)| job.latest_run());
        let kept = live.chain(latest).collect();
        Site { state: self.state_dir.clone(), runtime: self.host.runtime.clone(), kept }
    }

    /// The file system that a check is about, else that of the state.
    fn goal(&self, check: &str) -> Goal {
        let monitor = self.host.monitor.as_ref();
        let found = monitor.and_then(|monitor| Some((monitor.path(check)?, monitor.aim(check)?)));
        if let Some((path, aim)) = found {
            let kind = if check.starts_with(Kind::Inodes.as_str()) { Kind::Inodes } else { Kind::Disk };
            return Goal { kind, path: path.into(), aim };
        }
        let limit = self.config.health.limits.get(&Kind::Disk).copied();
        let limit = limit.or_else(|| Settings::default().limits.get(&Kind::Disk).copied());
        let aim = limit.map_or(Share::ALL, |limit| Share(limit.0.saturating_sub(CLEARANCE.0)));
        Goal { kind: Kind::Disk, path: self.state_dir.0.clone(), aim }
    }

    /// Looks which live run uses most memory.
    pub(super) fn look_for_largest(&self, heal: Heal) {
        let wanted = |(run, name)| Some((run, self.wanted(run, self.state.job(name)?)?));
        let (runs, wanted): (Vec<RunId>, Vec<sample::Wanted>) =
            self.state.live_runs().filter_map(wanted).unzip();
        let tell = self.host.tell.clone();
        let unseen = heal.clone();
        let begun = aside(move || {
            let samples = sample::sample(&wanted, false);
            let sizes =
                runs.into_iter().zip(samples).filter_map(|(run, found)| Some((run, found?.rss_bytes)));
            let found = sizes.max_by_key(|(_, bytes)| *bytes);
            let _ = tell.blocking_send(HostNews::Largest { heal, found });
        });
        if !begun {
            let _ = self.host.tell.try_send(HostNews::Largest { heal: unseen, found: None });
        }
    }
}
