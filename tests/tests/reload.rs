//! Generations and workers: reloads, deaths, stops, under load.

use std::time::Duration;

use castling_tests::load::Load;
use castling_tests::{Proxy, body, origin, until};
use http::{Response, StatusCode};
use rustix::process::Signal;

/// A gateway whose answers say which config made them: the origin echoes `x-config`.
fn config(name: &str, workers: usize) -> String {
    r#"
    [workers]
    count = WORKERS
    drain_timeout = "5s"
    core_dumps = true

    [plugins.mark]
    wasm = "{plugins}/headers.wasm"
    config = { request = { set = { x-config = "NAME" } } }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["mark"]
    upstream = "app"
    "#
    .replace("NAME", name)
    .replace("WORKERS", &workers.to_string())
}

fn start(name: &str, workers: usize) -> Proxy {
    let says_config = origin::answering(|seen| {
        Response::new(body::full(
            seen.header("x-config").unwrap_or("none").to_owned(),
        ))
    });
    Proxy::with_config(&config(name, workers))
        .origin("app", says_config)
        .start()
}

fn steady(proxy: &Proxy) -> Load {
    Load {
        address: proxy.address(),
        clients: 16,
        requests_per_connection: 100,
        request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        bodies: vec!["one".to_owned(), "two".to_owned()],
    }
}

#[test]
fn fifty_reloads_under_load_fail_no_request() {
    let mut proxy = start("one", 2);
    let load = steady(&proxy).start();
    load.until_more(100);
    for reload in 0..50 {
        let name = if reload % 2 == 0 { "two" } else { "one" };
        proxy.reload_with(&config(name, 2)).expect_success();
        // `reload` has promised it: the new generation serves.
        assert_eq!(proxy.get("/").text(), name);
        load.until_more(20);
    }
    let report = load.stop();
    assert!(
        report.failures.is_empty(),
        "of {}: {:#?}",
        report.good,
        report.failures
    );
    assert!(report.good > 1000, "{report:?}");
    // Idle connections are given time for one more request, so that none crosses a close.
    assert_eq!(report.resent, 0, "{report:?}");
    proxy.until_workers(2);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn reloads_leave_nothing_behind() {
    let mut proxy = start("one", 2);
    let reload = |proxy: &mut Proxy, name: &str| {
        proxy.reload_with(&config(name, 2)).expect_success();
        proxy.until_workers(2);
    };
    reload(&mut proxy, "two");
    let (master, workers) = (proxy.master().descriptors(), proxy.worker_descriptors());
    for _ in 0..5 {
        reload(&mut proxy, "one");
        reload(&mut proxy, "two");
    }
    until("descriptors as before", || {
        proxy.master().descriptors() <= master && proxy.worker_descriptors() <= workers
    });
}

#[test]
fn a_killed_worker_is_replaced_and_loses_only_what_it_had_in_flight() {
    let proxy = start("one", 2);
    let load = steady(&proxy).start();
    load.until_more(200);
    let mut killed = 0;
    for _ in 0..3 {
        let workers = proxy.until_workers(2);
        workers[0].signal(Signal::KILL);
        killed += 1;
        until("another worker", || {
            let now = proxy.workers();
            now.len() == 2 && !now.contains(&workers[0])
        });
        load.until_more(200);
    }
    let report = load.stop();
    // 16 clients have at most one request each in flight at a kill; connections queued at the dead worker's socket
    // are its successor's.
    assert!(
        report.failures.len() <= 16 * killed,
        "{:#?}",
        report.failures
    );
    let cut = |failure: &&String| {
        failure.contains("closed without an answer") || failure.contains("cut short")
    };
    assert_eq!(
        report.failures.iter().filter(cut).count(),
        report.failures.len(),
        "{:#?}",
        report.failures
    );
    proxy.until_log_has("SIGKILL");
}

#[test]
fn the_other_worker_does_not_notice_a_kill() {
    let proxy = start("one", 2);
    // Connections until both workers have some; who serves whom shows when one of them dies.
    let mut clients: Vec<_> = (0..32).map(|_| proxy.raw()).collect();
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for client in &mut clients {
        assert_eq!(client.send(request).read_reply().text(), "one");
    }
    let workers = proxy.until_workers(2);
    workers[0].signal(Signal::KILL);
    until("the worker's end", || !workers[0].is_alive());
    let served = clients
        .iter_mut()
        .filter_map(|client| client.send(request).try_read_reply().ok())
        .count();
    assert!(
        served > 0 && served < 32,
        "{served} of 32 connections go on"
    );
    until("another worker", || proxy.workers().len() == 2);
    assert_eq!(proxy.get("/").text(), "one");
}

#[test]
fn a_failed_reload_leaves_the_old_generation() {
    let mut proxy = start("one", 2);
    let workers = proxy.workers();
    let load = steady(&proxy).start();
    load.until_more(50);
    let bad_config = config("two", 2).replace("set = {", "sets = {");
    let said = proxy.reload_with(&bad_config).expect_refusal().stderr;
    assert!(said.contains("mark") && said.contains("sets"), "{said}");
    load.until_more(50);
    assert_eq!(load.stop().failures, [""; 0]);
    // A worker of the refused generation may still be ending.
    until("only the workers of before run", || {
        proxy.workers() == workers
    });
    assert_eq!(proxy.get("/").text(), "one");
    // And the next good one is taken.
    proxy.reload_with(&config("two", 2)).expect_success();
    assert_eq!(proxy.get("/").text(), "two");
}

#[test]
fn sighup_reloads() {
    let mut proxy = start("one", 2);
    proxy.write_config(&config("two", 2));
    proxy.master().signal(Signal::HUP);
    until("the new config", || proxy.get("/").text() == "two");
    proxy.until_workers(2);
}

#[test]
fn a_reload_lets_requests_under_way_finish() {
    let slow = origin::answering_after(Duration::from_millis(700), |_| {
        Response::new(body::full("finished"))
    });
    let mut proxy = Proxy::with_config(&config("one", 1))
        .origin("app", slow)
        .start();
    let old = proxy.workers()[0];
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the origin has it", || proxy.origin("app").requests() == 1);
    proxy.reload_with(&config("two", 1)).expect_success();
    assert!(old.is_alive());
    let reply = client.read_reply();
    assert_eq!(
        (reply.text().as_str(), reply.header("connection")),
        ("finished", Some("close"))
    );
    client.expect_close();
    until("the old worker's end", || !old.is_alive());
}

#[test]
fn a_reload_closes_idle_connections() {
    let mut proxy = start("one", 1);
    let mut idle = proxy.raw();
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.read_reply().text(), "one");
    proxy.reload_with(&config("two", 1)).expect_success();
    idle.expect_close();
}

