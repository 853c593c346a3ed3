//! Routes of one host, by the segments of their paths.
//!
//! A request goes down the tree as far as its path does, so what it costs hardly grows with the routes. The root is compared with
//! nothing: to compare the path of a request with an empty `String` took a tenth of a microsecond (glibc's `memcmp` loads no
//! bytes, with a mask, from an address where there are none, which the processor takes long to forgive).

use std::rc::Rc;

/// A segment of paths, and what goes on from there. The root has no name.
#[derive(Debug)]
pub(super) struct Paths<T> {
    segment: Box<str>,
    /// See [`start_of`].
    start: u64,
    /// Routes whose path ends here, in the order of the config.
    routes: Vec<Rc<T>>,
    /// By how they start, then by name.
    below: Vec<Self>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self::of("")
    }
}

impl<T> Paths<T> {
    fn of(segment: &str) -> Self {
        Self {
            segment: segment.into(),
            start: start_of(segment),
            routes: Vec::new(),
            below: Vec::new(),
        }
    }

    /// `path` is normal, as in [`Self::find`]; a slash at its end says nothing.
    pub(super) fn add(&mut self, path: &str, route: Rc<T>) {
        let mut node = self;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let idx = node.position(segment).unwrap_or_else(|idx| {
                node.below.insert(idx, Self::of(segment));
                idx
            });
            node = &mut node.below[idx];
        }
        node.routes.push(route);
    }

    /// The route with the longest path that is this one or above it, and of those the first, that `takes` the request. `path`
    /// is normal and begins with a slash.
    pub(super) fn find(&self, path: &str, takes: impl Fn(&T) -> bool) -> Option<&T> {
        let mut found = None;
        let (mut node, mut rest) = (self, path);
        loop {
            if let Some(route) = node.routes.iter().find(|route| takes(route)) {
                found = Some(&**route);
            }
            if node.below.is_empty() {
                return found;
            }
            let Some(below) = rest.strip_prefix('/') else {
                return found;
            };
            // A search of the library's for one character begins with more than most segments take.
            let end = below.bytes().position(|byte| byte == b'/');
            let end = end.unwrap_or(below.len());
            let (segment, after) = below.split_at(end);
            let Ok(idx) = node.position(segment) else {
                return found;
            };
            (node, rest) = (&node.below[idx], after);
        }
    }

    /// Where the segment is among those below, or would have to be.
    fn position(&self, segment: &str) -> Result<usize, usize> {
        let start = start_of(segment);
        self.below.binary_search_by(|node| {
            let by_start = node.start.cmp(&start);
            by_start.then_with(|| (*node.segment).cmp(segment))
        })
    }
}

/// The first eight bytes, or all, as a number: most segments are told apart by it.
fn start_of(segment: &str) -> u64 {
    match segment.as_bytes().first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => segment
            .bytes()
            .fold(0, |start, byte| start << 8 | u64::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(paths: &[String]) -> Paths<usize> {
        let mut tree = Paths::default();
        for (idx, path) in paths.iter().enumerate() {
            tree.add(path, Rc::new(idx));
        }
        tree
    }

    #[test]
    fn what_the_longest_path_does_not_take_the_next_may() {
        let tree = tree(&["/".into(), "/a".into(), "/a/b".into(), "/a/b".into()]);
        let taken_by = |path, refused: &[usize]| {
            let found = tree.find(path, |idx| !refused.contains(idx));
            found.copied()
        };
        assert_eq!(taken_by("/a/b/c", &[]), Some(2));
        assert_eq!(taken_by("/a/b/c", &[2]), Some(3));
        assert_eq!(taken_by("/a/b/c", &[2, 3]), Some(1));
        assert_eq!(taken_by("/a/b/c", &[1, 2, 3]), Some(0));
        assert_eq!(taken_by("/a/b/c", &[0, 1, 2, 3]), None);
    }

    #[test]
    fn a_tree_without_a_root_has_none() {
        let tree = tree(&["/a".into()]);
        for path in ["/", "/b", "/ab", "//a"] {
            assert!(tree.find(path, |_| true).is_none(), "{path}");
        }
        assert!(tree.find("/a/", |_| true).is_some());
    }

    proptest! {
        /// Equal to looking at each route, those with the longest path first.
        #[test]
        fn it_finds_what_a_walk_over_all_finds(
            paths in prop::collection::vec("(/[ab]{1,2}|/abababa[ab]{1,3}){0,3}", 0..12),
            path in "(/[ab]{1,2}|/abababa[ab]{1,3}){0,4}/?",
            refused in any::<u16>(),
        ) {
            prop_assume!(path.starts_with('/'));
            let takes = |idx: &usize| refused & (1 << idx) == 0;
            let is_above = |other: &str| {
                let rest = path.strip_prefix(other);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let above = (0..paths.len()).filter(|idx| is_above(&paths[*idx]) && takes(idx));
            let expected = above.min_by_key(|&idx| std::cmp::Reverse(paths[idx].len()));
            prop_assert_eq!(tree(&paths).find(&path, takes).copied(), expected);
        }
    }
}
