//! The field lines of a head.

use std::mem::MaybeUninit;

use super::HeadError;
use crate::message::Headers;
use crate::message::KnownHeader;
use crate::message::{Dropped, FoundField};

/// Room for the lines that the grammar finds; not initialised, as it mostly stays empty.
pub(super) struct Lines<'a> {
    few: [MaybeUninit<httparse::Header<'a>>; FEW_FIELDS],
    /// Empty unless there is to be room for more.
    many: Vec<MaybeUninit<httparse::Header<'a>>>,
}

/// Fields that nearly all heads have at most.
pub(super) const FEW_FIELDS: usize = 128;

impl<'a> Lines<'a> {
    /// Room for [`FEW_FIELDS`], or on the heap for as many as there may be.
    #[inline(always)]
    pub(super) fn new(most: usize, has_many: bool) -> Self {
        Self {
            few: [const { MaybeUninit::uninit() }; FEW_FIELDS],
            many: match has_many {
                true => many(most),
                false => Vec::new(),
            },
        }
    }

    #[inline(always)]
    pub(super) fn room(&mut self, most: usize) -> &mut [MaybeUninit<httparse::Header<'a>>] {
        match self.many.is_empty() {
            true => &mut self.few[..most.min(FEW_FIELDS)],
            false => &mut self.many,
        }
    }
}

#[cold]
#[inline(never)]
fn many<'a>(most: usize) -> Vec<MaybeUninit<httparse::Header<'a>>> {
    let mut lines = Vec::new();
    lines.resize_with(most, MaybeUninit::uninit);
    lines
}

/// Takes the lines over, which were parsed from `head`. Returns how many were left out, as `any_names` has it
/// ([`HeadLimits::any_names`](crate::message::HeadLimits::any_names)).
pub(super) fn take_over(
    head: &[u8],
    lines: &[httparse::Header<'_>],
    any_names: bool,
    headers: &mut Headers,
) -> Result<usize, HeadError> {
    let mut dropped = 0;
    let Some(first) = lines.first() else {
        headers.clear();
        return Ok(dropped);
    };
    let text_at = offset(head, first.name.as_bytes());
    headers.take_over(&head[text_at..], lines.len());
    for line in lines {
        let name = line.name.as_bytes();
        let name_len = u16::try_from(name.len())
            .ok()
            .ok_or(HeadError::Malformed(httparse::Error::HeaderName))?;
        let name = (offset(head, name) - text_at, name_len);
        let value = (offset(head, line.value) - text_at, line.value.len());
        match headers.found(name, value, any_names) {
            Ok(field) if field.known.is_some_and(is_of_framing) => refuse_tabs(head, line, field)?,
            Ok(_) => {}
            Err(Dropped) => dropped += 1,
        }
    }
    Ok(dropped)
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
fn refuse_tabs(
    raw: &[u8],
    line: &httparse::Header<'_>,
    field: FoundField,
) -> Result<(), HeadError> {
    let has_tab = match field.is_line {
        true => line.value.contains(&b'\t'),
        false => {
            let after_name = &raw[offset(raw, line.name.as_bytes()) + line.name.len()..];
            let mut in_line = after_name.iter().take_while(|&&b| b != b'\n');
            in_line.any(|&b| b == b'\t')
        }
    };
    match has_tab {
        true => Err(HeadError::Malformed(httparse::Error::HeaderValue)),
        false => Ok(()),
    }
}

fn is_of_framing(known: KnownHeader) -> bool {
    matches!(
        known,
        KnownHeader::ContentLength | KnownHeader::TransferEncoding
    )
}
