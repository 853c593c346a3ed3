//! Which origins are meant: `https://app.example.com`, `*.example.com`, `*`.

use castling_sdk::prelude::*;

/// An item of the config's `origins`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum OriginPattern {
    /// `*`.
    Any,
    /// Origin as browsers write it: scheme, host, and port where it is not the scheme's own, in lower case; or `null`.
    Exact(String),
    /// `https://*.example.com`, or `*.example.com`, which is the same. Any depth of subdomain, not `example.com`.
    Subdomains {
        /// `https://`
        scheme: String,
        /// With its leading dot, and its port where there is one: `.example.com:8443`.
        suffix: String,
    },
}

impl OriginPattern {
    /// Whether it means this origin (the value of `Origin`, RFC 6454 §7).
    pub(crate) fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == origin,
            Self::Subdomains { scheme, suffix } => origin
                .strip_prefix(scheme.as_str())
                .and_then(|rest| rest.strip_suffix(suffix.as_str()))
                .is_some_and(is_host),
        }
    }
}

impl TryFrom<String> for OriginPattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        if lower == "*" {
            return Ok(Self::Any);
        }
        if lower == "null" {
            return Ok(Self::Exact(lower));
        }
        let (scheme, rest) = match lower.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None if lower.starts_with("*.") => ("https", lower.as_str()),
            None => ("", ""),
        };
        let (host, port) = split_port(rest);
        let named = host.strip_prefix("*.").unwrap_or(host);
        let valid = is_scheme(scheme)
            && (is_host(named) || is_ipv6(named))
            && port.is_none_or(|port| port.parse::<u16>().is_ok());
        if !valid {
            bail!(
                "`{}` is not an origin: expected \"https://example.com\", \"*.example.com\" or \"*\"",
                text.escape_debug()
            );
        }
        // Browsers leave the scheme's own port out.
        let port =
            port.filter(|port| !matches!((scheme, *port), ("https", "443") | ("http", "80")));
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let scheme = format!("{scheme}://");
        Ok(if host.starts_with("*.") {
            let suffix = format!(".{named}{port}");
            Self::Subdomains { scheme, suffix }
        } else {
            Self::Exact(format!("{scheme}{named}{port}"))
        })
    }
}

/// Host and port; an IPv6 address keeps its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte)
        })
}

/// Labels with dots between them, in lower case.
fn is_host(text: &str) -> bool {
    text.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte)
            })
    })
}

fn is_ipv6(text: &str) -> bool {
    text.strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> OriginPattern {
        OriginPattern::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (text, origin, expected) in [
            ("https://a.example", "https://a.example", true),
            ("HTTPS://A.example:443", "https://a.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example", "https://a.example.evil.example", false),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("null", "null", true),
            ("https://a.example", "null", false),
            ("*", "null", true),
        ] {
            assert_eq!(pattern(text).matches(origin), expected, "{text} {origin}");
        }
    }

    #[test]
    fn a_star_stands_for_subdomains() {
        for (origin, expected) in [
            ("https://a.example.com", true),
            ("https://a.b.example.com", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("http://a.example.com", false),
            ("https://a.example.com:8443", false),
            ("https://evilexample.com", false),
            ("https://evil.example/.example.com", false),
            ("https://evil@a.example.com", false),
        ] {
            for text in ["*.example.com", "https://*.example.com"] {
                assert_eq!(pattern(text).matches(origin), expected, "{text} {origin}");
            }
        }
        assert!(pattern("http://*.localhost:3000").matches("http://a.localhost:3000"));
    }

    #[test]
    fn what_is_no_origin_is_an_error() {
        for text in [
            "",
            "example.com",
            "https://",
            "https://*",
            "https://a.*.com",
            "https://a.example/",
            "https://a.example/path",
            "https://a.example:http",
            "https://a b",
            "://a",
            "*.",
        ] {
            assert!(OriginPattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
