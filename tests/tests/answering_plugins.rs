//! redirect, rewrite and respond over real sockets, as their READMEs say.

use std::fs;

use castling_tests::{Proxy, origin, until};
use http::StatusCode;

fn start(plugin: &str) -> Proxy {
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        upstream = "app"
        plugins = ["it"]

        [[routes]]
        path = "/other"
        upstream = "app"
        plugins = []
    "#;
    Proxy::with_config(&format!("{config}\n{plugin}"))
        .file("moved.txt", "/moved https://example.org/here 308\n")
        .origin("app", origin::text("hello"))
        .start()
}

#[test]
fn redirects_lead_elsewhere_and_the_table_is_followed() {
    let proxy = start(
        r#"
        [plugins.it]
        wasm = "{plugins}/redirect.wasm"
        grants = { files = ["moved.txt"] }
        config = { table = "moved.txt", rules = [{ regex = "^/old/(.*)$", to = "/new/$1" }] }
    "#,
    );
    let redirected = |target: &str| {
        let reply = proxy.get(target);
        let location = reply.header("location").unwrap_or_default();
        (reply.status.as_u16(), location.to_owned())
    };
    assert_eq!(redirected("/old/a%20b?c"), (301, "/new/a%20b?c".to_owned()));
    assert_eq!(
        redirected("/moved"),
        (308, "https://example.org/here".to_owned())
    );
    assert_eq!(redirected("/"), (200, String::new()));
    assert_eq!(
        redirected("/old///evil.example/"),
        (301, "/new/evil.example/".to_owned())
    );
    fs::write(proxy.path("next.txt"), "/moved /there\n").unwrap();
    fs::rename(proxy.path("next.txt"), proxy.path("moved.txt")).unwrap();
    until("the table is another", || {
        redirected("/moved") == (301, "/there".to_owned())
    });
    assert_eq!(proxy.origin("app").requests(), 1);
}

#[test]
fn rewritten_requests_stay_with_their_route_or_are_routed_again() {
    let config = |more: &str| {
        format!(
            r#"
            [plugins.it]
            wasm = "{{plugins}}/rewrite.wasm"
            config = {{ {more} rules = [{{ regex = "^/user/([0-9]+)$", path = "/other/profile?id=$1" }}] }}
            "#
        )
    };
    for (more, route) in [("", "/"), ("reroute = true,", "/other")] {
        let proxy = start(&config(more));
        assert_eq!(proxy.get("/user/42?a=b").status, StatusCode::OK);
        assert_eq!(
            proxy.origin("app").last().target,
            "/other/profile?id=42&a=b",
            "{route}"
        );
    }
    let config = config("").replace("path = \"/other", "path = \"other");
    let proxy = start(&config);
    assert_eq!(
        proxy.get("/user/42").status,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    assert_eq!(proxy.get("/").status, StatusCode::OK);
}

#[test]
fn a_body_says_what_was_asked_and_no_more() {
    let proxy = start(
        r#"
        [plugins.it]
        wasm = "{plugins}/respond.wasm"

        [plugins.it.config]
        status = 404
        headers = { content-type = "text/html" }
        body = """
        <p>$path, $arg_q</p>
        """
    "#,
    );
    let reply = proxy.get("/a?q=%3Cscript%3E");
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.header("content-type"), Some("text/html"));
    assert_eq!(reply.text().trim(), "<p>/a, &lt;script&gt;</p>");
    assert_eq!(proxy.origin("app").requests(), 0);
}
