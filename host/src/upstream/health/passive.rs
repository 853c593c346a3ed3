//! What requests say of their peers: failures in a row and success rates, and ejection.

use std::rc::Rc;

use castling_abi::PeerOutcome;
use http::StatusCode;
use tracing::warn;

use crate::config::{Passive, SuccessRate};
use crate::runtime::random::jittered;
use crate::upstream::{Peer, PeerSet, PeerState};
use crate::zone::now_ns;

/// Rules by which peers of an upstream are ejected.
pub struct PassiveHealth {
    rules: Passive,
    /// Whether an answer may be a failure, or is counted.
    looks_at_answers: bool,
}

/// Share by which an ejection is longer or shorter, so that not all peers come back at once.
const JITTER: f64 = 0.1;

impl PassiveHealth {
    pub fn new(rules: &Passive) -> Self {
        Self {
            looks_at_answers: !rules.statuses.is_empty() || rules.success_rate.is_some(),
            rules: rules.clone(),
        }
    }

    /// A try has ended so. True: the peer may be chosen from now on, or no longer.
    #[inline]
    pub fn note(
        &self,
        peer: &Peer,
        outcome: PeerOutcome,
        status: Option<StatusCode>,
        set: impl FnOnce() -> Rc<PeerSet>,
    ) -> bool {
        match outcome {
            PeerOutcome::Responded if !self.looks_at_answers => peer.state.note_success(),
            // Nothing that the peer could help.
            PeerOutcome::Cancelled => false,
            PeerOutcome::Responded
            | PeerOutcome::ConnectFailed
            | PeerOutcome::Broken
            | PeerOutcome::TimedOut => self.look(peer, outcome, status, &set()),
        }
    }

    #[cold]
    #[inline(never)]
    fn look(
        &self,
        peer: &Peer,
        outcome: PeerOutcome,
        status: Option<StatusCode>,
        set: &PeerSet,
    ) -> bool {
        let is_bad = |status: StatusCode| self.rules.statuses.contains(status.as_u16());
        let is_failure = outcome != PeerOutcome::Responded || status.is_some_and(is_bad);
        if self.rules.success_rate.is_some() {
            peer.state.count_outcome(!is_failure);
        }
        if !is_failure {
            return peer.state.note_success();
        }
        let in_a_row = peer.state.count_failure();
        if self.rules.failures == 0 || in_a_row < self.rules.failures {
            return false;
        }
        self.eject(peer, set)
    }

    /// Ejects the peer, unless as many are that may be. True: it is from now on.
    fn eject(&self, peer: &Peer, set: &PeerSet) -> bool {
        let now_ns = now_ns();
        if peer.state.is_ejected(now_ns) {
            return false;
        }
        let peers = set.as_slice();
        let ejected = peers
            .iter()
            .filter(|peer| peer.state.is_ejected(now_ns))
            .count();
        let most = (peers.len() as f64 * self.rules.max_ejected) as usize;
        if ejected >= most.max(1) {
            return false;
        }
        let Passive {
            ejection,
            max_ejection,
            ..
        } = self.rules;
        let times = peer.state.ejections(now_ns, ejection);
        let time = ejection.saturating_mul(times + 1).min(max_ejection);
        let time = jittered(time, JITTER);
        peer.state.eject(now_ns, time, times + 1)
    }

    pub fn success_rate(&self) -> Option<&SuccessRate> {
        self.rules.success_rate.as_ref()
    }

    /// Compares the peers' success rates since the last time, and ejects those that are far below. True: one is from now on.
    pub fn compare(&self, upstream: &str, set: &PeerSet) -> bool {
        let Some(rules) = self.success_rate() else {
            return false;
        };
        let rates: Vec<(&Peer, f64)> = set
            .as_slice()
            .iter()
            .filter_map(|peer| Some((&**peer, rate(&peer.state, rules.requests)?)))
            .collect();
        let bar = match rates.len() >= rules.peers {
            true => bar(&rates, rules.deviations).max(rules.at_least),
            false => rules.at_least,
        };
        let mut has_changed = false;
        for (peer, rate) in rates.into_iter().filter(|(_, rate)| *rate < bar) {
            if self.eject(peer, set) {
                warn!(
                    upstream,
                    peer = &*peer.label,
                    rate,
                    bar,
                    "success rate too low: passed over"
                );
                has_changed = true;
            }
        }
        has_changed
    }
}

/// Success rate of a peer since the last time; `None` where it had too few requests.
fn rate(state: &PeerState, requests: u32) -> Option<f64> {
    let (succeeded, failed) = state.take_outcomes();
    let all = succeeded + failed;
    (all >= u64::from(requests)).then(|| succeeded as f64 / all as f64)
}

