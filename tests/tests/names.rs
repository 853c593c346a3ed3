//! Names of peers: addresses that come and go, name servers that fail and lie, services, and a start without any.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use castling_tests::name_server::{NameServer, Says};
use castling_tests::raw_origin::DeadAddress;
use castling_tests::{Exposition, Proxy, until};
use serde_json::Value;

/// Origins at 127.0.0.2 and the addresses after it, on one port, that say which one they are.
struct Hosts {
    port: u16,
}

impl Hosts {
    fn start(count: u8) -> Self {
        let listeners = (0..100).find_map(|_| {
            let first = TcpListener::bind((host(0), 0)).ok()?;
            let port = first.local_addr().ok()?.port();
            let others = (1..count).map(|n| TcpListener::bind((host(n), port)));
            let mut all: Vec<TcpListener> = others.collect::<Result<_, _>>().ok()?;
            all.insert(0, first);
            Some((port, all))
        });
        let (port, listeners) = listeners.expect("a port that is free on all addresses");
        for listener in listeners {
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || serve(stream));
                }
            });
        }
        Self { port }
    }
}

fn host(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + n)
}

fn hosts(numbers: &[u8]) -> Vec<Ipv4Addr> {
    numbers.iter().map(|n| host(*n)).collect()
}

fn serve(mut stream: TcpStream) -> Option<()> {
    let own = stream.local_addr().ok()?.ip().to_string();
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    loop {
        while !lines.next()?.ok()?.is_empty() {}
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{own}",
            own.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
    }
}

/// A gateway before these peers.
fn config(server: &NameServer, peers: &str, resolve: &str) -> String {
    let servers = server.address;
    format!(
        r#"
        [workers]
        count = 2

        [listeners.web]
        bind = "{{listen}}"

        [upstreams.app]
        peers = [{peers}]
        resolve = {{ servers = ["{servers}"], min_interval = "100ms", timeout = "200ms", {resolve} }}

        [[routes]]
        upstream = "app"
    "#
    )
}

/// The peers of the upstream, by slot.
fn peers(proxy: &Proxy) -> Vec<(u64, String)> {
    let status = proxy.status();
    let peers = status["upstreams"][0]["peers"].as_array().cloned();
    let peer = |peer: &Value| {
        let address = peer["address"].as_str().unwrap_or_default().to_owned();
        (peer["slot"].as_u64().unwrap_or(u64::MAX), address)
    };
    peers.unwrap_or_default().iter().map(peer).collect()
}

fn addresses(proxy: &Proxy) -> BTreeSet<String> {
    peers(proxy)
        .into_iter()
        .map(|(_, address)| address)
        .collect()
}

fn at(port: u16, numbers: &[u8]) -> BTreeSet<String> {
    let address = |n: &u8| SocketAddr::from((host(*n), port)).to_string();
    numbers.iter().map(address).collect()
}

#[track_caller]
fn until_peers(proxy: &Proxy, port: u16, numbers: &[u8]) {
    let expected = at(port, numbers);
    until(&format!("peers {expected:?}"), || {
        addresses(proxy) == expected
    });
}

/// Origins that answer, over some requests.
fn served_by(proxy: &Proxy) -> BTreeSet<String> {
    proxy.tally("/", 12).into_keys().collect()
}

fn ips(numbers: &[u8]) -> BTreeSet<String> {
    numbers.iter().map(|n| host(*n).to_string()).collect()
}

fn failures(proxy: &Proxy) -> u64 {
    proxy.status()["sources"][0]["failures"]
        .as_u64()
        .unwrap_or_default()
}

