//! The budget of an upstream's retries: a share of its requests, so that peers that are down or overloaded are not asked many
//! times what clients ask.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::config;

/// Requests and retries of a worker to one upstream, in the last seconds.
///
/// A retry is allowed while those of the last second are less than `ratio` of that second's requests, or those of the last
/// ten seconds less than `min` for each of them. The share is of a second and no longer time: what a calm hour has saved up
/// would be spent at once upon the first failure of all. The minimum is of ten, so that the few requests of a quiet gateway
/// may each be tried again.
pub(super) struct Budget {
    ratio: f64,
    /// Retries in [`SLOTS`] seconds that are allowed whatever the share is. This worker's part of them.
    floor: f64,
    /// End of the current second.
    ends: Cell<Instant>,
    /// Requests in the current second, and in the one before.
    requests: Cell<u32>,
    requests_before: Cell<u32>,
    /// Retries by second; the current second's is at `at`.
    retries: [Cell<u32>; SLOTS],
    at: Cell<usize>,
}

const SLOTS: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

impl Budget {
    /// `workers`: so many share the minimum.
    pub(super) fn new(config: &config::RetryBudget, workers: usize) -> Self {
        Self {
            ratio: config.ratio,
            floor: f64::from(config.min) * SLOTS as f64 / workers.max(1) as f64,
            ends: Cell::new(Instant::now() + SECOND),
            requests: Cell::new(0),
            requests_before: Cell::new(0),
            retries: Default::default(),
            at: Cell::new(0),
        }
    }

    /// Counts a request that a client has made, not its retries.
    #[inline]
    pub(super) fn count(&self, now: Instant) {
        if now >= self.ends.get() {
            self.roll(now);
        }
        self.requests.set(self.requests.get().wrapping_add(1));
    }

    /// Whether a retry is within the budget; it is counted if so.
    pub(super) fn take(&self, now: Instant) -> bool {
        if now >= self.ends.get() {
            self.roll(now);
        }
        let at = self.at.get();
        // The second before counts as much as is left of this one: together they are one second.
        let left = self.ends.get().saturating_duration_since(now);
        let share = left.as_secs_f64().min(1.0);
        let weighed = |now: u32, before: u32| f64::from(now) + share * f64::from(before);
        let before = &self.retries[(at + SLOTS - 1) % SLOTS];
        let requests = weighed(self.requests.get(), self.requests_before.get());
        let retries = weighed(self.retries[at].get(), before.get());
        let all: u32 = self.retries.iter().map(Cell::get).sum();
        let is_within = retries + 1.0 <= self.ratio * requests || f64::from(all) < self.floor;
        if is_within {
            self.retries[at].set(self.retries[at].get() + 1);
        }
        is_within
    }

    /// Begins the second that this moment is in.
    #[cold]
    #[inline(never)]
    fn roll(&self, now: Instant) {
        let late = now.saturating_duration_since(self.ends.get());
        let seconds = late.as_secs() as usize + 1;
        let before = if seconds == 1 { self.requests.get() } else { 0 };
        self.requests_before.set(before);
        self.requests.set(0);
        for _ in 0..seconds.min(SLOTS) {
            let at = (self.at.get() + 1) % SLOTS;
            self.retries[at].set(0);
            self.at.set(at);
        }
        self.ends
            .set(self.ends.get() + Duration::from_secs(seconds as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(ratio: f64, min: u32, workers: usize) -> Budget {
        Budget::new(&config::RetryBudget { ratio, min }, workers)
    }

    /// Retries that get through of an outage of so many seconds, in which each of `rate` requests a second asks for two. `calm`:
    /// seconds before, without any.
    fn outage(budget: &Budget, rate: u32, calm: u32, seconds: u32) -> u32 {
        let start = budget.ends.get();
        let mut retries = 0;
        for idx in 0..rate * (calm + seconds) {
            let now = start + SECOND * idx / rate;
            budget.count(now);
            if idx >= rate * calm {
                retries += u32::from(budget.take(now)) + u32::from(budget.take(now));
            }
        }
        retries
    }

    #[test]
    fn an_outage_is_not_amplified_beyond_the_share() {
        for rate in [500, 2_000, 20_000] {
            let retries = outage(&budget(0.2, 3, 1), rate, 30, 10);
            let share = f64::from(retries) / f64::from(10 * rate);
            assert!(share <= 0.2 * 1.1 && share > 0.15, "{rate}: {share}");
        }
    }

    #[test]
    fn few_requests_have_the_minimum_all_workers_together() {
        assert_eq!(outage(&budget(0.2, 3, 1), 100, 0, 1), 30);
        assert_eq!(outage(&budget(0.2, 3, 4), 100, 0, 1), 20);
        assert_eq!(outage(&budget(0.0, 3, 4), 100, 0, 1), 8);
        assert_eq!(outage(&budget(0.0, 0, 1), 100, 0, 1), 0);
        // Each has one at least.
        assert_eq!(outage(&budget(0.0, 1, 64), 100, 0, 1), 1);
    }

    #[test]
    fn the_minimum_comes_back_with_time() {
        let budget = budget(0.0, 1, 1);
        let start = budget.ends.get();
        let taken = |after: u64| {
            let now = start + SECOND * u32::try_from(after).unwrap();
            (0..50).filter(|_| budget.take(now)).count()
        };
        assert_eq!(
            [taken(0), taken(9), taken(10), taken(5000)],
            [10, 0, 10, 10]
        );
    }
}
