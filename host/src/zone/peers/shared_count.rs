//! A number that is the sum of what each worker has.

use std::rc::Rc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use super::{Load, PeersZone, Pinned};

/// Count of things that all workers have together: this one's in half of its word of a cell.
pub struct SharedCount {
    zone: Rc<PeersZone>,
    cell: u32,
    /// This worker's word.
    word: Pinned<AtomicU64>,
    half: Half,
}

/// Half of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Lower,
    Upper,
}

impl SharedCount {
    /// `None`: the row or the cell has no memory.
    pub fn new(zone: &Rc<PeersZone>, row: u32, cell: u32, half: Half) -> Option<Self> {
        Some(Self {
            zone: Rc::clone(zone),
            cell,
            word: zone.hold_word(row, cell)?,
            half,
        })
    }

    /// Tells others how many this worker has. It alone writes to its word.
    pub fn publish(&self, own: u32) {
        let word = self.word.load(Relaxed);
        let own = u64::from(own);
        let word = match self.half {
            Half::Lower => word & !LOWER | own,
            Half::Upper => word & LOWER | own << 32,
        };
        self.word.store(word, Relaxed);
    }

    /// Sum over all workers. What this worker has published before, others see that look after it has looked; so of two that
    /// publish and then look, one sees both.
    pub fn sum(&self) -> u32 {
        fence(SeqCst);
        let Load {
            active,
            connections,
        } = self.zone.sum(self.cell);
        match self.half {
            Half::Lower => active,
            Half::Upper => connections,
        }
    }
}

impl std::fmt::Debug for SharedCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedCount")
            .field("cell", &self.cell)
            .field("half", &self.half)
            .finish_non_exhaustive()
    }
}

const LOWER: u64 = 0xffff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_summed_each_for_itself() {
        let zone = Rc::new(PeersZone::create().unwrap());
        zone.take_cells(8).unwrap();
        for row in [1, 2] {
            zone.take_row(row).unwrap();
        }
        let count = |row, half| SharedCount::new(&zone, row, 3, half).unwrap();
        let (here, there) = (count(1, Half::Lower), count(2, Half::Lower));
        let (upper, other) = (count(1, Half::Upper), count(2, Half::Upper));
        here.publish(3);
        there.publish(4);
        upper.publish(u32::MAX);
        assert_eq!((here.sum(), there.sum()), (7, 7));
        assert_eq!(other.sum(), u32::MAX);
        upper.publish(1);
        here.publish(0);
        assert_eq!((here.sum(), other.sum()), (4, 1));
        assert!(SharedCount::new(&zone, 1, 600, Half::Lower).is_none());
        assert!(SharedCount::new(&zone, 9, 3, Half::Lower).is_none());
    }
}
