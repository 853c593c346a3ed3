//! `cargo xtask show`: what the gateway promises, shown with counts.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::build;
use crate::clients;
use crate::command;
use crate::workspace::Workspace;

/// Builds what is shown, then runs one show. The exit code is 0 when every claim holds.
pub(crate) fn run(workspace: &Workspace, name: &str, options: &[String]) -> Result<ExitCode> {
    match name {
        PROTOCOLS => clients::install(workspace)?,
        CACHE_SUITE => clients::install_tools(workspace)?,
        _ => {}
    }
    build::all(workspace, build::SHIPPED)?;
    let plots = workspace.target.join("plots");
    fs::create_dir_all(&plots).with_context(|| format!("cannot create {}", plots.display()))?;
    let mut cargo = command::cargo();
    cargo
        .args(["run", "--release", "--quiet", "--package", "castling-tests"])
        .args(["--example", "show", "--target-dir"])
        .arg(&workspace.target)
        .arg("--manifest-path")
        .arg(workspace.root.join("Cargo.toml"))
        .arg("--")
        .arg(name)
        .args(options)
        .env("CASTLING_BIN", workspace.gateway())
        .env("CASTLING_PLUGINS", workspace.dist.join("plugins"))
        .env("CASTLING_GUESTS", &workspace.test_guests)
        .env("CASTLING_CLIENTS", clients::folder(workspace))
        .env("CASTLING_PLOTS", &plots);
    match command::succeeds(&mut cargo)? {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

/// The show that takes clients of other hands.
const PROTOCOLS: &str = "protocols";
/// The show that runs tests of other hands.
const CACHE_SUITE: &str = "cache-suite";
