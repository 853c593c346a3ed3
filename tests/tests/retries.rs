//! `[upstreams.NAME.retry]`: what is tried again, how often, and whose response the client gets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use castling_tests::origin::Origin;
use castling_tests::{Exposition, Proxy, Reply, Setup, body, origin, raw_origin};
use http::{Request, Response};

/// A gateway before the peers `a` and `b`.
fn gateway(retry: &str) -> Setup {
    before(r#""{a}", "{b}""#, retry)
}

fn before(peers: &str, keys: &str) -> Setup {
    Proxy::with_config(&format!(
        r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{{listen}}"

        [upstreams.app]
        peers = [{peers}]
        {keys}

        [[routes]]
        upstream = "app"
        "#
    ))
}

const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

fn refusing() -> Origin {
    raw_origin::repeating(REFUSAL)
}

/// Reads a request and ends the connection without an answer.
fn breaking() -> Origin {
    raw_origin::scripted(|connection, _| connection.read_head().map(drop))
}

fn send(proxy: &Proxy, method: &str, headers: &[(&str, &str)]) -> Reply {
    let request = Request::builder().method(method).uri("/");
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    proxy.send(request.body(body::empty()).expect("a valid request"))
}

/// How often each status was the answer to so many requests.
fn statuses(proxy: &Proxy, method: &str, headers: &[(&str, &str)], n: usize) -> (usize, usize) {
    let all: Vec<u16> = (0..n)
        .map(|_| send(proxy, method, headers).status.as_u16())
        .collect();
    let count = |status| all.iter().filter(|it| **it == status).count();
    assert_eq!(count(200) + count(503), n, "{all:?}");
    (count(200), count(503))
}

fn metric(proxy: &Proxy, name: &str) -> f64 {
    let text = proxy.command("metrics", &[]).stdout;
    Exposition::parse(&text).sum(name, &[("upstream", "app")])
}

#[test]
fn a_chosen_status_sends_the_request_to_another_peer() {
    let proxy = gateway("retry = { on = [\"connect\", \"503\"], budget = \"off\" }")
        .origin("a", refusing())
        .origin("b", origin::text("ok"))
        .start();
    assert_eq!(statuses(&proxy, "GET", &[], 6), (6, 0));
    assert_eq!(metric(&proxy, "castling_upstream_retries_total"), 3.0);
    // A request that may have been worked on is not sent twice, unless the client says that it may be.
    assert_eq!(statuses(&proxy, "POST", &[], 6), (3, 3));
    let key = [("idempotency-key", "\"1\"")];
    assert_eq!(statuses(&proxy, "POST", &key, 6), (6, 0));
}

#[test]
fn other_methods_are_sent_again_where_the_config_says_so() {
    let proxy = gateway("retry = { on = [\"5xx\"], non_idempotent = true, budget = \"off\" }")
        .origin("a", refusing())
        .origin("b", origin::text("ok"))
        .start();
    assert_eq!(statuses(&proxy, "POST", &[], 6), (6, 0));
}

#[test]
fn a_status_that_is_not_chosen_is_the_clients() {
    let proxy = gateway("retry = { on = [\"502\", \"429\"] }")
        .origin("a", refusing())
        .origin("b", origin::text("ok"))
        .start();
    assert_eq!(statuses(&proxy, "GET", &[], 6), (3, 3));
}

#[test]
fn failures_that_are_not_chosen_are_the_clients() {
    let proxy = gateway("retry = { on = [\"connect\"] }")
        .origin("a", breaking())
        .origin("b", origin::text("ok"))
        .start();
    let statuses: Vec<u16> = (0..2).map(|_| proxy.get("/").status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|it| **it == 502).count(), 1);
    let proxy = gateway("retry = { on = [\"reset\"] }")
        .origin("a", breaking())
        .origin("b", origin::text("ok"))
        .start();
    assert_eq!(proxy.tally("/", 4)["ok"], 4);
}

