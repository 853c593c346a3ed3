//! The harness of Castling's end to end tests: it drives the built binary over real sockets on loopback.
//!
//! A test shows config, traffic and result on one screen:
//!
//! ```no_run
//! use castling_tests::{Proxy, origin};
//!
//! let proxy = Proxy::with_config(
//!     r#"
//!     [listeners.web]
//!     bind = "{listen}"
//!
//!     [upstreams.app]
//!     peers = ["{app}"]
//!
//!     [[routes]]
//!     upstream = "app"
//!     "#,
//! )
//! .origin("app", origin::text("hi"))
//! .start();
//! assert_eq!(proxy.get("/").text(), "hi");
//! ```
//!
//! # What is tested
//!
//! - `CASTLING_BIN`: the gateway. Default `dist/castling` of the workspace.
//! - `CASTLING_PLUGINS`: the folder of the shipped plugins. Default `dist/plugins`.
//! - `CASTLING_GUESTS`: the folder of the plugins in `tests/guests`. Default `target/test-guests`.
//! - `CASTLING_XTASK`: the xtask executable, which builds plugin crates. Default `target/release/xtask`.
//! - `CASTLING_BENCH`: the benchmark. Default `target/release/castling-bench`.
//! - `CASTLING_CLIENTS`: the folder of clients from PyPI and npm. Default `target/clients`.
//!
//! `cargo xtask test` builds all of them and sets the variables.
//!
//! # Deadlines
//!
//! Everything that waits does so for at most [`DEADLINE`] and then fails with a text that says what it waited for. A
//! test never sleeps for luck: it waits [`until`] something is so.

pub mod body;
pub mod cache_suite;
pub mod client;
pub mod clients;
pub mod command;
pub mod control;
pub mod exposition;
pub mod faulty_origin;
pub mod frames;
pub mod gate;
pub mod h2;
pub mod hostile;
pub mod load;
pub mod module;
pub mod name_server;
pub mod origin;
pub mod pebble;
pub mod process;
pub mod proxy;
pub mod raw_client;
pub mod raw_origin;
mod runtime;
pub mod setup;
pub mod show;
mod template;
pub mod tls;
pub mod tls_origin;
pub mod tools;
pub mod unix_bridge;

pub use client::Reply;
pub use exposition::Exposition;
pub use proxy::Proxy;
pub use raw_client::RawClient;
pub use runtime::{block_on, within};
pub use setup::Setup;
pub use unix_bridge::UnixBridge;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest wait for one thing.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until `is_so`, looking every few milliseconds. Panics after [`DEADLINE`], naming `what`.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < DEADLINE,
            "{what}: not so within {DEADLINE:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The gateway's binary.
pub fn castling_bin() -> PathBuf {
    built("CASTLING_BIN", "dist/castling")
}

/// The module of a shipped plugin, such as `token_auth`.
pub fn plugin(name: &str) -> PathBuf {
    plugins_dir().join(format!("{name}.wasm"))
}

/// The folder of the shipped plugins' modules.
pub fn plugins_dir() -> PathBuf {
    built("CASTLING_PLUGINS", "dist/plugins")
}

/// The folder of the modules built from `tests/guests`.
pub fn guests_dir() -> PathBuf {
    built("CASTLING_GUESTS", "target/test-guests")
}

/// The executable that builds plugin crates.
pub fn xtask_bin() -> PathBuf {
    built("CASTLING_XTASK", "target/release/xtask")
}

/// The executable that measures.
pub fn bench_bin() -> PathBuf {
    built("CASTLING_BENCH", "target/release/castling-bench")
}

/// The folder that clients from PyPI and npm were installed in, which may be missing.
pub fn clients_dir() -> PathBuf {
    match std::env::var_os("CASTLING_CLIENTS") {
        Some(path) => PathBuf::from(path),
        None => workspace_root().join("target/clients"),
    }
}

/// The root of the workspace.
pub fn workspace_root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ is a folder of the workspace")
}

fn built(variable: &str, default: &str) -> PathBuf {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => workspace_root().join(default),
    };
    assert!(
        path.exists(),
        "{} is not there: `cargo xtask build` makes it, {variable} says another place",
        path.display()
    );
    path
}
