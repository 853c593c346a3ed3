//! Names and values of a query or of a form (`application/x-www-form-urlencoded`), and percent-encoding.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Names and values in their order: of a request's query ([`Request::query_params`](crate::Request::query_params)), of a form that
/// was posted ([`Params::parse`]), or for a query or a form that a plugin sends.
///
/// ```
/// # use castling_sdk::prelude::*;
/// let form = http::Params::parse(b"name=Ada+L.&tag=a&tag=%C3%A4");
/// assert_eq!(form.get("name"), Some("Ada L."));
/// assert_eq!(form.all("tag").collect::<Vec<_>>(), ["a", "ä"]);
/// let target = format!("/search?{}", http::Params::new().with("q", "a&b").with("page", 2));
/// assert_eq!(target, "/search?q=a%26b&page=2");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// None at first.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Reads a query or a form, as browsers write it (WHATWG URL, urlencoded parsing): pairs between `&`, `+` for a space, `%` with
    /// two digits for a byte. Nothing is refused: a `%` without its digits stands for itself, and what is not UTF-8 becomes
    /// U+FFFD.
    pub fn parse(text: impl AsRef<[u8]>) -> Self {
        let pairs = text.as_ref().split(|byte| *byte == b'&');
        let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let end = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = match end {
                Some(end) => (&pair[..end], &pair[end + 1..]),
                None => (pair, &[][..]),
            };
            (decoded_form(name), decoded_form(value))
        });
        Self(pairs.collect())
    }

    /// The first value of the name; its case matters.
    pub fn get(&self, name: impl AsRef<str>) -> Option<&str> {
        let mut pairs = self.iter();
        let (_, value) = pairs.find(|(known, _)| *known == name.as_ref())?;
        Some(value)
    }

    /// All values of the name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.iter().filter(move |(known, _)| *known == name);
        pairs.map(|(_, value)| value)
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        self.0.push((name.into(), value.to_string()));
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A query without its `?`, or the body of a form.
impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (idx, (name, value)) in self.iter().enumerate() {
            let separator = if idx == 0 { "" } else { "&" };
            write!(f, "{separator}{}={}", encode(name), encode(value))?;
        }
        Ok(())
    }
}

/// The text with all but letters, digits and `-._~` percent-encoded (RFC 3986 §2.3), for a segment of a path, or for a name or a value in a query.
pub fn encode(text: impl AsRef<[u8]>) -> String {
    let mut encoded = String::new();
    for &byte in text.as_ref() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

/// The bytes that a percent-encoded text stands for. A `%` without two hexadecimal digits stands for itself, and `+` is a plus:
/// queries and forms are for [`Params`].
pub fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, after @ ..]) if both(*high, *low).is_some() => {
                decoded.extend(both(*high, *low));
                rest = after;
            }
            _ => {
                decoded.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(decoded)
}

fn both(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

fn decoded_form(text: &[u8]) -> String {
    let text: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    String::from_utf8_lossy(&decode(&text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded_to_itself() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(*decode(encode(&all).as_bytes()), *all);
        let text = "a b+c&d=e%ä/~";
        let params = Params::new().with(text, text).with("", "");
        assert_eq!(Params::parse(params.to_string()), params);
        assert_eq!(encode("a b/ä"), "a%20b%2F%C3%A4");
    }

    #[test]
    fn nothing_is_refused() {
        for (text, pairs) in [
            ("", &[][..]),
            ("&&", &[]),
            ("a", &[("a", "")]),
            ("=b&a==c", &[("", "b"), ("a", "=c")]),
            ("%=%4&a=%zz%41", &[("%", "%4"), ("a", "%zzA")]),
            ("a=%ff", &[("a", "\u{fffd}")]),
        ] {
            let params = Params::parse(text);
            assert_eq!(params.iter().collect::<Vec<_>>(), pairs, "{text}");
        }
        assert_eq!(*decode(b"a+b%2"), *b"a+b%2");
    }
}
