//! Smooth weighted round robin, as nginx does it: with weights 5, 1, 1 the order is a a b a c a a, never five in a row.

use std::rc::Rc;

use super::{Peer, Usable};

pub(super) fn choose<'a>(usable: &Usable<'a>) -> Option<&'a Rc<Peer>> {
    among(usable.iter())
}

/// Takes turns among these.
pub(super) fn among<'a>(peers: impl Iterator<Item = &'a Rc<Peer>>) -> Option<&'a Rc<Peer>> {
    let mut total = 0;
    let mut best: Option<&Rc<Peer>> = None;
    for peer in peers {
        let weight = i64::from(peer.weight.get());
        total += weight;
        peer.score.set(peer.score.get() + weight);
        if best.is_none_or(|best| peer.score.get() > best.score.get()) {
            best = Some(peer);
        }
    }
    let best = best?;
    best.score.set(best.score.get() - total);
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{all, peers};
    use super::*;

    #[test]
    fn weights_are_interleaved() {
        let peers = peers(&[5, 1, 1]);
        let slot = |_| choose(&all(&peers)).map(|peer| peer.slot);
        let order: Vec<u32> = (0..7).filter_map(slot).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn nobody_usable_is_nobody() {
        assert!(choose(&all(&[])).is_none());
    }
}
