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
            "sockets that the master has bound: accepts, sheds, limits connections",
        )],
    },
    Floor {
        name: "a client's connection",
        rooms: &[(
            "connection",
            "requests one after the other, each lent memory while it is worked on",
        )],
    },
    Floor {
        name: "one exchange",
        rooms: &[
            (
                "flow",
                "the life of one request, from its head to its line in the log",
            ),
            (
                "course",
                "what a client's request and a sub-request have in common",
            ),
            (
                "supply",
                "performs what plugins wait for: whole bodies, calls out, delays",
            ),
            (
                "subrequest",
                "requests of plugins to the gateway's own routes",
            ),
            ("timer", "runs the timer hooks, which belong to no request"),
        ],
    },
    Floor {
        name: "a worker",
        rooms: &[("worker", "what the requests of one worker share")],
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
        name: "plugins",
        rooms: &[(
            "wasm",
            "modules in, hook calls through: instances, host calls, limits, quarantine",
        )],
    },
    Floor {
        name: "codecs",
        rooms: &[(
            "http1",
            "heads, framing and bodies of HTTP/1, over bytes that others move",
        )],
    },
    Floor {
        name: "messages and sockets",
        rooms: &[
            (
                "exchange",
                "one request and its response, as plugins may see and change them",
            ),
            ("path", "paths as routes, peers and plugins see them"),
            ("address", "the two ends of a client's connection"),
            (
                "socket",
                "the two halves of a connection, each with its buffer",
            ),
            ("stream", "a connected TCP or Unix socket"),
            (
                "outbox",
                "small writes, made together at the end of a turn of the event loop",
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
            ("alarm", "time-outs that cost a request next to nothing"),
            ("turn", "the clock, read once a turn of the event loop"),
            (
                "ebb",
                "tells when freed memory is worth giving back to the kernel",
            ),
            (
                "config",
                "TOML files in, a checked config out, or every error with its place",
            ),
            (
                "error",
                "what can go wrong with a request: whose fault, may we try again, what caused it",
            ),
        ],
    },
];

pub(super) const EXCEPTIONS: &[Exception] = &[];

pub(super) const DEBTS: &[Debt] = &[
    Debt {
        from: "connection",
        to: "listener",
        arrows: 1,
        why: LISTENER,
    },
    Debt {
        from: "flow",
        to: "listener",
        arrows: 1,
        why: LISTENER,
    },
    Debt {
        from: "course",
        to: "listener",
        arrows: 1,
        why: LISTENER,
    },
    Debt {
        from: "supply",
        to: "listener",
        arrows: 1,
        why: LISTENER,
    },
    Debt {
        from: "subrequest",
        to: "listener",
        arrows: 1,
        why: LISTENER,
    },
    Debt {
        from: "upstream",
        to: "listener",
        arrows: 1,
        why: LISTENER,
    },
    Debt {
        from: "exchange",
        to: "http1",
        arrows: 1,
        why: MESSAGE,
    },
    Debt {
        from: "error",
        to: "http1",
        arrows: 2,
        why: "errors hold those of the codec",
    },
    Debt {
        from: "error",
        to: "path",
        arrows: 1,
        why: "errors hold those of paths",
    },
    Debt {
        from: "error",
        to: "exchange",
        arrows: 1,
        why: "a reply to an error is made as an exchange's",
    },
    Debt {
        from: "metrics",
        to: "http1",
        arrows: 1,
        why: PAGE,
    },
    Debt {
        from: "metrics",
        to: "exchange",
        arrows: 1,
        why: PAGE,
    },
    Debt {
        from: "config",
        to: "path",
        arrows: 1,
        why: "what a config says of paths is the type of those who read them",
    },
];

const LISTENER: &str = "settings of a request lie in the listener that accepts it";
const MESSAGE: &str = "the neutral message lies in the codec's room";
const PAGE: &str = "the page of metrics is content, which wants a room above the codec";

pub(super) const CIRCLES: &[Circle] = &[
    Circle {
        files: &[
            "connection/desk.rs",
            "connection/mod.rs",
            "course.rs",
            "flow.rs",
            "listener/mod.rs",
            "subrequest.rs",
            "supply.rs",
            "upstream/connection.rs",
            "upstream/exchange.rs",
            "upstream/response.rs",
            "upstream/upload.rs",
            "upstream/upload_filter.rs",
        ],
        why: "owed: the listener accepts, holds a request's settings and owns the memory of connections; the upload holds its filter's \
              state. What stays is true recursion: a sub-request is a request's pipeline again, which serves what plugins wait for",
    },
    Circle {
        files: &[
            "wasm/code.rs",
            "wasm/cpu.rs",
            "wasm/demand.rs",
            "wasm/engine.rs",
            "wasm/guest.rs",
            "wasm/host_call/mod.rs",
            "wasm/image.rs",
            "wasm/instance.rs",
            "wasm/limit.rs",
            "wasm/manifest.rs",
            "wasm/mapped.rs",
            "wasm/plugin.rs",
            "wasm/plugin/instances.rs",
            "wasm/taken.rs",
        ],
        why: "owed: an instance gives itself back to its plugin; errors, signatures and limits lie with those who make them",
    },
    Circle {
        files: &[
            "config/listener.rs",
            "config/resolve.rs",
            "config/route.rs",
            "config/upstream.rs",
        ],
        why: "owed: what the sections of a config share lies in one of them",
    },
];
