//! Protocols of messages and schemes of targets.

/// The protocol that a message came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
}

/// The scheme of a request's target: what the client's connection is, since a target may claim any (RFC 9110 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Protocol {
    /// The version as logs and plugins have it: `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0` (as nginx `$server_protocol`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
        }
    }
}

impl Scheme {
    /// The scheme in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}
