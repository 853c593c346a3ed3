//! When the next connection may be made in advance.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Tries to have connections to a peer ready.
#[derive(Default)]
pub(super) struct Warming {
    /// A connection is being made.
    is_under_way: Cell<bool>,
    /// Failures in a row.
    failures: Cell<u32>,
    /// End of the pause after a failure.
    resumes: Cell<Option<Instant>>,
}

/// Pause after the first failure. It doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Warming {
    pub fn may_begin(&self) -> bool {
        let resumes = self.resumes.get();
        resumes.is_none_or(|resumes| resumes <= Instant::now())
    }

    /// Whether none was under way; one is then.
    pub fn begin(&self) -> bool {
        !self.is_under_way.replace(true)
    }

    /// A try has ended.
    pub fn note(&self, is_made: bool) {
        self.is_under_way.set(false);
        if is_made {
            self.failures.set(0);
            self.resumes.set(None);
            return;
        }
        let failures = self.failures.get();
        self.failures.set(failures.saturating_add(1));
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(5));
        let pause = pause.min(LONGEST_PAUSE);
        self.resumes.set(Instant::now().checked_add(pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_paused_after_for_longer_and_longer() {
        let warming = Warming::default();
        assert!(warming.may_begin());
        let mut before = Duration::ZERO;
        for _ in 0..4 {
            let now = Instant::now();
            warming.note(false);
            assert!(!warming.may_begin());
            let pause = warming.resumes.get().map(|resumes| resumes - now);
            let pause = pause.expect("it has failed");
            assert!(pause > before, "{pause:?} after {before:?}");
            before = pause;
        }
        for _ in 0..100 {
            warming.note(false);
        }
        let resumes = warming.resumes.get().expect("it has failed");
        assert!(resumes <= Instant::now() + LONGEST_PAUSE);
        warming.note(true);
        assert!(warming.may_begin());
    }
}
