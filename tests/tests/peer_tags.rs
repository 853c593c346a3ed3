//! Tags and names of peers, which plugins choose by.

use std::fs;

use castling_tests::{Proxy, module, origin, until};
use http::StatusCode;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.tagger]
    wasm = "{guests}/tagger.wasm"

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = [{ address = "{a}", tags = ["v1", "gpu"] }, { address = "{b}", tags = ["v2"] }]
    peers_file = "app.peers"
    balance = { plugin = "tagger" }

    [upstreams.spare]
    peers = ["{c}"]

    [[routes]]
    upstream = "app"

    [[routes]]
    path = "/spare"
    upstream = "spare"
"#;

#[test]
fn a_plugin_chooses_by_tag_and_name_of_config_and_file() {
    let [a, b, c] = ["a", "b", "c"].map(origin::text);
    let (at_b, at_c) = (b.address().to_string(), c.address().to_string());
    let listed = |tags: &str| format!("peers = [{{ address = \"{at_c}\", tags = {tags} }}]");
    let proxy = Proxy::with_config(CONFIG)
        .file("app.peers", listed("[\"v3\"]"))
        .origin("a", a)
        .origin("b", b)
        .origin("c", c)
        .start();
    for _ in 0..4 {
        for (tag, text) in [("v1", "a"), ("gpu", "a"), ("v2", "b"), ("v3", "c")] {
            assert_eq!(proxy.get_with("/", &[("x-tag", tag)]).text(), text, "{tag}");
        }
        assert_eq!(proxy.get_with("/", &[("x-name", &at_b)]).text(), "b");
        // The gateway chooses where nobody has the tag.
        let other = proxy.get_with("/", &[("x-tag", "v")]);
        assert_eq!(other.status, StatusCode::OK);
    }
    proxy.get_with("/", &[("x-tell", "yes")]);
    proxy.until_log_has("tags: v1+gpu|v2|v3");
    // The file says others.
    let path = proxy.path("app.peers");
    fs::write(path.with_extension("new"), listed("[\"v4\", \"gpu-2\"]")).expect("a new file");
    fs::rename(path.with_extension("new"), path).expect("it is moved");
    until("the new tags are there", || {
        (0..3).all(|_| proxy.get_with("/", &[("x-tag", "v4")]).text() == "c")
    });
}

#[test]
fn facts_of_peers_that_are_none_are_not_found() {
    // Asks of a peer beyond the last one, in a hook that chooses nothing, and for an address that is none.
    let module = |hook: &str, call: &str, expected: &str| {
        module::plugin(
            &module::manifest(1, &format!("[\"{hook}\"]")),
            &format!(
                r#"(import "castling" "peer_tags" (func $tags (param i32 i32 i32) (result i32)))
                   (import "castling" "peer_name" (func $name (param i32 i32 i32) (result i32)))
                   (func (export "castling_hook_{hook}") (param i32 i32 i32) (result i32)
                       (if (i32.ne ({call}) (i32.const {expected})) (then unreachable))
                       i32.const {result})"#,
                result = if hook == "balance" { -1 } else { 0 }
            ),
        )
    };
    let room = "(i32.const 0) (i32.const 100)";
    for (hook, call, expected, status) in [
        (
            "balance",
            format!("call $tags (i32.const 1) {room}"),
            "-1",
            200,
        ),
        (
            "balance",
            format!("call $name (i32.const -1) {room}"),
            "-1",
            200,
        ),
        (
            "balance",
            format!("call $tags (i32.const 0) {room}"),
            "4",
            200,
        ),
        (
            "balance",
            "call $tags (i32.const 0) (i32.const -1) (i32.const 100)".to_owned(),
            "4",
            500,
        ),
        (
            "access",
            format!("call $tags (i32.const 0) {room}"),
            "-3",
            200,
        ),
    ] {
        let config = r#"
            [plugins.crude]
            wasm = "crude.wasm"

            [listeners.web]
            bind = "{listen}"

            [upstreams.app]
            peers = [{ address = "{app}", tags = ["v1"] }]
            BALANCE

            [[routes]]
            PLUGINS
            upstream = "app"
        "#;
        let (balance, plugins) = match hook {
            "balance" => ("balance = { plugin = \"crude\" }", ""),
            _ => ("", "plugins = [\"crude\"]"),
        };
        let config = config
            .replace("BALANCE", balance)
            .replace("PLUGINS", plugins);
        let proxy = Proxy::with_config(&config)
            .file("crude.wasm", module(hook, &call, expected))
            .origin("app", origin::text("hello"))
            .start();
        assert_eq!(proxy.get("/").status.as_u16(), status, "{hook} {call}");
    }
}
