//! The command line, as an operator meets it.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use castling_tests::command::{castling, run};
use castling_tests::{Proxy, castling_bin, module, origin, plugin, workspace_root};

const TWO_ROUTES: &str = r#"
    [plugins.auth]
    wasm = "{plugins}/token_auth.wasm"
    config = { header = "x-token", tokens = ["s3cret"] }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    name = "private"
    path = "/private"
    plugins = ["auth"]
    upstream = "app"

    [[routes]]
    name = "public"
    upstream = "app"
"#;

#[test]
fn check_tells_what_would_run_and_binds_nothing() {
    let proxy = Proxy::with_config(TWO_ROUTES)
        .origin("app", origin::text("hello"))
        .start();
    // The gateway itself has the ports.
    let said = proxy.check().expect_success().stdout;
    for fact in ["web", "private", "public", "auth", "access", "app", "ok"] {
        assert!(said.contains(fact), "no {fact:?} in {said}");
    }
}

#[test]
fn check_tells_how_peers_are_chosen_and_found_well() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = [
            "127.0.0.1:7001",
            { address = "127.0.0.1:7002", weight = 3, route = "b" },
            { address = "localhost:7001", backup = true },
        ]
        balance = "least_conn"
        slow_start = "30s"
        sticky = { route = ["$cookie_route", "$arg_route"] }
        resolve = { family = "ipv4" }

        [upstreams.app.check]
        path = "/ready"
        interval = "2s"
        port = 7000

        [upstreams.other]
        peers = ["127.0.0.1:7003"]
        balance = { hash = "$http_x_user", method = "maglev", bounded = 1.5 }
        check = { kind = "tcp" }

        [upstreams.other.sticky]
        cookie = "session"
        secret = "0123456789abcdef"

        [[routes]]
        upstream = { app = 1, other = 1 }
    "#;
    let (_dir, path) = Proxy::with_config(config).written();
    let said = castling("check", &path, &[]).expect_success().stdout;
    for line in [
        "upstream app: 127.0.0.1:7001, 127.0.0.1:7002 (weight 3, route b), 127.0.0.1:7001 (backup)\n",
        "  balance: least_conn\n",
        "  sessions by route, $cookie_route, $arg_route\n",
        "  slow start: 30s, aggression 1\n",
        "  check: http GET /ready at port 7000 each 2s, down after 3 failures, up after 2 passes\n",
        "upstream other: 127.0.0.1:7003\n",
        "  balance: hash of $http_x_user (maglev, bounded 1.5)\n",
        "  sessions by cookie session\n",
        "  check: tcp each 5s, down after 3 failures, up after 2 passes\n",
        "upstream app: 127.0.0.1:7001 is listed as 127.0.0.1:7001, localhost:7001, and gets the requests of 2 peers\n",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!said.contains("0123456789abcdef"), "{said}");
}

#[test]
fn check_writes_nothing() {
    let config = format!(
        "[master]\nmodule_store = \"modules\"\n{}",
        TWO_ROUTES.replace("\n    ", "\n")
    );
    let setup = Proxy::with_config(&config).origin("app", origin::text("hello"));
    let (dir, path) = setup.written();
    castling("check", &path, &[]).expect_success();
    let mut files: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["castling.toml"]);
    // A fault that would keep the gateway from writing its logs is told all the same.
    let moved = std::fs::read_to_string(&path)
        .unwrap()
        .replace("/access.log", "/none/access.log");
    std::fs::write(&path, moved).unwrap();
    let said = castling("check", &path, &[]).expect_refusal().stderr;
    assert!(
        said.contains("access_log.file: ") && said.contains("there is no folder "),
        "{said}"
    );
}

#[test]
fn reload_tells_which_generation_serves() {
    let proxy = Proxy::with_config(TWO_ROUTES)
        .origin("app", origin::text("hello"))
        .start();
    let said = proxy.reload().expect_success().stdout;
    assert!(said.contains("generation 2 serves (2 workers)"), "{said}");
}

