//! Kept connections to peers: how many, and which are not used again.

use castling_tests::{Proxy, RawClient, origin, raw_origin, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn unasked(proxy: &Proxy) -> usize {
    let metrics = proxy.command("metrics", &[]).stdout;
    let series = "castling_upstream_unasked_bytes_total{upstream=\"app\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.and_then(|count| count.parse().ok())
        .unwrap_or_else(|| panic!("no {series} in\n{metrics}"))
}

#[test]
fn as_many_connections_are_kept_as_were_in_use_at_once() {
    const CLIENTS: usize = 100;
    let origin = origin::answering_after(std::time::Duration::from_millis(100), |_| {
        http::Response::new(castling_tests::body::full("ok"))
    });
    let proxy = Proxy::before(origin);
    let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| proxy.raw()).collect();
    for _ in 0..3 {
        for client in &mut clients {
            client.send(GET);
        }
        for client in &mut clients {
            assert_eq!(client.read_reply().status, 200);
        }
    }
    let made = proxy.origin("app").connections();
    assert!(made <= CLIENTS, "{made} connections for {CLIENTS} clients");
}

#[test]
fn a_peer_that_sends_more_than_it_was_asked_for_poisons_no_response() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for (first, head) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"),
    ] {
        let proxy = Proxy::before(raw_origin::scripted(move |connection, number| {
            loop {
                connection.read_head()?;
                match number {
                    0 => connection.send([head, poison].concat()),
                    _ => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"),
                };
            }
        }));
        let mut client = proxy.raw();
        client.send(format!("{first} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        match first {
            "HEAD" => client.read_reply_to_head(),
            _ => client.read_reply(),
        };
        for _ in 0..3 {
            assert_eq!(client.send(GET).read_reply().text(), "good", "{head}");
        }
        proxy.until_log_has("sent bytes that nobody had asked for");
        assert_eq!(unasked(&proxy), 1);
        // Nothing is kept of it any more.
        assert_eq!(proxy.origin("app").connections(), 4, "{head}");
    }
}

#[test]
fn bytes_that_come_late_are_found_before_the_next_request() {
    let late = Proxy::before(raw_origin::scripted(|connection, number| {
        loop {
            connection.read_head()?;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
            if number == 0 {
                std::thread::sleep(std::time::Duration::from_millis(200));
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
            }
        }
    }));
    let mut client = late.raw();
    assert_eq!(client.send(GET).read_reply().text(), "good");
    // Idle connections are looked at every few seconds, and each before it is used.
    until("the peer is caught", || unasked(&late) == 1);
    for _ in 0..3 {
        assert_eq!(client.send(GET).read_reply().text(), "good");
    }
    assert_eq!(late.origin("app").connections(), 4);
}
