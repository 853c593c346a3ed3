//! Entries of a cache zone, as their bytes lie there.
//!
//! An entry is what the gateway itself has written, and yet each is read with its lengths checked: a zone outlives the gateway that
//! has filled it. What cannot be read is as if it were not there.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::freshness::{Freshness, Moment};
use super::vary::Vary;
use crate::message::{FieldName, Headers};

/// Entry of a key.
#[derive(Debug)]
pub enum Entry<'a> {
    /// Responses differ by fields of the request, and each variant has a key of its own, of this generation.
    Varies(Vary, u64),
    /// An invalidation of what was stored, at this time of the zones' clock, ns: responses that were asked for before it are not to be
    /// stored.
    Gone(u64),
    /// Requests of this key are not to wait for one another, since their responses are not stored.
    Passes,
    Response(StoredResponse<'a>),
}

/// A response as it lies in the zone: only its times are read.
#[derive(Clone, Copy, Debug)]
pub struct StoredResponse<'a> {
    pub freshness: Freshness,
    pub status: StatusCode,
    head: &'a [u8],
    pub body: &'a [u8],
}

/// First bytes of entries: kind and version of the format.
const VARIES: u8 = b'v';
const GONE: u8 = b'g';
const PASSES: u8 = b'p';
const RESPONSE: u8 = b'r';

/// Bytes of a response's entry before its head.
#[cfg(test)]
const FIXED_BYTES: usize = 1 + 6 * 8 + 1 + 2 + 4;

const ALWAYS_VALIDATED: u8 = 1;
const FORBIDS_STALE: u8 = 2;

impl<'a> Entry<'a> {
    /// Reads one. `None`: it is none that this version has written.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&VARIES, rest) => {
                let (generation, names) = u64_of(rest)?;
                Some(Self::Varies(Vary::read(names), generation))
            }
            (&GONE, rest) => match u64_of(rest)? {
                (at, []) => Some(Self::Gone(at)),
                _ => None,
            },
            (&PASSES, []) => Some(Self::Passes),
            (&RESPONSE, rest) => StoredResponse::read(rest).map(Self::Response),
            _ => None,
        }
    }

    pub fn passes() -> Vec<u8> {
        vec![PASSES]
    }

    pub fn gone(at_ns: u64) -> Vec<u8> {
        let mut bytes = vec![GONE];
        bytes.extend(at_ns.to_le_bytes());
        bytes
    }

    /// Whether these are the bytes of an entry that is kept as long as it is used.
    pub fn is_kept(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(&(VARIES | RESPONSE)))
    }

    pub fn varies(vary: &Vary, generation: u64) -> Vec<u8> {
        let mut bytes = vec![VARIES];
        bytes.extend(generation.to_le_bytes());
        bytes.extend(vary.write());
        bytes
    }

    /// Entry of a response.
    pub fn response<'b>(
        freshness: &Freshness,
        status: StatusCode,
        headers: &Headers,
        body: impl Iterator<Item = &'b [u8]>,
    ) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.push(RESPONSE);
        let Freshness {
            came,
            age,
            lifetime,
            stale_while_revalidate,
            stale_if_error,
            is_always_validated,
            forbids_stale,
            failed,
        } = freshness;
        let millis = |it: &Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
        let times = [age, lifetime, stale_while_revalidate, stale_if_error].map(millis);
        bytes.extend(came.0.to_le_bytes());
        bytes.extend(failed.map_or(0, |failed| failed.0).to_le_bytes());
        times
            .iter()
            .for_each(|time| bytes.extend(time.to_le_bytes()));
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags =
            flag(*is_always_validated, ALWAYS_VALIDATED) | flag(*forbids_stale, FORBIDS_STALE);
        bytes.push(flags);
        bytes.extend(status.as_u16().to_le_bytes());
        let place_of_length = bytes.len();
        bytes.extend([0; 4]);
        for (name, value) in headers.iter() {
            // Names and values of heads have 64 KiB at most.
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend((value.len() as u32).to_le_bytes());
            bytes.extend(name);
            bytes.extend(value);
        }
        let length = (bytes.len() - place_of_length - 4) as u32;
        bytes[place_of_length..place_of_length + 4].copy_from_slice(&length.to_le_bytes());
        body.for_each(|piece| bytes.extend(piece));
        bytes
    }
}

