//! `retry.spill`: bodies that are too large for memory are kept on disk to be sent again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use castling_tests::body::{AnyBody, Stuff};
use castling_tests::origin::Origin;
use castling_tests::process::Process;
use castling_tests::{
    Exposition, Proxy, Reply, Setup, body, castling_bin, command, origin, raw_origin, until,
};
use http::{Request, Response};
use rustix::process::{Signal, geteuid};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A gateway of one worker, with these keys in its `[workers]` and in `retry`.
fn config(workers: &str, retry: &str) -> String {
    format!(
        r#"
        [workers]
        count = 1
        core_dumps = true
        {workers}

        [listeners.web]
        bind = "{{listen}}"
        max_body = 0

        [upstreams.app]
        peers = ["{{a}}", "{{b}}"]
        passive = {{ failures = 0 }}
        retry = {{ budget = "off", {retry} }}

        [[routes]]
        upstream = "app"
        "#
    )
}

const SPILL_DIR: &str = "spill_dir = \"{dir}/spill\"";

/// A gateway whose workers spill into a folder of the test's.
fn spilling(workers: &str, retry: &str) -> Setup {
    let setup = Proxy::with_config(&config(&format!("{SPILL_DIR}\n{workers}"), retry));
    fs::create_dir(setup.folder().join("spill")).expect("a folder of ours");
    setup
}

/// Reads a request with a body of this length, to its last byte, and ends the connection without an answer.
fn breaking_after(body_bytes: usize) -> Origin {
    raw_origin::scripted(move |connection, _| {
        connection.read_head()?;
        connection.read_exact(body_bytes).map(drop)
    })
}

/// Reads a chunked body to its end and ends the connection without an answer.
fn breaking_after_chunks() -> Origin {
    raw_origin::scripted(move |connection, _| {
        connection.read_head()?;
        let mut end = Vec::new();
        while !end.ends_with(b"\r\n0\r\n\r\n") {
            end.extend(connection.read_exact(1)?);
            end.drain(..end.len().saturating_sub(7));
        }
        Ok(())
    })
}

/// Says whether a body is the noise that the clients send, and how long it is.
fn comparing() -> Origin {
    origin::answering(|seen| {
        let mut expected = Stuff::noise().expect(0);
        let text = match expected.push(&seen.body) {
            Ok(()) => format!("the same {}", seen.body.len()),
            Err(difference) => difference,
        };
        Response::new(body::full(text))
    })
}

fn noise(bytes: usize) -> AnyBody {
    Stuff::noise().sized(0, bytes as u64)
}

fn put(proxy: &Proxy, body: AnyBody) -> Reply {
    proxy.send(Request::put("/").body(body).expect("a valid request"))
}

/// Answers to so many requests, sorted: half of them meet the peer that breaks first.
fn puts(proxy: &Proxy, requests: usize, body: impl Fn() -> AnyBody) -> Vec<String> {
    let mut replies: Vec<String> = (0..requests).map(|_| put(proxy, body()).text()).collect();
    replies.sort();
    replies
}

fn metrics(proxy: &Proxy) -> Exposition {
    Exposition::parse(&proxy.command("metrics", &[]).stdout)
}

fn metric(proxy: &Proxy, name: &str) -> f64 {
    metrics(proxy).sum(name, &[])
}

/// Waits until no body has anything on disk.
fn until_all_is_free(proxy: &Proxy) {
    until("a spill file without bodies", || {
        metric(proxy, "castling_spill_bytes") == 0.0
    });
}

/// Spill files that a process has open, by the names that they never had.
fn spill_files(proxy: &Proxy, process: Process) -> Vec<PathBuf> {
    let folder = proxy.path("spill");
    let descriptors = fs::read_dir(format!("/proc/{}/fd", process.0)).expect("a process of ours");
    let files = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    files.filter(|file| file.starts_with(&folder)).collect()
}

fn names_in_folder(proxy: &Proxy) -> usize {
    let folder = fs::read_dir(proxy.path("spill"));
    folder.expect("a folder of ours").count()
}

