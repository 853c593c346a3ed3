//! Instructions that fill or copy much at once: a guest is interrupted in their midst, and others are served.

use std::thread;
use std::time::Instant;

use castling_tests::{Proxy, module, origin};

/// A gateway whose `/greedy` runs this code in `access`, with 64 MiB of memory of which nothing was touched, and this limit of CPU
/// time. `$all` is the memory's length but its first page, where a text lies that `call $say` logs.
#[track_caller]
fn greedy(cpu: &str, code: &str) -> Proxy {
    let config = r#"
        [workers]
        count = 1

        [plugins.greedy]
        wasm = "greedy.wasm"
        limits = { memory = "64MiB", cpu = "CPU" }
        quarantine = { traps = 0 }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        path = "/greedy"
        plugins = ["greedy"]
        upstream = "app"

        [[routes]]
        upstream = "app"
    "#;
    let fields = format!(
        r#"(import "castling" "log" (func $log (param i32 i32 i32)))
           (func $grow (result i32)
               (drop (memory.grow (i32.const 1023)))
               (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 65536)))
           (func (export "castling_hook_access") (param i32 i32 i32) (result i32) (local $all i32)
               (local.set $all (call $grow))
               {code}
               (call $log (i32.const {WARN}) (i32.const 0) (i32.const 21))
               (i32.const 0))
           (data (i32.const 0) "all was done in a go.")"#
    );
    let module = module::plugin(&module::manifest(1, r#"["access"]"#), &fields);
    Proxy::with_config(&config.replace("CPU", cpu))
        .file("greedy.wasm", module)
        .origin("app", origin::text("hello"))
        .start()
}

const WARN: u32 = 1;

#[test]
fn one_instruction_that_takes_long_is_ended_by_the_limit_of_the_hook() {
    for (what, code) in [
        (
            "a fill",
            "(memory.fill (i32.const 65536) (i32.const 1) (local.get $all))",
        ),
        (
            "a copy",
            "(memory.copy (i32.const 65536) (i32.const 65537) (i32.sub (local.get $all) (i32.const 1)))",
        ),
        (
            "a copy from the end",
            "(memory.copy (i32.const 65537) (i32.const 65536) (i32.sub (local.get $all) (i32.const 1)))",
        ),
    ] {
        // Pages that were not touched take some ten milliseconds. The log comes without another look at the clock.
        let proxy = greedy("1ms", code);
        assert_eq!(proxy.get("/greedy").status, 500, "{what}");
        proxy.until_log_has("limits.cpu of 1 ms reached");
        let said = proxy.log();
        assert!(!said.contains("done in a go"), "{what}: {said}");
        assert!(said.contains("!memory."), "no name in {said}");
        // With time enough it comes to its end.
        let proxy = greedy("60s", code);
        assert_eq!(proxy.get("/greedy").text(), "hello", "{what}");
        proxy.until_log_has("done in a go");
    }
}

#[test]
fn guests_that_fill_their_memory_again_and_again_leave_the_worker_to_others() {
    let again = "(loop (memory.fill (i32.const 65536) (i32.const 1) (local.get $all)) (br 0))";
    let proxy = greedy("300ms", again);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = proxy.raw();
            client.send("GET /greedy HTTP/1.1\r\nHost: a\r\n\r\n");
            thread::spawn(move || (client.read_reply().status, Instant::now()))
        })
        .collect();
    let mut quick = proxy.raw();
    for _ in 0..40 {
        let reply = quick.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").read_reply();
        assert_eq!(reply.text(), "hello");
    }
    let others_done = Instant::now();
    // By turns, so that the first one ends when all have nearly used up their limit.
    for client in clients {
        let (status, ended) = client.join().unwrap();
        assert_eq!(status, 500);
        assert!(others_done < ended, "others waited for the filling hooks");
    }
    proxy.until_log_has("limits.cpu of 300 ms reached");
}
