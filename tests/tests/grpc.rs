//! gRPC through the gateway, HTTP/2 on both sides: calls of all four kinds, deadlines, and the gateway's own errors.

use std::time::Duration;

use bytes::Bytes;
use castling_tests::h2::{self, Asked, H2Client};
use castling_tests::origin::{self, Origin};
use castling_tests::{DEADLINE, Proxy, Reply, block_on, body, within};
use http::{HeaderMap, Request, Response};

fn gateway(peer: &str, keys: &str) -> String {
    let config = r#"
        [listeners.web]
        bind = "{listen}"
        [upstreams.app]
        peers = ["PEER"]
        protocol = "http2"
        KEYS
        [[routes]]
        path = "/app"
        upstream = "app"
    "#;
    config.replace("PEER", peer).replace("KEYS", keys)
}

/// Answers each message with it, as soon as it comes, and ends with status 0.
fn echoing() -> Origin {
    h2::origin(::h2::server::Builder::new(), |asked: Asked| async move {
        let Asked {
            request,
            mut respond,
            ..
        } = asked;
        let response = Response::builder().header("content-type", "application/grpc");
        let response = response.body(()).unwrap();
        let mut sending = respond.send_response(response, false).unwrap();
        let mut body = request.into_body();
        while let Some(Ok(piece)) = body.data().await {
            body.flow_control().release_capacity(piece.len()).unwrap();
            sending.send_data(piece, false).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        // The client may have left.
        let _sent = sending.send_trailers(trailers);
    })
}

fn call(path: &str, timeout: Option<&str>) -> Request<()> {
    let mut request = Request::post(format!("http://a.test{path}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    request.body(()).unwrap()
}

fn run(client: impl Future<Output = ()>) {
    block_on(within(DEADLINE, "the client", client));
}

/// Status and message that a call has ended with by its head alone.
async fn ended(proxy: &Proxy, request: Request<()>) -> (String, String) {
    let mut client = H2Client::connect(proxy.address()).await;
    let (response, _sending) = client.begin(request, true).await.unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert!(response.body().is_end_stream());
    let field = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    (field("grpc-status"), field("grpc-message"))
}

#[test]
fn messages_go_both_ways_as_they_come_and_trailers_end_the_call() {
    let origin = echoing();
    let proxy = Proxy::with_config(&gateway("{app}", ""))
        .origin("app", origin)
        .start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        let (response, mut sending) = client.begin(call("/app/s/m", None), false).await.unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let mut body = response.into_body();
        // Each message is answered before the next is sent.
        for message in ["one", "two", "three"] {
            sending.send_data(Bytes::from(message), false).unwrap();
            let piece = body.data().await.unwrap().unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            assert_eq!(piece, message);
        }
        sending.send_data(Bytes::new(), true).unwrap();
        let (rest, trailers) = h2::read(body).await.unwrap();
        assert!(rest.is_empty());
        assert_eq!(trailers.expect("some")["grpc-status"], "0");
    });
}

#[test]
fn a_deadline_of_the_client_ends_the_call_and_is_no_fault_of_the_peer() {
    let silent = h2::origin(::h2::server::Builder::new(), |asked: Asked| async move {
        match asked.request.uri().path() {
            "/app/slow" => {
                let mut respond = asked.respond;
                // The peer is told that nobody waits.
                let _reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            }
            _ => h2::answer(asked.respond, "hi"),
        }
    });
    let proxy = Proxy::with_config(&gateway("{app}", ""))
        .origin("app", silent)
        .start();
    run(async {
        let (status, message) = ended(&proxy, call("/app/slow", Some("50m"))).await;
        assert_eq!(
            (status.as_str(), message.as_str()),
            ("4", "Gateway Timeout")
        );
    });
    assert_eq!(proxy.get("/app").text(), "hi");
}

#[test]
fn errors_of_the_gateway_are_in_the_fields_of_grpc() {
    let config = gateway("{refusing}", "tries = 1");
    let proxy = Proxy::with_config(&config).start();
    run(async {
        let (status, message) = ended(&proxy, call("/app/s/m", None)).await;
        assert_eq!((status.as_str(), message.as_str()), ("14", "Bad Gateway"));
        let (status, message) = ended(&proxy, call("/none/s/m", None)).await;
        assert_eq!((status.as_str(), message.as_str()), ("12", "Not Found"));
    });
}

#[test]
fn a_call_that_is_cancelled_is_reset_at_the_peer() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let waits = h2::origin(::h2::server::Builder::new(), move |asked: Asked| {
        let tell = tell.lock().unwrap().clone();
        async move {
            let mut respond = asked.respond;
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            tell.send(reset.ok()).unwrap();
        }
    });
    let proxy = Proxy::with_config(&gateway("{app}", ""))
        .origin("app", waits)
        .start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        let (response, sending) = client.begin(call("/app/s/m", None), false).await.unwrap();
        castling_tests::until("the call has come", || proxy.origin("app").requests() == 1);
        drop((response, sending));
        let reset = tokio::task::block_in_place(|| told.recv_timeout(DEADLINE)).unwrap();
        assert_eq!(reset, Some(::h2::Reason::CANCEL));
    });
}

