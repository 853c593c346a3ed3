//! The hash-ring plugin over real sockets, as its README says.

use std::collections::BTreeMap;

use castling_tests::{Proxy, origin, raw_origin, until};

#[test]
fn the_same_key_has_the_same_peer_in_every_worker_and_generation() {
    let proxy = ring(r#""{a}", "{b}", "{c}""#);
    let first = peers_of_keys(&proxy);
    let peers: std::collections::BTreeSet<_> = first.values().collect();
    assert_eq!(peers.len(), 3, "keys are spread: {first:?}");
    assert_eq!(peers_of_keys(&proxy), first);
    proxy.reload().expect_success();
    assert_eq!(peers_of_keys(&proxy), first);
}

#[test]
fn keys_of_a_dead_peer_go_elsewhere_and_others_stay() {
    let mut proxy = ring(r#""{a}", "{b}""#);
    let without = peers_of_keys(&proxy);
    let config = config(r#""{refusing}", "{a}", "{b}""#, "").replace("count = 2", "count = 1");
    proxy.reload_with(&config).expect_success();
    // The next on the ring after a peer is whose they were before it came.
    assert_eq!(peers_of_keys(&proxy), without);
    // The dead peer was asked once, and then passed over by a worker that knows.
    let lines = proxy.until_access_lines(2 * KEYS);
    let tries = lines[KEYS..].iter().filter(|line| *line == "2").count();
    assert_eq!(tries, 1, "{lines:?}");
}

#[test]
fn requests_without_a_key_are_balanced_by_round_robin() {
    let config = config(r#""{a}", "{b}""#, "").replace("count = 2", "count = 1");
    let proxy = start(&config);
    let expected = [("a", 5), ("b", 5)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(proxy.tally("/", 10), BTreeMap::from(expected));
}

#[test]
fn a_key_that_everybody_asks_for_is_served_by_several_where_loads_are_bounded() {
    let config =
        config(r#""{a}", "{b}""#, "balance_factor = 100").replace("count = 2", "count = 1");
    let proxy = Proxy::with_config(&config)
        .origin("a", raw_origin::stalled())
        .origin("b", raw_origin::stalled())
        .start();
    let hang = |n: usize| {
        let mut client = proxy.raw();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-User: ada\r\n\r\n");
        until("the request is at a peer", || {
            proxy.origin("a").connections() + proxy.origin("b").connections() == n
        });
        client
    };
    let _hanging: Vec<_> = (1..=4).map(hang).collect();
    assert_eq!(proxy.origin("a").connections(), 2);
    assert_eq!(proxy.origin("b").connections(), 2);
}

const KEYS: usize = 60;

/// Which origin serves each key.
#[track_caller]
fn peers_of_keys(proxy: &Proxy) -> BTreeMap<String, String> {
    let serve = |key: usize| {
        let key = format!("user-{key}");
        let served_by = proxy.get_with("/", &[("x-user", &key)]).text();
        (key, served_by)
    };
    (0..KEYS).map(serve).collect()
}

#[track_caller]
fn ring(peers: &str) -> Proxy {
    start(&config(peers, ""))
}

#[track_caller]
fn start(config: &str) -> Proxy {
    Proxy::with_config(config)
        .origin("a", origin::text("a"))
        .origin("b", origin::text("b"))
        .origin("c", origin::text("c"))
        .start()
}

fn config(peers: &str, more: &str) -> String {
    let config = r#"
        [workers]
        count = 2

        [access_log]
        file = "{dir}/access.log"
        format = "$tries"
        flush = "0s"

        [plugins.hash-ring]
        wasm = "{plugins}/hash_ring.wasm"

        [plugins.hash-ring.config]
        key = "$http_x_user"
        MORE

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = [PEERS]
        balance = { plugin = "hash-ring" }

        [[routes]]
        upstream = "app"
    "#;
    config.replace("MORE", more).replace("PEERS", peers)
}
