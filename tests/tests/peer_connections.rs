//! Connections to peers: how long one is used and for how many requests, where it comes from, and how many are open.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use castling_tests::origin::Origin;
use castling_tests::{Proxy, Setup, h2, origin, raw_origin, until};

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
    // Of HTTP/2, the ages are looked at from time to time.
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
    let proxy = gateway("source_address = '192.0.2.9'", origin::text("ok")).start();
    assert_eq!(proxy.raw().send(GET).read_reply().status, 502);
    let line = proxy.until_log_has("from 192.0.2.9");
    let peer = proxy.origin("app").address().to_string();
    assert!(
        line.contains(&peer) && line.contains("upstream app"),
        "{line}"
    );
}
