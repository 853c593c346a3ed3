//! Messages to all workers: a ring that the newest messages are in.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use rustix::io::Errno;
use siphasher::sip::SipHasher13;

use super::headers::{TopicHeader, name_words};
use super::raw::Mapping;
use super::{ZoneError, check_name, check_size};

mod handle;
#[cfg(test)]
mod tests;

pub use handle::Topic;

/// A ring of slots in memory that all processes map, each with room for the longest message. Who publishes takes the next number and
/// writes into its slot; who reads goes from number to number, at a pace of its own, and finds out when it was too slow.
///
/// Nobody waits for anybody: a writer that is killed in the middle leaves a slot that is passed over, and two that meet in
/// one slot (one has slept for a whole round) are told by the message's checksum.
pub struct TopicZone {
    name: String,
    mapping: Mapping,
    size_bytes: u64,
    slots: u64,
}

/// Result of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Message(Vec<u8>),
    /// Messages that are gone, or were never written to their end.
    Lost(u64),
    /// The next one is written now.
    Unfinished,
    /// There is nothing more.
    End,
}

impl TopicZone {
    /// Smallest and largest size, in bytes.
    pub const MIN_BYTES: u64 = 64 << 10;
    pub const MAX_BYTES: u64 = 64 << 20;

    /// Bytes that a message takes, however long it is.
    pub const SLOT_BYTES: u64 = SLOT_WORDS as u64 * 8;

    /// Longest message, bytes.
    pub const MESSAGE_LIMIT_BYTES: usize = 4096;

    /// Makes a topic without messages. `size_bytes` of memory are taken at once and never more.
    pub fn create(name: &str, size_bytes: u64) -> Result<Self, ZoneError> {
        check_name(name)?;
        check_size(name, size_bytes, Self::MIN_BYTES, Self::MAX_BYTES)?;
        let io = |doing| move |cause: Errno| ZoneError::io(name, doing, cause);
        let size = usize::try_from(size_bytes).map_err(|_| io("size")(Errno::FBIG))?;
        let mapping = Mapping::create(&format!("castling:{name}"), size);
        let mapping = mapping.map_err(io("making it"))?;
        let header = header(&mapping, name)?;
        header.version.store(VERSION, Relaxed);
        header.size_bytes.store(size_bytes, Relaxed);
        for (word, bytes) in header.name.iter().zip(name_words(name)) {
            word.store(bytes, Relaxed);
        }
        header.magic.store(MAGIC, Relaxed);
        Self::over(mapping, name, size_bytes)
    }

    /// Opens a topic that a master has made, by the descriptor that came from it.
    pub fn open(file: OwnedFd, name: &str, size_bytes: u64) -> Result<Self, ZoneError> {
        check_name(name)?;
        let mapping = Mapping::open(file);
        let mapping = mapping.map_err(|cause| ZoneError::io(name, "mapping it", cause))?;
        Self::over(mapping, name, size_bytes)
    }

