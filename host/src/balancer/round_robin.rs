//! Smooth weighted round robin, as nginx does it: with weights 5, 1, 1 the order is a a b a c a a, never five in a row.

use super::{Peer, Usable};

pub(super) fn choose(usable: &Usable<'_>) -> Option<usize> {
    among(usable.iter())
}

/// Takes turns among these.
pub(super) fn among<'a>(peers: impl Iterator<Item = (usize, &'a Peer)>) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<(usize, &Peer)> = None;
    for (idx, peer) in peers {
        let weight = i64::from(peer.weight);
        total += weight;
        peer.score.set(peer.score.get() + weight);
        if best.is_none_or(|(_, best)| peer.score.get() > best.score.get()) {
            best = Some((idx, peer));
        }
    }
    let (idx, best) = best?;
    best.score.set(best.score.get() - total);
    Some(idx)
}

#[cfg(test)]
mod tests {
    use super::super::Tried;
    use super::super::tests::{all, peers};
    use super::*;

    #[test]
    fn weights_are_interleaved() {
        let peers = peers(&[5, 1, 1]);
        let order: Vec<usize> = (0..7)
            .filter_map(|_| choose(&all(&peers, &Tried::default())))
            .collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn nobody_usable_is_nobody() {
        let mut tried = Tried::default();
        tried.insert(0);
        assert_eq!(choose(&all(&peers(&[1]), &tried)), None);
    }
}
