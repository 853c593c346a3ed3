//! The ladder to a wasm32 standard library: what builds plugins on this machine.
//!
//! 1. The active toolchain has the target: what a user has who ran `rustup target add wasm32-unknown-unknown`.
//! 2. `rustup target add` does so now.
//! 3. A toolchain has the library's source: the library is built from it (`-Zbuild-std`, about 45 s, once).
//! 4. On Debian, as root or with a `sudo` that asks nothing: packages bring such a toolchain; then as 3.
//! 5. An error says what to install.
//!
//! A rung counts when it has built an empty plugin. The rung that did is remembered beside the guests' build, for as
//! long as `rustc -vV` says the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::command::{self, say};
use crate::debian;
use crate::library_source::{self, LibrarySource};
use crate::workspace::Workspace;

/// Target that plugins are compiled for, as far as they do not say another.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Target of plugins that print and read clocks by std, and say `target = "wasm32-wasip1"` in `[package.metadata.castling]`.
pub(crate) const WASI_TARGET: &str = "wasm32-wasip1";

/// A way to build plugins that has been seen to work.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum GuestToolchain {
    /// The active toolchain, which has the target.
    WithTarget {
        /// Where its wasm32 library lies.
        library: PathBuf,
    },
    /// The library is built from source, together with the plugin.
    FromSource(LibrarySource),
}

impl GuestToolchain {
    /// Climbs the ladder. Each rung is said in one line. Installs only what the machine lacks.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        let rustc_version = command::text(Command::new(command::rustc()).arg("-vV"))
            .context("no Rust compiler answers")?;
        let memory = Memory {
            file: workspace.guests.join("toolchain.json"),
            rustc_version,
        };
        if let Some(known) = memory.recall() {
            return Ok(known);
        }
        let found = climb(workspace)?;
        memory.keep(&found)?;
        Ok(found)
    }

    /// The toolchain for [`WASI_TARGET`], whose library rustup alone brings. None where it cannot be had.
    pub(crate) fn find_wasi() -> Result<Option<Self>> {
        if target_now(WASI_TARGET) != Target::Present && command::is_on_path("rustup") {
            say!(
                "guests: rustup target add {WASI_TARGET} (waits at most {} s)",
                RUSTUP_TIMEOUT.as_secs()
            );
            add_target(WASI_TARGET)?;
        }
        let library = target_library(WASI_TARGET).filter(|library| library.exists());
        Ok(library.map(|library| Self::WithTarget { library }))
    }

    /// `cargo rustc` for the plugin crate in `dir`, ready for further arguments. Profile `guest`, below
    /// `target/guests`.
    pub(crate) fn cargo(&self, workspace: &Workspace, dir: &Path, target: &str) -> Command {
        let mut cargo = command::cargo();
        // These belong to the host's build; `-C target-cpu=native`, say, means nothing to wasm32.
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "RUSTC_WRAPPER",
        ] {
            cargo.env_remove(name);
        }
        // With the rlib that native tests use in the same unit, cargo would leave out link-time optimisation.
        cargo.arg("rustc").args([
            "--lib",
            "--crate-type",
            "cdylib",
            "--profile",
            "guest",
            "--target",
            target,
        ]);
        cargo
            .arg("--target-dir")
            .arg(&workspace.guests)
            .arg("--manifest-path")
            .arg(dir.join("Cargo.toml"));
        for setting in workspace.guest_profile() {
            cargo.arg("--config").arg(setting);
        }
        if let Self::FromSource(source) = self {
            cargo.arg("-Zbuild-std=std,panic_abort");
            cargo
                .env("RUSTC", &source.rustc)
                .env("RUSTC_BOOTSTRAP", "1");
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", &source.linker);
        }
        cargo
    }

    fn to_json(&self) -> Value {
        match self {
            Self::WithTarget { library } => json!({ "library": library }),
            Self::FromSource(source) => {
                json!({ "rustc": source.rustc, "version": source.version, "linker": source.linker })
            }
        }
    }

    /// None when it is not what [`to_json`](Self::to_json) wrote, or no longer what the machine has.
    fn from_json(value: &Value) -> Option<Self> {
        if let Some(library) = value["library"].as_str() {
            return Path::new(library).exists().then(|| Self::WithTarget {
                library: library.into(),
            });
        }
        let remembered = LibrarySource {
            rustc: value["rustc"].as_str()?.into(),
            version: value["version"].as_str()?.into(),
            linker: value["linker"].as_str()?.into(),
        };
        let unchanged =
            LibrarySource::of(&remembered.rustc, Some(&remembered.linker)).ok()? == remembered;
        // The target has come since: it is the shorter way.
        let target_came = target_library(TARGET).is_some_and(|library| library.exists());
        (unchanged && !target_came).then_some(Self::FromSource(remembered))
    }
}

