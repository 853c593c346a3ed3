//! Which route a request takes, and which peer.

use std::collections::BTreeMap;

use castling_tests::origin::{self, Origin};
use castling_tests::{Proxy, body, until};
use http::{Request, StatusCode};

#[test]
fn hosts_match_exactly_or_by_suffix_and_exact_wins() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams]
        exact.peers = ["{exact}"]
        suffix.peers = ["{suffix}"]
        deeper.peers = ["{deeper}"]
        any.peers = ["{any}"]

        [[routes]]
        upstream = "any"

        [[routes]]
        hosts = ["*.example.com"]
        upstream = "suffix"

        [[routes]]
        hosts = ["*.b.example.com"]
        upstream = "deeper"

        [[routes]]
        hosts = ["www.example.com", "example.com"]
        upstream = "exact"
    "#;
    let proxy = named(config, ["exact", "suffix", "deeper", "any"]);
    for (host, expected) in [
        ("example.com", "exact"),
        ("www.example.com", "exact"),
        ("WWW.Example.COM:8080", "exact"),
        ("a.example.com", "suffix"),
        ("x.a.example.com", "suffix"),
        ("a.b.example.com", "deeper"),
        ("notexample.com", "any"),
        ("example.org", "any"),
    ] {
        assert_eq!(proxy.get_from(host, "/").text(), expected, "{host}");
    }
}

#[test]
fn the_longest_path_prefix_wins_and_ends_at_a_segment() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams]
        root.peers = ["{root}"]
        api.peers = ["{api}"]
        v2.peers = ["{v2}"]

        [[routes]]
        path = "/"
        upstream = "root"

        [[routes]]
        path = "/api/"
        upstream = "api"

        [[routes]]
        path = "/api/v2"
        upstream = "v2"
    "#;
    let proxy = named(config, ["root", "api", "v2"]);
    for (target, expected) in [
        ("/", "root"),
        ("/apix", "root"),
        ("/other/api", "root"),
        ("/api", "api"),
        ("/api/", "api"),
        ("/api?q=/api/v2", "api"),
        ("/api/v20", "api"),
        ("/api/v2", "v2"),
        ("/api/v2/deep/er", "v2"),
    ] {
        assert_eq!(proxy.get(target).text(), expected, "{target}");
    }
}

#[test]
fn methods_and_headers_narrow_a_route() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams]
        reads.peers = ["{reads}"]
        beta.peers = ["{beta}"]
        anonymous.peers = ["{anonymous}"]

        [[routes]]
        methods = ["GET", "HEAD"]
        headers = { x-channel = "beta", x-user = true }
        upstream = "beta"

        [[routes]]
        methods = ["GET", "HEAD"]
        headers = { x-user = false }
        upstream = "anonymous"

        [[routes]]
        methods = ["GET", "HEAD"]
        upstream = "reads"
    "#;
    let proxy = named(config, ["reads", "beta", "anonymous"]);
    assert_eq!(proxy.get("/").text(), "anonymous");
    assert_eq!(proxy.get_with("/", &[("x-user", "u")]).text(), "reads");
    assert_eq!(
        proxy
            .get_with("/", &[("x-user", "u"), ("x-channel", "beta")])
            .text(),
        "beta"
    );
    assert_eq!(
        proxy
            .get_with("/", &[("x-user", "u"), ("x-channel", "alpha")])
            .text(),
        "reads"
    );
    let delete = Request::delete("/").body(body::empty()).unwrap();
    assert_eq!(proxy.send(delete).status, StatusCode::NOT_FOUND);
}

#[test]
fn exact_paths_win_then_expressions_then_prefixes_and_priority_over_all() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams]
        prefix.peers = ["{prefix}"]
        user.peers = ["{user}"]
        exact.peers = ["{exact}"]
        first.peers = ["{first}"]
        host.peers = ["{host}"]

        [[routes]]
        path = "/user"
        upstream = "prefix"

        [[routes]]
        path = { regex = '^/user/[0-9]+$' }
        upstream = "user"

        [[routes]]
        path = { exact = "/user/1" }
        upstream = "exact"

        [[routes]]
        hosts = ["own.example"]
        upstream = "host"

        [[routes]]
        path = "/healthz"
        priority = 10
        upstream = "first"
    "#;
    let proxy = named(config, ["prefix", "user", "exact", "first", "host"]);
    for (host, target, expected) in [
        ("a.example", "/user", "prefix"),
        ("a.example", "/user/1", "exact"),
        ("a.example", "/user/%31", "exact"),
        ("a.example", "/user/1/", "prefix"),
        ("a.example", "/user/2", "user"),
        ("a.example", "/user/2/", "prefix"),
        ("a.example", "/x/../user/22?q=1", "user"),
        ("own.example", "/user/1", "host"),
        ("own.example", "/healthz/x", "first"),
    ] {
        assert_eq!(proxy.get_from(host, target).text(), expected, "{target}");
    }
}

