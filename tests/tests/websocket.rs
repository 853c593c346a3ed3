//! WebSockets: requests that go on with another protocol, by HTTP/1 and HTTP/2 on either side.

use bytes::Bytes;
use castling_tests::h2::{self, H2Client};
use castling_tests::origin::Origin;
use castling_tests::raw_client::RawClient;
use castling_tests::tls::Authority;
use castling_tests::{
    DEADLINE, Proxy, Setup, block_on, frames, raw_origin, tls_origin, until, within,
};
use http::{Method, Request, Response, StatusCode};

const CONFIG: &str = r#"
    [workers]
    count = 1
    drain_timeout = "30s"
    [listeners.web]
    bind = "{listen}"
    [upstreams.app]
    peers = ["{app}"]
    KEYS
    [[routes]]
    path = "/ws"
    upstream = "app"
    upgrades = ["websocket"]
    LIMITS
    [[routes]]
    upstream = "app"
"#;

fn gateway(keys: &str, limits: &str, origin: Origin) -> Setup {
    let config = CONFIG.replace("KEYS", keys).replace("LIMITS", limits);
    Proxy::with_config(&config).origin("app", origin)
}

/// RFC 6455 §1.3.
const ASKED: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Agrees to each request, and sends back what comes then.
fn echoing() -> Origin {
    raw_origin::scripted(|connection, _| {
        let head = connection.read_head()?.to_ascii_lowercase();
        let is_asked = head.contains("\r\nconnection: upgrade\r\nupgrade: websocket\r\n");
        if !is_asked {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
            return Ok(());
        }
        let key = head.contains("\r\nsec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n");
        assert!(key, "{head}");
        connection.send(AGREED);
        while let Ok(byte) = connection.read_exact(1) {
            connection.send(byte);
        }
        connection.send("bye");
        Ok(())
    })
}

fn opened(proxy: &Proxy) -> RawClient {
    let mut client = proxy.raw();
    client.send(ASKED);
    let head = client.read_head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for field in [
        "\r\nconnection: upgrade\r\n",
        "\r\nupgrade: websocket\r\n",
        "\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    ] {
        assert!(head.contains(field), "{head}");
    }
    client
}

#[test]
fn bytes_go_both_ways_until_each_side_has_ended() {
    let proxy = gateway("", "", echoing()).start();
    let mut client = opened(&proxy);
    for text in ["one", "two"] {
        client.send(text);
        assert_eq!(client.read_exact(3).unwrap(), text.as_bytes());
    }
    // A direction ends, the other goes on.
    client.finish();
    assert_eq!(client.read_to_end().unwrap(), b"bye");
    let lines = proxy.until_access_lines(1);
    assert!(
        lines[0].contains("\"GET /ws HTTP/1.1\" 101 9 "),
        "{lines:?}"
    );
}

#[test]
fn what_comes_with_the_heads_is_not_lost() {
    let origin = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        connection.send(format!("{AGREED}early"));
        let got = connection.read_exact(5)?;
        connection.send(got);
        Ok(())
    });
    let proxy = gateway("", "", origin).start();
    let mut client = proxy.raw();
    client.send(format!("{ASKED}hasty"));
    client.read_head().unwrap();
    assert_eq!(client.read_to_end().unwrap(), b"earlyhasty");
}

#[test]
fn much_goes_both_ways_at_once() {
    let proxy = gateway("", "", echoing_fast()).start();
    let mut client = opened(&proxy);
    let sent: Vec<u8> = (0..4 << 20).map(|at: usize| (at * 7 % 251) as u8).collect();
    let mut writing = RawClient::over(client.socket().try_clone().unwrap());
    let bytes = sent.clone();
    let writer = std::thread::spawn(move || {
        writing.send(bytes);
    });
    assert!(client.read_exact(sent.len()).unwrap() == sent);
    writer.join().unwrap();
}

