//! State that all workers share, seen through the shipped `rate-limit`.

use castling_tests::{Proxy, origin, until};
use rustix::process::Signal;

const CONFIG: &str = r#"
    [workers]
    count = 2

    [zones.limits]
    kind = "counter"
    size = "1MiB"

    [plugins.limit]
    wasm = "{plugins}/rate_limit.wasm"
    config = { zone = "limits", rate = "6/h", burst = 6, key = "$http_x_key" }
    grants = { zones = ["limits"] }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["limit"]
    upstream = "app"
"#;

fn limited() -> Proxy {
    Proxy::with_config(CONFIG)
        .origin("app", origin::text("hello"))
        .start()
}

/// How many of so many requests with this key pass. Each has a connection of its own, so both workers get some.
fn passed(proxy: &Proxy, key: &str, n: usize) -> usize {
    let replies = (0..n).map(|_| proxy.get_with("/", &[("x-key", key)]));
    replies
        .filter(|reply| {
            assert!(
                matches!(reply.status.as_u16(), 200 | 429),
                "{}",
                reply.status
            );
            assert_eq!(
                reply.header("ratelimit-limit"),
                Some("6"),
                "{}",
                reply.status
            );
            reply.status == 200
        })
        .count()
}

#[test]
fn a_limit_holds_over_all_workers() {
    let proxy = limited();
    assert_eq!(passed(&proxy, "a", 30), 6);
    assert_eq!(passed(&proxy, "b", 30), 6);
    let refused = proxy.get_with("/", &[("x-key", "a")]);
    let wait: u64 = refused
        .header("retry-after")
        .and_then(|wait| wait.parse().ok())
        .unwrap_or_default();
    assert!((1..=600).contains(&wait), "{wait}");
    // An empty key is nobody's.
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn counts_survive_a_reload_and_the_death_of_workers() {
    let mut proxy = limited();
    assert_eq!(passed(&proxy, "a", 4), 4);
    let changed = CONFIG.replace("peers = [\"{app}\"]", "peers = [\"{app}\"]\ntries = 2");
    proxy.reload_with(&changed).expect_success();
    for worker in proxy.until_workers(2) {
        worker.signal(Signal::KILL);
        until("the worker has died", || !worker.is_alive());
    }
    proxy.until_workers(2);
    assert_eq!(passed(&proxy, "a", 10), 2);
}

#[test]
fn another_size_is_another_zone() {
    let mut proxy = limited();
    assert_eq!(passed(&proxy, "a", 10), 6);
    proxy
        .reload_with(&CONFIG.replace("1MiB", "2MiB"))
        .expect_success();
    assert_eq!(passed(&proxy, "a", 10), 6);
}

#[test]
fn a_zone_that_nothing_grants_is_refused_at_load() {
    let config = CONFIG.replace("grants = { zones = [\"limits\"] }", "");
    let setup = Proxy::with_config(&config).origin("app", origin::text("hello"));
    let told = setup.check().outcome.expect_refusal().stderr;
    assert!(
        told.contains("rate_limit.wasm uses a zone, which nothing grants"),
        "{told}"
    );
}

#[test]
fn a_config_that_names_a_zone_which_is_not_there_is_refused_at_load() {
    let told = |config: &str| {
        let setup = Proxy::with_config(config).origin("app", origin::text("hello"));
        setup.check().outcome.expect_refusal().stderr
    };
    let told_of_gone = told(&CONFIG.replace("zone = \"limits\"", "zone = \"gone\""));
    let error =
        "castling.toml:10:19: plugin limit: config.zone: not granted; expected a counter zone";
    assert!(told_of_gone.contains(error), "{told_of_gone}");
    let with_kv = CONFIG
        .replace(
            "[plugins.limit]",
            "[zones.kept]\n    kind = \"kv\"\n    size = \"1MiB\"\n    [plugins.limit]",
        )
        .replace("zone = \"limits\"", "zone = \"kept\"")
        .replace("zones = [\"limits\"]", "zones = [\"limits\", \"kept\"]");
    let told_of_kind = told(&with_kv);
    assert!(
        told_of_kind.contains("config.zone: a zone of another kind; expected a counter zone"),
        "{told_of_kind}"
    );
}

#[test]
fn counts_survive_workers_that_were_drained_away() {
    let proxy = limited();
    assert_eq!(passed(&proxy, "a", 30), 6);
    proxy.master().signal(Signal::WINCH);
    proxy.until_workers(0);
    proxy.reload().expect_success();
    assert_eq!(passed(&proxy, "a", 4), 0);
}
