//! Calls of plugins whose bodies stream: neither need fit into a plugin's memory or `limits.body`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use castling_tests::origin::Origin;
use castling_tests::{Proxy, Setup, body, h2, module, origin, raw_origin, until};
use http::{Response, StatusCode};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.porter]
    wasm = "{guests}/porter.wasm"
    grants = { upstreams = ["store"], own_routes = true, hosts = { names = ["127.0.0.1:PORT"], networks = ["127.0.0.0/8"] } }
    limits = { body = "64KiB", memory = "3MiB", host_calls = 100 }

    [listeners.web]
    bind = "{listen}"
    half_close = "0s"

    [upstreams.store]
    peers = ["{store}"]
    PROTOCOL

    [upstreams.secret]
    peers = ["{store}"]

    [[routes]]
    plugins = ["porter"]
"#;

fn setup(store: Origin, protocol: &str) -> Setup {
    let port = store.address().port().to_string();
    let config = CONFIG.replace("PORT", &port).replace("PROTOCOL", protocol);
    Proxy::with_config(&config).origin("store", store)
}

fn start(store: Origin) -> Proxy {
    setup(store, "").start()
}

/// Answers `/large/N` with so many bytes, and others with what has come.
fn store() -> Origin {
    origin::answering(|seen| {
        if let Some(bytes) = seen.target.strip_prefix("/large/") {
            return Response::new(body::full(pattern(bytes.parse().unwrap())));
        }
        let [length, coding] = ["content-length", "transfer-encoding"]
            .map(|name| seen.header(name).unwrap_or("-").to_owned());
        let told = format!("{} {length} {coding}", seen.body.len());
        let mut response = Response::new(body::full(told));
        *response.status_mut() = StatusCode::CREATED;
        response
    })
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 7 % 251) as u8).collect()
}

fn done(proxy: &Proxy, headers: &[(&str, &str)]) -> (u16, String) {
    let to: &[(&str, &str)] = match headers.iter().any(|(name, _)| *name == "x-to") {
        true => &[],
        false => &[("x-to", "store")],
    };
    let reply = proxy.get_with("/x", &[headers, to].concat());
    (reply.status.as_u16(), reply.text())
}

const BYTES: usize = 5_000_000;