#[test]
fn addresses_come_and_go_and_those_that_stay_keep_their_slots() {
    let (server, origins) = (NameServer::start(), Hosts::start(4));
    server.set_addresses("app.test", &hosts(&[0, 1]), 0);
    let name = format!("\"app.test:{}\"", origins.port);
    let mut proxy = Proxy::with_config(&config(&server, &name, "")).start();
    assert_eq!(served_by(&proxy), ips(&[0, 1]));
    let slot_of = |proxy: &Proxy, n: u8| {
        let address = at(origins.port, &[n]).pop_first().unwrap();
        let found = peers(proxy).into_iter().find(|(_, it)| *it == address);
        found.map(|(slot, _)| slot)
    };
    assert_eq!([slot_of(&proxy, 0), slot_of(&proxy, 1)], [Some(0), Some(1)]);

    server.set_addresses("app.test", &hosts(&[1, 2]), 0);
    until_peers(&proxy, origins.port, &[1, 2]);
    until("only those that are there are asked", || {
        served_by(&proxy) == ips(&[1, 2])
    });
    assert_eq!([slot_of(&proxy, 1), slot_of(&proxy, 2)], [Some(1), Some(2)]);

    // A peer that comes back has its slot again, also after a reload and an upgrade.
    proxy.reload().expect_success();
    server.set_addresses("app.test", &hosts(&[3, 1, 0]), 0);
    until_peers(&proxy, origins.port, &[0, 1, 3]);
    let slots = [0, 1, 3].map(|n| slot_of(&proxy, n));
    assert_eq!(slots, [Some(0), Some(1), Some(3)]);
    proxy.upgrade(&[]).expect_success();
    assert_eq!([0, 1, 3].map(|n| slot_of(&proxy, n)), slots);
    server.set_addresses("app.test", &hosts(&[2]), 0);
    until_peers(&proxy, origins.port, &[2]);
    assert_eq!(slot_of(&proxy, 2), Some(2));
    until("the one that is left answers", || {
        served_by(&proxy) == ips(&[2])
    });
    let metrics = proxy.command("metrics", &[]).expect_success().stdout;
    let metrics = Exposition::parse(&metrics);
    let labels = [("upstream", "app")];
    assert_eq!(metrics.get("castling_upstream_peers", &labels), Some(1.0));
    assert!(metrics.sum("castling_upstream_resolutions_total", &[("result", "ok")]) >= 3.0);
}

#[test]
fn the_last_good_answer_stays_whatever_becomes_of_the_name_server() {
    let (server, origins) = (NameServer::start(), Hosts::start(2));
    server.set_addresses("app.test", &hosts(&[0, 1]), 0);
    let name = format!("\"app.test:{}\"", origins.port);
    let mut proxy = Proxy::with_config(&config(&server, &name, "")).start();
    let refused = [
        (Says::Error(2), "answers ServerFailure"),
        (Says::Error(3), "the name has no address"),
        (Says::Error(5), "answers Refused"),
        (Says::Nothing, "the name has no address"),
        (Says::Silence, "does not answer within 200ms"),
        (
            Says::Addresses(vec![IpAddr::from(Ipv4Addr::UNSPECIFIED)], 5),
            "the name has no address",
        ),
    ];
    for (says, error) in refused {
        server.set_addresses("app.test", &hosts(&[0, 1]), 0);
        until("the name is resolved", || failures(&proxy) == 0);
        server.set("app.test", says);
        let is_told = || {
            let source = &proxy.status()["sources"][0];
            source["last_error"]
                .as_str()
                .is_some_and(|it| it.contains(error))
        };
        until(error, is_told);
        assert_eq!(addresses(&proxy), at(origins.port, &[0, 1]));
        assert_eq!(served_by(&proxy), ips(&[0, 1]));
    }
    // Neither a reload nor an upgrade needs what is known already.
    server.set("app.test", Says::Error(2));
    proxy.reload().expect_success();
    assert_eq!(served_by(&proxy), ips(&[0, 1]));
    proxy.upgrade(&[]).expect_success();
    assert_eq!(addresses(&proxy), at(origins.port, &[0, 1]));
    assert_eq!(served_by(&proxy), ips(&[0, 1]));
}

