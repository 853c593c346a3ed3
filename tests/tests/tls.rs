//! TLS of listeners: certificates by name, versions, what clients without TLS are told, ends and reloads.

use std::io::{Read, Write};
use std::net::TcpStream;

use castling_tests::tls::{Authority, Pem, TlsClient};
use castling_tests::{DEADLINE, Proxy, Setup, body, origin, until};
use http::Response;
use rustls::HandshakeKind;

const CONFIG: &str = r#"
    [listeners.web]
    bind = "{listen}"
    [listeners.web.tls]
    certificates = [
        { certificate = "one.pem", key = "one.key" },
        { certificate = "two.pem", key = "two.key" },
    ]
    TLS

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
"#;

/// A gateway with certificates for `one.test` and for `two.test` and `*.two.test`.
fn gateway(authority: &Authority, tls: &str) -> Setup {
    let with_pem = |setup: Setup, name: &str, pem: Pem| {
        let setup = setup.file(&format!("{name}.pem"), pem.chain);
        setup.file(&format!("{name}.key"), pem.key)
    };
    let tells = origin::answering(|seen| {
        let scheme = seen.header("x-forwarded-proto").unwrap_or("none");
        Response::new(body::full(format!("{} by {scheme}", seen.target)))
    });
    let setup = Proxy::with_config(&CONFIG.replace("TLS", tls)).origin("app", tells);
    let setup = with_pem(setup, "one", authority.certify(&["one.test"]));
    with_pem(setup, "two", authority.certify(&["two.test", "*.two.test"]))
}

fn request(path: &str, host: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")
}

#[test]
fn requests_over_tls_are_served_one_after_the_other_and_the_end_is_said() {
    let authority = Authority::new("a");
    let proxy = gateway(&authority, "").start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = TlsClient::with_versions(&authority, &[version]).offering(&["http/1.1"]);
        let mut tls = client.connect(proxy.address(), "one.test").unwrap();
        assert_eq!(tls.connection().protocol_version(), Some(version.version));
        assert_eq!(tls.connection().alpn_protocol(), Some(&b"http/1.1"[..]));
        for path in ["/1", "/2", "/3"] {
            tls.send(request(path, "one.test", ""));
            tls.read_until(&format!("\r\n\r\n{path} by https"));
        }
        tls.send(request("/last", "one.test", "Connection: close\r\n"));
        let last = tls.read_to_end().expect("the end is said");
        assert!(last.ends_with("/last by https"), "{last}");
    }
}

#[test]
fn requests_that_come_in_one_record_are_all_answered() {
    let authority = Authority::new("a");
    let proxy = gateway(&authority, "").start();
    let client = TlsClient::new(&authority);
    let mut tls = client.connect(proxy.address(), "one.test").unwrap();
    let three: String = ["/1", "/2", "/3"]
        .map(|path| request(path, "one.test", ""))
        .concat();
    tls.send(three);
    for path in ["/1", "/2", "/3"] {
        tls.read_until(&format!("\r\n\r\n{path} by https"));
    }
}

#[test]
fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let authority = Authority::new("a");
    let proxy = gateway(&authority, "").start();
    let client = TlsClient::new(&authority);
    // The client itself checks that the certificate is for the name.
    for name in ["one.test", "two.test", "any.two.test", "ANY.two.TEST"] {
        client.connect(proxy.address(), name).expect(name);
    }
    for name in ["other.test", "a.b.two.test", "a.one.test"] {
        let error = client.connect(proxy.address(), name).map(drop).unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
}

#[test]
fn a_name_without_a_certificate_can_be_refused() {
    let authority = Authority::new("a");
    let proxy = gateway(&authority, "unknown_name = \"refuse\"").start();
    let client = TlsClient::new(&authority);
    client.connect(proxy.address(), "two.test").expect("known");
    let error = client
        .connect(proxy.address(), "other.test")
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
}

#[test]
fn an_older_version_than_the_least_is_refused() {
    let authority = Authority::new("a");
    let proxy = gateway(&authority, "min_version = \"1.3\"").start();
    let older = TlsClient::with_versions(&authority, &[&rustls::version::TLS12]);
    let error = older
        .connect(proxy.address(), "one.test")
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    let newer = TlsClient::new(&authority);
    newer.connect(proxy.address(), "one.test").expect("TLS 1.3");
}

#[test]
fn http_without_tls_is_told_so() {
    let authority = Authority::new("a");
    let proxy = gateway(&authority, "").start();
    let mut plain = TcpStream::connect(proxy.address()).unwrap();
    plain.set_read_timeout(Some(DEADLINE)).unwrap();
    plain
        .write_all(request("/", "one.test", "").as_bytes())
        .unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("speaks TLS"), "{answer}");
}

#[test]
fn garbage_and_a_hello_that_stops_end_with_an_alert_or_in_time() {
    let authority = Authority::new("a");
    let proxy = gateway(&authority, "handshake_timeout = \"300ms\"").start();
    let said_to = |bytes: &[u8]| {
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.write_all(bytes).unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).unwrap();
        said
    };
    let alert = said_to(&[0xff; 64]);
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
    // The head of a record whose rest never comes, and nothing at all.
    for begun in [&[22, 3, 1, 2, 0, 1, 0][..], &[]] {
        assert_eq!(said_to(begun), b"");
    }
    let client = TlsClient::new(&authority);
    client
        .connect(proxy.address(), "one.test")
        .expect("others are served");
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let authority = Authority::new("a");
    let config = CONFIG.replace("TLS", "");
    let echoes = origin::echoing();
    let one = authority.certify(&["one.test"]);
    let proxy = Proxy::with_config(&config)
        .origin("app", echoes)
        .file("one.pem", &one.chain)
        .file("one.key", &one.key)
        .file("two.pem", &one.chain)
        .file("two.key", &one.key)
        .start();
    let client = TlsClient::new(&authority);
    let mut tls = client.connect(proxy.address(), "one.test").unwrap();
    let body = "0123456789abcdef".repeat(128 << 10);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    tls.send(head + &body);
    let answer = tls.read_to_end().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "));
    let (_, echoed) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        echoed.contains(&body),
        "{} of {} bytes",
        echoed.len(),
        body.len()
    );
}

