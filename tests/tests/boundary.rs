//! Rights of each hook, told by modules that ask for just that.

use castling_tests::{Proxy, module, origin, until};

/// Sets the client's address in the hook `post_read` to 10.9.9.9, which must go, and in `access` to 10.8.8.8, which
/// must not.
const ADDRESS_SETTER: &str = r#"
    (import "castling" "property_set" (func $set (param i32 i32 i32) (result i32)))
    (data (i32.const 1024) "10.9.9.9")
    (data (i32.const 1032) "10.8.8.8")
    (func (export "castling_hook_post_read") (param i32 i32 i32) (result i32)
        (if (i32.ne (call $set (i32.const 4) (i32.const 1024) (i32.const 8)) (i32.const 0)) (then unreachable))
        (i32.const 0))
    (func (export "castling_hook_access") (param i32 i32 i32) (result i32)
        (if (i32.ne (call $set (i32.const 4) (i32.const 1032) (i32.const 8)) (i32.const -3)) (then unreachable))
        (i32.const 0))
"#;

#[test]
fn a_clients_address_is_set_in_post_read_alone() {
    let manifest = module::manifest(1, r#"["post_read", "access"]"#);
    let config = r#"
        [plugins.setter]
        wasm = "{dir}/setter.wasm"

        [listeners.web]
        bind = "{listen}"
        plugins = ["setter"]

        [access_log]
        file = "{dir}/access.log"
        flush = "0s"
        format = "$status $client_address"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .file("setter.wasm", module::plugin(&manifest, ADDRESS_SETTER))
        .origin("app", origin::text("hello"))
        .start();
    assert_eq!(proxy.get("/").text(), "hello");
    assert_eq!(proxy.until_access_lines(1), ["200 10.9.9.9"]);
}

/// Answers 204 to the path `/a`, and lets pass what has a longer one.
const ANSWERER: &str = r#"
    (import "castling" "answer" (func $answer (param i32 i32 i32 i32 i32) (result i32)))
    (import "castling" "property_get" (func $get (param i32 i32 i32) (result i32)))
    (func (export "castling_hook_rewrite") (param i32 i32 i32) (result i32)
        (if (i32.ne (call $get (i32.const 1) (i32.const 1024) (i32.const 64)) (i32.const 2)) (then (return (i32.const 0))))
        (drop (call $answer (i32.const 204) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
        (i32.const 1))
"#;

#[test]
fn a_plugin_that_answers_in_rewrite_needs_no_upstream() {
    let manifest = module::manifest(1, r#"["rewrite"]"#);
    let config = r#"
        [plugins.answerer]
        wasm = "{dir}/answerer.wasm"

        [listeners.web]
        bind = "{listen}"

        [[routes]]
        plugins = ["answerer"]
    "#;
    let proxy = Proxy::with_config(config)
        .file("answerer.wasm", module::plugin(&manifest, ANSWERER))
        .start();
    assert_eq!(proxy.get("/a").status, 204);
    assert_eq!(proxy.get("/other").status, 404);
}

/// Writes a response of one piece in `content`. In `response_headers` it makes an answer and does not say that it answers.
const LEAVES_AN_ANSWER: &str = r#"
    (import "castling" "response_begin" (func $begin (param i32 i32 i32 i64) (result i32)))
    (import "castling" "response_write" (func $write (param i32 i32) (result i32)))
    (import "castling" "answer" (func $answer (param i32 i32 i32 i32 i32) (result i32)))
    (data (i32.const 1024) "piece")
    (func (export "castling_hook_content") (param i32 i32 i32) (result i32)
        (if (call $begin (i32.const 200) (i32.const 0) (i32.const 0) (i64.const -1)) (then unreachable))
        (if (call $write (i32.const 1024) (i32.const 5)) (then unreachable))
        (i32.const 1))
    (func (export "castling_hook_response_headers") (param i32 i32 i32) (result i32)
        (if (call $answer (i32.const 204) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)) (then unreachable))
        (i32.const 0))
"#;

#[test]
fn an_answer_that_is_left_behind_does_not_follow_a_streamed_response() {
    let manifest = module::manifest(1, r#"["content", "response_headers"]"#);
    let config = r#"
        [plugins.streamer]
        wasm = "{dir}/streamer.wasm"

        [listeners.web]
        bind = "{listen}"

        [[routes]]
        plugins = ["streamer"]
    "#;
    let proxy = Proxy::with_config(config)
        .file("streamer.wasm", module::plugin(&manifest, LEAVES_AN_ANSWER))
        .start();
    let mut client = proxy.raw();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let reply = client.read_reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "piece"));
    }
}

/// Writes a warning with the fields `user` and `level`.
const SPEAKER: &str = r#"
    (import "castling" "log_fields" (func $log (param i32 i32 i32 i32 i32)))
    (data (i32.const 1024) "slow answer")
    (data (i32.const 1040) "\04\00\06\00\00\00userAda L.\05\00\04\00\00\00levelhigh")
    (func (export "castling_hook_access") (param i32 i32 i32) (result i32)
        (call $log (i32.const 1) (i32.const 1024) (i32.const 11) (i32.const 1040) (i32.const 31))
        (i32.const 0))
"#;

#[test]
fn a_plugins_fields_are_fields_of_the_line() {
    let said = |format: &str| {
        let config = r#"
            [log]
            format = "FORMAT"

            [plugins.speaker]
            wasm = "{dir}/speaker.wasm"

            [listeners.web]
            bind = "{listen}"

            [upstreams.app]
            peers = ["{app}"]

            [[routes]]
            plugins = ["speaker"]
            upstream = "app"
        "#;
        let manifest = module::manifest(1, r#"["access"]"#);
        let proxy = Proxy::with_config(&config.replace("FORMAT", format))
            .file("speaker.wasm", module::plugin(&manifest, SPEAKER))
            .origin("app", origin::text("hello"))
            .start();
        assert_eq!(proxy.get("/").text(), "hello");
        until("the line is there", || proxy.log().contains("slow answer"));
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains("slow answer"));
        line.unwrap().to_owned()
    };
    let line: serde_json::Value = serde_json::from_str(&said("json")).unwrap();
    for (key, value) in [
        ("level", "WARN"),
        ("message", "slow answer"),
        ("plugin", "speaker"),
        ("user", "Ada L."),
        ("plugin.level", "high"),
    ] {
        assert_eq!(line[key], value, "{line}");
    }
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    let line = said("text");
    let expected = r#"slow answer plugin="speaker" level=high user="Ada L.""#;
    assert!(line.contains("WARN") && line.contains(expected), "{line}");
}