impl<'a> StoredResponse<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (came, rest) = u64_of(bytes)?;
        let (failed, rest) = u64_of(rest)?;
        let (age, rest) = u64_of(rest)?;
        let (lifetime, rest) = u64_of(rest)?;
        let (stale_while_revalidate, rest) = u64_of(rest)?;
        let (stale_if_error, rest) = u64_of(rest)?;
        let (&flags, rest) = rest.split_first()?;
        let (status, rest) = rest.split_first_chunk()?;
        let (length, rest) = length_of(rest)?;
        let (head, body) = rest.split_at_checked(length)?;
        Some(Self {
            freshness: Freshness {
                came: Moment(came),
                age: Duration::from_millis(age),
                lifetime: Duration::from_millis(lifetime),
                stale_while_revalidate: Duration::from_millis(stale_while_revalidate),
                stale_if_error: Duration::from_millis(stale_if_error),
                is_always_validated: flags & ALWAYS_VALIDATED != 0,
                forbids_stale: flags & FORBIDS_STALE != 0,
                failed: (failed > 0).then_some(Moment(failed)),
            },
            status: StatusCode::from_u16(u16::from_le_bytes(*status)).ok()?,
            head,
            body,
        })
    }

    /// The fields of its head. `None`: they cannot be read.
    pub fn headers(&self) -> Option<Headers> {
        let mut headers = Headers::with_capacity(16);
        let mut rest = self.head;
        while !rest.is_empty() {
            let (name, value, after) = field_of(rest)?;
            headers.add(FieldName::new(name)?, value);
            rest = after;
        }
        Some(headers)
    }

    pub fn owned(&self) -> Option<Response> {
        Some(Response {
            freshness: self.freshness,
            status: self.status,
            headers: self.headers()?,
            body: Bytes::copy_from_slice(self.body),
        })
    }
}

/// A stored response, out of the zone.
#[derive(Clone, Debug)]
pub struct Response {
    pub freshness: Freshness,
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Bytes,
}

impl Response {
    /// Response without its body.
    pub fn head_only(&self) -> Self {
        Self {
            headers: self.headers.clone(),
            body: Bytes::new(),
            ..*self
        }
    }
}

fn field_of(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name_length, rest) = length_of(bytes)?;
    let (value_length, rest) = length_of(rest)?;
    let (name, rest) = rest.split_at_checked(name_length)?;
    let (value, rest) = rest.split_at_checked(value_length)?;
    Some((name, value, rest))
}

fn u64_of(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

fn length_of(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*number)).ok()?;
    Some((length, rest))
}

/// Size of an entry with such a head and body, bytes.
#[cfg(test)]
fn size_bytes(headers: &Headers, body_bytes: usize) -> usize {
    let fields: usize = headers
        .iter()
        .map(|(name, value)| 8 + name.len() + value.len())
        .sum();
    FIXED_BYTES + fields + body_bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn freshness() -> Freshness {
        Freshness {
            came: Moment(1_800_000_000_123),
            age: Duration::from_millis(1),
            lifetime: Duration::from_secs(60),
            stale_while_revalidate: Duration::from_secs(2),
            stale_if_error: Duration::from_secs(3),
            is_always_validated: false,
            forbids_stale: true,
            failed: Some(Moment(1_800_000_000_124)),
        }
    }

    fn written() -> Vec<u8> {
        let mut headers = Headers::new();
        for (name, value) in [("x-a", "1"), ("X-B", ""), ("x-a", "2")] {
            headers.add(FieldName::new(name.as_bytes()).unwrap(), value.as_bytes());
        }
        let body: [&[u8]; 2] = [b"ab", b"c"];
        let bytes = Entry::response(&freshness(), StatusCode::GONE, &headers, body.into_iter());
        assert_eq!(bytes.len(), size_bytes(&headers, 3));
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = written();
        let Some(Entry::Response(read)) = Entry::read(&bytes) else {
            panic!("no response");
        };
        let read = read.owned().unwrap();
        assert_eq!(
            (read.status, read.freshness),
            (StatusCode::GONE, freshness())
        );
        let fields: Vec<_> = read.headers.iter().collect();
        assert_eq!(
            fields,
            [(&b"x-a"[..], &b"1"[..]), (b"x-b", b""), (b"x-a", b"2")]
        );
        assert_eq!(read.body, "abc");
        assert!(matches!(Entry::read(&Entry::passes()), Some(Entry::Passes)));
        let mut headers = Headers::new();
        headers.add(&http::header::VARY, b"a, b");
        let vary = Vary::of(&headers).unwrap();
        match Entry::read(&Entry::varies(&vary, 7)) {
            Some(Entry::Varies(read, 7)) => assert_eq!(read, vary),
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn damaged_ones_are_read_without_a_panic(cut in 0_usize..200, at in 0_usize..200, byte: u8) {
            let mut bytes = written();
            bytes.truncate(cut);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            if let Some(Entry::Response(read)) = Entry::read(&bytes) {
                let _ = read.owned();
            }
        }
    }
}
