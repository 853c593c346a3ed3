//! Permits by key, of which there are only so many at a time over all workers: what limits concurrency.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use portable_atomic::AtomicU128;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use siphasher::sip128::SipHasher13;

use super::headers::{GaugeHeader, ROW_WORDS, name_words};
use super::raw::Mapping;
use super::{ZoneError, check_name, check_size};
use cell::{Cell, Word};

pub(super) mod cell;
mod permit;
#[cfg(test)]
mod tests;

pub use permit::{Gauge, Permit};

/// Cells of keys, and for each worker a row of counts, in memory that all processes map.
///
/// A cell says whose key it is; how many permits of the key are out is the sum of the counts at its place in all rows. A row
/// belongs to one worker, which alone writes to it, and the master clears it when the worker has ended, however it did: so a
/// worker that is killed leaves nothing, whatever it was in the middle of.
///
/// To enter, a worker counts one more in its row and then changes the cell's word, from what it was when the sum was taken:
/// so of two that take the last permit, one finds the word changed. No step waits for another process.
///
/// Keys are known by 64 bits of a hash keyed with the zone's secret, within a set of [`WAYS`] cells, which its place is
/// chosen by. A cell whose key has no permit out is free for any key. With four times as many cells as keys in use at
/// once, no set is ever found full, in practice; with twice as many, 1 key in 10,000 finds it so.
pub struct GaugeZone {
    name: String,
    mapping: Mapping,
    seed: [u8; 16],
    size_bytes: u64,
    cells: usize,
}

/// Figures of a zone for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GaugeStats {
    /// Keys that have a permit out.
    pub keys: usize,
    /// Permits out.
    pub permits: u64,
    /// Entries given up because of contention, since the zone was made.
    pub contended: u64,
}

/// Place of a key.
#[derive(Clone, Copy)]
struct Place {
    /// First cell of its set.
    set: usize,
    /// Cell of the set that it is looked for first.
    start: usize,
    tag: u64,
}

/// Result of one attempt to enter.
enum Attempt {
    Entered(u32),
    /// Permits are out, as many as there may be.
    Refused,
    /// All cells of the set have other keys' permits.
    Full,
    /// Another process was quicker.
    Raced,
}

impl GaugeZone {
    /// Smallest and largest size, in bytes.
    pub const MIN_BYTES: u64 = 4 << 10;
    pub const MAX_BYTES: u64 = 4 << 20;

    /// Bytes that a key takes; in each worker's row it takes half as much again.
    pub const KEY_BYTES: u64 = size_of::<AtomicU128>() as u64;

    /// Workers that can have a row at the same time.
    const ROWS: u32 = super::PeersZone::ROWS;

    /// Makes a zone without permits. Fails on a bad name or size, and when memory does not suffice.
    pub fn create(name: &str, size_bytes: u64) -> Result<Self, ZoneError> {
        check_name(name)?;
        check_size(name, size_bytes, Self::MIN_BYTES, Self::MAX_BYTES)?;
        let io = |doing| move |cause: Errno| ZoneError::io(name, doing, cause);
        let cells = cells_of(size_bytes);
        let mapping = Mapping::create_sparse(&format!("castling:{name}"), file_bytes(cells))
            .and_then(|mapping| {
                mapping
                    .take(0, row_offset_bytes(cells, 0))
                    .map(|()| mapping)
            })
            .map_err(io("making it"))?;
        let mut seed = [0; 16];
        getrandom(&mut seed, GetRandomFlags::empty()).map_err(io("random seed"))?;
        let header = header(&mapping, name)?;
        let [low, high] = halves(u128::from_ne_bytes(seed));
        header.seed[0].store(low, Relaxed);
        header.seed[1].store(high, Relaxed);
        header.version.store(VERSION, Relaxed);
        header.size_bytes.store(size_bytes, Relaxed);
        for (word, bytes) in header.name.iter().zip(name_words(name)) {
            word.store(bytes, Relaxed);
        }
        header.magic.store(MAGIC, Relaxed);
        Self::over(mapping, name, size_bytes)
    }

