//! The cases: what is sent, which peers are compared, and what Castling wants to reach.

use super::front::Front;
use super::metric::Metric;
use super::peer::{Peer, Software};
use super::protocols;

pub(super) struct Case {
    pub(super) group: Group,
    /// Name of the case in `--cases`.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Note that a reader needs to judge the figures.
    pub(super) note: &'static str,
    pub(super) measure: Measure,
    /// Ratios are to the first.
    pub(super) peers: Vec<Peer>,
    pub(super) goals: Vec<Goal>,
}

/// Where a case stands in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Group {
    /// HTTP/1 without TLS, and plugins
    Http1,
    /// TLS, HTTP/2 and gRPC
    Protocols,
}

impl Group {
    pub(super) const ALL: [Self; 2] = [Self::Http1, Self::Protocols];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1 without TLS, and plugins",
            Self::Protocols => "TLS, HTTP/2 and gRPC",
        }
    }
}

/// How a case is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measure {
    /// Load by wrk, as fast as it goes.
    Saturated(Sends),
    /// At half the rate that the slowest peer can do, by a client that times from when a request was to be sent.
    HalfLoad,
    /// Load as in `HalfLoad`, with reloads meanwhile.
    Reload,
    /// Requests of which one in a hundred computes for 5 ms; timed are the others.
    Compute,
    /// Connections, so many, that have made a request each and make no more.
    Idle(usize),
}

impl Measure {
    /// A turn in which others have used more of a core than this is taken again. Percent.
    pub(super) fn bears(self) -> f64 {
        match self {
            // A stop of a core for some milliseconds is all that there is to see in the slowest hundredth.
            Self::HalfLoad | Self::Compute => 0.2,
            Self::Saturated(_) | Self::Reload | Self::Idle(_) => 15.0,
        }
    }

    /// How long a turn is where it may be so many seconds.
    pub(super) fn seconds(self, seconds: f64) -> f64 {
        match self {
            // There must be room for the reloads.
            Self::Reload => seconds.max(1.0),
            Self::Saturated(_) | Self::HalfLoad | Self::Compute | Self::Idle(_) => seconds,
        }
    }

    /// How many rounds there are where there may be so many.
    pub(super) fn rounds(self, rounds: usize) -> usize {
        match self {
            // Memory does not drift.
            Self::Idle(connections) if connections > 5000 => rounds.min(2),
            Self::Idle(_) => rounds.min(5),
            Self::Saturated(_) | Self::HalfLoad | Self::Compute | Self::Reload => rounds,
        }
    }
}

/// Request that the load sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sends {
    pub(super) path: &'static str,
    /// Sends 64 KiB with each request.
    pub(super) body: bool,
    /// A connection for each request.
    pub(super) closes: bool,
    /// In the place of those that the command says.
    pub(super) clients: Option<u32>,
    pub(super) driver: Driver,
}

/// Use of each connection of the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Driver {
    /// Requests, one after the other, or so many at once, which takes HTTP/2.
    Requests { streams: u32 },
    /// A single request, behind a handshake of TLS.
    Handshakes { resumed: bool },
}

/// A ratio, or a figure, that is not to be passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    pub(super) of: Quantity,
    /// The peer that Castling is compared with. None: the figure itself counts.
    pub(super) to: Option<&'static str>,
    pub(super) must: f64,
    pub(super) goal: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Quantity {
    Metric(Metric),
    /// System calls a request, which are counted apart from the rounds.
    Syscalls,
}

impl Case {
    /// Measures another build of Castling beside each of its peers.
    pub(super) fn add_other_build(&mut self) {
        let ours = self
            .peers
            .iter()
            .filter(|peer| peer.software == Software::Castling);
        let others: Vec<Peer> = ours
            .map(|peer| Peer {
                id: match peer.id {
                    "castling-plain" => "castling-plain-beside",
                    _ => "castling-beside",
                },
                software: Software::CastlingBeside,
                ..*peer
            })
            .collect();
        self.peers.extend(others);
    }

    /// Figure that its plot shows.
    pub(super) fn main_metric(&self) -> Metric {
        match self.measure {
            Measure::Saturated(_) => Metric::Cpu,
            Measure::HalfLoad | Measure::Reload | Measure::Compute => Metric::P99,
            Measure::Idle(_) => Metric::MemoryPerConnection,
        }
    }
}

/// All cases, in the order of the report.
pub(super) fn all() -> Vec<Case> {
    let mut cases = proxying();
    cases.extend(plugins());
    cases.extend(filters_and_limits());
    cases.extend(connections_and_latency());
    cases.extend(CLIENTS.map(by_clients));
    cases.extend(protocols::cases());
    cases
}

