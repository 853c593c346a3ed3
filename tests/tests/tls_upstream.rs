//! TLS to peers: who is believed, what is resumed and kept, ends, and peers that do not speak it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use castling_tests::origin::Origin;
use castling_tests::tls::{Authority, Pem};
use castling_tests::tls_origin::{self, TlsConnection};
use castling_tests::{Proxy, RawClient, Setup, raw_origin, until};
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, HandshakeKind};

const CONFIG: &str = r#"
    [workers]
    count = 1

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]
    connect_timeout = "5s"
    tls = { TLS }

    [[routes]]
    upstream = "app"
"#;

const NAMED: &str = "ca = 'ca.pem', server_name = 'app.test'";

fn gateway(authority: &Authority, tls: &str, origin: Origin) -> Setup {
    Proxy::with_config(&CONFIG.replace("TLS", tls))
        .file("ca.pem", authority.pem())
        .origin("app", origin)
}

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Posts on a connection of the client's own; status and body.
fn posted(proxy: &Proxy, body: &str) -> (u16, String) {
    let reply = proxy.raw().send(post(body)).read_reply();
    (reply.status, reply.text())
}

#[track_caller]
fn refused(proxy: &Proxy, why: &str) {
    let (status, body) = posted(proxy, "secret");
    assert_eq!(status, 502, "{body}");
    assert!(!body.contains("secret"));
    let line = proxy.until_log_has(why);
    assert!(line.contains("upstream app: TLS with 127.0.0.1:"), "{line}");
}

#[test]
fn requests_go_by_tls_of_both_versions_over_kept_connections() {
    let authority = Authority::new("a");
    let pem = authority.certify(&["app.test"]);
    for version in [&TLS12, &TLS13] {
        let (origin, handshakes) = tls_origin::echoing(tls_origin::server(&pem, &[version]));
        let proxy = gateway(&authority, NAMED, origin).start();
        let mut client = proxy.raw();
        for body in ["one", "two", "three"] {
            let reply = client.send(post(body)).read_reply();
            assert_eq!((reply.status, reply.text().as_str()), (200, body));
            assert_eq!(proxy.get("/").status, 200);
        }
        let all = handshakes.all();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].name.as_deref(), Some("app.test"));
        assert!(!all[0].has_certificate);
    }
}

#[test]
fn sessions_are_resumed() {
    let authority = Authority::new("a");
    let pem = authority.certify(&["app.test"]);
    for version in [&TLS12, &TLS13] {
        let (origin, handshakes) = tls_origin::closing(tls_origin::server(&pem, &[version]));
        let proxy = gateway(&authority, NAMED, origin).start();
        for body in ["one", "two", "three", "four"] {
            assert_eq!(posted(&proxy, body), (200, body.to_owned()));
        }
        let kinds = handshakes.kinds();
        assert_eq!(kinds[0], HandshakeKind::Full);
        assert_eq!(kinds[1..], [HandshakeKind::Resumed; 3]);
    }
}

#[test]
fn a_peer_has_the_name_that_the_config_has_for_it() {
    let authority = Authority::new("a");
    let pem = authority.certify(&["127.0.0.1", "localhost"]);
    let (origin, handshakes) = tls_origin::echoing(tls_origin::server(&pem, ALL_VERSIONS));
    let by_name = format!("localhost:{}", origin.address().port());
    let mut proxy = gateway(&authority, "ca = 'ca.pem'", origin).start();
    assert_eq!(posted(&proxy, "x"), (200, "x".to_owned()));
    let config = CONFIG.replace("TLS", "ca = 'ca.pem'");
    proxy
        .reload_with(&config.replace("{app}", &by_name))
        .expect_success();
    until("the other config", || {
        posted(&proxy, "x") == (200, "x".to_owned()) && handshakes.all().len() > 1
    });
    let names: Vec<_> = handshakes.all().into_iter().map(|one| one.name).collect();
    assert_eq!(names, [None, Some("localhost".to_owned())]);
}

