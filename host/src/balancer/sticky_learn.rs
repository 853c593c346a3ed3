//! Sessions by the names that peers give them, in a zone that all workers share: it outlives workers, reloads and upgrades.
//!
//! The zone has a digest of each name, not the name, which is often as good as a password, and may be long.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use tracing::{info, warn};

use crate::config;
use crate::exchange::{Exchange, Template};
use crate::log::Losses;
use crate::metrics::SessionMetrics;
use crate::runtime::clock;
use crate::upstream::{Peer, PeerSet};
use crate::zone::{Expected, Key, KvZone, ZoneError, now_ns};

/// Sessions of an upstream, and how they are told from what is sent.
pub(super) struct LearntSessions {
    upstream: Box<str>,
    /// Texts with a response's variables, of which the first that has a value is a session's name.
    learn: Box<[Template]>,
    /// Texts with a request's, of which the first that is known counts.
    lookup: Box<[Template]>,
    timeout: Duration,
    store: SessionStore,
    /// Places of the peers in the set, by label.
    places: RefCell<HashMap<Arc<str>, usize>>,
    /// Name that is being read; its memory is used again.
    name: RefCell<Vec<u8>>,
    losses: RefCell<Losses>,
}

/// The place where sessions are kept, and what counts them.
pub struct SessionStore {
    pub zone: Arc<KvZone>,
    pub metrics: SessionMetrics,
}

/// Longest name of a session, bytes: as much as browsers keep of a cookie. A longer one is none.
const MAX_NAME_BYTES: usize = 4096;

/// Part of the time-out after which use prolongs a session: a write for each request would cost more than the request's own work.
const RENEWALS: u32 = 8;

type Digest = [u8; 16];

impl LearntSessions {
    /// The error is a line for a person.
    pub(super) fn new(
        config: &config::StickyLearn,
        upstream: &str,
        store: SessionStore,
    ) -> Result<Self, String> {
        let parsed = |texts: &[String]| -> Result<Box<[Template]>, String> {
            texts.iter().map(|text| Template::parse(text)).collect()
        };
        Ok(Self {
            upstream: upstream.into(),
            learn: parsed(&config.learn)?,
            lookup: parsed(&config.lookup)?,
            timeout: config.timeout,
            store,
            places: RefCell::default(),
            name: RefCell::default(),
            losses: RefCell::default(),
        })
    }

    /// Takes up the peers' places.
    pub(super) fn know(&self, set: &PeerSet) {
        let mut places = HashMap::with_capacity(set.as_slice().len());
        for (place, peer) in set.as_slice().iter().enumerate() {
            // Peers at one address, of which the config may have several names, are one to a session.
            places.entry(Arc::clone(&peer.label)).or_insert(place);
        }
        self.places.replace(places);
    }

    /// Place of the peer that the request's session is bound to, which the exchange remembers until [`Self::bind`].
    pub(super) fn place(&self, exchange: &mut Exchange) -> Option<usize> {
        exchange.context_mut().session.forget();
        self.lookup.iter().find(|text| {
            let digest = self.digest(text, exchange);
            digest.is_some_and(|digest| self.find(digest, exchange))
        })?;
        let (_, entry) = exchange.context().session.known()?;
        let label = Entry::parse(entry)?.label;
        self.places.borrow().get(label).copied()
    }

    /// Binds what the response names to this peer, and so the session of the request, if it was bound to another one. A name that
    /// comes with a request alone, and is not known, is not kept: anybody can make one up.
    pub(super) fn bind(&self, peer: &Peer, exchange: &Exchange) {
        let known = exchange.context().session.known();
        let mut texts = self.learn.iter();
        let learnt = texts.find_map(|text| self.digest(text, exchange));
        let is_known = |digest| known.is_some_and(|(known, _)| *known == digest);
        if let Some(digest) = learnt.filter(|digest| !is_known(*digest))
            && self.put(&digest, peer, Expected::Anything)
        {
            self.store.metrics.learnt.inc();
        }
        let Some((digest, value)) = known else {
            return;
        };
        let entry = Entry::parse(value);
        let is_moved = entry.is_none_or(|entry| *entry.label != *peer.label);
        // Where another worker has changed it meanwhile, its word counts.
        if is_moved {
            if self.put(digest, peer, Expected::Value(value)) {
                self.store.metrics.moved.inc();
            }
        } else if entry.is_some_and(|entry| self.is_to_be_renewed(entry)) {
            self.put(digest, peer, Expected::Value(value));
        }
    }

