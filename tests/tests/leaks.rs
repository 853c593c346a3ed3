//! After every kind of rudeness, descriptors, connections and requests under way are back where they were.

use castling_tests::body::Stuff;
use castling_tests::{Proxy, RawClient, body, origin, raw_origin, until};
use http::{Response, StatusCode};
use serde_json::Value;

#[test]
fn aborted_requests_leave_nothing_behind() {
    let config = r#"
        [workers]
        count = 2
        core_dumps = true

        [plugins]
        headers = { wasm = "{plugins}/headers.wasm", config = { response = { set = { x-passed = "yes" } } } }

        [listeners.web]
        bind = "{listen}"
        half_close = "0s"

        [upstreams]
        endless.peers = ["{endless}"]
        stalled.peers = ["{stalled}"]
        quick.peers = ["{quick}"]

        [[routes]]
        path = "/endless"
        plugins = ["headers"]
        upstream = "endless"

        [[routes]]
        path = "/stalled"
        upstream = "stalled"

        [[routes]]
        upstream = "quick"
    "#;
    let endless = origin::serving(|_| async { Response::new(Stuff::noise().chunked(0, 1 << 40)) });
    let proxy = Proxy::with_config(config)
        .origin("endless", endless)
        .origin("stalled", raw_origin::stalled())
        .origin("quick", origin::text("quick"))
        .start();
    for _ in 0..8 {
        assert_eq!(proxy.get("/").status, StatusCode::OK);
    }
    until("nothing under way", || active(&proxy.status()) == 0);
    let base = proxy.worker_descriptors();
    let leave: [fn(RawClient); 2] = [drop, RawClient::reset];
    for round in 0..50 {
        // All at once under way, then all gone.
        let clients: Vec<RawClient> = ["/endless", "/stalled", "/endless", "/stalled"]
            .into_iter()
            .map(|path| {
                let mut client = proxy.raw();
                client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
                if path == "/endless" {
                    client.read_head().unwrap();
                }
                client
            })
            .collect();
        clients.into_iter().for_each(leave[round % 2]);
    }
    until("descriptors are back", || {
        proxy.worker_descriptors() <= base
    });
    until("nothing under way", || active(&proxy.status()) == 0);
    assert_eq!(proxy.get("/").text(), "quick");
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_client_that_leaves_frees_its_upstream_connection() {
    let proxy = Proxy::before(raw_origin::stalled());
    let base = proxy.worker_descriptors();
    let mut clients: Vec<RawClient> = (0..20).map(|_| proxy.raw()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    until("all are under way", || {
        proxy.origin("app").connections() == 20
    });
    assert!(proxy.worker_descriptors() >= base + 40);
    clients.into_iter().for_each(RawClient::reset);
    until("descriptors are back", || {
        proxy.worker_descriptors() <= base
    });
}

#[test]
fn requests_do_not_grow_a_worker() {
    let config = r#"
        [workers]
        count = 1

        [plugins.auth]
        wasm = "{plugins}/token_auth.wasm"
        config = { header = "x-token", tokens = ["s3cret"] }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["auth"]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", origin::echoing())
        .start();
    let mut client = proxy.raw();
    let mut requests = |n: usize| {
        for _ in 0..n {
            client.send(
                "POST / HTTP/1.1\r\nHost: a\r\nX-Token: s3cret\r\nContent-Length: 5\r\n\r\nhello",
            );
            assert_eq!(client.read_reply().text(), "hello");
        }
    };
    requests(500);
    let worker = proxy.workers()[0];
    let before = worker.resident_kib();
    requests(5_000);
    let grown_kib = worker.resident_kib().saturating_sub(before);
    assert!(grown_kib < 1024, "{grown_kib} KiB more after 5000 requests");
    let aborted = proxy.post("/", body::full("without a token"));
    assert_eq!(aborted.status, StatusCode::UNAUTHORIZED);
}

/// Requests under way in all workers together.
fn active(status: &Value) -> u64 {
    let workers = status["workers"].as_array().expect("a list of workers");
    workers
        .iter()
        .map(|worker| {
            worker["requests_active"]
                .as_u64()
                .expect("a number of requests under way")
        })
        .sum()
}
