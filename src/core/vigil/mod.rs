//! Watching over one run that lives: what to look at and when, and what it means.
//!
//! A vigil is fed with observations and asked for a judgement. It reads no clock and does no I/O, and nothing of
//! it is in the event log: another supervisor makes the same one from the settings, the start of the run and what
//! can be observed now. What a heartbeat was last is observable (the keeper has it, files have their times), so a
//! silence counts from the last sign of life and not from our own start. Use of the CPU is the exception: it is a
//! difference between two looks.
//!
//! Nothing is looked at before it can matter. A run that has to give a sign within ten minutes is looked at ten
//! minutes after its latest sign, once; a fault is found only by a look at or after the moment at which the sign
//! was due. So a thousand healthy runs cost a look each in the time they have, and there is no timer for each.
//!
//! Intervals are closed at their end: who gives no sign for exactly as long as it may has been silent for too long.
//! A sign of life from the future (somebody set a clock) is taken for one of this moment: it is wrong, but nobody
//! dies of it.

mod asking;
mod pulse;
mod sampling;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::fault::Fault;
use super::restart::in_words;
use super::spec::JobSpec;
use super::time::Millis;
use super::watch::{ReadyBy, Role, Watch};
use asking::Asking;
use pulse::Pulse;
use sampling::{STOPPED, Sampling};

/// Between two looks for the line that says that it is ready.
const LOG_US: u64 = 100_000;

/// Something to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Look {
    /// When it gave its latest sign on its notify socket.
    Beat,
    /// When it wrote last.
    Output,
    /// When it touched its heartbeat file.
    File,
    /// What its processes do and use.
    Sample,
    /// Whether it has written the line that says that it is ready.
    Log,
    /// Ask this.
    Probe(Role),
}

/// What a look at its processes has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled {
    /// The letter of the main process's state.
    pub state: u8,
    /// CPU time of all its processes, in microseconds.
    pub cpu_us: u64,
    /// Resident memory of all of them, in bytes.
    pub memory: u64,
    /// How many threads they have, all of them together.
    pub tasks: u32,
}

/// What follows at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// Look at these, and tell what was seen.
    pub looks: Vec<Look>,
    /// What is wrong, in words too.
    pub fault: Option<(Fault, String)>,
    /// It is ready by its probe.
    pub ready: bool,
}

/// A vigil over one run.
#[derive(Debug, Clone)]
pub struct Vigil {
    spec: Arc<JobSpec>,
    started_us: u64,
    ready: bool,
    pulses: Vec<Pulse>,
    /// When it said that it is in trouble.
    trigger_us: Option<u64>,
    /// How long it may take by its own word.
    extended_us: u64,
    probes: [Option<Asking>; 3],
    sample: Option<Sampling>,
    /// When to look for the line that says that it is ready.
    log_us: Option<u64>,
    /// The latest judgement: what was due by then has been said.
    judged_us: u64,
}

impl Vigil {
    /// A vigil over a run that was started then; `None` if there is nothing to watch. `ready`: it is up already.
    /// `salt` spreads what many runs would have done at once.
    #[must_use]
    pub fn new(
        spec: &Arc<JobSpec>,
        started_us: u64,
        ready: bool,
        (now_us, salt): (u64, u64),
    ) -> Option<Self> {
        let watch = spec.watch.as_deref()?;
        let beat = &watch.heartbeat;
        let mut pulses = Vec::new();
        let mut pulse = |fault, look, timeout: Option<Millis>| {
            pulses.extend(timeout.map(|timeout| Pulse::new(fault, look, timeout, started_us)));
        };
        pulse(Fault::Watchdog, Some(Look::Beat), beat.notify);
        pulse(Fault::Silent, Some(Look::Output), beat.output);
        pulse(Fault::File, Some(Look::File), beat.file.as_ref().map(|file| file.timeout));
        pulse(Fault::NoProgress, None, watch.progress_timeout);
        if let Some(timeout) = beat.cpu {
            // What it did before the first look is not known.
            pulses.push(Pulse::new(Fault::Idle, None, timeout, now_us));
        }
        let sample = watch.samples().then(|| Sampling::new(watch, now_us));
        let by_log = watch.ready.as_ref().is_some_and(|ready| matches!(ready.by, ReadyBy::Log(_)));
        let asking = |role| watch.probe.of(role).map(|probe| Asking::new(probe, started_us, (now_us, salt)));
        let mut vigil = Self {
            spec: Arc::clone(spec),
            started_us,
            ready: false,
            pulses,
            trigger_us: None,
            extended_us: 0,
            probes: Role::ALL.map(asking),
            sample,
            log_us: by_log.then_some(now_us),
            judged_us: 0,
        };
        if ready {
            vigil.is_ready(started_us);
            vigil.probes[0] = None;
        }
        Some(vigil)
    }

