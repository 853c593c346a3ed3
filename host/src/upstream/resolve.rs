//! Names of peers to addresses, when a generation is built.

use std::rc::Rc;

use http::HeaderValue;

use super::{KeepAlive, Peer};
use crate::config;
use crate::transport::PeerAddress;
use crate::transport::tls::ClientTls;

/// Resolves peers, one for each address of each name and one for each Unix socket, in slots from 0 on. The error is a line for a person.
pub async fn resolve(
    peers: &[config::Peer],
    tls: Option<&ClientTls>,
    keep_alive: &Rc<KeepAlive>,
) -> Result<Vec<Peer>, String> {
    let mut resolved = Vec::new();
    let mut slots = 0..;
    for peer in peers {
        let addresses = lookup(&peer.address)
            .await
            .map_err(|e| format!("peer {}: {e}", peer.address))?;
        let name = match PeerAddress::unix_path(&peer.address) {
            Some(_) => NAME_OF_UNIX,
            None => peer.address.as_str(),
        };
        let host = HeaderValue::from_str(name)
            .map_err(|_| format!("peer {}: no valid host", peer.address))?;
        let weight = u32::from(peer.weight.get());
        for (address, slot) in addresses.into_iter().zip(&mut slots) {
            let tls = tls.map(|tls| tls.peer(name)).transpose()?;
            let host = host.clone();
            resolved.push(Peer::new(slot, address, host, tls, weight, keep_alive));
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
