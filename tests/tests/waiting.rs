//! Host calls that plugins wait for: whole bodies, calls out, delays. Their worker serves others meanwhile.

use std::time::{Duration, Instant};

use castling_tests::body::{self, Stuff};
use castling_tests::{Proxy, origin, raw_origin, until};
use http::{Request, StatusCode};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.waiter]
    wasm = "{guests}/waiter.wasm"
    grants = { upstreams = ["helper"] }
    limits = { body = "1MiB", calls = 4 }
    MORE

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.helper]
    peers = ["{helper}"]

    [[routes]]
    plugins = ["waiter"]
    upstream = "app"

    [[routes]]
    path = "/plain"
    upstream = "app"
"#;

/// Waiter before an echo; its helper answers what it was sent.
fn waiting(more: &str) -> Proxy {
    Proxy::with_config(&CONFIG.replace("MORE", more))
        .origin("app", origin::echoing())
        .origin("helper", origin::echoing())
        .start()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

#[test]
fn a_body_that_was_read_whole_is_passed_on_with_an_edited_head() {
    let proxy = waiting("");
    let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    for chunked in [false, true] {
        let stuff = Stuff::repeating(&bytes);
        let len = bytes.len() as u64;
        let body = if chunked {
            stuff.chunked(0, len)
        } else {
            stuff.sized(0, len)
        };
        let request = Request::post("/")
            .header("x-body-limit", "500000")
            .body(body);
        let reply = proxy.send(request.expect("a valid request"));
        assert_eq!(reply.status, StatusCode::OK);
        let told = format!("{} {}", bytes.len(), sum(&bytes));
        assert_eq!(reply.header("x-body"), Some(&*told));
        assert!(reply.body == bytes, "the echo differs");
    }
}

#[test]
fn a_body_beyond_the_limit_is_told_and_passed_on_all_the_same() {
    let proxy = waiting("");
    let bytes = vec![b'x'; 3_000_000];
    for limit in ["1000", "100000000"] {
        let request = Request::post("/").header("x-body-limit", limit);
        let reply = proxy.send(
            request
                .body(body::full(bytes.clone()))
                .expect("a valid request"),
        );
        assert_eq!(reply.header("x-body"), Some("too large"), "limit {limit}");
        assert!(reply.body == bytes, "the echo differs");
    }
}

#[test]
fn a_client_that_waits_for_100_continue_is_invited_by_the_read() {
    let proxy = waiting("");
    let mut client = proxy.raw();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nX-Body-Limit: 10\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.read_reply().status, 100);
    let reply = client.send("hello").read_reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    assert_eq!(reply.header("x-body"), Some("5 532"));
}

#[test]
fn a_response_that_was_read_whole_is_passed_on() {
    let proxy = waiting("");
    let bytes = vec![7_u8; 200_000];
    for (limit, told) in [("300000", "200000 1400000"), ("1000", "too large")] {
        let request = Request::post("/").header("x-reply-limit", limit);
        let reply = proxy.send(
            request
                .body(body::full(bytes.clone()))
                .expect("a valid request"),
        );
        assert_eq!(reply.header("x-reply"), Some(told));
        assert!(reply.body == bytes, "the echo differs");
    }
}

