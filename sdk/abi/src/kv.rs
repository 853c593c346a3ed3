//! Kv zones: bounds, and the layout of a listing.
//!
//! A listing is records one after the other, each the length of a key (`u16`, little-endian) and the key.

/// Longest key, bytes; the shortest has 1.
pub const MAX_KEY_BYTES: usize = 510;

/// Keys that one `kv_list` hands out.
pub const MAX_LIST_KEYS: usize = 1000;

/// Walks a listing. Ends with `Some(Err(()))` where the bytes do not follow the layout.
#[derive(Clone, Debug)]
pub struct Records<'a>(&'a [u8]);

/// The records in `listing`.
pub fn records(listing: &[u8]) -> Records<'_> {
    Records(listing)
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<&'a [u8], ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self
            .0
            .split_first_chunk()
            .and_then(|(head, rest)| rest.split_at_checked(usize::from(u16::from_le_bytes(*head))));
        self.0 = record.map_or(&[], |(_, rest)| rest);
        Some(record.map(|(key, _)| key).ok_or(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_and_a_cut_one_is_an_error() {
        let mut records = records(&[0, 0, 2, 0, b'a', b'b', 3, 0, b'c']);
        assert_eq!(records.next(), Some(Ok(&b""[..])));
        assert_eq!(records.next(), Some(Ok(&b"ab"[..])));
        assert_eq!(records.next(), Some(Err(())));
        assert_eq!(records.next(), None);
    }
}
