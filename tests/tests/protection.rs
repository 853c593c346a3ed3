//! Protection of upstreams: circuit breaker, adaptive concurrency, hedges, mirrors, limits of responses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use castling_tests::load::Load;
use castling_tests::origin::Origin;
use castling_tests::{Exposition, Proxy, RawClient, Setup, body, origin, raw_origin, until};
use http::{Request, Response};
use rustix::process::Signal;
use tokio::sync::Mutex;

fn gateway(peers: &str, keys: &str, route: &str) -> Setup {
    Proxy::with_config(&format!(
        r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{{listen}}"

        [[routes]]
        upstream = "app"
        {route}

        [upstreams.app]
        peers = [{peers}]
        {keys}
        "#
    ))
}

fn metric(proxy: &Proxy, name: &str, labels: &[(&str, &str)]) -> f64 {
    Exposition::parse(&proxy.command("metrics", &[]).stdout).sum(name, labels)
}

fn ask(proxy: &Proxy) -> RawClient {
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client
}

#[test]
fn requests_beyond_the_breaker_are_answered_503_at_once_and_blame_nobody() {
    let first_two_stall = raw_origin::scripted(|connection, number| {
        connection.read_head()?;
        if number < 2 {
            return connection.read_to_end().map(drop);
        }
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        Ok(())
    });
    let proxy = gateway("\"{a}\"", "breaker = { active = 2 }", "")
        .origin("a", first_two_stall)
        .start();
    let held: Vec<RawClient> = (0..2).map(|_| ask(&proxy)).collect();
    until("both are with the peer", || {
        proxy.origin("a").connections() == 2
    });
    let refused = proxy.get("/");
    assert_eq!(
        (refused.status.as_u16(), refused.header("retry-after")),
        (503, Some("1"))
    );
    let limit = [("upstream", "app"), ("limit", "active")];
    assert_eq!(
        metric(&proxy, "castling_upstream_overflows_total", &limit),
        1.0
    );
    assert_eq!(
        metric(
            &proxy,
            "castling_upstream_tries_total",
            &[("upstream", "app")]
        ),
        0.0
    );
    held.into_iter().for_each(RawClient::reset);
    until("those that have left make room", || {
        proxy.get("/").status == 200
    });
}

#[test]
fn the_breaker_counts_what_all_workers_have() {
    let stalls_three = raw_origin::scripted(|connection, number| {
        connection.read_head()?;
        if number < 3 {
            return connection.read_to_end().map(drop);
        }
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        Ok(())
    });
    let config = r#"
        [workers]
        count = 3

        [listeners.web]
        bind = "{listen}"
        accept = "shared"

        [upstreams.app]
        peers = ["{a}"]
        breaker = { active = 3 }

        [[routes]]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config).origin("a", stalls_three).start();
    let held: Vec<RawClient> = (0..3).map(|_| ask(&proxy)).collect();
    // Requests are shared out as the kernel likes: with an equal part for each worker, two at one would be too many.
    until("all three are with the peer", || {
        proxy.origin("a").connections() == 3
    });
    for _ in 0..12 {
        assert_eq!(proxy.get("/").status, 503);
    }
    // Requests of a worker that drains count, too.
    proxy.reload().expect_success();
    assert_eq!(proxy.get("/").status, 503);
    held.into_iter().for_each(RawClient::reset);
    until("those that have left make room", || {
        proxy.get("/").status == 200
    });
}

#[test]
fn connections_have_a_limit_that_idle_ones_make_room_under() {
    let proxy = gateway("\"{a}\", \"{b}\"", "breaker = { connections = 1 }", "")
        .origin("a", origin::text("a"))
        .origin("b", origin::text("b"))
        .start();
    let tally = proxy.tally("/", 6);
    assert_eq!((tally["a"], tally["b"]), (3, 3));
    assert!(proxy.origin("a").connections() >= 3);
    let stalled = gateway("\"{a}\"", "breaker = { connections = 1 }", "")
        .origin("a", raw_origin::stalled())
        .start();
    let held = ask(&stalled);
    until("it is with the peer", || {
        stalled.origin("a").connections() == 1
    });
    assert_eq!(stalled.get("/").status, 503);
    drop(held);
}

