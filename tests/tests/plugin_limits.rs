//! Every limit of a plugin is reached by one that overdoes it: the error names plugin, hook and limit, and the gateway
//! serves on.

use castling_tests::hostile::{hostile, setup};
use castling_tests::{Proxy, body, module, origin, until};
use http::{Request, StatusCode};

/// A request that makes the plugin overdo it fails, the log names all of `facts`, and the next request is served.
#[track_caller]
fn reached(proxy: &Proxy, headers: &[(&str, &str)], facts: &[&str]) {
    fails_with(StatusCode::INTERNAL_SERVER_ERROR, proxy, headers, facts);
}

/// Asserts the same where a host call was refused, and the hook fails with that.
#[track_caller]
fn refused(proxy: &Proxy, headers: &[(&str, &str)], facts: &[&str]) {
    fails_with(StatusCode::SERVICE_UNAVAILABLE, proxy, headers, facts);
}

#[track_caller]
fn fails_with(status: StatusCode, proxy: &Proxy, headers: &[(&str, &str)], facts: &[&str]) {
    assert_eq!(proxy.get_with("/", headers).status, status);
    told(proxy, facts);
}

/// The log has a line with all of these, and the gateway serves on.
#[track_caller]
fn told(proxy: &Proxy, facts: &[&str]) {
    let told = proxy.until_log_has(facts[0]);
    for fact in facts {
        assert!(told.contains(fact), "no {fact:?} in {told}");
    }
    assert_eq!(proxy.get("/").text(), "hello");
}

#[test]
fn host_calls() {
    let proxy = hostile("limits = { host_calls = 1000, cpu = \"5s\" }");
    for what in ["host-calls", "clock-calls"] {
        let enough = proxy.get_with("/", &[("x-do", what), ("x-times", "900")]);
        assert_eq!(enough.text(), "hello");
        reached(
            &proxy,
            &[("x-do", what), ("x-times", "1001")],
            &["limits.host_calls of 1000 reached", "hostile", "access"],
        );
    }
    assert_eq!(proxy.status()["plugins"][0]["traps"], 2);
}

#[test]
fn log_lines_a_second() {
    let proxy = hostile("limits = { log_lines = 10 }");
    let reply = proxy.get_with("/", &[("x-do", "log"), ("x-times", "50")]);
    assert_eq!(reply.text(), "hello");
    let notice = proxy.until_log_has("of plugin hostile were dropped");
    assert!(
        notice.contains("limits.log_lines of 10 a second reached"),
        "{notice}"
    );
    let written = proxy.log().matches("chatter").count();
    // A second may have ended in the middle.
    assert!((10..=20).contains(&written), "{written}");
    let dropped = format!("{} log lines", 50 - written);
    assert!(notice.contains(&dropped), "no {dropped:?} in {notice}");
}

#[test]
fn what_the_level_leaves_out_is_no_line_of_the_budget() {
    let proxy = hostile("limits = { log_lines = 10 }\n\n[log]\nlevel = \"warn\"");
    proxy.get_with("/", &[("x-do", "log"), ("x-times", "50")]);
    reached(
        &proxy,
        &[("x-do", "fail")],
        &["access was asked to fail", "hostile"],
    );
    assert!(!proxy.log().contains("dropped"), "{}", proxy.log());
}

#[test]
fn a_long_log_line_is_cut() {
    let proxy = hostile("");
    let long = "l".repeat(6000);
    proxy.get_with("/", &[("x-do", "log-header"), ("x-line", &long)]);
    let line = proxy.until_log_has("llll");
    assert!(line.contains("lll [cut]"), "{line}");
    assert_eq!(line.matches('l').count() / 1000, 4, "{line}");
}

#[test]
fn headers_of_a_request() {
    let proxy = hostile("limits = { headers = 20, header_bytes = \"1KiB\" }");
    let add = |times| [("x-do", "add-headers"), ("x-times", times)];
    assert_eq!(proxy.get_with("/", &add("20")).text(), "hello");
    let arrived = proxy.origin("app").last().headers;
    assert_eq!(arrived.get_all("x-more").iter().count(), 20);
    refused(
        &proxy,
        &add("21"),
        &[
            "limits.headers of 20 reached",
            "hostile",
            "access",
            "x-more",
        ],
    );
    // 6 bytes of name and 200 of value each time.
    let large = |times| {
        [
            ("x-do", "add-headers"),
            ("x-times", times),
            ("x-bytes", "200"),
        ]
    };
    assert_eq!(proxy.get_with("/", &large("4")).text(), "hello");
    refused(
        &proxy,
        &large("5"),
        &["limits.header_bytes of 1024 bytes reached", "access"],
    );
}

