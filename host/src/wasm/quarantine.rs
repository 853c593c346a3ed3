//! Takes a plugin out of service for a while when it keeps trapping, and lets it back in by one trial call.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::config;
use crate::metrics::Level;

/// The state comes first: every call looks at it.
#[repr(C)]
pub(super) struct Quarantine {
    state: Cell<State>,
    config: config::Quarantine,
    /// The state, in the metrics.
    level: Level,
    /// Longest at first `config.backoff`, doubled each time in a row.
    backoff: Cell<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Traps in the window that began then.
    In {
        traps: u32,
        since: Instant,
    },
    Out {
        until: Instant,
    },
    /// One call is under way that decides. One that has not by then is given up.
    Trial {
        until: Instant,
    },
}

/// In the metrics.
const IN: f64 = 0.0;
const ON_TRIAL: f64 = 1.0;
const OUT: f64 = 2.0;

/// A trial call that has not returned by then says nothing any more: another may.
const LONGEST_TRIAL: Duration = Duration::from_secs(10);

/// The backoff grows no longer than this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

impl Quarantine {
    pub(super) fn new(config: config::Quarantine, level: Level) -> Self {
        let backoff = Cell::new(config.backoff);
        level.set(IN);
        Self {
            config,
            level,
            state: Cell::new(State::In {
                traps: 0,
                since: Instant::now(),
            }),
            backoff,
        }
    }

    /// Every call may go on.
    #[inline]
    pub(super) fn is_in_service(&self) -> bool {
        matches!(self.state.get(), State::In { .. })
    }

    /// Whether a call may go on. After the time out it may once, as the trial.
    #[inline]
    pub(super) fn admits(&self) -> bool {
        match self.state.get() {
            State::In { .. } => true,
            State::Trial { until } | State::Out { until } if Instant::now() < until => false,
            State::Trial { .. } | State::Out { .. } => {
                self.level.set(ON_TRIAL);
                self.state.set(State::Trial {
                    until: Instant::now() + LONGEST_TRIAL,
                });
                true
            }
        }
    }

    /// A call has returned.
    #[inline]
    pub(super) fn returned(&self, plugin: &str) {
        if let State::Trial { .. } = self.state.get() {
            self.take_back(plugin);
        }
    }

    #[cold]
    fn take_back(&self, plugin: &str) {
        info!(
            plugin,
            "plugin {plugin} is back: its trial call did not trap"
        );
        self.backoff.set(self.config.backoff);
        self.level.set(IN);
        self.state.set(State::In {
            traps: 0,
            since: Instant::now(),
        });
    }

    /// A call was given up with no verdict: a trial must be tried again.
    pub(super) fn abandoned(&self) {
        if let State::Trial { .. } = self.state.get() {
            self.level.set(OUT);
            self.state.set(State::Out {
                until: Instant::now(),
            });
        }
    }

    pub(super) fn trapped(&self, plugin: &str) {
        let now = Instant::now();
        match self.state.get() {
            State::Out { .. } => {}
            State::Trial { .. } => self.take_out(plugin, now),
            State::In { .. } if self.config.traps == 0 => {}
            State::In { traps, since } if now - since <= self.config.within => {
                match traps + 1 >= self.config.traps {
                    true => self.take_out(plugin, now),
                    false => self.state.set(State::In {
                        traps: traps + 1,
                        since,
                    }),
                }
            }
            State::In { .. } if self.config.traps == 1 => self.take_out(plugin, now),
            State::In { .. } => self.state.set(State::In {
                traps: 1,
                since: now,
            }),
        }
    }

    /// `in`, `out` or `trial`.
    pub(super) fn state(&self) -> &'static str {
        match self.state.get() {
            State::In { .. } => "in",
            State::Out { .. } => "out",
            State::Trial { .. } => "trial",
        }
    }

    fn take_out(&self, plugin: &str, now: Instant) {
        let backoff = self.backoff.get();
        warn!(
            plugin,
            ?backoff,
            "plugin {plugin} keeps trapping: taken out"
        );
        self.level.set(OUT);
        self.state.set(State::Out {
            until: now + backoff,
        });
        self.backoff.set((backoff * 2).min(LONGEST_BACKOFF));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quarantine(traps: u32) -> Quarantine {
        let (within, backoff) = (Duration::from_secs(60), Duration::ZERO);
        let config = config::Quarantine {
            traps,
            within,
            backoff,
        };
        Quarantine::new(config, Level::default())
    }

    #[test]
    fn the_nth_trap_takes_it_out() {
        let quarantine = Quarantine {
            backoff: Cell::new(LONGEST_BACKOFF),
            ..quarantine(3)
        };
        quarantine.trapped("p");
        quarantine.trapped("p");
        assert!(quarantine.admits());
        quarantine.trapped("p");
        assert!(!quarantine.admits());
        assert_eq!(quarantine.state(), "out");
    }

    #[test]
    fn one_trial_decides() {
        let quarantine = quarantine(1);
        quarantine.trapped("p");
        assert!(quarantine.admits(), "the trial");
        assert!(!quarantine.admits(), "no second one beside it");
        quarantine.trapped("p");
        assert_eq!(quarantine.state(), "out");
        assert!(quarantine.admits());
        quarantine.returned("p");
        assert_eq!(quarantine.state(), "in");
        assert!(quarantine.admits() && quarantine.admits());
    }

    #[test]
    fn a_trial_that_was_abandoned_is_tried_again() {
        let quarantine = quarantine(1);
        quarantine.trapped("p");
        assert!(quarantine.admits());
        quarantine.abandoned();
        assert!(quarantine.admits());
    }

    #[test]
    fn zero_never_takes_it_out() {
        let quarantine = quarantine(0);
        (0..1000).for_each(|_| quarantine.trapped("p"));
        assert!(quarantine.admits());
    }
}
