//! Toolchains that come with the source of the standard library, and Debian's packages of one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{self, say};
use crate::debian;

/// A compiler, the source of exactly its standard library, and a linker for wasm32.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LibrarySource {
    pub(crate) rustc: PathBuf,
    /// Version that `rustc -vV` says under `release`.
    pub(crate) version: String,
    pub(crate) linker: PathBuf,
}

impl LibrarySource {
    /// Finds the source that `rustc` has. An error says what it lacks. `linker` is taken where the caller knows one.
    pub(crate) fn of(rustc: &Path, linker: Option<&Path>) -> Result<Self> {
        let version = release(rustc)?;
        if !at_least(&version, env!("CARGO_PKG_RUST_VERSION")) {
            bail!(
                "rustc {version} is older than {}",
                env!("CARGO_PKG_RUST_VERSION")
            );
        }
        let sysroot = sysroot(rustc)?;
        let source = sysroot.join("lib/rustlib/src/rust");
        if !source.join("library/Cargo.lock").exists() {
            bail!("no library source in {}", source.display());
        }
        if let Some(said) = source_version(&source)
            && said != version
        {
            bail!("the library source is {said}, the compiler {version}");
        }
        let linker = match linker {
            Some(linker) => linker.to_owned(),
            None => find_linker(&[sysroot, self::sysroot(&command::rustc())?])
                .context("no linker for wasm32")?,
        };
        Ok(Self {
            rustc: rustc.to_owned(),
            version,
            linker,
        })
    }
}

/// Compilers of this machine: the active toolchain's first, then the system's.
pub(crate) fn all() -> Vec<LibrarySource> {
    let mut found: Vec<LibrarySource> = Vec::new();
    for rustc in [command::rustc(), PathBuf::from(SYSTEM_RUSTC)] {
        match LibrarySource::of(&rustc, None) {
            Ok(source) if found.iter().all(|known| known.rustc != source.rustc) => {
                found.push(source)
            }
            Ok(_) | Err(_) => {} // an absent toolchain is no event; the next one may do
        }
    }
    found
}

/// Packages that [`install_debian_packages`] installs and the last error of the ladder names.
pub(crate) const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"];

/// Brings a compiler with matching library source, and a linker where there is none. False when apt refuses.
pub(crate) fn install_debian_packages() -> Result<bool> {
    let mut packages = DEBIAN_PACKAGES.to_vec();
    if find_linker(&[sysroot(&command::rustc())?]).is_none() {
        packages.push("lld");
    }
    say!("guests: about 120 MB are to be installed");
    debian::install(&packages)
}

/// A `rust-lld` of one of these toolchains, else one on the path.
fn find_linker(sysroots: &[PathBuf]) -> Option<PathBuf> {
    let of_toolchains = sysroots.iter().filter_map(|sysroot| {
        let hosts = fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
        hosts
            .flatten()
            .map(|host| host.path().join("bin/rust-lld"))
            .find(|lld| lld.exists())
    });
    let on_path = ["rust-lld", "wasm-ld", "lld"]
        .into_iter()
        .filter_map(command::path_of);
    of_toolchains.chain(on_path).next()
}

fn release(rustc: &Path) -> Result<String> {
    let text = command::text(Command::new(rustc).arg("-vV"))?;
    let release = text.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(release
        .with_context(|| format!("{} -vV names no release", rustc.display()))?
        .to_owned())
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    command::text(Command::new(rustc).args(["--print", "sysroot"])).map(PathBuf::from)
}

/// Version that the source says of itself: its `version` file, or the folder that a distribution keeps it in. None for
/// rustup's component, which is always of its toolchain's version.
fn source_version(source: &Path) -> Option<String> {
    if let Ok(text) = fs::read_to_string(source.join("src/version")) {
        return Some(text.trim().to_owned());
    }
    let real = fs::canonicalize(source).ok()?;
    real.file_name()?
        .to_str()?
        .strip_prefix("rustc-")
        .map(str::to_owned)
}

/// By the first two numbers: patch releases and suffixes do not matter here. False where there are none.
fn at_least(version: &str, wanted: &str) -> bool {
    fn numbers(text: &str) -> Option<(u32, u32)> {
        let mut parts = text.split(['.', '-']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
    matches!((numbers(version), numbers(wanted)), (Some(version), Some(wanted)) if version >= wanted)
}

const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(at_least("1.96.0", "1.95"));
        assert!(at_least("1.95.0-nightly", "1.95"));
        assert!(at_least("1.100.0", "1.95"));
        assert!(!at_least("1.85.0", "1.95"));
        assert!(!at_least("unknown", "1.95"));
    }
}
