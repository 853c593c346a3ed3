//! Time for the request that is worked on: the clock is read once a turn.
//!
//! A turn is what is done for a request from the moment that something has come for it until it waits again, mostly
//! some microseconds; plugins that compute may make it milliseconds. It is precise enough for time-outs.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static CLOCK: Cell<Clock> = const { Cell::new(Clock::Outside) };
}

#[derive(Clone, Copy)]
enum Clock {
    /// No turn is under way.
    Outside,
    Unread,
    Read(Instant),
}

/// Does `work`, which never waits, as one turn.
pub fn with_cached_now<T>(work: impl FnOnce() -> T) -> T {
    CLOCK.set(Clock::Unread);
    let _ends = Ends;
    work()
}

/// When it was asked first in this turn; outside of one, now.
pub fn now() -> Instant {
    match CLOCK.get() {
        Clock::Outside => Instant::now(),
        Clock::Unread => {
            let now = Instant::now();
            CLOCK.set(Clock::Read(now));
            now
        }
        Clock::Read(now) => now,
    }
}

/// Forgets the time on drop, also when the turn unwinds.
struct Ends;

impl Drop for Ends {
    fn drop(&mut self) {
        CLOCK.set(Clock::Outside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(than: Instant) {
        while Instant::now() <= than {}
    }

    #[test]
    fn time_stands_still_in_a_turn() {
        let first = with_cached_now(|| {
            let first = now();
            later(first);
            assert_eq!(now(), first);
            first
        });
        assert!(with_cached_now(now) > first);
    }

    #[test]
    fn time_passes_outside_of_a_turn_and_after_one_that_has_panicked() {
        let panicked = std::panic::catch_unwind(|| with_cached_now(|| panic!("at {:?}", now())));
        assert!(panicked.is_err());
        let first = now();
        later(first);
        assert!(now() > first);
    }
}
