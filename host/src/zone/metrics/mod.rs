//! Storage of metrics: records that are only ever added, and for each process a row of values of its own.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use siphasher::sip128::SipHasher13;

use super::ZoneError;
use super::headers::MetricsHeader;
use super::raw::Mapping;

#[cfg(test)]
mod tests;

/// Records and rows of values in memory that all processes map.
///
/// A record has a kind, a text, which together are its name, and a number of *cells*: its values, at the same place in
/// every row. A row belongs to one process at a time, which alone writes to it: its values need no contended
/// instruction, and they stay when it dies. What the kinds and the values mean is the caller's business.
///
/// Records are never removed. A process that is killed while it adds one leaves some unused room, and holds nobody up:
/// a record is written whole before a compare-and-swap makes it known, and a place in the index that was claimed for
/// one is taken over when nothing comes of it.
///
/// Memory: 208 to 224 bytes for each cell that there may be, taken at once, and 8 more in each row, taken when the row
/// is.
pub struct MetricsZone {
    mapping: Mapping,
    seed: [u8; 16],
    layout: Layout,
    /// Next nonce; its start at random tells this process's claims from others'.
    nonce: AtomicU64,
}

/// A record that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// First word of the record in the heap.
    at: usize,
    pub first_cell: usize,
    pub cells: usize,
}

/// Sizes of the parts, in words of 8 bytes.
#[derive(Clone, Copy)]
struct Layout {
    /// Values in a row.
    cells: usize,
    /// Places in the index; a power of two.
    slots: usize,
    /// Room for records.
    heap: usize,
}

impl MetricsZone {
    /// How many cells a zone may have.
    pub const MIN_CELLS: u32 = 256;
    pub const MAX_CELLS: u32 = 256 * 1024;

    /// Processes that can have a row at the same time.
    pub const ROWS: u32 = 2048;

    /// Makes a zone with room for so many cells, rounded up to a multiple of 512. Fails when memory does not suffice.
    pub fn create(cells: u32) -> Result<Self, ZoneError> {
        let layout = Layout::for_cells(cells);
        let mapping = Mapping::create_sparse("castling:metrics", layout.size_bytes())
            .and_then(|mapping| {
                mapping
                    .take(0, layout.row_offset_bytes(0))
                    .map(|()| mapping)
            })
            .map_err(|cause| io_error("making it", cause))?;
        let mut seed = [0; 16];
        getrandom(&mut seed, GetRandomFlags::empty())
            .map_err(|cause| io_error("random seed", cause))?;
        let words = u128::from_ne_bytes(seed);
        let header = header(&mapping)?;
        header.version.store(VERSION, Relaxed);
        header.cells.store(layout.cells as u64, Relaxed);
        header.seed[0].store(words as u64, Relaxed);
        header.seed[1].store((words >> 64) as u64, Relaxed);
        header.magic.store(MAGIC, Relaxed);
        Self::over(mapping, seed, layout)
    }

    /// Opens a zone that the master has made, by the descriptor that came from it.
    pub fn open(file: OwnedFd, cells: u32) -> Result<Self, ZoneError> {
        let mapping = Mapping::open(file).map_err(|cause| io_error("mapping it", cause))?;
        let layout = Layout::for_cells(cells);
        if mapping.size_bytes() != layout.size_bytes() {
            return Err(ZoneError::mismatch(
                ZONE,
                "size of the file",
                mapping.size_bytes() as u64,
                layout.size_bytes() as u64,
            ));
        }
        let header = header(&mapping)?;
        for (what, found, expected) in [
            ("mark", &header.magic, MAGIC),
            ("version", &header.version, VERSION),
            ("size", &header.cells, layout.cells as u64),
        ] {
            let found = found.load(Relaxed);
            if found != expected {
                return Err(ZoneError::mismatch(ZONE, what, found, expected));
            }
        }
        let [low, high] = header
            .seed
            .each_ref()
            .map(|word| u128::from(word.load(Relaxed)));
        Self::over(mapping, (high << 64 | low).to_ne_bytes(), layout)
    }

    fn over(mapping: Mapping, seed: [u8; 16], layout: Layout) -> Result<Self, ZoneError> {
        let mut nonce = [0; 8];
        getrandom(&mut nonce, GetRandomFlags::empty())
            .map_err(|cause| io_error("random seed", cause))?;
        Ok(Self {
            mapping,
            seed,
            layout,
            nonce: AtomicU64::new(u64::from_ne_bytes(nonce)),
        })
    }

