//! Parameters of a query, as forms write them (WHATWG URL, `application/x-www-form-urlencoded`).

use std::borrow::Cow;

/// Values of the parameters with this name, in order, decoded: `%XX` once, `+` is a space. A parameter without `=` has an empty
/// value. A `%` without two hexadecimal digits stands for itself.
pub fn values<'a>(query: &'a str, name: &'a [u8]) -> impl Iterator<Item = Cow<'a, [u8]>> {
    values_where(query, move |other| other == name)
}

/// The first value of a parameter whose name is this one in any case.
pub fn first_in_any_case<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    values_where(query, |other| other.eq_ignore_ascii_case(name.as_bytes())).next()
}

fn values_where<'a>(
    query: &'a str,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = Cow<'a, [u8]>> {
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    parameters.filter_map(move |parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        is_wanted(&decoded(name)).then(|| decoded(value))
    })
}

/// Takes an allocation only where something is encoded.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    let text = text.as_bytes();
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let (byte, after) = match (first, encoded_byte(behind)) {
            (b'%', Some(byte)) => (byte, &behind[2..]),
            (b'+', _) => (b' ', behind),
            (byte, _) => (byte, behind),
        };
        decoded.push(byte);
        rest = after;
    }
    Cow::Owned(decoded)
}

/// The byte that two hexadecimal digits say, behind a `%`.
fn encoded_byte(digits: &[u8]) -> Option<u8> {
    let digit = |idx: usize| char::from(*digits.get(idx)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(query: &str, name: &str) -> Vec<String> {
        let values = values(query, name.as_bytes());
        values
            .map(|value| String::from_utf8_lossy(&value).into_owned())
            .collect()
    }

    #[test]
    fn parameters_are_decoded_once() {
        for (query, name, expected) in [
            ("a=1&b=2", "a", &["1"][..]),
            ("a=1&a=2&&a", "a", &["1", "2", ""]),
            ("a", "a", &[""]),
            ("a=b=c", "a", &["b=c"]),
            ("%61=x+y%2Bz", "a", &["x y+z"]),
            ("a=%252F", "a", &["%2F"]),
            ("a=%zz%4", "a", &["%zz%4"]),
            ("a=%c3%a4", "a", &["\u{e4}"]),
            ("a+b=1", "a b", &["1"]),
            ("A=1", "a", &[]),
            ("=1", "", &["1"]),
            ("", "", &[]),
            ("a;b=1", "b", &[]),
        ] {
            assert_eq!(all(query, name), expected, "{query}");
        }
    }

    #[test]
    fn a_name_may_be_in_any_case() {
        let first = first_in_any_case("b=0&User=1&user=2", "uSER");
        assert_eq!(first.as_deref(), Some(&b"1"[..]));
        assert_eq!(first_in_any_case("b=0", "user"), None);
    }

    proptest! {
        #[test]
        fn a_value_that_was_encoded_comes_back(value in prop::collection::vec(any::<u8>(), 0..20)) {
            let encoded: String = value.iter().map(|byte| format!("%{byte:02x}")).collect();
            let query = format!("x=1&key={encoded}&y=2");
            let found: Vec<_> = values(&query, b"key").map(Cow::into_owned).collect();
            prop_assert_eq!(found, [value]);
        }
    }
}