#[test]
fn a_peer_with_a_certificate_that_is_not_believed_gets_nothing() {
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let mut expired = Authority::params(&["app.test"]);
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let kind = &rcgen::PKCS_ECDSA_P256_SHA256;
    for (pem, why) in [
        (other.certify(&["app.test"]), "UnknownIssuer"),
        (
            authority.certify(&["other.test"]),
            "certificate not valid for name \"app.test\"",
        ),
        (authority.certify_with(expired, kind), "certificate expired"),
    ] {
        for version in [&TLS12, &TLS13] {
            let start = |tls: &str| {
                let server = tls_origin::server(&pem, &[version]);
                gateway(&authority, tls, tls_origin::echoing(server).0).start()
            };
            refused(&start(NAMED), why);
            let unchecked = start("verify = false");
            assert_eq!(posted(&unchecked, "x"), (200, "x".to_owned()));
        }
    }
}

#[test]
fn a_certificate_that_signs_itself_is_believed_where_it_is_named() {
    let pem = Authority::self_signed(&["app.test"], 2090);
    let expired = Authority::self_signed(&["app.test"], 2020);
    let start = |ca: &Pem, own: &Pem, tls: &str, version| {
        let server = tls_origin::server(own, &[version]);
        Proxy::with_config(&CONFIG.replace("TLS", tls))
            .file("ca.pem", &ca.chain)
            .origin("app", tls_origin::echoing(server).0)
            .start()
    };
    for version in [&TLS12, &TLS13] {
        let proxy = start(&pem, &pem, NAMED, version);
        assert_eq!(posted(&proxy, "x"), (200, "x".to_owned()));
        let other = Authority::self_signed(&["app.test"], 2090);
        refused(
            &start(&pem, &other, NAMED, version),
            "invalid peer certificate",
        );
        refused(
            &start(&expired, &expired, NAMED, version),
            "certificate expired",
        );
        let by_address = start(&pem, &pem, "ca = 'ca.pem'", version);
        refused(&by_address, "certificate not valid for name \"127.0.0.1\"");
    }
}

#[test]
fn check_tells_where_certificates_are_not_checked() {
    let authority = Authority::new("a");
    let setup = |tls: &str| gateway(&authority, tls, raw_origin::stalled()).check();
    let outcome = setup("verify = false").outcome.expect_success();
    let warning = "warning: {dir}/castling.toml:10:7: upstream app: tls: verify = false: whoever";
    let (_, warning) = warning.split_once("{dir}").unwrap();
    assert!(outcome.stdout.contains(warning), "{}", outcome.stdout);
    assert!(outcome.stdout.contains(" by TLS\n"), "{}", outcome.stdout);
    let outcome = setup(NAMED).outcome.expect_success();
    assert!(!outcome.stdout.contains("warning"), "{}", outcome.stdout);
}

#[test]
fn the_systems_authorities_are_believed_where_none_are_named() {
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let tls = "server_name = 'app.test'";
    let start = |by: &Authority| {
        let server = tls_origin::server(&by.certify(&["app.test"]), ALL_VERSIONS);
        gateway(&authority, tls, tls_origin::echoing(server).0)
            .environment("SSL_CERT_FILE", "{dir}/ca.pem")
            .environment("SSL_CERT_DIR", "{dir}/none")
            .start()
    };
    assert_eq!(posted(&start(&authority), "x"), (200, "x".to_owned()));
    refused(&start(&other), "UnknownIssuer");
}

#[test]
fn without_any_authority_nothing_starts() {
    let authority = Authority::new("a");
    gateway(&authority, "server_name = 'a'", raw_origin::stalled())
        .environment("SSL_CERT_FILE", "{dir}/none.pem")
        .environment("SSL_CERT_DIR", "{dir}/none")
        .file("none.pem", "")
        .check()
        .expect_error(
            "castling.toml:10:7: missing key \"ca\": the system has no authorities that it trusts",
        );
}

