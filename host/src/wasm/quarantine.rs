//! Takes a plugin out of service for a while when it keeps trapping, and lets it back in by one trial call.
//!
//! Traps are weighed by what they have in common: those of one client, or of one path, count for a small share of what takes
//! a plugin out, so that one client or one bad input ends its own requests and nobody else's. All but the look at the state is
//! cold: it runs when a call has trapped, or while the plugin is out.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::config;
use crate::exchange::Exchange;
use crate::metrics::Gauge;
use crate::transport::address::{ClientAddress, Network};

/// The state comes first: every call looks at it.
#[repr(C)]
pub(super) struct Quarantine {
    state: Cell<State>,
    config: config::Quarantine,
    /// The state, in the metrics.
    level: Gauge,
    /// Longest at first `config.backoff`, doubled each time in a row.
    backoff: Cell<Duration>,
    ledger: Box<RefCell<Ledger>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In service. Traps are counted in the window that began then.
    In {
        since: Instant,
    },
    Out {
        until: Instant,
    },
    /// A call is under way that decides. One that has not by then is given up.
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

/// Traps of the window, by what they have in common, and the trial call that is under way.
#[derive(Default)]
struct Ledger {
    /// Keys the hashes, so that nobody can choose a path that takes the place of another.
    hasher: RandomState,
    /// Counted traps of each client and of each path, by their hashes.
    counted: HashMap<u64, u32>,
    traps: u32,
    trial: Option<Origin>,
    /// Whether the trial's client has trapped before.
    trial_is_of_suspect: bool,
}

/// Client and path of a call, as hashes. A call that belongs to no request (of a timer, of `configure`) has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    client: u64,
    path: u64,
}

/// Clients and paths that are remembered at most.
const MOST_ORIGINS: usize = 50_000;

/// Shares of the traps that take a plugin out: one client's count for a tenth at most, one path's for a quarter; at least one does.
const CLIENTS: u32 = 10;
const PATHS: u32 = 4;

impl Quarantine {
    pub(super) fn new(config: config::Quarantine, level: Gauge) -> Self {
        let backoff = Cell::new(config.backoff);
        level.set(IN);
        Self {
            config,
            level,
            state: Cell::new(State::In {
                since: Instant::now(),
            }),
            backoff,
            ledger: Box::default(),
        }
    }

    /// Every call may go on.
    #[inline]
    pub(super) fn is_in_service(&self) -> bool {
        matches!(self.state.get(), State::In { .. })
    }

    /// Whether a call for this request may go on. After the time out it may once, as the trial.
    #[inline]
    pub(super) fn admits(&self, exchange: Option<&Exchange>) -> bool {
        self.is_in_service() || self.admits_trial(exchange)
    }

