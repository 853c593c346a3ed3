//! Which source the gateway was built of.

use std::path::Path;
use std::process::Command;

/// Folders that the gateway is built of, beside the benchmark's.
const SOURCES: [&str; 4] = ["../host", "../sdk", "../Cargo.toml", "../Cargo.lock"];

/// `commit 1234567`: the last one that changed the gateway. `None` where there is no git or no repository.
pub(super) fn commit(bench: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(bench).args(arguments);
        let output = git.arg("--").args(SOURCES).output().ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| said.trim().to_owned())
    };
    let hash = git(&["log", "-1", "--format=%h"]).filter(|hash| !hash.is_empty())?;
    let is_changed = !git(&["status", "--porcelain"])?.is_empty();
    let changed = if is_changed { " and changes" } else { "" };
    Some(format!("commit {hash}{changed}"))
}
