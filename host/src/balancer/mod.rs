//! Chooses the peer of each try and hears how it went. One policy a file.

mod least_conn;
mod plugin;
mod round_robin;
mod target;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use crate::error::Error;
use crate::message::RequestHead;
use crate::upstream::{Active, Peer, PeerSet};
use crate::wasm::{Plugin, PolicyResult};
pub use plugin::PluginPolicy;

/// The peers of an upstream and the policy that chooses among them.
pub struct Balancer {
    /// Swapped whole when other peers are to be balanced among.
    peers: RefCell<Rc<PeerSet>>,
    policy: Policy,
}

enum Policy {
    RoundRobin,
    LeastConn,
    Target,
    Plugin(PluginPolicy),
}

/// Peers that were tried for one request, by slot. One is mostly all, and takes no allocation.
#[derive(Default)]
pub struct Tried {
    first: Option<u32>,
    others: Vec<u32>,
}

impl Tried {
    pub fn contains(&self, peer: &Peer) -> bool {
        self.first == Some(peer.slot) || self.others.contains(&peer.slot)
    }

    pub fn insert(&mut self, peer: &Peer) {
        match self.first {
            None => self.first = Some(peer.slot),
            Some(_) => self.others.push(peer.slot),
        }
    }

    fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }
}

impl Balancer {
    pub fn round_robin(peers: Vec<Peer>) -> Rc<Self> {
        Self::new(peers, Policy::RoundRobin)
    }

    pub fn least_conn(peers: Vec<Peer>) -> Rc<Self> {
        Self::new(peers, Policy::LeastConn)
    }

    /// The host of each request names its peer.
    pub fn target(peers: Vec<Peer>) -> Rc<Self> {
        Self::new(peers, Policy::Target)
    }

    /// The plugin must implement `balance`.
    pub fn plugin(peers: Vec<Peer>, plugin: Rc<Plugin>) -> Rc<Self> {
        Self::new(peers, Policy::Plugin(PluginPolicy::new(plugin)))
    }

    fn new(peers: Vec<Peer>, policy: Policy) -> Rc<Self> {
        let peers = PeerSet::new(peers.into_iter().map(Rc::new));
        Rc::new(Self {
            peers: RefCell::new(peers),
            policy,
        })
    }

    pub fn peers(&self) -> Rc<PeerSet> {
        Rc::clone(&self.peers.borrow())
    }

    /// The peer for the next try, counted as active; `None` when all were tried. `result`: what the plugin has said, where one
    /// chooses. `request`: its host may name the peer.
    pub fn choose(
        &self,
        tried: &Tried,
        result: Option<PolicyResult>,
        request: &RequestHead,
    ) -> Result<Option<Active>, Error> {
        let set = self.peers.borrow();
        let chosen = match (&self.policy, set.as_slice(), result) {
            (Policy::RoundRobin | Policy::LeastConn, [only], _) => {
                (!tried.contains(only)).then_some(only)
            }
            (Policy::Target, peers, _) => target::choose(peers, tried, request)?,
            (Policy::LeastConn, peers, _) => least_conn::choose(&usable(peers, tried)),
            (Policy::Plugin(policy), peers, Some(result)) => {
                match policy.chosen(&set, tried, result)? {
                    Some(peer) => Some(peer),
                    None => round_robin::choose(&usable(peers, tried)),
                }
            }
            (Policy::RoundRobin | Policy::Plugin(_), peers, _) => {
                round_robin::choose(&usable(peers, tried))
            }
        };
        Ok(chosen.map(Peer::begin))
    }

    /// The plugin that chooses, if one does: it wants to be told of each outcome.
    pub fn plugin_policy(&self) -> Option<&PluginPolicy> {
        match &self.policy {
            Policy::Plugin(policy) => Some(policy),
            Policy::RoundRobin | Policy::LeastConn | Policy::Target => None,
        }
    }
}

/// Whether a policy may choose this peer of the set. Every policy is held to it, a plugin's too.
fn is_eligible(peer: &Peer, set: &PeerSet, tried: &Tried) -> bool {
    !tried.contains(peer) && (!peer.has_failed() || is_eligible_though_failed(peer, set, tried))
}

/// Eligibility of a peer that has failed: reads the clock and looks at the other peers.
#[cold]
#[inline(never)]
fn is_eligible_though_failed(peer: &Peer, set: &PeerSet, tried: &Tried) -> bool {
    let usable = usable(set.as_slice(), tried);
    usable.iter().any(|other| other.slot == peer.slot)
}

/// Peers that may be chosen: not tried yet, and not cooling unless there are no others.
fn usable<'a>(peers: &'a [Rc<Peer>], tried: &'a Tried) -> Usable<'a> {
    let mut usable = Usable {
        peers,
        tried,
        warm_at: None,
    };
    // The clock is read only where it matters.
    if peers.iter().any(|peer| peer.has_failed()) {
        usable.warm_at = Some(Instant::now());
        if usable.iter().next().is_none() {
            usable.warm_at = None;
        }
    }
    usable
}

