//! Names of peers to addresses, when a generation is built.

use std::rc::Rc;

use http::HeaderValue;
use tokio::sync::Notify;

use super::{KeepAlive, NewPeer, Peer, PeerStates};
use crate::config;
use crate::transport::PeerAddress;
use crate::transport::tls::ClientTls;

/// Resolves peers, one for each address of each name and one for each Unix socket, in slots and cells from 0 on. `room`: told when a request has ended. The
/// error is a line for a person.
pub async fn resolve(
    upstream: &config::Upstream,
    tls: Option<&ClientTls>,
    keep_alive: &Rc<KeepAlive>,
    room: &Rc<Notify>,
    states: &PeerStates,
) -> Result<Vec<Peer>, String> {
    let mut resolved = Vec::new();
    let mut slots = 0..;
    for peer in &upstream.peers {
        let addresses = lookup(&peer.address)
            .await
            .map_err(|e| format!("peer {}: {e}", peer.address))?;
        let name = match PeerAddress::unix_path(&peer.address) {
            Some(_) => NAME_OF_UNIX,
            None => peer.address.as_str(),
        };
        let host = HeaderValue::from_str(name)
            .map_err(|_| format!("peer {}: no valid host", peer.address))?;
        let max_active = peer.max_active.or(upstream.max_active);
        for (address, slot) in addresses.into_iter().zip(&mut slots) {
            let tls = tls.map(|tls| tls.peer(name)).transpose()?;
            let new = NewPeer {
                slot,
                address,
                host: host.clone(),
                tls,
                weight: peer.weight.get().into(),
                is_backup: peer.backup,
                max_active: max_active.unwrap_or(0),
                room: max_active.map(|_| Rc::clone(room)),
                // Cell 0 is the upstream's.
                state: states.of(slot + 1),
            };
            resolved.push(Peer::new(new, keep_alive));
        }
    }
    Ok(resolved)
}

/// Name of the peer behind a Unix socket, which is on this host: for `Host` and for its certificate (nginx's as well).
const NAME_OF_UNIX: &str = "localhost";

async fn lookup(address: &str) -> Result<Vec<PeerAddress>, String> {
    if let Some(path) = PeerAddress::unix_path(address) {
        return Ok(vec![PeerAddress::Unix(path.to_owned())]);
    }
    let found = tokio::net::lookup_host(address)
        .await
        .map_err(|e| format!("cannot be resolved: {e}"))?;
    let mut addresses: Vec<PeerAddress> = found.map(PeerAddress::from).collect();
    // Every worker should count them in the same order.
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return Err("the name has no address".to_owned());
    }
    Ok(addresses)
}
