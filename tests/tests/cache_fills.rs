//! Responses on their way into a cache: one request fetches for all, whatever becomes of it.

use castling_tests::gate::Gate;
use castling_tests::{Proxy, RawClient, Setup, raw_origin, until};
use rustix::process::Signal;

const CONFIG: &str = r#"
    [workers]
    count = 2

    [zones.pages]
    kind = "cache"
    size = "16MiB"

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]
    tries = 1

    [[routes]]
    upstream = "app"
    cache = { zone = "pages", wait = "WAIT", max_body = "200KB" }
"#;

const PAGE: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\npage";

fn setup(wait: &str) -> Setup {
    Proxy::with_config(&CONFIG.replace("WAIT", wait))
}

fn start(gate: &Gate, answer: &'static str) -> Proxy {
    setup("60s").origin("app", gate.origin(answer)).start()
}

fn ask(proxy: &Proxy) -> RawClient {
    let mut client = proxy.raw();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    client
}

fn active(proxy: &Proxy) -> u64 {
    let status = proxy.status();
    let workers = status["workers"].as_array().expect("workers");
    let requests = workers
        .iter()
        .filter_map(|worker| worker["requests_active"].as_u64());
    requests.sum()
}

/// A request that fetches, and so many that wait for it, in all workers.
fn fetching(proxy: &Proxy, gate: &Gate, waiters: usize) -> (RawClient, Vec<RawClient>) {
    let fetcher = ask(proxy);
    gate.until_asked(1);
    let waiting: Vec<_> = (0..waiters).map(|_| ask(proxy)).collect();
    until("all are there", || active(proxy) == waiters as u64 + 1);
    (fetcher, waiting)
}

/// Reads replies; returns how many of them say that they were stored, and not found.
fn served(clients: &mut [RawClient]) -> usize {
    let replies = clients.iter_mut().map(RawClient::read_reply);
    let fetched = replies.filter(|reply| {
        assert_eq!((reply.status, reply.text().as_str()), (200, "page"));
        !reply
            .header("cache-status")
            .expect("of the cache")
            .contains("; hit")
    });
    fetched.count()
}

#[test]
fn one_fetches_for_all_who_wait_in_all_workers() {
    let gate = Gate::default();
    let proxy = start(&gate, PAGE);
    let (mut fetcher, mut waiting) = fetching(&proxy, &gate, 60);
    gate.answer(0);
    assert_eq!(fetcher.read_reply().text(), "page");
    assert_eq!(served(&mut waiting), 0);
    assert_eq!(gate.asked(), 1);
}

#[test]
fn who_leaves_before_the_response_is_replaced_by_one() {
    let gate = Gate::default();
    let proxy = start(&gate, PAGE);
    let (fetcher, mut waiting) = fetching(&proxy, &gate, 20);
    fetcher.reset();
    gate.until_asked(2);
    gate.answer(1);
    assert_eq!(served(&mut waiting), 1);
    assert_eq!(gate.asked(), 2);
}

#[test]
fn who_is_killed_with_its_worker_is_replaced_by_one() {
    let gate = Gate::default();
    let proxy = start(&gate, PAGE);
    let (fetcher, waiting) = fetching(&proxy, &gate, 60);
    let port = proxy.address().port();
    let workers = proxy.until_workers(2);
    let clients = workers
        .iter()
        .map(|worker| worker.clients_on(port).expect("/proc is there"));
    let clients: Vec<_> = clients.collect();
    let address = |client: &RawClient| client.socket().local_addr().expect("connected");
    let victim = clients
        .iter()
        .position(|clients| clients.contains(&address(&fetcher)));
    let victim = victim.expect("one has the fetcher");
    workers[victim].signal(Signal::KILL);
    let of_other = |client: &RawClient| !clients[victim].contains(&address(client));
    let mut left: Vec<_> = waiting.into_iter().filter(of_other).collect();
    assert!(!left.is_empty(), "the other worker has none who waits");
    gate.until_asked(2);
    gate.open();
    assert_eq!(served(&mut left), 1);
    assert_eq!(gate.asked(), 2);
}

#[test]
fn those_who_wait_for_what_is_not_stored_all_go_at_once() {
    let gate = Gate::default();
    let secret = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 4\r\n\r\npage";
    let proxy = start(&gate, secret);
    let (mut fetcher, mut waiting) = fetching(&proxy, &gate, 20);
    gate.answer(0);
    assert_eq!(fetcher.read_reply().text(), "page");
    // None of them waits for another one.
    gate.until_asked(21);
    gate.open();
    assert_eq!(served(&mut waiting), 20);
    // Neither do later ones, for a time.
    let mut later = [ask(&proxy)];
    assert_eq!(served(&mut later), 1);
}

#[test]
fn those_who_wait_too_long_go_by_themselves() {
    let gate = Gate::default();
    let proxy = setup("50ms").origin("app", gate.origin(PAGE)).start();
    let fetcher = ask(&proxy);
    gate.until_asked(1);
    let mut waiting = [ask(&proxy), ask(&proxy)];
    gate.until_asked(3);
    gate.open();
    assert_eq!(served(&mut waiting), 2);
    drop(fetcher);
}

#[test]
fn a_client_that_is_slow_or_leaves_in_the_middle_holds_nobody_up() {
    let size = 180_000;
    let page = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {size}\r\n\r\n{}",
        "x".repeat(size)
    );
    for leaves in [false, true] {
        let proxy = setup("60s")
            .origin("app", raw_origin::repeating(page.clone()))
            .start();
        // This client reads the head alone.
        let mut slow = ask(&proxy);
        slow.read_reply_to_head();
        if leaves {
            slow.reset();
        }
        let reply = proxy.get_from("a", "/a");
        assert_eq!(reply.body.len(), size);
        let told = reply.header("cache-status").unwrap();
        assert!(told.contains("; hit"), "leaves {leaves}: {told}");
    }
}

