//! Settings of a route in the place of those of its upstream and its listener.

use castling_tests::{Proxy, Setup, body, origin, raw_origin};
use http::{Request, Response};

fn gateway(routes: &str) -> Setup {
    Proxy::with_config(&format!(
        r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{{listen}}"
        max_body = "1KiB"

        [upstreams.app]
        peers = ["{{a}}", "{{b}}"]
        retry = {{ budget = "off" }}
        {routes}
        "#
    ))
}

fn post(proxy: &Proxy, path: &str, bytes: usize) -> (u16, String) {
    let request = Request::post(path).body(body::full(vec![b'x'; bytes]));
    let reply = proxy.send(request.expect("a valid request"));
    (reply.status.as_u16(), reply.text())
}

#[test]
fn times_and_tries_are_the_routes_own() {
    let proxy = gateway(
        r#"
        [[routes]]
        path = "/quick"
        upstream = "app"
        response_timeout = "100ms"
        tries = 1

        [[routes]]
        path = "/twice"
        upstream = "app"
        retry = { try_timeout = "100ms" }

        [[routes]]
        upstream = "app"
        "#,
    )
    .origin("a", raw_origin::stalled())
    .origin("b", origin::text("ok"))
    .start();
    let quick: Vec<u16> = (0..2)
        .map(|_| proxy.get("/quick").status.as_u16())
        .collect();
    assert!(quick.contains(&504) && quick.contains(&200), "{quick:?}");
    assert_eq!(proxy.tally("/twice", 4)["ok"], 4);
}

#[test]
fn what_is_tried_again_is_the_routes_own() {
    let busy = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
    let proxy = gateway(
        r#"
        [[routes]]
        path = "/again"
        upstream = "app"
        retry = { on = ["503"] }

        [[routes]]
        upstream = "app"
        "#,
    )
    .origin("a", raw_origin::repeating(busy))
    .origin("b", origin::text("ok"))
    .start();
    assert_eq!(proxy.tally("/again", 6)["ok"], 6);
    assert_eq!(proxy.tally("/", 6)["ok"], 3);
}

#[test]
fn a_route_may_take_larger_or_smaller_bodies_than_its_listener() {
    let echo = || origin::answering(|seen| Response::new(body::full(seen.body.len().to_string())));
    let proxy = gateway(
        r#"
        [[routes]]
        path = "/large"
        upstream = "app"
        max_body = "1MiB"

        [[routes]]
        path = "/any"
        upstream = "app"
        max_body = 0

        [[routes]]
        path = "/small"
        upstream = "app"
        max_body = 10

        [[routes]]
        upstream = "app"
        "#,
    )
    .origin("a", echo())
    .origin("b", echo())
    .start();
    assert_eq!(post(&proxy, "/", 1024), (200, "1024".to_owned()));
    assert_eq!(post(&proxy, "/", 1025).0, 413);
    assert_eq!(
        post(&proxy, "/large", 1 << 20),
        (200, (1 << 20).to_string())
    );
    assert_eq!(post(&proxy, "/large", (1 << 20) + 1).0, 413);
    assert_eq!(post(&proxy, "/any", 2 << 20), (200, (2 << 20).to_string()));
    assert_eq!(post(&proxy, "/small", 10), (200, "10".to_owned()));
    assert_eq!(post(&proxy, "/small", 11).0, 413);
    // A length that is not announced is found out.
    for (path, status) in [("/small", 413), ("/", 200)] {
        let mut client = proxy.raw();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
        ));
        assert_eq!(client.read_reply().status, status, "{path}");
    }
}

#[test]
fn keys_without_an_upstream_and_budgets_of_routes_are_refused() {
    let refused = |keys: &str, error: &str| {
        gateway(&format!("\n[[routes]]\n{keys}\n"))
            .origin("a", origin::text("a"))
            .origin("b", origin::text("b"))
            .check()
            .expect_error(error);
    };
    refused(
        "metrics = true\ntries = 2",
        ": tries without an upstream has no effect: expected `upstream`",
    );
    refused(
        "upstream = 'app'\nretry = { budget = 'off' }",
        ": budget is its upstream's, whose peers it protects: expected none here",
    );
    refused(
        "upstream = 'app'\ntries = 1\nretry = { on = ['503'] }",
        ": on with tries = 1 has no effect: expected more tries",
    );
}
