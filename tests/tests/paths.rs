//! Paths are the same to routes, plugins and peers.

use castling_tests::{Proxy, origin};

/// `/admin` wants a token, everything else is open, and one origin has both.
fn config(listener: &str, route: &str) -> String {
    format!(
        r#"
        [access_log]
        file = "{{dir}}/access.log"
        format = "$request"
        flush = "0s"

        [plugins.auth]
        wasm = "{{plugins}}/token_auth.wasm"
        config = {{ header = "x-token", tokens = ["s3cret"] }}

        [listeners.web]
        bind = "{{listen}}"
        {listener}

        [upstreams.app]
        peers = ["{{app}}"]

        [[routes]]
        path = "/admin"
        plugins = ["auth"]
        upstream = "app"

        [[routes]]
        path = "/"
        upstream = "app"
        {route}
    "#
    )
}

fn start(listener: &str, route: &str) -> Proxy {
    Proxy::with_config(&config(listener, route))
        .origin("app", origin::text("ok"))
        .start()
}

/// The status, and the target that the origin has seen.
fn get(proxy: &Proxy, target: &str) -> (u16, Option<String>) {
    let mut client = proxy.raw();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let status = client.read_reply().status;
    let seen = (status == 200).then(|| proxy.origin("app").last().target);
    (status, seen)
}

#[test]
fn what_is_decided_by_is_what_is_sent() {
    let proxy = start("", "");
    for (target, sent) in [
        ("/admin/..?a=/../b", "/?a=/../b"),
        ("//x/admin/x", "/x/admin/x"),
        ("/admin\\x", "/admin%5Cx"),
        ("/a/./b/", "/a/b/"),
        ("/@scope%2fpkg", "/@scope%2fpkg"),
        ("/a%20b", "/a%20b"),
        ("/adminx/%c3%bc", "/adminx/%c3%bc"),
    ] {
        assert_eq!(
            get(&proxy, target),
            (200, Some(sent.to_owned())),
            "{target}"
        );
    }
    for target in [
        "/admin",
        "/admin/",
        "/x/../admin",
        "//admin//x",
        "/%61dmin",
        "/admin/%2561",
    ] {
        assert_eq!(get(&proxy, target).0, 401, "{target}");
    }
    for target in [
        "/admin/..%2fpublic",
        "/public/..%2fadmin",
        "/public/..;/admin",
        "/%2e%2e/secret",
        "/..",
        "/a\\..\\admin",
        "/%zz",
        "/x%",
        "/%00",
    ] {
        assert_eq!(get(&proxy, target).0, 400, "{target}");
    }
    // The log has what the client has sent.
    let lines = proxy.until_access_lines(22);
    assert_eq!(lines[0], "GET /admin/..?a=/../b HTTP/1.1");
}

#[test]
fn a_path_may_be_strict_or_without_regard_to_case() {
    let proxy = start("paths = \"strict\"", "");
    for target in [
        "/a//b", "/a/../b", "/a/.", "/a%2fb", "/a%5cb", "/a\\b", "//",
    ] {
        assert_eq!(get(&proxy, target).0, 400, "{target}");
    }
    for target in ["/", "/a/", "/a%20b", "/.well-known/x"] {
        assert_eq!(get(&proxy, target), (200, Some(target.to_owned())));
    }
    let proxy = start("", "");
    assert_eq!(get(&proxy, "/ADMIN/x").0, 200);
    let proxy = start("case = \"insensitive\"", "");
    for target in ["/ADMIN/x", "/Admin", "/%41dmin"] {
        assert_eq!(get(&proxy, target).0, 401, "{target}");
    }
    assert_eq!(get(&proxy, "/Other"), (200, Some("/Other".to_owned())));
}

#[test]
fn a_path_that_is_sent_as_it_came_is_compared_by_all_that_it_could_be() {
    for (listener, route) in [("paths = \"as_sent\"", ""), ("", "paths = \"as_sent\"")] {
        let proxy = start(listener, route);
        for target in ["/a/../b", "//x/admin/x", "/%zz", "/%00", "/a%2fb", "/a\\b"] {
            assert_eq!(
                get(&proxy, target),
                (200, Some(target.to_owned())),
                "{target}"
            );
        }
        for target in ["/x/%2e%2e/admin", "/x/..%2fadmin/y"] {
            assert_eq!(get(&proxy, target).0 / 100, 4, "{target}");
        }
        let said = proxy.check().expect_success().stdout;
        assert!(
            said.contains("warning: listener web: routes /admin and / differ in plugins"),
            "{said}"
        );
    }
    let said = start("", "").check().expect_success().stdout;
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn a_route_whose_path_no_request_can_have_is_refused() {
    for (path, error) in [
        ("/%2e%2e/secret", "a segment that decodes to"),
        ("/a%zz", "a % without two hexadecimal digits"),
        ("/a%00", "an encoded NUL"),
        ("/a/..%2fb", "a segment that decodes to"),
    ] {
        let config = config("", "").replace("\"/admin\"", &format!("\"{path}\""));
        let checked = Proxy::with_config(&config)
            .origin("app", origin::text("ok"))
            .check();
        checked.expect_error(error);
    }
}
