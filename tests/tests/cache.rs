//! The cache of a route: what is stored, how long it is used, and what clients get of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use castling_tests::client::Reply;
use castling_tests::{Exposition, Proxy, body, origin, until};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};

const CONFIG: &str = r#"
    [workers]
    count = 2

    [zones.pages]
    kind = "cache"
    size = "16MiB"

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]
    tries = 1

    [[routes]]
    path = "/metrics"
    metrics = true

    [[routes]]
    upstream = "app"
    cache = CACHE
"#;

/// Origin that answers as the request says: `x-say` has fields of the response, by `|`, and `x-status` its status. The body is how many
/// requests there were, and what `x-body` says. A request whose condition has the tag of `x-say` gets 304.
fn obeying() -> origin::Origin {
    let count = AtomicUsize::new(0);
    origin::answering(move |seen| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let text = format!("{number}{}", seen.header("x-body").unwrap_or_default());
        let mut response = Response::new(body::full(text));
        for field in seen.header("x-say").unwrap_or_default().split('|') {
            let Some((name, value)) = field.split_once(": ") else {
                continue;
            };
            let name: HeaderName = name.parse().unwrap();
            response
                .headers_mut()
                .append(name, HeaderValue::from_str(value).unwrap());
        }
        let tag = response.headers().get("etag").cloned();
        if tag.is_some() && seen.headers.get("if-none-match") == tag.as_ref() {
            *response.body_mut() = body::full("");
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        if let Some(status) = seen.header("x-status") {
            *response.status_mut() = status.parse().unwrap();
        }
        response
    })
}

fn start(cache: &str) -> Proxy {
    Proxy::with_config(&CONFIG.replace("CACHE", cache))
        .origin("app", obeying())
        .start()
}

fn usual() -> Proxy {
    start("\"pages\"")
}

/// Body and what the cache says of it.
fn told(reply: &Reply) -> String {
    let status = reply.header("cache-status").unwrap_or("-");
    format!("{} {status}", reply.text())
}

fn get(proxy: &Proxy, say: &str) -> String {
    told(&proxy.get_with("/a", &[("x-say", say)]))
}

/// A response that is stale when it comes.
const STALE: &str = "cache-control: max-age=10|age: 20";