#[test]
fn what_outlasts_the_drain_timeout_is_closed() {
    let stalls = castling_tests::raw_origin::stalled();
    let short = |name| config(name, 1).replace("\"5s\"", "\"300ms\"");
    let mut proxy = Proxy::with_config(&short("one"))
        .origin("app", stalls)
        .start();
    let old = proxy.workers()[0];
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the origin has it", || {
        proxy.origin("app").connections() == 1
    });
    proxy.reload_with(&short("two")).expect_success();
    client.read_to_end().unwrap();
    until("the old worker's end", || !old.is_alive());
}

#[test]
fn the_number_of_workers_follows_the_config() {
    let mut proxy = start("one", 2);
    let load = steady(&proxy).start();
    for (name, workers) in [("two", 4), ("one", 1), ("two", 3)] {
        proxy.reload_with(&config(name, workers)).expect_success();
        proxy.until_workers(workers);
        load.until_more(100);
    }
    assert_eq!(load.stop().failures, [""; 0]);
}

#[test]
fn a_reload_compiles_changed_plugins_only() {
    let module = std::fs::read(castling_tests::plugin("hello")).unwrap();
    let config = r#"
    [master]
    control = "{dir}/castling.sock"
    module_store = "{dir}/modules"

    [plugins.same]
    wasm = "same.wasm"

    [plugins.changes]
    wasm = "changes.wasm"

    [listeners.web]
    bind = "{listen}"

    [[routes]]
    plugins = ["changes", "same"]
    "#;
    // An empty custom section more, so that they are two modules.
    let with_section = |name: u8| [&module[..], &[0, 2, 1, name]].concat();
    let proxy = Proxy::with_config(config)
        .file("same.wasm", with_section(b's'))
        .file("changes.wasm", with_section(b'a'))
        .start();
    let compiled = || proxy.log().matches("module compiled").count();
    assert_eq!(compiled(), 2);
    proxy.reload().expect_success();
    assert_eq!(compiled(), 2);
    std::fs::write(proxy.path("changes.wasm"), with_section(b'b')).unwrap();
    proxy.reload().expect_success();
    assert_eq!(compiled(), 3);
    // The one of before is still in the store.
    std::fs::write(proxy.path("changes.wasm"), with_section(b'a')).unwrap();
    proxy.reload().expect_success();
    assert_eq!(compiled(), 3);
}

