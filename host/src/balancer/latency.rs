//! A peer's latency as a moving average, in one word that all workers share.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Average latency, and when it was that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Latency {
    seconds: f32,
    /// Milliseconds of [`crate::zone::now_ns`], modulo 2^32: an age of more than 49 days is taken for a younger one.
    at_ms: u32,
}

/// How old a latency is when it counts 37 %, 1 / e.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decay {
    per_ms: f32,
}

impl Decay {
    pub(super) const TEN_SECONDS: Self = Self { per_ms: 0.000_1 };

    /// How much a latency of this age still counts.
    #[inline]
    fn weight(self, age_ms: u32) -> f32 {
        let age = age_ms as f32 * self.per_ms;
        match age < SMALL {
            // The rest of the series is less than the precision of the float.
            true => 1.0 - age,
            false => (-age).exp(),
        }
    }
}

/// In times of the decay.
const SMALL: f32 = 0.000_3;

impl Latency {
    /// Latency of a peer that has not answered yet (Linkerd `default_rtt`): more than most take, so that it gets a few
    /// requests at first, and not all of them.
    pub(super) const UNKNOWN: Duration = Duration::from_millis(30);

    pub(super) fn new(latency: Duration, now_ns: u64) -> Self {
        Self {
            seconds: latency.as_secs_f32(),
            at_ms: ms(now_ns),
        }
    }

    #[inline]
    fn age_ms(self, now_ms: u32) -> u32 {
        let age = now_ms.wrapping_sub(self.at_ms);
        // Another worker may have read the clock a moment later.
        match age > u32::MAX - 1000 {
            true => 0,
            false => age,
        }
    }

    /// Latency of a peer that gets no requests: it is thought better of as time passes, so that it gets one again.
    #[inline]
    pub(super) fn decayed_seconds(self, now_ns: u64, decay: Decay) -> f32 {
        self.seconds * decay.weight(self.age_ms(ms(now_ns)))
    }

    /// A rise counts at once, a fall slowly (peak EWMA, as Finagle and Linkerd do it).
    #[must_use]
    pub(super) fn peak(self, seen: Duration, now_ns: u64, decay: Decay) -> Self {
        let seen = Self::new(seen, now_ns);
        match seen.seconds > self.seconds {
            true => seen,
            false => self.average(seen, decay),
        }
    }

    /// Moving average that rises as slowly as it falls.
    #[must_use]
    pub(super) fn mean(self, seen: Duration, now_ns: u64, decay: Decay) -> Self {
        self.average(Self::new(seen, now_ns), decay)
    }

    fn average(self, seen: Self, decay: Decay) -> Self {
        let weight = decay.weight(self.age_ms(seen.at_ms));
        Self {
            seconds: self.seconds * weight + seen.seconds * (1.0 - weight),
            ..seen
        }
    }

    /// Reads what the workers know; `None`: nothing yet.
    #[inline]
    pub(super) fn load(word: &AtomicU64) -> Option<Self> {
        let word = word.load(Relaxed);
        (word != 0).then_some(Self {
            seconds: f32::from_bits(word as u32),
            at_ms: (word >> 32) as u32,
        })
    }

    /// Changes what the workers know. Where two do so at the same moment, one of both observations is lost, which an average can
    /// bear.
    pub(super) fn update(word: &AtomicU64, change: impl FnOnce(Option<Self>) -> Self) {
        let old = word.load(Relaxed);
        let new = change(Self::load(&AtomicU64::new(old)));
        let new = u64::from(new.seconds.to_bits()) | u64::from(new.at_ms) << 32;
        let _ = word.compare_exchange(old, new, Relaxed, Relaxed);
    }
}

fn ms(now_ns: u64) -> u32 {
    (now_ns / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MS: Duration = Duration::from_millis(1);

    fn decay() -> Decay {
        Decay::TEN_SECONDS
    }

    fn is_near(found: f32, expected: f32) -> bool {
        (found - expected).abs() <= expected * 0.001
    }

    #[test]
    fn a_rise_counts_at_once_and_a_fall_slowly() {
        let first = Latency::new(10 * MS, 0);
        let risen = first.peak(200 * MS, SECOND, decay());
        assert!(is_near(risen.seconds, 0.2));
        let fallen = risen.peak(10 * MS, 11 * SECOND, decay());
        assert!(is_near(fallen.seconds, 0.01 + 0.19 / std::f32::consts::E));
    }

    #[test]
    fn a_mean_rises_as_it_falls() {
        let first = Latency::new(10 * MS, 0);
        let risen = first.mean(200 * MS, 10 * SECOND, decay());
        assert!(is_near(risen.seconds, 0.2 - 0.19 / std::f32::consts::E));
    }

    #[test]
    fn an_idle_peer_is_thought_better_of() {
        let latency = Latency::new(10 * MS, 5 * SECOND);
        let after = |seconds: u64| latency.decayed_seconds((5 + seconds) * SECOND, decay());
        assert!(is_near(after(0), 0.01));
        assert!(is_near(after(10), 0.01 / std::f32::consts::E));
        assert!(after(1000) < 1e-9);
        // A clock that was read before another worker's.
        assert!(is_near(
            latency.decayed_seconds(5 * SECOND - 1_000_000, decay()),
            0.01
        ));
    }

    #[test]
    fn a_word_holds_what_is_known() {
        let word = AtomicU64::new(0);
        assert_eq!(Latency::load(&word), None);
        let first = Latency::new(3 * MS, 7 * SECOND);
        Latency::update(&word, |known| known.unwrap_or(first));
        assert_eq!(Latency::load(&word), Some(first));
        Latency::update(&word, |known| {
            known.unwrap().peak(9 * MS, 8 * SECOND, decay())
        });
        assert_eq!(Latency::load(&word), Some(Latency::new(9 * MS, 8 * SECOND)));
    }

    proptest! {
        /// An average is a number, and no less than nothing, whatever was seen.
        #[test]
        fn an_average_lies_between_what_was_seen(
            seen in prop::collection::vec((0_u64..100_000, 0_u64..100 * SECOND), 1..50),
        ) {
            let mut now_ns = 0;
            let mut latency = Latency::new(Duration::from_micros(seen[0].0), 0);
            let seconds = |at: usize| seen[at].0 as f32 / 1e6;
            let most = (0..seen.len()).map(seconds).fold(0.0, f32::max);
            for (us, later) in &seen {
                now_ns += later;
                latency = latency.peak(Duration::from_micros(*us), now_ns, decay());
                prop_assert!((0.0..=most * 1.001).contains(&latency.seconds));
                prop_assert!(latency.seconds * 1.001 >= *us as f32 / 1e6);
            }
        }
    }
}