#[test]
fn what_is_too_large_passes_and_is_not_stored() {
    let size = 3_000_000;
    let body = "x".repeat(size);
    let told = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {size}\r\n\r\n{body}"
    );
    let untold = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"
    );
    for page in [told, untold] {
        let proxy = setup("60s")
            .origin("app", raw_origin::repeating(page))
            .start();
        for _ in 0..2 {
            let reply = proxy.get("/a");
            assert_eq!(reply.body.len(), size);
            assert!(!reply.header("cache-status").unwrap().contains("; hit"));
        }
        let reply = proxy.get_with("/a", &[("range", "bytes=0-9")]);
        assert_eq!(reply.body.len(), size);
    }
}

#[test]
fn what_breaks_off_is_not_stored() {
    let cut = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nsome";
    let proxy = setup("60s").origin("app", raw_origin::closing(cut)).start();
    for _ in 0..2 {
        let mut client = ask(&proxy);
        let reply = client.try_read_reply();
        assert!(reply.is_err(), "the response is cut");
    }
    proxy.until_log_has("response cut after");
}

#[test]
fn what_is_stored_outlives_workers_and_reloads_and_an_upgrade() {
    let gate = Gate::default();
    gate.open();
    let mut proxy = start(&gate, PAGE);
    assert_eq!(proxy.get("/a").text(), "page");
    let hit = |proxy: &Proxy| {
        let reply = proxy.get("/a");
        assert!(reply.header("cache-status").unwrap().contains("; hit"));
    };
    for worker in proxy.until_workers(2) {
        worker.signal(Signal::KILL);
    }
    until("others serve", || {
        proxy.status()["workers"].as_array().map(Vec::len) == Some(2)
    });
    hit(&proxy);
    proxy.reload().expect_success();
    hit(&proxy);
    proxy.upgrade(&[]).expect_success();
    hit(&proxy);
    assert_eq!(gate.asked(), 1);
}

#[test]
fn what_is_never_fresh_is_for_those_who_waited_for_it() {
    let gate = Gate::default();
    let page = "HTTP/1.1 200 OK\r\nCache-Control: no-cache\r\nETag: \"a\"\r\nContent-Length: 4\r\n\r\npage";
    let proxy = start(&gate, page);
    let (mut fetcher, mut waiting) = fetching(&proxy, &gate, 20);
    gate.answer(0);
    assert_eq!(fetcher.read_reply().text(), "page");
    assert_eq!(served(&mut waiting), 0);
    assert_eq!(gate.asked(), 1);
    gate.open();
    assert_eq!(served(&mut [ask(&proxy)]), 1);
}

#[test]
fn those_who_wait_for_an_origin_that_fails_have_what_is_stale() {
    let gate = Gate::default();
    let config = CONFIG
        .replace("WAIT", "60s")
        .replace("max_body", "stale_if_error = \"1m\", max_body");
    let failing = "HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n";
    let origin = raw_origin::scripted({
        let gate = gate.clone();
        move |connection, _| {
            let mut is_first = true;
            loop {
                connection.read_head()?;
                let number = gate.pass();
                let stale = "HTTP/1.1 200 OK\r\nCache-Control: max-age=10\r\nAge: 20\r\nContent-Length: 4\r\n\r\npage";
                connection.send(if number == 0 && is_first {
                    stale
                } else {
                    failing
                });
                is_first = false;
            }
        }
    });
    let proxy = Proxy::with_config(&config).origin("app", origin).start();
    gate.answer(0);
    assert_eq!(served(&mut [ask(&proxy)]), 1);
    let fetcher = ask(&proxy);
    gate.until_asked(2);
    let mut waiting: Vec<_> = (0..10).map(|_| ask(&proxy)).collect();
    until("all are there", || active(&proxy) == 11);
    gate.answer(1);
    waiting.push(fetcher);
    for client in &mut waiting {
        let reply = client.read_reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "page"));
        assert!(
            reply
                .header("cache-status")
                .unwrap()
                .ends_with("detail=stale-if-error")
        );
    }
    assert_eq!(gate.asked(), 2);
}

#[test]
fn what_was_asked_for_before_a_change_is_not_stored_after_it() {
    let gate = Gate::default();
    let proxy = start(&gate, PAGE);
    let mut early = ask(&proxy);
    gate.until_asked(1);
    let mut change = proxy.raw();
    change.send("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    gate.until_asked(2);
    gate.answer(1);
    assert_eq!(change.read_reply().status, 200);
    gate.answer(0);
    assert_eq!(early.read_reply().text(), "page");
    gate.open();
    assert_eq!(served(&mut [ask(&proxy)]), 1);
    assert_eq!(gate.asked(), 3);
}

#[test]
fn what_nobody_wants_any_more_is_not_read_on() {
    let endless = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        connection.send(
            "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        loop {
            connection.send("5\r\nhello\r\n");
        }
    });
    let proxy = setup("60s").origin("app", endless).start();
    let mut client = ask(&proxy);
    client.read_reply_to_head();
    client.reset();
    until("nothing is under way", || active(&proxy) == 0);
    // A part of what is slow is waited for as long as the client is there.
    let slow = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        connection.send(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\nsome",
        );
        connection.read_to_end().map(drop)
    });
    let proxy = setup("60s").origin("app", slow).start();
    let mut client = proxy.raw();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n");
    until("it waits", || active(&proxy) == 1);
    client.reset();
    until("nobody waits", || active(&proxy) == 0);
}
