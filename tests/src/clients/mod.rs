//! Clients of other hands, each tried with one gateway ([`Site`]). `tests/tests/protocol_clients.rs` runs each as a test,
//! `cargo xtask show protocols` all of them, with a line each; docs/SHOWS.md says what they do.
//!
//! `cargo xtask test` and `cargo xtask show protocols` install them. One that is missing is skipped, which is said.

mod curl;
mod demo;
mod haproxy;
mod nghttp2;
mod openssl;
mod origin;
mod pebble;
mod script;
mod site;
mod testssl;
mod tool;

use std::panic::AssertUnwindSafe;

pub use site::Site;

/// A client and what it is tried with.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub name: &'static str,
    run: fn(&mut Site) -> Outcome,
}

/// Result of a client's run.
pub type Outcome = Result<Done, Stopped>;

/// A client that got all it expects.
#[derive(Clone, Debug)]
pub struct Done {
    pub version: String,
    /// Steps it went through, on one line.
    pub did: String,
    /// Lines about it that are to be read, such as deviations from an RFC that are known.
    pub notes: Vec<String>,
}

/// Reason why a client did not do all of it.
#[derive(Clone, Debug)]
pub enum Stopped {
    /// A program or package is not installed.
    Missing(String),
    /// The client got something else than it expects.
    Failed(String),
}

impl Done {
    fn new(version: String, did: impl Into<String>) -> Self {
        Self {
            version,
            did: did.into(),
            notes: Vec::new(),
        }
    }
}

impl Client {
    pub fn run(&self, site: &mut Site) -> Outcome {
        let run = AssertUnwindSafe(|| (self.run)(site));
        // A time-out, or a gateway that does not start: the panic says which, on standard error.
        let ended = std::panic::catch_unwind(run);
        ended.unwrap_or_else(|_| {
            Err(Stopped::Failed(
                "the run panicked: see standard error".to_owned(),
            ))
        })
    }
}

/// All, in the order of the show.
pub const ALL: [Client; 17] = [
    CURL,
    OPENSSL,
    PYCURL,
    WEBSOCKETS,
    GRPCIO,
    GRPC_JS,
    H2LOAD,
    NGHTTP,
    GO_LIKE,
    RFC_9113,
    RFC_9113_PEER,
    HAPROXY,
    CHROMIUM,
    SSLSCAN,
    TESTSSL,
    PEBBLE,
    DEMO,
];

pub const CURL: Client = Client {
    name: "curl",
    run: curl::run,
};
pub const OPENSSL: Client = Client {
    name: "openssl s_client",
    run: openssl::run,
};
pub const PYCURL: Client = Client {
    name: "pycurl",
    run: |site| script::python(site, "pycurl_client.py"),
};
pub const WEBSOCKETS: Client = Client {
    name: "Python websockets",
    run: |site| script::python(site, "websockets_client.py"),
};
pub const GRPCIO: Client = Client {
    name: "grpcio",
    run: |site| script::python(site, "grpcio_client.py"),
};
pub const GRPC_JS: Client = Client {
    name: "grpc-js",
    run: |site| script::node(site, "grpc_js_client.js"),
};
pub const H2LOAD: Client = Client {
    name: "h2load",
    run: nghttp2::load,
};
pub const NGHTTP: Client = Client {
    name: "nghttp",
    run: nghttp2::trailers,
};
pub const GO_LIKE: Client = Client {
    name: "Go's habits (Python)",
    run: |site| script::python(site, "go_like_client.py"),
};
pub const RFC_9113: Client = Client {
    name: "RFC 9113 and 7541 (Python)",
    run: |site| script::python(site, "rfc9113.py"),
};
pub const RFC_9113_PEER: Client = Client {
    name: "the same, of a peer (Python)",
    run: |site| script::python(site, "rfc9113_peer.py"),
};
pub const PEBBLE: Client = Client {
    name: "pebble (ACME)",
    run: pebble::run,
};
pub const DEMO: Client = Client {
    name: "the demo, with curl",
    run: demo::run,
};
pub const HAPROXY: Client = Client {
    name: "HAProxy in front",
    run: haproxy::run,
};
pub const CHROMIUM: Client = Client {
    name: "Chromium",
    run: |site| script::node(site, "chromium_client.js"),
};
pub const SSLSCAN: Client = Client {
    name: "sslscan",
    run: testssl::sslscan,
};
pub const TESTSSL: Client = Client {
    name: "testssl.sh",
    run: testssl::run,
};

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), Stopped> {
    match holds {
        true => Ok(()),
        false => Err(Stopped::Failed(what())),
    }
}
