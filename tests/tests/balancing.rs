//! How requests are shared among peers: each policy against its definition, over real sockets.
//!
//! Where peers take turns, counts are exact. Where they are drawn, a count may be six standard deviations from its mean: by chance
//! it is farther in one run of 500 million.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use castling_tests::{Proxy, RawClient, body, origin, raw_origin, until};

fn config(upstream: &str) -> String {
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        UPSTREAM

        [[routes]]
        upstream = "app"
    "#;
    config.replace("UPSTREAM", upstream)
}

/// A gateway before the origins a, b and c, which answer with their names.
#[track_caller]
fn named(upstream: &str) -> Proxy {
    Proxy::with_config(&config(upstream))
        .origin("a", origin::text("a"))
        .origin("b", origin::text("b"))
        .origin("c", origin::text("c"))
        .start()
}

/// A gateway before origins that never answer.
#[track_caller]
fn stalled(upstream: &str) -> Proxy {
    Proxy::with_config(&config(upstream))
        .origin("a", raw_origin::stalled())
        .origin("b", raw_origin::stalled())
        .origin("c", raw_origin::stalled())
        .start()
}

/// Clients whose requests hang, one after the other.
fn hanging(proxy: &Proxy, count: usize) -> Vec<RawClient> {
    let hang = |n: usize| {
        let mut client = proxy.raw();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-User: ada\r\n\r\n");
        until("the request is at a peer", || {
            let connections = ["a", "b", "c"].map(|name| proxy.origin(name).connections());
            connections.iter().sum::<usize>() == n
        });
        client
    };
    (1..=count).map(hang).collect()
}

fn counts<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    counts.map(|(name, count)| (name.to_owned(), count)).into()
}

/// Whether a count is within six standard deviations of a binomial distribution's mean.
fn is_likely(count: usize, draws: usize, share: f64) -> bool {
    let mean = draws as f64 * share;
    (count as f64 - mean).abs() <= 6.0 * (mean * (1.0 - share)).sqrt()
}

