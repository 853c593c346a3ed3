//! A cell: whose key it is, in one word.

use portable_atomic::AtomicU128;
use std::sync::atomic::Ordering::SeqCst;

/// A cell of a key.
#[repr(transparent)]
pub(in crate::zone) struct Cell(AtomicU128);

/// Word of a cell: the key's tag, a number that each change raises, and the state. All of it 0 is a free cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u128);

impl Cell {
    pub(super) fn load(&self) -> Word {
        Word(self.0.load(SeqCst))
    }

    /// Puts `new` in the place of `old`; false: it is another one by now.
    pub(super) fn change(&self, old: Word, new: Word) -> bool {
        self.0
            .compare_exchange(old.0, new.0, SeqCst, SeqCst)
            .is_ok()
    }
}

impl Word {
    pub(super) fn is_settled_for(self, tag: u64) -> bool {
        self.is(SETTLED, tag)
    }

    pub(super) fn is_claimed_for(self, tag: u64) -> bool {
        self.is(CLAIMED, tag)
    }

    /// Word of the same key and state, with another number.
    pub(super) fn next(self) -> Self {
        self.after(self.tag(), self.0 as u64 & STATE)
    }

    /// Claimed for a key, which may have another cell.
    pub(super) fn claimed(self, tag: u64) -> Self {
        self.after(tag, CLAIMED)
    }

    /// The key's one cell.
    pub(super) fn settled(self) -> Self {
        self.after(self.tag(), SETTLED)
    }

    pub(super) fn freed(self) -> Self {
        self.after(0, FREE)
    }

    fn is(self, state: u64, tag: u64) -> bool {
        self.0 as u64 & STATE == state && self.tag() == tag
    }

    fn tag(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// 2^62 changes do not come around.
    fn after(self, tag: u64, state: u64) -> Self {
        let number = (self.0 as u64 | STATE).wrapping_add(1);
        Self(u128::from(tag) << 64 | u128::from(number | state))
    }
}

const STATE: u64 = 3;
const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const SETTLED: u64 = 2;
