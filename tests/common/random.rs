//! Chance with a seed: the same number gives the same choices again.

/// SplitMix64.
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// Puts a list in another order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for n in (1..list.len()).rev() {
            let other = usize::try_from(self.between(0, n as u64)).unwrap();
            list.swap(n, other);
        }
    }
}

/// A seed that differs from run to run.
pub fn any_seed() -> u64 {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (clock.tv_sec.cast_unsigned() << 20) ^ clock.tv_nsec.cast_unsigned() ^ u64::from(std::process::id())
}