#[test]
fn query_cookies_and_clients_narrow_a_route() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"
        trusted_proxies = ["127.0.0.0/8"]

        [upstreams]
        v2.peers = ["{v2}"]
        beta.peers = ["{beta}"]
        inner.peers = ["{inner}"]
        gold.peers = ["{gold}"]
        rest.peers = ["{rest}"]

        [[routes]]
        query = { v = { regex = '^2(\.|$)' } }
        upstream = "v2"

        [[routes]]
        cookies = { beta = "1", session = true }
        upstream = "beta"

        [[routes]]
        clients = ["192.0.2.0/24"]
        upstream = "inner"

        [[routes]]
        headers = { x-tier = ["gold", "silver"] }
        upstream = "gold"

        [[routes]]
        upstream = "rest"
    "#;
    let proxy = named(config, ["v2", "beta", "inner", "gold", "rest"]);
    for (target, headers, expected) in [
        ("/?v=2.1", &[][..], "v2"),
        ("/?a&v=1&v=%32", &[], "v2"),
        ("/?v=21", &[], "rest"),
        ("/", &[("cookie", "session=x; beta=1")], "beta"),
        ("/", &[("cookie", "beta=1")], "rest"),
        ("/", &[("cookie", "session=x; beta=12")], "rest"),
        ("/", &[("x-forwarded-for", "192.0.2.7")], "inner"),
        ("/", &[("x-forwarded-for", "192.0.3.7")], "rest"),
        ("/", &[("x-tier", "silver")], "gold"),
        ("/", &[("x-tier", "Silver")], "rest"),
    ] {
        let said = proxy.get_with(target, headers).text();
        assert_eq!(said, expected, "{target} {headers:?}");
    }
}

#[test]
fn captures_are_variables_for_plugins_and_the_log() {
    let config = r#"
        [access_log]
        file = "{dir}/access.log"
        format = "$path $1 $id $lang $arg_q $cookie_theme $scheme"
        flush = "0s"

        [plugins.headers]
        wasm = "{plugins}/headers.wasm"
        config = { request = { set = { x-id = "$id/$1/$lang" } } }

        [listeners.web]
        bind = "{listen}"

        [upstreams]
        app.peers = ["{app}"]

        [[routes]]
        path = { regex = '^/user/(?<id>[^/]+)' }
        headers = { accept-language = { regex = '^(?<lang>[a-z]+)' } }
        plugins = ["headers"]
        upstream = "app"

        [[routes]]
        upstream = "app"
    "#;
    let proxy = named(config, ["app"]);
    proxy.get_with(
        "/user/%61%20b/x?q=1+2",
        &[("accept-language", "de-AT"), ("cookie", "Theme=dark")],
    );
    let seen = proxy.origin("app").last();
    assert_eq!(seen.header("x-id"), Some("a%20b/a%20b/de"));
    assert_eq!(seen.target, "/user/%61%20b/x?q=1+2");
    // Captures end with their request.
    proxy.get("/other");
    assert_eq!(
        proxy.until_access_lines(2),
        [
            "/user/%61%20b/x a%20b a%20b de 1 2 dark http",
            "/other - - - - - http"
        ]
    );
}

#[test]
fn requests_are_shared_out_between_upstreams() {
    let config = r#"
        [access_log]
        file = "{dir}/access.log"
        format = "$upstream"
        flush = "0s"

        [listeners.web]
        bind = "{listen}"

        [upstreams]
        stable.peers = ["{stable}"]
        canary.peers = ["{canary}"]

        [[routes]]
        path = "/by-user"
        upstream = { stable = 50, canary = 50 }
        split_by = "$cookie_user"

        [[routes]]
        path = "/none"
        upstream = { stable = 1, canary = 0 }

        [[routes]]
        upstream = { stable = 80, canary = 20 }
    "#;
    let mut proxy = named(config, ["stable", "canary"]);
    // Six standard deviations of a binomial distribution.
    let bound = 6.0 * (500.0_f64 * 0.8 * 0.2).sqrt();
    let tally = proxy.tally("/", 500);
    let canary = tally["canary"] as f64;
    assert!((canary - 100.0).abs() < bound, "{tally:?}");
    let logged = proxy.until_access_lines(500);
    let logged = logged.iter().filter(|line| *line == "canary").count();
    assert_eq!(logged, tally["canary"]);
    assert_eq!(proxy.tally("/none", 50), counts([("stable", 50)]));

    let of_users = |proxy: &Proxy| -> Vec<String> {
        let users = (0..40).map(|n| format!("user={n}"));
        users
            .map(|user| proxy.get_with("/by-user", &[("cookie", &user)]).text())
            .collect()
    };
    let first = of_users(&proxy);
    assert!(first.contains(&"stable".to_owned()) && first.contains(&"canary".to_owned()));
    assert_eq!(of_users(&proxy), first);
    // More for the canary: who was there stays there.
    let more = config.replace("stable = 50, canary = 50", "stable = 25, canary = 75");
    proxy.reload_with(&more).expect_success();
    let then = of_users(&proxy);
    assert!(then != first);
    let is_kept = |(before, after): (&String, &String)| before == "stable" || after == "canary";
    assert!(first.iter().zip(&then).all(is_kept));
    // Without a cookie it is left to chance.
    assert_eq!(proxy.tally("/by-user", 60).len(), 2);
}

