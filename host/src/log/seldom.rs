//! Facts that are told once in a while. Faults that would be told with each line or request: a full disk fails every line of a
//! log, and what is told of each would fill what is left. States that change to and fro: a peer that flaps would fill the disk.

use std::time::{Duration, Instant};

/// Losses of one log, or of one zone, or another fault that comes again and again.
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

/// A state that is told when it changes: twice in ten seconds, there and back. Of further changes only their number is told, with
/// the next one. The state that stays is told once the ten seconds are over, when it is noted again.
#[derive(Debug)]
pub struct Changes<S> {
    /// The state by the log.
    told: S,
    /// The state as it was noted last.
    last: S,
    /// When the first of `lines` was told.
    since: Option<Instant>,
    /// Lines since then.
    lines: u32,
    untold: u64,
}

impl<S: Copy + PartialEq> Changes<S> {
    /// `state`: the one that needs no telling.
    pub const fn new(state: S) -> Self {
        Self {
            told: state,
            last: state,
            since: None,
            lines: 0,
            untold: 0,
        }
    }

    /// Notes the state. `Some`: it is to be told, and so many changes were not.
    pub fn note(&mut self, state: S, now: Instant) -> Option<u64> {
        let has_changed = std::mem::replace(&mut self.last, state) != state;
        if self.quiet_until().is_none_or(|until| until <= now) {
            (self.since, self.lines) = (None, 0);
        }
        if state == self.told || self.lines >= TOLD_AT_ONCE {
            self.untold += u64::from(has_changed);
            return None;
        }
        self.since.get_or_insert(now);
        self.lines += 1;
        self.told = state;
        Some(std::mem::take(&mut self.untold))
    }

    /// When the state is to be noted again, as it is another than the one that was told.
    pub fn due(&self) -> Option<Instant> {
        self.quiet_until().filter(|_| self.last != self.told)
    }

    fn quiet_until(&self) -> Option<Instant> {
        self.since.map(|since| since + TELL_EACH)
    }
}

/// Changes of one state that are told before [`TELL_EACH`] is over: there and back.
const TOLD_AT_ONCE: u32 = 2;

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

    #[test]
    fn a_state_that_flaps_is_told_twice_and_what_stays_is_told_in_the_end() {
        let (start, mut changes) = (Instant::now(), Changes::new(true));
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(changes.note(true, at(0)), None);
        let told: Vec<_> = (0..1001)
            .map(|i| (i % 2 == 1, changes.note(i % 2 == 1, at(i))))
            .filter_map(|(state, told)| Some((state, told?)))
            .collect();
        assert_eq!(told, [(false, 0), (true, 0)]);
        assert_eq!(changes.due(), Some(start + TELL_EACH));
        assert_eq!(changes.note(false, at(9_999)), None);
        assert_eq!(changes.note(false, at(10_000)), Some(999));
        assert_eq!(
            (changes.note(false, at(10_001)), changes.due()),
            (None, None)
        );
        assert_eq!(changes.note(true, at(10_002)), Some(0));
        assert_eq!(changes.note(false, at(10_003)), None);
        assert_eq!(changes.note(true, at(30_000)), None, "it was told so");
        assert_eq!(changes.note(false, at(30_001)), Some(2));
    }
}
