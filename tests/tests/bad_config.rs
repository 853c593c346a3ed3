//! A bad config, a bad module or a bad command gets a clear error, and nothing lost.

use castling_tests::{Proxy, module, origin, until};

// The config: every error has its place, from `check` and from `reload`.

#[test]
fn a_config_that_is_not_toml_is_refused_with_its_place() {
    refused(
        r#"
        [listeners.web
        bind = "127.0.0.1:1"
        "#,
        "castling.toml:1:15: ",
    );
}

#[test]
fn an_unknown_key_is_refused_with_its_place() {
    refused(
        r#"
        [listeners.web]
        bind = "127.0.0.1:1"
          idle_timout = "5s"

        [upstreams.app]
        peers = ["127.0.0.1:2"]

        [[routes]]
        upstream = "app"
        "#,
        "castling.toml:3:3: ",
    );
}

#[test]
fn a_wrong_type_is_refused_with_its_place() {
    refused(
        r#"
        [listeners.web]
        bind = "127.0.0.1:1"

        [upstreams.app]
        peers = ["127.0.0.1:2"]
        tries = "three"

        [[routes]]
        upstream = "app"
        "#,
        "castling.toml:6:9: ",
    );
}

#[test]
fn a_number_out_of_range_is_refused_with_the_range() {
    refused(
        r#"
        [listeners.web]
        bind = "127.0.0.1:1"

        [upstreams.app]
        peers = [{ address = "127.0.0.1:2", weight = 0 }]

        [[routes]]
        upstream = "app"
        "#,
        "castling.toml:5:46: weight 0: expected 1 to 65535",
    );
}

#[test]
fn a_missing_module_is_refused_with_its_place() {
    let config = r#"
        [listeners.web]
        bind = "127.0.0.1:1"

        [plugins.gone]
        wasm = "nowhere/gone.wasm"

        [[routes]]
        plugins = ["gone"]
    "#;
    refused(config, "castling.toml:5:8: ");
    refused(config, "nowhere/gone.wasm");
}

#[test]
fn a_missing_included_file_is_refused_with_its_place() {
    refused(
        r#"
        include = ["conf.d/gone.toml"]
        [listeners.web]
        bind = "127.0.0.1:1"
        "#,
        "castling.toml:1:12: ",
    );
}

#[test]
fn a_missing_config_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone.toml");
    let said = castling_tests::command::castling("check", &gone, &[])
        .expect_refusal()
        .stderr;
    assert!(said.contains("gone.toml"), "{said}");
}

#[test]
fn a_route_to_an_unknown_upstream_is_refused_with_its_place() {
    let config = r#"
        [listeners.web]
        bind = "127.0.0.1:1"

        [upstreams.app]
        peers = ["127.0.0.1:2"]

        [[routes]]
        upstream = "apq"
    "#;
    refused(config, "castling.toml:8:12: ");
    refused(config, "app");
}

#[test]
fn an_error_in_an_included_file_names_that_file() {
    let setup = Proxy::with_config(
        r#"
        include = ["conf.d/*.toml"]

        [listeners.web]
        bind = "127.0.0.1:1"
        "#,
    );
    let setup = setup.file("conf.d/site.toml", "[[routes]]\nupstream = 'nobody'\n");
    setup.check().expect_error("{dir}/conf.d/site.toml:2:12: ");
}

#[test]
fn all_errors_are_told_at_once() {
    let checked = Proxy::with_config(
        r#"
        [listeners.web]
        bind = "127.0.0.1:1"

        [upstreams.app]
        peers = ["127.0.0.1:2"]
        connect_timeout = "soon"

        [[routes]]
        upstream = "nobody"
        "#,
    )
    .check();
    let said = checked.outcome.expect_refusal().stderr;
    assert!(
        said.contains("castling.toml:6:19: ") && said.contains("castling.toml:9:12: "),
        "{said}"
    );
}

