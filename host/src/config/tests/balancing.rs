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

/// A config with a zone of each kind, whose upstream has this `sticky` in line 3.
fn sticky(value: &str) -> Site {
    let zones = "[zones.sessions]\nkind = 'kv'\nsize = '1MiB'\n[zones.limits]\nkind = 'counter'\nsize = '64KiB'\n";
    let rest = "[listeners.web]\nbind = '127.0.0.1:8080'\n[[routes]]\nupstream = 'app'\n";
    Site::new(&format!(
        "[upstreams.app]\npeers = ['a:1', 'b:1']\nsticky = {value}\n{zones}{rest}"
    ))
}

#[test]
fn learnt_sessions_have_names_a_zone_and_a_time() {
    let read = |value: &str| {
        let config = sticky(value).load().unwrap_or_else(|e| panic!("{e}"));
        let sent = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&sent).unwrap(), config);
        match config.upstreams["app"].sticky.clone() {
            Some(Sticky::Learn(learn)) => learn,
            other => panic!("{other:?}"),
        }
    };
    let least = read("{ learn = '$upstream_cookie_session', zone = 'sessions' }");
    assert_eq!(least.learn, ["$upstream_cookie_session"]);
    assert_eq!(least.lookup, ["${cookie_session}"]);
    assert_eq!(least.zone, "sessions");
    assert_eq!(least.timeout, Duration::from_secs(600));
    let all = read(
        "{ learn = ['$upstream_cookie_a', '$sent_http_x_id'], lookup = ['$cookie_a', '$http_x_id'], zone = 'sessions', timeout = '1s' }",
    );
    assert_eq!(all.learn, ["$upstream_cookie_a", "$sent_http_x_id"]);
    assert_eq!(all.lookup, ["$cookie_a", "$http_x_id"]);
    assert_eq!(all.timeout, Duration::from_secs(1));
    let mixed =
        read("{ learn = ['$$${upstream_cookie_a.b}-$host', '$arg_id'], zone = 'sessions' }");
    assert_eq!(mixed.lookup, ["$$${cookie_a.b}-${host}", "${arg_id}"]);
}

#[test]
fn learnt_sessions_that_cannot_be() {
    for (bad, error) in [
        (
            "{ learn = [], zone = 'sessions' }",
            "3:20: learn a list: expected at least one text",
        ),
        (
            "{ learn = ['session'], zone = 'sessions' }",
            "3:21: learn 'session': expected a text with variables, such as \"$http_x_user\"",
        ),
        (
            "{ learn = '$peer', zone = 'sessions' }",
            "3:20: learn $peer: it names no session: expected variables of the request, \"$upstream_cookie_NAME\" or \"$sent_http_NAME\"",
        ),
        (
            "{ learn = '$upstream_cookie_connect.sid', zone = 'sessions' }",
            "3:20: learn '$upstream_cookie_connect.sid': expected \"${upstream_cookie_connect.sid}\" for a cookie of that name, or \"${upstream_cookie_connect}.sid\"",
        ),
        (
            "{ learn = '$upstream_cookie_a', lookup = ['x$cookie_my-sess'], zone = 'sessions' }",
            "3:52: lookup 'x$cookie_my-sess': expected \"${cookie_my-sess}\" for a cookie of that name, or \"${cookie_my}-sess\"",
        ),
        (
            "{ learn = '$upstream_cookie_', zone = 'sessions' }",
            "3:20: learn: `$upstream_cookie_` is no variable's name",
        ),
        (
            "{ learn = '$sent_http_x_id', zone = 'sessions' }",
            "3:20: learn $sent_http_x_id without `lookup`: expected what requests are looked up by, such as lookup = [\"$http_x_session\"]",
        ),
        (
            "{ learn = '$cookie_a', lookup = '$upstream_cookie_a', zone = 'sessions' }",
            "3:42: lookup $upstream_cookie_a: it is not known before a peer has answered: expected variables of the request",
        ),
        (
            "{ learn = '$cookie_a', lookup = [], zone = 'sessions' }",
            "3:42: lookup a list: expected at least one text",
        ),
        (
            "{ learn = '$upstream_cookie_a' }",
            "3:10: missing key \"zone\": expected the name of a zone of kind \"kv\"",
        ),
        (
            "{ learn = '$upstream_cookie_a', zone = 'session' }",
            "3:49: unknown zone \"session\": did you mean \"sessions\"?",
        ),
        (
            "{ learn = '$upstream_cookie_a', zone = 'limits' }",
            "3:49: zone 'limits': expected the name of a zone of kind \"kv\"",
        ),
        (
            "{ learn = '$upstream_cookie_a', zone = 'sessions', timeout = '0s' }",
            "3:71: timeout '0s': expected 1s to 30days",
        ),
        (
            "{ learn = '$upstream_cookie_a', zone = 'sessions', cookie = 'a' }",
            "3:20: learn beside cookie: expected one of them, by which sessions are known",
        ),
        (
            "{ zone = 'sessions' }",
            "3:19: zone without learn: expected learn = [\"$upstream_cookie_NAME\"], by which sessions are known",
        ),
    ] {
        let errors = sticky(bad).errors();
        assert_eq!(errors[0], format!("site.toml:{error}"), "{bad}");
    }
    is_refused(
        "peers = ['a:1']\nbalance = 'target'\nsticky = { learn = '$upstream_cookie_a', zone = 'sessions' }\n[zones.sessions]\nkind = 'kv'\nsize = '1MiB'",
        "site.toml:4:10: sticky is for policies of the gateway's own: expected none beside \"target\" or a plugin",
    );
}

#[test]
fn a_cookie_of_a_response_is_for_learning_alone() {
    is_refused(
        "peers = ['a:1']\nbalance = { hash = '$upstream_cookie_a' }",
        "site.toml:3:20: hash $upstream_cookie_a: it is not known before a peer has answered: expected variables of the request",
    );
    is_refused(
        "peers = ['a:1']\n[access_log]\nformat = '$status $upstream_cookie_a'",
        "site.toml:4:10: access_log.format: $upstream_cookie_a is for sticky.learn alone: expected \"$sent_http_set_cookie\", which is what the client was sent",
    );
}

#[test]
fn tags_of_peers_are_few_and_short_and_each_once() {
    let upstream = |tags: &str| {
        format!("[upstreams.t]\npeers = [{{ address = '10.0.0.1:80', tags = {tags} }}]\n")
    };
    let config = good(&upstream("['v1', 'gpu']"));
    assert_eq!(config.upstreams["t"].peers[0].tags, ["v1", "gpu"]);
    let long = "x".repeat(65);
    let many: Vec<String> = (0..33).map(|idx| format!("'{idx}'")).collect();
    for (tags, error) in [
        ("'v1'".to_owned(), "tags 'v1': expected a list"),
        ("['']".to_owned(), "tags '': expected a tag"),
        ("['a', 'a']".to_owned(), "tags 'a' is already in the list"),
        (format!("['{long}']"), "expected a tag of up to 64 bytes"),
        (
            format!("[{}]", many.join(", ")),
            "tags: 33 of them: expected at most 32",
        ),
    ] {
        let errors = Site::new(&format!("{}{REST}", upstream(&tags))).errors();
        assert!(errors.len() == 1 && errors[0].contains(error), "{errors:?}");
    }
}
