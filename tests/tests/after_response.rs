//! Work of plugins after the response is out: `after_response`.

use std::sync::{Arc, Condvar, Mutex};

use castling_tests::origin::Origin;
use castling_tests::{
    DEADLINE, Exposition, Proxy, block_on, body, h2, origin, raw_origin, until, within,
};
use http::Response;
use serde_json::Value;

const CONFIG: &str = r#"
    [workers]
    count = 1
    drain_timeout = "DRAIN"

    [access_log]
    file = "{dir}/access.log"
    format = "$status $path"
    flush = "0s"

    [zones.kept]
    kind = "kv"
    size = "1MiB"

    [plugins.first]
    wasm = "{guests}/follower.wasm"
    config = { name = "first" }
    grants = { upstreams = ["sink"], zones = ["kept"], own_routes = true }
    quarantine = { traps = 0 }
    LIMITS

    [plugins.second]
    wasm = "{guests}/follower.wasm"
    config = { name = "second" }
    grants = { upstreams = ["sink"], zones = ["kept"], own_routes = true }

    [plugins.computer]
    wasm = "{guests}/computer.wasm"
    grants = { upstreams = ["sink"] }

    [listeners.web]
    bind = "{listen}"
    http2 = {}

    [upstreams.app]
    peers = ["{app}"]

    [upstreams.stalls]
    peers = ["{stalls}"]

    [upstreams.sink]
    peers = ["{sink}"]

    [[routes]]
    plugins = ["first", "computer"]
    upstream = "app"

    [[routes]]
    path = "/both"
    plugins = ["first", "second"]
    upstream = "app"

    [[routes]]
    path = "/stalls"
    plugins = ["first"]
    upstream = "stalls"

    [[routes]]
    path = "/parts"
    upstream = "app"

    [[routes]]
    path = "/metrics"
    metrics = true
"#;

/// Upstream that hears what plugins report, and holds its answers back while it is shut.
#[derive(Clone, Default)]
struct Sink(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    reports: Vec<String>,
    is_shut: bool,
}

impl Sink {
    fn origin(&self) -> Origin {
        let own = self.clone();
        // Threads, since an answer that is held back blocks its own.
        raw_origin::scripted(move |connection, _| {
            loop {
                let head = connection.read_head()?.to_lowercase();
                let length = head.split("content-length: ").nth(1);
                let length = length.and_then(|rest| rest.split("\r\n").next());
                let length = length.and_then(|length| length.parse().ok());
                let body = connection.read_exact(length.unwrap_or(0))?;
                own.hear(String::from_utf8_lossy(&body).into_owned());
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nheard");
            }
        })
    }

    /// Notes a report, and waits until its answer may go.
    fn hear(&self, report: String) {
        let (heard, opened) = &*self.0;
        let mut heard = heard.lock().unwrap();
        heard.reports.push(report);
        let _open = opened.wait_while(heard, |heard| heard.is_shut).unwrap();
    }

    fn shut(&self, is_shut: bool) {
        self.0.0.lock().unwrap().is_shut = is_shut;
        self.0.1.notify_all();
    }

    fn reports(&self) -> Vec<String> {
        self.0.0.lock().unwrap().reports.clone()
    }

    #[track_caller]
    fn until_reports(&self, n: usize) -> Vec<String> {
        until(&format!("{n} reports"), || self.reports().len() >= n);
        self.reports()
    }
}

fn start(limits: &str) -> (Proxy, Sink) {
    start_with(limits, "30s")
}

fn start_with(limits: &str, drain: &str) -> (Proxy, Sink) {
    let sink = Sink::default();
    let app = origin::answering(|_| {
        let mut response = Response::new(body::full("hello"));
        let from = http::HeaderValue::from_static("app");
        response.headers_mut().insert("x-from", from);
        response
    });
    let config = CONFIG.replace("LIMITS", limits).replace("DRAIN", drain);
    let proxy = Proxy::with_config(&config)
        .origin("app", app)
        .origin("stalls", raw_origin::stalled())
        .origin("sink", sink.origin())
        .start();
    (proxy, sink)
}

fn metric(proxy: &Proxy, name: &str, labels: &[(&str, &str)]) -> f64 {
    let text = proxy.get("/metrics").text();
    let labels: Vec<_> = labels
        .iter()
        .chain(&[("plugin", "first")])
        .copied()
        .collect();
    Exposition::parse(&text).sum(name, &labels)
}

