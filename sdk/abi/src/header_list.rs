//! Header lists (`headers_get`, `answer`) are records one after the other:
//! `u16` length of the name, `u32` length of the value (both little-endian), name, value.

/// Bytes of a record before its name.
pub const RECORD_HEAD_BYTES: usize = 6;

/// Bytes that one record takes.
pub const fn record_bytes(name: &[u8], value: &[u8]) -> usize {
    RECORD_HEAD_BYTES + name.len() + value.len()
}

/// The lengths that stand before a record's name; `None` when one does not fit its field.
pub fn record_head(name: &[u8], value: &[u8]) -> Option<[u8; RECORD_HEAD_BYTES]> {
    let name_bytes = u16::try_from(name.len()).ok()?.to_le_bytes();
    let value_bytes = u32::try_from(value.len()).ok()?.to_le_bytes();
    Some([
        name_bytes[0],
        name_bytes[1],
        value_bytes[0],
        value_bytes[1],
        value_bytes[2],
        value_bytes[3],
    ])
}

/// Walks a list. Ends with `Some(Err(()))` where the bytes do not follow the layout.
#[derive(Clone, Debug)]
pub struct Records<'a>(&'a [u8]);

/// The records in `list`.
pub fn records(list: &[u8]) -> Records<'_> {
    Records(list)
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let parsed = self
            .0
            .split_first_chunk::<RECORD_HEAD_BYTES>()
            .and_then(|(head, rest)| {
                let name_len = usize::from(u16::from_le_bytes([head[0], head[1]]));
                let value_len =
                    usize::try_from(u32::from_le_bytes([head[2], head[3], head[4], head[5]]))
                        .ok()?;
                let (name, rest) = rest.split_at_checked(name_len)?;
                let (value, rest) = rest.split_at_checked(value_len)?;
                Some((name, value, rest))
            });
        match parsed {
            Some((name, value, rest)) => {
                self.0 = rest;
                Some(Ok((name, value)))
            }
            None => {
                self.0 = &[];
                Some(Err(()))
            }
        }
    }
}
