//! Certificates of clients: who is let in, what others are told, and whose sessions are resumed.

use castling_tests::tls::{Authority, Pem, TlsClient};
use castling_tests::{Proxy, Setup, frames, origin, until};
use rustls::{HandshakeKind, SupportedProtocolVersion, version};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

const YEARS: (i32, i32) = (2020, 2050);

const CONFIG: &str = r#"
    [listeners.web]
    bind = "{listen}"
    [listeners.web.tls]
    certificates = [{ certificate = "site.pem", key = "site.key" }]
    CLIENTS

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
"#;

/// A gateway for `site.test`, with the authority of its clients in `ca.pem`.
fn gateway(site: &Authority, clients: &Authority, settings: &str) -> Setup {
    let pem = site.certify(&["site.test"]);
    Proxy::with_config(&CONFIG.replace("CLIENTS", settings))
        .origin("app", origin::text("served"))
        .file("site.pem", pem.chain)
        .file("site.key", pem.key)
        .file("ca.pem", clients.pem())
}

fn client(site: &Authority, version: &'static SupportedProtocolVersion) -> TlsClient {
    TlsClient::with_versions(site, &[version])
}

/// Asks once on a new connection, and says whether its session was one of before. In TLS 1.3 a client learns only then what the
/// server thinks of its certificate.
fn ask(client: &TlsClient, proxy: &Proxy) -> Result<bool, String> {
    ask_at(client, proxy, "listen")
}

fn ask_at(client: &TlsClient, proxy: &Proxy, placeholder: &str) -> Result<bool, String> {
    let address = proxy.address_of(placeholder);
    let told = |error: std::io::Error| error.to_string();
    let mut tls = client.connect(address, "site.test").map_err(told)?;
    let request = "GET / HTTP/1.1\r\nHost: site.test\r\n\r\n";
    tls.ask(request, "\r\n\r\nserved").map_err(told)?;
    Ok(tls.connection().handshake_kind() == Some(HandshakeKind::Resumed))
}

#[track_caller]
fn refused(client: &TlsClient, proxy: &Proxy, alert: &str) {
    let error = ask(client, proxy).unwrap_err();
    assert!(
        error.ends_with(&format!("received fatal alert: {alert}")),
        "{error}"
    );
}

#[test]
fn a_client_without_a_good_certificate_is_told_by_its_alert() {
    let [site, clients, others] = ["site", "clients", "others"].map(Authority::new);
    let settings = "client_certificates = { ca = \"ca.pem\" }";
    let proxy = gateway(&site, &clients, settings).start();
    let certified = |by: &Authority, years| by.certify_client("ada", 7, years);
    for version in VERSIONS {
        let with = |pem: &Pem| client(&site, version).with_certificate(pem);
        let good = certified(&clients, YEARS);
        assert_eq!(ask(&with(&good), &proxy), Ok(false));
        refused(&client(&site, version), &proxy, "CertificateRequired");
        refused(&with(&certified(&others, YEARS)), &proxy, "UnknownCA");
        let expired = certified(&clients, (2020, 2021));
        refused(&with(&expired), &proxy, "CertificateExpired");
        let mut for_servers = rcgen::CertificateParams::default();
        for_servers.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let for_servers = clients.sign(for_servers);
        refused(&with(&for_servers), &proxy, "UnsupportedCertificate");
    }
}

#[test]
fn a_certificate_may_be_optional_and_must_be_good_then_too() {
    let [site, clients, others] = ["site", "clients", "others"].map(Authority::new);
    let settings = "client_certificates = { verify = \"optional\", ca = [\"ca.pem\"] }";
    let proxy = gateway(&site, &clients, settings).start();
    for version in VERSIONS {
        assert_eq!(ask(&client(&site, version), &proxy), Ok(false));
        let good = clients.certify_client("ada", 7, YEARS);
        let with_good = client(&site, version).with_certificate(&good);
        assert_eq!(ask(&with_good, &proxy), Ok(false));
        let stranger = others.certify_client("ada", 7, YEARS);
        let with_strange = client(&site, version).with_certificate(&stranger);
        refused(&with_strange, &proxy, "UnknownCA");
    }
}

