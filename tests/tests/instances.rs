//! Instances of plugins that wait: what comes later in a request's life has a share of its own, and `configure` a
//! limit.

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use castling_tests::exposition::Exposition;
use castling_tests::hostile::hostile_before;
use castling_tests::{Proxy, module, origin, raw_origin, until};

#[test]
fn requests_that_wait_in_earlier_hooks_leave_instances_to_responses() {
    let (go_on, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let app = raw_origin::scripted(move |connection, _| {
        loop {
            let head = connection.read_head()?;
            if head.starts_with("GET /gated") {
                let gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
                gate.recv().map_err(|error| error.to_string())?;
            }
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let limits = "limits = { instances = 4, instance_queue = 100, instance_wait = \"1m\" }";
    let proxy = hostile_before(app, limits);
    let calls = || proxy.status()["plugins"][0]["calls"].as_u64().unwrap_or(0);

    // The first request is through with its early hooks and waits for its response.
    let mut gated = proxy.raw();
    gated.send("GET /gated HTTP/1.1\r\nHost: a\r\n\r\n");
    until("it has come to the peer", || {
        proxy.origin("app").requests() > 0 || proxy.origin("app").connections() > 0
    });
    // Six more wait in an early hook, of which four have all instances.
    let before = calls();
    let mut waiting: Vec<_> = (0..6).map(|_| proxy.raw()).collect();
    for client in &mut waiting {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nX-Do: read-body\r\nContent-Length: 4\r\n\r\nab");
    }
    until("four hooks wait", || {
        let workers = &proxy.status()["workers"];
        calls() >= before + 4 && workers[0]["requests_active"] == 7
    });
    // The response's hooks run all the same, and so does `log`.
    go_on.send(()).expect("the peer waits for it");
    assert_eq!(gated.read_reply().text(), "hello");
    for client in &mut waiting {
        client.send("cd");
    }
    for client in &mut waiting {
        assert_eq!(client.read_reply().text(), "hello");
    }
    let plugin = &proxy.status()["plugins"][0];
    assert_eq!(plugin["exhausted"], 0);
    assert_eq!(plugin["failures"], 0, "{}", proxy.log());
}

/// A plugin whose `configure` counts to this number; for each instance, since it has a start function, of which no
/// snapshot is made.
fn counting(to: u32) -> Vec<u8> {
    let manifest = module::manifest(1, r#"["access"]"#).replace('"', "\\\"");
    module::assemble(&format!(
        r#"(module
            (memory (export "memory") 1)
            (start $nothing)
            (func $nothing)
            (func (export "castling_configure") (result i32) (local i32)
                (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const {to}))))
                (i32.const 0))
            (func (export "castling_hook_access") (param i32 i32 i32) (result i32) (i32.const 0))
            (@custom "castling.manifest" "{manifest}"))"#
    ))
}

#[test]
fn configure_has_a_limit_of_its_own() {
    let setup = |limits: &str| {
        let config = r#"
            [plugins.slow]
            wasm = "slow.wasm"
            limits = { LIMITS }

            [listeners.web]
            bind = "{listen}"

            [upstreams.app]
            peers = ["{app}"]

            [[routes]]
            plugins = ["slow"]
            upstream = "app"
        "#;
        // A tenth of a second and more of computing: beyond what a hook may take.
        Proxy::with_config(&config.replace("LIMITS", limits))
            .file("slow.wasm", counting(500_000_000))
            .origin("app", origin::text("hello"))
    };
    setup("configure_cpu = \"10ms\"")
        .check()
        .expect_error("limits.configure_cpu of 10 ms reached");
    let proxy = setup("cpu = \"1ms\", configure_cpu = \"60s\"").start();
    assert_eq!(proxy.get("/").text(), "hello");
}

#[test]
fn instances_that_take_long_to_make_are_made_beside_one_another() {
    let config = r#"
        [workers]
        count = 1

        [plugins.slow]
        wasm = "slow.wasm"
        isolation = "request"

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["slow"]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .file("slow.wasm", counting(50_000_000))
        .origin("app", origin::text("hello"))
        .start();
    let worker = proxy.workers();
    let mut clients: Vec<_> = (0..6).map(|_| proxy.raw()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.read_reply().text(), "hello");
    }
    assert_eq!(proxy.workers(), worker, "the worker lives");
}

const TWO_ROUTES: &str = r#"
    [workers]
    count = 1

    [plugins.waiter]
    wasm = "{guests}/waiter.wasm"
    grants = { upstreams = [] }
    limits = { body = "1KiB", instances = 1, instance_reserve = 0, instance_queue = 20, instance_wait = "1m" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    path = "/many"
    plugins = ["waiter"]
    upstream = "app"

    [[routes]]
    path = "/few"
    plugins = ["waiter"]
    upstream = "app"
"#;

#[test]
fn a_route_whose_calls_wait_by_the_dozen_leaves_turns_to_another() {
    let proxy = Proxy::with_config(TWO_ROUTES)
        .origin("app", origin::text("hello"))
        .start();
    let plugin = || proxy.status()["plugins"][0].clone();
    // The one instance waits for this body.
    let mut first = proxy.raw();
    first.send("POST /many HTTP/1.1\r\nHost: a\r\nX-Body-Limit: 9\r\nContent-Length: 4\r\n\r\nab");
    until("the instance waits", || plugin()["instances_in_use"] == 1);
    let begin = |path: &str| {
        let mut client = proxy.raw();
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nX-Delay: 20\r\n\r\n"
        ));
        client
    };
    let mut many: Vec<_> = (0..20).map(|_| begin("/many")).collect();
    until("the queue is full", || plugin()["waiting"] == 20);
    // The new call gets the place of the youngest of the others.
    let mut few = begin("/few");
    let youngest = many.pop().map(|mut client| client.read_reply());
    assert!(youngest.is_some_and(|reply| reply.status == 503));
    assert_eq!(plugin()["instances_limit"], 1);
    first.send("cd");
    assert_eq!(few.read_reply().text(), "hello");
    let waiting = plugin()["waiting"].as_u64();
    assert!(
        waiting.is_some_and(|waiting| waiting > 10),
        "it had its turn after one of the others, and not after all: {waiting:?}"
    );
    for client in many.iter_mut().chain([&mut first]) {
        assert_eq!(client.read_reply().text(), "hello");
    }
    let metrics = Exposition::parse(&proxy.command("metrics", &[]).stdout);
    assert_eq!(metrics.sum("castling_instance_waiters", &[]), 0.0);
    assert_eq!(metrics.sum("castling_instances_limit", &[]), 1.0);
    assert!(metrics.sum("castling_instance_waits_total", &[]) >= 21.0);
}

#[test]
fn plugins_that_want_more_instances_than_a_worker_has_share_them() {
    let plugins: String = (0..18)
        .map(|number| {
            let limits = if number == 0 {
                "limits = { instances = 3 }"
            } else {
                ""
            };
            format!("[plugins.p{number}]\nwasm = \"{{guests}}/waiter.wasm\"\ngrants = {{ upstreams = [] }}\n{limits}\n")
        })
        .collect();
    let config = TWO_ROUTES.replace("[listeners.web]", &format!("{plugins}\n[listeners.web]"));
    let setup = Proxy::with_config(&config).origin("app", origin::text("hello"));
    // 4096 less the reserves of 18, the snapshot's and the four of the two small ones, for 17.
    let said = setup.check().outcome.expect_success().stdout;
    let warning = "warning: plugins: their limits.instances are more than the 4096 that a worker has for all: none has more than 227";
    assert!(said.contains(warning), "{said}");
}
