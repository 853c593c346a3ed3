//! Heads of HTTP/1 messages: what is parsed of them, within which limits, and how far a head has come.

use bytes::{Buf as _, BytesMut};
use http::StatusCode;

use super::Framing;
use super::limits::MAX_EMPTY_LINES;
use crate::http1::HeadError;
use crate::message::{HeadLimits, RequestHead};

/// Request as [`parse_request`](super::parse_request) finds it.
#[derive(Clone, Debug)]
pub struct ParsedRequest {
    pub head: RequestHead,
    /// Never [`Framing::UntilClose`].
    pub body: Framing,
    /// The client allows another request on this connection (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends its body (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    /// Fields that were left out for their names ([`HeadLimits::any_names`]).
    pub dropped_fields: usize,
}

/// Response as [`parse_response`](super::parse_response) finds it, beside the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedResponse {
    pub status: StatusCode,
    pub body: Framing,
    /// The connection may be used again after the body. Only if nothing is left in the buffer then: a peer that sends
    /// more than it announced is out of step.
    pub keep_alive: bool,
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

/// Whether a line end is followed by another: also of bare line feeds, which the grammar then judges.
pub(super) fn has_blank_line(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .enumerate()
        .any(|(at, &b)| b == b'\n' && matches!(&bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

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
