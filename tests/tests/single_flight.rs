//! Flights of kv zones: one request of the gateway fetches a value, the others wait for it, whatever becomes of the one.

use castling_tests::gate::Gate;
use castling_tests::{Proxy, RawClient, until};
use rustix::process::Signal;

const CONFIG: &str = r#"
    [workers]
    count = 2

    [zones.pages]
    kind = "kv"
    size = "16MiB"

    [plugins.fetcher]
    wasm = "{guests}/fetcher.wasm"
    config = { zone = "pages" }
    grants = { zones = ["pages"], upstreams = ["app"] }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]
    tries = 1

    [[routes]]
    plugins = ["fetcher"]
    upstream = "app"
"#;

fn start(gate: &Gate) -> Proxy {
    Proxy::with_config(CONFIG)
        .origin(
            "app",
            gate.origin("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"),
        )
        .start()
}

fn ask(proxy: &Proxy, headers: &str) -> RawClient {
    let mut client = proxy.raw();
    client.send(format!("GET /a HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
    client
}

fn active(proxy: &Proxy) -> u64 {
    let status = proxy.status();
    let workers = status["workers"].as_array().expect("workers");
    workers
        .iter()
        .filter_map(|worker| worker["requests_active"].as_u64())
        .sum()
}

/// A request that fetches, and so many that wait for it, in all workers.
fn fetching(
    proxy: &Proxy,
    gate: &Gate,
    headers: &str,
    waiters: usize,
) -> (RawClient, Vec<RawClient>) {
    let fetcher = ask(proxy, headers);
    gate.until_asked(1);
    let waiting: Vec<_> = (0..waiters).map(|_| ask(proxy, "")).collect();
    until("all are there", || active(proxy) == waiters as u64 + 1);
    (fetcher, waiting)
}

/// Reads the replies of those who have waited; returns how many of them have fetched the page themselves.
fn served(waiting: &mut [RawClient]) -> usize {
    let replies = waiting.iter_mut().map(RawClient::read_reply);
    let fetched = replies.filter(|reply| {
        assert_eq!((reply.status, reply.text().as_str()), (200, "page"));
        reply.header("x-fetched").is_some()
    });
    fetched.count()
}

#[test]
fn one_fetches_for_all_who_wait_in_all_workers() {
    let gate = Gate::default();
    let proxy = start(&gate);
    let (mut fetcher, mut waiting) = fetching(&proxy, &gate, "", 60);
    for wait in ["0", "30"] {
        let reply = proxy.get_with("/a", &[("x-wait-ms", wait)]);
        assert_eq!(
            (reply.status.as_u16(), reply.text().as_str()),
            (504, "timed out")
        );
    }
    gate.answer(0);
    assert_eq!(fetcher.read_reply().header("x-fetched"), Some("yes"));
    assert_eq!(served(&mut waiting), 0);
    assert_eq!(gate.asked(), 1);
}

#[test]
fn who_fails_traps_gives_up_or_loses_its_client_is_replaced_by_one() {
    for end in ["fail", "trap", "give-up", "forget", "client"] {
        let gate = Gate::default();
        let proxy = start(&gate);
        let (mut fetcher, mut waiting) = fetching(&proxy, &gate, &format!("X-Do: {end}\r\n"), 20);
        match end {
            "client" => fetcher.reset(),
            _ => {
                gate.answer(0);
                let status = if matches!(end, "fail" | "trap") {
                    500
                } else {
                    200
                };
                assert_eq!(fetcher.read_reply().status, status, "{end}");
            }
        }
        gate.until_asked(2);
        until("the first has ended", || active(&proxy) == 20);
        gate.answer(1);
        assert_eq!(served(&mut waiting), 1, "{end}");
        assert_eq!(gate.asked(), 2, "{end}");
        if end == "forget" {
            proxy.until_log_has("ended by log: true");
        }
    }
}

#[test]
fn who_is_killed_with_its_worker_is_replaced_by_one() {
    let gate = Gate::default();
    let proxy = start(&gate);
    let (fetcher, waiting) = fetching(&proxy, &gate, "", 60);
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
fn a_new_generation_and_a_new_master_wait_for_what_an_old_one_fetches() {
    let gate = Gate::default();
    let mut proxy = start(&gate);
    let mut fetcher = ask(&proxy, "");
    gate.until_asked(1);
    proxy.reload().expect_success();
    let mut waiting = vec![ask(&proxy, "")];
    proxy.upgrade(&[]).expect_success();
    waiting.push(ask(&proxy, ""));
    until("the last waits", || active(&proxy) >= 1);
    gate.answer(0);
    assert_eq!(fetcher.read_reply().header("x-fetched"), Some("yes"));
    assert_eq!(served(&mut waiting), 0);
    assert_eq!(gate.asked(), 1);
}

#[test]
fn what_a_plugin_may_not_do_with_flights_is_told() {
    let gate = Gate::default();
    gate.open();
    let proxy = start(&gate);
    let told = |path: &str, what: &str, wait: &str| {
        let reply = proxy.get_with(path, &[("x-do", what), ("x-wait-ms", wait)]);
        (reply.status.as_u16(), reply.text())
    };
    let bad = "zone \"pages\": single_flight: bad argument: expected keys of 1 to 510 bytes and a wait of at most 60 s";
    assert_eq!(told("/wait", "", "61000"), (409, bad.to_owned()));
    assert_eq!(
        told(&format!("/{}", "k".repeat(510)), "", "10"),
        (409, bad.to_owned())
    );
    let limit = "15 zone \"pages\": single_flight: limit reached";
    assert_eq!(told("/many", "many", "10"), (409, limit.to_owned()));
    assert_eq!(told("/twice", "twice", "10"), (200, "true".to_owned()));
    // All of that has ended with its request.
    for path in ["/many", "/many3", "/twice"] {
        assert_eq!(told(path, "", "0"), (200, "page".to_owned()));
    }
    proxy.until_log_has("a timer gets none: zone \"pages\": single_flight: not in this hook");
}