/// Peers that a policy chooses from.
struct Usable<'a> {
    peers: &'a [Rc<Peer>],
    tried: &'a Tried,
    /// Peers that are cooling at this moment are left out.
    warm_at: Option<Instant>,
}

impl<'a> Usable<'a> {
    /// By slot, ascending.
    fn iter(&self) -> impl Iterator<Item = &'a Rc<Peer>> {
        self.peers.iter().filter(|peer| {
            !self.tried.contains(peer) && !self.warm_at.is_some_and(|now| peer.is_cooling(now))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use castling_abi::PeerOutcome;

    use super::*;
    use crate::upstream::peer_tests;

    pub(super) fn peers(weights: &[u32]) -> Vec<Rc<Peer>> {
        let peers = peer_tests::peers(weights);
        peers.into_iter().map(Rc::new).collect()
    }

    /// All of them, of which none was tried.
    pub(super) fn all(peers: &[Rc<Peer>]) -> Usable<'_> {
        const NONE: &Tried = &Tried {
            first: None,
            others: Vec::new(),
        };
        Usable {
            peers,
            tried: NONE,
            warm_at: None,
        }
    }

    fn fail(peer: &Peer) {
        peer.note(PeerOutcome::Broken, Instant::now());
    }

    fn tried(slots: &[u32]) -> Tried {
        let mut tried = Tried::default();
        let peers = peers(&[1; 9]);
        slots
            .iter()
            .for_each(|&slot| tried.insert(&peers[slot as usize]));
        tried
    }

    fn usable_slots(peers: &[Rc<Peer>], slots: &[u32]) -> Vec<u32> {
        let tried = tried(slots);
        usable(peers, &tried).iter().map(|peer| peer.slot).collect()
    }

    #[test]
    fn a_failed_peer_is_passed_over_while_there_are_others() {
        let peers = peers(&[1, 1, 1]);
        fail(&peers[1]);
        assert_eq!(usable_slots(&peers, &[]), [0, 2]);
        assert_eq!(usable_slots(&peers, &[0, 2]), [1]);
    }

    #[test]
    fn failed_peers_are_taken_when_nothing_else_is_left() {
        let peers = peers(&[1, 1]);
        peers.iter().for_each(|peer| fail(peer));
        assert_eq!(usable_slots(&peers, &[]), [0, 1]);
        assert_eq!(usable_slots(&peers, &[0]), [1]);
        assert_eq!(usable_slots(&peers, &[0, 1]), [0; 0]);
    }

    #[test]
    fn a_peer_is_eligible_as_the_native_policies_see_it() {
        let set = PeerSet::new(peers(&[1, 1, 1]));
        fail(&set.as_slice()[1]);
        let eligible = |slots: &[u32]| -> Vec<u32> {
            let tried = tried(slots);
            let all = set.as_slice().iter();
            all.filter(|peer| is_eligible(peer, &set, &tried))
                .map(|peer| peer.slot)
                .collect()
        };
        assert_eq!(eligible(&[]), [0, 2]);
        assert_eq!(eligible(&[0]), [2]);
        assert_eq!(eligible(&[0, 2]), [1]);
        assert_eq!(eligible(&[0, 1, 2]), [0; 0]);
    }

    #[test]
    fn a_peer_is_eligible_again_when_it_has_answered_or_cooled() {
        let set = PeerSet::new(peers(&[1, 1]));
        let first = &set.as_slice()[0];
        let is_eligible = || is_eligible(first, &set, &Tried::default());
        fail(first);
        assert!(!is_eligible());
        first.note(PeerOutcome::Responded, Instant::now());
        assert!(is_eligible());
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60));
        first.note(
            PeerOutcome::Broken,
            long_ago.expect("the clock is that old"),
        );
        assert!(is_eligible());
    }

    #[test]
    fn the_only_peer_is_chosen_once() {
        let balancer = Balancer::round_robin(peer_tests::peers(&[1]));
        let chosen = |tried| {
            balancer
                .choose(&tried, None, &RequestHead::default())
                .ok()
                .flatten()
        };
        let active = chosen(tried(&[])).map(|peer| (peer.slot, peer.active.get()));
        assert_eq!(active, Some((0, 1)));
        assert!(chosen(tried(&[0])).is_none());
        assert_eq!(balancer.peers().as_slice()[0].active.get(), 0);
    }

    #[test]
    fn what_was_tried_is_known_however_much_it_is() {
        let (tried, peers) = (tried(&[3, 0, 7]), peers(&[1; 9]));
        assert_eq!(tried.count(), 3);
        let found = peers.iter().filter(|peer| tried.contains(peer));
        assert_eq!(found.map(|peer| peer.slot).collect::<Vec<_>>(), [0, 3, 7]);
    }
}