/// Settings that are found wrong only when they are used.
#[test]
fn a_path_or_format_that_cannot_be_used_is_told_once_with_its_place() {
    const REST: &str = r#"
        [listeners.web]
        bind = "{listen}"
        [zones.z]
        kind = "kv"
        size = "1MiB"
        [[routes]]
        metrics = true
    "#;
    let with = |section: &str| Proxy::with_config(&format!("{section}\n{REST}"));
    let format = "[access_log]\nfile = \"off\"\nformat = 'a ${b'";
    let said = with(format).check().outcome.expect_refusal().stderr;
    assert_eq!(said.matches("access_log.format").count(), 1, "{said}");
    with(format)
        .check()
        .expect_error("{dir}/castling.toml:3:10: access_log.format: `${` without `}`");
    let field = "[access_log]\nfile = \"off\"\nformat = { json = { a = '$b', c = '$D' } }";
    with(field)
        .check()
        .expect_error("{dir}/castling.toml:3:35: access_log.format: `$D` is no variable's name");

    let none = "[log]\nfile = \"{dir}/none/a.log\"";
    let error = "{dir}/castling.toml:2:8: log.file: {dir}/none/a.log: ";
    with(none).check().expect_error(error);
    with(none).run().expect_error(error);

    // A file lies where the folder should be.
    let file = "{dir}/castling.toml";
    for (key, value, error) in [
        (
            "control",
            "/a.sock",
            ":2:11: control socket {dir}/castling.toml/a.sock: ",
        ),
        (
            "module_store",
            "/m",
            ":2:16: module store {dir}/castling.toml/m: ",
        ),
        (
            "zone_store",
            "/z",
            ":2:14: zone store {dir}/castling.toml/z: ",
        ),
        (
            "pid_file",
            "/pid",
            ":2:12: pid file {dir}/castling.toml/pid: ",
        ),
    ] {
        let control = match key {
            "control" => "",
            _ => "control = \"{dir}/c.sock\"",
        };
        let section = format!("[master]\n{key} = \"{file}{value}\"\n{control}");
        with(&section).run().expect_error(&format!("{file}{error}"));
    }
}

#[test]
fn a_reload_with_a_bad_config_tells_the_place_and_changes_nothing() {
    let mut proxy = Proxy::before(origin::text("as before"));
    let workers = proxy.workers();
    let said = proxy.reload_with(
        r#"
        [listeners.web]
        bind = "{listen}"

        [[routes]]
        upstream = "nobody"
        "#,
    );
    let said = said.expect_refusal().stderr;
    assert!(said.contains("castling.toml:5:12: "), "{said}");
    // A worker of the refused generation may still be ending.
    until("only the workers of before run", || {
        proxy.workers() == workers
    });
    assert_eq!(proxy.get("/").text(), "as before");
}

#[test]
fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = r#"
        [listeners.web]
        bind = "ADDRESS"

        [upstreams.app]
        peers = ["127.0.0.1:2"]

        [[routes]]
        upstream = "app"
    "#;
    let said = Proxy::with_config(&config.replace("ADDRESS", &address))
        .run()
        .outcome
        .expect_refusal()
        .stderr;
    assert!(
        said.contains("castling.toml:2:8: listener \"web\"") && said.contains(&address),
        "{said}"
    );
}

// Modules: refused by `check`, and by `reload`, which leaves everything as it was.

#[test]
fn what_is_not_wasm_is_refused() {
    bad_module(b"#!/bin/sh\necho hi\n".to_vec(), &["bad", "bad.wasm"]);
}

#[test]
fn a_module_cut_short_is_refused() {
    let mut cut = std::fs::read(castling_tests::plugin("token_auth")).unwrap();
    cut.truncate(cut.len() / 2);
    bad_module(cut, &["bad", "bad.wasm"]);
}