const FAILED: &str = "502 Bad Gateway\n";

#[test]
fn a_body_of_32_mib_goes_to_another_peer_unchanged_and_takes_little_memory() {
    const BYTES: usize = 32 * MIB;
    let proxy = spilling("", "buffer = \"256KiB\", spill = \"64MiB\"")
        .origin("a", breaking_after(BYTES))
        .origin("b", comparing())
        .start();
    let worker = proxy.workers()[0];
    let before_kib = worker.resident_kib();
    let expected = format!("the same {BYTES}");
    assert_eq!(puts(&proxy, 2, || noise(BYTES)), [expected.as_str(); 2]);
    for _ in 0..2 {
        let request = Request::post("/").header("idempotency-key", "\"1\"");
        let reply = proxy.send(request.body(noise(BYTES)).expect("a valid request"));
        assert_eq!(reply.text(), expected);
    }
    assert_eq!(proxy.origin("a").connections(), 2);
    let peak_kib = worker.peak_resident_kib();
    assert!(
        peak_kib < before_kib + 8 * KIB as u64,
        "{before_kib} KiB, then {peak_kib}"
    );
    assert_eq!(metric(&proxy, "castling_spilled_bodies_total"), 4.0);
    assert_eq!(metric(&proxy, "castling_spill_refused_total"), 0.0);
    until_all_is_free(&proxy);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_body_without_a_length_goes_to_another_peer_unchanged() {
    const BYTES: usize = 3 * MIB + 1;
    let proxy = spilling("", "buffer = 0, spill = \"4MiB\"")
        .origin("a", breaking_after_chunks())
        .origin("b", comparing())
        .start();
    let expected = format!("the same {BYTES}");
    let chunked = || Stuff::noise().chunked(0, BYTES as u64);
    assert_eq!(puts(&proxy, 2, chunked), [expected.as_str(); 2]);
    until_all_is_free(&proxy);
}

#[test]
fn a_status_that_is_chosen_sends_a_spilled_body_again() {
    const BYTES: usize = MIB;
    let refusing = raw_origin::scripted(|connection, _| {
        loop {
            connection.read_head()?;
            connection.read_exact(BYTES)?;
            connection.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let proxy = spilling("", "on = [\"503\"], spill = \"1MiB\"")
        .origin("a", refusing)
        .origin("b", comparing())
        .start();
    let expected = format!("the same {BYTES}");
    assert_eq!(puts(&proxy, 4, || noise(BYTES)), [expected.as_str(); 4]);
    until_all_is_free(&proxy);
}

#[test]
fn a_body_that_is_longer_than_both_bounds_is_sent_once() {
    let replies = |bytes: usize, body: fn(u64) -> AnyBody, breaking: Origin| {
        let proxy = spilling("", "buffer = \"64KiB\", spill = \"1MiB\"")
            .origin("a", breaking)
            .origin("b", comparing())
            .start();
        let replies = puts(&proxy, 2, || body(bytes as u64));
        until_all_is_free(&proxy);
        (replies, metric(&proxy, "castling_spilled_bodies_total"))
    };
    let sized = |bytes| Stuff::noise().sized(0, bytes);
    let chunked = |bytes| Stuff::noise().chunked(0, bytes);
    let most = MIB + 64 * KIB;
    let sent = |bytes: usize| format!("the same {bytes}");
    assert_eq!(
        replies(most, sized, breaking_after(most)),
        (vec![sent(most); 2], 2.0)
    );
    // A body that says so is not even begun to be written.
    assert_eq!(
        replies(most + 1, sized, breaking_after(most + 1)),
        (vec![FAILED.to_owned(), sent(most + 1)], 0.0)
    );
    assert_eq!(
        replies(most, chunked, breaking_after_chunks()),
        (vec![sent(most); 2], 2.0)
    );
    assert_eq!(
        replies(most + 1, chunked, breaking_after_chunks()),
        (vec![FAILED.to_owned(), sent(most + 1)], 2.0)
    );
}

#[test]
fn a_request_that_may_not_be_sent_twice_writes_nothing() {
    let proxy = spilling("", "spill = \"4MiB\"")
        .origin("a", breaking_after(MIB))
        .origin("b", comparing())
        .start();
    let mut replies: Vec<String> = (0..2).map(|_| proxy.post("/", noise(MIB)).text()).collect();
    replies.sort();
    assert_eq!(replies, [FAILED, "the same 1048576"]);
    assert_eq!(metric(&proxy, "castling_spilled_bodies_total"), 0.0);
}

#[test]
fn a_route_may_have_its_own() {
    let more = "
        [[routes]]
        path = \"/kept\"
        upstream = \"app\"
        retry = { spill = \"2MiB\" }
        ";
    let setup = Proxy::with_config(&(config(SPILL_DIR, "buffer = 0") + more));
    fs::create_dir(setup.folder().join("spill")).expect("a folder of ours");
    let proxy = setup
        .origin("a", breaking_after(MIB))
        .origin("b", comparing())
        .start();
    assert_eq!(puts(&proxy, 2, || noise(MIB)), [FAILED, "the same 1048576"]);
    for _ in 0..2 {
        let request = Request::put("/kept").body(noise(MIB));
        let reply = proxy.send(request.expect("a valid request"));
        assert_eq!(reply.text(), "the same 1048576");
    }
}

#[test]
fn a_worker_that_has_as_much_on_disk_as_it_may_fails_no_request() {
    const BYTES: usize = MIB;
    let proxy = spilling("spill_limit = \"1MiB\"", "spill = \"1MiB\"")
        .origin("a", comparing())
        .origin("b", comparing())
        .start();
    let sent = vec![b'x'; BYTES];
    let mut clients: Vec<_> = (0..8).map(|_| proxy.raw()).collect();
    for client in &mut clients {
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n"
        ));
        client.send(&sent[..BYTES / 2]);
    }
    until("a spill file that is full", || {
        metric(&proxy, "castling_spill_refused_total") >= 5.0
    });
    let text = proxy.command("metrics", &[]).stdout;
    let refused = Exposition::parse(&text);
    assert!(refused.sum("castling_spill_refused_total", &[("reason", "limit")]) >= 5.0);
    assert!(refused.sum("castling_spill_bytes", &[]) <= MIB as f64);
    for client in &mut clients {
        client.send(&sent[BYTES / 2..]);
        assert_eq!(client.read_reply().status, 200);
    }
    until_all_is_free(&proxy);
    proxy.until_log_has("spill_limit is reached");
    let told = proxy.log().matches("spill_limit is reached").count();
    assert_eq!(told, 1, "{}", proxy.log());
    // Room that was freed is used again.
    let spilled = metric(&proxy, "castling_spilled_bodies_total");
    assert_eq!(put(&proxy, noise(BYTES)).text(), "the same 1048576");
    assert_eq!(
        metric(&proxy, "castling_spilled_bodies_total"),
        spilled + 1.0
    );
}

/// A file system in memory, of 1 MiB; `None` where the tests may not make one.
fn small_disk(folder: PathBuf) -> Option<SmallDisk> {
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&folder);
    let mounted = mount.output().is_ok_and(|output| output.status.success());
    mounted.then_some(SmallDisk(folder))
}

struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ended_meanwhile = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_disk_that_is_full_fails_no_request() {
    let setup = spilling("", "buffer = 0, spill = \"4MiB\"");
    let Some(_disk) = small_disk(setup.folder().join("spill")) else {
        eprintln!("SKIPPED, needs root: {}:{}", file!(), line!());
        return;
    };
    let proxy = setup
        .origin("a", breaking_after(2 * MIB))
        .origin("b", comparing())
        .start();
    let too_large = puts(&proxy, 2, || noise(2 * MIB));
    assert_eq!(too_large, [FAILED, "the same 2097152"]);
    let failed = metrics(&proxy).sum("castling_spill_refused_total", &[("reason", "error")]);
    assert_eq!(failed, 2.0);
    proxy.until_log_has("spill file: bodies are not kept to be sent again");
    until_all_is_free(&proxy);
}

#[test]
fn disk_is_given_back_when_the_response_has_begun() {
    let slow = || {
        raw_origin::scripted(|connection, _| {
            connection.read_head()?;
            connection.read_exact(MIB)?;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
            connection.read_exact(1).map(drop)
        })
    };
    let proxy = spilling("", "spill = \"1MiB\"")
        .origin("a", slow())
        .origin("b", slow())
        .start();
    let mut client = proxy.raw();
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {MIB}\r\n\r\n"
    ));
    client.send(vec![b'x'; MIB / 2]);
    until("bytes on disk", || {
        metric(&proxy, "castling_spill_bytes") > 0.0
    });
    client.send(vec![b'x'; MIB / 2]);
    until_all_is_free(&proxy);
    assert_eq!(metric(&proxy, "castling_requests_active"), 1.0);
    // Nor does a client that leaves keep any.
    let mut client = proxy.raw();
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {MIB}\r\n\r\n"
    ));
    client.send(vec![b'x'; MIB / 2]);
    until("bytes on disk", || {
        metric(&proxy, "castling_spill_bytes") > 0.0
    });
    client.reset();
    until_all_is_free(&proxy);
}

