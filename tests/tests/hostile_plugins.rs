//! Plugins that misbehave may cost their own request, and nothing else.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use castling_tests::hostile::{hostile, hostile_before};
use castling_tests::{Proxy, RawClient, module, origin, raw_origin, until};
use http::StatusCode;

#[test]
fn a_panic_costs_its_request_and_is_told_with_message_place_and_backtrace() {
    let proxy = hostile("");
    let worker = proxy.workers();
    let mut others: Vec<RawClient> = (0..5).map(|_| proxy.raw()).collect();
    for _ in 0..3 {
        let reply = proxy.get_with("/", &[("x-do", "panic")]);
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
        for other in &mut others {
            assert_eq!(
                other
                    .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    .read_reply()
                    .text(),
                "hello"
            );
        }
    }
    let told = proxy.until_log_has("access was asked to panic");
    for fact in ["hostile", "access", "src/lib.rs:", "panics_on_purpose"] {
        assert!(told.contains(fact), "no {fact:?} in {told}");
    }
    assert_eq!(proxy.workers(), worker);
}

#[test]
fn an_error_of_a_hook_is_500_and_told() {
    let proxy = hostile("");
    for hook in ["rewrite", "access", "response_headers"] {
        let reply = proxy.get_with("/", &[("x-do", "fail"), ("x-in", hook)]);
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR, "{hook}");
        let told = proxy.until_log_has(&format!("{hook} was asked to fail"));
        assert!(told.contains("hostile"), "{told}");
    }
}

#[test]
fn what_a_plugin_says_of_its_failure_is_not_for_clients() {
    let proxy = hostile("");
    for what in ["panic", "fail"] {
        let reply = proxy.get_with("/", &[("x-do", what)]);
        assert!(
            !reply.text().contains("asked to") && !reply.text().contains("hostile"),
            "{}",
            reply.text()
        );
    }
}

#[test]
fn a_failure_in_the_body_cuts_the_response() {
    let proxy = hostile("");
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Do: panic\r\nX-In: response_body\r\n\r\n");
    if let Ok(reply) = client.try_read_reply() {
        // Nothing was sent before: it may still be an honest 500.
        assert_eq!(reply.status, 500);
    }
    proxy.until_log_has("response_body was asked to panic");
    assert_eq!(proxy.get("/").text(), "hello");
}

#[test]
fn a_failure_in_log_or_balance_costs_no_more_than_it_must() {
    let proxy = hostile("");
    assert_eq!(
        proxy
            .get_with("/", &[("x-do", "panic"), ("x-in", "log")])
            .text(),
        "hello"
    );
    proxy.until_log_has("log was asked to panic");
    let reply = proxy.get_with("/", &[("x-do", "panic"), ("x-in", "balance")]);
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    let worker = proxy.workers();
    // A peer that is none: whatever the answer, the worker lives.
    proxy.get_with("/", &[("x-do", "peer-beyond-the-end")]);
    assert_eq!(proxy.get("/").text(), "hello");
    assert_eq!(proxy.workers(), worker);
}

#[test]
fn a_choice_of_a_peer_that_has_left_is_no_fault_of_the_plugin() {
    let proxy = hostile("");
    let (app, spare) = (proxy.origin("app").address(), origin::text("spare"));
    let upstream = |words: &[&str]| proxy.command("upstream", words).expect_success();
    let first = [("x-do", "peer-first")];
    assert_eq!(proxy.get_with("/", &first).text(), "hello");
    upstream(&["app", "add", &spare.address().to_string()]);
    upstream(&["app", "remove", &app.to_string()]);
    // Slot 0 is below the others', and no peer's.
    until("the worker knows", || {
        proxy.get_with("/", &first).text() == "spare"
    });
    let beyond = proxy.get_with("/", &[("x-do", "peer-beyond-the-end")]);
    assert_eq!(beyond.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn on_error_skip_goes_on_without_the_hook() {
    let proxy = hostile("on_error = \"skip\"");
    for what in ["panic", "fail"] {
        for hook in [
            "rewrite",
            "access",
            "balance",
            "response_headers",
            "response_body",
            "log",
        ] {
            let reply = proxy.get_with("/", &[("x-do", what), ("x-in", hook)]);
            assert_eq!(
                (reply.status, reply.text().as_str()),
                (StatusCode::OK, "hello"),
                "{what} in {hook}"
            );
            proxy.until_log_has(&format!("{hook} was asked to {what}"));
        }
    }
}

#[test]
fn a_failure_on_a_bodys_first_chunk_is_a_whole_500() {
    let proxy = hostile("");
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Do: fail\r\nX-In: response_body\r\n\r\n");
    assert_eq!(client.read_reply().status, 500);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_reply().text(), "hello");
    let lines = proxy.until_access_lines(2);
    assert!(lines[0].contains("\" 500 "), "{}", lines[0]);
    assert!(lines[1].contains("\" 200 "), "{}", lines[1]);
}

#[test]
fn on_error_skip_leaves_out_a_body_hook_only_before_it_has_taken_some_of_the_body() {
    // The second piece comes when the client has the first one.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let two_pieces = raw_origin::scripted(move |connection, _| {
        loop {
            connection.read_head()?;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
            let released = released.lock().map_err(|error| error.to_string())?;
            released.recv().map_err(|error| error.to_string())?;
            connection.send("-last");
        }
    });
    let proxy = hostile_before(two_pieces, "on_error = \"skip\"");
    for (what, rest) in [
        // Skipped from its first chunk on: all of the body.
        ("fail", "5\r\n-last\r\n0\r\n\r\n"),
        // The filter may have held back some of the first chunk: the end is missing, and the client can tell.
        ("fail-at-end", ""),
    ] {
        let mut client = proxy.raw();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Do: {what}\r\nX-In: response_body\r\n\r\n"
        ));
        let head = client.read_head().unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{what}: {head}");
        assert_eq!(client.read_exact(10).unwrap(), b"5\r\nfirst\r\n");
        release.send(()).unwrap();
        let end = client.read_to_end().unwrap();
        assert_eq!(String::from_utf8_lossy(&end), rest, "{what}");
    }
    proxy.until_log_has("response_body was asked to fail at the end");
}

