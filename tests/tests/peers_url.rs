//! A URL of peers: its list counts when it has changed, and nothing that makes no sense does.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use castling_tests::name_server::NameServer;
use castling_tests::origin::Origin;
use castling_tests::tls::{Authority, Pem};
use castling_tests::{Proxy, Setup, origin, raw_origin, tls_origin, until};
use rustls::ALL_VERSIONS;

/// A server of lists, which answers with what it was told last.
#[derive(Clone, Default)]
struct Registry(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answer: Vec<u8>,
    heads: Vec<String>,
    /// Whether answers come a byte at a time.
    trickles: bool,
}

impl Registry {
    /// An answer of 200 with this list.
    fn list(&self, fields: &str, body: &str) {
        let length = body.len();
        self.answer(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
        ));
    }

    fn answer(&self, answer: impl Into<Vec<u8>>) {
        self.state().answer = answer.into();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Heads of the questions that came.
    fn heads(&self) -> Vec<String> {
        self.state().heads.clone()
    }

    fn last(&self) -> String {
        self.heads().pop().unwrap_or_default()
    }

    /// Waits for questions that begin from now on, this many of them.
    fn until_asked(&self, more: usize) {
        let before = self.heads().len();
        until("it is asked", || self.heads().len() >= before + more);
    }

    fn origin(&self) -> Origin {
        let own = self.clone();
        raw_origin::scripted(move |connection, _| {
            let answer = own.asked(connection.read_head()?);
            let trickles = own.state().trickles;
            for piece in answer.chunks(if trickles { 1 } else { answer.len().max(1) }) {
                connection.send(piece);
                if trickles {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Ok(())
        })
    }

    fn tls_origin(&self, pem: &Pem) -> Origin {
        let own = self.clone();
        let server = tls_origin::server(pem, ALL_VERSIONS);
        let (origin, _) = tls_origin::scripted(server, move |connection, _| {
            let answer = own.asked(connection.read_head()?);
            connection.send(&answer)
        });
        origin
    }

    fn asked(&self, head: String) -> Vec<u8> {
        let mut state = self.state();
        state.heads.push(head);
        state.answer.clone()
    }
}

/// A gateway whose peers are at a URL, before these origins.
struct Site {
    setup: Setup,
    a: String,
    b: String,
}

impl Site {
    fn new(registry: Origin, peers: &str) -> Self {
        let (a, b) = (origin::text("a"), origin::text("b"));
        let (at_a, at_b) = (a.address().to_string(), b.address().to_string());
        let setup = Proxy::with_config(&CONFIG.replace("PEERS", peers))
            .origin("registry", registry)
            .origin("a", a)
            .origin("b", b);
        let (a, b) = (at_a, at_b);
        Self { setup, a, b }
    }
}

const CONFIG: &str = r#"
    [workers]
    count = 2

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    PEERS

    # Their addresses are for the list.
    [upstreams.origins]
    peers = ["{a}", "{b}", "{registry}"]

    [[routes]]
    path = "/origins"
    upstream = "origins"

    [[routes]]
    upstream = "app"
"#;

const QUICK: &str =
    r#"peers_url = { url = "http://{registry}/peers?of=app", interval = "1s", timeout = "500ms" }"#;

fn json(peers: &[&str]) -> String {
    let peers: Vec<String> = peers.iter().map(|peer| format!("\"{peer}\"")).collect();
    format!("{{ \"peers\": [{}] }}", peers.join(", "))
}

fn served_by(proxy: &Proxy) -> BTreeSet<String> {
    proxy.tally("/", 12).into_keys().collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|it| (*it).to_owned()).collect()
}

#[test]
fn a_url_says_who_the_peers_are_and_is_asked_for_changes_alone() {
    let registry = Registry::default();
    let Site { setup, a, b } = Site::new(registry.origin(), QUICK);
    let validators = "ETag: \"v1\"\r\nLast-Modified: Mon, 30 Nov 2026 00:00:00 GMT\r\n";
    registry.list(validators, &json(&[&a]));
    let mut proxy = setup.start();
    assert_eq!(served_by(&proxy), names(&["a"]));
    let first = &registry.heads()[0];
    assert!(
        first.starts_with("GET /peers?of=app HTTP/1.1\r\n"),
        "{first}"
    );
    assert!(!first.contains("if-none-match"), "{first}");

    registry.answer("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n");
    registry.until_asked(2);
    let head = registry.last();
    assert!(head.contains("if-none-match: \"v1\"\r\n"), "{head}");
    assert!(head.contains("if-modified-since: Mon, 30 Nov 2026 00:00:00 GMT\r\n"));
    assert_eq!(served_by(&proxy), names(&["a"]));

    let toml = format!("peers = [\"{a}\", {{ address = \"{b}\", weight = 2 }}]");
    registry.list("", &toml);
    until("both are there", || served_by(&proxy) == names(&["a", "b"]));
    registry.until_asked(2);
    assert!(
        !registry.last().contains("if-"),
        "no validators came with this list"
    );
    assert!(proxy.status().to_string().contains("\"kind\":\"url\""));

    // What was known last is good over a reload and an upgrade while there is no answer.
    registry.answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    proxy.until_log_has("status 503");
    proxy.reload().expect_success();
    proxy.upgrade(&[]).expect_success();
    assert_eq!(served_by(&proxy), names(&["a", "b"]));
    registry.list("", &json(&[&b]));
    until("one is left", || served_by(&proxy) == names(&["b"]));
}

#[test]
fn an_answer_of_no_use_changes_nothing_and_status_says_why() {
    let registry = Registry::default();
    let Site { setup, a, .. } = Site::new(registry.origin(), QUICK);
    registry.list("", &json(&[&a]));
    let proxy = setup.start();
    let says = |said: &str| {
        until(said, || last_error(&proxy).contains(said));
        assert_eq!(served_by(&proxy), names(&["a"]), "{said}");
    };
    let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}");
    let empty = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    for (answer, said) in [
        (empty("404 Not Found"), "status 404"),
        (empty("302 Found"), "status 302: it is not followed"),
        (
            "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(),
            "status 304, which was not asked for",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(), "malformed head"),
        (ok("Content-Length: 100\r\n\r\npeers = "), "end"),
        (
            ok("Content-Encoding: gzip\r\n\r\nx"),
            "content-encoding \"gzip\": expected none",
        ),
        (
            ok(&format!("\r\n{}", "x".repeat(5 << 20))),
            "larger than 4194304 bytes",
        ),
        (ok("\r\npeers = []"), "/peers?...:1:9: peers is empty"),
        (ok("\r\n<html>sorry</html>"), "/peers?...:1:"),
        (
            ok("\r\npeers = [\"unix:/run/app.sock\"]"),
            "sockets of this host are for the config",
        ),
        (
            ok("\r\npeers = [\"app.test:80\"]"),
            "peer app.test:80: expected an address",
        ),
    ] {
        registry.answer(answer);
        says(said);
    }
    registry.list("", &json(&[&a]));
    registry.state().trickles = true;
    says("no answer within 500ms");
    registry.state().trickles = false;
    until("it is fetched again", || last_error(&proxy).is_empty());
}

