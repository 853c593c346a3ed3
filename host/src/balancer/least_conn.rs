//! The peer with the fewest active requests for its weight; round robin among equals (nginx `least_conn`).

use std::rc::Rc;

use super::{Peer, Usable, round_robin};

pub(super) fn choose<'a>(usable: &Usable<'a>) -> Option<&'a Rc<Peer>> {
    // a/w < b/v compared as a*v < b*w: no division, no rounding.
    let load = |a: &Peer, b: &Peer| {
        let (left, right) = (
            u64::from(a.load()) * u64::from(b.weight.get()),
            u64::from(b.load()) * u64::from(a.weight.get()),
        );
        left.cmp(&right)
    };
    let least = usable.iter().min_by(|a, b| load(a, b))?;
    let equals = usable.iter().filter(|peer| load(peer, least).is_eq());
    round_robin::among(equals)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{all, peers};
    use super::*;

    fn slot(peers: &[Rc<Peer>]) -> Option<u32> {
        choose(&all(peers)).map(|peer| peer.slot)
    }

    #[test]
    fn the_idle_peer_is_preferred() {
        let peers = peers(&[1, 1]);
        peers[0].active.set(1);
        assert_eq!(slot(&peers), Some(1));
    }

    #[test]
    fn activity_counts_in_relation_to_weight() {
        let peers = peers(&[4, 1]);
        peers[0].active.set(2);
        peers[1].active.set(1);
        assert_eq!(slot(&peers), Some(0));
    }

    #[test]
    fn equals_take_turns() {
        let peers = peers(&[1, 1, 1]);
        let order: Vec<u32> = (0..6).filter_map(|_| slot(&peers)).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }
}