#[test]
fn an_upstream_may_begin_without_peers() {
    let (server, origins) = (NameServer::start(), Hosts::start(1));
    let name = format!("\"app.test:{}\"", origins.port);
    let proxy = Proxy::with_config(&config(&server, &name, "required = false")).start();
    proxy.until_log_has("there are no peers of it");
    assert_eq!(proxy.get("/").status, 503);
    server.set_addresses("app.test", &hosts(&[0]), 0);
    until("there is a peer", || proxy.get("/").status == 200);
}

#[test]
fn a_name_without_addresses_is_refused_with_its_place() {
    let server = NameServer::start();
    let refused = Proxy::with_config(&config(&server, "\"app.test:80\"", "")).check();
    refused.expect_error(
        "upstream app: peer app.test:80: cannot be resolved: the name has no address",
    );
}

#[test]
fn a_thousand_addresses_come_by_tcp() {
    let (server, origins) = (NameServer::start(), Hosts::start(4));
    let many = |count: u32| -> Vec<Ipv4Addr> {
        let first = u32::from(host(0));
        (0..count).map(|n| Ipv4Addr::from(first + n)).collect()
    };
    server.set_addresses("app.test", &many(1000), 0);
    let name = format!("\"app.test:{}\"", origins.port);
    let proxy = Proxy::with_config(&config(&server, &name, "")).start();
    assert_eq!(addresses(&proxy).len(), 1000);
    assert!(server.by_tcp() > 0);
    server.set_addresses("app.test", &many(4), 0);
    until_peers(&proxy, origins.port, &[0, 1, 2, 3]);
    until("those that are left answer", || {
        served_by(&proxy) == ips(&[0, 1, 2, 3])
    });
}

#[test]
fn services_have_hosts_ports_and_backups() {
    let (server, origins) = (NameServer::start(), Hosts::start(3));
    let service = |priority, host| (priority, 1, origins.port, host);
    let services = vec![
        service(1, "a.test"),
        service(1, "b.test"),
        service(9, "c.test"),
    ];
    for (n, name) in [(0, "a.test"), (1, "b.test"), (2, "c.test")] {
        server.set_addresses(name, &hosts(&[n]), 0);
    }
    server.set("_http._tcp.test", Says::Services(services.clone(), 0));
    let srv = "{ srv = \"_http._tcp.test\" }";
    let proxy = Proxy::with_config(&config(&server, srv, "")).start();
    assert_eq!(addresses(&proxy), at(origins.port, &[0, 1, 2]));
    assert_eq!(served_by(&proxy), ips(&[0, 1]), "the third is a backup");
    let hosts_of = proxy.status()["upstreams"][0]["peers"].clone();
    assert_eq!(hosts_of[0]["host"], format!("a.test:{}", origins.port));

    // Only the backup is left, and so it is none any more.
    server.set("_http._tcp.test", Says::Services(services[2..].to_vec(), 0));
    until_peers(&proxy, origins.port, &[2]);
    until("it answers", || served_by(&proxy) == ips(&[2]));

    // A host whose addresses cannot be learnt now stays where it was.
    server.set("_http._tcp.test", Says::Services(services[..2].to_vec(), 0));
    until_peers(&proxy, origins.port, &[0, 1]);
    server.set("a.test", Says::Error(2));
    server.set_addresses("b.test", &hosts(&[2]), 0);
    until_peers(&proxy, origins.port, &[0, 2]);
}

#[test]
fn a_name_whose_addresses_change_all_the_time_fails_no_request() {
    let (server, origins) = (NameServer::start(), Hosts::start(6));
    server.set_addresses("app.test", &hosts(&[0, 1]), 0);
    let name = format!("\"app.test:{}\"", origins.port);
    let proxy = Proxy::with_config(&config(&server, &name, "")).start();
    let mut answered = 0;
    for round in 0..12_u8 {
        let now = [round % 6, (round + 1) % 6];
        server.set_addresses("app.test", &hosts(&now), 0);
        let expected = at(origins.port, &now);
        until("the addresses are others", || {
            for _ in 0..10 {
                assert_eq!(proxy.get("/").status, 200);
                answered += 1;
            }
            addresses(&proxy) == expected
        });
    }
    assert!(answered >= 120, "{answered}");
}