#[test]
fn routes_belong_to_listeners() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [listeners.inner]
        bind = "{listen_inner}"

        [upstreams]
        public.peers = ["{public}"]
        private.peers = ["{private}"]

        [[routes]]
        upstream = "public"

        [[routes]]
        listeners = ["inner"]
        path = "/admin"
        upstream = "private"
    "#;
    let proxy = named(config, ["public", "private"]);
    let inner = proxy.address_of("listen_inner");
    let ask = |address, target: &str| {
        castling_tests::client::send(address, Request::get(target).body(body::empty()).unwrap())
            .text()
    };
    assert_eq!(ask(proxy.address(), "/admin"), "public");
    assert_eq!(ask(inner, "/admin"), "private");
    assert_eq!(ask(inner, "/"), "public");
}

#[test]
fn no_route_is_404() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        hosts = ["known.example"]
        path = "/known"
        upstream = "app"
    "#;
    let proxy = named(config, ["app"]);
    assert_eq!(
        proxy.get_from("known.example", "/known").status,
        StatusCode::OK
    );
    assert_eq!(
        proxy.get_from("known.example", "/unknown").status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        proxy.get_from("unknown.example", "/known").status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn round_robin_shares_by_weight() {
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{a}", { address = "{b}", weight = 3 }]

        [[routes]]
        upstream = "app"
    "#;
    let proxy = named(config, ["a", "b"]);
    assert_eq!(proxy.tally("/", 40), counts([("a", 10), ("b", 30)]));
    // Smoothly: among any four requests in a row, one is a's.
    assert_eq!(proxy.tally("/", 4), counts([("a", 1), ("b", 3)]));
}

#[test]
fn least_conn_prefers_the_idle_peer() {
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{slow}", "{quick}"]
        balance = "least_conn"

        [[routes]]
        upstream = "app"
    "#;
    let slow = castling_tests::raw_origin::stalled();
    let proxy = Proxy::with_config(config)
        .origin("slow", slow)
        .origin("quick", origin::text("quick"))
        .start();
    // A request, maybe the second, hangs at the slow peer.
    let mut hanging = [proxy.raw(), proxy.raw()];
    for client in &mut hanging {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    until("a request hangs at the slow peer", || {
        proxy.origin("slow").connections() == 1
    });
    assert_eq!(proxy.tally("/", 10), counts([("quick", 10)]));
}

#[test]
fn a_peer_that_refuses_is_passed_over() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{refusing}", "{app}"]

        [[routes]]
        upstream = "app"
    "#;
    let proxy = named(config, ["app"]);
    assert_eq!(proxy.tally("/", 10), counts([("app", 10)]));
}

#[test]
fn a_plugin_may_choose_the_peer() {
    let config = r#"
        [workers]
        count = 1

        [plugins.ewma]
        wasm = "{plugins}/ewma.wasm"

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{slow}", "{quick}"]
        balance = { plugin = "ewma" }

        [[routes]]
        upstream = "app"
    "#;
    let slow = origin::answering_after(std::time::Duration::from_millis(60), |_| {
        http::Response::new(body::full("slow"))
    });
    let proxy = Proxy::with_config(config)
        .origin("slow", slow)
        .origin("quick", origin::text("quick"))
        .start();
    let tally = proxy.tally("/", 40);
    assert!(
        tally.get("quick").is_some_and(|quick| *quick >= 30),
        "{tally:?}"
    );
}

#[test]
fn a_peer_by_name_is_resolved() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["localhost:{port}"]

        [[routes]]
        upstream = "app"
    "#;
    let app = origin::text("by name");
    let config = config.replace("{port}", &app.address().port().to_string());
    let proxy = Proxy::with_config(&config).origin("app", app).start();
    assert_eq!(proxy.tally("/", 4), counts([("by name", 4)]));
}

/// Starts it with origins that answer with their names.
#[track_caller]
fn named<const N: usize>(config: &str, names: [&'static str; N]) -> Proxy {
    let origin = |name| -> Origin { origin::text(name) };
    names
        .into_iter()
        .fold(Proxy::with_config(config), |setup, name| {
            setup.origin(name, origin(name))
        })
        .start()
}

fn counts<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    counts
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}
