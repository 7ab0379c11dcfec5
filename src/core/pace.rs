//! How fast recovery starts jobs again, so that a host that has just come back is not overwhelmed: a few at
//! a time, the fewer the less is known about what was there before, and so many in a second.
//!
//! A job that is started for the first time does not come here.

use std::collections::{BTreeMap, VecDeque};

use super::ids::RunId;
use super::report::Class;

/// Starts that wait for their turn; `T` is what is needed to make one.
#[derive(Debug, Clone)]
pub struct Pace<T> {
    /// Starts in a second; 0: no limit.
    rate: u32,
    /// When the next start is free, if none had been saved up, boot clock in microseconds.
    free_us: u64,
    waiting: BTreeMap<usize, VecDeque<(RunId, T)>>,
    under_way: BTreeMap<RunId, usize>,
    /// Runs that are to wait here, and how many of their kind at a time.
    expected: BTreeMap<RunId, usize>,
}

impl<T> Pace<T> {
    /// Nothing waits.
    #[must_use]
    pub const fn new(rate: u32) -> Self {
        Self {
            rate,
            free_us: 0,
            waiting: BTreeMap::new(),
            under_way: BTreeMap::new(),
            expected: BTreeMap::new(),
        }
    }

    /// The rate from now on.
    pub const fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
    }

    /// The start of this run is made by recovery.
    pub fn expect(&mut self, run: RunId, class: Class) {
        self.expected.insert(run, class.starts_at_a_time());
    }

    /// Takes a start that was expected; gives back any other, which is to be made at once.
    pub fn wait(&mut self, run: RunId, start: T) -> Option<T> {
        match self.expected.remove(&run) {
            Some(at_a_time) => {
                self.waiting.entry(at_a_time).or_default().push_back((run, start));
                None
            }
            None => Some(start),
        }
    }

    /// The next start that may be made now. The kinds take no places from each other.
    pub fn next(&mut self, now_us: u64) -> Option<(RunId, T)> {
        if self.free_at(now_us) > now_us {
            return None;
        }
        let at_a_time = self.ready()?;
        let (run, start) = self.waiting.get_mut(&at_a_time)?.pop_front()?;
        self.under_way.insert(run, at_a_time);
        self.free_us = self.free_at(now_us).saturating_add(self.gap_us());
        Some((run, start))
    }

    /// When [`Self::next`] is worth asking again, if no start ends before.
    #[must_use]
    pub fn next_at(&self, now_us: u64) -> Option<u64> {
        // Perhaps at once: time may have passed since it was asked last.
        self.ready().map(|_| self.free_at(now_us))
    }

    /// The kind of which one may be made as far as its number goes.
    fn ready(&self) -> Option<usize> {
        let room =
            |at_a_time: &usize| self.under_way.values().filter(|n| *n == at_a_time).count() < *at_a_time;
        // The larger kinds first: what is known best comes back first.
        let ready = self.waiting.iter().rev().find(|(n, queue)| !queue.is_empty() && room(n));
        ready.map(|(at_a_time, _)| *at_a_time)
    }

    /// A start has been made, or has failed.
    pub fn answered(&mut self, run: RunId) {
        self.under_way.remove(&run);
    }

    /// A start is not to be made any more. Whether it was still waiting.
    pub fn cancel(&mut self, run: RunId) -> bool {
        let before = self.waiting();
        self.waiting.values_mut().for_each(|queue| queue.retain(|(waiting, _)| *waiting != run));
        self.waiting() < before
    }

    /// Nothing waits any more: a survey settles what did.
    pub fn clear(&mut self) {
        (self.waiting, self.under_way, self.expected) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    }

    /// Whether this run waits here.
    #[must_use]
    pub fn holds(&self, run: RunId) -> bool {
        self.waiting.values().any(|queue| queue.iter().any(|(waiting, _)| *waiting == run))
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    const fn gap_us(&self) -> u64 {
        if self.rate == 0 { 0 } else { 1_000_000 / self.rate as u64 }
    }

    /// When the next start is free. What was not used in the last second is saved up.
    fn free_at(&self, now_us: u64) -> u64 {
        let saved = u64::from(self.rate).saturating_sub(1) * self.gap_us();
        self.free_us.max(now_us.saturating_sub(saved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: u16) -> RunId {
        RunId::from_bytes(u128::from(n).to_be_bytes())
    }

    fn filled(rate: u32, class: Class, count: u16) -> Pace<u16> {
        let mut pace = Pace::new(rate);
        for n in 0..count {
            pace.expect(run(n), class);
            assert_eq!(pace.wait(run(n), n), None);
        }
        pace
    }

    fn take_all(pace: &mut Pace<u16>, now_us: u64) -> Vec<u16> {
        std::iter::from_fn(|| pace.next(now_us).map(|(_, n)| n)).collect()
    }

    #[test]
    fn what_nobody_expects_is_made_at_once() {
        let mut pace = Pace::new(1);
        assert_eq!(pace.wait(run(1), 1), Some(1));
        assert_eq!((pace.waiting(), pace.next(0)), (0, None));
    }

    #[test]
    fn eight_four_or_one_at_a_time_and_each_kind_by_itself() {
        for (class, at_a_time) in [(Class::Restartable, 8), (Class::Lost, 4), (Class::Corrupt, 1)] {
            let mut pace = filled(0, class, 10);
            let first = take_all(&mut pace, 0);
            assert_eq!(first, (0..at_a_time).collect::<Vec<_>>(), "{class:?}");
            pace.answered(run(0));
            assert_eq!(take_all(&mut pace, 0), [at_a_time]);
        }
        let mut pace = filled(0, Class::Restartable, 9);
        pace.expect(run(20), Class::Corrupt);
        pace.wait(run(20), 20);
        assert_eq!(take_all(&mut pace, 0), [0, 1, 2, 3, 4, 5, 6, 7, 20]);
    }

    #[test]
    fn a_second_has_so_many_starts_and_what_was_not_used_is_saved_for_one() {
        let mut pace = filled(4, Class::Restartable, 20);
        let mut now = 10_000_000;
        let mut made = take_all(&mut pace, now).len();
        assert_eq!(made, 4);
        for n in 0..4 {
            pace.answered(run(n));
        }
        assert_eq!(pace.next_at(now), Some(now + 250_000));
        while made < 20 {
            now = pace.next_at(now).unwrap();
            for n in take_all(&mut pace, now) {
                pace.answered(run(n));
                made += 1;
            }
        }
        assert_eq!(now, 10_000_000 + 16 * 250_000);
        assert_eq!(pace.next_at(now), None, "nothing waits");
    }

    #[test]
    fn who_waits_can_be_called_off() {
        let mut pace = filled(1, Class::Lost, 3);
        assert!(pace.holds(run(2)) && pace.cancel(run(2)) && !pace.cancel(run(2)));
        assert_eq!(pace.waiting(), 2);
        pace.clear();
        assert_eq!((pace.waiting(), pace.next(0)), (0, None));
    }

    #[test]
    fn a_start_whose_time_has_come_since_it_was_asked_is_not_forgotten() {
        let mut pace = Pace::new(1);
        let runs = [RunId::from_bytes([1; 16]), RunId::from_bytes([2; 16])];
        for run in runs {
            pace.expect(run, Class::Resumable);
            assert_eq!(pace.wait(run, ()), None);
        }
        let now = 5_000_000;
        assert_eq!(pace.next(now), Some((runs[0], ())));
        assert_eq!(pace.next(now), None);
        assert_eq!(pace.next_at(now + 2_000_000), Some(now + 2_000_000));
        assert_eq!(pace.next(now + 2_000_000), Some((runs[1], ())));
    }
}