#[test]
fn calls_out_go_to_the_granted_upstream_all_at_once() {
    let slow = origin::answering_after(Duration::from_millis(300), |seen| {
        let from = seen.header("x-from").unwrap_or_default().to_owned();
        http::Response::new(body::full(from))
    });
    let proxy = Proxy::with_config(&CONFIG.replace("MORE", ""))
        .origin("app", origin::text("hello"))
        .origin("helper", slow)
        .start();
    let begun = Instant::now();
    let reply = proxy.get_with("/", &[("x-calls", "/a /b?c=d /e")]);
    assert_eq!(
        reply.header("x-results"),
        Some("200:waiter|200:waiter|200:waiter")
    );
    assert!(
        begun.elapsed() < Duration::from_millis(800),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(proxy.origin("helper").requests(), 3);
}

#[test]
fn a_call_has_its_own_time_out_and_more_than_the_limit_are_refused() {
    let proxy = Proxy::with_config(&CONFIG.replace("MORE", ""))
        .origin("app", origin::text("hello"))
        .origin("helper", raw_origin::stalled())
        .start();
    let reply = proxy.get_with("/", &[("x-calls", "/a"), ("x-call-timeout", "100")]);
    let told = reply.header("x-results").unwrap_or_default().to_owned();
    assert!(told.contains("no response in 100ms"), "{told}");
    let reply = proxy.get_with("/", &[("x-calls", "/1 /2 /3 /4 /5")]);
    let told = reply.header("x-results").unwrap_or_default().to_owned();
    assert!(told.contains("limit"), "{told}");
}

#[test]
fn a_client_that_leaves_cancels_what_its_plugin_waits_for() {
    let proxy = Proxy::with_config(&CONFIG.replace("MORE", ""))
        .origin("app", origin::text("hello"))
        .origin("helper", raw_origin::stalled())
        .start();
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Calls: /a\r\nX-Call-Timeout: 60000\r\n\r\n");
    let active = || proxy.status()["workers"][0]["requests_active"].as_u64();
    until("the request is under way", || active() == Some(1));
    client.reset();
    until("the request is given up", || active() == Some(0));
    assert_eq!(proxy.get("/").text(), "hello");
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn others_are_served_while_a_plugin_waits() {
    let proxy = waiting("");
    let mut slow = proxy.raw();
    slow.send("GET / HTTP/1.1\r\nHost: a\r\nX-Delay: 2000\r\n\r\n");
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(proxy.get("/").status, StatusCode::OK);
        assert_eq!(proxy.get("/plain").status, StatusCode::OK);
    }
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(slow.read_reply().status, 200);
}

#[test]
fn calls_that_nothing_grants_are_refused_at_load() {
    let config = CONFIG
        .replace("MORE", "")
        .replace("grants = { upstreams = [\"helper\"] }", "");
    let setup = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .origin("helper", origin::text("hello"));
    let told = setup.check().outcome.expect_refusal().stderr;
    assert!(
        told.contains("waiter.wasm makes calls out, which nothing grants"),
        "{told}"
    );
    assert!(told.contains("castling.toml:4:1:"), "{told}");
}

#[test]
fn what_a_request_leaves_in_memory_is_gone_with_isolation_by_request() {
    for (isolation, seen) in [("call", "yes"), ("request", "no")] {
        let proxy = waiting(&format!("isolation = \"{isolation}\""));
        proxy.get_with("/", &[("x-plant", "1")]);
        for _ in 0..20 {
            assert_eq!(
                proxy.get("/").header("x-planted"),
                Some(seen),
                "{isolation}"
            );
        }
    }
}

#[test]
fn an_instance_is_replaced_after_its_calls() {
    let config = CONFIG.replace("calls = 4", "calls = 4, instance_calls = 9");
    let proxy = Proxy::with_config(&config.replace("MORE", ""))
        .origin("app", origin::text("hello"))
        .origin("helper", origin::text("hello"))
        .start();
    proxy.get_with("/", &[("x-plant", "1")]);
    let planted = |_| proxy.get("/").header("x-planted").map(str::to_owned);
    let seen: Vec<Option<String>> = (0..10).map(planted).collect();
    assert_eq!(seen.first(), Some(&Some("yes".to_owned())));
    assert_eq!(seen.last(), Some(&Some("no".to_owned())));
}

#[test]
fn a_client_that_leaves_its_plugins_trial_does_not_keep_the_plugin_out() {
    let proxy = waiting("quarantine = { traps = 1, within = \"1m\", backoff = \"10ms\" }");
    // Longer than the request's limit: a trap.
    let trap = Request::get("/").header("x-trap", "1");
    let trapped = proxy.send(trap.body(body::empty()).expect("a valid request"));
    assert_eq!(trapped.status, StatusCode::INTERNAL_SERVER_ERROR);
    // The trial call waits, and its client leaves with a reset; a FIN alone would be a half-close.
    until("a trial is let in", || {
        let mut client = proxy.raw();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Delay: 30000\r\n\r\n");
        let is_on_trial = proxy.status()["plugins"][0]["state"] == "trial";
        client.reset();
        is_on_trial
    });
    until("it is back", || proxy.get("/").status == StatusCode::OK);
}

#[test]
fn a_response_that_was_too_large_once_is_not_read_whole_the_second_time() {
    let proxy = waiting("");
    let bytes = vec![b'x'; 10_000];
    let request = Request::post("/")
        .header("x-reply-limit", "1000")
        .header("x-reply-again", "1000");
    let request = request.body(body::full(bytes.clone()));
    let reply = proxy.send(request.expect("a valid request"));
    assert_eq!(reply.header("x-reply"), Some("too large, too large"));
    assert!(reply.body == bytes, "the echo differs");
}

#[test]
fn the_answer_to_head_keeps_its_length_though_its_body_was_read() {
    let proxy = waiting("");
    let mut client = proxy.raw();
    client.send("HEAD /length HTTP/1.1\r\nHost: a\r\nX-Reply-Limit: 1000\r\n\r\n");
    let head = client.read_head().expect("a head");
    assert!(
        !head.to_ascii_lowercase().contains("content-length: 0"),
        "{head}"
    );
    assert!(head.to_ascii_lowercase().contains("x-reply: 0 0"), "{head}");
}

#[test]
fn a_body_of_tiny_chunks_is_held_in_little_more_than_its_length() {
    let proxy = waiting("");
    let before = proxy.workers()[0].resident_kib();
    let mut clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = proxy.raw();
            client.send("POST / HTTP/1.1\r\nHost: a\r\nX-Body-Limit: 1000000\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send("1\r\nx\r\n".repeat(500_000));
            client
        })
        .collect();
    let grown_kib = proxy.workers()[0].resident_kib().saturating_sub(before);
    assert!(grown_kib < 40 * 1024, "{grown_kib} KiB for 2 MB");
    for client in &mut clients {
        client.send("0\r\n\r\n");
        let reply = client.read_reply();
        assert_eq!(reply.header("x-body"), Some("500000 60000000"));
    }
}
