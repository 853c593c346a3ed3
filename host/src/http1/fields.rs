//! The field lines of a head.

use super::name::Known;
use super::{HeadError, Headers, MAX_HEADERS};

/// Room for what the grammar finds; not initialised, as it mostly stays empty.
pub(super) type Lines<'a> = [std::mem::MaybeUninit<httparse::Header<'a>>; MAX_HEADERS];

/// Takes the lines over, which were parsed from `head`.
pub(super) fn take_over(
    head: &[u8],
    lines: &[httparse::Header<'_>],
    headers: &mut Headers,
) -> Result<(), HeadError> {
    let Some(first) = lines.first() else {
        headers.clear();
        return Ok(());
    };
    let text_at = offset(head, first.name.as_bytes());
    headers.take_over(&head[text_at..], lines.len());
    for line in lines {
        let name = line.name.as_bytes();
        let name_len = u16::try_from(name.len())
            .ok()
            .ok_or(HeadError::Malformed(httparse::Error::HeaderName))?;
        let known = headers.found(
            offset(head, name) - text_at,
            name_len,
            offset(head, line.value) - text_at,
            line.value.len(),
        );
        if matches!(known, Some(Known::ContentLength | Known::TransferEncoding)) {
            refuse_tabs(head, line)?;
        }
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
