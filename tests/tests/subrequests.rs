//! Requests of plugins to the gateway's own routes.

use castling_tests::{Proxy, body, origin};
use http::{Response, StatusCode};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [access_log]
    file = "{dir}/access.log"
    format = "$status $path"
    flush = "0s"

    [plugins.asker]
    wasm = "{guests}/asker.wasm"
    limits = { calls = 12, body = "64KiB" }
    GRANTS

    [plugins.auth]
    wasm = "{plugins}/token_auth.wasm"
    config = { header = "x-token", tokens = ["s3cret"] }

    [plugins.mark]
    wasm = "{plugins}/headers.wasm"
    config = { request = { set = { x-mark = "$client_address $host" } } }

    [plugins.substitute]
    wasm = "{plugins}/substitute.wasm"
    config = { types = ["text/plain"], replace = [{ from = "posted", to = "sent" }] }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.gone]
    peers = ["{refusing}"]

    [[routes]]
    plugins = ["asker"]

    [[routes]]
    path = "/parts"
    plugins = ["mark", "substitute"]
    upstream = "app"

    [[routes]]
    path = "/private"
    plugins = ["auth"]
    upstream = "app"

    [[routes]]
    path = "/gone"
    upstream = "gone"

    [[routes]]
    path = "/elsewhere"
    hosts = ["other.example"]
    upstream = "app"
"#;

fn asking() -> Proxy {
    let app = origin::answering(|seen| {
        let size = seen
            .target
            .strip_prefix("/parts/bytes/")
            .and_then(|size| size.parse().ok());
        if let Some(size) = size {
            return Response::new(body::full(vec![b'x'; size]));
        }
        let posted = String::from_utf8_lossy(&seen.body).into_owned();
        let (by, mark) = (seen.header("x-by"), seen.header("x-mark"));
        let text = format!("{} posted {posted} by {by:?} mark {mark:?}", seen.target);
        let mut response = Response::new(body::full(text));
        let plain = http::HeaderValue::from_static("text/plain");
        response.headers_mut().insert("content-type", plain);
        response
    });
    Proxy::with_config(&CONFIG.replace("GRANTS", "grants = { own_routes = true }"))
        .origin("app", app)
        .start()
}

fn ask(proxy: &Proxy, paths: &str) -> String {
    let reply = proxy.get_with("/", &[("x-ask", paths), ("host", "page.example")]);
    assert_eq!(reply.status, StatusCode::OK);
    reply.text()
}

#[test]
fn a_page_is_put_together_from_routes_with_their_plugins() {
    let proxy = asking();
    let told = ask(&proxy, "/parts/a?q=1 /parts/b /private /gone /elsewhere");
    let parts: Vec<&str> = told.split('|').collect();
    assert_eq!(
        parts,
        [
            "200:/parts/a?q=1 sent /parts/a?q=1 by Some(\"asker\") mark Some(\"127.0.0.1 page.example\")",
            "200:/parts/b sent /parts/b by Some(\"asker\") mark Some(\"127.0.0.1 page.example\")",
            "401:token required\n",
            "502:502 Bad Gateway\n",
            // No route of this host: the asking plugin itself, without a path to ask for.
            "200:failed: http::send_all(OWN_ROUTES, POST ): bad argument: expected a target that begins with /",
        ]
    );
    // A client's request makes a single line.
    assert_eq!(proxy.until_access_lines(1), ["200 /"]);
}

#[test]
fn they_may_be_nested_five_deep_and_count_as_calls() {
    let proxy = asking();
    let told = ask(&proxy, "/again");
    let nested = "200:".repeat(5);
    assert_eq!(
        told,
        format!(
            "{nested}failed: http::send_all(OWN_ROUTES, POST /again): sub-requests are nested more than 5 deep"
        )
    );
    // Twelve in all, whoever makes them.
    let told = ask(&proxy, "/again /again /again /again");
    assert!(told.contains("limit reached"), "{told}");
}

#[test]
fn a_body_beyond_the_limit_fails_the_call() {
    let proxy = asking();
    let told = ask(&proxy, "/parts/bytes/60000 /parts/bytes/65537");
    let (whole, failed) = told.split_once('|').expect("two results");
    assert_eq!(whole.len(), "200:".len() + 60000);
    assert!(
        failed.contains("its body is longer than limits.body of 65536 bytes"),
        "{failed}"
    );
}

#[test]
fn what_the_config_does_not_grant_is_refused_at_load() {
    let checked = Proxy::with_config(&CONFIG.replace("GRANTS", ""))
        .origin("app", origin::text("hello"))
        .check();
    let said = checked.outcome.expect_refusal().stderr;
    assert!(
        said.contains("makes calls out, which nothing grants")
            && said.contains("own_routes = true"),
        "{said}"
    );
    let proxy =
        Proxy::with_config(&CONFIG.replace("GRANTS", "grants = { upstreams = [\"gone\"] }"))
            .origin("app", origin::text("hello"))
            .start();
    assert_eq!(
        ask(&proxy, "/parts"),
        "failed: http::send_all(OWN_ROUTES, POST /parts): not granted"
    );
}
