//! Peers that may be chosen: every policy is held to them, a plugin's too.

use std::rc::Rc;

use super::{Choice, Health, Tried, round_robin};
use crate::upstream::{Active, Availability, Peer, PeerSet};

/// Peers of a set by whether they may be chosen, at one time.
#[derive(Default)]
pub(super) struct Candidates {
    /// Peers that the policy chooses from: those that are available, without backups while there are others. Where none is
    /// available, those that are passed over for their failures.
    pub first: Box<[Rc<Peer>]>,
    /// Peers for when none of these is left: backups.
    backups: Box<[Rc<Peer>]>,
    /// Peers for when none of those is left either: they are passed over for their failures. Those that checks have found bad
    /// get nothing.
    last: Box<[Rc<Peer>]>,
    /// Whether so few peers are available that all are chosen from.
    pub is_panic: bool,
    /// First end of an ejection.
    pub due_ns: u64,
}

/// Peers that a policy chooses from.
pub(super) struct Usable<'a> {
    pub peers: &'a [Rc<Peer>],
    pub tried: &'a Tried,
}

impl<'a> Usable<'a> {
    /// By slot, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &'a Rc<Peer>> {
        self.peers.iter().filter(|peer| self.allows(peer))
    }

    /// Whether this one of them may be chosen for the request: it was not tried, and has room.
    #[inline]
    pub fn allows(&self, peer: &Peer) -> bool {
        !self.tried.contains(peer) && !peer.is_full()
    }
}

