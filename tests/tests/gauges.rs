//! Permits of gauge zones: so many at a time over all workers, and given back however their request ends.

use castling_tests::Exposition;
use castling_tests::{Proxy, RawClient, Setup, origin, raw_origin, until};
use http::StatusCode;
use rustix::process::Signal;

const CONFIG: &str = r#"
    [workers]
    count = 2

    [zones.busy]
    kind = "gauge"
    size = "16KiB"

    [zones.kept]
    kind = "kv"
    size = "1MiB"

    [plugins.usher]
    wasm = "{guests}/usher.wasm"
    config = { zone = "busy", max = 3 }
    grants = { zones = ["busy", "kept"] }
    limits = { permits = 3 }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.slow]
    peers = ["{slow}"]

    [[routes]]
    plugins = ["usher"]
    upstream = "app"

    [[routes]]
    path = "/slow"
    plugins = ["usher"]
    upstream = "slow"

    [[routes]]
    path = "/metrics"
    metrics = true
"#;

/// Gateway before an origin that answers, and one that never does.
fn setup() -> Setup {
    Proxy::with_config(CONFIG)
        .origin("app", origin::text("hello"))
        .origin("slow", raw_origin::stalled())
}

/// A request that holds a permit for as long as its client stays.
fn hold(proxy: &Proxy, key: &str) -> RawClient {
    let mut client = proxy.raw();
    client.send(format!(
        "GET /slow HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n"
    ));
    client
}

fn count(proxy: &Proxy, key: &str) -> u64 {
    let reply = proxy.get(&format!("/count/{key}"));
    reply.text().parse().expect("a number")
}

fn until_count(proxy: &Proxy, key: &str, expected: u64) {
    until(&format!("{expected} are out"), || {
        count(proxy, key) == expected
    });
}

fn status_of(proxy: &Proxy, key: &str) -> StatusCode {
    proxy.get_with("/", &[("x-key", key)]).status
}

#[test]
fn so_many_at_a_time_over_all_workers_and_clients_that_leave_make_room() {
    let proxy = setup().start();
    let mut held: Vec<_> = (0..3).map(|_| hold(&proxy, "a")).collect();
    until_count(&proxy, "a", 3);
    for _ in 0..10 {
        assert_eq!(status_of(&proxy, "a"), 429);
        assert_eq!(status_of(&proxy, "b"), 200);
    }
    let status = proxy.status();
    let busy = status["zones"]
        .as_array()
        .and_then(|zones| zones.iter().find(|zone| zone["name"] == "busy"));
    assert_eq!(busy.expect("a zone")["permits"], 3, "{status}");
    let told = Exposition::parse(&proxy.get("/metrics").text());
    let zone = ("zone", "busy");
    assert_eq!(told.sum("castling_zone_permits", &[zone]), 3.0);
    let refused = [zone, ("reason", "max")];
    assert_eq!(
        told.sum("castling_zone_permits_refused_total", &refused),
        10.0
    );
    held.pop().expect("three").reset();
    until_count(&proxy, "a", 2);
    held.push(hold(&proxy, "a"));
    until_count(&proxy, "a", 3);
    held.into_iter().for_each(RawClient::reset);
    until_count(&proxy, "a", 0);
}

#[test]
fn a_permit_ends_with_its_response_a_trap_or_when_it_is_given_back() {
    let proxy = setup().start();
    let end = |what: &str, status: u16| {
        let reply = proxy.get_with("/", &[("x-key", "a"), ("x-do", what)]);
        assert_eq!(reply.status, status, "{what}: {}", reply.text());
        until_count(&proxy, "a", 0);
        reply
    };
    end("", 200);
    end("trap", 500);
    end("trap-late", 500);
    let left = end("leave", 200);
    assert_eq!(
        (left.header("x-left"), left.header("x-left-again")),
        (Some("true"), Some("false"))
    );
    let mut kept = proxy.raw();
    for _ in 0..10 {
        kept.send("GET / HTTP/1.1\r\nHost: a\r\nX-Key: a\r\n\r\n");
        assert_eq!(kept.read_reply().status, 200);
    }
    until_count(&proxy, "a", 0);
}

#[test]
fn a_worker_that_is_killed_gives_back_what_its_requests_held() {
    let proxy = setup().start();
    let workers = proxy.until_workers(2);
    let held: Vec<_> = (0..40)
        .map(|idx| hold(&proxy, &format!("k{}", idx % 20)))
        .collect();
    let all = || {
        (0..20)
            .map(|key| count(&proxy, &format!("k{key}")))
            .sum::<u64>()
    };
    until("all hold theirs", || all() == 40);
    workers[0].signal(Signal::KILL);
    until("its permits are back", || all() < 40);
    workers[1].signal(Signal::KILL);
    until("all permits are back", || all() == 0);
    drop(held);
    assert_eq!(status_of(&proxy, "k0"), 200);
}

