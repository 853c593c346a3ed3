//! The plugin substitute over real sockets, as its README says.

use std::fs;

use castling_tests::{Proxy, body, origin, workspace_root};
use http::Response;

/// The README's example, which stands between its first pair of fences.
fn example() -> String {
    let readme = fs::read_to_string(workspace_root().join("plugins/substitute/README.md")).unwrap();
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    example.replace("plugins/substitute.wasm", "{plugins}/substitute.wasm")
}

/// An origin whose page has what the example replaces, in many chunks, and that answers requests for parts and codings.
fn start(plugin: &str) -> Proxy {
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        upstream = "app"
        plugins = ["substitute"]
    "#;
    let app = origin::answering(|seen| {
        let response = Response::builder()
            .header("content-type", "text/html; charset=utf-8")
            .header("etag", "\"1\"")
            .header("last-modified", "Mon, 30 Nov 2026 00:00:00 GMT");
        let response = match (seen.header("range"), seen.header("accept-encoding")) {
            (Some(_), _) => response.status(206).header("content-range", "bytes 0-3/7"),
            (None, Some("gzip")) => response.header("content-encoding", "gzip"),
            (None, _) => response,
        };
        response.body(body::full(page())).unwrap()
    });
    Proxy::with_config(&format!("{config}\n{plugin}"))
        .origin("app", app)
        .start()
}

/// 300 KiB, with a link a KiB.
fn page() -> String {
    let line = format!(
        "<a href=\"http://internal.example/\">{}</a>\n",
        "x".repeat(980)
    );
    format!("<body>{}</body>", line.repeat(300))
}

#[test]
fn texts_are_replaced_across_chunks_and_the_head_is_true() {
    let proxy = start(&example());
    let reply = proxy.get("/");
    let expected = page()
        .replace("http://internal.example", "https://www.example.com")
        .replace("</body>", "<script src=\"/stats.js\"></script></body>");
    assert!(reply.text() == expected, "{} bytes", reply.text().len());
    assert_eq!(reply.header("etag"), Some("W/\"1\""));
    for gone in ["last-modified", "accept-ranges", "content-length"] {
        assert_eq!(reply.header(gone), None, "{gone}");
    }
}

#[test]
fn parts_and_coded_bodies_stay_unless_the_peer_is_asked_otherwise() {
    let asking = |proxy: &Proxy, name: &str, value: &str| {
        let reply = proxy.get_with("/", &[(name, value)]);
        let is_replaced = !reply.text().contains("http://internal.example");
        (reply.status.as_u16(), is_replaced)
    };
    let proxy = start(&example());
    assert_eq!(asking(&proxy, "range", "bytes=0-3"), (206, false));
    assert_eq!(asking(&proxy, "accept-encoding", "gzip"), (200, false));
    let both = "[plugins.substitute.config]\nask_whole = true\nask_uncoded = true\n";
    let proxy = start(&example().replace("[plugins.substitute.config]\n", both));
    assert_eq!(asking(&proxy, "range", "bytes=0-3"), (200, true));
    assert_eq!(asking(&proxy, "accept-encoding", "gzip"), (200, true));
}

#[test]
fn a_text_may_be_of_any_case_once_and_say_what_was_asked() {
    let proxy = start(
        r#"
        [plugins.substitute]
        wasm = "{plugins}/substitute.wasm"

        [plugins.substitute.config]
        case = "insensitive"
        once = true
        replace = [{ from = "HTTP://INTERNAL.example/", to = "$path", variables = true }]
    "#,
    );
    let reply = proxy.get("/asked").text();
    assert!(
        reply.starts_with("<body><a href=\"/asked\">x"),
        "{}",
        &reply[..60]
    );
    assert_eq!(reply.matches("http://internal.example/").count(), 299);
}

/// A chunk becomes 500 times as long, which is more than `limits.body` and than the instance has memory.
#[test]
fn a_chunk_may_become_longer_than_the_plugins_limits() {
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        upstream = "app"
        plugins = ["substitute"]

        [plugins.substitute]
        wasm = "{plugins}/substitute.wasm"
        limits = { body = "128KiB", memory = "4MiB" }
        config = { replace = [{ from = "a", to = "TO" }], types = ["text/plain"] }
    "#;
    let to = "x".repeat(500);
    let app = origin::answering(|_| {
        let response = Response::builder().header("content-type", "text/plain");
        response.body(body::full("a-".repeat(10_000))).unwrap()
    });
    let proxy = Proxy::with_config(&config.replace("TO", &to))
        .origin("app", app)
        .start();
    let text = proxy.get("/").text();
    assert!(
        text == format!("{to}-").repeat(10_000),
        "{} bytes",
        text.len()
    );
    assert_eq!(proxy.error_lines(), [""; 0]);
}