    /// Opens a zone that a master has made, by the descriptor that came from it.
    ///
    /// Fails when it was made under another name, size or version, and when it is no gauge zone.
    pub fn open(file: OwnedFd, name: &str, size_bytes: u64) -> Result<Self, ZoneError> {
        check_name(name)?;
        let mapping = Mapping::open(file);
        let mapping = mapping.map_err(|cause| ZoneError::io(name, "mapping it", cause))?;
        Self::over(mapping, name, size_bytes)
    }

    fn over(mapping: Mapping, name: &str, size_bytes: u64) -> Result<Self, ZoneError> {
        if !AtomicU128::is_lock_free() {
            return Err(ZoneError::Unsupported(name.to_owned()));
        }
        let header = header(&mapping, name)?;
        for (what, found, expected) in [
            ("mark", header.magic.load(Relaxed), MAGIC),
            ("version", header.version.load(Relaxed), VERSION),
            ("size", header.size_bytes.load(Relaxed), size_bytes),
            (
                "size of the file",
                mapping.size_bytes() as u64,
                file_bytes(cells_of(size_bytes)) as u64,
            ),
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
        let [low, high] = header.seed.each_ref().map(|word| word.load(Relaxed));
        let seed = (u128::from(high) << 64 | u128::from(low)).to_ne_bytes();
        Ok(Self {
            name: name.to_owned(),
            mapping,
            seed,
            size_bytes,
            cells: cells_of(size_bytes),
        })
    }

    /// Descriptor that a worker inherits and opens.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.mapping.descriptor()
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Takes memory for a row, which is cleared. The master's alone. Fails when memory does not suffice.
    pub fn take_row(&self, row: u32) -> Result<(), ZoneError> {
        let io = |cause| ZoneError::io(&self.name, "taking a row", cause);
        if row >= Self::ROWS {
            return Err(io(Errno::INVAL));
        }
        let taken = self
            .mapping
            .take(row_offset_bytes(self.cells, row), self.cells * WORD_BYTES);
        taken.map_err(io)?;
        if let Some((word, bit)) = self.taken_bit(row) {
            word.fetch_or(bit, SeqCst);
        }
        self.clear_row(row);
        Ok(())
    }

    /// Gives back the permits of a worker that has ended.
    pub fn clear_row(&self, row: u32) {
        for word in self.row(row).unwrap_or_default() {
            word.store(0, SeqCst);
        }
    }

    /// Word and bit that say whether this row was taken; `None`: there may be no such row.
    fn taken_bit(&self, row: u32) -> Option<(&AtomicU64, u64)> {
        let word = self.taken().get(row as usize / 64)?;
        Some((word, 1 << (row % 64)))
    }

    fn taken(&self) -> &[AtomicU64] {
        let header = self.mapping.header::<GaugeHeader>();
        header.map_or(&[], |header| &header.taken)
    }

    /// Takes one of the key's permits for the worker of this row, of which `max` may be out. Returns its cell; `None`: so many are
    /// out. Fails when there is no room for the key.
    fn enter(&self, row: u32, key: &[u8], max: u64) -> Result<Option<u32>, ZoneError> {
        let counts = self.row(row).ok_or_else(|| self.no_row())?;
        let place = self.place(key);
        for _ in 0..ATTEMPTS {
            match self.attempt(counts, place, max) {
                Attempt::Entered(cell) => return Ok(Some(cell)),
                Attempt::Refused => return Ok(None),
                Attempt::Full => return Err(ZoneError::Full(self.name.clone())),
                Attempt::Raced => std::hint::spin_loop(),
            }
        }
        if let Some(header) = self.mapping.header::<GaugeHeader>() {
            header.contended.fetch_add(1, Relaxed);
        }
        Err(ZoneError::Contended(self.name.clone()))
    }

    fn attempt(&self, counts: &[AtomicU64], place: Place, max: u64) -> Attempt {
        let cells = self.cells();
        if let Some((cell, word)) = self.find(cells, place) {
            if self.sum(cell) >= max {
                return Attempt::Refused;
            }
            return match count_in(cells, counts, cell, word, word.next()) {
                true => Attempt::Entered(number(cell)),
                false => Attempt::Raced,
            };
        }
        let Some((cell, word)) = self.free(cells, place) else {
            return Attempt::Full;
        };
        let claimed = word.claimed(place.tag);
        if !count_in(cells, counts, cell, word, claimed) {
            return Attempt::Raced;
        }
        match settle(cells, place, cell, claimed) {
            true => Attempt::Entered(number(cell)),
            false => {
                count_out(counts, cell);
                Attempt::Raced
            }
        }
    }

    /// Gives a permit back.
    fn leave(&self, row: u32, cell: u32) {
        if let Some(counts) = self.row(row) {
            count_out(counts, cell as usize);
        }
    }

    /// Permits of the key that are out.
    pub fn count(&self, key: &[u8]) -> u64 {
        let found = self.find(self.cells(), self.place(key));
        found.map_or(0, |(cell, _)| self.sum(cell))
    }

    /// Cell of the key; while one of its permits is out, it is the key's.
    fn cell_of(&self, key: &[u8]) -> Option<u32> {
        let found = self.find(self.cells(), self.place(key));
        found.map(|(cell, _)| number(cell))
    }

    /// Reads all of the zone, which takes a millisecond or two where it is large. For the status page.
    pub fn stats(&self) -> GaugeStats {
        let mut sums = vec![0_u64; self.cells];
        for counts in self.rows() {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum = sum.saturating_add(count.load(Relaxed));
            }
        }
        let header = self.mapping.header::<GaugeHeader>();
        GaugeStats {
            keys: sums.iter().filter(|sum| **sum > 0).count(),
            permits: sums.iter().fold(0, |all, sum| all.saturating_add(*sum)),
            contended: header.map_or(0, |header| header.contended.load(Relaxed)),
        }
    }

