//! Files that the config grants to plugins.

use std::fs;

use castling_tests::{Proxy, Setup, module, origin, until};
use http::StatusCode;

const CONFIG: &str = r#"
    [workers]
    count = 2

    [plugins.reader]
    wasm = "{guests}/reader.wasm"
    grants = { files = ["list", "data/other"] }

    [listeners.web]
    bind = "{listen}"

    [[routes]]
    plugins = ["reader"]
"#;

fn setup(config: &str) -> Setup {
    Proxy::with_config(config)
        .file("list", "0123456789")
        .file("data/other", "other")
        .file("secret", "secret")
}

/// Puts a new file in the place of another.
fn replace(proxy: &Proxy, name: &str, contents: &str) {
    fs::write(proxy.path("new"), contents).unwrap();
    fs::rename(proxy.path("new"), proxy.path(name)).unwrap();
}

#[test]
fn a_plugin_reads_what_it_is_granted_and_nothing_else() {
    let proxy = setup(CONFIG).start();
    let read = |headers: &[(&str, &str)]| proxy.get_with("/", headers);
    let whole = read(&[]);
    assert_eq!(whole.text(), "0123456789");
    assert_eq!(whole.header("x-length"), Some("10"));
    assert_eq!(whole.header("x-first"), Some("true"));
    assert_eq!(read(&[("x-at", "8"), ("x-len", "100")]).text(), "89");
    for beyond in ["10", "11", "9223372036854775807", "18446744073709551615"] {
        assert_eq!(read(&[("x-at", beyond), ("x-len", "4")]).text(), "");
    }
    assert_eq!(read(&[("x-file", "data/other")]).text(), "other");
    for name in ["secret", "./list", "data/../list", "/etc/passwd", "lis"] {
        let refused = read(&[("x-file", name)]);
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{name}");
        assert!(
            refused.text().ends_with("not granted"),
            "{}",
            refused.text()
        );
    }
}

#[test]
fn a_file_that_is_replaced_is_picked_up_and_a_hook_reads_one_version() {
    let proxy = setup(CONFIG).start();
    let mut slow = proxy.raw();
    assert_eq!(proxy.get("/").text(), "0123456789");
    slow.send("GET / HTTP/1.1\r\nHost: a\r\nX-Wait: 4000\r\n\r\n");
    replace(&proxy, "list", "another list");
    // Each worker hears of it: some requests in a row meet both.
    until("all workers have the new file", || {
        (0..20).all(|_| proxy.get("/").text() == "another list")
    });
    assert_eq!(proxy.get("/").header("x-first"), Some("false"));
    assert_eq!(slow.read_reply().text(), "0123456789");
    // A file that is gone leaves what there was.
    fs::remove_file(proxy.path("list")).unwrap();
    proxy.until_log_has("a granted file cannot be read");
    assert_eq!(proxy.get("/").text(), "another list");
    // A file that is cut short where it lies takes nobody's memory away.
    replace(&proxy, "list", &"x".repeat(100_000));
    until("the third file is there", || {
        (0..20).all(|_| proxy.get("/").text().len() == 100_000)
    });
    fs::write(proxy.path("list"), "").unwrap();
    until("it is empty", || proxy.get("/").text().is_empty());
    let workers = proxy.workers();
    replace(&proxy, "list", "last");
    proxy.reload().expect_success();
    // A reload has the newest at once.
    assert_eq!(proxy.get("/").text(), "last");
    assert_ne!(proxy.workers(), workers);
}

#[test]
fn what_may_not_be_granted_is_refused_with_its_place() {
    let bad = |setup: Setup, error: &str| setup.check().expect_error(error);
    let link = setup(CONFIG);
    fs::remove_file(link.folder().join("data/other")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", link.folder().join("data/other")).unwrap();
    bad(
        link,
        "castling.toml:6:29: file data/other cannot be opened: it leads out of ",
    );
    let folder = setup(&CONFIG.replace("data/other", "data"));
    bad(
        folder,
        "castling.toml:6:29: file data cannot be opened: it is not a regular file",
    );
    let large = setup(&CONFIG.replace("count = 2", "count = 2\nmax_granted_file = '1KiB'"));
    let large = large.file("list", vec![0; 1025]);
    bad(
        large,
        "castling.toml:7:25: plugin reader: file list: it is larger than workers.max_granted_file of 1024 bytes",
    );
    let none = setup(&CONFIG.replace("grants =", "#"));
    bad(
        none,
        "reads files, which nothing grants; expected `grants = { files = [...] }`",
    );
    let other = setup(&CONFIG.replace("\"list\", ", ""));
    bad(other, "plugin reader: files::open(\"list\"): not granted");
}

#[test]
fn what_a_hostile_module_asks_of_a_file_is_refused_or_traps() {
    let manifest = module::manifest(1, r#"["access"]"#);
    let calls = [
        // A number that is no file's, facts that there are none of, an offset below zero.
        "(drop (call $read (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 10)))",
        "(drop (call $read (i32.const -1) (i64.const 0) (i32.const 0) (i32.const 10)))",
        "(drop (call $read (i32.const 0) (i64.const -1) (i32.const 0) (i32.const 10)))",
        "(drop (call $fact (i32.const 0) (i32.const 99)))",
        "(drop (call $fact (i32.const 7) (i32.const 0)))",
        "(drop (call $open (i32.const 0) (i32.const 65536)))",
        // Room outside of its memory.
        "(drop (call $read (i32.const 0) (i64.const 0) (i32.const 65530) (i32.const 10)))",
    ];
    let traps = [false, false, false, false, false, false, true];
    for (call, traps) in calls.iter().zip(traps) {
        let fields = format!(
            r#"(import "castling" "file_open" (func $open (param i32 i32) (result i32)))
            (import "castling" "file_fact" (func $fact (param i32 i32) (result i64)))
            (import "castling" "file_read" (func $read (param i32 i64 i32 i32) (result i32)))
            (func (export "castling_hook_access") (param i32 i32 i32) (result i32) {call} i32.const 0)"#
        );
        let config = CONFIG
            .replace("{guests}/reader.wasm", "{dir}/hostile.wasm")
            .replace("\"list\", \"data/other\"", "\"list\"")
            .replace(
                "plugins = [\"reader\"]",
                "plugins = [\"reader\"]\nupstream = \"app\"",
            );
        let config = format!("{config}\n[upstreams.app]\npeers = [\"{{app}}\"]\n");
        let proxy = setup(&config)
            .file("hostile.wasm", module::plugin(&manifest, &fields))
            .origin("app", origin::text("on"))
            .start();
        let status = match traps {
            true => StatusCode::INTERNAL_SERVER_ERROR,
            false => StatusCode::OK,
        };
        assert_eq!(proxy.get("/").status, status, "{call}");
    }
}