#[test]
fn a_mirror_is_not_sent_what_is_on_disk() {
    let mirrored = config(SPILL_DIR, "spill = \"2MiB\"")
        .replace("[[routes]]", "[[routes]]\n        mirror = \"app\"");
    let setup = Proxy::with_config(&mirrored);
    fs::create_dir(setup.folder().join("spill")).expect("a folder of ours");
    let proxy = setup
        .origin("a", comparing())
        .origin("b", comparing())
        .start();
    let skipped = || {
        let of = [("outcome", "skipped")];
        metrics(&proxy).sum("castling_mirrored_requests_total", &of)
    };
    assert_eq!(put(&proxy, noise(60 * KIB)).status, 200);
    assert_eq!(skipped(), 0.0);
    assert_eq!(put(&proxy, noise(MIB)).status, 200);
    assert_eq!(skipped(), 1.0);
}

#[test]
fn a_worker_that_dies_leaves_nothing_and_the_next_has_a_file_of_its_own() {
    let proxy = spilling("", "spill = \"4MiB\"")
        .origin("a", breaking_after(MIB))
        .origin("b", comparing())
        .start();
    let worker = proxy.workers()[0];
    assert_eq!(spill_files(&proxy, worker).len(), 1);
    assert_eq!(spill_files(&proxy, proxy.master()).len(), 0);
    let mut client = proxy.raw();
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {MIB}\r\n\r\n"
    ));
    client.send(vec![b'x'; MIB / 2]);
    until("bytes on disk", || {
        metric(&proxy, "castling_spill_bytes") > 0.0
    });
    assert_eq!(names_in_folder(&proxy), 0);
    worker.signal(Signal::KILL);
    until("another worker", || {
        proxy.workers().first().is_some_and(|it| *it != worker)
    });
    let expected = "the same 1048576";
    until("a worker that serves", || {
        std::net::TcpStream::connect(proxy.address()).is_ok()
    });
    assert_eq!(puts(&proxy, 2, || noise(MIB)), [expected; 2]);
    assert_eq!(names_in_folder(&proxy), 0);
    assert_eq!(spill_files(&proxy, proxy.workers()[0]).len(), 1);
    until_all_is_free(&proxy);
}