/// Facts that the choice of a rung depends on. Every rung that fails changes a fact, so the ladder ends.
#[derive(Clone, Debug, PartialEq)]
struct Facts {
    target: Target,
    rustup: Means,
    /// In the order in which they are to be tried; one that has failed is taken out.
    sources: Vec<LibrarySource>,
    debian: Means,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The compiler says where its library lies, and it is there.
    Present,
    Absent,
    /// There, but it does not build a plugin.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// Not on this machine, or not for this user.
    Missing,
    Untried,
    Tried,
}

#[derive(Debug, PartialEq)]
enum Rung<'a> {
    UseTarget,
    AddTarget,
    BuildLibrary(&'a LibrarySource),
    InstallPackages,
    GiveUp,
}

fn next_rung(facts: &Facts) -> Rung<'_> {
    if facts.target == Target::Present {
        return Rung::UseTarget;
    }
    if facts.rustup == Means::Untried {
        return Rung::AddTarget;
    }
    if let Some(source) = facts.sources.first() {
        return Rung::BuildLibrary(source);
    }
    if facts.debian == Means::Untried {
        return Rung::InstallPackages;
    }
    Rung::GiveUp
}

fn climb(workspace: &Workspace) -> Result<GuestToolchain> {
    let mut facts = Facts {
        target: target_now(TARGET),
        rustup: if command::is_on_path("rustup") {
            Means::Untried
        } else {
            Means::Missing
        },
        sources: library_source::all(),
        debian: if debian::can_install() {
            Means::Untried
        } else {
            Means::Missing
        },
    };
    if facts.target == Target::Absent {
        say!("guests: rustc has no standard library for {TARGET}");
    }
    loop {
        match next_rung(&facts) {
            Rung::UseTarget => {
                let library =
                    target_library(TARGET).context("rustc does not say where its libraries lie")?;
                let candidate = GuestToolchain::WithTarget { library };
                if builds_a_plugin(&candidate, workspace)? {
                    say!("guests: rustc has the target {TARGET}");
                    return Ok(candidate);
                }
                facts.target = Target::Broken;
            }
            Rung::AddTarget => {
                say!(
                    "guests: rustup target add {TARGET} (waits at most {} s)",
                    RUSTUP_TIMEOUT.as_secs()
                );
                facts.rustup = Means::Tried;
                if add_target(TARGET)? {
                    facts.target = target_now(TARGET);
                } else {
                    say!("guests: rustup could not add it: offline, or its server is out of reach");
                }
            }
            Rung::BuildLibrary(source) => {
                say!(
                    "guests: building the standard library for {TARGET} from the source of rustc {} at {} (under a minute, once)",
                    source.version,
                    source.rustc.display(),
                );
                let candidate = GuestToolchain::FromSource(source.clone());
                if builds_a_plugin(&candidate, workspace)? {
                    return Ok(candidate);
                }
                facts.sources.remove(0);
            }
            Rung::InstallPackages => {
                facts.debian = Means::Tried;
                if library_source::install_debian_packages()? {
                    facts.sources = library_source::all();
                } else {
                    say!("guests: the packages could not be installed");
                }
            }
            Rung::GiveUp => bail!(
                "no standard library for {TARGET}, which plugins are compiled to. One of these brings it:\n  \
                 rustup target add {TARGET}\n  \
                 rustup component add rust-src\n  \
                 apt-get install {} (Debian 12 or newer, as root)",
                library_source::DEBIAN_PACKAGES.join(" "),
            ),
        }
    }
}

