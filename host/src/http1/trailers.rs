//! The fields after a chunked body.

use http::header::HeaderName;
use httparse::Status;

use super::BodyError;
use super::limits::MAX_TRAILERS;

use crate::message::{Headers, is_valid_value, may_be_trailer};

/// The trailer section at the front of `bytes`, which hold its blank line, and its length.
pub(super) fn parse_trailers(bytes: &[u8]) -> Result<(usize, Headers), BodyError> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let (section_bytes, lines) = match httparse::parse_headers(bytes, &mut lines) {
        Ok(Status::Complete(parsed)) => parsed,
        Err(httparse::Error::TooManyHeaders) => return Err(BodyError::TrailersTooLarge),
        Ok(Status::Partial) | Err(_) => return Err(BodyError::Trailers),
    };
    let section = &bytes[..section_bytes];
    let has_bare_line_feed = section.first() == Some(&b'\n')
        || section
            .windows(2)
            .any(|pair| pair[1] == b'\n' && pair[0] != b'\r');
    if has_bare_line_feed {
        return Err(BodyError::Trailers);
    }
    let mut trailers = Headers::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| BodyError::Trailers)?;
        if !is_valid_value(line.value) {
            return Err(BodyError::Trailers);
        }
        if may_be_trailer(&name) {
            trailers.add(&name, line.value);
        }
    }
    Ok((section_bytes, trailers))
}
