//! Storage of peers' state: for each peer a record that all processes read and write, and for each worker a row of words
//! of its own.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use rustix::io::Errno;

use super::ZoneError;
use super::headers::PeersHeader;
use super::raw::{Mapping, Pinned};

mod record;
mod shared_count;
#[cfg(test)]
mod tests;

pub use record::PeerRecord;
pub use shared_count::{Half, SharedCount};

/// Records and rows in memory that all processes map.
///
/// A *cell* is the place of one peer, or of one upstream, by number: a record, and a word in each row. Records are for
/// what outlives a worker (a check's result, an ejection, an operator's order); many processes change them, by atomic
/// instructions. A row belongs to one worker at a time, which alone writes to it: what is under way there, which ends
/// with the worker. The master gives out cells and rows, and clears what it gives to another.
///
/// Memory: 128 bytes for each cell and 8 more in each row, taken for 512 cells at a time.
pub struct PeersZone {
    mapping: Rc<Mapping>,
}

/// Figures of one cell in one row, or the sum of all rows. The halves of a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// A peer's requests under way; an upstream's requests that wait for a peer; the lower count of a cell of limits.
    pub active: u32,
    /// A peer's open connections; the upper count of a cell of limits.
    pub connections: u32,
}

impl PeersZone {
    /// Cells that there may be.
    pub const CELLS: u32 = 65_536;

    /// Workers that can have a row at the same time, and the rows of their like in other memories.
    pub const ROWS: u32 = super::MetricsZone::ROWS;

    /// Makes a zone without cells and rows. Fails when memory does not suffice.
    pub fn create() -> Result<Self, ZoneError> {
        let mapping = Mapping::create_sparse("castling:peers", size_bytes())
            .and_then(|mapping| mapping.take(0, HEADER_BYTES).map(|()| mapping))
            .map_err(|cause| io_error("making it", cause))?;
        let zone = Self {
            mapping: Rc::new(mapping),
        };
        let header = zone.header().ok_or_else(no_header)?;
        header.version.store(VERSION, Relaxed);
        header.magic.store(MAGIC, Relaxed);
        Ok(zone)
    }

    /// Opens a zone that a master has made, by the descriptor that came from it.
    pub fn open(file: OwnedFd) -> Result<Self, ZoneError> {
        let mapping = Mapping::open(file).map_err(|cause| io_error("mapping it", cause))?;
        let zone = Self {
            mapping: Rc::new(mapping),
        };
        let header = zone.header().ok_or_else(no_header)?;
        let size = zone.mapping.size_bytes() as u64;
        for (what, found, expected) in [
            ("size of the file", size, size_bytes() as u64),
            ("mark", header.magic.load(Relaxed), MAGIC),
            ("version", header.version.load(Relaxed), VERSION),
        ] {
            if found != expected {
                return Err(ZoneError::mismatch(ZONE, what, found, expected));
            }
        }
        Ok(zone)
    }

