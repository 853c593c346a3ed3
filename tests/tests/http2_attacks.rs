//! Clients that speak HTTP/2 to harm: their connections end, the worker stays small, and others are served meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use castling_tests::frames::{self, Frame, FrameClient, frame};
use castling_tests::h2::H2Client;
use castling_tests::{DEADLINE, Proxy, block_on, body, origin, until, within};
use http::Response;

fn gateway(keys: &str) -> Proxy {
    let config = r#"
        [workers]
        count = 1
        [listeners.web]
        bind = "{listen}"
        KEYS
        [upstreams.app]
        peers = ["{app}"]
        [[routes]]
        upstream = "app"
    "#;
    let origin = origin::answering(|seen| {
        Response::new(match seen.target.as_str() {
            "/large" => body::full(vec![b'x'; 1 << 20]),
            _ => body::full("hi"),
        })
    });
    Proxy::with_config(&config.replace("KEYS", keys))
        .origin("app", origin)
        .start()
}

/// Memory of the worker in KiB.
fn memory(proxy: &Proxy) -> u64 {
    proxy.workers()[0].anonymous_kib()
}

/// Runs an attack, while another client of the same worker is served. Returns what the attack does.
fn attacked<T>(proxy: &Proxy, attack: impl FnOnce() -> T) -> T {
    let before = memory(proxy);
    let is_over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| {
            let mut served = 0;
            while !is_over.load(Ordering::Relaxed) || served == 0 {
                block_on(within(DEADLINE, "a neighbour", async {
                    let mut client = H2Client::connect(proxy.address()).await;
                    assert_eq!(client.get("/").await.expect("served").text(), "hi");
                }));
                served += 1;
            }
        });
        let done = attack();
        is_over.store(true, Ordering::Relaxed);
        neighbour.join().expect("served throughout");
        done
    });
    let grown = memory(proxy).saturating_sub(before);
    assert!(grown < 24 << 10, "the worker has grown by {grown} KiB");
    assert_eq!(proxy.workers().len(), 1, "{}", proxy.log());
    done
}

/// Sends the same bytes until the gateway ends the connection, and expects to be told why.
fn flood(proxy: &Proxy, bytes: &[u8], code: u32) {
    let frames = attacked(proxy, || {
        let mut client = FrameClient::connect(proxy.address(), &[]);
        let sent = (0..1_000_000).find(|_| !client.try_send(bytes));
        assert!(sent.is_some(), "the connection goes on");
        client.read_to_end()
    });
    // The alert may be lost where the kernel resets the connection.
    if let Some(end) = frames.iter().find(|frame| frame.kind == frames::GOAWAY) {
        assert_eq!(end.code(), code);
    }
}

#[test]
fn a_flood_of_pings_ends_the_connection() {
    flood(
        &gateway(""),
        &frame(frames::PING, 0, 0, &[0; 8]),
        frames::ENHANCE_YOUR_CALM,
    );
}

#[test]
fn a_flood_of_settings_ends_the_connection() {
    flood(
        &gateway(""),
        &frame(frames::SETTINGS, 0, 0, &[]),
        frames::ENHANCE_YOUR_CALM,
    );
}

#[test]
fn a_flood_of_priorities_ends_the_connection() {
    flood(
        &gateway(""),
        &frame(frames::PRIORITY, 0, 1, &[0, 0, 0, 3, 16]),
        frames::ENHANCE_YOUR_CALM,
    );
}

#[test]
fn a_flood_of_windows_ends_the_connection() {
    flood(
        &gateway(""),
        &frame(frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frames::ENHANCE_YOUR_CALM,
    );
}

#[test]
fn a_flood_of_unknown_frames_ends_the_connection() {
    flood(
        &gateway(""),
        &frame(0xbe, 0, 0, &[]),
        frames::ENHANCE_YOUR_CALM,
    );
}

#[test]
fn a_flood_of_empty_data_ends_the_connection() {
    let proxy = gateway("");
    let attack = || {
        let mut client = FrameClient::connect(proxy.address(), &[]);
        let block = frames::block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a.test"),
            (":path", "/"),
        ]);
        client.send(frames::HEADERS, frames::END_HEADERS, 1, &block);
        let empty = frame(frames::DATA, 0, 1, &[]);
        (0..1_000_000).find(|_| !client.try_send(&empty))
    };
    assert!(attacked(&proxy, attack).is_some(), "the connection goes on");
}

#[test]
fn a_head_that_goes_on_and_on_ends_the_connection() {
    let proxy = gateway("");
    let attack = || {
        let mut client = FrameClient::connect(proxy.address(), &[]);
        client.send(frames::HEADERS, 0, 1, &frames::get("/"));
        let field = frames::block(&[("x-a", "b")]);
        let more = frame(frames::CONTINUATION, 0, 1, &field);
        (0..1_000_000).find(|_| !client.try_send(&more))
    };
    assert!(attacked(&proxy, attack).is_some(), "the connection goes on");
}

