//! Sayings of origins and clients on caching, through what decides by them. For fuzz targets.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::cache::{Defaults, Entry, Moment, Response, Rules, Storing, head_to_store, judge};
use crate::config::StatusSet;
use crate::message::conditions::{self, Condition};
use crate::message::ranges::Ranges;
use crate::message::{FieldName, Headers, KnownHeader, is_valid_value};

/// Judges a response by rules of a route, from the strictest to those that store nearly everything, and asks of it what a request
/// does. `text`: fields of the request, an empty line, the response's status, its fields, an empty line, and its body.
///
/// Promises: a response that says `no-store` or `private` is not stored; one that is stored is read from its entry as it was; a client
/// is told that it has a response only by a tag or a date; parts lie within the body.
pub fn exchange(text: &str) {
    let mut parts = text.splitn(3, "\n\n");
    let mut part = || parts.next().unwrap_or_default();
    let (request, response, body) = (fields(part()), part(), part());
    let (status, response) = response.split_once('\n').unwrap_or((response, ""));
    let Ok(status) = StatusCode::from_bytes(status.trim().as_bytes()) else {
        return;
    };
    let response = fields(response);
    let lavish = Rules {
        defaults: Defaults {
            lifetimes: vec![(StatusSet::from_iter([100..=599]), Duration::from_secs(60))],
            heuristic: 1.0,
            stale_while_revalidate: Duration::from_secs(60),
            stale_if_error: Duration::from_secs(60),
        },
        stores_cookies: true,
        ignores_origin: false,
    };
    for rules in [Rules::default(), lavish] {
        let has_credentials = request.contains(KnownHeader::Authorization);
        let now = Moment(1_800_000_000_000);
        let times = (Moment(now.0 - 1000), now);
        let Storing::Store {
            freshness, without, ..
        } = judge(has_credentials, status, &response, times, &rules)
        else {
            continue;
        };
        let headers = head_to_store(&response, &without, Some("peer"), b"now");
        let body = Bytes::copy_from_slice(body.as_bytes());
        let stored = Response {
            freshness,
            status,
            headers,
            body,
        };
        check(&stored, &request, now);
    }
}

fn check(stored: &Response, request: &Headers, now: Moment) {
    let Response {
        freshness,
        status,
        headers,
        body,
    } = stored;
    let bytes = Entry::response(freshness, *status, headers, std::iter::once(&body[..]));
    let Some(Entry::Response(read)) = Entry::read(&bytes) else {
        panic!("an entry that was written is not read");
    };
    let read = read.owned().expect("a head that was written is read");
    assert_eq!(read.freshness, *freshness);
    assert_eq!((read.status, &read.body), (*status, body));
    let lines = |headers: &Headers| -> Vec<(Vec<u8>, Vec<u8>)> {
        let fields = headers.iter();
        let owned = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()));
        owned.collect()
    };
    assert_eq!(lines(&read.headers), lines(headers));
    for later in [0, 1_000, 1 << 40, u64::MAX - now.0] {
        let later = Moment(now.0 + later);
        let is_stale = freshness.staleness_at(later) > Duration::ZERO;
        assert!(!(freshness.is_fresh_at(later) && is_stale));
        let _seconds = freshness.seconds_left_at(later);
    }
    if conditions::of_copy(request, headers) == Condition::NotModified {
        let asks = request.contains(&http::header::IF_NONE_MATCH)
            || request.contains(KnownHeader::IfModifiedSince);
        assert!(asks, "a client that has nothing is told that it has it");
    }
    let range = request.get(&http::header::RANGE).unwrap_or_default();
    if let Ranges::Parts(parts) = Ranges::of(range, body.len() as u64) {
        let within = |part: &crate::message::ranges::Part| {
            part.start < part.end && part.end <= body.len() as u64
        };
        assert!(!parts.is_empty() && parts.iter().all(within));
    }
}

/// Fields that a codec would let pass.
fn fields(text: &str) -> Headers {
    let mut headers = Headers::new();
    for line in text.lines().take(64) {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim().as_bytes();
        if let (Some(name), true) = (FieldName::new(name.as_bytes()), is_valid_value(value)) {
            headers.add(name, value);
        }
    }
    headers
}