#[test]
fn a_response_beyond_the_plugins_memory_is_passed_on() {
    let proxy = start(store());
    let target = format!("/large/{BYTES}");
    let reply = proxy.get_with(&target, &[("x-do", "get"), ("x-to", "store")]);
    assert_eq!(reply.status, StatusCode::OK);
    assert!(reply.body == pattern(BYTES), "{} bytes", reply.body.len());
    // The connection is kept.
    proxy.get_with("/large/10", &[("x-do", "get"), ("x-to", "store")]);
    assert_eq!(proxy.origin("store").connections(), 1);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_request_beyond_it_is_sent_with_and_without_its_length() {
    let proxy = start(store());
    let bytes = BYTES.to_string();
    let put = [("x-do", "put"), ("x-bytes", bytes.as_str())];
    let told = format!("201 {BYTES} - chunked wanted true");
    assert_eq!(done(&proxy, &put), (200, told));
    let sized = [&put[..], &[("x-sized", bytes.as_str())]].concat();
    let told = format!("201 {BYTES} {BYTES} - wanted true");
    assert_eq!(done(&proxy, &sized), (200, told));
    // Host calls count anew with each piece.
    let small = [("x-do", "put"), ("x-bytes", "3000"), ("x-piece", "3")];
    assert_eq!(done(&proxy, &small).1, "201 3000 - chunked wanted true");
}

#[test]
fn peers_that_speak_http2_are_no_other() {
    let settings = ::h2::server::Builder::new();
    let peer = h2::origin(settings, |asked| async move {
        let (body, _) = h2::read(asked.request.into_body()).await.unwrap();
        h2::answer(asked.respond, format!("{} bytes", body.len()));
    });
    let proxy = setup(peer, "protocol = \"http2\"").start();
    let bytes = BYTES.to_string();
    let put = [("x-do", "put"), ("x-bytes", bytes.as_str())];
    let told = format!("200 {BYTES} bytes wanted true");
    assert_eq!(done(&proxy, &put), (200, told));
    assert_eq!(
        done(&proxy, &[("x-do", "get")]),
        (200, "0 bytes".to_owned())
    );
}

#[test]
fn hosts_that_are_granted_are_no_other_either() {
    let store = store();
    let to = format!("http://{}", store.address());
    let proxy = start(store);
    let bytes = BYTES.to_string();
    let put = [
        ("x-do", "put"),
        ("x-bytes", bytes.as_str()),
        ("x-to", to.as_str()),
    ];
    let told = format!("201 {BYTES} - chunked wanted true");
    assert_eq!(done(&proxy, &put), (200, told));
    let sized = [&put[..], &[("x-sized", bytes.as_str())]].concat();
    assert_eq!(
        done(&proxy, &sized).1,
        format!("201 {BYTES} {BYTES} - wanted true")
    );
    let target = format!("/large/{BYTES}");
    let reply = proxy.get_with(&target, &[("x-do", "get"), ("x-to", &to)]);
    assert!(reply.body == pattern(BYTES), "{} bytes", reply.body.len());
    let refused = done(&proxy, &[("x-do", "get"), ("x-to", "http://127.0.0.2:1")]);
    assert_eq!(refused.0, 500);
    proxy.until_log_has("http://127.0.0.2:1\", GET /x): not granted");
}

/// What a deaf peer has seen.
#[derive(Default)]
struct Seen {
    heads: AtomicUsize,
    /// Connections that have ended after their head.
    ends: AtomicUsize,
}

/// A peer that reads no more than a head.
fn deaf(answer: &'static str) -> (Origin, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let counted = Arc::clone(&seen);
    let origin = raw_origin::scripted(move |connection, _| {
        connection.read_head()?;
        counted.heads.fetch_add(1, Ordering::SeqCst);
        connection.send(answer);
        let ended = match answer.is_empty() {
            true => connection.read_to_end().map(drop),
            false => Ok(()),
        };
        counted.ends.fetch_add(1, Ordering::SeqCst);
        ended
    });
    (origin, seen)
}

#[test]
fn a_peer_that_answers_before_the_end_takes_no_more() {
    let early =
        "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!";
    let proxy = start(deaf(early).0);
    let put = [("x-do", "put"), ("x-bytes", "50000000")];
    assert_eq!(done(&proxy, &put), (200, "413 no! wanted false".to_owned()));
}

#[test]
fn one_that_takes_nothing_makes_the_plugin_wait_for_its_time_alone() {
    let silent = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        std::thread::sleep(std::time::Duration::from_secs(60));
        Ok(())
    });
    let proxy = start(silent);
    let put = [("x-do", "put"), ("x-bytes", "50000000"), ("x-ms", "300")];
    assert_eq!(done(&proxy, &put).0, 504);
    proxy.until_log_has("no room for more of its body in 300ms");
    let get = [("x-do", "get"), ("x-ms", "200")];
    assert_eq!(done(&proxy, &get).0, 504);
    proxy.until_log_has("no response in 200ms");
}

#[test]
fn a_response_that_breaks_off_fails_where_it_does() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome";
    let proxy = start(deaf(cut).0);
    let mut client = proxy.raw();
    client.send("GET /x HTTP/1.1\r\nHost: a\r\nX-Do: get\r\nX-To: store\r\n\r\n");
    assert!(client.try_read_reply().is_err(), "the response is cut");
    proxy.until_log_has("plugin porter failed in content: http::stream(\"store\", GET /x):");
    assert_eq!(done(&proxy, &[("x-do", "put"), ("x-bytes", "3")]).0, 502);
}

#[test]
fn a_call_that_is_dropped_ends_its_connection() {
    let (peer, seen) = deaf("");
    let proxy = start(peer);
    assert_eq!(done(&proxy, &[("x-do", "leave")]).1, "left");
    until("it has ended", || seen.ends.load(Ordering::SeqCst) == 1);
    // Clients that leave end one, too.
    let mut client = proxy.raw();
    client.send("GET /x HTTP/1.1\r\nHost: a\r\nX-Do: linger\r\nX-To: store\r\n\r\n");
    until("it is asked", || seen.heads.load(Ordering::SeqCst) == 2);
    client.reset();
    until("it has ended, too", || {
        seen.ends.load(Ordering::SeqCst) == 2
    });
}

