//! How long a body is: `Content-Length`, `Transfer-Encoding`, `Connection`, and when they contradict each other.

use http::{Method, StatusCode};

use super::HeadError;
use crate::message::KnownHeader;
use crate::message::{BodySize, Headers, Protocol, never_has_body};

/// How the end of a body is known (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none, and no field says so.
    None,
    /// Length in bytes, as `Content-Length` says. 0 is a body that is known to be empty.
    Length(u64),
    /// In chunks, which say where they end.
    Chunked,
    /// Until the connection is closed. Responses only.
    UntilClose,
}

impl Framing {
    /// The size of a body that ends so.
    #[inline]
    pub fn size(self) -> BodySize {
        match self {
            Self::None => BodySize::None,
            Self::Length(bytes) => BodySize::Exact(bytes),
            Self::Chunked | Self::UntilClose => BodySize::Unknown,
        }
    }
}

/// The length of a request's body.
pub(super) fn request_body(
    headers: &mut Headers,
    protocol: Protocol,
) -> Result<Framing, HeadError> {
    // RFC 9112 §6.3: without either field a request has no body.
    Ok(announced(headers, protocol)?.unwrap_or(Framing::None))
}

/// The length of a response's body.
pub(super) fn response_body(
    headers: &mut Headers,
    protocol: Protocol,
    status: StatusCode,
    request_method: &Method,
) -> Result<Framing, HeadError> {
    let announced = announced(headers, protocol)?;
    Ok(if never_has_body(status, request_method) {
        Framing::None
    } else {
        announced.unwrap_or(Framing::UntilClose)
    })
}

/// Whether the sender allows another message on this connection (RFC 9112 §9.3).
pub(super) fn keeps_alive(headers: &Headers, protocol: Protocol) -> bool {
    let mut keep_alive = protocol == Protocol::Http11;
    for value in headers.get_all(KnownHeader::Connection) {
        for option in list(value) {
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep_alive
}

/// Reads what the framing fields say; `None` when there are none.
fn announced(headers: &mut Headers, protocol: Protocol) -> Result<Option<Framing>, HeadError> {
    let length = content_length(headers)?;
    let chunked = is_chunked(headers)?;
    match (length, chunked) {
        // RFC 9112 §6.1: two framings in one message are an attempt at smuggling.
        (Some(_), true) => Err(HeadError::LengthAndEncoding),
        // RFC 9112 §6.1: HTTP/1.0 has no transfer codings, so someone on the way did not understand it.
        (None, true) if protocol == Protocol::Http10 => Err(HeadError::EncodingInHttp10),
        (None, true) => Ok(Some(Framing::Chunked)),
        (Some(bytes), false) => Ok(Some(Framing::Length(bytes))),
        (None, false) => Ok(None),
    }
}

/// Whether the one transfer coding is `chunked`. Everything else, the same twice included, is refused: RFC 9112 §6.1
/// forbids to apply it twice, and a coding that only one of two neighbours understands is how TE.TE smuggling works.
fn is_chunked(headers: &Headers) -> Result<bool, HeadError> {
    let mut values = headers.get_all(KnownHeader::TransferEncoding);
    let Some(first) = values.next() else {
        return Ok(false);
    };
    let exactly_chunked = first.eq_ignore_ascii_case(b"chunked") && values.next().is_none();
    if exactly_chunked {
        Ok(true)
    } else {
        Err(HeadError::Encoding)
    }
}

/// RFC 9112 §6.3: the same length several times, in one field or in more, is folded to one; different ones are refused.
fn content_length(headers: &mut Headers) -> Result<Option<u64>, HeadError> {
    let mut values = headers.get_all(KnownHeader::ContentLength);
    let Some(first) = values.next() else {
        return Ok(None);
    };
    // A single number, nearly always: no list is cut up for it.
    match decimal(first) {
        Some(bytes) if values.next().is_none() => Ok(Some(bytes)),
        _ => {
            drop(values);
            folded_content_length(headers)
        }
    }
}

#[cold]
#[inline(never)]
fn folded_content_length(headers: &mut Headers) -> Result<Option<u64>, HeadError> {
    let mut length = None;
    let mut times = 0;
    for value in headers.get_all(KnownHeader::ContentLength) {
        for member in list(value) {
            let bytes = decimal(member).ok_or(HeadError::LengthInvalid)?;
            if length.is_some_and(|before| before != bytes) {
                return Err(HeadError::LengthsDiffer);
            }
            length = Some(bytes);
            times += 1;
        }
    }
    if let (Some(bytes), true) = (length, times > 1) {
        headers.set(KnownHeader::ContentLength, bytes.to_string().as_bytes());
    }
    Ok(length)
}

/// RFC 9110 §8.6: `1*DIGIT` and nothing else; `None` as well when it does not fit.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The members of a comma-separated value, empty ones too.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_digits_that_fit() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in [
            "",
            "18446744073709551616",
            "+5",
            "-5",
            "5 5",
            "0x5",
            "5.0",
            "\u{ff15}",
        ] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }
}