#[test]
fn the_gateways_own_certificate_is_shown_to_peers_that_ask() {
    let (authority, clients) = (Authority::new("a"), Authority::new("c"));
    let pem = authority.certify(&["app.test"]);
    let own: Pem = clients.certify(&["gateway.test"]);
    for version in [&TLS12, &TLS13] {
        let start = |tls: &str| {
            let server = tls_origin::strict_server(&pem, &[version], &clients);
            let (origin, handshakes) = tls_origin::echoing(server);
            let setup = gateway(&authority, tls, origin)
                .file("own.pem", &own.chain)
                .file("own.key", &own.key);
            (setup.start(), handshakes)
        };
        let with = format!("{NAMED}, certificate = 'own.pem', key = 'own.key'");
        let (proxy, handshakes) = start(&with);
        assert_eq!(posted(&proxy, "x"), (200, "x".to_owned()));
        assert!(handshakes.all()[0].has_certificate);
        let (proxy, _) = start(NAMED);
        assert_eq!(posted(&proxy, "x").0, 502);
        proxy.until_log_has("received fatal alert: CertificateRequired");
    }
}

/// Does something behind the first response of each connection, and tells when it is done.
fn after_response(
    pem: &Pem,
    work: impl Fn(&mut TlsConnection) -> Result<(), String> + Send + Sync + 'static,
) -> (Origin, Arc<AtomicBool>) {
    let done = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&done);
    let server = tls_origin::server(pem, &[&TLS13]);
    let (origin, _) = tls_origin::scripted(server, move |connection, number| {
        loop {
            connection.read_request()?;
            connection.answer("", number.to_string().as_bytes())?;
            work(connection)?;
            tell.store(true, Ordering::SeqCst);
        }
    });
    (origin, done)
}

