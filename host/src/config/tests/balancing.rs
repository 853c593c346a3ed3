//! How an upstream's peers are chosen.

use super::*;

const PEERS: &str = "peers = ['a:1', { address = 'b:2', zone = 'z' }]\nzone = 'z'\n";

/// A config whose upstream has these keys, from line 2 on.
fn site(keys: &str) -> Site {
    let rest = "[listeners.web]\nbind = '127.0.0.1:8080'\n[[routes]]\nupstream = 'app'\n";
    Site::new(&format!("[upstreams.app]\n{keys}\n{rest}"))
}

fn app(keys: &str) -> Upstream {
    let config = site(keys)
        .load()
        .unwrap_or_else(|errors| panic!("{errors}"));
    config.upstreams["app"].clone()
}

#[track_caller]
fn is_refused(keys: &str, error: &str) {
    assert_eq!(site(keys).errors(), [error]);
}

#[test]
fn policies_are_named() {
    for (text, policy) in [
        ("'round_robin'", Balance::RoundRobin),
        ("'least_conn'", Balance::LeastConn),
        ("'least_time'", Balance::LeastTime),
        ("'random'", Balance::Random),
        ("'ewma'", Balance::Ewma),
        ("'ip_hash'", Balance::IpHash),
        ("'target'", Balance::Target),
    ] {
        let read = app(&format!("peers = ['a:1']\nbalance = {text}"));
        assert_eq!(read.balance, policy);
        assert_eq!((read.slow_start, read.zone), (None, None));
    }
}

#[test]
fn a_hash_has_a_key_of_the_request() {
    let hash = |keys: &str| match app(&format!("peers = ['a:1']\nbalance = {keys}")).balance {
        Balance::Hash(hash) => hash,
        other => panic!("{other:?}"),
    };
    let plain = hash("{ hash = '$http_x_user' }");
    assert_eq!(plain.key, "$http_x_user");
    assert_eq!((plain.method, plain.bounded), (HashMethod::Ketama, None));
    let all = hash("{ hash = '$host$path', method = 'maglev', bounded = 1.25 }");
    assert_eq!((all.method, all.bounded), (HashMethod::Maglev, Some(1.25)));
    assert_eq!(hash("{ hash = '$host', bounded = 2 }").bounded, Some(2.0));
    for (bad, error) in [
        (
            "{ hash = 'user' }",
            "3:20: hash 'user': expected a text with variables, such as \"$http_x_user\"",
        ),
        (
            "{ hash = '$status' }",
            "3:20: hash $status: it is not known before a peer has answered: expected variables of the request",
        ),
        ("{ hash = '${a' }", "3:20: hash: `${` without `}`"),
        (
            "{ hash = '$host', bounded = 0.9 }",
            "3:39: bounded 0.9: expected a number, 1 to 10",
        ),
        (
            "{ hash = '$host', method = 'ring' }",
            "3:38: method 'ring': expected \"ketama\" or \"maglev\"",
        ),
        (
            "{ method = 'maglev' }",
            "3:11: missing key \"plugin\": expected the name of a plugin, or \"hash\" with a key",
        ),
    ] {
        let errors = site(&format!("peers = ['a:1']\nbalance = {bad}")).errors();
        assert_eq!(errors[0], format!("site.toml:{error}"));
    }
}

#[test]
fn slow_start_is_a_window_and_its_shape() {
    let slow_start =
        |value: &str| app(&format!("peers = ['a:1']\nslow_start = {value}")).slow_start;
    let ramp = |aggression| {
        let window = Duration::from_secs(30);
        Some(SlowStart { window, aggression })
    };
    assert_eq!(slow_start("'30s'"), ramp(1.0));
    assert_eq!(slow_start("{ window = '30s' }"), ramp(1.0));
    assert_eq!(
        slow_start("{ window = '30s', aggression = 1.5 }"),
        ramp(1.5)
    );
    is_refused(
        "peers = ['a:1']\nslow_start = { window = '30s', aggression = 0 }",
        "site.toml:3:45: aggression 0: expected a number, 0.1 to 10",
    );
    is_refused(
        "peers = ['a:1']\nslow_start = '0s'",
        "site.toml:3:14: slow_start '0s': expected 1s to 1h",
    );
    is_refused(
        "peers = ['a:1']\nbalance = 'ip_hash'\nslow_start = '30s'",
        "site.toml:4:14: slow_start is for policies that share requests out: expected none beside \"ip_hash\", \"target\", a hash or a plugin",
    );
}

#[test]
fn zones_are_of_the_peers_and_the_gateway() {
    let zoned = app(PEERS);
    assert_eq!(zoned.zone.as_deref(), Some("z"));
    let zones: Vec<_> = zoned
        .peers
        .iter()
        .map(|peer| peer.zone.as_deref())
        .collect();
    assert_eq!(zones, [None, Some("z")]);
    is_refused(
        "peers = ['a:1']\nzone = 'z'",
        "site.toml:3:8: zone without effect: expected peers with a zone, such as { address = \"10.0.0.1:80\", zone = \"a\" }",
    );
    is_refused(
        "peers = [{ address = 'a:1', zone = 'z' }]",
        "site.toml:2:9: zones of peers without effect: expected \"zone\", the one that the gateway is in",
    );
    is_refused(
        &format!("{PEERS}balance = 'target'"),
        "site.toml:3:8: zone is for policies of the gateway's own: expected none beside \"target\" or a plugin",
    );
}
