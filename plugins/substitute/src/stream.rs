//! Literal replacement in a stream of chunks.

use castling_sdk::template::{Escape, Template};
use castling_sdk::{Deserialize, Result, Serialize};

use crate::patterns::{Ahead, Patterns, To};
use crate::pieces::Pieces;

/// Where one response's body stands.
#[derive(Default, Deserialize, Serialize)]
pub(crate) struct Stream {
    /// The end of what came so far, not sent yet because a match may begin in it: fewer bytes than the longest `from`, and mostly none.
    held: Vec<u8>,
    /// With `once`: a bit for each pair that has had its match.
    spent: u64,
}

impl Stream {
    /// Takes the next chunk and appends to `out` what can be sent by now. From the last one, all of it. False: the chunk itself can be sent as it is,
    /// and nothing was appended. Fails where a full piece cannot be sent.
    ///
    /// The result is that of one pass over the whole body from its start: at each place the first pair that matches
    /// there is replaced, and the search goes on behind it.
    pub(crate) fn push(
        &mut self,
        patterns: &Patterns,
        chunk: &[u8],
        is_last: bool,
        out: &mut Pieces<'_>,
        expand: impl Fn(&Template, Option<Escape>) -> Vec<u8>,
    ) -> Result<bool> {
        if self.held.is_empty() {
            return self.search(patterns, chunk, is_last, out, &expand);
        }
        // The held end and as much of the chunk as a match that begins in it may take; the rest is searched where it lies.
        let seam = chunk.len().min(patterns.longest() - 1);
        let mut text = std::mem::take(&mut self.held);
        let held = text.len();
        text.extend_from_slice(&chunk[..seam]);
        if seam == chunk.len() {
            return self.search_held(patterns, text, is_last, out, &expand);
        }
        let at = self.replace(patterns, &text, held, out, &expand)?;
        let rest = &chunk[at.max(held) - held..];
        if at < held {
            out.push(&text[at..held])?;
        }
        if !self.search(patterns, rest, is_last, out, &expand)? {
            out.push(rest)?;
        }
        Ok(true)
    }

    fn search_held(
        &mut self,
        patterns: &Patterns,
        text: Vec<u8>,
        is_last: bool,
        out: &mut Pieces<'_>,
        expand: &impl Fn(&Template, Option<Escape>) -> Vec<u8>,
    ) -> Result<bool> {
        if !self.search(patterns, &text, is_last, out, expand)? {
            out.push(&text)?;
        }
        Ok(true)
    }

    /// Replaces all matches in the text but for those that may begin in its end, which is held. False: there is neither, and nothing was appended.
    fn search(
        &mut self,
        patterns: &Patterns,
        text: &[u8],
        is_last: bool,
        out: &mut Pieces<'_>,
        expand: &impl Fn(&Template, Option<Escape>) -> Vec<u8>,
    ) -> Result<bool> {
        let undecided = |stream: &Self, at| match is_last {
            true => text.len(),
            false => patterns.undecided(text, at, stream.spent),
        };
        let (mut at, mut held, mut ahead) = (0, undecided(self, 0), Ahead::default());
        while let Some(end) =
            self.replace_first(patterns, text, (at, held), &mut ahead, out, expand)?
        {
            at = end;
            // A match may take what was held for another, and one that is spent holds nothing.
            if at > held || patterns.once {
                held = undecided(self, at);
            }
        }
        if at == 0 && held == text.len() {
            return Ok(false);
        }
        out.push(&text[at..held])?;
        self.held.extend_from_slice(&text[held..]);
        Ok(true)
    }

    /// Replaces the matches that begin before `end`. Returns where it went on behind the last one, which may be behind `end`.
    fn replace(
        &mut self,
        patterns: &Patterns,
        text: &[u8],
        end: usize,
        out: &mut Pieces<'_>,
        expand: &impl Fn(&Template, Option<Escape>) -> Vec<u8>,
    ) -> Result<usize> {
        let (mut at, mut ahead) = (0, Ahead::default());
        while at < end
            && let Some(next) =
                self.replace_first(patterns, text, (at, end), &mut ahead, out, expand)?
        {
            at = next;
        }
        Ok(at)
    }

    /// Appends what is before the first match that begins within the range, and what takes its place. Returns where it ends.
    fn replace_first(
        &mut self,
        patterns: &Patterns,
        text: &[u8],
        (at, end): (usize, usize),
        ahead: &mut Ahead,
        out: &mut Pieces<'_>,
        expand: &impl Fn(&Template, Option<Escape>) -> Vec<u8>,
    ) -> Result<Option<usize>> {
        let found = patterns.find(text, at, self.spent, ahead);
        let Some(found) = found.filter(|found| found.start < end) else {
            return Ok(None);
        };
        out.push(&text[at..found.start])?;
        match patterns.to(found.pair) {
            To::Text(to) => out.push(to)?,
            To::Template(to, escape) => out.push(&expand(to, *escape))?,
        }
        if patterns.once {
            self.spent |= 1 << found.pair;
        }
        Ok(Some(found.end))
    }

