//! Heads: names, numbers and sizes of fields, targets beyond ASCII, interim responses, and what the gateway adds.

use std::thread;
use std::time::Duration;

use castling_tests::{Proxy, origin, raw_origin};
use http::StatusCode;

/// Config with one worker and one route; `listener` and `upstream` are further keys of the two.
fn config(listener: &str, upstream: &str) -> String {
    format!(
        r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{{listen}}"
        {listener}

        [upstreams.app]
        peers = ["{{app}}"]
        {upstream}

        [[routes]]
        upstream = "app"
    "#
    )
}

fn fields(count: usize) -> String {
    (0..count).map(|idx| format!("x-{idx}: a\r\n")).collect()
}

#[test]
fn a_request_has_a_thousand_fields_unless_the_listener_says_otherwise() {
    for (keys, most) in [("", 1000), ("max_fields = 20", 20)] {
        let proxy = Proxy::with_config(&config(keys, ""))
            .origin(
                "app",
                raw_origin::repeating("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            )
            .start();
        for (count, status) in [(most, 200), (most + 1, 431)] {
            let mut client = proxy.raw();
            let more = fields(count - 1);
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
            assert_eq!(client.read_reply().status, status, "{count} fields");
        }
    }
}

#[test]
fn a_response_has_as_large_a_head_as_the_upstream_may_send() {
    let head = |count: usize, bytes: usize| {
        let (more, long) = (fields(count - 2), "l".repeat(bytes));
        format!("HTTP/1.1 200 OK\r\n{more}x-long: {long}\r\nContent-Length: 2\r\n\r\nok")
    };
    for (keys, response, status) in [
        ("", head(1000, 1), 200),
        ("", head(1001, 1), 502),
        ("max_fields = 20", head(21, 1), 502),
        ("", head(2, 70_000), 502),
        ("max_head = \"128KiB\"", head(2, 70_000), 200),
    ] {
        let proxy = Proxy::with_config(&config("", keys))
            .origin("app", raw_origin::repeating(response))
            .start();
        let mut client = proxy.raw();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_reply().status, status, "{keys}");
    }
}

#[test]
fn a_field_that_a_back_end_takes_for_another_is_dropped() {
    let request =
        "GET / HTTP/1.1\r\nHost: a\r\nX_User: admin\r\nX.User: admin\r\nX-User: me\r\n\r\n";
    let names = ["x_user", "x.user", "x-user"];
    let seen = |keys: &str| {
        let proxy = Proxy::with_config(&config(keys, ""))
            .origin("app", origin::text("ok"))
            .start();
        let mut client = proxy.raw();
        client.send(request);
        assert_eq!(client.read_reply().status, 200);
        let seen = proxy.origin("app").last();
        let metrics = proxy.command("metrics", &[]).stdout;
        let dropped = metrics
            .lines()
            .find(|line| line.starts_with("castling_request_fields_dropped_total{"));
        let dropped = dropped.and_then(|line| line.rsplit(' ').next().map(str::to_owned));
        (names.map(|name| seen.header(name).is_some()), dropped)
    };
    let (kept, dropped) = seen("");
    assert_eq!(
        (kept, dropped.as_deref()),
        ([false, false, true], Some("2"))
    );
    let (kept, dropped) = seen("field_names = \"any\"");
    assert_eq!((kept, dropped.as_deref()), ([true; 3], Some("0")));
}

#[test]
fn bytes_beyond_ascii_in_a_target_are_encoded_or_refused() {
    let start = |keys: &str| {
        Proxy::with_config(&config(keys, ""))
            .origin("app", origin::text("ok"))
            .start()
    };
    let get = |proxy: &Proxy, target: &[u8]| {
        let mut client = proxy.raw();
        client.send([b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        client.read_reply().status
    };
    let proxy = start("");
    for (target, encoded) in [
        ("/grün?für=ä".as_bytes(), "/gr%C3%BCn?f%C3%BCr=%C3%A4"),
        (b"/gr\xfcn", "/gr%FCn"),
    ] {
        assert_eq!(get(&proxy, target), 200);
        assert_eq!(proxy.origin("app").last().target, encoded);
    }
    let proxy = start("non_ascii_target = \"refuse\"");
    assert_eq!(get(&proxy, "/grün".as_bytes()), 400);
    assert_eq!(get(&proxy, b"/gr\xfcn"), 400);
    assert_eq!(proxy.origin("app").requests(), 0);
}

#[test]
fn interim_responses_reach_a_client_that_knows_them() {
    let hints =
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-private\r\nX-Private: 1\r\n\r\n";
    let proxy = Proxy::before(raw_origin::repeating(format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )));
    let mut client = proxy.raw();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_reply().status, 102);
        let hints = client.read_reply();
        assert_eq!((hints.status, hints.header("link")), (103, Some("</a>")));
        assert_eq!(
            (hints.header("x-private"), hints.header("date")),
            (None, None)
        );
        assert_eq!(client.read_reply().text(), "ok");
    }
    // While a body is sent, too.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh");
    assert_eq!(client.read_reply().status, 102);
    assert_eq!(client.read_reply().status, 103);
    client.send("i");
    assert_eq!(client.read_reply().text(), "ok");
    let mut old = proxy.raw();
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(old.read_reply().status, 200);
}

