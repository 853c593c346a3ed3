//! Developer commands: `cargo xtask build`, `build-plugin`, `demo`, `test`, `arrows`, `style`, `bench`, `fuzz`, `show`.

mod abi;
mod arrows;
mod bench;
mod build;
mod clients;
mod command;
mod count;
mod debian;
mod demo;
mod echo;
mod fuzz;
mod guest_toolchain;
mod library_source;
mod report;
mod rust_text;
mod show;
mod style;
mod test;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Developer commands of Castling. Each sets up what is missing and says what it is doing.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the gateway and the plugins: leaves dist/castling and dist/plugins/NAME.wasm
    Build {
        #[command(flatten)]
        haste: Haste,
    },
    /// Build a plugin crate that may lie anywhere, as the shipped ones are built
    ///
    /// For machines without the wasm32 target; where it is there, this does the same as
    /// `cargo build --release --target wasm32-unknown-unknown`.
    BuildPlugin {
        /// The folder with the plugin's Cargo.toml
        dir: PathBuf,
        /// Where to write the module
        #[arg(long, value_name = "FILE.wasm")]
        out: PathBuf,
    },
    /// Build as `build --quick`, then run a gateway with two origins on this machine until Ctrl-C
    Demo {
        /// Port of the gateway on 127.0.0.1
        #[arg(long, default_value_t = demo::DEFAULT_PORT)]
        port: u16,
    },
    /// Run every test there is: format, arrows, style, lints, docs, unit tests, doc tests, end to end
    ///
    /// Ends with the time that each part took and a line that counts what ran. The exit code is 0 when nothing failed.
    Test {
        /// Run only tests whose name contains this
        filter: Option<String>,
        /// Leave out format, arrows, style, lints and docs
        #[arg(long)]
        skip_lints: bool,
        /// Run the end to end tests through the gateway as it is shipped: minutes more, most of them for linking
        #[arg(long)]
        shipped: bool,
    },
    /// Read who imports whom in host/src: fails where a room uses one above it, and on unnamed circles of files
    Arrows {
        /// Put the drawing of the rooms into docs/ARCHITECTURE.md instead
        #[arg(long)]
        draw: bool,
    },
    /// Add what is new in sdk/abi to the table of the ABI, and write the header for C: fails where something is gone or changed
    Abi,
    /// Count comments that begin without a subject, long functions and long files: fails where a gate does not hold
    Style {
        /// Print the place of every such comment
        #[arg(long)]
        list: bool,
    },
    /// Measure
    Bench {
        #[command(subcommand)]
        benchmark: bench::Benchmark,
    },
    /// Fuzz the plugin boundary, the wire and the config for a bounded time (docs/FUZZING.md)
    ///
    /// Installs cargo-fuzz where it is missing. The exit code is 0 when nothing was found.
    Fuzz {
        /// host_calls, scripts, wasi, modules, requests, responses, chunks, http2_heads, proxy_headers, name_answers, paths, query_and_cookies, cached_responses or configs; all when left out
        target: Option<String>,
        /// How long each target runs
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Show a promise of the gateway with counts, within minutes (docs/SHOWS.md)
    ///
    /// The exit code is 0 when every claim holds.
    Show {
        /// reload-storm, upgrades, chaos, idle, greedy, reload-time, states, coalesce, cache-suite, upstreams or protocols
        name: String,
        /// Each show has its own: --seconds 60 (reload-storm, chaos), --requests 1000000 (reload-storm),
        /// --upgrades 10, --connections 50000 (idle), --clients 300 (greedy),
        /// --reloads 20 (reload-time), --streams 9000 (states), --clients 1000 (coalesce), --part N and --seconds 60 (upstreams)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

/// How the gateway is compiled.
#[derive(Debug, clap::Args)]
struct Haste {
    /// Without link-time optimisation: built minutes sooner, a request takes a tenth more instructions
    #[arg(long)]
    quick: bool,
}

impl Haste {
    fn profile(&self) -> &'static str {
        match self.quick {
            true => build::QUICK,
            false => build::SHIPPED,
        }
    }
}

fn main() -> ExitCode {
    if let Some(code) = fuzz::rustc() {
        return code;
    }
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::of_this_program()?;
    match task {
        Task::Build { haste } => build::all(&workspace, haste.profile())?,
        Task::BuildPlugin { dir, out } => {
            build::plugin_of_user(&workspace, &dir, &build::Out::File(out))?;
        }
        Task::Demo { port } => demo::run(&workspace, port)?,
        Task::Test {
            filter,
            skip_lints,
            shipped,
        } => {
            let profile = match shipped {
                true => build::SHIPPED,
                false => build::QUICK,
            };
            return test::run(&workspace, filter.as_deref(), skip_lints, profile);
        }
        Task::Arrows { draw: true } => arrows::draw(&workspace)?,
        Task::Arrows { draw: false } => {
            if !arrows::run(&workspace)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Abi => abi::write(&workspace)?,
        Task::Style { list } => {
            if !style::run(&workspace, list)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Bench { benchmark } => bench::run(&workspace, &benchmark)?,
        Task::Fuzz { target, seconds } => fuzz::run(&workspace, target.as_deref(), seconds)?,
        Task::Show { name, options } => return show::run(&workspace, &name, &options),
    }
    Ok(ExitCode::SUCCESS)
}
