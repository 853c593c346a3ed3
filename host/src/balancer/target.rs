//! The peer that a request is for: its host and port, as the config lists them.
//!
//! Clients choose, among what the operator has listed. An address that is not in the list is never connected to, whatever its
//! name resolves to.

use std::rc::Rc;

use super::{Peer, Tried, round_robin};
use crate::error::Error;
use crate::message::{KnownHeader, RequestHead};
use crate::upstream::{Availability, Checks};
use crate::zone::now_ns;

/// A peer of the name that the request's host is, in turns where it has several addresses. Those of other names are of no use to the
/// request, and so one that has failed is chosen where no other of its name is left. `None`: all of them were tried.
pub(super) fn choose<'a>(
    peers: &'a [Rc<Peer>],
    checks: Checks,
    tried: &Tried,
    request: &RequestHead,
) -> Result<Option<&'a Rc<Peer>>, Error> {
    let host = request.headers.get(KnownHeader::Host).unwrap_or_default();
    let is_meant = |peer: &&Rc<Peer>| peer.host.as_bytes().eq_ignore_ascii_case(host);
    if !peers.iter().any(|peer| is_meant(&peer)) {
        return Err(Error::NoTarget);
    }
    let left = || {
        peers
            .iter()
            .filter(is_meant)
            .filter(|peer| !tried.contains(peer))
    };
    let availability = |peer: &Peer| peer.state.availability(checks, now_ns);
    let available =
        round_robin::among(left().filter(|peer| availability(peer) == Availability::Available));
    let may_be_tried = |peer: &&Rc<Peer>| {
        let availability = availability(peer);
        !matches!(availability, Availability::Down | Availability::Draining)
    };
    Ok(available.or_else(|| round_robin::among(left().filter(may_be_tried))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::peers;
    use super::*;

    #[test]
    fn the_host_names_its_peer_or_nobody() {
        let peers = peers(&[1, 1]);
        let chosen = |host: &[u8]| {
            let mut request = RequestHead::default();
            request.headers.set(KnownHeader::Host, host);
            choose(&peers, Checks::None, &Tried::default(), &request)
                .map(|peer| peer.map(|peer| peer.slot))
        };
        // Both are addresses of the one name.
        assert!(matches!(chosen(b"h"), Ok(Some(0))));
        assert!(matches!(chosen(b"H"), Ok(Some(1))));
        for other in [&b"h:80"[..], b"", b"h."] {
            assert!(matches!(chosen(other), Err(Error::NoTarget)));
        }
    }

    #[test]
    fn one_that_has_failed_is_chosen_where_no_other_has_its_name() {
        let peers = peers(&[1, 1]);
        let mut request = RequestHead::default();
        request.headers.set(KnownHeader::Host, b"h");
        let chosen = |tried: &Tried| {
            let chosen = choose(&peers, Checks::None, tried, &request).ok().flatten();
            chosen.map(|peer| peer.slot)
        };
        peers[0].state.eject(now_ns(), Duration::from_secs(10), 1);
        assert_eq!(
            [chosen(&Tried::default()), chosen(&Tried::default())],
            [Some(1); 2]
        );
        peers[1].state.eject(now_ns(), Duration::from_secs(10), 1);
        assert!(chosen(&Tried::default()).is_some());
        let mut tried = Tried::default();
        peers.iter().for_each(|peer| tried.insert(peer));
        assert_eq!(chosen(&tried), None);
    }
}
