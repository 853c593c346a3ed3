//! Clients of other hands, and an authority, that the gateway is tried with (docs/SHOWS.md), compilers of other languages that plugins may be
//! written in, and what makes a book of docs/plugins: packages of Debian, PyPI and npm.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command::{self, say};
use crate::debian;
use crate::workspace::Workspace;

/// Installs what is missing of the clients. What cannot be had is named in a line of its own: the tests that need it are skipped.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    install_in(&folder(workspace), workspace, "clients", &CLIENTS)
}

/// Installs the compilers and what makes a book, likewise.
pub(crate) fn install_tools(workspace: &Workspace) -> Result<()> {
    install_in(&folder(workspace).join("tools"), workspace, "tools", &TOOLS)
}

/// `what`: the folder of the manifests below `tests`.
fn install_in(
    folder: &Path,
    workspace: &Workspace,
    what: &str,
    packages: &[(&str, &str)],
) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Another run waits until this one has installed, and then finds all of it.
    let lock = File::create(folder.join("lock")).context("cannot create a lock file")?;
    lock.lock().context("cannot lock")?;
    from_debian(what, packages);
    let manifests = workspace.root.join("tests").join(what);
    let (requirements, package) = (manifests.join(REQUIREMENTS), manifests.join(PACKAGE));
    let from_pypi = once(folder, &requirements, || python(folder, &requirements));
    skipped_unless(&format!("{what} from PyPI"), from_pypi);
    let from_npm = once(folder, &package, || node(folder, &package));
    skipped_unless(&format!("{what} from npm"), from_npm);
    Ok(())
}

/// Where they are installed, which tests find by `CASTLING_CLIENTS`.
pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("clients")
}

fn from_debian(what: &str, packages: &[(&str, &str)]) {
    let missing = || packages.iter().filter(|(_, file)| !is_there(file));
    let packages: Vec<&str> = missing().map(|(package, _)| *package).collect();
    if packages.is_empty() {
        return;
    }
    let installed = debian::install(&packages);
    let installed = installed.and_then(|_| {
        let left: Vec<&str> = missing().map(|(package, _)| *package).collect();
        ensure!(left.is_empty(), "not installed: {}", left.join(" "));
        Ok(())
    });
    skipped_unless(&format!("{what} from Debian"), installed);
}

fn is_there(file: &str) -> bool {
    command::is_on_path(file) || Path::new("/usr/sbin").join(file).exists()
}

/// Says loudly what is not there.
fn skipped_unless(what: &str, installed: Result<()>) {
    if let Err(error) = installed {
        say!("SKIPPED: {what} could not be installed, and are not tried: {error:#}");
    }
}

/// Installs what a manifest lists, unless that was done for just this list. The copy of the manifest that says so comes last.
fn once(folder: &Path, manifest: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let list = fs::read(manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let name = manifest.file_name().context("a manifest without a name")?;
    let done = folder.join("installed").join(name);
    if fs::read(&done).is_ok_and(|installed| installed == list) {
        return Ok(());
    }
    install()?;
    command::write_if_changed(&done, &list).map(drop)
}

fn python(folder: &Path, requirements: &Path) -> Result<()> {
    say!("installing Python packages ({})", requirements.display());
    let venv = folder.join("venv");
    let mut create = Command::new("python3");
    create.args(["-m", "venv", "--clear"]).arg(&venv);
    done(&mut create, "python3 -m venv")?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "--requirement"])
        .arg(requirements);
    done(&mut pip, "pip")
}

fn node(folder: &Path, package: &Path) -> Result<()> {
    ensure!(
        command::is_on_path("npm"),
        "there is no npm (it comes with Node.js)"
    );
    say!("installing npm packages ({})", package.display());
    let modules = folder.join("node");
    fs::create_dir_all(&modules).with_context(|| format!("cannot create {}", modules.display()))?;
    command::copy_if_changed(package, &modules.join(PACKAGE))?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund"])
        .args(["--ignore-scripts", "--no-package-lock"])
        .args(["--fetch-retries", "1"])
        .current_dir(&modules);
    done(&mut npm, "npm")
}

fn done(command: &mut Command, what: &str) -> Result<()> {
    let succeeded = command::succeeds_within(command, INSTALL_TIMEOUT)?;
    ensure!(
        succeeded,
        "{what} failed, or took more than {INSTALL_TIMEOUT:?}"
    );
    Ok(())
}

const REQUIREMENTS: &str = "requirements.txt";
const PACKAGE: &str = "package.json";

/// Some minutes for a slow registry; a quarter of one is usual.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(240);

/// Debian's packages, and a program of each.
const CLIENTS: [(&str, &str); 10] = [
    ("chromium", "chromium"),
    ("curl", "curl"),
    ("haproxy", "haproxy"),
    ("nghttp2-client", "h2load"),
    ("openssl", "openssl"),
    ("pebble", "pebble"),
    ("python3-venv", "python3"),
    ("redis-server", "redis-server"),
    ("sslscan", "sslscan"),
    ("testssl.sh", "testssl"),
];

const TOOLS: [(&str, &str); 2] = [("clang", "clang"), ("lld", "wasm-ld")];