#[test]
fn headers_of_a_response_on_each_plugins_own_account() {
    // The last in the list sees the response first.
    let config = r#"
        [workers]
        count = 1

        [plugins.roomy]
        wasm = "{guests}/hostile.wasm"
        limits = { headers = 20 }

        [plugins.narrow]
        wasm = "{guests}/hostile.wasm"
        limits = { headers = 15 }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["narrow", "roomy"]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", origin::text("hello"))
        .start();
    let add = |times| [("x-do", "add-reply-headers"), ("x-times", times)];
    let reply = proxy.get_with("/", &add("15"));
    assert_eq!(reply.headers.get_all("x-more").iter().count(), 30);
    // The other one adds its own to this response and then to the 503 in its place, each time to a head that is new.
    refused(
        &proxy,
        &add("16"),
        &[
            "limits.headers of 15 reached",
            "plugin narrow failed in response_headers",
        ],
    );
    assert!(!proxy.log().contains("roomy failed"), "{}", proxy.log());
}

#[test]
fn headers_that_take_the_place_of_others_add_nothing() {
    let proxy = hostile("limits = { headers = 2, header_bytes = \"256\" }");
    for what in ["set-header-often", "add-and-remove"] {
        let reply = proxy.get_with("/", &[("x-do", what), ("x-times", "100"), ("x-bytes", "9")]);
        assert_eq!(reply.text(), "hello", "{what}");
    }
}

#[test]
fn the_head_of_an_answer() {
    let proxy = hostile("limits = { headers = 20 }");
    let answer = |times| [("x-do", "answer"), ("x-times", times)];
    assert_eq!(proxy.get_with("/", &answer("20")).status, StatusCode::OK);
    refused(
        &proxy,
        &answer("21"),
        &["limits.headers of 20 reached", "hostile", "access"],
    );
}

#[test]
fn a_path() {
    let proxy = hostile("limits = { header_bytes = \"1KiB\" }");
    refused(
        &proxy,
        &[("x-do", "set-path"), ("x-bytes", "2000")],
        &["limits.header_bytes of 1024 bytes reached", "set_path"],
    );
}

#[test]
fn variables() {
    let proxy = hostile("limits = { variables = 5, variable_bytes = \"1KiB\" }");
    let set = |times, bytes| {
        [
            ("x-do", "set-variables"),
            ("x-times", times),
            ("x-bytes", bytes),
        ]
    };
    assert_eq!(proxy.get_with("/", &set("5", "1")).text(), "hello");
    refused(
        &proxy,
        &set("6", "1"),
        &["limits.variables of 5 reached", "hostile", "access", "v5"],
    );
    refused(
        &proxy,
        &set("3", "500"),
        &["limits.variable_bytes of 1024 bytes reached", "v2"],
    );
}

#[test]
fn bodies() {
    let proxy = hostile("limits = { body = \"1KiB\" }");
    let read = |bytes: usize| {
        let request = Request::post("/").header("x-do", "read-body");
        let body = body::full(vec![b'b'; bytes]);
        proxy.send(request.body(body).unwrap())
    };
    assert_eq!(read(1024).text(), "hello");
    assert_eq!(read(1025).status, StatusCode::PAYLOAD_TOO_LARGE);
    let reached_body = "limits.body of 1024 bytes reached";
    told(&proxy, &[reached_body, "hostile", "access", "read_body"]);
    // An answer of its own, and a chunk in the place of another.
    let answer = |bytes| [("x-do", "answer"), ("x-bytes", bytes)];
    assert_eq!(proxy.get_with("/", &answer("1024")).body.len(), 1024);
    let failed = proxy.get_with("/", &answer("1025"));
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    told(
        &proxy,
        &["answer with status 200 and 1025 bytes", reached_body],
    );
    let failed = proxy.get_with("/", &[("x-do", "grow-chunk"), ("x-bytes", "1025")]);
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    told(&proxy, &["failed in response_body", reached_body]);
}

#[test]
fn calls_out() {
    let config = r#"
        [plugins.waiter]
        wasm = "{guests}/waiter.wasm"
        grants = { upstreams = ["helper"] }
        limits = { calls = 2 }

        [listeners.web]
        bind = "{listen}"

        [upstreams.helper]
        peers = ["{app}"]

        [[routes]]
        plugins = ["waiter"]
        upstream = "helper"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", origin::text("hello"))
        .start();
    let calls = |paths| [("x-calls", paths), ("x-calls-must", "succeed")];
    assert_eq!(proxy.get_with("/", &calls("/1 /2")).text(), "hello");
    refused(
        &proxy,
        &calls("/1 /2 /3"),
        &["limits.calls of 2 reached", "waiter", "access"],
    );
}

