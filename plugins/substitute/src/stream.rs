//! Literal replacement in a stream of chunks.

use castling_sdk::{Deserialize, Serialize};

/// Texts to look for, for every response.
pub(crate) struct Patterns {
    /// In the order of the config; where two match at one place, the first one counts.
    pairs: Vec<Pair>,
    /// Whether a match can begin with this byte.
    begins: [bool; 256],
    /// Bytes of the longest `from`.
    longest: usize,
    /// Replace each pair at its first match only.
    once: bool,
}

/// A replacement.
pub(crate) struct Pair {
    /// Not empty.
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

/// Where one response's body stands.
#[derive(Default, Deserialize, Serialize)]
pub(crate) struct Stream {
    /// The end of what came so far, not sent yet because a match may begin in it: fewer bytes than the longest `from`.
    held: Vec<u8>,
    /// With `once`: a bit for each pair that has had its match.
    spent: u64,
}

impl Patterns {
    /// Most pairs: one bit each in [`Stream::spent`].
    pub(crate) const MOST_PAIRS: usize = 64;

    /// `pairs` is not empty and at most [`Self::MOST_PAIRS`] long.
    pub(crate) fn new(pairs: Vec<Pair>, once: bool) -> Self {
        let mut begins = [false; 256];
        for pair in &pairs {
            if let Some(&first) = pair.from.first() {
                begins[usize::from(first)] = true;
            }
        }
        let longest = pairs.iter().map(|pair| pair.from.len()).max().unwrap_or(0);
        Self {
            pairs,
            begins,
            longest,
            once,
        }
    }

    /// The pair that matches where `text` begins.
    fn find(&self, text: &[u8], spent: u64) -> Option<usize> {
        self.pairs
            .iter()
            .enumerate()
            .position(|(i, pair)| spent & (1 << i) == 0 && text.starts_with(&pair.from))
    }
}

impl Stream {
    /// Takes the next chunk and appends to `out` what can be sent by now. From the last one, all of it.
    ///
    /// The result is that of one pass over the whole body from its start: at each place the first pair that matches
    /// there is replaced, and the search goes on behind it.
    pub(crate) fn push(
        &mut self,
        patterns: &Patterns,
        chunk: &[u8],
        is_last: bool,
        out: &mut Vec<u8>,
    ) {
        self.held.extend_from_slice(chunk);
        let text = self.held.as_slice();
        // From here on not every pair can be compared in full, and one that counts more may come yet.
        let undecided = if is_last {
            text.len()
        } else {
            (text.len() + 1).saturating_sub(patterns.longest)
        };

        let mut plain = 0; // start of what is to be copied as it is
        let mut at = 0;
        while at < undecided {
            if !patterns.begins[usize::from(text[at])] {
                at += 1;
                continue;
            }
            let Some(i) = patterns.find(&text[at..], self.spent) else {
                at += 1;
                continue;
            };
            let pair = &patterns.pairs[i];
            out.extend_from_slice(&text[plain..at]);
            out.extend_from_slice(&pair.to);
            at += pair.from.len();
            plain = at;
            if patterns.once {
                self.spent |= 1 << i;
            }
        }
        out.extend_from_slice(&text[plain..at]);
        self.held.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn patterns(pairs: &[(Vec<u8>, Vec<u8>)], once: bool) -> Patterns {
        let pairs = pairs.iter().map(|(from, to)| Pair {
            from: from.clone(),
            to: to.clone(),
        });
        Patterns::new(pairs.collect(), once)
    }

    fn pass(patterns: &Patterns, chunks: &[&[u8]]) -> Vec<u8> {
        let mut stream = Stream::default();
        let mut out = Vec::new();
        for chunk in chunks {
            stream.push(patterns, chunk, false, &mut out);
            assert!(
                stream.held.len() < patterns.longest,
                "more is held back than a match needs"
            );
        }
        stream.push(patterns, b"", true, &mut out);
        out
    }

    /// Replaces by the definition, on the whole body.
    fn whole(pairs: &[(Vec<u8>, Vec<u8>)], once: bool, mut text: &[u8]) -> Vec<u8> {
        let mut unspent: Vec<_> = pairs.iter().collect();
        let mut out = Vec::new();
        while let [first, rest @ ..] = text {
            if let Some(i) = unspent.iter().position(|(from, _)| text.starts_with(from)) {
                let (from, to) = unspent[i];
                out.extend_from_slice(to);
                text = &text[from.len()..];
                if once {
                    unspent.remove(i);
                }
            } else {
                out.push(*first);
                text = rest;
            }
        }
        out
    }

    fn pair(from: &str, to: &str) -> (Vec<u8>, Vec<u8>) {
        (from.into(), to.into())
    }

    #[test]
    fn a_match_may_span_any_number_of_chunks() {
        let patterns = patterns(&[pair("needle", "pin")], false);
        let text = b"a needle in a needneedle stack";
        for size in 1..text.len() {
            let chunks: Vec<_> = text.chunks(size).collect();
            assert_eq!(
                pass(&patterns, &chunks),
                b"a pin in a needpin stack",
                "chunks of {size}"
            );
        }
    }

    #[test]
    fn the_first_of_two_counts_even_when_it_ends_later() {
        let patterns = patterns(&[pair("abc", "1"), pair("ab", "2")], false);
        assert_eq!(pass(&patterns, &[b"ab", b"c", b"ab"]), b"12");
    }

    #[test]
    fn once_is_once_for_each() {
        let patterns = patterns(&[pair("a", "1"), pair("aa", "2")], true);
        assert_eq!(pass(&patterns, &[b"aa", b"aaa", b"a"]), b"12aaa");
    }

    #[test]
    fn what_replaces_is_not_searched() {
        let patterns = patterns(&[pair("a", "aa"), pair("b", "")], false);
        assert_eq!(pass(&patterns, &[b"ab", b"ba"]), b"aaaa");
    }

    proptest! {
        /// Few letters, so that texts are full of matches, overlaps and near misses.
        #[test]
        fn any_chunking_gives_what_the_whole_body_gives(
            pairs in prop::collection::vec(
                (prop::collection::vec(b'a'..=b'c', 1..6), prop::collection::vec(b'a'..=b'd', 0..4)), 1..5),
            chunks in prop::collection::vec(prop::collection::vec(b'a'..=b'c', 0..9), 0..20),
            once: bool,
        ) {
            let expected = whole(&pairs, once, &chunks.concat());
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(pass(&patterns(&pairs, once), &chunks), expected);
        }
    }
}
