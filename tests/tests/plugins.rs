//! Plugins at work: the order of hooks, variables, and what the shipped ones do.

use std::time::Duration;

use castling_tests::{Proxy, body, origin, raw_origin};
use http::{Response, StatusCode};

#[test]
fn hooks_run_in_the_order_of_a_requests_life() {
    let config = r#"
        [access_log]
        file = "{dir}/access.log"
        format = "$trail"
        flush = "0s"

        [plugins]
        arrival = { wasm = "{guests}/arrival.wasm" }
        outer = { wasm = "{guests}/recorder.wasm", config = { label = "outer" } }
        inner = { wasm = "{guests}/recorder.wasm", config = { label = "inner" } }
        chooser = { wasm = "{guests}/recorder.wasm", config = { label = "chooser" } }

        [listeners.web]
        bind = "{listen}"
        plugins = ["arrival", "outer"]

        [upstreams.app]
        peers = ["{app}"]
        balance = { plugin = "chooser" }

        [[routes]]
        plugins = ["inner"]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", origin::text("hello"))
        .start();
    let reply = proxy.get("/");
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (StatusCode::OK, "hello")
    );
    // On the way in as configured, on the way out in reverse.
    let until_reply = "arrival.post_read outer.rewrite inner.rewrite outer.access inner.access outer.content \
                       inner.content chooser.balance inner.response_headers outer.response_headers";
    assert_eq!(reply.header("x-trail"), Some(until_reply));
    let [line] = proxy.until_access_lines(1).try_into().unwrap();
    let after_reply = line
        .strip_prefix(until_reply)
        .unwrap_or_else(|| panic!("{line}"));
    let (bodies, logs) = after_reply
        .trim()
        .split_at("inner.response_body outer.response_body".len());
    assert_eq!(bodies, "inner.response_body outer.response_body");
    let mut logs: Vec<&str> = logs.split_whitespace().collect();
    logs.sort_unstable();
    assert_eq!(logs, ["inner.log", "outer.log"]);
    proxy.until_log_has("chooser: a peer is done: Responded");
}

#[test]
fn a_variable_reaches_later_plugins_and_the_access_log() {
    // A single worker, so that the lines of the access log are in the order of the requests.
    let config = r#"
        [workers]
        count = 1

        [access_log]
        file = "{dir}/access.log"
        format = "$status user=$user"
        flush = "0s"

        [plugins.auth]
        wasm = "{plugins}/token_auth.wasm"
        config = { header = "x-token", tokens = [{ token = "s3cret", user = "ada" }] }

        [plugins.tell]
        wasm = "{plugins}/headers.wasm"
        config = { request = { set = { x-user = "<$user>" } } }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["auth", "tell"]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", origin::text("hello"))
        .start();
    assert_eq!(
        proxy.get_with("/", &[("x-token", "s3cret")]).status,
        StatusCode::OK
    );
    assert_eq!(proxy.origin("app").last().header("x-user"), Some("<ada>"));
    assert_eq!(proxy.get("/").status, StatusCode::UNAUTHORIZED);
    assert_eq!(proxy.until_access_lines(2), ["200 user=ada", "401 user=-"]);
    assert_eq!(proxy.origin("app").requests(), 1);
}

#[test]
fn a_reroute_finds_another_route_and_ends() {
    let config = r#"
        [plugins.old-paths]
        wasm = "{guests}/rerouter.wasm"
        config = { paths = { "/old" = "/new", "/loop" = "/loop" } }

        [listeners.web]
        bind = "{listen}"

        [upstreams]
        old.peers = ["{old}"]
        new.peers = ["{new}"]

        [[routes]]
        plugins = ["old-paths"]
        upstream = "old"

        [[routes]]
        path = "/new"
        upstream = "new"
    "#;
    let setup = Proxy::with_config(config)
        .origin("old", origin::text("old"))
        .origin("new", origin::text("new"));
    let proxy = setup.start();
    assert_eq!(proxy.get("/other").text(), "old");
    assert_eq!(proxy.get("/old").text(), "new");
    assert_eq!(proxy.origin("new").last().target, "/new");
    // A plugin that reroutes without end gets an end.
    assert_eq!(proxy.get("/loop").status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(proxy.get("/other").text(), "old");
}

#[test]
fn an_answer_of_a_plugin_passes_the_response_hooks() {
    let config = r#"
        [plugins.auth]
        wasm = "{plugins}/token_auth.wasm"
        config = { header = "x-token", tokens = ["s3cret"] }

        [plugins.mark]
        wasm = "{plugins}/headers.wasm"
        config = { response = { set = { x-mark = "seen" } } }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["mark", "auth"]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", origin::text("hello"))
        .start();
    let reply = proxy.get("/");
    assert_eq!(
        (reply.status, reply.header("x-mark")),
        (StatusCode::UNAUTHORIZED, Some("seen"))
    );
    // The body of a refused request is not waited for.
    let mut client = proxy.raw();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n",
    );
    assert_eq!(client.read_reply().status, 401);
}

