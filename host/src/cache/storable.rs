//! Which responses may be stored (RFC 9111 §3).

use http::StatusCode;

use super::directives::ResponseDirectives;
use super::freshness::{Defaults, Freshness, Moment, Source};
use super::vary::Vary;
use crate::message::{Headers, KnownHeader};

/// Rules of a route on what is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    pub defaults: Defaults,
    /// Responses that set cookies are stored, cookies and all.
    pub stores_cookies: bool,
    /// `Cache-Control` and `Expires` of the origin do not count.
    pub ignores_origin: bool,
}

/// Verdict on a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storing {
    Store {
        freshness: Freshness,
        vary: Vary,
        /// Fields that must not be stored, in lower case.
        without: Vec<Vec<u8>>,
    },
    /// Why not, in a word for `Cache-Status`.
    Not(&'static str),
    /// Why not for this request, though others may have it: it has credentials, or the response has cookies for its client.
    NotForAll(&'static str),
}

/// Says whether the response to a request of the method GET may be stored. `has_credentials`: whether the request has come with
/// `Authorization`. `times`: when it was asked for, and when it came.
pub fn judge(
    has_credentials: bool,
    status: StatusCode,
    headers: &Headers,
    times: (Moment, Moment),
    rules: &Rules,
) -> Storing {
    let (directives, is_targeted) = match rules.ignores_origin {
        true => (ResponseDirectives::default(), true),
        false => ResponseDirectives::of(headers),
    };
    if let Some(why) = refusal(status, headers, &directives) {
        return Storing::Not(why);
    }
    // RFC 9111 §3.5.
    let is_for_all =
        directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if has_credentials && !is_for_all {
        return Storing::NotForAll("authorization");
    }
    if headers.contains(&http::header::SET_COOKIE) && !rules.stores_cookies {
        return Storing::NotForAll("set-cookie");
    }
    let Some(vary) = Vary::of(headers) else {
        return Storing::Not("vary");
    };
    let (freshness, source) = Freshness::of(
        status,
        headers,
        (&directives, is_targeted),
        times,
        &rules.defaults,
    );
    if source == Source::None {
        return Storing::Not("no-freshness");
    }
    let has_validator = [http::header::ETAG, http::header::LAST_MODIFIED]
        .iter()
        .any(|name| headers.contains(name));
    let (_, came) = times;
    let is_usable = freshness.is_fresh_at(came)
        || freshness.is_usable_meanwhile(came)
        || freshness.is_usable_after_error(came);
    match is_usable || has_validator {
        true => Storing::Store {
            freshness,
            vary,
            without: directives.no_cache_fields,
        },
        false => Storing::Not("stale"),
    }
}

/// Fields of a response as they are stored: without its length, which the body has, without those that `no-cache` names, and without
/// the cookie by which the gateway itself binds a session.
pub fn head_to_store(
    headers: &Headers,
    without: &[Vec<u8>],
    session_cookie: Option<&str>,
    date: &[u8],
) -> Headers {
    let mut stored = headers.clone();
    stored.retain(|name, value| {
        let is_left_out = |other: &Vec<u8>| other.eq_ignore_ascii_case(name);
        let is_session = name.eq_ignore_ascii_case(b"set-cookie")
            && session_cookie.is_some_and(|own| is_cookie(value, own));
        !name.eq_ignore_ascii_case(b"content-length")
            && !is_session
            && !without.iter().any(is_left_out)
    });
    if !stored.contains(KnownHeader::Date) {
        // RFC 9110 §6.6.1: a cache that stores one without a date adds it.
        stored.set(KnownHeader::Date, date);
    }
    stored
}

fn is_cookie(value: &[u8], name: &str) -> bool {
    let rest = value.strip_prefix(name.as_bytes());
    rest.is_some_and(|rest| rest.first() == Some(&b'='))
}

fn refusal(
    status: StatusCode,
    headers: &Headers,
    directives: &ResponseDirectives,
) -> Option<&'static str> {
    let is_understood = UNDERSTOOD.contains(&status.as_u16());
    // Parts are not stored, and 304 is no response of its own.
    if status.is_informational() || matches!(status.as_u16(), 206 | 304) {
        return Some("status");
    }
    // RFC 9111 §5.2.2.3: who understands the status heeds this in the place of `no-store`.
    match directives.must_understand {
        true if !is_understood => return Some("must-understand"),
        true => {}
        false if directives.no_store => return Some("no-store"),
        false => {}
    }
    if directives.private {
        return Some("private");
    }
    // An event stream has no end: who waited for it would wait for ever.
    let kind = headers.get(KnownHeader::ContentType).unwrap_or_default();
    if kind.to_ascii_lowercase().starts_with(b"text/event-stream") {
        return Some("event-stream");
    }
    None
}

