//! CONNECT: bytes of any protocol, to the peers that the config lists, by HTTP/1 and HTTP/2.

use std::io::Read as _;
use std::net::TcpListener;

use bytes::Bytes;
use castling_tests::h2::{self, H2Client};
use castling_tests::origin::Origin;
use castling_tests::raw_client::RawClient;
use castling_tests::{DEADLINE, Proxy, block_on, raw_origin, until, within};
use http::{Method, Request, StatusCode};

const CONFIG: &str = r#"
    [workers]
    count = 1
    drain_timeout = "30s"
    [listeners.web]
    bind = "{listen}"
    [upstreams.db]
    peers = ["{db}"]
    KEYS
    [[routes]]
    hosts = ["db.test"]
    upstream = "db"
    upgrades = ["connect"]
    [[routes]]
    hosts = ["127.0.0.1"]
    upstream = "listed"
    upgrades = ["connect"]
    [[routes]]
    hosts = ["plain.test"]
    upstream = "db"
    [[routes]]
    hosts = ["metrics.test"]
    metrics = true
    [upstreams.listed]
    peers = ["{db}"]
    balance = "target"
"#;

fn gateway(keys: &str, origin: Origin) -> Proxy {
    let config = CONFIG.replace("KEYS", keys);
    Proxy::with_config(&config).origin("db", origin).start()
}

/// Speaks first, then sends back what comes.
fn database() -> Origin {
    raw_origin::scripted(|connection, _| {
        connection.send("hello ");
        while let Ok(byte) = connection.read_exact(1) {
            connection.send(byte);
        }
        connection.send(" bye");
        Ok(())
    })
}

fn asked(proxy: &Proxy, authority: &str) -> RawClient {
    let mut client = proxy.raw();
    client.send(format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
    ));
    client
}

#[test]
fn bytes_go_to_the_upstream_of_the_route_whose_host_is_named() {
    let proxy = gateway("", database());
    let mut client = asked(&proxy, "db.test:5432");
    // Bytes that come with the head are the other protocol's, too.
    client.send("hasty");
    let head = client.read_head().unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 Connection Established\r\n"),
        "{head}"
    );
    let lower = head.to_ascii_lowercase();
    for field in ["content-length", "transfer-encoding", "upgrade"] {
        assert!(!lower.contains(field), "{head}");
    }
    assert_eq!(client.read_exact(11).unwrap(), b"hello hasty");
    client.send("late").finish();
    assert_eq!(client.read_to_end().unwrap(), b"late bye");
    let lines = proxy.until_access_lines(1);
    assert!(
        lines[0].contains("\"CONNECT db.test:5432 HTTP/1.1\" 200 19 "),
        "{lines:?}"
    );
}

#[test]
fn a_client_names_its_peer_among_those_listed_and_reaches_no_other() {
    let proxy = gateway("", database());
    let listed = proxy.origin("db").address();
    let mut client = asked(&proxy, &listed.to_string());
    client.read_head().unwrap();
    assert_eq!(client.read_exact(6).unwrap(), b"hello ");
    let before = proxy.origin("db").connections();
    for other in ["127.0.0.1:1", "127.0.0.1:22"] {
        let mut client = asked(&proxy, other);
        assert_eq!(client.read_reply().status, 403, "{other}");
        // No byte after it is read as a request.
        client.send("GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n");
        assert!(client.read_to_end().unwrap().is_empty());
    }
    assert_eq!(proxy.origin("db").connections(), before);
}

#[test]
fn only_routes_that_say_so_take_it() {
    let proxy = gateway("", database());
    for (host, status) in [
        ("plain.test:80", 405),
        // An answer of 200 would be taken for a tunnel.
        ("metrics.test:80", 405),
        ("other.test:80", 404),
        ("db.test", 400),
    ] {
        let mut client = asked(&proxy, host);
        assert_eq!(client.read_reply().status, status, "{host}");
        assert!(client.read_to_end().unwrap().is_empty(), "{host}");
    }
    assert_eq!(proxy.origin("db").connections(), 0);
}

#[test]
fn a_peer_that_cannot_be_reached_is_a_bad_gateway() {
    let config = CONFIG
        .replace("KEYS", "tries = 1")
        .replace("{db}", "{refusing}");
    let proxy = Proxy::with_config(&config).start();
    let mut client = asked(&proxy, "db.test:5432");
    assert_eq!(client.read_reply().status, 502);
}

#[test]
fn a_tunnel_outlives_a_reload() {
    let proxy = gateway("", database());
    let mut client = asked(&proxy, "db.test:5432");
    client.read_head().unwrap();
    assert_eq!(client.read_exact(6).unwrap(), b"hello ");
    proxy.reload().expect_success();
    client.send("one");
    assert_eq!(client.read_exact(3).unwrap(), b"one");
    client.finish();
    assert_eq!(client.read_to_end().unwrap(), b" bye");
    until("the old worker has left", || proxy.workers().len() == 1);
}