#[test]
fn a_folder_that_has_gone_costs_a_new_worker_its_spill_file_alone() {
    let proxy = spilling("", "spill = \"4MiB\"")
        .origin("a", breaking_after(MIB))
        .origin("b", comparing())
        .start();
    fs::remove_dir(proxy.path("spill")).expect("a folder of ours, with nothing in it");
    let worker = proxy.workers()[0];
    worker.signal(Signal::KILL);
    until("another worker", || {
        proxy.workers().first().is_some_and(|it| *it != worker)
    });
    proxy.until_log_has("bodies are kept in memory alone");
    assert_eq!(puts(&proxy, 2, || noise(MIB)), [FAILED, "the same 1048576"]);
    assert_eq!(metric(&proxy, "castling_spill_files_missing"), 1.0);
    let said = proxy.reload().expect_refusal().stderr;
    assert!(said.contains("/spill: No such file or directory"), "{said}");
}

#[test]
fn a_reload_brings_a_spill_file_and_takes_it_away() {
    let without = config("", "buffer = 0");
    let with = config(SPILL_DIR, "buffer = 0, spill = \"2MiB\"");
    let setup = Proxy::with_config(&without);
    fs::create_dir(setup.folder().join("spill")).expect("a folder of ours");
    let mut proxy = setup
        .origin("a", breaking_after(MIB))
        .origin("b", comparing())
        .start();
    let expected = "the same 1048576";
    assert_eq!(puts(&proxy, 2, || noise(MIB)), [FAILED, expected]);
    assert_eq!(spill_files(&proxy, proxy.workers()[0]).len(), 0);
    proxy.reload_with(&with).expect_success();
    assert_eq!(puts(&proxy, 2, || noise(MIB)), [expected; 2]);
    assert_eq!(spill_files(&proxy, proxy.until_workers(1)[0]).len(), 1);
    // A folder that nobody uses brings no descriptor.
    proxy
        .reload_with(&config(SPILL_DIR, "buffer = 0"))
        .expect_success();
    assert_eq!(spill_files(&proxy, proxy.until_workers(1)[0]).len(), 0);
    assert_eq!(puts(&proxy, 2, || noise(MIB)), [FAILED, expected]);
}

