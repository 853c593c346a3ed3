//! Supervision of processes that hang, die or are killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use castling_tests::process::Process;
use castling_tests::{Exposition, Proxy, RawClient, body, module, origin, until};
use http::Response;
use rustix::process::Signal;

/// `SETTINGS` are of `[workers]`.
const CONFIG: &str = r#"
    [workers]
    count = 2
    SETTINGS

    [plugins.busy]
    wasm = "{guests}/hostile.wasm"
    limits = { cpu = "60s", request_cpu = "0s" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    path = "/busy"
    plugins = ["busy"]
    upstream = "app"

    [[routes]]
    upstream = "app"
"#;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn start(settings: &str) -> Proxy {
    Proxy::with_config(&CONFIG.replace("SETTINGS", settings))
        .origin("app", origin::text("hello"))
        .start()
}

/// Clients, so many that each of two workers has some of them.
fn clients(proxy: &Proxy) -> Vec<RawClient> {
    let mut clients: Vec<_> = (0..32).map(|_| proxy.raw()).collect();
    for client in &mut clients {
        assert_eq!(client.send(GET).read_reply().text(), "hello");
    }
    clients
}

fn served(clients: &mut [RawClient]) -> usize {
    let answers = clients
        .iter_mut()
        .filter_map(|client| client.send(GET).try_read_reply().ok());
    answers.filter(|reply| reply.text() == "hello").count()
}

#[test]
fn a_worker_that_does_not_answer_is_replaced_and_the_others_serve() {
    let proxy = start("heartbeat_timeout = \"2s\"");
    let mut clients = clients(&proxy);
    let workers = proxy.until_workers(2);
    workers[0].signal(Signal::STOP);
    until("the silent worker's end", || !workers[0].is_alive());
    let now = proxy.until_workers(2);
    assert!(now.contains(&workers[1]) && !now.contains(&workers[0]));
    let told = proxy.until_log_has("worker does not answer: killed");
    assert!(
        told.contains(&format!("pid={}", workers[0].0)) && told.contains("silence="),
        "{told}"
    );
    let others = served(&mut clients);
    assert!(
        others > 0 && others < 32,
        "{others} of 32 connections go on"
    );
    assert_eq!(proxy.get("/").text(), "hello");

    let deaths = &proxy.status()["deaths"];
    assert_eq!(deaths[0]["count"], 1, "{deaths}");
    let how = deaths[0]["last"].as_str().unwrap();
    assert!(how.starts_with("killed: no answer for"), "{how}");
    let text = proxy.command("status", &[]).expect_success().stdout;
    assert!(text.contains(how), "{text}");
    let metrics = Exposition::parse(&proxy.command("metrics", &[]).expect_success().stdout);
    for name in [
        "castling_workers_silent_total",
        "castling_worker_deaths_total",
    ] {
        assert_eq!(metrics.get(name, &[]), Some(1.0), "{name}");
    }
}

#[test]
fn a_draining_worker_that_does_not_answer_is_killed() {
    let settings = "heartbeat_timeout = \"1s\"\ndrain_timeout = \"60s\"";
    let mut proxy = Proxy::with_config(&CONFIG.replace("SETTINGS", settings))
        .origin("app", castling_tests::raw_origin::stalled())
        .start();
    let mut client = proxy.raw();
    client.send(GET);
    until("it is under way", || proxy.origin("app").connections() == 1);
    let before = proxy.workers();
    proxy
        .reload_with(&CONFIG.replace("SETTINGS", ""))
        .expect_success();
    until("one drains", || {
        before.iter().filter(|worker| worker.is_alive()).count() == 1
    });
    let draining = before.iter().find(|worker| worker.is_alive()).unwrap();
    draining.signal(Signal::STOP);
    until("its end", || !draining.is_alive());
    proxy.until_log_has("worker does not answer: killed");
    proxy.until_workers(2);
}

