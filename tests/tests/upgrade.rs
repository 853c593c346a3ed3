//! Binary upgrades: `castling upgrade` and USR2, under load, and what comes of new binaries that are no good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use castling_tests::load::Load;
use castling_tests::{Proxy, body, castling_bin, origin, until};
use http::Response;
use rustix::process::{Signal, geteuid};

/// A gateway whose answers say which config made them: the origin echoes `x-config`.
fn config(name: &str) -> String {
    r#"
    [master]
    control = "{dir}/castling.sock"
    pid_file = "{dir}/castling.pid"
    zone_store = "{dir}/zones"

    [workers]
    count = 2
    drain_timeout = "8s"

    [plugins.mark]
    wasm = "{plugins}/headers.wasm"
    config = { request = { set = { x-config = "NAME" } } }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["mark"]
    upstream = "app"
    "#
    .replace("NAME", name)
}

fn start() -> Proxy {
    let says_config = origin::answering(|seen| {
        Response::new(body::full(
            seen.header("x-config").unwrap_or("none").to_owned(),
        ))
    });
    Proxy::with_config(&config("one"))
        .origin("app", says_config)
        .start()
}

/// Keep-alive connections, and for each of their requests a new one beside them.
fn steady(proxy: &Proxy, requests_per_connection: usize) -> Load {
    Load {
        address: proxy.address(),
        clients: 8,
        requests_per_connection,
        request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        bodies: vec!["one".to_owned(), "two".to_owned()],
    }
}

/// An executable beside the config.
fn script(proxy: &Proxy, name: &str, text: &str) -> String {
    let path = proxy.path(name);
    fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn pid_in_file(proxy: &Proxy) -> u32 {
    let text = fs::read_to_string(proxy.path("castling.pid")).unwrap();
    text.trim().parse().unwrap()
}

fn copy_of_binary(proxy: &Proxy, name: &str) -> PathBuf {
    let path = proxy.path(name);
    fs::copy(castling_bin(), &path).unwrap();
    path
}

/// Everything is the first master's still, and works.
#[track_caller]
fn goes_on_as_before(proxy: &mut Proxy) {
    let master = proxy.master();
    assert_eq!(
        u32::try_from(proxy.status()["pid"].as_u64().unwrap()),
        Ok(master.0)
    );
    assert_eq!(pid_in_file(proxy), master.0);
    until("no other master runs", || {
        master.children_with("take-over").is_empty()
    });
    assert_eq!(proxy.get("/").text(), "one");
    proxy.reload_with(&config("two")).expect_success();
    assert_eq!(proxy.get("/").text(), "two");
    proxy.reload_with(&config("one")).expect_success();
    // And a good binary is taken.
    proxy.upgrade(&[]).expect_success();
    assert_ne!(proxy.master(), master);
    assert_eq!(proxy.get("/").text(), "one");
}

#[test]
fn upgrades_in_a_row_under_load_fail_no_request() {
    let mut proxy = start();
    let first = proxy.master();
    let kept = steady(&proxy, 100).start();
    let fresh = steady(&proxy, 1).start();
    kept.until_more(100);
    for upgrade in 0..4 {
        let name = if upgrade % 2 == 0 { "two" } else { "one" };
        proxy.write_config(&config(name));
        let before = proxy.master();
        let copy = copy_of_binary(&proxy, &format!("castling-{upgrade}"));
        let said = proxy
            .upgrade(&["--binary", &copy.display().to_string()])
            .expect_success()
            .stdout;
        let master = proxy.master();
        assert_ne!(master, before);
        assert!(
            said.contains(&format!(
                "serves: pid {}, generation {}",
                master.0,
                upgrade + 2
            )),
            "{said}"
        );
        assert_eq!(pid_in_file(&proxy), master.0);
        // `upgrade` has promised it: the new master serves, with the config as it is now.
        assert_eq!(proxy.get("/").text(), name);
        assert_eq!(
            fs::read_link(format!("/proc/{}/exe", master.0)).unwrap(),
            copy
        );
        kept.until_more(50);
        fresh.until_more(50);
    }
    for report in [kept.stop(), fresh.stop()] {
        assert!(
            report.failures.is_empty(),
            "of {}: {:#?}",
            report.good,
            report.failures
        );
        assert_eq!(report.resent, 0, "{report:?}");
    }
    until("the first master's end", || !first.is_alive());
    proxy.until_workers(2);
    assert_eq!(proxy.error_lines(), [""; 0]);
    // A reload is the new master's as ever.
    proxy.reload_with(&config("two")).expect_success();
    assert_eq!(proxy.get("/").text(), "two");
    let status = proxy.status();
    let newest = status["generations"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&newest["id"], &newest["master"]),
        (&6.into(), &proxy.master().0.into())
    );

    proxy.command("stop", &[]).expect_success();
    until("its end", || !proxy.master().is_alive());
    for gone in ["castling.sock", "castling.sock.lock", "castling.pid"] {
        assert!(!proxy.path(gone).exists(), "{gone}");
    }
}

