//! Chooses the peer of each try and hears how it went. One policy a file.

mod least_conn;
mod plugin;
mod round_robin;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use castling_abi::PeerOutcome;
use http::HeaderValue;

use crate::error::Error;
use crate::wasm::{Plugin, PolicyResult};
pub use plugin::PluginPolicy;

/// The peers of an upstream and the policy that chooses among them.
pub struct Balancer {
    peers: Box<[Peer]>,
    policy: Policy,
    /// The peers' labels by index, for plugins.
    labels: Arc<[Arc<str>]>,
}

/// Address that requests can be sent to.
pub struct Peer {
    pub address: SocketAddr,
    /// `address` as text, for logs and plugins.
    pub label: Arc<str>,
    /// Name of the peer in the config, for the `Host` field.
    pub host: HeaderValue,
    pub weight: u32,
    /// Requests under way there, from this worker.
    active: Cell<u32>,
    /// Taken only when no other is left until then.
    cooling_until: Cell<Option<Instant>>,
    /// Smooth weighted round robin's score.
    score: Cell<i64>,
}

enum Policy {
    RoundRobin,
    LeastConn,
    Plugin(PluginPolicy),
}

/// A peer that did not answer is passed over for this long while others are there (nginx `fail_timeout`).
const COOLING: Duration = Duration::from_secs(10);

/// Peers that were tried for one request, by index. One is mostly all, and takes no allocation.
#[derive(Default)]
pub struct Tried {
    first: Option<usize>,
    others: Vec<usize>,
}

impl Tried {
    pub fn contains(&self, peer_idx: usize) -> bool {
        self.first == Some(peer_idx) || self.others.contains(&peer_idx)
    }

    pub fn insert(&mut self, peer_idx: usize) {
        match self.first {
            None => self.first = Some(peer_idx),
            Some(_) => self.others.push(peer_idx),
        }
    }

    fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }
}

impl Peer {
    pub fn new(address: SocketAddr, host: HeaderValue, weight: u32) -> Self {
        Self {
            address,
            label: Arc::from(address.to_string()),
            host,
            weight,
            active: Cell::new(0),
            cooling_until: Cell::new(None),
            score: Cell::new(0),
        }
    }

    fn is_cooling(&self, now: Instant) -> bool {
        self.cooling_until.get().is_some_and(|until| now < until)
    }
}

/// A request under way at a peer; counted until it is dropped.
pub struct Active {
    balancer: Rc<Balancer>,
    peer_idx: usize,
}

impl Drop for Active {
    fn drop(&mut self) {
        let active = &self.balancer.peers[self.peer_idx].active;
        active.set(active.get() - 1);
    }
}

impl Balancer {
    pub fn round_robin(peers: Vec<Peer>) -> Rc<Self> {
        Self::new(peers, Policy::RoundRobin)
    }

    pub fn least_conn(peers: Vec<Peer>) -> Rc<Self> {
        Self::new(peers, Policy::LeastConn)
    }

    /// The plugin must implement `balance`.
    pub fn plugin(peers: Vec<Peer>, plugin: Rc<Plugin>) -> Rc<Self> {
        Self::new(peers, Policy::Plugin(PluginPolicy::new(plugin)))
    }

    fn new(peers: Vec<Peer>, policy: Policy) -> Rc<Self> {
        let labels = peers.iter().map(|peer| Arc::clone(&peer.label)).collect();
        Rc::new(Self {
            peers: peers.into(),
            policy,
            labels,
        })
    }

    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The peer for the next try; `None` when all were tried. Counts it as active. `result`: what the plugin has said, where one
    /// chooses.
    pub fn choose(
        self: &Rc<Self>,
        tried: &Tried,
        result: Option<PolicyResult>,
    ) -> Result<Option<(usize, Active)>, Error> {
        let chosen = match (&self.policy, result) {
            (Policy::RoundRobin | Policy::LeastConn, _) if self.peers.len() == 1 => {
                (!tried.contains(0)).then_some(0)
            }
            (Policy::LeastConn, _) => least_conn::choose(&self.usable(tried)),
            (Policy::Plugin(policy), Some(result)) => match policy.chosen(self, tried, result)? {
                Some(peer_idx) => Some(peer_idx),
                None => round_robin::choose(&self.usable(tried)),
            },
            (Policy::RoundRobin | Policy::Plugin(_), _) => round_robin::choose(&self.usable(tried)),
        };
        Ok(chosen.map(|peer_idx| {
            let active = &self.peers[peer_idx].active;
            active.set(active.get() + 1);
            (
                peer_idx,
                Active {
                    balancer: Rc::clone(self),
                    peer_idx,
                },
            )
        }))
    }

    /// A try has ended, at this moment.
    pub fn note(&self, peer_idx: usize, outcome: PeerOutcome, at: Instant) {
        let peer = &self.peers[peer_idx];
        match outcome {
            PeerOutcome::Responded => peer.cooling_until.set(None),
            PeerOutcome::ConnectFailed | PeerOutcome::Broken | PeerOutcome::TimedOut => {
                peer.cooling_until.set(Some(at + COOLING));
            }
            PeerOutcome::Cancelled => {}
        }
    }

    /// The plugin that chooses, if one does: it wants to be told of each outcome.
    pub fn plugin_policy(&self) -> Option<&PluginPolicy> {
        match &self.policy {
            Policy::Plugin(policy) => Some(policy),
            Policy::RoundRobin | Policy::LeastConn => None,
        }
    }