#[test]
fn a_revoked_certificate_is_refused_and_so_are_all_once_nobody_renews_the_list() {
    let [site, clients] = ["site", "clients"].map(Authority::new);
    let settings = "client_certificates = { ca = \"ca.pem\", crl = \"list.pem\" }";
    let proxy = gateway(&site, &clients, settings)
        .file("list.pem", clients.revoke(&[8, 9], YEARS))
        .start();
    let with = |serial| {
        let pem = clients.certify_client("ada", serial, YEARS);
        client(&site, &version::TLS13).with_certificate(&pem)
    };
    assert_eq!(ask(&with(7), &proxy), Ok(false));
    refused(&with(8), &proxy, "CertificateRevoked");
    refused(&with(9), &proxy, "CertificateRevoked");
    let outdated = clients.revoke(&[8, 9], (2020, 2021));
    std::fs::write(proxy.path("list.pem"), outdated).unwrap();
    proxy.reload().expect_success();
    until("the new list counts", || ask(&with(7), &proxy).is_err());
    refused(&with(7), &proxy, "UnknownCA");
}

/// A reload answers when its workers serve; those before them may still accept for a moment.
fn until_not_resumed(client: &TlsClient, proxy: &Proxy) {
    until("no session of before is resumed", || {
        ask(client, proxy) != Ok(true)
    });
}

fn reload(proxy: &mut Proxy, settings: &str) {
    let config = CONFIG.replace("CLIENTS", settings);
    proxy.reload_with(&config).expect_success();
}

#[test]
fn a_session_is_resumed_only_as_it_was_verified() {
    let [site, clients, others] = ["site", "clients", "others"].map(Authority::new);
    for version in VERSIONS {
        let pem = clients.certify_client("ada", 7, YEARS);
        let mut proxy = gateway(&site, &clients, "")
            .file("both.pem", clients.pem() + &others.pem())
            .file("list.pem", clients.revoke(&[8], YEARS))
            .file("other_list.pem", clients.revoke(&[7], YEARS))
            .start();
        // Each pair of these, one after the other.
        let settings = [
            "",
            "client_certificates = { verify = \"optional\", ca = \"ca.pem\" }",
            "client_certificates = { ca = \"ca.pem\" }",
            "client_certificates = { ca = \"both.pem\" }",
            "client_certificates = { ca = \"ca.pem\", crl = \"list.pem\" }",
        ];
        for before in settings {
            for after in settings.iter().filter(|after| **after != before) {
                reload(&mut proxy, before);
                let client = client(&site, version).with_certificate(&pem);
                until_not_resumed(&client, &proxy);
                until("sessions are resumed", || ask(&client, &proxy) == Ok(true));
                reload(&mut proxy, after);
                until_not_resumed(&client, &proxy);
                until("sessions are resumed", || ask(&client, &proxy) == Ok(true));
            }
        }
        // Without a certificate, and with one that was revoked.
        reload(&mut proxy, "");
        let without = client(&site, version);
        until("sessions are resumed", || ask(&without, &proxy) == Ok(true));
        reload(&mut proxy, settings[4]);
        until("one is required", || ask(&without, &proxy).is_err());
        refused(&without, &proxy, "CertificateRequired");
        let with = client(&site, version).with_certificate(&pem);
        until("sessions are resumed", || ask(&with, &proxy) == Ok(true));
        reload(
            &mut proxy,
            "client_certificates = { ca = \"ca.pem\", crl = \"other_list.pem\" }",
        );
        until("it is revoked", || ask(&with, &proxy).is_err());
        refused(&with, &proxy, "CertificateRevoked");
    }
}

#[test]
fn a_session_of_a_listener_that_asks_nobody_is_not_resumed_where_one_is_required() {
    let [site, clients] = ["site", "clients"].map(Authority::new);
    let open = r#"
        [listeners.open]
        bind = "{listen_open}"
        [listeners.open.tls]
        certificates = [{ certificate = "site.pem", key = "site.key" }]
    "#;
    let pem = site.certify(&["site.test"]);
    let config = CONFIG.replace("CLIENTS", "client_certificates = { ca = \"ca.pem\" }") + open;
    let proxy = Proxy::with_config(&config)
        .origin("app", origin::text("served"))
        .file("site.pem", pem.chain)
        .file("site.key", pem.key)
        .file("ca.pem", clients.pem())
        .start();
    for version in VERSIONS {
        let without = client(&site, version);
        assert_eq!(ask_at(&without, &proxy, "listen_open"), Ok(false));
        assert_eq!(ask_at(&without, &proxy, "listen_open"), Ok(true));
        refused(&without, &proxy, "CertificateRequired");
    }
}