    /// Descriptor that a worker inherits and opens.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.mapping.descriptor()
    }

    /// The record of this kind, text and number of cells, if it is there.
    pub fn find(&self, kind: u8, text: &[u8], cells: u16) -> Option<Record> {
        match self.probe(&MetricName { kind, text, cells }, false) {
            Probed::Found(record) => Some(record),
            Probed::Vacant(..) | Probed::Crowded => None,
        }
    }

    /// Finds the record or adds it; also tells whether this call added it. None when there is no room for it, which
    /// [`MetricsZone::refused`] counts, or the text is longer than 65535 bytes.
    pub fn add(&self, kind: u8, text: &[u8], cells: u16) -> Option<(Record, bool)> {
        let name = MetricName { kind, text, cells };
        let tag = self.hash(&name) & TAG;
        let nonce = self.nonce.fetch_add(1, Relaxed) & (CLAIM - 1);
        let claim = tag | CLAIM | nonce;
        loop {
            let (slot, seen) = match self.probe(&name, true) {
                Probed::Found(record) => return Some((record, false)),
                Probed::Vacant(slot, seen) => (slot, seen),
                Probed::Crowded => break,
            };
            // Room is looked for before a slot is claimed, which stays claimed when nothing comes of it.
            if !self.has_room(&name) {
                break;
            }
            // Another process was quicker and may be adding the same record: look again.
            if slot.compare_exchange(seen, claim, AcqRel, Relaxed).is_err() {
                continue;
            }
            let Some(record) = self.write(&name) else {
                // The slot must not be vacant again: others may have passed over it.
                let _ = slot.compare_exchange(claim, CLAIM, Relaxed, Relaxed);
                break;
            };
            let entry = tag | (record.at as u64 + 1);
            if slot
                .compare_exchange(claim, entry, Release, Relaxed)
                .is_ok()
            {
                return Some((record, true));
            }
            // This process was so slow that it was taken for dead: the record that it wrote is lost room.
        }
        if let Some(header) = self.header() {
            header.refused.fetch_add(1, Relaxed);
        }
        None
    }

    /// A word of the record's that any process may use as it likes; 0 at first.
    pub fn note(&self, record: Record) -> Option<&AtomicU64> {
        self.heap().get(record.at + 1)
    }

    /// Calls `see` with kind, text and record of all there are, in no order.
    pub fn for_each(&self, mut see: impl FnMut(u8, &[u8], Record)) {
        let mut text = Vec::new();
        for slot in self.slots() {
            let Some((record, head)) = self.record_at(slot.load(Acquire)) else {
                continue;
            };
            text.clear();
            for word in self.text_words(record, head) {
                text.extend_from_slice(&word.load(Relaxed).to_ne_bytes());
            }
            text.truncate(head.text_bytes);
            see(head.kind, &text, record);
        }
    }

    /// Takes memory for a row, whose values are what they were. Only the master's bookkeeping keeps two processes from
    /// having the same one. Fails when memory does not suffice.
    pub fn take_row(&self, row: u32) -> Result<(), ZoneError> {
        if row >= Self::ROWS {
            return Err(io_error("taking a row", Errno::INVAL));
        }
        self.mapping
            .take(self.layout.row_offset_bytes(row), self.layout.cells * 8)
            .map_err(|cause| io_error("taking a row", cause))?;
        if let Some(header) = self.header() {
            header.rows.fetch_max(u64::from(row) + 1, Relaxed);
        }
        Ok(())
    }

    /// The values of a row that was taken at some time. One process writes to them, any may read.
    pub fn row(&self, row: u32) -> Option<&[AtomicU64]> {
        if row >= self.rows() {
            return None;
        }
        self.mapping
            .table(self.layout.row_offset_bytes(row), self.layout.cells)
    }

    /// Rows that were taken at some time: those below this number.
    pub fn rows(&self) -> u32 {
        let rows = self.header().map_or(0, |header| header.rows.load(Relaxed));
        u32::try_from(rows).unwrap_or(Self::ROWS).min(Self::ROWS)
    }

    /// Cells that a row has.
    pub fn cells(&self) -> usize {
        self.layout.cells
    }

    /// Cells that records have.
    pub fn cells_used(&self) -> usize {
        let cursor = self.cursor().map_or(0, |cursor| cursor.load(Relaxed));
        ((cursor >> 32) as usize).min(self.layout.cells)
    }

    /// Records that there was no room for, since the zone was made.
    pub fn refused(&self) -> u64 {
        self.header()
            .map_or(0, |header| header.refused.load(Relaxed))
    }

    /// Walks the places that the record may have. Few steps: at most half of them are in use but for records without
    /// cells, and the hash is keyed, so nobody can choose names that meet.
    ///
    /// `patient`: waits for one who is adding what may be the same, for as long as that takes if he lives.
    fn probe(&self, name: &MetricName<'_>, patient: bool) -> Probed<'_> {
        let hash = self.hash(name);
        let slots = self.slots();
        for step in 0..LONGEST_PROBE {
            let idx = (hash as usize).wrapping_add(step) & (self.layout.slots - 1);
            let Some(slot) = slots.get(idx) else {
                return Probed::Crowded;
            };
            let mut entry = slot.load(Acquire);
            if entry == 0 {
                return Probed::Vacant(slot, entry);
            }
            if entry & TAG != hash & TAG {
                continue;
            }
            if patient && entry & CLAIM != 0 && entry & !TAG != CLAIM {
                let claimed = entry;
                for turn in 0..LONGEST_WAIT {
                    if turn < 100 {
                        std::hint::spin_loop();
                    } else {
                        std::thread::yield_now();
                    }
                    entry = slot.load(Acquire);
                    if entry != claimed {
                        break;
                    }
                }
                if entry == claimed {
                    return Probed::Vacant(slot, claimed);
                }
            }
            if let Some((record, head)) = self.record_at(entry)
                && self.is(record, head, name)
            {
                return Probed::Found(record);
            }
        }
        Probed::Crowded
    }

    fn is(&self, record: Record, head: Head, name: &MetricName<'_>) -> bool {
        head.kind == name.kind
            && record.cells == usize::from(name.cells)
            && head.text_bytes == name.text.len()
            && self
                .text_words(record, head)
                .iter()
                .zip(name.text_words())
                .all(|(found, expected)| found.load(Relaxed) == expected)
    }

    /// Whether there is room for the record; others may be quicker to take it.
    fn has_room(&self, name: &MetricName<'_>) -> bool {
        let cursor = self.cursor().map(|cursor| cursor.load(Relaxed));
        cursor.is_some_and(|cursor| self.after(cursor, name).is_some())
    }

    /// Cursor once the record has room. None: it does not fit.
    fn after(&self, cursor: u64, name: &MetricName<'_>) -> Option<u64> {
        u16::try_from(name.text.len()).ok()?;
        let (words, cells) = (name.words(), usize::from(name.cells));
        let (used_words, used_cells) = ((cursor & 0xffff_ffff) as usize, (cursor >> 32) as usize);
        let fits =
            used_words + words <= self.layout.heap && used_cells + cells <= self.layout.cells;
        fits.then(|| cursor + (words as u64) + ((cells as u64) << 32))
    }

    /// Takes room and writes the record, which nobody knows of yet.
    fn write(&self, name: &MetricName<'_>) -> Option<Record> {
        let text_bytes = u16::try_from(name.text.len()).ok()?;
        let (words, cells) = (name.words(), usize::from(name.cells));
        let before = self
            .cursor()?
            .try_update(AcqRel, Relaxed, |cursor| self.after(cursor, name))
            .ok()?;
        let record = Record {
            at: (before & 0xffff_ffff) as usize,
            first_cell: (before >> 32) as usize,
            cells,
        };
        let room = self.heap().get(record.at..record.at + words)?;
        let head = (record.first_cell as u64) << 32
            | u64::from(text_bytes) << 16
            | u64::from(name.kind) << 8;
        room[0].store(head, Relaxed);
        room[1].store(0, Relaxed);
        room[2].store(cells as u64, Relaxed);
        for (word, text) in room[HEAD_WORDS..].iter().zip(name.text_words()) {
            word.store(text, Relaxed);
        }
        Some(record)
    }

    /// Record that a slot points at. None for an empty or claimed slot, and where the memory holds nothing that could
    /// be one.
    fn record_at(&self, entry: u64) -> Option<(Record, Head)> {
        if entry & CLAIM != 0 {
            return None;
        }
        let at = ((entry & !TAG) as usize).checked_sub(1)?;
        let head = self.heap().get(at..at + HEAD_WORDS)?;
        let (first, cells) = (head[0].load(Relaxed), head[2].load(Relaxed) as usize);
        let record = Record {
            at,
            first_cell: (first >> 32) as usize,
            cells,
        };
        let head = Head {
            text_bytes: (first >> 16 & 0xffff) as usize,
            kind: (first >> 8) as u8,
        };
        (record.first_cell.checked_add(cells)? <= self.layout.cells).then_some((record, head))
    }

    fn text_words(&self, record: Record, head: Head) -> &[AtomicU64] {
        let start = record.at + HEAD_WORDS;
        self.heap()
            .get(start..start + head.text_bytes.div_ceil(8))
            .unwrap_or_default()
    }

    fn hash(&self, name: &MetricName<'_>) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.seed);
        std::hash::Hasher::write(&mut hasher, &[name.kind]);
        std::hash::Hasher::write(&mut hasher, &name.cells.to_ne_bytes());
        std::hash::Hasher::write(&mut hasher, name.text);
        std::hash::Hasher::finish(&hasher)
    }

    fn header(&self) -> Option<&MetricsHeader> {
        self.mapping.header()
    }

    /// Words of the heap that are taken, and above them cells that are.
    fn cursor(&self) -> Option<&AtomicU64> {
        self.header().map(|header| &header.cursor)
    }

    fn slots(&self) -> &[AtomicU64] {
        self.mapping
            .table(size_of::<MetricsHeader>(), self.layout.slots)
            .unwrap_or_default()
    }

    fn heap(&self) -> &[AtomicU64] {
        self.mapping
            .table(
                size_of::<MetricsHeader>() + self.layout.slots * 8,
                self.layout.heap,
            )
            .unwrap_or_default()
    }
}

