//! PROXY headers in front of connections: whose they are, who may say so, and what peers are told.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use castling_tests::tls::{Authority, TlsClient};
use castling_tests::{DEADLINE, Proxy, RawClient, Setup, body, origin, raw_origin, tls_origin};
use http::Response;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [access_log]
    file = "{dir}/access.log"
    flush = "0s"
    format = "$client_address $client_port"

    [listeners.web]
    bind = "{listen}"
    SETTINGS

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
"#;

fn gateway(settings: &str) -> Setup {
    let tells = origin::answering(|seen| {
        let from = seen.header("x-forwarded-for").unwrap_or("nobody");
        Response::new(body::full(format!("for {from}")))
    });
    Proxy::with_config(&CONFIG.replace("SETTINGS", settings)).origin("app", tells)
}

const FROM_US: &str = r#"proxy_protocol = { from = ["127.0.0.1"] }"#;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n";

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend((block.len() as u16).to_be_bytes());
    header.extend(block);
    header
}

/// Addresses of 192.0.2.7:50000 and 198.51.100.1:443.
const IPV4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 195, 80, 1, 187];

fn told(client: &mut RawClient) -> String {
    client.read_reply().text()
}

#[test]
fn the_client_is_whom_the_header_names() {
    let proxy = gateway(FROM_US).start();
    let mut ipv6 = [0; 36];
    (ipv6[0], ipv6[1], ipv6[15], ipv6[33]) = (0x20, 0x01, 7, 9);
    for (header, client) in [
        (V1.to_vec(), "192.0.2.7"),
        (v2(0x21, 0x11, &IPV4), "192.0.2.7"),
        (
            v2(0x21, 0x11, &[&IPV4[..], &[4, 0, 1, 0]].concat()),
            "192.0.2.7",
        ),
        (v2(0x21, 0x21, &ipv6), "2001::7"),
    ] {
        // Together with a request, and the next one on the same connection.
        let mut connection = proxy.raw();
        connection.send([&header[..], GET].concat());
        assert_eq!(told(&mut connection), format!("for {client}"));
        assert_eq!(told(connection.send(GET)), format!("for {client}"));
    }
    let lines = proxy.until_access_lines(8);
    assert_eq!(lines[0], "192.0.2.7 50000");
    assert_eq!(lines[7], "2001::7 9");
}

#[test]
fn a_header_comes_in_any_pieces() {
    let proxy = gateway(FROM_US).start();
    for header in [V1.to_vec(), v2(0x21, 0x11, &IPV4)] {
        let mut connection = proxy.raw();
        for byte in header.iter().chain(GET) {
            connection.send([*byte]);
        }
        assert_eq!(told(&mut connection), "for 192.0.2.7");
    }
    // More fields than are looked at at a time.
    let mut block = IPV4.to_vec();
    block.extend([4, 0x20, 0]);
    block.resize(12 + 3 + 0x2000, 7);
    let mut connection = proxy.raw();
    connection.send([&v2(0x21, 0x11, &block)[..], GET].concat());
    assert_eq!(told(&mut connection), "for 192.0.2.7");
}

#[test]
fn a_proxys_own_connection_has_its_own_address_whatever_its_header_says() {
    let proxy = gateway(FROM_US).start();
    for header in [
        v2(0x20, 0x11, &IPV4),
        v2(0x20, 0x00, &[]),
        v2(0x21, 0x00, &[1, 2, 3]),
        v2(0x21, 0x12, &IPV4),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.7 198.51.100.1 1 2\r\n".to_vec(),
    ] {
        let mut connection = proxy.raw();
        connection.send([&header[..], GET].concat());
        assert_eq!(told(&mut connection), "for 127.0.0.1");
    }
}

#[track_caller]
fn closed_without_a_word(proxy: &Proxy, bytes: &[u8]) {
    let mut connection = proxy.raw();
    connection.send(bytes);
    connection.expect_close();
}

#[test]
fn a_proxy_without_a_good_header_is_refused() {
    let debug = format!("{FROM_US}\n    [log]\n    level = \"debug\"\n");
    let proxy = gateway(&debug).start();
    let mut wrong_sum = IPV4.to_vec();
    wrong_sum.extend([3, 0, 4, 1, 2, 3, 4]);
    for (bytes, why) in [
        (GET.to_vec(), "no PROXY header"),
        (
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n".to_vec(),
            "of version 1: expected",
        ),
        (b"PROXY UNKNOWN".repeat(10), "does not end within 107 bytes"),
        (v2(0x25, 0x11, &IPV4), "version or command 0x25 is unknown"),
        (
            v2(0x21, 0x11, &IPV4[..11]),
            "leaves no room for its addresses",
        ),
        (v2(0x21, 0x11, &wrong_sum), "the checksum does not fit"),
    ] {
        closed_without_a_word(&proxy, &bytes);
        proxy.until_log_has(why);
    }
    let metrics = proxy.command("metrics", &[]).expect_success().stdout;
    let refused =
        "castling_connections_refused_total{listener=\"web\",reason=\"proxy_protocol\"} 6";
    assert!(metrics.contains(refused), "{metrics}");
}

#[test]
fn a_header_that_stops_ends_in_time() {
    let timeout = r#"proxy_protocol = { from = ["127.0.0.1"], timeout = "200ms" }"#;
    let proxy = gateway(timeout).start();
    closed_without_a_word(&proxy, b"");
    closed_without_a_word(&proxy, &V1[..20]);
    // A header whose sender has ended its direction is not waited for.
    let proxy = gateway(FROM_US).start();
    let mut connection = proxy.raw();
    connection.send(&V1[..20]).finish().expect_close();
}

