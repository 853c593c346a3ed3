//! Where things lie in the repository.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};

/// The folders that the commands read and write. Paths are absolute.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Cargo's, `target` unless `CARGO_TARGET_DIR` says another.
    pub(crate) target: PathBuf,
    /// Where plugins are built: a compiler of their own may build them, so they share no folder with the host's.
    pub(crate) guests: PathBuf,
    /// The built plugins that only tests use.
    pub(crate) test_guests: PathBuf,
    /// Files that a user would install.
    pub(crate) dist: PathBuf,
}

impl Workspace {
    /// The one that this program was built from.
    pub(crate) fn of_this_program() -> Result<Self> {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = xtask
            .parent()
            .context("xtask lies in no workspace")?
            .to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => std::path::absolute(dir).context("CARGO_TARGET_DIR")?,
            None => root.join("target"),
        };
        Ok(Self {
            guests: target.join("guests"),
            test_guests: target.join("test-guests"),
            dist: root.join("dist"),
            target,
            root,
        })
    }

    /// The shipped plugins and the example: what belongs into `dist/plugins`.
    pub(crate) fn plugins(&self) -> Result<Vec<PathBuf>> {
        let mut dirs = crates_in(&self.root.join("plugins"))?;
        dirs.extend(crates_in(&self.root.join("examples"))?);
        Ok(dirs)
    }

    /// The plugins that only tests use.
    pub(crate) fn guests_of_tests(&self) -> Result<Vec<PathBuf>> {
        crates_in(&self.root.join("tests/guests"))
    }

    /// The plugins that the benchmark compares.
    pub(crate) fn plugins_of_benchmark(&self) -> Result<Vec<PathBuf>> {
        crates_in(&self.root.join("bench/peers/plugins"))
    }

    /// Whether the crate shares our `Cargo.lock`.
    pub(crate) fn has_member(&self, dir: &Path) -> bool {
        dir.starts_with(self.root.join("plugins")) || dir.starts_with(self.root.join("examples"))
    }

    /// The built binary.
    pub(crate) fn gateway(&self) -> PathBuf {
        self.dist.join("castling")
    }

    /// A path as a reader in the repository would write it.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// Profile `guest` as arguments of cargo's `--config`, so that a plugin crate outside the repository is built with
    /// the same.
    pub(crate) fn guest_profile(&self) -> Vec<String> {
        profile_settings(include_str!("../../Cargo.toml"), "guest")
    }
}

/// In the order of their names. None where the folder is not there.
fn crates_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    dirs.retain(|dir| dir.join("Cargo.toml").exists());
    dirs.sort_unstable_by(|a, b| {
        a.file_name()
            .map(OsStr::to_owned)
            .cmp(&b.file_name().map(OsStr::to_owned))
    });
    Ok(dirs)
}

/// The lines of `[profile.NAME]`, which our own manifest keeps one setting each.
fn profile_settings(manifest: &str, profile: &str) -> Vec<String> {
    let header = format!("[profile.{profile}]");
    let lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != header)
        .skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .map(|line| line.split('#').next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty())
        .map(|line| format!("profile.{profile}.{line}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_becomes_arguments() {
        let manifest = "[profile.guest]\ninherits = \"release\"\n# why\nlto = true # small\n\n[other]\nlto = false\n";
        let settings = profile_settings(manifest, "guest");
        assert_eq!(
            settings,
            [
                "profile.guest.inherits = \"release\"",
                "profile.guest.lto = true"
            ]
        );
        assert!(profile_settings(manifest, "absent").is_empty());
    }
}