#[test]
fn a_reload_changes_certificates_and_cuts_no_connection() {
    let authority = Authority::new("a");
    let other = Authority::new("b");
    let proxy = gateway(&authority, "").start();
    let client = TlsClient::new(&authority);
    let mut open = client.connect(proxy.address(), "one.test").unwrap();
    open.send(request("/before", "one.test", ""));
    open.read_until("\r\n\r\n/before by https");
    let renewed = other.certify(&["one.test"]);
    std::fs::write(proxy.path("one.pem"), renewed.chain).unwrap();
    std::fs::write(proxy.path("one.key"), renewed.key).unwrap();
    proxy.reload().expect_success();
    let newcomer = TlsClient::new(&other);
    until("the new certificate is served", || {
        newcomer.connect(proxy.address(), "one.test").is_ok()
    });
    open.send(request("/after", "one.test", ""));
    open.read_until("\r\n\r\n/after by https");
}

/// Asks once on a new connection, and says whether its session was one of before.
fn is_resumed(client: &TlsClient, proxy: &Proxy, placeholder: &str) -> bool {
    let address = proxy.address_of(placeholder);
    let mut tls = client.connect(address, "one.test").expect("a handshake");
    tls.send(request("/x", "one.test", ""));
    // With the response the client has read its tickets.
    tls.read_until("\r\n\r\n/x by https");
    tls.connection().handshake_kind() == Some(HandshakeKind::Resumed)
}

#[test]
fn sessions_are_resumed_by_other_workers_after_reloads_and_after_an_upgrade() {
    let authority = Authority::new("a");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let setup = gateway(&authority, "");
        let mut proxy = setup.start();
        let client = TlsClient::with_versions(&authority, &[version]);
        assert!(!is_resumed(&client, &proxy, "listen"));
        for _ in 0..8 {
            assert!(is_resumed(&client, &proxy, "listen"), "by any worker");
        }
        for _ in 0..5 {
            proxy.reload().expect_success();
            assert!(is_resumed(&client, &proxy, "listen"), "after a reload");
        }
        proxy.upgrade(&[]).expect_success();
        assert!(is_resumed(&client, &proxy, "listen"), "after an upgrade");
    }
}

#[test]
fn a_session_of_another_listener_is_not_resumed() {
    let authority = Authority::new("a");
    let one = authority.certify(&["one.test"]);
    let proxy = Proxy::with_config(
        r#"
        [listeners.a]
        bind = "{listen}"
        tls = { certificates = [{ certificate = "one.pem", key = "one.key" }] }
        [listeners.b]
        bind = "{listen_other}"
        tls = { certificates = [{ certificate = "one.pem", key = "one.key" }] }
        [listeners.c]
        bind = "{listen_without}"
        tls = { certificates = [{ certificate = "one.pem", key = "one.key" }], session_tickets = false }
        [upstreams.app]
        peers = ["{app}"]
        [[routes]]
        upstream = "app"
        "#,
    )
    .origin("app", origin::text("/x by https"))
    .file("one.pem", one.chain)
    .file("one.key", one.key)
    .start();
    let client = TlsClient::new(&authority);
    assert!(!is_resumed(&client, &proxy, "listen"));
    assert!(is_resumed(&client, &proxy, "listen"));
    assert!(!is_resumed(&client, &proxy, "listen_other"));
    let client = TlsClient::new(&authority);
    for _ in 0..3 {
        assert!(!is_resumed(&client, &proxy, "listen_without"));
    }
}

#[test]
fn a_key_that_does_not_fit_and_files_that_are_no_certificates_are_refused_with_their_place() {
    let authority = Authority::new("a");
    let (one, two) = (
        authority.certify(&["one.test"]),
        authority.certify(&["two.test"]),
    );
    let reversed = {
        let end = "-----END CERTIFICATE-----\n";
        let at = one.chain.find(end).map(|at| at + end.len()).unwrap();
        let (own, issuer) = one.chain.split_at(at);
        [issuer, own].concat()
    };
    let refused = |chain: &str, key: &str, error: &str| {
        Proxy::with_config(&CONFIG.replace("TLS", ""))
            .origin("app", origin::text("never"))
            .file("one.pem", chain)
            .file("one.key", key)
            .file("two.pem", &two.chain)
            .file("two.key", &two.key)
            .check()
            .expect_error(error);
    };
    refused(
        &one.chain,
        &two.key,
        ": key: it is not the key of the certificate",
    );
    refused(
        "nothing",
        &one.key,
        ": it has no certificate: expected PEM, BEGIN CERTIFICATE",
    );
    refused(
        &reversed,
        &one.key,
        ": certificate 2 is not the issuer of the one before it",
    );
    refused(&one.chain, "nothing", ": key: ");
}

#[test]
fn suites_and_groups_that_nobody_knows_are_refused_with_their_place() {
    let authority = Authority::new("a");
    for (line, error) in [
        (
            "suites = [\"RC4\"]",
            "castling.toml:3:1: listener web: tls: suites \"RC4\": expected some of TLS_AES_256_GCM_SHA384, ",
        ),
        (
            "groups = [\"P-1\"]",
            "castling.toml:3:1: listener web: tls: groups \"P-1\": expected some of ",
        ),
    ] {
        gateway(&authority, line).check().expect_error(error);
    }
}