/// The last error of the gateway's only source; empty: there is none.
fn last_error(proxy: &Proxy) -> String {
    let status = proxy.status();
    let error = &status["sources"][0]["last_error"];
    error.as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_url_is_asked_by_tls_and_with_the_fields_of_the_config() {
    let (authority, other) = (Authority::new("a"), Authority::new("other"));
    let registry = Registry::default();
    let dns = NameServer::start();
    dns.set_addresses("registry.test", &[Ipv4Addr::LOCALHOST], 60);
    let site = |tls: &str| {
        let origin = registry.tls_origin(&authority.certify(&["registry.test"]));
        let (port, server) = (origin.address().port(), dns.address);
        let peers = format!(
            "peers_url = {{ url = \"https://registry.test:{port}\", headers = {{ authorization = \"Bearer 123\" }}, tls = {{ {tls} }} }}\n\
             resolve = {{ servers = [\"{server}\"] }}"
        );
        let Site { setup, a, b } = Site::new(origin, &peers);
        let setup = setup
            .file("ca.pem", authority.pem())
            .file("other.pem", other.pem());
        Site { setup, a, b }
    };
    let good = site("ca = \"ca.pem\"");
    registry.list("", &json(&[&good.a]));
    let proxy = good.setup.start();
    assert_eq!(served_by(&proxy), names(&["a"]));
    let head = registry.last();
    assert!(
        head.starts_with("GET / HTTP/1.1\r\nhost: registry.test:"),
        "{head}"
    );
    assert!(head.contains("authorization: bearer 123\r\n"), "{head}");

    let stranger = site("ca = \"other.pem\"").setup;
    stranger.check().expect_error("cannot be fetched: ");
    let elsewhere = site("ca = \"ca.pem\", server_name = \"other.test\"").setup;
    elsewhere.check().expect_error("certificate");
    let trusting = site("verify = false").setup;
    let told = trusting.check().outcome;
    assert!(
        told.stdout.contains("list: https://registry.test:"),
        "{}",
        told.stdout
    );
    told.expect_success();
}

#[test]
fn requests_are_bound_to_peers_of_a_list_by_their_routes() {
    let registry = Registry::default();
    let keys = format!("{QUICK}\nsticky = {{ route = \"$arg_to\" }}");
    let Site { setup, a, b } = Site::new(registry.origin(), &keys);
    let peer = |address: &str, route: &str| {
        format!("{{ \"address\": \"{address}\", \"route\": \"{route}\" }}")
    };
    let list = format!("{{ \"peers\": [{}, {}] }}", peer(&a, "ra"), peer(&b, "rb"));
    registry.list("", &list);
    let proxy = setup.start();
    for (route, name) in [("ra", "a"), ("rb", "b")] {
        let served = proxy.tally(&format!("/?to={route}"), 6);
        assert_eq!(served.into_keys().collect::<Vec<_>>(), [name]);
    }
}

#[test]
fn a_start_without_a_list_is_refused_but_where_the_config_says() {
    let registry = Registry::default();
    registry.answer("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let refused = Site::new(registry.origin(), QUICK).setup;
    refused.check().expect_error("cannot be fetched: ");
    let patient = format!("{QUICK}\nresolve = {{ required = false }}");
    let Site { setup, a, .. } = Site::new(registry.origin(), &patient);
    let proxy = setup.start();
    assert_eq!(proxy.get("/").status, 503);
    registry.list("", &json(&[&a]));
    until("there is a peer", || proxy.get("/").status == 200);
}
