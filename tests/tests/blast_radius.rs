//! How far the failure of one call reaches: not to other requests, not into the next instance, and per route as far as
//! its `on_error` says.

use castling_tests::hostile::{self, hostile};
use castling_tests::{Proxy, origin};
use http::StatusCode;

/// A tenth of many requests at once trap in a plugin that all of them wait in.
#[test]
fn traps_leave_other_requests_of_the_same_plugin_alone() {
    let proxy = hostile("quarantine = { traps = 0 }");
    let worker = proxy.workers();
    std::thread::scope(|scope| {
        for client in 0..30 {
            let mut connection = proxy.raw();
            scope.spawn(move || {
                for idx in 0..20 {
                    let traps = (client + idx) % 10 == 0;
                    let what = if traps { "panic" } else { "wait" };
                    connection.send(format!(
                        "GET / HTTP/1.1\r\nHost: a\r\nX-Do: {what}\r\nX-Times: 5\r\n\r\n"
                    ));
                    let reply = connection.read_reply();
                    match traps {
                        true => assert_eq!(reply.status, 500),
                        false => assert_eq!((reply.status, &*reply.text()), (200, "hello")),
                    }
                }
            });
        }
    });
    assert_eq!(proxy.status()["plugins"][0]["traps"], 60);
    assert_eq!(proxy.workers(), worker);
}

const SECRET: &str = "correct-horse-battery-staple";
const HEAP_BYTES: &str = "3000000";

fn plant(proxy: &Proxy, then: &str) -> StatusCode {
    let headers = [
        ("x-do", "plant"),
        ("x-secret", SECRET),
        ("x-bytes", HEAP_BYTES),
        ("x-then", then),
    ];
    proxy.get_with("/", &headers).status
}

/// How often the secret is in all memory of the instance that serves this request.
#[track_caller]
fn look(proxy: &Proxy) -> usize {
    let backwards: String = SECRET.chars().rev().collect();
    let headers = [
        ("x-do", "look"),
        ("x-secret", &backwards),
        ("x-bytes", HEAP_BYTES),
    ];
    let told = proxy.get_with("/", &headers).text();
    let (found, bytes) = told.split_once(" in ").expect(&told);
    let bytes = bytes.strip_suffix(", grown: true").expect(&told);
    assert!(bytes.parse::<usize>().unwrap() > 4_000_000, "{told}");
    found.parse().expect(&told)
}

#[test]
fn what_an_instance_had_in_memory_is_not_in_the_next_one() {
    let limits = "cpu = \"10s\", instances = 1, instance_reserve = 0, memory = \"60MiB\"";
    // Planted bytes are found in the same instance, so looking works.
    let proxy = hostile(&format!("limits = {{ {limits} }}"));
    assert_eq!(plant(&proxy, ""), StatusCode::OK);
    assert!(look(&proxy) > 100_000);

    for (how, lines) in [
        (
            "each request has its own",
            format!("isolation = \"request\"\nlimits = {{ {limits} }}"),
        ),
        (
            "it has served its calls",
            format!("limits = {{ {limits}, instance_calls = 1 }}"),
        ),
        (
            "it has grown to three quarters of its memory",
            format!("limits = {{ {} }}", limits.replace("60MiB", "8MiB")),
        ),
    ] {
        // The next one is made from a snapshot of one that was configured; see snapshots.rs.
        let proxy =
            hostile::setup("[log]\nlevel = \"debug\"", &lines).origin("app", origin::text("hello"));
        let proxy = proxy.start();
        proxy.until_log_has("further instances are made from a snapshot plugin=\"hostile\"");
        for _ in 0..3 {
            assert_eq!(plant(&proxy, ""), StatusCode::OK, "{how}");
            if how.contains("three quarters") {
                assert_eq!(plant(&proxy, ""), StatusCode::OK, "{how}");
            }
            assert_eq!(look(&proxy), 0, "{how}");
        }
    }

    let proxy = hostile(&format!(
        "quarantine = {{ traps = 0 }}\nlimits = {{ {limits} }}"
    ));
    for _ in 0..3 {
        assert_eq!(plant(&proxy, "panic"), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(look(&proxy), 0, "it has trapped");
    }
}

const ROUTES: &str = r#"
    [workers]
    count = 1

    [plugins.strict]
    wasm = "{guests}/hostile.wasm"

    [plugins.lenient]
    wasm = "{guests}/hostile.wasm"
    on_error = "skip"

    [listeners.web]
    bind = "{listen}"

    [listeners.lenient]
    bind = "{listen_lenient}"
    plugins = [{ name = "strict", on_error = "skip" }]

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    listeners = ["web"]
    path = "/strict"
    plugins = ["strict"]
    upstream = "app"

    [[routes]]
    listeners = ["web"]
    path = "/strict-skipped"
    plugins = [{ name = "strict", on_error = "skip" }]
    upstream = "app"

    [[routes]]
    listeners = ["web"]
    path = "/lenient"
    plugins = ["lenient"]
    upstream = "app"

    [[routes]]
    listeners = ["web"]
    path = "/lenient-denied"
    plugins = [{ name = "lenient", on_error = "deny" }]
    upstream = "app"

    [[routes]]
    listeners = ["lenient"]
    upstream = "app"
"#;

#[test]
fn on_error_is_a_plugins_and_a_routes_may_be_another() {
    let proxy = Proxy::with_config(ROUTES)
        .origin("app", origin::text("hello"))
        .start();
    for hook in ["rewrite", "access", "response_headers", "response_body"] {
        for (path, expected) in [
            ("/strict", StatusCode::INTERNAL_SERVER_ERROR),
            ("/strict-skipped", StatusCode::OK),
            ("/lenient", StatusCode::OK),
            ("/lenient-denied", StatusCode::INTERNAL_SERVER_ERROR),
        ] {
            let reply = proxy.get_with(path, &[("x-do", "fail"), ("x-in", hook)]);
            assert_eq!(reply.status, expected, "{path} {hook}");
        }
    }
    let request = http::Request::get("/")
        .header("x-do", "panic")
        .body(castling_tests::body::empty())
        .unwrap();
    let reply = castling_tests::client::send(proxy.address_of("listen_lenient"), request);
    assert_eq!(reply.text(), "hello");
}

#[test]
fn check_tells_where_a_failing_plugin_is_skipped() {
    let proxy = Proxy::with_config(ROUTES)
        .origin("app", origin::text("hello"))
        .start();
    let said = proxy.check().expect_success().stdout;
    let phases = |route: &str| {
        let (_, rest) = said.split_once(&format!("route {route} ")).expect(&said);
        // The line after the one that says for which requests.
        rest.lines().nth(2).expect(&said).to_owned()
    };
    assert!(phases("/strict").contains("access: strict;"), "{said}");
    assert!(
        phases("/strict-skipped").contains("access: strict (on_error skip);"),
        "{said}"
    );
    assert!(
        phases("/lenient").contains("access: lenient (on_error skip);"),
        "{said}"
    );
    assert!(
        phases("/lenient-denied").contains("access: lenient;"),
        "{said}"
    );
}
