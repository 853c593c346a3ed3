//! Texts of the config that stand in files of their own.

use castling_tests::{Proxy, origin};
use http::StatusCode;

const CONFIG: &str = r#"
    [listeners.web]
    bind = "{listen}"

    [plugins.auth]
    wasm = "{plugins}/token_auth.wasm"
    config = { header = "x-token", tokens = [{ from_file = "secrets/token" }] }

    [upstreams.app]
    peers = ["{app}"]
    sticky = { cookie = "at", secret = { from_file = "secrets/cookie" } }

    [[routes]]
    plugins = ["auth"]
    upstream = "app"
"#;

#[test]
fn a_secret_in_a_file_is_read_at_each_reload_and_told_to_nobody() {
    let proxy = Proxy::with_config(CONFIG)
        .file("secrets/token", b"s3cret-one\n")
        .file("secrets/cookie", b"s3cret-cookie-of-a-peer\n")
        .origin("app", origin::text("in"))
        .start();
    let status = |token: &str| proxy.get_with("/", &[("x-token", token)]).status;
    assert_eq!(status("s3cret-one"), StatusCode::OK);
    std::fs::write(proxy.path("secrets/token"), "s3cret-two").unwrap();
    assert_eq!(status("s3cret-two"), StatusCode::UNAUTHORIZED);
    proxy.reload().expect_success();
    assert_eq!(status("s3cret-two"), StatusCode::OK);
    assert_eq!(status("s3cret-one"), StatusCode::UNAUTHORIZED);

    let check = proxy.check().expect_success();
    std::fs::write(proxy.path("secrets/cookie"), "s3cret-short").unwrap();
    let short = proxy.reload().expect_refusal();
    assert!(
        short
            .stderr
            .contains("castling.toml:10:36: secret: expected at least 16 characters"),
        "{}",
        short.stderr
    );
    std::fs::remove_file(proxy.path("secrets/cookie")).unwrap();
    let gone = proxy.reload().expect_refusal();
    let error = "secrets/cookie cannot be read: No such file or directory";
    assert!(gone.stderr.contains(error), "{}", gone.stderr);
    assert_eq!(status("s3cret-two"), StatusCode::OK);
    let told = [
        check.stdout,
        check.stderr,
        short.stderr,
        gone.stderr,
        proxy.status().to_string(),
        proxy.log(),
    ];
    for text in told {
        assert!(!text.contains("s3cret"), "{text}");
    }
}
