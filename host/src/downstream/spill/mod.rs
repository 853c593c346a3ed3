//! Spilled bodies: parts of requests' bodies that are kept to be sent again and for which there is no memory, in a file of the
//! worker's.
//!
//! The master has opened the file, since workers open none, and it has no name: it ends with the worker, however that ends.
//! Reads and writes are of the page cache and block the worker for as long as the kernel takes; no file of a disk can be
//! waited for by an event loop. A file that is full or fails makes no request fail: its body is just not kept.

mod blocks;
mod body;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};

use crate::metrics::SpillMetrics;
use crate::runtime::clock;
use blocks::Blocks;

pub use body::SpilledBody;

/// Spill file of a worker.
pub struct SpillFile {
    file: File,
    blocks: RefCell<Blocks>,
    metrics: SpillMetrics,
    /// Bodies that were given up since that was told last, and when that was.
    untold: Cell<u64>,
    told_at: Cell<Option<Instant>>,
}

/// Size of a block: the part of a body that is read at once.
const BLOCK_BYTES: usize = 64 << 10;

/// Shortest time between two lines about bodies that were given up.
const TELL_EACH: Duration = Duration::from_secs(10);

impl SpillFile {
    /// `limit_bytes`: the most that all bodies together have in it.
    pub fn new(file: OwnedFd, limit_bytes: u64, metrics: SpillMetrics) -> Self {
        let most = limit_bytes / BLOCK_BYTES as u64;
        Self {
            file: file.into(),
            blocks: RefCell::new(Blocks::new(u32::try_from(most).unwrap_or(u32::MAX))),
            metrics,
            untold: Cell::new(0),
            told_at: Cell::new(None),
        }
    }

    /// A block that nobody else has; `None` when all are in use.
    fn take(&self) -> Option<u32> {
        let block = self.blocks.borrow_mut().take();
        self.show_use();
        block
    }

    fn give(&self, blocks: Vec<u32>) {
        let freed = self.blocks.borrow_mut().give(blocks);
        for run in freed {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let (begin, end) = (place(run.start, 0), place(run.end, 0));
            // A file system without holes keeps the room; the limit holds all the same.
            let _ = fallocate(&self.file, flags, begin, end - begin);
        }
        self.show_use();
    }

    fn write(&self, block: u32, at: usize, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, place(block, at))
    }

    fn read(&self, block: u32, at: usize, bytes: usize) -> io::Result<Bytes> {
        let mut data = vec![0; bytes];
        self.file.read_exact_at(&mut data, place(block, at))?;
        Ok(data.into())
    }

    fn show_use(&self) {
        let blocks = self.blocks.borrow().in_use();
        self.metrics.bytes.set((blocks * BLOCK_BYTES) as f64);
    }

    /// Notes that a body is no longer kept. `error`: why; `None`: all blocks are in use.
    #[cold]
    fn note_given_up(&self, error: Option<&io::Error>) {
        match error {
            Some(_) => self.metrics.failed.inc(),
            None => self.metrics.full.inc(),
        }
        let now = clock::now();
        let bodies = self.untold.get() + 1;
        let told_at = self.told_at.get();
        if told_at.is_some_and(|told_at| now.duration_since(told_at) < TELL_EACH) {
            self.untold.set(bodies);
            return;
        }
        self.untold.set(0);
        self.told_at.set(Some(now));
        match error {
            Some(error) => {
                tracing::warn!(bodies, %error, "spill file: bodies are not kept to be sent again")
            }
            None => tracing::warn!(
                bodies,
                "spill_limit is reached: bodies are not kept to be sent again"
            ),
        }
    }
}

/// Offset in the file.
fn place(block: u32, at: usize) -> u64 {
    u64::from(block) * BLOCK_BYTES as u64 + at as u64
}
