//! How long services were up of the time they were wanted.

use std::collections::VecDeque;

use super::Figure;

/// How long services were wanted, and up, minute by minute for an hour. Of this supervisor only.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Uptime {
    /// Number of the minute, milliseconds wanted, milliseconds up, milliseconds with any that is wanted.
    minutes: VecDeque<(u64, [u64; 3])>,
    /// Since when how many are wanted, and how many of them are up.
    last: Option<(u64, u64, u64)>,
}

impl Uptime {
    /// From now on so many services are wanted, and so many of them are up.
    pub fn note(&mut self, boot_us: u64, wanted: u64, up: u64) {
        let minute = boot_us / 60_000_000;
        if let Some((since, wanted, up)) = self.last {
            let ms = boot_us.saturating_sub(since) / 1000;
            let times = [wanted.saturating_mul(ms), up.saturating_mul(ms), if wanted > 0 { ms } else { 0 }];
            match self.minutes.back_mut().filter(|last| last.0 == minute) {
                Some((_, known)) => known.iter_mut().zip(times).for_each(|(known, time)| *known += time),
                None => self.minutes.push_back((minute, times)),
            }
        }
        self.last = Some((boot_us, wanted, up));
        while self.minutes.front().is_some_and(|first| first.0 + 60 < minute) {
            self.minutes.pop_front();
        }
    }

    /// How long they were up of the time they were wanted, in percent, and of how many seconds that is.
    #[must_use]
    pub fn percent(&self) -> Option<Figure> {
        let sum = |n: usize| self.minutes.iter().map(|(_, times)| times[n]).sum::<u64>();
        let (wanted, up, all) = (sum(0), sum(1), sum(2));
        (wanted > 0).then(|| Figure { count: all / 1000, ..Figure::share(up, wanted) })
    }
}