#[test]
fn a_server_that_answers_one_family_only_is_good_enough() {
    let (server, origins) = (NameServer::start(), Hosts::start(2));
    server.set("app.test", Says::Half(hosts(&[0, 1]), 0));
    let name = format!("\"app.test:{}\"", origins.port);
    let proxy = Proxy::with_config(&config(&server, &name, "")).start();
    assert_eq!(served_by(&proxy), ips(&[0, 1]));
    assert_eq!(failures(&proxy), 0);
}

#[test]
fn what_is_no_answer_is_passed_over_until_there_is_one() {
    let (server, origins) = (NameServer::start(), Hosts::start(2));
    let addresses = hosts(&[0]).into_iter().map(IpAddr::from).collect();
    let alias = Says::Alias("other.test", addresses, 1);
    server.set("app.test", Says::After(Box::new(alias)));
    let name = format!("\"app.test:{}\"", origins.port);
    let resolve = "family = \"ipv4\"";
    let proxy = Proxy::with_config(&config(&server, &name, resolve)).start();
    assert_eq!(served_by(&proxy), ips(&[0]));
}

#[test]
fn a_helper_that_ends_is_started_again() {
    let (server, origins) = (NameServer::start(), Hosts::start(2));
    server.set_addresses("app.test", &hosts(&[0]), 0);
    let name = format!("\"app.test:{}\"", origins.port);
    let proxy = Proxy::with_config(&config(&server, &name, "")).start();
    let helper = || proxy.master().children_with("fetch").into_iter().next();
    let first = helper().expect("a helper");
    first.signal(rustix::process::Signal::KILL);
    server.set_addresses("app.test", &hosts(&[1]), 0);
    until_peers(&proxy, origins.port, &[1]);
    assert!(helper().is_some_and(|it| it.0 != first.0));
    assert_eq!(served_by(&proxy), ips(&[1]));
}

#[test]
fn a_family_that_answers_nothing_costs_no_request() {
    // The other family is silent, or refuses.
    for silent in [true, false] {
        let (v4, v6) = (DeadAddress::silent(), Ipv6Addr::LOCALHOST);
        let Some(port) = (match silent {
            true => listen_at((v6, v4.address().port()).into()),
            false => listen_at((v6, 0).into()),
        }) else {
            eprintln!(
                "SKIPPED a family that answers nothing: there is no IPv6 here, or its port is taken"
            );
            return;
        };
        let server = NameServer::start();
        let addresses = vec![Ipv4Addr::LOCALHOST.into(), v6.into()];
        server.set("app.test", Says::Addresses(addresses, 60));
        let config = config(&server, &format!("\"app.test:{port}\""), "")
            .replace(
                "[[routes]]",
                "connect_timeout = \"20s\"\ntries = 1\n\n[[routes]]",
            )
            .replace("resolve =", "happy_eyeballs = \"20ms\"\nresolve =");
        let proxy = Proxy::with_config(&config).start();
        assert_eq!(proxy.tally("/", 20)["::1"], 20);
        let metrics = Exposition::parse(&proxy.command("metrics", &[]).stdout);
        let tries = |outcome| metrics.sum("castling_upstream_tries_total", &[("outcome", outcome)]);
        assert_eq!((tries("responded"), tries("connect_failed")), (20.0, 0.0));
    }
}

/// Serves at this address, as long as the test runs. The port.
fn listen_at(address: SocketAddr) -> Option<u16> {
    let listener = TcpListener::bind(address).ok()?;
    let port = listener.local_addr().ok()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Some(port)
}
