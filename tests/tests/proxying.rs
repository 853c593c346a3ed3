//! HTTP/1.1 through the gateway: methods, bodies, framing, headers, connections.

use std::io::{Read, Write};
use std::time::Duration;

use castling_tests::body::{self, Stuff};
use castling_tests::{Proxy, block_on, client, origin, raw_origin, until, within};
use http::{Method, Request, Response, StatusCode, Version};
use rustix::process::Signal;

const MIB: u64 = 1 << 20;

#[test]
fn a_request_arrives_as_it_was_sent() {
    let proxy = Proxy::before(origin::text("fine"));
    let request = Request::put("/a%20path/x;y?q=1&r=%2F")
        .header("x-thing", "one")
        .body(body::full("the body"));
    let reply = proxy.send(request.unwrap());
    assert_eq!(
        (reply.status, reply.version, reply.text().as_str()),
        (StatusCode::OK, Version::HTTP_11, "fine")
    );
    let seen = proxy.origin("app").last();
    assert_eq!((seen.method, seen.version), (Method::PUT, Version::HTTP_11));
    assert_eq!(seen.target, "/a%20path/x;y?q=1&r=%2F");
    assert_eq!(seen.headers["x-thing"], "one");
    assert_eq!(seen.body, "the body");
}

#[test]
fn a_response_arrives_as_it_was_sent() {
    let proxy = Proxy::before(raw_origin::repeating(
        "HTTP/1.1 418 Short And Stout\r\nX-One: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 3\r\n\r\ntea",
    ));
    let reply = proxy.get("/");
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (418, "tea"));
    assert_eq!(reply.header("x-one"), Some("1"));
    let cookies: Vec<_> = reply.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let proxy = Proxy::before(origin::text("twelve bytes"));
    let mut client = proxy.raw();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let reply = client.read_reply_to_head();
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("12"))
    );
    // Bytes that follow on the connection are the next response, so no body was sent.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_reply().text(), "twelve bytes");
}

#[test]
fn responses_without_a_body_leave_the_connection_usable() {
    let proxy = Proxy::before(origin::answering(|seen| {
        let code = seen.target.trim_start_matches('/').parse().unwrap();
        Response::builder()
            .status::<u16>(code)
            .body(body::empty())
            .unwrap()
    }));
    let mut client = proxy.raw();
    for code in [204, 304, 200, 204] {
        client.send(format!("GET /{code} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let reply = client.read_reply();
        assert_eq!((reply.status, reply.text().as_str()), (code, ""));
    }
}

#[test]
fn sized_and_chunked_bodies_pass_both_ways() {
    let proxy = Proxy::before(origin::serving(|request| async move {
        let chunked = request.uri().path() == "/chunked";
        let verified = Stuff::noise()
            .expect(1)
            .whole(request.into_body(), 3 * MIB)
            .await;
        match verified {
            Ok(()) if chunked => Response::new(Stuff::noise().chunked(2, 3 * MIB)),
            Ok(()) => Response::new(Stuff::noise().sized(2, 3 * MIB)),
            Err(error) => Response::builder()
                .status(400)
                .body(body::full(error))
                .unwrap(),
        }
    }));
    for (target, is_chunked) in [("/sized", false), ("/chunked", true)] {
        for body in [
            Stuff::noise().sized(1, 3 * MIB),
            Stuff::noise().chunked(1, 3 * MIB),
        ] {
            let reply = proxy.post(target, body);
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
            assert_eq!(reply.headers.contains_key("content-length"), !is_chunked);
            let compared = block_on(
                Stuff::noise()
                    .expect(2)
                    .whole(body::full(reply.body), 3 * MIB),
            );
            assert_eq!(compared, Ok(()));
        }
    }
}

#[test]
fn a_body_streams_before_it_is_whole() {
    // The origin answers each line as it comes; the client sends the next one only after that.
    let proxy = Proxy::before(origin::echoing());
    let mut client = proxy.raw();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    let head = client.read_head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(client.read_exact(10).unwrap(), b"5\r\nfirst\r\n");
    client.send("6\r\nsecond\r\n");
    assert_eq!(client.read_exact(11).unwrap(), b"6\r\nsecond\r\n");
    client.send("0\r\n\r\n");
    assert_eq!(client.read_exact(5).unwrap(), b"0\r\n\r\n");
}

#[test]
fn a_response_that_begins_early_does_not_cut_the_upload() {
    // The origin answers from the begin on, a byte for each piece that it reads, and ends when the request ends.
    let proxy = Proxy::before(raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        // Each connection serves one: a POST that finds a kept one closing would be a 502, and rightly.
        connection
            .send("HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut end = Vec::new();
        while !end.ends_with(b"\r\n0\r\n\r\n") {
            let mut piece = [0; 16 * 1024];
            let read = connection.socket().read(&mut piece);
            let read = read.map_err(|error| error.to_string())?;
            end.extend_from_slice(&piece[..read]);
            end.drain(..end.len().saturating_sub(8));
            connection.send("1\r\ny\r\n");
            // Slower than the client, so that the upload's end waits in the gateway while the response goes on.
            std::thread::sleep(Duration::from_millis(1));
        }
        connection.send("0\r\n\r\n");
        Ok(())
    }));
    for _ in 0..2 {
        let mut client = proxy.raw();
        let mut upload = client.socket().try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
            upload
                .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            (0..16).try_for_each(|_| upload.write_all(chunk.repeat(1024).as_bytes()))?;
            upload.write_all(b"0\r\n\r\n")
        });
        let reply = client.read_reply();
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.body.iter().all(|byte| *byte == b'y'));
        sending.join().unwrap().unwrap();
    }
}

