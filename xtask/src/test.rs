//! `cargo xtask test`: every test there is, and how many they were.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::arrows;
use crate::bench;
use crate::build;
use crate::clients;
use crate::command::{self, say};
use crate::report::Report;
use crate::style;
use crate::workspace::Workspace;

/// Runs all steps, also past one that fails. The last line counts what ran; the exit code is 0 when nothing failed.
pub(crate) fn run(
    workspace: &Workspace,
    filter: Option<&str>,
    skip_lints: bool,
    profile: &str,
) -> Result<ExitCode> {
    // Asked now: the unit tests may replace the file that this program was started from.
    let this_program = env::current_exe().context("this program does not know where it lies")?;
    if profile == build::QUICK {
        command::compile_sooner();
    }
    let mut report = Report::default();
    if !skip_lints {
        report.check("format", || passes(&mut format(workspace)));
        report.check("arrows", || arrows::run(workspace));
        report.check("style", || style::run(workspace, false));
    }
    // First of the long steps: it compiles what the others use.
    let mut gateway = None;
    report.check("build", || {
        gateway = Some(build::for_tests(workspace, profile)?);
        Ok(true)
    });
    if !skip_lints {
        report.check("lints", || passes(&mut lints(workspace)));
        report.check("docs", || passes(&mut docs(workspace)));
        report.check("packages", || passes(&mut packages(workspace)));
    }
    report.tests("unit tests", &mut unit_tests(workspace, filter));
    report.tests("plugins' unit tests", &mut plugin_tests(workspace, filter));
    report.tests("doc tests", &mut doc_tests(workspace, filter));
    if let Some(gateway) = gateway {
        report.check("benchmark runs", || bench::smoke(workspace));
        if profile == build::SHIPPED {
            report.check("instructions", || bench::check_instructions(workspace));
        }
        report.check("clients", || clients::install(workspace).map(|()| true));
        report.check("tools", || clients::install_tools(workspace).map(|()| true));
        report.tests(
            "end to end",
            &mut end_to_end(workspace, filter, &gateway, &this_program),
        );
    } else {
        report.check("end to end", || {
            say!("end to end: not run, since the build failed");
            Ok(false)
        });
    }
    Ok(report.close())
}

fn format(workspace: &Workspace) -> Command {
    let mut cargo = cargo(workspace, "fmt");
    cargo.args(["--all", "--", "--check"]);
    cargo
}

fn lints(workspace: &Workspace) -> Command {
    let mut cargo = cargo(workspace, "clippy");
    cargo.args([
        "--workspace",
        "--release",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]);
    cargo
}

fn docs(workspace: &Workspace) -> Command {
    let mut cargo = cargo(workspace, "doc");
    cargo.args([
        "--workspace",
        "--release",
        "--no-deps",
        "--document-private-items",
    ]);
    cargo.env(
        "RUSTDOCFLAGS",
        "--deny rustdoc::broken_intra_doc_links --deny rustdoc::invalid_html_tags",
    );
    cargo
}

/// Packs the SDK's crates as they would be for a registry. They are not compiled again.
fn packages(workspace: &Workspace) -> Command {
    let mut cargo = cargo(workspace, "package");
    cargo.args(["--no-verify", "--allow-dirty", "--quiet"]);
    for package in SDK {
        cargo.args(["--package", package]);
    }
    cargo
}

/// Crates of the SDK, which are for a registry.
const SDK: [&str; 4] = [
    "castling-abi",
    "castling-crypto",
    "castling-macros",
    "castling-sdk",
];

/// Packages with the gateway in them. Tested apart from the others, whose features of shared crates would have wasmtime
/// compiled a second time. Their own features are the same with and without what only tests use, so that the gateway is
/// compiled once for the end to end tests, the benchmarks and its unit tests.
const GATEWAY: [&str; 3] = ["castling", "castling-bench", "xtask"];

/// Unit tests of the gateway and these commands.
fn unit_tests(workspace: &Workspace, filter: Option<&str>) -> Command {
    let mut cargo = cargo(workspace, "test");
    for package in GATEWAY {
        cargo.args(["--package", package]);
    }
    cargo.args(["--release", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    cargo.args(filter);
    cargo
}

/// Unit tests of the SDK and the plugins, which run natively.
fn plugin_tests(workspace: &Workspace, filter: Option<&str>) -> Command {
    let mut cargo = all_but_gateway(workspace);
    cargo.args(["--lib", "--bins", "--tests"]);
    cargo.args(filter);
    cargo
}

fn all_but_gateway(workspace: &Workspace) -> Command {
    let mut cargo = cargo(workspace, "test");
    cargo.args(["--workspace", "--exclude", END_TO_END]);
    for package in GATEWAY {
        cargo.args(["--exclude", package]);
    }
    cargo.args(["--release", "--no-fail-fast"]);
    cargo
}

fn doc_tests(workspace: &Workspace, filter: Option<&str>) -> Command {
    let mut cargo = all_but_gateway(workspace);
    cargo.arg("--doc");
    cargo.args(filter);
    cargo
}

/// Tests through the built binary.
fn end_to_end(
    workspace: &Workspace,
    filter: Option<&str>,
    gateway: &Path,
    this_program: &Path,
) -> Command {
    let mut cargo = cargo(workspace, "test");
    cargo.args(["--package", END_TO_END, "--release", "--no-fail-fast"]);
    cargo.args(filter);
    cargo.env("CASTLING_BIN", gateway);
    cargo.env("CASTLING_PLUGINS", workspace.dist.join("plugins"));
    cargo.env("CASTLING_GUESTS", &workspace.test_guests);
    cargo.env("CASTLING_XTASK", this_program);
    cargo.env("CASTLING_BENCH", bench::program(workspace));
    cargo.env("CASTLING_CLIENTS", clients::folder(workspace));
    cargo
}

fn cargo(workspace: &Workspace, command: &str) -> Command {
    let mut cargo = command::cargo();
    cargo
        .arg(command)
        .current_dir(&workspace.root)
        .env("CARGO_TARGET_DIR", &workspace.target);
    cargo
}

fn passes(command: &mut Command) -> Result<bool> {
    command::succeeds(command)
}

const END_TO_END: &str = "castling-tests";
