//! Facts of each peer in `castling status` and in the metrics.

use castling_tests::origin::Origin;
use castling_tests::raw_origin::DeadAddress;
use castling_tests::{Exposition, Proxy, origin, raw_origin, until};
use serde_json::Value;

const CONFIG: &str = r#"
    [workers]
    count = 2

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{a}", "{b}"]
    MORE

    [[routes]]
    upstream = "app"
"#;

fn started(more: &str, b: Origin) -> Proxy {
    Proxy::with_config(&CONFIG.replace("MORE", more))
        .origin("a", origin::text("a"))
        .origin("b", b)
        .start()
}

/// Facts of the peer at this address.
#[track_caller]
fn peer(proxy: &Proxy, address: &str) -> Value {
    let status = proxy.status();
    let peers = status["upstreams"][0]["peers"].as_array().cloned();
    let mut peers = peers.unwrap_or_default().into_iter();
    let found = peers.find(|peer| peer["address"] == address);
    found.unwrap_or_else(|| panic!("no {address} in {status}"))
}

fn at(proxy: &Proxy, name: &str) -> String {
    proxy.origin(name).address().to_string()
}

fn states(proxy: &Proxy, state: &str) -> Option<f64> {
    let metrics = Exposition::parse(&proxy.command("metrics", &[]).stdout);
    let labels = [("upstream", "app"), ("state", state)];
    metrics.get("castling_upstream_peer_states", &labels)
}

#[test]
fn a_peer_that_fails_is_told_with_its_failures_and_the_end_of_its_ejection() {
    let dead = DeadAddress::refusing();
    let dead_at = dead.address().to_string();
    let proxy = started(
        "passive = { ejection = \"1h\", max_ejection = \"1h\" }",
        origin::text("b"),
    );
    let added = ["app", "add", &dead_at];
    proxy.command("upstream", &added).expect_success();
    let human = |proxy: &Proxy| proxy.command("status", &[]).expect_success().stdout;
    until("it is ejected", || {
        proxy.get("/");
        peer(&proxy, &dead_at)["state"] == "ejected"
    });
    let told = peer(&proxy, &dead_at);
    assert_eq!(told["by"], "requests", "{told}");
    assert_eq!(told["failures"], 1, "{told}");
    assert!(told["ejected_seconds"].as_f64() > Some(3000.0), "{told}");
    let a = at(&proxy, "a");
    let healthy = peer(&proxy, &a);
    assert_eq!(
        (&healthy["state"], &healthy["by"]),
        (&"up".into(), &"".into())
    );
    assert!(healthy["check"].is_null(), "{healthy}");
    let text = human(&proxy);
    let rows: Vec<&str> = text.lines().filter(|line| line.contains(&a)).collect();
    assert_eq!(rows.len(), 1, "one that is plainly up has no row: {text}");
    assert!(text.contains("ejected for "), "{text}");
    until("the metrics know", || {
        states(&proxy, "ejected") == Some(1.0) && states(&proxy, "up") == Some(2.0)
    });
    let down = ["app", "down", &a];
    proxy.command("upstream", &down).expect_success();
    let told = peer(&proxy, &a);
    assert_eq!(
        (&told["state"], &told["by"]),
        (&"down".into(), &"operator".into())
    );
    until("the metrics know", || {
        states(&proxy, "down") == Some(1.0) && states(&proxy, "up") == Some(1.0)
    });
}

#[test]
fn the_last_check_is_told_with_its_age() {
    let failing = raw_origin::closing("HTTP/1.1 500 Sorry\r\nContent-Length: 0\r\n\r\n");
    let proxy = started("check = { interval = \"50ms\", fall = 1 }", failing);
    let (a, b) = (at(&proxy, "a"), at(&proxy, "b"));
    until("both are checked", || {
        peer(&proxy, &a)["check"]["passed"] == true && peer(&proxy, &b)["state"] == "unhealthy"
    });
    let told = peer(&proxy, &b);
    assert_eq!(told["by"], "checks", "{told}");
    assert_eq!(told["check"]["passed"], false, "{told}");
    let check = &told["check"];
    for key in ["age_seconds", "latency_seconds", "state_seconds"] {
        let seconds = check[key].as_f64();
        assert!(
            seconds.is_some_and(|it| (0.0..60.0).contains(&it)),
            "{told}"
        );
    }
    let shown = proxy.command("upstream", &["app"]).expect_success().stdout;
    let row = shown.lines().find(|line| line.contains(&b)).unwrap();
    assert!(row.contains("unhealthy for "), "{shown}");
    assert!(row.contains("failed ") && row.contains(" ago"), "{shown}");
    let row = shown.lines().find(|line| line.contains(&a)).unwrap();
    assert!(row.contains("passed ") && row.contains(" ago"), "{shown}");
}

#[test]
fn a_weight_that_rises_is_told_as_it_is_now() {
    let proxy = started("slow_start = \"1h\"", origin::text("b"));
    let b = at(&proxy, "b");
    assert_eq!(peer(&proxy, &b)["weight_now"], 1.0);
    for order in ["down", "up"] {
        proxy
            .command("upstream", &["app", order, &b])
            .expect_success();
    }
    let told = peer(&proxy, &b);
    let now = told["weight_now"].as_f64().unwrap();
    assert!(told["weight"] == 1 && (0.1..0.2).contains(&now), "{told}");
    let text = proxy.command("status", &[]).expect_success().stdout;
    assert!(text.contains("0.1 of 1"), "{text}");
}