    /// Whether a policy may choose this peer. Every policy is held to it, a plugin's too.
    fn is_eligible(&self, peer_idx: usize, tried: &Tried) -> bool {
        !tried.contains(peer_idx)
            && (self.peers[peer_idx].cooling_until.get().is_none()
                || self.is_eligible_though_failed(peer_idx, tried))
    }

    /// Eligibility of a peer that has failed: reads the clock and looks at the other peers.
    #[cold]
    #[inline(never)]
    fn is_eligible_though_failed(&self, peer_idx: usize, tried: &Tried) -> bool {
        let usable = self.usable(tried);
        usable.iter().any(|(idx, _)| idx == peer_idx)
    }

    /// Peers that may be chosen: not tried yet, and not cooling unless there are no others.
    fn usable<'a>(&'a self, tried: &'a Tried) -> Usable<'a> {
        let peers = &*self.peers;
        let mut usable = Usable {
            peers,
            tried,
            warm_at: None,
        };
        // The clock is read only where it matters.
        if peers.iter().any(|peer| peer.cooling_until.get().is_some()) {
            usable.warm_at = Some(Instant::now());
            if usable.iter().next().is_none() {
                usable.warm_at = None;
            }
        }
        usable
    }
}

/// Peers that a policy chooses from.
struct Usable<'a> {
    peers: &'a [Peer],
    tried: &'a Tried,
    /// Peers that are cooling at this moment are left out.
    warm_at: Option<Instant>,
}

impl<'a> Usable<'a> {
    /// With their indices, ascending.
    fn iter(&self) -> impl Iterator<Item = (usize, &'a Peer)> {
        self.peers.iter().enumerate().filter(|(idx, peer)| {
            !self.tried.contains(*idx) && !self.warm_at.is_some_and(|now| peer.is_cooling(now))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn peers(weights: &[u32]) -> Vec<Peer> {
        weights
            .iter()
            .enumerate()
            .map(|(idx, &weight)| {
                let port = u16::try_from(9000 + idx).unwrap();
                Peer::new(
                    SocketAddr::from(([127, 0, 0, 1], port)),
                    HeaderValue::from_static("h"),
                    weight,
                )
            })
            .collect()
    }

    fn fail(balancer: &Balancer, peer_idx: usize) {
        balancer.peers[peer_idx]
            .cooling_until
            .set(Some(Instant::now() + COOLING));
    }

    fn usable(balancer: &Balancer, tried: &[usize]) -> Vec<usize> {
        let tried = self::tried(tried);
        let usable = balancer.usable(&tried);
        usable.iter().map(|(idx, _)| idx).collect()
    }

    fn tried(peers: &[usize]) -> Tried {
        let mut tried = Tried::default();
        peers.iter().for_each(|&idx| tried.insert(idx));
        tried
    }

    /// All of them.
    pub(super) fn all<'a>(peers: &'a [Peer], tried: &'a Tried) -> Usable<'a> {
        Usable {
            peers,
            tried,
            warm_at: None,
        }
    }

    #[test]
    fn a_failed_peer_is_passed_over_while_there_are_others() {
        let balancer = Balancer::round_robin(peers(&[1, 1, 1]));
        fail(&balancer, 1);
        assert_eq!(usable(&balancer, &[]), [0, 2]);
        assert_eq!(usable(&balancer, &[0, 2]), [1]);
    }

    #[test]
    fn failed_peers_are_taken_when_nothing_else_is_left() {
        let balancer = Balancer::round_robin(peers(&[1, 1]));
        fail(&balancer, 0);
        fail(&balancer, 1);
        assert_eq!(usable(&balancer, &[]), [0, 1]);
        assert_eq!(usable(&balancer, &[0]), [1]);
        assert_eq!(usable(&balancer, &[0, 1]), [0; 0]);
    }

    #[test]
    fn a_peer_is_eligible_as_the_native_policies_see_it() {
        let balancer = Balancer::round_robin(peers(&[1, 1, 1]));
        fail(&balancer, 1);
        let eligible = |idxs: &[usize]| -> Vec<usize> {
            let tried = tried(idxs);
            let all = 0..balancer.peers.len();
            all.filter(|&idx| balancer.is_eligible(idx, &tried))
                .collect()
        };
        assert_eq!(eligible(&[]), [0, 2]);
        assert_eq!(eligible(&[0]), [2]);
        assert_eq!(eligible(&[0, 2]), [1]);
        assert_eq!(eligible(&[0, 1, 2]), [0; 0]);
    }

    #[test]
    fn a_peer_is_eligible_again_when_it_has_answered_or_cooled() {
        let balancer = Balancer::round_robin(peers(&[1, 1]));
        let now = Instant::now();
        balancer.note(0, PeerOutcome::Broken, now);
        assert!(!balancer.is_eligible(0, &Tried::default()));
        balancer.note(0, PeerOutcome::Responded, now);
        assert!(balancer.is_eligible(0, &Tried::default()));
        // The cooling time has passed.
        balancer.peers[0].cooling_until.set(Some(now));
        assert!(balancer.is_eligible(0, &Tried::default()));
    }

    #[test]
    fn what_was_tried_is_known_however_much_it_is() {
        let tried = tried(&[3, 0, 7]);
        assert_eq!(tried.count(), 3);
        let found: Vec<usize> = (0..9).filter(|&idx| tried.contains(idx)).collect();
        assert_eq!(found, [0, 3, 7]);
    }
}
