//! The plugin error-pages over real sockets, as its README says.

use std::fs;

use castling_tests::{Proxy, body, origin, until, workspace_root};
use http::{Method, Request, Response};

/// The README's example, which stands between its first pair of fences.
fn example() -> String {
    let readme =
        fs::read_to_string(workspace_root().join("plugins/error-pages/README.md")).unwrap();
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    example.replace("plugins/error_pages.wasm", "{plugins}/error_pages.wasm")
}

fn start(plugin: &str) -> Proxy {
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"
        plugins = ["error-pages"]

        [upstreams.app]
        peers = ["{app}"]

        [upstreams.down]
        peers = ["{refusing}"]

        [upstreams.pages]
        peers = ["{pages}"]

        [[routes]]
        path = "/app"
        upstream = "app"

        [[routes]]
        path = "/down"
        upstream = "down"

        [[routes]]
        path = "/denied"
        upstream = "app"
        plugins = ["access"]

        [[routes]]
        path = "/errors"
        upstream = "pages"

        [plugins.access]
        wasm = "{plugins}/access.wasm"
        config = { rules = [{ action = "deny" }] }
    "#;
    let app = origin::answering(|seen| {
        let status = seen
            .target
            .rsplit('/')
            .next()
            .and_then(|it| it.parse().ok());
        Response::builder()
            .status(status.unwrap_or(200))
            .header("etag", "\"peers\"")
            .header("retry-after", "7")
            .body(body::full("the peer's own".to_owned()))
            .unwrap()
    });
    let pages = origin::answering(|seen| {
        let page = format!("<h1>{}</h1>", seen.target);
        let response = Response::builder().header("content-type", "text/html");
        response.body(body::full(page)).unwrap()
    });
    Proxy::with_config(&format!("{config}\n{plugin}"))
        .file("50x.html", "<p>try again</p>")
        .origin("app", app)
        .origin("pages", pages)
        .start()
}

#[test]
fn errors_of_the_gateway_and_of_plugins_have_pages() {
    let proxy = start(&example());
    let nowhere = proxy.get("/nowhere");
    assert_eq!(nowhere.status.as_u16(), 404);
    assert_eq!(nowhere.header("content-type"), Some("text/html"));
    assert_eq!(nowhere.text(), "<h1>/errors/not-found?path=%2Fnowhere</h1>");
    let json = proxy.get_with("/nowhere", &[("accept", "text/html, application/json")]);
    assert_eq!(json.status.as_u16(), 404);
    assert_eq!(
        json.header("content-type"),
        Some("application/problem+json")
    );
    assert!(
        json.text()
            .starts_with(r#"{"status": 404, "path": "/nowhere", "request": ""#),
        "{}",
        json.text()
    );
    let denied = proxy.get("/denied");
    assert_eq!(denied.status.as_u16(), 302);
    assert_eq!(denied.header("location"), Some("/login?from=%2Fdenied"));
    let down = proxy.get("/down");
    assert_eq!(
        (down.status.as_u16(), down.text().as_str()),
        (502, "<p>try again</p>")
    );
    assert_eq!(down.header("content-length"), Some("16"));
    fs::write(proxy.path("next.html"), "<p>soon</p>").unwrap();
    fs::rename(proxy.path("next.html"), proxy.path("50x.html")).unwrap();
    until("the page is another", || {
        proxy.get("/down").text() == "<p>soon</p>"
    });
}

#[test]
fn errors_of_peers_stay_unless_a_page_intercepts_them() {
    let proxy = start(&example());
    for status in [404, 500, 503] {
        let reply = proxy.get(&format!("/app/{status}"));
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply.text(), "the peer's own");
        assert_eq!(reply.header("etag"), Some("\"peers\""));
    }
    assert_eq!(
        proxy.get("/app/403").header("location"),
        Some("/login?from=%2Fapp%2F403")
    );
    let intercepting = start(&example().replace("intercept = false", "intercept = true"));
    let reply = intercepting.get("/app/503");
    assert_eq!(
        (reply.status.as_u16(), reply.text().as_str()),
        (503, "<p>try again</p>")
    );
    assert_eq!(reply.header("etag"), None);
    assert_eq!(reply.header("retry-after"), Some("7"));
    // The connection and the next request are none the worse.
    assert_eq!(intercepting.get("/app/200").text(), "the peer's own");
}

#[test]
fn what_has_no_body_or_is_no_page_for_a_browser_is_left_alone() {
    let proxy = start(&example().replace("intercept = false", "intercept = true"));
    let head = Request::builder().method(Method::HEAD).uri("/app/500");
    let head = proxy.send(head.body(body::empty()).unwrap());
    assert_eq!(head.status.as_u16(), 500);
    assert_eq!(head.header("content-length"), Some("16"));
    assert_eq!(head.text(), "");
    let same = proxy.get("/app/304");
    assert_eq!(
        (same.status.as_u16(), same.header("etag")),
        (304, Some("\"peers\""))
    );
    let call = proxy.get_with("/app/500", &[("content-type", "application/grpc")]);
    assert_eq!(call.text(), "the peer's own");
    let metric = proxy.command("metrics", &[]).stdout;
    assert!(
        metric.contains(
            "castling_plugin_error_pages_replaced_total{plugin=\"error-pages\",status=\"500\"} 1"
        ),
        "{metric}"
    );
}
