//! Compilers and other tools that `cargo xtask test` installs where they can be had.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::{env, thread};

use crate::clients_dir;

/// The tool's command, without arguments; `None` where it is not installed, which is said whatever becomes of the test's output.
pub fn tool(name: &str) -> Option<Command> {
    let tools = clients_dir().join("tools");
    let (asc, zig) = (
        tools.join("node/node_modules/assemblyscript/bin/asc.js"),
        tools.join("venv/bin/python-zig"),
    );
    let found = match name {
        "asc" => on_path("node")
            .filter(|_| asc.exists())
            .map(|node| command(node, &[asc.as_os_str()])),
        "zig" => zig.exists().then(|| {
            let module = ["-m", "ziglang"].map(OsStr::new);
            command(tools.join("venv/bin/python"), &module)
        }),
        name => on_path(name)
            .or_else(|| Some(tools.join("venv/bin").join(name)).filter(|file| file.exists()))
            .map(|program| command(program, &[])),
    };
    if found.is_none() {
        skipped(&format!("{name} is not installed"));
    }
    found
}

fn command(program: PathBuf, arguments: &[&OsStr]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Says that the test is skipped, on standard error itself, which is not captured.
pub fn skipped(why: &str) {
    let test = thread::current();
    let line = format!("SKIPPED {}: {why}\n", test.name().unwrap_or_default());
    let _said = std::io::stderr().write_all(line.as_bytes());
}

/// Runs a command to its end. Panics with what it said where it fails.
#[track_caller]
pub fn run(command: &mut Command) {
    let outcome = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{command:?}: {said}");
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.exists())
}
