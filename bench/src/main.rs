//! The benchmarks, which `cargo xtask bench` builds and runs:
//!
//! - `parts`: what a plugin's hooks and host calls cost, one by one (docs/COSTS.md);
//! - `peers`: the whole gateway beside nginx, HAProxy and Envoy (docs/BENCHMARK.md, and docs/benchmark, which it writes);
//! - `instructions`: how many a request takes, which does not drift as time does: the gate against getting slower.

mod instructions;
mod parts;
mod peers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures what Castling costs.
#[derive(Parser)]
#[command(name = "cargo xtask bench", disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    benchmark: Benchmark,
}

/// Files that `cargo xtask` has built, and their places.
#[derive(Clone, clap::Args)]
pub(crate) struct Places {
    /// The gateway
    #[arg(long, value_name = "FILE", hide = true)]
    castling: PathBuf,
    /// Folder with the built test guests
    #[arg(long, value_name = "DIR", hide = true)]
    guests: PathBuf,
    /// Folder with the built plugins
    #[arg(long, value_name = "DIR", hide = true)]
    plugins: PathBuf,
    /// Folder with the built plugins of bench/peers/plugins
    #[arg(long, value_name = "DIR", hide = true)]
    bench_plugins: PathBuf,
    /// The folder bench/ of the repository
    #[arg(long, value_name = "DIR", hide = true)]
    bench: PathBuf,
    /// Folder for what a run leaves: configs, logs, profiles
    #[arg(long, value_name = "DIR", hide = true)]
    work: PathBuf,
    /// Another build of the gateway, of `peers --beside`
    #[arg(skip)]
    beside: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Time hooks and host calls, one by one
    Parts(parts::Arguments),
    /// The gateway beside nginx, HAProxy and Envoy
    Peers(peers::Arguments),
    /// Instructions and allocations a request, compared with what bench/instructions.toml says
    Instructions(instructions::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let places = &arguments.places;
    let done = match &arguments.benchmark {
        Benchmark::Parts(arguments) => parts::run(places, arguments),
        Benchmark::Peers(arguments) => peers::run(places, arguments),
        Benchmark::Instructions(arguments) => instructions::run(places, arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("castling-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
