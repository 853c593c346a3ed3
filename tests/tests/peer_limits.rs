//! Peers with `max_active`, and requests that wait for one with room.

use std::sync::{Arc, Barrier, Condvar, Mutex, PoisonError};

use castling_tests::{Exposition, Proxy, RawClient, origin, raw_origin, until};

/// Lets requests of an origin be answered one by one.
#[derive(Clone, Default)]
struct Turnstile(Arc<(Mutex<usize>, Condvar)>);

impl Turnstile {
    fn let_through(&self, requests: usize) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += requests;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = |open: &mut usize| *open == 0;
        let open = self.0.1.wait_while(open, closed);
        *open.unwrap_or_else(PoisonError::into_inner) -= 1;
    }

    /// An origin whose answers wait to be let through.
    fn origin(&self) -> origin::Origin {
        let turnstile = self.clone();
        raw_origin::scripted(move |connection, _| {
            while connection.read_head().is_ok() {
                turnstile.pass();
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            Ok(())
        })
    }
}

fn config(upstream: &str) -> String {
    format!(
        r#"
        [workers]
        count = 2

        [listeners.web]
        bind = "{{listen}}"

        [upstreams.app]
        {upstream}

        [[routes]]
        upstream = "app"

        [[routes]]
        path = "/metrics"
        metrics = true
    "#
    )
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Clients that have each sent a request, when the origin has as many as it is to get.
fn clients<const N: usize>(proxy: &Proxy, at_origin: usize) -> [RawClient; N] {
    let clients = [(); N].map(|()| {
        let mut client = proxy.raw();
        client.send(GET);
        client
    });
    while proxy.origin("app").connections() < at_origin {
        std::thread::yield_now();
    }
    clients
}

/// Whether something has come for the client.
fn has_answer(client: &RawClient) -> bool {
    let socket = client.socket();
    socket.set_nonblocking(true).unwrap();
    let has_answer = socket.peek(&mut [0]).is_ok();
    socket.set_nonblocking(false).unwrap();
    has_answer
}

#[test]
fn a_limit_holds_over_all_workers_and_what_is_beyond_it_is_answered_503() {
    let turnstile = Turnstile::default();
    let proxy = Proxy::with_config(&config(
        r#"peers = ["{app}"]
        max_active = 3"#,
    ))
    .origin("app", turnstile.origin())
    .start();
    let mut clients: [RawClient; 12] = clients(&proxy, 3);
    // Whoever came later than an answer would find room.
    until("nine are refused", || {
        clients.iter().filter(|client| has_answer(client)).count() == 9
    });
    turnstile.let_through(3);
    let statuses = clients.each_mut().map(|client| client.read_reply().status);
    let count = |status| statuses.iter().filter(|it| **it == status).count();
    assert_eq!((count(200), count(503)), (3, 9), "{statuses:?}");
    // Each that has ended makes room.
    turnstile.let_through(1);
    assert_eq!(clients[0].send(GET).read_reply().status, 200);
    // A worker that had no room before has no connection yet.
    assert!((3..=4).contains(&proxy.origin("app").connections()));
}

#[test]
fn requests_wait_for_room_in_their_order_and_not_for_ever() {
    let turnstile = Turnstile::default();
    let limits = r#"peers = ["{app}"]
        max_active = 1
        queue = { size = 2, timeout = "60s" }"#;
    let config = config(limits).replace("count = 2", "count = 1");
    let mut proxy = Proxy::with_config(&config)
        .origin("app", turnstile.origin())
        .start();
    let mut clients: [RawClient; 4] = clients(&proxy, 1);
    let metrics = |proxy: &Proxy| Exposition::parse(&proxy.get("/metrics").text());
    // One request is beyond the queue.
    let over = loop {
        if let Some(over) = clients.iter().position(has_answer) {
            break over;
        }
    };
    assert_eq!(clients[over].read_reply().status, 503);
    let upstream = [("upstream", "app")];
    let pending = metrics(&proxy).get("castling_upstream_pending_requests", &upstream);
    assert_eq!(pending, Some(2.0));
    turnstile.let_through(3);
    for (_, client) in clients.iter_mut().enumerate().filter(|(n, _)| *n != over) {
        assert_eq!(client.read_reply().status, 200);
    }
    let pending = metrics(&proxy).get("castling_upstream_pending_requests", &upstream);
    assert_eq!(pending, Some(0.0));
    let shorter = config.replace("60s", "1ms");
    proxy.reload_with(&shorter).expect_success();
    let mut clients: [RawClient; 2] = [(); 2].map(|()| proxy.raw());
    for client in &mut clients {
        client.send(GET);
    }
    let over = loop {
        if let Some(over) = clients.iter().position(has_answer) {
            break over;
        }
    };
    assert_eq!(clients[over].read_reply().status, 503);
    turnstile.let_through(1);
    assert_eq!(clients[1 - over].read_reply().status, 200);
}

#[test]
fn a_backup_takes_what_others_have_no_room_for_and_all_when_they_are_down() {
    let turnstile = Turnstile::default();
    let peers = r#"peers = [{ address = "{app}", max_active = 1 }, { address = "{spare}", backup = true }]"#;
    let proxy = Proxy::with_config(&config(peers))
        .origin("app", turnstile.origin())
        .origin("spare", origin::text("spare"))
        .start();
    let mut clients: [RawClient; 1] = clients(&proxy, 1);
    for _ in 0..3 {
        assert_eq!(proxy.get("/").text(), "spare");
    }
    turnstile.let_through(2);
    assert_eq!(clients[0].read_reply().text(), "ok");
    assert_eq!(proxy.get("/").text(), "ok");
    assert_eq!(proxy.origin("spare").requests(), 3);
}

#[test]
fn requests_with_refusals_in_hand_do_not_wait_for_one_another() {
    // Both peers have their first request before either refuses it.
    let both = Arc::new(Barrier::new(2));
    let refusing = || {
        let both = Arc::clone(&both);
        raw_origin::scripted(move |connection, number| {
            let mut is_first = number == 0;
            while connection.read_head().is_ok() {
                if std::mem::take(&mut is_first) {
                    both.wait();
                }
                connection.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
            }
            Ok(())
        })
    };
    let upstream = "peers = [\"{app}\", \"{other}\"]\nmax_active = 1\nqueue = { size = 10, timeout = \"60s\" }\n\
                    retry = { on = [\"503\"], budget = \"off\" }";
    let proxy = Proxy::with_config(&config(upstream))
        .origin("app", refusing())
        .origin("other", refusing())
        .start();
    let mut clients = [(); 2].map(|()| proxy.raw());
    for client in &mut clients {
        client.send(GET);
    }
    for client in &mut clients {
        assert_eq!(client.read_reply().status, 503);
    }
}
