//! Lines of the access log: formats, variables, targets, reopening.

use castling_tests::body::Stuff;
use castling_tests::{Proxy, body, origin, raw_origin, until};
use http::{Response, StatusCode};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn combined_is_the_default() {
    let proxy = start("");
    let reply = proxy.get_with(
        "/path?q=1",
        &[("referer", "http://from/"), ("user-agent", "tests/1 \"q\"")],
    );
    assert_eq!(reply.status, StatusCode::OK);
    let [line] = proxy.until_access_lines(1).try_into().unwrap();
    // 127.0.0.1 - - [21/Nov/2026:23:39:15 +0000] "GET /path?q=1 HTTP/1.1" 200 5 "http://from/" "tests/1"
    let (client, rest) = line.split_once(" - - [").unwrap();
    let (time, rest) = rest.split_once("] ").unwrap();
    assert_eq!(client, "127.0.0.1");
    assert_eq!(
        (time.len(), time.matches([':', '/', ' ']).count()),
        (26, 6),
        "{time}"
    );
    assert!(
        rest.starts_with(r#""GET /path?q=1 HTTP/1.1" 200 5 "http://from/" "tests/1 "#),
        "{rest}"
    );
    // Bytes of a client can end neither the quotes nor the line.
    assert!(!rest.contains(r#"1 "q""#), "{rest}");
}

#[test]
fn a_full_disk_is_told_once_in_a_while() {
    let start = |log: &str| {
        let config = config("")
            .replace("{dir}/access.log", "/dev/full")
            .replace("10ms", "0s");
        Proxy::with_config(&format!("{config}\n[log]\n{log}\n"))
            .origin("app", origin::text("hello"))
            .start()
    };
    let proxy = start("level = \"info\"");
    for _ in 0..500 {
        assert_eq!(proxy.get("/").status, StatusCode::OK);
    }
    proxy.until_log_has("access log lines are lost");
    let log = proxy.log();
    // Each of two workers once in ten seconds, and the machine may be slow.
    let told = log.matches("access log lines are lost").count();
    assert!(told <= 50, "{told} times");

    // The log itself fails, too.
    let proxy = start("level = \"debug\"\nfile = \"/dev/full\"");
    for _ in 0..500 {
        assert_eq!(proxy.get("/").status, StatusCode::OK);
    }
    let said = proxy.log();
    assert!(
        said.contains("log.file: /dev/full: lines are lost"),
        "{said}"
    );
    assert!(said.lines().count() <= 50, "{said}");
}

#[test]
fn json_is_an_object_a_line() {
    let proxy = start("format = \"json\"");
    proxy.get_with("/a%20b?q=%22", &[("user-agent", "quote \" and \\ back")]);
    let [line] = proxy.until_access_lines(1).try_into().unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["method"], &line["path"], &line["query"]),
        (&"GET".into(), &"/a%20b".into(), &"q=%22".into())
    );
    assert_eq!(text(&line["status"]), "200");
    assert_eq!(text(&line["body_bytes_sent"]), "5");
    assert_eq!(line["client_address"], "127.0.0.1");
    assert_eq!(line["upstream"], "app");
    assert_eq!(line["peer"], proxy.origin("app").address().to_string());
    assert_eq!(line["user_agent"], "quote \" and \\ back");
    assert!(
        text(&line["duration"]).parse::<f64>().unwrap() < 10.0,
        "{line}"
    );
}

#[test]
fn a_format_of_ones_own_names_variables() {
    let proxy = start(
        "format = \"$method|$host|$path|$query|$status|$body_bytes_sent|$upstream|$http_x_id|$$\"",
    );
    proxy.get_with("/p?a=b", &[("host", "h.example"), ("x-id", "42")]);
    // Another worker may have the second request, and write sooner.
    proxy.until_access_lines(1);
    proxy.get("/q");
    let lines = proxy.until_access_lines(2);
    assert_eq!(lines[0], "GET|h.example|/p|a=b|200|5|app|42|$");
    // Missing values are dashes.
    assert_eq!(lines[1], "GET|test.example|/q|-|200|5|app|-|$");
}

#[test]
fn json_of_ones_own_keeps_its_keys() {
    let proxy = start("format = { json = { what = \"$method $path\", code = \"$status\" } }");
    proxy.get("/x");
    let [line] = proxy.until_access_lines(1).try_into().unwrap();
    let object: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["what"], "GET /x");
    assert_eq!(text(&object["code"]), "200");
    assert_eq!(object.as_object().unwrap().len(), 2);
}

#[test]
fn what_is_no_variables_name_is_refused() {
    let config = config("format = \"$Method $path\"");
    let checked = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .check();
    let said = checked.outcome.expect_refusal().stderr;
    assert!(said.contains("$Method"), "{said}");
}