#[test]
fn a_hook_that_computes_too_long_is_ended_by_its_limit() {
    let proxy = hostile("limits = { cpu = \"30ms\" }");
    let start = Instant::now();
    let reply = proxy.get_with("/", &[("x-do", "loop")]);
    assert!(reply.status.is_server_error(), "{}", reply.status);
    assert!(start.elapsed() < Duration::from_secs(5));
    let told = proxy.until_log_has("limits.cpu");
    for fact in ["hostile", "access", "30"] {
        assert!(told.contains(fact), "no {fact:?} in {told}");
    }
    assert_eq!(proxy.get("/").text(), "hello");
}

#[test]
fn a_hook_that_computes_lets_others_pass() {
    let proxy = hostile("limits = { cpu = \"400ms\" }");
    let mut computing = proxy.raw();
    computing.send("GET / HTTP/1.1\r\nHost: a\r\nX-Do: loop\r\n\r\n");
    let computed = std::thread::spawn(move || {
        let reply = computing.read_reply();
        (reply.status, Instant::now())
    });
    for _ in 0..20 {
        assert_eq!(proxy.get("/").text(), "hello");
    }
    let others_done = Instant::now();
    let (status, ended) = computed.join().unwrap();
    assert!(status >= 500, "{status}");
    assert!(others_done < ended, "others waited for the computing hook");
}

#[test]
fn a_plugin_that_hoards_memory_is_ended_by_its_limit() {
    let proxy = hostile("limits = { memory = \"4MiB\", cpu = \"5s\" }");
    let worker = proxy.workers()[0];
    let before = worker.resident_kib();
    for _ in 0..5 {
        let reply = proxy.get_with("/", &[("x-do", "grow")]);
        assert!(reply.status.is_server_error(), "{}", reply.status);
    }
    let told = proxy.until_log_has("limits.memory");
    for fact in ["hostile", "access"] {
        assert!(told.contains(fact), "no {fact:?} in {told}");
    }
    assert!(worker.resident_kib() < before + 64 * 1024);
    assert_eq!(proxy.get("/").text(), "hello");
}

#[test]
fn a_plugin_that_recurses_for_ever_costs_its_request() {
    let proxy = hostile("limits = { cpu = \"5s\" }");
    let worker = proxy.workers();
    assert!(
        proxy
            .get_with("/", &[("x-do", "recurse")])
            .status
            .is_server_error()
    );
    assert_eq!(proxy.get("/").text(), "hello");
    assert_eq!(proxy.workers(), worker);
}

// Guests that no SDK made.

