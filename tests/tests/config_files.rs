//! Which files a config may be in, and what reading them costs others.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::process::Command;

use castling_tests::{Proxy, origin};

const REST: &str = r#"
    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
"#;

#[test]
fn a_file_that_would_not_end_or_never_begin_is_refused_with_its_place() {
    let mut proxy = Proxy::with_config(REST)
        .origin("app", origin::text("as before"))
        .file("p.wasm", "")
        .start();
    let made = Command::new("mkfifo").arg(proxy.path("pipe.toml")).status();
    assert!(made.expect("mkfifo").success());
    symlink("/dev/zero", proxy.path("zero.toml")).unwrap();
    File::create(proxy.path("large.toml"))
        .and_then(|file| file.set_len((16 << 20) + 1))
        .unwrap();
    let dir = proxy.path("").display().to_string();
    let dir = dir.trim_end_matches('/');
    for (name, why) in [
        ("pipe.toml", "cannot be read: it is not a regular file"),
        ("zero.toml", "cannot be read: it is not a regular file"),
        (
            "large.toml",
            "is too large: expected at most 16 MiB in one file and 64 MiB in all",
        ),
    ] {
        let said = proxy
            .reload_with(&format!("include = [\"{name}\"]\n{REST}"))
            .expect_refusal()
            .stderr;
        let error = format!("{dir}/castling.toml:1:12: include \"{name}\": {dir}/{name} {why}");
        assert!(said.contains(&error), "expected: {error}\nsaid: {said}");
        // Commands look into the config for the control socket.
        assert_eq!(proxy.status()["workers"].as_array().unwrap().len(), 2);
        assert_eq!(proxy.get("/").text(), "as before");
    }
    std::fs::remove_file(proxy.path("p.wasm")).unwrap();
    symlink(proxy.path("pipe.toml"), proxy.path("p.wasm")).unwrap();
    let plugin = format!("[plugins.p]\nwasm = \"p.wasm\"\n{REST}");
    let said = proxy.reload_with(&plugin).expect_refusal().stderr;
    assert!(
        said.contains("castling.toml:2:8: module ") && said.contains("not a regular file"),
        "{said}"
    );
}

#[test]
fn many_peers_are_loaded_and_served() {
    let peers: Vec<_> = (0..20_000)
        .map(|i| {
            format!(
                "\"127.{}.{}.{}:9\"",
                1 + i / 62_500,
                i / 250 % 250,
                1 + i % 250
            )
        })
        .collect();
    let config = format!(
        "{REST}\n    [upstreams.many]\n    peers = [{}]\n",
        peers.join(", ")
    );
    let proxy = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .start();
    assert_eq!(proxy.get("/").text(), "hello");
}
