//! Clients that end their direction, leave, or are slow without end.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use castling_tests::body::Stuff;
use castling_tests::{DEADLINE, Proxy, RawClient, body, origin, raw_origin, until};
use http::Response;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn config(listener: &str) -> String {
    r#"
        [workers]
        count = 1
        [access_log]
        file = "{dir}/access.log"
        format = "$status $method"
        flush = "0s"
        [listeners.web]
        bind = "{listen}"
        LISTENER
        [upstreams.app]
        peers = ["{app}"]
        [[routes]]
        upstream = "app"
    "#
    .replace("LISTENER", listener)
}

fn start(listener: &str, origin: origin::Origin) -> Proxy {
    Proxy::with_config(&config(listener))
        .origin("app", origin)
        .start()
}

#[test]
fn a_client_that_says_it_sends_no_more_is_answered() {
    let answer = |_: &origin::Seen| Response::new(body::full("late"));
    let origin = origin::answering_after(Duration::from_millis(300), answer);
    let proxy = start("", origin);
    for request in [
        GET,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let mut client = proxy.raw();
        client.send(request).finish();
        assert_eq!(client.read_reply().text(), "late");
        client.expect_close();
    }
    // Two at once are two answers.
    let mut client = proxy.raw();
    client.send(GET).send(GET).finish();
    assert_eq!(client.read_reply().text(), "late");
    assert_eq!(client.read_reply().text(), "late");
    client.expect_closed_in_order();
}

#[test]
fn a_client_that_has_closed_is_not_worked_for_without_end() {
    for keys in ["half_close = \"300ms\"", "half_close = \"0s\""] {
        let proxy = start(keys, raw_origin::stalled());
        let mut client = proxy.raw();
        client.send(GET);
        until("the origin's connection", || {
            proxy.origin("app").connections() == 1
        });
        client.finish();
        assert_eq!(proxy.until_access_lines(1), ["499 GET"], "{keys}");
        client.expect_close();
    }
}

#[test]
fn a_reset_ends_the_work_at_once() {
    let proxy = start("half_close = \"1h\"", raw_origin::stalled());
    let mut client = proxy.raw();
    client.send(GET);
    until("the origin's connection", || {
        proxy.origin("app").connections() == 1
    });
    client.reset();
    assert_eq!(proxy.until_access_lines(1), ["499 GET"]);
}

#[test]
fn an_incomplete_request_ends_with_its_connection() {
    // One that answers before the body's end could be quicker than the client's end.
    let proxy = start("", raw_origin::stalled());
    let mut client = proxy.raw();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    client.finish();
    assert_eq!(proxy.until_access_lines(1), ["499 POST"]);
}

/// Sends a byte now and then until something has come back.
fn trickle(client: &mut RawClient, byte: &[u8]) {
    let pause = Some(Duration::from_millis(50));
    client.socket().set_read_timeout(pause).unwrap();
    let started = Instant::now();
    loop {
        client.send(byte);
        match client.socket().peek(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
        assert!(started.elapsed() < DEADLINE, "it is waited for");
    }
    client.socket().set_read_timeout(Some(DEADLINE)).unwrap();
}

#[test]
fn a_body_that_trickles_in_is_408() {
    let proxy = start(
        "body_rate = { min = 1000, after = \"1s\" }",
        raw_origin::stalled(),
    );
    let mut client = proxy.raw();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    trickle(&mut client, b"x");
    assert_eq!(client.read_reply().status, 408);
    let mut client = proxy.raw();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    trickle(&mut client, b"1\r\nx\r\n");
    assert_eq!(client.read_reply().status, 408);
}

#[test]
fn a_reader_that_takes_nothing_is_not_waited_for_unless_it_takes_events() {
    let origin = origin::answering(|seen| {
        let content_type = match seen.target.as_str() {
            "/events" => "text/event-stream; charset=utf-8",
            _ => "application/octet-stream",
        };
        let response = Response::builder().header("content-type", content_type);
        response
            .body(Stuff::repeating(b"data: x\n\n").chunked(0, 1 << 30))
            .unwrap()
    });
    let proxy = start("send_rate = { min = 1000, after = \"1s\" }", origin);
    let get = |target: &str| {
        let mut client = proxy.raw();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(client.read_head().unwrap().starts_with("HTTP/1.1 200"));
        client
    };
    let events = get("/events");
    let _stuck = get("/stuck");
    proxy.until_access_lines(1);
    drop(events);
    proxy.until_access_lines(2);
}
