//! Heads of requests and responses, and what can be wrong with them.

use bytes::{Buf as _, BytesMut};
use http::{Method, StatusCode, Version};

use super::name::KnownHeader;
use super::{BodyLength, Headers, Target};

/// A request's line and fields.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    pub target: Target,
    /// `HTTP_10` or `HTTP_11`.
    pub version: Version,
    /// With one valid `Host` at most, which is the target's authority if that had one (RFC 9112 §3.2.2).
    pub headers: Headers,
}

impl RequestHead {
    /// Host and port as the client named them. None only for HTTP/1.0 (or when a plugin removed it).
    pub fn host(&self) -> Option<&str> {
        str::from_utf8(self.headers.get(KnownHeader::Host)?).ok()
    }
}

/// What [`parse_request`](super::parse_request) finds.
#[derive(Clone, Debug)]
pub struct ParsedRequest {
    pub head: RequestHead,
    /// Never [`BodyLength::UntilClose`].
    pub body: BodyLength,
    /// The client allows another request on this connection (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends its body (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    /// Fields that were left out for their names ([`HeadLimits::any_names`]).
    pub dropped_fields: usize,
}

/// What [`parse_response`](super::parse_response) finds beside the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedResponse {
    pub status: StatusCode,
    pub body: BodyLength,
    /// The connection may be used again after the body. Only if nothing is left in the buffer then: a peer that sends
    /// more than it announced is out of step.
    pub keep_alive: bool,
}

/// Limits of a head, and the treatment of what is doubtful in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first of the start line to the end of the blank line. Beyond it 431, or 414 when the start line
    /// alone is longer.
    pub max_head_bytes: usize,
    /// Fields. Beyond it 431.
    pub max_fields: usize,
    /// Whether a request keeps fields whose names have other than letters, digits and hyphens. Else they are left out:
    /// CGI (RFC 3875 §4.1.18) and what follows it give `X_User` and `X-User` one name, so that a client could set what
    /// a proxy answers for.
    pub any_names: bool,
    /// Whether a request's target may have bytes beyond ASCII. They are percent-encoded (RFC 3987 §3.1 for UTF-8). Else
    /// 400, as RFC 3986 has none.
    pub non_ascii_target: bool,
}

/// How far the head at the front of a buffer was looked at. One for each connection and direction; after an error
/// the connection is of no use any more.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadProgress {
    /// Bytes at the front of the buffer that hold no whole head. 0: the grammar was not tried yet.
    scanned: usize,
    /// Skipped before the start line.
    empty_lines: u32,
}

/// Allocations of a request's head that is over, for the next one.
#[derive(Clone, Debug)]
pub struct HeadRoom {
    pub(super) headers: Headers,
    pub(super) target: Target,
}

/// Takes no allocation: that of a target for none was two a request.
impl Default for HeadRoom {
    fn default() -> Self {
        Self {
            headers: Headers::new(),
            target: Target::NONE,
        }
    }
}

impl RequestHead {
    /// Takes what it holds out of it; its target is none then.
    pub fn take_room(&mut self) -> HeadRoom {
        HeadRoom {
            headers: std::mem::replace(&mut self.headers, Headers::new()),
            target: std::mem::replace(&mut self.target, Target::NONE),
        }
    }
}

impl HeadProgress {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it is worth running the grammar over the buffer. It is at the first look, as most heads come whole;
    /// after that only when the blank line is there, so that a head that trickles in is not read over and over.
    #[inline]
    pub(super) fn ready(
        &mut self,
        buf: &mut BytesMut,
        limits: &HeadLimits,
    ) -> Result<bool, HeadError> {
        let begins_with_a_line = !matches!(buf.first(), None | Some(b'\r' | b'\n'));
        if self.scanned == 0 && begins_with_a_line {
            return Ok(true);
        }
        self.is_other_ready(buf, limits)
    }

    /// Readiness of a head that was looked at before, or has empty lines before it.
    #[cold]
    #[inline(never)]
    fn is_other_ready(
        &mut self,
        buf: &mut BytesMut,
        limits: &HeadLimits,
    ) -> Result<bool, HeadError> {
        if self.scanned == 0 {
            self.skip_empty_lines(buf)?;
            return Ok(!matches!(buf.as_ref(), [] | [b'\r']));
        }
        let window = limits.window(buf);
        let from = self.scanned.saturating_sub(BLANK_LINE_BYTES - 1);
        if has_blank_line(&window[from.min(window.len())..]) {
            return Ok(true);
        }
        self.wait_for_more(buf, limits)?;
        Ok(false)
    }

    /// The grammar wants more bytes.
    pub(super) fn incomplete(
        &mut self,
        buf: &BytesMut,
        limits: &HeadLimits,
    ) -> Result<(), HeadError> {
        let blank_line_was_seen = self.scanned > 0;
        if blank_line_was_seen {
            return Err(HeadError::Malformed(httparse::Error::NewLine));
        }
        self.wait_for_more(buf, limits)
    }

    /// The bytes of the head have changed: they are looked at anew.
    pub(super) fn rescan(&mut self) {
        self.scanned = 0;
    }

