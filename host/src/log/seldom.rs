//! Faults that would be told with each line or request, told once in a while: a full disk fails every line of a log, and what is
//! told of each would fill what is left.

use std::time::{Duration, Instant};

/// Losses of one log, or of one zone.
#[derive(Debug, Default)]
pub struct Losses {
    /// When they were told last; `None` when all is well.
    told_at: Option<Instant>,
    /// Lines, or entries, that were lost since then.
    untold: u64,
}

impl Losses {
    pub const fn new() -> Self {
        Self {
            told_at: None,
            untold: 0,
        }
    }

    /// Counts lines that were lost. `Some`: it is time to tell, of so many.
    pub fn lost(&mut self, lines: u64, now: Instant) -> Option<u64> {
        self.untold = self.untold.saturating_add(lines);
        if !self.is_due(now) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }

    /// Lines were written. `Some`: some were lost before, and it is time to tell that they are written again, and how many were
    /// lost that nobody was told of.
    #[inline]
    pub fn written(&mut self, now: impl FnOnce() -> Instant) -> Option<u64> {
        self.told_at?;
        self.well_again(now())
    }

    #[cold]
    #[inline(never)]
    fn well_again(&mut self, now: Instant) -> Option<u64> {
        if !self.is_due(now) {
            return None;
        }
        self.told_at = None;
        Some(std::mem::take(&mut self.untold))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.told_at
            .is_none_or(|told_at| now.duration_since(told_at) >= TELL_EACH)
    }
}

/// How often the same fault is told.
const TELL_EACH: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_losses_are_told_once_and_counted() {
        let mut losses = Losses::default();
        let start = Instant::now();
        let told: Vec<_> = (0..1000)
            .filter_map(|i| losses.lost(2, start + Duration::from_millis(i)))
            .collect();
        assert_eq!(told, [2]);
        assert_eq!(losses.lost(1, start + TELL_EACH), Some(1999));
        assert_eq!(losses.lost(1, start + TELL_EACH), None);
        let later = start + 2 * TELL_EACH;
        assert_eq!(losses.written(|| start + TELL_EACH), None);
        assert_eq!(losses.written(|| later), Some(1));
        assert_eq!(losses.written(|| later), None);
        assert_eq!(losses.lost(1, later), Some(1));
    }
}