    fn over(mapping: Mapping, name: &str, size_bytes: u64) -> Result<Self, ZoneError> {
        let header = header(&mapping, name)?;
        for (what, found, expected) in [
            ("mark", header.magic.load(Relaxed), MAGIC),
            ("version", header.version.load(Relaxed), VERSION),
            ("size", header.size_bytes.load(Relaxed), size_bytes),
            ("size of the file", mapping.size_bytes() as u64, size_bytes),
        ] {
            if found != expected {
                return Err(ZoneError::mismatch(name, what, found, expected));
            }
        }
        let found_name = header.name.iter().map(|word| word.load(Relaxed));
        if !found_name.eq(name_words(name)) {
            return Err(ZoneError::Mismatch {
                zone: name.to_owned(),
                what: "name",
                found: "another".to_owned(),
                expected: name.to_owned(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            mapping,
            size_bytes,
            slots: (size_bytes - HEADER_BYTES as u64) / (SLOT_WORDS * 8) as u64,
        })
    }

    /// Descriptor that a worker inherits and opens.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.mapping.descriptor()
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Number of the message that is published next: where a reader begins.
    pub fn end(&self) -> u64 {
        let header = self.mapping.header::<TopicHeader>();
        header.map_or(0, |header| header.next.load(Acquire))
    }

    /// Messages that the ring has room for.
    pub fn slots(&self) -> u64 {
        self.slots
    }

    /// Publishes a message. Fails when it is too long.
    pub fn publish(&self, message: &[u8]) -> Result<(), ZoneError> {
        if message.len() > Self::MESSAGE_LIMIT_BYTES {
            return Err(ZoneError::ValueTooLarge {
                size_bytes: message.len(),
                limit_bytes: Self::MESSAGE_LIMIT_BYTES,
            });
        }
        let header = header(&self.mapping, &self.name)?;
        let number = header.next.fetch_add(1, Relaxed);
        let slot = self.slot(number);
        let [state, len, sum, words @ ..] = slot else {
            return Ok(()); // not reached: slots have words
        };
        let begun = state.fetch_update(Relaxed, Relaxed, |found| {
            (found < written(number)).then_some(unfinished(number))
        });
        if begun.is_err() {
            // Another one is there: this writer has slept for a whole round, and readers count the message as lost.
            return Ok(());
        }
        // No word of the message is written before the state says so.
        fence(Release);
        len.store(message.len() as u64, Relaxed);
        sum.store(checksum(number, message), Relaxed);
        for (word, bytes) in words.iter().zip(message.chunks(8)) {
            let mut room = [0; 8];
            room[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(room), Relaxed);
        }
        let _overtaken =
            state.compare_exchange(unfinished(number), written(number), Release, Relaxed);
        Ok(())
    }

    /// Reads the message of this number; the reader goes on behind it.
    pub fn read(&self, at: &mut u64) -> Next {
        let end = self.end();
        if *at >= end {
            return Next::End;
        }
        let first = end.saturating_sub(self.slots);
        if *at < first {
            let lost = first - *at;
            *at = first;
            return Next::Lost(lost);
        }
        let number = *at;
        let [state, len, sum, words @ ..] = self.slot(number) else {
            return Next::End;
        };
        let found = state.load(Acquire);
        if found < written(number) {
            return Next::Unfinished;
        }
        *at += 1;
        if found > written(number) {
            return Next::Lost(1);
        }
        let len = usize::try_from(len.load(Relaxed)).unwrap_or(usize::MAX);
        let len = len.min(Self::MESSAGE_LIMIT_BYTES);
        let mut message = Vec::with_capacity(len.next_multiple_of(8));
        for word in &words[..len.div_ceil(8)] {
            message.extend_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        message.truncate(len);
        let sum = sum.load(Relaxed);
        fence(Acquire);
        let is_whole = state.load(Relaxed) == found && sum == checksum(number, &message);
        match is_whole {
            true => Next::Message(message),
            false => Next::Lost(1),
        }
    }

    fn slot(&self, number: u64) -> &[AtomicU64] {
        let place = usize::try_from(number % self.slots).unwrap_or(0);
        let slot = self
            .mapping
            .table(HEADER_BYTES + place * SLOT_WORDS * 8, SLOT_WORDS);
        slot.unwrap_or_default()
    }
}

/// State of a slot that the message of this number is written into; less than this: an earlier one's.
fn unfinished(number: u64) -> u64 {
    number * 2 + 1
}

fn written(number: u64) -> u64 {
    number * 2 + 2
}

fn checksum(number: u64, message: &[u8]) -> u64 {
    SipHasher13::new_with_keys(number, message.len() as u64).hash(message)
}

impl fmt::Debug for TopicZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicZone")
            .field("name", &self.name)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

const MAGIC: u64 = u64::from_be_bytes(*b"castlngT");
/// Version of the layout and of what the words mean.
const VERSION: u64 = 1;

const HEADER_BYTES: usize = size_of::<TopicHeader>();
/// State, length and checksum, and the longest message.
const SLOT_WORDS: usize = 3 + TopicZone::MESSAGE_LIMIT_BYTES / 8;

fn header<'a>(mapping: &'a Mapping, zone: &str) -> Result<&'a TopicHeader, ZoneError> {
    mapping.header().ok_or_else(|| ZoneError::Damaged {
        zone: zone.to_owned(),
        what: "no header".to_owned(),
    })
}