    /// The settled cell of the key, as it is now.
    fn find(&self, cells: &[Cell], place: Place) -> Option<(usize, Word)> {
        let looked_at = place.cells().map(|cell| (cell, cells[cell].load()));
        let mut looked_at = looked_at.filter(|(_, word)| word.is_settled_for(place.tag));
        looked_at.next()
    }

    /// A cell of the key's set whose key has no permit out.
    fn free(&self, cells: &[Cell], place: Place) -> Option<(usize, Word)> {
        // The word first: a permit that is taken after the sum was, changes it.
        let looked_at = place.cells().map(|cell| (cell, cells[cell].load()));
        let mut looked_at = looked_at.filter(|(cell, _)| self.sum(*cell) == 0);
        looked_at.next()
    }

    fn sum(&self, cell: usize) -> u64 {
        self.rows().fold(0, |sum, counts| {
            let count = counts.get(cell);
            sum.saturating_add(count.map_or(0, |count| count.load(SeqCst)))
        })
    }

    fn place(&self, key: &[u8]) -> Place {
        let hash = SipHasher13::new_with_key(&self.seed).hash(key);
        let sets = (self.cells / WAYS) as u64;
        // The upper half of the second word, scaled to the number of sets.
        let set = ((hash.h2 >> 32) * sets) >> 32;
        Place {
            set: set as usize * WAYS,
            start: hash.h2 as usize % WAYS,
            tag: hash.h1,
        }
    }

    fn cells(&self) -> &[Cell] {
        let cells = self.mapping.table(HEADER_BYTES, self.cells);
        cells.expect("the file's size was checked when it was opened")
    }

    /// The row, if it was taken.
    fn row(&self, row: u32) -> Option<&[AtomicU64]> {
        let (word, bit) = self.taken_bit(row)?;
        match word.load(SeqCst) & bit {
            0 => None,
            _ => self.row_at(row),
        }
    }

    fn row_at(&self, row: u32) -> Option<&[AtomicU64]> {
        let place = row_offset_bytes(self.cells, row);
        self.mapping.table(place, self.cells)
    }

