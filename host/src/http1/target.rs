//! Request targets of HTTP/1 in their four forms (RFC 9112 §3.2).

use bytes::BytesMut;
use http::Method;

use super::HeadError;
use crate::message::HeadLimits;
use crate::message::{is_path_byte, is_target_byte, is_valid_authority, is_valid_host};

/// A request's target in its parts (RFC 9112 §3.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// Authority of the absolute form.
    pub(super) authority: Option<&'a str>,
    /// Empty in the absolute form only.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    pub(super) fn parse(target: &'a str, method: &Method) -> Result<Self, HeadError> {
        // A path is mostly all that there is. It is looked at once, and ends where the query begins.
        let path_len = target.bytes().take_while(|&b| is_path_byte(b)).count();
        let (path, rest) = target.split_at(path_len);
        if !rest.bytes().all(is_target_byte) {
            return Err(HeadError::Target);
        }
        if path.starts_with('/') {
            return Ok(Self {
                authority: None,
                path,
                query: rest.strip_prefix('?'),
            });
        }
        // RFC 9112 §3.2.4: the asterisk form is for OPTIONS.
        if target == "*" && *method == Method::OPTIONS {
            return Ok(Self {
                authority: None,
                path: target,
                query: None,
            });
        }
        let rest = strip_scheme(target).ok_or(HeadError::Target)?;
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // RFC 9110 §4.2.4: user information in a target from outside is there to deceive. No valid host has its `@`.
        if !is_valid_host(authority.as_bytes()) {
            return Err(HeadError::HostInvalid);
        }
        Ok(Self {
            authority: Some(authority),
            ..Self::with_path(rest)
        })
    }

    /// The authority form, with the path that stands for none.
    #[cold]
    pub(super) fn of_connect(target: &'a str) -> Result<Self, HeadError> {
        match is_valid_authority(target.as_bytes()) {
            true => Ok(Self {
                authority: Some(target),
                path: "/",
                query: None,
            }),
            false => Err(HeadError::Connect),
        }
    }

    fn with_path(target: &'a str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Self {
            authority: None,
            path,
            query,
        }
    }
}

/// Percent-encodes the bytes beyond ASCII in the target of the request line at the front of `buf`, as far as it has come. False,
/// and nothing is changed, where there are none.
pub(super) fn encode_non_ascii(buf: &mut BytesMut, limits: &HeadLimits) -> bool {
    let window = limits.window(buf);
    let end = window.iter().position(|&byte| byte == b'\n');
    let line = &window[..end.unwrap_or(window.len())];
    let Some(first) = line.iter().position(|&byte| byte == b' ') else {
        return false;
    };
    let last = line.iter().rposition(|&b| b == b' ');
    // In a line without an end the target may be all that has come.
    let target_end = last.filter(|&last| last > first).unwrap_or(line.len());
    let target = first + 1..target_end;
    if buf[target.clone()].is_ascii() {
        return false;
    }
    let mut encoded = BytesMut::with_capacity(buf.len() + 2 * target.len());
    encoded.extend_from_slice(&buf[..target.start]);
    for &byte in &buf[target.clone()] {
        if byte.is_ascii() {
            encoded.extend_from_slice(&[byte]);
        } else {
            let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
            encoded.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded.extend_from_slice(&buf[target.end..]);
    *buf = encoded;
    true
}

/// Cuts off `http://` or `https://`.
fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(target: &str) -> Result<(Option<&str>, &str, Option<&str>), HeadError> {
        Parts::parse(target, &Method::GET).map(|it| (it.authority, it.path, it.query))
    }

    #[test]
    fn a_target_is_cut_into_its_parts() {
        assert_eq!(parts("/a/b?c=d?e"), Ok((None, "/a/b", Some("c=d?e"))));
        assert_eq!(parts("/?"), Ok((None, "/", Some(""))));
        assert_eq!(parts("//a"), Ok((None, "//a", None)));
        assert_eq!(
            parts("http://a:80/b?c"),
            Ok((Some("a:80"), "/b", Some("c")))
        );
        assert_eq!(parts("HTTPS://[::1]"), Ok((Some("[::1]"), "", None)));
        assert_eq!(
            parts("http://a?b=http://c"),
            Ok((Some("a"), "", Some("b=http://c")))
        );
    }

    #[test]
    fn other_forms_of_target_are_refused() {
        for bad in [
            "",
            "a",
            "*",
            "a:80",
            "ftp://a/",
            "/a#b",
            "/\u{e4}",
            "/\u{7f}",
            "javascript:/",
            "?a",
            "a/b://c",
        ] {
            assert_eq!(parts(bad), Err(HeadError::Target), "{bad}");
        }
        for bad in [
            "http://",
            "http:///a",
            "http://u@a/",
            "http://u:p@a/",
            "http://a:x/",
            "http://?a",
        ] {
            assert_eq!(parts(bad), Err(HeadError::HostInvalid), "{bad}");
        }
    }

    #[test]
    fn an_asterisk_is_for_options() {
        assert!(Parts::parse("*", &Method::OPTIONS).is_ok());
        assert_eq!(Parts::parse("*", &Method::POST), Err(HeadError::Target));
    }

    proptest! {
        #[test]
        fn a_query_begins_at_the_first_question_mark(rest in "[a/?]{0,8}") {
            let target = format!("/{rest}");
            let expected = match target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (&*target, None),
            };
            let parts = Parts::parse(&target, &Method::GET).expect("valid");
            prop_assert_eq!((parts.path, parts.query), expected);
        }
    }
}
