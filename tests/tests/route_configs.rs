//! Plugins with a config for one route.

use castling_tests::{Proxy, Setup, origin};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.expander]
    wasm = "{guests}/expander.wasm"
    OWN

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["expander"]
    upstream = "app"

    [[routes]]
    path = "/b"
    plugins = [{ name = "expander", config = { down = "x-b" } }]
    upstream = "app"

    [[routes]]
    path = "/c"
    plugins = [{ name = "expander", config = { down = "x-b" } }]
    upstream = "app"
"#;

fn setup(config: &str) -> Setup {
    Proxy::with_config(config).origin("app", origin::text("hello"))
}

const ALL: [(&str, &str); 3] = [
    ("x-down", "around"),
    ("x-own", "times 2"),
    ("x-b", "times 3"),
];

#[test]
fn a_route_has_its_own_config_in_the_place_of_the_plugins() {
    let own = "config = { up = \"x-own-up\", down = \"x-own\" }";
    let mut proxy = setup(&CONFIG.replace("OWN", own)).start();
    assert_eq!(proxy.get_with("/", &ALL).text(), "hello".repeat(2));
    for _ in 0..3 {
        assert_eq!(proxy.get_with("/b", &ALL).text(), "hello".repeat(3));
        assert_eq!(proxy.get_with("/c", &ALL).text(), "hello".repeat(3));
    }
    let status = proxy.status();
    let plugins = status["plugins"].as_array().expect("a list");
    assert_eq!(plugins.len(), 1, "{plugins:?}");
    assert_eq!(plugins[0]["name"], "expander");
    let calls = plugins[0]["calls"].as_u64();
    assert!(calls >= Some(7), "{calls:?}");
    // Another one at a reload.
    let config = CONFIG.replace("OWN", own).replace("\"x-b\"", "\"x-down\"");
    proxy.reload_with(&config).expect_success();
    assert_eq!(proxy.get_with("/b", &ALL).text(), "<hello>");
    assert_eq!(proxy.get_with("/", &ALL).text(), "hello".repeat(2));
}

#[test]
fn configure_judges_it_and_the_error_points_at_the_route() {
    let config = CONFIG.replace("OWN", "").replace(
        "path = \"/c\"\n    plugins = [{ name = \"expander\", config = { down = \"x-b\" } }]",
        "path = \"/c\"\n    plugins = [{ name = \"expander\", config = { down = 5 } }]",
    );
    setup(&config)
        .check()
        .expect_error("{dir}/castling.toml:25:51: plugin expander: config.down: invalid type");
}

#[test]
fn a_plugin_that_runs_with_other_configs_alone_needs_none_of_its_own() {
    let bad = CONFIG.replace("OWN", "config = { down = 5 }");
    setup(&bad)
        .check()
        .expect_error("plugin expander: config.down: invalid type");
    let alone = bad.replace("plugins = [\"expander\"]", "");
    let proxy = setup(&alone).start();
    assert_eq!(proxy.get_with("/", &ALL).text(), "hello");
    assert_eq!(proxy.get_with("/b", &ALL).text(), "hello".repeat(3));
}
