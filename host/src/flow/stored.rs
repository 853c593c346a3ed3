//! A stored response as it answers one request: whole, in parts, or as the client has it already.

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};

use crate::cache::{Moment, Response};
use crate::message::conditions::{self, Condition};
use crate::message::ranges::{self, Ranges};
use crate::message::{Headers, KnownHeader, RequestHead};

/// How much of a response a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// Ranges of it, of which the body says whether they are there.
    Some,
    /// The client has it.
    NotModified,
}

/// Says so for a request with these fields, of a response of which the head is known.
pub fn part_of(method: &Method, request: &Headers, status: StatusCode, response: &Headers) -> Part {
    if status != StatusCode::OK {
        return Part::Whole;
    }
    if conditions::of_copy(request, response) == Condition::NotModified {
        return Part::NotModified;
    }
    let has_range = method == Method::GET && request.contains(&http::header::RANGE);
    match has_range && conditions::allows_range(request, response) {
        true => Part::Some,
        false => Part::Whole,
    }
}

/// Status, fields and body that answer the request. `in_parts`: whether it may be answered with parts.
pub fn answer(
    request: &RequestHead,
    response: &Response,
    in_parts: bool,
    now: Moment,
) -> (StatusCode, Headers, Bytes) {
    let mut headers = response.headers.clone();
    let age = response.freshness.age_at(now).as_secs();
    headers.set(&http::header::AGE, age.to_string().as_bytes());
    let (method, status) = (&request.method, response.status);
    match part_of(method, &request.headers, status, &response.headers) {
        Part::NotModified => {
            keep_of_304(&mut headers);
            (StatusCode::NOT_MODIFIED, headers, Bytes::new())
        }
        Part::Some if in_parts => parts(request, headers, &response.body),
        Part::Whole | Part::Some => (response.status, headers, response.body.clone()),
    }
}

/// Leaves the fields of a 304: what a client has is about the whole (RFC 9110 §15.4.5).
pub fn keep_of_304(headers: &mut Headers) {
    let has_tag = headers.contains(&http::header::ETAG);
    headers.retain(|name, _| {
        let is_date = name.eq_ignore_ascii_case(b"last-modified");
        !(is_of_content(name) || is_date && has_tag)
    });
}

fn is_of_content(name: &[u8]) -> bool {
    [
        &b"content-type"[..],
        b"content-encoding",
        b"content-language",
        b"content-range",
    ]
    .iter()
    .any(|other| other.eq_ignore_ascii_case(name))
}

fn parts(
    request: &RequestHead,
    mut headers: Headers,
    body: &Bytes,
) -> (StatusCode, Headers, Bytes) {
    let length = body.len() as u64;
    let range = request.headers.get(&http::header::RANGE);
    match Ranges::of(range.unwrap_or_default(), length) {
        Ranges::Whole => (StatusCode::OK, headers, body.clone()),
        Ranges::Unsatisfiable => {
            headers.retain(|name, _| !is_of_content(name));
            let told = format!("bytes */{length}");
            headers.set(KnownHeader::ContentRange, told.as_bytes());
            (StatusCode::RANGE_NOT_SATISFIABLE, headers, Bytes::new())
        }
        Ranges::Parts(found) => match &found[..] {
            [part] => {
                let told = part.content_range(length);
                headers.set(KnownHeader::ContentRange, told.as_bytes());
                (StatusCode::PARTIAL_CONTENT, headers, slice(body, *part))
            }
            several_parts => several(headers, body, several_parts),
        },
    }
}

fn slice(body: &Bytes, part: ranges::Part) -> Bytes {
    // Parts lie within the body, which is in memory.
    body.slice(part.start as usize..part.end as usize)
}

/// RFC 9110 §14.6: each part with its type and range.
fn several(
    mut headers: Headers,
    body: &Bytes,
    parts: &[ranges::Part],
) -> (StatusCode, Headers, Bytes) {
    let length = body.len() as u64;
    let mut content_type = headers.get(KnownHeader::ContentType).map(<[u8]>::to_vec);
    let boundary = format!("castling-{:016x}", boundary_of(body));
    let mut whole = BytesMut::new();
    for part in parts {
        whole.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        if let Some(kind) = &mut content_type {
            whole.extend_from_slice(b"Content-Type: ");
            whole.extend_from_slice(kind);
            whole.extend_from_slice(b"\r\n");
        }
        let told = part.content_range(length);
        whole.extend_from_slice(format!("Content-Range: {told}\r\n\r\n").as_bytes());
        whole.extend_from_slice(&slice(body, *part));
    }
    whole.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let kind = format!("multipart/byteranges; boundary={boundary}");
    headers.set(KnownHeader::ContentType, kind.as_bytes());
    (StatusCode::PARTIAL_CONTENT, headers, whole.freeze())
}

/// A number that the body does not have in it by chance: of this process and of the body, which has not known it before.
fn boundary_of(body: &Bytes) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(body.len())
}
