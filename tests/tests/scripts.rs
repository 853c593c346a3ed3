//! Scripts of host calls, made by the same plugins in the gateway and in the fake host of the SDK's tests, come to the same.
//!
//! `CASTLING_SCRIPTS=10000` makes more of them, `CASTLING_SCRIPTS_SHOW=1` prints those that come to something else.

#[path = "scripts/calls.rs"]
mod calls;
#[path = "scripts/made_up.rs"]
mod made_up;

use std::collections::BTreeMap;

use castling_sdk::script::{Call, Section};
use castling_sdk::testing::{self, Chain, Exchange, TcpAnswer, ZoneFault};
use castling_sdk::zones;
use castling_tests::origin::Seen;
use castling_tests::{Proxy, body, origin, until};
use http::{Request, Response};
use made_up::Case;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use script::{End, Script, Scripted, Steps};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [plugins.first]
    wasm = "{guests}/script.wasm"
    config = { index = 0 }
    GRANTS

    [plugins.second]
    wasm = "{guests}/script.wasm"
    config = { index = 1 }
    GRANTS

    [plugins.keeper]
    wasm = "{guests}/script.wasm"
    config = { index = 2, keeper = true }
    GRANTS

    [zones]
    scripts = { kind = "kv", size = "64MiB" }
    results = { kind = "kv", size = "64MiB" }
    kv = { kind = "kv", size = "64MiB" }
    counter = { kind = "counter", size = "1MiB" }
    gauge = { kind = "gauge", size = "64KiB" }
    topic = { kind = "topic", size = "64KiB" }

    [listeners.web]
    bind = "{listen}"
    plugins = ["keeper", "first", "second"]

    [upstreams.app]
    peers = ["{app}"]
    balance = { plugin = "first" }

    [upstreams.calls]
    peers = ["{app}"]

    [[routes]]
    name = "test"
    upstream = "app"
"#;

const GRANTS: &str = r#"grants = { upstreams = ["app", "calls"], zones = ["scripts", "results", "kv", "counter", "gauge", "topic"] }
    limits = { memory = "64MiB", cpu = "10s" }"#;

/// Outcome of a case.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: u16,
    by: Option<String>,
    tried: Option<String>,
    body: String,
    /// Lines by plugin and hook, in their order.
    results: BTreeMap<String, Vec<String>>,
}