impl fmt::Debug for MetricsZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsZone")
            .field("cells", &self.layout.cells)
            .finish_non_exhaustive()
    }
}

/// Name of a record.
struct MetricName<'a> {
    kind: u8,
    text: &'a [u8],
    cells: u16,
}

impl MetricName<'_> {
    /// Words of the heap that its record takes.
    fn words(&self) -> usize {
        HEAD_WORDS + self.text.len().div_ceil(8)
    }

    /// The text, filled up with zeroes.
    fn text_words(&self) -> impl Iterator<Item = u64> {
        self.text.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        })
    }
}

/// The first words of a record say this, besides what a [`Record`] has.
#[derive(Clone, Copy)]
struct Head {
    kind: u8,
    text_bytes: usize,
}

enum Probed<'a> {
    Found(Record),
    /// The record is not there and would go into this slot, in the place of this entry: 0, or the claim of a process
    /// that must be dead.
    Vacant(&'a AtomicU64, u64),
    /// The record is not there, and no place for it is near.
    Crowded,
}

impl Layout {
    fn for_cells(cells: u32) -> Self {
        let cells = cells.clamp(MetricsZone::MIN_CELLS, MetricsZone::MAX_CELLS) as usize;
        // A row has its pages to itself.
        let cells = cells.next_multiple_of(512);
        Self {
            cells,
            slots: (2 * cells).next_power_of_two(),
            heap: cells * HEAP_WORDS_A_CELL,
        }
    }