#[test]
fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let proxy = Proxy::before(origin::echoing());
    let mut client = proxy.raw();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.read_reply().status, 100);
    client.send("body");
    let reply = client.read_reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "body"));
}

#[test]
fn an_interim_response_of_the_origin_does_not_end_the_exchange() {
    let proxy = Proxy::before(raw_origin::repeating(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ));
    let reply = proxy.get("/");
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (StatusCode::OK, "ok")
    );
}

#[test]
fn hop_by_hop_headers_of_a_request_end_at_the_gateway() {
    let proxy = Proxy::before(origin::text("ok"));
    let mut client = proxy.raw();
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\nX-Public: 2\r\n\r\n",
    );
    assert_eq!(client.read_reply().status, 200);
    let seen = proxy.origin("app").last();
    for name in [
        "x-private",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-public"), Some("2"));
}

#[test]
fn hop_by_hop_headers_of_a_response_end_at_the_gateway() {
    let proxy = Proxy::before(raw_origin::closing(
        "HTTP/1.1 200 OK\r\nConnection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nX-Public: 2\r\n\
         Content-Length: 2\r\n\r\nok",
    ));
    let mut client = proxy.raw();
    // The origin closes its connection; the client's is another.
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let reply = client.read_reply();
        assert_eq!(reply.header("x-public"), Some("2"));
        assert_eq!(
            (reply.header("x-private"), reply.header("keep-alive")),
            (None, None)
        );
        assert!(
            !reply
                .header("connection")
                .unwrap_or_default()
                .contains("close"),
            "{}",
            reply.head
        );
    }
}

#[test]
fn the_peer_learns_the_client_and_the_host_it_asked_for() {
    let proxy = Proxy::before(origin::text("ok"));
    let reply = proxy.get_with(
        "/",
        &[
            ("host", "shop.example:81"),
            ("x-forwarded-for", "203.0.113.9"),
            ("via", "1.0 fred"),
        ],
    );
    let seen = proxy.origin("app").last();
    assert_eq!(seen.header("host"), Some("shop.example:81"));
    assert_eq!(
        seen.header("x-forwarded-for"),
        Some("203.0.113.9, 127.0.0.1")
    );
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example:81"));
    let via: Vec<_> = seen
        .headers
        .get_all("via")
        .iter()
        .map(|via| via.to_str().unwrap())
        .collect();
    assert_eq!(via.join(", "), "1.0 fred, 1.1 castling");
    assert_eq!(reply.header("via"), Some("1.1 castling"));
}