#[test]
fn a_head_that_stops_in_its_middle_ends_in_time() {
    let proxy = gateway("head_timeout = \"1s\"");
    let mut client = FrameClient::connect(proxy.address(), &[]);
    client.send(frames::HEADERS, 0, 1, &frames::get("/"));
    client.read_to_end();
    // The next one stops in the middle of a frame.
    let mut client = FrameClient::connect(proxy.address(), &[]);
    assert!(client.try_send(&frame(frames::HEADERS, 4, 1, &frames::get("/"))[..20]));
    client.read_to_end();
}

#[test]
fn a_preface_that_stops_ends_in_time() {
    let proxy = gateway("head_timeout = \"1s\"");
    let mut raw = proxy.raw();
    raw.send("PRI * HTTP/2.0\r\n\r\nSM");
    raw.read_to_end().expect("closed in order");
}

#[test]
fn streams_that_are_reset_at_once_end_the_connection() {
    let proxy = gateway("");
    let attack = || {
        let mut client = FrameClient::connect(proxy.address(), &[]);
        (0..100_000_u32).find(|at| {
            let stream = 2 * at + 1;
            let ends = frames::END_STREAM | frames::END_HEADERS;
            let mut both = frame(frames::HEADERS, ends, stream, &frames::get("/"));
            both.extend(frame(frames::RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            !client.try_send(&both)
        })
    };
    assert!(attacked(&proxy, attack).is_some(), "the connection goes on");
}

/// CVE-2025-8671: the gateway itself is made to reset streams, by windows that open by nothing.
#[test]
fn streams_that_the_gateway_must_reset_end_the_connection() {
    let proxy = gateway("");
    let attack = || {
        let mut client = FrameClient::connect(proxy.address(), &[]);
        (0..100_000_u32).find(|at| {
            let stream = 2 * at + 1;
            let ends = frames::END_STREAM | frames::END_HEADERS;
            let mut both = frame(frames::HEADERS, ends, stream, &frames::get("/large"));
            both.extend(frame(frames::WINDOW_UPDATE, 0, stream, &[0; 4]));
            !client.try_send(&both)
        })
    };
    assert!(attacked(&proxy, attack).is_some(), "the connection goes on");
}

/// CVE-2026-49975: fields that cost a byte each, cookies in crumbs among them.
#[test]
fn heads_that_unfold_are_refused() {
    let proxy = gateway("");
    let attack = || {
        let mut client = FrameClient::connect(proxy.address(), &[]);
        for at in 0..20 {
            let mut block = frames::get("/");
            // Field that enters the table, and is then named by a byte.
            block.extend(b"\x40\x06cookie\x03a=b");
            block.extend(std::iter::repeat_n(0xbe, 10_000));
            let stream = 2 * at + 1;
            let ends = frames::END_STREAM | frames::END_HEADERS;
            if !client.try_send(&frame(frames::HEADERS, ends, stream, &block)) {
                break;
            }
        }
        client.end();
        client.read_to_end()
    };
    let told = attacked(&proxy, attack);
    let is_served = |frame: &Frame| frame.kind == frames::HEADERS && frame.payload[0] == 0x88;
    assert!(!told.iter().any(is_served), "{told:?}");
}

/// Responses that nobody takes: by a window that is shut, and by one that opens a byte at a time.
#[test]
fn windows_that_stay_shut_end_their_streams() {
    let proxy = gateway("send_timeout = \"1s\"\nsend_rate = { min = 0 }");
    let opened = attacked(&proxy, || {
        let initial_window = 4;
        let mut client = FrameClient::connect(proxy.address(), &[(initial_window, 0)]);
        for at in 0..100 {
            client.get(2 * at + 1, "/large");
        }
        let (mut opening, are_over) = (client.also(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // The first of them is opened byte by byte meanwhile.
            scope.spawn(|| {
                while !are_over.load(Ordering::Relaxed) {
                    opening.send(frames::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            for _ in 0..100 {
                client.read_until(frames::RST_STREAM);
            }
            are_over.store(true, Ordering::Relaxed);
        });
        client.get(201, "/");
        client.send(frames::WINDOW_UPDATE, 0, 201, &[0, 0, 1, 0]);
        client.response(201).expect("served").1
    });
    assert_eq!(opened, b"hi");
    until("all have left", || proxy.access_lines().len() > 100);
}

#[test]
fn more_streams_than_there_may_be_are_refused() {
    let proxy = gateway("http2 = { max_concurrent_streams = 2 }");
    let mut client = FrameClient::connect(proxy.address(), &[(4, 0)]);
    for stream in [1, 3, 5] {
        client.get(stream, "/large");
    }
    let refused = client.read_until(frames::RST_STREAM);
    assert_eq!(
        (refused.stream, refused.code()),
        (5, frames::REFUSED_STREAM)
    );
}
