//! Instances that are made from a snapshot of what `configure` has made of the first, and those that must not be.

use castling_tests::{Exposition, Proxy, module, until};

/// Each request has an instance of its own.
const CONFIG: &str = r#"
    [workers]
    count = 1

    [log]
    level = "debug"

    [plugins.twin]
    wasm = "{guests}/twin.wasm"
    isolation = "request"
    grants = { zones = ["draws"] }
    config = CONFIG

    [zones.draws]
    kind = "counter"
    size = "1MiB"

    [listeners.web]
    bind = "{listen}"

    [[routes]]
    plugins = ["twin"]
"#;

fn config(config: &str) -> String {
    CONFIG.replace("CONFIG", config)
}

fn start(settings: &str) -> Proxy {
    Proxy::with_config(&config(settings)).start()
}

const FROM_SNAPSHOT: &str = "further instances are made from a snapshot";
const CONFIGURED: &str = "`configure` runs for each instance";

/// Label, what `configure` drew, how often the instance has answered, whether what it filled is whole.
#[track_caller]
fn answers(proxy: &Proxy, times: usize) -> Vec<String> {
    (0..times).map(|_| proxy.get("/").text()).collect()
}

#[test]
fn instances_from_a_snapshot_are_as_configured_and_know_nothing_of_one_another() {
    for bytes in [1000, 50_000, 700_000] {
        let settings = format!(r#"{{ draws = "nothing", label = "a", bytes = {bytes} }}"#);
        let proxy = start(&settings);
        proxy.until_log_has(FROM_SNAPSHOT);
        // Each counts its answers and overwrites what it had filled.
        assert_eq!(answers(&proxy, 20), ["a 0 1 true"; 20], "{bytes} bytes");
    }
    // More would be copied in one piece, where `configure` takes turns with others.
    let proxy = start(r#"{ draws = "nothing", label = "a", bytes = 2_000_000 }"#);
    proxy.until_log_has(CONFIGURED);
    assert_eq!(answers(&proxy, 5), ["a 0 1 true"; 5]);
    // Draws that are not written to the log may be left out.
    let proxy = start(r#"{ draws = "unwritten", label = "b" }"#);
    proxy.until_log_has(FROM_SNAPSHOT);
    assert_eq!(answers(&proxy, 3), ["b 0 1 true"; 3]);
}

#[test]
fn what_configure_draws_is_drawn_for_each_instance() {
    for draws in ["random", "monotonic", "wall", "counter"] {
        let proxy = start(&format!(r#"{{ draws = "{draws}", label = "a" }}"#));
        proxy.until_log_has(CONFIGURED);
        let mut drawn = answers(&proxy, 20);
        assert!(
            drawn.iter().all(|answer| answer.ends_with(" 1 true")),
            "{drawn:?}"
        );
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn.len(), 20, "{draws}: {drawn:?}");
    }
}

#[test]
fn what_configure_logs_is_logged_for_each_instance() {
    let proxy = start(r#"{ draws = "log", label = "a" }"#);
    answers(&proxy, 5);
    // The one that it is loaded with is the first.
    until("six lines", || {
        proxy.log().matches("a twin is configured").count() == 6
    });
}

#[test]
fn instances_after_a_reload_have_the_new_config() {
    let mut proxy = start(r#"{ draws = "nothing", label = "old" }"#);
    assert_eq!(answers(&proxy, 3), ["old 0 1 true"; 3]);
    let new = config(r#"{ draws = "nothing", label = "new" }"#);
    proxy.reload_with(&new).expect_success();
    until("the new generation answers", || {
        proxy.get("/").text() == "new 0 1 true"
    });
    assert_eq!(answers(&proxy, 3), ["new 0 1 true"; 3]);
}

#[test]
fn metrics_that_configure_has_defined_count_from_all_instances() {
    let proxy = start(r#"{ draws = "nothing" }"#);
    proxy.until_log_has(FROM_SNAPSHOT);
    for idx in 0..30 {
        proxy.get_with("/", &[("x-key", ["a", "b", "c"][idx % 3])]);
    }
    let told = Exposition::parse(&proxy.command("metrics", &[]).expect_success().stdout);
    // `all` was looked up in `configure`, the others in hooks.
    for (key, count) in [("all", 30.0), ("a", 10.0), ("b", 10.0), ("c", 10.0)] {
        let labels = [("plugin", "twin"), ("key", key)];
        let found = told.get("castling_plugin_twin_answers_total", &labels);
        assert_eq!(found, Some(count), "{key}");
    }
}

/// Modules with state that the host does not see: a start function, tables that change, segments that are dropped, a
/// global that is no number.
#[test]
fn a_module_with_hidden_state_is_configured_each_time() {
    let seen = r#"(table 1 funcref) (global (mut i32) (i32.const 0))"#;
    let table = "(table 1 funcref)";
    let cases = [
        ("seen", seen.to_owned(), FROM_SNAPSHOT),
        ("start", "(start 0) (func)".to_owned(), CONFIGURED),
        (
            "reference",
            "(global (mut funcref) (ref.null func))".to_owned(),
            CONFIGURED,
        ),
        (
            "set",
            format!("{table} (func (table.set 0 (i32.const 0) (ref.null func)))"),
            CONFIGURED,
        ),
        (
            "grow",
            format!("{table} (func (drop (table.grow 0 (ref.null func) (i32.const 1))))"),
            CONFIGURED,
        ),
        (
            "fill",
            format!("{table} (func (table.fill 0 (i32.const 0) (ref.null func) (i32.const 1)))"),
            CONFIGURED,
        ),
        (
            "copy",
            format!("{table} (func (table.copy 0 0 (i32.const 0) (i32.const 0) (i32.const 1)))"),
            CONFIGURED,
        ),
        (
            "init",
            format!(
                "{table} (elem func 0) (func (table.init 0 0 (i32.const 0) (i32.const 0) (i32.const 1)))"
            ),
            CONFIGURED,
        ),
        (
            "elem",
            "(elem func 0) (func (elem.drop 0))".to_owned(),
            CONFIGURED,
        ),
        (
            "data",
            r#"(data "x") (func (data.drop 0))"#.to_owned(),
            CONFIGURED,
        ),
        (
            "name",
            r#"(func (export "castling:global:7"))"#.to_owned(),
            CONFIGURED,
        ),
        (
            "many",
            "(global (mut i32) (i32.const 0))".repeat(101),
            CONFIGURED,
        ),
    ];
    let plugins = cases
        .iter()
        .map(|(name, _, _)| format!("[plugins.{name}]\nwasm = \"{name}.wasm\"\n"));
    let config = r#"
        [workers]
        count = 1

        [log]
        level = "debug"

        PLUGINS

        [listeners.web]
        bind = "{listen}"

        [[routes]]
        plugins = ["seen"]
        metrics = true
    "#
    .replace("PLUGINS", &plugins.collect::<String>());
    let hook =
        r#"(func (export "castling_hook_access") (param i32 i32 i32) (result i32) i32.const 0)"#;
    let manifest = module::manifest(1, r#"["access"]"#);
    let files = cases.iter().map(|(name, fields, _)| {
        // Last, so that the functions of the case have the lowest numbers.
        (
            format!("{name}.wasm"),
            module::plugin(&manifest, &format!("{fields} {hook}")),
        )
    });
    let setup = files.fold(Proxy::with_config(&config), |setup, (name, module)| {
        setup.file(&name, module)
    });
    let proxy = setup.start();
    for (name, _, expected) in cases {
        proxy.until_log_has(&format!("{expected} plugin=\"{name}\""));
    }
}
