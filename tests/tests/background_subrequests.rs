//! Requests of plugins to the gateway's own routes from hooks that have no request: `timer` and `message`.

use castling_tests::{Exposition, Proxy, Setup, body, origin, raw_origin, until};
use http::Response;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [access_log]
    file = "{dir}/access.log"
    format = "$status $path of $subrequest_of by $client_address at $listener $scheme"
    flush = "0s"

    [zones.heard]
    kind = "kv"
    size = "1MiB"

    [zones.news]
    kind = "topic"
    size = "64KiB"

    [plugins.herald]
    wasm = "{guests}/herald.wasm"
    grants = { zones = ["heard", "news"], own_routes = OWN }
    config = { path = "ASKED" }

    [plugins.asker]
    wasm = "{guests}/asker.wasm"
    grants = { own_routes = true }

    [plugins.mark]
    wasm = "{plugins}/headers.wasm"
    config = { request = { set = { x-mark = "$host $method" } } }

    [listeners.inner]
    bind = "{listen_inner}"

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.stalls]
    peers = ["{stalls}"]

    [[routes]]
    plugins = ["herald"]
    listeners = ["web"]

    [[routes]]
    path = "/again"
    plugins = ["asker"]
    listeners = ["inner"]

    [[routes]]
    hosts = ["herald.example"]
    path = "/jobs"
    plugins = ["mark"]
    upstream = "app"
    listeners = ["inner"]

    [[routes]]
    path = "/stalls"
    upstream = "stalls"
    listeners = ["inner"]

    [[routes]]
    path = "/metrics"
    metrics = true
    listeners = ["web"]
"#;

fn setup(own: &str, asked: &str) -> Setup {
    let app = origin::answering(|seen| {
        let mark = seen.header("x-mark").unwrap_or_default();
        let client = seen
            .header("x-forwarded-for")
            .map(|client| format!(" for {client}"));
        let client = client.unwrap_or_default();
        let told = format!("{}{client} marked {mark}", seen.target);
        Response::new(body::full(told))
    });
    let config = CONFIG.replace("OWN", own).replace("ASKED", asked);
    Proxy::with_config(&config)
        .origin("app", app)
        .origin("stalls", raw_origin::stalled())
}

fn heard(proxy: &Proxy, key: &str) -> String {
    proxy.get(&format!("/heard/{key}")).text()
}

#[track_caller]
fn until_heard(proxy: &Proxy, key: &str, text: &str) {
    until(&format!("{key} has heard {text:?}"), || {
        heard(proxy, key).contains(text)
    });
}

/// Lines of sub-requests.
fn lines(proxy: &Proxy) -> Vec<String> {
    let lines = proxy.access_lines().into_iter();
    lines.filter(|line| line.contains("of herald")).collect()
}

#[test]
fn a_timer_asks_routes_of_the_listener_that_its_grant_names() {
    let proxy = setup("\"inner\"", "/jobs/run?now=1").start();
    until_heard(
        &proxy,
        "timer",
        "200:/jobs/run?now=1 marked herald.example GET",
    );
    assert_eq!(
        lines(&proxy),
        ["200 /jobs/run of herald by 0.0.0.0 at inner http"]
    );
    let metrics = Exposition::parse(&proxy.get("/metrics").text());
    let labels = [("listener", "inner"), ("code", "2xx")];
    assert_eq!(metrics.sum("castling_requests_total", &labels), 1.0);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_message_asks_and_a_status_is_an_answer() {
    let proxy = setup("\"inner\"", "").start();
    assert_eq!(proxy.get("/x?say=/jobs/a").text(), "said");
    until_heard(&proxy, "message", "200:/jobs/a marked herald.example GET");
    proxy.get("/x?say=/nowhere");
    until_heard(&proxy, "message", "404:");
    assert_eq!(
        lines(&proxy),
        [
            "200 /jobs/a of herald by 0.0.0.0 at inner http",
            "404 /nowhere of herald by 0.0.0.0 at inner http"
        ]
    );
}

#[test]
fn those_within_it_are_nested_and_leave_no_line() {
    let proxy = setup("\"inner\"", "/again").start();
    // The route's plugin asks for the path that it is asked for, again and again.
    until_heard(&proxy, "timer", "sub-requests are nested more than 5 deep");
    assert_eq!(
        lines(&proxy),
        ["200 /again of herald by 0.0.0.0 at inner http"]
    );
}

#[test]
fn of_several_listeners_the_grant_has_to_name_one() {
    let proxy = setup("true", "/jobs/run").start();
    until_heard(&proxy, "timer", "NotGranted: ");
    let told = heard(&proxy, "timer");
    assert!(told.contains("`grants.own_routes`"), "{told}");
    assert_eq!(lines(&proxy), [""; 0]);
}

#[test]
fn the_only_listener_need_not_be_named() {
    let config = CONFIG
        .replace("[listeners.inner]\n    bind = \"{listen_inner}\"\n", "")
        .replace("listeners = [\"inner\"]", "")
        .replace("OWN", "true")
        .replace("ASKED", "/jobs/run");
    let proxy = Proxy::with_config(&config)
        .origin("app", origin::text("done"))
        .origin("stalls", raw_origin::stalled())
        .start();
    until_heard(&proxy, "timer", "200:done");
}

#[test]
fn a_listener_that_is_none_is_refused() {
    let checked = setup("\"outer\"", "").check();
    let said = checked.outcome.expect_refusal().stderr;
    assert!(
        said.contains("outer") && said.contains("listener"),
        "{said}"
    );
    let checked = setup("3", "").check();
    let said = checked.outcome.expect_refusal().stderr;
    assert!(
        said.contains("expected true, false or the name of a listener"),
        "{said}"
    );
}

#[test]
fn a_drain_ends_it() {
    let mut proxy = setup("\"inner\"", "/stalls").start();
    until("it stalls", || proxy.origin("stalls").connections() == 1);
    let config = CONFIG.replace("OWN", "\"inner\"").replace("ASKED", "");
    proxy.reload_with(&config).expect_success();
    proxy.until_workers(1);
}
