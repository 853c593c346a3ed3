//! Names and values are short and there are many, so they are looked at eight bytes at a time; the library's ways look at each.
//!
//! In what tells of eight bytes at once, the highest bit of each byte is the answer. Sums of seven bits reach into the eighth
//! and never into the next byte.

/// Whether all eights of the bytes pass. A byte may be in two of them, and an eight may have fewer than eight bytes in it, some
/// of them again and again: the test must be one of each byte for itself.
#[inline]
pub(super) fn all(bytes: &[u8], passes: impl Fn(u64) -> bool) -> bool {
    let passes = |eight: &[u8; 8]| passes(u64::from_ne_bytes(*eight));
    match bytes.last_chunk() {
        Some(last) => {
            let (eights, _) = bytes.as_chunks();
            eights.iter().all(passes) && passes(last)
        }
        None => few(bytes).is_none_or(|few| passes(&few)),
    }
}

/// Up to seven bytes, some of them more than once. `None` of none.
fn few(bytes: &[u8]) -> Option<[u8; 8]> {
    if let Some(([a, b, c, d], [e, f, g, h])) = bytes.first_chunk().zip(bytes.last_chunk()) {
        return Some([*a, *b, *c, *d, *e, *f, *g, *h]);
    }
    let (first, last) = (*bytes.first()?, *bytes.last()?);
    let middle = bytes[bytes.len() / 2];
    Some([first, middle, last, last, last, last, last, last])
}

/// Whether that is `bytes` in lower case.
#[inline]
pub(super) fn is_lower_of(lower_case: &[u8], bytes: &[u8]) -> bool {
    if lower_case.len() != bytes.len() {
        return false;
    }
    let (Some(end), Some(lower_end)) = (bytes.last_chunk(), lower_case.last_chunk()) else {
        return few(bytes).map(lower) == few(lower_case);
    };
    // From the end: names begin alike (`x-`, `content-`) more often than they end alike.
    lower(*end) == *lower_end && {
        let ((eights, _), (lower_eights, _)) = (bytes.as_chunks(), lower_case.as_chunks());
        let mut pairs = eights.iter().zip(lower_eights);
        pairs.all(|(eight, lower_eight)| lower(*eight) == *lower_eight)
    }
}

pub(super) fn make_lower(bytes: &mut [u8]) {
    // The last eight are taken before those in front change, with which they may share bytes.
    if let Some(end) = bytes.last_chunk() {
        let end = lower(*end);
        let (eights, _) = bytes.as_chunks_mut();
        for eight in eights {
            *eight = lower(*eight);
        }
        if let Some(last) = bytes.last_chunk_mut() {
            *last = end;
        }
    } else {
        bytes.make_ascii_lowercase();
    }
}

/// A byte beyond ASCII stays as it is.
const fn lower(eight: [u8; 8]) -> [u8; 8] {
    let eight = u64::from_ne_bytes(eight);
    let is_upper = within(eight, b'A', b'Z') & EIGHT_HIGHEST_BITS;
    (eight | is_upper >> 2).to_ne_bytes()
}

/// Whether each may stand in a field's value: no control character but a tab (RFC 9110 §5.5, obs-text included).
pub(super) const fn are_of_values(eight: u64) -> bool {
    let seven_bits = eight & (EACH * 0x7f);
    let is_from_space = seven_bits + EACH * (0x80 - b' ' as u64);
    let is_delete = seven_bits + EACH;
    holds(eight | is_from_space & !is_delete | is(eight, b'\t'))
}

/// Whether each is a lower-case letter, a digit or a hyphen, as names are made of mostly.
pub(super) const fn are_of_plain_names(eight: u64) -> bool {
    holds(within(eight, b'a', b'z') | within(eight, b'0', b'9') | is(eight, b'-'))
}

const fn holds(eight: u64) -> bool {
    eight & EIGHT_HIGHEST_BITS == EIGHT_HIGHEST_BITS
}

/// Which bytes are in this range of ASCII.
const fn within(eight: u64, first: u8, last: u8) -> u64 {
    let seven_bits = eight & (EACH * 0x7f);
    let is_from_first = seven_bits + EACH * (0x80 - first as u64);
    let is_beyond_last = seven_bits + EACH * (0x7f - last as u64);
    is_from_first & !is_beyond_last & !eight
}

/// Which bytes are this one, which is ASCII.
const fn is(eight: u64, byte: u8) -> u64 {
    let seven_bits = eight & (EACH * 0x7f);
    let is_other = (seven_bits ^ (EACH * byte as u64)) + EACH * 0x7f;
    !is_other & !eight
}

/// One in each of eight bytes.
const EACH: u64 = u64::from_ne_bytes([1; 8]);

const EIGHT_HIGHEST_BITS: u64 = EACH * 0x80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Mostly those at the borders of what is looked for.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let borders = prop::sample::select(b"\t\n\x1f -./09:@AZ[`az{\x7e\x7f\x80\xff".to_vec());
        prop::collection::vec(prop_oneof![3 => borders, 1 => any::<u8>()], 0..40)
    }

    #[test]
    fn each_byte_is_told_wherever_it_is() {
        for byte in 0..=u8::MAX {
            let is_of_values = (byte >= b' ' && byte != 0x7f) || byte == b'\t';
            let is_of_plain_names = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            for len in 1..20 {
                for at in 0..len {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    assert_eq!(all(&bytes, are_of_values), is_of_values, "{bytes:?}");
                    assert_eq!(
                        all(&bytes, are_of_plain_names),
                        is_of_plain_names,
                        "{bytes:?}"
                    );
                }
            }
        }
        assert!(all(b"", are_of_values));
    }

    proptest! {
        #[test]
        fn lower_case_is_the_librarys(mut bytes in any_bytes()) {
            let expected = bytes.to_ascii_lowercase();
            make_lower(&mut bytes);
            prop_assert_eq!(bytes, expected);
        }

        #[test]
        fn equal_but_for_the_case_is_equal_in_lower_case(bytes in any_bytes(), at in any::<prop::sample::Index>(), other: u8) {
            let lower_case = bytes.to_ascii_lowercase();
            prop_assert!(is_lower_of(&lower_case, &bytes));
            let mut longer = bytes.clone();
            longer.push(b'a');
            prop_assert!(!is_lower_of(&lower_case, &longer));
            if !bytes.is_empty() {
                let mut changed = bytes.clone();
                changed[at.index(bytes.len())] = other;
                let expected = changed.to_ascii_lowercase() == lower_case;
                prop_assert_eq!(is_lower_of(&lower_case, &changed), expected);
            }
        }

        #[test]
        fn all_is_each(bytes in any_bytes()) {
            let is_of_values = |byte: &u8| (*byte >= b' ' && *byte != 0x7f) || *byte == b'\t';
            prop_assert_eq!(all(&bytes, are_of_values), bytes.iter().all(is_of_values));
            let is_of_plain_names = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            prop_assert_eq!(all(&bytes, are_of_plain_names), bytes.iter().all(is_of_plain_names));
        }
    }
}
