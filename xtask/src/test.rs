//! `cargo xtask test`: every test there is, and how many they were.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::bench;
use crate::build;
use crate::command::{self, say};
use crate::count::Count;
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
    let mut report = Report::default();
    if !skip_lints {
        report.check("format", || passes(&mut format(workspace)));
    }
    // First of the long steps: it compiles what the others use.
    let built = report.check("build", || build::all(workspace, profile).map(|()| true));
    if !skip_lints {
        report.check("lints", || passes(&mut lints(workspace)));
        report.check("docs", || passes(&mut docs(workspace)));
    }
    report.tests("unit tests", &mut unit_tests(workspace, filter));
    report.tests("plugins' unit tests", &mut plugin_tests(workspace, filter));
    report.tests("doc tests", &mut doc_tests(workspace, filter));
    if built {
        report.check("benchmark runs", || bench::smoke(workspace));
        report.tests(
            "end to end",
            &mut end_to_end(workspace, filter, &this_program),
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

/// Packages with the gateway in them. Tested apart from the others, whose features of shared crates would have wasmtime
/// compiled a second time.
const GATEWAY: [&str; 3] = ["castling", "castling-bench", "xtask"];

/// Of the gateway and these commands.
fn unit_tests(workspace: &Workspace, filter: Option<&str>) -> Command {
    let mut cargo = cargo(workspace, "test");
    for package in GATEWAY {
        cargo.args(["--package", package]);
    }
    cargo.args(["--release", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    cargo.args(filter);
    cargo
}

/// Of the SDK and the plugins, which run natively.
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

/// Through the built binary.
fn end_to_end(workspace: &Workspace, filter: Option<&str>, this_program: &Path) -> Command {
    let mut cargo = cargo(workspace, "test");
    cargo.args(["--package", END_TO_END, "--release", "--no-fail-fast"]);
    cargo.args(filter);
    cargo.env("CASTLING_BIN", workspace.gateway());
    cargo.env("CASTLING_PLUGINS", workspace.dist.join("plugins"));
    cargo.env("CASTLING_GUESTS", &workspace.test_guests);
    cargo.env("CASTLING_XTASK", this_program);
    cargo.env("CASTLING_BENCH", bench::program(workspace));
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

/// What the steps came to.
#[derive(Debug, Default)]
struct Report {
    count: Count,
    failed_steps: Vec<&'static str>,
}

impl Report {
    /// A step without counted tests: it counts as one.
    fn check(&mut self, name: &'static str, step: impl FnOnce() -> Result<bool>) -> bool {
        let started = Instant::now();
        say!("{name}");
        let passed = step().unwrap_or_else(|error| {
            say!("{name}: {error:#}");
            false
        });
        self.end(
            name,
            started,
            if passed {
                Count::ONE_PASSED
            } else {
                Count::ONE_FAILED
            },
        );
        passed
    }

    /// A step that runs test programs: each of their tests counts. One that fails without a failed test (it does not
    /// compile, it was killed) counts as one failed.
    fn tests(&mut self, name: &'static str, command: &mut Command) {
        let started = Instant::now();
        say!("{name}");
        let mut count = Count::default();
        let succeeded = echo(command, |line| {
            if let Some(more) = Count::from_result_line(line) {
                count += more;
            }
        });
        let succeeded = succeeded.unwrap_or_else(|error| {
            say!("{name}: {error:#}");
            false
        });
        if !succeeded && count.failed == 0 {
            count += Count::ONE_FAILED;
        }
        self.end(name, started, count);
    }

    fn end(&mut self, name: &'static str, started: Instant, count: Count) {
        self.count += count;
        let outcome = if count.failed == 0 { "ok" } else { "FAILED" };
        say!(
            "{name}: {outcome}, {count}, {:.1} s",
            started.elapsed().as_secs_f64()
        );
        if count.failed > 0 {
            self.failed_steps.push(name);
        }
    }

    fn close(self) -> ExitCode {
        if !self.failed_steps.is_empty() {
            say!("failed: {}", self.failed_steps.join(", "));
        }
        println!("castling: {}", self.count);
        if self.count.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Runs a command, prints what it prints and lends each line. Says whether it succeeded.
fn echo(command: &mut Command, mut line_seen: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read what the tests print")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        line_seen(&line);
    }
    Ok(child.wait().context("cannot wait for cargo")?.success())
}

const END_TO_END: &str = "castling-tests";
