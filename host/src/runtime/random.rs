//! Random numbers for choices that nobody gains from foreseeing: shares of traffic.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

thread_local! {
    /// The standard library takes keys from the system, once a thread.
    static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
}

/// The next number, by SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): a few instructions.
pub fn next() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// `time`, longer or shorter by up to this share of it.
pub fn jittered(time: Duration, share: f64) -> Duration {
    let unit = (next() >> 11) as f64 / (1_u64 << 53) as f64;
    time.mul_f64(1.0 + share * (2.0 * unit - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_share_and_takes_all_of_it() {
        let second = Duration::from_secs(1);
        let times = (0..10_000).map(|_| jittered(second, 0.25).as_secs_f64());
        let (least, most) = times.fold((2.0_f64, 0.0_f64), |(least, most), time| {
            (least.min(time), most.max(time))
        });
        assert!((0.75..0.76).contains(&least) && (1.24..=1.25).contains(&most));
        assert_eq!(jittered(second, 0.0), second);
    }

    #[test]
    fn all_bits_are_used() {
        let bits = (0..1000).map(|_| next()).fold([0; 64], |mut counts, n| {
            for (bit, count) in counts.iter_mut().enumerate() {
                *count += n >> bit & 1;
            }
            counts
        });
        // 500, and six standard deviations.
        assert!(
            bits.iter().all(|count| (405..=595).contains(count)),
            "{bits:?}"
        );
    }
}
