//! Names of peers to addresses, when a generation is built.

use std::net::SocketAddr;
use std::rc::Rc;

use http::HeaderValue;

use super::{KeepAlive, Peer};
use crate::config;
use crate::transport::tls::ClientTls;

/// Resolves peers, one for each address of each name, in slots from 0 on. The error is a line for a person.
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
        let host = HeaderValue::from_str(&peer.address)
            .map_err(|_| format!("peer {}: no valid host", peer.address))?;
        let weight = u32::from(peer.weight.get());
        for (address, slot) in addresses.into_iter().zip(&mut slots) {
            let tls = tls.map(|tls| tls.peer(&peer.address)).transpose()?;
            let host = host.clone();
            resolved.push(Peer::new(slot, address, host, tls, weight, keep_alive));
        }
    }
    Ok(resolved)
}

async fn lookup(address: &str) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host(address)
        .await
        .map_err(|e| format!("cannot be resolved: {e}"))?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    // Every worker should count them in the same order.
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return Err("the name has no address".to_owned());
    }
    Ok(addresses)
}
