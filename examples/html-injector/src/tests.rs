use castling_sdk::testing::{self, Exchange};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn injector() -> Injector {
    let config = r#"{"before": "</head>", "text": "<script>"}"#;
    Injector::configure(testing::config(config).unwrap()).unwrap()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// The body that comes of `body` in chunks of so many bytes.
fn passed(body: &[u8], chunk_bytes: usize) -> Result<Vec<u8>> {
    let (injector, mut page) = (injector(), Page::default());
    let mut exchange = Exchange::get("/")
        .response_header("content-type", "Text/HTML; charset=utf-8")
        .response_header("content-encoding", "gzip");
    let (request, reply) = exchange.request_and_reply();
    injector.response_headers(&mut page, request, reply);
    assert_eq!(reply.header("content-encoding"), None);
    assert!(!exchange.body_skipped());
    let (mut out, mut result) = (Vec::new(), Ok(()));
    let mut chunks = body.chunks(chunk_bytes).peekable();
    while let Some(chunk) = chunks.next() {
        let is_last = chunks.peek().is_none();
        out.extend(exchange.pass_chunk(chunk, is_last, |request, chunk| {
            let passed = injector.response_body(&mut page, request, chunk);
            result = std::mem::replace(&mut result, Ok(())).and(passed);
        }));
    }
    result.map(|()| out)
}

#[test]
fn the_text_is_put_before_the_first_tag_wherever_chunks_end() {
    for (page, expected) in [
        ("<head></HEAD></head>", "<head><script></HEAD></head>"),
        ("</head>", "<script></head>"),
        ("a</hea</head>b", "a</hea<script></head>b"),
        ("</hea", "</hea"),
        ("", ""),
    ] {
        let body = gzip(page.as_bytes());
        for chunk_bytes in [1, 2, 7, body.len()] {
            let out = passed(&body, chunk_bytes).unwrap();
            assert_eq!(String::from_utf8_lossy(&out), expected, "{chunk_bytes}");
        }
    }
}

#[test]
fn long_pages_stream() {
    let long = vec![b'x'; 3_000_000];
    let page = [&long[..], b"</head>", &long].concat();
    let out = passed(&gzip(&page), 1000).unwrap();
    assert!(out == [&long[..], b"<script></head>", &long].concat());
    // Members one after the other are one body (RFC 1952 §2.2).
    let members = [gzip(b"a</he"), gzip(b"ad>b")].concat();
    assert_eq!(passed(&members, 3).unwrap(), b"a<script></head>b");
}

#[test]
fn what_is_no_gzip_is_an_error() {
    let body = gzip(b"<head></head>");
    assert!(passed(&body[..body.len() - 4], 100).is_err());
    assert!(passed(b"<head></head>", 100).is_err());
}

#[test]
fn other_responses_are_left_alone() {
    let html = || Exchange::get("/").response_header("content-type", "text/html");
    let json = Exchange::get("/").response_header("content-type", "application/json");
    for mut exchange in [
        html(),
        html().response_header("content-encoding", "br"),
        html()
            .response_header("content-encoding", "br")
            .response_header("content-encoding", "gzip"),
        html()
            .response_header("content-encoding", "gzip")
            .response(206),
        json.response_header("content-encoding", "gzip"),
    ] {
        let (request, reply) = exchange.request_and_reply();
        injector().response_headers(&mut Page::default(), request, reply);
        assert!(exchange.body_skipped());
    }
}