/// Gateway whose clients may be silent in a body for a tenth of a second, and its peers for longer.
fn hurried(protocol: &str) -> String {
    let config = gateway("{app}", "idle_timeout = \"1500ms\"");
    let config = config.replace("protocol = \"http2\"", protocol);
    config.replace("bind = ", "body_timeout = \"100ms\"\n        bind = ")
}

/// Answers a call when its messages have ended.
fn collecting() -> Origin {
    h2::origin(::h2::server::Builder::new(), |asked: Asked| async move {
        let Asked {
            request,
            mut respond,
            ..
        } = asked;
        if h2::read(request.into_body()).await.is_ok() {
            let response = Response::builder().header("grpc-status", "0");
            let _sent = respond.send_response(response.body(()).unwrap(), true);
        }
    })
}

#[test]
fn messages_may_be_further_apart_than_pieces_of_other_bodies() {
    let proxy = Proxy::with_config(&hurried("protocol = \"http2\""))
        .origin("app", collecting())
        .start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        let (response, mut sending) = client.begin(call("/app/s/m", None), false).await.unwrap();
        sending.send_data(Bytes::from("one"), false).unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        sending.send_data(Bytes::from("two"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "0");
    });
}

#[test]
fn a_call_that_nobody_moves_is_ended() {
    let proxy = Proxy::with_config(&hurried("protocol = \"http2\""))
        .origin("app", collecting())
        .start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        let (response, _sending) = client.begin(call("/app/s/m", None), false).await.unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["grpc-message"], "Request Timeout");
    });
}

#[test]
fn what_calls_itself_grpc_has_no_more_time_where_the_peers_speak_http_1() {
    let proxy = Proxy::with_config(&hurried(""))
        .origin("app", origin::text("late"))
        .start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        let (response, mut sending) = client.begin(call("/app/s/m", None), false).await.unwrap();
        sending.send_data(Bytes::from("one"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["grpc-message"], "Request Timeout");
    });
}

/// Gateway that lets browsers call the origin.
fn for_browsers(origin: Origin) -> Proxy {
    let config = gateway("{app}", "").replace("[[routes]]", "[[routes]]\nplugins = [\"grpc-web\"]")
        + "\n[plugins.grpc-web]\nwasm = \"{plugins}/grpc_web.wasm\"\n";
    Proxy::with_config(&config).origin("app", origin).start()
}

fn called_by_a_browser(proxy: &Proxy, path: &str, content_type: &str, body: &str) -> Reply {
    let request = Request::post(path).header("content-type", content_type);
    proxy.send(request.body(body::full(body.to_owned())).unwrap())
}

#[test]
fn browsers_call_by_http1_and_find_the_trailers_in_the_body() {
    let proxy = for_browsers(echoing());
    let reply = called_by_a_browser(&proxy, "/app/s/m", "application/grpc-web+proto", "one");
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-type"),
        Some("application/grpc-web+proto")
    );
    assert_eq!(&reply.body[..], b"one\x80\0\0\0\x10grpc-status: 0\r\n");
    // "one", and then its answer and the trailers, each in base64.
    let reply = called_by_a_browser(&proxy, "/app/s/m", "application/grpc-web-text", "b25l");
    assert_eq!(reply.text(), "b25lgAAAABBncnBjLXN0YXR1czogMA0K");
    let reply = called_by_a_browser(&proxy, "/app/s/m", "application/grpc-web-text", "b25");
    let told = (reply.header("grpc-status"), reply.body.len());
    assert_eq!(told, (Some("13"), 0));
}

#[test]
fn a_browser_is_told_errors_by_fields() {
    let config = gateway("{refusing}", "tries = 1")
        .replace("[[routes]]", "[[routes]]\nplugins = [\"grpc-web\"]")
        + "\n[plugins.grpc-web]\nwasm = \"{plugins}/grpc_web.wasm\"\n";
    let proxy = Proxy::with_config(&config).start();
    let reply = called_by_a_browser(&proxy, "/app/s/m", "application/grpc-web", "one");
    let told = (reply.status.as_u16(), reply.header("grpc-status"));
    assert_eq!(told, (200, Some("14")));
}