#[test]
fn the_response_of_the_last_try_is_the_clients() {
    let other = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nX-Of: b\r\n\r\nfull";
    let proxy = gateway("retry = { on = [\"503\"], budget = \"off\" }")
        .origin("a", refusing())
        .origin("b", raw_origin::repeating(other))
        .start();
    let mut texts: Vec<String> = (0..2)
        .map(|_| {
            let reply = proxy.get("/");
            assert_eq!(reply.status, 503);
            assert_eq!(reply.header("x-of").is_some(), reply.text() == "full");
            reply.text()
        })
        .collect();
    texts.sort();
    assert_eq!(texts, ["busy", "full"]);
    assert_eq!(metric(&proxy, "castling_upstream_retries_total"), 2.0);
}

#[test]
fn a_response_that_is_refused_costs_no_connection() {
    let proxy = gateway("retry = { on = [\"503\"], budget = \"off\" }")
        .origin("a", refusing())
        .origin("b", origin::text("ok"))
        .start();
    assert_eq!(statuses(&proxy, "GET", &[], 20), (20, 0));
    assert_eq!(proxy.origin("a").connections(), 1);
}

#[test]
fn a_body_that_is_refused_and_never_ends_is_given_up() {
    let endless = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1000\r\n\r\nbusy";
    let proxy = gateway("retry = { on = [\"503\"], budget = \"off\" }")
        .origin("a", raw_origin::closing(endless))
        .origin("b", origin::text("ok"))
        .start();
    assert_eq!(proxy.tally("/", 4)["ok"], 4);
}

/// Answers 503 twice, then 200, on any connection. `field` is one of the refusals.
fn recovering(field: &'static str) -> Origin {
    let seen = AtomicUsize::new(0);
    raw_origin::scripted(move |connection, _| {
        loop {
            connection.read_head()?;
            match seen.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => connection.send(format!(
                    "HTTP/1.1 503 Service Unavailable\r\n{field}Content-Length: 0\r\n\r\n"
                )),
                _ => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            };
        }
    })
}

#[test]
fn the_only_peer_is_tried_again_where_the_config_says_so() {
    let start = |keys| {
        before(
            "\"{a}\"",
            &format!("retry = {{ on = [\"503\"], budget = \"off\"{keys} }}"),
        )
        .origin("a", recovering(""))
        .start()
    };
    assert_eq!(start("").get("/").status, 503);
    assert_eq!(start(", same_peer = true").get("/").text(), "ok");
}

#[test]
fn a_peers_retry_after_is_waited_for_no_longer_than_the_longest_backoff() {
    let keys = "retry = { on = [\"503\"], same_peer = true, backoff = { base = \"0s\", max = \"300ms\" } }";
    let proxy = before("\"{a}\"", keys)
        .origin("a", recovering("Retry-After: 3600\r\n"))
        .start();
    let began = Instant::now();
    assert_eq!(proxy.get("/").text(), "ok");
    assert!(began.elapsed() >= Duration::from_millis(600));
}

#[test]
fn a_try_that_takes_too_long_is_followed_by_another() {
    let proxy = gateway("retry = { try_timeout = \"100ms\", budget = \"off\" }")
        .origin("a", raw_origin::stalled())
        .origin("b", origin::text("ok"))
        .start();
    assert_eq!(proxy.tally("/", 2)["ok"], 2);
}

#[test]
fn a_client_that_sends_slowly_takes_no_peers_time() {
    let proxy = gateway("retry = { try_timeout = \"200ms\", budget = \"off\" }")
        .origin("a", origin::text("ok"))
        .origin("b", origin::text("ok"))
        .start();
    let mut client = proxy.raw();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    // Four times as long as a try has.
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(100));
        client.send("x");
    }
    assert_eq!(client.read_reply().status, 200);
    assert_eq!(metric(&proxy, "castling_upstream_retries_total"), 0.0);
}

#[test]
fn all_tries_together_have_an_end() {
    let proxy = gateway("retry = { timeout = \"150ms\" }")
        .origin("a", raw_origin::stalled())
        .origin("b", raw_origin::stalled())
        .start();
    assert_eq!(proxy.get("/").status, 504);
    proxy.until_log_has("no response came in the 150ms of all tries");
    // Nor does a body that never ends put it off.
    let mut client = proxy.raw();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx");
    assert_eq!(client.read_reply().status, 504);
}

