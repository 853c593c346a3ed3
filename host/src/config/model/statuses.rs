//! Sets of statuses in the resolved config.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// A set of statuses from 100 to 599. In the file a list of `503`, `"503"`, `"5xx"` and `"500-504"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusSet([u64; WORDS]);

/// Lowest and highest status of a set.
const FIRST: u16 = 100;
const LAST: u16 = 599;

const WORDS: usize = (LAST - FIRST) as usize / 64 + 1;

impl StatusSet {
    pub const NONE: Self = Self([0; WORDS]);

    #[inline]
    pub fn contains(&self, status: u16) -> bool {
        let at = usize::from(status).wrapping_sub(usize::from(FIRST));
        let word = self.0.get(at / 64);
        word.is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Adds statuses; those outside of a set's range are left out.
    pub fn insert(&mut self, statuses: RangeInclusive<u16>) {
        let (first, last) = statuses.into_inner();
        for status in first.max(FIRST)..=last.min(LAST) {
            let at = usize::from(status - FIRST);
            self.0[at / 64] |= 1 << (at % 64);
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }
}

impl FromIterator<RangeInclusive<u16>> for StatusSet {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        let mut set = Self::NONE;
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let ranges = [0..=100, 429..=429, 503..=504, 599..=u16::MAX];
        let set: StatusSet = ranges.into_iter().collect();
        let found: Vec<u16> = (0..=u16::MAX).filter(|&it| set.contains(it)).collect();
        assert_eq!(found, [100, 429, 503, 504, 599]);
        assert!(!set.is_empty() && StatusSet::NONE.is_empty());
    }
}
