//! Plugins built for `wasm32-wasip1`: what they find of WASI, and what they are refused.

use castling_tests::{Proxy, guests_dir, module, tools, until};
use http::StatusCode;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [log]
    level = "debug"

    [plugins.printer]
    wasm = "WASM"
    isolation = "ISOLATION"
    config = CONFIG

    [listeners.web]
    bind = "{listen}"

    [[routes]]
    plugins = ["printer"]
"#;

/// A gateway with the guest that std's target for WASI was needed for; `None` where it was not built, which is said.
fn printer(isolation: &str, config: &str) -> Option<Proxy> {
    if !guests_dir().join("printer.wasm").exists() {
        tools::skipped("no plugin was built for wasm32-wasip1");
        return None;
    }
    let config = CONFIG
        .replace("WASM", "{guests}/printer.wasm")
        .replace("ISOLATION", isolation)
        .replace("CONFIG", config);
    Some(Proxy::with_config(&config).start())
}

fn lines_of(proxy: &Proxy, text: &str) -> Vec<String> {
    let log = proxy.log();
    let lines = log.lines().filter(|line| line.contains(text));
    lines.map(str::to_owned).collect()
}

#[test]
fn what_is_printed_is_a_line_of_the_log() {
    let Some(proxy) = printer("call", "{}") else {
        return;
    };
    assert_eq!(proxy.get("/print").text(), "printed");
    proxy.until_log_has("two");
    for (text, level) in [
        ("one", "INFO"),
        ("two", "INFO"),
        ("three and 4", "WARN"),
        ("begun", "WARN"),
        ("\u{fffd}\\u{1b}[31m", "INFO"),
    ] {
        let lines = lines_of(&proxy, text);
        assert_eq!(lines.len(), 1, "{text}: {lines:?}");
        assert!(
            lines[0].contains(level) && lines[0].contains("printer"),
            "{lines:?}"
        );
    }
}

#[test]
fn clocks_random_bytes_and_their_crates_work() {
    let Some(proxy) = printer("call", "{}") else {
        return;
    };
    assert_eq!(proxy.get("/time").text(), "true true");
    assert_eq!(proxy.get("/random").text(), "true true true");
    assert_eq!(proxy.get("/ambient").text(), "0 0");
    let (first, second) = (proxy.get("/uuid").text(), proxy.get("/uuid").text());
    assert_eq!((first.len(), first == second), (36, false));
}

#[test]
fn an_instance_that_draws_nothing_is_made_from_a_snapshot() {
    let Some(proxy) = printer("request", "{}") else {
        return;
    };
    proxy.until_log_has("further instances are made from a snapshot");
    for _ in 0..5 {
        assert_eq!(proxy.get("/time").text(), "true true");
        assert_eq!(proxy.get("/random").text(), "true true true");
    }
}

#[test]
fn what_configure_draws_is_drawn_for_each_instance() {
    for does in ["uuid", "time"] {
        let Some(proxy) = printer("request", &format!(r#"{{ does = "{does}" }}"#)) else {
            return;
        };
        proxy.until_log_has("`configure` runs for each instance");
        let mut drawn: Vec<String> = (0..10).map(|_| proxy.get("/drawn").text()).collect();
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn.len(), 10, "{does}: {drawn:?}");
    }
    // The keys of a map are random.
    let Some(proxy) = printer("request", r#"{ does = "map" }"#) else {
        return;
    };
    proxy.until_log_has("`configure` runs for each instance");
    assert_eq!(proxy.get("/drawn").text(), "{1: 2}");
}

#[test]
fn what_configure_prints_is_printed_for_each_instance() {
    let Some(proxy) = printer("request", r#"{ does = "print" }"#) else {
        return;
    };
    for _ in 0..3 {
        proxy.get("/drawn");
    }
    until("four lines", || {
        lines_of(&proxy, "a printer is configured").len() == 4
    });
}

#[test]
fn a_plugin_that_ends_itself_costs_its_request() {
    let Some(proxy) = printer("call", "{}") else {
        return;
    };
    let worker = proxy.workers();
    for (path, told) in [
        ("/exit", "it ended itself by proc_exit(7)"),
        ("/panic", "asked to panic"),
    ] {
        let reply = proxy.get(path);
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
        proxy.until_log_has(told);
    }
    assert_eq!(proxy.get("/ambient").text(), "0 0");
    assert_eq!(proxy.workers(), worker);
}

