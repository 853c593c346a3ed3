//! Header names and values, and the calls on a header section that [`Request`](crate::Request),
//! [`Reply`](crate::Reply) and [`Outcome`](crate::Outcome) share.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use castling_abi::rules::check::is_framing;
pub(crate) use castling_abi::rules::check::{is_field_name as is_name, is_field_value as is_value};
use castling_abi::{HeaderMap, Status, header_list};
use serde::Deserialize;

use crate::buffer::{Buffer, ShortBytes};
use crate::error::{self, Error, Result};
use crate::host;

/// A header's name: checked, in lower case.
///
/// In a config it is a string, and one that is not a header name is a config error.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct HeaderName(String);

impl HeaderName {
    /// Checks a name (RFC 9110 §5.1: a token). Fails when it is empty or has another character in it.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let mut name = name.into();
        if !is_name(name.as_bytes()) {
            return Err(Error::msg(format_args!(
                "`{}` is not a header name",
                name.escape_debug()
            )));
        }
        name.make_ascii_lowercase();
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HeaderName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl FromStr for HeaderName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl AsRef<str> for HeaderName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<str> for HeaderName {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for HeaderName {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

/// A header's value, or a variable's: bytes. Mostly text, but a client may send anything but control characters.
///
/// Compares with text and bytes without looking whether it is UTF-8. One of up to 256 bytes needs no allocation: it has 256
/// bytes that the next one takes over. A plugin that keeps one beyond its hook does better to keep a clone, which takes what it needs.
#[derive(Clone)]
pub struct HeaderValue(ShortBytes);

impl HeaderValue {
    /// Checks a value (RFC 9110 §5.5): fails when there is a control character other than a tab in it. What the
    /// `set_header` calls are given need not be checked first; that is for values whose refusal the plugin wants to
    /// handle.
    pub fn new(value: impl AsRef<[u8]>) -> Result<Self> {
        let value = value.as_ref();
        if !is_value(value) {
            return Err(Error::msg(format_args!(
                "`{}` is not a header value",
                value.escape_ascii()
            )));
        }
        Ok(Self(ShortBytes::from(value)))
    }

    /// The value as text; `None` when it is not UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The value as it came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value as text in which U+FFFD stands for what is not UTF-8.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    pub(crate) fn unchecked(bytes: ShortBytes) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for HeaderValue {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl PartialEq for HeaderValue {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for HeaderValue {}

impl Hash for HeaderValue {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.as_bytes().hash(hasher);
    }
}

impl PartialEq<[u8]> for HeaderValue {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_bytes() == other
    }
}

impl PartialEq<&[u8]> for HeaderValue {
    fn eq(&self, other: &&[u8]) -> bool {
        self.as_bytes() == *other
    }
}

impl PartialEq<str> for HeaderValue {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for HeaderValue {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<String> for HeaderValue {
    fn eq(&self, other: &String) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

/// All headers of a section, as they were when it was asked for.
#[derive(Debug)]
pub struct Headers {
    /// None: empty.
    list: Option<Buffer>,
}

impl Headers {
    /// Names (in lower case) and values, in the order of the section.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.records()
            .map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// The first value of the header; `None` when there is no such header.
    pub fn first(&self, name: impl AsRef<str>) -> Option<HeaderValue> {
        self.all(name.as_ref()).next()
    }

    /// All values of the header.
    pub fn all(&self, name: &str) -> impl Iterator<Item = HeaderValue> {
        self.records()
            .filter(move |(candidate, _)| candidate.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| HeaderValue(ShortBytes::from(value)))
    }

    fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        header_list::records(self.list.as_deref().unwrap_or_default())
            .map_while(std::result::Result::ok)
    }

    /// All that `call` hands out as a [`header_list`].
    pub(crate) fn read(call: impl FnMut(&mut [u8]) -> i32) -> Self {
        Self {
            list: Buffer::read(0, call).ok(),
        }
    }
}

/// Headers that a plugin puts together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderList {
    /// A [`header_list`].
    records: Vec<u8>,
    /// The first header that is not one, and what was expected; said when the list is to be sent.
    refused: Option<(String, &'static str)>,
}

impl HeaderList {
    pub(crate) const fn new() -> Self {
        Self {
            records: Vec::new(),
            refused: None,
        }
    }

    pub(crate) fn add(&mut self, name: &str, value: &[u8]) {
        let valid = is_name(name.as_bytes()) && is_value(value);
        match header_list::record_head(name.as_bytes(), value).filter(|_| valid) {
            Some(head) => {
                self.records.extend_from_slice(&head);
                self.records.extend_from_slice(name.as_bytes());
                self.records.extend_from_slice(value);
            }
            None => {
                self.refused.get_or_insert_with(|| {
                    let header =
                        format!("\"{}\", \"{}\"", name.escape_debug(), value.escape_ascii());
                    (header, expected(name, Some(value)))
                });
            }
        }
    }

    pub(crate) fn first(&self, name: &str) -> Option<HeaderValue> {
        header_list::records(&self.records)
            .map_while(std::result::Result::ok)
            .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| HeaderValue(ShortBytes::from(value)))
    }

    /// Reads a [`header_list`]; `None` where it is none.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut list = Self::new();
        for record in header_list::records(bytes) {
            let (name, value) = record.ok()?;
            list.add(std::str::from_utf8(name).ok()?, value);
        }
        list.refused.is_none().then_some(list)
    }

    /// Reads the headers that a plugin has put together, for the fake host.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn from_records(records: &[u8]) -> Self {
        Self {
            records: records.to_vec(),
            refused: None,
        }
    }

    /// The list as the host takes it. Fails with the first header that is not one.
    pub(crate) fn records(&self, type_name: &str) -> Result<&[u8]> {
        match &self.refused {
            Some((header, expected)) => Err(error::bad_argument(
                format_args!("{type_name}::header({header})"),
                Status::BadArgument,
                expected,
            )),
            None => Ok(&self.records),
        }
    }
}

pub(crate) fn get(map: HeaderMap, name: &str) -> Option<HeaderValue> {
    let value = ShortBytes::read(|out| host::header_get(map, name.as_bytes(), out)).ok()?;
    Some(HeaderValue(value))
}

pub(crate) fn all(map: HeaderMap, name: &str) -> Vec<HeaderValue> {
    // The host takes an empty name to mean every header.
    if name.is_empty() {
        return Vec::new();
    }
    list(map, name)
        .records()
        .map(|(_, value)| HeaderValue(ShortBytes::from(value)))
        .collect()
}

pub(crate) fn only(map: HeaderMap, name: &str) -> Option<HeaderValue> {
    // The empty name has no field, as in `all`.
    if name.is_empty() {
        return None;
    }
    let list = ShortBytes::read(|out| host::headers_get(map, name.as_bytes(), out)).ok()?;
    // A single field is all of the list: its value stands at the end.
    let value_len = match header_list::records(&list).next()? {
        Ok((name, value)) if header_list::record_bytes(name, value) == list.len() => value.len(),
        _ => return None,
    };
    Some(HeaderValue(list.last(value_len)))
}

/// The value of the first cookie of the request with such a name.
pub(crate) fn cookie(is_meant: impl Fn(&[u8]) -> bool) -> Option<HeaderValue> {
    // RFC 9113 §8.2.3: there may be several fields.
    list(HeaderMap::Request, "cookie")
        .records()
        .flat_map(|(_, field)| field.split(|&byte| byte == b';'))
        .find_map(|pair| {
            let equals = pair.iter().position(|&byte| byte == b'=')?;
            let (name, value) = (&pair[..equals], &pair[equals + 1..]);
            is_meant(name.trim_ascii()).then(|| HeaderValue(ShortBytes::from(value.trim_ascii())))
        })
}

pub(crate) fn list(map: HeaderMap, name: &str) -> Headers {
    Headers::read(|out| host::headers_get(map, name.as_bytes(), out))
}

#[inline]
pub(crate) fn set(map: HeaderMap, name: &str, value: &[u8]) {
    let result = host::header_set(map, name.as_bytes(), value);
    if result < 0 {
        refused("set_header", name, Some(value), result);
    }
}

#[inline]
pub(crate) fn add(map: HeaderMap, name: &str, value: &[u8]) {
    let result = host::header_add(map, name.as_bytes(), value);
    if result < 0 {
        refused("add_header", name, Some(value), result);
    }
}

#[inline]
pub(crate) fn remove(map: HeaderMap, name: &str) -> usize {
    let result = host::header_remove(map, name.as_bytes());
    if result < 0 && result != Status::NotFound as i32 {
        refused("remove_header", name, None, result);
    }
    usize::try_from(result).unwrap_or(0)
}

/// Rule that a wrong header breaks: of its name or its value, whichever is wrong.
#[cold]
fn expected(name: &str, value: Option<&[u8]>) -> &'static str {
    if !is_name(name.as_bytes()) {
        "a header's name of letters, digits and -"
    } else if is_framing(name.as_bytes()) {
        "another header: this one frames the message, which is the gateway's business"
    } else if value.is_some_and(|value| !is_value(value)) {
        "a value without control characters"
    } else if name.eq_ignore_ascii_case("host") {
        "a host, which a request always has one of"
    } else {
        "a shorter name or value"
    }
}