/// Origin as [`echoing`], in larger pieces.
fn echoing_fast() -> Origin {
    raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        connection.send(AGREED);
        let mut socket = connection
            .socket()
            .try_clone()
            .map_err(|it| it.to_string())?;
        let mut piece = vec![0; 64 << 10];
        loop {
            match std::io::Read::read(&mut socket, &mut piece) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(bytes) => drop(connection.send(&piece[..bytes])),
            }
        }
    })
}

#[test]
fn only_routes_that_say_so_go_on_with_it() {
    let proxy = gateway("", "", echoing()).start();
    let mut client = proxy.raw();
    client.send(ASKED.replace("/ws", "/other"));
    let reply = client.read_reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "plain"));
}

#[test]
fn a_peer_may_decline() {
    let declining = raw_origin::closing("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let proxy = gateway("", "", declining).start();
    let mut client = proxy.raw();
    client.send(ASKED);
    let reply = client.read_reply();
    assert_eq!((reply.status, reply.text().as_str()), (403, "no"));
}

#[test]
fn a_peer_that_agrees_to_something_else_is_a_bad_gateway() {
    for agreed in [
        AGREED.replace("websocket", "h2c"),
        AGREED.replace("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "other"),
    ] {
        let proxy = gateway("tries = 1", "", raw_origin::closing(agreed)).start();
        let mut client = proxy.raw();
        client.send(ASKED);
        assert_eq!(client.read_reply().status, 502);
    }
}

#[test]
fn a_tunnel_ends_when_it_is_idle_or_too_old() {
    for limits in ["tunnel_idle_timeout = \"1s\"", "tunnel_max_time = \"1s\""] {
        let proxy = gateway("", limits, echoing()).start();
        let mut client = opened(&proxy);
        client.send("one");
        assert_eq!(client.read_exact(3).unwrap(), b"one");
        client.read_to_end().unwrap();
        proxy.until_access_lines(1);
    }
}

#[test]
fn a_side_that_resets_ends_the_other() {
    let proxy = gateway("", "", echoing()).start();
    let mut client = opened(&proxy);
    client.send("one");
    client.read_exact(3).unwrap();
    client.reset();
    let lines = proxy.until_access_lines(1);
    assert!(lines[0].contains(" 101 3 "), "{lines:?}");
}

#[test]
fn a_tunnel_outlives_a_reload() {
    let proxy = gateway("", "", echoing()).start();
    let mut client = opened(&proxy);
    proxy.reload().expect_success();
    for text in ["one", "two"] {
        client.send(text);
        assert_eq!(client.read_exact(3).unwrap(), text.as_bytes());
    }
    client.finish();
    assert_eq!(client.read_to_end().unwrap(), b"bye");
    until("the old worker has left", || proxy.workers().len() == 1);
}

/// RFC 8441 §5.1.
fn connect(path: &str) -> Request<()> {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://a.test{path}"))
        .extension(::h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13");
    request.body(()).unwrap()
}

/// Asks by HTTP/2, and exchanges bytes.
async fn exchanged(proxy: &Proxy) {
    let mut client = H2Client::connect(proxy.address()).await;
    client.settled().await;
    let (response, mut sending) = client.begin(connect("/ws"), false).await.unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let mut body = response.into_body();
    for text in ["one", "two"] {
        sending.send_data(Bytes::from(text), false).unwrap();
        let mut got = Vec::new();
        while got.len() < 3 {
            got.extend_from_slice(&body.data().await.unwrap().unwrap());
        }
        assert_eq!(got, text.as_bytes());
    }
    sending.send_data(Bytes::new(), true).unwrap();
    assert_eq!(h2::read(body).await.unwrap().0, "bye");
    // A route without it says no, and the connection goes on.
    let (response, _) = client.begin(connect("/other"), false).await.unwrap();
    assert_eq!(
        response.await.unwrap().status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
}

/// Origin by HTTP/1 that accepts whichever key it is sent.
fn accepting_any() -> Origin {
    raw_origin::scripted(|connection, _| {
        let head = connection.read_head()?;
        let key = head
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-key: "));
        let accept = castling_tests::tls::websocket_accept(key.ok_or("no key")?);
        connection.send(AGREED.replace("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", &accept));
        while let Ok(byte) = connection.read_exact(1) {
            connection.send(byte);
        }
        connection.send("bye");
        Ok(())
    })
}

/// Origin by HTTP/2 that takes extended CONNECTs.
fn by_http2() -> Origin {
    let mut settings = ::h2::server::Builder::new();
    settings.enable_connect_protocol();
    h2::origin(settings, |asked| async move {
        let h2::Asked {
            request,
            mut respond,
            ..
        } = asked;
        assert_eq!(request.method(), Method::CONNECT);
        let protocol = request.extensions().get::<::h2::ext::Protocol>();
        assert_eq!(protocol.unwrap().as_str(), "websocket");
        assert!(!request.headers().contains_key("sec-websocket-key"));
        let mut sending = respond.send_response(Response::new(()), false).unwrap();
        let mut body = request.into_body();
        while let Some(Ok(piece)) = body.data().await {
            body.flow_control().release_capacity(piece.len()).unwrap();
            sending.send_data(piece, false).unwrap();
        }
        sending.send_data(Bytes::from("bye"), true).unwrap();
    })
}

fn run(client: impl Future<Output = ()>) {
    block_on(within(DEADLINE, "the client", client));
}

#[test]
fn a_client_by_http2_reaches_a_peer_by_http1() {
    let proxy = gateway("", "", accepting_any()).start();
    run(exchanged(&proxy));
}

#[test]
fn a_client_by_http2_reaches_a_peer_by_http2() {
    let proxy = gateway("protocol = \"http2\"", "", by_http2()).start();
    run(exchanged(&proxy));
}

#[test]
fn a_client_by_http1_reaches_a_peer_by_http2() {
    let proxy = gateway("protocol = \"http2\"", "", by_http2()).start();
    let mut client = opened(&proxy);
    client.send("one");
    assert_eq!(client.read_exact(3).unwrap(), b"one");
    client.finish();
    assert_eq!(client.read_to_end().unwrap(), b"bye");
}

#[test]
fn a_peer_by_http2_that_takes_none_is_a_bad_gateway() {
    let origin = h2::origin(::h2::server::Builder::new(), |asked| async move {
        h2::answer(asked.respond, "hi");
    });
    let proxy = gateway("protocol = \"http2\"\ntries = 1", "", origin).start();
    let mut client = proxy.raw();
    client.send(ASKED);
    assert_eq!(client.read_reply().status, 502);
}

/// Peer that chooses HTTP/2 where it is offered, takes no WebSockets by it, and does by HTTP/1.
fn divided(authority: &Authority) -> Origin {
    let mut tls = tls_origin::server(&authority.certify(&["a.test"]), rustls::ALL_VERSIONS);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (origin, _) = tls_origin::scripted(tls, |connection, _| {
        if connection.protocol() == Some(b"h2") {
            connection.read_exact(24)?;
            connection.send(frames::frame(frames::SETTINGS, 0, 0, b""))?;
            loop {
                let head = connection.read_exact(9)?;
                let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let payload = connection.read_exact(len as usize)?;
                if head[3] == frames::PING {
                    connection.send(frames::frame(frames::PING, frames::ACK, 0, &payload))?;
                }
            }
        }
        connection.read_request()?;
        connection.send(AGREED)?;
        let bytes = connection.read_exact(3)?;
        connection.send(bytes)?;
        connection.close()
    });
    origin
}

#[test]
fn a_peer_that_chooses_http2_and_takes_none_there_is_asked_by_http1() {
    let authority = Authority::new("ca.test");
    let keys = "protocol = \"auto\"\ntls = { ca = \"ca.pem\", server_name = \"a.test\" }";
    let proxy = gateway(keys, "", divided(&authority))
        .file("ca.pem", authority.pem())
        .start();
    for _ in 0..2 {
        let mut client = opened(&proxy);
        client.send("one");
        assert_eq!(client.read_exact(3).unwrap(), b"one");
        client.finish();
        client.read_to_end().unwrap();
    }
}
