//! Facts of a peer for those who look at it from outside: reports and metrics.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Availability, CheckState, Checks, PeerState, Standing};

/// State of a peer at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    pub availability: Availability,
    pub standing: Standing,
    /// Failures of requests in a row.
    pub failures: u32,
    /// See [`PeerState::came_up_ns`].
    pub came_up_ns: u64,
    /// `None`: there are no checks, or none was made.
    pub last_check: Option<LastCheck>,
    /// Requests under way and open connections, of all workers.
    pub active: u32,
    pub connections: u32,
}

/// Last check of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastCheck {
    pub has_passed: bool,
    /// Time that it took.
    pub latency: Duration,
    /// Time when it was over; 0: a version of before has made it, which did not say.
    pub at_ns: u64,
    /// Checks in a row that speak against the state that checks have found.
    pub against: u32,
    /// Time of the last change of that state.
    pub since_ns: u64,
}

impl PeerState {
    /// What is known of the peer now.
    pub fn facts(&self, checks: Checks, now_ns: u64) -> PeerFacts {
        let (record, load) = (self.record(), self.sum());
        PeerFacts {
            availability: self.availability(checks, || now_ns),
            standing: self.standing(),
            failures: record.failures.load(Relaxed) as u32,
            came_up_ns: self.came_up_ns(),
            last_check: match checks {
                Checks::None => None,
                Checks::Optimistic | Checks::Mandatory => self.last_check(),
            },
            active: load.active,
            connections: load.connections,
        }
    }

    fn last_check(&self) -> Option<LastCheck> {
        let record = self.record();
        let (check, last) = (record.check.load(Relaxed), record.last_check.load(Relaxed));
        let against = (check >> 8) as u32;
        if CheckState::of(check) == CheckState::None && against == 0 {
            return None;
        }
        Some(LastCheck {
            has_passed: last >> 32 & 1 == 1,
            latency: Duration::from_micros(last & 0xffff_ffff),
            at_ns: record.last_check_ns.load(Relaxed),
            against,
            since_ns: record.check_since_ns.load(Relaxed),
        })
    }
}

impl Availability {
    /// Name in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Available => "up",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Unhealthy => "unhealthy",
            Self::Unchecked => "unchecked",
            Self::Ejected { .. } => "ejected",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::PeerStates;
    use super::*;

    #[test]
    fn the_last_check_is_known_where_there_are_checks() {
        let states = PeerStates::private().unwrap();
        let peer = states.of(1);
        let facts = |checks| peer.facts(checks, 100).last_check;
        assert_eq!(facts(Checks::Optimistic), None, "none was made");
        let took = Duration::from_millis(3);
        peer.note_check(false, (2, 3), 40, took);
        peer.note_check(false, (2, 3), 50, took);
        let last = LastCheck {
            has_passed: false,
            latency: took,
            at_ns: 50,
            against: 2,
            since_ns: 0,
        };
        assert_eq!(facts(Checks::Optimistic), Some(last));
        peer.note_check(false, (2, 3), 60, took);
        let last = LastCheck {
            at_ns: 60,
            against: 0,
            since_ns: 60,
            ..last
        };
        assert_eq!(facts(Checks::Mandatory), Some(last));
        assert_eq!(facts(Checks::None), None);
        let name = |checks| peer.facts(checks, 100).availability.name();
        assert_eq!(
            [Checks::Optimistic, Checks::None].map(name),
            ["unhealthy", "up"]
        );
    }

    #[test]
    fn failures_in_a_row_and_ejections_are_told() {
        let states = PeerStates::private().unwrap();
        let peer = states.of(1);
        peer.count_failure();
        peer.count_failure();
        peer.publish(3, 4);
        let facts = peer.facts(Checks::None, 10);
        assert_eq!((facts.failures, facts.availability.name()), (2, "up"));
        assert_eq!((facts.active, facts.connections), (3, 4));
        peer.eject(10, Duration::from_secs(1), 1);
        let facts = peer.facts(Checks::None, 10);
        assert_eq!((facts.failures, facts.availability.name()), (2, "ejected"));
    }
}