#[test]
fn the_fake_host_does_what_the_gateway_does() {
    let config = CONFIG.replace("GRANTS", GRANTS);
    let proxy = Proxy::with_config(&config)
        .origin("app", origin::answering(answer))
        .start();
    let cases = std::env::var("CASTLING_SCRIPTS").ok();
    let cases = cases.map_or(300, |cases| cases.parse().unwrap());
    // Cases are the same in each run.
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let mut differences = Vec::new();
    for number in 0..cases {
        let case = made_up::case(number)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let (real, fake) = (in_gateway(&proxy, &case), in_fake(&case));
        if real != fake {
            differences.extend(difference(number, &case, &real, &fake));
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn a_filter_reads_the_body_that_another_has_put_in_the_place_of_the_peers() {
    let proxy = Proxy::with_config(&CONFIG.replace("GRANTS", GRANTS))
        .origin("app", origin::answering(answer))
        .start();
    let answers = Steps {
        calls: vec![Call::BodyRead(Section::Response, 1000)],
        end: End::Answer(200, 5),
    };
    let reads = Steps {
        calls: vec![
            Call::BodyRead(Section::Response, 1000),
            Call::BodyGet(Section::Response),
        ],
        end: End::Continue,
    };
    // The second plugin is nearer to the peer.
    let script = [reads, answers].map(|steps| [("response_headers".to_owned(), steps)].into());
    let case = Case {
        method: "GET",
        target: "/",
        body: "",
        script: script.into(),
    };
    let (real, fake) = (in_gateway(&proxy, &case), in_fake(&case));
    assert_eq!(real, fake);
    let lines = &real.results["0 response_headers"];
    assert_eq!(lines[0], "BodyRead(Response, 1000) = 5");
    assert_eq!(lines[1], "BodyGet(Response) = 5 bbbbb");
}

/// Says of a request what the peer got of it.
fn answer(seen: &Seen) -> Response<body::AnyBody> {
    let text = format!(
        "{} {} {:?} {}",
        seen.method,
        seen.target,
        seen.header("x-a"),
        String::from_utf8_lossy(&seen.body)
    );
    let response = Response::builder()
        .header("x-peer", "yes")
        .header("etag", "\"1\"");
    response.body(body::full(text)).unwrap()
}

fn in_gateway(proxy: &Proxy, case: &Case) -> Outcome {
    let script = postcard::to_allocvec(&case.script).unwrap();
    assert_eq!(proxy.post("/-/", body::full(script)).status, 204);
    let mut request = Request::builder().method(case.method).uri(case.target);
    for (name, value) in HEADERS {
        request = request.header(name, value);
    }
    let reply = proxy.send(request.body(body::full(case.body)).unwrap());
    let header = |name: &str| reply.header(name).map(str::to_owned);
    let mut results = BTreeMap::new();
    until("both plugins have logged the request", || {
        results = by_hook(&proxy.get("/-/").body);
        results.contains_key("0 log") && results.contains_key("1 log")
    });
    Outcome {
        status: reply.status.as_u16(),
        by: header("x-by"),
        tried: header("x-t"),
        body: reply.text(),
        results,
    }
}

const HEADERS: [(&str, &str); 3] = [("host", "example.com"), ("x-a", "1"), ("x-b", "2")];

/// On a thread of its own, which has a host of its own.
fn in_fake(case: &Case) -> Outcome {
    let case = case.clone();
    let run = std::thread::spawn(move || run_in_fake(&case));
    run.join().expect("the fake host does not panic")
}

fn run_in_fake(case: &Case) -> Outcome {
    for zone in ["nope", "app", "calls"] {
        testing::set_zone_fault(zone, Some(ZoneFault::NotGranted));
    }
    for (zone, kind) in calls::KINDS {
        testing::set_zone_kind(zone, kind);
    }
    let script = postcard::to_allocvec(&case.script).unwrap();
    zones::kv("scripts").put("now", script, None).unwrap();
    let mut exchange = Exchange::new(case.method, case.target)
        .client_address("127.0.0.1")
        .body(case.body)
        .call("calls", from_peer)
        .tcp_events("calls", |_| TcpAnswer::Sends(Vec::new()))
        .grant_upstream("app");
    for (name, value) in HEADERS {
        if name != "host" {
            exchange = exchange.header(name, value);
        }
    }
    let mut chain = Chain::new()
        .plugin("first", Scripted::new(0).unwrap())
        .plugin("second", Scripted::new(1).unwrap())
        .peer(from_peer);
    let served = chain.send(exchange);
    let header = |name: &str| {
        let value = served.header(name);
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    Outcome {
        status: served.status(),
        by: header("x-by"),
        tried: header("x-t"),
        body: String::from_utf8_lossy(served.body()).into_owned(),
        results: by_hook(&script::results().unwrap()),
    }
}

fn from_peer(request: &castling_sdk::http::Request) -> castling_sdk::Response {
    let first = request.header_value("x-a");
    let first = first.as_ref().map(|value| value.as_str().unwrap());
    let body = String::from_utf8_lossy(request.body_bytes());
    let text = format!("{} {} {first:?} {body}", request.method(), request.target());
    castling_sdk::Response::status(200)
        .header("x-peer", "yes")
        .header("etag", "\"1\"")
        .body(text)
}

/// Lines by the head of their block. A hook that runs several times has all of its lines there.
fn by_hook(results: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut blocks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut lines: Option<&mut Vec<String>> = None;
    for line in String::from_utf8_lossy(results).lines() {
        match (line.strip_prefix("  "), &mut lines) {
            (Some(call), Some(lines)) => lines.push(call.to_owned()),
            _ => lines = Some(blocks.entry(line.to_owned()).or_default()),
        }
    }
    blocks
}

fn difference(number: u32, case: &Case, real: &Outcome, fake: &Outcome) -> Vec<String> {
    let mut said = Vec::new();
    let name = format!("case {number}, {} {}", case.method, case.target);
    if std::env::var_os("CASTLING_SCRIPTS_SHOW").is_some() {
        said.push(format!("{case:?}\n{real:#?}"));
    }
    let hooks = real.results.keys().chain(fake.results.keys());
    for hook in hooks.collect::<std::collections::BTreeSet<_>>() {
        let (one, other) = (real.results.get(hook), fake.results.get(hook));
        match (one, other) {
            (Some(one), Some(other)) => {
                for (one, other) in one.iter().zip(other).filter(|(one, other)| one != other) {
                    said.push(format!(
                        "{name}: {hook}\n  gateway: {one}\n  fake:    {other}"
                    ));
                }
                if one.len() != other.len() {
                    let (one, other) = (one.len(), other.len());
                    said.push(format!(
                        "{name}: {hook}: {one} calls, and {other} in the fake"
                    ));
                }
            }
            (one, _) => said.push(format!(
                "{name}: {hook} ran in the {} only",
                if one.is_some() {
                    "gateway"
                } else {
                    "fake host"
                }
            )),
        }
    }
    let seen = |it: &Outcome| format!("{} {:?} {:?} {:?}", it.status, it.by, it.tried, it.body);
    if seen(real) != seen(fake) {
        said.push(format!(
            "{name}: the client\n  gateway: {}\n  fake:    {}",
            seen(real),
            seen(fake)
        ));
    }
    said
}

/// Silences what the type is for: the guest reads it as this.
const _: fn(&Case) -> &Script = |case| &case.script;
