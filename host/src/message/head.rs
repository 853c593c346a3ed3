//! Heads of messages, whichever protocol they came by.

use std::borrow::Cow;

use http::{Method, StatusCode};

use super::{Headers, KnownHeader, Protocol, Scheme, Target, Upgrade};

/// A request's line and fields.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    pub target: Target,
    /// Scheme of the client's connection; a codec says [`Scheme::Http`], since it does not know.
    pub scheme: Scheme,
    pub protocol: Protocol,
    /// Protocol that the client asks to go on with.
    pub upgrade: Option<Upgrade>,
    /// With one valid `Host` at most, which is the target's authority if that had one (RFC 9112 §3.2.2).
    pub headers: Headers,
}

/// `GET / HTTP/1.1` without fields.
impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Method::GET,
            target: Target::default(),
            scheme: Scheme::Http,
            protocol: Protocol::Http11,
            upgrade: None,
            headers: Headers::new(),
        }
    }
}

impl RequestHead {
    /// Host and port as the client named them. None only for HTTP/1.0 (or when a plugin removed it).
    pub fn host(&self) -> Option<&str> {
        str::from_utf8(self.headers.get(KnownHeader::Host)?).ok()
    }

    /// Host in lower case, without port and final dot; an IPv6 address keeps its brackets.
    pub fn host_name(&self) -> Option<Cow<'_, str>> {
        let host = self.host()?;
        let name = match host.find(']') {
            Some(end) => &host[..=end],
            None => host.split(':').next()?,
        };
        let name = name.trim_end_matches('.');
        Some(match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        })
    }
}

/// The response's head on its way to the client.
#[derive(Debug, Default)]
pub struct ReplyHead {
    pub status: StatusCode,
    pub headers: Headers,
}

/// Allocations of a request's head that is over, for the next one.
#[derive(Clone, Debug)]
pub struct HeadRoom {
    pub headers: Headers,
    pub target: Target,
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
