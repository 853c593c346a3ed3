//! Numbers by key, shared by all workers, lock-free and of fixed size: what rate limits count in.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use portable_atomic::AtomicU128;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use siphasher::sip128::SipHasher13;

use super::headers::{CounterHeader, name_words};
use super::raw::Mapping;
use super::{ZoneError, check_name, check_size, later_ns};
use slots::{Change, EXPIRY_BITS, Hash, Live, Set, WAYS};

pub(super) mod slots;
#[cfg(test)]
mod tests;

/// A table of 64-bit numbers, each with a key and an expiry, in memory that all workers map.
///
/// Keys are known by 120 bits of a hash keyed with the zone's secret (64 of tag, 24 of check, 32 of place), so no
/// client can choose keys that meet in one place. Each key can lie in one set of 8 slots only. When all 8 are in use,
/// the one that expires first makes room ([`CounterStats::evicted`] tells): an operation never fails. A slot takes 24
/// bytes. With twice as many slots as keys in use at once, 1 key in 100 finds its set full; with four times as many, 1
/// in 7000.
///
/// Times are exact to about a millisecond: a number may live up to 1.05 ms longer than asked for, never less.
pub struct CounterZone {
    mapping: Mapping,
    seed: [u8; 16],
    origin_ns: u64,
    sets: usize,
    /// Next nonce; its start at random makes the nonces of this process its own.
    nonce: AtomicU64,
}

/// A number, and for how long it will be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub value: u64,
    pub expires_in: Duration,
}

/// How [`CounterZone::update`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    Stored(u64),
    /// The function wanted no change. Holds what is there.
    Left(Option<u64>),
    /// Other writers were quicker 256 times in a row: nothing is stored. Holds what would have been.
    Contended(u64),
}

/// Figures of a zone for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterStats {
    pub slots: usize,
    /// Slots in use that have not expired; estimated from a part of a zone of more than 6 MiB.
    pub live: usize,
    /// Numbers that made room before they had expired, since the zone was made. When it grows, the zone is too small.
    pub evicted: u64,
    /// Changes given up because of contention, since the zone was made.
    pub contended: u64,
}

impl CounterZone {
    /// Smallest and largest size, in bytes.
    pub const MIN_BYTES: u64 = 64 << 10;
    pub const MAX_BYTES: u64 = 64 << 30;

    /// Makes a zone without numbers. `size_bytes` of memory are taken at once and never more.
    ///
    /// Fails on a bad name or size, and when memory does not suffice.
    pub fn create(name: &str, size_bytes: u64, now_ns: u64) -> Result<Self, ZoneError> {
        check_name(name)?;
        check_size(name, size_bytes, Self::MIN_BYTES, Self::MAX_BYTES)?;
        let io = |doing| move |cause: Errno| io_error(name, doing, cause);
        let size = usize::try_from(size_bytes).map_err(|_| io("size")(Errno::FBIG))?;
        let mapping =
            Mapping::create(&format!("castling:{name}"), size).map_err(io("making it"))?;

        let mut seed = [0; 16];
        getrandom(&mut seed, GetRandomFlags::empty()).map_err(io("random seed"))?;
        let seed = u128::from_ne_bytes(seed);
        let header = header(&mapping, name)?;
        header.version.store(VERSION, Relaxed);
        header.kind.store(KIND, Relaxed);
        header.size_bytes.store(size_bytes, Relaxed);
        header.seed[0].store(seed as u64, Relaxed);
        header.seed[1].store((seed >> 64) as u64, Relaxed);
        header.origin_ns.store(now_ns, Relaxed);
        for (word, bytes) in header.name.iter().zip(name_words(name)) {
            word.store(bytes, Relaxed);
        }
        header.magic.store(MAGIC, Relaxed);
        Self::over(mapping, name, size_bytes)
    }

    /// Opens a zone that the master has made, by the descriptor that came from it.
    ///
    /// Fails when it was made under another name, size or version, and when it is no counter zone.
    pub fn open(file: OwnedFd, name: &str, size_bytes: u64) -> Result<Self, ZoneError> {
        check_name(name)?;
        let mapping = Mapping::open(file).map_err(|cause| io_error(name, "mapping it", cause))?;
        Self::over(mapping, name, size_bytes)
    }

