//! Plugins that look at how a request's body begins, which passes on as if nobody had looked.

use castling_tests::body::{self, Stuff};
use castling_tests::{Proxy, Reply, origin};
use http::{Request, Response};

fn proxy() -> Proxy {
    let config = r#"
        [workers]
        count = 1

        [plugins.peeker]
        wasm = "{guests}/peeker.wasm"
        grants = { upstreams = [] }
        limits = { body = "2KiB" }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["peeker"]
        upstream = "app"
    "#;
    let told = origin::answering(|seen| {
        let peeked = seen.header("x-peeked").unwrap_or_default();
        let read = seen.header("x-read").unwrap_or_default();
        Response::new(body::full(format!("{peeked}|{}|{read}", seen.body.len())))
    });
    Proxy::with_config(config).origin("app", told).start()
}

fn post(proxy: &Proxy, headers: &[(&str, &str)], body: body::AnyBody) -> Reply {
    let mut request = Request::post("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    proxy.send(request.body(body).expect("a valid request"))
}

#[test]
fn the_first_bytes_are_seen_and_all_pass_on() {
    let proxy = proxy();
    for (peek, told) in [
        ("3", "hel...|5|"),
        ("0", "...|5|"),
        ("5", "hello.|5|"),
        ("2048", "hello.|5|"),
        ("2 4 1 99", "he... hell... h... hello.|5|"),
    ] {
        let reply = post(&proxy, &[("x-peek", peek)], body::full("hello"));
        assert_eq!(reply.text(), told, "{peek}");
    }
    assert_eq!(
        post(&proxy, &[("x-peek", "9")], body::empty()).text(),
        ".|0|"
    );
    // More than the plugin may ever hold passes, chunked or not.
    let stuff = Stuff::repeating(&b"ab".repeat(32 << 10));
    for body in [stuff.sized(0, 9 << 20), stuff.chunked(0, 9 << 20)] {
        let reply = post(&proxy, &[("x-peek", "4")], body);
        assert_eq!(reply.text(), "abab...|9437184|");
    }
    let both = [("x-peek", "2"), ("x-read", "yes")];
    let reply = post(&proxy, &both, body::full("hello"));
    assert_eq!(reply.text(), "he...|5|5");
}

#[test]
fn no_more_than_these_bytes_are_waited_for() {
    let proxy = proxy();
    let mut client = proxy.raw();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\
         X-Peek: 3\r\nX-Answer: seen\r\n\r\n",
    );
    let invited = client.read_head().expect("an invitation");
    assert!(invited.starts_with("HTTP/1.1 100"), "{invited}");
    client.send("ab");
    client.send("c");
    assert_eq!(client.read_reply().text(), "seen");
}

#[test]
fn what_is_more_than_the_limit_or_too_late_is_refused() {
    let proxy = proxy();
    for bytes in ["2049", "4294967295"] {
        let reply = post(&proxy, &[("x-peek", bytes)], body::full("hello"));
        assert_eq!(reply.status, 503, "{bytes}");
        proxy.until_log_has(&format!("peek_body({bytes}) (more than limits.body)"));
    }
    proxy.until_log_has("limits.body of 2048 bytes reached");
    let reply = post(&proxy, &[("x-peek-late", "yes")], body::full("hello"));
    assert_eq!(
        reply.header("x-late"),
        Some("peek_body(1): not in this hook")
    );
}