#[test]
fn retries_have_a_limit() {
    let refusal = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let keys = "breaker = { retries = 0 }\nretry = { on = [\"503\"] }";
    let proxy = gateway("\"{a}\", \"{b}\"", keys, "")
        .origin("a", raw_origin::repeating(refusal))
        .origin("b", raw_origin::repeating(refusal))
        .start();
    assert_eq!(proxy.get("/").status, 503);
    let limit = [("upstream", "app"), ("limit", "retries")];
    assert_eq!(
        metric(&proxy, "castling_upstream_overflows_total", &limit),
        1.0
    );
    assert_eq!(
        metric(
            &proxy,
            "castling_upstream_retries_total",
            &[("upstream", "app")]
        ),
        0.0
    );
}

#[test]
fn requests_beyond_the_learnt_limit_wait_for_their_time_and_are_refused() {
    let keys = "concurrency = { min = 1, max = 1, queue_time = \"50ms\" }";
    let proxy = gateway("\"{a}\"", keys, "")
        .origin("a", raw_origin::stalled())
        .start();
    let held = ask(&proxy);
    until("it is with the peer", || {
        proxy.origin("a").connections() == 1
    });
    let refused = proxy.get("/");
    assert_eq!(
        (refused.status.as_u16(), refused.header("retry-after")),
        (503, Some("1"))
    );
    let limit = [("upstream", "app"), ("limit", "concurrency")];
    assert_eq!(
        metric(&proxy, "castling_upstream_overflows_total", &limit),
        1.0
    );
    assert_eq!(
        metric(
            &proxy,
            "castling_upstream_concurrency_limit",
            &[("upstream", "app")]
        ),
        1.0
    );
    drop(held);
}

#[test]
fn what_is_learnt_outlives_the_worker() {
    // Requests one at a time, so that fewer under way take less time each.
    let turn = Arc::new(Mutex::new(()));
    let one_by_one = origin::serving(move |_| {
        let turn = Arc::clone(&turn);
        async move {
            let _turn = turn.lock().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
            Response::new(body::full("ok"))
        }
    });
    let keys = "concurrency = { min = 2, max = 100, initial = 6, queue_time = \"30s\" }";
    let mut proxy = gateway("\"{a}\"", keys, "").origin("a", one_by_one).start();
    let limit = |proxy: &Proxy| {
        let labels = [("upstream", "app")];
        metric(proxy, "castling_upstream_concurrency_limit", &labels)
    };
    assert_eq!(limit(&proxy), 6.0);
    let load = Load {
        address: proxy.address(),
        clients: 8,
        requests_per_connection: 1000,
        request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        bodies: vec!["ok".to_owned()],
    };
    let running = load.start();
    until("the limit has come down", || limit(&proxy) < 6.0);
    assert_eq!(running.stop().failures, [""; 0]);
    let learnt = limit(&proxy);
    assert!(learnt < 6.0);

    let mut before = proxy.until_workers(1);
    let mut is_another = |proxy: &Proxy, how: &str| {
        until(how, || !before[0].is_alive());
        let after = proxy.until_workers(1);
        assert_ne!(before, after);
        assert_eq!(proxy.get("/").status, 200);
        assert_eq!(limit(proxy), learnt, "{how}");
        before = after;
    };
    proxy.reload().expect_success();
    is_another(&proxy, "the old generation has ended");
    proxy.workers()[0].signal(Signal::KILL);
    is_another(&proxy, "the worker is killed");
    proxy.upgrade(&[]).expect_success();
    is_another(&proxy, "the old master's worker has ended");
}

#[test]
fn one_that_waits_gets_its_turn() {
    let keys = "concurrency = { min = 1, max = 1, queue_time = \"30s\" }";
    let slow = origin::answering_after(Duration::from_millis(20), |_| {
        Response::new(body::full("ok"))
    });
    let proxy = gateway("\"{a}\"", keys, "").origin("a", slow).start();
    let mut clients: Vec<RawClient> = (0..4).map(|_| ask(&proxy)).collect();
    for client in &mut clients {
        assert_eq!(client.read_reply().status, 200);
    }
    assert_eq!(proxy.origin("a").connections(), 1);
}

