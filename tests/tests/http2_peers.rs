//! Peers that speak HTTP/2 by frames that no ordinary server sends, and peers that choose by ALPN what they speak.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use castling_tests::frames::{self, ACK, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS};
use castling_tests::origin::Origin;
use castling_tests::raw_client::RawClient;
use castling_tests::tls::Authority;
use castling_tests::{Proxy, raw_origin, tls_origin};

fn gateway(keys: &str, origin: Origin) -> Proxy {
    let config = r#"
        [workers]
        count = 1
        [listeners.web]
        bind = "{listen}"
        [upstreams.app]
        peers = ["{app}"]
        KEYS
        [[routes]]
        upstream = "app"
    "#;
    Proxy::with_config(&config.replace("KEYS", keys))
        .origin("app", origin)
        .start()
}

/// Frames that a peer sends in answer to the head of a request on this stream.
type Answer = dyn Fn(u32) -> Vec<u8> + Send + Sync;

/// Speaks HTTP/2 on a connection, and does with each head what `answer` says, until the gateway ends it.
fn speak(connection: &mut RawClient, answer: &Answer) -> Result<(), String> {
    connection.read_exact(24)?;
    connection.send(frames::frame(SETTINGS, 0, 0, b""));
    loop {
        let head = connection.read_exact(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = connection.read_exact(length as usize)?;
        match (head[3], head[4]) {
            (SETTINGS, 0) => drop(connection.send(frames::frame(SETTINGS, ACK, 0, b""))),
            (PING, 0) => drop(connection.send(frames::frame(PING, ACK, 0, &payload))),
            (HEADERS, _) => drop(connection.send(answer(stream))),
            _ => {}
        }
    }
}

fn speaking(answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Origin {
    raw_origin::scripted(move |connection, _| speak(connection, &answer))
}

/// Response without a body.
fn ended(stream: u32, status: &str) -> Vec<u8> {
    let block = frames::block(&[(":status", status)]);
    frames::frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

fn goaway(last: u32) -> Vec<u8> {
    let payload = [last.to_be_bytes(), frames::NO_ERROR.to_be_bytes()].concat();
    frames::frame(GOAWAY, 0, 0, &payload)
}

const HTTP2: &str = "protocol = \"http2\"";

#[test]
fn a_peer_that_agrees_to_another_protocol_without_being_asked_is_a_bad_gateway() {
    for flags in [END_HEADERS, END_HEADERS | END_STREAM] {
        let origin = speaking(move |stream| {
            let block = frames::block(&[(":status", "101")]);
            frames::frame(HEADERS, flags, stream, &block)
        });
        let proxy = gateway("protocol = \"http2\"\ntries = 1", origin);
        assert_eq!(proxy.get("/").status, 502);
    }
}

#[test]
fn a_peer_may_say_that_it_goes_away_more_than_once() {
    let answered = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&answered);
    let origin = speaking(move |stream| {
        // As a server that drains: first for all streams, then for those that there are; the answer comes between.
        counted.fetch_add(1, Ordering::Relaxed);
        let last = u32::MAX >> 1;
        [
            goaway(last),
            goaway(last),
            ended(stream, "204"),
            goaway(stream),
        ]
        .concat()
    });
    let proxy = gateway(HTTP2, origin);
    for _ in 0..5 {
        assert_eq!(proxy.get("/").status, 204);
    }
    assert_eq!(answered.load(Ordering::Relaxed), 5);
    // Each had a connection of its own.
    assert_eq!(proxy.origin("app").connections(), 5);
}

#[test]
fn a_request_that_the_peer_has_not_looked_at_goes_to_it_once_more_whatever_its_method() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let origin = speaking(
        move |stream| match counted.fetch_add(1, Ordering::Relaxed) {
            0 => goaway(0),
            _ => ended(stream, "204"),
        },
    );
    let proxy = gateway(HTTP2, origin);
    let reply = proxy.post("/", castling_tests::body::full("once"));
    assert_eq!(
        (reply.status.as_u16(), seen.load(Ordering::Relaxed)),
        (204, 2)
    );
}

/// Peer by TLS that knows these protocols, and answers with the one that it was chosen for.
fn choosing(authority: &Authority, protocols: &[&str]) -> Origin {
    let mut tls = tls_origin::server(&authority.certify(&["a.test"]), rustls::ALL_VERSIONS);
    tls.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    let (origin, _) = tls_origin::scripted(tls, |connection, _| {
        if connection.protocol() != Some(b"h2") {
            loop {
                connection.read_request()?;
                connection.answer("X-By: 1\r\n", b"")?;
            }
        }
        connection.read_exact(24)?;
        connection.send(frames::frame(SETTINGS, 0, 0, b""))?;
        loop {
            let head = connection.read_exact(9)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let payload = connection.read_exact(length as usize)?;
            match (head[3], head[4]) {
                (PING, 0) => connection.send(frames::frame(PING, ACK, 0, &payload))?,
                (HEADERS, _) => {
                    let block = frames::block(&[(":status", "200"), ("x-by", "2")]);
                    let flags = END_HEADERS | END_STREAM;
                    connection.send(frames::frame(HEADERS, flags, stream, &block))?;
                }
                _ => {}
            }
        }
    });
    origin
}

#[test]
fn a_peer_chooses_what_it_is_spoken_to() {
    let authority = Authority::new("ca.test");
    for (protocols, by) in [
        (&["h2", "http/1.1"][..], "2"),
        (&["http/1.1"], "1"),
        (&["http/1.1", "h2"], "1"),
        // The peer knows nothing of ALPN.
        (&[], "1"),
    ] {
        let config = r#"
            [listeners.web]
            bind = "{listen}"
            [workers]
            count = 1
            [upstreams.app]
            peers = ["{app}"]
            protocol = "auto"
            tls = { ca = "ca.pem", server_name = "a.test" }
            [[routes]]
            upstream = "app"
        "#;
        let proxy = Proxy::with_config(config)
            .origin("app", choosing(&authority, protocols))
            .file("ca.pem", authority.pem())
            .start();
        for _ in 0..3 {
            let reply = proxy.get("/");
            assert_eq!(
                (reply.status.as_u16(), reply.header("x-by")),
                (200, Some(by)),
                "{protocols:?}"
            );
        }
        assert_eq!(proxy.origin("app").connections(), 1, "{protocols:?}");
    }
}
