//! Requests that are read, and those that are refused.

use super::*;
use http::StatusCode;
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits::of(2000);

fn parse(input: &[u8]) -> Result<Option<ParsedRequest>, HeadError> {
    parse_request(
        &mut BytesMut::from(input),
        &mut HeadProgress::new(),
        &LIMITS,
        &mut HeadRoom::default(),
    )
}

fn valid(input: &str) -> ParsedRequest {
    parse(input.as_bytes()).expect("valid").expect("whole")
}

fn refused(input: impl AsRef<[u8]>) -> HeadError {
    parse(input.as_ref()).expect_err("refused")
}

/// A request with these lines after its `Host`.
fn with(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
}

#[test]
fn a_request_is_read_and_cut_off() {
    let mut buf = BytesMut::from(
        "\r\nGET /a%20b?c=d HTTP/1.1\r\nHost: e:80\r\nX-Y:  \u{e4} z \t\r\nEmpty:\r\n\r\nbody",
    );
    let mut room = HeadRoom::default();
    let parsed = parse_request(&mut buf, &mut HeadProgress::new(), &LIMITS, &mut room);
    let parsed = parsed.expect("valid").expect("whole");
    assert_eq!(buf, "body");
    assert_eq!(parsed.head.method, Method::GET);
    assert_eq!(parsed.head.target.path(), "/a%20b");
    assert_eq!(parsed.head.target.query(), Some("c=d"));
    assert_eq!(parsed.head.protocol, Protocol::Http11);
    assert_eq!(parsed.head.host(), Some("e:80"));
    let fields: Vec<_> = parsed.head.headers.iter().collect();
    assert_eq!(
        fields,
        [
            (&b"host"[..], &b"e:80"[..]),
            (b"x-y", "\u{e4} z".as_bytes()),
            (b"empty", b"")
        ]
    );
    assert_eq!(parsed.body, Framing::None);
    assert!(parsed.keep_alive);
    assert!(!parsed.expect_continue);
}

#[test]
fn pipelined_requests_are_read_one_after_the_other() {
    let mut buf = BytesMut::from("GET /1 HTTP/1.0\r\n\r\n\r\nGET /2 HTTP/1.0\r\n\r\nGET /3");
    let (mut progress, mut room) = (HeadProgress::new(), HeadRoom::default());
    for path in ["/1", "/2"] {
        let parsed = parse_request(&mut buf, &mut progress, &LIMITS, &mut room);
        let mut head = parsed.expect("valid").expect("whole").head;
        assert_eq!(head.target.path(), path);
        room = head.take_room();
    }
    assert!(matches!(
        parse_request(&mut buf, &mut progress, &LIMITS, &mut room),
        Ok(None)
    ));
    assert_eq!(buf, "GET /3");
}

#[test]
fn an_absolute_target_decides_the_host() {
    let parsed = valid("GET http://b:81/c?d HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n");
    assert_eq!(parsed.head.host(), Some("b:81"));
    assert_eq!(parsed.head.headers.get_all(KnownHeader::Host).count(), 1);
    assert_eq!(
        (parsed.head.target.path(), parsed.head.target.query()),
        ("/c", Some("d"))
    );
    assert_eq!(
        valid("GET http://b HTTP/1.0\r\n\r\n").head.host(),
        Some("b")
    );
    assert_eq!(
        valid("GET http://b HTTP/1.0\r\n\r\n").head.target.path(),
        "/"
    );
    assert_eq!(
        valid("OPTIONS http://b HTTP/1.0\r\n\r\n")
            .head
            .target
            .path(),
        "*"
    );
    assert_eq!(
        refused("GET http://u@b/ HTTP/1.1\r\nHost: b\r\n\r\n"),
        HeadError::HostInvalid
    );
    // RFC 9112 §3.2: the rule on `Host` holds for them too.
    assert_eq!(
        refused("GET http://b/ HTTP/1.1\r\n\r\n"),
        HeadError::HostMissing
    );
}

#[test]
fn a_field_that_is_no_list_comes_once() {
    for name in [
        "Authorization",
        "content-range",
        "Content-Type",
        "If-Modified-Since",
        "If-Range",
        "If-Unmodified-Since",
    ] {
        let twice = with(&format!("{name}: a\r\nX: y\r\n{name}: a"));
        assert_eq!(refused(twice), HeadError::FieldRepeated, "{name}");
        valid(&with(&format!("{name}: a")));
    }
    valid(&with(
        "Accept: a\r\nAccept: b\r\nIf-Match: a\r\nIf-Match: b",
    ));
}

