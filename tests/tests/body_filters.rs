//! Plugins on a body's way: each piece of it passes them, both ways, with the trailers after its last.

use castling_tests::body::{self, Stuff};
use castling_tests::{Proxy, origin, raw_origin};
use http::{Request, Response, StatusCode};

fn passing(more: &str) -> Proxy {
    // Answers when it has all of the body.
    let echo = origin::answering(|seen| Response::new(body::full(seen.body.clone())));
    passing_before(echo, more)
}

fn passing_before(app: origin::Origin, more: &str) -> Proxy {
    let config = r#"
        [workers]
        count = 1

        [access_log]
        file = "{dir}/access.log"
        format = "$status $pieces"
        flush = "0s"

        [plugins.passer]
        wasm = "{guests}/passer.wasm"
        MORE

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["passer"]
        upstream = "app"
    "#;
    Proxy::with_config(&config.replace("MORE", more))
        .origin("app", app)
        .start()
}

fn post(proxy: &Proxy, do_what: &str, body: body::AnyBody) -> castling_tests::Reply {
    let request = Request::post("/").header("x-up", do_what).body(body);
    proxy.send(request.expect("a valid request"))
}

#[test]
fn a_request_body_is_replaced_grown_shrunk_and_held() {
    let proxy = passing("");
    for (what, came_out) in [
        ("upper", "HELLO"),
        ("double", "hellohello"),
        ("drop", ""),
        ("hold", "[hello]"),
        ("nothing", "hello"),
    ] {
        let reply = post(&proxy, what, body::full("hello"));
        assert_eq!(
            (reply.status, &*reply.text()),
            (StatusCode::OK, came_out),
            "{what}"
        );
        // The body came whole with its head, so the origin is told its length.
        let length = came_out.len().to_string();
        assert_eq!(
            proxy.origin("app").last().header("content-length"),
            Some(&*length),
            "{what}"
        );
    }
}

