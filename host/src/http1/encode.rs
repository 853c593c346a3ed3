//! Writing heads and chunks.
//!
//! Names are in lower case, lines end in CR LF. Framing is written here and nowhere else: `Content-Length`,
//! `Transfer-Encoding` and `Connection` among the headers are left out.

use std::num::NonZeroUsize;

use http::{Method, StatusCode};

use super::Framing;
use crate::message::write_line;
use crate::message::{BodySize, KnownHeader, Protocol, Upgrade, never_has_body};
use crate::message::{Headers, Target};

/// After the bytes of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Facts of the request and its connection that decide about the form of the response.
#[derive(Clone, Copy, Debug)]
pub struct ReplyTo<'a> {
    pub method: &'a Method,
    pub protocol: Protocol,
    /// The client allows another request and so do we.
    pub keep_alive: bool,
    /// For `Date`, if the headers have none: an IMF-fixdate (RFC 9110 §5.6.7). `None`: they have one.
    pub date: Option<&'a [u8; 29]>,
}

/// How the head that was written says the response goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFraming {
    /// In which form the body must follow. `None`: not at all, whatever there is to send.
    pub body: Framing,
    /// Whether the connection stays open after it.
    pub keep_alive: bool,
}

/// Appends a request's head, as HTTP/1.1.
///
/// `host` is as [`is_valid_host`](crate::message::is_valid_host) has it. It is written in the place of any `Host`
/// among the headers; `Expect` is left out. A body of unknown size goes in chunks.
pub fn write_request_head(
    out: &mut Vec<u8>,
    method: &Method,
    target: &Target,
    host: &[u8],
    headers: &Headers,
    body: BodySize,
    upgrade: Option<Upgrade>,
) {
    let target = target.as_str().as_bytes();
    out.reserve(HEAD_BYTES_GUESS + target.len());
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(host);
    out.extend_from_slice(b"\r\n");
    // RFC 9110 §10.1.1: the gateway has answered the expectation itself, and a peer must not answer it again.
    headers.write_lines(
        out,
        FRAMING | KnownHeader::Host.bit() | KnownHeader::Expect.bit(),
    );
    // RFC 9110 §8.6: methods that usually have a body say so when there is none; some servers answer 411 otherwise.
    let usually_has_body = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    match body {
        BodySize::None if usually_has_body => write_content_length(out, 0),
        BodySize::None => {}
        BodySize::Exact(bytes) => write_content_length(out, bytes),
        BodySize::Unknown => out.extend_from_slice(CHUNKED_FIELD),
    }
    if let Some(upgrade) = upgrade {
        write_upgrade(out, upgrade);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a response that agrees to go on with another protocol: its bytes follow.
pub fn write_switching_head(out: &mut Vec<u8>, headers: &Headers, upgrade: Upgrade) {
    out.extend_from_slice(match upgrade {
        Upgrade::WebSocket => b"HTTP/1.1 101 Switching Protocols\r\n",
        Upgrade::Connect => b"HTTP/1.1 200 Connection Established\r\n",
    });
    headers.write_lines(out, FRAMING | KnownHeader::Upgrade.bit());
    write_upgrade(out, upgrade);
    out.extend_from_slice(b"\r\n");
}

fn write_upgrade(out: &mut Vec<u8>, upgrade: Upgrade) {
    if let Some(token) = upgrade.token() {
        out.extend_from_slice(b"connection: upgrade\r\n");
        write_line(out, KnownHeader::Upgrade.text(), token);
    }
}

/// Appends a response's head and says how the body must follow. `body` is what there is to send.
///
/// A body without a known length goes in chunks, to HTTP/1.0 until close. Responses to `HEAD` and those with 304 get
/// the `Content-Length` of the headers, which is about a body that is not sent. Interim responses (1xx) say nothing
/// about connection and date.
pub fn write_response_head(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &Headers,
    body: BodySize,
    to: &ReplyTo<'_>,
) -> ResponseFraming {
    let framing = response_framing(status, body, to);
    out.reserve(HEAD_BYTES_GUESS);
    // RFC 9110 §6.2: the version is ours, not the request's.
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    headers.write_lines(out, FRAMING);
    if !status.is_informational() {
        if let Some(date) = to.date
            && !headers.contains(KnownHeader::Date)
        {
            write_line(out, KnownHeader::Date.text(), date);
        }
        write_response_framing(out, status, headers, body, framing, to);
    }
    out.extend_from_slice(b"\r\n");
    framing
}

/// Appends what stands before the bytes of a chunk. [`CHUNK_END`] follows them.
pub fn write_chunk_head(out: &mut Vec<u8>, len_bytes: NonZeroUsize) {
    let mut digits = [0; 16];
    let mut start = digits.len();
    let mut rest = len_bytes.get();
    while rest > 0 {
        start -= 1;
        digits[start] = b"0123456789abcdef"[rest % 16];
        rest /= 16;
    }
    out.extend_from_slice(&digits[start..]);
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a chunked body with these trailers.
pub fn write_trailers(out: &mut Vec<u8>, trailers: &Headers) {
    out.extend_from_slice(b"0\r\n");
    trailers.write_lines(out, 0);
    out.extend_from_slice(b"\r\n");
}

fn response_framing(status: StatusCode, body: BodySize, to: &ReplyTo<'_>) -> ResponseFraming {
    let form = match body {
        _ if never_has_body(status, to.method) => Framing::None,
        // RFC 9112 §6.3: without a word on its length it would last until the connection closes.
        BodySize::None => Framing::Length(0),
        BodySize::Exact(bytes) => Framing::Length(bytes),
        // RFC 9112 §7.1: HTTP/1.0 does not know chunks.
        BodySize::Unknown if to.protocol == Protocol::Http10 => Framing::UntilClose,
        BodySize::Unknown => Framing::Chunked,
    };
    ResponseFraming {
        body: form,
        keep_alive: to.keep_alive && form != Framing::UntilClose,
    }
}

fn write_response_framing(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &Headers,
    body: BodySize,
    framing: ResponseFraming,
    to: &ReplyTo<'_>,
) {
    match framing.body {
        // RFC 9110 §8.6: no length in a 204.
        Framing::None if status == StatusCode::NO_CONTENT => {}
        Framing::None => write_unsent_length(out, status, headers, body),
        Framing::Length(bytes) => write_content_length(out, bytes),
        Framing::Chunked => out.extend_from_slice(CHUNKED_FIELD),
        Framing::UntilClose => {}
    }
    match (framing.keep_alive, to.protocol == Protocol::Http10) {
        (true, false) => {}
        (true, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (false, _) => out.extend_from_slice(b"connection: close\r\n"),
    }
}

/// The length of a body that is not sent, as an answer to `GET` would say it: from the upstream's headers, else of the body
/// made here. A 304 is about another body than that.
fn write_unsent_length(out: &mut Vec<u8>, status: StatusCode, headers: &Headers, body: BodySize) {
    let from_headers = headers
        .get(KnownHeader::ContentLength)
        .filter(|value| !value.is_empty() && value.iter().all(u8::is_ascii_digit));
    if let Some(digits) = from_headers {
        write_line(out, KnownHeader::ContentLength.text(), digits);
    } else if let BodySize::Exact(bytes) = body
        && status != StatusCode::NOT_MODIFIED
    {
        write_content_length(out, bytes);
    }
}

/// Written by the encoder alone.
const FRAMING: u32 = KnownHeader::ContentLength.bit()
    | KnownHeader::TransferEncoding.bit()
    | KnownHeader::Connection.bit();

fn write_content_length(out: &mut Vec<u8>, bytes: u64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(bytes).as_bytes();
    write_line(out, KnownHeader::ContentLength.text(), digits);
}

const CHUNKED_FIELD: &[u8] = b"transfer-encoding: chunked\r\n";

/// Room that most heads fit in.
const HEAD_BYTES_GUESS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::FieldName;

    const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.add(
                FieldName::new(name.as_bytes()).expect("a name"),
                value.as_bytes(),
            );
        }
        headers
    }

    fn request(method: &Method, fields: &[(&str, &str)], body: BodySize) -> String {
        let mut out = Vec::new();
        write_request_head(
            &mut out,
            method,
            &Target::new("/a", Some("b")),
            b"c",
            &headers(fields),
            body,
            None,
        );
        String::from_utf8(out).expect("ASCII")
    }

    /// The head without its date, and how it goes on.
    fn response(
        method: &Method,
        protocol: Protocol,
        status: u16,
        fields: &[(&str, &str)],
        body: BodySize,
    ) -> (String, ResponseFraming) {
        let mut out = Vec::new();
        let to = ReplyTo {
            method,
            protocol,
            keep_alive: true,
            date: Some(DATE),
        };
        let status = StatusCode::from_u16(status).expect("a status");
        let framing = write_response_head(&mut out, status, &headers(fields), body, &to);
        let head = String::from_utf8(out).expect("ASCII");
        (
            head.replace("date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", ""),
            framing,
        )
    }

    fn to_get(fields: &[(&str, &str)], body: BodySize) -> (String, ResponseFraming) {
        response(&Method::GET, Protocol::Http11, 200, fields, body)
    }

    fn open(body: Framing) -> ResponseFraming {
        ResponseFraming {
            body,
            keep_alive: true,
        }
    }

    const UNTRUSTED_FRAMING: [(&str, &str); 4] = [
        ("content-length", "7"),
        ("transfer-encoding", "gzip"),
        ("connection", "x"),
        ("x", "y"),
    ];

    #[test]
    fn framing_of_a_request_is_written_by_the_encoder_alone() {
        let mut fields = UNTRUSTED_FRAMING.to_vec();
        fields.push(("host", "evil"));
        let head = "/a?b HTTP/1.1\r\nhost: c\r\nx: y\r\n";
        for (method, body, framing) in [
            (Method::GET, BodySize::None, ""),
            (Method::POST, BodySize::None, "content-length: 0\r\n"),
            (Method::GET, BodySize::Exact(0), "content-length: 0\r\n"),
            (
                Method::POST,
                BodySize::Exact(u64::MAX),
                "content-length: 18446744073709551615\r\n",
            ),
            (
                Method::POST,
                BodySize::Unknown,
                "transfer-encoding: chunked\r\n",
            ),
        ] {
            assert_eq!(
                request(&method, &fields, body),
                format!("{method} {head}{framing}\r\n")
            );
        }
    }

    #[test]
    fn framing_of_a_response_is_written_by_the_encoder_alone() {
        for (body, framing, line) in [
            (BodySize::None, Framing::Length(0), "content-length: 0"),
            (
                BodySize::Exact(120),
                Framing::Length(120),
                "content-length: 120",
            ),
            (
                BodySize::Unknown,
                Framing::Chunked,
                "transfer-encoding: chunked",
            ),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\nx: y\r\n{line}\r\n\r\n");
            assert_eq!(to_get(&UNTRUSTED_FRAMING, body), (head, open(framing)));
        }
    }

    #[test]
    fn http_10_gets_no_chunks_and_is_told_that_it_stays_open() {
        let to_old = |body| response(&Method::GET, Protocol::Http10, 200, &[], body);
        let closing = ResponseFraming {
            body: Framing::UntilClose,
            keep_alive: false,
        };
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned();
        assert_eq!(to_old(BodySize::Unknown), (head, closing));
        assert_eq!(
            to_old(BodySize::Exact(1)).0,
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn a_response_without_body_says_only_what_it_may() {
        let empty = open(Framing::None);
        let length = [("content-length", "7")];
        for (method, status, fields, body, lines) in [
            (
                Method::HEAD,
                200,
                &length[..],
                BodySize::None,
                "content-length: 7\r\n",
            ),
            (
                Method::HEAD,
                200,
                &[],
                BodySize::Exact(9),
                "content-length: 9\r\n",
            ),
            (Method::HEAD, 200, &[], BodySize::Unknown, ""),
            (
                Method::HEAD,
                200,
                &[("content-length", "7, 8")],
                BodySize::None,
                "",
            ),
            (
                Method::GET,
                304,
                &length,
                BodySize::None,
                "content-length: 7\r\n",
            ),
            (Method::GET, 304, &[], BodySize::Exact(0), ""),
            (Method::GET, 204, &length, BodySize::Exact(7), ""),
            (Method::GET, 103, &length, BodySize::None, ""),
        ] {
            let (head, framing) = response(&method, Protocol::Http11, status, fields, body);
            assert_eq!(
                head.split_once("\r\n"),
                Some((head.lines().next().expect("one"), &*format!("{lines}\r\n")))
            );
            assert_eq!(framing, empty, "{method} {status}");
        }
    }

    #[test]
    fn the_date_is_written_unless_there_is_one() {
        let to = ReplyTo {
            method: &Method::GET,
            protocol: Protocol::Http11,
            keep_alive: false,
            date: Some(DATE),
        };
        let head = |status, fields| {
            let mut out = Vec::new();
            write_response_head(&mut out, status, &headers(fields), BodySize::Exact(0), &to);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(
            head(StatusCode::OK, &[]),
            "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            head(StatusCode::OK, &[("date", "x")])
                .matches("date")
                .count(),
            1
        );
        assert_eq!(
            head(StatusCode::CONTINUE, &[]),
            "HTTP/1.1 100 Continue\r\n\r\n"
        );
    }

    #[test]
    fn chunk_heads_are_hex() {
        for (len, head) in [
            (1, "1\r\n"),
            (10, "a\r\n"),
            (0x1234, "1234\r\n"),
            (usize::MAX, "ffffffffffffffff\r\n"),
        ] {
            let mut out = Vec::new();
            write_chunk_head(&mut out, NonZeroUsize::new(len).expect("not zero"));
            assert_eq!(out, head.as_bytes());
        }
    }

    #[test]
    fn trailers_end_the_body() {
        let mut out = Vec::new();
        write_trailers(&mut out, &headers(&[("a", "b")]));
        assert_eq!(out, b"0\r\na: b\r\n\r\n");
        out.clear();
        write_trailers(&mut out, &Headers::new());
        assert_eq!(out, b"0\r\n\r\n");
    }
}