    /// Descriptor that a worker inherits and opens. It is closed in a process that is executed, unless handed over on
    /// purpose.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.mapping.descriptor()
    }

    /// Adds to a key's count and returns the count. The first addition opens a window, at whose end the count is gone.
    ///
    /// A window that ends later than one opened now would (the config has changed) is shortened to that. The count
    /// stays at `u64::MAX` rather than wrap. Adding 0 to a key without a window opens none. Under contention that does
    /// not end the amount is not counted, but the returned count is as if it were.
    pub fn add(&self, key: &[u8], amount: u64, window: Duration, now_ns: u64) -> u64 {
        let expiry = self.expiry(window, now_ns);
        let change = self.change(key, now_ns, |live| {
            let (value, ends) = live.map_or((0, expiry), |live| (live.value, live.expiry));
            if amount == 0 {
                return None;
            }
            Some(Live {
                value: value.saturating_add(amount),
                expiry: ends.min(expiry),
            })
        });
        match change {
            Change::Stored { live, .. } | Change::Contended(live) => live.value,
            Change::Left(live) => live.map_or(0, |live| live.value),
        }
    }

    /// A key's number, if it has one that has not expired.
    pub fn get(&self, key: &[u8], now_ns: u64) -> Option<Reading> {
        let (set, hash) = self.place(key)?;
        let live = set.find(hash, self.tick(now_ns))?;
        let ends_ns = (live.expiry << TICK_SHIFT).saturating_add(self.origin_ns);
        Some(Reading {
            value: live.value,
            expires_in: Duration::from_nanos(ends_ns.saturating_sub(now_ns)),
        })
    }

    /// Replaces a key's number by what `f` makes of it; it then expires `ttl` from now. None from `f` changes nothing.
    ///
    /// `f` is called anew, at most 256 times, when another worker was quicker: what counts is its last call.
    pub fn update(
        &self,
        key: &[u8],
        ttl: Duration,
        now_ns: u64,
        mut f: impl FnMut(Option<u64>) -> Option<u64>,
    ) -> Updated {
        let expiry = self.expiry(ttl, now_ns);
        let change = self.change(key, now_ns, |live| {
            f(live.map(|live| live.value)).map(|value| Live { value, expiry })
        });
        match change {
            Change::Stored { live, .. } => Updated::Stored(live.value),
            Change::Left(live) => Updated::Left(live.map(|live| live.value)),
            Change::Contended(live) => Updated::Contended(live.value),
        }
    }

    pub fn size_bytes(&self) -> u64 {
        self.mapping.size_bytes() as u64
    }

    /// Reads up to 6 MiB of the zone, which takes a millisecond or two. For the status page.
    pub fn stats(&self, now_ns: u64) -> CounterStats {
        let now = self.tick(now_ns);
        let sets = self.sets();
        let header = self.header();
        let stride = sets.len().div_ceil(SAMPLED_SETS).max(1);
        let sample = sets.iter().step_by(stride);
        let sampled = sample.len().max(1);
        let live: usize = sample.map(|set| set.live_count(now)).sum();
        CounterStats {
            slots: sets.len() * WAYS,
            live: live * sets.len() / sampled,
            evicted: header.map_or(0, |header| header.evicted.load(Relaxed)),
            contended: header.map_or(0, |header| header.contended.load(Relaxed)),
        }
    }

    fn over(mapping: Mapping, name: &str, size_bytes: u64) -> Result<Self, ZoneError> {
        if !AtomicU128::is_lock_free() {
            return Err(ZoneError::Unsupported(name.to_owned()));
        }
        let header = header(&mapping, name)?;
        if header.magic.load(Relaxed) != MAGIC {
            return Err(damaged(name, "this is no counter zone"));
        }
        let must_be = |what, found: &AtomicU64, expected: u64| {
            let found = found.load(Relaxed);
            (found == expected)
                .then_some(())
                .ok_or_else(|| mismatch(name, what, found, expected))
        };
        must_be("version", &header.version, VERSION)?;
        must_be("kind", &header.kind, KIND)?;
        let found_name = header.name.iter().map(|word| word.load(Relaxed));
        if !found_name.eq(name_words(name)) {
            return Err(mismatch(name, "name", "another", name));
        }
        must_be("size", &header.size_bytes, size_bytes)?;
        if u64::try_from(mapping.size_bytes()) != Ok(size_bytes) {
            let found = mapping.size_bytes();
            return Err(mismatch(name, "size of the file", found, size_bytes));
        }

        let [low, high] = header
            .seed
            .each_ref()
            .map(|word| u128::from(word.load(Relaxed)));
        let seed = (high << 64 | low).to_ne_bytes();
        let origin_ns = header.origin_ns.load(Relaxed);
        let sets = (mapping.size_bytes() - size_of::<CounterHeader>()) / size_of::<Set>();
        let mut nonce = [0; 8];
        getrandom(&mut nonce, GetRandomFlags::empty())
            .map_err(|cause| io_error(name, "random seed", cause))?;
        Ok(Self {
            mapping,
            seed,
            origin_ns,
            sets,
            nonce: AtomicU64::new(u64::from_ne_bytes(nonce)),
        })
    }

    fn change(
        &self,
        key: &[u8],
        now_ns: u64,
        f: impl FnMut(Option<Live>) -> Option<Live>,
    ) -> Change {
        let Some((set, hash)) = self.place(key) else {
            return Change::Left(None); // not reached: a zone has sets
        };
        let nonce = self.nonce.fetch_add(1, Relaxed);
        let change = set.change(hash, self.tick(now_ns), nonce, f);
        match change {
            Change::Stored { evicted: true, .. } => self.note(|header| &header.evicted),
            Change::Contended(_) => self.note(|header| &header.contended),
            Change::Stored { evicted: false, .. } | Change::Left(_) => {}
        }
        change
    }

    fn note(&self, event: impl FnOnce(&CounterHeader) -> &AtomicU64) {
        if let Some(header) = self.header() {
            event(header).fetch_add(1, Relaxed);
        }
    }

    fn header(&self) -> Option<&CounterHeader> {
        self.mapping.header()
    }

    fn sets(&self) -> &[Set] {
        self.mapping
            .table(size_of::<CounterHeader>(), self.sets)
            .unwrap_or_default()
    }

    fn place(&self, key: &[u8]) -> Option<(&Set, Hash)> {
        let hash = SipHasher13::new_with_key(&self.seed).hash(key);
        let sets = self.sets();
        // The upper half of the second word, scaled to the number of sets.
        let idx = ((hash.h2 >> 32) * sets.len() as u64) >> 32;
        let set = sets.get(usize::try_from(idx).ok()?)?;
        Some((set, Hash::of(hash.h1, hash.h2)))
    }

    fn tick(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.origin_ns) >> TICK_SHIFT
    }

    /// The first tick that begins `after` from now or later; always in the future.
    fn expiry(&self, after: Duration, now_ns: u64) -> u64 {
        let ends_ns = later_ns(now_ns, after).saturating_sub(self.origin_ns);
        let tick = ends_ns.div_ceil(1 << TICK_SHIFT);
        tick.max(self.tick(now_ns) + 1).min((1 << EXPIRY_BITS) - 1)
    }
}

