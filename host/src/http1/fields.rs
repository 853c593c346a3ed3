//! The field lines of a head, as slices of the buffer they were read into.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};

use super::{HeadError, Headers, MAX_HEADERS};

/// Room for what the grammar finds; not initialised, as it mostly stays empty.
pub(super) type Lines<'a> = [std::mem::MaybeUninit<httparse::Header<'a>>; MAX_HEADERS];

/// First byte and the one after the last of each value, in the head.
pub(super) type Spans = [(usize, usize); MAX_HEADERS];

/// Takes the lines over while they borrow the buffer: names at once, of the values only their place in `raw`, which the
/// lines were parsed from.
pub(super) fn locate(
    raw: &[u8],
    lines: &[httparse::Header<'_>],
    spans: &mut Spans,
    headers: &mut Headers,
) -> Result<(), HeadError> {
    headers.reserve(lines.len() + ADDED_ON_THE_WAY);
    for (line, span) in lines.iter().zip(spans) {
        let name = HeaderName::from_bytes(line.name.as_bytes())
            .map_err(|_| HeadError::Malformed(httparse::Error::HeaderName))?;
        let start = offset(raw, line.value);
        *span = (start, start + line.value.len());
        if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
            refuse_tabs(raw, line)?;
        }
        headers.add(name, HeaderValue::from_static(""));
    }
    Ok(())
}

/// Fills in the values, once the head has been cut off the buffer, without a copy.
pub(super) fn fill_in(headers: &mut Headers, spans: &Spans, head: &Bytes) -> Result<(), HeadError> {
    for (value, &(start, end)) in headers.values_mut().zip(spans) {
        *value = HeaderValue::from_maybe_shared(head.slice(start..end))
            .map_err(|_| HeadError::Malformed(httparse::Error::HeaderValue))?;
    }
    Ok(())
}

/// Where a part of `raw` begins in it.
pub(super) fn offset(raw: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - raw.as_ptr().addr()
}

/// Refuses a line of the head that ends in LF alone, which the grammar lets pass. Every line but the first is a field's
/// or the last, so it is enough to look before each name and at the end.
pub(super) fn refuse_bare_line_feeds(
    head: &[u8],
    lines: &[httparse::Header<'_>],
) -> Result<(), HeadError> {
    let ends_well = lines
        .iter()
        .all(|line| head[..offset(head, line.name.as_bytes())].ends_with(b"\r\n"));
    if ends_well && head.ends_with(b"\r\n\r\n") {
        Ok(())
    } else {
        Err(HeadError::BareLineFeed)
    }
}

/// Refuses tabs around a framing field's value. RFC 9110 §5.6.3 allows them, but there are servers that count them to the
/// value and so see another framing than we do; no client sends them in good faith.
fn refuse_tabs(raw: &[u8], line: &httparse::Header<'_>) -> Result<(), HeadError> {
    let after_name = &raw[offset(raw, line.name.as_bytes()) + line.name.len()..];
    let in_line = after_name.split(|&b| b == b'\n').next().unwrap_or_default();
    if in_line.contains(&b'\t') {
        return Err(HeadError::Malformed(httparse::Error::HeaderValue));
    }
    Ok(())
}

/// Room beside the fields that came, for what the gateway and plugins usually add.
const ADDED_ON_THE_WAY: usize = 4;