#[test]
fn a_module_of_another_abi_version_is_refused() {
    let manifest = module::manifest(7, r#"["access"]"#);
    bad_module(module::plugin(&manifest, ACCESS), &["bad", "7", "1", "ABI"]);
}

#[test]
fn a_module_without_hooks_is_refused() {
    bad_module(
        module::plugin(&module::manifest(1, "[]"), ""),
        &["bad", "hook"],
    );
}

#[test]
fn a_module_without_a_manifest_is_refused() {
    bad_module(
        module::assemble(r#"(module (memory (export "memory") 1))"#),
        &["bad", "castling.manifest"],
    );
}

#[test]
fn a_module_that_imports_something_unknown_is_refused() {
    let import = r#"(import "castling" "launch_missiles" (func (param i32)))"#;
    let fields = format!("{import} {ACCESS}");
    bad_module(
        module::plugin(&module::manifest(1, r#"["access"]"#), &fields),
        &["bad", "launch_missiles"],
    );
    let import = r#"(import "wasi_snapshot_preview2" "proc_exit" (func (param i32)))"#;
    let fields = format!("{import} {ACCESS}");
    bad_module(
        module::plugin(&module::manifest(1, r#"["access"]"#), &fields),
        &["bad", "wasi_snapshot_preview2"],
    );
}

#[test]
fn a_module_whose_manifest_names_a_hook_that_it_does_not_export_is_refused() {
    bad_module(
        module::plugin(&module::manifest(1, r#"["access"]"#), ""),
        &["bad", "access"],
    );
}

#[test]
fn a_hook_that_would_never_run_is_refused() {
    let hook =
        r#"(func (export "castling_hook_post_read") (param i32 i32 i32) (result i32) i32.const 0)"#;
    let module = module::plugin(&module::manifest(1, r#"["post_read"]"#), hook);
    bad_module(module, &["bad", "post_read", "castling.toml:10:1: "]);
}

#[test]
fn a_manifest_that_promises_what_cannot_be_is_refused() {
    let hook = |name: &str| {
        format!(
            r#"(func (export "castling_hook_{name}") (param i32 i32 i32) (result i32) i32.const 0)"#
        )
    };
    let with = |hooks: &str, more: &str| {
        module::manifest(1, hooks).replace("\"state\":false", &format!("\"state\":false{more}"))
    };
    for (name, more, said) in [
        (
            "variable",
            "",
            "no `variables`, which its `variable` hook needs",
        ),
        (
            "variable",
            r#","variables":["Shoe"]"#,
            "names variable \"Shoe\"; expected `a-z`",
        ),
        (
            "variable",
            r#","variables":["a","a"]"#,
            "names variable \"a\"; expected",
        ),
        ("timer", "", "no `timer`, which its `timer` hook needs"),
        (
            "timer",
            r#","timer":{"every_ms":1,"on":"workers"}"#,
            "runs every 1 ms; expected 10 to 86400000",
        ),
        (
            "timer",
            r#","timer":{"every_ms":50,"on":"moon"}"#,
            "unknown variant `moon`",
        ),
    ] {
        let manifest = with(&format!("[\"{name}\"]"), more);
        bad_module(module::plugin(&manifest, &hook(name)), &["bad", said]);
    }
}

#[test]
fn a_plugin_that_refuses_its_config_names_the_key_and_its_place() {
    let config = r#"
        [listeners.web]
        bind = "127.0.0.1:1"

        [plugins.auth]
        wasm = "{plugins}/token_auth.wasm"
        config = { header = "x-token", tokens = ["good", 5] }

        [upstreams.app]
        peers = ["127.0.0.1:2"]

        [[routes]]
        plugins = ["auth"]
        upstream = "app"
    "#;
    refused(config, "tokens[1]");
    refused(config, "castling.toml:6:50: ");
}

#[test]
fn what_a_plugins_config_holds_is_told_to_nobody() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [plugins.auth]
        wasm = "{plugins}/token_auth.wasm"
        config = { header = "x-token", tokens = { from_env = "TOKENS", default = "s3cret-s3cret" } }

        [upstreams.app]
        peers = ["127.0.0.1:2"]

        [[routes]]
        plugins = ["auth"]
        upstream = "app"
    "#;
    let error = "castling.toml:6:41: plugin auth: config.tokens: invalid type: a string of 13 bytes, expected a sequence";
    for outcome in [
        Proxy::with_config(config).check().outcome,
        Proxy::with_config(config).run().outcome,
    ] {
        let said = outcome.expect_refusal().stderr;
        assert!(said.contains(error) && !said.contains("s3cret"), "{said}");
    }
}

/// An access hook that does nothing.
const ACCESS: &str =
    r#"(func (export "castling_hook_access") (param i32 i32 i32) (result i32) i32.const 0)"#;

/// `check` refuses this config and says `error`.
#[track_caller]
fn refused(config: &str, error: &str) {
    Proxy::with_config(config).check().expect_error(error);
}

/// `check` refuses a config with this module, and so does `reload` of a gateway that serves without it; both name all
/// of `facts`, and the gateway serves on.
#[track_caller]
fn bad_module(module: Vec<u8>, facts: &[&str]) {
    let with_plugin = r#"
        [plugins.bad]
        wasm = "bad.wasm"

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["bad"]
        upstream = "app"
    "#;
    let mut proxy = Proxy::before(origin::text("as before"));
    let workers = proxy.workers();
    std::fs::write(proxy.path("bad.wasm"), module).unwrap();
    proxy.write_config(with_plugin);
    for said in [proxy.check(), proxy.reload()] {
        let said = said.expect_refusal().stderr;
        for fact in facts {
            assert!(said.contains(fact), "no {fact:?} in: {said}");
        }
    }
    // A worker of the refused generation may still be ending.
    until("only the workers of before run", || {
        proxy.workers() == workers
    });
    assert_eq!(proxy.get("/").text(), "as before");
}
