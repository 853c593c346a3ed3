//! `coalescing-cache`.

use std::sync::atomic::{AtomicUsize, Ordering};

use castling_tests::origin::Origin;
use castling_tests::{Proxy, RawClient, body, origin, raw_origin, until};

const CONFIG: &str = r#"
    [workers]
    count = 2

    [access_log]
    file = "{dir}/access.log"
    format = "$status $cache_age_us"
    flush = "0s"

    [zones.pages]
    kind = "kv"
    size = "16MiB"
    when_full = "evict"

    [plugins.cache]
    wasm = "{plugins}/coalescing_cache.wasm"
    config = { pages = "pages", upstream = "app", ttl = "1h", wait = "30s" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]
    tries = 1

    [[routes]]
    plugins = ["cache"]
    upstream = "app"
"#;

fn start(origin: Origin) -> Proxy {
    Proxy::with_config(CONFIG).origin("app", origin).start()
}

/// Counts what it was asked, and answers by the query: `cache-control`, `set-cookie` ...
fn counting() -> Origin {
    let count = AtomicUsize::new(0);
    origin::answering(move |seen| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        let response = http::Response::builder().header("x-number", number);
        let header = seen
            .target
            .split_once('?')
            .and_then(|(_, query)| query.split_once('='));
        let response = match header {
            Some((name, value)) => response.header(name, value),
            None => response,
        };
        response.body(body::full("page")).expect("a valid response")
    })
}

#[test]
fn a_page_is_fetched_once_and_what_may_not_be_kept_passes() {
    let proxy = start(counting());
    let how = |target: &str, headers: &[(&str, &str)]| {
        let reply = proxy.get_with(target, headers);
        assert_eq!((reply.status.as_u16(), &*reply.text()), (200, "page"));
        let header = |name| reply.header(name).unwrap_or("-").to_owned();
        (header("x-cache"), header("x-number"))
    };
    let is = |how: &str, number: &str| (how.to_owned(), number.to_owned());
    assert_eq!(how("/a", &[]), is("MISS", "1"));
    for _ in 0..4 {
        assert_eq!(how("/a", &[]), is("HIT", "1"));
    }
    assert_eq!(how("/a", &[("authorization", "Bearer 7")]), is("-", "2"));
    assert_eq!(how("/a?set-cookie=a", &[]), is("MISS", "3"));
    assert_eq!(how("/a?set-cookie=a", &[]), is("-", "4"));
    assert_eq!(how("/a?cache-control=s-maxage=60", &[]), is("MISS", "5"));
    assert_eq!(how("/a?cache-control=s-maxage=60", &[]), is("HIT", "5"));
    let lines = proxy.until_access_lines(10);
    assert_eq!(lines[0], "200 -");
    assert!(
        lines[1]
            .strip_prefix("200 ")
            .is_some_and(|age| age.parse::<u64>().is_ok()),
        "{lines:?}"
    );
}

#[test]
fn whoever_waits_has_the_page_and_takes_the_place_of_a_fetcher_that_fails() {
    let asked = AtomicUsize::new(0);
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    // The first answer is broken off, and both come when the test says so.
    let origin = raw_origin::scripted(move |connection, _| {
        connection.read_head()?;
        let number = asked.fetch_add(1, Ordering::SeqCst);
        let _closed = gate.lock().expect("nobody fails with it").recv();
        match number {
            0 => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npa"),
            _ => connection
                .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage"),
        };
        Ok(())
    });
    let proxy = start(origin);
    let ask = || {
        let mut client = proxy.raw();
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    };
    let mut first = ask();
    until("the origin is asked", || {
        proxy.origin("app").connections() == 1
    });
    let mut waiting: Vec<_> = (0..40).map(|_| ask()).collect();
    until("all are there", || active(&proxy) == 41);
    open.send(()).expect("the origin runs");
    assert_eq!(first.read_reply().status, 502);
    open.send(()).expect("the origin runs");
    let replies: Vec<_> = waiting.iter_mut().map(RawClient::read_reply).collect();
    let counted = |how: &str| {
        let are = replies
            .iter()
            .filter(|it| it.status == 200 && it.text() == "page");
        are.filter(|it| it.header("x-cache") == Some(how)).count()
    };
    assert_eq!((counted("MISS"), counted("WAIT")), (1, 39));
    assert_eq!(proxy.origin("app").connections(), 2);
}

fn active(proxy: &Proxy) -> u64 {
    let status = proxy.status();
    let workers = status["workers"].as_array().expect("workers");
    let active = workers
        .iter()
        .filter_map(|worker| worker["requests_active"].as_u64());
    active.sum()
}
