//! Conditions of requests (RFC 9110 §13), asked of what is there.

use std::time::SystemTime;

use super::{Headers, KnownHeader};

/// Outcome of a request's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// All hold, or there are none: the whole is sent.
    Holds,
    /// The client has it already (304).
    NotModified,
}

/// Whether a request asks for something that only the origin can decide: whether it has changed, before it is changed.
pub fn is_for_origin(request: &Headers) -> bool {
    let names = [&http::header::IF_MATCH, &http::header::IF_UNMODIFIED_SINCE];
    names.iter().any(|name| request.contains(*name))
}

/// Asks the conditions of a GET or HEAD by which a client has a copy validated, of a response with these fields
/// (RFC 9110 §13.2.2, RFC 9111 §4.3.2).
pub fn of_copy(request: &Headers, response: &Headers) -> Condition {
    let mut tags = request.get_all(&http::header::IF_NONE_MATCH).peekable();
    if tags.peek().is_some() {
        let own = response.get(&http::header::ETAG);
        return match tags.any(|list| has_tag(list, own)) {
            true => Condition::NotModified,
            false => Condition::Holds,
        };
    }
    let Some(since) = request.get(KnownHeader::IfModifiedSince).and_then(date) else {
        return Condition::Holds;
    };
    let modified = response.get(&http::header::LAST_MODIFIED).and_then(date);
    match modified.is_some_and(|modified| modified <= since) {
        true => Condition::NotModified,
        false => Condition::Holds,
    }
}

/// Whether a part may be sent: there is no `If-Range`, or it names just this response (RFC 9110 §13.1.5).
pub fn allows_range(request: &Headers, response: &Headers) -> bool {
    let Some(condition) = request.get(KnownHeader::IfRange) else {
        return true;
    };
    let is_tag = condition.starts_with(b"\"") || condition.starts_with(b"W/");
    let own = match is_tag {
        true => response.get(&http::header::ETAG),
        false => response.get(&http::header::LAST_MODIFIED),
    };
    // A weak tag does not say that the bytes are the same.
    own.is_some_and(|own| own == condition && !own.starts_with(b"W/"))
}

/// Whether a list of tags has this one, weak or strong (RFC 9110 §8.8.3.2).
fn has_tag(list: &[u8], own: Option<&[u8]>) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let Some(own) = own.map(opaque) else {
        return false;
    };
    let mut rest = list;
    // A tag may have commas in it.
    while let Some(start) = rest.iter().position(|&byte| byte == b'"') {
        let Some(length) = rest[start + 1..].iter().position(|&byte| byte == b'"') else {
            return false;
        };
        let end = start + 1 + length + 1;
        if &rest[start..end] == own {
            return true;
        }
        rest = &rest[end..];
    }
    // Some have no quotes, against the grammar.
    list.trim_ascii() == own
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()
}

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

    const EARLY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATE: &str = "Mon, 07 Nov 1994 08:49:37 GMT";

    #[test]
    fn clients_have_a_copy_by_its_tag_or_else_by_its_date() {
        let tagged = |tag: &str| headers(&[("etag", tag), ("last-modified", LATE)]);
        for (tag, fields, is_had) in [
            ("\"a\"", &[("if-none-match", "\"a\"")][..], true),
            ("W/\"a\"", &[("if-none-match", "\"a\"")], true),
            ("\"a\"", &[("if-none-match", "W/\"a\"")], true),
            ("\"a\"", &[("if-none-match", "\"b\", \"a\"")], true),
            (
                "\"a\"",
                &[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")],
                true,
            ),
            ("\"a,b\"", &[("if-none-match", "\"a,b\"")], true),
            ("\"a\"", &[("if-none-match", "\"a,\"a\"")], false),
            ("\"a\"", &[("if-none-match", "*")], true),
            ("\"a\"", &[("if-none-match", "\"b\"")], false),
            ("\"a\"", &[("if-none-match", "a")], false),
            ("a", &[("if-none-match", "a")], true),
            ("\"a\"", &[("if-none-match", "\"a")], false),
            // The date does not count beside a tag.
            (
                "\"a\"",
                &[("if-none-match", "\"b\""), ("if-modified-since", LATE)],
                false,
            ),
            ("\"a\"", &[("if-modified-since", LATE)], true),
            ("\"a\"", &[("if-modified-since", EARLY)], false),
            ("\"a\"", &[("if-modified-since", "never")], false),
            ("\"a\"", &[], false),
        ] {
            let condition = of_copy(&headers(fields), &tagged(tag));
            assert_eq!(
                condition == Condition::NotModified,
                is_had,
                "{tag} {fields:?}"
            );
        }
        let nothing = headers(&[]);
        assert_eq!(
            of_copy(&headers(&[("if-modified-since", LATE)]), &nothing),
            Condition::Holds
        );
        assert_eq!(
            of_copy(&headers(&[("if-none-match", "\"a\"")]), &nothing),
            Condition::Holds
        );
    }

    #[test]
    fn parts_are_of_the_response_that_the_client_has_others_of() {
        let response = headers(&[("etag", "\"a\""), ("last-modified", LATE)]);
        for (condition, allows) in [
            ("\"a\"", true),
            ("W/\"a\"", false),
            (LATE, true),
            (EARLY, false),
        ] {
            let request = headers(&[("if-range", condition)]);
            assert_eq!(allows_range(&request, &response), allows, "{condition}");
        }
        assert!(allows_range(&headers(&[]), &response));
        let weak = headers(&[("etag", "W/\"a\"")]);
        assert!(!allows_range(&headers(&[("if-range", "W/\"a\"")]), &weak));
        assert!(is_for_origin(&headers(&[("if-match", "*")])));
    }
}
