//! A plugin that traps: one client or one bad input is no reason to take it out of service for all.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use castling_tests::hostile::hostile;
use castling_tests::{DEADLINE, Proxy, until};

/// The status of a request from this client.
#[track_caller]
fn ask(proxy: &Proxy, client: u8, path: &str, wish: &str) -> u16 {
    let mut client = proxy.raw_from(Ipv4Addr::new(127, 0, 0, client));
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nX-Do: {wish}\r\nConnection: close\r\n\r\n"
    ));
    client.read_reply().status
}

fn state(proxy: &Proxy) -> String {
    let status = proxy.status();
    let state = status["plugins"][0]["state"].as_str();
    state.unwrap_or_default().to_owned()
}

const HOSTILE: u8 = 200;

#[test]
fn one_hostile_client_among_a_hundred_harms_itself_alone() {
    let proxy = hostile("quarantine = { traps = 20, within = \"1h\", backoff = \"1m\" }");
    for client in 1..=99 {
        // Traps on everybody's path, and on paths of its own.
        assert_eq!(ask(&proxy, HOSTILE, "/", "panic"), 500);
        assert_eq!(ask(&proxy, HOSTILE, &format!("/{client}"), "panic"), 500);
        assert_eq!(ask(&proxy, client, "/", "nothing"), 200, "client {client}");
    }
    assert_eq!(state(&proxy), "in");
    assert_eq!(proxy.status()["plugins"][0]["traps"], 198);
}

#[test]
fn one_bad_input_of_many_clients_harms_its_own_path_alone() {
    let proxy = hostile("quarantine = { traps = 20, within = \"1h\", backoff = \"1m\" }");
    for client in 1..=50 {
        assert_eq!(ask(&proxy, client, "/bad", "panic"), 500);
        assert_eq!(ask(&proxy, client, "/good", "nothing"), 200);
    }
    assert_eq!(state(&proxy), "in");
}

#[test]
fn a_plugin_that_traps_for_many_is_taken_out_and_a_hostile_client_does_not_keep_it_out() {
    let proxy = hostile("quarantine = { traps = 20, within = \"1h\", backoff = \"500ms\" }");
    ask(&proxy, HOSTILE, "/", "panic");
    let taken_out = (1..=30).any(|n| {
        ask(&proxy, n, &format!("/{n}"), "panic");
        state(&proxy) == "out"
    });
    assert!(taken_out, "{}", proxy.log());
    // The hostile client asks all the time, to be the one that decides; another client, which has done nothing, asks
    // now and then.
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            while !over.load(Ordering::Relaxed) && began.elapsed() < DEADLINE {
                ask(&proxy, HOSTILE, "/", "panic");
            }
        });
        until("the plugin serves the other client", || {
            ask(&proxy, 99, "/quiet", "nothing") == 200
        });
        for _ in 0..20 {
            assert_eq!(ask(&proxy, 99, "/quiet", "nothing"), 200);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(state(&proxy), "in");
    // The trial decided at the first time out: it was not spoilt, and no longer one followed.
    let log = proxy.log();
    assert_eq!(log.matches("taken out").count(), 1, "{log}");
}