/// Final statuses of RFC 9110 and of those after it, which this cache knows the meaning of.
const UNDERSTOOD: [u16; 46] = [
    200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 305, 307, 308, 400, 401, 402, 403, 404, 405,
    406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 425, 426, 428, 429, 431,
    451, 500, 501, 502, 503, 504, 505, 511,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::FieldName;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.add(FieldName::new(name.as_bytes()).unwrap(), value.as_bytes());
        }
        headers
    }

    fn verdict(
        status: u16,
        request: &[(&str, &str)],
        response: &[(&str, &str)],
        rules: &Rules,
    ) -> String {
        let has_credentials = headers(request).contains(KnownHeader::Authorization);
        let status = StatusCode::from_u16(status).unwrap();
        let now = Moment::now();
        match judge(
            has_credentials,
            status,
            &headers(response),
            (now, now),
            rules,
        ) {
            Storing::Store { freshness, .. } => freshness.lifetime.as_secs().to_string(),
            Storing::Not(why) | Storing::NotForAll(why) => why.to_owned(),
        }
    }

    fn usually(status: u16, control: &str) -> String {
        verdict(
            status,
            &[],
            &[("cache-control", control)],
            &Rules::default(),
        )
    }

    #[test]
    fn what_says_how_long_it_is_fresh_is_stored_whatever_its_status() {
        for status in [200, 204, 299, 302, 404, 500, 599] {
            assert_eq!(usually(status, "max-age=60"), "60", "{status}");
        }
        for (status, control, why) in [
            (206, "max-age=60", "status"),
            (304, "max-age=60", "status"),
            (200, "max-age=60, no-store", "no-store"),
            (200, "private, max-age=60", "private"),
            (200, "private=\"a\", max-age=60", "private"),
            (599, "max-age=60, must-understand", "must-understand"),
            (200, "max-age=60, no-store, must-understand", "60"),
            (200, "foo", "no-freshness"),
            (200, "max-age=0", "stale"),
            (200, "max-age=0, stale-if-error=5", "0"),
            (200, "no-cache", "stale"),
        ] {
            assert_eq!(usually(status, control), why, "{status} {control}");
        }
    }

    #[test]
    fn what_can_be_validated_is_stored_stale() {
        let rules = Rules::default();
        for control in ["max-age=0", "no-cache", "max-age=5, no-cache"] {
            let fields = [("cache-control", control), ("etag", "\"a\"")];
            assert!(
                verdict(200, &[], &fields, &rules).parse::<u64>().is_ok(),
                "{control}"
            );
        }
        let silent = [("etag", "\"a\"")];
        assert_eq!(verdict(200, &[], &silent, &rules), "no-freshness");
    }

    #[test]
    fn what_is_one_clients_is_not_stored() {
        let rules = Rules::default();
        let login = [("authorization", "Basic x")];
        for (control, expected) in [
            ("max-age=60", "authorization"),
            ("max-age=60, public", "60"),
            ("max-age=60, must-revalidate", "60"),
            ("s-maxage=60", "60"),
        ] {
            let fields = [("cache-control", control)];
            assert_eq!(verdict(200, &login, &fields, &rules), expected, "{control}");
        }
        let cookie = [("cache-control", "max-age=60"), ("set-cookie", "a=b")];
        assert_eq!(verdict(200, &[], &cookie, &rules), "set-cookie");
        let rules = Rules {
            stores_cookies: true,
            ..rules
        };
        assert_eq!(verdict(200, &[], &cookie, &rules), "60");
        let vary = [("cache-control", "max-age=60"), ("vary", "a, *")];
        assert_eq!(verdict(200, &[], &vary, &rules), "vary");
    }
}
