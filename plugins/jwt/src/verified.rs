//! Tokens whose signature was verified before: an instance remembers them, since a client sends the same one often and a
//! public key's signature costs a hundred times more than this.

use std::collections::{BTreeSet, VecDeque};

use rsa::sha2::{Digest, Sha256};

/// The last tokens that were verified, as digests: looking one up tells nobody how much of it was right.
#[derive(Default)]
pub(crate) struct Verified {
    known: BTreeSet<Sum>,
    /// The oldest first.
    order: VecDeque<Sum>,
    keys_version: u64,
}

pub(crate) type Sum = [u8; 32];

/// 32 bytes each, twice.
const LIMIT: usize = 1024;

impl Verified {
    pub(crate) fn sum(token: &[u8]) -> Sum {
        Sha256::digest(token).into()
    }

    pub(crate) fn has(&self, sum: &Sum) -> bool {
        self.known.contains(sum)
    }

    pub(crate) fn insert(&mut self, sum: Sum) {
        if !self.known.insert(sum) {
            return;
        }
        self.order.push_back(sum);
        if self.order.len() > LIMIT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// With other published keys than before, what the old ones have verified is to be verified again.
    pub(crate) fn with_keys(&mut self, version: u64) {
        if version != self.keys_version {
            *self = Self {
                keys_version: version,
                ..Self::default()
            };
        }
    }
}