#[test]
fn what_is_fresh_answers_in_all_workers_and_says_how_old_it_is() {
    let proxy = usual();
    let fresh = "cache-control: max-age=60|x-other: b";
    assert_eq!(get(&proxy, fresh), "1 castling; fwd=uri-miss; stored");
    for _ in 0..10 {
        let reply = proxy.get("/a");
        assert_eq!(told(&reply).split("ttl=").next(), Some("1 castling; hit; "));
        assert_eq!(reply.header("x-other"), Some("b"));
        assert_eq!(reply.header("content-length"), Some("1"));
        assert!(reply.header("age").is_some() && reply.header("date").is_some());
        assert_eq!(reply.header("via"), Some("1.1 castling"));
    }
    assert_eq!(proxy.get("/a?b").text(), "2");
    let head = Request::head("/a").body(body::empty()).unwrap();
    let reply = proxy.send(head);
    assert_eq!(reply.header("content-length"), Some("1"));
    assert!(reply.header("cache-status").unwrap().contains("hit"));
    let metrics = Exposition::parse(&proxy.get("/metrics").text());
    let labels = |result| [("zone", "pages"), ("result", result)];
    let requests = |result| metrics.sum("castling_cache_requests_total", &labels(result));
    assert_eq!((requests("hit"), requests("miss")), (11.0, 2.0));
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn what_may_not_be_stored_is_not() {
    let proxy = usual();
    for (say, why) in [
        ("", "no-freshness"),
        ("cache-control: max-age=60, no-store", "no-store"),
        ("cache-control: max-age=60, private", "private"),
        ("cache-control: max-age=60|set-cookie: a=b", "set-cookie"),
        ("cache-control: max-age=60|vary: *", "vary"),
        (STALE, "stale"),
    ] {
        for _ in 0..2 {
            let told = get(&proxy, say);
            assert!(
                told.ends_with(&format!("fwd=uri-miss; detail={why}")),
                "{told}"
            );
        }
    }
    let fresh = ("x-say", "cache-control: max-age=60");
    for _ in 0..2 {
        let reply = proxy.get_with("/login", &[fresh, ("authorization", "Basic eA==")]);
        assert!(told(&reply).ends_with("detail=authorization"));
    }
}

#[test]
fn variants_are_stored_beside_one_another() {
    let proxy = usual();
    let fresh = (
        "x-say",
        "cache-control: max-age=60|vary: Accept-Language, X-Kind",
    );
    let ask = |headers: &[(&str, &str)]| {
        let reply = proxy.get_with("/a", &[headers, &[fresh]].concat());
        told(&reply).split("; ttl").next().unwrap().to_owned()
    };
    let english = &[("accept-language", "en, de"), ("x-kind", "a")];
    assert_eq!(ask(english), "1 castling; fwd=uri-miss; stored");
    assert_eq!(
        ask(&[("accept-language", "fr")]),
        "2 castling; fwd=vary-miss; stored"
    );
    assert_eq!(ask(english), "1 castling; hit");
    let same = &[("accept-language", "EN,de"), ("x-kind", " a ")];
    assert_eq!(ask(same), "1 castling; hit");
    assert_eq!(ask(&[("accept-language", "fr")]), "2 castling; hit");
}

#[test]
fn the_origin_is_asked_whether_what_is_stale_is_still_good() {
    let proxy = usual();
    let stale = format!("{STALE}|etag: \"a\"|x-new: 1");
    assert_eq!(get(&proxy, &stale), "1 castling; fwd=uri-miss; stored");
    let fresh = "cache-control: max-age=60|etag: \"a\"|x-new: 2|content-type: text/css";
    let reply = proxy.get_with("/a", &[("x-say", fresh)]);
    assert_eq!(
        told(&reply),
        "1 castling; fwd=stale; fwd-status=304; stored"
    );
    assert_eq!(reply.header("x-new"), Some("2"));
    let asked = proxy.origin("app").last();
    assert_eq!(asked.header("if-none-match"), Some("\"a\""));
    let reply = proxy.get("/a");
    assert!(
        told(&reply).starts_with("1 castling; hit"),
        "{}",
        told(&reply)
    );
    assert_eq!(reply.header("x-new"), Some("2"));
    assert_eq!(proxy.origin("app").requests(), 2);
    // Another tag is another response.
    let proxy = usual();
    get(&proxy, &stale);
    let other = "cache-control: max-age=60|etag: \"b\"";
    assert_eq!(get(&proxy, other), "2 castling; fwd=stale; stored");
    // `no-cache` asks each time.
    let asks = "cache-control: no-cache|etag: \"c\"";
    let reply = |path: &str| told(&proxy.get_with(path, &[("x-say", asks)]));
    assert_eq!(reply("/c"), "3 castling; fwd=uri-miss; stored");
    assert_eq!(reply("/c"), "3 castling; fwd=stale; fwd-status=304; stored");
    assert_eq!(reply("/c"), "3 castling; fwd=stale; fwd-status=304; stored");
}

#[test]
fn clients_that_have_it_already_get_304_and_those_that_want_a_part_get_that() {
    let proxy = usual();
    let say = (
        "x-say",
        "cache-control: max-age=60|etag: \"a\"|content-type: text/plain",
    );
    let ask = |headers: &[(&str, &str)]| {
        let all = [headers, &[say, ("x-body", "23456789")]].concat();
        let reply = proxy.get_with("/a", &all);
        (reply.status.as_u16(), reply.text(), reply)
    };
    // The origin does not see the client's conditions, also where nothing is stored.
    let (status, text, reply) = ask(&[("if-none-match", "\"a\"")]);
    assert_eq!((status, text.as_str()), (304, ""));
    assert_eq!(reply.header("etag"), Some("\"a\""));
    assert_eq!(proxy.origin("app").last().header("if-none-match"), None);
    until("it is stored", || ask(&[]).2.header("age").is_some());
    assert_eq!(ask(&[("if-none-match", "W/\"a\"")]).0, 304);
    assert_eq!(ask(&[("if-none-match", "\"b\"")]).1, "123456789");
    let (status, text, reply) = ask(&[("range", "bytes=2-3")]);
    assert_eq!((status, text.as_str()), (206, "34"));
    assert_eq!(reply.header("content-range"), Some("bytes 2-3/9"));
    let (status, text, _) = ask(&[("range", "bytes=-2"), ("if-range", "\"a\"")]);
    assert_eq!((status, text.as_str()), (206, "89"));
    let (status, text, _) = ask(&[("range", "bytes=-2"), ("if-range", "\"b\"")]);
    assert_eq!((status, text.as_str()), (200, "123456789"));
    let (status, _, reply) = ask(&[("range", "bytes=9-")]);
    assert_eq!(
        (status, reply.header("content-range")),
        (416, Some("bytes */9"))
    );
    let (status, text, reply) = ask(&[("range", "bytes=0-1,-1")]);
    assert_eq!(status, 206);
    let kind = reply.header("content-type").unwrap();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let part = |range: &str, text: &str| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/9\r\n\r\n{text}"
        )
    };
    let end = format!("\r\n--{boundary}--\r\n");
    assert_eq!(text, part("0-1", "12") + &part("8-8", "9") + &end);
    assert_eq!(proxy.origin("app").requests(), 1);
    // A part of what is not stored is one of what is stored then.
    let reply = proxy.get_with("/b", &[say, ("x-body", "bc"), ("range", "bytes=1-1")]);
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (206, "b"));
    assert_eq!(proxy.origin("app").last().header("range"), None);
    assert_eq!(proxy.get("/b").text(), "2bc");
}