#[test]
fn workers_of_another_user_spill_into_a_folder_that_is_closed_to_them() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED, needs root: {}:{}", file!(), line!());
        return;
    }
    let setup = spilling("user = \"nobody\"", "spill = \"4MiB\"").open_to_others();
    let closed = fs::Permissions::from_mode(0o700);
    fs::set_permissions(setup.folder().join("spill"), closed).expect("a folder of ours");
    let proxy = setup
        .origin("a", breaking_after(MIB))
        .origin("b", comparing())
        .start();
    assert_eq!(puts(&proxy, 2, || noise(MIB)), ["the same 1048576"; 2]);
    assert_eq!(metric(&proxy, "castling_spilled_bodies_total"), 2.0);
}

#[test]
fn a_folder_that_cannot_be_used_is_an_error_with_its_place() {
    let keys = config(SPILL_DIR, "spill = \"4MiB\"");
    let setup = || {
        Proxy::with_config(&keys)
            .origin("a", comparing())
            .origin("b", comparing())
    };
    let good = spilling("", "spill = \"4MiB\"")
        .origin("a", comparing())
        .origin("b", comparing());
    let said = good.check().outcome.expect_success().stdout;
    let told = "bodies to send again: 65536 bytes in memory, 4194304 on disk";
    assert!(said.contains(told), "{said}");
    let place = "castling.toml:4:13: spill_dir {dir}/spill: ";
    setup()
        .check()
        .expect_error(&format!("{place}No such file or directory"));
    setup()
        .run()
        .expect_error(&format!("{place}No such file or directory"));
    let no_folder = setup().file("spill", "").check();
    no_folder.expect_error(&format!("{place}Not a directory"));

    let setup = setup().open_to_others();
    let folder = setup.folder().join("spill");
    fs::create_dir(&folder).expect("a folder of ours");
    let closed = fs::Permissions::from_mode(0o500);
    fs::set_permissions(&folder, closed).expect("a folder of ours");
    let (dir, path) = setup.written();
    let mut check = Command::new(castling_bin());
    check.arg("check").arg("--config").arg(&path);
    if geteuid().is_root() {
        const NOBODY: u32 = 65534;
        check.uid(NOBODY).gid(NOBODY);
    }
    let said = command::run(check, Duration::from_secs(30)).expect_refusal();
    let expected = format!("spill_dir {}: Permission denied", folder.display());
    assert!(said.stderr.contains(&expected), "{}", said.stderr);
    drop(dir);
}
