//! Facts of peers that plugins may ask for when they choose one.

use std::sync::Arc;

use castling_abi::metric;

/// Facts of one peer, as they are handed out. Empty where a slot has none.
#[derive(Clone, Debug, Default)]
pub struct PeerFacts {
    /// Address and port.
    pub address: Arc<str>,
    /// Name by which it is listed.
    pub name: Arc<str>,
    /// Tags of the peer: [`castling_abi::metric::texts`].
    pub tags: Arc<[u8]>,
}

impl PeerFacts {
    /// Facts from the config; the address comes with the peer.
    pub fn new(name: &str, tags: &[String]) -> Self {
        Self {
            address: Arc::default(),
            name: Arc::from(name),
            tags: encoded(tags).into(),
        }
    }

    /// Whether these are the facts of a peer that is listed so.
    pub fn is_of(&self, name: &str, tags: &[String]) -> bool {
        &*self.name == name && *self.tags == *encoded(tags)
    }
}

/// Tags as texts. The config has bounded them.
fn encoded(tags: &[String]) -> Vec<u8> {
    let mut list = Vec::new();
    for tag in tags {
        if let Some(head) = metric::text_head(tag.as_bytes()) {
            list.extend_from_slice(&head);
            list.extend_from_slice(tag.as_bytes());
        }
    }
    list
}
