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