    /// Whether nothing is held, and all pairs have had their match.
    pub(crate) fn is_done(&self, patterns: &Patterns) -> bool {
        self.held.is_empty() && patterns.are_spent(self.spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patterns::Pair;
    use proptest::prelude::*;

    fn patterns(pairs: &[(Vec<u8>, Vec<u8>)], once: bool) -> Patterns {
        in_case(pairs, once, false)
    }

    fn in_case(pairs: &[(Vec<u8>, Vec<u8>)], once: bool, ignores_case: bool) -> Patterns {
        let pairs = pairs.iter().map(|(from, to)| Pair {
            from: from.clone(),
            to: To::Text(to.clone()),
        });
        Patterns::new(pairs.collect(), once, ignores_case)
    }

    fn push(
        stream: &mut Stream,
        patterns: &Patterns,
        chunk: &[u8],
        is_last: bool,
        out: &mut Vec<u8>,
    ) {
        let before = out.len();
        if !pieces(out, |out| stream.push(patterns, chunk, is_last, out, none)) {
            assert_eq!(out.len(), before, "the chunk goes as it is");
            out.extend_from_slice(chunk);
        }
    }

    fn none(_: &Template, _: Option<Escape>) -> Vec<u8> {
        Vec::new()
    }

    /// Appends to `sent` all pieces.
    fn pieces(sent: &mut Vec<u8>, push: impl FnOnce(&mut Pieces<'_>) -> Result<bool>) -> bool {
        let (mut rest, mut emitted) = (Vec::new(), Vec::new());
        let mut emit = |piece: &[u8]| {
            emitted.extend_from_slice(piece);
            Ok(())
        };
        let is_changed = push(&mut Pieces::new(&mut rest, &mut emit)).unwrap();
        sent.extend(emitted);
        sent.extend(rest);
        is_changed
    }

    fn pass(patterns: &Patterns, chunks: &[&[u8]]) -> Vec<u8> {
        let mut stream = Stream::default();
        let mut out = Vec::new();
        for chunk in chunks {
            push(&mut stream, patterns, chunk, false, &mut out);
            assert!(
                stream.held.len() < patterns.longest(),
                "more is held back than a match needs"
            );
        }
        push(&mut stream, patterns, b"", true, &mut out);
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

    #[test]
    fn what_begins_no_match_goes_on_at_once() {
        let patterns = patterns(&[pair("needle", "pin"), pair("edge", "e")], false);
        let mut stream = Stream::default();
        let mut out = Vec::new();
        let push = |stream: &mut Stream, out: &mut Vec<u8>, chunk: &[u8]| {
            pieces(out, |out| stream.push(&patterns, chunk, false, out, none))
        };
        assert!(!push(&mut stream, &mut out, b"hay and hay"));
        assert!(push(&mut stream, &mut out, b"hay and need"));
        assert_eq!((&*out, &*stream.held), (&b"hay and "[..], &b"need"[..]));
        assert!(push(&mut stream, &mut out, b""));
        assert!(push(&mut stream, &mut out, b"ed hay"));
        assert_eq!(
            (&*out, &*stream.held),
            (&b"hay and needed hay"[..], &b""[..])
        );
    }

    #[test]
    fn any_case_is_found_where_it_does_not_matter() {
        let patterns = in_case(&[pair("Body", "x"), pair("h", "y")], false, true);
        for size in 1..12 {
            let chunks: Vec<_> = b"</bODY> H bod".chunks(size).collect();
            assert_eq!(pass(&patterns, &chunks), b"</x> y bod", "chunks of {size}");
        }
    }

    proptest! {
        /// Few letters, so that texts are full of matches, overlaps and near misses.
        #[test]
        fn any_chunking_gives_what_the_whole_body_gives(
            pairs in prop::collection::vec(
                (prop::collection::vec(b'a'..=b'c', 1..6), prop::collection::vec(b'a'..=b'd', 0..4)), 1..14),
            chunks in prop::collection::vec(prop::collection::vec(b'a'..=b'c', 0..9), 0..20),
            once: bool,
            repeated in 1..40_usize,
        ) {
            // Some are as long as the searches by sixteen bytes and more.
            let chunks: Vec<_> = chunks.iter().map(|chunk| chunk.repeat(repeated)).collect();
            let expected = whole(&pairs, once, &chunks.concat());
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(pass(&patterns(&pairs, once), &chunks), expected);
        }
    }
}