#[test]
fn a_hundred_signals_at_once_are_few_reloads() {
    let proxy = start("one", 1);
    for _ in 0..100 {
        proxy.master().signal(Signal::HUP);
    }
    let newest = || {
        let status = proxy.status();
        let all = status["generations"].as_array().unwrap().iter();
        all.filter_map(|one| one["id"].as_u64()).max().unwrap()
    };
    until("a reload", || newest() > 1);
    let mut last = 0;
    until("the last reload", || {
        let before = std::mem::replace(&mut last, newest());
        std::thread::sleep(Duration::from_millis(300));
        before == last
    });
    assert!(last <= 30, "{last} generations");
    assert_eq!(proxy.get("/").text(), "one");
}

#[test]
fn listeners_come_and_go_with_the_config() {
    let mut proxy = start("one", 2);
    let second = config("two", 2).replace(
        "[upstreams.app]",
        "[listeners.more]\nbind = \"{listen_more}\"\n\n    [upstreams.app]",
    );
    let ask = |address| {
        castling_tests::client::send(
            address,
            http::Request::get("/").body(body::empty()).unwrap(),
        )
        .text()
    };
    proxy.reload_with(&second).expect_success();
    let more = proxy.address_of("listen_more");
    assert_eq!(
        (ask(more).as_str(), ask(proxy.address()).as_str()),
        ("two", "two")
    );
    proxy.reload_with(&config("one", 2)).expect_success();
    until("nobody listens there", || {
        std::net::TcpStream::connect(more).is_err()
    });
    assert_eq!(ask(proxy.address()), "one");
}

#[test]
fn a_graceful_stop_finishes_requests() {
    let slow = origin::answering_after(Duration::from_millis(500), |_| {
        Response::new(body::full("finished"))
    });
    let mut proxy = Proxy::with_config(&config("one", 2))
        .origin("app", slow)
        .start();
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the origin has it", || proxy.origin("app").requests() == 1);
    let workers = proxy.workers();
    proxy.command("stop", &[]).expect_success();
    assert_eq!(client.read_reply().text(), "finished");
    assert_eq!(proxy.until_ended(), Some(0));
    assert!(!workers.iter().any(|worker| worker.is_alive()));
    assert!(!proxy.path("castling.sock").exists());
}

#[test]
fn a_fast_stop_does_not_wait() {
    let mut proxy = Proxy::with_config(&config("one", 2))
        .origin("app", castling_tests::raw_origin::stalled())
        .start();
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the origin has it", || {
        proxy.origin("app").connections() == 1
    });
    let workers = proxy.workers();
    proxy.command("stop", &["--fast"]).expect_success();
    assert_eq!(proxy.until_ended(), Some(0));
    assert!(!workers.iter().any(|worker| worker.is_alive()));
    client.read_to_end().unwrap();
}

#[test]
fn sigquit_stops_gracefully_and_sigterm_at_once() {
    for signal in [Signal::QUIT, Signal::TERM, Signal::INT] {
        let mut proxy = start("one", 2);
        let workers = proxy.workers();
        proxy.master().signal(signal);
        assert_eq!(proxy.until_ended(), Some(0), "{signal:?}");
        assert!(
            !workers.iter().any(|worker| worker.is_alive()),
            "{signal:?}"
        );
    }
}

#[test]
fn workers_end_with_a_killed_master() {
    let mut proxy = start("one", 2);
    let workers = proxy.workers();
    proxy.master().signal(Signal::KILL);
    until("the workers' end", || {
        !workers.iter().any(|worker| worker.is_alive())
    });
    assert_eq!(proxy.until_ended(), None);
}

#[test]
fn a_second_master_on_the_same_control_socket_is_refused() {
    let proxy = start("one", 1);
    let said = proxy.command("run", &[]).expect_refusal().stderr;
    assert!(said.contains("castling.sock"), "{said}");
    assert_eq!(proxy.get("/").status, StatusCode::OK);
}
