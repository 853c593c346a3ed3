//! `cargo xtask fuzz`: the fuzz targets, each for a bounded time.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::command::{self, say};
use crate::workspace::Workspace;

/// Runs one target or all. What is new in the corpus stays below `fuzz/target/corpus`; a finding is an error, and lies
/// in `fuzz/artifacts`.
pub(crate) fn run(workspace: &Workspace, only: Option<&str>, seconds: u32) -> Result<()> {
    let targets: Vec<&str> = TARGETS
        .into_iter()
        .filter(|target| only.is_none_or(|only| only == *target))
        .collect();
    if targets.is_empty() {
        bail!(
            "no such fuzz target; expected one of {}",
            TARGETS.join(", ")
        );
    }
    install(workspace)?;
    say!("fuzz: the first build takes 5 minutes on two cores, most of it for wasmtime");
    let mut findings = Vec::new();
    for target in targets {
        say!("fuzz: {target} for {seconds} s");
        if !command::succeeds(&mut fuzz(workspace, target, seconds)?)? {
            findings.push(target);
        }
    }
    if !findings.is_empty() {
        bail!(
            "found something in {}: the input is in fuzz/artifacts; put it into fuzz/regressions with what repairs it",
            findings.join(", ")
        );
    }
    Ok(())
}

/// This program as `RUSTC_WRAPPER`: the compiler, with coverage counters only in crates that read what a fuzzer makes up. In
/// cranelift they would double the build and show the fuzzer ways that are not ours.
pub(crate) fn rustc() -> Option<ExitCode> {
    env::var_os(WRAPS)?;
    let mut arguments = env::args_os().skip(1);
    let rustc = arguments.next()?;
    let mut arguments: Vec<OsString> = arguments.collect();
    let counts = |name: &OsString| COUNTED.iter().chain(&TARGETS).any(|one| name == one);
    let is_counted = arguments
        .windows(2)
        .any(|pair| pair[0] == "--crate-name" && counts(&pair[1]));
    if !is_counted {
        arguments.retain(|argument| {
            let argument = argument.to_string_lossy();
            argument != "-Cpasses=sancov-module"
                && !argument.starts_with("-Cllvm-args=-sanitizer-coverage")
        });
    }
    let error = Command::new(&rustc).args(arguments).exec();
    eprintln!("xtask: cannot run {}: {error}", rustc.display());
    Some(ExitCode::FAILURE)
}

/// Set where cargo calls us in the place of the compiler.
const WRAPS: &str = "CASTLING_XTASK_WRAPS_RUSTC";

/// Crates with coverage counters, beside the targets themselves.
const COUNTED: [&str; 10] = [
    "castling",
    "castling_abi",
    "castling_fuzz",
    "castling_sdk",
    "toml",
    "toml_parser",
    "wasmparser",
    "http",
    "httparse",
    "serde_json",
];

/// Names of the binaries of `fuzz/Cargo.toml`.
const TARGETS: [&str; 14] = [
    "host_calls",
    "scripts",
    "wasi",
    "modules",
    "requests",
    "responses",
    "chunks",
    "http2_heads",
    "proxy_headers",
    "name_answers",
    "paths",
    "query_and_cookies",
    "cached_responses",
    "configs",
];

/// An input that takes longer is a finding.
const INPUT_TIMEOUT_SECONDS: u32 = 10;

/// An input that needs more memory is a finding, too.
const MEMORY_LIMIT_MIB: u32 = 2048;

fn install(workspace: &Workspace) -> Result<()> {
    let mut version = command::cargo();
    version
        .args(["fuzz", "--version"])
        .current_dir(&workspace.root);
    if command::succeeds(command::quiet(&mut version))? {
        return Ok(());
    }
    say!("fuzz: cargo install cargo-fuzz (a minute, once)");
    let mut install = command::cargo();
    install.args(["install", "cargo-fuzz", "--locked"]);
    if !command::succeeds(&mut install)? {
        bail!("cargo-fuzz cannot be installed");
    }
    Ok(())
}

fn fuzz(workspace: &Workspace, target: &str, seconds: u32) -> Result<Command> {
    let fuzz = workspace.root.join("fuzz");
    let grown = fuzz.join("target/corpus").join(target);
    fs::create_dir_all(&grown).with_context(|| format!("cannot create {}", grown.display()))?;
    let mut cargo = command::cargo();
    cargo
        .current_dir(&workspace.root)
        .env_remove("CARGO_TARGET_DIR")
        .env(
            "RUSTC_WRAPPER",
            env::current_exe().context("this program does not know where it lies")?,
        )
        .env(WRAPS, "1");
    // Without a sanitizer: our code has no unsafe parts to speak of, wasmtime handles SIGSEGV itself, and a stable
    // compiler does.
    cargo.args(["fuzz", "run", "--sanitizer", "none", target]);
    // libFuzzer writes into the first folder only.
    cargo.arg(grown);
    let seeds = ["corpus", "regressions"].map(|kind| fuzz.join(kind).join(target));
    cargo.args(seeds.into_iter().filter(|folder: &PathBuf| folder.exists()));
    cargo.args([
        "--",
        &format!("-max_total_time={seconds}"),
        &format!("-timeout={INPUT_TIMEOUT_SECONDS}"),
        &format!("-rss_limit_mb={MEMORY_LIMIT_MIB}"),
        "-max_len=4096",
        "-print_final_stats=1",
    ]);
    Ok(cargo)
}
