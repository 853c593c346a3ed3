//! Peers that are checked, and what is made of those that are not well.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use castling_tests::h2::{self, Asked};
use castling_tests::tls::Authority;
use castling_tests::{Exposition, Proxy, body, origin, raw_origin, tls_origin, until};
use http::{HeaderMap, Response};

/// A peer whose health is as the test says, and which counts what it is asked.
#[derive(Clone, Default)]
struct Peer(Arc<State>);

#[derive(Default)]
struct State {
    is_ill: AtomicBool,
    checks: AtomicUsize,
    requests: AtomicUsize,
}

impl Peer {
    fn is_ill(&self, is_ill: bool) {
        self.0.is_ill.store(is_ill, SeqCst);
    }

    fn checks(&self) -> usize {
        self.0.checks.load(SeqCst)
    }

    fn requests(&self) -> usize {
        self.0.requests.load(SeqCst)
    }

    fn origin(&self) -> origin::Origin {
        let state = Arc::clone(&self.0);
        origin::answering(move |seen| {
            let is_check = seen.target == "/health";
            let count = if is_check {
                &state.checks
            } else {
                &state.requests
            };
            count.fetch_add(1, SeqCst);
            let is_ill = state.is_ill.load(SeqCst);
            let status = if is_check && is_ill { 503 } else { 200 };
            let response = Response::builder().status(status);
            response.body(body::full("I am well")).expect("a response")
        })
    }
}

fn config(workers: usize, upstream: &str) -> String {
    format!(
        r#"
        [workers]
        count = {workers}

        [listeners.web]
        bind = "{{listen}}"

        {upstream}

        [[routes]]
        upstream = "app"

        [[routes]]
        path = "/metrics"
        metrics = true
    "#
    )
}

const TWO: &str = r#"
    [upstreams.app]
    peers = ["{a}", "{b}"]

    [upstreams.app.check]
    path = "/health"
    interval = "50ms"
    fast_interval = "10ms"
"#;

#[test]
fn a_peer_that_fails_its_checks_gets_no_requests_until_it_passes_them_again() {
    let (a, b) = (Peer::default(), Peer::default());
    let proxy = Proxy::with_config(&config(2, TWO))
        .origin("a", a.origin())
        .origin("b", b.origin())
        .start();
    a.is_ill(true);
    proxy.until_log_has("peer is down");
    let before = a.requests();
    (0..20).for_each(|_| assert_eq!(proxy.get("/").status, 200));
    assert_eq!(a.requests(), before);
    assert_eq!(b.requests() + before, 20 + before);
    a.is_ill(false);
    proxy.until_log_has("peer is up");
    until("a request", || {
        proxy.get("/");
        a.requests() > before
    });
    let metrics = Exposition::parse(&proxy.get("/metrics").text());
    let checks = |result| {
        let labels = [("upstream", "app"), ("result", result)];
        metrics.get("castling_upstream_checks_total", &labels)
    };
    assert!(checks("failed") >= Some(3.0) && checks("passed") >= Some(2.0));
}