#[test]
fn every_end_of_a_request_has_its_line() {
    let config = r#"
        [workers]
        count = 1

        [access_log]
        file = "{dir}/access.log"
        format = "$status $path"
        flush = "0s"

        [listeners.web]
        bind = "{listen}"

        [upstreams.gone]
        peers = ["{refusing}"]

        [[routes]]
        path = "/gone"
        upstream = "gone"
    "#;
    let proxy = Proxy::with_config(config).start();
    assert_eq!(proxy.get("/nowhere").status, StatusCode::NOT_FOUND);
    assert_eq!(proxy.get("/gone").status, StatusCode::BAD_GATEWAY);
    let mut client = proxy.raw();
    client.send("GET /bad HTTP/1.1\r\nHost : a\r\n\r\n");
    assert_eq!(client.read_reply().status, 400);
    let lines = proxy.until_access_lines(3);
    assert_eq!(lines[..2], ["404 /nowhere", "502 /gone"]);
    assert!(lines[2].starts_with("400 "), "{lines:?}");
}

#[test]
fn a_response_that_was_cut_says_by_whom_and_the_log_says_why() {
    let broken = raw_origin::closing("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let config = config("format = \"$status $body_bytes_sent $cut_by\"");
    let proxy = Proxy::with_config(&config).origin("app", broken).start();
    let mut client = proxy.raw();
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.read_head().unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.read_to_end().unwrap(), b"half");
    assert_eq!(proxy.until_access_lines(1), ["200 4 upstream"]);
    let warning = proxy.until_log_has("response cut after 4 bytes of its body: ");
    let peer = proxy.origin("app").address().to_string();
    for fact in ["WARN", "/cut", "200", "upstream app", &peer] {
        assert!(warning.contains(fact), "no {fact:?} in {warning}");
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_response_has_cut_it() {
    let endless = origin::serving(|_| async { Response::new(Stuff::noise().chunked(0, 1 << 40)) });
    let config = config("format = \"$status $cut_by\"");
    let proxy = Proxy::with_config(&config).origin("app", endless).start();
    let mut client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.read_head().unwrap().starts_with("HTTP/1.1 200 "));
    drop(client);
    assert_eq!(proxy.until_access_lines(1), ["200 client"]);
}

#[test]
fn a_client_that_leaves_is_499() {
    let config = config("format = \"$status $path\"");
    let proxy = Proxy::with_config(&config)
        .origin("app", raw_origin::stalled())
        .start();
    let mut client = proxy.raw();
    client.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the origin has it", || {
        proxy.origin("app").connections() == 1
    });
    client.reset();
    assert_eq!(proxy.until_access_lines(1), ["499 /left"]);
}

#[test]
fn standard_output_is_a_target() {
    let config = config("").replace("{dir}/access.log", "stdout");
    let proxy = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .start();
    proxy.get("/to-stdout");
    until("the line on standard output", || {
        proxy.stdout().contains("GET /to-stdout HTTP/1.1")
    });
}

#[test]
fn a_standard_output_that_nobody_reads_stops_no_traffic() {
    let config = config("").replace("{dir}/access.log", "stdout");
    let proxy = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .stdout_that_nobody_reads()
        .start();
    // Some 6 MB of lines; a pipe holds 64 KiB.
    let long = "x".repeat(2_000);
    let mut client = proxy.raw();
    for n in 0..3_000 {
        client.send(format!("GET /{n}/{long} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let reply = client.read_reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "{n}");
    }
    proxy.until_log_has("access log lines are lost: nobody reads standard output");
}

#[test]
fn off_writes_nothing() {
    let config = config("").replace("{dir}/access.log", "off");
    let mut proxy = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .start();
    proxy.get("/unseen");
    proxy.command("stop", &[]).expect_success();
    proxy.until_ended();
    assert!(!proxy.stdout().contains("/unseen"));
    assert!(!proxy.path("off").exists());
}

#[test]
fn a_renamed_file_is_left_at_usr1() {
    let proxy = start("format = \"$path\"");
    proxy.get("/before");
    assert_eq!(proxy.until_access_lines(1), ["/before"]);
    std::fs::rename(proxy.path("access.log"), proxy.path("access.log.1")).unwrap();
    proxy.master().signal(Signal::USR1);
    until("a new file", || proxy.path("access.log").exists());
    // Every worker writes to the new one, some after a moment; none writes a line to neither.
    let old_lines = || {
        std::fs::read_to_string(proxy.path("access.log.1"))
            .unwrap()
            .lines()
            .count()
    };
    let mut sent = 1;
    until("lines in the new file", || {
        proxy.get("/after");
        sent += 1;
        proxy.access_lines().len() >= 20
    });
    until("no line is lost", || {
        old_lines() + proxy.access_lines().len() == sent
    });
    assert!(old_lines() < 10);
}

#[test]
fn no_line_is_lost_at_a_stop() {
    let config = config("format = \"$path\"").replace("flush = \"10ms\"", "flush = \"60s\"");
    let mut proxy = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .start();
    for n in 0..50 {
        proxy.post(&format!("/{n}"), body::empty());
    }
    proxy.command("stop", &[]).expect_success();
    proxy.until_ended();
    assert_eq!(proxy.access_lines().len(), 50);
}

fn config(access_log: &str) -> String {
    r#"
    [access_log]
    file = "{dir}/access.log"
    flush = "10ms"
    MORE

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    upstream = "app"
    "#
    .replace("MORE", access_log)
}

#[track_caller]
fn start(access_log: &str) -> Proxy {
    Proxy::with_config(&config(access_log))
        .origin("app", origin::text("hello"))
        .start()
}

/// A number or the text of one.
fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
