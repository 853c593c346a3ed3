//! Chooses the first peer that has the tag of `x-tag`, or the name of `x-name`; without either it fails with all that it knows.

use castling_sdk::prelude::*;

#[derive(Default)]
struct Tagger;

#[plugin]
impl Tagger {
    fn balance(&self, request: &Request, peers: &Peers) -> Result<Option<usize>> {
        let text = |name: &str| Some(request.header(name)?.as_str()?.to_owned());
        let is_meant = |peer: &Peer| match (text("x-tag"), text("x-name")) {
            (Some(tag), _) => peer.has_tag(tag),
            (None, Some(name)) => peer.name() == name,
            (None, None) => false,
        };
        if request.header("x-tell").is_some() {
            let told: Vec<String> = peers.iter().map(|peer| peer.tags().join("+")).collect();
            bail!("tags: {}", told.join("|"));
        }
        Ok(peers.iter().find(is_meant).map(|peer| peer.index))
    }
}
