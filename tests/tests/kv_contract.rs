//! Kv calls of a module that no compiler of ours would make.

use castling_tests::{Proxy, module, origin};

#[test]
fn calls_that_break_the_contract_are_a_trap_or_a_status() {
    let config = r#"
        [zones.z]
        kind = "kv"
        size = "1MiB"

        [plugins.crude]
        wasm = "crude.wasm"
        grants = { zones = ["z"] }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        path = "/crude"
        plugins = ["crude"]
        upstream = "app"

        [[routes]]
        upstream = "app"
    "#;
    let imports = r#"
        (import "castling" "kv_get" (func $get (param i32 i32 i32 i32 i32 i32) (result i32)))
        (import "castling" "kv_put"
            (func $put (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32) (result i32)))
        (import "castling" "kv_delete" (func $delete (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "castling" "kv_list"
            (func $list (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (data (i32.const 0) "zkey")"#;
    let number = |number: &i64, of: &str| format!("({of}.const {number})");
    let call = |name: &str, arguments: &[i64]| {
        let written = arguments.iter().enumerate().map(|(idx, argument)| {
            let is_ttl = name == "put" && idx == 6;
            number(argument, if is_ttl { "i64" } else { "i32" })
        });
        format!("(call ${name} {})", written.collect::<Vec<_>>().join(" "))
    };
    const OUT: i64 = 0x7fff_ff00;
    // Each hook stores a value first.
    let stored = call("put", &[0, 1, 1, 3, 0, 4, 0, 0, 0, 0]);
    let (traps, bad_argument) = (None, Some(-2));
    for (name, arguments, expected) in [
        ("get", &[0, 1, 1, 3, OUT, 100][..], traps),
        ("get", &[0, 1, OUT, 3, 0, 100], traps),
        ("get", &[OUT, 1, 1, 3, 0, 100], traps),
        // Nothing is written where it does not fit.
        ("get", &[0, 1, 1, 3, OUT, 3], Some(4)),
        ("get", &[0, 1, 1, 3, 65_532, 100], Some(4)),
        ("get", &[0, 1, 1, 3, 65_533, 100], traps),
        ("put", &[0, 1, 1, 3, OUT, 4, 0, 0, 0, 0], traps),
        ("put", &[0, 1, 1, 3, 0, 4, 0, 2, OUT, 4], traps),
        ("put", &[0, 1, 1, 3, 0, 4, -1, 0, 0, 0], bad_argument),
        ("put", &[0, 1, 1, 3, 0, 4, 0, 3, 0, 0], bad_argument),
        ("put", &[0, 1, 1, 3, 0, 4, i64::MAX, 0, 0, 0], Some(1)),
        ("delete", &[0, 1, 1, 3, 2, OUT, 1], traps),
        ("delete", &[0, 1, 1, 3, 77, 0, 0], bad_argument),
        ("delete", &[0, 1, 1, 3, 1, 0, 0], Some(0)),
        ("list", &[0, 1, 0, 0, 0, 0, 0, 0, 100], bad_argument),
        ("list", &[0, 1, 0, 0, 0, 0, 1001, 0, 100], bad_argument),
        ("list", &[0, 1, 0, 0, 0, 0, 9, OUT, 100], traps),
        ("list", &[0, 1, OUT, 1, 0, 0, 9, 0, 100], traps),
        ("list", &[0, 1, 0, 0, 0, 0, 9, 0, 100], Some(2 + 2 + 3)),
    ] {
        let call = call(name, arguments);
        let wanted = number(&expected.unwrap_or(-99), "i32");
        let hook = format!(
            r#"{imports} (func (export "castling_hook_access") (param i32 i32 i32) (result i32)
                (drop {stored})
                (if (result i32) (i32.eq {call} {wanted})
                    (then (i32.const 0)) (else (unreachable))))"#
        );
        let proxy = Proxy::with_config(config)
            .file(
                "crude.wasm",
                module::plugin(&module::manifest(1, r#"["access"]"#), &hook),
            )
            .origin("app", origin::text("hello"))
            .start();
        let workers = proxy.workers();
        let status = proxy.get("/crude").status;
        assert_eq!(status == 200, expected.is_some(), "{name} {arguments:?}");
        if expected.is_none() {
            proxy.until_log_has("outside of its memory");
        }
        assert_eq!(proxy.get("/").text(), "hello");
        assert_eq!(proxy.workers(), workers);
    }
}
