//! A plugin of one's own: the example as its README says, and a crate outside the repository.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use castling_tests::{Proxy, command, origin, workspace_root, xtask_bin};
use http::StatusCode;

/// The plugin of the design, word for word: it must compile as it stands.
const DESIGN: &str = r#"use castling_sdk::prelude::*;

#[derive(Deserialize)]
struct Config { header: HeaderName, tokens: Vec<String> }

struct TokenAuth { config: Config }

#[plugin]
impl TokenAuth {
    fn configure(config: Config) -> Result<Self> { Ok(Self { config }) }

    fn access(&self, request: &mut Request) -> Verdict {
        match request.header(&self.config.header) {
            Some(token) if self.config.tokens.iter().any(|t| token == t.as_str()) => {
                request.set_var("user", &token);
                Verdict::Continue
            }
            _ => Response::status(401).body("token required").into(),
        }
    }
}
"#;

// A single worker, so that the lines of the access log are in the order of the requests.
const GATEWAY: &str = r#"
    [workers]
    count = 1

    [access_log]
    file = "{dir}/access.log"
    format = "$status $user"
    flush = "0s"

    [plugins.token-auth]
    wasm = "plugin.wasm"
    config = { header = "x-token", tokens = ["s3cret"] }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["token-auth"]
    upstream = "app"
"#;

#[test]
fn a_crate_outside_the_repository_is_built_dropped_in_and_seen_at_work() {
    let outside = tempfile::tempdir().unwrap();
    let sdk = workspace_root().join("sdk");
    let manifest = format!(
        "[package]\nname = \"my-auth\"\nversion = \"1.2.3\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\n\
         [dependencies]\ncastling-sdk = {{ path = {sdk:?} }}\n"
    );
    std::fs::create_dir(outside.path().join("src")).unwrap();
    std::fs::write(outside.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::write(outside.path().join("src/lib.rs"), DESIGN).unwrap();
    seen_at_work(&build(outside.path()));
}

#[test]
fn the_example_is_the_plugin_of_the_design_and_works() {
    let example = workspace_root().join("examples/first-plugin");
    let source = std::fs::read_to_string(example.join("src/lib.rs")).unwrap();
    let code = |text: &str| -> String { text.split_whitespace().collect() };
    let without_docs: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    // The plugin's unit test stands below it.
    let plugin = without_docs.split("#[cfg(test)]").next().unwrap();
    let words = code(plugin).replace(",}", "}");
    assert_eq!(words, code(DESIGN).replace(",}", "}"));
    seen_at_work(&build(&example));
}

#[test]
fn the_example_runs_as_its_readme_says() {
    let config =
        std::fs::read_to_string(workspace_root().join("examples/first-plugin/castling.toml"))
            .unwrap();
    // Other ports, and the modules where this run has them.
    let config = config
        .replace("127.0.0.1:8080", "{listen}")
        .replace("127.0.0.1:9001", "{listen_origin}")
        .replace("../../dist/plugins", "{plugins}");
    let proxy = Proxy::with_config(&config).start();
    let refused = proxy.get("/");
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (StatusCode::UNAUTHORIZED, "token required")
    );
    let passed = proxy.get_with("/", &[("x-token", "s3cret")]);
    assert_eq!(passed.status, StatusCode::OK);
    assert!(passed.text().contains("hello"), "{}", passed.text());
}

/// `xtask build-plugin DIR --out FILE`; the module.
#[track_caller]
fn build(dir: &Path) -> Vec<u8> {
    let out = tempfile::tempdir().unwrap();
    let module = out.path().join("plugin.wasm");
    let mut build = Command::new(xtask_bin());
    build.arg("build-plugin").arg(dir).arg("--out").arg(&module);
    // The library of a new target may be compiled first.
    command::run(build, Duration::from_secs(240)).expect_success();
    std::fs::read(&module).unwrap()
}

#[track_caller]
fn seen_at_work(module: &[u8]) {
    let setup = Proxy::with_config(GATEWAY)
        .file("plugin.wasm", module)
        .origin("app", origin::text("let in"));
    let proxy = setup.start();
    proxy.check().expect_success();
    let refused = proxy.get("/");
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (StatusCode::UNAUTHORIZED, "token required")
    );
    assert_eq!(
        proxy.get_with("/", &[("x-token", "wrong")]).status,
        StatusCode::UNAUTHORIZED
    );
    let passed = proxy.get_with("/", &[("x-token", "s3cret")]);
    assert_eq!(
        (passed.status, passed.text().as_str()),
        (StatusCode::OK, "let in")
    );
    assert_eq!(
        proxy.until_access_lines(3),
        ["401 -", "401 -", "200 s3cret"]
    );
    assert_eq!(proxy.origin("app").requests(), 1);
}
