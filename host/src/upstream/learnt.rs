//! Values that a limiter has learnt, as the upstream's record keeps them for workers to come.

use crate::config;

/// Limit and calm latency that a worker has learnt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Learnt {
    /// Requests that may be under way.
    pub limit: f64,
    /// Calm latency in seconds.
    pub calm: f64,
    /// Whether the calm latency is a known one, and not the best so far.
    pub is_known: bool,
}

impl Learnt {
    /// Word of a record: the limit of all workers, if each of them had this one's, and above it the calm latency, negative while
    /// it is not known. One word, so that no worker reads halves of two.
    pub(super) fn to_word(self, config: &config::Concurrency, workers: u32) -> u64 {
        // The parts are rounded up, and may be more than all together.
        let of_all = (self.limit * f64::from(workers)).min(config.max.into());
        let calm = if self.is_known { self.calm } else { -self.calm };
        u64::from((calm as f32).to_bits()) << 32 | u64::from((of_all as f32).to_bits())
    }

    /// One worker's part of what a record has. `None`: nothing, or nothing that this config could have led to.
    pub(super) fn from_word(word: u64, config: &config::Concurrency, workers: u32) -> Option<Self> {
        let of_all = f32::from_bits(word as u32);
        let calm = f32::from_bits((word >> 32) as u32);
        let is_within = (config.min as f32..=config.max as f32).contains(&of_all);
        // A subnormal one would be taken for none where it is divided by.
        (is_within && calm.is_normal()).then(|| Self {
            limit: f64::from(of_all) / f64::from(workers),
            calm: calm.abs().into(),
            is_known: calm.is_sign_positive(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CONFIG: config::Concurrency = config::Concurrency {
        min: 10,
        max: 1000,
        initial: 100,
        tolerance: 1.2,
        queue_time: Duration::ZERO,
    };

    #[test]
    fn what_one_has_learnt_is_shared_out_among_the_workers_of_now() {
        for is_known in [true, false] {
            let learnt = Learnt {
                limit: 150.0,
                calm: 0.25,
                is_known,
            };
            let word = learnt.to_word(&CONFIG, 2);
            assert_eq!(Learnt::from_word(word, &CONFIG, 2), Some(learnt));
            let of_four = Learnt::from_word(word, &CONFIG, 4);
            assert_eq!(
                of_four,
                Some(Learnt {
                    limit: 75.0,
                    ..learnt
                })
            );
        }
        // Three parts of 1000 are 334 each.
        let most = Learnt {
            limit: 334.0,
            calm: 0.25,
            is_known: true,
        };
        let word = most.to_word(&CONFIG, 3);
        let of_four = Learnt::from_word(word, &CONFIG, 4).expect("it is within the bounds");
        assert_eq!(of_four.limit, 250.0);
    }

    #[test]
    fn garbage_and_what_is_out_of_bounds_is_nothing() {
        let word =
            |limit: f32, calm: f32| u64::from(calm.to_bits()) << 32 | u64::from(limit.to_bits());
        assert!(Learnt::from_word(word(10.0, 0.25), &CONFIG, 1).is_some());
        let (nan, infinite) = (f32::NAN, f32::INFINITY);
        for (limit, calm) in [
            (0.0, 0.0),
            (100.0, 0.0),
            (100.0, -0.0),
            (100.0, f32::from_bits(1)),
            (100.0, nan),
            (100.0, -infinite),
            (nan, 0.25),
            (infinite, 0.25),
            (-100.0, 0.25),
            (9.0, 0.25),
            (1001.0, 0.25),
        ] {
            let read = Learnt::from_word(word(limit, calm), &CONFIG, 1);
            assert_eq!(read, None, "{limit} {calm}");
        }
        assert_eq!(Learnt::from_word(u64::MAX, &CONFIG, 1), None);
    }
}
