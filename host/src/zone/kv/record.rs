//! Records of a kv zone. There are two kinds, by the first byte of their key:
//!
//! - `ENTRY key` → expiry, version, value;
//! - `DUE expiry version` → key: what expires, in that order.

use crate::zone::{KEY_LIMIT_BYTES, ZoneError};

const ENTRY: u8 = b'e';
/// Marks a due record. It lies behind all entries.
pub(super) const DUE: u8 = b't';

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

    pub(super) fn new_or_empty(key: &[u8]) -> Result<Self, ZoneError> {
        let mut bytes = [ENTRY; 1 + KEY_LIMIT_BYTES];
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
}

pub(super) fn due_key(expires_ns: u64, version: u64) -> [u8; 17] {
    let mut key = [DUE; 17];
    key[1..9].copy_from_slice(&expires_ns.to_be_bytes());
    key[9..].copy_from_slice(&version.to_be_bytes());
    key
}

pub(super) fn parse_due(key: &[u8]) -> Option<(u64, u64)> {
    let (expires_ns, rest) = key.strip_prefix(&[DUE])?.split_first_chunk()?;
    let version = rest.try_into().ok()?;
    Some((u64::from_be_bytes(*expires_ns), u64::from_be_bytes(version)))
}
