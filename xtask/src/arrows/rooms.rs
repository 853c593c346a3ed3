//! The floors of `host/src`: a room may use those of its own floor and of the floors below. What may not stay as it is, is
//! listed as a debt, and debts only shrink.

/// Rooms that lie equally high.
pub(super) struct Floor {
    pub(super) name: &'static str,
    /// Each room with what it holds: a folder of `host/src`, or a file there.
    pub(super) rooms: &'static [(&'static str, &'static str)],
}

/// An arrow that may run up, for good.
pub(super) struct Exception {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) why: &'static str,
}

/// An arrow that runs up and is to go.
pub(super) struct Debt {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// From file to file; more are refused, fewer are to be written down.
    pub(super) arrows: usize,
    pub(super) why: &'static str,
}

/// More than three files that use one another.
pub(super) struct Circle {
    pub(super) files: &'static [&'static str],
    pub(super) why: &'static str,
}

/// The highest first.
pub(super) const FLOORS: &[Floor] = &[
    Floor {
        name: "the program",
        rooms: &[
            ("cli", "one file a command; starts the master, or asks it"),
            (
                "rig",
                "parts of the gateway without the rest, for benchmarks and fuzz targets",
            ),
        ],
    },
    Floor {
        name: "processes",
        rooms: &[(
            "process",
            "master, workers, helpers; sockets, generations, upgrade, confinement",
        )],
    },
    Floor {
        name: "a generation",
        rooms: &[(
            "gateway",
            "what a worker makes of a generation: plugins, upstreams, routes, listeners",
        )],
    },
    Floor {
        name: "bytes come in",
        rooms: &[(
            "listener",
            "sockets that the master has bound: accepts, admits, sheds connections",
        )],
    },
    Floor {
        name: "a client's connection",
        rooms: &[(
            "connection",
            "requests one after the other, each lent a workspace while it is worked on",
        )],
    },
    Floor {
        name: "one exchange",
        rooms: &[(
            "flow",
            "the life of one request: phases, upstream, filters, response, log",
        )],
    },
    Floor {
        name: "what serves it",
        rooms: &[
            (
                "service",
                "what a listener's requests are served by: routes, limits, time-outs",
            ),
            ("worker_context", "what the requests of one worker share"),
        ],
    },
    Floor {
        name: "steps",
        rooms: &[
            (
                "phase",
                "the plugins that a route runs before a response, and the routing itself",
            ),
            (
                "filter",
                "plugins that change the response's head, then each chunk of its body",
            ),
            (
                "cache",
                "which responses are stored, how long they are used, and by which key",
            ),
            ("handler", "content that the gateway makes itself"),
            (
                "balancer",
                "chooses the peer of each try; one policy a file",
            ),
            (
                "upstream",
                "an upstream: its peers, its kept connections, one exchange with it",
            ),
            ("log", "the gateway's own log and the access log"),
        ],
    },
    Floor {
        name: "clients and plugins",
        rooms: &[
            (
                "downstream",
                "the client's side of an exchange, or who collects for a sub-request",
            ),
            (
                "wasm",
                "modules in, hook calls through: instances, host calls, limits, quarantine",
            ),
        ],
    },
    Floor {
        name: "what goes wrong",
        rooms: &[(
            "error",
            "whose fault it is, whether to try again, what caused it, what is replied",
        )],
    },
    Floor {
        name: "codecs",
        rooms: &[
            (
                "http1",
                "heads, framing and bodies of HTTP/1, over bytes that others move",
            ),
            (
                "fetch",
                "what is asked for outside: addresses of names, lists at URLs",
            ),
            (
                "acme",
                "certificates that are ordered: the talk with the authority, the store, when to renew",
            ),
            (
                "http2",
                "frames, windows and heads of HTTP/2, by the h2 crate",
            ),
        ],
    },
    Floor {
        name: "messages and sockets",
        rooms: &[
            (
                "exchange",
                "one request and its response, as plugins may see and change them",
            ),
            (
                "message",
                "heads, fields, targets, paths and sizes, as all protocols have them",
            ),
            (
                "transport",
                "connected byte streams: halves with buffers, batched writes, addresses",
            ),
        ],
    },
    Floor {
        name: "what all lean on",
        rooms: &[
            (
                "zone",
                "memory that all workers share: counters, keys and values, metrics",
            ),
            (
                "metrics",
                "counters, gauges and histograms of the gateway and of plugins",
            ),
            (
                "runtime",
                "cheap time-outs, the clock cached for one poll, when to trim the heap",
            ),
            (
                "config",
                "TOML files in, a checked config out, or every error with its place",
            ),
        ],
    },
];

pub(super) const EXCEPTIONS: &[Exception] = &[];

pub(super) const DEBTS: &[Debt] = &[Debt {
    from: "config",
    to: "message",
    arrows: 1,
    why: "paths of routes are read as those of requests are",
}];

pub(super) const CIRCLES: &[Circle] = &[];
