//! Generations that drain: how many there may be, how long they may take, and what becomes of their connections.

use castling_tests::{Proxy, RawClient, origin, until};
use http::Response;
use rustix::process::Signal;

/// `/` is answered at once, `/stalls` never.
fn config(workers: &str) -> String {
    r#"
    [workers]
    count = 1
    WORKERS

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.stalls]
    peers = ["{stalls}"]

    [[routes]]
    upstream = "app"

    [[routes]]
    path = "/stalls"
    upstream = "stalls"
    "#
    .replace("WORKERS", workers)
}

fn start(workers: &str) -> Proxy {
    Proxy::with_config(&config(workers))
        .origin("app", origin::text("hi"))
        .origin("stalls", castling_tests::raw_origin::stalled())
        .start()
}

/// A client whose request keeps the generation that serves now from ending.
fn stalled_client(proxy: &Proxy) -> RawClient {
    let before = proxy.origin("stalls").connections();
    let mut client = proxy.raw();
    client.send("GET /stalls HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the origin has it", || {
        proxy.origin("stalls").connections() > before
    });
    client
}

fn generations(proxy: &Proxy) -> Vec<(u64, String)> {
    let status = proxy.status();
    let all = status["generations"].as_array().unwrap().iter();
    all.map(|one| {
        let state = one["state"].as_str().unwrap().to_owned();
        (one["id"].as_u64().unwrap(), state)
    })
    .collect()
}

#[test]
fn a_reload_waits_when_too_many_generations_drain() {
    let proxy = start("drain_timeout = \"60s\"\nmax_draining_generations = 1");
    let first = stalled_client(&proxy);
    proxy.reload().expect_success();
    let second = stalled_client(&proxy);
    std::thread::scope(|scope| {
        let before = proxy.master().descriptors();
        let waiting = [(); 3].map(|()| scope.spawn(|| proxy.reload()));
        proxy.until_log_has(
            "reload waits: 1 generations drain (1), and workers.max_draining_generations = 1",
        );
        // Each holds a connection of the control socket. One that came later would get a generation of its own.
        until("three who ask", || {
            proxy.master().descriptors() >= before + 3
        });
        // The one that serves goes on, and nothing was ended.
        assert_eq!(proxy.get("/").text(), "hi");
        assert_eq!(
            generations(&proxy),
            [(1, "draining".to_owned()), (2, "serving".to_owned())]
        );
        assert!(waiting.iter().all(|reload| !reload.is_finished()));
        let said = proxy.command("status", &[]).expect_success().stdout;
        assert!(said.contains("draining, ends within "), "{said}");
        // The oldest generation ends, since its last client leaves.
        first.reset();
        let done = waiting.map(|reload| reload.join().unwrap().expect_success());
        for done in done {
            assert!(done.stdout.contains("generation 3 serves"), "{done:?}");
            assert!(
                done.stderr.contains("reload waits: 1 generations drain"),
                "{done:?}"
            );
        }
    });
    assert_eq!(
        generations(&proxy),
        [(2, "draining".to_owned()), (3, "serving".to_owned())]
    );
    drop(second);
}

#[test]
fn a_reload_that_waits_takes_the_config_as_it_is_then() {
    let keys = "drain_timeout = \"60s\"\nmax_draining_generations = 1";
    let mut proxy = start(keys);
    let first = stalled_client(&proxy);
    proxy.reload().expect_success();
    proxy.master().signal(Signal::HUP);
    proxy.until_log_has("reload waits");
    // A wrong config is refused before it would wait, though a right one waits.
    proxy.write_config(&config(keys).replace("[upstreams.app]", "[upstreams.other]"));
    first.reset();
    proxy.until_log_has("reload refused");
    assert_eq!(proxy.get("/").text(), "hi");
    proxy.reload_with(&config(keys)).expect_success();
}

