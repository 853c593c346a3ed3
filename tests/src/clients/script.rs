//! Clients that are libraries, driven by scripts in `tests/clients`.

use std::path::Path;
use std::process::Command;

use super::{Done, Outcome, Site, Stopped, tool};
use crate::command;

/// Runs a script with the packages from PyPI.
pub(super) fn python(site: &Site, script: &str) -> Outcome {
    python_with(&site.facts(), script)
}

/// Runs it with another gateway, as this file tells where it is.
pub(super) fn python_with(facts: &Path, script: &str) -> Outcome {
    let mut python = Command::new(tool::python()?);
    // No bytecode beside the scripts.
    python.arg("-B").arg(tool::scripts().join(script));
    run(python, facts)
}

/// Runs a script with the packages from npm.
pub(super) fn node(site: &Site, script: &str) -> Outcome {
    let (program, modules) = tool::node()?;
    // The origins of WebSockets and gRPC are in Python.
    tool::python()?;
    if script.starts_with("chromium") {
        tool::program("chromium")?;
    }
    let mut node = Command::new(program);
    node.arg(tool::scripts().join(script))
        .env("NODE_PATH", modules);
    run(node, &site.facts())
}

/// A script gets the path of a file that says where the gateway listens. It prints its client's version, then notes, then what it did,
/// and exits with 0; or it tells on standard error what it did not get.
fn run(mut command: Command, facts: &Path) -> Outcome {
    command.arg(facts);
    let outcome = command::run(command, tool::LIMIT);
    let mut lines = outcome.stdout.lines();
    match (outcome.code, lines.next(), lines.next_back()) {
        (Some(0), Some(version), Some(did)) => Ok(Done {
            notes: lines
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
            ..Done::new(version.to_owned(), did)
        }),
        _ => Err(Stopped::Failed(format!(
            "{}{}",
            outcome.stdout, outcome.stderr
        ))),
    }
}
