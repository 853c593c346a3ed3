//! Filters that send on more than they were given, part by part, before their hook returns.

use castling_tests::{Proxy, body, module, origin, raw_origin};
use http::{Request, Response, StatusCode};

/// `later` sees what `expander` has sent on.
fn proxy_before(app: origin::Origin, more: &str) -> Proxy {
    let config = r#"
        [workers]
        count = 1

        [plugins.expander]
        wasm = "{guests}/expander.wasm"
        MORE

        [plugins.later]
        wasm = "{guests}/expander.wasm"
        config = { up = "x-later-up", down = "x-later-down" }

        [plugins.peeker]
        wasm = "{guests}/peeker.wasm"
        grants = { upstreams = [] }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["later", "expander", "peeker"]
        upstream = "app"

        [[routes]]
        path = "/up"
        plugins = ["expander", "later"]
        upstream = "app"
    "#;
    Proxy::with_config(&config.replace("MORE", more))
        .origin("app", app)
        .start()
}

fn proxy(more: &str) -> Proxy {
    proxy_before(origin::text("hello"), more)
}

fn upload(proxy: &Proxy, headers: &[(&str, &str)]) -> castling_tests::Reply {
    let request = Request::post("/up");
    let add = |request: http::request::Builder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    let request = headers.iter().fold(request, add);
    proxy.send(request.body(body::full("hello")).expect("a valid request"))
}

const SMALL: &str = "limits = { body = \"2KiB\", memory = \"2MiB\" }";

#[test]
fn a_chunk_becomes_more_than_a_plugin_may_hold() {
    let proxy = proxy(SMALL);
    let reply = proxy.get_with("/", &[("x-down", "kib 20000")]);
    assert_eq!(reply.body.len(), 20_000 << 10);
    // A body that is there whole, too.
    let reply = proxy.get_with("/", &[("x-down", "kib 20000"), ("x-answer", "whole")]);
    assert_eq!(reply.body.len(), 20_000 << 10);
    let reply = proxy.get_with("/", &[("x-down", "times 3"), ("x-answer", "whole")]);
    assert_eq!(reply.text(), "wholewholewhole");
}

#[test]
fn what_is_sent_on_goes_before_the_rest_and_through_later_filters() {
    let proxy = proxy("");
    for (wishes, text) in [
        (&[("x-down", "around")][..], "<hello>"),
        (
            &[("x-down", "around"), ("x-later-down", "around")],
            "<<><hello><>>",
        ),
        (&[("x-down", "times 3"), ("x-later-down", "end")], "all"),
        (&[("x-down", "end"), ("x-later-down", "times 2")], "allall"),
        // The hook is done with, as nobody takes more: it ends without a failure.
        (&[("x-down", "forever"), ("x-later-down", "end")], "all"),
        (&[("x-down", "times 0")], "hello"),
    ] {
        assert_eq!(proxy.get_with("/", wishes).text(), text, "{wishes:?}");
    }
}

#[test]
fn a_request_body_becomes_more_on_its_way_to_the_peer() {
    let told = origin::answering(|seen| {
        let bytes = &seen.body;
        let text = match bytes.len() {
            ..100 => String::from_utf8_lossy(bytes).into_owned(),
            length => format!("{length} bytes"),
        };
        Response::new(body::full(text))
    });
    let proxy = proxy_before(told, SMALL);
    for (wishes, text) in [
        (&[("x-up", "kib 20000")][..], "20480000 bytes"),
        (&[("x-up", "around")], "<hello>"),
        (
            &[("x-up", "around"), ("x-later-up", "around")],
            "<<><hello><>>",
        ),
        (&[("x-up", "times 3"), ("x-later-up", "end")], "all"),
    ] {
        assert_eq!(upload(&proxy, wishes).text(), text, "{wishes:?}");
    }
}