#[test]
fn a_reload_with_another_limit_ends_the_wait() {
    let proxy = start("drain_timeout = \"60s\"\nmax_draining_generations = 1");
    let _first = stalled_client(&proxy);
    proxy.reload().expect_success();
    let _second = stalled_client(&proxy);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| proxy.reload());
        proxy.until_log_has("reload waits");
        let path = proxy.path("castling.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("generations = 1", "generations = 2");
        std::fs::write(&path, text).unwrap();
        for reload in [proxy.reload(), waiting.join().unwrap()] {
            let said = reload.expect_success().stdout;
            assert!(said.contains("generation 3 serves"), "{said}");
        }
    });
    assert_eq!(generations(&proxy).len(), 3);
}

#[test]
fn an_upgrade_does_not_wait_for_a_reload_that_waits() {
    let mut proxy = start("drain_timeout = \"60s\"\nmax_draining_generations = 1");
    let _first = stalled_client(&proxy);
    proxy.reload().expect_success();
    let _second = stalled_client(&proxy);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| proxy.reload());
        proxy.until_log_has("reload waits");
        proxy.command("upgrade", &[]).expect_success();
        // The reload is the new master's now, which has none that drains.
        let said = waiting.join().unwrap().expect_success().stdout;
        assert!(said.contains("generation 4 serves"), "{said}");
    });
    let before = proxy.master();
    assert_ne!(proxy.know_master(), before);
    assert_eq!(proxy.get("/").text(), "hi");
}

#[test]
fn a_reload_that_waits_ends_with_the_gateway() {
    let mut proxy = start("drain_timeout = \"60s\"\nmax_draining_generations = 1");
    let _first = stalled_client(&proxy);
    proxy.reload().expect_success();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| proxy.reload());
        proxy.until_log_has("reload waits");
        proxy.command("stop", &["--fast"]).expect_success();
        let said = waiting.join().unwrap().expect_refusal().stderr;
        assert!(said.contains("the gateway is stopping"), "{said}");
    });
    assert_eq!(proxy.until_ended(), Some(0));
}

#[test]
fn commands_that_left_while_their_reload_waited_leave_room_for_others() {
    let proxy = start("drain_timeout = \"60s\"\nmax_draining_generations = 1");
    let _first = stalled_client(&proxy);
    proxy.reload().expect_success();
    let control = proxy.path("castling.sock");
    // More than the control socket has places for, and each is gone again.
    for _ in 0..40 {
        drop(castling_tests::control::begin_reload(&control).unwrap());
    }
    assert_eq!(generations(&proxy).len(), 2);
}

#[test]
fn a_reload_may_end_the_oldest_generation_instead() {
    let keys = "drain_timeout = \"60s\"\nmax_draining_generations = 1\nwhen_draining_full = \"end_oldest\"";
    let mut proxy = start(keys);
    let mut first = stalled_client(&proxy);
    proxy.reload().expect_success();
    let mut second = stalled_client(&proxy);
    // A refused reload ends nothing.
    proxy
        .reload_with(&config(keys).replace("{app}", "256.0.0.1:x"))
        .expect_refusal();
    assert_eq!(generations(&proxy).len(), 2);
    let done = proxy.reload_with(&config(keys)).expect_success();
    assert!(done.stdout.contains("generation 3 serves"), "{done:?}");
    assert_eq!(first.read_to_end().unwrap(), b"");
    let line = proxy.until_log_has("ended before its time");
    assert!(
        line.contains("generation=1") && line.contains("connections=1"),
        "{line}"
    );
    assert_eq!(
        generations(&proxy),
        [(2, "draining".to_owned()), (3, "serving".to_owned())]
    );
    // The second one's client is still waiting for its answer.
    proxy.reload().expect_success();
    assert_eq!(second.read_to_end().unwrap(), b"");
}

#[test]
fn a_connection_that_never_sent_a_byte_ends_with_its_generation() {
    let proxy = start("drain_timeout = \"60s\"");
    let mut silent = proxy.raw();
    until("it is accepted", || {
        proxy.status()["workers"][0]["connections"] == 1
    });
    proxy.reload().expect_success();
    silent.expect_close();
    until("the old generation's end", || {
        generations(&proxy).len() == 1
    });
}

