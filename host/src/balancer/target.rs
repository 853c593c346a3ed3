//! The peer that a request is for: its host and port, as the config lists them.
//!
//! Clients choose, among what the operator has listed. An address that is not in the list is never connected to, whatever its
//! name resolves to.

use std::collections::HashMap;
use std::rc::Rc;

use super::candidates::Candidates;
use super::{Ask, Choice, Health, Rules};
use crate::error::Error;
use crate::message::{KnownHeader, RequestHead};
use crate::upstream::Peer;

/// Peers by their name in the config, in lower case. Several addresses of one name take turns.
#[derive(Default)]
pub(super) struct Targets(HashMap<Vec<u8>, Candidates>);

impl Targets {
    pub(super) fn among(peers: &[Rc<Peer>], rules: &Rules, health: &Health, now_ns: u64) -> Self {
        let mut by_name: HashMap<Vec<u8>, Vec<Rc<Peer>>> = HashMap::new();
        for peer in peers {
            let name = peer.host.as_bytes().to_ascii_lowercase();
            by_name.entry(name).or_default().push(Rc::clone(peer));
        }
        let found = by_name.into_iter();
        Self(
            found
                .map(|(name, peers)| (name, Candidates::among(&peers, rules, health, now_ns)))
                .collect(),
        )
    }

    /// A peer of the name that the request's host is. Those of other names are of no use to the request, and so one that has failed
    /// is chosen where no other of its name is left.
    pub(super) fn choose(&mut self, request: &RequestHead, ask: &Ask<'_>) -> Result<Choice, Error> {
        let host = request.headers.get(KnownHeader::Host).unwrap_or_default();
        match self.0.get_mut(&host.to_ascii_lowercase()) {
            Some(candidates) => Ok(candidates.choose(ask)),
            None => Err(Error::NoTarget),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Tried;
    use super::super::policy::Policy;
    use super::super::tests::{health, peers};
    use super::*;
    use crate::zone::now_ns;

    fn fail(peer: &Peer) {
        peer.state.eject(now_ns(), Duration::from_secs(10), 1);
    }

    /// Slots that requests for this host get, one after the other, each of which is over before the next.
    fn chosen<const N: usize>(peers: &[Rc<Peer>], host: &[u8], tried: &Tried) -> [Option<u32>; N] {
        let mut targets = Targets::among(peers, &Policy::Target.into(), &health(), now_ns());
        let mut request = RequestHead::default();
        request.headers.set(KnownHeader::Host, host);
        let mut chosen =
            [(); N].map(
                |()| match targets.choose(&request, &Ask { tried, key: b"" }) {
                    Ok(Choice::Peer(active)) => Some(active.slot),
                    Ok(Choice::Full | Choice::Nobody) | Err(_) => None,
                },
            );
        chosen.sort_unstable();
        chosen
    }

    #[test]
    fn the_host_names_its_peer_or_nobody() {
        let peers = peers(&[1, 1]);
        // Both are addresses of the one name.
        for host in [b"h", b"H"] {
            assert_eq!(chosen(&peers, host, &Tried::default()), [Some(0), Some(1)]);
        }
        let mut targets = Targets::among(&peers, &Policy::Target.into(), &health(), 0);
        for other in [&b"h:80"[..], b"", b"h."] {
            let mut request = RequestHead::default();
            request.headers.set(KnownHeader::Host, other);
            let tried = &Tried::default();
            let choice = targets.choose(&request, &Ask { tried, key: b"" });
            assert!(matches!(choice, Err(Error::NoTarget)));
        }
    }

    #[test]
    fn one_that_has_failed_is_chosen_where_no_other_has_its_name() {
        let peers = peers(&[1, 1]);
        let mut tried = Tried::default();
        fail(&peers[0]);
        assert_eq!(chosen(&peers, b"h", &tried), [Some(1); 2]);
        fail(&peers[1]);
        assert_eq!(chosen(&peers, b"h", &tried), [Some(0), Some(1)]);
        peers.iter().for_each(|peer| tried.insert(peer));
        assert_eq!(chosen(&peers, b"h", &tried), [None]);
    }
}
