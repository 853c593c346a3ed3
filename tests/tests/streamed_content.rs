//! Responses that a `content` hook writes piece by piece.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use castling_tests::{Proxy, RawClient, origin, raw_origin, until};

const CONFIG: &str = r#"
    [workers]
    count = 1
    drain_timeout = "30s"

    [access_log]
    file = "{dir}/access.log"
    format = "$status $body_bytes_sent $cut_by"
    flush = "0s"

    [zones.seen]
    kind = "counter"
    size = "64KiB"

    [plugins.streamer]
    wasm = "{guests}/streamer.wasm"
    grants = { upstreams = ["gate"], zones = ["seen"], own_routes = true }
    limits = { LIMITS }

    [plugins.filter]
    wasm = "{guests}/streamer.wasm"
    grants = { upstreams = ["gate"], zones = ["seen"], own_routes = true }

    [listeners.web]
    bind = "{listen}"

    [upstreams.gate]
    peers = ["{gate}"]

    [[routes]]
    plugins = ["streamer"]

    [[routes]]
    path = "/filtered"
    plugins = ["streamer", "filter"]

    [[routes]]
    path = "/skip"
    plugins = [{ name = "streamer", on_error = "skip" }]
    upstream = "gate"
"#;

/// Gate before which scripts wait: each word that is sent opens it once.
fn gate() -> (Sender<()>, origin::Origin) {
    let (open, opened) = channel();
    let opened: Mutex<Receiver<()>> = Mutex::new(opened);
    let origin = raw_origin::scripted(move |connection, _| {
        loop {
            connection.read_head()?;
            let opened = opened.lock().map_err(|error| error.to_string())?;
            opened.recv().map_err(|error| error.to_string())?;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    (open, origin)
}

struct Streams {
    proxy: Proxy,
    open: Sender<()>,
}

fn streams() -> Streams {
    streams_within("")
}

fn streams_within(limits: &str) -> Streams {
    let (open, gate) = gate();
    let proxy = Proxy::with_config(&CONFIG.replace("LIMITS", limits))
        .origin("gate", gate)
        .start();
    Streams { proxy, open }
}

impl Streams {
    fn open_gate(&self) {
        self.open.send(()).expect("the gate's origin runs");
    }

    /// A client that has asked for what the script writes, with further lines of its head.
    fn ask(&self, first_line: &str, script: &str, more: &str) -> RawClient {
        let mut client = self.proxy.raw();
        client.send(request(first_line, script, more));
        client
    }

    fn counted(&self, key: &str) -> u64 {
        let reply = self
            .proxy
            .get_with("/", &[("x-script", &*format!("tell {key}"))]);
        reply.text().parse().expect("a number")
    }

    /// The last line of the access log, after the others.
    fn line(&self, n: usize) -> String {
        self.proxy.until_access_lines(n)[n - 1].clone()
    }
}

fn request(first_line: &str, script: &str, more: &str) -> String {
    format!("{first_line}\r\nHost: a\r\nX-Script: {script}\r\n{more}\r\n")
}

const GET: &str = "GET / HTTP/1.1";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

#[track_caller]
fn expect(client: &mut RawClient, text: &str) {
    let read = client.read_exact(text.len()).expect("what was written");
    assert_eq!(String::from_utf8_lossy(&read), text);
}

#[test]
fn pieces_come_as_they_are_written() {
    let streams = streams();
    let script =
        "head content-type text/plain; begin; gate; write one; gate; write two; gate; finish";
    let mut client = streams.ask(GET, script, "");
    let head = client.read_head().expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain\r\n"), "{head}");
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    for (word, end) in [("one", ""), ("two", ""), ("", "0\r\n\r\n")] {
        // The hook waits before the gate with this piece unwritten.
        streams.open_gate();
        let piece = match word {
            "" => end.to_owned(),
            word => chunk(word),
        };
        expect(&mut client, &piece);
    }
    assert_eq!(streams.line(1), "200 6 -");
    // The connection serves the next request.
    client.send(request(
        GET,
        "first first,; begin; write second; finish",
        "",
    ));
    assert_eq!(client.read_reply().text(), "first,second");
    client.send(request(GET, "answer whole", ""));
    assert_eq!(client.read_reply().text(), "whole");
    assert_eq!(streams.proxy.error_lines(), [""; 0]);
}

#[test]
fn a_length_that_is_told_is_kept() {
    let streams = streams();
    let mut client = streams.ask(GET, "begin 6; write one; try four; write two; finish", "");
    let reply = client.read_reply();
    assert_eq!(reply.header("content-length"), Some("6"));
    assert_eq!(reply.text(), "onetwo");
    streams.proxy.until_log_has(
        "write: write(4 bytes): bad argument: expected no more than the length that the response has told",
    );
    client.send(request(GET, "begin 0; finish", ""));
    assert_eq!(client.read_reply().text(), "");
    // Too few bytes end the connection.
    client.send(request(GET, "begin 6; write one; finish", ""));
    assert!(client.try_read_reply().is_err());
    assert_eq!(streams.line(3), "200 3 plugin");
    streams.proxy.until_log_has(
        "plugin streamer ended its response 3 bytes before the length that it has told",
    );
}

#[test]
fn a_response_that_is_not_finished_is_cut_and_the_next_one_is_not() {
    // Time for the host calls that end the last one.
    let streams = streams_within("cpu = \"20s\"");
    let endings = [
        ("panic", "it was asked to panic"),
        ("fail", "it was asked to fail"),
        ("continue", "declined, after it had begun a response"),
        (
            "answer late",
            "answer with status 200 and 4 bytes: not in this hook",
        ),
        ("spin 5000", "limits.host_calls of 100000 reached"),
    ];
    for (n, (ending, told)) in endings.into_iter().enumerate() {
        for (line, begin) in [
            ("GET / HTTP/1.1", "begin"),
            ("GET /skip HTTP/1.1", "begin 100"),
        ] {
            let mut client = streams.ask(line, &format!("{begin}; write piece; {ending}"), "");
            client.read_head().expect("a head");
            let body = client.read_to_end().expect("the end");
            let expected = match begin {
                "begin" => chunk("piece"),
                _ => "piece".to_owned(),
            };
            assert_eq!(String::from_utf8_lossy(&body), expected, "{ending}");
        }
        streams.proxy.until_log_has(told);
        assert_eq!(streams.line(3 * n + 2), "200 5 plugin", "{ending}");
        let whole = streams
            .proxy
            .get_with("/", &[("x-script", "begin; write whole; finish")]);
        assert_eq!(whole.text(), "whole");
    }
    // HTTP/1.0 knows no other end than the close, so that a cut must be a reset.
    let mut client = streams.ask("GET / HTTP/1.0", "begin; write piece; fail", "");
    client.expect_reset();
}

#[test]
fn before_its_head_a_failure_is_what_it_always_is() {
    let streams = streams();
    for (script, status) in [
        ("fail", 500),
        ("status 99; begin", 500),
        ("head content-length 5; begin", 500),
        ("finish", 500),
    ] {
        let mut client = streams.ask(GET, script, "");
        assert_eq!(client.read_reply().status, status, "{script}");
    }
    streams
        .proxy
        .until_log_has("stream with status 99: bad argument: expected a status of 200 to 599");
    // With `on_error = "skip"` the next in the line answers.
    streams.open_gate();
    let mut client = streams.ask("GET /skip HTTP/1.1", "fail", "");
    assert_eq!(client.read_reply().text(), "ok");
}

#[test]
fn it_is_for_content_only_and_once() {
    let streams = streams();
    let mut client = streams.ask(GET, "answer whole", "X-Early: 1\r\n");
    assert_eq!(client.read_reply().status, 500);
    streams.proxy.until_log_has(
        "plugin streamer failed in access: stream with status 200: not in this hook",
    );
    // A filter may not begin another one in the place of this.
    let mut client = streams.ask(GET, "answer whole", "X-Head: begin\r\n");
    assert_eq!(client.read_reply().status, 500);
    streams.proxy.until_log_has(
        "plugin streamer failed in response_headers: stream with status 200: not in this hook",
    );
    // Decisions cannot be changed: neither the request nor what was read of it.
    for (command, told) in [
        ("read", "read_body(1000): not in this hook"),
        ("set x-a 1", "set_header(\"x-a\", \"1\"): not in this hook"),
    ] {
        let mut client = streams.ask(GET, &format!("begin; {command}; finish"), "");
        assert!(client.try_read_reply().is_err(), "{command}");
        streams.proxy.until_log_has(told);
    }
}

#[test]
fn filters_see_head_and_body() {
    let streams = streams();
    let filtered = "GET /filtered HTTP/1.1";
    let script = "first ab; begin 4; write cd; trailer x-sum 4; finish";
    let mut client = streams.ask(filtered, script, "X-Head: mark\r\nX-Body: upper\r\n");
    let head = client.read_head().expect("a head");
    assert!(head.contains("x-marked: 200\r\n"), "{head}");
    // The length of what filters make of it is not known.
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    expect(
        &mut client,
        &(chunk("AB") + &chunk("CD") + "0\r\nx-sum: 4\r\n\r\n"),
    );
    // Both plugins are the same module, and each adds its part to the last piece.
    let mut client = streams.ask(filtered, script, "X-Body: tail\r\n");
    assert_eq!(client.read_reply().text(), "abcdtail 4tail 4");
    // A trailer that would say how the response is to be read is none.
    let mut client = streams.ask(filtered, "begin; trailer content-type a; finish", "");
    assert!(client.try_read_reply().is_err());
}

#[test]
fn a_filter_may_end_the_body_or_answer_in_its_place() {
    let streams = streams();
    // Without an end of its own, the script would wait for the gate: it ends at the write that nobody wants.
    let mut client = streams.ask(
        GET,
        "begin; write ab; write c!; gate; finish",
        "X-Body: end\r\n",
    );
    assert_eq!(client.read_reply().text(), "abc!");
    client.send(request(
        GET,
        "begin; write ab; gate; finish",
        "X-Head: answer\r\n",
    ));
    let reply = client.read_reply();
    assert_eq!((reply.status, reply.text().as_str()), (203, "instead"));
    assert_eq!(reply.header("x-by"), Some("filter"));
    client.send(request(GET, "begin; try ab; finish", "X-Head: answer\r\n"));
    assert_eq!(client.read_reply().text(), "instead");
    streams
        .proxy
        .until_log_has("write: nobody takes more of this response's body");
    assert_eq!(streams.proxy.error_lines(), [""; 0]);
    // A filter that fails is no fault of the stream's: the head is not out, or it is.
    client.send(request(
        GET,
        "begin; write ab; gate; finish",
        "X-Head: fail\r\n",
    ));
    assert_eq!(client.read_reply().status, 500);
    client.send(request(
        GET,
        "begin; write ab; write c!; gate; finish",
        "X-Body: fail\r\n",
    ));
    assert!(client.try_read_reply().is_err());
    assert_eq!(streams.line(5), "200 2 plugin");
}

#[test]
fn head_and_statuses_without_a_body_have_none() {
    let streams = streams();
    let mut client = streams.ask("HEAD / HTTP/1.1", "begin 3; write one; gate; finish", "");
    let reply = client.read_reply_to_head();
    assert_eq!(reply.header("content-length"), Some("3"));
    for (script, more, status) in [
        ("status 204; begin; write one; gate; finish", "", 204),
        (
            "status 304; head etag \"a\"; first one; begin; write two; gate",
            "",
            304,
        ),
        ("begin; write one; gate; finish", "X-Head: status\r\n", 204),
        ("status 204; begin; finish", "", 204),
    ] {
        client.send(request(GET, script, more));
        assert_eq!(client.read_reply().status, status, "{script}");
    }
    client.send(request(GET, "answer whole", ""));
    assert_eq!(client.read_reply().text(), "whole");
    assert_eq!(streams.proxy.error_lines(), [""; 0]);
}

#[test]
fn a_hook_that_fails_when_its_response_is_whole_cuts_nothing() {
    let streams = streams();
    let mut client = streams.ask(GET, "begin; try ab; fail", "X-Head: answer\r\n");
    assert_eq!(client.read_reply().text(), "instead");
    client.send(request("HEAD / HTTP/1.1", "begin 3; try one; fail", ""));
    assert_eq!(client.read_reply_to_head().status, 200);
    client.send(request(GET, "answer whole", ""));
    assert_eq!(client.read_reply().text(), "whole");
    let lines = streams.proxy.until_access_lines(3);
    assert_eq!(lines, ["203 7 -", "200 0 -", "200 5 -"]);
    let failed = "plugin streamer failed in content: it was asked to fail";
    assert!(streams.proxy.until_log_has(failed).matches(failed).count() >= 1);
}

#[test]
fn a_client_that_does_not_read_makes_the_hook_wait() {
    let streams = streams();
    let worker = streams.proxy.workers()[0];
    let (pieces, bytes) = (400_u64, 100_000_u64);
    let mut client = streams.ask(GET, &format!("begin; fill {pieces} {bytes}; finish"), "");
    client.read_head().expect("a head");
    let before_kib = worker.resident_kib();
    let mut counted = (0, 1);
    until("the hook writes no more", || {
        std::thread::sleep(Duration::from_millis(50));
        counted = (counted.1, streams.counted("pieces"));
        counted.0 == counted.1 && counted.1 > 0
    });
    assert!(counted.1 < pieces, "all {pieces} pieces were taken");
    let grown_kib = worker.resident_kib().saturating_sub(before_kib);
    // The kernel's buffers are not the worker's memory.
    assert!(grown_kib < 4 * 1024, "{grown_kib} KiB");
    // The rest comes when it is read.
    let mut taken = 0;
    loop {
        let line = line_of(&mut client);
        let size = usize::from_str_radix(&line, 16).expect("a chunk's size");
        let data = client.read_exact(size + 2).expect("a chunk");
        if size == 0 {
            break;
        }
        assert!(data[..size].iter().all(|&byte| byte == b'x'));
        taken += size as u64;
    }
    assert_eq!(taken, pieces * bytes);
    assert_eq!(streams.counted("pieces"), pieces);
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let (_open, gate) = gate();
    let config = CONFIG
        .replace("LIMITS", "")
        .replace("bind =", "send_timeout = \"200ms\"\nbind =");
    let proxy = Proxy::with_config(&config).origin("gate", gate).start();
    let mut client = proxy.raw();
    client.send(request(GET, "begin; fill 100000 60000; finish", ""));
    let line = proxy.until_access_lines(1).remove(0);
    assert!(
        line.starts_with("200 ") && line.ends_with(" client"),
        "{line}"
    );
    assert_eq!(proxy.error_lines(), [""; 0]);
}

fn line_of(client: &mut RawClient) -> String {
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        let byte = client.read_exact(1).expect("a chunk's line");
        line.push(char::from(byte[0]));
    }
    line.trim_end().to_owned()
}

#[test]
fn a_client_that_leaves_ends_the_hook() {
    let streams = streams();
    let instances = || streams.proxy.status()["workers"][0]["requests_active"].as_u64();
    for (n, wait) in ["delay 60000", "gate", "fill 100000 60000"]
        .into_iter()
        .enumerate()
    {
        let script = format!("begin; write one; {wait}; count after; finish");
        let mut client = streams.ask(GET, &script, "");
        client.read_head().expect("a head");
        expect(&mut client, &chunk("one"));
        client.reset();
        until("the hook has ended", || instances() == Some(0));
        let line = streams.line(n + 1);
        assert!(
            line.starts_with("200 ") && line.ends_with(" client"),
            "{line}"
        );
    }
    assert_eq!(streams.counted("after"), 0);
    assert_eq!(streams.proxy.error_lines(), [""; 0]);
}

#[test]
fn a_client_that_leaves_ends_the_hook_also_where_its_body_is_not_read() {
    let streams = streams();
    let active = || streams.proxy.status()["workers"][0]["requests_active"].as_u64();
    for body in ["", "{", "{}"] {
        let mut client = streams.ask(
            "POST / HTTP/1.1",
            "begin; write one; delay 60000; count after; finish",
            "Content-Length: 2\r\n",
        );
        client.send(body);
        client.read_head().expect("a head");
        expect(&mut client, &chunk("one"));
        client.reset();
        until("the hook has ended", || active() == Some(0));
    }
    assert_eq!(streams.counted("after"), 0);
    // A body that is not read does not stand in the way of the next request.
    let mut client = streams.ask(
        "POST / HTTP/1.1",
        "begin; write one; delay 10; finish",
        "Content-Length: 2\r\n",
    );
    client.send("{}");
    assert_eq!(client.read_reply().text(), "one");
    client.send(request(GET, "answer whole", ""));
    assert_eq!(client.read_reply().text(), "whole");
}

#[test]
fn a_client_that_has_ended_its_direction_is_waited_for_as_a_whole() {
    let (_open, gate) = gate();
    let config = CONFIG
        .replace("LIMITS", "")
        .replace("bind =", "half_close = \"300ms\"\nbind =");
    let proxy = Proxy::with_config(&config).origin("gate", gate).start();
    // Each piece begins the time anew, each wait does not.
    let (pieces, waits) = ("write a; delay 200; ".repeat(3), "delay 200; ".repeat(100));
    let mut client = proxy.raw();
    client.send(request(GET, &format!("begin; {pieces} {waits} finish"), ""));
    client.finish();
    client.read_head().expect("a head");
    let body = client.read_to_end().expect("the end");
    assert_eq!(String::from_utf8_lossy(&body), chunk("a").repeat(3));
    assert_eq!(proxy.until_access_lines(1), ["200 3 client"]);
}

#[test]
fn http_1_0_has_it_until_the_close() {
    let streams = streams();
    let mut client = streams.ask(
        "GET / HTTP/1.0",
        "begin; write one; gate; write two; finish",
        "",
    );
    let head = client.read_head().expect("a head");
    assert!(!head.contains("transfer-encoding"), "{head}");
    expect(&mut client, "one");
    streams.open_gate();
    expect(&mut client, "two");
    client.expect_closed_in_order();
}

#[test]
fn a_sub_request_collects_it() {
    let streams = streams_within("body = \"2KiB\"");
    let ask = |script: &str| {
        let script = format!("ask /inner {script}");
        streams
            .proxy
            .get_with("/", &[("x-script", &*script)])
            .text()
    };
    assert_eq!(ask("begin| write one,| write two| finish"), "200 one,two");
    let long = ask("begin| fill 3 1000| finish");
    assert!(
        long.contains("its body is longer than limits.body of 2048 bytes"),
        "{long}"
    );
    // A response that is cut is none: the plugin gets what a client would get before a head.
    assert!(ask("begin| write one| fail").starts_with("500 "));
    // A piece is bounded as a whole body is.
    assert!(ask("begin| fill 1 3000| finish").starts_with("503 "));
    streams
        .proxy
        .until_log_has("write(3000 bytes): limit reached (limits.body of 2048 bytes reached)");
}

#[test]
fn limits_of_a_call_count_from_piece_to_piece() {
    // Far more than one call may have.
    let streams = streams_within("cpu = \"100ms\", host_calls = 10000000");
    let spin = "spin 40; write a; ".repeat(8);
    let mut client = streams.ask(GET, &format!("begin; {spin} finish"), "");
    assert_eq!(client.read_reply().text(), "a".repeat(8));
    let streams = streams_within("host_calls = 300");
    let mut client = streams.ask(GET, "begin; fill 1000 1; finish", "");
    assert_eq!(client.read_reply().text().len(), 1000);
    let streams = streams_within("calls = 2");
    (0..6).for_each(|_| streams.open_gate());
    let mut client = streams.ask(
        GET,
        "begin; gate; gate; write a; gate; gate; write b; finish",
        "",
    );
    assert_eq!(client.read_reply().text(), "ab");
    let mut client = streams.ask(GET, "begin; gate; gate; write; gate; finish", "");
    assert!(client.try_read_reply().is_err());
    let streams = streams_within("host_calls = 300");
    // Pieces that nobody takes begin nothing anew.
    let tries = "try a; ".repeat(400);
    let mut client = streams.ask("HEAD / HTTP/1.1", &format!("begin; {tries} finish"), "");
    assert_eq!(client.read_reply_to_head().status, 200);
    streams
        .proxy
        .until_log_has("limits.host_calls of 300 reached");
}

#[test]
fn a_reload_lets_a_stream_come_to_its_end() {
    let streams = streams();
    let script = "begin; write one; gate; write two; gate; finish";
    let mut client = streams.ask(GET, script, "");
    client.read_head().expect("a head");
    expect(&mut client, &chunk("one"));
    let old = streams.proxy.workers()[0];
    streams.proxy.reload().expect_success();
    assert_eq!(streams.proxy.workers().len(), 2);
    streams.open_gate();
    expect(&mut client, &chunk("two"));
    streams.open_gate();
    expect(&mut client, "0\r\n\r\n");
    until("the old worker has ended", || !old.is_alive());
    client.expect_close();
}