/// Rate below which a peer is far from the others.
fn bar(rates: &[(&Peer, f64)], deviations: f64) -> f64 {
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let squares = rates.iter().map(|(_, rate)| (rate - mean).powi(2));
    let deviation = (squares.sum::<f64>() / count).sqrt();
    mean - deviations * deviation
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::StatusSet;
    use crate::upstream::{Availability, Checks, peer_tests};

    fn rules() -> Passive {
        Passive {
            failures: 2,
            statuses: StatusSet::from_iter([503..=503]),
            ejection: Duration::from_secs(10),
            max_ejection: Duration::from_secs(25),
            max_ejected: 0.5,
            success_rate: None,
        }
    }

    fn set(count: usize) -> Rc<PeerSet> {
        let peers = peer_tests::peers(&vec![1; count]);
        PeerSet::new(peers.into_iter().map(Rc::new))
    }

    fn ejected_for(peer: &Peer, now_ns: u64) -> Option<f64> {
        match peer.state.availability(Checks::None, || now_ns) {
            Availability::Ejected { until_ns } => Some((until_ns - now_ns) as f64 / 1e9),
            _ => None,
        }
    }

    #[test]
    fn failures_in_a_row_count_and_only_the_peers_own() {
        let (health, set) = (PassiveHealth::new(&rules()), set(4));
        let peer = &set.as_slice()[0];
        let note = |outcome, status: u16| {
            let status = StatusCode::from_u16(status).ok();
            health.note(peer, outcome, status, || Rc::clone(&set))
        };
        use PeerOutcome::{Broken, Cancelled, Responded, TimedOut};
        assert!(
            !note(Broken, 0) && !note(Responded, 200),
            "a success between"
        );
        assert!(!note(TimedOut, 0) && !note(Cancelled, 0));
        assert!(note(Responded, 503), "the second in a row");
        assert!(!note(Broken, 0), "it is ejected already");
        assert!(note(Responded, 404), "an answer lets it back in");
    }

    #[test]
    fn no_more_are_ejected_than_may_be() {
        let (health, set) = (PassiveHealth::new(&rules()), set(5));
        let fail = |peer: &Peer| {
            let fails = || health.note(peer, PeerOutcome::Broken, None, || Rc::clone(&set));
            fails() || fails()
        };
        let ejected = set.as_slice().iter().filter(|peer| fail(peer)).count();
        assert_eq!(ejected, 2, "of 5 at most 2.5");
    }

    #[test]
    fn ejections_grow_to_a_limit_and_calm_makes_them_short_again() {
        let (health, set) = (PassiveHealth::new(&rules()), set(4));
        let peer = &set.as_slice()[0];
        let mut times = Vec::new();
        for _ in 0..3 {
            assert!(health.eject(peer, &set));
            times.push(ejected_for(peer, now_ns()).unwrap());
            peer.state.end_ejection();
        }
        for (time, expected) in times.into_iter().zip([10.0, 20.0, 25.0]) {
            assert!(
                (expected * 0.89..=expected * 1.11).contains(&time),
                "{time}"
            );
        }
        let later = now_ns() + 52_000_000_000;
        assert_eq!(peer.state.ejections(later, Duration::from_secs(10)), 1);
    }

    #[test]
    fn a_peer_that_fails_more_often_than_others_is_ejected() {
        let rate = SuccessRate {
            interval: Duration::from_secs(10),
            requests: 10,
            peers: 3,
            deviations: 1.2,
            at_least: 0.0,
        };
        let rules = Passive {
            failures: 0,
            success_rate: Some(rate),
            ..rules()
        };
        let (health, set) = (PassiveHealth::new(&rules), set(5));
        let answer = |slot: usize, status: u16, times: usize| {
            let status = StatusCode::from_u16(status).ok();
            for _ in 0..times {
                let peer = &set.as_slice()[slot];
                health.note(peer, PeerOutcome::Responded, status, || Rc::clone(&set));
            }
        };
        (0..4).for_each(|slot| answer(slot, 200, 20));
        answer(3, 503, 20);
        answer(4, 503, 5);
        assert!(health.compare("u", &set));
        let now = now_ns();
        let ejected = |slot: usize| ejected_for(&set.as_slice()[slot], now).is_some();
        assert!(ejected(3) && !ejected(0), "half of its requests failed");
        assert!(!ejected(4), "it had too few");
        assert!(!health.compare("u", &set), "each interval is its own");
    }
}
