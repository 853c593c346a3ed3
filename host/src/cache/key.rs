//! Keys of the cache.

use std::fmt;

use sha2::{Digest, Sha256};

/// Digest of a key's text: the first half of its SHA-256, so that nobody can find two texts of one key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 16]);

impl KeyDigest {
    pub fn of(text: &[u8]) -> Self {
        Self::from_hash(&Sha256::digest(text))
    }

    /// The first half of a hash; one that is shorter has zeroes at its end.
    pub(super) fn from_hash(hash: &[u8]) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(hash) {
            *to = *from;
        }
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// In hexadecimal.
impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
