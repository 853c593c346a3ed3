//! `cargo xtask bench`: what a plugin's hooks cost.

use std::process::Command;

use anyhow::{Result, bail};

use crate::build;
use crate::command;
use crate::workspace::Workspace;

/// Builds what is measured, then measures.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    build::all(workspace)?;
    let mut cargo = measure(workspace);
    cargo.args(arguments);
    if !command::succeeds(&mut cargo)? {
        bail!("the benchmark failed");
    }
    Ok(())
}

/// So short that it says nothing of costs, only that it runs.
pub(crate) fn smoke(workspace: &Workspace) -> Result<bool> {
    command::succeeds(measure(workspace).args(["--rounds", "1", "--turn", "1"]))
}

fn measure(workspace: &Workspace) -> Command {
    let mut cargo = command::cargo();
    cargo
        .args([
            "run",
            "--release",
            "--package",
            "castling-bench",
            "--target-dir",
        ])
        .arg(&workspace.target)
        .arg("--manifest-path")
        .arg(workspace.root.join("Cargo.toml"));
    cargo.arg("--").arg("--guests").arg(&workspace.test_guests);
    cargo.arg("--plugins").arg(workspace.dist.join("plugins"));
    cargo
}