#[test]
fn a_stranger_is_refused_or_served_as_itself() {
    let others = |others: &str| {
        let settings =
            format!("proxy_protocol = {{ from = [\"10.0.0.0/8\"], others = \"{others}\" }}");
        gateway(&settings).start()
    };
    let refusing = others("refuse");
    closed_without_a_word(&refusing, &[V1, GET].concat());
    closed_without_a_word(&refusing, GET);
    let serving = others("serve");
    assert_eq!(told(serving.raw().send(GET)), "for 127.0.0.1");
    let with_header = serving.raw().send([V1, GET].concat()).read_reply();
    assert_eq!(with_header.status, 400);
}

#[test]
fn connections_are_counted_by_the_clients_address() {
    let settings = format!("{FROM_US}\n    max_connections_per_address = 1");
    let proxy = gateway(&settings).start();
    let connect = |client: &str| {
        let mut connection = proxy.raw();
        connection.send(format!("PROXY TCP4 {client} 198.51.100.1 50000 443\r\n"));
        connection.send(GET);
        connection
    };
    let mut first = connect("192.0.2.1");
    assert_eq!(told(&mut first), "for 192.0.2.1");
    let mut other = connect("192.0.2.2");
    assert_eq!(told(&mut other), "for 192.0.2.2");
    connect("192.0.2.1").expect_close();
    assert_eq!(told(first.send(GET)), "for 192.0.2.1");
}

#[test]
fn a_header_comes_before_tls() {
    let authority = Authority::new("a");
    let pem = authority.certify(&["one.test"]);
    let tls = "tls = { certificates = [{ certificate = \"one.pem\", key = \"one.key\" }] }";
    let proxy = gateway(&format!("{FROM_US}\n    {tls}"))
        .file("one.pem", &pem.chain)
        .file("one.key", &pem.key)
        .start();
    let client = TlsClient::new(&authority);
    let mut tls = client
        .connect_behind(proxy.address(), "one.test", V1)
        .unwrap();
    tls.send(GET);
    tls.read_until("for 192.0.2.7");
    client
        .connect(proxy.address(), "one.test")
        .map(drop)
        .expect_err("a hello is no header");
}

#[test]
fn whoever_connects_to_a_unix_socket_may_be_a_proxy() {
    let proxy = gateway("").start();
    drop(proxy);
    let unix = CONFIG
        .replace("\"{listen}\"", "\"unix:{dir}/web.sock\"")
        .replace("SETTINGS", "proxy_protocol = { from = [\"unix\"] }");
    let proxy = Proxy::with_config(&unix)
        .origin("app", origin::text("ok"))
        .start();
    let mut client = UnixStream::connect(proxy.path("web.sock")).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(&[V1, GET].concat()).unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(proxy.until_access_lines(1), ["192.0.2.7 50000"]);
}

/// Answers with the header that came in front, as text where it is text, else in hexadecimal.
fn tells_header(bytes: usize) -> origin::Origin {
    raw_origin::scripted(move |connection, _| {
        let header = connection.read_exact(bytes)?;
        connection.read_head()?;
        let text = match String::from_utf8(header.clone()) {
            Ok(text) if text.starts_with("PROXY") => text,
            _ => header.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let length = text.len();
        connection.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}"
        ));
        connection.read_to_end().map(drop)
    })
}

#[test]
fn peers_are_told_whose_a_connection_is() {
    let start = |version: &str, bytes: usize| {
        let config = CONFIG.replace("SETTINGS", FROM_US).replace(
            "[\"{app}\"]",
            &format!("[\"{{app}}\"]\n    proxy_protocol = \"{version}\""),
        );
        let setup = Proxy::with_config(&config);
        setup.origin("app", tells_header(bytes)).start()
    };
    let proxy = start("v1", V1.len());
    let mut connection = proxy.raw();
    connection.send([V1, GET].concat());
    assert_eq!(told(&mut connection).as_bytes(), V1);
    // Another request has a connection of its own.
    assert_eq!(told(connection.send(GET)).as_bytes(), V1);
    assert_eq!(proxy.origin("app").connections(), 2);

    let proxy = start("v2", 28);
    let header = v2(0x21, 0x11, &IPV4);
    let mut connection = proxy.raw();
    connection.send([&header[..], GET].concat());
    let expected: String = header.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(told(&mut connection), expected);
    let said = proxy.check().expect_success().stdout;
    assert!(
        said.contains(" with PROXY V2, no connection is kept\n"),
        "{said}"
    );
}

#[test]
fn peers_are_told_before_tls() {
    let authority = Authority::new("a");
    let pem = authority.certify(&["app.test"]);
    let config = CONFIG.replace("SETTINGS", "").replace(
        "[\"{app}\"]",
        "[\"{app}\"]\n    proxy_protocol = \"v1\"\n    tls = { ca = \"ca.pem\", server_name = \"app.test\" }",
    );
    let server = tls_origin::server(&pem, rustls::ALL_VERSIONS);
    let proxy = Proxy::with_config(&config)
        .file("ca.pem", authority.pem())
        .origin("app", tls_origin::behind_a_line(server))
        .start();
    let reply = proxy.raw().send(GET).read_reply().text();
    assert!(
        reply.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "),
        "{reply}"
    );
}
