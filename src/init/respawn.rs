//! When a role is started again.
//!
//! The first death is answered at once. Each further one doubles a delay that begins at 100 ms and ends
//! at 10 s. A life in which the role said that it is at work and then lived for a second clears the
//! account: what ends it is not a failure to start. Five deaths of the supervisor within 60 s, whatever
//! their cause, start it in recovery mode: it then watches and adopts, but starts nothing by itself. The
//! supervisor has a rule of its own beside this one, for starts that never came to their end: `core::phases`.

/// The window for recovery mode, in microseconds.
const WINDOW_US: u64 = 60_000_000;
/// A role that became ready and lived this long did not fail to start, in microseconds.
const CALM_US: u64 = 1_000_000;
/// First delay, in microseconds.
const FIRST_DELAY_US: u64 = 100_000;
/// Longest delay, in microseconds.
const LONGEST_DELAY_US: u64 = 10_000_000;
/// Deaths that are remembered; recovery mode can be asked for after at most this many.
const DEATHS_MAX: usize = 16;

/// The account of one role. Plain data: it lives in the table that survives init's own `execve`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Account {
    /// Times of the latest deaths, boot clock; 0: none.
    deaths: [u64; DEATHS_MAX],
    /// Deaths in a row that count as failed starts.
    in_a_row: u32,
    /// Whether this life has said that it is at work.
    ready: u32,
    /// Started, boot clock.
    born_us: u64,
}

impl Account {
    pub(super) fn born(&mut self, now_us: u64) {
        self.born_us = now_us;
        self.ready = 0;
    }

    pub(super) fn ready(&mut self) {
        self.ready = 1;
    }

    /// Notes a death and says when the next life may begin.
    pub(super) fn died(&mut self, now_us: u64) -> u64 {
        self.deaths.rotate_left(1);
        self.deaths[DEATHS_MAX - 1] = now_us;
        if self.ready == 1 && now_us.saturating_sub(self.born_us) >= CALM_US {
            self.in_a_row = 0;
        }
        let delay = match self.in_a_row {
            0 => 0,
            n => (FIRST_DELAY_US << (n - 1).min(10)).min(LONGEST_DELAY_US),
        };
        self.in_a_row = self.in_a_row.saturating_add(1);
        now_us + delay
    }

    /// Deaths in a row that count as failed starts.
    pub(super) const fn failed_starts(&self) -> u32 {
        self.in_a_row
    }

    /// Whether `threshold` deaths (0: never) lie so close together that the next life should be a careful
    /// one.
    pub(super) fn needs_recovery_mode(&self, now_us: u64, threshold: usize) -> bool {
        let Some(oldest) = threshold.checked_sub(1).and_then(|n| self.deaths.iter().rev().nth(n)) else {
            return false;
        };
        *oldest != 0 && now_us.saturating_sub(*oldest) <= WINDOW_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_is_answered_at_once_and_later_ones_ever_more_slowly() {
        let mut account = Account::default();
        let mut now = 1_000_000;
        let mut delays = Vec::new();
        for _ in 0..10 {
            account.born(now);
            delays.push((account.died(now) - now) / 1000);
            now += 1000;
        }
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000]);
    }

    #[test]
    fn a_life_at_work_clears_the_account_and_a_long_failing_start_does_not() {
        let mut account = Account::default();
        account.born(1);
        account.died(2);
        account.born(3);
        assert!(account.died(3 + CALM_US) > 3 + CALM_US);
        account.born(5);
        account.ready();
        assert_eq!(account.died(5 + CALM_US), 5 + CALM_US);
    }

    #[test]
    fn five_deaths_in_a_minute_ask_for_recovery_mode_and_four_do_not() {
        let mut account = Account::default();
        for now in [10, 20, 30, 40] {
            account.died(now);
        }
        assert!(!account.needs_recovery_mode(50, 5));
        account.died(50);
        assert!(account.needs_recovery_mode(60, 5));
        assert!(!account.needs_recovery_mode(60, 0));
        assert!(!account.needs_recovery_mode(11 + WINDOW_US, 5));
    }
}
