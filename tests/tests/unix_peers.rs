//! Peers that listen at Unix sockets: over every protocol, behind PROXY headers, and when they are not there.

use castling_tests::origin::Origin;
use castling_tests::tls::Authority;
use castling_tests::{Proxy, RawClient, Setup, UnixBridge, h2, origin, raw_origin, tls_origin};
use rustls::ALL_VERSIONS;

const CONFIG: &str = r#"
    [workers]
    count = 1

    [access_log]
    file = "{dir}/access.log"
    flush = "0s"
    format = "$peer $status"

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["unix:app.sock"]
    SETTINGS

    [[routes]]
    upstream = "app"
    upgrades = ["connect"]
"#;

fn gateway(settings: &str) -> Setup {
    Proxy::with_config(&CONFIG.replace("SETTINGS", settings))
}

/// The origin behind the gateway's peer.
fn bridge(proxy: &Proxy, origin: &Origin) -> UnixBridge {
    UnixBridge::new(proxy.path("app.sock"), origin.address())
}

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Answers each request with the head that it came with, and what stands before it.
fn telling() -> Origin {
    raw_origin::scripted(|connection, _| {
        loop {
            let head = connection.read_head()?;
            let length = head.len();
            connection.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}"
            ));
        }
    })
}

#[test]
fn requests_share_a_kept_connection_and_the_log_names_the_socket() {
    let proxy = gateway("").start();
    let origin = origin::echoing();
    let bridge = bridge(&proxy, &origin);
    let mut client = proxy.raw();
    for body in ["one", "two", "three"] {
        let reply = client.send(post(body)).read_reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, body));
    }
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(bridge.connections(), 1);
    let label = format!("unix:{}", proxy.path("app.sock").display());
    for line in proxy.until_access_lines(4) {
        assert_eq!(line, format!("{label} 200"));
    }
    let check = proxy.check();
    assert!(
        check.stdout.contains(&format!("upstream app: {label}")),
        "{check:?}"
    );
}

#[test]
fn large_bodies_go_both_ways() {
    let proxy = gateway("").start();
    let origin = origin::echoing();
    let _bridge = bridge(&proxy, &origin);
    let body = "0123456789abcdef".repeat(1 << 16);
    let reply = proxy.post("/", castling_tests::body::full(body.clone()));
    assert_eq!(reply.status, 200);
    assert!(reply.text() == body, "{} bytes", reply.body.len());
}

#[test]
fn the_host_is_the_clients_or_localhost() {
    for (settings, host) in [
        ("", "a"),
        ("host = 'peer'", "localhost"),
        ("host = 'app.test'", "app.test"),
    ] {
        let proxy = gateway(settings).start();
        let origin = telling();
        let _bridge = bridge(&proxy, &origin);
        let told = proxy.raw().send(post("")).read_reply().text();
        let line = format!("\r\nhost: {host}\r\n");
        assert!(told.contains(&line), "{settings}: {told}");
    }
}

#[test]
fn http2_and_tls_are_spoken() {
    let answer = |asked: h2::Asked| async move {
        let authority = asked.request.uri().authority().map(ToString::to_string);
        h2::answer(asked.respond, authority.unwrap_or_default());
    };
    let proxy = gateway("protocol = 'http2'\nhost = 'peer'").start();
    let origin = h2::origin(::h2::server::Builder::new(), answer);
    let multiplexed = bridge(&proxy, &origin);
    for _ in 0..3 {
        assert_eq!(proxy.get("/").text(), "localhost");
    }
    assert_eq!(multiplexed.connections(), 1);

    let authority = Authority::new("a");
    let pem = authority.certify(&["localhost"]);
    let proxy = gateway("tls.ca = 'ca.pem'")
        .file("ca.pem", authority.pem())
        .start();
    let (origin, handshakes) = tls_origin::echoing(tls_origin::server(&pem, ALL_VERSIONS));
    let _bridge = bridge(&proxy, &origin);
    for body in ["one", "two"] {
        let reply = proxy.raw().send(post(body)).read_reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, body));
    }
    let all = handshakes.all();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].name.as_deref(), Some("localhost"));
}

#[test]
fn proxy_headers_tell_of_the_client() {
    let (signature, client) = (&b"\r\n\r\n\0\r\nQUIT\n"[..], [127, 0, 0, 1]);
    for version in ["v1", "v2"] {
        let proxy = gateway(&format!("proxy_protocol = '{version}'")).start();
        // Answers with the PROXY header, as hexadecimal digits.
        let origin = raw_origin::scripted(move |connection, _| {
            let mut header = match version {
                "v1" => connection.read_exact("PROXY ".len())?,
                _ => connection.read_exact(signature.len() + 4)?,
            };
            match version {
                "v1" => {
                    while !header.ends_with(b"\r\n") {
                        header.extend(connection.read_exact(1)?);
                    }
                }
                _ => {
                    let length = usize::from(header[15]);
                    header.extend(connection.read_exact(length)?);
                }
            }
            connection.read_head()?;
            let length = header.len();
            connection.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ));
            connection.send(&header);
            Ok(())
        });
        let bridge = bridge(&proxy, &origin);
        let mut raw = proxy.raw();
        let port = raw.socket().local_addr().unwrap().port();
        let told = raw.send(post("")).read_reply().body;
        match version {
            "v1" => {
                let line = format!(
                    "PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\n",
                    proxy.address().port()
                );
                assert_eq!(String::from_utf8_lossy(&told), line);
            }
            _ => {
                assert_eq!(&told[..14], [signature, &[0x21, 0x11]].concat());
                assert_eq!(&told[16..20], client);
                assert_eq!(&told[24..26], port.to_be_bytes());
            }
        }
        // Each request has a connection of its own.
        raw.send(post("")).read_reply();
        assert_eq!(bridge.connections(), 2);
    }
}

#[test]
fn tunnels_are_made() {
    let proxy = gateway("").start();
    let origin = raw_origin::scripted(|connection, _| {
        let bytes = connection.read_exact(4)?;
        connection.send(bytes);
        Ok(())
    });
    let _bridge = bridge(&proxy, &origin);
    let mut client: RawClient = proxy.raw();
    client.send("CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\n");
    assert!(client.read_head().unwrap().starts_with("HTTP/1.1 200"));
    client.send("ping");
    assert_eq!(client.read_exact(4).unwrap(), b"ping");
    client.expect_close();
}

#[test]
fn a_socket_that_nobody_listens_at_is_passed_over() {
    let config = CONFIG.replace("\"unix:app.sock\"", "\"unix:app.sock\", \"{other}\"");
    let proxy = Proxy::with_config(&config.replace("SETTINGS", ""))
        .origin("other", origin::text("other"))
        .start();
    for _ in 0..4 {
        assert_eq!(proxy.get("/").text(), "other");
    }

    let proxy = gateway("").start();
    assert_eq!(proxy.get("/").status, 502);
    let line = proxy.until_log_has("connect to unix:");
    assert!(line.contains("app.sock"), "{line}");
    let origin = origin::text("it is back");
    let _bridge = bridge(&proxy, &origin);
    assert_eq!(proxy.get("/").text(), "it is back");
}