    /// Cuts off the head, which has so many bytes: the next one begins afresh.
    pub(super) fn complete(&mut self, buf: &mut BytesMut, head_bytes: usize) {
        *self = Self::default();
        // Nothing follows most requests. To begin anew takes 34 instructions less than to advance, and makes room.
        match buf.len() == head_bytes {
            true => buf.clear(),
            false => buf.advance(head_bytes),
        }
    }

    fn wait_for_more(&mut self, buf: &BytesMut, limits: &HeadLimits) -> Result<(), HeadError> {
        let window = limits.window(buf);
        if window.len() < limits.max_head_bytes {
            self.scanned = window.len();
            return Ok(());
        }
        let start_line_is_whole = window.contains(&b'\n');
        Err(if start_line_is_whole {
            HeadError::TooLarge
        } else {
            HeadError::StartLineTooLong
        })
    }

    /// RFC 9112 §2.2: empty lines before a request line are ignored; here a few, and only whole CRLFs.
    fn skip_empty_lines(&mut self, buf: &mut BytesMut) -> Result<(), HeadError> {
        while buf.starts_with(b"\r\n") {
            if self.empty_lines == MAX_EMPTY_LINES {
                return Err(HeadError::EmptyLines);
            }
            self.empty_lines += 1;
            buf.advance(2);
        }
        if buf.starts_with(b"\n") {
            return Err(HeadError::BareLineFeed);
        }
        Ok(())
    }
}

impl HeadLimits {
    /// The defaults of a listener, but for the size.
    pub const fn of(max_head_bytes: usize) -> Self {
        Self {
            max_head_bytes,
            max_fields: 1000,
            any_names: false,
            non_ascii_target: true,
        }
    }

    /// The part of the buffer that a head may lie in.
    pub(super) fn window<'a>(&self, buf: &'a BytesMut) -> &'a [u8] {
        &buf[..buf.len().min(self.max_head_bytes)]
    }
}

/// Whether a line end is followed by another: also of bare line feeds, which the grammar then judges.
pub(super) fn has_blank_line(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .enumerate()
        .any(|(at, &b)| b == b'\n' && matches!(&bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// Why a head was refused. The connection must be closed: where the next message begins is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Against the grammar of RFC 9112: among others a bare CR, a control byte, a space before the colon, a folded
    /// line, an empty name.
    #[error("malformed head: {0}")]
    Malformed(httparse::Error),
    /// RFC 9112 §2.2 lets a recipient take a bare LF for a line end. We do not from clients: a proxy before us may have
    /// passed it on as part of a value.
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    #[error("more than {MAX_EMPTY_LINES} empty lines before the head")]
    EmptyLines,
    #[error("unsupported protocol version")]
    Version,
    #[error("CONNECT is not served")]
    Connect,
    #[error("invalid request target")]
    Target,
    #[error("head larger than the limit")]
    TooLarge,
    #[error("start line longer than the limit for the whole head")]
    StartLineTooLong,
    #[error("more header fields than the limit")]
    TooManyFields,
    #[error("HTTP/1.1 without Host")]
    HostMissing,
    #[error("more than one Host")]
    HostRepeated,
    #[error("a field that is no list comes twice")]
    FieldRepeated,
    #[error("invalid host")]
    HostInvalid,
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    #[error("invalid Content-Length")]
    LengthInvalid,
    #[error("Content-Lengths that differ")]
    LengthsDiffer,
    /// RFC 9112 §6.1 would answer 501 to a coding that is only unknown; one answer for all leaves nothing to probe.
    #[error("Transfer-Encoding is not exactly \"chunked\"")]
    Encoding,
    #[error("Transfer-Encoding in HTTP/1.0")]
    EncodingInHttp10,
    #[error("invalid status code")]
    Status,
}

impl HeadError {
    /// What a client is answered. A response that was refused is a 502 whatever this says.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_)
            | Self::BareLineFeed
            | Self::EmptyLines
            | Self::Target
            | Self::HostMissing
            | Self::HostRepeated
            | Self::FieldRepeated
            | Self::HostInvalid
            | Self::LengthAndEncoding
            | Self::LengthInvalid
            | Self::LengthsDiffer
            | Self::Encoding
            | Self::EncodingInHttp10
            | Self::Status => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::StartLineTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            error => Self::Malformed(error),
        }
    }
}

/// Skipped before a start line; more are not an accident.
const MAX_EMPTY_LINES: u32 = 4;

/// The longest form of what [`has_blank_line`] looks for: LF CR LF.
const BLANK_LINE_BYTES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_trickles_in_is_read_only_once_more() {
        let mut progress = HeadProgress::new();
        let limits = HeadLimits::of(100);
        let mut buf = BytesMut::from("GET");
        assert_eq!(progress.ready(&mut buf, &limits), Ok(true));
        assert_eq!(progress.incomplete(&buf, &limits), Ok(()));
        for b in b" / HTTP/1.1\r\n\r" {
            buf.extend_from_slice(&[*b]);
            assert_eq!(progress.ready(&mut buf, &limits), Ok(false));
        }
        buf.extend_from_slice(b"\n");
        assert_eq!(progress.ready(&mut buf, &limits), Ok(true));
    }
}
