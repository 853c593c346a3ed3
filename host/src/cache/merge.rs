//! Validation: asking the origin whether a stored response is still good, and what it says then (RFC 9111 §4.3).

use crate::message::{FieldName, Headers, KnownHeader};

/// Makes a request one that asks whether the response with these fields is still good (RFC 9111 §4.3.1). False: there is nothing to
/// ask by. Conditions of the client are for its own copy, and go.
pub fn make_conditional(request: &mut Headers, stored: &Headers) -> bool {
    make_whole(request);
    let tag = stored.get(&http::header::ETAG);
    if let Some(tag) = tag {
        request.set(&http::header::IF_NONE_MATCH, tag);
    }
    let modified = stored.get(&http::header::LAST_MODIFIED);
    if let Some(modified) = modified {
        request.set(KnownHeader::IfModifiedSince, modified);
    }
    tag.is_some() || modified.is_some()
}

/// Removes the fields by which a client asks for a part, or for what it does not have: what is stored is whole.
pub fn make_whole(request: &mut Headers) {
    for name in [
        &http::header::IF_NONE_MATCH,
        &http::header::IF_MODIFIED_SINCE,
        &http::header::IF_MATCH,
        &http::header::IF_UNMODIFIED_SINCE,
        &http::header::IF_RANGE,
        &http::header::RANGE,
    ] {
        request.remove(name);
    }
}

/// Puts the fields of a 304 in the place of those that are stored (RFC 9111 §3.2), but for those that are about the body's bytes.
/// `date`: now, where it has none.
pub fn freshen(stored: &mut Headers, fresh: &Headers, date: &[u8]) {
    let mut done: Vec<&[u8]> = Vec::new();
    for (name, _) in fresh.iter() {
        let lower = name.to_ascii_lowercase();
        if is_of_body(&lower) || done.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            continue;
        }
        done.push(name);
        let Some(name) = FieldName::new(&lower) else {
            continue;
        };
        stored.remove(name);
        for value in fresh.get_all(name) {
            stored.add(name, value);
        }
    }
    if !fresh.contains(KnownHeader::Date) {
        stored.set(KnownHeader::Date, date);
    }
    // A lifetime that it does not give any more is over: its own `Age` counts from now on.
    if !fresh.contains(&http::header::AGE) {
        stored.remove(&http::header::AGE);
    }
}

/// Whether a field tells of the bytes that are stored: a 304 has none.
fn is_of_body(lower: &[u8]) -> bool {
    matches!(
        lower,
        b"content-encoding"
            | b"content-length"
            | b"content-range"
            | b"content-md5"
            | b"content-digest"
            | b"repr-digest"
            | b"etag"
            | b"transfer-encoding"
            | b"trailer"
            | b"connection"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.add(FieldName::new(name.as_bytes()).unwrap(), value.as_bytes());
        }
        headers
    }

    fn text(headers: &Headers) -> String {
        let mut lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| {
                let [name, value] = [name, value].map(String::from_utf8_lossy);
                format!("{}: {value}", name.to_ascii_lowercase())
            })
            .collect();
        lines.sort();
        lines.join("; ")
    }

    #[test]
    fn the_origin_is_asked_by_what_is_stored_and_not_by_what_the_client_has() {
        let mut request = headers(&[
            ("if-none-match", "\"client\""),
            ("if-match", "\"x\""),
            ("range", "bytes=0-1"),
            ("accept", "*/*"),
        ]);
        let stored = headers(&[("ETag", "W/\"a\""), ("last-modified", "then")]);
        assert!(make_conditional(&mut request, &stored));
        assert_eq!(
            text(&request),
            "accept: */*; if-modified-since: then; if-none-match: W/\"a\""
        );
        assert!(!make_conditional(&mut request, &Headers::new()));
        assert_eq!(text(&request), "accept: */*");
    }

    #[test]
    fn a_304_updates_all_but_what_is_of_the_body() {
        let mut stored = headers(&[
            ("A", "1"),
            ("a", "2"),
            ("b", "1"),
            ("age", "5"),
            ("content-length", "3"),
            ("content-type", "text/plain"),
        ]);
        let fresh = headers(&[
            ("a", "3"),
            ("A", "4"),
            ("c", "1"),
            ("content-length", "0"),
            ("content-type", "text/html"),
        ]);
        freshen(&mut stored, &fresh, b"now");
        assert_eq!(
            text(&stored),
            "a: 3; a: 4; b: 1; c: 1; content-length: 3; content-type: text/html; date: now"
        );
    }
}
