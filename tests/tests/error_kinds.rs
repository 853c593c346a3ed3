//! Kinds of errors: what a plugin is told, and what its client gets when a hook returns the error.

use std::net::TcpListener;

use castling_tests::hostile::hostile;
use castling_tests::{Proxy, Setup, body, module, origin, raw_origin};
use http::{Request, StatusCode};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [zones.small]
    kind = "kv"
    size = "1MiB"

    [plugins.failing]
    wasm = "{guests}/failing.wasm"
    grants = { upstreams = ["app", "closed", "silent", "broken", "long"], zones = ["small"] }
    limits = { body = "2KiB" }

    [plugins.lenient]
    wasm = "{guests}/failing.wasm"
    grants = { upstreams = ["closed"], zones = [] }
    on_error = "skip"

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.closed]
    peers = ["CLOSED"]

    [upstreams.silent]
    peers = ["{silent}"]

    [upstreams.broken]
    peers = ["{broken}"]

    [upstreams.long]
    peers = ["{long}"]

    [[routes]]
    plugins = ["failing"]
    upstream = "app"

    [[routes]]
    path = "/lenient"
    plugins = ["lenient"]
    upstream = "app"
"#;

fn setup() -> Setup {
    // A port that nobody listens at any more.
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let closed = closed.expect("a port is free").to_string();
    let broken = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        connection.send("nothing that is HTTP\r\n\r\n");
        Ok(())
    });
    Proxy::with_config(&CONFIG.replace("CLOSED", &closed))
        .origin("app", origin::text("hello"))
        .origin("silent", raw_origin::stalled())
        .origin("broken", broken)
        .origin("long", origin::text("x".repeat(3000).leak()))
}

#[test]
fn each_kind_is_told_and_has_its_status() {
    let proxy = setup().start();
    for (wish, kind, status) in [
        ("call-briefly silent", "Timeout|", 504),
        ("call closed", "Refused|", 502),
        ("call broken", "Broken|", 502),
        ("call long", "Limit|", 503),
        ("call nobody", "NotGranted|", 500),
        (
            "call-badly app",
            "BadArgument { call: \"http::send(\\\"app\\\", GET no-slash)\", expected: \"a target that begins with /\" }|",
            500,
        ),
        ("subrequest", "NotGranted|", 500),
        ("fill small", "Limit|", 503),
        ("read-body 100", "TooLarge|", 413),
        ("own", "Own|it was asked to", 500),
        ("parse", "Own|invalid digit", 500),
    ] {
        let ask = |told: bool| {
            let mut request = Request::post("/").header("x-do", wish);
            if told {
                request = request.header("x-told", "yes");
            }
            proxy.send(request.body(body::full(vec![b'b'; 101])).unwrap())
        };
        let told = ask(true).text();
        assert!(told.starts_with(kind), "{wish}: {told}");
        assert_eq!(ask(false).status.as_u16(), status, "{wish}");
    }
}

#[test]
fn a_plugin_that_may_fail_is_passed_over_whatever_the_kind() {
    let proxy = setup().start();
    let reply = proxy.get_with("/lenient", &[("x-do", "call closed")]);
    assert_eq!(reply.text(), "hello");
}

/// Module whose `access` fails with this.
fn failing_with(fail: &str) -> Vec<u8> {
    module::plugin(
        &module::manifest(1, "[\"access\"]"),
        &format!(
            r#"(import "castling" "fail" (func $fail (param i32 i32)))
               (import "castling" "fail_with" (func $fail_with (param i32 i32 i32)))
               (func (export "castling_hook_access") (param i32 i32 i32) (result i32)
                   {fail}
                   i32.const -1)"#
        ),
    )
}

#[test]
fn a_kind_that_is_none_is_the_plugins_own_and_the_last_one_counts() {
    for (fail, status) in [
        ("(call $fail (i32.const 16) (i32.const 4))", 500),
        (
            "(call $fail_with (i32.const 1) (i32.const 16) (i32.const 4))",
            504,
        ),
        (
            "(call $fail_with (i32.const 999) (i32.const 16) (i32.const 4))",
            500,
        ),
        (
            "(call $fail_with (i32.const -1) (i32.const 16) (i32.const 4))",
            500,
        ),
        (
            "(call $fail_with (i32.const 1) (i32.const 16) (i32.const 4)) (call $fail (i32.const 16) (i32.const 4))",
            500,
        ),
        (
            "(call $fail_with (i32.const 1) (i32.const -4) (i32.const 4))",
            500,
        ),
    ] {
        let config = r#"
            [plugins.old]
            wasm = "old.wasm"

            [listeners.web]
            bind = "{listen}"

            [upstreams.app]
            peers = ["{app}"]

            [[routes]]
            plugins = ["old"]
            upstream = "app"
        "#;
        let proxy = Proxy::with_config(config)
            .file("old.wasm", failing_with(fail))
            .origin("app", origin::text("hello"))
            .start();
        assert_eq!(proxy.get("/").status.as_u16(), status, "{fail}");
    }
}

#[test]
fn a_limit_that_a_change_was_refused_for_is_503() {
    let proxy = hostile("limits = { headers = 2 }");
    let reply = proxy.get_with("/", &[("x-do", "add-headers"), ("x-times", "5")]);
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
}