#[test]
fn a_large_request_body_streams_through_its_filter() {
    let proxy = passing("");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
    let stuff = Stuff::repeating(&bytes);
    let len = bytes.len() as u64;
    let upper = bytes.to_ascii_uppercase();
    for body in [stuff.sized(0, len), stuff.chunked(0, len)] {
        let reply = post(&proxy, "upper", body);
        assert_eq!(reply.status, StatusCode::OK);
        assert!(reply.body == upper, "the echo differs");
    }
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_filter_that_yields_while_a_body_streams_loses_nothing_of_it() {
    let proxy = passing("");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let reply = post(
        &proxy,
        "spin",
        Stuff::repeating(&bytes).chunked(0, 1_000_000),
    );
    assert_eq!(reply.status, StatusCode::OK);
    assert!(reply.body == bytes, "the echo differs");
}

#[test]
fn a_request_without_a_body_passes_no_filter() {
    let proxy = passing("");
    let reply = proxy.get_with("/", &[("x-up", "hold")]);
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(proxy.until_access_lines(1), ["200 0"]);
    let last = proxy.origin("app").last();
    assert_eq!(
        (
            last.header("content-length"),
            last.header("transfer-encoding")
        ),
        (None, None)
    );
}

#[test]
fn a_filter_may_answer_in_the_middle_of_a_body() {
    let proxy = passing("");
    let reply = post(&proxy, "refuse", body::full("this is bad"));
    assert_eq!((reply.status.as_u16(), &*reply.text()), (422, "not that"));
    assert_eq!(proxy.origin("app").requests(), 0);
    // A body that streams: the origin has begun to read, and the client has not sent all of it.
    let mut client = proxy.raw();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nX-Up: refuse\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n");
    castling_tests::until("the origin is asked", || {
        proxy.origin("app").connections() == 1
    });
    client.send("3\r\nbad\r\n");
    assert_eq!(client.read_reply().status, 422);
    client.send("4\r\nmore\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_reply().status, 200);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn trailers_are_seen_with_the_last_chunk() {
    let proxy = passing("");
    let mut client = proxy.raw();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nX-Up: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nab\r\n0\r\nX-Sum: 7\r\nX-More: m\r\nContent-Length: 3\r\n\r\n",
    );
    // Fields that may not be trailers (RFC 9110 §6.5.1) are none.
    assert_eq!(client.read_reply().text(), "ab<x-sum=7,x-more=m; 7>");

    let with_trailers = raw_origin::repeating(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 9\r\n\r\n",
    );
    let proxy = passing_before(with_trailers, "");
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Down: trailers\r\n\r\n");
    assert_eq!(client.read_reply().text(), "ab<x-sum=9; 9>");
}

#[test]
fn a_filter_that_fails_is_a_500_or_is_left_out() {
    let proxy = passing("");
    assert_eq!(
        post(&proxy, "fail", body::full("hello")).status,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    let proxy = passing("on_error = \"skip\"");
    let reply = post(&proxy, "fail", body::full("hello"));
    assert_eq!((reply.status, &*reply.text()), (StatusCode::OK, "hello"));
    // A filter may hold back what it has taken before it failed.
    let long = vec![b'x'; 300_000];
    let reply = post(&proxy, "fail-later", body::full(long));
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn a_filtered_body_goes_whole_to_the_next_peer() {
    let config = r#"
        [workers]
        count = 1

        [access_log]
        file = "{dir}/access.log"
        format = "$status $pieces $tries"
        flush = "0s"

        [plugins.passer]
        wasm = "{guests}/passer.wasm"

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{closing}", "{app}"]

        [[routes]]
        plugins = ["passer"]
        upstream = "app"
    "#;
    let hangs_up = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        Ok(())
    });
    let proxy = Proxy::with_config(config)
        .origin("closing", hangs_up)
        .origin("app", origin::echoing())
        .start();
    for _ in 0..2 {
        let request = Request::put("/")
            .header("x-up", "upper")
            .body(body::full("hello"));
        let reply = proxy.send(request.expect("a valid request"));
        assert_eq!((reply.status, &*reply.text()), (StatusCode::OK, "HELLO"));
    }
    // Which peer has the first turn is random. The request that met the failing one was seen once, sent twice.
    let mut lines = proxy.until_access_lines(2);
    lines.sort();
    assert_eq!(lines, ["200 1 1", "200 1 2"]);
}

#[test]
fn a_filter_may_end_a_body() {
    let proxy = passing("");
    let reply = post(&proxy, "end", body::full("hello"));
    assert_eq!((reply.status, &*reply.text()), (StatusCode::OK, "hello."));
    // The rest that the client sends is read, and its connection lives on.
    let proxy = passing("");
    let mut client = proxy.raw();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nX-Up: end\r\nTransfer-Encoding: chunked\r\n\r\n");
    castling_tests::until("the origin is asked", || {
        proxy.origin("app").connections() == 1
    });
    client.send("3\r\none\r\n");
    assert_eq!(client.read_reply().text(), "one.");
    client.send("3\r\ntwo\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_reply().status, 200);

    // A response that would never end.
    let endless = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        // Until the gateway has had enough.
        let _ = connection.read_head();
        Ok(())
    });
    let proxy = passing_before(endless, "");
    let mut client = proxy.raw();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Down: end\r\n\r\n");
        assert_eq!(client.read_reply().text(), "first.");
    }
    assert_eq!(proxy.error_lines(), [""; 0]);
}

/// Responses with validators, as a peer sends them.
fn validated(status: &str, more: &str, body: &str) -> origin::Origin {
    raw_origin::repeating(format!(
        "HTTP/1.1 {status}\r\nETag: \"v1\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nAccept-Ranges: bytes\r\n\
         Content-Type: text/html\r\n{more}\r\n{body}"
    ))
}