#[test]
fn interim_responses_without_end_are_502() {
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(33);
    let proxy = Proxy::before(raw_origin::repeating(hints));
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let statuses = std::iter::repeat_with(|| client.read_reply().status);
    assert_eq!(statuses.take(33).last(), Some(502));
    proxy.until_log_has("sent more than 32 interim responses");
}

#[test]
fn interim_responses_do_not_prolong_the_wait_for_the_response() {
    let config = r#"
        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]
        response_timeout = "300ms"
        tries = 1

        [[routes]]
        upstream = "app"
    "#;
    // 32 of them would take five times as long.
    let origin = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        loop {
            connection.send("HTTP/1.1 103 Early Hints\r\n\r\n");
            thread::sleep(Duration::from_millis(50));
        }
    });
    let proxy = Proxy::with_config(config).origin("app", origin).start();
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut statuses = std::iter::repeat_with(|| client.read_reply().status);
    assert_eq!(statuses.find(|status| *status >= 200), Some(504));
}

#[test]
fn trailers_are_announced_where_they_are_passed_on() {
    let proxy = Proxy::before(raw_origin::repeating(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
    ));
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let head = client.read_head().unwrap();
    assert!(head.contains("\r\ntrailer: X-Sum\r\n"), "{head}");
    let body = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    assert_eq!(body, "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n");
}

#[test]
fn trailers_of_a_request_reach_the_peer_also_when_it_is_sent_again() {
    const BODY: &str = "2\r\nok\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n";
    let broken = raw_origin::scripted(|connection, _| {
        connection.read_head()?;
        connection.read_exact(BODY.len()).map(drop)
    });
    let sound = raw_origin::scripted(|connection, _| {
        let head = connection.read_head()?;
        let body = connection.read_exact(BODY.len())?;
        let is_announced = head.contains("\r\ntrailer: X-Sum, X-More\r\n");
        let status = match is_announced && body == BODY.as_bytes() {
            true => 200,
            false => 400,
        };
        connection.send(format!(
            "HTTP/1.1 {status} Seen\r\nContent-Length: 0\r\n\r\n"
        ));
        connection.read_head().map(drop)
    });
    let config = config("", "").replace("[\"{app}\"]", "[\"{broken}\", \"{sound}\"]");
    let proxy = Proxy::with_config(&config)
        .origin("broken", broken)
        .origin("sound", sound)
        .start();
    let mut client = proxy.raw();
    client.send(
        "PUT / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum, X-More\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nok\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\nContent-Length: 7\r\n\r\n",
    );
    assert_eq!(client.read_reply().status, 200);
}

#[test]
fn via_and_server_are_as_the_listener_says() {
    let origin =
        || raw_origin::repeating("HTTP/1.1 200 OK\r\nServer: mine\r\nContent-Length: 2\r\n\r\nok");
    for (keys, via, server, own) in [
        ("", Some("1.1 castling"), Some("mine"), Some("castling")),
        ("via = false", None, Some("mine"), Some("castling")),
        ("server = \"remove\"", Some("1.1 castling"), None, None),
        (
            "server = \"front/1\"",
            Some("1.1 castling"),
            Some("front/1"),
            Some("front/1"),
        ),
    ] {
        let proxy = Proxy::with_config(&config(keys, ""))
            .origin("app", origin())
            .start();
        let reply = proxy.get("/");
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(
            (reply.header("via"), reply.header("server")),
            (via, server),
            "{keys}"
        );
        for bad in ["TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "bad\r\n\r\n"] {
            let mut client = proxy.raw();
            client.send(bad);
            assert_eq!(client.read_reply().header("server"), own, "{keys}");
        }
    }
    let proxy = Proxy::with_config(&config("via = false", ""))
        .origin("app", origin::text("ok"))
        .start();
    proxy.get("/");
    assert_eq!(proxy.origin("app").last().header("via"), None);
}
