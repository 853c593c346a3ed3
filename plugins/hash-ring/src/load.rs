//! Which peers may be chosen, and how much each of them may carry.

use castling_sdk::prelude::*;

/// Requests and weights of all peers that may be chosen.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Percent of the average that one may carry; `None`: any number.
    factor: Option<u64>,
    /// All that are left have failed lately, so that is no reason to pass one over.
    all_cooling: bool,
    active: u64,
    weight: u64,
}

impl Load {
    pub(crate) fn of(peers: &Peers, factor: Option<u64>) -> Self {
        let all_cooling = peers.iter().all(|peer| peer.tried || peer.cooling);
        let none = Self {
            factor,
            all_cooling,
            active: 0,
            weight: 0,
        };
        let usable = peers.iter().filter(|peer| none.is_usable(peer));
        usable.fold(none, |load, peer| Self {
            active: load.active + u64::from(peer.active),
            weight: load.weight + u64::from(peer.weight),
            ..load
        })
    }

    /// Whether the peer may carry this request, too. One of the usable peers always may: together they may carry more
    /// than they do.
    pub(crate) fn admits(&self, peer: &Peer) -> bool {
        let is_full = self
            .factor
            .is_some_and(|factor| u64::from(peer.active) >= self.bound(factor, peer));
        self.is_usable(peer) && !is_full
    }

    fn is_usable(&self, peer: &Peer) -> bool {
        !peer.tried && (!peer.cooling || self.all_cooling)
    }

    /// The peer's share by weight of all requests, this one included, times the factor, rounded up.
    fn bound(&self, factor: u64, peer: &Peer) -> u64 {
        let requests = u128::from(self.active) + 1;
        let share = requests * u128::from(factor) * u128::from(peer.weight);
        let bound = share.div_ceil(100 * u128::from(self.weight.max(1)));
        u64::try_from(bound).unwrap_or(u64::MAX)
    }
}