#[test]
fn a_slow_peer_is_hedged_and_the_first_response_taken() {
    let keys = "retry = { hedge = { after = \"50ms\" }, budget = \"off\" }";
    let proxy = gateway("\"{a}\", \"{b}\"", keys, "")
        .origin("a", raw_origin::stalled())
        .origin("b", origin::text("ok"))
        .start();
    assert_eq!(proxy.tally("/", 4)["ok"], 4);
    let upstream = [("upstream", "app")];
    assert_eq!(
        metric(&proxy, "castling_upstream_hedges_total", &upstream),
        2.0
    );
    assert_eq!(
        metric(&proxy, "castling_upstream_hedges_won_total", &upstream),
        2.0
    );
    // The one that was cut is not blamed: it gets its share on.
    let cancelled = [("upstream", "app"), ("outcome", "cancelled")];
    assert_eq!(
        metric(&proxy, "castling_upstream_tries_total", &cancelled),
        2.0
    );
}

#[test]
fn a_hedge_fails_and_the_first_still_answers() {
    let slow = || {
        origin::answering_after(Duration::from_millis(300), |_| {
            Response::new(body::full("slow"))
        })
    };
    let breaking = raw_origin::scripted(|connection, _| connection.read_head().map(drop));
    let keys = "retry = { hedge = { after = \"50ms\" }, budget = \"off\" }";
    let proxy = gateway("\"{a}\", \"{b}\"", keys, "")
        .origin("a", slow())
        .origin("b", breaking)
        .start();
    let tally = proxy.tally("/", 3);
    assert_eq!(tally["slow"], 3);
}

#[test]
fn a_hedge_does_not_wait_for_a_peer_that_is_full() {
    let slow = origin::answering_after(Duration::from_millis(100), |_| {
        Response::new(body::full("slow"))
    });
    let keys = "retry = { hedge = { after = \"20ms\" } }\nqueue = { size = 10, timeout = \"5s\" }";
    let peers = r#""{a}", { address = "{b}", max_active = 1 }"#;
    let proxy = gateway(peers, keys, "")
        .origin("a", slow)
        .origin("b", raw_origin::stalled())
        .start();
    // Requests with a body are not hedged: one of the two stays at `b`.
    let mut held: Vec<RawClient> = (0..2).map(|_| proxy.raw()).collect();
    for client in &mut held {
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    }
    until("one is with each", || proxy.origin("b").connections() == 1);
    assert_eq!(proxy.tally("/", 3)["slow"], 3);
    let late = [("upstream", "app"), ("limit", "queue_timeout")];
    assert_eq!(
        metric(&proxy, "castling_upstream_overflows_total", &late),
        0.0
    );
    assert_eq!(metric(&proxy, "castling_upstream_hedges_total", &[]), 0.0);
}

#[test]
fn requests_with_bodies_are_not_hedged() {
    let slow = || {
        origin::answering_after(Duration::from_millis(200), |_| {
            Response::new(body::full("slow"))
        })
    };
    let keys = "retry = { hedge = { after = \"20ms\" } }";
    let proxy = gateway("\"{a}\", \"{b}\"", keys, "")
        .origin("a", slow())
        .origin("b", slow())
        .start();
    let request = Request::put("/").body(body::full("x")).expect("a request");
    assert_eq!(proxy.send(request).text(), "slow");
    assert_eq!(proxy.post("/", body::empty()).text(), "slow");
    assert_eq!(metric(&proxy, "castling_upstream_hedges_total", &[]), 0.0);
}

fn mirrored(route: &str, shadow: Origin) -> Proxy {
    Proxy::with_config(&format!(
        r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{{listen}}"

        [upstreams.app]
        peers = ["{{app}}"]

        [upstreams.shadow]
        peers = ["{{shadow}}"]

        [[routes]]
        upstream = "app"
        {route}
        "#
    ))
    .origin(
        "app",
        origin::answering(|seen| Response::new(body::full(seen.body.len().to_string()))),
    )
    .origin("shadow", shadow)
    .start()
}

fn copies(proxy: &Proxy, outcome: &str) -> f64 {
    let labels = [("upstream", "shadow"), ("outcome", outcome)];
    metric(proxy, "castling_mirrored_requests_total", &labels)
}

#[test]
fn a_share_of_requests_goes_to_the_mirror_with_their_bodies() {
    let proxy = mirrored(
        "mirror = { upstream = \"shadow\", share = 0.25 }",
        origin::text("unseen"),
    );
    for _ in 0..8 {
        let reply = proxy.post("/x?y=1", body::full("12345"));
        assert_eq!(reply.text(), "5");
    }
    until("copies have come", || copies(&proxy, "responded") == 2.0);
    let seen = proxy.origin("shadow").last();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str(), &seen.body[..]),
        ("POST", "/x?y=1", &b"12345"[..])
    );
    assert_eq!(proxy.origin("shadow").requests(), 2);
}

