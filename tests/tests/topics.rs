//! Topics: messages that every worker's plugins hear, at their own pace.

use castling_tests::{Exposition, Proxy, Setup, origin, until};
use rustix::process::Signal;

const CONFIG: &str = r#"
    [workers]
    count = 2

    [zones.news]
    kind = "topic"
    size = "64KiB"

    [zones.heard]
    kind = "counter"
    size = "64KiB"

    [zones.kept]
    kind = "kv"
    size = "1MiB"

    [plugins.crier]
    wasm = "{guests}/crier.wasm"
    config = { topic = "news" }
    grants = { zones = ["heard", "kept", "news"] }
    quarantine = { traps = 0 }

    [plugins.other]
    wasm = "{guests}/crier.wasm"
    config = { topic = "news" }
    grants = { zones = ["news", "heard", "kept"] }
    quarantine = { traps = 0 }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["crier"]
    upstream = "app"

    [[routes]]
    path = "/plain"
    upstream = "app"

    [[routes]]
    path = "/metrics"
    metrics = true
"#;

/// Hearers of what is said: two plugins in two workers.
const HEARERS: u64 = 4;

fn setup() -> Setup {
    Proxy::with_config(CONFIG).origin("app", origin::text("hello"))
}

fn heard(proxy: &Proxy, text: &str) -> u64 {
    let reply = proxy.get(&format!("/heard/{text}"));
    reply.text().parse().expect("a number")
}

fn say(proxy: &Proxy, text: &str) {
    assert_eq!(proxy.get(&format!("/say/{text}")).text(), "said");
}

fn until_heard(proxy: &Proxy, text: &str, count: u64) {
    until(&format!("{text} is heard {count} times"), || {
        heard(proxy, text) == count
    });
}

#[test]
fn every_plugin_of_every_worker_hears_what_is_said_once() {
    let mut proxy = setup().start();
    for text in ["a", "b", "c"] {
        say(&proxy, text);
    }
    for text in ["a", "b", "c"] {
        until_heard(&proxy, text, HEARERS);
    }
    assert_eq!(proxy.get("/long/4096").text(), "said");
    until_heard(&proxy, "4096-bytes-on-news", HEARERS);
    proxy.reload().expect_success();
    say(&proxy, "after-a-reload");
    until_heard(&proxy, "after-a-reload", HEARERS);
    for worker in proxy.until_workers(2) {
        worker.signal(Signal::KILL);
        until("the worker has died", || !worker.is_alive());
    }
    proxy.until_workers(2);
    until("those in their place hear", || {
        say(&proxy, "after-a-kill");
        heard(&proxy, "after-a-kill") >= HEARERS
    });
    proxy.upgrade(&[]).expect_success();
    say(&proxy, "after-an-upgrade");
    until_heard(&proxy, "after-an-upgrade", HEARERS);
}

#[test]
fn a_message_that_traps_costs_itself_and_one_of_no_request_may_hold_nothing() {
    let proxy = setup().start();
    say(&proxy, "trap");
    say(&proxy, "permit");
    say(&proxy, "after");
    until_heard(&proxy, "after", HEARERS);
    assert_eq!(
        (heard(&proxy, "trap"), heard(&proxy, "refused-true")),
        (0, HEARERS)
    );
    proxy.until_log_has("plugin other failed in message: ");
}

#[test]
fn a_flood_hurts_nobody_and_what_is_lost_is_counted() {
    let proxy = setup().start();
    assert_eq!(proxy.get("/flood/2000").text(), "flooded");
    for _ in 0..100 {
        assert_eq!(proxy.get("/plain").status, 200);
    }
    let told = || Exposition::parse(&proxy.get("/metrics").text());
    let zone = ("zone", "news");
    until("all is heard or lost", || {
        let told = told();
        let all = [
            "castling_topic_messages_total",
            "castling_topic_messages_lost_total",
        ];
        let sums = all.map(|name| told.sum(name, &[zone]));
        sums[0] + sums[1] == 2000.0 * HEARERS as f64 && sums[1] > 0.0
    });
    say(&proxy, "after");
    until_heard(&proxy, "after", HEARERS);
}

#[test]
fn what_a_plugin_may_not_do_with_topics_is_told() {
    let proxy = setup().start();
    let told = |path: &str| {
        let reply = proxy.get(path);
        assert_eq!(reply.status, 409, "{path}");
        reply.text()
    };
    assert_eq!(
        told("/long/4097"),
        "zone \"news\": publish of 4097 bytes, of up to 4096: limit reached"
    );
    assert_eq!(
        told("/wrong/a"),
        "zone \"heard\": publish of 1 bytes, of up to 4096: a zone of another kind"
    );
    let check = |config: &str| {
        let setup = Proxy::with_config(config).origin("app", origin::text("hello"));
        setup.check().outcome.expect_refusal().stderr
    };
    let without =
        check(&CONFIG.replace("[\"news\", \"heard\", \"kept\"]", "[\"heard\", \"kept\"]"));
    assert!(
        without.contains("uses a topic; expected one in `grants.zones`"),
        "{without}"
    );
    let wrong = check(&CONFIG.replacen("topic = \"news\"", "topic = \"heard\"", 1));
    assert!(
        wrong.contains("config.topic: a zone of another kind; expected a topic of the config"),
        "{wrong}"
    );
}
