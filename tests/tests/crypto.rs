//! Cryptography that the gateway does for plugins.

use std::thread;

use castling_tests::{Proxy, module, origin};
use http::StatusCode;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.hasher]
    wasm = "{guests}/hasher.wasm"

    [listeners.web]
    bind = "{listen}"

    [[routes]]
    plugins = ["hasher"]
"#;

/// `htpasswd -nbB`'s of "myPassword", by cost 5.
const BCRYPT: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

#[test]
fn digests_codes_and_seals_are_those_of_the_standards() {
    let proxy = Proxy::with_config(CONFIG).start();
    let done = |what: &str, data: &str| {
        let reply = proxy.get_with("/", &[("x-do", what), ("x-data", data)]);
        reply.text()
    };
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(done("digest", "abc"), abc);
    assert_eq!(done("hmac", "abc").len(), 128);
    assert_eq!(done("seal", "plain"), "33 None Some(Ok(\"plain\"))");
    // RFC 8032 §7.1, test 2.
    let key = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    let verified = |data: &str, key: &str| {
        let headers = [("x-do", "signature"), ("x-data", data), ("x-key", key)];
        let headers = [&headers[..], &[("x-signature", signature)]].concat();
        proxy.get_with("/", &headers).text()
    };
    assert_eq!(verified("r", key), "true");
    assert_eq!(verified("s", key), "false");
    assert!(verified("r", "00").ends_with("bad argument: expected a public key"));
}

#[test]
fn a_call_has_a_bound_of_what_it_works_on_at_once() {
    let config = CONFIG.replace(
        "hasher.wasm\"",
        "hasher.wasm\"\n    limits = { memory = \"32MiB\" }",
    );
    let proxy = Proxy::with_config(&config).start();
    let reply = proxy.get_with("/", &[("x-do", "too much")]);
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    proxy.until_log_has("crypto::digest of 16777217 bytes; at most 16777216 a call");
    let reply = proxy.get_with("/", &[("x-do", "digest"), ("x-data", "abc")]);
    assert_eq!(
        reply.status,
        StatusCode::OK,
        "one call has failed, and no more"
    );
}

#[test]
fn passwords_are_hashed_while_others_are_served() {
    let proxy = Proxy::with_config(CONFIG).start();
    let reply = |headers: &[(&str, &str)]| proxy.get_with("/", headers);
    let verify = |hash: &str, password: &str| {
        reply(&[("x-do", "verify"), ("x-hash", hash), ("x-data", password)]).text()
    };
    thread::scope(|scope| {
        for what in ["argon2id", "bcrypt", "pbkdf2"] {
            scope.spawn(move || {
                let hash = reply(&[("x-do", what), ("x-data", "secret")]).text();
                assert!(hash.starts_with('$'), "{hash}");
                assert_eq!(verify(&hash, "secret"), "true", "{hash}");
                assert_eq!(verify(&hash, "Secret"), "false", "{hash}");
            });
        }
        for _ in 0..100 {
            assert_eq!(reply(&[]).text(), "nothing");
        }
    });
    assert_eq!(verify(BCRYPT, "myPassword"), "true");
    proxy.until_log_has("verify in log: crypto::verify_password: not in this hook");
    // A client that leaves while its hash is made leaves the turn to others.
    let mut left = proxy.raw();
    left.send("GET / HTTP/1.1\r\nHost: a\r\nX-Do: bcrypt\r\nX-Data: x\r\n\r\n");
    drop(left);
    assert_eq!(verify(BCRYPT, "myPassword"), "true");
}