#[test]
fn a_head_says_what_is_true_of_a_body_that_may_change() {
    let get = |proxy: &Proxy, method: &str, down: &str, more: &str| {
        let mut client = proxy.raw();
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nX-Down: {down}\r\n{more}\r\n"
        ));
        let reply = match method {
            "HEAD" => client.read_reply_to_head(),
            _ => client.read_reply(),
        };
        ["etag", "last-modified", "accept-ranges", "content-length"]
            .map(|name| reply.header(name).map(str::to_owned))
    };
    let whole = || validated("200 OK", "Content-Length: 12\r\n", "twelve bytes");
    let head = || validated("200 OK", "Content-Length: 12\r\n", "");
    let none = || validated("304 Not Modified", "", "");
    let weak = [Some("W/\"v1\"".to_owned()), None, None, None];
    let date = Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned());
    let (strong, bytes) = (Some("\"v1\"".to_owned()), Some("bytes".to_owned()));
    for (method, app) in [("GET", whole()), ("HEAD", head())] {
        let proxy = passing_before(app, "");
        assert_eq!(get(&proxy, method, "end", ""), weak, "{method}");
        let untouched = [
            strong.clone(),
            date.clone(),
            bytes.clone(),
            Some("12".to_owned()),
        ];
        assert_eq!(get(&proxy, method, "skip", ""), untouched, "{method}");
    }
    let proxy = passing_before(none(), "");
    assert_eq!(get(&proxy, "GET", "", "If-None-Match: W/\"v1\"\r\n"), weak);
    // A client that has the body as the peer has sent it is told that it is still so.
    let untouched = [strong, date, bytes, None];
    let more = "If-None-Match: \"v0\", \"v1\"\r\n";
    assert_eq!(get(&proxy, "GET", "", more), untouched);
}

#[test]
fn substitute_costs_only_what_it_changes() {
    let config = r#"
        [plugins.substitute]
        wasm = "{plugins}/substitute.wasm"
        config = { replace = [{ from = "a", to = "bb" }], types = ["text/html"] }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["substitute"]
        upstream = "app"
    "#;
    for (status, kind, length) in [
        ("200 OK", "application/octet-stream", Some("4")),
        ("206 Partial Content", "text/html", Some("4")),
        ("200 OK", "text/html", None),
    ] {
        let app = raw_origin::repeating(format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: 4\r\n\r\naaaa"
        ));
        let proxy = Proxy::with_config(config).origin("app", app).start();
        let reply = proxy.get("/");
        assert_eq!(reply.header("content-length"), length, "{status} {kind}");
        assert_eq!(reply.text().len(), if length.is_some() { 4 } else { 8 });
    }
}

#[test]
fn a_filter_that_fails_after_it_has_changed_the_head_is_not_passed_over() {
    let gzip = || {
        raw_origin::repeating(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\ngzip",
        )
    };
    let proxy = passing_before(gzip(), "on_error = \"skip\"");
    let reply = proxy.get_with("/", &[("x-down", "strip-fail")]);
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    // A filter that has changed nothing yet is passed over.
    let reply = proxy.get_with("/", &[("x-down", "fail")]);
    assert_eq!((reply.status, &*reply.text()), (StatusCode::OK, "gzip"));
    // A response that is out already is cut.
    let (seen, until_seen) = std::sync::mpsc::channel();
    let until_seen = std::sync::Mutex::new(until_seen);
    let pieces = raw_origin::scripted(move |connection, _| {
        connection.read_head()?;
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
        // The first piece is with the client when the next comes.
        let seen = until_seen.lock().map_err(|error| error.to_string())?;
        seen.recv().map_err(|error| error.to_string())?;
        connection.send("3\r\ntwo\r\n0\r\n\r\n");
        connection.read_to_end().map(drop)
    });
    let proxy = passing_before(pieces, "on_error = \"skip\"");
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Down: fail-later\r\n\r\n");
    assert!(client.read_head().unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(client.read_exact(8).unwrap(), b"3\r\none\r\n");
    seen.send(()).unwrap();
    assert_eq!(client.read_to_end().unwrap(), b"");
}

#[test]
fn a_plugin_sees_the_path_that_routes_compare() {
    let proxy = passing("");
    let reply = proxy.get_with("/x/../%61%2fb/%20//", &[("x-down", "paths")]);
    assert_eq!(reply.header("x-paths"), Some("/%61%2fb/%20/ /a%2Fb/%20/"));
}