#[test]
fn http_11_has_exactly_one_valid_host() {
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), HeadError::HostMissing);
    assert_eq!(refused(with("Host: a")), HeadError::HostRepeated);
    assert_eq!(
        refused("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        HeadError::HostRepeated
    );
    for bad in ["", "a b", "a/b", "a,b", "u@a", "a:b", "\u{e4}"] {
        let head = format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n");
        assert_eq!(refused(head), HeadError::HostInvalid, "{bad}");
    }
    assert_eq!(valid("GET / HTTP/1.0\r\n\r\n").head.host(), None);
}

#[test]
fn targets_are_visible_ascii_without_fragment() {
    for bad in ["/#a", "a", "*", "ftp://a/"] {
        let head = format!("GET {bad} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(refused(head), HeadError::Target, "{bad}");
    }
    for bad in ["/\0", "/\t", "/\u{7f}", "/a b", "", " /"] {
        let head = format!("GET {bad} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(refused(head).status(), StatusCode::BAD_REQUEST, "{bad:?}");
    }
    assert_eq!(
        valid("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
            .head
            .target
            .path(),
        "*"
    );
}

#[test]
fn connect_names_a_host_and_a_port_and_has_no_body() {
    let request = valid("CONNECT db.internal:5432 HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(request.head.upgrade, Some(Upgrade::Connect));
    assert_eq!(request.head.host(), Some("db.internal:5432"));
    assert_eq!(request.head.target.as_str(), "/");
    assert!(!request.keep_alive);
    for refused_head in [
        "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:99999 HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT [::1] HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT u@a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let error = refused(refused_head);
        assert_eq!(error, HeadError::Connect, "{refused_head}");
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    }
}

#[test]
fn other_versions_are_505_and_other_protocols_400() {
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/9.9"] {
        let error = refused(format!("GET / {version}\r\nHost: a\r\n\r\n"));
        assert_eq!(
            error.status(),
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "{version}"
        );
    }
    assert_eq!(
        refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        HeadError::Version
    );
    for bad in ["http/1.1", "HTTP/1.10", "HTTP /1.1", "SIP/2.0x", "", "\x01"] {
        let error = refused(format!("GET / {bad}\r\nHost: a\r\n\r\n"));
        assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(refused("GET /\r\n").status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        refused(b"\x16\x03\x01\x02").status(),
        StatusCode::BAD_REQUEST
    );
}

#[test]
fn lines_are_as_the_grammar_has_them() {
    for bad in [
        "a b: c",
        "a : c",
        "a\t: c",
        ": c",
        "a",
        " a: b",
        "a: b\r\n c",
        "a: b\r\n\tc",
        "a: b\rc",
        "a: \0",
        "a: \x01",
        "a: \x7f",
        "a: \x0b",
        "(a): b",
        "\u{e4}: b",
        "a: b\r\n\r",
    ] {
        assert_eq!(
            refused(with(bad)).status(),
            StatusCode::BAD_REQUEST,
            "{bad:?}"
        );
    }
}

#[test]
fn a_bare_line_feed_ends_no_line() {
    for bad in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\nb: c\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.0\n\n",
        "\nGET / HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(refused(bad), HeadError::BareLineFeed, "{bad:?}");
    }
}

#[test]
fn a_few_empty_lines_before_a_request_are_skipped() {
    let head = "GET / HTTP/1.0\r\n\r\n";
    assert_eq!(
        valid(&format!("{}{head}", "\r\n".repeat(4)))
            .head
            .target
            .path(),
        "/"
    );
    assert_eq!(
        refused(format!("{}{head}", "\r\n".repeat(5))),
        HeadError::EmptyLines
    );
    assert_eq!(
        refused("\rGET / HTTP/1.0\r\n\r\n").status(),
        StatusCode::BAD_REQUEST
    );
}

#[test]
fn a_head_may_be_as_large_as_the_limit() {
    let head = |path_bytes: usize, value_bytes: usize| {
        let (path, value) = ("a".repeat(path_bytes), "b".repeat(value_bytes));
        format!("GET /{path} HTTP/1.0\r\nx: {value}\r\n\r\n")
    };
    let rest = LIMITS.max_head_bytes - head(0, 0).len();
    assert_eq!(head(0, rest).len(), LIMITS.max_head_bytes);
    assert_eq!(valid(&head(0, rest)).head.target.path(), "/");
    assert_eq!(refused(head(0, rest + 1)), HeadError::TooLarge);
    assert_eq!(
        refused(&head(0, rest + 1)[..LIMITS.max_head_bytes]),
        HeadError::TooLarge
    );
    assert_eq!(
        HeadError::TooLarge.status(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    assert_eq!(refused(head(5000, 0)), HeadError::StartLineTooLong);
    assert_eq!(
        HeadError::StartLineTooLong.status(),
        StatusCode::URI_TOO_LONG
    );
}

#[test]
fn a_head_has_as_many_fields_as_the_limit_says() {
    let fields = |count| "GET / HTTP/1.0\r\n".to_owned() + &"a: b\r\n".repeat(count) + "\r\n";
    for most in [16, FEW_FIELDS, FEW_FIELDS + 1, 1000] {
        let limits = HeadLimits {
            max_fields: most,
            ..HeadLimits::of(1 << 20)
        };
        let parse = |count| {
            let (mut progress, mut room) = (HeadProgress::new(), HeadRoom::default());
            let mut buf = BytesMut::from(fields(count).as_str());
            parse_request(&mut buf, &mut progress, &limits, &mut room)
        };
        let parsed = parse(most).expect("valid").expect("whole");
        assert_eq!(parsed.head.headers.len(), most);
        let error = parse(most + 1).expect_err("refused");
        assert_eq!(error.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
}

#[test]
fn names_that_a_back_end_takes_for_others_are_left_out() {
    let lines = "X_User: a\r\nX.User: b\r\nX-User: c\r\nContent_Length: 5\r\n!: d\r\nETag: e";
    let parsed = valid(&with(lines));
    assert_eq!(parsed.dropped_fields, 4);
    let names: Vec<_> = parsed.head.headers.iter().map(|(name, _)| name).collect();
    assert_eq!(names, [&b"host"[..], b"x-user", b"etag"]);
    assert_eq!(parsed.body, Framing::None);
    let limits = HeadLimits {
        any_names: true,
        ..LIMITS
    };
    let (mut progress, mut room) = (HeadProgress::new(), HeadRoom::default());
    let mut buf = BytesMut::from(with(lines).as_str());
    let parsed = parse_request(&mut buf, &mut progress, &limits, &mut room);
    let parsed = parsed.expect("valid").expect("whole");
    assert_eq!((parsed.dropped_fields, parsed.head.headers.len()), (0, 7));
}

#[test]
fn bytes_beyond_ascii_in_a_target_are_encoded() {
    let head = |target: &[u8]| [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\nrest"].concat();
    let parse = |input: &[u8], limits: &HeadLimits| {
        let (mut progress, mut room) = (HeadProgress::new(), HeadRoom::default());
        let mut buf = BytesMut::from(input);
        let parsed = parse_request(&mut buf, &mut progress, limits, &mut room);
        parsed.map(|parsed| (parsed.expect("whole").head.target.as_str().to_owned(), buf))
    };
    for (target, encoded) in [
        ("/gr\u{fc}n?a=\u{e4}".as_bytes(), "/gr%C3%BCn?a=%C3%A4"),
        (b"/latin\xfc", "/latin%FC"),
        (b"http://a/\xff", "/%FF"),
    ] {
        let parsed = parse(&head(target), &LIMITS);
        assert_eq!(parsed, Ok((encoded.to_owned(), BytesMut::from("rest"))));
    }
    let refusing = HeadLimits {
        non_ascii_target: false,
        ..LIMITS
    };
    let refused = |target: &[u8], limits| parse(&head(target), limits).expect_err("refused");
    assert_eq!(refused("/\u{e4}".as_bytes(), &refusing), HeadError::Target);
    assert_eq!(refused(b"http://\xe4/", &LIMITS), HeadError::HostInvalid);
    assert_eq!(
        refused(b"/\xe4\x01", &LIMITS).status(),
        StatusCode::BAD_REQUEST
    );
    // A head that comes byte by byte is the same.
    let input = head("/\u{e4}".as_bytes());
    let (mut progress, mut room) = (HeadProgress::new(), HeadRoom::default());
    let mut buf = BytesMut::new();
    let mut parsed = None;
    for byte in &input[..input.len() - 4] {
        assert!(parsed.is_none());
        buf.extend_from_slice(&[*byte]);
        parsed = parse_request(&mut buf, &mut progress, &LIMITS, &mut room).expect("valid");
    }
    assert_eq!(parsed.expect("whole").head.target.as_str(), "/%C3%A4");
}

#[test]
fn a_name_longer_than_http_allows_is_no_panic() {
    let limits = HeadLimits::of(1 << 20);
    let head = format!("GET / HTTP/1.0\r\n{}: b\r\n\r\n", "a".repeat(100_000));
    let mut room = HeadRoom::default();
    let parsed = parse_request(
        &mut head.as_str().into(),
        &mut HeadProgress::new(),
        &limits,
        &mut room,
    );
    assert_eq!(
        parsed.expect_err("refused").status(),
        StatusCode::BAD_REQUEST
    );
}

#[test]
fn keep_alive_is_what_version_and_connection_say() {
    let keep_alive = |version: &str, lines: &str| {
        valid(&format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n")).keep_alive
    };
    assert!(keep_alive("1.1", ""));
    assert!(keep_alive("1.1", "Connection: x, , keep-alive\r\n"));
    assert!(!keep_alive("1.1", "Connection: x, Close\r\n"));
    assert!(!keep_alive(
        "1.1",
        "Connection: keep-alive\r\nConnection: close\r\n"
    ));
    assert!(!keep_alive("1.0", ""));
    assert!(keep_alive("1.0", "Connection: Keep-Alive\r\n"));
    assert!(!keep_alive("1.0", "Connection: close, keep-alive\r\n"));
}

#[test]
fn a_client_that_waits_for_100_has_something_to_send() {
    let expects = |lines: &str| valid(&with(lines)).expect_continue;
    assert!(expects("Expect: 100-Continue\r\nContent-Length: 1"));
    assert!(expects(
        "Transfer-Encoding: chunked\r\nExpect: 100-continue"
    ));
    assert!(!expects("Expect: 100-continue"));
    assert!(!expects("Expect: 100-continue\r\nContent-Length: 0"));
    assert!(!expects("Expect: 200-ok\r\nContent-Length: 1"));
    let old = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    assert!(!valid(old).expect_continue);
}

#[test]
fn equal_lengths_are_folded_to_one() {
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 5,05\r\nx: y\r\nContent-Length: 5",
    ] {
        let parsed = valid(&with(lines));
        assert_eq!(parsed.body, Framing::Length(5), "{lines}");
        let lengths: Vec<_> = parsed
            .head
            .headers
            .get_all(KnownHeader::ContentLength)
            .collect();
        assert_eq!(lengths, [b"5"], "{lines}");
    }
}

/// Outcome of a parse, in a form that compares.
fn outcome(parsed: Result<Option<ParsedRequest>, HeadError>, left: &[u8]) -> String {
    match parsed {
        Ok(parsed) => format!("{parsed:?} {left:?}"),
        Err(error) => format!("{error:?}"),
    }
}

/// Parses pieces as if each was a read of its own.
fn parse_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let (mut buf, mut progress) = (BytesMut::new(), HeadProgress::new());
    let mut parsed = Ok(None);
    for piece in pieces {
        buf.extend_from_slice(piece);
        if matches!(parsed, Ok(None)) {
            parsed = parse_request(&mut buf, &mut progress, &LIMITS, &mut HeadRoom::default());
        }
    }
    outcome(parsed, &buf)
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "Host: a", "Content-Length: 5", "Transfer-Encoding: chunked", "Connection: close", "X: y", "Expect: 100-continue",
            "Content-Length: 5, 5", "content-length:6", "transfer-encoding: gzip", "",
        ]).prop_map(|line| line.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..30),
        1 => prop::collection::vec(prop::sample::select(&b"aA:\t \r\n"[..]), 0..10),
    ]
}

proptest! {
    #[test]
    fn a_head_in_any_pieces_is_read_the_same(
        start in prop::sample::select(vec![
            "GET / HTTP/1.1\r\n", "\r\nPOST http://b?c HTTP/1.0\r\n", "GET / HTTP/2.0\r\n", "GET  / HTTP/1.1\r\n", "\r\r\n",
        ]),
        lines in prop::collection::vec((line(), prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n"])), 0..6),
        cut in 0..200_usize,
    ) {
        let mut input = start.as_bytes().to_vec();
        for (line, end) in lines {
            input.extend_from_slice(&line);
            input.extend_from_slice(end.as_bytes());
        }
        // A broken head that does not end yet may be refused early or late.
        input.extend_from_slice(b"\r\n\r\n");
        let whole = parse_pieces([&input[..]]);
        let (first, second) = input.split_at(cut.min(input.len()));
        prop_assert_eq!(&parse_pieces([first, second]), &whole);
        prop_assert_eq!(&parse_pieces(input.chunks(1)), &whole);
    }

    #[test]
    fn no_bytes_make_it_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&input);
    }
}
