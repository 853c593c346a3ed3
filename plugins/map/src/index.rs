//! A hash index of keys that lie in a text elsewhere: four bytes a slot, and at most half of the slots in use.

/// Numbers of entries by their keys.
pub(crate) struct Index {
    /// An entry's number and one; 0: nothing. As many as a power of two.
    slots: Vec<u32>,
}

impl Index {
    /// Room for so many entries.
    pub(crate) fn with_room(entries: usize) -> Self {
        let slots = (entries * 2).next_power_of_two();
        Self {
            slots: vec![0; slots],
        }
    }

    /// The entry with this key. `is_it` compares the key of an entry.
    pub(crate) fn find(&self, key: &[u8], is_it: impl Fn(u32) -> bool) -> Option<u32> {
        match self.slots[self.slot(key, is_it)] {
            0 => None,
            slot => Some(slot - 1),
        }
    }

    /// Adds an entry. The one that has the key already is returned, and stays.
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        entry: u32,
        is_it: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let at = self.slot(key, is_it);
        match &mut self.slots[at] {
            free @ 0 => {
                *free = entry + 1;
                None
            }
            slot => Some(*slot - 1),
        }
    }

    /// Slot of the entry with this key, or the free one where it would be. There is one, since half of them are free.
    fn slot(&self, key: &[u8], is_it: impl Fn(u32) -> bool) -> usize {
        let last = self.slots.len() - 1;
        let mut at = hash(key) as usize & last;
        loop {
            match self.slots[at] {
                0 => return at,
                slot if is_it(slot - 1) => return at,
                _ => at = (at + 1) & last,
            }
        }
    }
}

/// Eight bytes at a time, each multiplied and folded. Keys are the operator's, so that nobody can choose ones that collide.
fn hash(key: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(MULTIPLIER);
        mixed ^ (mixed >> 32)
    };
    let (words, rest) = key.as_chunks::<8>();
    let hash = words.iter().fold(key.len() as u64, |hash, word| {
        mix(hash, u64::from_le_bytes(*word))
    });
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(hash, u64::from_le_bytes(last)), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_a_few_steps_however_many_there_are() {
        for count in [0_u32, 1, 10, 100_000] {
            let keys: Vec<String> = (0..count).map(|idx| format!("/path/{idx}")).collect();
            let mut index = Index::with_room(keys.len());
            for (idx, key) in (0..).zip(&keys) {
                let is_it = |other: u32| keys[other as usize] == *key;
                assert_eq!(index.add(key.as_bytes(), idx, is_it), None);
                assert_eq!(index.add(key.as_bytes(), idx + 1, is_it), Some(idx));
            }
            let mut steps = 0;
            for (idx, key) in (0..).zip(&keys) {
                let asked = std::cell::Cell::new(0);
                let is_it = |other: u32| {
                    asked.set(asked.get() + 1);
                    keys[other as usize] == *key
                };
                assert_eq!(index.find(key.as_bytes(), is_it), Some(idx));
                steps += asked.get();
            }
            assert!(steps <= 2 * count, "{steps} for {count}");
            assert_eq!(index.find(b"other", |_| false), None);
        }
    }
}
