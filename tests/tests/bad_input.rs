//! Bad requests and bad upstreams get a clear answer, and nothing lost.

use castling_tests::raw_origin::{self, scripted};
use castling_tests::{Proxy, RawClient, body, origin, until};
use http::{Request, StatusCode};

// Requests: what could be read in two ways is refused, and the connection with it.

#[test]
fn a_request_that_could_be_read_in_two_ways_is_400_and_close() {
    let proxy = Proxy::before(origin::text("ok"));
    for (what, request) in [
        (
            "both lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "both, reversed",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        ),
        (
            "two lengths in a list",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello",
        ),
        (
            "a signed length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        ),
        (
            "a length too long",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        ),
        (
            "space before the colon",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
        ),
        (
            "coding, space before the colon",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "a bare CR",
            "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rX-C: d\r\n\r\n",
        ),
        (
            "a folded line",
            "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
        ),
        ("a NUL", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n"),
        ("no Host", "GET / HTTP/1.1\r\nX-A: b\r\n\r\n"),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("a Host of a dot", "GET / HTTP/1.1\r\nHost: .\r\n\r\n"),
        (
            "an empty label in Host",
            "GET / HTTP/1.1\r\nHost: a..b\r\n\r\n",
        ),
        (
            "two Authorizations",
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: b\r\nAuthorization: c\r\n\r\n",
        ),
        (
            "two Content-Types",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Type: b\r\ncontent-type: b\r\n\r\n",
        ),
        (
            "chunked, but not last",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("no request at all", "hello there\r\n\r\n"),
    ] {
        let mut client = proxy.raw();
        client.send(request);
        let reply = client
            .try_read_reply()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(
            (reply.status, reply.header("connection")),
            (400, Some("close")),
            "{what}"
        );
        client.expect_close();
    }
    assert_eq!(proxy.origin("app").requests(), 0);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn bad_chunks_end_the_request_and_the_connection() {
    let proxy = Proxy::before(origin::echoing());
    for chunks in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello",
        "5\nhello\r\n0\r\n\r\n",
    ] {
        let mut client = proxy.raw();
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .send(chunks);
        // The origin may have begun its answer; then that is cut.
        if let Ok(reply) = client.try_read_reply() {
            assert_eq!(reply.status, 400, "{chunks:?}");
        }
        client
            .read_to_end()
            .unwrap_or_else(|error| panic!("{chunks:?}: not closed: {error}"));
    }
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"
        max_head = "4KiB"
        max_fields = 500

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", origin::text("ok"))
        .start();
    let head = |bytes: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n",
            "x".repeat(bytes)
        )
    };
    let mut client = proxy.raw();
    client.send(head(3_900));
    assert_eq!(client.read_reply().status, 200);
    client.send(head(5_000));
    let reply = client.read_reply();
    assert_eq!(
        (reply.status, reply.header("connection")),
        (431, Some("close"))
    );
    // The end is not looked for: one that never ends gets the same.
    let mut client = proxy.raw();
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nX-Long: ")
        .send("x".repeat(8_000));
    assert_eq!(client.read_reply().status, 431);
    // A flood of small headers does not reach the limit of bytes, but that of headers.
    let flood = "A:\r\n".repeat(900);
    let mut client = proxy.raw();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{flood}\r\n"));
    assert_eq!(client.read_reply().status, 431);
}

#[test]
fn a_body_that_is_too_large_is_413() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"
        max_body = "1KiB"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", origin::echoing())
        .start();
    let mut client = proxy.raw();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n")
        .send("x".repeat(1024));
    assert_eq!(client.read_reply().status, 200);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n");
    assert_eq!(client.read_reply().status, 413);
}

#[test]
fn a_client_that_does_not_finish_its_head_or_body_is_not_waited_for() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"
        head_timeout = "300ms"
        body_timeout = "300ms"
        idle_timeout = "300ms"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin(
            "app",
            origin::answering(|_| http::Response::new(body::full("ok"))),
        )
        .start();
    // Nothing at all, half a head, an idle connection: closed.
    let mut silent = proxy.raw();
    silent.expect_close();
    let mut half = proxy.raw();
    half.send("GET / HTTP/1.1\r\nHo");
    let _said_or_not = half.try_read_reply();
    half.read_to_end().unwrap();
    let mut idle = proxy.raw();
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.read_reply().status, 200);
    idle.expect_close();
    // Half a body: told so.
    let mut body = proxy.raw();
    body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(body.read_reply().status, 408);
    body.read_to_end().unwrap();
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn trace_is_405() {
    let proxy = Proxy::before(origin::text("ok"));
    let request = Request::builder().method("TRACE").uri("/");
    let reply = proxy.send(request.body(body::empty()).unwrap());
    assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(proxy.origin("app").requests(), 0);
}

