//! Listeners: Unix sockets, shared and per-worker sockets, and what a reload makes of them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use castling_tests::load::Load;
use castling_tests::{DEADLINE, Proxy, RawClient, Setup, body, origin, until};
use http::Response;
use rustix::process::Signal;

/// The origin answers with what it was told of the client.
fn config(listener: &str) -> Setup {
    let config = r#"
        [access_log]
        file = "{dir}/access.log"
        flush = "10ms"
        format = "$client_address $client_port $pid"

        [plugins.tell]
        wasm = "{plugins}/headers.wasm"
        config = { request = { set = { x-client = "$client_address" } } }

        [listeners.web]
        LISTENER

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["tell"]
        upstream = "app"
    "#;
    let tells = origin::answering(|seen| {
        let client = seen.header("x-client").unwrap_or("none").to_owned();
        let forwarded = seen.header("x-forwarded-for").unwrap_or("none");
        Response::new(body::full(format!("{client}, forwarded for {forwarded}")))
    });
    Proxy::with_config(&config.replace("LISTENER", listener)).origin("app", tells)
}

/// Sends a request over a Unix socket; returns the answer, up to the connection's end.
fn get(socket: &Path) -> Result<String, std::io::Error> {
    let mut client = UnixStream::connect(socket)?;
    client.set_read_timeout(Some(DEADLINE))?;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_unix_socket_is_served_and_its_clients_have_no_address() {
    let listener = "bind = \"unix:web.sock\"\nmode = \"0660\"";
    let mut proxy = config(listener).start();
    let socket = proxy.path("web.sock");
    let answer = get(&socket).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("unix:, forwarded for none"), "{answer}");
    let line = proxy.until_access_lines(1).remove(0);
    assert!(line.starts_with("unix: - "), "{line}");
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let status = proxy.command("status", &[]).stdout;
    assert!(
        status.contains(&format!("web unix:{}", socket.display())),
        "{status}"
    );

    let text = fs::read_to_string(proxy.path("castling.toml")).unwrap();
    let reloaded = proxy.reload_with(&text.replace("0660", "0600"));
    assert_eq!(reloaded.code, Some(0));
    assert!(get(&socket).unwrap().starts_with("HTTP/1.1 200"));
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    proxy.command("stop", &[]);
    proxy.until_ended();
    assert!(!socket.exists());
}

#[test]
fn an_ipv4_client_of_a_dual_stack_listener_has_its_ipv4_address() {
    let free = TcpListener::bind("[::]:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let listener = format!("bind = \"[::]:{port}\"\nipv6_only = false");
    let proxy = config(&listener).start();
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all(request).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let told = "127.0.0.1, forwarded for 127.0.0.1";
    assert!(answer.ends_with(told), "{answer}");
    let line = proxy.until_access_lines(1).remove(0);
    assert!(line.starts_with("127.0.0.1 "), "{line}");
}

#[test]
fn a_removed_unix_listener_takes_its_file_along() {
    let two = "bind = \"{listen}\"\n[listeners.local]\nbind = \"unix:local.sock\"";
    let mut proxy = config(two).start();
    let socket = proxy.path("local.sock");
    assert!(get(&socket).is_ok());
    let one = fs::read_to_string(proxy.path("castling.toml")).unwrap();
    let one = one.replace("[listeners.local]\nbind = \"unix:local.sock\"", "");
    assert_eq!(proxy.reload_with(&one).code, Some(0));
    until("the file is gone", || !socket.exists());
}

#[test]
fn a_killed_masters_unix_socket_is_replaced() {
    let mut proxy = config("bind = \"unix:web.sock\"").start();
    let workers = proxy.workers();
    proxy.master().signal(Signal::KILL);
    proxy.until_ended();
    until("its workers have ended", || {
        !workers.iter().any(|w| w.is_alive())
    });
    assert!(proxy.path("web.sock").exists());
    proxy.start_again();
    assert!(get(&proxy.path("web.sock")).is_ok());
}

#[test]
fn a_unix_socket_of_a_living_server_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.sock");
    let _other = UnixListener::bind(&path).unwrap();
    let path = path.display();
    config(&format!("bind = \"unix:{path}\""))
        .run()
        .expect_error(&format!(
            "listener \"web\" cannot be bound to unix:{path}: address in use"
        ));
}

/// The pids that the access log names.
fn pids(lines: &[String]) -> BTreeSet<String> {
    lines
        .iter()
        .filter_map(|line| line.rsplit(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn workers_that_wait_on_a_shared_socket_take_turns() {
    for bind in ["{listen}", "unix:web.sock"] {
        let proxy = config(&format!("bind = \"{bind}\"\naccept = \"shared\"")).start();
        // Requests one after the other: a worker that had waited first each time would get all.
        for _ in 0..40 {
            match bind {
                "{listen}" => drop(proxy.get("/")),
                _ => drop(get(&proxy.path("web.sock")).unwrap()),
            }
        }
        let pids = pids(&proxy.until_access_lines(40));
        assert_eq!(pids.len(), 2, "{bind}: {pids:?}");
    }
}

#[test]
fn a_worker_of_a_shared_socket_that_stands_still_holds_up_nobody() {
    let proxy = config("bind = \"{listen}\"\naccept = \"shared\"").start();
    let still = proxy.workers()[0];
    still.signal(Signal::STOP);
    let mut clients: Vec<_> = (0..8).map(|_| proxy.raw()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_reply().status, 200);
    }
    still.signal(Signal::CONT);
}

/// Connections that wait in the sockets' queues while a reload changes how they are accepted.
#[test]
fn a_change_of_accept_drops_no_queued_connection() {
    let mut proxy = config("bind = \"{listen}\"\naccept = \"per_worker\"").start();
    let text = fs::read_to_string(proxy.path("castling.toml")).unwrap();
    for (now, next) in [("per_worker", "shared"), ("shared", "per_worker")] {
        let old = proxy.workers();
        old.iter().for_each(|worker| worker.signal(Signal::STOP));
        let mut clients: Vec<RawClient> = (0..20).map(|_| proxy.raw()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        let config = text.replace("accept = \"per_worker\"", &format!("accept = \"{next}\""));
        assert_eq!(proxy.reload_with(&config).code, Some(0), "{now} to {next}");
        for client in &mut clients {
            assert_eq!(client.read_reply().status, 200, "{now} to {next}");
        }
        old.iter().for_each(|worker| worker.signal(Signal::CONT));
        until("the old workers have ended", || {
            !old.iter().any(|w| w.is_alive())
        });
    }
}

#[test]
fn reloads_between_both_ways_to_accept_fail_no_request() {
    let mut proxy = config("bind = \"{listen}\"\naccept = \"per_worker\"").start();
    let text = fs::read_to_string(proxy.path("castling.toml")).unwrap();
    let load = Load {
        address: proxy.address(),
        clients: 16,
        requests_per_connection: 3,
        request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        bodies: vec!["127.0.0.1, forwarded for 127.0.0.1".to_owned()],
    }
    .start();
    for round in 0..10 {
        let accept = ["shared", "per_worker"][round % 2];
        let workers = [3, 1, 2][round % 3];
        let config = text
            .replace("accept = \"per_worker\"", &format!("accept = \"{accept}\""))
            .replace("count = 2", &format!("count = {workers}"));
        assert_eq!(proxy.reload_with(&config).code, Some(0));
        load.until_more(100);
    }
    let report = load.stop();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}