    fn is_to_be_renewed(&self, entry: Entry<'_>) -> bool {
        let age = Duration::from_nanos(now_ns().saturating_sub(entry.written_ns));
        age >= self.timeout / RENEWALS
    }

    /// Digest of the name that a text gives; `None`: it gives none.
    fn digest(&self, text: &Template, exchange: &Exchange) -> Option<Digest> {
        let mut name = self.name.borrow_mut();
        name.clear();
        // With a part of it alone, it would be the name of many.
        let has_value = text.write_whole(&mut name, exchange);
        let is_empty = matches!(name[..], [] | [b'"', b'"']);
        if !has_value || is_empty || name.len() > MAX_NAME_BYTES {
            name.clear();
            name.shrink_to(MAX_NAME_BYTES);
            return None;
        }
        let mut context = digest::Context::new(&SHA256);
        // No name of an upstream has a zero in it.
        for part in [self.upstream.as_bytes(), b"\0", &name] {
            context.update(part);
        }
        let whole = context.finish();
        whole.as_ref().first_chunk().copied()
    }

    /// Reads what the zone has of a session. False: nothing.
    fn find(&self, digest: Digest, exchange: &mut Exchange) -> bool {
        let session = &mut exchange.context_mut().session;
        let take = |value: &[u8]| {
            if Entry::parse(value).is_some() {
                session.set(digest, value);
            }
        };
        let found = self.store.zone.read(&Key::session(&digest), now_ns(), take);
        if let Err(error) = found {
            self.failed(&error);
        }
        exchange.context().session.known().is_some()
    }

    /// Writes that a session is bound to this peer. True: it is written.
    fn put(&self, digest: &Digest, peer: &Peer, expected: Expected<'_>) -> bool {
        let now_ns = now_ns();
        let value = Entry {
            written_ns: now_ns,
            label: &peer.label,
        }
        .to_bytes();
        let (zone, key) = (&self.store.zone, Key::session(digest));
        match zone.put(&key, &value, Some(self.timeout), expected, now_ns) {
            Ok(is_written) => {
                let well_again = self.losses.borrow_mut().written(clock::now);
                if let Some(untold) = well_again {
                    let upstream = &*self.upstream;
                    info!(upstream, untold, "sessions are kept again");
                }
                is_written
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    /// Notes that the zone has failed: requests go on, and are balanced as those of no session.
    #[cold]
    fn failed(&self, error: &ZoneError) {
        self.store.metrics.failed.inc();
        if let Some(count) = self.losses.borrow_mut().lost(1, clock::now()) {
            let upstream = &*self.upstream;
            warn!(upstream, count, "sessions are not kept: {error}");
        }
    }
}

/// Entry of the zone: when it was written ([`now_ns`]), and the label of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry<'a> {
    written_ns: u64,
    label: &'a str,
}

/// First byte of an entry.
const VERSION: u8 = 1;

impl<'a> Entry<'a> {
    /// `None`: another version has written it.
    fn parse(value: &'a [u8]) -> Option<Self> {
        let (written_ns, label) = value.strip_prefix(&[VERSION])?.split_first_chunk()?;
        Some(Self {
            written_ns: u64::from_be_bytes(*written_ns),
            label: std::str::from_utf8(label).ok()?,
        })
    }

    fn to_bytes(self) -> Vec<u8> {
        let written = self.written_ns.to_be_bytes();
        [&[VERSION], &written[..], self.label.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests;
