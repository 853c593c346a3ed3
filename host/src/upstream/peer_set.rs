//! The peers of an upstream.

use std::rc::Rc;
use std::sync::Arc;

use super::Peer;
use super::state::PeerState;
use crate::exchange::PeerFacts;

/// Peers that requests are balanced among at one time. A set never changes: another one takes its place, in which peers that
/// stay are the same ones, in their slots.
pub struct PeerSet {
    /// By slot, ascending. Slots may be missing.
    peers: Box<[Rc<Peer>]>,
    /// The peers' facts by slot, for plugins.
    facts: Arc<[PeerFacts]>,
    /// The peers' cells, in their order.
    cells: Box<[u32]>,
}

impl PeerSet {
    /// Makes a set of peers that are in the order of their slots.
    pub fn new(peers: impl IntoIterator<Item = Rc<Peer>>) -> Rc<Self> {
        let peers: Box<[Rc<Peer>]> = peers.into_iter().collect();
        debug_assert!(peers.is_sorted_by(|a, b| a.slot < b.slot));
        let mut facts: Vec<PeerFacts> = Vec::with_capacity(peers.len());
        for peer in &peers {
            facts.resize_with(peer.slot as usize, PeerFacts::default);
            facts.push(peer.facts.clone());
        }
        Rc::new(Self {
            cells: peers.iter().map(|peer| peer.state.cell()).collect(),
            peers,
            facts: facts.into(),
        })
    }

    /// The peers by slot, ascending.
    pub fn as_slice(&self) -> &[Rc<Peer>] {
        &self.peers
    }

    pub fn by_slot(&self, slot: u32) -> Option<&Rc<Peer>> {
        let found = self.peers.binary_search_by_key(&slot, |peer| peer.slot);
        found.ok().map(|at| &self.peers[at])
    }

    /// Looks at what other workers have under way at the peers. `upstream`: its state in the same memory.
    pub fn look_at_others(&self, upstream: &PeerState) {
        let mut sums = vec![0; self.cells.len()];
        upstream.add_active_of_others(&self.cells, &mut sums);
        for (peer, sum) in self.peers.iter().zip(sums) {
            peer.active_of_others.set(sum);
        }
    }

    /// The facts of each slot's peer up to the last one. Those of a slot without a peer are empty.
    pub fn facts(&self) -> &Arc<[PeerFacts]> {
        &self.facts
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::tests::peers;
    use super::*;

    #[test]
    fn a_slot_stays_its_peers_own() {
        let peers: Vec<Rc<Peer>> = peers(&[1; 4]).into_iter().map(Rc::new).collect();
        let kept = [&peers[1], &peers[3]].map(Rc::clone);
        let set = PeerSet::new(kept.clone());
        let by_slot = |slot| set.by_slot(slot).map(|peer| peer.slot);
        let found: Vec<Option<u32>> = (0..5).map(by_slot).collect();
        assert_eq!(found, [None, Some(1), None, Some(3), None]);
        assert!(Rc::ptr_eq(&kept[1], &set.as_slice()[1]));
        let labels: Vec<&str> = set.facts().iter().map(|facts| &*facts.address).collect();
        assert_eq!(labels, ["", &*kept[0].label, "", &*kept[1].label]);
    }
}
