//! HTTP/2 of clients: what they are answered, whatever the stream, and what becomes of connections.

use std::time::Duration;

use bytes::Bytes;
use castling_tests::frames::{self, Frame, FrameClient};
use castling_tests::h2::{self, H2Client};
use castling_tests::tls::{Authority, TlsClient};
use castling_tests::{DEADLINE, Proxy, Setup, block_on, body, origin, raw_origin, until, within};
use http::{Method, Request, Response, StatusCode};

const CONFIG: &str = r#"
    [listeners.web]
    bind = "{listen}"
    KEYS

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
"#;

fn gateway(keys: &str) -> Setup {
    Proxy::with_config(&CONFIG.replace("KEYS", keys))
}

/// Runs a client's part of a test.
fn run<T>(client: impl Future<Output = T>) -> T {
    block_on(within(DEADLINE, "the client", client))
}

#[test]
fn requests_of_one_connection_are_answered_each_on_its_stream() {
    let tells = origin::answering(|seen| {
        let told = [
            "host",
            "x-forwarded-proto",
            "via",
            "cookie",
            "x-forwarded-for",
        ];
        let told = told.map(|name| seen.header(name).unwrap_or("none"));
        Response::new(body::full(format!("{} {}", seen.target, told.join(" "))))
    });
    let proxy = gateway("").origin("app", tells).start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        for path in ["/one?a=b", "/two"] {
            let request = Request::get(format!("http://a.test:80{path}"))
                .header("cookie", "a=1")
                .header("cookie", "b=2");
            let request = request.body(()).unwrap();
            let reply = client.send(request, b"").await.unwrap();
            assert_eq!(reply.status, StatusCode::OK);
            assert_eq!(reply.header("via"), Some("1.1 castling"));
            assert!(reply.headers.contains_key("date"));
            let expected = format!("{path} a.test:80 http 2.0 castling a=1; b=2 127.0.0.1");
            assert_eq!(reply.text(), expected);
        }
    });
    let lines = proxy.until_access_lines(2);
    assert!(
        lines[0].contains("\"GET /one?a=b HTTP/2.0\" 200"),
        "{lines:?}"
    );
}

#[test]
fn bodies_go_both_ways_whatever_their_size() {
    let proxy = gateway("").origin("app", origin::echoing()).start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        for bytes in [0, 1, 16_384, 65_536, 300_000, 3_000_000] {
            let body: Vec<u8> = (0..bytes).map(|at: usize| (at * 7 % 251) as u8).collect();
            let request = Request::post("http://a.test/").body(()).unwrap();
            let reply = client.send(request, &body).await.unwrap();
            assert!(reply.body == body, "{bytes}: {}", reply.body.len());
        }
    });
}

#[test]
fn a_slow_stream_holds_up_no_other() {
    let origin = origin::serving(|request| async move {
        if request.uri().path() == "/slow" {
            std::future::pending::<()>().await;
        }
        Response::new(body::full(request.uri().path().to_owned()))
    });
    let proxy = gateway("").origin("app", origin).start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        let (slow, _) = client.begin(h2::get("/slow"), true).await.unwrap();
        for _ in 0..20 {
            assert_eq!(client.get("/quick").await.unwrap().text(), "/quick");
        }
        drop(slow);
    });
    // The stream that was dropped is reset, and its request ends for it.
    let has_left = |line: &String| line.contains("\"GET /slow HTTP/2.0\" 499");
    until("the slow request has ended", || {
        proxy.access_lines().iter().any(has_left)
    });
}

#[test]
fn a_client_that_takes_nothing_holds_up_its_own_response_alone() {
    let origin = origin::answering(|seen| {
        Response::new(match seen.target.as_str() {
            "/large" => body::full(vec![b'x'; 1 << 20]),
            _ => body::full(seen.target.clone()),
        })
    });
    let proxy = gateway("").origin("app", origin).start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        let (large, _) = client.begin(h2::get("/large"), true).await.unwrap();
        let large = large.await.unwrap();
        // Nothing of it is taken: its window is shut after 64 KiB, the connection's is larger by then.
        for _ in 0..3 {
            let other = client.begin(h2::get("/other"), true).await.unwrap().0;
            let _head = other.await.unwrap();
        }
        let (whole, _) = h2::read(large.into_body()).await.unwrap();
        assert_eq!(whole.len(), 1 << 20);
    });
}

