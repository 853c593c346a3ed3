//! Hooks that compute: they take turns, others pass, and what they use is counted against limits.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use castling_tests::{Proxy, RawClient, module, origin, until};
use http::StatusCode;

/// Two plugins from one module on one worker: `busy` may compute as long as a test needs, `bounded` has these limits.
#[track_caller]
fn computing(bounded: &str) -> Proxy {
    let config = r#"
        [workers]
        count = 1

        [plugins.busy]
        wasm = "{guests}/hostile.wasm"
        limits = { cpu = "60s", request_cpu = "0s" }

        [plugins.bounded]
        wasm = "{guests}/hostile.wasm"
        BOUNDED

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [upstreams.judged]
        peers = ["{app}"]
        balance = { plugin = "bounded" }

        [[routes]]
        path = "/busy"
        plugins = ["busy"]
        upstream = "app"

        [[routes]]
        path = "/bounded"
        plugins = ["bounded"]
        upstream = "judged"

        [[routes]]
        upstream = "app"
    "#;
    Proxy::with_config(&config.replace("BOUNDED", bounded))
        .origin("app", origin::text("hello"))
        .start()
}

/// Asks for something of `clients` at once on connections of their own; the moments at which they were answered.
fn all_at_once(
    proxy: &Proxy,
    clients: usize,
    request: &'static str,
) -> Vec<thread::JoinHandle<(u16, Instant)>> {
    let clients: Vec<RawClient> = (0..clients).map(|_| proxy.raw()).collect();
    let ask = |mut client: RawClient| {
        client.send(request);
        thread::spawn(move || (client.read_reply().status, Instant::now()))
    };
    clients.into_iter().map(ask).collect()
}

/// These tests compute, and judge what comes of it: beside one another each would have less of the machine than its
/// clock says.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn many_hooks_that_compute_let_others_pass_as_one_would() {
    let _alone = alone();
    let proxy = computing("limits = { cpu = \"150ms\" }");
    // By turns, so that the first one ends when all have nearly used up their limit.
    let looping = all_at_once(
        &proxy,
        4,
        "GET /bounded HTTP/1.1\r\nHost: a\r\nX-Do: loop\r\n\r\n",
    );
    let mut quick = proxy.raw();
    for _ in 0..40 {
        let reply = quick.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").read_reply();
        assert_eq!(reply.text(), "hello");
    }
    let others_done = Instant::now();
    for client in looping {
        let (status, ended) = client.join().unwrap();
        assert_eq!(status, 500);
        assert!(others_done < ended, "others waited for the computing hooks");
    }
}

#[test]
fn a_hook_over_its_limit_is_ended_and_on_error_decides_and_others_do_not_notice() {
    let _alone = alone();
    for (on_error, status) in [("deny", 500), ("skip", 200)] {
        let proxy = computing(&format!(
            "on_error = \"{on_error}\"\nlimits = {{ cpu = \"30ms\" }}"
        ));
        // In flight through the same plugin, and through another.
        let waiting = all_at_once(
            &proxy,
            4,
            "GET /bounded HTTP/1.1\r\nHost: a\r\nX-Do: wait\r\nX-Ms: 300\r\n\r\n",
        );
        let busy = all_at_once(
            &proxy,
            2,
            "GET /busy HTTP/1.1\r\nHost: a\r\nX-Do: compute\r\nX-Ms: 300\r\n\r\n",
        );
        let looping = all_at_once(
            &proxy,
            2,
            "GET /bounded HTTP/1.1\r\nHost: a\r\nX-Do: loop\r\n\r\n",
        );
        for client in looping {
            assert_eq!(client.join().unwrap().0, status, "{on_error}");
        }
        for client in waiting.into_iter().chain(busy) {
            assert_eq!(client.join().unwrap().0, 200, "{on_error}");
        }
        let told = proxy.until_log_has("limits.cpu of 30 ms reached");
        for fact in ["plugin bounded failed in access", "loops_for_ever"] {
            assert!(told.contains(fact), "no {fact:?} in {told}");
        }
    }
}

