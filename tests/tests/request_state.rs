//! State that plugins keep for a request: it goes with the request, and not with an instance.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use castling_tests::origin::Origin;
use castling_tests::{Proxy, Setup, origin, raw_origin};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.one]
    wasm = "{guests}/tally.wasm"
    config = { header = "x-one" }
    on_error = "skip"
    limits = { instances = 1, instance_reserve = 0, state = "300B" }

    [plugins.two]
    wasm = "{guests}/tally.wasm"
    config = { header = "x-two" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["one"]
    upstream = "app"

    [[routes]]
    path = "/both"
    plugins = ["one", "two"]
    upstream = "app"
"#;

fn setup(origin: Origin) -> Setup {
    Proxy::with_config(CONFIG).origin("app", origin)
}

#[test]
fn state_goes_from_hook_to_hook_and_is_each_plugins_own() {
    let proxy = setup(origin::text("ok")).start();
    for _ in 0..3 {
        let reply = proxy.get("/both");
        assert_eq!(reply.header("x-one"), Some("rewrite access headers"));
        assert_eq!(reply.header("x-two"), Some("rewrite access headers"));
        assert_eq!(reply.text(), "ok[1][1]");
    }
}

#[test]
fn state_of_plain_data_goes_as_it_lies_in_memory() {
    let config = CONFIG
        .replace("tally.wasm", "marks.wasm")
        .replace("config = { header = \"x-one\" }", "")
        .replace("config = { header = \"x-two\" }", "");
    let head = "HTTP/1.1 200 OK\r\nX-Marks: ?\r\nContent-Length: 2\r\n\r\nok";
    let proxy = Proxy::with_config(&config)
        .origin("app", raw_origin::repeating(head))
        .start();
    for _ in 0..3 {
        let reply = proxy.get("/");
        assert_eq!(reply.header("x-marks"), Some("1 0 1 7"));
        assert_eq!(reply.text(), "ok[1]");
    }
}

/// Barrier that all of so many pass at once.
#[derive(Default)]
struct Gate {
    come: AtomicUsize,
    open: Mutex<bool>,
    opened: Condvar,
}

#[test]
fn requests_that_last_keep_no_instance() {
    const STREAMS: usize = 50;
    let gate = Arc::new(Gate::default());
    let own = Arc::clone(&gate);
    let origin = raw_origin::scripted(move |connection, _| {
        connection.read_head()?;
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
        if own.come.fetch_add(1, Ordering::SeqCst) + 1 == STREAMS {
            *own.open.lock().map_err(|error| error.to_string())? = true;
            own.opened.notify_all();
        }
        let open = own.open.lock().map_err(|error| error.to_string())?;
        let _open = own.opened.wait_while(open, |open| !*open);
        connection.send("1\r\nb\r\n0\r\n\r\n");
        Ok(())
    });
    let proxy = setup(origin).start();
    let mut clients: Vec<_> = (0..STREAMS).map(|_| proxy.raw()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut clients {
        let reply = client.read_reply();
        assert_eq!(reply.status, 200);
        let text = reply.text();
        assert_eq!(
            reply.header("x-one"),
            Some("rewrite access headers"),
            "{text}"
        );
        assert!(text.starts_with("ab["), "{text}");
        assert!(text.ends_with("[3]") || text.ends_with("[2]"), "{text}");
    }
    let status = proxy.status();
    assert_eq!(status["plugins"][0]["exhausted"], 0, "{status}");
}

#[test]
fn a_trap_loses_the_state_of_its_request_alone() {
    let proxy = setup(origin::text("ok")).start();
    let reply = proxy.get_with("/both", &[("x-trap", "x-one")]);
    assert_eq!(reply.header("x-one"), Some("headers"));
    assert_eq!(reply.header("x-two"), Some("rewrite access headers"));
    assert_eq!(
        proxy.get("/").header("x-one"),
        Some("rewrite access headers")
    );
}

#[test]
fn a_state_beyond_the_limit_is_refused_and_the_one_before_stays() {
    let proxy = setup(origin::text("ok")).start();
    let reply = proxy.get_with("/", &[("x-ballast", "250")]);
    assert_eq!(reply.header("x-one"), Some("rewrite access headers"));
    let reply = proxy.get_with("/", &[("x-ballast", "1000")]);
    assert_eq!(reply.header("x-one"), Some("rewrite headers"));
    let line = proxy.until_log_has("limits.state of 300 bytes reached");
    assert!(
        line.contains("plugin one failed in access: a state of 1"),
        "{line}"
    );
}
