//! Smooth weighted round robin, as nginx does it: with weights 5, 1, 1 the order is a a b a c a a, never five in a row.

use super::{Peer, Usable};

pub(super) fn choose(peers: &[Peer], usable: &Usable) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<usize> = None;
    for &idx in usable {
        let peer = &peers[idx];
        let weight = i64::from(peer.weight);
        total += weight;
        peer.score.set(peer.score.get() + weight);
        if best.is_none_or(|best| peer.score.get() > peers[best].score.get()) {
            best = Some(idx);
        }
    }
    let best = best?;
    peers[best].score.set(peers[best].score.get() - total);
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::super::tests::peers;
    use super::*;

    #[test]
    fn weights_are_interleaved() {
        let peers = peers(&[5, 1, 1]);
        let order: Vec<usize> = (0..7)
            .filter_map(|_| choose(&peers, &vec![0, 1, 2]))
            .collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn nobody_usable_is_nobody() {
        assert_eq!(choose(&peers(&[1]), &Usable::new()), None);
    }
}
