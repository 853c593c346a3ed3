//! Names of peers to addresses, when a generation is built.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::config::{self, Config};
use crate::transport::PeerAddress;

use super::table::Resolved;

/// Peers of each upstream of a config, one for each address of each name and one for each Unix socket. The error is a line with its place for each name
/// that has none.
pub async fn resolve(config: &Config) -> Result<BTreeMap<String, Vec<Resolved>>, Vec<String>> {
    let all = config.upstreams.iter().map(|(name, upstream)| async move {
        let peers = join_all(upstream.peers.iter().map(addresses)).await;
        (name, upstream, peers)
    });
    let (mut resolved, mut errors) = (BTreeMap::new(), Vec::new());
    for (name, upstream, peers) in join_all(all).await {
        let mut found = Vec::new();
        for (peer, addresses) in upstream.peers.iter().zip(peers) {
            match addresses {
                Ok(addresses) => found.extend(addresses.into_iter().map(|it| at(peer, it))),
                Err(error) => errors.push(format!(
                    "{}: upstream {name}: peer {}: {error}",
                    upstream.place, peer.address
                )),
            }
        }
        resolved.insert(name.clone(), found);
    }
    match errors.is_empty() {
        true => Ok(resolved),
        false => Err(errors),
    }
}

fn at(peer: &config::Peer, address: PeerAddress) -> Resolved {
    Resolved {
        address,
        host: peer.address.clone(),
        weight: peer.weight.get().into(),
        is_backup: peer.backup,
        settings: peer.clone(),
    }
}

async fn addresses(peer: &config::Peer) -> Result<Vec<PeerAddress>, String> {
    if let Some(path) = PeerAddress::unix_path(&peer.address) {
        return Ok(vec![PeerAddress::Unix(path.to_owned())]);
    }
    let found = tokio::net::lookup_host(&peer.address)
        .await
        .map_err(|error| format!("cannot be resolved: {error}"))?;
    let mut addresses: Vec<PeerAddress> = found.map(PeerAddress::from).collect();
    // The first numbers are given in this order.
    addresses.sort();
    addresses.dedup();
    match addresses.is_empty() {
        true => Err("cannot be resolved: the name has no address".to_owned()),
        false => Ok(addresses),
    }
}