#[test]
fn usr2_starts_what_lies_where_the_binary_lay() {
    let mut proxy = start();
    let copy = copy_of_binary(&proxy, "castling");
    proxy
        .upgrade(&["--binary", &copy.display().to_string()])
        .expect_success();
    let before = proxy.master();
    // A package manager replaces a file so: the running one is "(deleted)".
    let next = copy_of_binary(&proxy, "castling.next");
    fs::rename(&next, &copy).unwrap();
    before.signal(Signal::USR2);
    until("another master", || pid_in_file(&proxy) != before.0);
    let master = proxy.know_master();
    assert_eq!(
        fs::read_link(format!("/proc/{}/exe", master.0)).unwrap(),
        copy
    );
    assert_eq!(proxy.get("/").text(), "one");
    until("the old master's end", || !before.is_alive());
}

#[test]
fn a_reload_during_an_upgrade_is_answered_by_the_new_master() {
    let mut proxy = start();
    let text = format!(
        "until [ -e {go} ]; do sleep 0.05; done; exec {castling} \"$@\"",
        go = proxy.path("go").display(),
        castling = castling_bin().display(),
    );
    let binary = script(&proxy, "waits", &text);
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| proxy.command("upgrade", &["--binary", &binary]));
        proxy.until_log_has("upgrade begins");
        let reloads = [(); 4].map(|()| scope.spawn(|| proxy.reload()));
        let folder = proxy.path("");
        until("they have asked", || accepted_in(&folder) >= 5);
        fs::write(proxy.path("go"), "").unwrap();
        upgrade.join().unwrap().expect_success();
        for reload in reloads {
            let said = reload.join().unwrap().expect_success().stdout;
            assert!(said.contains("serves"), "{said}");
        }
    });
    let before = proxy.master();
    assert_ne!(proxy.know_master(), before);
    until("the old master's end", || !before.is_alive());
    assert_eq!(proxy.get("/").text(), "one");
}

/// Accepted ones of a Unix socket in this folder, as the kernel lists them: type stream, state connected, and the path
/// that it was bound to.
fn accepted_in(folder: &Path) -> usize {
    let all = fs::read_to_string("/proc/net/unix").unwrap();
    let path = folder.display().to_string();
    let of_it = all.lines().filter(|line| line.contains(&path));
    of_it.filter(|line| line.contains(" 0001 03 ")).count()
}

#[test]
fn binaries_that_are_no_good_leave_everything_as_it_was() {
    let mut proxy = start();
    let load = steady(&proxy, 20).start();
    load.until_more(20);
    let not_executable = proxy.path("text");
    fs::write(&not_executable, "not a program").unwrap();
    let absent = proxy.path("absent").display().to_string();
    let castling = castling_bin().display().to_string();
    for (binary, timeout, expected) in [
        (absent, "60s", "No such file or directory"),
        (
            not_executable.display().to_string(),
            "60s",
            "Permission denied",
        ),
        (
            script(&proxy, "exits", "exit 3"),
            "60s",
            "ended before it was ready: exit status: 3",
        ),
        (
            script(&proxy, "crashes", "kill -SEGV $$"),
            "60s",
            "ended before it was ready: signal: 11",
        ),
        (
            script(&proxy, "other", &format!("exec {castling} reload \"$@\"")),
            "60s",
            "ended before it was ready: exit status: 2",
        ),
        (
            script(&proxy, "hangs", "exec sleep 1000"),
            "300ms",
            "was given 0.3 s and has not said that it serves",
        ),
        (
            script(
                &proxy,
                "talks",
                "eval \"echo nonsense >&$3\"; exec sleep 1000",
            ),
            "60s",
            "does not speak as this one",
        ),
    ] {
        let said = proxy
            .upgrade(&["--binary", &binary, "--timeout", timeout])
            .expect_refusal()
            .stderr;
        assert!(said.contains(expected), "{binary}: {said}");
        proxy.until_log_has(&format!(
            "upgrade refused: {}",
            said.trim().trim_start_matches("castling: ")
        ));
        assert_eq!(proxy.workers().len(), 2);
        load.until_more(20);
    }
    assert_eq!(load.stop().failures, [""; 0]);
    goes_on_as_before(&mut proxy);
}

#[test]
fn a_config_that_the_new_master_refuses_is_told_with_its_place() {
    let mut proxy = start();
    let load = steady(&proxy, 20).start();
    proxy.write_config(&config("two").replace("count = 2", "count = \"many\""));
    let said = proxy.upgrade(&[]).expect_refusal().stderr;
    assert!(said.contains("castling.toml:7:9: count \"many\""), "{said}");
    // A config that only its workers find wrong is refused, too.
    proxy.write_config(&config("two").replace("set = {", "sets = {"));
    let said = proxy.upgrade(&[]).expect_refusal().stderr;
    assert!(said.contains("mark") && said.contains("sets"), "{said}");
    load.until_more(20);
    assert_eq!(load.stop().failures, [""; 0]);
    proxy.write_config(&config("one"));
    goes_on_as_before(&mut proxy);
}