/// Reads a request with a body of this length and ends the connection without an answer.
fn breaking_after(body_bytes: usize) -> Origin {
    raw_origin::scripted(move |connection, _| {
        connection.read_head()?;
        connection.read_exact(body_bytes).map(drop)
    })
}

#[test]
fn a_body_is_sent_again_as_far_as_it_is_buffered() {
    const BYTES: usize = 100 << 10;
    let put = |retry: &str| {
        let proxy = gateway(retry)
            .origin("a", breaking_after(BYTES))
            .origin(
                "b",
                origin::answering(|seen| Response::new(body::full(seen.body.len().to_string()))),
            )
            .start();
        let mut replies: Vec<String> = (0..2)
            .map(|_| {
                let request = Request::put("/").body(body::full(vec![b'x'; BYTES]));
                proxy.send(request.expect("a valid request")).text()
            })
            .collect();
        replies.sort();
        replies
    };
    let sent = BYTES.to_string();
    assert_eq!(put(""), [sent.as_str(), "502 Bad Gateway\n"]);
    assert_eq!(put("retry = { buffer = \"128KiB\" }"), [sent.as_str(); 2]);
    assert_eq!(
        put("retry = { buffer = 0 }"),
        [sent.as_str(), "502 Bad Gateway\n"]
    );
}

#[test]
fn a_budget_that_is_used_up_refuses_retries_and_tells() {
    let start = |budget: &str| {
        gateway(&format!("retry = {{ on = [\"503\"], budget = {budget} }}"))
            .origin("a", refusing())
            .origin("b", origin::text("ok"))
            .start()
    };
    let none = start("{ ratio = 0, min = 0 }");
    assert_eq!(statuses(&none, "GET", &[], 10), (5, 5));
    assert_eq!(
        metric(&none, "castling_upstream_retries_refused_total"),
        5.0
    );
    assert_eq!(metric(&none, "castling_upstream_retries_total"), 0.0);
    // A share of 1: each request may be tried twice.
    let all = start("{ ratio = 1, min = 0 }");
    assert_eq!(statuses(&all, "GET", &[], 10), (10, 0));
}

#[test]
fn an_outage_of_all_peers_is_not_amplified() {
    const REQUESTS: usize = 1000;
    let proxy = before(r#""{a}", "{b}", "{c}""#, "retry = { on = [\"503\"] }")
        .origin("a", refusing())
        .origin("b", refusing())
        .origin("c", refusing())
        .start();
    for _ in 0..REQUESTS / 100 {
        let mut client = proxy.raw();
        for _ in 0..100 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.read_reply().status, 503);
        }
    }
    let retries = metric(&proxy, "castling_upstream_retries_total");
    // Retries of the minimum, 3 a second for 10 s, and a share of 0.15, as exactly as a second is told from the next.
    assert!(
        (30.0..=30.0 + 0.17 * REQUESTS as f64).contains(&retries),
        "{retries}"
    );
    assert!(metric(&proxy, "castling_upstream_retries_refused_total") > 700.0);
}

#[test]
fn what_has_no_effect_or_no_meaning_is_refused_with_its_place() {
    let refused = |keys: &str, error: &str| {
        before("\"127.0.0.1:1\"", keys).check().expect_error(error);
    };
    refused(
        "retry = { on = [\"404x\"] }",
        "castling.toml:9:17: on \"404x\": expected \"connect\", \"reset\", \"timeout\", \"invalid_header\" or statuses of 400 to 599",
    );
    refused(
        "tries = 1\nretry = { on = [\"503\"] }",
        ": on with tries = 1 has no effect: expected more tries",
    );
    refused(
        "retry = { timeout = \"1s\", try_timeout = \"2s\" }",
        ": try_timeout \"2s\": expected less than `timeout`, which is for all tries",
    );
    refused(
        "retry = { on = [\"connect\"], non_idempotent = true }",
        ": non_idempotent has no effect with on = [\"connect\"]",
    );
    refused(
        "retry = { backoff = { base = \"2s\", max = \"1s\" } }",
        ": base \"2s\": expected no more than `max`",
    );
    refused(
        "retry = { budget = { ratio = 11 } }",
        ": ratio 11: expected 0 to 10",
    );
    refused(
        "retry = { budget = \"of\" }",
        ": budget \"of\": expected \"off\"",
    );
}
