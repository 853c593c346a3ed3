//! Peers of an exchange.

use castling_abi::{
    DRAWN_PEER_BYTES, DrawnPeer, PEER_COOLING, PEER_TRIED, PeerRecord, Status, rules,
};

use super::hook::may;
use super::host::hand_out;
use super::world::with_facts;
use crate::random;

pub(super) fn peers_get(out: &mut [u8]) -> i32 {
    if !may(&rules::PEERS_GET) {
        return rules::PEERS_GET.refused as i32;
    }
    with_facts(|facts| {
        let records = facts.peers.iter().map(|peer| record(peer).to_bytes());
        hand_out(&records.flatten().collect::<Vec<_>>(), out)
    })
}

fn record(peer: &FakePeer) -> PeerRecord {
    let tried = if peer.tried { PEER_TRIED } else { 0 };
    let cooling = if peer.cooling { PEER_COOLING } else { 0 };
    PeerRecord {
        weight: peer.weight,
        active: peer.active,
        flags: tried | cooling,
        reserved: 0,
    }
}

/// Draws with [`random::below`], so that a test can say which: the place of the first among the weights of all that may be chosen, then
/// that of the second among the others'.
pub(super) fn peers_draw(out: &mut [u8]) -> i32 {
    if !may(&rules::PEERS_DRAW) {
        return rules::PEERS_DRAW.refused as i32;
    }
    let peers = with_facts(|facts| facts.peers.clone());
    let untried = || peers.iter().enumerate().filter(|(_, peer)| !peer.tried);
    let is_any_sound = untried().any(|(_, peer)| !peer.cooling);
    let mut left: Vec<_> = untried()
        .filter(|(_, peer)| !(is_any_sound && peer.cooling))
        .collect();
    let mut drawn = Vec::new();
    while drawn.len() < 2 * DRAWN_PEER_BYTES && !left.is_empty() {
        let total = left.iter().map(|(_, peer)| peer.weight as usize).sum();
        let mut place = random::below(total);
        let at = left.iter().position(|(_, peer)| {
            let is_it = place < peer.weight as usize;
            place = place.saturating_sub(peer.weight as usize);
            is_it
        });
        let (index, peer) = left.remove(at.unwrap_or(0));
        let peer = DrawnPeer {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            record: record(peer),
        };
        drawn.extend_from_slice(&peer.to_bytes());
    }
    hand_out(&drawn, out)
}

pub(super) fn peer_address(index: u32, out: &mut [u8]) -> i32 {
    if !may(&rules::PEER_ADDRESS) {
        return rules::PEER_ADDRESS.refused as i32;
    }
    with_facts(|facts| {
        let peer = usize::try_from(index)
            .ok()
            .and_then(|index| facts.peers.get(index));
        peer.map_or(Status::NotFound as i32, |peer| {
            hand_out(peer.address.as_bytes(), out)
        })
    })
}

/// A peer of an [`Exchange`](super::Exchange): weight 1, idle, not tried, not cooling, unless said.
#[derive(Clone, Debug)]
pub struct FakePeer {
    pub(crate) address: String,
    pub(crate) weight: u32,
    pub(crate) active: u32,
    pub(crate) tried: bool,
    pub(crate) cooling: bool,
    pub(crate) name: Option<String>,
    pub(crate) tags: Vec<String>,
}

impl FakePeer {
    /// A peer at this address and port.
    pub fn at(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            weight: 1,
            active: 0,
            tried: false,
            cooling: false,
            name: None,
            tags: Vec::new(),
        }
    }

    /// Sets the name by which it is listed; its address unless said.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Sets its tags; none unless said.
    #[must_use]
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Sets its weight.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets how many requests are under way there.
    #[must_use]
    pub fn active(mut self, active: u32) -> Self {
        self.active = active;
        self
    }

    /// Says that the request has tried it before.
    #[must_use]
    pub fn tried(mut self) -> Self {
        self.tried = true;
        self
    }

    /// Says that it failed lately.
    #[must_use]
    pub fn cooling(mut self) -> Self {
        self.cooling = true;
        self
    }
}
