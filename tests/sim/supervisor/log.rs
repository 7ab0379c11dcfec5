//! The event log: writing, and what follows when that is refused.

use super::*;

impl Supervisor {
    /// Whether it is durable now.
    pub(super) fn append(&mut self, entries: Vec<Entry>, ground: &mut Ground<'_>) -> Result<bool, Cut> {
        if ground.stale {
            // It writes to a file that counts no more; nobody hears its answers.
            let done = self.journal.append(&entries);
            return if ground.fs.has_crashed() { Err(Cut::Died) } else { Ok(done.is_ok()) };
        }
        let was_poisoned = self.journal.poisoned().is_some();
        let done = self.journal.append(&entries);
        if !was_poisoned {
            ground.oracle.appended(entries);
        }
        if ground.fs.has_crashed() {
            return Err(Cut::Died);
        }
        match done {
            Ok(seq) => {
                ground.oracle.acknowledged(seq, ground.fs)?;
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    pub(super) fn become_read_only(&mut self, ground: &Ground<'_>) {
        let delay_us = self.read_only.as_ref().map_or(1_000_000, |old| (old.delay_us * 2).min(60_000_000));
        self.read_only = Some(ReadOnly { delay_us, retry_at_us: ground.host.now.boot_us + delay_us });
    }

    /// Tries to write again, when it is time.
    pub(super) fn retry_log(&mut self, turn: &mut Turn, ground: &mut Ground<'_>) -> Result<(), Cut> {
        let Some(read_only) = &self.read_only else { return Ok(()) };
        if read_only.retry_at_us > ground.host.now.boot_us || ground.stale {
            return Ok(());
        }
        let healed = self.journal.heal().map_err(|error| ground.say(|| error.to_string())).is_ok();
        if ground.fs.has_crashed() {
            return Err(Cut::Died);
        }
        if !healed {
            self.become_read_only(ground);
            return Ok(());
        }
        ground.oracle.healed(self.journal.last_seq());
        if ground.mistake == Some(Mistake::VoidKeptInMemory) {
            self.read_only = None;
        } else {
            let read = read(ground.fs, ground.oracle)?;
            ground.oracle.judge(&read)?;
            let strict = ground.mistake == Some(Mistake::HolesMustStay);
            let known = read.report.lost.iter().all(|range| self.lost.contains(range))
                && (!strict || read.report.lost == self.lost);
            if read.last_seq() < self.journal.last_seq() || !known {
                ground.say(|| format!("it cannot be read back: {}", read.report));
                self.become_read_only(ground);
                return Ok(());
            }
            self.read_only = None;
            self.state = read.state;
            self.state.set_specs(&arcs(&self.config));
        }
        if self.state.instance.generation != self.generation {
            self.decide(&self.started(ground), turn, ground)?;
        }
        self.decide(&Input::KeeperLost, turn, ground)?;
        let specs = self.config.clone();
        self.decide(&Input::Configured { specs, by: Asked::Nobody }, turn, ground)?;
        self.request(Request::Inventory, Some(Pending::Survey), ground);
        Ok(())
    }

    /// What the log's own threads do: a mark, the end of a segment, a checkpoint begun or made.
    pub(crate) fn housekeeping(&mut self, what: u64, ground: &mut Ground<'_>) -> Result<(), Cut> {
        match what {
            0 => {
                let (before, by) = (self.journal.last_seq(), (ground.host.now, self.generation));
                if self.journal.poisoned().is_none() {
                    ground.oracle.marks(by);
                    let done = self.journal.mark();
                    match done {
                        Ok(()) if self.journal.last_seq() == before => ground.oracle.unmarked(),
                        Ok(()) => ground.oracle.acknowledged(before + 1, ground.fs)?,
                        Err(_) => {}
                    }
                }
            }
            1 => drop(self.journal.rotate()),
            2 => {
                if self.journal.rotate().is_ok()
                    && self.journal.poisoned().is_none()
                    && self.journal.last_seq() > 0
                {
                    let folding = self.journal.folding().without_history();
                    self.fold = Some((folding, self.journal.last_seq()));
                }
            }
            _ => {
                if let Some((folding, upto)) = self.fold.take() {
                    let done = folding.run(upto);
                    if !ground.fs.has_crashed() {
                        ground.oracle.folded(upto, done)?;
                    }
                }
            }
        }
        if ground.fs.has_crashed() { Err(Cut::Died) } else { Ok(()) }
    }
}