impl Candidates {
    pub(super) fn among(set: &PeerSet, health: &Health, now_ns: u64) -> Self {
        let (mut primaries, mut backups, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let mut unhealthy = Vec::new();
        let mut due_ns = u64::MAX;
        for peer in set.as_slice() {
            peer.refresh_weight();
            let of_its_kind = match peer.state.availability(health.checks, || now_ns) {
                Availability::Available if peer.is_backup => &mut backups,
                Availability::Available => &mut primaries,
                Availability::Ejected { until_ns } => {
                    due_ns = due_ns.min(until_ns);
                    &mut last
                }
                Availability::Unhealthy | Availability::Unchecked => &mut unhealthy,
                Availability::Down | Availability::Draining => {
                    peer.is_candidate.set(false);
                    continue;
                }
            };
            of_its_kind.push(Rc::clone(peer));
        }
        let all = primaries.len() + last.len() + unhealthy.len();
        let are_too_few = (primaries.len() as f64) < health.panic_threshold * all as f64;
        if are_too_few {
            primaries.append(&mut last);
            primaries.append(&mut unhealthy);
            primaries.sort_by_key(|peer| peer.slot);
        }
        let is_panic = are_too_few || primaries.is_empty() && backups.is_empty();
        let first = [&mut primaries, &mut backups, &mut last]
            .into_iter()
            .find(|peers| !peers.is_empty())
            .map(std::mem::take)
            .unwrap_or_default();
        for peer in backups.iter().chain(&last).chain(&unhealthy) {
            peer.is_candidate.set(false);
        }
        for peer in &first {
            peer.is_candidate.set(true);
        }
        Self {
            first: first.into(),
            backups: backups.into(),
            last: last.into(),
            is_panic,
            due_ns,
        }
    }

    pub(super) fn usable<'a>(&'a self, tried: &'a Tried) -> Usable<'a> {
        Usable {
            peers: &self.first,
            tried,
        }
    }

    /// The choice when the policy has found nobody: a backup, else one that is passed over. Not while one that is available
    /// could be waited for.
    #[cold]
    #[inline(never)]
    pub(super) fn choose_beyond(&self, tried: &Tried) -> Choice {
        if let Some(active) = one_of(&self.backups, tried) {
            return Choice::Peer(active);
        }
        let mut available = self.first.iter().chain(&self.backups);
        if available.any(|peer| !tried.contains(peer)) {
            return Choice::Full;
        }
        match one_of(&self.last, tried) {
            Some(active) => Choice::Peer(active),
            None if self.last.iter().any(|peer| !tried.contains(peer)) => Choice::Full,
            None => Choice::Nobody,
        }
    }

    /// Whether a policy may choose this peer of the set.
    pub(super) fn is_eligible(&self, peer: &Rc<Peer>, tried: &Tried) -> bool {
        let allows = |peer: &Rc<Peer>| !tried.contains(peer) && !peer.is_full();
        match peer.is_candidate.get() {
            true => allows(peer),
            false => self.is_eligible_beyond(peer, tried),
        }
    }

    /// Eligibility of a peer that is no candidate: no other is left.
    #[cold]
    #[inline(never)]
    fn is_eligible_beyond(&self, peer: &Rc<Peer>, tried: &Tried) -> bool {
        for peers in [&self.first, &self.backups, &self.last] {
            let usable = Usable { peers, tried };
            if usable.iter().next().is_some() {
                return usable.iter().any(|other| Rc::ptr_eq(other, peer));
            }
        }
        false
    }
}

fn one_of(peers: &[Rc<Peer>], tried: &Tried) -> Option<Active> {
    round_robin::choose(&Usable { peers, tried })?.begin()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{health, peers, tried};
    use super::*;
    use crate::upstream::Standing;
    use crate::zone::now_ns;

    fn fail(peer: &Peer) {
        peer.state.eject(now_ns(), Duration::from_secs(10), 1);
    }

    fn slots(peers: &[Rc<Peer>]) -> Vec<u32> {
        peers.iter().map(|peer| peer.slot).collect()
    }

    fn candidates(peers: &[Rc<Peer>]) -> Candidates {
        let set = PeerSet::new(peers.iter().map(Rc::clone));
        Candidates::among(&set, &health(), now_ns())
    }

    fn beyond(candidates: &Candidates, slots: &[u32]) -> Option<u32> {
        match candidates.choose_beyond(&tried(slots)) {
            Choice::Peer(active) => Some(active.slot),
            Choice::Full | Choice::Nobody => None,
        }
    }

    #[test]
    fn a_failed_peer_is_passed_over_while_there_are_others() {
        let peers = peers(&[1, 1, 1]);
        fail(&peers[1]);
        let candidates = candidates(&peers);
        assert_eq!(slots(&candidates.first), [0, 2]);
        assert!(!candidates.is_panic && candidates.due_ns < u64::MAX);
        assert_eq!(beyond(&candidates, &[0, 2]), Some(1));
        assert_eq!(beyond(&candidates, &[0, 1, 2]), None);
    }

    #[test]
    fn failed_peers_are_candidates_when_nothing_else_is_there() {
        let peers = peers(&[1, 1]);
        peers.iter().for_each(|peer| fail(peer));
        let candidates = candidates(&peers);
        assert_eq!(slots(&candidates.first), [0, 1]);
        assert!(candidates.is_panic);
    }

    #[test]
    fn below_the_threshold_all_are_chosen_from() {
        let peers = peers(&[1, 1, 1]);
        let set = PeerSet::new(peers.iter().map(Rc::clone));
        let health = Health {
            panic_threshold: 0.5,
            ..health()
        };
        let first = || {
            let candidates = Candidates::among(&set, &health, now_ns());
            (slots(&candidates.first), candidates.is_panic)
        };
        fail(&peers[1]);
        assert_eq!(first(), (vec![0, 2], false));
        fail(&peers[0]);
        assert_eq!(first(), (vec![0, 1, 2], true));
    }

    #[test]
    fn the_operators_order_holds_also_when_nothing_else_is_there() {
        let peers = peers(&[1, 1, 1]);
        peers[0].state.order(Standing::Down, None);
        peers[1].state.order(Standing::Draining, None);
        peers[2].state.order(Standing::Up, Some(9));
        fail(&peers[2]);
        let candidates = candidates(&peers);
        assert_eq!(slots(&candidates.first), [2]);
        assert_eq!(peers[2].weight.get(), 9);
        assert_eq!(beyond(&candidates, &[2]), None);
    }

    #[test]
    fn a_plugin_is_held_to_what_the_other_policies_see() {
        let peers = peers(&[1, 1, 1]);
        fail(&peers[1]);
        let candidates = candidates(&peers);
        let eligible = |slots: &[u32]| -> Vec<u32> {
            let tried = tried(slots);
            let all = peers
                .iter()
                .filter(|peer| candidates.is_eligible(peer, &tried));
            all.map(|peer| peer.slot).collect()
        };
        assert_eq!(eligible(&[]), [0, 2]);
        assert_eq!(eligible(&[0]), [2]);
        assert_eq!(eligible(&[0, 2]), [1]);
        assert_eq!(eligible(&[0, 1, 2]), [0; 0]);
    }
}
