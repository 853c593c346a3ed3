//! What a route asks of a request, from the config: hosts, path, methods, fields, query, cookies.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use http::{HeaderName, HeaderValue, Method};

use crate::message::path;

use super::sections::is_host_name;
use super::table::{Table, Value};
use super::tree::NodeKind;
use super::variables::{CAPTURE_RULE, is_capture};
use super::{FieldMatch, HostPattern, PathMatch, Pattern, Route, ValueTest};

pub(super) fn host_pattern(value: Value<'_>) -> Option<HostPattern> {
    let text = value.text()?.to_ascii_lowercase();
    let is_ipv6 = |text: &str| {
        text.strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .is_some_and(|text| text.parse::<Ipv6Addr>().is_ok())
    };
    match text.strip_prefix('*') {
        Some(suffix) if suffix.strip_prefix('.').is_some_and(is_host_name) => {
            Some(HostPattern::Suffix(suffix.to_owned()))
        }
        None if is_host_name(&text) || is_ipv6(&text) => Some(HostPattern::Exact(text)),
        Some(_) | None => {
            value.expected("a host such as \"example.com\" or \"*.example.com\", without a port")
        }
    }
}

/// A prefix, `{ exact = "/x" }` or `{ regex = "^/x" }`.
pub(super) fn route_path(value: Value<'_>) -> Option<PathMatch> {
    let NodeKind::Table(_) = value.kind() else {
        let path = checked_path(value)?;
        let inner = path.strip_suffix('/').unwrap_or(path);
        return Some(PathMatch::Prefix(inner.to_owned()));
    };
    let mut table = value.table()?;
    let exact = table.get("exact");
    let regex = table.get("regex");
    table.finish();
    match (exact, regex) {
        (Some(exact), None) => Some(PathMatch::Exact(checked_path(exact)?.to_owned())),
        (None, Some(regex)) => Some(PathMatch::Regex(path_pattern(regex)?)),
        (None, None) | (Some(_), Some(_)) => {
            value.expected("one of { exact = \"/x\" } and { regex = \"^/x\" }")
        }
    }
}

fn path_pattern(value: Value<'_>) -> Option<Pattern> {
    let pattern = pattern(value)?;
    // A mistake that is easily made: it would match nothing.
    let bound = pattern.as_str().strip_prefix('^');
    if bound.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_alphanumeric())) {
        return value.expected("/ behind ^: it is what paths begin with");
    }
    Some(pattern)
}

fn pattern(value: Value<'_>) -> Option<Pattern> {
    let text = value.text_or("a regular expression")?;
    if text.is_empty() {
        return value.expected("a regular expression");
    }
    match Pattern::new(text) {
        Ok(pattern) => Some(pattern),
        Err(why) => value.refuse(format_args!("{} {}: {why}", value.key(), value.shown())),
    }
}

/// A path that a request can have.
fn checked_path(value: Value<'_>) -> Option<&str> {
    let text = value.text()?;
    let inner = text.strip_suffix('/').unwrap_or(text);
    let visible = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    // The segments after the first slash; the root has none.
    let normal = inner.is_empty()
        || inner
            .split('/')
            .skip(1)
            .all(|segment| !matches!(segment, "" | "." | ".."));
    if text.contains('*') {
        // Taken as it stands it would match next to nothing, which nobody means.
        return value.refuse(format_args!(
            "path {text:?}: * is no wildcard here: a path is a prefix of whole segments, \"/api\" matches \"/api/x\" \
             (%2A means the character)"
        ));
    }
    if text.starts_with('/') && visible && normal {
        return match path::read(text) {
            Ok(_) => Some(text),
            Err(error) => value.refuse(format_args!(
                "path {text:?}: {error}, which no request can have"
            )),
        };
    }
    value.expected(
        "a path that begins with /, without ?, #, spaces and empty, \".\" or \"..\" segments",
    )
}

pub(super) fn method(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    // RFC 9110 §9.1: methods are case-sensitive.
    let upper = text.to_ascii_uppercase();
    if text != upper
        && STANDARD_METHODS
            .iter()
            .any(|method| method.as_str() == upper)
    {
        return value.expected(format_args!("\"{upper}\", methods are case-sensitive"));
    }
    match Method::from_bytes(text.as_bytes()) {
        Ok(_) => Some(text.to_owned()),
        Err(_) => value.expected("a method such as \"GET\""),
    }
}

