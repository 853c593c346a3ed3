//! Programs that clients are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Stopped;
use crate::command::{self, Outcome};

/// A program by its name, on `PATH` or where Debian keeps servers.
pub(super) fn program(name: &str) -> Result<PathBuf, Stopped> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut files = folders.map(|folder| folder.join(name));
    let found = files.find(|file| file.is_file());
    found.ok_or_else(|| Stopped::Missing(format!("{name} is not installed")))
}

/// The interpreter that has the packages from PyPI.
pub(super) fn python() -> Result<PathBuf, Stopped> {
    installed("requirements.txt")?;
    Ok(crate::clients_dir().join("venv/bin/python"))
}

/// Node.js, and the folder of the packages from npm.
pub(super) fn node() -> Result<(PathBuf, PathBuf), Stopped> {
    let node = program("node")?;
    installed("package.json")?;
    Ok((node, crate::clients_dir().join("node/node_modules")))
}

/// A list of packages that was installed to its end has a copy there.
fn installed(list: &str) -> Result<(), Stopped> {
    let copy = crate::clients_dir().join("installed").join(list);
    match copy.exists() {
        true => Ok(()),
        false => Err(Stopped::Missing(format!(
            "the packages of tests/clients/{list} are not installed"
        ))),
    }
}

/// Where scripts lie.
pub(super) fn scripts() -> PathBuf {
    crate::workspace_root().join("tests/clients")
}

/// Runs a program to its end.
pub(super) fn run(program: &Path, arguments: &[&str]) -> Outcome {
    run_with_input(program, arguments, "")
}

pub(super) fn run_with_input(program: &Path, arguments: &[&str], input: &str) -> Outcome {
    let mut command = Command::new(program);
    command.args(arguments);
    command::run_with_input(command, input, LIMIT)
}

/// Word of a program's answer to `--version` (or another argument) that begins with a digit.
pub(super) fn version(program: &Path, argument: &str) -> String {
    let said = run(program, &[argument]);
    let text = said.stdout + &said.stderr;
    let is_number = |word: &&str| {
        let word = word.trim_start_matches(['v', '/']);
        word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.')
    };
    let word = text
        .split([' ', '\n', '/', '\t'])
        .find(is_number)
        .unwrap_or("?");
    word.trim_end_matches(|last: char| !last.is_ascii_alphanumeric())
        .to_owned()
}

/// Longest run of one program.
pub(super) const LIMIT: Duration = Duration::from_secs(300);