// Upstreams.

#[test]
fn no_reachable_peer_is_502() {
    let proxy = one_peer("{refusing}", "");
    assert_eq!(proxy.get("/").status, StatusCode::BAD_GATEWAY);
}

#[test]
fn a_peer_that_does_not_accept_in_time_is_504() {
    let proxy = one_peer("{silent}", "connect_timeout = \"200ms\"");
    assert_eq!(proxy.get("/").status, StatusCode::GATEWAY_TIMEOUT);
}

#[test]
fn a_peer_that_does_not_answer_in_time_is_504() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]
        response_timeout = "200ms"

        [[routes]]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", raw_origin::stalled())
        .start();
    assert_eq!(proxy.get("/").status, StatusCode::GATEWAY_TIMEOUT);
}

#[test]
fn a_response_that_stalls_in_its_body_is_cut() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]
        idle_timeout = "200ms"

        [[routes]]
        upstream = "app"
    "#;
    let stalls = scripted(|connection, _| {
        connection.read_head()?;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        connection.read_to_end().map(drop)
    });
    let proxy = Proxy::with_config(config).origin("app", stalls).start();
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // Cut, not padded and not ended as if it were whole.
    assert!(client.try_read_reply().is_err());
}

#[test]
fn a_response_that_makes_no_sense_is_502() {
    for nonsense in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 0\r\n\r\n",
        "",
    ] {
        let proxy = Proxy::before(raw_origin::closing(nonsense));
        assert_eq!(
            proxy.get("/").status,
            StatusCode::BAD_GATEWAY,
            "{nonsense:?}"
        );
    }
}

#[test]
fn an_upstream_that_hangs_up_in_the_middle_cuts_the_response_and_is_no_error_line() {
    for (what, half) in [
        (
            "sized",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        ),
        (
            "chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
        ),
    ] {
        let proxy = Proxy::before(raw_origin::closing(half));
        let base = proxy.worker_descriptors();
        for _ in 0..20 {
            let mut client = proxy.raw();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(client.try_read_reply().is_err(), "{what}");
        }
        until("descriptors are back", || {
            proxy.worker_descriptors() <= base
        });
        assert_eq!(proxy.error_lines(), [""; 0], "{what}");
    }
}

#[test]
fn a_client_that_hangs_up_in_the_middle_is_no_error_line() {
    let proxy = Proxy::before(origin::echoing());
    assert_eq!(proxy.post("/", body::full("warm")).status, StatusCode::OK);
    let base = proxy.worker_descriptors();
    let leave: [fn(RawClient); 2] = [drop, RawClient::reset];
    for leave in leave {
        for start in [
            "GET / HT",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
        ] {
            for _ in 0..10 {
                let mut client = proxy.raw();
                client.send(start);
                leave(client);
            }
        }
    }
    until("descriptors are back", || {
        proxy.worker_descriptors() <= base
    });
    assert_eq!(
        proxy.post("/", body::full("still here")).text(),
        "still here"
    );
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn an_early_answer_to_a_large_body_reaches_the_client() {
    let refuses = scripted(|connection, _| {
        connection.read_head()?;
        connection
            .send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        connection.read_to_end().map(drop)
    });
    let proxy = Proxy::before(refuses);
    let mut client = proxy.raw();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nthe begin");
    let reply = client.read_reply();
    assert_eq!((reply.status, reply.text().as_str()), (403, "no"));
}

/// A gateway with one upstream of one peer.
#[track_caller]
fn one_peer(peer: &str, more: &str) -> Proxy {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [[routes]]
        upstream = "app"

        [upstreams.app]
    "#;
    let dedented: Vec<&str> = config.lines().map(str::trim).collect();
    Proxy::with_config(&format!(
        "{}\npeers = [\"{peer}\"]\n{more}\n",
        dedented.join("\n")
    ))
    .start()
}

#[test]
fn a_request_to_a_wrong_upgrade_is_an_ordinary_request() {
    let proxy = Proxy::before(origin::text("plain"));
    let request = Request::get("/")
        .header("connection", "upgrade")
        .header("upgrade", "websocket");
    let reply = proxy.send(request.body(body::empty()).unwrap());
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (StatusCode::OK, "plain")
    );
}