#[test]
fn a_peer_that_answers_before_the_end_of_an_upload_ends_it() {
    let hasty = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhasty");
        Ok(())
    });
    let proxy = proxy_before(hasty, "limits = { emit = \"1TiB\", request_cpu = \"1h\" }");
    let reply = upload(&proxy, &[("x-up", "forever")]);
    // The answer, or the connection that broke: whatever was there first. The worker serves on.
    assert!(
        matches!(reply.status, StatusCode::OK | StatusCode::BAD_GATEWAY),
        "{}",
        reply.status
    );
    assert_eq!(proxy.get_with("/", &[("x-answer", "on")]).text(), "on");
}

#[test]
fn whoever_sends_on_for_ever_is_ended_by_a_limit_that_is_told() {
    let limits = "limits = { emit = \"1MiB\", body = \"32KiB\", request_cpu = \"200ms\", host_calls = 1000 }";
    let proxy = proxy(limits);
    for (wish, told) in [
        ("forever", "limits.emit of 1048576 bytes reached"),
        ("drip", "limits.request_cpu of"),
        ("nothing", "limits.host_calls of 1000 reached"),
        ("one 32769", "limits.body of 32768 bytes reached"),
    ] {
        let mut client = proxy.raw();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Down: {wish}\r\n\r\n"
        ));
        if let Ok(reply) = client.try_read_reply() {
            assert!(reply.status >= 500, "{wish}: {}", reply.status);
        }
        let line = proxy.until_log_has(told);
        assert!(line.contains("failed in response_body"), "{line}");
        assert_eq!(proxy.get("/").text(), "hello");
    }
    let reply = upload(&proxy, &[("x-up", "forever")]);
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn a_filter_that_fails_when_something_is_out_is_not_passed_over() {
    let proxy = proxy("on_error = \"skip\"");
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Down: fail\r\n\r\n");
    if let Ok(reply) = client.try_read_reply() {
        assert_eq!(reply.status, 502);
    }
    let reply = upload(&proxy, &[("x-up", "fail")]);
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn a_client_that_takes_nothing_makes_the_filter_wait_and_costs_no_memory() {
    let proxy = proxy("");
    assert_eq!(proxy.get("/").text(), "hello");
    let worker = proxy.workers()[0];
    let before_kib = worker.anonymous_kib();
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Down: kib 100000\r\n\r\n");
    let head = client.read_head().expect("a response begins");
    assert!(head.contains("chunked"), "{head}");
    for _ in 0..20 {
        assert_eq!(
            proxy.get_with("/", &[("x-down", "times 2")]).text(),
            "hellohello"
        );
    }
    let grown_kib = worker.anonymous_kib().saturating_sub(before_kib);
    assert!(grown_kib < 20_000, "{grown_kib} KiB");
    client.reset();
    assert_eq!(proxy.get("/").text(), "hello");
}

#[test]
fn nothing_is_sent_on_where_there_is_no_chunk_or_no_memory() {
    let access = |ptr: &str, len: &str| {
        format!(
            r#"(import "castling" "chunk_emit" (func $emit (param i32 i32) (result i32)))
               (func (export "castling_hook_access") (param i32 i32 i32) (result i32)
                   (if (i32.ne (call $emit (i32.const {ptr}) (i32.const {len})) (i32.const -3)) (then unreachable))
                   i32.const 0)"#
        )
    };
    for (ptr, len, status) in [("0", "4", 200), ("0", "65537", 500), ("-1", "4", 500)] {
        let config = r#"
            [plugins.crude]
            wasm = "crude.wasm"

            [listeners.web]
            bind = "{listen}"

            [upstreams.app]
            peers = ["{app}"]

            [[routes]]
            plugins = ["crude"]
            upstream = "app"
        "#;
        let module = module::plugin(&module::manifest(1, "[\"access\"]"), &access(ptr, len));
        let proxy = Proxy::with_config(config)
            .file("crude.wasm", module)
            .origin("app", origin::text("hello"))
            .start();
        assert_eq!(proxy.get("/").status.as_u16(), status, "{ptr} {len}");
    }
}