#[test]
fn a_hook_is_not_charged_for_what_it_waits() {
    let _alone = alone();
    // For a delay, while others compute.
    let proxy = computing("limits = { cpu = \"20ms\", request_cpu = \"20ms\" }");
    let busy = all_at_once(
        &proxy,
        2,
        "GET /busy HTTP/1.1\r\nHost: a\r\nX-Do: compute\r\nX-Ms: 400\r\n\r\n",
    );
    let waiting = all_at_once(
        &proxy,
        4,
        "GET /bounded HTTP/1.1\r\nHost: a\r\nX-Do: wait\r\nX-Ms: 300\r\n\r\n",
    );
    for client in waiting.into_iter().chain(busy) {
        assert_eq!(client.join().unwrap().0, 200);
    }
    // For its turn: of 400 ms each, every hook computes an eighth.
    let proxy = computing("limits = { cpu = \"200ms\" }");
    let sharing = all_at_once(
        &proxy,
        8,
        "GET /bounded HTTP/1.1\r\nHost: a\r\nX-Do: compute\r\nX-Ms: 400\r\n\r\n",
    );
    for client in sharing {
        assert_eq!(client.join().unwrap().0, 200);
    }
}

#[test]
fn the_hooks_of_a_request_together_are_ended_by_its_limit() {
    let _alone = alone();
    let proxy = computing("limits = { request_cpu = \"100ms\" , cpu = \"60s\" }");
    let ask = |place: &str, ms: &str| {
        proxy
            .get_with(
                "/bounded",
                &[("x-do", "compute"), ("x-in", place), ("x-ms", ms)],
            )
            .status
    };
    // No hook is over it alone, and no request takes from the next.
    for _ in 0..4 {
        assert_eq!(ask("access", "70"), StatusCode::OK);
    }
    // 90 ms by their own clock are less of the CPU where the machine does other things.
    until("a request is ended", || {
        ask("every", "90");
        proxy.log().contains("limits.request_cpu of 100 ms reached")
    });
    let told = proxy.log();
    assert!(told.contains("plugin bounded failed in "), "{told}");
    assert!(!told.contains("failed in rewrite"), "{told}");
    assert_eq!(proxy.get("/bounded").text(), "hello");
}

// Hooks that wait for nothing share one stack, until one of them computes for long.

/// Gateway with one worker and plugins that use no host call: `endless` computes for ever, `quick` returns at once.
#[track_caller]
fn on_one_stack(cpu: &str) -> Proxy {
    let config = r#"
        [workers]
        count = 1

        [plugins.endless]
        wasm = "endless.wasm"
        limits = { cpu = "CPU", request_cpu = "0s" }

        [plugins.quick]
        wasm = "quick.wasm"

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        path = "/endless"
        plugins = ["endless"]
        upstream = "app"

        [[routes]]
        plugins = ["quick"]
        upstream = "app"
    "#;
    let plugin = |body: &str| {
        let hook = format!(
            r#"(func (export "castling_hook_access") (param i32 i32 i32) (result i32) {body})"#
        );
        module::plugin(&module::manifest(1, r#"["access"]"#), &hook)
    };
    Proxy::with_config(&config.replace("CPU", cpu))
        .file(
            "endless.wasm",
            plugin("(loop $again (br $again)) i32.const 0"),
        )
        .file("quick.wasm", plugin("i32.const 0"))
        .origin("app", origin::text("hello"))
        .start()
}

#[test]
fn hooks_that_wait_for_nothing_let_others_pass_and_are_ended_by_their_limit() {
    let _alone = alone();
    let proxy = on_one_stack("80ms");
    for _ in 0..2 {
        let looping = all_at_once(&proxy, 3, "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut quick = proxy.raw();
        for _ in 0..20 {
            let reply = quick.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").read_reply();
            assert_eq!(reply.text(), "hello");
        }
        let others_done = Instant::now();
        for client in looping {
            let (status, ended) = client.join().unwrap();
            assert_eq!(status, 500);
            assert!(others_done < ended, "others waited for the computing hooks");
        }
    }
    proxy.until_log_has("limits.cpu of 80 ms reached");
}

#[test]
fn a_worker_ends_while_a_hook_computes() {
    let _alone = alone();
    let mut proxy = on_one_stack("60s");
    let mut clients = [proxy.raw(), proxy.raw()];
    for client in &mut clients {
        client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    assert_eq!(proxy.get("/").text(), "hello");
    proxy.command("stop", &["--fast"]);
    assert_eq!(proxy.until_ended(), Some(0));
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}