impl fmt::Debug for CounterZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CounterZone")
            .field("size_bytes", &self.mapping.size_bytes())
            .finish_non_exhaustive()
    }
}

/// Sets that [`CounterZone::stats`] looks at.
const SAMPLED_SETS: usize = 32 << 10;

/// A tick is 2^20 ns, 1.05 ms. 40 bits of them are 36 years from the zone's making.
const TICK_SHIFT: u32 = 20;

const MAGIC: u64 = u64::from_be_bytes(*b"castlnGz");
/// Version of the layout of header and sets.
const VERSION: u64 = 1;
const KIND: u64 = u64::from_be_bytes(*b"counter ");

fn header<'a>(mapping: &'a Mapping, zone: &str) -> Result<&'a CounterHeader, ZoneError> {
    if u64::try_from(mapping.size_bytes()).is_ok_and(|size| size < CounterZone::MIN_BYTES) {
        return Err(damaged(zone, "smaller than any counter zone"));
    }
    let header = mapping.header();
    header.ok_or_else(|| damaged(zone, "no header"))
}

fn io_error(zone: &str, doing: &'static str, cause: Errno) -> ZoneError {
    ZoneError::Io {
        zone: zone.to_owned(),
        doing,
        cause: cause.into(),
    }
}

fn damaged(zone: &str, what: &str) -> ZoneError {
    ZoneError::Damaged {
        zone: zone.to_owned(),
        what: what.to_owned(),
    }
}

fn mismatch(
    zone: &str,
    what: &'static str,
    found: impl ToString,
    expected: impl ToString,
) -> ZoneError {
    ZoneError::Mismatch {
        zone: zone.to_owned(),
        what,
        found: found.to_string(),
        expected: expected.to_string(),
    }
}
