//! Path and query of a request, and the grammar of them and of hosts.

use std::fmt;

use castling_abi::rules::check;
pub use castling_abi::rules::check::{is_host as is_valid_host, is_path_byte, is_target_byte};

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
#[inline]
pub fn is_valid_path(path: &str) -> bool {
    check::is_path(path.as_bytes())
}

/// Whether a query may be this: visible ASCII without `#`; may be empty.
#[inline]
pub fn is_valid_query(query: &str) -> bool {
    check::is_query(query.as_bytes())
}

/// Whether a host is valid and has a port, as CONNECT names one (RFC 9110 §9.3.6).
pub fn is_valid_authority(host: &[u8]) -> bool {
    let after_name = host.iter().rposition(|&byte| matches!(byte, b':' | b']'));
    is_valid_host(host) && after_name.is_some_and(|at| host[at] == b':')
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