#[test]
fn what_costs_too_much_is_refused() {
    let proxy = Proxy::with_config(CONFIG).start();
    let told = |hash: &str, times: &str| {
        let headers = [("x-do", "verify"), ("x-data", "x"), ("x-hash", hash)];
        let reply = proxy.get_with("/", &[&headers[..], &[("x-times", times)]].concat());
        (reply.status.as_u16(), reply.text())
    };
    let tail = "$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    for hash in [
        format!("$argon2id$v=19$m=4194304,t=1,p=1{tail}"),
        format!("$argon2id$v=19$m=64,t=4294967295,p=1{tail}"),
        format!("$pbkdf2-sha256$i=4294967295{tail}"),
        BCRYPT.replace("$05$", "$31$"),
        "$".repeat(300),
    ] {
        let (status, said) = told(&hash, "1");
        assert_eq!(status, 413, "{said}");
        assert!(said.contains("limit reached"), "{said}");
    }
    for hash in ["", "$2y$05$", "$argon2id$v=19$m=64,t=1,p=1$$", "\u{e4}"] {
        assert_eq!(told(hash, "1").0, 400, "{hash}");
    }
    // A request has so many hashes as calls out.
    assert_eq!(told(BCRYPT, "32"), (200, "false".to_owned()));
    let (status, said) = told(BCRYPT, "33");
    assert_eq!(status, 413, "{said}");
}

#[test]
fn a_flood_of_hashes_is_refused_and_the_others_go_on() {
    let proxy = Proxy::with_config(&format!(
        "{CONFIG}\n[plugins.hasher.limits]\ninstances = 1000"
    ));
    let proxy = proxy.start();
    let headers = "GET / HTTP/1.1\r\nHost: a\r\nX-Do: bcrypt\r\nX-Data: x\r\n\r\n";
    let mut clients: Vec<_> = (0..110).map(|_| proxy.raw()).collect();
    for client in &mut clients {
        client.send(headers);
    }
    assert_eq!(proxy.get("/").text(), "nothing");
    let full = clients.last_mut().unwrap().read_reply();
    assert_eq!(
        (full.status, full.text()),
        (503, "crypto::hash_password: full".into())
    );
    drop(clients);
    assert_eq!(proxy.get("/").text(), "nothing");
}

#[test]
fn what_a_hostile_module_asks_of_the_cryptography_is_refused_or_traps() {
    let manifest = module::manifest(1, r#"["access"]"#);
    let calls = [
        (
            "(call $digest (i32.const 99) (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 64))",
            false,
        ),
        (
            "(call $digest (i32.const 0) (i32.const 0) (i32.const 65536) (i32.const 0) (i32.const 5))",
            false,
        ),
        (
            "(call $digest (i32.const 0) (i32.const 1) (i32.const 65536) (i32.const 0) (i32.const 64))",
            true,
        ),
        (
            "(call $digest (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 65530) (i32.const 64))",
            true,
        ),
        (
            "(call $hash (i32.const 99) (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 256))",
            false,
        ),
        (
            "(call $hash (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 10))",
            false,
        ),
        (
            "(call $hash (i32.const 0) (i32.const 0) (i32.const 65536) (i32.const 0) (i32.const 256))",
            false,
        ),
        (
            "(call $hash (i32.const 0) (i32.const -1) (i32.const 5) (i32.const 0) (i32.const 256))",
            true,
        ),
        (
            "(call $hash (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 65500) (i32.const 256))",
            true,
        ),
    ];
    for (call, traps) in calls {
        let fields = format!(
            r#"(import "castling" "digest" (func $digest (param i32 i32 i32 i32 i32) (result i32)))
            (import "castling" "password_hash" (func $hash (param i32 i32 i32 i32 i32) (result i32)))
            (func (export "castling_hook_access") (param i32 i32 i32) (result i32) (drop {call}) i32.const 0)"#
        );
        let config = CONFIG
            .replace("{guests}/hasher.wasm", "{dir}/hostile.wasm")
            .replace(
                "plugins = [\"hasher\"]",
                "plugins = [\"hasher\"]\nupstream = \"app\"",
            );
        let proxy = Proxy::with_config(&format!(
            "{config}\n[upstreams.app]\npeers = [\"{{app}}\"]\n"
        ))
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