/// A table of names and tests, each name once.
pub(super) fn tests(
    value: Value<'_>,
    what: &str,
    read: impl Fn(Value<'_>) -> Option<FieldMatch>,
) -> Option<Vec<FieldMatch>> {
    let tests: Vec<_> = value
        .table()?
        .values()
        .filter_map(|value| Some((value, read(value)?)))
        .collect();
    let mut names = HashSet::with_capacity(tests.len());
    for (item, test) in &tests {
        if !names.insert(test.name.as_str()) {
            item.map().refuse(
                item.key_place(),
                format_args!("{what} \"{}\" is already in the table", test.name),
            );
        }
    }
    Some(tests.into_iter().map(|(_, test)| test).collect())
}

pub(super) fn header(value: Value<'_>) -> Option<FieldMatch> {
    let Ok(name) = HeaderName::from_bytes(value.key().as_bytes()) else {
        return bad_name(value, "header", "a header's name");
    };
    Some(FieldMatch {
        name: name.as_str().to_owned(),
        test: value_test(value, "a header's value", |text| {
            HeaderValue::from_str(text).is_ok()
        })?,
    })
}

pub(super) fn parameter(value: Value<'_>) -> Option<FieldMatch> {
    if value.key().is_empty() {
        return bad_name(value, "query", "a parameter's name");
    }
    Some(FieldMatch {
        name: value.key().to_owned(),
        test: value_test(value, "a parameter's value", |_| true)?,
    })
}

pub(super) fn cookie(value: Value<'_>) -> Option<FieldMatch> {
    // RFC 6265 §4.1.1: a name is a token, and a value has neither spaces nor separators.
    if value.key().parse::<Method>().is_err() {
        return bad_name(value, "cookie", "a cookie's name");
    }
    let may_be_value = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b';')
    };
    Some(FieldMatch {
        name: value.key().to_owned(),
        test: value_test(value, "a cookie's value", may_be_value)?,
    })
}

fn bad_name<T>(value: Value<'_>, what: &str, expected: &str) -> Option<T> {
    value.map().refuse(
        value.key_place(),
        format_args!("{what} {:?}: expected {expected}", value.key()),
    );
    None
}

/// A value, a list of values, `true`, `false` or `{ regex = "..." }`.
fn value_test(
    value: Value<'_>,
    what: &str,
    may_be_value: impl Fn(&str) -> bool,
) -> Option<ValueTest> {
    let rule = format!(
        "{what}, a list of such, {{ regex = \"...\" }}, or true (present) or false (absent)"
    );
    let text = |value: Value<'_>| match value.kind() {
        NodeKind::Text(text) if may_be_value(text) => Some(text.clone()),
        _ => value.expected(&rule),
    };
    match value.kind() {
        NodeKind::Boolean(true) => Some(ValueTest::Present),
        NodeKind::Boolean(false) => Some(ValueTest::Absent),
        NodeKind::List(items) if items.is_empty() => value.expected(&rule),
        NodeKind::List(_) => value.set(text).map(ValueTest::OneOf),
        NodeKind::Table(_) => {
            let mut table = value.table()?;
            let regex = table.required("regex", "a regular expression", pattern);
            table.finish();
            regex.map(ValueTest::Regex)
        }
        NodeKind::Text(_)
        | NodeKind::Integer(_)
        | NodeKind::Float(_)
        | NodeKind::Datetime(_)
        | NodeKind::Refused => text(value).map(|text| ValueTest::OneOf(vec![text])),
    }
}

/// Refuses names of groups that are no variable's, or that another expression of the route has.
pub(super) fn capture_names(table: &mut Table<'_>, route: &Route) {
    let mut known = HashSet::new();
    let mut check = |key: &'static str, pattern: &Pattern| {
        for name in pattern.group_names() {
            let Some(value) = table.get(key) else {
                continue;
            };
            if !is_capture(&name) {
                value.refuse::<()>(format_args!(
                    "{key}: group {name:?}: expected {CAPTURE_RULE}"
                ));
            } else if !known.insert(name.clone()) {
                value.refuse::<()>(format_args!(
                    "{key}: group {name:?} is already in another expression of the route"
                ));
            }
        }
    };
    if let PathMatch::Regex(pattern) = &route.path {
        check("path", pattern);
    }
    for (key, tests) in [
        ("headers", &route.headers),
        ("query", &route.query),
        ("cookies", &route.cookies),
    ] {
        for test in tests {
            if let Some(pattern) = test.pattern() {
                check(key, pattern);
            }
        }
    }
}

const STANDARD_METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];
