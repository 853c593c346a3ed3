//! Requests by HTTP/2 that would be two, or another, to a peer by HTTP/1: whatever becomes of each, the peer sees nothing of what it
//! hides, and the request behind it is answered with its own response.

use std::sync::{Arc, Mutex};

use castling_tests::frames::{self, FrameClient};
use castling_tests::{Proxy, body, origin};
use http::Response;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]
    keepalive.connections = 1

    [[routes]]
    upstream = "app"
"#;

/// Request that another one hides.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: a.test\r\nx-hidden: 1\r\n\r\n";

type Fields = Vec<(String, String)>;

fn post(more: &[(&str, &str)]) -> Fields {
    let own = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", "/"),
    ];
    let all = own.iter().chain(more);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Request with another value of a pseudo field.
fn with(name: &str, value: &str) -> Fields {
    let mut fields = post(&[]);
    for field in &mut fields {
        if field.0 == name {
            value.clone_into(&mut field.1);
        }
    }
    fields
}

/// Each: what it is, its fields, its body.
fn corpus() -> Vec<(String, Fields, String)> {
    let hidden = HIDDEN.to_owned();
    let mut corpus = Vec::new();
    let mut add = |what: &str, fields: Fields, body: &str| {
        corpus.push((what.to_owned(), fields, body.to_owned()));
    };
    // Ends of lines in each place that HTTP/1 has on a line.
    for end in ["\r\n", "\n", "\r", "\0", "\r\n\r\n"] {
        let injected = format!("{end}x-hidden: 1");
        for name in [":method", ":path", ":authority", ":scheme"] {
            let value = format!("{}{injected}", if name == ":path" { "/" } else { "a" });
            add(&format!("{end:?} in {name}"), with(name, &value), "");
            let request = format!("{value}{end}{end}{HIDDEN}");
            add(
                &format!("{end:?}, a request in {name}"),
                with(name, &request),
                "",
            );
        }
        add(
            &format!("{end:?} in a value"),
            post(&[("x-a", &format!("b{injected}"))]),
            "",
        );
        add(
            &format!("{end:?} in a name"),
            post(&[(&format!("x-a: b{injected}"), "c")]),
            "",
        );
        let cookie = format!("a=b{injected}");
        add(
            &format!("{end:?} in a cookie"),
            post(&[("cookie", "c=d"), ("cookie", &cookie)]),
            "",
        );
    }
    // A space ends a part of the request's line.
    add(
        "a space in :method",
        with(":method", "GET /hidden HTTP/1.1"),
        "",
    );
    add("a space in :path", with(":path", "/ HTTP/1.1"), "");
    add("a tab in :path", with(":path", "/\tHTTP/1.1"), "");
    // Two lengths, of which the peer could take the other.
    for coding in [
        "chunked",
        "identity",
        "chunked, identity",
        "xchunked",
        " chunked",
    ] {
        let fields = post(&[("transfer-encoding", coding)]);
        add(
            &format!("transfer-encoding {coding}"),
            fields,
            &format!("0\r\n\r\n{hidden}"),
        );
    }
    for name in [
        "transfer-encoding ",
        "transfer_encoding",
        "Transfer-Encoding",
        "\ttransfer-encoding",
    ] {
        let fields = post(&[(name, "chunked")]);
        add(&format!("{name:?}"), fields, &format!("0\r\n\r\n{hidden}"));
    }
    for length in [
        "0",
        "1",
        "+0",
        "0x0",
        "00",
        "0, 0",
        "-1",
        "0;",
        "99999999999999999999",
    ] {
        add(
            &format!("content-length {length}"),
            post(&[("content-length", length)]),
            &hidden,
        );
    }
    let whole = hidden.len().to_string();
    let twice = post(&[("content-length", &whole), ("content-length", "0")]);
    add("content-length twice", twice, &hidden);
    add(
        "content-length with a space",
        post(&[("content-length ", "0")]),
        &hidden,
    );
    // Fields of a connection would end where the peer's begins.
    for (name, value) in [
        ("connection", "content-length"),
        ("connection", "close"),
        ("keep-alive", "timeout=1"),
        ("upgrade", "h2c"),
        ("proxy-connection", "close"),
    ] {
        add(&format!("{name}: {value}"), post(&[(name, value)]), &hidden);
    }
    // Hosts that differ.
    add("another host", post(&[("host", "hidden")]), "");
    add(
        "two hosts",
        post(&[("host", "a.test"), ("host", "hidden")]),
        "",
    );
    add("a list of hosts", with(":authority", "a.test,hidden"), "");
    add("user information", with(":authority", "hidden@a.test"), "");
    corpus
}

#[test]
fn a_peer_by_http1_never_sees_what_a_request_by_http2_hides() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let origin = origin::answering(move |request| {
        let told = format!(
            "{} {} {:?}",
            request.method, request.target, request.headers
        );
        let path = request.target.clone();
        sees.lock().unwrap().push((told, request.body.clone()));
        Response::new(body::full(path))
    });
    let proxy = Proxy::with_config(CONFIG).origin("app", origin).start();
    for (number, (what, fields, body)) in corpus().iter().enumerate() {
        let mut client = FrameClient::connect(proxy.address(), &[]);
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let block = frames::block(&fields);
        client.send(frames::HEADERS, frames::END_HEADERS, 1, &block);
        // The connection may have ended for the head.
        let data = frames::frame(frames::DATA, frames::END_STREAM, 1, body.as_bytes());
        let _sent = client.try_send(&data);
        let ends = [frames::HEADERS, frames::RST_STREAM, frames::GOAWAY];
        let _end = client.until(|frame| ends.contains(&frame.kind));
        // The next request on the peer's connection gets its own response.
        let mut next = FrameClient::connect(proxy.address(), &[]);
        let path = format!("/next/{number}");
        next.get(1, &path);
        let (status, got) = next.response(1).unwrap();
        let got = String::from_utf8(got).unwrap();
        assert_eq!((frames::status(status), got), (200, path), "{what}");
    }
    for (told, body) in seen.lock().unwrap().iter() {
        assert!(!told.contains("hidden"), "{told}");
        // A body is the peer's to read: its length is known.
        assert!(
            body.is_empty() || body.ends_with(HIDDEN.as_bytes()),
            "{told} {body:?}"
        );
    }
}
