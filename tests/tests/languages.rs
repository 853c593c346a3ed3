//! Plugins in other languages, by the ABI alone: the examples of docs/plugins/languages.md, compiled and run.

use std::fs;
use std::path::{Path, PathBuf};

use castling_tests::tools::{run, tool};
use castling_tests::{Proxy, Setup, origin, workspace_root};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.greeter]
    wasm = "{dir}/greeter.wasm"
    config = CONFIG

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["greeter"]
    upstream = "app"
"#;

fn setup(module: &Path, config: &str) -> Setup {
    Proxy::with_config(&CONFIG.replace("CONFIG", config))
        .file("greeter.wasm", fs::read(module).expect("a module"))
        .origin("app", origin::text("app"))
}

/// Does what each of the examples does.
#[track_caller]
fn greets(module: &Path, language: &str) {
    let proxy = setup(module, r#"{ greeting = "good day" }"#).start();
    for (path, answer) in [("/hello", "good day"), ("/", "app"), ("/hello/you", "app")] {
        let reply = proxy.get(path);
        assert_eq!(reply.text(), answer, "{path}");
        assert_eq!(reply.header("x-greeter"), Some(language), "{path}");
    }
    setup(module, "{}").check().expect_error("greeting");
    setup(
        module,
        &format!("{{ greeting = '{}' }}", "long".repeat(300)),
    )
    .check()
    .expect_error("the config is longer than 1024 bytes");
}

/// Folder of an example, and a module that is to be made in a folder of the test's.
fn example(language: &str) -> (PathBuf, tempfile::TempDir, PathBuf) {
    let folder = workspace_root().join("examples/languages").join(language);
    let out = tempfile::tempdir().expect("a temporary folder");
    let module = out.path().join("greeter.wasm");
    (folder, out, module)
}

#[test]
fn c() {
    let (Some(mut clang), Some(_)) = (tool("clang"), tool("wasm-ld")) else {
        return;
    };
    let (folder, _out, module) = example("c");
    clang
        .args([
            "--target=wasm32",
            "-O2",
            "-Wall",
            "-Werror",
            "-fno-builtin",
            "-nostdlib",
        ])
        .args(["-I../../../sdk/c", "-Wl,--no-entry", "greeter.c", "-o"])
        .arg(&module)
        .current_dir(folder);
    run(&mut clang);
    greets(&module, "c");
}

#[test]
fn zig() {
    let Some(mut zig) = tool("zig") else {
        return;
    };
    let (folder, out, module) = example("zig");
    zig.args(["build-exe", "greeter.zig", "-target", "wasm32-freestanding"])
        .args(["-O", "ReleaseSmall", "-fno-entry", "-rdynamic"])
        .arg(format!("-femit-bin={}", module.display()))
        .arg("--cache-dir")
        .arg(out.path().join("cache"))
        .current_dir(folder);
    run(&mut zig);
    greets(&module, "zig");
}

#[test]
fn assemblyscript() {
    let (Some(mut asc), Some(mut node)) = (tool("asc"), tool("node")) else {
        return;
    };
    let (folder, _out, module) = example("assemblyscript");
    asc.args([
        "greeter.ts",
        "-O",
        "--runtime",
        "stub",
        "--exportStart",
        "_initialize",
    ])
    .args(["--use", "abort=greeter/aborted", "-o"])
    .arg(&module)
    .current_dir(&folder);
    run(&mut asc);
    run(node.arg("manifest.mjs").arg(&module).current_dir(&folder));
    greets(&module, "assemblyscript");
}