    /// Rows that were taken at some time.
    fn rows(&self) -> impl Iterator<Item = &[AtomicU64]> {
        let words = self.taken().iter().zip((0..).step_by(64));
        words.flat_map(move |(word, first)| {
            let mut bits = word.load(SeqCst);
            std::iter::from_fn(move || {
                let row = first + bits.trailing_zeros();
                // The lowest one is done with.
                let is_any = bits != 0;
                bits &= bits.wrapping_sub(1);
                is_any.then(|| self.row_at(row)).flatten()
            })
        })
    }

    fn no_row(&self) -> ZoneError {
        ZoneError::NoRow(self.name.clone())
    }
}

impl Place {
    /// Cells of the set, from the one on that the key is looked for first.
    fn cells(self) -> impl Iterator<Item = usize> {
        (0..WAYS).map(move |way| self.set + (self.start + way) % WAYS)
    }
}

/// Counts one more at the cell, if its word is still this one, which `next` then takes the place of.
fn count_in(cells: &[Cell], counts: &[AtomicU64], cell: usize, word: Word, next: Word) -> bool {
    counts[cell].fetch_add(1, SeqCst);
    let changed = cells[cell].change(word, next);
    if !changed {
        count_out(counts, cell);
    }
    changed
}

fn count_out(counts: &[AtomicU64], cell: usize) {
    // The worker of the row alone counts there, so nothing comes in between.
    let count = counts[cell].load(SeqCst);
    counts[cell].store(count.saturating_sub(1), SeqCst);
}

/// Makes a claimed cell the key's, unless another one is or comes to be. Of two that claim a cell each for the same key, at
/// least one sees the other's: it takes that one's claim away, which then cannot be settled, or gives its own up where the other is
/// settled.
fn settle(cells: &[Cell], place: Place, own: usize, claimed: Word) -> bool {
    for cell in place.cells().filter(|cell| *cell != own) {
        loop {
            let word = cells[cell].load();
            if word.is_settled_for(place.tag) {
                cells[own].change(claimed, claimed.freed());
                return false;
            }
            if !word.is_claimed_for(place.tag) || cells[cell].change(word, word.freed()) {
                break;
            }
        }
    }
    cells[own].change(claimed, claimed.settled())
}

impl fmt::Debug for GaugeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GaugeZone")
            .field("name", &self.name)
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}

/// Cells of a set.
const WAYS: usize = 32;

/// Attempts after which an entry is given up. Each failed one is another process's success.
const ATTEMPTS: usize = 256;

const MAGIC: u64 = u64::from_be_bytes(*b"castlngG");
/// Version of the layout and of what the words mean.
const VERSION: u64 = 1;

/// Each row has a bit in the header.
const _: () = assert!(GaugeZone::ROWS as usize <= 64 * ROW_WORDS);

const HEADER_BYTES: usize = size_of::<GaugeHeader>();
const WORD_BYTES: usize = size_of::<AtomicU64>();
const PAGE_BYTES: usize = 4096;

/// Whole sets of cells that have room in so many bytes.
const fn cells_of(size_bytes: u64) -> usize {
    let cells = (size_bytes / GaugeZone::KEY_BYTES) as usize;
    cells - cells % WAYS
}

/// Begin of a row: of a page, so that no two workers write to one.
const fn row_offset_bytes(cells: usize, row: u32) -> usize {
    let before =
        (HEADER_BYTES + cells * GaugeZone::KEY_BYTES as usize).next_multiple_of(PAGE_BYTES);
    before + row as usize * (cells * WORD_BYTES).next_multiple_of(PAGE_BYTES)
}

/// Address space, of which little is memory.
const fn file_bytes(cells: usize) -> usize {
    row_offset_bytes(cells, GaugeZone::ROWS)
}

fn header<'a>(mapping: &'a Mapping, zone: &str) -> Result<&'a GaugeHeader, ZoneError> {
    mapping.header().ok_or_else(|| ZoneError::Damaged {
        zone: zone.to_owned(),
        what: "no header".to_owned(),
    })
}

fn halves(word: u128) -> [u64; 2] {
    [word as u64, (word >> 64) as u64]
}

/// Cells have few enough numbers: `MAX_BYTES`.
fn number(cell: usize) -> u32 {
    u32::try_from(cell).expect("a zone has less than 2^32 cells")
}
