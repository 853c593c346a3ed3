//! Texts to look for, and what finds them.

use std::cell::RefCell;
use std::rc::Rc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Anchored, Input, MatchKind, StartKind};
use castling_sdk::template::{Escape, Template};
use memchr::memmem::Finder;

/// Texts to look for, for every response.
pub(crate) struct Patterns {
    /// In the order of the config; where two match at one place, the first one counts.
    pairs: Vec<Pair>,
    ignores_case: bool,
    /// Whether a match can begin with this byte.
    begins: [bool; 256],
    /// Bytes of the longest `from`.
    longest: usize,
    /// Replace each pair at its first match only.
    pub(crate) once: bool,
    /// For those pairs that have not had their match, by the bits of those that have.
    searches: RefCell<Vec<(u64, Rc<Search>)>>,
}

/// A replacement.
pub(crate) struct Pair {
    /// Not empty.
    pub(crate) from: Vec<u8>,
    pub(crate) to: To,
}

/// Text that takes its place.
pub(crate) enum To {
    Text(Vec<u8>),
    /// Text with variables, and how they are written; `None`: as the body's type has it.
    Template(Template, Option<Escape>),
}

/// A place where a pair matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) pair: usize,
}

/// Search for the pairs that are left.
enum Search {
    Nothing,
    /// One text, by its rarest bytes, sixteen at a time (a crate built with `simd128`).
    One(Box<Finder<'static>>, usize),
    /// A few, each for itself: five take a quarter of the time of one pass for all.
    Few(Vec<(Finder<'static>, usize)>),
    /// More, or some in any case: all of them in one pass. With the pairs that they are of.
    Several(AhoCorasick, Vec<usize>),
}

/// Places that a search has looked ahead to, in one text.
#[derive(Default)]
pub(crate) struct Ahead {
    /// Pairs that had had their match when it looked.
    spent: u64,
    /// The next match of each of a few; [`usize::MAX`]: there is none any more.
    next: Option<[usize; FEW]>,
}

/// Texts that are searched for one by one.
const FEW: usize = 8;

/// Searches that are kept: a response goes through as many as there are pairs, and mostly through the same.
const MOST_SEARCHES: usize = 64;

/// Bytes of texts that are searched by a table.
const MOST_TABLE_BYTES: usize = 2048;

impl Patterns {
    /// Most pairs: one bit each in [`Stream`](crate::stream::Stream)'s `spent`.
    pub(crate) const MOST_PAIRS: usize = 64;

    /// `pairs` is not empty and at most [`Self::MOST_PAIRS`] long.
    pub(crate) fn new(pairs: Vec<Pair>, once: bool, ignores_case: bool) -> Self {
        let mut begins = [false; 256];
        for pair in &pairs {
            if let Some(&first) = pair.from.first() {
                begins[usize::from(first)] = true;
                if ignores_case {
                    begins[usize::from(first.to_ascii_lowercase())] = true;
                    begins[usize::from(first.to_ascii_uppercase())] = true;
                }
            }
        }
        let longest = pairs.iter().map(|pair| pair.from.len()).max().unwrap_or(0);
        let patterns = Self {
            pairs,
            ignores_case,
            begins,
            longest,
            once,
            searches: RefCell::default(),
        };
        patterns.search(0);
        patterns
    }

    pub(crate) fn to(&self, pair: usize) -> &To {
        &self.pairs[pair].to
    }

    /// Bytes of the longest text.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// Whether all pairs have had their match.
    pub(crate) fn are_spent(&self, spent: u64) -> bool {
        spent.count_ones() as usize == self.pairs.len()
    }

    /// The first match of a pair that is not spent that begins at `from` or behind it. `ahead` is of the same text, and `from` never goes back in it.
    pub(crate) fn find(
        &self,
        text: &[u8],
        from: usize,
        spent: u64,
        ahead: &mut Ahead,
    ) -> Option<Found> {
        if ahead.spent != spent {
            *ahead = Ahead { spent, next: None };
        }
        self.search(spent).find(text, from, ahead)
    }

    /// Search for the pairs that are not spent.
    fn search(&self, spent: u64) -> Rc<Search> {
        let mut searches = self.searches.borrow_mut();
        if let Some((_, known)) = searches.iter().find(|(it, _)| *it == spent) {
            return Rc::clone(known);
        }
        let search = Rc::new(self.build(spent));
        if searches.len() == MOST_SEARCHES {
            // The first is of responses that have just begun.
            searches.truncate(1);
        }
        searches.push((spent, Rc::clone(&search)));
        search
    }

    fn build(&self, spent: u64) -> Search {
        let left: Vec<usize> = (0..self.pairs.len())
            .filter(|idx| spent & (1 << idx) == 0)
            .collect();
        match *left.as_slice() {
            [] => return Search::Nothing,
            [idx] if !self.ignores_case => {
                let finder = Finder::new(&self.pairs[idx].from).into_owned();
                return Search::One(Box::new(finder), idx);
            }
            _ => {}
        }
        if left.len() <= FEW && !self.ignores_case {
            let finder = |idx: &usize| (Finder::new(&self.pairs[*idx].from).into_owned(), *idx);
            return Search::Few(left.iter().map(finder).collect());
        }
        // A table of all bytes for each of their states is the quickest, where it stays small: below a MiB. With `once` there are many.
        let bytes: usize = left.iter().map(|idx| self.pairs[*idx].from.len()).sum();
        let kind = match bytes <= MOST_TABLE_BYTES && !self.once {
            true => AhoCorasickKind::DFA,
            false => AhoCorasickKind::ContiguousNFA,
        };
        let built = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .start_kind(StartKind::Unanchored)
            .kind(Some(kind))
            .prefilter(false)
            .ascii_case_insensitive(self.ignores_case)
            .build(left.iter().map(|idx| &self.pairs[*idx].from));
        let automaton = built.expect("64 texts of 1 KiB are far from the limits of an automaton");
        Search::Several(automaton, left)
    }

    /// The first place from `from` on at which what is left of the text may be the beginning of a match that ends behind it.
    pub(crate) fn undecided(&self, text: &[u8], from: usize, spent: u64) -> usize {
        let first = from.max((text.len() + 1).saturating_sub(self.longest));
        let may_match = |at: &usize| {
            self.begins[usize::from(text[*at])] && self.begin_of_any(&text[*at..], spent)
        };
        (first..text.len()).find(may_match).unwrap_or(text.len())
    }

    fn begin_of_any(&self, rest: &[u8], spent: u64) -> bool {
        let mut pairs = (0..)
            .zip(&self.pairs)
            .filter(|(idx, _)| spent & (1 << idx) == 0);
        pairs.any(|(_, pair): (u32, _)| match pair.from.get(..rest.len()) {
            Some(begin) if pair.from.len() > rest.len() => match self.ignores_case {
                true => begin.eq_ignore_ascii_case(rest),
                false => begin == rest,
            },
            _ => false,
        })
    }
}

impl Search {
    /// The first match that begins at `from` or behind it. `ahead` is of the same text, and `from` never goes back in it.
    fn find(&self, text: &[u8], from: usize, ahead: &mut Ahead) -> Option<Found> {
        match self {
            Self::Nothing => None,
            Self::Few(finders) => {
                let find = |finder: &Finder<'_>| {
                    let found = finder.find(&text[from..]);
                    found.map_or(usize::MAX, |start| from + start)
                };
                let mut first: Option<Found> = None;
                let is_known = ahead.next.is_some();
                let next = ahead.next.get_or_insert([0; FEW]);
                for ((finder, pair), start) in finders.iter().zip(next) {
                    if !is_known || *start < from {
                        *start = find(finder);
                    }
                    // The first in the list counts of those that begin at one place.
                    if *start < first.map_or(usize::MAX, |first| first.start) {
                        first = Some(Found {
                            start: *start,
                            end: *start + finder.needle().len(),
                            pair: *pair,
                        });
                    }
                }
                first
            }
            Self::One(finder, pair) => {
                let start = from + finder.find(&text[from..])?;
                Some(Found {
                    start,
                    end: start + finder.needle().len(),
                    pair: *pair,
                })
            }
            Self::Several(automaton, pairs) => {
                let input = Input::new(text).range(from..).anchored(Anchored::No);
                let found = automaton.find(input)?;
                Some(Found {
                    start: found.start(),
                    end: found.end(),
                    pair: pairs[found.pattern().as_usize()],
                })
            }
        }
    }
}
