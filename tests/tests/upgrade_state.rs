//! State that an upgrade takes along, and how long the old master stays.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use castling_tests::origin::Origin;
use castling_tests::{Exposition, Proxy, RawClient, body, origin, until};
use http::Response;
use rustix::process::Signal;
use tokio::sync::Semaphore;

const CONFIG: &str = r#"
    [workers]
    count = 2
    drain_timeout = "60s"

    [zones.limits]
    kind = "counter"
    size = "1MiB"

    [zones.kept]
    kind = "kv"
    size = "1MiB"

    [plugins.limit]
    wasm = "{plugins}/rate_limit.wasm"
    config = { zone = "limits", rate = "6/h", burst = 6, key = "$http_x_key" }
    grants = { zones = ["limits"] }

    [plugins.keeper]
    wasm = "{guests}/keeper.wasm"
    config = { zone = "kept" }
    grants = { zones = ["kept", "limits"] }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    hosts = ["kept"]
    plugins = ["keeper"]

    [[routes]]
    plugins = ["limit"]
    upstream = "app"
"#;

/// Config whose kv zone is another one.
fn larger() -> String {
    CONFIG.replace(
        "kind = \"kv\"\n    size = \"1MiB\"",
        "kind = \"kv\"\n    size = \"2MiB\"",
    )
}

/// Answers `/held` only when the gate is opened, so many times.
fn gated() -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let origin = origin::serving(move |request| {
        let gate = Arc::clone(&opened);
        async move {
            if request.uri().path() == "/held" {
                gate.acquire().await.expect("open").forget();
            }
            Response::new(body::full("answered"))
        }
    });
    (origin, gate)
}

fn start() -> (Proxy, Arc<Semaphore>) {
    let (origin, gate) = gated();
    (
        Proxy::with_config(CONFIG).origin("app", origin).start(),
        gate,
    )
}

/// A request that the origin holds until its gate is opened.
fn held(proxy: &Proxy) -> RawClient {
    let before = proxy.origin("app").requests();
    let mut client = proxy.raw();
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the origin has it", || {
        proxy.origin("app").requests() > before
    });
    client
}

fn passed(proxy: &Proxy, n: usize) -> usize {
    let replies = (0..n).map(|_| proxy.get_with("/", &[("x-key", "a")]));
    replies.filter(|reply| reply.status == 200).count()
}

#[track_caller]
fn kept(proxy: &Proxy, path: &str, value: &str) -> String {
    let reply = proxy.get_with(path, &[("host", "kept"), ("x-value", value)]);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text()
}

fn metric(proxy: &Proxy, name: &str) -> f64 {
    let told = proxy.command("metrics", &[]).expect_success().stdout;
    Exposition::parse(&told).sum(name, &[])
}

