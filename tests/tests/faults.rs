//! The fault harness: origins that do one thing wrong, crossed with tries, keep-alive, methods, bodies and protocols. The client's view of
//! each, what metrics say, and that nothing is left behind.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use castling_tests::faulty_origin::{self, Fault, GOOD};
use castling_tests::origin::Origin;
use castling_tests::{Exposition, Proxy, until};

/// Kind of the requests of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sends {
    Get,
    Post,
    PostBody,
}

/// Response as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// This status, and all of the response.
    Whole(u16),
    /// The begin of a response that breaks off.
    Cut(u16),
}

/// Protocol of the gateway's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Plain,
    Tls,
    Http2,
}

/// When a fault shows itself, which is what may be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    /// No fault.
    Never,
    /// Before the request has begun: any request may go on to another peer.
    Connecting,
    /// After the request was sent, and before the response's head: what may be sent twice may go on.
    Waiting,
    /// In the midst of the response: it is too late.
    Answering,
    /// The peer's own word: the response goes to the client as it is.
    Status(u16),
}

use Shows::{Answering, Connecting, Never, Status, Waiting};

/// Faults, what they are when they are the last word, and when they show themselves.
const HTTP1: [(Fault, u16, Shows, &str); 20] = [
    (Fault::None, 200, Never, "responded"),
    (Fault::NeverAnswers, 504, Waiting, "timed_out"),
    (Fault::ResetsAtOnce, 502, Waiting, "broken"),
    (Fault::EndsAtOnce, 502, Waiting, "broken"),
    (Fault::ResetsInHead, 502, Waiting, "broken"),
    (Fault::EndsInHead, 502, Waiting, "broken"),
    (Fault::ResetsInBody, 200, Answering, "responded"),
    (Fault::EndsInBody, 200, Answering, "responded"),
    (Fault::EndsInChunk, 200, Answering, "responded"),
    (Fault::StallsInBody, 200, Answering, "responded"),
    (Fault::BadChunk, 200, Answering, "responded"),
    (Fault::Trickles, 200, Never, "responded"),
    (Fault::Garbage, 502, Waiting, "broken"),
    (Fault::HugeHead, 502, Waiting, "broken"),
    (Fault::TwoLengths, 502, Waiting, "broken"),
    (Fault::SendsMore, 200, Never, "responded"),
    (Fault::EarlyError, 413, Status(413), "responded"),
    (Fault::Interims, 502, Waiting, "broken"),
    (Fault::ClosesAfter, 200, Never, "responded"),
    (Fault::ComesBack, 502, Waiting, "broken"),
];

const HTTP2: [(Fault, u16, Shows, &str); 11] = [
    (Fault::None, 200, Never, "responded"),
    (Fault::NeverReads, 504, Connecting, "timed_out"),
    (Fault::NeverAnswers, 504, Waiting, "timed_out"),
    (Fault::ResetsAtOnce, 502, Waiting, "broken"),
    (Fault::EndsAtOnce, 502, Connecting, "connect_failed"),
    (Fault::ResetsInBody, 200, Answering, "responded"),
    (Fault::StallsInBody, 200, Answering, "responded"),
    (Fault::Garbage, 502, Connecting, "connect_failed"),
    (Fault::EarlyError, 413, Status(413), "responded"),
    (Fault::ComesBack, 502, Waiting, "broken"),
    (Fault::Refuses, 502, Connecting, "cancelled"),
];

/// A request, to an upstream of its own.
#[derive(Clone, Debug)]
struct Case {
    upstream: String,
    fault: Fault,
    tries: u32,
    keeps: bool,
    sends: Sends,
    view: View,
    outcome: &'static str,
    /// Tries that are made.
    made: u32,
}