#[cold]
#[inline(never)]
fn refused(call: &str, name: &str, value: Option<&[u8]>, result: i32) {
    let expected = expected(name, value);
    let name = name.escape_debug();
    let value = value.map(|value| format!(", \"{}\"", value.escape_ascii()));
    let value = value.unwrap_or_default();
    error::note_refusal(result, |why| {
        error::bad_argument(format_args!("{call}(\"{name}\"{value})"), why, expected)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_in_lower_case() {
        assert_eq!(HeaderName::new("X-Token").unwrap(), "x-token");
        for bad in ["", "a b", "a:", "a\r\nb", "ä"] {
            assert!(HeaderName::new(bad).is_err(), "{bad:?}");
        }
        let error = serde_json::from_str::<HeaderName>(r#""x y""#).unwrap_err();
        assert!(
            error.to_string().starts_with("`x y` is not a header name"),
            "{error}"
        );
    }

    #[test]
    fn values_may_be_any_bytes_but_controls() {
        let value = HeaderValue::new(b"caf\xe9\t1").unwrap();
        assert_eq!(value.as_str(), None);
        assert_eq!(value.to_string_lossy(), "caf\u{fffd}\t1");
        assert_eq!(value, b"caf\xe9\t1"[..]);
        assert_ne!(value, "caf");
        for bad in ["a\rb", "a\nb", "a\0b", "\x7f"] {
            assert!(HeaderValue::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cookie_is_found_by_its_name() {
        let mut exchange = crate::testing::Exchange::get("/")
            .header("cookie", "a=1; A=2;b=\"3\"; =4")
            .header("cookie", "c=; a=5; ab=6");
        let request = exchange.request();
        for (name, value) in [
            ("a", Some("1")),
            ("A", Some("2")),
            ("b", Some("\"3\"")),
            ("c", Some("")),
            ("ab", Some("6")),
            ("d", None),
        ] {
            let found = request.cookie(name);
            assert_eq!(
                found.as_ref().and_then(|value| value.as_str()),
                value,
                "{name}"
            );
        }
    }
}