fn lost(proxy: &Proxy, reason: &str) -> f64 {
    metric(
        proxy,
        "castling_after_response_lost_total",
        &[("reason", reason)],
    )
}

fn of_status(proxy: &Proxy, fact: &str) -> Value {
    let status = proxy.status();
    let plugins = status["plugins"].as_array().unwrap();
    let first = plugins.iter().find(|it| it["name"] == "first").unwrap();
    first[fact].clone()
}

const REPORT: (&str, &str) = ("x-after", "report");
const ASK: &str = "GET /a HTTP/1.1\r\nHost: a\r\nX-After: report\r\n\r\n";
const TOLD: &str = "GET /a Some(200) app access+log first-/a computed true frozen true first";

#[test]
fn it_sees_the_exchange_and_the_state_of_the_request_and_calls_out() {
    let (proxy, sink) = start("");
    assert_eq!(proxy.get_with("/a", &[REPORT]).text(), "hello");
    assert_eq!(sink.until_reports(1), [TOLD]);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn it_runs_for_a_stream_of_http2() {
    let (proxy, sink) = start("");
    block_on(within(DEADLINE, "the client", async {
        let mut client = h2::H2Client::connect(proxy.address()).await;
        let mut request = h2::get("/a");
        let (name, value) = REPORT;
        request.headers_mut().insert(name, value.parse().unwrap());
        let reply = client.send(request, b"").await.unwrap();
        assert_eq!(reply.text(), "hello");
    }));
    assert_eq!(sink.until_reports(1), [TOLD]);
}

#[test]
fn state_within_the_instance_stays_with_it() {
    let (proxy, sink) = start("isolation = \"request\"");
    proxy.get_with("/a", &[REPORT]);
    assert_eq!(sink.until_reports(1), [TOLD]);
    until("it is over", || of_status(&proxy, "after_responses") == 0);
    assert_eq!(of_status(&proxy, "instances_in_use"), 0);
}

#[test]
fn the_next_request_of_the_connection_does_not_wait_for_it() {
    let (proxy, sink) = start("");
    sink.shut(true);
    let mut client = proxy.raw();
    for n in 1..=5 {
        assert_eq!(client.send(ASK).read_reply().text(), "hello");
        sink.until_reports(n);
    }
    assert_eq!(of_status(&proxy, "after_responses"), 5);
    assert_eq!(metric(&proxy, "castling_after_response_active", &[]), 5.0);
    assert_eq!(proxy.status()["workers"][0]["requests_active"], 0);
    // The line does not wait either.
    assert_eq!(proxy.access_lines()[..5], ["200 /a"; 5]);
    sink.shut(false);
    until("all are over", || of_status(&proxy, "after_responses") == 0);
    assert_eq!(metric(&proxy, "castling_after_response_active", &[]), 0.0);
}

#[test]
fn it_runs_for_a_client_that_has_left() {
    let (proxy, sink) = start("");
    let mut client = proxy.raw();
    client.send("GET /stalls HTTP/1.1\r\nHost: a\r\nX-After: report\r\n\r\n");
    until("the origin has it", || {
        proxy.origin("stalls").connections() == 1
    });
    client.reset();
    let told = sink.until_reports(1);
    assert!(told[0].starts_with("GET /stalls "), "{told:?}");
}

#[test]
fn too_many_are_lost_and_counted() {
    let (proxy, sink) = start("limits = { after_response_active = 2, after_response_queue = 1 }");
    sink.shut(true);
    let mut client = proxy.raw();
    for _ in 0..2 {
        client.send(ASK).read_reply();
    }
    sink.until_reports(2);
    for _ in 0..3 {
        client.send(ASK).read_reply();
    }
    assert_eq!(lost(&proxy, "queue"), 2.0);
    assert_eq!(metric(&proxy, "castling_after_response_waiting", &[]), 1.0);
    assert_eq!(of_status(&proxy, "after_responses"), 3);
    assert_eq!(of_status(&proxy, "after_responses_lost"), 2);
    sink.shut(false);
    sink.until_reports(3);
    until("all are over", || of_status(&proxy, "after_responses") == 0);
    assert_eq!(sink.reports().len(), 3);
}

#[test]
fn one_that_takes_too_long_is_ended_and_the_next_runs() {
    let (proxy, sink) = start("limits = { after_response = \"20ms\" }");
    proxy.get_with("/both", &[("x-after", "wait 60000")]);
    proxy.until_log_has(
        "plugin first failed in after_response: limits.after_response of 20ms reached",
    );
    assert_eq!(lost(&proxy, "timeout"), 1.0);
    proxy.get_with("/a", &[("x-after", "keep it")]);
    until("it is kept", || proxy.get("/kept/it").text() == "kept");
    let _kept = sink;
}

#[test]
fn a_trap_costs_its_own_call() {
    let (proxy, sink) = start("");
    let mut client = proxy.raw();
    let ask = "GET /both HTTP/1.1\r\nHost: a\r\nX-After: panic\r\n\r\n";
    assert_eq!(client.send(ask).read_reply().text(), "hello");
    for name in ["first", "second"] {
        let told = format!("plugin {name} failed in after_response: it was asked to, afterwards");
        proxy.until_log_has(&told);
    }
    let workers = proxy.workers();
    for what in ["hoard", "recurse"] {
        let ask = format!("GET /{what} HTTP/1.1\r\nHost: a\r\nX-After: {what}\r\n\r\n");
        assert_eq!(client.send(ask).read_reply().text(), "hello");
    }
    let told = proxy.until_log_has("limits.memory");
    assert!(told.contains("after_response"), "{told}");
    proxy.until_log_has("recurses_for_ever");
    assert_eq!(client.send(ASK).read_reply().text(), "hello");
    assert_eq!(sink.until_reports(1), [TOLD]);
    assert_eq!(proxy.workers(), workers);
}

#[test]
fn one_that_computes_for_ever_is_ended_and_holds_nobody_up() {
    let (proxy, sink) = start("");
    let mut client = proxy.raw();
    let ask = "GET /a HTTP/1.1\r\nHost: a\r\nX-After: spin\r\n\r\n";
    for _ in 0..3 {
        assert_eq!(client.send(ask).read_reply().text(), "hello");
    }
    proxy.until_log_has("plugin first failed in after_response: limits.cpu of 50 ms reached");
    assert_eq!(client.send(ASK).read_reply().text(), "hello");
    assert_eq!(sink.until_reports(1), [TOLD]);
}

#[test]
fn it_asks_the_gateways_own_routes_and_what_is_too_late_is_refused() {
    let (proxy, sink) = start("");
    proxy.get_with("/a", &[("x-after", "ask /parts/x")]);
    assert_eq!(sink.until_reports(1), ["asked: hello"]);
    proxy.get_with("/a", &[("x-after", "late")]);
    assert_eq!(sink.until_reports(2)[1], "late: true");
    // Sub-requests have none of their own.
    assert_eq!(proxy.access_lines(), ["200 /a", "200 /a"]);
}

#[test]
fn a_drain_waits_for_it() {
    let (mut proxy, sink) = start("");
    sink.shut(true);
    proxy.get_with("/a", &[REPORT]);
    sink.until_reports(1);
    let config = CONFIG
        .replace("LIMITS", "timer = \"1h\"")
        .replace("DRAIN", "30s");
    proxy
        .reload_with(&config.replace("timer = \"1h\"", "# new"))
        .expect_success();
    until("the old one drains", || {
        let status = proxy.status();
        let states = status["generations"].as_array().unwrap();
        states.iter().any(|it| it["state"] == "draining")
    });
    assert_eq!(proxy.get("/a").text(), "hello");
    assert_eq!(proxy.workers().len(), 2);
    sink.shut(false);
    proxy.until_workers(1);
    assert_eq!(lost(&proxy, "drain"), 0.0);
}

#[test]
fn the_end_of_the_drain_is_its_end() {
    let (proxy, sink) = start_with("", "200ms");
    sink.shut(true);
    proxy.get_with("/a", &[REPORT]);
    sink.until_reports(1);
    proxy.reload().expect_success();
    let line = proxy.until_log_has("drain time-out");
    assert!(line.contains("after_responses=1"), "{line}");
    proxy.until_workers(1);
    sink.shut(false);
    assert_eq!(lost(&proxy, "drain"), 1.0);
}

#[test]
fn the_check_tells_it() {
    let (proxy, _sink) = start("");
    let said = proxy.check().expect_success().stdout;
    assert!(said.contains("after_response: first, second"), "{said}");
}