#[test]
fn sixteen_are_open_at_a_time() {
    let proxy = start(deaf("").0);
    let (status, told) = done(&proxy, &[("x-do", "many")]);
    assert_eq!((status, &told[..3]), (200, "16 "));
    assert!(told.contains("full"), "{told}");
}

#[test]
fn a_length_that_is_told_is_held_to() {
    let proxy = start(store());
    let short = [("x-do", "put"), ("x-bytes", "5"), ("x-sized", "10")];
    assert_eq!(done(&proxy, &short).0, 500);
    proxy.until_log_has("its body has ended before the length that it was opened with");
    let long = [("x-do", "put"), ("x-bytes", "5"), ("x-sized", "3")];
    assert_eq!(done(&proxy, &long).0, 500);
    proxy.until_log_has("expected no more than the length that it was opened with");
    let own = [("x-do", "get"), ("x-to", "")];
    assert_eq!(done(&proxy, &own).0, 500);
    proxy.until_log_has("a sub-request's response comes whole");
}

#[test]
fn what_a_hostile_module_asks_is_refused_or_traps() {
    let manifest = module::manifest(1, r#"["content"]"#);
    let refused = [
        (
            "(call $write (i32.const 0) (i32.const 0) (i32.const 10))",
            "-2",
        ),
        ("(call $finish (i32.const -1))", "-2"),
        (
            "(call $read (i32.const 7) (i32.const 0) (i32.const 10))",
            "-2",
        ),
        (
            "(call $read (i32.const 0) (i32.const 0) (i32.const 0))",
            "-2",
        ),
        ("(call $close (i32.const 99))", "-2"),
        (
            "(call $open (i32.const 0) (i32.const 0) (i64.const -1))",
            "-2",
        ),
        (
            "(call $open (i32.const 0) (i32.const 24) (i64.const -2))",
            "-2",
        ),
        (
            "(call $open (i32.const 0) (i32.const 65536) (i64.const 0))",
            "-2",
        ),
    ];
    for (call, status) in refused {
        let found = hostile(&manifest, call, status);
        assert_eq!(found, StatusCode::NOT_FOUND, "{call}");
    }
    for call in [
        "(call $open (i32.const 65530) (i32.const 10) (i64.const 0))",
        "(call $read (i32.const 0) (i32.const 65530) (i32.const 10))",
        "(call $write (i32.const 0) (i32.const -1) (i32.const 10))",
    ] {
        let found = hostile(&manifest, call, "0");
        assert_eq!(found, StatusCode::INTERNAL_SERVER_ERROR, "{call}");
    }
}

/// Status of the response where the call returns what is expected: 404, since the route has no other content.
fn hostile(manifest: &str, call: &str, expected: &str) -> StatusCode {
    let fields = format!(
        r#"(import "castling" "call_open" (func $open (param i32 i32 i64) (result i32)))
        (import "castling" "call_write" (func $write (param i32 i32 i32) (result i32)))
        (import "castling" "call_finish" (func $finish (param i32) (result i32)))
        (import "castling" "call_read" (func $read (param i32 i32 i32) (result i32)))
        (import "castling" "call_close" (func $close (param i32) (result i32)))
        (func (export "castling_hook_content") (param i32 i32 i32) (result i32)
            (if (i32.ne {call} (i32.const {expected})) (then unreachable))
            i32.const 0)"#
    );
    let store = origin::text("hi");
    let port = store.address().port().to_string();
    let config = CONFIG
        .replace("{guests}/porter.wasm", "{dir}/hostile.wasm")
        .replace("PORT", &port)
        .replace("PROTOCOL", "");
    let proxy = Proxy::with_config(&config)
        .origin("store", store)
        .file("hostile.wasm", module::plugin(manifest, &fields))
        .start();
    proxy.get("/").status
}