/// Proxying without plugins, by size of bodies.
fn proxying() -> Vec<Case> {
    vec![
        Case {
            peers: vec![NGINX, FORWARDED, HAPROXY, ENVOY, CASTLING],
            goals: vec![cpu("nginx", 1.0, 0.8), SYSCALLS],
            ..saturated("plain", "Plain proxy, 34-byte responses", "/34")
        },
        Case {
            peers: PLAIN.to_vec(),
            ..saturated("plain-1k", "Plain proxy, 1 KiB responses", "/1k")
        },
        Case {
            peers: PLAIN.to_vec(),
            ..saturated("plain-64k", "Plain proxy, 64 KiB responses", "/64k")
        },
        Case {
            peers: PLAIN.to_vec(),
            goals: vec![cpu("nginx", 1.1, 1.0)],
            ..saturated("plain-1m", "Plain proxy, 1 MiB responses", "/1m")
        },
        Case {
            peers: PLAIN.to_vec(),
            measure: Measure::Saturated(Sends {
                body: true,
                ..sends("/34")
            }),
            ..saturated("request-body", "Plain proxy, 64 KiB request bodies", "/34")
        },
    ]
}

fn plugins() -> Vec<Case> {
    vec![
        Case {
            note: "The plugin reads a header, sets one each way and answers 403 where the first is missing. Lua, njs, proxy-wasm \
                   and HAProxy's rules do the same, which is checked before it is measured; nginx and Envoy alone do nothing.",
            peers: vec![
                NGINX,
                with(NGINX_LUA, "gate-lua"),
                with(NGINX_NJS, "gate-njs"),
                with(HAPROXY, "gate"),
                ENVOY,
                with(ENVOY_WASM, "gate"),
                CASTLING_PLAIN,
                with(CASTLING, "gate"),
            ],
            goals: vec![
                cpu("nginx", 1.1, 0.9),
                cpu("nginx-lua", 0.95, 0.75),
                cpu("envoy-wasm", 0.35, 0.25),
            ],
            ..saturated("one-plugin", "One plugin", "/34")
        },
        Case {
            note: "token-auth, the plugin of the case before, headers (one set each way), and the balancing policy ewma.",
            peers: vec![NGINX, CASTLING_PLAIN, with(CASTLING, "three")],
            goals: vec![cpu("castling-plain", 1.2, 1.1)],
            ..saturated(
                "three-plugins",
                "Three plugins and a balancing policy in Wasm",
                "/34",
            )
        },
    ]
}

fn filters_and_limits() -> Vec<Case> {
    vec![
        Case {
            note: "64 KiB responses, of which a filter is handed each piece and changes nothing; nginx alone has none.",
            peers: vec![
                NGINX,
                with(NGINX_LUA, "pass-lua"),
                with(NGINX_NJS, "pass-njs"),
                with(ENVOY_WASM, "pass"),
                CASTLING_PLAIN,
                with(CASTLING, "pass"),
            ],
            ..saturated("body-filter", "A body filter that lets pass", "/64k")
        },
        Case {
            note: "64 KiB responses, in which a text is replaced 64 times: nginx's sub_filter, Castling's plugin substitute.",
            peers: vec![
                with(NGINX, "substitute"),
                CASTLING_PLAIN,
                with(CASTLING, "substitute"),
            ],
            ..saturated("substitute", "A body filter that replaces text", "/64k")
        },
        Case {
            note: "A limit by client address in memory that all workers share, which no request meets: nginx's limit_req, \
                   a stick table of HAProxy, Castling's plugin rate-limit.",
            peers: vec![
                with(NGINX, "rate-limit"),
                with(HAPROXY, "rate-limit"),
                CASTLING_PLAIN,
                with(CASTLING, "rate-limit"),
            ],
            ..saturated("rate-limit", "Rate limit", "/34")
        },
    ]
}

fn connections_and_latency() -> Vec<Case> {
    vec![
        Case {
            peers: PLAIN.to_vec(),
            measure: Measure::Saturated(Sends {
                closes: true,
                ..sends("/34")
            }),
            ..saturated("connections", "A new connection for each request", "/34")
        },
        Case {
            measure: Measure::HalfLoad,
            note: "34-byte responses at half of what the slowest of these can do.",
            peers: vec![NGINX, HAPROXY, CASTLING],
            goals: vec![p99("nginx", 1.2, 1.0)],
            ..saturated("latency", "Latency at half load", "/34")
        },
        Case {
            measure: Measure::HalfLoad,
            note: "The plugin of the case \"One plugin\", at half of what the slowest of these can do.",
            peers: vec![
                NGINX,
                with(NGINX_LUA, "gate-lua"),
                CASTLING_PLAIN,
                with(CASTLING, "gate"),
            ],
            ..saturated(
                "latency-plugin",
                "Latency at half load with one plugin",
                "/34",
            )
        },
        Case {
            measure: Measure::Reload,
            note: "As latency at half load, with two reloads in each turn. CPU is that of both generations.",
            peers: vec![NGINX, HAPROXY, with(CASTLING, "gate")],
            ..saturated("reload", "Reload under load", "/34")
        },
        Case {
            measure: Measure::Compute,
            note: "One request in a hundred has the plugin compute for 5 ms (the number of rounds is found for each peer); timed \
                   are the others. The rate would keep the core half busy.",
            peers: vec![with(NGINX_LUA, "compute-lua"), with(CASTLING, "compute")],
            ..saturated("compute", "A plugin that computes", "/34")
        },
        Case {
            measure: Measure::Idle(4000),
            note: "Memory (PSS) of all of the proxy's processes, by how much it grows with connections that have made one \
                   request each.",
            peers: PLAIN.to_vec(),
            ..saturated("idle", "Memory of idle connections", "/34")
        },
    ]
}

