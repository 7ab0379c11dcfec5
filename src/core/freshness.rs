//! How long nobody has watched a run that lives.
//!
//! The keeper touches the sentinel of each live run every 30 seconds. What was found of a run whose sentinel is old
//! was not watched for so long: it may be well, but nobody has seen it. That is said, and nothing is done about it by
//! that alone; what its signs of life are, its vigil tells.

/// From here on a sentinel is stale: three beats were missed, and one more.
pub const STALE_US: i64 = 120_000_000;
/// From here on it is dead.
pub const DEAD_US: i64 = 600_000_000;

/// How old the sentinel of a run is that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// Somebody watched it until now.
    #[default]
    Fresh,
    /// Nobody did for minutes, or the clock was set back: a beat from the future is never more than stale.
    Stale,
    /// Nobody did for ten minutes and more.
    Dead,
}

impl Freshness {
    /// By the sentinel's time and the time now, both of the wall clock. The boundary belongs to the worse.
    #[must_use]
    pub const fn of(seen_us: i64, now_us: i64) -> Self {
        let age_us = now_us.saturating_sub(seen_us);
        if age_us < -STALE_US {
            Self::Stale
        } else if age_us < STALE_US {
            Self::Fresh
        } else if age_us < DEAD_US {
            Self::Stale
        } else {
            Self::Dead
        }
    }

    /// What is said of it; empty if there is nothing to say.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Fresh => "",
            Self::Stale => "unwatched for minutes (its sentinel is stale)",
            Self::Dead => "unwatched for ten minutes or more (its sentinel is dead)",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_belongs_to_the_worse_and_the_future_is_never_dead() {
        let now = 1_763_600_000_000_000;
        for (age_us, freshness) in [
            (0, Freshness::Fresh),
            (STALE_US - 1, Freshness::Fresh),
            (STALE_US, Freshness::Stale),
            (DEAD_US - 1, Freshness::Stale),
            (DEAD_US, Freshness::Dead),
            (-1, Freshness::Fresh),
            (-STALE_US, Freshness::Fresh),
            (-STALE_US - 1, Freshness::Stale),
        ] {
            assert_eq!(Freshness::of(now - age_us, now), freshness, "{age_us}");
        }
        assert_eq!(Freshness::of(i64::MIN, i64::MAX), Freshness::Dead);
    }
}