    fn watch(&self) -> Option<&Watch> {
        self.spec.watch.as_deref()
    }

    fn pulse(&mut self, fault: Fault) -> Option<&mut Pulse> {
        self.pulses.iter_mut().find(|pulse| pulse.fault == fault)
    }

    /// It is up since then: from here on it has to give signs by its notify socket.
    pub fn is_ready(&mut self, at_us: u64) {
        self.ready = true;
        self.log_us = None;
        if let Some(pulse) = self.pulse(Fault::Watchdog) {
            pulse.last_us = pulse.last_us.max(at_us);
        }
    }

    /// It gave a sign by its notify socket.
    pub fn beat(&mut self, at_us: u64, now_us: u64) {
        if let Some(pulse) = self.pulse(Fault::Watchdog) {
            pulse.sign(at_us, now_us);
        }
        if self.trigger_us.is_some_and(|trigger| at_us > trigger) {
            self.trigger_us = None;
        }
    }

    /// It said that it is in trouble.
    pub fn trigger(&mut self, at_us: u64) {
        self.trigger_us = Some(at_us);
    }

    /// It wants to give signs in this interval, and has said so then, which is one.
    pub fn interval(&mut self, timeout: Millis, at_us: u64, now_us: u64) {
        match self.pulse(Fault::Watchdog) {
            Some(pulse) => {
                pulse.timeout_us = timeout.0.saturating_mul(1000);
                pulse.sign(at_us, now_us);
            }
            None => {
                let at_us = at_us.min(now_us);
                self.pulses.push(Pulse::new(Fault::Watchdog, Some(Look::Beat), timeout, at_us));
            }
        }
    }

    /// It asked for time until then.
    pub fn extend(&mut self, until_us: u64) {
        self.extended_us = self.extended_us.max(until_us);
    }

    /// It said something about its progress.
    pub fn progress(&mut self, at_us: u64, now_us: u64) {
        if let Some(pulse) = self.pulse(Fault::NoProgress) {
            pulse.sign(at_us, now_us);
        }
    }

    /// What a look at the time of its latest sign has shown; `None`: there is none.
    pub fn looked(&mut self, look: Look, seen_us: Option<u64>, now_us: u64) {
        if look == Look::Beat
            && let Some(at_us) = seen_us
        {
            self.beat(at_us, now_us);
        }
        for pulse in self.pulses.iter_mut().filter(|pulse| pulse.look == Some(look)) {
            pulse.looked(seen_us, now_us);
        }
        if look == Look::Log
            && let Some(log_us) = &mut self.log_us
        {
            *log_us = now_us + LOG_US;
        }
    }

    /// What a look at its processes has shown; `None`: they cannot be seen.
    pub fn sampled(&mut self, seen: Option<Sampled>, now_us: u64) {
        let Some(sample) = &mut self.sample else { return };
        let busy = sample.note(seen, now_us);
        if let Some(pulse) = self.pulse(Fault::Idle) {
            // Whom nobody could see may have been busy.
            pulse.looked((busy || seen.is_none()).then_some(now_us), now_us);
        }
    }

    /// What its processes were seen to use at the latest look.
    #[must_use]
    pub fn latest(&self) -> Option<Sampled> {
        self.sample.as_ref()?.latest
    }

    /// What it answered, or why it did not.
    pub fn probed(&mut self, role: Role, answer: Result<(), String>, now_us: u64) {
        if let Some(asking) = &mut self.probes[role as usize] {
            asking.answered(answer, now_us);
        }
    }