#[test]
fn the_peer_may_see_another_host() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams.by-peer]
        peers = ["{app}"]
        host = "peer"

        [upstreams.fixed]
        peers = ["{app}"]
        host = "inner.example"

        [[routes]]
        path = "/peer"
        upstream = "by-peer"

        [[routes]]
        path = "/fixed"
        upstream = "fixed"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", origin::text("ok"))
        .start();
    let address = proxy.origin("app").address().to_string();
    for (target, host) in [("/peer", address.as_str()), ("/fixed", "inner.example")] {
        proxy.get_from("shop.example", target);
        let seen = proxy.origin("app").last();
        assert_eq!(seen.header("host"), Some(host));
        assert_eq!(seen.header("x-forwarded-host"), Some("shop.example"));
    }
}

#[test]
fn upstream_connections_are_used_again() {
    let proxy = Proxy::before(origin::text("ok"));
    for _ in 0..20 {
        assert_eq!(proxy.get("/").status, StatusCode::OK);
    }
    assert_eq!(
        (
            proxy.origin("app").requests(),
            proxy.origin("app").connections()
        ),
        (20, 1)
    );
}

#[test]
fn a_pooled_connection_that_died_costs_no_request() {
    // Each connection answers one request, promises to stay, and is closed when it is idle.
    let origin = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Ok(())
    });
    let proxy = Proxy::before(origin);
    for _ in 0..10 {
        assert_eq!(proxy.get("/").status, StatusCode::OK);
    }
}

#[test]
fn a_pooled_connection_that_dies_under_a_request_is_tried_again_once() {
    // The first connection closes when it gets its second request.
    let origin = raw_origin::scripted(|connection, number| {
        let answers = if number == 0 { 1 } else { usize::MAX };
        for _ in 0..answers {
            connection.read_head()?;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        connection.read_head().map(drop)
    });
    let proxy = Proxy::before(origin);
    assert_eq!(proxy.get("/").status, StatusCode::OK);
    assert_eq!(proxy.get("/").status, StatusCode::OK);
    assert_eq!(proxy.origin("app").connections(), 2);
}

#[test]
fn an_http_1_0_client_gets_the_body_until_the_close() {
    let proxy = Proxy::before(origin::serving(|_| async {
        Response::new(Stuff::repeating(b"ab").chunked(0, 6))
    }));
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let reply = client.read_reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "ababab"));
    assert_eq!(
        (
            reply.header("transfer-encoding"),
            reply.header("content-length")
        ),
        (None, None)
    );
    client.expect_close();
}

#[test]
fn a_cut_body_that_would_end_with_the_close_ends_with_a_reset() {
    const CUT: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    // The peer breaks off.
    let proxy = Proxy::before(raw_origin::closing(CUT));
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.expect_reset();
    // The worker dies.
    let proxy = Proxy::before(raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        connection.send(CUT);
        connection.read_to_end().map(drop)
    }));
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.read_head().unwrap();
    assert_eq!(client.read_exact(3).unwrap(), b"abc");
    proxy.workers()[0].signal(Signal::KILL);
    client.expect_reset();
}

#[test]
fn a_reply_in_the_place_of_a_body_until_the_close_ends_in_order() {
    let bad_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let proxy = Proxy::before(raw_origin::closing(bad_chunk));
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.read_reply().status, 502);
    client.expect_closed_in_order();
}

#[test]
fn a_peer_is_told_neither_what_the_gateway_answers_nor_what_a_client_claims() {
    let proxy = Proxy::before(origin::text("ok"));
    let mut client = proxy.raw();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\
         Forwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nX-Forwarded-Port: 443\r\n\r\nhi",
    );
    let interim = client.read_head().unwrap();
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    assert_eq!(client.read_reply().status, 200);
    let seen = proxy.origin("app").last();
    for name in ["expect", "forwarded", "x-real-ip", "x-forwarded-port"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[test]
fn an_http_1_0_client_may_keep_its_connection() {
    let proxy = Proxy::before(origin::text("sized"));
    let mut client = proxy.raw();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let reply = client.read_reply();
        assert_eq!(
            (reply.header("connection"), reply.text().as_str()),
            (Some("keep-alive"), "sized")
        );
    }
}