#[test]
fn files_that_verify_nobody_are_refused_with_their_place() {
    let [site, clients] = ["site", "clients"].map(Authority::new);
    let own = clients.certify_client("ada", 7, YEARS).chain;
    let own = own
        .split_inclusive("-----END CERTIFICATE-----\n")
        .next()
        .unwrap()
        .to_owned();
    let place = "castling.toml:5:";
    let cases = [
        (
            "ca = \"leaf.pem\"",
            "30: ca: certificate 1 is no authority's (CN=ada)",
        ),
        ("ca = \"empty.pem\"", "30: ca: "),
        ("ca = \"nowhere.pem\"", "30: ca: "),
        (
            "ca = []",
            "30: ca a list: expected a PEM file or a list of them",
        ),
        ("ca = \"ca.pem\", crl = \"ca.pem\"", "46: crl: "),
        (
            "ca = \"ca.pem\", crl = \"bad.pem\"",
            "46: crl: list 1 cannot be read: ",
        ),
        (
            "verify = \"optional\"",
            "23: missing key \"ca\": expected a PEM file or a list of them",
        ),
        (
            "verify = \"yes\", ca = \"ca.pem\"",
            "34: verify \"yes\": expected \"required\", \"optional\" or \"off\"",
        ),
        ("ca = \"ca.pem\", depth = 2", "40: unknown key \"depth\": "),
    ];
    for (settings, error) in cases {
        let settings = format!("client_certificates = {{ {settings} }}");
        gateway(&site, &clients, &settings)
            .file("leaf.pem", &own)
            .file("empty.pem", "nothing")
            .file(
                "bad.pem",
                "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n",
            )
            .check()
            .expect_error(&format!("{place}{error}"));
    }
    // Files of what is off may be missing.
    let off = "client_certificates = { verify = \"off\", ca = \"nowhere.pem\" }";
    gateway(&site, &clients, off)
        .check()
        .outcome
        .expect_success();
}

const HOSTS: &str = r#"
    [listeners.web]
    bind = "{listen}"
    [listeners.web.tls]
    certificates = [{ certificate = "site.pem", key = "site.key" }]
    [[listeners.web.tls.hosts]]
    names = ["admin.test", "*.admin.test"]
    client_certificates = { ca = "ca.pem" }
    [[listeners.web.tls.hosts]]
    names = ["mixed.test"]
    client_certificates = { verify = "optional", ca = "ca.pem" }
    [[listeners.web.tls.hosts]]
    names = ["modern.test"]
    min_version = "1.3"
    [listeners.plain]
    bind = "{listen_plain}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
    [[routes]]
    path = "/secret"
    client_certificate = "required"
    upstream = "app"
"#;

fn hosts_gateway(site: &Authority, clients: &Authority) -> Proxy {
    let names = [
        "site.test",
        "admin.test",
        "*.admin.test",
        "mixed.test",
        "modern.test",
    ];
    let pem = site.certify(&names);
    Proxy::with_config(HOSTS)
        .origin("app", origin::text("served"))
        .file("site.pem", pem.chain)
        .file("site.key", pem.key)
        .file("ca.pem", clients.pem())
        .start()
}

/// Status of the answer to a request for this path of this host, on a connection made for that name.
fn status(
    client: &TlsClient,
    proxy: &Proxy,
    name: &str,
    host: &str,
    path: &str,
) -> Result<String, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut tls = client.connect(proxy.address(), name).map_err(told)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let head = tls.ask(request, "\r\n").map_err(told)?;
    Ok(head.split(' ').nth(1).unwrap_or_default().to_owned())
}

#[test]
fn each_server_has_its_policy_and_a_request_for_another_is_misdirected() {
    let [site, clients] = ["site", "clients"].map(Authority::new);
    let proxy = hosts_gateway(&site, &clients);
    let without = TlsClient::new(&site);
    let with = TlsClient::new(&site).with_certificate(&clients.certify_client("ada", 7, YEARS));
    let is_status = |result: Result<String, String>, expected: &str| {
        assert_eq!(result.as_deref(), Ok(expected));
    };
    let at = |client: &TlsClient, name: &str, host: &str| status(client, &proxy, name, host, "/");
    for (client, name, host, expected) in [
        (&without, "site.test", "site.test", "200"),
        (&without, "site.test", "SITE.test:443", "200"),
        (&without, "site.test", "modern.test", "200"),
        (&without, "modern.test", "site.test", "200"),
        (&without, "site.test", "unknown.test", "200"),
        // Another Host does not lead to a server that asks for certificates.
        (&without, "site.test", "admin.test", "421"),
        (&without, "site.test", "ADMIN.test.:443", "421"),
        (&without, "site.test", "x.admin.test", "421"),
        (&without, "site.test", "mixed.test", "421"),
        (&without, "mixed.test", "admin.test", "421"),
        (&without, "mixed.test", "mixed.test", "200"),
        (&with, "admin.test", "admin.test", "200"),
        (&with, "admin.test", "x.admin.test", "200"),
        (&with, "x.admin.test", "admin.test", "200"),
        (&with, "admin.test", "site.test", "421"),
        (&with, "mixed.test", "admin.test", "421"),
    ] {
        is_status(at(client, name, host), expected);
    }
    for name in ["admin.test", "x.admin.test"] {
        let error = at(&without, name, name).unwrap_err();
        assert!(error.ends_with("CertificateRequired"), "{error}");
    }
    let older = client(&site, &version::TLS12);
    is_status(at(&older, "site.test", "site.test"), "200");
    let error = at(&older, "modern.test", "modern.test").unwrap_err();
    assert!(error.contains("ProtocolVersion"), "{error}");
}

