//! Timers of plugins: on each worker or on one, while their generation serves.

use castling_tests::{Proxy, origin, until};

const CONFIG: &str = r#"
    [plugins.ticker]
    wasm = "{guests}/ticker.wasm"
    grants = { upstreams = ["helper"], zones = ["ticks"] }

    [plugins.solo]
    wasm = "{guests}/solo.wasm"
    grants = { zones = ["ticks"] }
    SOLO

    [zones.ticks]
    kind = "counter"
    size = "1MiB"

    [listeners.web]
    bind = "{listen}"

    [upstreams.helper]
    peers = ["{helper}"]

    [[routes]]
    plugins = ["ticker", "solo"]
"#;

fn ticking(solo: &str) -> Proxy {
    Proxy::with_config(&CONFIG.replace("SOLO", solo))
        .origin("helper", origin::text("tock"))
        .start()
}

fn ticks(proxy: &Proxy, name: &str) -> u64 {
    let reply = proxy.get(&format!("/ticks/{name}"));
    reply.text().parse().expect("a number")
}

#[test]
fn a_timer_runs_again_and_again_and_may_call_out() {
    let proxy = ticking("");
    until("ten runs on two workers", || ticks(&proxy, "ticker") >= 10);
    assert!(proxy.origin("helper").requests() >= 10);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_timer_on_one_worker_runs_once_a_generation_and_on_the_worker_that_replaces_it() {
    let mut proxy = ticking("");
    until("the first run", || ticks(&proxy, "solo") == 1);
    // The timer's period is an hour; the other worker has none.
    until("the other timer has run long since", || {
        ticks(&proxy, "ticker") >= 6
    });
    assert_eq!(ticks(&proxy, "solo"), 1);
    let config = CONFIG.replace("SOLO", "# changed");
    proxy.reload_with(&config).expect_success();
    until("the new generation's", || ticks(&proxy, "solo") == 2);
}

#[test]
fn the_config_may_set_the_period() {
    let proxy = ticking("timer = \"10ms\"");
    until("many runs", || ticks(&proxy, "solo") >= 5);
}

#[test]
fn a_drained_generation_ticks_no_more() {
    let mut proxy = ticking("");
    until("it ticks", || ticks(&proxy, "ticker") >= 2);
    let config = CONFIG
        .replace("[plugins.ticker]", "[plugins.ticker]\ntimer = \"1h\"")
        .replace("SOLO", "");
    proxy.reload_with(&config).expect_success();
    // Each of the new workers runs it once when it begins.
    until("the old workers have ended", || proxy.workers().len() == 2);
    let before = proxy.origin("helper").requests();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(proxy.origin("helper").requests() - before <= 2);
}
