//! Path and query of a request, and the grammar of them and of hosts.

use std::fmt;
use std::net::Ipv6Addr;

/// Path and query of a request.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Both, with `?` between them.
    text: String,
    path_len: usize,
}

impl Target {
    /// Neither path nor query, which no request has: takes no allocation.
    pub(super) const NONE: Self = Self {
        text: String::new(),
        path_len: 0,
    };

    /// Whether they are valid is the caller's business.
    pub fn new(path: &str, query: Option<&str>) -> Self {
        let mut target = Self::default();
        target.replace(path, query);
        target
    }

    /// Begins with `/`, or is `*` (of `OPTIONS`). As it came, not decoded; visible ASCII without `?` and `#`.
    pub fn path(&self) -> &str {
        &self.text[..self.path_len]
    }

    /// Without its `?`. Visible ASCII without `#`; may be empty.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_len + 1..)
    }

    /// Path and query as in a request line.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Another in its place, in the same allocation.
    pub fn replace(&mut self, path: &str, query: Option<&str>) {
        self.text.clear();
        self.text.push_str(path);
        self.path_len = path.len();
        self.set_query(query);
    }

    pub fn set_path(&mut self, path: &str) {
        self.text.replace_range(..self.path_len, path);
        self.path_len = path.len();
    }

    pub fn set_query(&mut self, query: Option<&str>) {
        self.text.truncate(self.path_len);
        if let Some(query) = query {
            self.text.push('?');
            self.text.push_str(query);
        }
    }
}

/// `/`.
impl Default for Target {
    fn default() -> Self {
        Self {
            text: String::from("/"),
            path_len: 1,
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a request's path may be this: `*`, or `/` and then visible ASCII without `?` and `#`.
pub fn is_valid_path(path: &str) -> bool {
    path == "*" || path.starts_with('/') && path.bytes().all(is_path_byte)
}

/// Whether a query may be this: visible ASCII without `#`; may be empty.
pub fn is_valid_query(query: &str) -> bool {
    query.bytes().all(is_target_byte)
}

/// Whether a request may be for this host: a name, an IPv4 or a bracketed IPv6 address, and perhaps a port.
///
/// Stricter than RFC 9110 §7.2, which allows percent-encoding and `!$&'()*+,;=` in names and a colon without a port: no
/// name in DNS has those, and what reads them does not agree on what they mean.
pub fn is_valid_host(host: &[u8]) -> bool {
    let (is_name_valid, port) = match host.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|&b| b == b']') else {
                return false;
            };
            (is_ipv6(&rest[..end]), &rest[end + 1..])
        }
        None => {
            let end = host_name_len(host);
            (end != 0, &host[end..])
        }
    };
    is_name_valid && (port.is_empty() || port.strip_prefix(b":").is_some_and(is_port))
}

/// Whether a host is valid and has a port, as CONNECT names one (RFC 9110 §9.3.6).
pub fn is_valid_authority(host: &[u8]) -> bool {
    let after_name = host.iter().rposition(|&byte| matches!(byte, b':' | b']'));
    is_valid_host(host) && after_name.is_some_and(|at| host[at] == b':')
}

/// Length of the name that a host begins with: labels of unreserved characters with a dot between them, and perhaps one behind
/// the last. No label is empty, as a resolver has no such name, and `a..b` is `a.b` to some who compare: the name ends before.
fn host_name_len(host: &[u8]) -> usize {
    let mut before = b'.';
    let ends = |&byte: &u8| {
        let is_empty_label = (byte == b'.') & (before == b'.');
        before = byte;
        !UNRESERVED[usize::from(byte)] | is_empty_label
    };
    host.iter().position(ends).unwrap_or(host.len())
}

fn is_ipv6(address: &[u8]) -> bool {
    str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// RFC 3986 §2.3.
const UNRESERVED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    table
};

fn is_port(port: &[u8]) -> bool {
    // `parse` alone would take a sign.
    let digits = port.iter().all(u8::is_ascii_digit);
    digits && str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok())
}

/// Visible ASCII without `#`: a fragment is not for servers (RFC 9110 §4.2.5). More than RFC 3986 has, as browsers send
/// `|`, `"` and the like as they are.
pub fn is_target_byte(b: u8) -> bool {
    b.is_ascii_graphic() && b != b'#'
}

pub fn is_path_byte(b: u8) -> bool {
    is_target_byte(b) && b != b'?'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn path_and_query_change_apart() {
        let mut target = Target::new("/a", Some(""));
        assert_eq!((target.path(), target.query()), ("/a", Some("")));
        target.set_path("/longer");
        assert_eq!(target.as_str(), "/longer?");
        target.set_query(Some("b=c?"));
        target.set_path("/");
        assert_eq!((target.path(), target.query()), ("/", Some("b=c?")));
        target.set_query(None);
        assert_eq!((target.as_str(), target.query()), ("/", None));
    }

    #[test]
    fn hosts_are_names_or_addresses_with_a_port_or_none() {
        for good in [
            "a",
            "a_b.example.com",
            "xn--4ca.de:8080",
            "127.0.0.1",
            "[::1]",
            "[::1]:443",
            "a.",
            "a:0",
        ] {
            assert!(is_valid_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:b",
            "a:+1",
            "a:65536",
            "a:1:2",
            "a b",
            "a,b",
            "u@a",
            "a/b",
            "a\\b",
            "[::1",
            "[a]",
            "[::1]x",
            "[fe80::1%25eth0]",
            "%61",
            "::1",
            ".",
            ".a",
            "a..b",
            "a..",
            "..:80",
            "\u{e4}",
            "a?b",
            "a#b",
            "<a>",
        ] {
            assert!(!is_valid_host(bad.as_bytes()), "{bad}");
        }
        assert!(!is_valid_host(b"\xff"));
    }

    #[test]
    fn what_a_plugin_may_set_is_what_a_client_may_send() {
        assert!(is_valid_path("/a%20b") && is_valid_path("*"));
        for bad in ["", "a", "/a b", "/a?b", "/a#b", "/a\r\nHost: x", "/\u{e4}"] {
            assert!(!is_valid_path(bad), "{bad:?}");
        }
        assert!(is_valid_query("") && is_valid_query("a=b?c/d"));
        assert!(!is_valid_query("a b") && !is_valid_query("a\n") && !is_valid_query("#"));
    }

    proptest! {
        #[test]
        fn a_host_is_labels_and_a_port(host in "[a.:1]{0,8}") {
            let (name, port) = host.split_once(':').map_or((&*host, None), |(name, port)| (name, Some(port)));
            let name = name.strip_suffix('.').unwrap_or(name);
            let expected = name.split('.').all(|label| !label.is_empty())
                && port.is_none_or(|port| port.parse::<u16>().is_ok());
            prop_assert_eq!(is_valid_host(host.as_bytes()), expected);
        }
    }
}
