//! The cases of TLS, HTTP/2 and gRPC. All peers speak TLS 1.3 with TLS_AES_128_GCM_SHA256 and X25519.

use super::case::{
    CASTLING, CASTLING_PLAIN, Case, Driver, ENVOY, Goal, Group, HAPROXY, Measure, NGINX, Quantity,
    Sends, cpu, saturated, sends, with,
};
use super::front::{Front, Key};
use super::metric::Metric;
use super::peer::Peer;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = tls();
    cases.extend(http2());
    cases.extend(memory());
    cases.extend(latency());
    for case in &mut cases {
        case.group = Group::Protocols;
    }
    cases
}

fn tls() -> Vec<Case> {
    let tls = Front::Tls(Key::P256);
    vec![
        Case {
            peers: by(tls, &ALL),
            goals: vec![cpu("nginx", 0.92, 0.75)],
            ..saturated("tls", "TLS 1.3 keep-alive, 34-byte responses", "/34")
        },
        Case {
            peers: by(tls, &ALL),
            goals: vec![cpu("nginx", 1.0, 0.65)],
            ..saturated("tls-64k", "TLS 1.3 keep-alive, 64 KiB responses", "/64k")
        },
        Case {
            peers: by(tls, &ALL),
            measure: handshakes(false),
            goals: vec![cpu("nginx", 0.6, 0.45)],
            ..saturated(
                "handshake-p256",
                "Full handshake for each request, P-256",
                "/34",
            )
        },
        Case {
            peers: by(Front::Tls(Key::Rsa2048), &ALL),
            measure: handshakes(false),
            goals: vec![cpu("nginx", 0.85, 0.7)],
            ..saturated(
                "handshake-rsa",
                "Full handshake for each request, RSA-2048",
                "/34",
            )
        },
        Case {
            note: "Each client comes back with a ticket of its connection before; one that is not taken has failed.",
            peers: by(tls, &ALL),
            measure: handshakes(true),
            goals: vec![cpu("nginx", 0.7, 0.5)],
            ..saturated(
                "resumed",
                "A new TLS connection for each request, resumed",
                "/34",
            )
        },
    ]
}

fn http2() -> Vec<Case> {
    let case = |front, measure, must, goal, name, title| Case {
        peers: by(front, &ALL),
        measure,
        goals: vec![cpu("nginx", must, goal)],
        ..saturated(name, title, "/34")
    };
    let (many, one) = (streams(10, 10), streams(64, 1));
    let (plain, tls) = (Front::Http2, Front::Http2Tls);
    vec![
        case(
            plain,
            many,
            0.8,
            0.55,
            "http2",
            "HTTP/2 without TLS, 10 connections of 10 streams",
        ),
        case(
            tls,
            many,
            0.8,
            0.55,
            "http2-tls",
            "HTTP/2 with TLS, 10 connections of 10 streams",
        ),
        case(
            plain,
            one,
            0.95,
            0.8,
            "http2-one",
            "HTTP/2 without TLS, 64 connections of one stream",
        ),
        case(
            tls,
            one,
            0.95,
            0.8,
            "http2-tls-one",
            "HTTP/2 with TLS, 64 connections of one stream",
        ),
        http2_plugin(many),
        grpc(many),
    ]
}

fn http2_plugin(measure: Measure) -> Case {
    Case {
        note: "The plugin of the case \"One plugin\", for 10 connections of 10 streams without TLS.",
        peers: by(
            Front::Http2,
            &[NGINX, CASTLING_PLAIN, with(CASTLING, "gate")],
        ),
        measure,
        goals: vec![cpu("castling-plain", 1.1, 1.05)],
        ..saturated("http2-plugin", "HTTP/2 with one plugin", "/34")
    }
}

fn grpc(measure: Measure) -> Case {
    Case {
        note: "Calls of 34 bytes each way, HTTP/2 without TLS on both sides, 10 connections of 10 streams. nginx has one call at a \
               time on a connection to the origin.",
        peers: by(Front::Grpc, &[ENVOY, HAPROXY, NGINX, CASTLING]),
        measure,
        goals: vec![cpu("envoy", 0.4, 0.25)],
        ..saturated("grpc", "gRPC, unary calls", "/34")
    }
}

const fn streams(connections: u32, streams: u32) -> Measure {
    Measure::Saturated(Sends {
        clients: Some(connections),
        driver: Driver::Requests { streams },
        ..sends("/34")
    })
}

fn memory() -> Vec<Case> {
    let case = |front, goals, name, title| Case {
        note: "By how much the memory (PSS) of all of the proxy's processes grows with connections that have made one request each.",
        peers: by(front, &ALL),
        measure: Measure::Idle(IDLE),
        goals,
        ..saturated(name, title, "/34")
    };
    let tls = Front::Tls(Key::P256);
    vec![
        case(
            tls,
            vec![memory_of(0.95, 0.6)],
            "idle-tls",
            "Memory of 9,000 idle TLS connections",
        ),
        case(
            Front::Http2,
            vec![memory_of(3.0, 1.5)],
            "idle-http2",
            "Memory of 9,000 idle HTTP/2 connections without TLS",
        ),
        case(
            Front::Http2Tls,
            Vec::new(),
            "idle-http2-tls",
            "Memory of 9,000 idle HTTP/2 connections with TLS",
        ),
    ]
}

fn latency() -> Vec<Case> {
    let case = |front, name, title| Case {
        note: "34-byte responses at half of what the slowest of these can do, one request at a time on each connection.",
        peers: by(front, &[NGINX, HAPROXY, CASTLING]),
        measure: Measure::HalfLoad,
        ..saturated(name, title, "/34")
    };
    vec![
        case(
            Front::Tls(Key::P256),
            "latency-tls",
            "Latency at half load by TLS",
        ),
        case(
            Front::Http2,
            "latency-http2",
            "Latency at half load by HTTP/2 without TLS",
        ),
    ]
}

const fn handshakes(resumed: bool) -> Measure {
    Measure::Saturated(Sends {
        driver: Driver::Handshakes { resumed },
        ..sends("/34")
    })
}

const fn memory_of(must: f64, goal: f64) -> Goal {
    Goal {
        of: Quantity::Metric(Metric::MemoryPerConnection),
        to: Some("nginx"),
        must,
        goal,
    }
}

fn by(front: Front, peers: &[Peer]) -> Vec<Peer> {
    peers.iter().map(|peer| Peer { front, ..*peer }).collect()
}

const ALL: [Peer; 4] = [NGINX, HAPROXY, ENVOY, CASTLING];

/// Below what the peers' configs allow.
const IDLE: usize = 9000;
