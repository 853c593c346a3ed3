//! Session tickets: a client that comes again shows the state of its last session, sealed, and saves the signature (RFC 8446 §4.6.1,
//! RFC 5077).

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

use super::ticket_chain::{EPOCH, TicketChain, epoch_of};

/// Seals and opens the tickets of one listener.
pub(super) struct Tickets {
    /// Listener that a ticket is good for, and what its clients were verified by: others' keys are others.
    binding: Vec<u8>,
    /// In a lock since rustls shares it between threads; a worker has one.
    keys: Mutex<Keys>,
}

struct Keys {
    /// At the last epoch.
    chain: TicketChain,
    last: TicketKey,
    current: TicketKey,
}

struct TicketKey {
    name: [u8; NAME_BYTES],
    /// `None`: the library would not take the key, and nothing is sealed.
    key: Option<LessSafeKey>,
}

/// Name of a key, first in a ticket.
const NAME_BYTES: usize = 8;

impl Tickets {
    pub(super) fn new(mut chain: TicketChain, binding: &[u8]) -> Self {
        chain.advance(SystemTime::now());
        Self {
            keys: Mutex::new(Keys::new(chain, binding)),
            binding: binding.to_vec(),
        }
    }

    /// Works with the keys of now.
    fn with_keys<T>(&self, work: impl FnOnce(&Keys) -> T) -> T {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        if keys.chain.epoch() + 1 < epoch_of(now) {
            let mut chain = keys.chain.clone();
            chain.advance(now);
            *keys = Keys::new(chain, &self.binding);
        }
        work(&keys)
    }
}

impl Keys {
    fn new(chain: TicketChain, binding: &[u8]) -> Self {
        Self {
            last: TicketKey::new(&chain, binding),
            current: TicketKey::new(&chain.next(), binding),
            chain,
        }
    }
}

impl TicketKey {
    fn new(chain: &TicketChain, binding: &[u8]) -> Self {
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&chain.derive(b"name", binding)[..NAME_BYTES]);
        let key = UnboundKey::new(&AES_256_GCM, &chain.derive(b"key", binding));
        Self {
            name,
            key: key.ok().map(LessSafeKey::new),
        }
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key
            .as_ref()?
            .seal_in_place_append_tag(unique, Aad::from(self.name), &mut sealed)
            .ok()?;
        Some([&self.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(self.name);
        let plain = self.key.as_ref()?.open_in_place(nonce, aad, &mut bytes);
        let len = plain.ok()?.len();
        bytes.truncate(len);
        Some(bytes)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        EPOCH.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.with_keys(|keys| keys.current.seal(plain))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        self.with_keys(|keys| {
            let known = [&keys.current, &keys.last];
            let key = known.into_iter().find(|key| key.name == *name)?;
            key.open(*nonce, sealed)
        })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("session tickets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_opened_by_all_workers_of_its_listener_and_by_no_other_listener() {
        let chain = TicketChain::new(SystemTime::now()).unwrap();
        let [one, same, other] = [b"a", b"a", b"b"].map(|name| Tickets::new(chain.clone(), name));
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(same.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(other.decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(one.decrypt(&changed), None, "byte {at}");
            assert_eq!(one.decrypt(&ticket[..at]), None);
        }
    }

    #[test]
    fn a_ticket_of_the_last_epoch_is_opened_and_an_older_one_is_not() {
        let now = SystemTime::now();
        let chain = TicketChain::new(now - EPOCH * 2).unwrap();
        let old = Keys::new(chain.clone(), b"a").current.seal(b"old").unwrap();
        let last = Keys::new(chain.next(), b"a").current.seal(b"last").unwrap();
        let tickets = Tickets::new(chain, b"a");
        assert_eq!(tickets.decrypt(&old), None);
        assert_eq!(tickets.decrypt(&last).as_deref(), Some(&b"last"[..]));
    }
}