    /// Descriptor that a worker inherits and opens.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.mapping.descriptor()
    }

    /// Takes memory for the cells below this number. The master's alone. Fails when memory does not suffice.
    pub fn take_cells(&self, count: u32) -> Result<(), ZoneError> {
        if count > Self::CELLS {
            return Err(io_error("taking cells", Errno::INVAL));
        }
        let count = count.next_multiple_of(CHUNK);
        if count <= self.cells() {
            return Ok(());
        }
        self.take(HEADER_BYTES, count as usize * RECORD_BYTES)?;
        for row in 0..self.rows() {
            self.take(row_offset_bytes(row), count as usize * 8)?;
        }
        if let Some(header) = self.header() {
            header.cells.store(count.into(), Relaxed);
        }
        Ok(())
    }

    /// Takes memory for a row, which is cleared. The master's alone. Fails when memory does not suffice.
    pub fn take_row(&self, row: u32) -> Result<(), ZoneError> {
        if row >= Self::ROWS {
            return Err(io_error("taking a row", Errno::INVAL));
        }
        self.take(row_offset_bytes(row), self.cells() as usize * 8)?;
        if let Some(header) = self.header() {
            header.rows.fetch_max(u64::from(row) + 1, Relaxed);
        }
        self.clear_row(row);
        Ok(())
    }

    fn take(&self, offset_bytes: usize, size_bytes: usize) -> Result<(), ZoneError> {
        match size_bytes {
            0 => Ok(()),
            _ => self
                .mapping
                .take(offset_bytes, size_bytes)
                .map_err(|cause| io_error("taking memory", cause)),
        }
    }

    /// Forgets what a worker had under way, when it has ended.
    pub fn clear_row(&self, row: u32) {
        for word in self.row(row).unwrap_or_default() {
            word.store(0, Relaxed);
        }
    }

    /// Forgets all of a cell, which goes to another peer or upstream.
    pub fn clear_cell(&self, cell: u32) {
        if let Some(record) = self.record(cell) {
            record.clear();
        }
        for row in 0..self.rows() {
            if let Some(word) = self.word(row, cell) {
                word.store(0, Relaxed);
            }
        }
    }

    /// Record of a cell that has memory.
    pub fn record(&self, cell: u32) -> Option<&PeerRecord> {
        let offset_bytes = HEADER_BYTES + cell as usize * RECORD_BYTES;
        match cell < self.cells() {
            true => self.mapping.table(offset_bytes, 1)?.first(),
            false => None,
        }
    }

    /// Word of a cell in a row.
    fn word(&self, row: u32, cell: u32) -> Option<&AtomicU64> {
        self.row(row)?.get(cell as usize)
    }

    /// Word of a cell in a row, to hold. Its worker alone writes to it. `None`: one of them has no memory.
    pub fn hold_word(&self, row: u32, cell: u32) -> Option<Pinned<AtomicU64>> {
        self.word(row, cell)?;
        Pinned::new(&self.mapping, row_offset_bytes(row) + cell as usize * 8)
    }

    /// Record of a cell, to hold. `None`: it has no memory.
    pub fn hold_record(&self, cell: u32) -> Option<Pinned<PeerRecord>> {
        self.record(cell)?;
        Pinned::new(&self.mapping, HEADER_BYTES + cell as usize * RECORD_BYTES)
    }

    /// Sum of all rows of a cell.
    pub fn sum(&self, cell: u32) -> Load {
        let mut sum = Load::default();
        for row in 0..self.rows() {
            let word = self.word(row, cell).map_or(0, |word| word.load(Relaxed));
            let load = Load::from(word);
            sum.active = sum.active.wrapping_add(load.active);
            sum.connections = sum.connections.wrapping_add(load.connections);
        }
        sum
    }

    /// Adds to this the active counts of all rows but one, by cell.
    pub fn add_active_of_others(&self, row: Option<u32>, cells: &[u32], sums: &mut [u32]) {
        let others = (0..self.rows()).filter(|other| Some(*other) != row);
        for words in others.filter_map(|other| self.row(other)) {
            for (cell, sum) in cells.iter().zip(&mut *sums) {
                let word = words.get(*cell as usize);
                let load = Load::from(word.map_or(0, |word| word.load(Relaxed)));
                *sum = sum.wrapping_add(load.active);
            }
        }
    }

    fn row(&self, row: u32) -> Option<&[AtomicU64]> {
        match row < self.rows() {
            true => self
                .mapping
                .table(row_offset_bytes(row), self.cells() as usize),
            false => None,
        }
    }

    /// Cells that have memory: those below this number.
    pub fn cells(&self) -> u32 {
        let cells = self.header().map_or(0, |header| header.cells.load(Relaxed));
        u32::try_from(cells).unwrap_or(Self::CELLS).min(Self::CELLS)
    }

    /// Rows that were taken at some time: those below this number.
    pub fn rows(&self) -> u32 {
        let rows = self.header().map_or(0, |header| header.rows.load(Relaxed));
        u32::try_from(rows).unwrap_or(Self::ROWS).min(Self::ROWS)
    }

    fn header(&self) -> Option<&PeersHeader> {
        self.mapping.header()
    }
}

impl From<u64> for Load {
    fn from(word: u64) -> Self {
        Self {
            active: word as u32,
            connections: (word >> 32) as u32,
        }
    }
}

impl fmt::Debug for PeersZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeersZone")
            .field("cells", &self.cells())
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

const MAGIC: u64 = u64::from_be_bytes(*b"castlngP");
/// Version of the layout and of what the words mean.
const VERSION: u64 = 1;

/// Cells that get memory at a time: in a row a page.
const CHUNK: u32 = 512;
const HEADER_BYTES: usize = size_of::<PeersHeader>();
const RECORD_BYTES: usize = size_of::<PeerRecord>();

const fn row_offset_bytes(row: u32) -> usize {
    let records = HEADER_BYTES + PeersZone::CELLS as usize * RECORD_BYTES;
    records + row as usize * PeersZone::CELLS as usize * 8
}

/// Address space, of which little is memory.
const fn size_bytes() -> usize {
    row_offset_bytes(PeersZone::ROWS)
}

fn no_header() -> ZoneError {
    ZoneError::Damaged {
        zone: ZONE.to_owned(),
        what: "no header".to_owned(),
    }
}

fn io_error(doing: &'static str, cause: Errno) -> ZoneError {
    ZoneError::io(ZONE, doing, cause)
}

const ZONE: &str = "of the peers";