fn cases(faults: &[(Fault, u16, Shows, &'static str)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &(fault, status, shows, outcome) in faults {
        for (tries, keeps) in [(1, true), (3, true), (1, false), (3, false)] {
            for sends in [Sends::Get, Sends::Post, Sends::PostBody] {
                let goes_on = tries > 1
                    && match shows {
                        Connecting => true,
                        Waiting => sends == Sends::Get,
                        Never | Answering | Status(_) => false,
                    };
                let view = match shows {
                    _ if goes_on => View::Whole(200),
                    Answering => View::Cut(status),
                    _ => View::Whole(status),
                };
                cases.push(Case {
                    upstream: format!("u{}", cases.len()),
                    fault,
                    tries,
                    keeps,
                    sends,
                    view,
                    outcome,
                    made: if goes_on { 2 } else { 1 },
                });
            }
        }
    }
    cases
}

/// Name of the case's origin. One that changes with its connections is the case's own.
fn placeholder(case: &Case) -> String {
    let name = format!("{:?}", case.fault).to_lowercase();
    match case.fault {
        Fault::ComesBack => format!("{name}_{}", case.upstream),
        _ => name,
    }
}

fn config(cases: &[Case], carrier: Carrier) -> String {
    let mut config = r#"
[workers]
count = 1
core_dumps = true

[metrics]
max_series = 65536

[listeners.web]
bind = "{listen}"
"#
    .to_owned();
    for case in cases {
        let name = &case.upstream;
        let faulty = placeholder(case);
        // A backup, so that the faulty one is always the first.
        let peers = match case.tries {
            1 => format!("\"{{{faulty}}}\""),
            _ => format!("\"{{{faulty}}}\", {{ address = \"{{good}}\", backup = true }}"),
        };
        let connections = if case.keeps { 16 } else { 0 };
        let _ = write!(
            config,
            r#"
[upstreams.{name}]
peers = [{peers}]
tries = {}
connect_timeout = "1s"
response_timeout = "400ms"
idle_timeout = "400ms"
keepalive = {{ connections = {connections}, timeout = "1s" }}
"#,
            case.tries
        );
        config += match carrier {
            Carrier::Plain => "",
            Carrier::Tls => "tls = { verify = false, server_name = \"origin.test\" }\n",
            Carrier::Http2 => "protocol = \"http2\"\n",
        };
        let _ = write!(
            config,
            "[[routes]]\npath = \"/{name}\"\nupstream = \"{name}\"\n"
        );
    }
    config
}

fn origin(fault: Fault, carrier: Carrier) -> Origin {
    match carrier {
        Carrier::Plain => faulty_origin::plain(fault),
        Carrier::Tls => faulty_origin::by_tls(fault),
        Carrier::Http2 => faulty_origin::by_http2(fault),
    }
}

fn request(case: &Case) -> Vec<u8> {
    let path = &case.upstream;
    let (method, body) = match case.sends {
        Sends::Get => ("GET", String::new()),
        Sends::Post => ("POST", String::new()),
        Sends::PostBody => ("POST", "0123456789abcdef".repeat(4 << 10)),
    };
    let length = match case.sends {
        Sends::Get => String::new(),
        Sends::Post | Sends::PostBody => format!("Content-Length: {}\r\n", body.len()),
    };
    format!("{method} /{path} HTTP/1.1\r\nHost: a\r\n{length}\r\n{body}").into_bytes()
}

/// Makes a case's request as a client of its own; the error says how the view is not as it should be.
fn run(proxy: &Proxy, case: &Case) -> Result<(), String> {
    let mut client = proxy.raw();
    client.send(request(case));
    match case.view {
        View::Whole(status) => {
            let mut reply = client.try_read_reply()?;
            while reply.status < 200 {
                reply = client.try_read_reply()?;
            }
            let is_good = reply.status != 200 || reply.text() == GOOD;
            match reply.status == status && is_good {
                true => Ok(()),
                false => Err(format!("{}: {:?}", reply.head, reply.text())),
            }
        }
        View::Cut(status) => {
            let head = client.read_head()?.to_ascii_lowercase();
            if !head.starts_with(&format!("http/1.1 {status} ")) {
                return Err(head);
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let rest = client.read_to_end()?;
            let is_whole = match length.map(str::parse::<usize>) {
                Some(length) => length.is_ok_and(|length| rest.len() >= length),
                None => rest.ends_with(b"\r\n0\r\n\r\n"),
            };
            match is_whole {
                true => Err("whole, though the peer has broken off".to_owned()),
                false => Ok(()),
            }
        }
    }
}

fn told(proxy: &Proxy) -> Exposition {
    Exposition::parse(&proxy.command("metrics", &[]).stdout)
}

/// Runs all cases of a carrier, some at a time.
fn cross(faults: &[(Fault, u16, Shows, &'static str)], carrier: Carrier) {
    let cases = cases(faults);
    let mut setup =
        Proxy::with_config(&config(&cases, carrier)).origin("good", origin(Fault::None, carrier));
    let names: BTreeMap<String, Fault> = cases
        .iter()
        .map(|case| (placeholder(case), case.fault))
        .collect();
    for (name, fault) in names {
        setup = setup.origin(&name, origin(fault, carrier));
    }
    let proxy = setup.start();
    let base = proxy.worker_descriptors();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let parts: Vec<_> = cases
            .chunks(cases.len().div_ceil(12))
            .map(|part| {
                let proxy = &proxy;
                scope.spawn(move || {
                    let failed = |case: &Case| {
                        let error = run(proxy, case).err()?;
                        Some(format!("{case:?}: {error}"))
                    };
                    part.iter().filter_map(failed).collect::<Vec<_>>()
                })
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().expect("a thread"))
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));

    // Every case has made as many tries as it should have, and its first has ended as it should have.
    let metrics = told(&proxy);
    let mut wrong = Vec::new();
    for case in &cases {
        let tries = |outcome: &str| {
            let labels = [("upstream", case.upstream.as_str()), ("outcome", outcome)];
            let tries = metrics.get("castling_upstream_tries_total", &labels);
            tries.unwrap_or(0.0) as u32
        };
        let outcomes = [
            "responded",
            "connect_failed",
            "broken",
            "timed_out",
            "cancelled",
        ];
        let made: u32 = outcomes.iter().map(|outcome| tries(outcome)).sum();
        if made != case.made || tries(case.outcome) == 0 {
            let seen = outcomes.map(|outcome| (outcome, tries(outcome)));
            wrong.push(format!("{case:?}: {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    nothing_is_left(&proxy, &cases, base);
}

/// Requests and connections are back to none, or to as many as are kept, and then those close, too.
fn nothing_is_left(proxy: &Proxy, cases: &[Case], base: usize) {
    until("no request is under way", || {
        told(proxy).get("castling_requests_active", &[]) == Some(0.0)
    });
    until("connections are closed", || {
        let metrics = told(proxy);
        cases.iter().all(|case| {
            let labels = [("upstream", case.upstream.as_str())];
            let open = metrics.get("castling_upstream_connections_active", &labels);
            open == Some(0.0)
        })
    });
    until("descriptors are back", || {
        proxy.worker_descriptors() <= base
    });
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn faults_of_plain_peers() {
    cross(&HTTP1, Carrier::Plain);
}

#[test]
fn faults_of_peers_by_tls() {
    let mut faults = HTTP1.to_vec();
    faults.push((Fault::NeverReads, 504, Connecting, "timed_out"));
    cross(&faults, Carrier::Tls);
}

#[test]
fn faults_of_peers_by_http2() {
    cross(&HTTP2, Carrier::Http2);
}
