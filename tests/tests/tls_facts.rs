//! Facts that TLS knows of a connection, in plugins, templates and the access log.

use castling_tests::tls::{Authority, TlsClient};
use castling_tests::{Proxy, Setup, body, origin};
use http::Response;
use rcgen::{CertificateParams, DnType, SanType};
use rustls::version;

const CONFIG: &str = r#"
    [access_log]
    file = "{dir}/access.log"
    flush = "10ms"
    format = "$path $tls_version $tls_cipher $tls_server_name $tls_alpn $tls_resumed $tls_client_verify $tls_client_subject"

    [plugins.teller]
    wasm = "{guests}/teller.wasm"
    grants = { own_routes = true }
    [plugins.headers]
    wasm = "{plugins}/headers.wasm"
    config.request.set = { x-client = "$tls_client_subject", client-cert = "$tls_client_certificate", x-tls = "$tls_version" }

    [listeners.plain]
    bind = "{listen}"
    [listeners.secure]
    bind = "{listen_secure}"
    [listeners.secure.tls]
    certificates = [{ certificate = "site.pem", key = "site.key" }]
    client_certificates = { verify = "optional", ca = "ca.pem" }

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["teller"]
    [[routes]]
    path = "/app"
    plugins = ["headers"]
    upstream = "app"
"#;

fn gateway(site: &Authority, clients: &Authority) -> Setup {
    let pem = site.certify(&["site.test"]);
    let tells = origin::answering(|seen| {
        let told =
            ["x-tls", "x-client", "client-cert"].map(|name| seen.header(name).unwrap_or("-"));
        Response::new(body::full(format!("{}.", told.join("|"))))
    });
    Proxy::with_config(CONFIG)
        .origin("app", tells)
        .file("site.pem", pem.chain)
        .file("site.key", pem.key)
        .file("ca.pem", clients.pem())
}

/// The body of the answer to a request on a connection of its own.
fn ask(client: &TlsClient, proxy: &Proxy, path: &str, fields: &str) -> String {
    let address = proxy.address_of("listen_secure");
    let mut tls = client.connect(address, "SITE.test").expect("a handshake");
    tls.send(format!(
        "GET {path} HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n{fields}\r\n"
    ));
    let answer = tls.read_to_end().expect("an end");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    body.to_owned()
}

#[test]
fn plugins_and_the_access_log_know_version_suite_names_and_resumption() {
    let [site, clients] = ["site", "clients"].map(Authority::new);
    let proxy = gateway(&site, &clients).start();
    let client = TlsClient::with_versions(&site, &[&version::TLS13]).offering(&["http/1.1"]);
    let first = ask(&client, &proxy, "/", "");
    let told = |resumed: bool| {
        format!(
            "version TLSv1.3\ncipher TLS_AES_256_GCM_SHA384\ngroup Some(\"X25519\")\n\
            server name Some(\"site.test\")\nalpn Some(\"http/1.1\")\nresumed {resumed}, early false"
        )
    };
    assert!(first.contains(&told(false)), "{first}");
    let second = ask(&client, &proxy, "/ask", "");
    assert!(second.contains(&told(true)), "by a sub-request: {second}");
    let older = TlsClient::with_versions(&site, &[&version::TLS12]);
    assert!(ask(&older, &proxy, "/old", "").contains("version TLSv1.2\n"));
    assert_eq!(proxy.get("/plain").text(), "plain");
    // Two workers write, each in its time.
    let mut lines = proxy.until_access_lines(4);
    lines.sort();
    let rest = "TLS_AES_256_GCM_SHA384 site.test http/1.1";
    let old = "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 site.test - no NONE -";
    let expected = [
        format!("/ TLSv1.3 {rest} no NONE -"),
        format!("/ask TLSv1.3 {rest} yes NONE -"),
        format!("/old {old}"),
        "/plain - - - - - - -".to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_clients_certificate_is_told_also_when_its_session_is_resumed() {
    let [site, clients] = ["site", "clients"].map(Authority::new);
    let proxy = gateway(&site, &clients).start();
    let mut params = CertificateParams::default();
    let name = &mut params.distinguished_name;
    name.push(DnType::OrganizationName, "Math, Inc.");
    name.push(DnType::CommonName, "ada");
    params.serial_number = Some(0x0123_45ab_u64.into());
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2050, 1, 1);
    params.subject_alt_names = vec![
        SanType::DnsName("ada.test".try_into().unwrap()),
        SanType::DnsName("*.ada.test".try_into().unwrap()),
        SanType::IpAddress("192.0.2.1".parse().unwrap()),
        SanType::IpAddress("2001:db8::1".parse().unwrap()),
        SanType::URI("spiffe://test/ada,1".try_into().unwrap()),
        SanType::Rfc822Name("ada@ada.test".try_into().unwrap()),
    ];
    let pem = clients.sign(params);
    let own_len = pem.chain.find("-----END").unwrap() + "-----END CERTIFICATE-----".len();
    let own = pem.chain[..own_len].replace("\r\n", "\n");
    let encoded: String = own.lines().filter(|line| !line.starts_with('-')).collect();
    for version in [&version::TLS12, &version::TLS13] {
        let client = TlsClient::with_versions(&site, &[version]).with_certificate(&pem);
        for is_resumed in [false, true] {
            let told = ask(&client, &proxy, "/", "");
            for line in [
                &format!("resumed {is_resumed}"),
                "subject O=Math\\, Inc.,CN=ada\n",
                "issuer CN=clients",
                "serial 012345AB\n",
                "good from 1577836800 to 2524608000\n",
                "dns [\"ada.test\", \"*.ada.test\"]\n",
                "ip [\"192.0.2.1\", \"2001:db8::1\"]\n",
                "uri [\"spiffe://test/ada,1\"]\n",
                "email [\"ada@ada.test\"]\n",
                &own,
            ] {
                assert!(told.contains(line), "{line}: {told}");
            }
        }
    }
    let client = TlsClient::new(&site).with_certificate(&pem);
    let told = ask(&client, &proxy, "/app", "x-client: CN=root\r\n");
    assert!(
        told.contains(&format!("TLSv1.3|O=Math\\, Inc.,CN=ada|:{encoded}:.")),
        "{told}"
    );
    // Claims of a client without a certificate go no further.
    let without = TlsClient::new(&site);
    let told = ask(
        &without,
        &proxy,
        "/app",
        "x-client: CN=root\r\nclient-cert: :eA==:\r\n",
    );
    assert!(told.contains("TLSv1.3|-|-."), "{told}");
}
