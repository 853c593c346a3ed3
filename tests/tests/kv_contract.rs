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
        (import "castling" "kv_get_with_ttl"
            (func $get_with_ttl (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "castling" "kv_increment"
            (func $increment (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
        (import "castling" "kv_get_all" (func $get_all (param i32 i32 i32 i32 i32 i32) (result i32)))
        (import "castling" "kv_put_all" (func $put_all (param i32 i32 i32 i32 i64) (result i32)))
        (import "castling" "kv_delete_all" (func $delete_all (param i32 i32 i32 i32) (result i32)))
        (data (i32.const 0) "zkey")
        ;; Keys: "key" and "no".
        (data (i32.const 1024) "\03\00key\02\00no")
        ;; Entries: "a" is "12345678", "b" is empty.
        (data (i32.const 2048) "\01\00\08\00\00\00a12345678\01\00\00\00\00\00b")
        ;; A value that would be of 4 GiB.
        (data (i32.const 3072) "\01\00\ff\ff\ff\ffa")
        ;; Key of no bytes; then nothing but zeroes.
        (data (i32.const 4096) "\00\00")
        (data (i32.const 5000) "KEYS")"#;
    let imports = imports.replace("KEYS", &r"\02\0011".repeat(150));
    let number = |number: &i64, of: &str| format!("({of}.const {number})");
    let call = |name: &str, arguments: &[i64]| {
        let written = arguments.iter().enumerate().map(|(idx, argument)| {
            let is_long = matches!(
                (name, idx),
                ("put", 6) | ("increment", 4 | 5) | ("put_all", 4)
            );
            number(argument, if is_long { "i64" } else { "i32" })
        });
        format!("(call ${name} {})", written.collect::<Vec<_>>().join(" "))
    };
    const OUT: i64 = 0x7fff_ff00;
    // Each hook stores a value first.
    let stored = call("put", &[0, 1, 1, 3, 0, 4, 0, 0, 0, 0]);
    let (traps, bad_argument, limit) = (None, Some(-2), Some(-4));
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
        ("get_with_ttl", &[0, 1, 1, 3, OUT, 100, 0], traps),
        ("get_with_ttl", &[0, 1, 1, 3, 0, 100, OUT], traps),
        ("get_with_ttl", &[0, 1, 1, 3, 0, 3, OUT], traps),
        ("get_with_ttl", &[0, 1, 1, 2, 0, 100, OUT], traps),
        ("get_with_ttl", &[0, 1, 1, 3, 0, 100, 65_529], traps),
        ("get_with_ttl", &[0, 1, 1, 3, OUT, 3, 65_528], Some(4)),
        ("get_with_ttl", &[0, 1, 1, 3, 200, 100, 199], Some(4)),
        ("get_with_ttl", &[0, 1, 1, 0, 200, 100, 300], bad_argument),
        ("increment", &[0, 1, OUT, 3, 1, 0, 200], traps),
        ("increment", &[0, 1, 1, 2, 1, 0, OUT], traps),
        ("increment", &[0, 1, 1, 2, 1, 0, 65_529], traps),
        ("increment", &[0, 1, 1, 2, i64::MIN, 0, 65_528], Some(0)),
        ("increment", &[0, 1, 1, 2, 1, -1, 200], bad_argument),
        // A value of four bytes is no number.
        ("increment", &[0, 1, 1, 3, 1, 0, 200], bad_argument),
        ("get_all", &[0, 1, OUT, 10, 200, 100], traps),
        ("get_all", &[0, 1, 1024, 9, OUT, 100], traps),
        ("get_all", &[0, 1, 1024, 9, 65_525, 100], traps),
        ("get_all", &[0, 1, 1024, 9, OUT, 11], Some(12)),
        ("get_all", &[0, 1, 1024, 9, 65_524, 12], Some(12)),
        // Values may be handed out to where the keys are.
        ("get_all", &[0, 1, 1024, 9, 1020, 100], Some(12)),
        ("get_all", &[0, 1, 1024, 0, 200, 100], Some(0)),
        ("get_all", &[0, 1, 1024, 8, 200, 100], bad_argument),
        ("get_all", &[0, 1, 4096, 2, 200, 100], bad_argument),
        ("get_all", &[0, 1, 4096, 60_000, 200, 100], bad_argument),
        ("put_all", &[0, 1, OUT, 22, 0], traps),
        ("put_all", &[0, 1, 2048, 22, 0], Some(0)),
        ("put_all", &[0, 1, 2048, 22, i64::MAX], Some(0)),
        ("put_all", &[0, 1, 2048, 22, -1], bad_argument),
        ("put_all", &[0, 1, 2048, 21, 0], bad_argument),
        ("put_all", &[0, 1, 3072, 7, 0], bad_argument),
        ("put_all", &[0, 1, 3072, 62_000, 0], bad_argument),
        ("put_all", &[0, 1, 2048, 0, 0], Some(0)),
        ("delete_all", &[0, 1, OUT, 9], traps),
        ("delete_all", &[0, 1, 1024, 9], Some(1)),
        ("delete_all", &[0, 1, 1024, 4], bad_argument),
        // Keys "11": 150 of them, and 100.
        ("delete_all", &[0, 1, 5000, 600], limit),
        ("get_all", &[0, 1, 5000, 600, 200, 100], limit),
        ("get_all", &[0, 1, 5000, 400, 6000, 400], Some(400)),
        ("delete_all", &[0, 1, 5000, 400], Some(0)),
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
