//! Peers in the order of a key, which changes one peer at a time.

use std::ops::Range;

/// Min-heap of a number and a key for each of its members, four children a node: half as deep as a binary one, and the children
/// of a node lie side by side.
pub(super) struct Heap<K> {
    /// Each one's key is no less than its parent's.
    entries: Vec<Entry<K>>,
    /// Place of each number in `entries`; `ABSENT`: not there.
    places: Box<[u32]>,
}

#[derive(Clone, Copy)]
struct Entry<K> {
    key: K,
    index: u32,
}

impl<K: Ord + Copy> Heap<K> {
    /// Heap of these, which are below `count`.
    pub(super) fn new(count: usize, members: impl Iterator<Item = (usize, K)>) -> Self {
        let mut heap = Self {
            entries: members
                .map(|(index, key)| Entry {
                    key,
                    index: index as u32,
                })
                .collect(),
            places: vec![ABSENT; count].into(),
        };
        heap.restore();
        heap
    }

    /// Gives each member a new key: O(n).
    pub(super) fn rekey(&mut self, mut key: impl FnMut(usize, K) -> K) {
        for entry in &mut self.entries {
            entry.key = key(entry.index as usize, entry.key);
        }
        self.restore();
    }

    fn restore(&mut self) {
        for (place, entry) in self.entries.iter().enumerate() {
            self.places[entry.index as usize] = place as u32;
        }
        for place in (0..self.entries.len().div_ceil(ARITY)).rev() {
            self.sift_down(place);
        }
    }

    pub(super) fn key(&self, index: usize) -> Option<K> {
        let entry = self.entries.get(*self.places.get(index)? as usize)?;
        Some(entry.key)
    }

    /// Changes the key of a member: O(log n).
    pub(super) fn update(&mut self, index: usize, key: K) {
        let Some(&place) = self.places.get(index) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(place as usize) else {
            return;
        };
        let is_later = entry.key < key;
        entry.key = key;
        match is_later {
            true => self.sift_down(place as usize),
            false => self.sift_up(place as usize),
        }
    }

    /// The least of all, and its key.
    #[inline]
    pub(super) fn top(&self) -> Option<(usize, K)> {
        let first = self.entries.first()?;
        Some((first.index as usize, first.key))
    }

    /// The least of those that are allowed, and its key. Those that are not and come before it are looked at one by one; nothing is
    /// moved.
    #[inline]
    pub(super) fn first(&self, allows: impl Fn(usize) -> bool) -> Option<(usize, K)> {
        let (index, key) = self.top()?;
        if allows(index) {
            return Some((index, key));
        }
        let mut best = None;
        self.least_below(0, &allows, &mut best);
        best.map(|entry| (entry.index as usize, entry.key))
    }

    /// Looks for an allowed one among the children of a node that is not. Recursion ends at the depth of the heap.
    fn least_below(
        &self,
        place: usize,
        allows: &impl Fn(usize) -> bool,
        best: &mut Option<Entry<K>>,
    ) {
        for place in children(place, self.entries.len()) {
            let entry = self.entries[place];
            if best.is_some_and(|best| best.key <= entry.key) {
                continue;
            }
            match allows(entry.index as usize) {
                true => *best = Some(entry),
                false => self.least_below(place, allows, best),
            }
        }
    }

    fn sift_up(&mut self, mut place: usize) {
        let entry = self.entries[place];
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.entries[parent].key <= entry.key {
                break;
            }
            self.put(place, self.entries[parent]);
            place = parent;
        }
        self.put(place, entry);
    }

    fn sift_down(&mut self, mut place: usize) {
        let entry = self.entries[place];
        while let Some((least, key)) = self.least_child(place) {
            if entry.key <= key {
                break;
            }
            self.put(place, self.entries[least]);
            place = least;
        }
        self.put(place, entry);
    }

    #[inline]
    fn least_child(&self, place: usize) -> Option<(usize, K)> {
        let children = children(place, self.entries.len());
        let (first, children) = (children.start, &self.entries[children]);
        if let [a, b, c, d] = children {
            // Two pairs and their winners, which take no jumps that would be guessed wrong.
            let lesser = if b.key < a.key {
                (1, b.key)
            } else {
                (0, a.key)
            };
            let other = if d.key < c.key {
                (3, d.key)
            } else {
                (2, c.key)
            };
            let (at, key) = if other.1 < lesser.1 { other } else { lesser };
            return Some((first + at, key));
        }
        let keys = children.iter().map(|child| child.key).enumerate();
        let (at, key) = keys.min_by_key(|(_, key)| *key)?;
        Some((first + at, key))
    }

    fn put(&mut self, place: usize, entry: Entry<K>) {
        self.entries[place] = entry;
        self.places[entry.index as usize] = place as u32;
    }
}

const ARITY: usize = 4;
const ABSENT: u32 = u32::MAX;

fn children(place: usize, count: usize) -> Range<usize> {
    let first = place * ARITY + 1;
    first.min(count)..(first + ARITY).min(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn least(keys: &[Option<u8>], allowed: &[bool]) -> Option<u8> {
        let all = keys.iter().zip(allowed);
        all.filter(|(_, allowed)| **allowed)
            .filter_map(|(key, _)| *key)
            .min()
    }

    proptest! {
        #[test]
        fn the_least_allowed_one_is_first_whatever_was_changed(
            mut keys in prop::collection::vec(prop::option::of(any::<u8>()), 1..60),
            changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..60),
            allowed in prop::collection::vec(any::<bool>(), 60),
        ) {
            let members = keys.iter().enumerate();
            let members = members.filter_map(|(index, key)| Some((index, (*key)?)));
            let mut heap = Heap::new(keys.len(), members);
            for (at, key) in changes {
                let at = at % keys.len();
                heap.update(at, key);
                if keys[at].is_some() {
                    keys[at] = Some(key);
                }
                prop_assert_eq!(heap.key(at), keys[at]);
                let first = heap.first(|index| allowed[index]);
                prop_assert_eq!(first.map(|(_, key)| key), least(&keys, &allowed));
                prop_assert!(first.is_none_or(|(index, key)| keys[index] == Some(key)));
            }
            heap.rekey(|_, key| !key);
            let last = keys.iter().flatten().max();
            prop_assert_eq!(heap.top().map(|(_, key)| key), last.map(|key| !key));
        }
    }
}