#[test]
fn the_next_response_on_a_kept_connection_says_that_it_closes() {
    let proxy = start("drain_timeout = \"60s\"");
    let mut kept = proxy.raw();
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let reply = kept.send(request).read_reply();
    assert_eq!(reply.header("connection"), None);
    proxy.reload().expect_success();
    let reply = kept.send(request).read_reply();
    assert_eq!(
        (reply.text().as_str(), reply.header("connection")),
        ("hi", Some("close"))
    );
    kept.expect_close();
}

#[test]
fn a_response_that_streams_goes_on_until_its_end() {
    // Ten pieces; the origin waits for the test before the second.
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let streams = castling_tests::raw_origin::scripted(move |peer, _| {
        peer.read_head()?;
        let piece = |idx: usize| format!("7\r\npiece {idx}\r\n");
        let begin = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        peer.send(format!("{begin}{}", piece(0)));
        let told = wait.lock().unwrap().recv_timeout(castling_tests::DEADLINE);
        told.map_err(|error| error.to_string())?;
        let rest: String = (1..10).map(piece).collect();
        peer.send(format!("{rest}0\r\n\r\n"));
        Ok(())
    });
    let proxy = Proxy::with_config(&config("drain_timeout = \"60s\""))
        .origin("app", streams)
        .origin("stalls", castling_tests::raw_origin::stalled())
        .start();
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    proxy.reload().expect_success();
    proxy.reload().expect_success();
    assert_eq!(generations(&proxy)[0], (1, "draining".to_owned()));
    go_on.send(()).unwrap();
    let body = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    assert!(
        body.contains("piece 9") && body.ends_with("0\r\n\r\n"),
        "{body}"
    );
    until("the old generation's end", || {
        generations(&proxy).iter().all(|(id, _)| *id == 3)
    });
}

#[test]
fn connections_wait_while_all_workers_drain() {
    let proxy = start("drain_timeout = \"5s\"");
    for drain in [true, false] {
        match drain {
            true => drop(proxy.command("drain", &[]).expect_success()),
            false => proxy.master().signal(Signal::WINCH),
        }
        until("no worker", || proxy.workers().is_empty());
        let said = proxy.command("status", &[]).expect_success().stdout;
        assert!(
            said.contains("no generation serves: new connections wait"),
            "{said}"
        );
        let mut queued = proxy.raw();
        queued.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        proxy.reload().expect_success();
        assert_eq!(queued.read_reply().text(), "hi");
    }
}

#[test]
fn a_reload_after_a_drain_waits_for_nothing() {
    let proxy = start("drain_timeout = \"60s\"\nmax_draining_generations = 1");
    let first = stalled_client(&proxy);
    proxy.command("drain", &[]).expect_success();
    // The one that drains is all that there is: the new one sends no other to drain.
    let done = proxy.reload().expect_success();
    assert!(!done.stderr.contains("reload waits"), "{done:?}");
    assert_eq!(
        generations(&proxy),
        [(1, "draining".to_owned()), (2, "serving".to_owned())]
    );
    assert_eq!(proxy.get("/").text(), "hi");
    drop(first);
}

#[test]
fn what_is_queued_at_a_worker_that_goes_is_served_by_those_that_remain() {
    let keys = |workers: usize| {
        config("drain_timeout = \"5s\"").replace("count = 1", &format!("count = {workers}"))
    };
    let app = || origin::answering(|_| Response::new(castling_tests::body::full("hi")));
    let mut proxy = Proxy::with_config(&keys(4))
        .origin("app", app())
        .origin("stalls", castling_tests::raw_origin::stalled())
        .start();
    for count in [1, 3, 2, 4] {
        // Connections are all queued, since no worker accepts, in the sockets of all workers.
        let old = proxy.workers();
        old.iter().for_each(|worker| worker.signal(Signal::STOP));
        let mut queued: Vec<RawClient> = (0..40).map(|_| proxy.raw()).collect();
        for client in &mut queued {
            client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        }
        proxy.write_config(&keys(count));
        proxy.reload().expect_success();
        for client in &mut queued {
            assert_eq!(client.read_reply().text(), "hi", "{count} workers");
        }
        old.iter().for_each(|worker| worker.signal(Signal::CONT));
        proxy.until_workers(count);
    }
}
