//! Records of a kv zone, by the first byte of their key:
//!
//! - `ENTRY key` → expiry, version, value;
//! - `SESSION key` → the same, of the gateway's own: no plugin can name or list them;
//! - `DUE expiry version` → key of an entry, `DUE expiry version SESSION` → key of a session: what expires, in that order;
//! - `EVICTED` → how many entries made room before they had expired.

use std::time::Duration;

use crate::zone::{KEY_LIMIT_BYTES, ZoneError};

const ENTRY: u8 = b'e';
const SESSION: u8 = b's';
/// Marks a due record. It lies behind all others.
pub(super) const DUE: u8 = b't';

/// Key of the count of what was evicted. It lies before all entries.
pub(super) const EVICTED: [u8; 1] = *b"c";

/// The expiry of what does not expire.
pub(super) const NEVER_NS: u64 = u64::MAX;
/// Expiry and version, before the value.
pub(super) const STORED_HEAD_BYTES: usize = 16;

/// A key of 1 to 510 bytes, with its tag before it.
pub struct Key {
    bytes: [u8; 1 + KEY_LIMIT_BYTES],
    length: usize,
}

impl Key {
    /// Fails on another length.
    pub fn new(key: &[u8]) -> Result<Self, ZoneError> {
        if key.is_empty() {
            return Err(ZoneError::KeyLength(0));
        }
        Self::new_or_empty(key)
    }

    /// Key of a session by the digest of its name, beside all keys of plugins.
    pub fn session(digest: &[u8; 16]) -> Self {
        let mut bytes = [SESSION; 1 + KEY_LIMIT_BYTES];
        let length = 1 + digest.len();
        bytes[1..length].copy_from_slice(digest);
        Self { bytes, length }
    }

    pub(super) fn new_or_empty(key: &[u8]) -> Result<Self, ZoneError> {
        Self::tagged(ENTRY, key)
    }

    fn tagged(tag: u8, key: &[u8]) -> Result<Self, ZoneError> {
        let mut bytes = [tag; 1 + KEY_LIMIT_BYTES];
        let length = 1 + key.len();
        let place = bytes.get_mut(1..length);
        place
            .ok_or(ZoneError::KeyLength(key.len()))?
            .copy_from_slice(key);
        Ok(Self { bytes, length })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(super) fn untagged(&self) -> &[u8] {
        &self.bytes[1..self.length]
    }

    /// Key of the record that says when this one's expires.
    pub(super) fn due(&self, expires_ns: u64, version: u64) -> DueKey {
        let mut bytes = [DUE; 18];
        bytes[1..9].copy_from_slice(&expires_ns.to_be_bytes());
        bytes[9..17].copy_from_slice(&version.to_be_bytes());
        bytes[17] = self.bytes[0];
        let length = match self.bytes[0] {
            SESSION => 18,
            _ => 17,
        };
        DueKey { bytes, length }
    }
}

/// An entry as it lies in the store.
pub(super) struct Stored<'txn> {
    pub expires_ns: u64,
    pub version: u64,
    pub value: &'txn [u8],
}

impl<'txn> Stored<'txn> {
    /// Reads a record. None for bytes that no gateway has written.
    pub(super) fn parse(bytes: &'txn [u8]) -> Option<Self> {
        let (expires_ns, rest) = bytes.split_first_chunk()?;
        let (version, value) = rest.split_first_chunk()?;
        Some(Self {
            expires_ns: u64::from_be_bytes(*expires_ns),
            version: u64::from_be_bytes(*version),
            value,
        })
    }

    pub(super) fn is_live(&self, now_ns: u64) -> bool {
        self.expires_ns > now_ns
    }

    /// Time that is left. None: it never expires.
    pub(super) fn ttl(&self, now_ns: u64) -> Option<Duration> {
        let expires = self.expires_ns != NEVER_NS;
        expires.then(|| Duration::from_nanos(self.expires_ns.saturating_sub(now_ns)))
    }
}

/// Key of a due record.
pub(super) struct DueKey {
    bytes: [u8; 18],
    length: usize,
}

impl DueKey {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// A due record's key, taken apart.
pub(super) struct Due {
    pub expires_ns: u64,
    pub version: u64,
    tag: u8,
}

impl Due {
    /// Reads a due record's key. None for bytes that no gateway has written.
    pub(super) fn parse(key: &[u8]) -> Option<Self> {
        let (expires_ns, rest) = key.strip_prefix(&[DUE])?.split_first_chunk()?;
        let (version, tag) = rest.split_first_chunk()?;
        let tag = match tag {
            [] => ENTRY,
            [SESSION] => SESSION,
            _ => return None,
        };
        Some(Self {
            expires_ns: u64::from_be_bytes(*expires_ns),
            version: u64::from_be_bytes(*version),
            tag,
        })
    }

    /// Key of what is due, which the record has without its tag.
    pub(super) fn key(&self, untagged: &[u8]) -> Result<Key, ZoneError> {
        Key::tagged(self.tag, untagged)
    }
}

/// Reads a count. 0 for bytes that no gateway has written.
pub(super) fn count(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}
