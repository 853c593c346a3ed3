//! Directives of `Cache-Control` (RFC 9111 §5.2), and of the fields that take its place for some caches (RFC 9213).

use std::borrow::Cow;

use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::message::Headers;

/// Directives of a response that a shared cache obeys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// Seconds. A value that is no number counts as 0: what is not understood is stale (RFC 9111 §4.2.1).
    pub max_age: Option<u64>,
    /// Seconds, for shared caches.
    pub s_maxage: Option<u64>,
    /// Seconds (RFC 5861 §3).
    pub stale_while_revalidate: Option<u64>,
    /// Seconds (RFC 5861 §4).
    pub stale_if_error: Option<u64>,
    pub no_store: bool,
    /// For all of the response.
    pub no_cache: bool,
    /// Fields that are not to be used again: `no-cache="set-cookie"`.
    pub no_cache_fields: Vec<Vec<u8>>,
    /// For all of the response, or for some fields of it.
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
}

/// Directives of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    pub no_cache: bool,
    pub no_store: bool,
    pub only_if_cached: bool,
    /// Seconds.
    pub max_age: Option<u64>,
    /// Seconds.
    pub min_fresh: Option<u64>,
    /// Seconds; without a value as long as it may be.
    pub max_stale: Option<u64>,
}

/// Fields that say for a gateway what `Cache-Control` says for all, the first that is there and can be read: this gateway's
/// own, and that of all gateways of an origin (RFC 9213 §3.1).
pub const TARGETED: [&[u8]; 2] = [b"castling-cache-control", b"cdn-cache-control"];

impl ResponseDirectives {
    /// Directives of a response with these fields. `is_targeted`: they are a targeted field's, and neither `Cache-Control` nor
    /// `Expires` count (RFC 9213 §2.2).
    pub fn of(headers: &Headers) -> (Self, bool) {
        match TARGETED
            .iter()
            .find_map(|name| Self::targeted(headers, name))
        {
            Some(found) => (found, true),
            None => (Self::of_cache_control(headers), false),
        }
    }

    fn of_cache_control(headers: &Headers) -> Self {
        let mut all = Self::default();
        for value in headers.get_all(&http::header::CACHE_CONTROL) {
            for (name, argument) in directives(value) {
                all.add(name, argument);
            }
        }
        all
    }

    /// Directives of a targeted field, which is a dictionary (RFC 9213 §2.1). `None`: it is not there, is empty, or cannot be
    /// read, and then it is as if it were not there.
    fn targeted(headers: &Headers, name: &[u8]) -> Option<Self> {
        let found = headers.find(name)?;
        let lines: Vec<&[u8]> = headers.of(found).map(|(_, value)| value).collect();
        let text = lines.join(&b", "[..]);
        let parsed: Dictionary = Parser::new(&text).parse().ok()?;
        if parsed.is_empty() {
            return None;
        }
        let mut all = Self::default();
        for (key, entry) in &parsed {
            let ListEntry::Item(item) = entry else {
                continue;
            };
            let argument = match &item.bare_item {
                BareItem::Boolean(true) => None,
                // Said to be not so.
                BareItem::Boolean(false) => continue,
                BareItem::Integer(number) => Some(i64::from(*number).to_string().into_bytes()),
                BareItem::String(text) => Some(text.as_str().as_bytes().to_vec()),
                // A value that has another type than it should makes what it is about stale.
                _ => Some(Vec::new()),
            };
            all.add(key.as_str().as_bytes(), argument.map(Cow::Owned));
        }
        Some(all)
    }

    /// Adds one. Where one is there twice, the first counts (RFC 9111 §4.2.1).
    fn add(&mut self, name: &[u8], argument: Option<Cow<'_, [u8]>>) {
        let seconds = || Some(seconds(argument.as_deref()).unwrap_or(0));
        match &*name.to_ascii_lowercase() {
            b"max-age" => self.max_age = self.max_age.or_else(seconds),
            b"s-maxage" => self.s_maxage = self.s_maxage.or_else(seconds),
            b"stale-while-revalidate" => {
                self.stale_while_revalidate = self.stale_while_revalidate.or_else(seconds);
            }
            b"stale-if-error" => self.stale_if_error = self.stale_if_error.or_else(seconds),
            b"no-store" => self.no_store = true,
            b"no-cache" => match argument {
                None => self.no_cache = true,
                Some(fields) => self.no_cache_fields.extend(
                    fields
                        .split(|&byte| byte == b',')
                        .map(|name| name.trim_ascii().to_ascii_lowercase())
                        .filter(|name| !name.is_empty()),
                ),
            },
            b"private" => self.private = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            _ => {}
        }
    }

    /// Whether a stale response must not be used without the origin's word (RFC 9111 §4.2.4; RFC 5861 cannot allow it either).
    pub fn forbids_stale(&self) -> bool {
        self.no_cache || self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some()
    }
}

impl RequestDirectives {
    pub fn of(headers: &Headers) -> Self {
        let mut all = Self::default();
        let mut is_there = false;
        for value in headers.get_all(&http::header::CACHE_CONTROL) {
            is_there = true;
            for (name, argument) in directives(value) {
                all.add(name, argument);
            }
        }
        // RFC 9111 §5.4: for clients of HTTP/1.0.
        if !is_there {
            let pragma = headers.get(&http::header::PRAGMA).unwrap_or_default();
            all.no_cache =
                directives(pragma).any(|(name, _)| name.eq_ignore_ascii_case(b"no-cache"));
        }
        all
    }