#[test]
fn nobody_waits_for_a_mirror_that_never_answers_or_is_not_there() {
    let proxy = mirrored(
        "mirror = { upstream = \"shadow\", max_active = 2 }",
        raw_origin::stalled(),
    );
    for _ in 0..5 {
        assert_eq!(proxy.get("/").text(), "0");
    }
    until("the limit is met", || copies(&proxy, "over_limit") == 3.0);
    let broken = mirrored("mirror = \"shadow\"", raw_origin::scripted(|_, _| Ok(())));
    assert_eq!(broken.get("/").text(), "0");
    until("it has failed", || copies(&broken, "failed") == 1.0);
    let large = mirrored("mirror = \"shadow\"", origin::text("ok"));
    assert_eq!(
        large.post("/", body::full(vec![b'x'; 100_000])).text(),
        "100000"
    );
    until("it is skipped", || copies(&large, "skipped") == 1.0);
}

#[test]
fn responses_that_are_too_large_are_refused_or_cut() {
    let proxy = gateway("\"{a}\"", "max_response = \"1KiB\"", "")
        .origin(
            "a",
            origin::answering(|seen| {
                let bytes = seen.target.trim_start_matches('/').parse().unwrap_or(0);
                Response::new(body::full(vec![b'x'; bytes]))
            }),
        )
        .start();
    assert_eq!(proxy.get("/1024").body.len(), 1024);
    assert_eq!(proxy.get("/1025").status, 502);
    proxy.until_log_has("sent a body longer than max_response of 1024 bytes");
    let chunk = "400\r\n".to_owned() + &"x".repeat(0x400) + "\r\n";
    let chunked =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    let proxy = gateway("\"{a}\"", "max_response = \"1KiB\"", "")
        .origin("a", raw_origin::repeating(chunked))
        .start();
    // A response that has not begun is replaced, one that has is cut.
    let reply = ask(&proxy).try_read_reply();
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status == 502));
    proxy.until_log_has("sent a body longer than max_response of 1024 bytes");
}

#[test]
fn a_response_comes_no_faster_than_its_rate() {
    let proxy = gateway(
        "\"{a}\"",
        "response_rate = \"1MiB\"",
        "response_rate = \"200KiB\"",
    )
    .origin(
        "a",
        origin::answering(|_| Response::new(body::full(vec![b'x'; 300 << 10]))),
    )
    .start();
    let began = Instant::now();
    assert_eq!(proxy.get("/").body.len(), 300 << 10);
    assert!(
        began.elapsed() >= Duration::from_millis(800),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn protection_that_has_no_meaning_is_refused_with_its_place() {
    let refused = |keys: &str, route: &str, error: &str| {
        gateway("\"127.0.0.1:1\"", keys, route)
            .check()
            .expect_error(error);
    };
    refused(
        "breaker = { active = 0 }",
        "",
        ": active 0: expected 1 to 1000000",
    );
    refused(
        "concurrency = { min = 10, max = 5 }",
        "",
        ": max 5: expected no less than `min`",
    );
    refused(
        "concurrency = { initial = 5 }",
        "",
        ": initial 5: expected `min` to `max`",
    );
    refused(
        "concurrency = { tolerance = 0.5 }",
        "",
        ": tolerance 0.5: expected 1 to 10",
    );
    refused(
        "tries = 1\nretry = { hedge = { after = \"1s\" } }",
        "",
        ": hedge with tries = 1 has no effect",
    );
    refused(
        "retry = { hedge = { max = 2 } }",
        "",
        ": missing key \"after\"",
    );
    refused(
        "",
        "mirror = { upstream = \"app\", share = 0 }",
        ": share 0: expected more than 0",
    );
    refused("", "mirror = \"nobody\"", "nobody");
}

#[test]
fn check_tells_what_an_upstream_is_held_to() {
    let keys = "breaker = { active = 7 }\nconcurrency = { max = 50 }\nretry = { on = [\"connect\", \"5xx\"] }";
    let checked = gateway(
        "\"127.0.0.1:1\"",
        keys,
        "mirror = { upstream = \"app\", share = 0.5 }",
    )
    .check();
    let said = checked.outcome.stdout;
    for line in [
        "tries 3, again upon connect, 5xx: 0.15 of the requests, or 3 a second",
        "breaker: active 7",
        "concurrency: 10 to 50, others wait 0ns",
        "mirror: app, 0.5 of the requests",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}