#[test]
fn streams_of_one_connection_are_misdirected_each_for_itself() {
    let [site, clients] = ["site", "clients"].map(Authority::new);
    let proxy = hosts_gateway(&site, &clients);
    let client = TlsClient::new(&site).offering(&["h2"]);
    let mut tls = client.connect(proxy.address(), "site.test").unwrap();
    tls.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    tls.send(frames::frame(frames::SETTINGS, 0, 0, &[]));
    let asked = [
        ("site.test", "/", "served"),
        ("admin.test", "/", "421 Misdirected Request\n"),
        ("modern.test", "/", "served"),
        ("site.test", "/secret", "403 Forbidden\n"),
    ];
    for ((host, path, _), stream) in asked.iter().zip((1..).step_by(2)) {
        let head = frames::block(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", host),
            (":path", path),
        ]);
        let flags = frames::END_STREAM | frames::END_HEADERS;
        tls.send(frames::frame(frames::HEADERS, flags, stream, &head));
    }
    let mut bodies: [Vec<u8>; 4] = Default::default();
    let mut left = bodies.len();
    while left > 0 {
        let head = tls.read_exact::<9>();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload: Vec<u8> = (0..length).map(|_| tls.read_exact::<1>()[0]).collect();
        if head[3] == frames::DATA {
            let stream = usize::from(head[8]);
            bodies[stream / 2].extend_from_slice(&payload);
            left -= usize::from(head[4] & frames::END_STREAM);
        }
    }
    for ((host, path, expected), body) in asked.iter().zip(bodies) {
        assert_eq!(String::from_utf8(body).unwrap(), *expected, "{host}{path}");
    }
}

#[test]
fn a_route_can_require_a_certificate() {
    let [site, clients] = ["site", "clients"].map(Authority::new);
    let proxy = hosts_gateway(&site, &clients);
    let without = TlsClient::new(&site);
    let with = TlsClient::new(&site).with_certificate(&clients.certify_client("ada", 7, YEARS));
    for (client, name, path, expected) in [
        (&without, "mixed.test", "/", "200"),
        (&without, "mixed.test", "/secret", "403"),
        (&without, "site.test", "/secret/x", "403"),
        (&with, "mixed.test", "/secret", "200"),
        (&with, "admin.test", "/secret", "200"),
        // A client shows its certificate only where it is asked.
        (&with, "site.test", "/secret", "403"),
    ] {
        let status = status(client, &proxy, name, name, path);
        assert_eq!(status.as_deref(), Ok(expected), "{name} {path}");
    }
    let plain = plain_get(&proxy, "/secret");
    assert!(plain.starts_with("HTTP/1.1 403 "), "{plain}");
    assert!(plain_get(&proxy, "/").starts_with("HTTP/1.1 200 "));
}

fn plain_get(proxy: &Proxy, path: &str) -> String {
    use std::io::{Read, Write};
    let mut plain = std::net::TcpStream::connect(proxy.address_of("listen_plain")).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    plain.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn policies_that_nobody_can_meet_are_refused_with_their_place() {
    let [site, clients] = ["site", "clients"].map(Authority::new);
    let cases = [
        (
            "hosts = [{ names = [\"a.test\"] }, { names = [\"b.test\", \"a.test\"] }]",
            "5:44: names: a.test is in `hosts` twice: expected each name once",
        ),
        (
            "hosts = [{ names = [] }]",
            "5:20: names a list: expected a list such as ",
        ),
        (
            "hosts = [{ min_version = \"1.3\" }]",
            "5:10: missing key \"names\": expected a list such as ",
        ),
        (
            "[[routes]]\npath = \"/x\"\nupstream = \"app\"\nclient_certificate = \"required\"",
            "5:5: route /x: client_certificate \"required\": expected a listener of the route with `tls.client_certificates`",
        ),
    ];
    for (settings, error) in cases {
        gateway(&site, &clients, settings)
            .check()
            .expect_error(&format!("castling.toml:{error}"));
    }
}