/// Texts of responses to two requests, the second sent when the origin has done what it does after the first.
fn two(proxy: &Proxy, request: &str, done: &AtomicBool) -> [String; 2] {
    let mut client: RawClient = proxy.raw();
    let first = client.send(request).read_reply().text();
    until("the origin's work", || done.load(Ordering::SeqCst));
    [first, client.send(request).read_reply().text()]
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_message_of_tls_alone_costs_no_kept_connection() {
    let authority = Authority::new("a");
    let pem = authority.certify(&["app.test"]);
    for request in [GET, &post("")] {
        let (origin, done) = after_response(&pem, TlsConnection::send_key_update);
        let proxy = gateway(&authority, NAMED, origin).start();
        assert_eq!(two(&proxy, request, &done), ["0", "0"]);
    }
}

#[test]
fn a_kept_connection_that_was_ended_or_has_a_response_too_many_is_not_used() {
    let authority = Authority::new("a");
    let pem = authority.certify(&["app.test"]);
    for request in [GET, &post("")] {
        let (origin, done) = after_response(&pem, TlsConnection::close);
        let proxy = gateway(&authority, NAMED, origin).start();
        assert_eq!(two(&proxy, request, &done), ["0", "1"]);

        let stray = |connection: &mut TlsConnection| connection.answer("", b"evil");
        let (origin, done) = after_response(&pem, stray);
        let proxy = gateway(&authority, NAMED, origin).start();
        assert_eq!(two(&proxy, request, &done), ["0", "1"]);
        proxy.until_log_has("sent bytes that nobody had asked for");
    }
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let authority = Authority::new("a");
    let pem = authority.certify(&["app.test"]);
    let (origin, _) = tls_origin::echoing(tls_origin::server(&pem, ALL_VERSIONS));
    let proxy = gateway(&authority, NAMED, origin).start();
    let body = "0123456789abcdef".repeat(128 << 10);
    for _ in 0..3 {
        let (status, echoed) = posted(&proxy, &body);
        assert_eq!(status, 200);
        assert!(echoed == body, "{} of {} bytes", echoed.len(), body.len());
    }
}

#[test]
fn a_body_that_ends_with_its_connection_ends_with_a_close_notify() {
    let authority = Authority::new("a");
    let pem = authority.certify(&["app.test"]);
    for version in [&TLS12, &TLS13] {
        for says_so in [true, false] {
            let server = tls_origin::server(&pem, &[version]);
            let (origin, _) = tls_origin::scripted(server, move |connection, _| {
                connection.read_request()?;
                connection.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody")?;
                match says_so {
                    true => connection.close(),
                    false => Ok(()),
                }
            });
            let proxy = gateway(&authority, NAMED, origin).start();
            let reply = proxy.raw().send(GET).try_read_reply();
            match says_so {
                true => assert_eq!(reply.unwrap().text(), "body"),
                false => {
                    reply.expect_err("a response that is cut");
                    proxy.until_log_has("TLS has not said so (close_notify)");
                }
            }
        }
    }
}

#[test]
fn what_a_peer_sends_before_tls_is_no_response() {
    let authority = Authority::new("a");
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    // A record of data in the place of the server's hello.
    let mut record = vec![23, 3, 3, 0, evil.len() as u8];
    record.extend_from_slice(evil.as_bytes());
    for (bytes, why) in [
        (evil.as_bytes().to_vec(), "it does not speak TLS"),
        (record, "received unexpected message"),
    ] {
        let origin = raw_origin::scripted(move |connection, _| {
            // With the hello in its way or not.
            let _gone = connection.socket().write_all(&bytes);
            connection.read_to_end().map(drop)
        });
        refused(&gateway(&authority, NAMED, origin).start(), why);
    }
}

#[test]
fn a_peer_without_tls_is_passed_over_for_the_next() {
    let authority = Authority::new("a");
    let pem = authority.certify(&["app.test"]);
    let (origin, _) = tls_origin::echoing(tls_origin::server(&pem, ALL_VERSIONS));
    let plain = raw_origin::scripted(|connection, _| {
        connection.send("220 mail.test ESMTP\r\n");
        connection.read_to_end().map(drop)
    });
    let config = CONFIG.replace("TLS", NAMED);
    let proxy = Proxy::with_config(&config.replace("\"{app}\"", "\"{plain}\", \"{app}\""))
        .file("ca.pem", authority.pem())
        .origin("app", origin)
        .origin("plain", plain)
        .start();
    for _ in 0..4 {
        assert_eq!(posted(&proxy, "x"), (200, "x".to_owned()));
    }
}

#[test]
fn a_handshake_that_stalls_ends_in_time() {
    let authority = Authority::new("a");
    let origin = raw_origin::scripted(|connection, _| connection.read_to_end().map(drop));
    let config = CONFIG.replace("TLS", NAMED);
    let proxy = Proxy::with_config(&config.replace("\"5s\"", "\"300ms\""))
        .file("ca.pem", authority.pem())
        .origin("app", origin)
        .start();
    assert_eq!(posted(&proxy, "x").0, 504);
    proxy.until_log_has("the handshake is not over 300ms after the connection was begun");
}

#[test]
fn a_reload_changes_the_authorities() {
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let pem = other.certify(&["app.test"]);
    let (origin, _) = tls_origin::echoing(tls_origin::server(&pem, ALL_VERSIONS));
    let proxy = gateway(&authority, NAMED, origin).start();
    refused(&proxy, "UnknownIssuer");
    std::fs::write(proxy.path("ca.pem"), other.pem()).unwrap();
    proxy.reload().expect_success();
    until("the other authority", || posted(&proxy, "x").0 == 200);
}

#[test]
fn a_certificate_that_was_revoked_is_refused() {
    let authority = Authority::new("a");
    let mut params = Authority::params(&["app.test"]);
    params.serial_number = Some(7_u64.into());
    let pem = authority.certify_with(params, &rcgen::PKCS_ECDSA_P256_SHA256);
    let list = |revoked: &[u64], until: i32| authority.revoke(revoked, (2024, until));
    let start = |list: String| {
        let (origin, _) = tls_origin::echoing(tls_origin::server(&pem, ALL_VERSIONS));
        let tls = format!("{NAMED}, crl = 'ca.crl'");
        gateway(&authority, &tls, origin)
            .file("ca.crl", list)
            .start()
    };
    refused(&start(list(&[7], 2090)), "Revoked");
    refused(&start(list(&[8], 2025)), "revocation list expired");
    let good = start(list(&[8], 2090));
    assert_eq!(posted(&good, "x"), (200, "x".to_owned()));
}
