//! Signed names of peers, as cookies have them: whoever reads one learns nothing of a peer's address, and nobody can make one up.

use std::collections::HashMap;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Values of the cookies of an upstream's peers.
pub(super) struct StickyTags {
    /// Value of each peer, by index, made with the first secret.
    values: Box<[Box<str>]>,
    /// Peer of each tag, of any of the secrets.
    peers: HashMap<Tag, u32>,
}

type Tag = [u8; TAG_BYTES];

impl StickyTags {
    /// `secrets`: the first makes cookies; those of the others are still accepted, so that a secret can be changed. `addresses`: of
    /// all peers, by index.
    pub(super) fn new(secrets: &[Vec<u8>], upstream: &str, addresses: &[&str]) -> Self {
        let mut values = Vec::with_capacity(addresses.len());
        let mut peers = HashMap::with_capacity(addresses.len() * secrets.len());
        for (at, secret) in secrets.iter().enumerate() {
            let secret = hmac::Key::new(HMAC_SHA256, secret);
            for (index, address) in addresses.iter().enumerate() {
                let tag = tag(&secret, upstream, address);
                peers.entry(tag).or_insert(index as u32);
                if at == 0 {
                    values.push(URL_SAFE_NO_PAD.encode(tag).into());
                }
            }
        }
        Self {
            values: values.into(),
            peers,
        }
    }

    /// Value of the cookie for a peer.
    pub(super) fn value(&self, index: usize) -> Option<&str> {
        self.values.get(index).map(|value| &**value)
    }

    /// The peer that a cookie is for. `None`: it is none of ours, or its peer is no longer there.
    pub(super) fn peer(&self, value: &[u8]) -> Option<usize> {
        let mut tag = Tag::default();
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut tag).ok()?;
        let index = *self.peers.get(&tag)?;
        (length == TAG_BYTES).then_some(index as usize)
    }
}

fn tag(secret: &hmac::Key, upstream: &str, address: &str) -> Tag {
    let mut context = hmac::Context::with_key(secret);
    // No name of an upstream has a zero in it.
    for part in [upstream, "\0", address] {
        context.update(part.as_bytes());
    }
    let mut tag = Tag::default();
    tag.copy_from_slice(&context.sign().as_ref()[..TAG_BYTES]);
    tag
}

/// Bytes of a signature that a cookie has, of 32: enough that none is ever guessed.
const TAG_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(secrets: &[&str], upstream: &str) -> StickyTags {
        let secrets: Vec<Vec<u8>> = secrets
            .iter()
            .map(|secret| secret.as_bytes().to_vec())
            .collect();
        StickyTags::new(&secrets, upstream, &["10.0.0.1:80", "10.0.0.2:80"])
    }

    #[test]
    fn a_value_is_its_peers() {
        let tags = tags(&["secret"], "app");
        for index in [0, 1] {
            let value = tags.value(index).unwrap();
            assert_eq!(value.len(), 22);
            assert_eq!(tags.peer(value.as_bytes()), Some(index));
        }
        assert_eq!(tags.value(2), None);
    }

    #[test]
    fn nobody_can_make_a_value_up() {
        let ours = tags(&["secret"], "app");
        for other in [tags(&["Secret"], "app"), tags(&["secret"], "ap")] {
            assert_eq!(ours.peer(other.value(0).unwrap().as_bytes()), None);
        }
        let value = ours.value(0).unwrap();
        let long = format!("{value}AA");
        for made_up in [
            "",
            "A",
            "10.0.0.1:80",
            &value[..21],
            &value[..20],
            &long,
            "%%",
            "\0",
        ] {
            assert_eq!(ours.peer(made_up.as_bytes()), None, "{made_up}");
        }
        assert_eq!(ours.peer(&[0xff; 22]), None);
        assert_eq!(ours.peer(&[b'A'; 4096]), None);
    }

    #[test]
    fn an_older_secret_is_still_accepted() {
        let (old, new) = (tags(&["old"], "app"), tags(&["new", "old"], "app"));
        assert_eq!(new.peer(old.value(1).unwrap().as_bytes()), Some(1));
        assert_ne!(new.value(1), old.value(1));
    }
}
