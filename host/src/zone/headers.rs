//! Headers at the start of each zone's shared memory.

use std::sync::atomic::AtomicU64;

use super::NAME_LIMIT_BYTES;

/// Header of a counter zone, before its sets. Its words never change once `magic` is there, but for the two counts.
#[repr(C)]
pub(super) struct CounterHeader {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU64,
    pub(super) kind: AtomicU64,
    pub(super) size_bytes: AtomicU64,
    pub(super) seed: [AtomicU64; 2],
    /// Tick 0.
    pub(super) origin_ns: AtomicU64,
    pub(super) name: [AtomicU64; NAME_WORDS],
    pub(super) evicted: AtomicU64,
    pub(super) contended: AtomicU64,
    /// Fills the last cache line.
    spare: [AtomicU64; 7],
}

const _: () = assert!(size_of::<CounterHeader>() == 3 * 64);

/// Header of a metrics zone, before its index, heap and rows; a page, so that rows begin at a page's start.
#[repr(C)]
pub(super) struct MetricsHeader {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU64,
    pub(super) cells: AtomicU64,
    pub(super) seed: [AtomicU64; 2],
    pub(super) rows: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) cursor: AtomicU64,
    /// Fills the page.
    spare: [AtomicU64; 504],
}

const _: () = assert!(size_of::<MetricsHeader>() == 4096);

/// Header of a peers' zone, before its records and rows; a page, so that rows begin at a page's start.
#[repr(C)]
pub(super) struct PeersHeader {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU64,
    /// Cells that have memory.
    pub(super) cells: AtomicU64,
    /// Rows that were taken at some time.
    pub(super) rows: AtomicU64,
    /// Fills the page.
    spare: [AtomicU64; 508],
}

const _: () = assert!(size_of::<PeersHeader>() == 4096);

/// Words with a bit for each row that there may be.
pub(super) const ROW_WORDS: usize = 32;

/// Header of a gauge zone, before its cells and rows; a page, so that rows begin at a page's start.
#[repr(C)]
pub(super) struct GaugeHeader {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU64,
    pub(super) size_bytes: AtomicU64,
    pub(super) seed: [AtomicU64; 2],
    pub(super) name: [AtomicU64; NAME_WORDS],
    /// Bits of the rows that were taken at some time. No other one has memory, and to look at one would take some.
    pub(super) taken: [AtomicU64; ROW_WORDS],
    pub(super) contended: AtomicU64,
    /// Fills the page.
    spare: [AtomicU64; 498 - ROW_WORDS],
}

const _: () = assert!(size_of::<GaugeHeader>() == 4096);

/// Header of a topic, before its slots; a page.
#[repr(C)]
pub(super) struct TopicHeader {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU64,
    pub(super) size_bytes: AtomicU64,
    pub(super) name: [AtomicU64; NAME_WORDS],
    /// Number of the message that is published next.
    pub(super) next: AtomicU64,
    /// Fills the page.
    spare: [AtomicU64; 500],
}

const _: () = assert!(size_of::<TopicHeader>() == 4096);

/// Words of a zone's name, padded with zero bytes.
pub(super) const NAME_WORDS: usize = NAME_LIMIT_BYTES / 8;

/// A zone's name as the words of a header.
pub(super) fn name_words(name: &str) -> impl Iterator<Item = u64> {
    let bytes = name.as_bytes();
    (0..NAME_WORDS).map(|word| {
        let byte = |idx: usize| bytes.get(word * 8 + idx).copied().unwrap_or(0);
        u64::from_ne_bytes(std::array::from_fn(byte))
    })
}