/// A gateway with a hand-made plugin whose `access` has this body.
#[track_caller]
fn hand_made(imports: &str, access: &str) -> Proxy {
    let config = r#"
        [plugins.crude]
        wasm = "crude.wasm"

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        path = "/crude"
        plugins = ["crude"]
        upstream = "app"

        [[routes]]
        upstream = "app"
    "#;
    let hook = format!(
        r#"{imports} (func (export "castling_hook_access") (param i32 i32 i32) (result i32) {access})"#
    );
    let module = module::plugin(&module::manifest(1, r#"["access"]"#), &hook);
    Proxy::with_config(config)
        .file("crude.wasm", module)
        .origin("app", origin::text("hello"))
        .start()
}

#[test]
fn pointers_outside_the_guests_memory_cost_its_request() {
    let outside = "(i32.const 0x7fffff00)";
    for (imports, call) in [
        (
            r#"(import "castling" "log" (func $f (param i32 i32 i32)))"#,
            format!("(call $f (i32.const 0) {outside} (i32.const 100))"),
        ),
        (
            r#"(import "castling" "log" (func $f (param i32 i32 i32)))"#,
            "(call $f (i32.const 0) (i32.const -1) (i32.const -1))".to_owned(),
        ),
        (
            r#"(import "castling" "random_get" (func $f (param i32 i32)))"#,
            format!("(call $f {outside} (i32.const 8))"),
        ),
        (
            r#"(import "castling" "header_get" (func $f (param i32 i32 i32 i32 i32) (result i32)))"#,
            format!(
                "(drop (call $f (i32.const 0) {outside} (i32.const 4) (i32.const 0) (i32.const 0)))"
            ),
        ),
        (
            r#"(import "castling" "property_get" (func $f (param i32 i32 i32) (result i32)))"#,
            format!("(drop (call $f (i32.const 1) {outside} (i32.const 100)))"),
        ),
    ] {
        let proxy = hand_made(imports, &format!("{call} (i32.const 0)"));
        let workers = proxy.workers();
        assert_eq!(
            proxy.get("/crude").status,
            StatusCode::INTERNAL_SERVER_ERROR,
            "{imports}"
        );
        assert_eq!(proxy.get("/").text(), "hello");
        assert_eq!(proxy.workers(), workers);
    }
}

#[test]
fn an_action_that_is_none_costs_its_request() {
    for action in [99, -77, 2, 1] {
        // 2 is a reroute, which is not for `access`; 1 is an answer, but none was given.
        let proxy = hand_made("", &format!("(i32.const {action})"));
        assert_eq!(
            proxy.get("/crude").status,
            StatusCode::INTERNAL_SERVER_ERROR,
            "{action}"
        );
        assert_eq!(proxy.get("/").text(), "hello");
    }
}

#[test]
fn values_that_would_split_a_head_are_refused_to_the_guest() {
    // header_set(request, "x-a", "1\r\nX-B: 2") and then the status as an answer's place: continue whatever it says.
    let proxy = hand_made(
        r#"(import "castling" "header_set" (func $set (param i32 i32 i32 i32 i32) (result i32)))
           (data (i32.const 0) "x-a") (data (i32.const 16) "1\0d\0aX-B: 2")"#,
        "(drop (call $set (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 16) (i32.const 9))) (i32.const 0)",
    );
    assert_eq!(proxy.get("/crude").text(), "hello");
    let seen = proxy.origin("app").last();
    assert_eq!((seen.header("x-a"), seen.header("x-b")), (None, None));
}

#[test]
fn a_plugin_whose_configure_traps_or_never_ends_is_refused() {
    for (configure, fact) in [
        ("unreachable", "unreachable"),
        ("(loop $l (br $l)) (i32.const 0)", "cpu"),
    ] {
        let config = r#"
            [plugins.crude]
            wasm = "crude.wasm"

            [listeners.web]
            bind = "127.0.0.1:1"

            [upstreams.app]
            peers = ["127.0.0.1:2"]

            [[routes]]
            plugins = ["crude"]
            upstream = "app"
        "#;
        let module = module::assemble(&format!(
            r#"(module (memory (export "memory") 1)
                (func (export "castling_configure") (result i32) {configure})
                (func (export "castling_hook_access") (param i32 i32 i32) (result i32) i32.const 0)
                (@custom "castling.manifest" "{}"))"#,
            module::manifest(1, r#"["access"]"#).replace('"', "\\\"")
        ));
        let checked = Proxy::with_config(config)
            .file("crude.wasm", module)
            .check();
        let said = checked.outcome.expect_refusal().stderr;
        assert!(said.contains("crude") && said.contains(fact), "{said}");
    }
}

#[test]
fn a_trapping_plugin_leaks_no_instances() {
    let proxy = hostile("limits = { instances = 2 }\nquarantine = { traps = 0 }");
    let before = proxy.workers()[0].resident_kib();
    for _ in 0..200 {
        assert_eq!(
            proxy.get_with("/", &[("x-do", "panic")]).status,
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
    assert_eq!(proxy.get("/").text(), "hello");
    let grown_kib = proxy.workers()[0].resident_kib().saturating_sub(before);
    assert!(grown_kib < 16 * 1024, "{grown_kib} KiB");
    until("the log has them all", || {
        proxy.log().matches("access was asked to panic").count() >= 200
    });
}

#[test]
fn a_plugin_that_keeps_trapping_is_taken_out_and_let_back_in() {
    let proxy = hostile("quarantine = { traps = 3, within = \"1m\", backoff = \"200ms\" }");
    for n in 1..=3 {
        let mut client = proxy.raw_from([127, 0, 0, n].into());
        client.send(format!(
            "GET /{n} HTTP/1.1\r\nHost: a\r\nX-Do: panic\r\n\r\n"
        ));
        assert_eq!(client.read_reply().status, 500);
    }
    // Out: requests that would do no harm are refused, too.
    assert_eq!(proxy.get("/").status, StatusCode::SERVICE_UNAVAILABLE);
    proxy.until_log_has("plugin hostile keeps trapping: taken out");
    assert_eq!(proxy.status()["plugins"][0]["state"], "out");
    until("the plugin is back", || {
        proxy.get("/").status == StatusCode::OK
    });
    proxy.until_log_has("plugin hostile is back");
    assert_eq!(proxy.status()["plugins"][0]["state"], "in");
}
