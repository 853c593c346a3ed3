//! Proxies in front that are believed, ids of requests, and the ends of connections that have served enough.

use std::net::Ipv4Addr;

use castling_tests::{Proxy, RawClient, Setup, body, origin};
use http::Response;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [access_log]
    file = "{dir}/access.log"
    flush = "0s"
    format = "$client_address $request_id"

    [plugins.hash-ring]
    wasm = "{plugins}/hash_ring.wasm"

    [listeners.web]
    bind = "{listen}"
    SETTINGS

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
"#;

/// Fields that the origin shows.
const SHOWN: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "forwarded",
    "x-real-ip",
    "x-request-id",
];

fn gateway(settings: &str) -> Setup {
    let config = CONFIG.replace("SETTINGS", settings);
    let config = config.replace(
        "    [plugins.hash-ring]\n    wasm = \"{plugins}/hash_ring.wasm\"\n\n",
        "",
    );
    let tells = origin::answering(|seen| {
        let lines = SHOWN.iter().filter_map(|name| {
            let values: Vec<_> = seen.headers.get_all(*name).iter().collect();
            let values = values.iter().filter_map(|value| value.to_str().ok());
            let all: Vec<_> = values.collect();
            (!all.is_empty()).then(|| format!("{name}: {}\n", all.join(" | ")))
        });
        Response::new(body::full(lines.collect::<String>()))
    });
    Proxy::with_config(&config).origin("app", tells)
}

fn ask(proxy: &Proxy, from: Ipv4Addr, fields: &str) -> String {
    let mut client = proxy.raw_from(from);
    let request = format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n");
    client.send(request).read_reply().text()
}

const TRUSTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const STRANGER: Ipv4Addr = Ipv4Addr::LOCALHOST;

const CLAIMS: &str = "X-Forwarded-For: 192.0.2.6, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: front.test\r\nX-Forwarded-Port: 443\r\nForwarded: for=192.0.2.8\r\n\
    X-Real-IP: 192.0.2.9\r\n";

#[test]
fn a_trusted_proxy_names_the_client_and_a_stranger_does_not() {
    let proxy = gateway("trusted_proxies = [\"127.0.0.9\"]").start();
    assert_eq!(
        ask(&proxy, TRUSTED, CLAIMS),
        "x-forwarded-for: 192.0.2.6, 192.0.2.7, 127.0.0.9\n\
         x-forwarded-proto: https\nx-forwarded-host: front.test\n"
    );
    assert_eq!(
        ask(&proxy, STRANGER, CLAIMS),
        "x-forwarded-for: 192.0.2.6, 192.0.2.7, 127.0.0.1\n\
         x-forwarded-proto: http\nx-forwarded-host: shop.test\n"
    );
    // Nothing is claimed.
    assert_eq!(
        ask(&proxy, TRUSTED, ""),
        "x-forwarded-for: 127.0.0.9\nx-forwarded-proto: http\nx-forwarded-host: shop.test\n"
    );
    let lines = proxy.until_access_lines(3);
    assert_eq!(lines, ["192.0.2.7 -", "127.0.0.1 -", "127.0.0.9 -"]);
}

#[test]
fn the_field_that_names_the_client_can_be_another() {
    let settings =
        |field: &str| format!("trusted_proxies = [\"127.0.0.0/8\"]\n    client_from = \"{field}\"");
    let proxy = gateway(&settings("forwarded")).start();
    assert_eq!(
        ask(&proxy, TRUSTED, CLAIMS),
        "x-forwarded-for: 192.0.2.8\nx-forwarded-proto: https\nx-forwarded-host: front.test\n\
         forwarded: for=192.0.2.8, for=127.0.0.9\n"
    );
    let proxy = gateway(&settings("x-real-ip")).start();
    assert_eq!(
        ask(&proxy, TRUSTED, CLAIMS),
        "x-forwarded-for: 192.0.2.9\nx-forwarded-proto: https\nx-forwarded-host: front.test\n\
         x-real-ip: 192.0.2.9\n"
    );
    assert_eq!(proxy.until_access_lines(1), ["192.0.2.9 -"]);
}

#[test]
fn what_a_stranger_claims_can_be_replaced() {
    let proxy = gateway("x_forwarded_for = \"replace\"").start();
    let told = ask(&proxy, STRANGER, CLAIMS);
    assert!(told.starts_with("x-forwarded-for: 127.0.0.1\n"), "{told}");
}

