//! Hosts that plugins call by name, and patterns that grant them.

use core::net::{IpAddr, Ipv6Addr};

/// A host that is called by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostName<'a> {
    /// By `https`.
    pub is_tls: bool,
    /// In any case; an IPv6 address without brackets.
    pub host: &'a str,
    /// The port: the scheme's own, unless the name has another.
    pub port: u16,
}

impl<'a> HostName<'a> {
    /// Reads `https://HOST`, `https://HOST:PORT`, or the same with `http`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (is_tls, authority) = match text.strip_prefix("https://") {
            Some(authority) => (true, authority),
            None => (false, text.strip_prefix("http://")?),
        };
        let usual_port = if is_tls { 443 } else { 80 };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                (host, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let is_digit = |byte: u8| byte.is_ascii_digit();
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => usual_port,
            Some(port) if port.bytes().all(is_digit) => port.parse().ok()?,
            Some(_) | None => return None,
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        let has_labels = !host.split('.').any(str::is_empty);
        let is_host = has_labels && host.len() <= 253 && host.bytes().all(allowed);
        (is_host && port != 0).then_some(Self { is_tls, host, port })
    }
}

/// Names that are granted on one port: `HOST:PORT`, where `*.` stands for one label or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPattern<'a> {
    /// In any case; an IPv6 address without brackets.
    pub host: &'a str,
    /// Names below `host` are granted, and not `host` itself.
    pub is_wildcard: bool,
    /// The port.
    pub port: u16,
}

impl<'a> HostPattern<'a> {
    /// Reads a pattern. What its host may be else is not looked at.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (name, is_wildcard) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let (host, port) = name.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // Below an address there is nothing, and below a last label are names of everybody.
        let is_too_wide = is_wildcard && (host.parse::<IpAddr>().is_ok() || !host.contains('.'));
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (!is_too_wide && !host.is_empty()).then_some(Self {
            host,
            is_wildcard,
            port,
        })
    }

    /// Whether a host is granted on this port.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let name = self.host.as_bytes();
        let host = host.as_bytes();
        let is_host = match self.is_wildcard {
            false => host.eq_ignore_ascii_case(name),
            true => host.len().checked_sub(name.len() + 1).is_some_and(|below| {
                below > 0 && host[below] == b'.' && host[below + 1..].eq_ignore_ascii_case(name)
            }),
        };
        is_host && port == self.port
    }
}