#[test]
fn what_is_stale_answers_while_one_request_fetches_it_anew() {
    let proxy = usual();
    let stale = "cache-control: max-age=10, stale-while-revalidate=60|age: 20";
    assert_eq!(get(&proxy, stale), "1 castling; fwd=uri-miss; stored");
    let told = get(&proxy, "cache-control: max-age=60");
    assert_eq!(
        told,
        "1 castling; hit; ttl=-10; detail=stale-while-revalidate"
    );
    until("it is new", || proxy.get("/a").text() == "2");
    assert_eq!(proxy.origin("app").requests(), 2);
}

#[test]
fn what_is_stale_answers_where_the_origin_fails_and_not_for_longer_than_it_may() {
    let proxy = start(r#"{ zone = "pages", stale_if_error = "60s" }"#);
    assert_eq!(get(&proxy, STALE), "1 castling; fwd=uri-miss; stored");
    let failing = [("x-status", "503")];
    let reply = proxy.get_with("/a", &failing);
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(
        told(&reply),
        "1 castling; fwd=stale; fwd-status=503; detail=stale-if-error"
    );
    for strict in ["must-revalidate", "s-maxage=10", "no-cache"] {
        let say = format!("cache-control: max-age=10, {strict}|age: 20|etag: \"{strict}\"");
        let path = format!("/{strict}");
        proxy.get_with(&path, &[("x-say", &say)]);
        assert_eq!(proxy.get_with(&path, &failing).status, 503, "{strict}");
    }
    let late = "cache-control: max-age=10|age: 71";
    proxy.get_with("/late", &[("x-say", late)]);
    assert_eq!(proxy.get_with("/late", &failing).status, 503);
}

#[test]
fn requests_that_change_something_have_what_is_stored_forgotten() {
    let proxy = usual();
    let say = ("x-say", "cache-control: max-age=60");
    let post = |path: &str, fields: &str, status: &str| {
        let request = Request::post(path)
            .header("x-say", fields)
            .header("x-status", status);
        let reply = proxy.send(request.body(body::full("x")).unwrap());
        assert_eq!(reply.header("cache-status"), Some("castling; fwd=method"));
    };
    let text = |path: &str| proxy.get_with(path, &[say]).text();
    let texts = |expected: [&str; 3]| {
        assert_eq!(["/a/b", "/a/c", "/d"].map(text), expected);
    };
    texts(["1", "2", "3"]);
    post("/a/b", "", "500");
    texts(["1", "2", "3"]);
    post("/a/b", "", "200");
    texts(["6", "2", "3"]);
    post(
        "/a/b",
        "location: c|content-location: http://other.example/d",
        "201",
    );
    texts(["8", "9", "3"]);
    post("/x", "location: /d", "303");
    texts(["8", "9", "11"]);
}

#[test]
fn the_config_says_what_responses_do_not() {
    let cache = r#"{ zone = "pages", key = "$path", ttl = { 404 = "1m", 2xx = "1m" }, bypass = ["$arg_new"], no_store = ["$arg_secret"], status_field = false }"#;
    let proxy = start(cache);
    let text = |target: &str, status: &str| {
        let reply = proxy.get_with(target, &[("x-status", status)]);
        assert_eq!(reply.header("cache-status"), None);
        reply.text()
    };
    assert_eq!(text("/a?x", "200"), "1");
    assert_eq!(text("/a?y", "200"), "1");
    assert_eq!(text("/a?new=0", "200"), "1");
    assert_eq!(text("/a?new=1", "200"), "2");
    assert_eq!(text("/a", "200"), "2");
    assert_eq!(text("/b?secret=1", "200"), "3");
    assert_eq!(text("/b", "500"), "4");
    assert_eq!(text("/b", "404"), "5");
    assert_eq!(text("/b", "200"), "5");
    let proxy = start(
        r#"{ zone = "pages", ignore_origin = true, ttl = { 200 = "1m" }, store_cookies = true }"#,
    );
    let own = "cache-control: no-store, private|set-cookie: a=b";
    assert_eq!(get(&proxy, own), "1 castling; fwd=uri-miss; stored");
    assert!(get(&proxy, own).starts_with("1 castling; hit"));
}

#[test]
fn clients_say_what_they_take_where_they_may() {
    let fresh = ("x-say", "cache-control: max-age=60");
    let ask =
        |proxy: &Proxy, control: &str| proxy.get_with("/a", &[fresh, ("cache-control", control)]);
    let deaf = usual();
    assert_eq!(ask(&deaf, "only-if-cached").text(), "1");
    assert_eq!(ask(&deaf, "no-cache").text(), "1");
    let proxy = start(r#"{ zone = "pages", obey_client = true }"#);
    assert_eq!(ask(&proxy, "only-if-cached").status, 504);
    assert_eq!(ask(&proxy, "x").text(), "1");
    assert_eq!(ask(&proxy, "only-if-cached").text(), "1");
    assert_eq!(
        told(&ask(&proxy, "no-cache")),
        "2 castling; fwd=request; stored"
    );
    assert_eq!(ask(&proxy, "max-age=0").text(), "3");
    assert_eq!(ask(&proxy, "min-fresh=100").text(), "4");
    assert_eq!(ask(&proxy, "min-fresh=10").text(), "4");
}

#[test]
fn what_is_one_clients_is_not_kept_for_others_while_it_is_fetched_anew() {
    let cache = r#"{ zone = "pages", ttl = { 200 = "1m" }, stale_while_revalidate = "60s", no_store = ["$cookie_session"] }"#;
    let proxy = start(cache);
    assert_eq!(get(&proxy, "age: 70"), "1 castling; fwd=uri-miss; stored");
    // One who has a session gets a response of its own in the place of what is stale.
    let own = [("cookie", "session=x"), ("x-body", " of x")];
    assert_eq!(proxy.get_with("/a", &own).text(), "2of x");
    assert_eq!(proxy.origin("app").requests(), 2);
    assert!(get(&proxy, "").starts_with("1 castling; hit"));
    until("it is new", || proxy.get("/a").text() == "3");
    // With credentials, what comes is for one client, and what is there stays.
    let proxy = usual();
    let stale = "cache-control: max-age=10|age: 20|etag: \"a\"";
    proxy.get_with("/b", &[("x-say", stale)]);
    let login = [
        ("x-say", "cache-control: max-age=60|etag: \"a\""),
        ("authorization", "x"),
    ];
    let reply = proxy.get_with("/b", &login);
    assert_eq!(told(&reply), "1 castling; fwd=stale; fwd-status=304");
    assert!(told(&proxy.get_with("/b", &[("x-say", stale)])).contains("fwd-status=304; stored"));
}

#[test]
fn routes_and_upstreams_do_not_answer_for_one_another() {
    let other = r#"
    [upstreams.other]
    peers = ["{other}"]

    [[routes]]
    path = "/"
    headers = { x-canary = "1" }
    upstream = "other"
    cache = CACHE

    [[routes]]
    upstream = "app"
"#;
    for cache in ["\"pages\"", r#"{ zone = "pages", key = "$path" }"#] {
        let config = CONFIG.replacen("    [[routes]]\n    upstream = \"app\"\n", &other[1..], 1);
        let proxy = Proxy::with_config(&config.replace("CACHE", cache))
            .origin("app", obeying())
            .origin("other", obeying())
            .start();
        let fresh = ("x-say", "cache-control: max-age=60");
        let ask = |canary: &str| proxy.get_with("/a", &[fresh, ("x-canary", canary)]);
        assert!(told(&ask("1")).ends_with("fwd=uri-miss; stored"));
        assert!(told(&ask("0")).ends_with("fwd=uri-miss; stored"));
        assert!(told(&ask("1")).contains("; hit"));
    }
    let proxy = usual();
    let fresh = [("x-say", "cache-control: max-age=60")];
    let port = proxy.address().port();
    for (host, expected) in [
        ("a.example", "1"),
        ("A.Example:80", "1"),
        ("b.example", "2"),
    ] {
        let mut client = proxy.raw();
        let [(name, value)] = fresh;
        client.send(format!(
            "GET /a HTTP/1.1\r\nHost: {host}\r\n{name}: {value}\r\n\r\n"
        ));
        assert_eq!(client.read_reply().text(), expected, "{host} at {port}");
    }
}

#[test]
fn what_was_invalidated_does_not_come_back() {
    let proxy = usual();
    let ask = |language: &str| {
        let say = ("x-say", "cache-control: max-age=60|vary: accept-language");
        proxy
            .get_with("/a", &[say, ("accept-language", language)])
            .text()
    };
    assert_eq!([ask("en"), ask("fr"), ask("en")], ["1", "2", "1"]);
    proxy.post("/a", body::full("x"));
    assert_eq!([ask("en"), ask("fr")], ["4", "5"]);
    // A response that does not say by what it varies leaves the other variants.
    let missing = [
        ("x-status", "404"),
        ("accept-language", "de"),
        ("x-say", "cache-control: max-age=60"),
    ];
    assert_eq!(proxy.get_with("/a", &missing).text(), "6");
    assert_eq!([ask("en"), ask("fr"), ask("de")], ["4", "5", "6"]);
}

#[test]
fn what_the_origin_has_stale_at_once_is_not_used_by_settings() {
    let proxy =
        start(r#"{ zone = "pages", stale_while_revalidate = "60s", stale_if_error = "60s" }"#);
    for (path, say) in [("/a", "expires: 0"), ("/b", "cache-control: max-age=0")] {
        for _ in 0..2 {
            let reply = proxy.get_with(path, &[("x-say", say)]);
            assert!(
                told(&reply).ends_with("fwd=uri-miss; detail=stale"),
                "{}",
                told(&reply)
            );
        }
    }
    let proxy = usual();
    let without = "cache-control: max-age=10, no-cache=\"x-own\"|age: 20|etag: \"a\"|x-own: ONE";
    assert_eq!(
        proxy.get_with("/a", &[("x-say", without)]).header("x-own"),
        Some("ONE")
    );
    let fresh = without.replace("|age: 20", "").replace("ONE", "TWO");
    assert_eq!(
        proxy.get_with("/a", &[("x-say", &fresh)]).header("x-own"),
        Some("TWO")
    );
    let reply = proxy.get("/a");
    assert!(told(&reply).starts_with("1 castling; hit"));
    assert_eq!(reply.header("x-own"), None);
    assert!(
        told(&proxy.get_with("/via", &[("x-say", "cache-control: max-age=60|vary: via")]))
            .ends_with("detail=vary")
    );
    let events = "cache-control: max-age=60|content-type: text/event-stream; charset=utf-8";
    assert!(told(&proxy.get_with("/e", &[("x-say", events)])).ends_with("detail=event-stream"));
}

#[test]
fn sessions_are_no_part_of_what_is_stored() {
    let config = CONFIG.replace(
        "tries = 1",
        "tries = 1\n    sticky = { cookie = \"peer\", secret = \"0123456789abcdef0123\" }",
    );
    for cache in ["\"pages\"", r#"{ zone = "pages", store_cookies = true }"#] {
        let proxy = Proxy::with_config(&config.replace("CACHE", cache))
            .origin("app", obeying())
            .start();
        let fresh = [("x-say", "cache-control: max-age=60")];
        let reply = proxy.get_with("/a", &fresh);
        assert!(reply.header("set-cookie").unwrap().starts_with("peer="));
        assert_eq!(told(&reply), "1 castling; fwd=uri-miss; stored");
        let reply = proxy.get_with("/a", &fresh);
        assert_eq!(reply.header("set-cookie"), None);
        assert!(told(&reply).starts_with("1 castling; hit"));
    }
}

#[test]
fn clients_have_what_is_not_stored_as_they_ask_for_it() {
    let proxy = usual();
    let own = (
        "x-say",
        "cache-control: private|etag: \"a\"|last-modified: Sun, 06 Nov 1994 08:49:37 GMT",
    );
    let has = [own, ("if-none-match", "\"a\"")];
    assert_eq!(proxy.get_with("/a", &has).status, 304);
    // The next one is the origin's to answer.
    let reply = proxy.get_with("/a", &has);
    assert_eq!(reply.status, 304);
    assert_eq!(
        proxy.origin("app").last().header("if-none-match"),
        Some("\"a\"")
    );
}
