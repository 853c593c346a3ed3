//! Blocks of a worker's spill file: which are in use, and which have room on the disk.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// Blocks by number. Low ones are taken first: so a body lies in few runs, whose room is freed by few system calls.
pub struct Blocks {
    /// Blocks from this one on were never taken.
    end: u32,
    /// Blocks that there may be.
    most: u32,
    /// Free blocks that have room on the disk, [`KEPT_BLOCKS`] at most.
    kept: BinaryHeap<Reverse<u32>>,
    /// Free blocks whose room was freed.
    bare: BinaryHeap<Reverse<u32>>,
}

/// Free blocks whose room stays theirs, to be written again: bodies that follow one another cost the disk nothing then.
pub const KEPT_BLOCKS: usize = 256;

impl Blocks {
    /// None is in use. `most`: so many there may be.
    pub fn new(most: u32) -> Self {
        Self {
            end: 0,
            most,
            kept: BinaryHeap::new(),
            bare: BinaryHeap::new(),
        }
    }

    /// Takes a block; `None` when all are in use.
    pub fn take(&mut self) -> Option<u32> {
        if let Some(Reverse(block)) = self.kept.pop().or_else(|| self.bare.pop()) {
            return Some(block);
        }
        let block = self.end;
        (block < self.most).then(|| {
            self.end += 1;
            block
        })
    }

    /// Gives blocks back that were taken. Returns those whose room on the disk is to be freed.
    pub fn give(&mut self, mut blocks: Vec<u32>) -> Vec<Range<u32>> {
        blocks.sort_unstable();
        let room = KEPT_BLOCKS.saturating_sub(self.kept.len());
        let (kept, bare) = blocks.split_at(room.min(blocks.len()));
        self.kept.extend(kept.iter().copied().map(Reverse));
        self.bare.extend(bare.iter().copied().map(Reverse));
        let runs = bare.chunk_by(|one, next| one + 1 == *next);
        let runs = runs.filter_map(|run| Some(*run.first()?..run.last()? + 1));
        runs.collect()
    }

    /// Blocks that were taken and not given back.
    pub fn in_use(&self) -> usize {
        self.end as usize - self.kept.len() - self.bare.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_block_has_one_owner_and_free_ones_keep_little_room(
            most in 1_u32..2000,
            bodies in proptest::collection::vec((any::<bool>(), 0_usize..500), 0..60),
        ) {
            let mut blocks = Blocks::new(most);
            let mut owned: Vec<Vec<u32>> = Vec::new();
            let mut used = BTreeSet::new();
            // Blocks that have room on the disk.
            let mut roomy = BTreeSet::new();
            for (is_new, number) in bodies {
                if is_new {
                    let body: Vec<u32> = (0..number).map_while(|_| blocks.take()).collect();
                    prop_assert!(body.len() == number || used.len() + body.len() == most as usize);
                    for block in &body {
                        prop_assert!(*block < most && used.insert(*block));
                        roomy.insert(*block);
                    }
                    owned.push(body);
                } else if !owned.is_empty() {
                    let body = owned.swap_remove(number % owned.len());
                    for block in &body {
                        used.remove(block);
                    }
                    for freed in blocks.give(body).into_iter().flatten() {
                        prop_assert!(!used.contains(&freed) && roomy.remove(&freed));
                    }
                }
                prop_assert_eq!(blocks.in_use(), used.len());
                prop_assert!(roomy.len() <= used.len() + KEPT_BLOCKS);
            }
        }
    }

    #[test]
    fn the_room_of_a_large_body_is_freed_in_one_run() {
        let mut blocks = Blocks::new(10_000);
        let body: Vec<u32> = (0..5000).filter_map(|_| blocks.take()).collect();
        let freed = blocks.give(body);
        assert_eq!((freed.len(), freed.first()), (1, Some(&(256..5000))));
        assert_eq!((blocks.in_use(), blocks.take()), (0, Some(0)));
    }
}
