//! Secrets of session tickets over time: all processes of a gateway find the same, without telling one another.
//!
//! Time is cut into epochs. The secret of an epoch is a hash of the one before it, so that who knows one knows those after it and none
//! before it: a process keeps the last and the current one, and what an attacker finds in its memory opens no older ticket. The
//! master makes the first at its start and hands the chain to its workers and to a master that takes over.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Length of an epoch. A ticket is good for this long at least, and twice as long at most.
pub const EPOCH: Duration = Duration::from_secs(6 * 3600);

/// Secret of an epoch, and so of those after it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketChain {
    /// Number since 1970.
    epoch: u64,
    secret: [u8; 32],
}

impl TicketChain {
    /// A chain that begins with the epoch before this time's.
    pub fn new(now: SystemTime) -> io::Result<Self> {
        let mut secret = [0; 32];
        let mut filled = 0;
        while filled < secret.len() {
            filled += getrandom(&mut secret[filled..], GetRandomFlags::empty())?;
        }
        Ok(Self {
            epoch: epoch_of(now).saturating_sub(1),
            secret,
        })
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Goes on to the epoch before this time's, and forgets what came before that. By a clock that was set back it stays.
    pub fn advance(&mut self, now: SystemTime) {
        let last = epoch_of(now).saturating_sub(1);
        // A clock that was set far ahead costs some hashes: a year has 1,461 epochs.
        for _ in self.epoch..last {
            *self = self.next();
        }
    }

    /// The chain of the epoch after this one.
    pub fn next(&self) -> Self {
        Self {
            epoch: self.epoch + 1,
            secret: self.derive(b"next", &[]),
        }
    }

    /// Key of this epoch for a purpose.
    pub fn derive(&self, label: &[u8], purpose: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"castling ticket ");
        hash.update([label.len() as u8]);
        hash.update(label);
        hash.update(self.secret);
        hash.update(purpose);
        hash.finalize().into()
    }
}

/// Number of the epoch that this time is in.
pub fn epoch_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / EPOCH.as_secs()
}

/// The secret is never shown.
impl fmt::Debug for TicketChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ticket chain at epoch {}", self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64) -> SystemTime {
        UNIX_EPOCH + EPOCH * u32::try_from(epoch).unwrap()
    }

    #[test]
    fn two_that_advance_by_other_steps_meet() {
        let first = TicketChain::new(at(100)).unwrap();
        assert_eq!(first.epoch(), 99);
        let (mut one, mut other) = (first.clone(), first.clone());
        one.advance(at(107));
        (101..=107).for_each(|epoch| other.advance(at(epoch)));
        assert_eq!(one, other);
        assert_eq!(one.epoch(), 106);
        one.advance(at(103));
        assert_eq!(one, other, "a clock was set back");
        assert_ne!(first.derive(b"key", b"a"), first.derive(b"key", b"b"));
        assert_ne!(
            first.derive(b"key", b"a"),
            first.next().derive(b"key", b"a")
        );
    }

    #[test]
    fn a_secret_is_not_shown() {
        let chain = TicketChain::new(at(9)).unwrap();
        assert_eq!(format!("{chain:?}"), "ticket chain at epoch 8");
    }
}
