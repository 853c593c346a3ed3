//! HTTP/2 to peers: requests share connections, what was not processed is sent again, and nobody holds up others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::h2::Reason;
use bytes::Bytes;
use castling_tests::h2::{self, Asked, H2Client};
use castling_tests::origin::Origin;
use castling_tests::{DEADLINE, Proxy, Setup, block_on, body, until, within};
use http::{HeaderMap, Request, Response};

fn gateway(keys: &str, origin: Origin) -> Setup {
    let config = r#"
        [workers]
        count = 1
        [listeners.web]
        bind = "{listen}"
        [upstreams.app]
        peers = ["{app}"]
        protocol = "http2"
        KEYS
        [[routes]]
        upstream = "app"
    "#;
    Proxy::with_config(&config.replace("KEYS", keys)).origin("app", origin)
}

fn settings() -> ::h2::server::Builder {
    ::h2::server::Builder::new()
}

fn run<T>(client: impl Future<Output = T>) -> T {
    block_on(within(DEADLINE, "the client", client))
}

/// Reads a request's body, and answers with it.
async fn echo(asked: Asked) {
    let Asked {
        request, respond, ..
    } = asked;
    if let Ok((body, _)) = h2::read(request.into_body()).await {
        h2::answer_all(respond, body).await;
    }
}

#[test]
fn requests_share_a_connection() {
    let together = Arc::new(tokio::sync::Barrier::new(20));
    let origin = h2::origin(settings(), move |asked| {
        let together = Arc::clone(&together);
        async move {
            // None is answered before all have come.
            together.wait().await;
            let path = asked.request.uri().path().to_owned();
            let host = asked.request.uri().authority().map(ToString::to_string);
            h2::answer(
                asked.respond,
                format!("{path} {}", host.unwrap_or_default()),
            );
        }
    });
    let proxy = gateway("", origin).start();
    std::thread::scope(|scope| {
        for at in 0..20 {
            let proxy = &proxy;
            scope.spawn(move || {
                let reply = proxy.get(&format!("/{at}"));
                assert_eq!(reply.text(), format!("/{at} test.example"));
                assert_eq!(reply.header("via"), Some("2.0 castling"));
            });
        }
    });
    assert_eq!(proxy.origin("app").connections(), 1);
}

#[test]
fn bodies_go_both_ways_whatever_their_size() {
    let proxy = gateway("", h2::origin(settings(), echo)).start();
    for bytes in [0, 1, 16_384, 65_536, 300_000, 3_000_000] {
        let sent: Vec<u8> = (0..bytes).map(|at: usize| (at * 7 % 251) as u8).collect();
        let reply = proxy.post("/", body::full(sent.clone()));
        assert!(reply.body == sent, "{bytes}: {}", reply.body.len());
    }
    assert_eq!(proxy.origin("app").connections(), 1);
}

#[test]
fn trailers_and_interim_responses_pass_and_grpc_is_told_that_they_do() {
    let origin = h2::origin(settings(), |asked: Asked| async move {
        let Asked {
            request,
            mut respond,
            ..
        } = asked;
        let te = request.headers().get("te").cloned();
        let (body, trailers) = h2::read(request.into_body()).await.unwrap();
        let hints = Response::builder().status(103).header("link", "</a>");
        respond.send_informational(hints.body(()).unwrap()).unwrap();
        let mut sending = respond.send_response(Response::new(()), false).unwrap();
        sending.send_data(body, false).unwrap();
        let mut ends = trailers.unwrap_or_default();
        ends.insert("x-te", te.unwrap_or(http::HeaderValue::from_static("none")));
        sending.send_trailers(ends).unwrap();
    });
    let proxy = gateway("", origin).start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        let request = Request::post("http://a.test/s/m").header("content-type", "application/grpc");
        let request = request.header("te", "trailers").body(()).unwrap();
        let (response, mut sending) = client.begin(request, false).await.unwrap();
        sending.send_data(Bytes::from("body"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        sending.send_trailers(trailers).unwrap();
        let (body, trailers) = h2::read(response.await.unwrap().into_body()).await.unwrap();
        let trailers = trailers.expect("some");
        assert_eq!(body, "body");
        assert_eq!(
            (&trailers["x-sum"], &trailers["x-te"]),
            (&"1".parse().unwrap(), &"trailers".parse().unwrap())
        );
    });
}

#[test]
fn a_stream_that_is_refused_is_sent_again() {
    let refused = Arc::new(AtomicUsize::new(0));
    let times = Arc::clone(&refused);
    let origin = h2::origin(settings(), move |asked: Asked| {
        let is_first = times.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let mut asked = asked;
            match is_first {
                true => asked.respond.send_reset(Reason::REFUSED_STREAM),
                false => echo(asked).await,
            }
        }
    });
    let proxy = gateway("tries = 1", origin).start();
    let reply = proxy.post("/", body::full("again"));
    assert_eq!(
        (reply.status.as_u16(), reply.text()),
        (200, "again".to_owned())
    );
    assert_eq!(refused.load(Ordering::Relaxed), 2);
}

#[test]
fn a_connection_that_is_about_to_end_takes_no_more_and_nothing_is_lost() {
    let origin = h2::origin(settings(), |asked: Asked| async move {
        h2::answer(asked.respond, asked.connection.to_string());
    });
    let proxy = gateway("", origin).start();
    assert_eq!(proxy.get("/").text(), "0");
    assert_eq!(proxy.get("/last").text(), "0");
    until("another connection is made", || {
        let reply = proxy.post("/", body::full("x"));
        assert_eq!(reply.status, 200);
        reply.text() == "1"
    });
}

