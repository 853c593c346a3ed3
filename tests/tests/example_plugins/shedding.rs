//! `load-shedding`.

use castling_tests::{Proxy, RawClient, origin, raw_origin, until};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [zones.busy]
    kind = "gauge"
    size = "1MiB"

    [plugins.shed]
    wasm = "{plugins}/load_shedding.wasm"

    [plugins.shed.config]
    permits = "busy"
    priority = "$http_x_priority"
    most = { high = 4, low = 2 }
    otherwise = "low"
    retry_after = "2s"
    zone = "eu-1"
    spill_at = 2
    MORE

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    balance = { plugin = "shed" }
    peers = [{ address = "{far}", tags = ["eu-2"] }, { address = "{near}", tags = ["eu-1"] }]

    [upstreams.static]
    peers = ["{static}"]

    [[routes]]
    plugins = ["shed"]
    upstream = "app"
"#;

fn ask(proxy: &Proxy, priority: &str) -> RawClient {
    let mut client = proxy.raw();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Priority: {priority}\r\n\r\n"
    ));
    client
}

/// Requests that are each held by an origin which answers nothing.
fn held(proxy: &Proxy, priority: &str, count: usize) -> Vec<RawClient> {
    let seen = || ["near", "far"].map(|name| proxy.origin(name).connections());
    let clients = (0..count).map(|_| {
        let before: usize = seen().iter().sum();
        let client = ask(proxy, priority);
        until("an origin has it", || seen().iter().sum::<usize>() > before);
        client
    });
    clients.collect()
}

/// Origin that answers who wants an answer, and holds all others.
fn holding() -> origin::Origin {
    raw_origin::scripted(|connection, _| {
        let head = connection.read_head()?.to_ascii_lowercase();
        if head.contains("x-answer") {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return Ok(());
        }
        connection.read_to_end().map(drop)
    })
}

fn start(more: &str) -> Proxy {
    Proxy::with_config(&CONFIG.replace("MORE", more))
        .origin("near", holding())
        .origin("far", holding())
        .origin("static", origin::text("static"))
        .start()
}

#[test]
fn the_least_important_is_shed_first_and_near_peers_come_first() {
    let proxy = start("");
    let connections = || ["near", "far"].map(|name| proxy.origin(name).connections());
    let mut low = held(&proxy, "low", 2);
    assert_eq!(connections(), [2, 0]);
    let refused = ask(&proxy, "low").read_reply();
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("2"))
    );
    // The near one is full: others are asked.
    let _high = held(&proxy, "high", 2);
    assert_eq!(connections(), [2, 2]);
    assert_eq!(ask(&proxy, "high").read_reply().status, 503);
    // A permit is back when its client has left: a reset says so, where a close may be half of one.
    low.pop().expect("two of them").reset();
    until("there is room", || {
        ask(&proxy, "high\r\nX-Answer: 1").read_reply().status == 200
    });
}

#[test]
fn another_upstream_has_what_is_too_much() {
    let proxy = start("overflow = \"static\"");
    let _low = held(&proxy, "low", 2);
    for _ in 0..3 {
        assert_eq!(ask(&proxy, "low").read_reply().text(), "static");
    }
}

#[test]
fn requests_leave_their_zone_when_its_peers_are_down() {
    let config = CONFIG.replace("MORE", "").replace("{near}", "{refusing}");
    let proxy = Proxy::with_config(&config)
        .origin("far", origin::text("far"))
        .origin("static", origin::text("static"))
        .start();
    for _ in 0..3 {
        assert_eq!(proxy.get("/").text(), "far");
    }
}
