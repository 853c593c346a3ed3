//! Castling: a reverse proxy whose behaviour is written as sandboxed WebAssembly plugins.
#![allow(
    unreachable_pub,
    reason = "in a binary nothing is reachable from outside; `pub` says what a module offers its neighbours"
)]

mod alarm;
mod balancer;
mod cli;
mod config;
mod connection;
mod error;
mod exchange;
mod filter;
mod flow;
mod gateway;
mod http1;
mod listener;
mod log;
mod phase;
mod process;
mod socket;
mod supply;
mod upstream;
mod wasm;
mod worker;
mod zone;

fn main() -> std::process::ExitCode {
    cli::main()
}