/// The moment before it serves is the last at which the old master can go on: control socket and pid file are to be
/// taken back then.
#[test]
fn a_new_master_that_fails_at_the_last_moment_has_taken_nothing() {
    let mut proxy = start();
    let load = steady(&proxy, 20).start();
    load.until_more(20);
    // The new master has put its control socket up when it finds that this is no place for a pid file.
    fs::remove_file(proxy.path("castling.pid")).unwrap();
    fs::create_dir(proxy.path("castling.pid")).unwrap();
    let said = proxy.upgrade(&[]).expect_refusal().stderr;
    assert!(
        said.contains("pid file") && said.contains("directory"),
        "{said}"
    );
    fs::remove_dir(proxy.path("castling.pid")).unwrap();
    fs::write(proxy.path("castling.pid"), proxy.master().0.to_string()).unwrap();
    proxy.reload().expect_success();
    load.until_more(20);
    assert_eq!(load.stop().failures, [""; 0]);

    goes_on_as_before(&mut proxy);
}

/// A binary whose log is a pipe that is full: it stands still at its first line, which is that its workers accept, with
/// config "two". Nothing is to be warned of before: neither of workers that are root without anybody having said so,
/// nor of too few files. With `run` other than "exec" it is no child of the old master, which so cannot kill it.
fn stands_still(proxy: &mut Proxy, run: &str) -> String {
    let quiet = config("two")
        .replace(
            "count = 2",
            &format!("count = 2\nuser = {}", geteuid().as_raw()),
        )
        .replace("bind =", "max_connections = 20\nbind =");
    proxy.write_config(&quiet);
    let text = format!(
        "mkfifo {dir}/pipe; exec 5<>{dir}/pipe; head -c 65536 /dev/zero >&5; {run} {castling} \"$@\" 2>&5",
        dir = proxy.path("").display(),
        castling = castling_bin().display(),
    );
    script(proxy, "stands-still", &text)
}

#[test]
fn a_new_master_that_fails_when_it_serves_finishes_what_it_has_accepted() {
    let mut proxy = start();
    fs::remove_file(proxy.path("castling.pid")).unwrap();
    fs::create_dir(proxy.path("castling.pid")).unwrap();
    let binary = stands_still(&mut proxy, "command");
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| proxy.command("upgrade", &["--binary", &binary]));
        let mut client = None;
        until("a connection to the new master's workers", || {
            let mut raw = proxy.raw();
            raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let is_its = raw.read_reply().text() == "two";
            client = is_its.then_some(raw);
            is_its
        });
        let mut client = client.unwrap();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
        client.send(head).send("ab");
        // The new master goes on, and finds that there is no place for a pid file.
        let mut log = fs::File::open(proxy.path("pipe")).unwrap();
        scope.spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let said = upgrade.join().unwrap().expect_refusal().stderr;
        assert!(said.contains("pid file"), "{said}");
        assert_eq!(client.send("cd").read_reply().text(), "two");
    });
    fs::remove_dir(proxy.path("castling.pid")).unwrap();
    fs::write(proxy.path("castling.pid"), proxy.master().0.to_string()).unwrap();
    proxy.write_config(&config("one"));
    goes_on_as_before(&mut proxy);
}

#[test]
fn a_new_master_that_is_killed_just_before_it_serves_has_taken_nothing() {
    let mut proxy = start();
    let load = steady(&proxy, 20).start();
    load.until_more(20);
    let binary = stands_still(&mut proxy, "exec");
    let outcome = std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| proxy.command("upgrade", &["--binary", &binary]));
        until("an answer of the new master's workers", || {
            proxy.get("/").text() == "two"
        });
        // A reload that is asked for meanwhile waits.
        let reload = scope.spawn(|| proxy.reload());
        let said = proxy.command("upgrade", &[]).expect_refusal().stderr;
        assert!(said.contains("another upgrade is under way"), "{said}");
        assert!(!reload.is_finished());
        let newcomer = proxy.master().children_with("take-over")[0];
        newcomer.signal(Signal::KILL);
        reload.join().unwrap().expect_success();
        upgrade.join().unwrap()
    });
    let said = outcome.expect_refusal().stderr;
    assert!(said.contains("ended before it served: signal: 9"), "{said}");
    load.until_more(20);
    assert_eq!(load.stop().failures, [""; 0]);
    assert_eq!(proxy.get("/").text(), "two");
    proxy.reload_with(&config("one")).expect_success();
    goes_on_as_before(&mut proxy);
}
