//! Limits of a response's body: its length, and bytes a second.

use std::time::{Duration, Instant};

use crate::config::ResponseLimits;

/// Count of a body that has limits.
pub(super) struct Meter {
    max_bytes: u64,
    /// Bytes a second; 0: any.
    rate: u64,
    seen_bytes: u64,
    began: Instant,
}

impl Meter {
    /// `None`: there are no limits.
    #[inline]
    pub(super) fn new(limits: &ResponseLimits, began: Instant) -> Option<Box<Self>> {
        let ResponseLimits { max_bytes, rate } = *limits;
        (max_bytes != 0 || rate != 0).then(|| {
            Box::new(Self {
                max_bytes,
                rate,
                seen_bytes: 0,
                began,
            })
        })
    }

    /// Counts a piece. The error is the limit that it exceeds.
    pub(super) fn count(&mut self, bytes: usize) -> Result<(), u64> {
        self.seen_bytes += bytes as u64;
        self.check(self.seen_bytes)
    }

    /// Whether a body may have so many bytes. The error is the limit.
    pub(super) fn check(&self, bytes: u64) -> Result<(), u64> {
        match self.max_bytes {
            max if max != 0 && bytes > max => Err(max),
            _ => Ok(()),
        }
    }

    /// Time until more of it may come; `None`: it may now.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let due_ms = (u128::from(self.seen_bytes) * 1000).checked_div(u128::from(self.rate))?;
        let due = Duration::from_millis(u64::try_from(due_ms).unwrap_or(u64::MAX));
        let left = due.saturating_sub(now.saturating_duration_since(self.began));
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(max_bytes: u64, rate: u64) -> Option<Box<Meter>> {
        Meter::new(&ResponseLimits { max_bytes, rate }, Instant::now())
    }

    #[test]
    fn a_body_comes_no_faster_than_its_rate() {
        let mut meter = meter(0, 1000).expect("a limit");
        let began = meter.began;
        assert_eq!(meter.wait(began), None);
        assert_eq!(meter.count(1500), Ok(()));
        let at = |ms| began + Duration::from_millis(ms);
        assert_eq!(meter.wait(at(500)), Some(Duration::from_secs(1)));
        assert_eq!(meter.wait(at(1500)), None);
        // A body that was slower by itself may catch up.
        assert_eq!(meter.count(500), Ok(()));
        assert_eq!(meter.wait(at(10_000)), None);
    }

    #[test]
    fn a_body_is_no_longer_than_its_limit() {
        let mut meter = meter(10, 0).expect("a limit");
        assert_eq!((meter.check(10), meter.check(11)), (Ok(()), Err(10)));
        assert_eq!(
            (meter.count(6), meter.count(4), meter.count(1)),
            (Ok(()), Ok(()), Err(10))
        );
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        assert!(meter(0, 0).is_none());
    }
}
