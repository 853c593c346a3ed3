//! Reading a response's head.

use bytes::BytesMut;
use http::{Method, StatusCode};
use httparse::Status;

use super::fields::{FEW_FIELDS, Lines, take_over};
use super::{Framing, HeadError, HeadProgress, ParsedResponse, framing};
use crate::message::HeadLimits;
use crate::message::{Headers, Protocol};

/// Cuts a response's head off the front of `buf`; its fields replace what `headers` holds. `None`: more bytes are needed. An
/// interim response (1xx) is a head like others: the next one follows it.
///
/// Lines may end in a bare LF, as old upstreams write them: what they say is written anew, and the operator has chosen
/// them. All else is as strict as for requests, contradictory framing above all; spaces before a colon and folded lines are
/// refused too (nginx does the same), where RFC 9112 §5 would have a proxy repair them.
pub fn parse_response(
    buf: &mut BytesMut,
    progress: &mut HeadProgress,
    limits: &HeadLimits,
    request_method: &Method,
    headers: &mut Headers,
) -> Result<Option<ParsedResponse>, HeadError> {
    parse(buf, progress, limits, request_method, headers, false)
}

/// `has_many`: with room for as many fields as there may be.
fn parse(
    buf: &mut BytesMut,
    progress: &mut HeadProgress,
    limits: &HeadLimits,
    request_method: &Method,
    headers: &mut Headers,
    has_many: bool,
) -> Result<Option<ParsedResponse>, HeadError> {
    if !progress.ready(buf, limits)? {
        return Ok(None);
    }
    let raw = limits.window(buf);
    let mut lines = Lines::new(limits.max_fields, has_many);
    let mut line = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut line,
        raw,
        lines.room(limits.max_fields),
    );
    let head_bytes = match parsed {
        Ok(Status::Complete(bytes)) => bytes,
        Ok(Status::Partial) => return progress.incomplete(buf, limits).map(|()| None),
        Err(httparse::Error::TooManyHeaders) if !has_many && limits.max_fields > FEW_FIELDS => {
            drop(lines);
            return parse(buf, progress, limits, request_method, headers, true);
        }
        Err(error) => return Err(error.into()),
    };
    let (Some(code), Some(minor)) = (line.code, line.version) else {
        return Err(HeadError::Malformed(httparse::Error::Status));
    };
    let status = StatusCode::from_u16(code).map_err(|_| HeadError::Status)?;
    let protocol = if minor == 0 {
        Protocol::Http10
    } else {
        Protocol::Http11
    };
    take_over(&raw[..head_bytes], line.headers, limits.any_names, headers)?;
    let body = framing::response_body(headers, protocol, status, request_method)?;
    let keep_alive = body != Framing::UntilClose && framing::keeps_alive(headers, protocol);
    drop(lines);
    progress.complete(buf, head_bytes);
    Ok(Some(ParsedResponse {
        status,
        body,
        keep_alive,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::KnownHeader;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits::of(1000);

    fn parse(method: &Method, input: &[u8]) -> Result<Option<ParsedResponse>, HeadError> {
        parse_response(
            &mut BytesMut::from(input),
            &mut HeadProgress::new(),
            &LIMITS,
            method,
            &mut Headers::new(),
        )
    }

    fn valid(method: &Method, input: &str) -> ParsedResponse {
        parse(method, input.as_bytes())
            .expect("valid")
            .expect("whole")
    }

    /// A response to `GET` with this status line and these lines.
    fn to_get(line: &str, lines: &str) -> Result<(Framing, bool), HeadError> {
        let head = format!("{line}\r\n{lines}\r\n");
        parse(&Method::GET, head.as_bytes())
            .map(|parsed| parsed.expect("whole"))
            .map(|it| (it.body, it.keep_alive))
    }

    #[test]
    fn a_response_is_read_and_cut_off() {
        let mut buf =
            BytesMut::from("HTTP/1.1 404 Not so\r\nServer: a\r\nContent-Length: 3\r\n\r\nabc");
        let mut headers = Headers::new();
        let parsed = parse_response(
            &mut buf,
            &mut HeadProgress::new(),
            &LIMITS,
            &Method::GET,
            &mut headers,
        );
        let parsed = parsed.expect("valid").expect("whole");
        assert_eq!(buf, "abc");
        assert_eq!(parsed.status, StatusCode::NOT_FOUND);
        assert_eq!(headers.get(KnownHeader::Server), Some(&b"a"[..]));
        assert_eq!(parsed.body, Framing::Length(3));
        assert!(parsed.keep_alive);
    }

    #[test]
    fn a_reason_may_be_missing_and_lines_may_end_in_a_line_feed() {
        assert_eq!(
            valid(&Method::GET, "HTTP/1.1 200\r\n\r\n").status,
            StatusCode::OK
        );
        let parsed = valid(&Method::GET, "HTTP/1.0 200 OK\nContent-Length: 3\n\n");
        assert_eq!(parsed.body, Framing::Length(3));
    }

    #[test]
    fn interim_responses_come_one_by_one() {
        let mut buf =
            BytesMut::from("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
        let mut progress = HeadProgress::new();
        for status in [100, 204] {
            let parsed = parse_response(
                &mut buf,
                &mut progress,
                &LIMITS,
                &Method::GET,
                &mut Headers::new(),
            );
            let parsed = parsed.expect("valid").expect("whole");
            assert_eq!(
                (parsed.status.as_u16(), parsed.body),
                (status, Framing::None)
            );
            assert!(parsed.keep_alive);
        }
    }

    #[test]
    fn the_length_is_by_method_status_and_fields() {
        let chunked = "Transfer-Encoding: Chunked\r\n";
        let sized = "Content-Length: 7\r\n";
        for status in ["HTTP/1.1 204 a", "HTTP/1.1 304 a", "HTTP/1.1 103 a"] {
            for lines in ["", chunked, sized] {
                assert_eq!(
                    to_get(status, lines),
                    Ok((Framing::None, true)),
                    "{status} {lines}"
                );
            }
        }
        let to_head = valid(
            &Method::HEAD,
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
        );
        assert_eq!(to_head.body, Framing::None);

        assert_eq!(
            to_get("HTTP/1.1 200 OK", chunked),
            Ok((Framing::Chunked, true))
        );
        assert_eq!(
            to_get("HTTP/1.1 200 OK", sized),
            Ok((Framing::Length(7), true))
        );
        assert_eq!(
            to_get("HTTP/1.0 200 OK", sized),
            Ok((Framing::Length(7), false))
        );
        assert_eq!(
            to_get("HTTP/1.1 200 OK", ""),
            Ok((Framing::UntilClose, false))
        );
        let said = "Connection: keep-alive\r\n";
        assert_eq!(
            to_get("HTTP/1.0 200 OK", said),
            Ok((Framing::UntilClose, false))
        );
    }

    #[test]
    fn contradictory_framing_is_refused_whatever_the_status() {
        for status in ["HTTP/1.1 200 OK", "HTTP/1.1 304 a"] {
            for (lines, error) in [
                (
                    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                    HeadError::LengthAndEncoding,
                ),
                (
                    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                    HeadError::LengthAndEncoding,
                ),
                (
                    "Content-Length: 5\r\nContent-Length: 6\r\n",
                    HeadError::LengthsDiffer,
                ),
                ("Content-Length: +5\r\n", HeadError::LengthInvalid),
                ("Transfer-Encoding: gzip, chunked\r\n", HeadError::Encoding),
                ("Transfer-Encoding: identity\r\n", HeadError::Encoding),
            ] {
                assert_eq!(to_get(status, lines), Err(error), "{lines}");
            }
        }
        let old = to_get("HTTP/1.0 200 OK", "Transfer-Encoding: chunked\r\n");
        assert_eq!(old, Err(HeadError::EncodingInHttp10));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for bad in [
            "HTTP/1.1 20 OK",
            "HTTP/1.1 099 OK",
            "HTTP/2 200 OK",
            "GET / HTTP/1.1",
            "HTTP/1.1 200 a\0",
            "220 smtp",
        ] {
            assert!(to_get(bad, "").is_err(), "{bad}");
        }
        for bad in [
            "a : b\r\n",
            "a: b\r\n c\r\n",
            "a: b\rc\r\n",
            ": b\r\n",
            "a: \0\r\n",
        ] {
            assert!(to_get("HTTP/1.1 200 OK", bad).is_err(), "{bad:?}");
        }
        let large = format!("a: {}\r\n", "b".repeat(1000));
        assert_eq!(to_get("HTTP/1.1 200 OK", &large), Err(HeadError::TooLarge));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_read_the_same(
            start in prop::sample::select(vec!["HTTP/1.1 200 OK\r\n", "HTTP/1.0 204 \n", "HTTP/1.1 20"]),
            rest in prop::collection::vec(
                prop_oneof![3 => prop::sample::select(&b"a:b \r\n"[..]), 1 => any::<u8>()], 0..100),
        ) {
            let mut input = start.as_bytes().to_vec();
            input.extend_from_slice(&rest);
            input.extend_from_slice(b"\r\n\r\n");
            let whole = parse(&Method::GET, &input);
            let (mut buf, mut progress) = (BytesMut::new(), HeadProgress::new());
            let mut trickled = Ok(None);
            for b in &input {
                buf.extend_from_slice(&[*b]);
                if matches!(trickled, Ok(None)) {
                    trickled = parse_response(&mut buf, &mut progress, &LIMITS, &Method::GET, &mut Headers::new());
                }
            }
            prop_assert_eq!(format!("{trickled:?}"), format!("{whole:?}"));
        }
    }
}
