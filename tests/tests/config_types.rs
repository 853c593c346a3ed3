//! Configs of plugins that name upstreams and zones, which are granted by that.

use castling_tests::{Proxy, Setup, body, origin};
use http::{Request, StatusCode};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [zones.counts]
    kind = "counter"
    size = "64KiB"

    [zones.values]
    kind = "kv"
    size = "1MiB"

    [plugins.namer]
    wasm = "{guests}/namer.wasm"
    config = { upstream = "app", count = "counts" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.other]
    peers = ["{other}"]

    [[routes]]
    plugins = ["namer"]

    [[routes]]
    path = "/other"
    plugins = [{ name = "namer", config = { upstream = "other" } }]
"#;

fn setup(config: &str) -> Setup {
    Proxy::with_config(config)
        .origin("app", origin::text("app"))
        .origin("other", origin::text("other"))
}

#[test]
fn what_a_config_names_is_granted_and_nothing_else() {
    let proxy = setup(CONFIG).start();
    assert_eq!(proxy.get("/").text(), "app 1");
    assert_eq!(proxy.get("/").text(), "app 2");
    assert_eq!(proxy.get("/other").text(), "other");
    for (path, other) in [("/", "other"), ("/other", "app")] {
        let reply = proxy.get_with(path, &[("x-ask", other)]);
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        proxy.until_log_has(&format!("http::send(\"{other}\", GET /): not granted"));
    }
    let typed = Request::post("/").header("x-ask", "typed");
    let typed = typed.body(body::full(r#"{"upstream": "app"}"#)).unwrap();
    let told = proxy.send(typed).text();
    assert!(
        told.starts_with("body.upstream: read outside of `configure`"),
        "{told}"
    );
}

#[test]
fn check_says_at_its_place_what_there_is_not() {
    for (from, to, error) in [
        (
            "upstream = \"app\", count",
            "upstream = \"ap\", count",
            "{dir}/castling.toml:14:23: plugin namer: config.upstream: not granted; expected an upstream of",
        ),
        (
            "count = \"counts\"",
            "count = \"values\"",
            "{dir}/castling.toml:14:38: plugin namer: config.count: a zone of another kind; expected a counter zone of",
        ),
        (
            "upstream = \"other\"",
            "upstream = \"counts\"",
            "config.upstream: not granted; expected an upstream of",
        ),
        // Lists of `grants` are complete.
        (
            "count = \"counts\" }",
            "count = \"counts\" }\n    grants = { upstreams = [\"other\"] }",
            "{dir}/castling.toml:14:23: plugin namer: config.upstream: not granted; expected an upstream of",
        ),
    ] {
        let config = CONFIG.replace(from, to);
        assert_ne!(config, CONFIG);
        setup(&config).check().expect_error(error);
    }
}