#[test]
fn a_plugin_that_computes_is_no_silence() {
    let proxy = start("heartbeat_timeout = \"1s\"");
    let workers = proxy.workers();
    let mut busy: Vec<_> = (0..4).map(|_| proxy.raw()).collect();
    for client in &mut busy {
        client.send("GET /busy HTTP/1.1\r\nHost: a\r\nX-Do: compute\r\nX-Ms: 1500\r\n\r\n");
    }
    for mut client in busy {
        assert_eq!(client.read_reply().text(), "hello");
    }
    assert_eq!(proxy.workers(), workers);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_worker_that_cannot_start_again_is_tried_ever_less_often() {
    let config = format!("[access_log]\nfile = \"{{dir}}/logs/access.log\"\n{CONFIG}");
    let proxy = Proxy::with_config(&config.replace("SETTINGS", ""))
        .origin("app", origin::text("hello"))
        .file("logs/keep", "")
        .start();
    let logs = proxy.path("logs");
    let away = proxy.path("away");
    fs::rename(&logs, &away).unwrap();
    let workers = proxy.until_workers(2);
    workers[0].signal(Signal::KILL);
    until("three deaths", || {
        proxy.status()["deaths"][0]["count"].as_u64() >= Some(3)
    });
    let status = proxy.status();
    let how = status["deaths"][0]["last"].as_str().unwrap();
    let placed = "castling.toml:2:8: access_log.file: ";
    assert!(how.contains(placed), "{how}");
    let told = proxy.until_log_has("wait=200ms");
    assert!(told.contains("worker died: replaced"), "{told}");
    fs::rename(&away, &logs).unwrap();
    until("two workers serve", || {
        let status = proxy.status();
        let workers = status["workers"].as_array().unwrap();
        workers.iter().filter(|w| w["state"] == "serving").count() == 2
    });
}

/// A master of its own kind, with everything that a master makes: a pid file and a kv zone in the default place, too.
const WHOLE: &str = r#"
    [master]
    control = "{dir}/castling.sock"
    pid_file = "{dir}/castling.pid"
    module_store = "{dir}/modules"

    [workers]
    count = 2
    drain_timeout = "30s"
    core_dumps = true

    [zones]
    kept = { kind = "kv", size = "1MiB" }
    counts = { kind = "counter", size = "1MiB" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.slow]
    peers = ["{slow}"]

    [[routes]]
    path = "/slow"
    upstream = "slow"

    [[routes]]
    upstream = "app"
"#;

fn whole() -> Proxy {
    let slow = origin::answering_after(Duration::from_secs(3), |_| {
        Response::new(body::full("finished"))
    });
    Proxy::with_config(WHOLE)
        .origin("app", origin::text("hello"))
        .origin("slow", slow)
        .start()
}

/// The folder of kv zones that a worker has mapped.
fn zone_store(worker: Process) -> PathBuf {
    let maps = fs::read_to_string(format!("/proc/{}/maps", worker.0)).unwrap();
    let data = maps
        .split_ascii_whitespace()
        .find(|word| word.ends_with("/kept.1048576/data.mdb"));
    let data = Path::new(data.expect("a kv zone that is mapped"));
    data.ancestors().nth(2).unwrap().to_owned()
}

fn files_in(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// Stops it and sees that nothing is left but what the test and the logs have put there.
#[track_caller]
fn expect_nothing_left(mut proxy: Proxy, zone_store: &Path) {
    proxy.command("stop", &[]).expect_success();
    assert_eq!(proxy.until_ended(), Some(0));
    let left = files_in(&proxy.path(""));
    let known = [
        "access.log",
        "castling.toml",
        "modules",
        "stderr.log",
        "stdout.log",
    ];
    assert_eq!(left.iter().map(String::as_str).collect::<Vec<_>>(), known);
    let drafts = files_in(&proxy.path("modules"));
    assert!(
        !drafts.iter().any(|name| name.ends_with(".draft")),
        "{drafts:?}"
    );
    assert!(!zone_store.exists(), "{}", zone_store.display());
}

#[test]
fn a_new_master_serves_while_the_workers_of_a_killed_one_finish() {
    let mut proxy = whole();
    let workers = proxy.until_workers(2);
    let store = zone_store(workers[0]);
    let mut client = proxy.raw();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the origin has it", || proxy.origin("slow").requests() == 1);
    proxy.master().signal(Signal::KILL);
    assert_eq!(proxy.until_ended(), None);

    // At once, and with nothing done by hand: same port, control socket, pid file and zones.
    proxy.start_again();
    proxy.until_log_has("the gateway before this one was killed");
    assert_eq!(proxy.get("/").text(), "hello");
    assert!(
        workers.iter().any(|worker| worker.is_alive()),
        "one still has a request"
    );
    let pid = fs::read_to_string(proxy.path("castling.pid")).unwrap();
    assert_eq!(pid.trim(), proxy.master().0.to_string());
    assert_eq!(zone_store(proxy.until_workers(2)[0]), store);

    let reply = client.read_reply();
    assert_eq!(
        (reply.text().as_str(), reply.header("connection")),
        ("finished", Some("close"))
    );
    until("the old workers' end", || {
        !workers.iter().any(|worker| worker.is_alive())
    });
    assert_eq!(proxy.get("/").text(), "hello");
    expect_nothing_left(proxy, &store);
}

#[test]
fn another_server_on_the_port_is_told_after_a_kill_too() {
    let mut proxy = whole();
    let store = zone_store(proxy.until_workers(2)[0]);
    let workers = proxy.workers();
    proxy.master().signal(Signal::KILL);
    assert_eq!(proxy.until_ended(), None);
    until("the workers' end", || {
        !workers.iter().any(|worker| worker.is_alive())
    });
    let other = std::net::TcpListener::bind(proxy.address()).unwrap();
    let said = proxy.command("run", &[]).expect_refusal().stderr;
    assert!(
        said.contains("listener \"web\"") && said.contains("in use"),
        "{said}"
    );
    drop(other);
    proxy.start_again();
    expect_nothing_left(proxy, &store);
}

#[test]
fn a_master_killed_in_the_midst_of_a_reload_leaves_nothing() {
    let mut proxy = whole();
    let old = proxy.until_workers(2);
    let store = zone_store(old[0]);
    // A reload hangs when one of its new workers does.
    let mut caught = None;
    for _ in 0..20 {
        let before = proxy.workers();
        proxy.master().signal(Signal::HUP);
        until("a new worker", || {
            let new = proxy.workers().into_iter().find(|w| !before.contains(w));
            new.inspect(|worker| worker.signal(Signal::STOP)).is_some()
        });
        let new = proxy.workers().into_iter().find(|w| !before.contains(w));
        let new = new.expect("it is stopped");
        // The reload was over already if it could say that it is ready.
        let starts = proxy.status()["generations"].as_array().unwrap().len() == 1
            && before.iter().all(|worker| worker.is_alive());
        if starts && proxy.workers().len() > before.len() {
            caught = Some(new);
            break;
        }
        new.signal(Signal::CONT);
        proxy.until_workers(2);
    }
    let stopped = caught.expect("a worker that starts is stopped in one of 20 reloads");
    let all = proxy.workers();
    assert!(all.len() >= 3, "workers of two generations: {all:?}");
    proxy.master().signal(Signal::KILL);
    assert_eq!(proxy.until_ended(), None);
    stopped.signal(Signal::CONT);
    until("all workers' end", || {
        !all.iter().any(|worker| worker.is_alive())
    });
    proxy.start_again();
    assert_eq!(proxy.get("/").text(), "hello");
    expect_nothing_left(proxy, &store);
}

#[test]
fn a_helper_that_compiles_ends_with_its_master() {
    let mut proxy = whole();
    let store = zone_store(proxy.until_workers(2)[0]);
    // Some seconds of work, which nobody has done and stored before.
    let sum = |n: usize| {
        let start = format!("(i32.const {})", std::process::id());
        (0..100).fold(start, |sum, i| {
            format!(
                "(i32.mul (i32.add {sum} (i32.const {})) (local.get 0))",
                n + i
            )
        })
    };
    let functions: String = (0..2000)
        .map(|n| {
            format!(
                "(func (export \"f{n}\") (param i32) (result i32) {})",
                sum(n)
            )
        })
        .collect();
    let hook =
        r#"(func (export "castling_hook_access") (param i32 i32 i32) (result i32) i32.const 0)"#;
    let slow = module::plugin(
        &module::manifest(1, r#"["access"]"#),
        &format!("{hook} {functions}"),
    );
    fs::write(proxy.path("slow.wasm"), slow).unwrap();
    proxy.write_config(&format!(
        "{WHOLE}\n    [plugins.slow]\n    wasm = \"{{dir}}/slow.wasm\"\n"
    ));
    proxy.master().signal(Signal::HUP);
    let mut helpers = Vec::new();
    until("a helper at work", || {
        helpers = proxy.master().children_with("compile");
        helpers
            .first()
            .is_some_and(|helper| helper.status("Seccomp:") == "2")
    });
    helpers[0].signal(Signal::STOP);
    let workers = proxy.workers();
    proxy.master().signal(Signal::KILL);
    assert_eq!(proxy.until_ended(), None);
    until("the helper's end", || !helpers[0].is_alive());
    until("the workers' end", || {
        !workers.iter().any(|worker| worker.is_alive())
    });
    fs::remove_file(proxy.path("slow.wasm")).unwrap();
    proxy.write_config(WHOLE);
    proxy.start_again();
    expect_nothing_left(proxy, &store);
}