#[test]
fn trailers_pass_both_ways() {
    let origin = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        let chunks = connection.read_exact("4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n".len())?;
        assert!(chunks.ends_with(b"x-sum: 1\r\n\r\n"), "{chunks:?}");
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.send("4\r\nbody\r\n0\r\nx-sum: 1\r\nhost: b\r\n\r\n");
        Ok(())
    });
    let proxy = gateway("").origin("app", origin).start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        let request = Request::post("http://a.test/").header("te", "trailers");
        let (response, mut sending) = client
            .begin(request.body(()).unwrap(), false)
            .await
            .unwrap();
        sending.send_data(Bytes::from("body"), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        sending.send_trailers(trailers).unwrap();
        let (body, trailers) = h2::read(response.await.unwrap().into_body()).await.unwrap();
        assert_eq!(body, "body");
        let trailers = trailers.expect("some");
        assert_eq!(trailers["x-sum"], "1");
        assert!(!trailers.contains_key("host"));
    });
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let proxy = gateway("").origin("app", origin::echoing()).start();
    let mut client = FrameClient::connect(proxy.address(), &[]);
    let block = frames::block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", "/"),
        ("expect", "100-continue"),
    ]);
    client.send(frames::HEADERS, frames::END_HEADERS, 1, &block);
    let interim = client.read_until(frames::HEADERS);
    assert_eq!(interim.flags & frames::END_STREAM, 0);
    client.send(frames::DATA, frames::END_STREAM, 1, b"body");
    let (status, body) = client.response(1).unwrap();
    assert_eq!((frames::status(status), &body[..]), (200, &b"body"[..]));
}

#[test]
fn heads_that_peers_could_misread_are_refused_and_the_connection_goes_on() {
    let proxy = gateway("").origin("app", origin::text("hi")).start();
    let mut client = FrameClient::connect(proxy.address(), &[]);
    let get = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", "/"),
    ];
    let with = |fields: &[(&str, &str)]| frames::block(&[&get[..], fields].concat());
    let other = |name: &str, value: &str| {
        let changed = get.map(|(it, old)| (it, if it == name { value } else { old }));
        frames::block(&changed)
    };
    // Heads that the gateway itself looks at are answered.
    let answered: [(&str, Vec<u8>); 9] = [
        ("another host", with(&[("host", "b.test")])),
        ("two hosts", with(&[("host", "a.test"), ("host", "a.test")])),
        ("user information", other(":authority", "u@a.test")),
        ("a list of hosts", other(":authority", "a,b")),
        ("a space before a value", with(&[("x-a", " b")])),
        ("a space after a value", with(&[("x-a", "b ")])),
        (
            "authorization twice",
            with(&[("authorization", "a"), ("authorization", "b")]),
        ),
        ("a path that is none", other(":path", "*")),
        (
            "a length that is none",
            with(&[("content-length", "0"), ("content-length", "0 ")]),
        ),
    ];
    let mut stream = 1;
    for (what, block) in answered {
        let ends = frames::END_STREAM | frames::END_HEADERS;
        client.send(frames::HEADERS, ends, stream, &block);
        match client.response(stream) {
            Ok((status, _)) => assert_eq!(frames::status(status), 400, "{what}"),
            Err(code) => assert_eq!(code, frames::PROTOCOL_ERROR, "{what}"),
        }
        stream += 2;
    }
    // Heads that are malformed by RFC 9113 §8.1.1 end their stream, or the connection where HPACK has no such field.
    let reset: [(&str, Vec<u8>); 12] = [
        ("connection", with(&[("connection", "close")])),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("upgrade", with(&[("upgrade", "x")])),
        ("te", with(&[("te", "gzip")])),
        ("upper case", with(&[("X-A", "b")])),
        ("a line end in a value", with(&[("x-a", "b\r\nx-b: c")])),
        ("a zero byte in a value", with(&[("x-a", "b\0")])),
        ("a colon in a name", with(&[("x-a: b", "c")])),
        ("no path", frames::block(&get[..3])),
        ("an empty path", other(":path", "")),
        (
            "a pseudo field after others",
            frames::block(&[&[("x-a", "b")], &get[..]].concat()),
        ),
        (
            "data that is not announced",
            with(&[("content-length", "3")]),
        ),
    ];
    for (what, block) in reset {
        let mut client = FrameClient::connect(proxy.address(), &[]);
        let whole = frames::END_STREAM | frames::END_HEADERS;
        client.send(frames::HEADERS, whole, 1, &block);
        let ends = [frames::HEADERS, frames::RST_STREAM, frames::GOAWAY];
        let end = client.until(|frame| ends.contains(&frame.kind));
        let is_end = |it: &Frame| matches!(it.kind, frames::RST_STREAM | frames::GOAWAY);
        assert!(
            is_end(&end) && end.code() != frames::NO_ERROR,
            "{what}: {end:?}"
        );
    }
    client.get(stream, "/");
    let (status, body) = client.response(stream).unwrap();
    assert_eq!((frames::status(status), &body[..]), (200, &b"hi"[..]));
    assert_eq!(proxy.origin("app").requests(), 1);
}

