//! `aggregator` and `html-injector`.

use std::io::Write;

use castling_tests::{Proxy, body, origin, raw_origin};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

const PAGE: &str = r#"
    [plugins.page]
    wasm = "{plugins}/aggregator.wasm"

    [plugins.page.config]
    timeout = "TIMEOUT"
    forward = ["authorization"]

    [plugins.page.config.parts]
    user = { upstream = "users", path = "/me", required = true }
    news = { upstream = "news", path = "/latest" }
    shop = { upstream = "shop", path = "/cart" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.users]
    peers = ["{users}"]

    [upstreams.news]
    peers = ["{news}"]

    [upstreams.shop]
    peers = ["{shop}"]

    [[routes]]
    plugins = ["page"]
"#;

/// Says what it was asked.
fn telling() -> origin::Origin {
    origin::answering(|seen| {
        let told = json!({"target": seen.target, "as": seen.header("authorization")});
        http::Response::new(body::full(told.to_string()))
    })
}

#[test]
fn services_make_one_page_and_one_that_fails_is_told() {
    let proxy = Proxy::with_config(&PAGE.replace("TIMEOUT", "300ms"))
        .origin("users", telling())
        .origin("news", raw_origin::stalled())
        .origin(
            "shop",
            raw_origin::closing("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
        )
        .start();
    let page = proxy.get_with("/?a=b", &[("authorization", "Bearer 7")]);
    assert_eq!(page.header("content-type"), Some("application/json"));
    let expected = json!({
        "user": {"target": "/me?a=b", "as": "Bearer 7"},
        "errors": {"news": "timeout", "shop": "broken"},
    });
    assert_eq!((page.status.as_u16(), page.json()), (200, expected));
}

#[test]
fn there_is_no_page_without_its_required_part() {
    let proxy = Proxy::with_config(&PAGE.replace("TIMEOUT", "300ms"))
        .origin("users", raw_origin::stalled())
        .origin("news", telling())
        .origin("shop", telling())
        .start();
    let page = proxy.get("/");
    let expected = json!({"errors": {"user": "timeout"}});
    assert_eq!((page.status.as_u16(), page.json()), (504, expected));
}

const INJECT: &str = r#"
    [workers]
    count = 1

    [plugins.inject]
    wasm = "{plugins}/html_injector.wasm"
    config = { before = "</head>", text = "<script src=/banner.js></script>" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["inject"]
    upstream = "app"
"#;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(text.as_bytes())
        .expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

/// Origin that answers with this head and body, a chunk each `chunk_bytes`.
fn chunked(content_type: &str, body: &[u8], chunk_bytes: usize) -> origin::Origin {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Encoding: gzip\r\nETag: \"1\"\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for chunk in body.chunks(chunk_bytes) {
        let size = format!("{:x}\r\n", chunk.len());
        answer.extend([size.as_bytes(), chunk, b"\r\n"].concat());
    }
    answer.extend(b"0\r\n\r\n");
    raw_origin::repeating(answer)
}

#[test]
fn a_compressed_page_gets_its_script_wherever_chunks_end() {
    let long = "<p>all the same</p>".repeat(200_000);
    let page = format!("<html><head></HEAD><body>{long}");
    let expected = page.replace("</HEAD>", "<script src=/banner.js></script></HEAD>");
    for chunk_bytes in [1, 17, 1_000_000] {
        let origin = chunked("text/html; charset=utf-8", &gzip(&page), chunk_bytes);
        let proxy = Proxy::with_config(INJECT).origin("app", origin).start();
        for _ in 0..2 {
            let reply = proxy.get("/");
            assert_eq!(reply.header("content-encoding"), None);
            assert_eq!(reply.header("etag"), Some("W/\"1\""));
            assert!(
                reply.text() == expected,
                "{chunk_bytes}: {} bytes",
                reply.body.len()
            );
        }
        assert_eq!(proxy.error_lines(), [""; 0]);
    }
}

#[test]
fn other_bodies_pass_as_they_are_and_a_broken_one_is_cut() {
    let body = gzip("<head></head>");
    let proxy = Proxy::with_config(INJECT)
        .origin("app", chunked("text/css", &body, 5))
        .start();
    let reply = proxy.get("/");
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!(
        (reply.header("etag"), &*reply.body),
        (Some("\"1\""), &*body)
    );

    let body = gzip(&"<p>".repeat(1_000_000));
    let proxy = Proxy::with_config(INJECT)
        .origin("app", chunked("text/html", &body[..body.len() - 4], 99))
        .start();
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.try_read_reply().expect_err("it is cut");
    proxy.until_log_has("plugin inject failed in response_body: corrupt gzip stream");
}
