//! The peer that a request is for: its host and port, as the config lists them.
//!
//! Clients choose, among what the operator has listed. An address that is not in the list is never connected to, whatever its
//! name resolves to.

use std::rc::Rc;

use super::{Peer, Usable, round_robin};
use crate::error::Error;
use crate::message::{KnownHeader, RequestHead};

/// A peer of the name that the request's host is, in turns where it has several addresses. `None`: all of them were tried.
pub(super) fn choose<'a>(
    usable: &Usable<'a>,
    request: &RequestHead,
) -> Result<Option<&'a Rc<Peer>>, Error> {
    let host = request.headers.get(KnownHeader::Host).unwrap_or_default();
    let is_meant = |peer: &&Rc<Peer>| peer.host.as_bytes().eq_ignore_ascii_case(host);
    if !usable.peers.iter().any(|peer| is_meant(&peer)) {
        return Err(Error::NoTarget);
    }
    Ok(round_robin::among(usable.iter().filter(is_meant)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{all, peers};
    use super::*;

    #[test]
    fn the_host_names_its_peer_or_nobody() {
        let peers = peers(&[1, 1]);
        let chosen = |host: &[u8]| {
            let mut request = RequestHead::default();
            request.headers.set(KnownHeader::Host, host);
            choose(&all(&peers), &request).map(|peer| peer.map(|peer| peer.slot))
        };
        // Both are addresses of the one name.
        assert!(matches!(chosen(b"h"), Ok(Some(0))));
        assert!(matches!(chosen(b"H"), Ok(Some(1))));
        for other in [&b"h:80"[..], b"", b"h."] {
            assert!(matches!(chosen(other), Err(Error::NoTarget)));
        }
    }
}