#[test]
fn headers_sets_adds_and_removes_both_ways() {
    let config = r#"
        [plugins.headers.config.request]
        set = { x-from = "$client_address", x-asked = "$method $host$path" }
        add = { x-list = "two" }
        remove = ["x-secret"]

        [plugins.headers.config.response]
        set = { server = "castle", x-price = "5 $$" }
        add = { set-cookie = "b=2" }
        remove = ["x-powered-by"]

        [plugins.headers]
        wasm = "{plugins}/headers.wasm"

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["headers"]
        upstream = "app"
    "#;
    let app = origin::answering(|_| {
        let response = Response::builder()
            .header("x-powered-by", "steam")
            .header("set-cookie", "a=1");
        response
            .header("server", "app")
            .body(body::full("hello"))
            .unwrap()
    });
    let proxy = Proxy::with_config(config).origin("app", app).start();
    let reply = proxy.get_with(
        "/p",
        &[
            ("host", "h"),
            ("x-list", "one"),
            ("x-secret", "s"),
            ("x-from", "forged"),
        ],
    );
    let seen = proxy.origin("app").last();
    assert_eq!(
        (seen.header("x-from"), seen.header("x-asked")),
        (Some("127.0.0.1"), Some("GET h/p"))
    );
    assert_eq!(
        seen.headers.get_all("x-list").iter().collect::<Vec<_>>(),
        ["one", "two"]
    );
    assert_eq!(seen.header("x-secret"), None);
    assert_eq!(
        (reply.header("server"), reply.header("x-price")),
        (Some("castle"), Some("5 $"))
    );
    assert_eq!(
        reply
            .headers
            .get_all("set-cookie")
            .iter()
            .collect::<Vec<_>>(),
        ["a=1", "b=2"]
    );
    assert_eq!(reply.header("x-powered-by"), None);
}

#[test]
fn headers_may_say_another_scheme_than_the_gateways() {
    let config = r#"
        [plugins.headers]
        wasm = "{plugins}/headers.wasm"
        config = { request = { set = { x-forwarded-proto = "https" } } }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["headers"]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", origin::text("hello"))
        .start();
    for forged in ["", "ftp"] {
        proxy.get_with("/", &[("x-forwarded-proto", forged)]);
        let seen = proxy.origin("app").last();
        let schemes: Vec<_> = seen.headers.get_all("x-forwarded-proto").iter().collect();
        assert_eq!(schemes, ["https"]);
    }
}

#[test]
fn a_plugin_has_room_for_a_header_where_a_client_sends_many() {
    let config = r#"
        [plugins.headers]
        wasm = "{plugins}/headers.wasm"
        config = { request = { set = { x-mark = "seen" } } }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["headers"]
        upstream = "app"
    "#;
    let tells_the_head = raw_origin::scripted(|connection, _| {
        loop {
            let head = connection.read_head()?.to_lowercase();
            let len = head.len();
            connection.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{head}"
            ));
        }
    });
    let proxy = Proxy::with_config(config)
        .origin("app", tells_the_head)
        .start();
    // 127 with the Host.
    let many: String = (1..127).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let mut client = proxy.raw();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"));
    let reply = client.read_reply();
    assert_eq!(reply.status, 200);
    for header in ["x-1: 1", "x-126: 126", "x-mark: seen"] {
        let line = format!("\r\n{header}\r\n");
        assert!(reply.text().contains(&line), "{}", reply.text());
    }
}

#[test]
fn ewma_balances_two_upstreams_within_a_limit_of_one_instance() {
    let config = r#"
        [workers]
        count = 1

        [plugins.ewma]
        wasm = "{plugins}/ewma.wasm"
        limits = { instances = 1 }

        [listeners.web]
        bind = "{listen}"

        [upstreams.one]
        peers = ["{a}", "{b}"]
        balance = { plugin = "ewma" }

        [upstreams.two]
        peers = ["{c}", "{d}"]
        balance = { plugin = "ewma" }

        [[routes]]
        path = "/one"
        upstream = "one"

        [[routes]]
        path = "/two"
        upstream = "two"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("a", origin::text("one"))
        .origin("b", origin::text("one"))
        .origin("c", origin::text("two"))
        .origin("d", origin::text("two"))
        .start();
    for _ in 0..20 {
        assert_eq!(proxy.get("/one").text(), "one");
        assert_eq!(proxy.get("/two").text(), "two");
    }
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn substitute_replaces_also_where_a_match_spans_chunks() {
    let config = r#"
        [plugins.british]
        wasm = "{plugins}/substitute.wasm"
        config = { replace = [{ from = "color", to = "colour" }] }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["british"]
        upstream = "app"
    "#;
    let app = raw_origin::scripted(|connection, _| {
        loop {
            let head = connection.read_head()?;
            let kind = if head.contains("/binary") {
                "application/octet-stream"
            } else {
                "text/plain"
            };
            connection.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
            ));
            // Each chunk in a packet of its own, as far as the sender can say.
            for chunk in ["a co", "l", "or and col", "ors, co"] {
                connection.send(format!("{:x}\r\n{chunk}\r\n", chunk.len()));
                std::thread::sleep(Duration::from_millis(5));
            }
            connection.send("0\r\n\r\n");
        }
    });
    let proxy = Proxy::with_config(config).origin("app", app).start();
    assert_eq!(proxy.get("/text").text(), "a colour and colours, co");
    assert_eq!(proxy.get("/binary").text(), "a color and colors, co");
}

#[test]
fn hello_answers_by_itself() {
    let config = r#"
        [plugins.hello]
        wasm = "{plugins}/hello.wasm"
        config = { name = "origin a" }

        [listeners.web]
        bind = "{listen}"

        [[routes]]
        plugins = ["hello"]
    "#;
    let proxy = Proxy::with_config(config).start();
    let reply = proxy.get_with("/some/path", &[("x-probe", "42")]);
    assert_eq!(reply.status, StatusCode::OK);
    for shown in ["origin a", "GET", "/some/path", "x-probe", "42"] {
        assert!(
            reply.text().contains(shown),
            "no {shown:?} in {}",
            reply.text()
        );
    }
    assert_eq!(
        proxy.get("/?status=503").status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(proxy.get("/?bytes=100000").body.len(), 100_000);
}