#[test]
fn data_that_is_not_as_long_as_announced_resets_the_stream() {
    let proxy = gateway("").origin("app", origin::echoing()).start();
    let mut client = FrameClient::connect(proxy.address(), &[]);
    let block = |length: &str| {
        frames::block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a.test"),
            (":path", "/"),
            ("content-length", length),
        ])
    };
    for (stream, length) in [(1, "3"), (3, "5")] {
        client.send(frames::HEADERS, frames::END_HEADERS, stream, &block(length));
        client.send(frames::DATA, frames::END_STREAM, stream, b"four");
        assert_eq!(
            client.response(stream),
            Err(frames::PROTOCOL_ERROR),
            "{length}"
        );
    }
}

#[test]
fn methods_and_statuses_without_a_body_end_with_their_head() {
    let answers = origin::answering(|seen| {
        let status = seen.target[1..].parse().unwrap_or(200);
        let response = Response::builder().status(status);
        response
            .body(body::full(if status == 200 { "body" } else { "" }))
            .unwrap()
    });
    let proxy = gateway("").origin("app", answers).start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        for (method, path, status) in [
            (Method::HEAD, "/", 200),
            (Method::GET, "/204", 204),
            (Method::GET, "/304", 304),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(format!("http://a.test{path}"));
            let (response, _) = client.begin(request.body(()).unwrap(), true).await.unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), status);
            assert!(response.body().is_end_stream(), "{path}");
        }
        let request = Request::connect("a.test:80").body(()).unwrap();
        let reply = client.send(request, b"").await.unwrap();
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
    });
}

#[test]
fn a_response_that_breaks_off_is_reset() {
    let broken = raw_origin::closing("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin");
    let proxy = gateway("").origin("app", broken).start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        let error = client.get("/").await.map(drop).unwrap_err();
        assert_eq!(error.reason(), Some(::h2::Reason::INTERNAL_ERROR));
        assert!(!client.has_ended());
    });
}

#[test]
fn a_reload_ends_connections_in_order_and_loses_nothing() {
    let proxy = gateway("").origin("app", origin::text("hi")).start();
    run(async {
        for _ in 0..3 {
            let mut client = H2Client::connect(proxy.address()).await;
            assert_eq!(client.get("/").await.unwrap().text(), "hi");
            tokio::task::block_in_place(|| proxy.reload().expect_success());
            // Told that no more streams are taken, a client begins none there.
            while !client.has_ended() {
                match client.get("/").await {
                    Ok(reply) => assert_eq!(reply.text(), "hi"),
                    Err(error) => assert!(error.is_go_away() || error.is_io(), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
}

#[test]
fn tls_agrees_on_http2_where_both_speak_it() {
    let authority = Authority::new("a");
    let pem = authority.certify(&["one.test"]);
    let tls = r#"tls = { certificates = [{ certificate = "one.pem", key = "one.key" }] }"#;
    let with = |keys: &str| {
        let setup = gateway(&format!("{tls}\n{keys}")).origin("app", origin::text("hi"));
        setup
            .file("one.pem", pem.chain.clone())
            .file("one.key", pem.key.clone())
            .start()
    };
    let agreed = |proxy: &Proxy| {
        let client = TlsClient::new(&authority).offering(&["h2", "http/1.1"]);
        let tls = client.connect(proxy.address(), "one.test").unwrap();
        String::from_utf8(tls.connection().alpn_protocol().unwrap().to_vec()).unwrap()
    };
    assert_eq!(agreed(&with("")), "h2");
    assert_eq!(agreed(&with("http2 = false")), "http/1.1");
}

#[test]
fn without_http2_its_preface_is_another_version() {
    let proxy = gateway("http2 = false")
        .origin("app", origin::text("hi"))
        .start();
    let mut raw = proxy.raw();
    raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let answer = String::from_utf8(raw.read_to_end().unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 505 "), "{answer}");
}

#[test]
fn a_preface_after_a_request_is_none() {
    let proxy = gateway("").origin("app", origin::text("hi")).start();
    let mut raw = proxy.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let answers = String::from_utf8(raw.read_to_end().unwrap()).unwrap();
    assert!(answers.starts_with("HTTP/1.1 200 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 505 "), "{answers}");
}

#[test]
fn uploads_that_wait_for_their_peers_hold_up_no_other() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"
        [upstreams.app]
        peers = ["{app}"]
        [upstreams.silent]
        peers = ["{silent}"]
        tries = 1
        connect_timeout = "1m"
        [[routes]]
        upstream = "app"
        [[routes]]
        path = "/silent"
        upstream = "silent"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", origin::echoing())
        .start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        // The gateway's own window is known.
        client.get("/").await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..40 {
            let request = Request::post("http://a.test/silent").body(()).unwrap();
            let (response, mut sending) = client.begin(request, false).await.unwrap();
            sending
                .send_data(Bytes::from(vec![b'x'; 200_000]), true)
                .unwrap();
            waiting.push((response, sending));
        }
        let body = vec![b'y'; 100_000];
        let request = Request::post("http://a.test/").body(()).unwrap();
        let reply = client.send(request, &body).await.unwrap();
        assert_eq!(&reply.body[..], body);
    });
}