#[test]
fn no_more_streams_are_begun_than_the_peer_allows() {
    let open = Arc::new(Mutex::new(Vec::<usize>::new()));
    let most = Arc::new(AtomicUsize::new(0));
    let (counted, seen) = (Arc::clone(&open), Arc::clone(&most));
    let mut few = settings();
    few.max_concurrent_streams(2);
    let origin = h2::origin(few, move |asked: Asked| {
        let (counted, seen) = (Arc::clone(&counted), Arc::clone(&seen));
        async move {
            let now = {
                let mut open = counted.lock().unwrap();
                let connections = open.len().max(asked.connection + 1);
                open.resize(connections, 0);
                open[asked.connection] += 1;
                open[asked.connection]
            };
            seen.fetch_max(now, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            counted.lock().unwrap()[asked.connection] -= 1;
            h2::answer(asked.respond, "hi");
        }
    });
    let proxy = gateway("", origin).start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || {
                for _ in 0..5 {
                    assert_eq!(proxy.get("/").text(), "hi");
                }
            });
        }
    });
    assert_eq!(most.load(Ordering::Relaxed), 2);
}

#[test]
fn a_client_that_takes_nothing_holds_up_no_other_of_the_connection() {
    let origin = h2::origin(settings(), |asked: Asked| async move {
        let bytes = match asked.request.uri().path() {
            "/large" => 4 << 20,
            _ => 100_000,
        };
        h2::answer_all(asked.respond, Bytes::from(vec![b'x'; bytes])).await;
    });
    let proxy = gateway("", origin).start();
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let mut raw = proxy.raw();
        raw.send("GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n");
        raw.read_head().unwrap();
        stalled.push(raw);
    }
    for _ in 0..10 {
        assert_eq!(proxy.get("/").body.len(), 100_000);
    }
    assert_eq!(proxy.origin("app").connections(), 1);
}

#[test]
fn a_client_that_leaves_resets_its_stream_alone() {
    let left = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&left);
    let origin = h2::origin(settings(), move |asked: Asked| {
        let counted = Arc::clone(&counted);
        async move {
            let mut asked = asked;
            if asked.request.uri().path() == "/slow" {
                let reset = std::future::poll_fn(|cx| asked.respond.poll_reset(cx));
                assert_eq!(reset.await.unwrap(), Reason::CANCEL);
                counted.fetch_add(1, Ordering::Relaxed);
                return;
            }
            h2::answer(asked.respond, "hi");
        }
    });
    let proxy = gateway("", origin).start();
    let mut raw = proxy.raw();
    raw.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    until("the request has come", || {
        proxy.origin("app").requests() == 1
    });
    raw.reset();
    until("its stream is reset", || left.load(Ordering::Relaxed) == 1);
    assert_eq!(proxy.get("/").text(), "hi");
    assert_eq!(proxy.origin("app").connections(), 1);
}

#[test]
fn a_peer_that_does_not_speak_it_is_a_bad_gateway() {
    let proxy = gateway("tries = 1", castling_tests::origin::text("hi")).start();
    assert_eq!(proxy.get("/").status, 502);
    assert!(proxy.log().contains("upstream app: "), "{}", proxy.log());
}

#[test]
fn an_upload_that_keeps_coming_is_not_too_slow() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"
        body_rate = { min = 500, after = "1s" }
        body_timeout = "1s"
        [upstreams.app]
        peers = ["{app}"]
        protocol = "http2"
        [[routes]]
        upstream = "app"
    "#;
    let proxy = Proxy::with_config(config)
        .origin("app", h2::origin(settings(), echo))
        .start();
    run(async {
        let mut client = H2Client::connect(proxy.address()).await;
        let request = Request::post("http://a.test/").body(()).unwrap();
        let (response, mut sending) = client.begin(request, false).await.unwrap();
        for _ in 0..50 {
            sending
                .send_data(Bytes::from(vec![b'x'; 500]), false)
                .unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        sending.send_data(Bytes::new(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(
            h2::read(response.into_body()).await.unwrap().0.len(),
            25_000
        );
    });
}

#[test]
fn targets_that_browsers_send_reach_peers() {
    let origin = h2::origin(settings(), |asked: Asked| async move {
        h2::answer(asked.respond, asked.request.uri().to_string());
    });
    let proxy = gateway("", origin).start();
    let mut raw = proxy.raw();
    raw.send("GET /a<b>`?c=\"d\"|{e} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let reply = raw.read_reply();
    assert_eq!(reply.status, 200);
    let text = reply.text();
    assert!(text.contains("/a%3Cb%3E"), "{text}");
}

#[test]
fn a_peer_that_says_nothing_is_given_up_in_time() {
    let silent =
        castling_tests::raw_origin::scripted(|connection, _| connection.read_to_end().map(drop));
    let proxy = gateway("connect_timeout = \"1s\"\ntries = 1", silent).start();
    std::thread::scope(|scope| {
        // Those that wait for another's try do not make their own.
        for _ in 0..5 {
            scope.spawn(|| assert!([502, 504].contains(&proxy.get("/").status.as_u16())));
        }
    });
}