    fn add(&mut self, name: &[u8], argument: Option<Cow<'_, [u8]>>) {
        let value = || seconds(argument.as_deref());
        match &*name.to_ascii_lowercase() {
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => self.max_age = self.max_age.or_else(value),
            b"min-fresh" => self.min_fresh = self.min_fresh.or_else(value),
            b"max-stale" => {
                let any = argument.is_none().then_some(MAX_SECONDS);
                self.max_stale = self.max_stale.or(any).or_else(value);
            }
            _ => {}
        }
    }
}

/// The longest time that a directive can give; what is longer counts as that (RFC 9111 §1.2.2).
const MAX_SECONDS: u64 = 1 << 31;

/// A number of seconds (RFC 9111 §1.2.2). `None`: it is none.
pub fn seconds(argument: Option<&[u8]>) -> Option<u64> {
    let digits = argument?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let more = |sum: u64, digit: &u8| (10 * sum + u64::from(digit - b'0')).min(MAX_SECONDS);
    Some(digits.iter().fold(0, more))
}

/// The directives of one line, each with its argument, without the quotes of that. What is no token has no name.
fn directives(value: &[u8]) -> impl Iterator<Item = (&[u8], Option<Cow<'_, [u8]>>)> {
    let mut rest = value;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = end_of_member(rest);
        let member = rest[..end].trim_ascii();
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(match member.iter().position(|&byte| byte == b'=') {
            Some(at) => (&member[..at], Some(unquoted(&member[at + 1..]))),
            None => (member, None),
        })
    })
}

/// Place of the first comma that is in no quotes, or the end.
fn end_of_member(text: &[u8]) -> usize {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return at,
            _ => {}
        }
    }
    text.len()
}

fn unquoted(argument: &[u8]) -> Cow<'_, [u8]> {
    let inner = match argument {
        [b'"', inner @ .., b'"'] => inner,
        other => return Cow::Borrowed(other),
    };
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => text.extend(bytes.next()),
            other => text.push(other),
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::FieldName;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.add(FieldName::new(name.as_bytes()).unwrap(), value.as_bytes());
        }
        headers
    }

    fn response(value: &str) -> ResponseDirectives {
        ResponseDirectives::of(&headers(&[("cache-control", value)])).0
    }

    #[test]
    fn times_are_read_and_what_is_none_is_stale() {
        for (value, max_age) in [
            ("max-age=60", Some(60)),
            ("MaX-aGe=60", Some(60)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=003600", Some(3600)),
            ("max-age=99999999999999999999999", Some(MAX_SECONDS)),
            ("max-age=-60", Some(0)),
            ("max-age='60'", Some(0)),
            ("max-age=60.0", Some(0)),
            ("max-age=", Some(0)),
            ("max-age", Some(0)),
            ("max-age =60", None),
            ("x=\"max-age=60\", max-age=1", Some(1)),
            ("x=\"\\\", max-age=60\", max-age=1", Some(1)),
            ("max-age=1, max-age=60", Some(1)),
            (",,foo,max-age=7,", Some(7)),
            ("x=\"max-age=60", None),
        ] {
            assert_eq!(response(value).max_age, max_age, "{value}");
        }
    }

    #[test]
    fn directives_of_several_lines_add_up() {
        let fields = [
            ("Cache-Control", "no-cache=\"A, b\""),
            ("Cache-Control", "s-maxage=5, must-revalidate"),
        ];
        let (found, is_targeted) = ResponseDirectives::of(&headers(&fields));
        assert!(!found.no_cache && found.must_revalidate && !is_targeted);
        assert_eq!(found.no_cache_fields, [b"a".to_vec(), b"b".to_vec()]);
        assert!(found.forbids_stale());
        assert!(response("No-CaChE, PRIVATE=\"x\"").no_cache);
        assert!(response("private=\"x\"").private);
    }

    #[test]
    fn a_targeted_field_counts_alone_where_it_can_be_read() {
        let max_age = |fields: &[(&str, &str)]| ResponseDirectives::of(&headers(fields)).0.max_age;
        let usual = ("cache-control", "max-age=1, no-store");
        for (value, expected) in [
            ("max-age=60", Some(60)),
            ("max-age=60;x=1", Some(60)),
            ("max-age=60, max-age=7", Some(7)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=6.5", Some(0)),
            ("max-age=-1", Some(0)),
            ("public", None),
            ("MAX-AGE=60", Some(1)),
            ("max-age=60, &", Some(1)),
            ("", Some(1)),
        ] {
            let fields = [usual, ("CDN-Cache-Control", value)];
            assert_eq!(max_age(&fields), expected, "{value}");
        }
        let both = [
            usual,
            ("cdn-cache-control", "max-age=5"),
            ("Castling-Cache-Control", "max-age=9"),
        ];
        assert_eq!(max_age(&both), Some(9));
        assert!(!ResponseDirectives::of(&headers(&both)).0.no_store);
    }

    #[test]
    fn requests_ask_for_what_they_take() {
        let of = |fields: &[(&str, &str)]| RequestDirectives::of(&headers(fields));
        assert!(of(&[("pragma", "no-cache")]).no_cache);
        assert!(!of(&[("pragma", "no-cache"), ("cache-control", "x")]).no_cache);
        let all = of(&[("cache-control", "max-stale, min-fresh=3, only-if-cached")]);
        assert_eq!((all.max_stale, all.min_fresh), (Some(MAX_SECONDS), Some(3)));
        assert!(all.only_if_cached && !all.no_store);
        assert_eq!(of(&[("cache-control", "max-age=x")]).max_age, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let read: Vec<_> = directives(&value).collect();
            prop_assert!(read.len() <= value.len() + 1);
        }
    }
}
