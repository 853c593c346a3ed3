//! Slow start: a peer that has come up gets more and more requests, until it has warmed up.

use std::time::Duration;

use crate::config;

/// Which part of its weight a peer has in the time after it came up.
#[derive(Clone, Copy, Debug)]
pub struct SlowStart {
    /// In nanoseconds.
    window_ns: f64,
    /// Inverse of Envoy's `aggression`.
    exponent: f64,
}

impl SlowStart {
    pub fn of(config: &config::SlowStart) -> Self {
        Self::new(config.window, config.aggression)
    }

    /// `window`: time until a peer has its whole weight. `aggression`: 1 is a straight line, more rises sooner, less later.
    pub(super) fn new(window: Duration, aggression: f64) -> Self {
        Self {
            window_ns: window.as_nanos() as f64,
            exponent: 1.0 / aggression,
        }
    }

    /// When a peer that came up at this time has its whole weight.
    pub(super) fn ends_ns(&self, up_since_ns: u64) -> u64 {
        up_since_ns.saturating_add(self.window_ns as u64)
    }

    /// Part of the weight, [`FLOOR`] to 1, of a peer that came up at this time; 0: it was never down.
    pub fn part(&self, up_since_ns: u64, now_ns: u64) -> f64 {
        let age = now_ns.saturating_sub(up_since_ns) as f64 / self.window_ns;
        match up_since_ns == 0 || age >= 1.0 {
            true => 1.0,
            false => age.powf(self.exponent).max(FLOOR),
        }
    }
}

/// Least part of a weight (Envoy `min_weight_percent`).
const FLOOR: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_weight_rises_in_a_straight_line_from_a_tenth() {
        let ramp = SlowStart::new(Duration::from_secs(10), 1.0);
        let after = |seconds: u64| ramp.part(5 * SECOND, (5 + seconds) * SECOND);
        assert_eq!(
            [after(0), after(1), after(2), after(5)],
            [0.1, 0.1, 0.2, 0.5]
        );
        assert_eq!([after(10), after(1000)], [1.0, 1.0]);
        // A clock that was read before the peer came up.
        assert_eq!(ramp.part(5 * SECOND, SECOND), 0.1);
    }

    #[test]
    fn a_peer_that_was_never_down_has_its_weight() {
        let ramp = SlowStart::new(Duration::from_secs(10), 1.0);
        assert_eq!(ramp.part(0, SECOND), 1.0);
    }

    #[test]
    fn aggression_bends_the_line() {
        let after = |aggression| {
            SlowStart::new(Duration::from_secs(100), aggression).part(SECOND, 26 * SECOND)
        };
        assert_eq!([after(2.0), after(1.0)], [0.5, 0.25]);
        assert!((after(0.5) - FLOOR).abs() < 1e-9);
    }
}
