//! Cookies of a request (RFC 6265 §4.2), and those that a response sets (§4.1).

use http::header::{COOKIE, SET_COOKIE};

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

/// Value of the last cookie that a response sets whose name is this one in any case, without its attributes. It is what a client
/// keeps of several (RFC 6265 §5.3); `None` also where that one is to be forgotten (`Max-Age=0`).
pub fn last_set<'a>(headers: &'a Headers, name: &str) -> Option<&'a [u8]> {
    let values = headers.get_all(&SET_COOKIE).filter_map(|field| {
        let mut parts = field.split(|&byte| byte == b';');
        let (other, value) = parted(parts.next()?)?;
        let is_it = other.eq_ignore_ascii_case(name.as_bytes());
        is_it.then(|| (!parts.any(is_end)).then_some(value))
    });
    values.last().flatten()
}

/// Whether an attribute says that the cookie ends at once: a `Max-Age` of zero or less (RFC 6265 §5.2.2).
fn is_end(attribute: &[u8]) -> bool {
    let Some((name, value)) = parted(attribute) else {
        return false;
    };
    let is_none = match value {
        [b'-', digits @ ..] => digits.first().is_some_and(u8::is_ascii_digit),
        [b'0', rest @ ..] => rest.iter().all(|&digit| digit == b'0'),
        _ => false,
    };
    is_none && name.eq_ignore_ascii_case(b"max-age")
}

/// Name and value of a cookie. `None`: a part without `=` is no cookie.
fn parted(cookie: &[u8]) -> Option<(&[u8], &[u8])> {
    let cookie = cookie.trim_ascii();
    let equals = cookie.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (&cookie[..equals], &cookie[equals + 1..]);
    Some((name.trim_ascii_end(), value.trim_ascii_start()))
}

fn values_where(
    headers: &Headers,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = &[u8]> {
    let cookies = headers
        .get_all(&COOKIE)
        .flat_map(|field| field.split(|&byte| byte == b';'));
    cookies.filter_map(move |cookie| {
        let (name, value) = parted(cookie)?;
        is_wanted(name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_that_is_to_be_forgotten_has_no_value() {
        let last = |fields: &[&str]| {
            let mut headers = Headers::new();
            for field in fields {
                headers.add(&SET_COOKIE, field.as_bytes());
            }
            last_set(&headers, "sid").map(<[u8]>::to_vec)
        };
        assert_eq!(
            last(&["sid=a; Path=/", "SID=b; max-age=10"]),
            Some(b"b".to_vec())
        );
        for gone in [
            "sid=; Max-Age=0",
            "sid=x; path=/; MAX-AGE = -1",
            "sid=x; max-age=00",
        ] {
            assert_eq!(last(&["sid=a", gone]), None, "{gone}");
        }
        assert_eq!(
            last(&["sid=a; max-age=0", "sid=b; max-age"]),
            Some(b"b".to_vec())
        );
    }

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

    #[test]
    fn the_last_cookie_that_is_set_counts() {
        let mut headers = Headers::new();
        for field in [
            "session=deleted; Max-Age=0",
            "other=1; session=no",
            " Session = \"a=b\" ; Path=/",
            "junk; session=no",
            "empty=; Path=/",
            "=nameless",
            "last=1",
        ] {
            headers.add(&SET_COOKIE, field.as_bytes());
        }
        for (name, expected) in [
            ("session", Some("\"a=b\"")),
            ("OTHER", Some("1")),
            ("empty", Some("")),
            ("last", Some("1")),
            ("path", None),
            ("junk", None),
        ] {
            let found = last_set(&headers, name);
            assert_eq!(found, expected.map(str::as_bytes), "{name}");
        }
        assert_eq!(last_set(&Headers::new(), "session"), None);
    }
}