#[test]
fn status_tells_workers_and_plugins() {
    let proxy = Proxy::with_config(TWO_ROUTES)
        .origin("app", origin::text("hello"))
        .start();
    for _ in 0..7 {
        assert_eq!(proxy.get("/").text(), "hello");
        assert_eq!(proxy.get("/private").status, 401);
    }
    let status = proxy.status();
    let of_each = |key| -> Vec<u64> {
        let workers = status["workers"].as_array().expect("a list of workers");
        workers
            .iter()
            .map(|worker| worker[key].as_u64().expect("a number"))
            .collect()
    };
    let running: Vec<u64> = proxy
        .workers()
        .into_iter()
        .map(|worker| u64::from(worker.0))
        .collect();
    let mut pids = of_each("pid");
    pids.sort_unstable();
    assert_eq!(pids, running);
    assert_eq!(of_each("requests").iter().sum::<u64>(), 14);
    let auth = &status["plugins"][0];
    assert_eq!(
        (&auth["name"], &auth["calls"], &auth["traps"]),
        (&"auth".into(), &7.into(), &0.into())
    );
    let serving = &status["generations"][0];
    assert_eq!(
        (&serving["id"], &serving["state"]),
        (&1.into(), &"serving".into())
    );
    assert!(
        serving["state_seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds >= 0.0)
    );
    let worker = &status["workers"][0];
    assert!(
        worker["core"].is_u64() && worker["uptime_seconds"].is_f64(),
        "{worker}"
    );
    let table = proxy.command("status", &[]).expect_success().stdout;
    for text in [
        "serving",
        "in service",
        "web 127.0.0.1:",
        "connections",
        "requests",
    ] {
        assert!(table.contains(text), "{text}:\n{table}");
    }
    assert!(
        running.iter().all(|pid| table.contains(&pid.to_string())),
        "{table}"
    );
}

#[test]
fn reload_and_stop_reach_a_gateway_whose_config_has_become_bad() {
    let mut proxy = Proxy::with_config(TWO_ROUTES)
        .origin("app", origin::text("hello"))
        .start();
    let said = proxy
        .reload_with("[listeners.web]\nbind = 5\n")
        .expect_refusal()
        .stderr;
    assert!(said.contains("castling.toml:2:8: "), "{said}");
    proxy.command("stop", &[]).expect_success();
    assert_eq!(proxy.until_ended(), Some(0));
}

#[test]
fn commands_without_a_gateway_say_so() {
    let setup = Proxy::with_config(
        r#"
        [listeners.web]
        bind = "127.0.0.1:1"

        [upstreams.app]
        peers = ["127.0.0.1:2"]

        [[routes]]
        upstream = "app"
        "#,
    );
    let (dir, config) = setup.written();
    for verb in ["reload", "status", "stop"] {
        let said = castling(verb, &config, &[]).expect_refusal().stderr;
        assert!(said.contains("no gateway is running"), "{verb}: {said}");
    }
    drop(dir);
}

#[test]
fn inspect_tells_what_a_module_is() {
    let mut inspect = std::process::Command::new(castling_bin());
    inspect
        .args(["plugin", "inspect"])
        .arg(plugin("token_auth"));
    let said = run(inspect, castling_tests::DEADLINE)
        .expect_success()
        .stdout;
    for fact in [
        "token-auth",
        "access",
        "castling_configure",
        "castling.answer",
    ] {
        assert!(said.contains(fact), "no {fact:?} in {said}");
    }
}

#[test]
fn what_makes_no_sense_gets_the_usage() {
    let mut nonsense = std::process::Command::new(castling_bin());
    nonsense.arg("walk");
    let outcome = run(nonsense, castling_tests::DEADLINE);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("Usage: castling"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_configs_that_ship_are_right() {
    for config in [
        "examples/first-plugin/castling.toml",
        "examples/redis-limit/castling.toml",
        "conf/demo.toml",
    ] {
        castling("check", &workspace_root().join(config), &[]).expect_success();
    }
}

/// The text as JSON in a module's text format, and in a name there: what would be a line of its own, red.
const FORGED_JSON: &str = "x\\\\n2026 ERROR forged\\\\u001b[31m";
const FORGED_NAME: &str = "x\\0a2026 ERROR forged\\1b[31m";

#[test]
fn what_a_module_says_begins_no_line_and_commands_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("forged.wasm");
    let manifest = format!(
        r#"{{"abi":1,"name":"{FORGED_JSON}","version":"{FORGED_JSON}","sdk":"{FORGED_JSON}","hooks":["access"]}}"#
    );
    let hook = |more: &str| {
        format!(
            r#"{more} (func (@name "{FORGED_NAME}") (export "castling_hook_access") (param i32 i32 i32) (result i32) unreachable)"#
        )
    };
    let long = "n".repeat(10_000);
    let exports =
        format!(r#"(global (export "{FORGED_NAME}") (export "{long}") i32 (i32.const 0))"#);
    std::fs::write(&file, module::plugin(&manifest, &hook(&exports))).unwrap();
    let inspect = || {
        let mut inspect = std::process::Command::new(castling_bin());
        inspect.args(["plugin", "inspect"]).arg(&file);
        run(inspect, castling_tests::DEADLINE)
    };
    let said = inspect().expect_success().stdout;
    assert!(said.contains(r"x\n2026 ERROR forged\u{1b}[31m"), "{said}");
    assert!(
        !said.contains("\n2026") && !said.contains('\u{1b}'),
        "{said:?}"
    );
    assert!(said.len() < 2000, "{said}");

    let config = r#"
        [workers]
        count = 1
        [plugins.forged]
        wasm = "WASM"
        [listeners.web]
        bind = "{listen}"
        [upstreams.app]
        peers = ["{app}"]
        [[routes]]
        plugins = ["forged"]
        upstream = "app"
    "#
    .replace("WASM", file.to_str().unwrap());
    let proxy = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .start();
    assert_eq!(proxy.get("/").status, 500);
    let told = proxy.until_log_has("failed in access");
    proxy.until_log_has("ERROR forged");
    assert!(!told.contains("\n2026 ERROR forged"), "{told:?}");
    assert!(
        !proxy.log().contains("\n2026 ERROR forged"),
        "{}",
        proxy.log()
    );

    // A module that is refused says why without the name's own lines.
    let import = format!(r#"(import "castling" "{FORGED_NAME}" (func))"#);
    std::fs::write(&file, module::plugin(&manifest, &hook(&import))).unwrap();
    let said = inspect().expect_refusal().stderr;
    assert!(
        said.contains(r"castling.x\n2026 ERROR forged\u{1b}"),
        "{said}"
    );
    assert!(
        !said.contains("\n2026") && !said.contains('\u{1b}'),
        "{said:?}"
    );
}

#[test]
fn clients_of_the_control_socket_that_say_nothing_keep_nobody_out() {
    let proxy = Proxy::before(origin::text("hello"));
    let silent: Vec<_> = (0..100)
        .map(|_| UnixStream::connect(proxy.path("castling.sock")).unwrap())
        .collect();
    let begun = Instant::now();
    let status = proxy.status();
    assert!(!status["workers"].as_array().unwrap().is_empty());
    // A round of waiting for thirty of them would take five seconds, and there were three.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    drop(silent);
}