    /// Why it cannot be used, by its readiness probe.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        let asking = self.probes[Role::Readiness as usize].as_ref()?;
        asking.failed().then(|| format!("readiness probe {}", asking.words()))
    }

    /// When it gave its latest sign of life of any kind that is watched, boot clock.
    #[must_use]
    pub fn last_sign_us(&self) -> Option<u64> {
        self.pulses.iter().map(|pulse| pulse.last_us).max()
    }

    /// Whether it watches by these settings.
    #[must_use]
    pub fn is_by(&self, spec: &Arc<JobSpec>) -> bool {
        Arc::ptr_eq(&self.spec, spec) || self.spec.watch == spec.watch
    }

    /// The wall clock was set, and with it the times of files mean something else: nothing is known by them.
    pub fn clock_was_set(&mut self, now_us: u64) {
        for pulse in &mut self.pulses {
            if matches!(pulse.look, Some(Look::Output | Look::File)) {
                pulse.sign(now_us, now_us);
            }
        }
    }

    /// For so long nobody watched, and perhaps nobody ran: signs of life are awaited anew.
    pub fn away(&mut self, for_us: u64, now_us: u64) {
        self.started_us = self.started_us.saturating_add(for_us).min(now_us);
        for pulse in &mut self.pulses {
            pulse.last_us = pulse.last_us.max(now_us);
        }
        if let Some(sample) = &mut self.sample {
            sample.away(now_us);
        }
    }

    /// A question was answered so late that we were away: it is asked again.
    pub fn ask_again(&mut self, role: Role, now_us: u64) {
        if let Some(asking) = &mut self.probes[role as usize] {
            asking.again(now_us);
        }
    }

    /// A question could not be asked, which says nothing of it: it is asked when the next one is due.
    pub fn unasked(&mut self, role: Role, now_us: u64) {
        if let Some(asking) = &mut self.probes[role as usize] {
            asking.put_off(now_us);
        }
    }

    /// Something was wrong with it when it was seen last: its processes are looked at soon.
    pub const fn hurry(&mut self, now_us: u64) {
        if let Some(sample) = &mut self.sample {
            sample.next_us = now_us;
        }
    }

    /// A look was called off.
    pub fn gave_up(&mut self, look: Look) {
        for pulse in self.pulses.iter_mut().filter(|pulse| pulse.look == Some(look)) {
            pulse.looking = false;
        }
    }

    /// Whether it is known that a fault which was found then is there no more.
    #[must_use]
    pub fn is_over(&self, fault: Fault, since_us: u64) -> bool {
        match fault {
            Fault::Watchdog | Fault::Silent | Fault::Idle | Fault::File | Fault::NoProgress => {
                let mut pulses = self.pulses.iter().filter(|pulse| pulse.fault == fault);
                pulses.all(|pulse| pulse.last_us >= since_us)
            }
            Fault::Trigger => self.trigger_us.is_none() && self.last_beat_us() >= since_us,
            Fault::Liveness => {
                let asking = self.probes[Role::Liveness as usize].as_ref();
                asking.is_none_or(|asking| asking.succeeded() && !asking.failed())
            }
            Fault::Stopped | Fault::Blocked | Fault::Memory | Fault::Cpu | Fault::Pids => {
                self.sample.as_ref().is_none_or(|sample| sample.is_well(since_us))
            }
            Fault::NotReady => self.ready,
            // What has failed stays failed.
            Fault::Startup | Fault::MaxRuntime => false,
        }
    }

    fn last_beat_us(&self) -> u64 {
        self.pulses
            .iter()
            .find(|pulse| pulse.fault == Fault::Watchdog)
            .map_or(u64::MAX, |pulse| pulse.last_us)
    }

    /// What follows now. What is to be looked at is under way from here on.
    pub fn judge(&mut self, now_us: u64) -> Judgement {
        let mut judgement = Judgement::default();
        self.judged_us = now_us;
        self.open_probes();
        for pulse in &mut self.pulses {
            let waits = pulse.fault == Fault::Watchdog && !self.ready;
            if let Some(look) = pulse.look
                && !waits
                && pulse.next_us() <= now_us
            {
                pulse.looking = true;
                judgement.looks.push(look);
            }
            if let Some(sample) = &mut self.sample
                && !waits
                && pulse.is_missing(now_us)
                && sample.looked_us < pulse.due_us()
            {
                sample.next_us = sample.next_us.min(now_us);
            }
        }
        if let Some(sample) = &mut self.sample
            && !sample.looking
            && sample.next_us <= now_us
        {
            sample.looking = true;
            judgement.looks.push(Look::Sample);
        }
        if let Some(log_us) = &mut self.log_us
            && *log_us <= now_us
        {
            *log_us = u64::MAX;
            judgement.looks.push(Look::Log);
        }
        for (asking, role) in self.probes.iter_mut().zip(Role::ALL) {
            if asking.as_mut().is_some_and(|asking| asking.ask(now_us)) {
                judgement.looks.push(Look::Probe(role));
            }
        }
        judgement.ready = !self.ready && self.is_ready_by_probe();
        judgement.fault = self.fault(now_us);
        judgement
    }

    /// Until the startup probe has succeeded no other is asked.
    fn open_probes(&mut self) {
        let started = self.probes[0].as_ref().is_none_or(Asking::succeeded);
        for asking in self.probes.iter_mut().skip(1).flatten() {
            asking.open = started;
        }
    }

    fn is_ready_by_probe(&self) -> bool {
        let by_probe = |watch: &Watch| watch.ready.as_ref().is_some_and(|ready| ready.by == ReadyBy::Probe);
        let asking = self.probes[Role::Readiness as usize].as_ref().or(self.probes[0].as_ref());
        self.watch().is_some_and(by_probe) && asking.is_some_and(Asking::succeeded)
    }

    /// When to be asked again, if nothing is told before.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        let pulses = self.pulses.iter().filter(|pulse| pulse.fault != Fault::Watchdog || self.ready);
        let looks = pulses.clone().filter(|pulse| pulse.look.is_some()).map(Pulse::next_us);
        // What is told needs no look: when it is missing, that is it.
        let told = pulses.filter(|pulse| pulse.fault == Fault::NoProgress).map(Pulse::due_us);
        let told = told.chain(self.end_us()).filter(|at| *at > self.judged_us);
        let sample = self.sample.iter().filter(|sample| !sample.looking).map(|sample| sample.next_us);
        let probes = self.probes.iter().flatten().filter_map(Asking::next_us);
        let all = looks.chain(told).chain(sample).chain(probes).chain(self.log_us);
        all.min().filter(|at| *at != u64::MAX)
    }

    fn end_us(&self) -> Option<u64> {
        let max = self.watch()?.max_runtime?;
        Some(self.started_us.saturating_add(max.0.saturating_mul(1000)).max(self.extended_us))
    }

    /// What is wrong with it, the worst first: what ends it, what it says itself, what it does not say.
    fn fault(&self, now_us: u64) -> Option<(Fault, String)> {
        let watch = self.watch()?;
        if self.end_us().is_some_and(|end_us| end_us <= now_us) {
            let max = watch.max_runtime.unwrap_or_default();
            return Some((Fault::MaxRuntime, format!("took longer than {}", in_words(max))));
        }
        if let Some(asking) = self.probes[0].as_ref().filter(|asking| asking.failed() && !asking.succeeded())
        {
            return Some((Fault::Startup, format!("startup probe {}", asking.words())));
        }
        if self.trigger_us.is_some() {
            return Some((Fault::Trigger, "said itself that it is in trouble (WATCHDOG=trigger)".to_owned()));
        }
        let sample = self.sample.as_ref();
        if let Some(found) = sample.and_then(|sample| sample.stuck(now_us)) {
            return Some(found);
        }
        let missing = self.pulses.iter().find(|pulse| {
            let waits = pulse.fault == Fault::Watchdog && !self.ready;
            // Whether it cannot or will not is seen in its processes.
            let looked = sample.is_none_or(|sample| sample.looked_us >= pulse.due_us());
            !waits && looked && pulse.is_missing(now_us)
        });
        if let Some(pulse) = missing {
            let why = self.missing(pulse);
            // At once: it need not be seen stopped twice.
            return Some(match sample.is_some_and(|sample| sample.stopped_us.is_some()) {
                true => (Fault::Stopped, format!("{why}: {STOPPED}")),
                false => (pulse.fault, why),
            });
        }
        let liveness = self.probes[Role::Liveness as usize].as_ref();
        if let Some(asking) = liveness.filter(|asking| asking.failed()) {
            return Some((Fault::Liveness, format!("liveness probe {}", asking.words())));
        }
        sample.and_then(|sample| sample.exceeds(watch))
    }

    fn missing(&self, pulse: &Pulse) -> String {
        let time = in_words(Millis(pulse.timeout_us / 1000));
        match pulse.fault {
            Fault::Watchdog => format!("no WATCHDOG=1 for {time}"),
            Fault::Silent => format!("no output for {time}"),
            Fault::Idle => format!("no use of the CPU for {time}"),
            Fault::NoProgress => format!("no word about its progress for {time}"),
            Fault::File => {
                let file = self.watch().and_then(|watch| watch.heartbeat.file.as_ref());
                format!("{} was not touched for {time}", file.map_or("its file", |file| &file.path))
            }
            other @ (Fault::Trigger
            | Fault::Liveness
            | Fault::Stopped
            | Fault::Blocked
            | Fault::Startup
            | Fault::NotReady
            | Fault::MaxRuntime
            | Fault::Memory
            | Fault::Cpu
            | Fault::Pids) => format!("{} for {time}", other.as_str()),
        }
    }
}
