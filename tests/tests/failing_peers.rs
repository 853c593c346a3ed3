//! Peers that fail, under a plugin that balances: the gateway passes them over by itself.

use std::time::Duration;

use castling_tests::{Proxy, RawClient, body, origin, raw_origin};
use http::Response;

fn config(peers: &str) -> String {
    format!(
        r#"
        [workers]
        count = 1

        [plugins.ewma]
        wasm = "{{plugins}}/ewma.wasm"

        [listeners.web]
        bind = "{{listen}}"

        [upstreams.app]
        peers = [{peers}]
        balance = {{ plugin = "ewma" }}

        [[routes]]
        upstream = "app"
    "#
    )
}

/// Reads a request and ends the connection without an answer.
fn breaking() -> origin::Origin {
    raw_origin::scripted(|connection, _| connection.read_head().map(drop))
}

fn statuses(proxy: &Proxy, method: &str, requests: usize) -> Vec<u16> {
    let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let mut client: RawClient = proxy.raw();
    (0..requests)
        .map(|_| client.send(&request).read_reply().status)
        .collect()
}

#[test]
fn a_failed_peer_is_not_chosen_again_by_a_plugin_while_others_are_there() {
    let slow = || {
        origin::answering_after(Duration::from_millis(30), |_| {
            Response::new(body::full("ok"))
        })
    };
    let proxy = Proxy::with_config(&config(r#""{a}", "{b}", "{c}""#))
        .origin("a", breaking())
        .origin("b", breaking())
        .origin("c", slow())
        .start();
    let statuses = statuses(&proxy, "POST", 60);
    // Each of the two costs one request, which cannot be sent again.
    let failed = statuses.iter().filter(|status| **status == 502).count();
    assert!(failed <= 2, "{statuses:?}");
    assert_eq!(
        statuses.len() - failed,
        statuses.iter().filter(|it| **it == 200).count()
    );
}

#[test]
fn a_peer_does_not_win_by_failing_quickly() {
    let origin = origin::answering_after(Duration::from_millis(20), |_| {
        Response::new(body::full("ok"))
    });
    let failing = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let proxy = Proxy::with_config(&config(r#""{a}", "{b}""#))
        .origin("a", raw_origin::repeating(failing))
        .origin("b", origin)
        .start();
    let statuses = statuses(&proxy, "GET", 100);
    let failed = statuses.iter().filter(|status| **status == 503).count();
    assert!(failed < 20, "{failed} of 100 by a peer that serves nothing");
}
