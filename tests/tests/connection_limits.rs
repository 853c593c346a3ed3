//! Too many connections: of one address, of all, and more than there are descriptors.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use castling_tests::process::Process;
use castling_tests::{Proxy, RawClient, body, origin, until};
use http::Response;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use socket2::{Domain, Socket, Type};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Gateway with one worker; `/metrics` and an origin behind `/`.
fn start(listener: &str) -> Proxy {
    let config = r#"
        [workers]
        count = 1

        [listeners.web]
        bind = "{listen}"
        LISTENER

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        upstream = "app"
    "#;
    let origin = origin::answering(|_| Response::new(body::full("ok")));
    Proxy::with_config(&config.replace("LISTENER", listener))
        .origin("app", origin)
        .start()
}

/// How many connections were refused, as the master tells it.
fn refused(proxy: &Proxy, reason: &str) -> usize {
    let metrics = proxy.command("metrics", &[]).stdout;
    let series =
        format!("castling_connections_refused_total{{listener=\"web\",reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
    line.and_then(|count| count.parse().ok())
        .unwrap_or_else(|| panic!("no {series} in\n{metrics}"))
}

/// A connection from another address of the loopback network.
fn from(address: [u8; 4], to: SocketAddr) -> RawClient {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let bound = socket.bind(&SocketAddr::from((address, 0)).into());
    bound.expect("an address of 127.0.0.0/8");
    socket.connect(&to.into()).expect("a listener");
    RawClient::over(socket.into())
}

fn is_served(client: &mut RawClient) -> bool {
    client.send(GET);
    client
        .try_read_reply()
        .is_ok_and(|reply| reply.status == 200)
}

#[test]
fn an_address_has_so_many_connections_and_no_more() {
    let proxy = start("max_connections_per_address = 2");
    let mut held = [proxy.raw(), proxy.raw()];
    assert!(held.iter_mut().all(is_served));
    proxy.raw().expect_close();
    assert_eq!(refused(&proxy, "address"), 1);
    let mut other = from([127, 0, 0, 2], proxy.address());
    assert!(is_served(&mut other));
    assert!(held.iter_mut().all(is_served));
    let [ended, _kept] = held;
    drop(ended);
    // The gateway hears of the end when it reads it.
    until("there is room again", || is_served(&mut proxy.raw()));
}

#[test]
fn connections_beyond_all_that_may_be_wait_for_room() {
    let proxy = start("max_connections = 1");
    let mut first = proxy.raw();
    first.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh");
    until("a request under way", || {
        proxy.status()["workers"][0]["requests_active"] == 1
    });
    let mut waits = proxy.raw();
    waits.send(GET);
    // The open connection's request goes before the one that waits, and after that it is idle.
    first.send("i");
    assert_eq!(first.read_reply().status, 200);
    assert_eq!(waits.read_reply().status, 200);
    first.expect_close();
    assert_eq!(
        (refused(&proxy, "address"), refused(&proxy, "descriptors")),
        (0, 0)
    );
}

#[test]
fn the_longest_idle_connection_makes_room_for_a_new_one() {
    let proxy = start("max_connections = 3");
    let mut idle: Vec<RawClient> = (0..3).map(|_| proxy.raw()).collect();
    for client in &mut idle {
        assert!(is_served(client));
    }
    // The first has been served last, so that the second is the longest idle.
    assert!(is_served(&mut idle[0]));
    let mut new = proxy.raw();
    assert!(is_served(&mut new));
    idle[1].expect_close();
    assert!(is_served(&mut idle[0]) && is_served(&mut idle[2]));
    // Clients that say nothing at all keep nobody out either.
    let _silent: Vec<RawClient> = (0..6).map(|_| proxy.raw()).collect();
    assert!(is_served(&mut proxy.raw()));
    let metrics = proxy.command("metrics", &[]).stdout;
    let ended = metrics
        .lines()
        .find(|line| line.starts_with("castling_connections_idle_ended_total{"));
    assert!(ended.is_some_and(|line| !line.ends_with(" 0")), "{ended:?}");
}

/// Lets a process open so many descriptors more than it has.
fn leave(process: Process, more: usize) {
    let open = fs::read_dir(format!("/proc/{}/fd", process.0)).expect("a living process");
    let open: BTreeSet<u64> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // The kernel hands out the lowest free number.
    let mut free = (0..).filter(|number| !open.contains(number));
    set_limit(process, free.nth(more).expect("numbers do not end"));
}

fn set_limit(process: Process, descriptors: u64) {
    let pid = i32::try_from(process.0).ok().and_then(Pid::from_raw);
    let limit = Rlimit {
        current: Some(descriptors),
        // The hard limit stays as it was: lowered, an ordinary user could not raise it again.
        maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
    };
    prlimit(pid, Resource::Nofile, limit).expect("a worker of ours");
}

#[test]
fn without_descriptors_new_connections_are_closed_and_the_others_served() {
    let proxy = start("");
    let worker = proxy.workers()[0];
    let mut established: Vec<RawClient> = (0..3).map(|_| proxy.raw()).collect();
    assert!(established.iter_mut().all(is_served));

    leave(worker, 5);
    let begun = Instant::now();
    // Connections that still fit are taken; from the first that is closed on, all are, since nothing ends meanwhile.
    let mut taken = Vec::new();
    let mut closed = 0;
    for _ in 0..200 {
        let mut client = proxy.raw();
        match closed == 0 && is_served(&mut client) {
            true => taken.push(client),
            false => {
                client.expect_close();
                closed += 1;
            }
        }
    }
    assert!(taken.len() < 10 && closed > 190, "{} {closed}", taken.len());
    // Each was accepted once to be closed: nothing was tried in vain.
    assert_eq!(refused(&proxy, "descriptors"), closed);
    assert!(established.iter_mut().all(is_served));
    assert!(taken.iter_mut().all(is_served));

    let line = proxy.until_log_has("no descriptors or memory for new connections");
    assert!(line.contains("pauses=0"), "{line}");
    until("all are told of", || told(&proxy) == closed);
    let lines = proxy.log().matches("no descriptors or memory").count();
    let seconds = usize::try_from(begun.elapsed().as_secs()).expect("a short test");
    assert!(lines <= seconds + 1, "{lines} lines in {seconds} s");
    assert!(proxy.error_lines().is_empty());

    set_limit(worker, 1024);
    assert!(is_served(&mut proxy.raw()));
    assert_eq!(proxy.workers(), [worker]);
}

/// How many closed connections the log tells of.
fn told(proxy: &Proxy) -> usize {
    let log = proxy.log();
    let counts = log.split("closed=").skip(1);
    counts
        .filter_map(|rest| rest.split_ascii_whitespace().next()?.parse::<usize>().ok())
        .sum()
}

#[test]
fn without_descriptors_for_a_peer_a_request_is_answered_503_and_the_peer_is_not_blamed() {
    let proxy = start("");
    let worker = proxy.workers()[0];
    let mut client = proxy.raw();
    // A connection that is served, but has not used the upstream yet.
    until("the connection is accepted", || {
        let metrics = proxy.command("metrics", &[]).stdout;
        metrics.contains("castling_connections_active{listener=\"web\"} 1")
    });
    leave(worker, 0);
    client.send(GET);
    assert_eq!(client.read_reply().status, 503);
    proxy.until_log_has("upstream app: no connection can be made");
    let metrics = proxy.command("metrics", &[]).stdout;
    let tries = |outcome: &str, count| {
        format!("castling_upstream_tries_total{{outcome=\"{outcome}\",upstream=\"app\"}} {count}")
    };
    let in_either_order = |outcome: &str, count: usize| {
        let other = format!(
            "castling_upstream_tries_total{{upstream=\"app\",outcome=\"{outcome}\"}} {count}"
        );
        metrics.contains(&tries(outcome, count)) || metrics.contains(&other)
    };
    assert!(in_either_order("cancelled", 1), "{metrics}");
    assert!(in_either_order("connect_failed", 0), "{metrics}");
    set_limit(worker, 1024);
    assert!(is_served(&mut client));
}
