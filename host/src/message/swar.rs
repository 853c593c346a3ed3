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
            let (swar, _) = bytes.as_chunks();
            swar.iter().all(passes) && passes(last)
        }
        None => few(bytes).is_none_or(|few| passes(&few)),
    }
}

/// Up to seven bytes, some of them more than once. `None` of none.
#[inline]
fn few(bytes: &[u8]) -> Option<[u8; 8]> {
    let (first, last) = match bytes.first_chunk().zip(bytes.last_chunk()) {
        Some((first, last)) => (u32::from_ne_bytes(*first), u32::from_ne_bytes(*last)),
        None => {
            let (first, last) = (*bytes.first()?, *bytes.last()?);
            let middle = bytes[bytes.len() / 2];
            let three = u32::from_ne_bytes([first, middle, last, last]);
            (three, three)
        }
    };
    Some((u64::from(first) | u64::from(last) << 32).to_ne_bytes())
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
        let ((swar, _), (lower_eights, _)) = (bytes.as_chunks(), lower_case.as_chunks());
        let mut pairs = swar.iter().zip(lower_eights);
        pairs.all(|(eight, lower_eight)| lower(*eight) == *lower_eight)
    }
}

pub(super) fn make_lower(bytes: &mut [u8]) {
    // The last eight are taken before those in front change, with which they may share bytes.
    if let Some(end) = bytes.last_chunk() {
        let end = lower(*end);
        let (swar, _) = bytes.as_chunks_mut();
        for eight in swar {
            *eight = lower(*eight);
        }
        if let Some(last) = bytes.last_chunk_mut() {
            *last = end;
        }
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        // Four to seven bytes, some of them twice.
        let eight =
            u64::from(u32::from_ne_bytes(*first)) | u64::from(u32::from_ne_bytes(*last)) << 32;
        let eight = u64::from_ne_bytes(lower(eight.to_ne_bytes()));
        let (first, last) = (
            (eight as u32).to_ne_bytes(),
            ((eight >> 32) as u32).to_ne_bytes(),
        );
        if let Some(place) = bytes.first_chunk_mut() {
            *place = first;
        }
        if let Some(place) = bytes.last_chunk_mut() {
            *place = last;
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

/// Whether each is a space or printable ASCII, as values are made of mostly.
#[inline]
pub(super) const fn are_printable(eight: u64) -> bool {
    let is_from_space = from(eight, b' ');
    let is_delete = from(eight, 0x7f);
    (eight | !is_from_space | is_delete) & EIGHT_HIGHEST_BITS == 0
}

/// Whether each is a lower-case letter, a digit or a hyphen, as names are made of mostly.
#[inline]
pub(super) const fn are_of_plain_names(eight: u64) -> bool {
    let is_letter = from(eight, b'a') & !from(eight, b'z' + 1);
    let is_digit = from(eight, b'0') & !from(eight, b'9' + 1);
    let is_hyphen = !from(eight ^ (EACH * b'-' as u64), 1);
    (is_letter | is_digit | is_hyphen) & !eight & EIGHT_HIGHEST_BITS == EIGHT_HIGHEST_BITS
}

/// Which bytes are this one or beyond it, where all are ASCII.
const fn from(eight: u64, first: u8) -> u64 {
    eight.wrapping_add(EACH * (0x80 - first as u64))
}

/// Which bytes are in this range of ASCII.
const fn within(eight: u64, first: u8, last: u8) -> u64 {
    let seven_bits = eight & (EACH * 0x7f);
    let is_from_first = seven_bits + EACH * (0x80 - first as u64);
    let is_beyond_last = seven_bits + EACH * (0x7f - last as u64);
    is_from_first & !is_beyond_last & !eight
}

/// A 1 in each of eight bytes.
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
            let is_printable = matches!(byte, b' '..=b'~');
            let is_of_plain_names = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            for len in 1..20 {
                for at in 0..len {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    assert_eq!(all(&bytes, are_printable), is_printable, "{bytes:?}");
                    assert_eq!(
                        all(&bytes, are_of_plain_names),
                        is_of_plain_names,
                        "{bytes:?}"
                    );
                }
            }
        }
        assert!(all(b"", are_printable));
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
            let is_printable = |byte: &u8| matches!(byte, b' '..=b'~');
            prop_assert_eq!(all(&bytes, are_printable), bytes.iter().all(is_printable));
            let is_of_plain_names = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            prop_assert_eq!(all(&bytes, are_of_plain_names), bytes.iter().all(is_of_plain_names));
        }
    }
}