#[test]
fn round_robin_takes_turns_by_weight() {
    let proxy = named(r#"peers = [{ address = "{a}", weight = 5 }, "{b}", "{c}"]"#);
    for _ in 0..3 {
        assert_eq!(
            proxy.tally("/", 70),
            counts([("a", 50), ("b", 10), ("c", 10)])
        );
    }
}

#[test]
fn least_conn_counts_requests_for_each_unit_of_weight() {
    let proxy = stalled(
        r#"peers = [{ address = "{a}", weight = 2 }, "{b}", "{c}"]
        balance = "least_conn""#,
    );
    let _hanging = hanging(&proxy, 12);
    let connections = ["a", "b", "c"].map(|name| proxy.origin(name).connections());
    assert_eq!(connections, [6, 3, 3]);
}

#[test]
fn least_conn_hears_of_requests_that_end() {
    let proxy = named(
        r#"peers = [{ address = "{a}", weight = 2 }, "{b}", "{c}"]
        balance = "least_conn""#,
    );
    // None is under way when the next one comes: idle peers take turns by weight.
    assert_eq!(
        proxy.tally("/", 40),
        counts([("a", 20), ("b", 10), ("c", 10)])
    );
}

/// A gateway before a slow and a quick origin.
fn slow_and_quick(balance: &str) -> Proxy {
    let upstream =
        format!("peers = [\"{{slow}}\", \"{{quick}}\"]\n        balance = \"{balance}\"");
    let slow = origin::answering_after(Duration::from_millis(60), |_| {
        http::Response::new(body::full("slow"))
    });
    Proxy::with_config(&config(&upstream))
        .origin("slow", slow)
        .origin("quick", origin::text("quick"))
        .start()
}

#[test]
fn least_time_tries_each_peer_and_stays_with_the_quick_one() {
    let tally = slow_and_quick("least_time").tally("/", 40);
    // A machine that is busy may make the quick one look slow for once.
    assert!(tally["slow"] >= 1 && tally["slow"] <= 10, "{tally:?}");
}

#[test]
fn ewma_leaves_the_slow_peer_alone_when_it_knows_it() {
    let tally = slow_and_quick("ewma").tally("/", 40);
    assert!(tally["quick"] >= 30, "{tally:?}");
}

#[test]
fn random_draws_by_weight() {
    let proxy = named(
        r#"peers = [{ address = "{a}", weight = 2 }, "{b}", "{c}"]
        balance = "random""#,
    );
    let tally = proxy.tally("/", 400);
    for (name, share) in [("a", 0.5), ("b", 0.25), ("c", 0.25)] {
        assert!(is_likely(tally[name], 400, share), "{tally:?}");
    }
}

#[test]
fn random_takes_the_better_of_two() {
    let proxy = stalled(
        r#"peers = ["{a}", "{b}", "{c}"]
        balance = "random""#,
    );
    let _hanging = hanging(&proxy, 30);
    let connections = ["a", "b", "c"].map(|name| proxy.origin(name).connections());
    // The one with the most never gets the next: all stay close together.
    let (most, least) = (connections.iter().max(), connections.iter().min());
    assert!(
        most.zip(least)
            .is_some_and(|(most, least)| most - least <= 6),
        "{connections:?}"
    );
}

#[test]
fn ip_hash_keeps_networks_of_clients_together() {
    let proxy = named(
        r#"peers = ["{a}", "{b}", "{c}"]
        balance = "ip_hash""#,
    );
    let served_by = |network: u8, host: u8| {
        let mut client = proxy.raw_from(Ipv4Addr::new(127, 1, network, host));
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.read_reply().text()
    };
    let mut tally = BTreeMap::new();
    for network in 0..90 {
        let name = served_by(network, 1);
        assert_eq!(served_by(network, 200), name);
        *tally.entry(name).or_insert(0) += 1;
    }
    for name in ["a", "b", "c"] {
        assert!(is_likely(tally[name], 90, 1.0 / 3.0), "{tally:?}");
    }
}

#[test]
fn the_own_zone_is_preferred_and_backups_wait() {
    let proxy = named(
        r#"zone = "east"
        peers = [
            { address = "{a}", zone = "east" },
            { address = "{b}", zone = "west" },
            { address = "{c}", backup = true },
        ]"#,
    );
    assert_eq!(proxy.tally("/", 30), counts([("a", 30)]));
}

#[test]
fn what_the_own_zone_lacks_goes_to_others() {
    let proxy = named(
        r#"zone = "east"
        peers = [
            { address = "{a}", zone = "east" },
            { address = "{refusing}", zone = "east" },
            { address = "{b}", zone = "west" },
            { address = "{c}", backup = true },
        ]"#,
    );
    // Until the failure is known, requests that meet it go on to the next peer of the zone.
    proxy.tally("/", 10);
    // Half of the zone, times 1.4.
    let tally = proxy.tally("/", 100);
    assert!((69..=71).contains(&tally["a"]), "{tally:?}");
    assert_eq!(tally["a"] + tally["b"], 100, "{tally:?}");
}

#[test]
fn backups_are_for_when_no_other_is_left() {
    let proxy = named(r#"peers = ["{refusing}", { address = "{c}", backup = true }]"#);
    assert_eq!(proxy.tally("/", 10), counts([("c", 10)]));
}

/// Which peer serves each key.
#[track_caller]
fn peers_of_keys(proxy: &Proxy) -> BTreeMap<usize, String> {
    let serve = |key: usize| {
        let user = format!("user-{key}");
        (key, proxy.get_with("/", &[("x-user", &user)]).text())
    };
    (0..90).map(serve).collect()
}

#[test]
fn keys_stay_where_they_are_and_those_of_a_peer_that_left_go_to_others() {
    for method in ["ketama", "maglev"] {
        let upstream = |peers: &str| {
            format!(
                "peers = [{peers}]\n        balance = {{ hash = \"$http_x_user\", method = \"{method}\" }}"
            )
        };
        let mut proxy = named(&upstream(r#""{a}", "{b}", "{c}""#));
        let before = peers_of_keys(&proxy);
        assert_eq!(peers_of_keys(&proxy), before);
        for name in ["a", "b", "c"] {
            let count = before
                .values()
                .filter(|served_by| *served_by == name)
                .count();
            // Ketama's shares are uneven themselves, by a standard deviation of 8 % of them.
            assert!(is_likely(count, 90, 1.0 / 3.0), "{method}: {before:?}");
        }
        proxy
            .reload_with(&config(&upstream(r#""{a}", "{b}""#)))
            .expect_success();
        let after = peers_of_keys(&proxy);
        let moved = before.iter().filter(|(key, name)| after[key] != **name);
        let (its_own, others): (Vec<_>, Vec<_>) = moved.partition(|(_, name)| *name == "c");
        assert_eq!(
            its_own.len(),
            before.values().filter(|name| *name == "c").count()
        );
        // Maglev may move one key in fifty of those that need not.
        let most = if method == "ketama" { 0 } else { 9 };
        assert!(others.len() <= most, "{method}: {others:?}");
    }
}

#[test]
fn requests_without_a_key_take_turns() {
    let proxy = named(
        r#"peers = ["{a}", "{b}", "{c}"]
        balance = { hash = "$http_x_user" }"#,
    );
    assert_eq!(
        proxy.tally("/", 30),
        counts([("a", 10), ("b", 10), ("c", 10)])
    );
}

#[test]
fn a_bounded_peer_passes_requests_on() {
    let proxy = stalled(
        r#"peers = ["{a}", "{b}", "{c}"]
        balance = { hash = "$http_x_user", bounded = 1.25 }"#,
    );
    let _hanging = hanging(&proxy, 12);
    let connections = ["a", "b", "c"].map(|name| proxy.origin(name).connections());
    // A third of 12 requests, times 1.25.
    assert!(
        connections.iter().all(|count| *count <= 5),
        "{connections:?}"
    );
    assert!(
        connections.iter().all(|count| *count >= 2),
        "{connections:?}"
    );
}

const STICKY: &str = r#"
        [upstreams.app.sticky]
        cookie = "route"
        secret = "a secret that nobody can guess"
"#;

/// The cookie of a reply, as the client sends it back.
fn cookie_of(reply: &castling_tests::Reply) -> Option<String> {
    let field = reply.header("set-cookie")?;
    field.split(';').next().map(str::to_owned)
}

#[test]
fn a_session_stays_at_its_peer_over_a_reload_and_moves_when_that_dies() {
    let upstream = |peers: &str| format!("peers = [{peers}]\n{STICKY}");
    let mut proxy = named(&upstream(r#""{a}", "{b}", "{c}""#));
    let first = proxy.get("/");
    let (name, cookie) = (first.text(), cookie_of(&first).expect("a cookie"));
    let again = |proxy: &Proxy| proxy.get_with("/", &[("cookie", &cookie)]);
    for _ in 0..9 {
        let reply = again(&proxy);
        assert_eq!((reply.text(), cookie_of(&reply)), (name.clone(), None));
    }
    proxy.reload().expect_success();
    assert_eq!(again(&proxy).text(), name);
    // Requests without the cookie are balanced all the same.
    assert_eq!(
        proxy.tally("/", 30),
        counts([("a", 10), ("b", 10), ("c", 10)])
    );
    let left = ["a", "b", "c"].into_iter().filter(|it| *it != name);
    let left: Vec<String> = left.map(|it| format!("\"{{{it}}}\"")).collect();
    proxy
        .reload_with(&config(&upstream(&left.join(", "))))
        .expect_success();
    let moved = again(&proxy);
    assert_ne!(moved.text(), name);
    let cookie = cookie_of(&moved).expect("another cookie");
    assert_eq!(
        proxy.get_with("/", &[("cookie", &cookie)]).text(),
        moved.text()
    );
}

#[test]
fn a_made_up_cookie_is_none() {
    let proxy = named(&format!("peers = [\"{{a}}\", \"{{b}}\"]\n{STICKY}"));
    for cookie in ["route=a", "route=", "route=AAAAAAAAAAAAAAAAAAAAAA"] {
        assert!(cookie_of(&proxy.get_with("/", &[("cookie", cookie)])).is_some());
    }
}

#[test]
fn a_session_whose_peer_refuses_goes_on_at_another() {
    let proxy = named(&format!(
        "peers = [\"{{refusing}}\", \"{{a}}\", \"{{b}}\"]\n{STICKY}"
    ));
    for _ in 0..9 {
        let reply = proxy.get("/");
        assert_eq!(reply.status, 200);
        let cookie = cookie_of(&reply).expect("a cookie");
        assert_eq!(
            proxy.get_with("/", &[("cookie", &cookie)]).text(),
            reply.text()
        );
    }
}

#[test]
fn a_route_names_its_peer() {
    let proxy = named(
        r#"peers = [{ address = "{a}", route = "r1" }, { address = "{b}", route = "r2" }]

        [upstreams.app.sticky]
        route = ["$cookie_route", "$arg_route"]
"#,
    );
    for (target, cookie, name) in [
        ("/?route=r1", "x=1", "a"),
        ("/?route=r2", "x=1", "b"),
        ("/?route=r1", "route=r2", "b"),
    ] {
        for _ in 0..4 {
            assert_eq!(proxy.get_with(target, &[("cookie", cookie)]).text(), name);
        }
    }
    assert_eq!(proxy.tally("/?route=r3", 10), counts([("a", 5), ("b", 5)]));
}
