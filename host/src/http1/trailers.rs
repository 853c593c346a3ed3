//! The fields after a chunked body.

use http::header::{self, HeaderName};
use httparse::Status;

use super::BodyError;
use super::limits::MAX_TRAILERS;

use crate::message::{Headers, is_valid_value};

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

/// RFC 9110 §6.5.1: no trailers for framing, routing, authentication, what the request or response is, or how its content
/// is to be read. They are dropped: whoever decides by them has decided already.
pub fn may_be_trailer(name: &HeaderName) -> bool {
    const FORBIDDEN: [HeaderName; 27] = [
        header::AGE,
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::DATE,
        header::EXPECT,
        header::EXPIRES,
        header::FORWARDED,
        header::HOST,
        header::LOCATION,
        header::MAX_FORWARDS,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::RANGE,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::VARY,
        header::VIA,
        header::WWW_AUTHENTICATE,
    ];
    let is_forbidden = FORBIDDEN.contains(name)
        || matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "x-real-ip"
        )
        || name.as_str().starts_with("x-forwarded-");
    !is_forbidden
}