/// Plain proxying for so many clients at once: where connections to the origin are closed for want of room and made again, a
/// request costs more.
fn by_clients((clients, name, title): (u32, &'static str, &'static str)) -> Case {
    Case {
        note: "34-byte responses. nginx keeps 64 idle connections to the origin in the other cases, as many as there are clients \
               there, and here once with room for all; Castling keeps as many as there are.",
        peers: vec![NGINX, NGINX_ROOM, CASTLING],
        measure: Measure::Saturated(Sends {
            clients: Some(clients),
            ..sends("/34")
        }),
        ..saturated(name, title, "/34")
    }
}

const CLIENTS: [(u32, &str, &str); 4] = [
    (1, "clients-1", "1 client"),
    (16, "clients-16", "16 clients"),
    (256, "clients-256", "256 clients"),
    (1000, "clients-1000", "1,000 clients"),
];

/// nginx beside itself: what the method cannot tell apart.
pub(super) fn control() -> Case {
    let again = Peer {
        id: "nginx-again",
        ..NGINX
    };
    Case {
        note: "The same program twice: differences smaller than this say nothing.",
        peers: vec![NGINX, again],
        ..saturated("control", "nginx beside itself", "/34")
    }
}

pub(super) fn saturated(name: &'static str, title: &'static str, path: &'static str) -> Case {
    Case {
        group: Group::Http1,
        name,
        title,
        note: "",
        measure: Measure::Saturated(sends(path)),
        peers: Vec::new(),
        goals: Vec::new(),
    }
}

pub(super) const fn sends(path: &'static str) -> Sends {
    Sends {
        path,
        body: false,
        closes: false,
        clients: None,
        driver: Driver::Requests { streams: 1 },
    }
}

pub(super) const fn cpu(to: &'static str, must: f64, goal: f64) -> Goal {
    Goal {
        of: Quantity::Metric(Metric::Cpu),
        to: Some(to),
        must,
        goal,
    }
}

const fn p99(to: &'static str, must: f64, goal: f64) -> Goal {
    Goal {
        of: Quantity::Metric(Metric::P99),
        to: Some(to),
        must,
        goal,
    }
}

const SYSCALLS: Goal = Goal {
    of: Quantity::Syscalls,
    to: None,
    must: 5.0,
    goal: 4.3,
};

const fn peer(id: &'static str, software: Software) -> Peer {
    Peer {
        id,
        software,
        logic: None,
        front: Front::Plain,
    }
}

pub(super) const fn with(peer: Peer, logic: &'static str) -> Peer {
    Peer {
        logic: Some(logic),
        ..peer
    }
}

/// Peers without plugins.
const PLAIN: [Peer; 4] = [NGINX, HAPROXY, ENVOY, CASTLING];

pub(super) const NGINX: Peer = peer("nginx", Software::Nginx);
const NGINX_ROOM: Peer = peer("nginx-room", Software::Nginx);
const FORWARDED: Peer = with(peer("nginx-forwarded", Software::Nginx), "forwarded");
const NGINX_LUA: Peer = peer("nginx-lua", Software::Nginx);
const NGINX_NJS: Peer = peer("nginx-njs", Software::Nginx);
pub(super) const HAPROXY: Peer = peer("haproxy", Software::Haproxy);
pub(super) const ENVOY: Peer = peer("envoy", Software::Envoy);
const ENVOY_WASM: Peer = peer("envoy-wasm", Software::Envoy);
pub(super) const CASTLING_PLAIN: Peer = peer("castling-plain", Software::Castling);
pub(crate) const CASTLING: Peer = peer("castling", Software::Castling);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_said_once_and_goals_speak_of_peers_that_are_there() {
        let cases = all();
        for (at, case) in cases.iter().enumerate() {
            assert!(cases[..at].iter().all(|other| other.name != case.name));
            assert!(case.peers.iter().any(|peer| peer.id == "castling"));
            for (at, peer) in case.peers.iter().enumerate() {
                assert!(case.peers[..at].iter().all(|other| other.id != peer.id));
            }
            for to in case.goals.iter().filter_map(|goal| goal.to) {
                assert!(
                    case.peers.iter().any(|peer| peer.id == to),
                    "{}: {to}",
                    case.name
                );
            }
        }
    }
}
