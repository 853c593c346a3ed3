//! Plugins that choose the upstream of a request.

use castling_tests::{Proxy, Setup, origin};
use http::StatusCode;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [access_log]
    file = "{dir}/access.log"
    format = "$status $upstream"
    flush = "0s"

    [plugins.peeker]
    wasm = "{guests}/peeker.wasm"
    grants = { upstreams = ["app", "other"] }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.other]
    peers = ["{other}"]

    [upstreams.third]
    peers = ["{app}"]

    [[routes]]
    plugins = ["peeker"]
    upstream = "app"
"#;

fn setup(config: &str) -> Setup {
    Proxy::with_config(config)
        .origin("app", origin::text("app"))
        .origin("other", origin::text("other"))
}

#[test]
fn a_request_goes_to_the_upstream_that_a_plugin_has_chosen_last() {
    let proxy = setup(CONFIG).start();
    for (to, text) in [
        ("other", "other"),
        ("app", "app"),
        ("other app", "app"),
        ("app other", "other"),
        // None: the route's own.
        ("other -", "app"),
    ] {
        assert_eq!(proxy.get_with("/", &[("x-to", to)]).text(), text, "{to}");
        // The choice is one request's.
        assert_eq!(proxy.get("/").text(), "app");
    }
    let lines = proxy.until_access_lines(10);
    assert_eq!(lines[0], "200 other");
    assert_eq!(lines[1], "200 app");
}

#[test]
fn an_upstream_that_is_not_granted_is_refused() {
    let proxy = setup(CONFIG).start();
    for name in ["third", "nobody", "oth"] {
        let reply = proxy.get_with("/", &[("x-to", name)]);
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR, "{name}");
    }
    proxy.until_log_has("set_upstream(\"third\"): not granted");
    assert_eq!(proxy.get("/").text(), "app");
}

#[test]
fn a_module_that_chooses_upstreams_needs_a_grant() {
    let config = CONFIG.replace("grants = { upstreams = [\"app\", \"other\"] }", "");
    setup(&config)
        .check()
        .expect_error("chooses upstreams, which nothing grants; expected `grants = { upstreams");
}
