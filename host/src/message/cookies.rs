//! Cookies of a request (RFC 6265 §4.2).

use http::header::COOKIE;

use super::Headers;

/// Values of the cookies with this name, in the order of the request, as they were sent: quotes are part of a value, and nothing
/// is decoded. A part without `=` is no cookie.
pub fn values<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    values_where(headers, move |other| other == name.as_bytes())
}

/// The first value of a cookie whose name is this one in any case.
pub fn first_in_any_case<'a>(headers: &'a Headers, name: &str) -> Option<&'a [u8]> {
    values_where(headers, |other| other.eq_ignore_ascii_case(name.as_bytes())).next()
}

fn values_where(
    headers: &Headers,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = &[u8]> {
    let cookies = headers
        .get_all(&COOKIE)
        .flat_map(|field| field.split(|&byte| byte == b';'));
    cookies.filter_map(move |cookie| {
        let cookie = cookie.trim_ascii();
        let equals = cookie.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (cookie[..equals].trim_ascii_end(), &cookie[equals + 1..]);
        is_wanted(name).then(|| value.trim_ascii_start())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_in_all_fields() {
        let mut headers = Headers::new();
        for field in ["a=1; b=2;c=\"3\"", " a = 4 ;; junk; A=5; ab=6; d=x=y"] {
            headers.add(&COOKIE, field.as_bytes());
        }
        for (name, expected) in [
            ("a", &["1", "4"][..]),
            ("b", &["2"]),
            ("c", &["\"3\""]),
            ("A", &["5"]),
            ("d", &["x=y"]),
            ("junk", &[]),
            ("", &[]),
        ] {
            let found: Vec<_> = values(&headers, name).collect();
            let expected: Vec<_> = expected.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(first_in_any_case(&headers, "D"), Some(&b"x=y"[..]));
        assert_eq!(first_in_any_case(&headers, "e"), None);
    }
}