    /// A client or a path that has trapped has its turn later than others: by half of the time out for the path, by the whole of
    /// it for the client. So those who have done no harm decide, where there are any.
    #[cold]
    #[inline(never)]
    fn admits_trial(&self, exchange: Option<&Exchange>) -> bool {
        let now = Instant::now();
        let ledger = &mut *self.ledger.borrow_mut();
        let until = match self.state.get() {
            State::In { .. } => return true,
            State::Trial { until } | State::Out { until } if now < until => return false,
            State::Trial { until } => {
                // A client that keeps the trial waiting is not asked again before others.
                if let Some(origin) = ledger.trial.take() {
                    ledger.suspect(origin);
                }
                until
            }
            State::Out { until } => until,
        };
        let origin = exchange.map(|exchange| ledger.origin(exchange));
        let (client, path) = origin.map_or((false, false), |origin| ledger.suspects(origin));
        let halves = u32::from(client) * 2 + u32::from(path);
        if now < until + self.config.backoff * halves / 2 {
            return false;
        }
        ledger.trial = origin;
        ledger.trial_is_of_suspect = client;
        self.level.set(ON_TRIAL);
        self.state.set(State::Trial {
            until: now + LONGEST_TRIAL,
        });
        true
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
        self.ledger.borrow_mut().clear();
        self.state.set(State::In {
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

    /// A call for this request has trapped; `None`: it was for no request, and counts in any case.
    pub(super) fn trapped(&self, plugin: &str, exchange: Option<&Exchange>) {
        let now = Instant::now();
        let ledger = &mut *self.ledger.borrow_mut();
        let origin = exchange.map(|exchange| ledger.origin(exchange));
        match self.state.get() {
            State::Out { .. } => {}
            State::Trial { .. } => {
                // A call that began before the plugin was taken out does not decide.
                if ledger.is_of_trial(origin) {
                    if let Some(origin) = origin {
                        ledger.suspect(origin);
                    }
                    self.take_out(plugin, now, ledger);
                }
            }
            State::In { .. } if self.config.traps == 0 => {}
            State::In { since } => {
                if ledger.traps == 0 || now - since > self.config.within {
                    ledger.clear();
                    self.state.set(State::In { since: now });
                }
                if ledger.count(origin, self.config.traps) {
                    self.take_out(plugin, now, ledger);
                }
            }
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

    fn take_out(&self, plugin: &str, now: Instant, ledger: &mut Ledger) {
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
        // A trial of a client that had trapped before says nothing new of the plugin.
        if !std::mem::take(&mut ledger.trial_is_of_suspect) {
            self.backoff.set((backoff * 2).min(LONGEST_BACKOFF));
        }
        ledger.trial = None;
    }
}

impl Ledger {
    fn origin(&self, exchange: &Exchange) -> Origin {
        self.origin_of(exchange.context().client, exchange.request().target.path())
    }

    fn origin_of(&self, client: ClientAddress, path: &str) -> Origin {
        // All clients of Unix sockets are one.
        let client = client.ip().map(Network::of);
        Origin {
            client: self.hasher.hash_one((CLIENTS, client)),
            path: self.hasher.hash_one((PATHS, path)),
        }
    }

    /// Counts a trap as far as its client and its path have not used up their shares of `limit`. Returns whether that is reached.
    fn count(&mut self, origin: Option<Origin>, limit: u32) -> bool {
        if let Some(Origin { client, path }) = origin {
            let is_within = |key: u64, share: u32| {
                let counted = self.counted.get(&key).copied().unwrap_or_default();
                counted < (limit / share).max(1)
            };
            if !is_within(client, CLIENTS) || !is_within(path, PATHS) {
                return false;
            }
            for key in [client, path] {
                *self.counted.entry(key).or_default() += 1;
            }
        }
        self.traps += 1;
        self.traps >= limit
    }

    /// Remembers that this client and this path have trapped.
    fn suspect(&mut self, origin: Origin) {
        if self.counted.len() < MOST_ORIGINS {
            self.counted.entry(origin.client).or_insert(1);
            self.counted.entry(origin.path).or_insert(1);
        }
    }

    /// Whether the client and the path have trapped.
    fn suspects(&self, origin: Origin) -> (bool, bool) {
        let has_trapped = |key| self.counted.contains_key(key);
        (has_trapped(&origin.client), has_trapped(&origin.path))
    }

    /// The path is not compared: a hook may have changed it.
    fn is_of_trial(&self, trapped: Option<Origin>) -> bool {
        match (trapped, self.trial) {
            (Some(trapped), Some(trial)) => trapped.client == trial.client,
            (None, _) | (_, None) => true,
        }
    }

    fn clear(&mut self) {
        self.counted.clear();
        self.traps = 0;
        self.trial = None;
        self.trial_is_of_suspect = false;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::message::Target;

    fn quarantine(traps: u32, backoff: Duration) -> Quarantine {
        let within = Duration::from_secs(60);
        let config = config::Quarantine {
            traps,
            within,
            backoff,
        };
        Quarantine::new(config, Gauge::default())
    }

    /// A request of the client with this number.
    fn request(client: u8, path: &str) -> Box<Exchange> {
        let mut exchange = Exchange::idle();
        exchange.context_mut().client = SocketAddr::from(([192, 0, 2, client], 1000)).into();
        exchange.request_mut().target = Target::new(path, None);
        exchange
    }

    /// Exchanges of clients and paths that differ.
    fn trap(quarantine: &Quarantine, traps: u8) {
        for n in 0..traps {
            quarantine.trapped("p", Some(&request(n, &format!("/{n}"))));
        }
    }

    #[test]
    fn the_nth_trap_takes_it_out() {
        let quarantine = quarantine(3, LONGEST_BACKOFF);
        trap(&quarantine, 2);
        assert!(quarantine.admits(None));
        quarantine.trapped("p", None);
        assert!(!quarantine.admits(None));
        assert_eq!(quarantine.state(), "out");
    }

    #[test]
    fn one_client_or_one_path_does_not_take_it_out() {
        let quarantine = quarantine(20, LONGEST_BACKOFF);
        for n in 0..1000 {
            quarantine.trapped("p", Some(&request(1, &format!("/{n}"))));
            quarantine.trapped("p", Some(&request((n % 200) as u8, "/bad")));
        }
        assert!(quarantine.is_in_service());
        // Two of the client, and five of the path.
        assert_eq!(quarantine.ledger.borrow().traps, 7);
        trap(&quarantine, 30);
        assert!(!quarantine.is_in_service());
    }

    #[test]
    fn traps_of_no_request_count_in_full() {
        let quarantine = quarantine(20, LONGEST_BACKOFF);
        (0..20).for_each(|_| quarantine.trapped("p", None));
        assert_eq!(quarantine.state(), "out");
    }

    #[test]
    fn one_trial_decides() {
        let quarantine = quarantine(1, Duration::ZERO);
        quarantine.trapped("p", None);
        assert!(quarantine.admits(None), "the trial");
        assert!(!quarantine.admits(None), "no second one beside it");
        quarantine.trapped("p", None);
        assert_eq!(quarantine.state(), "out");
        assert!(quarantine.admits(None));
        quarantine.returned("p");
        assert_eq!(quarantine.state(), "in");
        assert!(quarantine.admits(None) && quarantine.admits(None));
    }

    #[test]
    fn those_who_have_trapped_are_tried_after_others() {
        let quarantine = quarantine(1, LONGEST_BACKOFF);
        let (hostile, other) = (request(1, "/"), request(2, "/other"));
        quarantine.trapped("p", Some(&hostile));
        let back_in_time = |seconds: u64| {
            let until = Instant::now().checked_sub(Duration::from_secs(seconds));
            let until = until.expect("the machine has run for longer");
            quarantine.state.set(State::Out { until });
        };
        back_in_time(1);
        assert!(!quarantine.admits(Some(&hostile)));
        assert!(!quarantine.admits(Some(&request(2, "/"))), "its path");
        assert!(quarantine.admits(Some(&other)));
        // A call of the hostile client's that began earlier spoils nothing.
        quarantine.trapped("p", Some(&hostile));
        assert_eq!(quarantine.state(), "trial");
        quarantine.trapped("p", Some(&other));
        assert_eq!(quarantine.state(), "out");

        // With nobody else there, it is tried all the same.
        back_in_time(31);
        assert!(!quarantine.admits(Some(&hostile)));
        assert!(quarantine.admits(Some(&request(3, "/"))));
        quarantine.abandoned();
        back_in_time(91);
        assert!(quarantine.admits(Some(&hostile)));
        let backoff = quarantine.backoff.get();
        quarantine.trapped("p", Some(&hostile));
        assert_eq!(quarantine.state(), "out");
        assert_eq!(quarantine.backoff.get(), backoff, "it says nothing new");
    }

    #[test]
    fn a_trial_that_was_abandoned_is_tried_again() {
        let quarantine = quarantine(1, Duration::ZERO);
        quarantine.trapped("p", None);
        assert!(quarantine.admits(None));
        quarantine.abandoned();
        assert!(quarantine.admits(None));
    }

    #[test]
    fn zero_never_takes_it_out() {
        let quarantine = quarantine(0, Duration::ZERO);
        (0..1000).for_each(|_| quarantine.trapped("p", None));
        assert!(quarantine.admits(None));
    }
}