#[test]
fn the_stack() {
    // Deep enough for what the plugin does otherwise.
    let config = setup("plugin_stack = \"64KiB\"", "limits = { cpu = \"5s\" }");
    let proxy = config.origin("app", origin::text("hello")).start();
    let worker = proxy.workers();
    reached(
        &proxy,
        &[("x-do", "recurse-without-memory")],
        &[
            "workers.plugin_stack of 65536 bytes reached",
            "hostile",
            "access",
            "recurses_without_memory",
        ],
    );
    assert_eq!(proxy.workers(), worker);
    // Frames of this depth fit into the default and not into this.
    let deep = [("x-do", "recurse-without-memory"), ("x-times", "4000")];
    let failed = proxy.get_with("/", &deep);
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(hostile("").get_with("/", &deep).text(), "hello");
}

#[test]
fn the_table() {
    let crude = |limit: &str, elements: &str, access: &str| {
        let config = r#"
            [workers]
            count = 1

            [plugins.crude]
            wasm = "crude.wasm"
            limits = { table = LIMIT }

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
        let fields = format!(
            r#"(table $t {elements} funcref)
               (func (export "castling_hook_access") (param i32 i32 i32) (result i32) {access})"#
        );
        let module = module::plugin(&module::manifest(1, r#"["access"]"#), &fields);
        Proxy::with_config(&config.replace("LIMIT", limit)).file("crude.wasm", module)
    };
    // An element more is refused to the guest, which gives up.
    let grow = r#"(if (i32.eq (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1)) (then unreachable))
                  (i32.const 0)"#;
    let proxy = crude("10", "9", grow)
        .origin("app", origin::text("hello"))
        .start();
    assert_eq!(proxy.get("/crude").text(), "hello");
    assert_eq!(
        proxy.get("/crude").status,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    told(&proxy, &["limits.table of 10 reached", "crude", "access"]);
    // A module that begins with more than it may have does not come in.
    crude("10", "11", "(i32.const 0)")
        .origin("app", origin::text("hello"))
        .check()
        .expect_error("plugin crude: it cannot be instantiated: limits.table of 10 reached");
}

#[test]
fn memory_that_a_module_begins_with() {
    let config = r#"
        [plugins.large]
        wasm = "{guests}/hostile.wasm"
        limits = { memory = "64KiB" }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["127.0.0.1:1"]

        [[routes]]
        plugins = ["large"]
        upstream = "app"
    "#;
    Proxy::with_config(config).check().expect_error(
        "plugin large: it cannot be instantiated: limits.memory of 65536 bytes reached",
    );
}

#[test]
fn instances_and_calls_that_wait_for_one() {
    let proxy = hostile("limits = { instances = 1, instance_queue = 1, instance_wait = \"1m\" }");
    let part = "POST / HTTP/1.1\r\nHost: a\r\nX-Do: read-body\r\nContent-Length: 4\r\n\r\nab";
    // The first has the instance, which waits for its body; the second waits for the instance; there is no room for a
    // third.
    let mut first = proxy.raw();
    first.send(part);
    until("the plugin was called", || {
        proxy.status()["plugins"][0]["calls"] != 0
    });
    let mut second = proxy.raw();
    second.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the second has come", || {
        proxy.status()["workers"][0]["requests_active"] == 2
    });
    let third = proxy.get("/");
    assert_eq!(third.status, StatusCode::SERVICE_UNAVAILABLE);
    let said = proxy.until_log_has("limits.instance_queue of 1 calls");
    for fact in ["limits.instances of 1 reached", "hostile", "rewrite"] {
        assert!(said.contains(fact), "no {fact:?} in {said}");
    }
    first.send("cd");
    assert_eq!(first.read_reply().text(), "hello");
    assert_eq!(second.read_reply().text(), "hello");
    // The third's `rewrite`; its `log` has the reserve.
    let plugin = &proxy.status()["plugins"][0];
    assert_eq!(
        (&plugin["exhausted"], &plugin["failures"], &plugin["traps"]),
        (&1.into(), &0.into(), &0.into())
    );
    let table = proxy.command("status", &[]).expect_success().stdout;
    assert!(table.contains("exhausted"), "{table}");
}

#[test]
fn a_call_does_not_wait_for_an_instance_for_ever() {
    let proxy = hostile("limits = { instances = 1, instance_wait = \"50ms\" }");
    let mut first = proxy.raw();
    first.send("POST / HTTP/1.1\r\nHost: a\r\nX-Do: read-body\r\nContent-Length: 4\r\n\r\nab");
    until("the plugin was called", || {
        proxy.status()["plugins"][0]["calls"] != 0
    });
    assert_eq!(proxy.get("/").status, StatusCode::SERVICE_UNAVAILABLE);
    let said = proxy.until_log_has("within limits.instance_wait of 50ms");
    assert!(said.contains("limits.instances of 1 reached"), "{said}");
    first.send("cd");
    assert_eq!(first.read_reply().text(), "hello");
    assert_eq!(proxy.get("/").text(), "hello");
}
