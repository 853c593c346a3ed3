//! Modules that SDKs of earlier editions have built go on running: `tests/editions`, which are never built again.

use std::fs;

use castling_tests::origin::{self, Origin};
use castling_tests::{Proxy, body, until, workspace_root};
use http::Response;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.wide]
    wasm = "{dir}/wide.wasm"
    config = { word = "castle" }
    grants = { upstreams = ["side"], zones = ["notes", "counts"] }

    [zones.notes]
    kind = "kv"
    size = "1MiB"

    [zones.counts]
    kind = "counter"
    size = "1MiB"

    [listeners.web]
    bind = "{listen}"
    plugins = ["wide"]

    [upstreams.app]
    peers = ["{app}"]
    balance = { plugin = "wide" }

    [upstreams.side]
    peers = ["{side}"]

    [[routes]]
    upstream = "app"
"#;

/// Module in `tests/editions`.
fn module(name: &str) -> Vec<u8> {
    let file = workspace_root().join("tests/editions").join(name);
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Answers with what it was sent: target, headers and body.
fn telling() -> Origin {
    origin::answering(|seen| {
        let body = String::from_utf8_lossy(&seen.body);
        let told = format!("{} {:?} {body}", seen.target, seen.headers);
        Response::new(body::full(told))
    })
}

#[test]
fn a_plugin_of_the_first_edition_does_all_that_it_did() {
    let proxy = Proxy::with_config(CONFIG)
        .file("wide.wasm", module("wide-0.1.0.wasm"))
        .origin("app", telling())
        .origin("side", origin::text("side"))
        .start();

    // Rewritten, routed again, with what a call out, zones and a body filter have made of it.
    let reply = proxy.get_with("/old", &[("x-forget", "me")]);
    let told = reply.text();
    assert!(told.ends_with('!'), "{told}");
    for part in ["/new?from=old", "x-word", "castle", "x-asked", "side"] {
        assert!(told.contains(part), "no {part} in {told}");
    }
    assert!(!told.contains("x-forget"), "{told}");
    assert_eq!(reply.header("x-listed"), Some("2 /new"));

    let sent = proxy.post("/echo", body::full("shout")).text();
    assert!(sent.contains("SHOUT"), "{sent}");

    let streamed = proxy.get("/streamed");
    assert_eq!(streamed.text(), "piece one, piece two!");
    assert_eq!(streamed.header("x-kind"), Some("streamed"));

    let whole = proxy.post("/whole", body::full("12345"));
    assert_eq!(whole.text(), "5 true true 0 computed-wide true!");
    assert_eq!(whole.header("x-kind"), Some("whole"));

    let hooks =
        "hooks: post_read rewrite preaccess access content response_headers response_body log";
    proxy.until_log_has(hooks);
    proxy.until_log_has("content request_body response_headers");
    // `balance` and `peer_done` run in an instance of their own; the latter observes.
    until("its metrics are told", || {
        let metrics = proxy.command("metrics", &[]).expect_success().stdout;
        let told = |what| metrics.contains(&format!("castling_plugin_wide_{what}"));
        told("requests_total") && told("times_bucket") && told("size")
    });
}

#[test]
fn its_config_is_refused_in_its_own_words() {
    let config = CONFIG.replace("castle", "");
    let checked = Proxy::with_config(&config)
        .file("wide.wasm", module("wide-0.1.0.wasm"))
        .origin("app", origin::text("app"))
        .origin("side", origin::text("side"))
        .check();
    checked.expect_error("word is empty");
}