#[test]
fn connection_close_is_obeyed_and_said() {
    let proxy = Proxy::before(origin::text("ok"));
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.read_reply().header("connection"), Some("close"));
    client.expect_close();
}

#[test]
fn what_follows_connection_close_does_not_cut_its_answer() {
    let config = r#"
        [plugins.hello]
        wasm = "{plugins}/hello.wasm"

        [listeners.web]
        bind = "{listen}"

        [[routes]]
        plugins = ["hello"]
    "#;
    let proxy = Proxy::with_config(config).start();
    let more = "GET /more HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_000);
    for n in 0..10 {
        let mut client = proxy.raw();
        client.send(format!(
            "GET /?bytes=300000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{more}"
        ));
        let reply = client.read_reply();
        assert_eq!((reply.status, reply.body.len()), (200, 300_000), "{n}");
        // A close, not a reset: that could have overtaken the answer.
        let end = client.socket().read(&mut [0; 1]);
        assert_eq!(end.map_err(|error| error.kind()), Ok(0), "{n}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let proxy = Proxy::before(origin::answering(|seen| {
        Response::new(body::full(seen.target.clone()))
    }));
    let mut client = proxy.raw();
    let one = |n: usize| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy");
    client.send((0..10).map(one).collect::<String>());
    for n in 0..10 {
        assert_eq!(client.read_reply().text(), format!("/{n}"));
    }
}

#[test]
fn a_response_that_ends_with_its_connection_arrives_whole() {
    let proxy = Proxy::before(raw_origin::closing(
        "HTTP/1.0 200 OK\r\n\r\nuntil the close",
    ));
    let mut client = proxy.raw();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let reply = client.read_reply();
        assert_eq!(
            (reply.header("transfer-encoding"), reply.text().as_str()),
            (Some("chunked"), "until the close")
        );
    }
}

#[test]
fn a_slow_reader_holds_the_origin_back() {
    let proxy = Proxy::before(origin::serving(|_| async {
        Response::new(Stuff::noise().sized(0, 256 * MIB))
    }));
    let worker = proxy.workers()[0];
    let before = worker.resident_kib();
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_head().unwrap();
    client.read_exact(1024).unwrap();
    // Meanwhile others are served, and what the gateway holds stays small.
    let mut served = 0;
    until("others are served", || {
        let mut other = proxy.raw();
        other.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        served += usize::from(other.read_reply_to_head().status == 200);
        served == 50
    });
    let grown_kib = worker.resident_kib().saturating_sub(before);
    assert!(
        grown_kib < 8 * 1024,
        "the worker has grown by {grown_kib} KiB"
    );
}

#[test]
fn a_hundred_clients_are_served_at_once() {
    let proxy = Proxy::before(origin::answering_after(Duration::from_millis(200), |_| {
        Response::new(body::full("late"))
    }));
    let address = proxy.address();
    let start = std::time::Instant::now();
    block_on(within(
        castling_tests::DEADLINE,
        "a hundred clients",
        async {
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..100 {
                clients.spawn(client::exchange(
                    address,
                    Request::get("/").body(body::empty()).unwrap(),
                ));
            }
            for reply in clients.join_all().await {
                assert_eq!(reply.map(|reply| reply.text()), Ok("late".to_owned()));
            }
        },
    ));
    // Requests one after the other would take 20 s.
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn options_of_the_whole_server_take_a_route_of_the_root() {
    let proxy = Proxy::before(origin::text("ok"));
    let mut client = proxy.raw();
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    let reply = client.read_reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    let seen = proxy.origin("app").last();
    assert_eq!((seen.method, seen.target.as_str()), (Method::OPTIONS, "*"));
}