#[test]
fn a_plugin_that_ends_itself_in_configure_is_refused() {
    if printer("call", "{}").is_none() {
        return;
    }
    let config = CONFIG
        .replace("WASM", "{guests}/printer.wasm")
        .replace("ISOLATION", "call")
        .replace("CONFIG", r#"{ does = "leave" }"#);
    let checked = Proxy::with_config(&config).check();
    checked.expect_error("it ended itself by proc_exit(3)");
}

#[test]
fn a_flood_of_lines_is_bounded_by_the_log_and_by_limits() {
    let Some(proxy) = printer("call", "{}") else {
        return;
    };
    let worker = proxy.workers();
    let reply = proxy.get("/flood");
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    // Of time or of host calls, whichever the machine comes to first.
    proxy.until_log_has("plugin printer failed in content: limits.");
    proxy.until_log_has("log lines of plugin printer were dropped");
    // Longer than any line of the log, in several writes.
    assert_eq!(proxy.get("/long").status, StatusCode::OK);
    proxy.until_log_has("longlong");
    let longest = lines_of(&proxy, "longlong")
        .iter()
        .map(String::len)
        .max()
        .unwrap_or_default();
    assert!(longest < 5000, "{longest} bytes");
    assert_eq!(proxy.workers(), worker);
}

/// A plugin without a compiler: answers with status 200 and what `body` leaves on the stack beyond it.
fn by_hand(fields: &str, body: &str) -> Vec<u8> {
    let fields = format!(
        r#"
        (import "castling" "answer" (func $answer (param i32 i32 i32 i32 i32) (result i32)))
        {fields}
        (data (i32.const 1024) "hand-written\n")
        (data (i32.const 2048) "\00\04\00\00\0d\00\00\00")
        (func $body (result i32) {body})
        (func (export "castling_hook_content") (param i32 i32 i32) (result i32)
            (drop (call $answer (i32.add (i32.const 200) (call $body)) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
            (i32.const 1))"#
    );
    module::plugin(&module::manifest(1, r#"["content"]"#), &fields)
}

/// Imports a function of WASI as `$f`.
fn import(name: &str, ty: &str) -> String {
    format!(r#"(import "wasi_snapshot_preview1" "{name}" (func $f {ty}))"#)
}

fn config_by_hand() -> String {
    CONFIG
        .replace("WASM", "{dir}/hand.wasm")
        .replace("ISOLATION", "call")
        .replace("CONFIG", "{}")
}

fn start_by_hand(fields: &str, body: &str) -> Proxy {
    Proxy::with_config(&config_by_hand())
        .file("hand.wasm", by_hand(fields, body))
        .start()
}

const TWO: &str = "(param i32 i32) (result i32)";
const THREE: &str = "(param i32 i32 i32) (result i32)";
const FOUR: &str = "(param i32 i32 i32 i32) (result i32)";
const TIME: &str = "(param i32 i64 i32) (result i32)";

#[test]
fn each_function_answers_as_wasi_says() {
    let cases = [
        (
            "fd_write",
            FOUR,
            "(call $f (i32.const 1) (i32.const 2048) (i32.const 1) (i32.const 0))",
            200,
        ),
        (
            "fd_write",
            FOUR,
            "(call $f (i32.const 3) (i32.const 2048) (i32.const 1) (i32.const 0))",
            208,
        ),
        (
            "fd_write",
            FOUR,
            "(call $f (i32.const 0) (i32.const 2048) (i32.const 1) (i32.const 0))",
            208,
        ),
        // Written in part: 1024 pieces of 16 bytes at most.
        (
            "fd_write",
            FOUR,
            "(drop (call $f (i32.const 1) (i32.const 2048) (i32.const 7000) (i32.const 0)))
            (i32.gt_u (i32.load (i32.const 0)) (i32.const 16384))",
            200,
        ),
        (
            "fd_seek",
            "(param i32 i64 i32 i32) (result i32)",
            "(call $f (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0))",
            270,
        ),
        (
            "fd_seek",
            "(param i32 i64 i32 i32) (result i32)",
            "(call $f (i32.const 5) (i64.const 0) (i32.const 0) (i32.const 0))",
            208,
        ),
        (
            "fd_close",
            "(param i32) (result i32)",
            "(call $f (i32.const 1))",
            208,
        ),
        (
            "fd_prestat_get",
            TWO,
            "(call $f (i32.const 3) (i32.const 0))",
            208,
        ),
        (
            "fd_prestat_dir_name",
            THREE,
            "(call $f (i32.const 3) (i32.const 0) (i32.const 9))",
            208,
        ),
        (
            "fd_fdstat_get",
            TWO,
            "(call $f (i32.const 0) (i32.const 0))",
            208,
        ),
        (
            "fd_fdstat_get",
            TWO,
            "(drop (call $f (i32.const 1) (i32.const 0))) (i32.load8_u (i32.const 0))",
            202,
        ),
        (
            "args_sizes_get",
            TWO,
            "(i32.store (i32.const 4) (i32.const 9))
            (drop (call $f (i32.const 0) (i32.const 4))) (i32.load (i32.const 4))",
            200,
        ),
        (
            "environ_sizes_get",
            TWO,
            "(i32.store (i32.const 0) (i32.const 9))
            (drop (call $f (i32.const 0) (i32.const 4))) (i32.load (i32.const 0))",
            200,
        ),
        (
            "args_get",
            TWO,
            "(call $f (i32.const -1) (i32.const -1))",
            200,
        ),
        (
            "environ_get",
            TWO,
            "(call $f (i32.const -1) (i32.const -1))",
            200,
        ),
        (
            "clock_time_get",
            TIME,
            "(call $f (i32.const 0) (i64.const 1) (i32.const 0))",
            200,
        ),
        (
            "clock_time_get",
            TIME,
            "(call $f (i32.const 2) (i64.const 1) (i32.const 0))",
            228,
        ),
        (
            "clock_res_get",
            TWO,
            "(drop (call $f (i32.const 1) (i32.const 0))) (i32.load (i32.const 0))",
            201,
        ),
        (
            "clock_res_get",
            TWO,
            "(call $f (i32.const 7) (i32.const 0))",
            228,
        ),
        (
            "random_get",
            TWO,
            "(call $f (i32.const 0) (i32.const 65536))",
            200,
        ),
        (
            "random_get",
            TWO,
            "(drop (memory.grow (i32.const 1))) (call $f (i32.const 0) (i32.const 65537))",
            228,
        ),
        ("sched_yield", "(result i32)", "(call $f)", 200),
    ];
    for (name, ty, body, status) in cases {
        let proxy = start_by_hand(&import(name, ty), body);
        assert_eq!(proxy.get("/").status, status, "{name}: {body}");
    }
}

#[test]
fn pointers_outside_of_memory_trap() {
    let cases = [
        (
            "fd_write",
            FOUR,
            "(call $f (i32.const 1) (i32.const 65532) (i32.const 1) (i32.const 0))",
        ),
        (
            "fd_write",
            FOUR,
            "(call $f (i32.const 1) (i32.const 2048) (i32.const -1) (i32.const 0))",
        ),
        // Eight times that is 8 in 32 bits.
        (
            "fd_write",
            FOUR,
            "(call $f (i32.const 1) (i32.const 2048) (i32.const 0x20000001) (i32.const 0))",
        ),
        (
            "fd_write",
            FOUR,
            "(call $f (i32.const 1) (i32.const 2048) (i32.const 1) (i32.const -2))",
        ),
        (
            "fd_write",
            FOUR,
            "(i32.store (i32.const 2052) (i32.const -1))
            (call $f (i32.const 1) (i32.const 2048) (i32.const 1) (i32.const 0))",
        ),
        (
            "fd_write",
            FOUR,
            "(i32.store (i32.const 2048) (i32.const -1))
            (call $f (i32.const 1) (i32.const 2048) (i32.const 1) (i32.const 0))",
        ),
        (
            "random_get",
            TWO,
            "(call $f (i32.const 1) (i32.const 65536))",
        ),
        ("random_get", TWO, "(call $f (i32.const 0) (i32.const -1))"),
        (
            "clock_time_get",
            TIME,
            "(call $f (i32.const 0) (i64.const 0) (i32.const 65529))",
        ),
        (
            "clock_res_get",
            TWO,
            "(call $f (i32.const 0) (i32.const -4))",
        ),
        (
            "fd_fdstat_get",
            TWO,
            "(call $f (i32.const 1) (i32.const 65520))",
        ),
        (
            "args_sizes_get",
            TWO,
            "(call $f (i32.const 0) (i32.const 65533))",
        ),
    ];
    for (name, ty, body) in cases {
        let proxy = start_by_hand(&import(name, ty), body);
        let worker = proxy.workers();
        let status = proxy.get("/").status;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{name}: {body}");
        proxy.until_log_has("outside of its memory");
        assert_eq!(proxy.workers(), worker);
    }
}

#[test]
fn a_line_that_ends_with_its_hook_is_told_also_when_that_traps() {
    let write = import("fd_write", FOUR);
    // All but the line's end.
    let begin = "(i32.store (i32.const 2052) (i32.const 12))
        (drop (call $f (i32.const 2) (i32.const 2048) (i32.const 1) (i32.const 0)))";
    let proxy = start_by_hand(&write, &format!("{begin} (i32.const 0)"));
    proxy.get("/");
    proxy.until_log_has("hand-written");
    let proxy = start_by_hand(&write, &format!("{begin} {begin} unreachable"));
    proxy.get("/");
    proxy.until_log_has("hand-writtenhand-written");
}

#[test]
fn a_reactor_is_initialized_once_before_configure() {
    let fields = r#"
        (global $began (mut i32) (i32.const 0))
        (func (export "_initialize") (global.set $began (i32.add (global.get $began) (i32.const 1))))"#;
    // Each request has an instance of its own, from a snapshot.
    let config = config_by_hand().replace("\"call\"", "\"request\"");
    let proxy = Proxy::with_config(&config)
        .file("hand.wasm", by_hand(fields, "(global.get $began)"))
        .start();
    proxy.until_log_has("further instances are made from a snapshot");
    for _ in 0..3 {
        assert_eq!(proxy.get("/").status, 201);
    }
    // One that draws random bytes has none.
    let draws = format!(
        r#"{} (func (export "_initialize") (drop (call $f (i32.const 0) (i32.const 1))))"#,
        import("random_get", TWO)
    );
    let proxy = Proxy::with_config(&config)
        .file("hand.wasm", by_hand(&draws, "(i32.load8_u (i32.const 0))"))
        .start();
    proxy.until_log_has("`configure` runs for each instance");
    let mut drawn: Vec<u16> = (0..20).map(|_| proxy.get("/").status.as_u16()).collect();
    drawn.dedup();
    assert!(drawn.len() > 1, "{drawn:?}");
}

#[test]
fn what_a_plugin_does_not_have_of_wasi_is_refused_by_name() {
    let refused = |fields: &str, told: &str| {
        Proxy::with_config(&config_by_hand())
            .file("hand.wasm", by_hand(fields, "(i32.const 0)"))
            .check()
            .expect_error(told);
    };
    let open = "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)";
    refused(
        &import("path_open", open),
        "it imports `path_open` of WASI, which this gateway does not offer: `castling_sdk::files`",
    );
    refused(&import("poll_oneoff", FOUR), "`poll_oneoff` of WASI");
    refused(&import("sock_send", FOUR), "`sock_send` of WASI");
    refused(&import("fd_read", FOUR), "`fd_read` of WASI");
    refused(&import("no\\nsuch", FOUR), "`no\\nsuch` of WASI");
    refused(
        &import("fd_write", TWO),
        "it imports `fd_write` as (i32, i32) -> i32, which this gateway offers as (i32, i32, i32, i32) -> i32",
    );
    refused(
        r#"(import "wasi_unstable" "fd_write" (func))"#,
        "it imports `wasi_unstable.fd_write`, which this gateway does not offer",
    );
    refused(
        r#"(func (export "_initialize") (result i32) (i32.const 0))"#,
        "it exports `_initialize` as () -> i32; expected ()",
    );
    // A trap there is told as one of `configure` is.
    refused(
        r#"(func (export "_initialize") unreachable)"#,
        "unreachable",
    );
}