#[test]
fn permits_of_a_generation_that_drains_count_on_and_so_they_do_in_an_upgrade() {
    let mut proxy = setup().start();
    let held = [hold(&proxy, "a"), hold(&proxy, "a")];
    until_count(&proxy, "a", 2);
    let changed = CONFIG.replace("peers = [\"{app}\"]", "peers = [\"{app}\"]\ntries = 2");
    proxy.reload_with(&changed).expect_success();
    assert_eq!(count(&proxy, "a"), 2);
    let third = hold(&proxy, "a");
    until_count(&proxy, "a", 3);
    proxy.upgrade(&[]).expect_success();
    assert_eq!(count(&proxy, "a"), 3);
    assert_eq!(status_of(&proxy, "a"), 429);
    third.reset();
    until_count(&proxy, "a", 2);
    held.into_iter().for_each(RawClient::reset);
    until_count(&proxy, "a", 0);
}

#[test]
fn what_a_plugin_may_not_do_with_permits_is_told() {
    let proxy = setup().start();
    let told = |what: &str, times: &str| {
        let headers = [("x-key", "a"), ("x-do", what), ("x-times", times)];
        let reply = proxy.get_with("/", &headers);
        assert_eq!(reply.status, 409, "{what}");
        until_count(&proxy, "a", 0);
        reply.text()
    };
    let bad = "zone \"busy\": enter: bad argument: expected a key of up to 4096 bytes that the request holds no permit of, and at \
               least 1 permit";
    assert_eq!(told("twice", ""), bad);
    assert_eq!(told("none", ""), bad);
    assert_eq!(told("long", "4097"), bad);
    assert_eq!(told("many", "3"), "zone \"busy\": enter: limit reached");
    assert_eq!(
        told("other", ""),
        "zone \"kept\": enter: a zone of another kind"
    );
    assert_eq!(told("gone", ""), "zone \"gone\": enter: not granted");
    assert_eq!(told("kv", ""), "zone \"busy\": get: a zone of another kind");
    proxy.until_log_has("a timer gets none: zone \"busy\": enter: not in this hook");
    // Keys of requests that have ended take no room.
    let flood = [("x-key", "a"), ("x-do", "flood"), ("x-times", "1500")];
    assert_eq!(proxy.get_with("/", &flood).status, 200);
}

#[test]
fn a_zone_without_room_refuses_further_keys_alone() {
    let config = CONFIG
        .replace("16KiB", "4KiB")
        .replace("permits = 3", "permits = 1000, cpu = \"1s\"");
    let setup = Proxy::with_config(&config).origin("app", origin::text("hello"));
    let proxy = setup.origin("slow", raw_origin::stalled()).start();
    let mut held = hold(&proxy, "a");
    until_count(&proxy, "a", 1);
    let many = [("x-key", "m"), ("x-do", "many"), ("x-times", "900")];
    let full = proxy.get_with("/", &many);
    assert_eq!(
        (full.status, full.text().as_str()),
        (StatusCode::CONFLICT, "zone \"busy\": enter: full")
    );
    let told = Exposition::parse(&proxy.get("/metrics").text());
    let refused = [("zone", "busy"), ("reason", "full")];
    assert_eq!(
        told.sum("castling_zone_permits_refused_total", &refused),
        1.0
    );
    until_count(&proxy, "m1", 0);
    assert_eq!(status_of(&proxy, "b"), 200);
    held.send("");
    assert_eq!(count(&proxy, "a"), 1);
}

#[test]
fn a_gauge_that_is_not_there_or_not_granted_is_refused_at_load() {
    let told = |config: &str| {
        let setup = Proxy::with_config(config).origin("app", origin::text("hello"));
        let setup = setup.origin("slow", raw_origin::stalled());
        setup.check().outcome.expect_refusal().stderr
    };
    let without = told(&CONFIG.replace("grants = { zones = [\"busy\", \"kept\"] }", ""));
    assert!(
        without.contains("usher.wasm uses a zone, which nothing grants"),
        "{without}"
    );
    let of_other_kind = told(&CONFIG.replace("[\"busy\", \"kept\"]", "[\"kept\"]"));
    assert!(
        of_other_kind.contains("uses a gauge zone; expected one in `grants.zones`"),
        "{of_other_kind}"
    );
    let wrong = told(&CONFIG.replace("zone = \"busy\"", "zone = \"kept\""));
    assert!(
        wrong.contains("config.zone: a zone of another kind; expected a gauge zone of the config"),
        "{wrong}"
    );
}