    fn row_offset_bytes(self, row: u32) -> usize {
        let words = self.slots + self.heap + row as usize * self.cells;
        size_of::<MetricsHeader>() + words * 8
    }

    fn size_bytes(self) -> usize {
        self.row_offset_bytes(MetricsZone::ROWS)
    }
}

const MAGIC: u64 = u64::from_be_bytes(*b"castlngM");
/// Version of the layout of header, records and rows.
const VERSION: u64 = 1;

/// First cell, length of the text and kind; the note; cells.
const HEAD_WORDS: usize = 3;

/// A series of a gateway's or plugin's metric takes 12 to 20 words.
const HEAP_WORDS_A_CELL: usize = 24;

/// The upper half of the hash, in a slot; below it is where the record lies, counted from 1.
const TAG: u64 = 0xffff_ffff_0000_0000;

/// Bit in a slot, below the tag: somebody is writing the record that will be there, or (without a number below) has
/// found no room for it.
const CLAIM: u64 = 1 << 31;

const LONGEST_PROBE: usize = 128;

/// Turns to wait for one who is adding a record, which takes less than a microsecond. The later ones yield.
const LONGEST_WAIT: u32 = 2000;

fn header(mapping: &Mapping) -> Result<&MetricsHeader, ZoneError> {
    let header = mapping.header();
    header.ok_or_else(|| ZoneError::Damaged {
        zone: ZONE.to_owned(),
        what: "no header".to_owned(),
    })
}

fn io_error(doing: &'static str, cause: Errno) -> ZoneError {
    ZoneError::io(ZONE, doing, cause)
}

const ZONE: &str = "of the metrics";
