//! Fields that come once at most.

use super::Headers;
use crate::message::field_name::KnownHeader;

impl Headers {
    /// Whether a field that a request has at most once comes twice.
    #[inline]
    pub fn repeats_single(&self) -> bool {
        self.contains_any(SINGLE) && self.repeats_of(SINGLE)
    }

    #[inline(never)]
    fn repeats_of(&self, bits: u32) -> bool {
        let mut seen = 0;
        let known = self.fields.iter().filter_map(|field| field.known);
        known.map(KnownHeader::bit).any(|bit| {
            let is_repeated = seen & bit & bits != 0;
            seen |= bit;
            is_repeated
        })
    }
}

/// Fields that one request has at most once. Whoever reads the first of two and whoever reads the last would decide by
/// different values (RFC 9110 §5.3: a field that is no list must not be repeated).
const SINGLE: u32 = KnownHeader::Authorization.bit()
    | KnownHeader::ContentRange.bit()
    | KnownHeader::ContentType.bit()
    | KnownHeader::IfModifiedSince.bit()
    | KnownHeader::IfRange.bit()
    | KnownHeader::IfUnmodifiedSince.bit();
