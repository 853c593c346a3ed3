//! A call out, as `calls_send` takes it and hands out its result.

/// Bytes of a call's record before its texts: six little-endian `u32`: milliseconds to wait for the whole of it
/// (0: as long as the upstream's own time-outs allow), and the lengths of upstream name, method, target (path and
/// query), headers (a [`crate::header_list`]) and body; then those, in this order. Records stand one after the
/// other.
pub const RECORD_HEAD_BYTES: usize = 6 * 4;

/// In the place of an upstream's name: the call is a sub-request to the gateway's own routes, those of the listener
/// that the client's request came through.
pub const OWN_ROUTES: &[u8] = b"";

/// Sub-requests of sub-requests, at most.
pub const MAX_DEPTH: u8 = 5;

/// Calls in one `calls_send`.
pub const MAX_CALLS: usize = 16;

/// The six numbers before a record's texts.
pub fn record_head(timeout_ms: u32, lengths: [usize; 5]) -> Option<[u8; RECORD_HEAD_BYTES]> {
    let mut head = [0; RECORD_HEAD_BYTES];
    head[..4].copy_from_slice(&timeout_ms.to_le_bytes());
    for (idx, length) in lengths.into_iter().enumerate() {
        let length = u32::try_from(length).ok()?;
        head[4 + idx * 4..8 + idx * 4].copy_from_slice(&length.to_le_bytes());
    }
    Some(head)
}

/// A call, borrowed from the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// 0: none of its own.
    pub timeout_ms: u32,
    /// The upstream's name.
    pub upstream: &'a [u8],
    /// The request's method.
    pub method: &'a [u8],
    /// Path and query.
    pub target: &'a [u8],
    /// A [`crate::header_list`].
    pub headers: &'a [u8],
    /// May be empty.
    pub body: &'a [u8],
}

/// Walks records. Ends with `Some(Err(()))` where the bytes do not follow the layout.
#[derive(Clone, Debug)]
pub struct Records<'a>(&'a [u8]);

/// The records in `bytes`.
pub fn records(bytes: &[u8]) -> Records<'_> {
    Records(bytes)
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = take(self.0);
        self.0 = record.as_ref().map_or(&[], |(_, rest)| rest);
        Some(record.map(|(record, _)| record).ok_or(()))
    }
}

fn take(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (head, mut rest) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
    let word = |idx: usize| {
        u32::from_le_bytes([
            head[idx * 4],
            head[idx * 4 + 1],
            head[idx * 4 + 2],
            head[idx * 4 + 3],
        ])
    };
    let mut texts = [&[][..]; 5];
    for (idx, text) in texts.iter_mut().enumerate() {
        let length = usize::try_from(word(idx + 1)).ok()?;
        (*text, rest) = rest.split_at_checked(length)?;
    }
    let [upstream, method, target, headers, body] = texts;
    Some((
        Record {
            timeout_ms: word(0),
            upstream,
            method,
            target,
            headers,
            body,
        },
        rest,
    ))
}
