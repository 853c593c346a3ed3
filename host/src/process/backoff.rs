//! Backoff: the time that a worker's slot stays empty when its workers keep dying.

use std::time::Duration;

/// Waits double from 100 ms to 10 s while workers die young; one that has lived is replaced at once.
#[derive(Debug, Default)]
pub struct Backoff {
    deaths_in_a_row: u32,
}

/// A worker that dies before this age has died young.
const YOUNG: Duration = Duration::from_secs(1);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl Backoff {
    /// The wait before the next worker, after one that has lived so long.
    pub fn wait_after(&mut self, lived: Duration) -> Duration {
        if lived >= YOUNG {
            self.deaths_in_a_row = 0;
            return Duration::ZERO;
        }
        let factor = 2_u32.saturating_pow(self.deaths_in_a_row);
        self.deaths_in_a_row = self.deaths_in_a_row.saturating_add(1);
        FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_has_lived_is_replaced_at_once() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.wait_after(Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn waits_double_up_to_ten_seconds_and_start_over_after_a_long_life() {
        let mut backoff = Backoff::default();
        let mut waits_ms = || backoff.wait_after(Duration::ZERO).as_millis();
        assert_eq!([waits_ms(), waits_ms(), waits_ms()], [100, 200, 400]);
        for _ in 0..100 {
            waits_ms();
        }
        assert_eq!(waits_ms(), 10_000);
        backoff.wait_after(Duration::from_secs(60));
        assert_eq!(
            backoff.wait_after(Duration::ZERO),
            Duration::from_millis(100)
        );
    }
}
