//! `cargo xtask build` and `build-plugin`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{self, say};
use crate::guest_toolchain::{GuestToolchain, TARGET, WASI_TARGET};
use crate::workspace::Workspace;

/// The profile of what a user would install, and its folder.
pub(crate) const SHIPPED: &str = "dist";

/// The profile of what is built sooner.
pub(crate) const QUICK: &str = "release";

/// Leaves in `dist/` what a user would install, with a gateway of this profile, and in `target/test-guests` the plugins that only
/// tests use. A gateway as it is shipped is tried out, since the tests mostly run the other.
pub(crate) fn all(workspace: &Workspace, profile: &str) -> Result<()> {
    let started = Instant::now();
    let built = both(workspace, profile)?;
    command::copy_if_changed(&built, &workspace.gateway())?;
    if profile == SHIPPED {
        try_out(workspace)?;
    }
    demo_certificate(workspace, &workspace.gateway())?;
    say!(
        "built {} in {:.1} s",
        workspace.dist.display(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Builds the plugins as [`all`] does, and a gateway of this profile that stays below `target`, so that a quick one takes
/// nobody's place in `dist/`. Returns the gateway's path.
pub(crate) fn for_tests(workspace: &Workspace, profile: &str) -> Result<PathBuf> {
    let built = both(workspace, profile)?;
    demo_certificate(workspace, &built)?;
    if profile == SHIPPED {
        command::copy_if_changed(&built, &workspace.gateway())?;
        try_out(workspace)?;
    }
    Ok(built)
}

/// Builds plugins and gateway beside one another: each module's link-time optimisation takes one core, and they are built one after the
/// other. Returns the gateway's path.
fn both(workspace: &Workspace, profile: &str) -> Result<PathBuf> {
    let (plugins, gateway) = thread::scope(|scope| {
        let plugins = scope.spawn(|| plugins(workspace));
        let gateway = gateway(workspace, profile);
        (plugins.join(), gateway)
    });
    match plugins {
        Ok(built) => built?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    gateway
}

/// Makes the certificate of the demo's listener, unless it is there.
fn demo_certificate(workspace: &Workspace, gateway: &Path) -> Result<()> {
    let folder = workspace.root.join("target/demo/tls");
    if folder.join("cert.pem").exists() {
        return Ok(());
    }
    let mut make = Command::new(gateway);
    make.args(["cert", "self-signed", "--out"]).arg(&folder);
    command::text(&mut make).context("the demo has no certificate")?;
    Ok(())
}

/// Has the gateway in `dist/` compile and configure the demo's plugins.
fn try_out(workspace: &Workspace) -> Result<()> {
    demo_certificate(workspace, &workspace.gateway())?;
    let mut check = Command::new(workspace.gateway());
    check
        .args(["check", "--config", "conf/demo.toml"])
        .current_dir(&workspace.root);
    command::text(&mut check)
        .context("the gateway as it is shipped does not take the demo's config")?;
    Ok(())
}

fn plugins(workspace: &Workspace) -> Result<()> {
    let toolchain = GuestToolchain::find(workspace)?;
    say!("building the plugins");
    let shipped = Out::Folder(workspace.dist.join("plugins"));
    for dir in workspace.plugins()? {
        plugin(&toolchain, workspace, &dir, &shipped)?;
    }
    let for_tests = Out::Folder(workspace.test_guests.clone());
    let mut for_wasi = Vec::new();
    for dir in workspace.guests_of_tests()? {
        match is_for_wasi(&dir)? {
            true => for_wasi.push(dir),
            false => plugin(&toolchain, workspace, &dir, &for_tests)?,
        }
    }
    match GuestToolchain::find_wasi()? {
        Some(wasi) => for_wasi
            .iter()
            .try_for_each(|dir| plugin(&wasi, workspace, dir, &for_tests)),
        None => {
            say!(
                "SKIPPED: no standard library for {WASI_TARGET} (`rustup target add {WASI_TARGET}` brings it): plugins built for it are not tried"
            );
            Ok(())
        }
    }
}

/// Builds the plugin crate in `dir` for the target that it asks for.
pub(crate) fn plugin_of_user(workspace: &Workspace, dir: &Path, out: &Out) -> Result<()> {
    let toolchain = match is_for_wasi(dir)? {
        true => GuestToolchain::find_wasi()?.with_context(|| {
            format!(
                "no standard library for {WASI_TARGET}: `rustup target add {WASI_TARGET}` brings it"
            )
        })?,
        false => GuestToolchain::find(workspace)?,
    };
    plugin(&toolchain, workspace, dir, out)
}

/// Whether the crate's manifest asks for [`WASI_TARGET`].
fn is_for_wasi(dir: &Path) -> Result<bool> {
    says(dir, &format!("target=\"{WASI_TARGET}\""))
}

/// Whether `[package.metadata.castling]` of the crate has this line, but for its blanks.
fn says(dir: &Path, expected: &str) -> Result<bool> {
    let manifest = dir.join("Cargo.toml");
    let manifest = fs::read_to_string(&manifest)
        .with_context(|| format!("no plugin crate in {}: it has no Cargo.toml", dir.display()))?;
    let mut lines = manifest
        .lines()
        .map(|line| line.split('#').next().unwrap_or(line).trim())
        .skip_while(|line| *line != "[package.metadata.castling]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    Ok(lines.any(|line| line.replace(' ', "") == expected))
}

/// Where a built plugin goes.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    /// Under the crate's name, `-` turned to `_`.
    Folder(PathBuf),
    File(PathBuf),
}

/// Builds the plugin crate in `dir`. The module's file is written only when it differs.
pub(crate) fn plugin(
    toolchain: &GuestToolchain,
    workspace: &Workspace,
    dir: &Path,
    out: &Out,
) -> Result<()> {
    let dir =
        fs::canonicalize(dir).with_context(|| format!("no plugin crate in {}", dir.display()))?;
    let target = match is_for_wasi(&dir)? {
        true => WASI_TARGET,
        false => TARGET,
    };

    // Two crates of one name would overwrite each other's module between cargo's end and the copy.
    fs::create_dir_all(&workspace.guests)
        .with_context(|| format!("cannot create {}", workspace.guests.display()))?;
    let lock = File::create(workspace.guests.join("build.lock"))
        .context("cannot create the lock of the plugins")?;
    lock.lock().context("cannot lock the plugins' folder")?;

    let mut cargo = toolchain.cargo(workspace, &dir, target);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    if says(&dir, "simd128=true")? {
        // Every dependency is built for vectors, too, beside those of other plugins.
        let flags = format!("target.{target}.rustflags=[\"-Ctarget-feature=+simd128\"]");
        cargo.arg("--config").arg(flags);
    }
    if workspace.has_member(&dir) {
        cargo.arg("--locked"); // the guests' compiler is no reason to resolve anew
    }
    let messages = cargo
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !messages.status.success() {
        bail!("the plugin in {} does not build", dir.display());
    }
    let built = module_of(&String::from_utf8_lossy(&messages.stdout))
        .with_context(|| format!("the crate in {} has no library", dir.display()))?;

    let file = match out {
        Out::Folder(folder) => folder.join(built.file_name().context("the module has no name")?),
        Out::File(file) => file.clone(),
    };
    let changed = command::copy_if_changed(&built, &file)?;
    let size = fs::metadata(&file)
        .map(|metadata| metadata.len())
        .unwrap_or_default();
    let note = if changed { "" } else { ", as it was" };
    say!(
        "plugin {} ({} KiB{note})",
        workspace.shown(&file),
        size.div_ceil(1024)
    );
    Ok(())
}

/// Builds the gateway. Returns its path below `target`.
fn gateway(workspace: &Workspace, profile: &str) -> Result<PathBuf> {
    let built = workspace.target.join(profile).join("castling");
    let patience = match (built.exists(), profile) {
        (false, SHIPPED) => {
            " (some 12 minutes on two cores, the last half of them for linking all as one)"
        }
        (false, _) => " (3 to 5 minutes on two cores, most of it for wasmtime)",
        (true, _) => "",
    };
    say!("building the gateway{patience}");
    let mut cargo = command::cargo();
    cargo
        .args(["build", "--profile", profile, "--package", "castling"])
        .arg("--target-dir")
        .arg(&workspace.target);
    cargo
        .arg("--manifest-path")
        .arg(workspace.root.join("Cargo.toml"));
    if !command::succeeds(&mut cargo)? {
        bail!("the gateway does not build");
    }
    Ok(built)
}

/// The last Wasm file among cargo's messages: dependencies come before the crate.
fn module_of(messages: &str) -> Option<PathBuf> {
    let artifacts = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    artifacts
        .filter_map(|message| {
            let files = message["filenames"].as_array()?;
            files
                .iter()
                .filter_map(Value::as_str)
                .find(|file| file.ends_with(".wasm"))
                .map(PathBuf::from)
        })
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","filenames":["/t/libserde.rlib"]}
not JSON
{"reason":"compiler-artifact","filenames":["/t/token_auth.d","/t/token_auth.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            module_of(messages),
            Some(PathBuf::from("/t/token_auth.wasm"))
        );
        assert_eq!(module_of("{}"), None);
    }
}
