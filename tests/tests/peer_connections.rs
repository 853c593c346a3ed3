//! Connections to peers: how long one is used and for how many requests, where it comes from, and how many are open.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use castling_tests::origin::Origin;
use castling_tests::{Proxy, Setup, UnixBridge, h2, origin, raw_origin, until};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]
    SETTINGS

    [[routes]]
    upstream = "app"
"#;

fn gateway(settings: &str, origin: Origin) -> Setup {
    Proxy::with_config(&CONFIG.replace("SETTINGS", settings)).origin("app", origin)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Makes so many requests, one after the other.
fn requests(proxy: &Proxy, n: usize) {
    let mut client = proxy.raw();
    for _ in 0..n {
        assert_eq!(client.send(GET).read_reply().status, 200);
    }
}

fn http2_origin() -> Origin {
    h2::origin(::h2::server::Builder::new(), |asked| async {
        h2::answer(asked.respond, "ok");
    })
}

#[test]
fn a_connection_takes_so_many_requests() {
    for (settings, origin) in [
        ("", origin::text("ok")),
        ("protocol = 'http2'", http2_origin()),
    ] {
        let settings = format!("keepalive.max_requests = 3\n{settings}");
        let proxy = gateway(&settings, origin).start();
        requests(&proxy, 9);
        assert_eq!(proxy.origin("app").connections(), 3, "{settings}");
        requests(&proxy, 1);
        assert_eq!(proxy.origin("app").connections(), 4, "{settings}");
    }
}

#[test]
fn a_connection_that_has_come_of_age_takes_no_more() {
    // Each is too old as soon as there is a time between two requests.
    let proxy = gateway("keepalive.max_age = '1ms'", origin::text("ok")).start();
    until("another connection", || {
        requests(&proxy, 2);
        proxy.origin("app").connections() > 1
    });
    // Ages of HTTP/2's connections are looked at from time to time.
    let settings = "keepalive.max_age = '1ms'\nprotocol = 'http2'";
    let proxy = gateway(settings, http2_origin()).start();
    until("another connection", || {
        requests(&proxy, 1);
        proxy.origin("app").connections() > 1
    });
}

#[test]
fn connections_come_from_the_address_that_is_said() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let clients = Arc::clone(&seen);
    let origin = raw_origin::scripted(move |connection, _| {
        let from = connection.socket().peer_addr().map_err(|e| e.to_string())?;
        clients.lock().unwrap().push(from);
        connection.read_head()?;
        connection.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        Ok(())
    });
    let settings = "source_address = ['127.0.0.77', '::1']\ntcp_keepalive = { idle = '60s' }";
    let proxy = gateway(settings, origin).start();
    requests(&proxy, 3);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    for from in &*seen {
        assert_eq!(from.ip(), Ipv4Addr::new(127, 0, 0, 77));
    }
}

#[test]
fn an_address_that_is_not_of_this_host_is_told() {
    // TEST-NET-1 (RFC 5737).
    let mut proxy = gateway("source_address = '192.0.2.9'", origin::text("ok")).start();
    assert_eq!(proxy.raw().send(GET).read_reply().status, 503);
    let line = proxy.until_log_has("from 192.0.2.9");
    let peer = proxy.origin("app").address().to_string();
    assert!(
        line.contains(&peer) && line.contains("upstream app"),
        "{line}"
    );
    let metrics = proxy.command("metrics", &[]).stdout;
    let tries = r#"castling_upstream_tries_total{upstream="app",outcome="cancelled"} 1"#;
    assert!(metrics.contains(tries), "no failure of the peer: {metrics}");
    // The state of a peer stays over a reload.
    proxy
        .reload_with(&CONFIG.replace("SETTINGS", ""))
        .expect_success();
    requests(&proxy, 1);
    assert!(
        !proxy.log().contains("no peer is available"),
        "{}",
        proxy.log()
    );
}

/// Value of a series of the upstream's.
fn series(proxy: &Proxy, name: &str) -> usize {
    let metrics = proxy.command("metrics", &[]).stdout;
    let series = format!("castling_upstream_connections_{name}{{upstream=\"app\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
    line.and_then(|count| count.parse().ok())
        .unwrap_or_else(|| panic!("no {series} in\n{metrics}"))
}

#[test]
fn open_connections_are_counted() {
    let proxy = gateway("", origin::text("ok")).start();
    requests(&proxy, 3);
    assert_eq!(series(&proxy, "active"), 1);
    assert_eq!(series(&proxy, "made_total"), 1);
    let proxy = gateway("protocol = 'http2'", http2_origin()).start();
    requests(&proxy, 3);
    assert_eq!(series(&proxy, "active"), 1);
    let proxy = gateway("keepalive.connections = 0", origin::text("ok")).start();
    requests(&proxy, 3);
    until("all are closed", || series(&proxy, "active") == 0);
    assert_eq!(series(&proxy, "made_total"), 3);
}

#[test]
fn connections_are_ready_before_they_are_needed_and_made_again() {
    for (settings, origin) in [
        ("", origin::text("ok")),
        ("protocol = 'http2'", http2_origin()),
    ] {
        let settings = format!("keepalive = {{ min_idle = 3, max_requests = 2 }}\n{settings}");
        let proxy = gateway(&settings, origin).start();
        let connections = || proxy.origin("app").connections();
        until("three are ready", || connections() == 3);
        assert_eq!(series(&proxy, "active"), 3, "{settings}");
        // Two requests end one of them, and another takes its place.
        requests(&proxy, 2);
        until("three are ready again", || connections() == 4);
        until("one has gone", || series(&proxy, "active") == 3);
    }
}

#[test]
fn connections_are_made_in_advance_once_a_peer_is_there() {
    let proxy = Proxy::with_config(
        &CONFIG
            .replace("\"{app}\"", "\"unix:app.sock\"")
            .replace("SETTINGS", "keepalive.min_idle = 2"),
    )
    .start();
    let origin = origin::text("ok");
    let bridge = UnixBridge::new(proxy.path("app.sock"), origin.address());
    until("two are ready", || bridge.connections() >= 2);
    requests(&proxy, 4);
    assert_eq!(series(&proxy, "active"), 2);
}

#[test]
fn a_worker_that_drains_makes_no_connections_in_advance() {
    let settings = "keepalive = { min_idle = 2, max_requests = 1 }";
    let proxy = gateway(settings, origin::text("ok")).start();
    let connections = || proxy.origin("app").connections();
    until("two are ready", || connections() == 2);
    proxy.reload().expect_success();
    until("two of the next worker", || connections() == 4);
    proxy.until_workers(1);
    requests(&proxy, 1);
    until("one more", || connections() == 5);
}
