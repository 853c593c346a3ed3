//! Castling: a reverse proxy whose behaviour is written as sandboxed WebAssembly plugins.
//!
//! The gateway is the binary of this name, which calls [`main`]. It is a library only so that benchmarks and fuzz
//! targets reach its insides, through `rig`; nothing here is an interface for others.
#![allow(
    unreachable_pub,
    reason = "next to nothing is reachable from outside; `pub` says what a module offers its neighbours"
)]

mod acme;
mod balancer;
mod cache;
mod cli;
mod config;
mod connection;
mod downstream;
mod error;
mod exchange;
mod fetch;
mod filter;
mod flow;
mod gateway;
mod handler;
mod http1;
mod http2;
mod listener;
mod log;
mod message;
mod metrics;
mod phase;
mod process;
#[doc(hidden)]
pub mod rig;
mod runtime;
mod service;
mod transport;
mod upstream;
mod wasm;
mod worker_context;
mod zone;

pub use cli::main;
