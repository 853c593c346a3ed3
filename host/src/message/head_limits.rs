//! Limits of heads, for all protocols.

use bytes::BytesMut;

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
    pub fn window<'a>(&self, buf: &'a BytesMut) -> &'a [u8] {
        &buf[..buf.len().min(self.max_head_bytes)]
    }
}