fn zones_in(store: &Path) -> Vec<String> {
    let entries = fs::read_dir(store).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// By master, the states of its generations.
fn generations(proxy: &Proxy) -> Vec<(u32, String)> {
    let status = proxy.status();
    let all = status["generations"].as_array().unwrap().iter();
    all.map(|generation| {
        let master = u32::try_from(generation["master"].as_u64().unwrap()).unwrap();
        (master, generation["state"].as_str().unwrap().to_owned())
    })
    .collect()
}

#[test]
fn zones_and_metrics_keep_their_contents() {
    let (mut proxy, _gate) = start();
    assert_eq!(passed(&proxy, 4), 4);
    assert_eq!(kept(&proxy, "/put/k", "v"), "stored");
    let started = metric(&proxy, "castling_start_time_seconds");
    until("all are counted", || {
        metric(&proxy, "castling_requests_total") == 5.0
    });
    for generation in 2..4 {
        proxy.upgrade(&[]).expect_success();
        until("the old master's end", || {
            proxy.masters().iter().filter(|m| m.is_alive()).count() == 1
        });
        assert_eq!(metric(&proxy, "castling_start_time_seconds"), started);
        assert_eq!(metric(&proxy, "castling_requests_total"), 5.0);
        assert_eq!(metric(&proxy, "castling_generation"), f64::from(generation));
        until("its workers are counted", || {
            metric(&proxy, "castling_workers") == 2.0
        });
    }
    assert_eq!(passed(&proxy, 10), 2);
    assert_eq!(kept(&proxy, "/get/k", ""), "v");
    until("and these", || {
        metric(&proxy, "castling_requests_total") == 16.0
    });
}

#[test]
fn a_response_that_takes_long_is_finished_by_the_old_master() {
    let (mut proxy, gate) = start();
    let mut client = held(&proxy);
    let old = proxy.master();
    proxy.upgrade(&[]).expect_success();
    let new = proxy.master();
    assert_eq!(proxy.get("/").text(), "answered");
    assert_eq!(
        generations(&proxy),
        [
            (old.0, "draining".to_owned()),
            (new.0, "serving".to_owned())
        ]
    );
    let text = proxy.command("status", &[]).expect_success().stdout;
    assert!(
        text.contains(&old.0.to_string()) && text.contains("draining"),
        "{text}"
    );
    // Both open their logs again; the old master does not upgrade once more, nor reload.
    fs::rename(proxy.path("access.log"), proxy.path("access.old")).unwrap();
    proxy.command("reopen", &[]).expect_success();
    old.signal(Signal::USR2);
    old.signal(Signal::HUP);
    proxy.until_log_has(&format!(
        "upgrade refused: another master has taken over already (pid {})",
        new.0
    ));
    proxy.until_log_has("no reload: another master has taken over");

    gate.add_permits(1);
    let reply = client.read_reply();
    assert_eq!(
        (reply.text().as_str(), reply.header("connection")),
        ("answered", Some("close"))
    );
    until("the old master's end", || !old.is_alive());
    until("its line in the new log", || {
        proxy
            .access_lines()
            .iter()
            .any(|line| line.contains("/held"))
    });
    assert_eq!(generations(&proxy), [(new.0, "serving".to_owned())]);
    assert_eq!(proxy.get("/").text(), "answered");
}

#[test]
fn a_second_upgrade_does_not_wait_for_the_first_old_master() {
    let (mut proxy, gate) = start();
    let mut clients = Vec::new();
    let mut expected = Vec::new();
    for _ in 0..3 {
        clients.push(held(&proxy));
        expected.push((proxy.master().0, "draining".to_owned()));
        proxy.upgrade(&[]).expect_success();
    }
    expected.push((proxy.master().0, "serving".to_owned()));
    assert_eq!(generations(&proxy), expected);
    gate.add_permits(3);
    for client in &mut clients {
        assert_eq!(client.read_reply().text(), "answered");
    }
    until("the end of all old masters", || {
        proxy
            .masters()
            .iter()
            .filter(|master| master.is_alive())
            .count()
            == 1
    });
    assert_eq!(proxy.get("/").text(), "answered");
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_zone_that_only_the_old_master_has_lives_as_long_as_it() {
    let (mut proxy, gate) = start();
    let store = proxy.path("zones");
    let mut client = held(&proxy);
    let larger = larger();
    proxy.write_config(&larger);
    proxy.upgrade(&[]).expect_success();
    assert_eq!(zones_in(&store), ["kept.1048576", "kept.2097152"]);
    gate.add_permits(1);
    assert_eq!(client.read_reply().text(), "answered");
    until("the old zone is gone", || {
        zones_in(&store) == ["kept.2097152"]
    });
    // A zone that a failed upgrade has made is gone, too.
    let third = larger
        .replace("2MiB", "3MiB")
        .replace("burst = 6", "bursts = 6");
    proxy.write_config(&third);
    proxy.upgrade(&[]).expect_refusal();
    until("the zone of the refused one is gone", || {
        zones_in(&store) == ["kept.2097152"]
    });
    proxy.command("stop", &[]).expect_success();
    assert!(!store.exists());
}

#[test]
fn a_stop_ends_old_masters_too() {
    for (flag, answered) in [(None, true), (Some("--fast"), false)] {
        let (mut proxy, gate) = start();
        let mut client = held(&proxy);
        proxy.upgrade(&[]).expect_success();
        std::thread::scope(|scope| {
            let stop = scope.spawn(|| proxy.command("stop", &flag.into_iter().collect::<Vec<_>>()));
            if answered {
                until("the new one drains", || proxy.workers().is_empty());
                assert!(!stop.is_finished());
                gate.add_permits(1);
                assert_eq!(client.read_reply().text(), "answered");
            }
            stop.join().unwrap().expect_success();
        });
        until("the end of both", || {
            !proxy.masters().iter().any(|master| master.is_alive())
        });
        assert!(!proxy.path("castling.sock").exists());
        assert!(!proxy.path("zones").exists());
    }
}

#[test]
fn signals_to_an_old_master_that_drains_end_it_alone() {
    for signal in [Signal::TERM, Signal::KILL] {
        let (mut proxy, gate) = start();
        let mut client = held(&proxy);
        let old = proxy.master();
        proxy.write_config(&larger());
        proxy.upgrade(&[]).expect_success();
        assert!(old.is_alive());
        old.signal(signal);
        until("the old master's end", || !old.is_alive());
        if signal == Signal::TERM {
            client.read_to_end().unwrap();
        }
        assert_eq!(proxy.get("/").text(), "answered");
        until("the new one knows", || generations(&proxy).len() == 1);
        if signal == Signal::KILL {
            // The killed master's worker goes on, and keeps what it has.
            proxy.until_log_has("the master before this one was killed");
            let store = proxy.path("zones");
            assert_eq!(zones_in(&store), ["kept.1048576", "kept.2097152"]);
            gate.add_permits(1);
            assert_eq!(client.read_reply().text(), "answered");
        }
        proxy.reload().expect_success();
    }
}

#[test]
fn connections_wait_for_the_new_master_after_winch() {
    let (mut proxy, _gate) = start();
    assert_eq!(passed(&proxy, 10), 6);
    proxy.master().signal(Signal::WINCH);
    proxy.until_workers(0);
    let mut waiting = proxy.raw();
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    proxy.upgrade(&[]).expect_success();
    assert_eq!(waiting.read_reply().text(), "answered");
    assert_eq!(passed(&proxy, 4), 0);
}

#[test]
fn a_stop_during_an_upgrade_ends_both() {
    let (mut proxy, _gate) = start();
    let hangs = proxy.path("hangs");
    fs::write(&hangs, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&hangs, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let old = proxy.master();
    let outcome = std::thread::scope(|scope| {
        let upgrade =
            scope.spawn(|| proxy.command("upgrade", &["--binary", &hangs.display().to_string()]));
        until("it was started", || !old.children_with("1000").is_empty());
        let newcomer = old.children_with("1000")[0];
        old.signal(Signal::TERM);
        until("both have ended", || !newcomer.is_alive());
        upgrade.join().unwrap()
    });
    assert_eq!(proxy.until_ended(), Some(0));
    let said = outcome.expect_refusal().stderr;
    assert!(
        said.contains("stopping") || said.contains("ended before it answered"),
        "{said}"
    );
}

#[test]
fn unix_sockets_go_over_with_their_files() {
    let with_unix = CONFIG.replace(
        "[upstreams.app]",
        "[listeners.local]\n    bind = \"unix:{dir}/web.sock\"\n\n    [upstreams.app]",
    );
    let (origin, gate) = gated();
    let mut proxy = Proxy::with_config(&with_unix).origin("app", origin).start();
    let path = proxy.path("web.sock");
    let ask = || {
        let mut connection = UnixStream::connect(&path).unwrap();
        connection
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        text
    };
    // Nothing comes of the first: the file is the old master's still.
    proxy.write_config(&with_unix.replace("burst = 6", "bursts = 6"));
    proxy.upgrade(&[]).expect_refusal();
    assert!(ask().ends_with("answered"));
    proxy.write_config(&with_unix);
    let mut client = held(&proxy);
    proxy.upgrade(&[]).expect_success();
    assert!(ask().ends_with("answered"));
    gate.add_permits(1);
    assert_eq!(client.read_reply().text(), "answered");
    until("the old master's end", || !proxy.masters()[0].is_alive());
    assert!(ask().ends_with("answered"));

    // The new config has it no more.
    proxy.write_config(CONFIG);
    proxy.upgrade(&[]).expect_success();
    assert!(!path.exists());
    proxy.write_config(&with_unix);
    proxy.upgrade(&[]).expect_success();
    assert!(ask().ends_with("answered"));
    proxy.command("stop", &[]).expect_success();
    assert!(!path.exists());
}
