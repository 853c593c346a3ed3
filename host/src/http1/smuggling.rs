//! Known ways to make two neighbours see different messages in the same bytes. Each must be refused, with 400: never
//! repaired, never passed on.

use bytes::BytesMut;
use http::StatusCode;

use super::{Framing, HeadError, HeadProgress, ParsedRequest, parse_request};
use crate::message::HeadLimits;

use crate::message::HeadRoom;

fn parse(input: &str) -> Result<ParsedRequest, HeadError> {
    let limits = HeadLimits::of(4096);
    let mut room = HeadRoom::default();
    parse_request(
        &mut input.into(),
        &mut HeadProgress::new(),
        &limits,
        &mut room,
    )
    .map(|parsed| parsed.expect("whole"))
}

/// A `POST` with these lines, in this order and the reverse.
fn post(lines: &[&str]) -> [Result<ParsedRequest, HeadError>; 2] {
    let head = |lines: Vec<&str>| {
        parse(&format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n0\r\n\r\nGET /",
            lines.join("\r\n")
        ))
    };
    [
        head(lines.to_vec()),
        head(lines.iter().rev().copied().collect()),
    ]
}

#[track_caller]
fn refuses(lines: &[&str], with: HeadError) {
    for parsed in post(lines) {
        assert_eq!(parsed.expect_err("refused"), with, "{lines:?}");
    }
    assert_eq!(with.status(), StatusCode::BAD_REQUEST);
}

/// Refused with 400; which rule comes first does not matter.
#[track_caller]
fn refuses_somehow(lines: &[&str]) {
    for parsed in post(lines) {
        assert_eq!(
            parsed.expect_err("refused").status(),
            StatusCode::BAD_REQUEST,
            "{lines:?}"
        );
    }
}

#[test]
fn cl_te_and_te_cl() {
    refuses(
        &["Content-Length: 13", "Transfer-Encoding: chunked"],
        HeadError::LengthAndEncoding,
    );
    refuses(
        &["Content-Length: 0", "Transfer-Encoding: chunked"],
        HeadError::LengthAndEncoding,
    );
    refuses(
        &["content-length:3", "TRANSFER-ENCODING:CHUNKED"],
        HeadError::LengthAndEncoding,
    );
    refuses_somehow(&["Content-Length: 3", "Transfer-Encoding: identity"]);
    refuses_somehow(&["Content-Length: 3", "Transfer-Encoding:"]);
}

#[test]
fn two_lengths() {
    refuses(
        &["Content-Length: 5", "Content-Length: 6"],
        HeadError::LengthsDiffer,
    );
    refuses(
        &["Content-Length: 5", "X: y", "Content-Length: 0"],
        HeadError::LengthsDiffer,
    );
    refuses(&["Content-Length: 5, 6"], HeadError::LengthsDiffer);
    refuses(
        &["Content-Length: 5", "Content-Length: 5, 6"],
        HeadError::LengthsDiffer,
    );
}

#[test]
fn a_length_that_is_not_one() {
    for bad in [
        "",
        "+5",
        "-5",
        "5 5",
        "0x5",
        "5.0",
        "5e1",
        "five",
        "5;",
        "\"5\"",
        "5,",
        ",5",
        "5,,5",
        "1_0",
        "\u{665}",
        "18446744073709551616",
        "99999999999999999999999",
    ] {
        refuses(
            &[&format!("Content-Length: {bad}")],
            HeadError::LengthInvalid,
        );
    }
}

#[test]
fn spaces_around_a_length_are_no_part_of_it() {
    for parsed in post(&["Content-Length:   5  "]) {
        assert_eq!(parsed.expect("valid").body, Framing::Length(5));
    }
}

#[test]
fn obfuscated_transfer_encoding() {
    for bad in [
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity, chunked",
        "identity",
        "gzip, chunked",
        "chunked, gzip",
        "gzip",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "chunked;q=1",
        "\"chunked\"",
        "'chunked'",
        "chun ked",
        "c\u{304}hunked",
        "chunke\u{212a}d",
        "x chunked",
        "chunked x",
    ] {
        refuses(&[&format!("Transfer-Encoding: {bad}")], HeadError::Encoding);
    }
}

#[test]
fn transfer_encoding_twice() {
    refuses(
        &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        HeadError::Encoding,
    );
    refuses(
        &["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        HeadError::Encoding,
    );
    refuses(
        &["Transfer-encoding: x", "Transfer-Encoding: chunked"],
        HeadError::Encoding,
    );
}

#[test]
fn obfuscated_names_lines_and_spaces() {
    for bad in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: chunked\t",
        "Transfer-Encoding: \tchunked",
        "Transfer-Encoding:\u{b}chunked",
        "Transfer-Encoding:\u{c}chunked",
        "Transfer-Encoding: chunked\u{b}",
        "Transfer-Encoding:\0chunked",
        "Transfer-Encoding:\u{a0}chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: x\r\n\tchunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\n\nTransfer-Encoding: chunked",
        "Transfer-Encoding\n: chunked",
        "Transfer-Encoding\r: chunked",
        "Transfer-Encoding\0: chunked",
        "\"Transfer-Encoding\": chunked",
        "Content-Length : 5",
        "Content-Length:\t5",
        "Content-Length: 5\r\n 6",
        "Content-Length\u{a0}: 5",
    ] {
        refuses_somehow(&[bad]);
        refuses_somehow(&[bad, "Content-Length: 3"]);
    }
}

#[test]
fn names_that_only_look_like_framing_frame_nothing() {
    for name in [
        "Transfer_Encoding",
        "Content_Length",
        "X-Transfer-Encoding",
        "Content-Length0",
    ] {
        for parsed in post(&[&format!("{name}: chunked")]) {
            assert_eq!(parsed.expect("valid").body, Framing::None, "{name}");
        }
    }
}

#[test]
fn transfer_encoding_in_http_10() {
    let head = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        parse(head).expect_err("refused"),
        HeadError::EncodingInHttp10
    );
}

#[test]
fn a_get_with_a_body_has_that_body() {
    let get = parse("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").expect("valid");
    assert_eq!(get.body, Framing::Length(5));
}

#[test]
fn two_hosts_or_one_that_hides_another() {
    for lines in [
        "Host: a\r\nHost: b",
        "Host: a\r\nHost: a",
        "Host: a\r\n Host: b",
        "Host: a, b",
        "Host: a\tb",
        "Host : a",
    ] {
        let parsed = parse(&format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n"));
        assert_eq!(
            parsed.expect_err("refused").status(),
            StatusCode::BAD_REQUEST,
            "{lines:?}"
        );
    }
}

#[test]
fn what_follows_a_head_stays_in_the_buffer() {
    let mut buf = BytesMut::from(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    );
    let limits = HeadLimits::of(4096);
    let parsed = parse_request(
        &mut buf,
        &mut HeadProgress::new(),
        &limits,
        &mut HeadRoom::default(),
    );
    assert_eq!(
        parsed.expect("valid").expect("whole").body,
        Framing::Chunked
    );
    assert_eq!(buf, "0\r\n\r\nG");
}
