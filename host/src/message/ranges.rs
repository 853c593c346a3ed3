//! Ranges of bytes (RFC 9110 §14).

/// Most parts that a request may ask for; one that asks for more gets the whole (CVE-2011-3192).
const MAX_PARTS: usize = 32;

/// Part of a body: its first byte, and the byte after its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub start: u64,
    pub end: u64,
}

/// Outcome of a `Range` field for a body of a known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The field is to be ignored: it cannot be read, is about something else than bytes, or asks for too much.
    Whole,
    /// These parts, one at least, in the order of the request; none overlaps another.
    Parts(Vec<Part>),
    /// No part of it is there (416).
    Unsatisfiable,
}

impl Part {
    /// Value of its `Content-Range`, in a body of this length.
    pub fn content_range(&self, length: u64) -> String {
        format!("bytes {}-{}/{length}", self.start, self.end - 1)
    }
}

impl Ranges {
    /// Reads the value of a `Range` field for a body of this length.
    pub fn of(value: &[u8], length: u64) -> Self {
        let Some(specs) = specs(value) else {
            return Self::Whole;
        };
        let mut parts = Vec::new();
        let mut count = 0;
        for spec in specs {
            count += 1;
            match spec_of(spec) {
                _ if count > MAX_PARTS => return Self::Whole,
                None => return Self::Whole,
                Some(spec) => parts.extend(spec.part(length)),
            }
        }
        match parts.is_empty() {
            true => Self::Unsatisfiable,
            false if overlap(&parts) => Self::Whole,
            false => Self::Parts(parts),
        }
    }
}

/// One range as it is asked for.
enum Spec {
    From(u64, Option<u64>),
    Last(u64),
}

impl Spec {
    fn part(&self, length: u64) -> Option<Part> {
        let (start, end) = match self {
            Self::From(first, last) => {
                let end = last.map_or(length, |last| last.saturating_add(1));
                (*first, end.min(length))
            }
            Self::Last(bytes) => (length.saturating_sub(*bytes), length),
        };
        (start < end).then_some(Part { start, end })
    }
}

fn specs(value: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let (unit, set) = value.split_at_checked(UNIT.len())?;
    let is_bytes = unit.eq_ignore_ascii_case(UNIT);
    let members = set.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    is_bytes.then(|| members.filter(|spec| !spec.is_empty()))
}

const UNIT: &[u8] = b"bytes=";

fn spec_of(text: &[u8]) -> Option<Spec> {
    let dash = text.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (&text[..dash], &text[dash + 1..]);
    match (first, last) {
        (b"", last) => number(last).map(Spec::Last),
        (first, b"") => Some(Spec::From(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::From(first, Some(last)))
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    // A number beyond any body's length is as good as the largest.
    is_number.then(|| {
        let text = std::str::from_utf8(digits).unwrap_or_default();
        text.parse().unwrap_or(u64::MAX)
    })
}

fn overlap(parts: &[Part]) -> bool {
    let mut sorted = parts.to_vec();
    sorted.sort_unstable_by_key(|part| part.start);
    sorted.windows(2).any(|pair| pair[1].start < pair[0].end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(value: &str) -> String {
        match Ranges::of(value.as_bytes(), 10) {
            Ranges::Whole => "whole".to_owned(),
            Ranges::Unsatisfiable => "none".to_owned(),
            Ranges::Parts(parts) => {
                let parts = parts.iter().map(|part| part.content_range(10));
                parts.collect::<Vec<_>>().join(", ").replace("bytes ", "")
            }
        }
    }

    #[test]
    fn parts_are_cut_to_the_body() {
        for (value, expected) in [
            ("bytes=0-0", "0-0/10"),
            ("bytes=0-99", "0-9/10"),
            ("BYTES=5-", "5-9/10"),
            ("bytes=-3", "7-9/10"),
            ("bytes=-99", "0-9/10"),
            ("bytes=0-99999999999999999999999", "0-9/10"),
            ("bytes= 8- , 0-1 ,,", "8-9/10, 0-1/10"),
            ("bytes=0-1, 20-30", "0-1/10"),
            ("bytes=10-", "none"),
            ("bytes=-0", "none"),
            ("bytes=", "none"),
            ("bytes=5-1", "whole"),
            ("bytes=a-b", "whole"),
            ("bytes=1", "whole"),
            ("bytes=-", "whole"),
            ("items=0-1", "whole"),
            ("byte", "whole"),
            ("bytes=0-5, 3-8", "whole"),
        ] {
            assert_eq!(of(value), expected, "{value}");
        }
        let many = |count: usize| format!("bytes={}", "0-0,".repeat(count));
        assert_eq!(of(&many(33)), "whole");
        assert_eq!(Ranges::of(b"bytes=0-", 0), Ranges::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_body(value in "(bytes=)?[0-9,\\- ]{0,40}", length in 0_u64..50) {
            if let Ranges::Parts(parts) = Ranges::of(value.as_bytes(), length) {
                prop_assert!(!parts.is_empty() && parts.len() <= MAX_PARTS);
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
            }
        }
    }
}