#[test]
fn a_proxy_header_and_trusted_proxies_go_together() {
    let settings =
        "proxy_protocol = { from = [\"127.0.0.1\"] }\n    trusted_proxies = [\"10.0.0.0/8\"]";
    let proxy = gateway(settings).start();
    let mut client = proxy.raw();
    client.send("PROXY TCP4 10.0.0.7 198.51.100.1 50000 443\r\n");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
    let told = client.read_reply().text();
    assert!(
        told.starts_with("x-forwarded-for: 192.0.2.7, 10.0.0.7\n"),
        "{told}"
    );
    assert_eq!(proxy.until_access_lines(1), ["192.0.2.7 -"]);
}

#[test]
fn balancing_by_address_sees_the_client() {
    let config = CONFIG
        .replace("SETTINGS", "trusted_proxies = [\"127.0.0.9\"]")
        .replace(
            "peers = [\"{app}\"]",
            "peers = [\"{a}\", \"{b}\", \"{c}\"]\n    balance = { plugin = \"hash-ring\" }",
        )
        .replace(
            "hash_ring.wasm\"",
            "hash_ring.wasm\"\n    config = { key = \"$client_address\" }",
        );
    let proxy = Proxy::with_config(&config)
        .origin("a", origin::text("a"))
        .origin("b", origin::text("b"))
        .origin("c", origin::text("c"))
        .start();
    let by = |client: u8| {
        let claim = format!("X-Forwarded-For: 192.0.2.{client}\r\n");
        let answers = [(); 3].map(|()| ask(&proxy, TRUSTED, &claim));
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "{answers:?}"
        );
        answers[0].clone()
    };
    let first = by(1);
    assert!(
        (2..60).any(|client| by(client) != first),
        "all have one peer"
    );
}

#[test]
fn ids_of_requests_are_made_or_kept() {
    let id = |told: &str| {
        let line = told
            .lines()
            .find_map(|line| line.strip_prefix("x-request-id: "));
        line.unwrap_or_default().to_owned()
    };
    const GIVEN: &str = "X-Request-Id: of-the-front\r\n";
    let made = gateway("request_id = \"make\"").start();
    let ids = [(); 2].map(|()| id(&ask(&made, TRUSTED, GIVEN)));
    assert!(
        ids.iter().all(|id| id.len() == 32) && ids[0] != ids[1],
        "{ids:?}"
    );
    assert!(made.until_access_lines(2)[0].ends_with(&ids[0]));

    let settings = "trusted_proxies = [\"127.0.0.9\"]\n    request_id = \"keep\"";
    let kept = gateway(settings).start();
    assert_eq!(id(&ask(&kept, TRUSTED, GIVEN)), "of-the-front");
    assert_eq!(id(&ask(&kept, TRUSTED, "")).len(), 32);
    assert_eq!(id(&ask(&kept, STRANGER, GIVEN)).len(), 32);

    let as_sent = gateway("").start();
    assert_eq!(id(&ask(&as_sent, STRANGER, GIVEN)), "of-the-front");
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_connection_ends_with_the_last_request_that_it_may_have() {
    let proxy = gateway("max_requests = 3").start();
    let mut client: RawClient = proxy.raw();
    for last in [false, false, true] {
        let reply = client.send(GET).read_reply();
        let is_last = reply.header("connection") == Some("close");
        assert_eq!((reply.status, is_last), (200, last), "{}", reply.head);
    }
    client.expect_closed_in_order();
}

#[test]
fn a_connection_of_age_ends_with_its_next_response() {
    let proxy = gateway("max_age = \"1s\"").start();
    let mut client: RawClient = proxy.raw();
    // A response comes that is the last, however slow the machine is, and none before it is cut.
    loop {
        let reply = client.send(GET).read_reply();
        assert_eq!(reply.status, 200);
        if reply.header("connection") == Some("close") {
            break;
        }
    }
    client.expect_closed_in_order();
}

#[test]
fn responses_say_where_else_they_are() {
    let proxy = gateway("alt_svc = 'h3=\":443\"; ma=60'").start();
    assert_eq!(proxy.get("/").header("alt-svc"), Some("h3=\":443\"; ma=60"));
    let refused = proxy
        .raw()
        .send("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n")
        .read_reply();
    assert_eq!(
        (refused.status, refused.header("alt-svc")),
        (400, Some("h3=\":443\"; ma=60"))
    );
}
