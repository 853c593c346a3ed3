//! Plugins that choose the upstream of a request.

use castling_tests::{Proxy, Setup, module, origin};
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

#[test]
fn nothing_is_chosen_where_it_is_too_late_or_nowhere() {
    let module = |hook: &str, call: &str, expected: i32| {
        module::plugin(
            &module::manifest(1, &format!("[\"{hook}\"]")),
            &format!(
                r#"(import "castling" "upstream_set" (func $set (param i32 i32) (result i32)))
                   (data (i32.const 0) "app")
                   (func (export "castling_hook_{hook}") (param i32 i32 i32) (result i32)
                       (if (i32.ne (call $set {call}) (i32.const {expected})) (then unreachable))
                       i32.const 0)"#
            ),
        )
    };
    for (hook, call, expected, status) in [
        ("access", "(i32.const 0) (i32.const 3)", 0, 200),
        ("access", "(i32.const 0) (i32.const 2)", -5, 200),
        ("access", "(i32.const 0) (i32.const 65537)", 0, 500),
        ("access", "(i32.const -1) (i32.const 3)", 0, 500),
        ("response_headers", "(i32.const 0) (i32.const 3)", -3, 200),
        ("response_body", "(i32.const 0) (i32.const 3)", -3, 200),
    ] {
        let config = CONFIG.replace("{guests}/peeker.wasm", "crude.wasm");
        let proxy = setup(&config)
            .file("crude.wasm", module(hook, call, expected))
            .start();
        let reply = proxy.get("/");
        assert_eq!(reply.status.as_u16(), status, "{hook} {call}");
    }
}