/// Builds an empty plugin. An error only where the attempt could not be made at all.
fn builds_a_plugin(candidate: &GuestToolchain, workspace: &Workspace) -> Result<bool> {
    let dir = workspace.guests.join("probe");
    fs::create_dir_all(dir.join("src"))
        .with_context(|| format!("cannot create {}", dir.display()))?;
    command::write_if_changed(&dir.join("Cargo.toml"), PROBE_MANIFEST.as_bytes())?;
    command::write_if_changed(&dir.join("src/lib.rs"), PROBE_SOURCE.as_bytes())?;
    command::succeeds(&mut candidate.cargo(workspace, &dir, TARGET))
}

fn add_target(target: &str) -> Result<bool> {
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", target]);
    command::succeeds_within(command::quiet(&mut rustup), RUSTUP_TIMEOUT)
}

fn target_now(target: &str) -> Target {
    match target_library(target) {
        Some(library) if library.exists() => Target::Present,
        Some(_) | None => Target::Absent,
    }
}

fn target_library(target: &str) -> Option<PathBuf> {
    let mut rustc = Command::new(command::rustc());
    rustc.args(["--print", "target-libdir", "--target", target]);
    command::text(&mut rustc).ok().map(PathBuf::from)
}

/// The rung that worked last, for the compiler that it worked with.
struct Memory {
    file: PathBuf,
    rustc_version: String,
}

impl Memory {
    fn recall(&self) -> Option<GuestToolchain> {
        let text = fs::read(&self.file).ok()?;
        let value: Value = serde_json::from_slice(&text).ok()?;
        if value["rustc -vV"] != self.rustc_version {
            return None;
        }
        GuestToolchain::from_json(&value["toolchain"])
    }

    fn keep(&self, toolchain: &GuestToolchain) -> Result<()> {
        let value = json!({ "rustc -vV": self.rustc_version, "toolchain": toolchain.to_json() });
        command::write_if_changed(&self.file, format!("{value:#}\n").as_bytes())?;
        Ok(())
    }
}

/// A server that does not answer is not waited for any longer; a download that comes takes seconds.
const RUSTUP_TIMEOUT: Duration = Duration::from_secs(60);

const PROBE_MANIFEST: &str = r#"# Written by `cargo xtask`: does this machine build plugins?
[package]
name = "probe"
version = "0.0.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[workspace]
"#;

const PROBE_SOURCE: &str = "#[unsafe(no_mangle)]
pub extern \"C\" fn probe() -> usize {
    std::string::String::from(\"probe\").len()
}
";

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Facts {
        Facts {
            target: Target::Absent,
            rustup: Means::Missing,
            sources: Vec::new(),
            debian: Means::Missing,
        }
    }

    fn source() -> LibrarySource {
        LibrarySource {
            rustc: "/usr/bin/rustc".into(),
            version: "1.96.0".into(),
            linker: "/usr/bin/wasm-ld".into(),
        }
    }

    #[test]
    fn a_target_that_is_there_is_used_and_nothing_is_installed() {
        let facts = Facts {
            target: Target::Present,
            rustup: Means::Untried,
            sources: vec![source()],
            debian: Means::Untried,
        };
        assert_eq!(next_rung(&facts), Rung::UseTarget);
    }

    #[test]
    fn rustup_comes_before_source_and_packages() {
        let facts = Facts {
            rustup: Means::Untried,
            sources: vec![source()],
            debian: Means::Untried,
            ..nothing()
        };
        assert_eq!(next_rung(&facts), Rung::AddTarget);
    }

    #[test]
    fn source_that_is_there_comes_before_packages() {
        let facts = Facts {
            rustup: Means::Tried,
            sources: vec![source()],
            debian: Means::Untried,
            ..nothing()
        };
        assert_eq!(next_rung(&facts), Rung::BuildLibrary(&source()));
    }

    #[test]
    fn packages_are_the_last_resort() {
        let facts = Facts {
            target: Target::Broken,
            rustup: Means::Tried,
            debian: Means::Untried,
            ..nothing()
        };
        assert_eq!(next_rung(&facts), Rung::InstallPackages);
    }

    #[test]
    fn the_ladder_ends_when_all_has_been_tried() {
        assert_eq!(next_rung(&nothing()), Rung::GiveUp);
        let tried = Facts {
            target: Target::Broken,
            rustup: Means::Tried,
            debian: Means::Tried,
            ..nothing()
        };
        assert_eq!(next_rung(&tried), Rung::GiveUp);
    }
}