#[test]
fn a_peer_is_told_whose_connection_it_is() {
    let origin = raw_origin::scripted(|connection, _| {
        let line = connection.read_exact(6)?;
        connection.send(line);
        connection.read_to_end().map(drop)
    });
    let proxy = gateway("proxy_protocol = \"v1\"", origin);
    let mut client = asked(&proxy, "db.test:5432");
    client.read_head().unwrap();
    assert_eq!(client.read_exact(6).unwrap(), b"PROXY ");
}

/// Asks by HTTP/2 for this authority: its stream's answer and, where it is a tunnel, what comes and goes.
async fn by_http2(client: &mut H2Client, authority: &str) -> (StatusCode, Bytes) {
    let request = Request::builder().method(Method::CONNECT).uri(authority);
    let request = request.body(()).unwrap();
    let (response, mut sending) = client.begin(request, false).await.unwrap();
    let response = response.await.unwrap();
    let status = response.status();
    if status == StatusCode::OK {
        sending.send_data(Bytes::from("one"), true).unwrap();
    }
    (status, h2::read(response.into_body()).await.unwrap().0)
}

#[test]
fn streams_of_http2_are_tunnels_beside_requests() {
    let proxy = gateway("", database());
    block_on(within(DEADLINE, "the client", async {
        let mut client = H2Client::connect(proxy.address()).await;
        for (authority, status, body) in [
            ("db.test:5432", StatusCode::OK, "hello one bye"),
            (
                "plain.test:80",
                StatusCode::METHOD_NOT_ALLOWED,
                "405 Method Not Allowed\n",
            ),
            ("db.test:5432", StatusCode::OK, "hello one bye"),
        ] {
            let (got, text) = by_http2(&mut client, authority).await;
            assert_eq!((got, &*text), (status, body.as_bytes()), "{authority}");
        }
    }));
}

#[test]
fn a_listed_peer_that_cannot_be_reached_is_a_bad_gateway_each_time() {
    let config = CONFIG.replace("KEYS", "").replace(
        "[upstreams.listed]\n    peers = [",
        "[upstreams.listed]\n    peers = [\"127.0.0.1:1\", ",
    );
    let proxy = Proxy::with_config(&config).origin("db", database()).start();
    for _ in 0..3 {
        assert_eq!(asked(&proxy, "127.0.0.1:1").read_reply().status, 502);
    }
    let mut client = asked(&proxy, &proxy.origin("db").address().to_string());
    client.read_head().unwrap();
    assert_eq!(client.read_exact(6).unwrap(), b"hello ");
}

/// Whether what was read has ended by a reset, behind this text.
fn is_reset_behind(client: &mut RawClient, text: &str) -> bool {
    assert_eq!(client.read_exact(text.len()).unwrap(), text.as_bytes());
    client.socket().read(&mut [0]).is_err()
}

#[test]
fn a_side_that_fails_is_told_to_the_other_by_a_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut peer = RawClient::over(socket);
        peer.send("last words");
        peer.read_exact(1).unwrap();
        peer.reset();
    });
    let config = CONFIG.replace("KEYS", "").replace("{db}", &address);
    let proxy = Proxy::with_config(&config).start();
    let mut client = asked(&proxy, "db.test:5432");
    client.read_head().unwrap();
    client.send("x");
    assert!(is_reset_behind(&mut client, "last words"));

    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let proxy = gateway(
        "",
        raw_origin::scripted(move |connection, _| {
            connection.read_exact(2)?;
            connection.send("k");
            let is_reset = is_reset_behind(connection, "");
            tell.lock()
                .unwrap()
                .send(is_reset)
                .map_err(|it| it.to_string())
        }),
    );
    let mut client = asked(&proxy, "db.test:5432");
    client.read_head().unwrap();
    // The peer has what it was sent before the reset, which overtakes what is not read yet.
    client.send("ab");
    assert_eq!(client.read_exact(1).unwrap(), b"k");
    client.reset();
    assert_eq!(told.recv_timeout(DEADLINE), Ok(true));
}

#[test]
fn a_client_that_takes_its_time_is_not_cut() {
    const BYTES: usize = 16 << 20;
    let pushing = raw_origin::scripted(|connection, _| {
        connection.send(vec![b'x'; BYTES]);
        Ok(())
    });
    let config = CONFIG
        .replace("KEYS", "")
        .replace("bind = ", "send_timeout = \"200ms\"\n    bind = ");
    let proxy = Proxy::with_config(&config).origin("db", pushing).start();
    let mut client = asked(&proxy, "db.test:5432");
    client.read_head().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(800));
    assert_eq!(client.read_to_end().unwrap().len(), BYTES);
}