#[test]
fn one_worker_makes_the_checks_and_the_next_generation_goes_on() {
    let a = Peer::default();
    let upstream = TWO.replace(r#", "{b}""#, "").replace("50ms", "200ms");
    let config = config(4, &upstream);
    let mut proxy = Proxy::with_config(&config).origin("a", a.origin()).start();
    until("the first checks", || a.checks() >= 2);
    let (begun, before) = (Instant::now(), a.checks());
    proxy
        .reload_with(&config.replace("count = 4", "count = 3"))
        .expect_success();
    until("more checks", || a.checks() >= before + 10);
    // Each is 180 to 220 ms after the one before, whichever worker makes it.
    assert!(begun.elapsed() > Duration::from_millis(9 * 180));
}

#[test]
fn a_peer_that_must_be_checked_first_gets_nothing_before() {
    let (a, b) = (Peer::default(), Peer::default());
    a.is_ill(true);
    let upstream = format!("{TWO} start = \"mandatory\"");
    let proxy = Proxy::with_config(&config(1, &upstream))
        .origin("a", a.origin())
        .origin("b", b.origin())
        .start();
    until("an answer", || proxy.get("/").status == 200);
    until("checks", || a.checks() > 5);
    assert_eq!(a.requests(), 0);
    b.is_ill(true);
    until("nobody is left", || proxy.get("/").status == 503);
    assert_eq!(a.requests(), 0);
}

#[test]
fn what_a_check_expects_is_up_to_the_config() {
    let checks = [
        (r#"kind = "tcp""#, true),
        (r#"statuses = ["5xx"]"#, false),
        (r#"expect_body = "well""#, true),
        (r#"expect_body = "ill""#, false),
        (r#"expect_headers = { content-length = "9" }"#, true),
        (r#"expect_headers = { x-ready = "yes" }"#, false),
        (r#"method = "HEAD""#, true),
        (r#"headers = { x-probe = "1" }"#, true),
    ];
    for (check, is_well) in checks {
        let a = Peer::default();
        let upstream = format!(
            r#"
            [upstreams.app]
            peers = ["{{a}}"]

            [upstreams.app.check]
            interval = "20ms"
            start = "mandatory"
            {check}
        "#
        );
        let proxy = Proxy::with_config(&config(1, &upstream))
            .origin("a", a.origin())
            .start();
        match is_well {
            true => drop(proxy.until_log_has("peer is up")),
            false => drop(proxy.until_log_has("peer is down")),
        }
        let status = if is_well { 200 } else { 503 };
        until(check, || proxy.get("/").status == status);
    }
}

#[test]
fn statuses_that_count_as_failures_eject_a_peer_and_no_more_than_may_be() {
    let bad = || raw_origin::repeating("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    let upstream = r#"
        [upstreams.app]
        peers = ["{a}", "{b}", "{c}"]

        [upstreams.app.passive]
        failures = 2
        statuses = ["5xx"]
        ejection = "1h"
        max_ejection = "1h"
        max_ejected = 0.4
    "#;
    let proxy = Proxy::with_config(&config(2, upstream))
        .origin("a", bad())
        .origin("b", bad())
        .origin("c", origin::text("ok"))
        .start();
    let statuses: Vec<u16> = (0..60).map(|_| proxy.get("/").status.as_u16()).collect();
    // One peer of the two is ejected, by its failures in all workers together; the other may not be.
    let failed = statuses[20..]
        .iter()
        .filter(|status| **status == 500)
        .count();
    assert!((15..=25).contains(&failed), "{statuses:?}");
}

/// Serves gRPC's health checking protocol: the service "shop.Cart" is as the test says, none else is there.
fn calls(is_serving: &Arc<AtomicBool>) -> origin::Origin {
    let is_serving = Arc::clone(is_serving);
    h2::origin(::h2::server::Builder::new(), move |asked: Asked| {
        let is_serving = Arc::clone(&is_serving);
        async move {
            let Asked {
                request,
                mut respond,
                ..
            } = asked;
            let is_check = request.uri().path() == "/grpc.health.v1.Health/Check";
            let mut body = request.into_body();
            let asked_for = body.data().await.and_then(Result::ok).unwrap_or_default();
            let is_known = &asked_for[..] == b"\0\0\0\0\x0b\x0a\x09shop.Cart";
            let response = Response::builder().header("content-type", "application/grpc");
            let mut sending = respond
                .send_response(response.body(()).unwrap(), false)
                .unwrap();
            let status = if is_serving.load(SeqCst) { 1 } else { 2 };
            let answer = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
            let code = if is_check && is_known { "0" } else { "5" };
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", code.parse().unwrap());
            // The checker may have left.
            let _sent = sending.send_data(answer, false);
            let _sent = sending.send_trailers(trailers);
        }
    })
}

#[test]
fn a_service_of_grpc_is_asked_whether_it_serves() {
    let is_serving = Arc::new(AtomicBool::new(true));
    let upstream = |service: &str| {
        format!(
            r#"
            [upstreams.app]
            peers = ["{{a}}"]
            protocol = "http2"
            check = {{ kind = "grpc", service = "{service}", interval = "1s", fast_interval = "20ms", start = "mandatory" }}
        "#
        )
    };
    let proxy = Proxy::with_config(&config(1, &upstream("shop.Cart")))
        .origin("a", calls(&is_serving))
        .start();
    proxy.until_log_has("peer is up");
    is_serving.store(false, SeqCst);
    let line = proxy.until_log_has("peer is down");
    assert!(line.contains("the service's status is 2"), "{line}");
    let proxy = Proxy::with_config(&config(1, &upstream("nobody")))
        .origin("a", calls(&is_serving))
        .start();
    let line = proxy.until_log_has("peer is down");
    assert!(line.contains("grpc-status 5"), "{line}");
}

#[test]
fn a_peer_that_flaps_fills_no_log() {
    let asked = Arc::new(AtomicUsize::new(0));
    let upstream = r#"
        [upstreams.app]
        peers = ["{a}"]

        [upstreams.app.check]
        interval = "10ms"
        rise = 1
        fall = 1
    "#;
    let counted = Arc::clone(&asked);
    let flapping = origin::answering(move |_| {
        let status = [200, 503][counted.fetch_add(1, SeqCst) % 2];
        let response = Response::builder().status(status);
        response.body(body::full("")).expect("a response")
    });
    let begun = Instant::now();
    let proxy = Proxy::with_config(&config(1, upstream))
        .origin("a", flapping)
        .start();
    // With requests the upstream has a peer and has none, in turns.
    until("checks", || {
        proxy.get("/");
        asked.load(SeqCst) > 200
    });
    let log = proxy.log();
    let lines = |texts: [&str; 2]| {
        let is_one = |line: &&str| texts.iter().any(|text| line.contains(text));
        log.lines().filter(is_one).count()
    };
    let of_peer = lines(["peer is down", "peer is up"]);
    let of_upstream = lines(["no peer is available upstream", "peers are available again"]);
    // Two in each ten seconds.
    let most = 2 * (1 + begun.elapsed().as_secs() as usize / 10);
    assert!(
        (2..=most).contains(&of_peer) && of_upstream <= most,
        "{of_peer} and {of_upstream} of {most}: {log}"
    );
}

/// A peer that answers each check with these bytes over and over.
fn flooding(head: &'static str, piece: &'static str) -> origin::Origin {
    raw_origin::scripted(move |connection, _| {
        connection.read_head()?;
        connection.send(head);
        let (mut socket, pieces) = (connection.socket(), piece.repeat(100));
        // Until the other side has had enough.
        while socket.write_all(pieces.as_bytes()).is_ok() {}
        Ok(())
    })
}

#[test]
fn a_check_ends_where_a_peer_sends_without_an_end() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let goes_on = "HTTP/1.1 100 Continue\r\n\r\n";
    for (head, piece, said) in [
        ("", hints, "sent more than 32 interim responses"),
        ("", goes_on, "sent more than 32 interim responses"),
        (chunked, "1\r\na\r\n", "peer is up"),
    ] {
        let upstream = r#"
            [upstreams.app]
            peers = ["{a}"]

            [upstreams.app.check]
            interval = "1h"
            timeout = "1h"
            fast_interval = "10ms"
            start = "mandatory"
        "#;
        let proxy = Proxy::with_config(&config(1, upstream))
            .origin("a", flooding(head, piece))
            .start();
        // Nothing but the bound ends such a check: its time is an hour.
        proxy.until_log_has(said);
    }
}

#[test]
fn a_check_believes_whom_requests_believe() {
    let authority = Authority::new("a");
    let upstream = |name: &str| {
        format!(
            r#"
            [upstreams.app]
            peers = ["{{a}}"]
            tls = {{ ca = "ca.pem", server_name = "{name}" }}
            check = {{ kind = "tcp", interval = "20ms", start = "mandatory" }}
        "#
        )
    };
    for (name, said) in [("app.test", "peer is up"), ("other.test", "peer is down")] {
        let pem = authority.certify(&["app.test"]);
        let (origin, _) = tls_origin::echoing(tls_origin::server(&pem, rustls::ALL_VERSIONS));
        let proxy = Proxy::with_config(&config(1, &upstream(name)))
            .file("ca.pem", authority.pem())
            .origin("a", origin)
            .start();
        proxy.until_log_has(said);
    }
}
