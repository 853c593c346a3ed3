//! The config of `cargo xtask demo`, on ports that are free: what its text says to try.

use std::fs;

use serde_json::json;

use super::{Done, Outcome, Site, expect, script, site, tool};
use crate::Proxy;

/// Text of `conf/demo.toml` that is another here.
const CHANGED: [(&str, &str); 9] = [
    ("../target/demo/castling.sock", "{dir}/castling.sock"),
    ("../target/demo/modules", "{dir}/modules"),
    ("../target/demo/tls/cert.pem", "site.pem"),
    ("../target/demo/tls/key.pem", "site.key"),
    ("../dist/plugins", "{plugins}"),
    ("127.0.0.1:8080", "{listen}"),
    ("127.0.0.1:8443", "{listen_tls}"),
    ("127.0.0.1:28081", "{listen_a}"),
    ("127.0.0.1:28082", "{listen_b}"),
];

/// The demo's own WebSocket server, in whose place another stands.
const ECHO: &str = "127.0.0.1:28083";

pub(super) fn run(site: &mut Site) -> Outcome {
    let curl = tool::program("curl")?;
    tool::python()?;
    let path = crate::workspace_root().join("conf/demo.toml");
    let mut config = fs::read_to_string(path).expect("a file of the repository");
    for (old, new) in CHANGED {
        expect(config.contains(old), || format!("demo.toml: no {old}"))?;
        config = config.replace(old, new);
    }
    expect(config.contains(ECHO), || format!("demo.toml: no {ECHO}"))?;
    let read = |name: &str| fs::read(site.file(name)).expect("a file of the site");
    let proxy = Proxy::with_config(&config.replace(ECHO, &site.echo()))
        .file("site.pem", read("site.pem"))
        .file("site.key", read("site.key"))
        .start();
    let [plain, tls] = ["listen", "listen_tls"].map(|listener| proxy.address_of(listener));
    let options = ["-k", "--silent", "--write-out", " HTTP/%{http_version}"];
    for (url, version) in [
        (format!("https://{tls}/"), " HTTP/2"),
        (format!("http://{plain}/"), " HTTP/1.1"),
    ] {
        let outcome = tool::run(&curl, &[&options[..], &[&url]].concat());
        let is_it = outcome.stdout.contains("origin") && outcome.stdout.ends_with(version);
        expect(is_it, || format!("curl -k {url}: {outcome:?}"))?;
    }
    let facts = json!({
        "name": site::NAME,
        "plain": plain,
        "tls": tls,
        "frames": "",
        "dir": proxy.path(""),
        "ca": site.file("ca.pem"),
    });
    let file = proxy.path("site.json");
    fs::write(&file, facts.to_string()).expect("a writable folder");
    script::python_with(&file, "websockets_client.py")?;
    Ok(Done::new(
        tool::version(&curl, "--version"),
        "curl -k gets HTTP/2 by https and HTTP/1.1 by http, WebSockets are echoed by wss and ws",
    ))
}
