//! What runs tell, as the keeper has heard it.

use super::super::main_loop::{Supervisor, Turn};
use crate::core::ids::RunId;
use crate::core::input::Input;
use crate::core::job::Phase;
use crate::core::progress::{Published, Said};
use crate::core::time::Stamp;
use crate::core::vigil::{Look, Vigil};
use crate::sys::clock;
use crate::wire::keeper::{Extend, RunStatus, Told};

/// Less than this is no more time.
const EXTENSION_US: u64 = 500_000;

/// What a run tells is recorded within this time.
const RECORDED_AFTER_US: u64 = 2_000_000;

/// Lets a vigil know all that a run has told. What it knows already changes nothing.
pub(super) fn tell(vigil: &mut Vigil, told: &Told, now_us: u64) {
    if let Some(watchdog) = told.watchdog {
        vigil.interval(watchdog, told.watchdog_at.map_or(now_us, |at| at.boot_us), now_us);
    }
    // To say that it comes up, ends or reads its configuration is a sign of life, too.
    let signs = [told.ready, told.stopping, told.reloading, told.beat];
    for at in signs.into_iter().flatten() {
        vigil.beat(at.boot_us, now_us);
    }
    if let Some(at) = told.trigger.filter(|trigger| told.beat.is_none_or(|beat| beat < *trigger)) {
        vigil.trigger(at.boot_us);
    }
    if let Some(Extend { at, by }) = told.extend {
        vigil.extend(at.plus(by).boot_us);
    }
    if let Some(at) = told.progress_at {
        vigil.progress(at.boot_us, now_us);
    }
}

impl Supervisor {
    /// What the inventory of the keeper says of runs that tell things: heard before the survey, so that who is ready
    /// is not found late, and after it, when those that it has found are known.
    pub(in super::super) fn hear_all(&mut self, inventory: &[RunStatus], turn: &mut Turn) {
        for status in inventory.iter().filter(|status| status.ended.is_none()) {
            if let Some(told) = &status.told {
                self.hear(status.run, told.clone(), turn);
            }
        }
    }

    /// A run has told something.
    pub(in super::super) fn hear(&mut self, run: RunId, told: Box<Told>, turn: &mut Turn) {
        let Some(name) = self.state.job_of(run).cloned() else { return };
        let known = self.vigils.told.insert(run, told.clone());
        let is_first = known.is_none();
        let before = known.unwrap_or_default();
        let now_us = clock::boot_us();
        if told.rejected > before.rejected {
            tracing::warn!(job = %name, %run, "somebody who is not of this run wrote to its notify socket");
        }
        self.vigils.change(run, |vigil| tell(vigil, &told, now_us));
        self.judge_soon(run);
        self.dirty.insert(name);
        self.hear_more_time(run, &told, turn);
        if told.ready.is_some() {
            self.observe(&Input::Ready { run }, turn);
        }
        self.hear_progress(run, (&before, &told), is_first, turn);
    }

    /// It has asked for more time. What was recorded of it is later already.
    fn hear_more_time(&mut self, run: RunId, told: &Told, turn: &mut Turn) {
        let Some(Extend { at, by }) = told.extend else { return };
        let until = at.plus(by);
        let job = self.state.job_of(run).and_then(|name| self.state.job(name));
        let ends: Option<Stamp> = match job.map(|job| (job, &job.phase)) {
            Some((_, Phase::Running { ready_at, .. })) => *ready_at,
            // What it asked for before was for something else.
            Some((job, Phase::Stopping { ladder: Some(ladder), .. })) if job.since.boot_us <= at.boot_us => {
                Some(ladder.until)
            }
            _ => None,
        };
        // Who asks all the time is not heard each time.
        if ends.is_some_and(|ends| ends.boot_us.saturating_add(EXTENSION_US) <= until.boot_us) {
            self.observe(&Input::Extended { run, until }, turn);
        }
    }

    /// `is_first`: what is remembered may be later than what is heard.
    fn hear_progress(&mut self, run: RunId, (before, told): (&Told, &Told), is_first: bool, turn: &mut Turn) {
        let Some(name) = self.state.job_of(run).cloned() else { return };
        let published = self.progress_of(&name).filter(|known| known.run == run);
        // A token may also come by `outlive publish`. What is remembered was recorded some time after it was said.
        let is_later = |known: &Published| {
            told.resume_at.is_some_and(|at| at.boot_us.saturating_add(RECORDED_AFTER_US) < known.at.boot_us)
        };
        let is_old = is_first && published.is_some_and(is_later);
        let known = published.map(|known| &known.said);
        let new = |told: &Option<String>, before: &Option<String>, known: Option<&String>| {
            told.clone().filter(|text| Some(text) != before.as_ref() && Some(text) != known)
        };
        let said = Said {
            progress: told.progress.filter(|percent| {
                Some(*percent) != before.progress && Some(*percent) != known.and_then(|said| said.progress)
            }),
            text: new(&told.status, &before.status, known.and_then(|said| said.text.as_ref())),
            resume: new(&told.resume, &before.resume, known.and_then(|said| said.resume.as_ref()))
                .filter(|_| !is_old),
        };
        if said == Said::default() || self.read_only.is_some() {
            return;
        }
        let decision = self.decide(&Input::Published { run, said: said.clone() }, turn);
        if decision.events.is_empty() {
            self.keep_newest(&name, run, &said);
        } else {
            self.newest.remove(&name);
        }
    }

    /// The keeper tells the latest beats of runs. What it knows is as old as the question: the answer may have
    /// waited for us.
    pub(in super::super) fn beats(&mut self, asked: &[RunId], beats: Vec<(RunId, Stamp)>, asked_us: u64) {
        let beats: std::collections::BTreeMap<RunId, Stamp> = beats.into_iter().collect();
        for run in asked {
            let beat_us = beats.get(run).map(|beat| beat.boot_us);
            self.vigils.change(*run, |vigil| vigil.looked(Look::Beat, beat_us, asked_us));
            self.judge_soon(*run);
        }
    }

    /// The keeper cannot say when these gave their latest signs.
    pub(in super::super) fn beats_unknown(&mut self, asked: &[RunId]) {
        let at_us = clock::boot_us();
        let now = Stamp { boot_us: at_us, wall_us: clock::wall_us() };
        self.beats(asked, asked.iter().map(|run| (*run, now)).collect(), at_us);
    }

    /// The keeper is gone, and with it the answers that were waited for.
    pub(in super::super) fn beats_lost(&mut self) {
        let all: Vec<RunId> = self.vigils.runs.keys().copied().collect();
        for run in all {
            self.vigils.change(run, |vigil| vigil.gave_up(Look::Beat));
        }
    }
}
