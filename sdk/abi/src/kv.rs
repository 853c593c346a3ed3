//! Kv zones: bounds, and the layouts of listings and of calls on several keys. All lengths are little-endian.
//!
//! - **Keys** (a listing; `kv_get_all`, `kv_delete_all`): the length of a key (`u16`) and the key, one record after the other:
//!   [`records`], [`key_head`].
//! - **Values** (what `kv_get_all` hands out): the length of a value (`u32`, [`NO_VALUE`] where there is none) and the value:
//!   [`values`], [`value_head`].
//! - **Entries** (`kv_put_all`): a [`crate::header_list`] of keys and values.

/// Longest key, bytes; the shortest has 1.
pub const MAX_KEY_BYTES: usize = 510;

/// Keys that one `kv_list` hands out.
pub const MAX_LIST_KEYS: usize = 1000;

/// Keys that one `kv_get_all`, `kv_put_all` or `kv_delete_all` takes.
pub const MAX_KEYS_AT_ONCE: usize = 100;

/// Most that one `kv_get_all` hands out, bytes: values, and 4 for each key.
pub const MAX_VALUES_BYTES: usize = 16 << 20;

/// Bytes of the number that `kv_increment` counts in: an `i64`, little-endian.
pub const NUMBER_BYTES: usize = 8;

/// Length that stands for no value.
pub const NO_VALUE: u32 = u32::MAX;

/// The length that stands before a key; `None` when it does not fit its field.
pub fn key_head(key: &[u8]) -> Option<[u8; 2]> {
    u16::try_from(key.len()).ok().map(u16::to_le_bytes)
}

/// The length that stands before a value, or in the place of one; `None` when it does not fit its field.
pub fn value_head(value: Option<&[u8]>) -> Option<[u8; 4]> {
    let Some(value) = value else {
        return Some(NO_VALUE.to_le_bytes());
    };
    let length = u32::try_from(value.len()).ok();
    length.filter(|it| *it != NO_VALUE).map(u32::to_le_bytes)
}

/// Walks keys. Ends with `Some(Err(()))` where the bytes do not follow the layout.
#[derive(Clone, Debug)]
pub struct Records<'a>(&'a [u8]);

/// The keys in `listing`.
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

/// Walks values. Ends with `Some(Err(()))` where the bytes do not follow the layout.
#[derive(Clone, Debug)]
pub struct Values<'a>(&'a [u8]);

/// The values in `list`.
pub fn values(list: &[u8]) -> Values<'_> {
    Values(list)
}

impl<'a> Iterator for Values<'a> {
    type Item = Result<Option<&'a [u8]>, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.0.split_first_chunk().and_then(|(head, rest)| {
            let length = u32::from_le_bytes(*head);
            if length == NO_VALUE {
                return Some((None, rest));
            }
            let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((Some(value), rest))
        });
        self.0 = record.map_or(&[], |(_, rest)| rest);
        Some(record.map(|(value, _)| value).ok_or(()))
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
    #[test]
    fn values_are_read_as_they_were_written_and_a_cut_one_is_an_error() {
        let mut list = [0; 4 + 4 + 4 + 2];
        list[..4].copy_from_slice(&value_head(None).unwrap());
        list[4..8].copy_from_slice(&value_head(Some(b"")).unwrap());
        list[8..12].copy_from_slice(&value_head(Some(b"ab")).unwrap());
        list[12..].copy_from_slice(b"ab");
        let mut read = values(&list);
        assert_eq!(read.next(), Some(Ok(None)));
        assert_eq!(read.next(), Some(Ok(Some(&b""[..]))));
        assert_eq!(read.next(), Some(Ok(Some(&b"ab"[..]))));
        assert_eq!(read.next(), None);
        for cut in [1, 3, 9, 13] {
            let read = values(&list[..cut]);
            assert_eq!(read.last(), Some(Err(())), "{cut}");
        }
    }
}
