//! `cargo xtask abi`: the ABI as a table, which only grows, and the header for C that is made of it.

mod header;
mod source;

use std::fs;
use std::path::PathBuf;

#[cfg(test)]
use anyhow::Context;
use anyhow::{Result, bail};

use crate::command::{self, say};
use crate::workspace::Workspace;
use source::Abi;

/// Adds to the table what the ABI has come to have, and writes the header. Refused where a line would go or change.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let abi = Abi::read(workspace)?;
    let file = table_file(workspace);
    let known = fs::read_to_string(&file).unwrap_or_default();
    let broken = Difference::between(&known, &abi.lines()).gone;
    if !broken.is_empty() {
        bail!("{}", NOT_ADDITIVE.replace("LINES", &broken.join("\n  ")));
    }
    let table = format!("{TABLE_HEAD}\n{}\n", abi.lines().join("\n"));
    for (file, text) in [(file, table), (header_file(workspace), header::of(&abi))] {
        if command::write_if_changed(&file, text.as_bytes())? {
            say!("wrote {}", workspace.shown(&file));
        }
    }
    Ok(())
}

fn table_file(workspace: &Workspace) -> PathBuf {
    workspace.root.join("sdk/abi/abi.txt")
}

fn header_file(workspace: &Workspace) -> PathBuf {
    workspace.root.join("sdk/c/castling.h")
}

/// Lines by which the ABI differs from the table.
#[derive(Debug, Default, PartialEq)]
struct Difference {
    /// In the table, and no more in the ABI.
    gone: Vec<String>,
    /// In the ABI, and not in the table yet.
    new: Vec<String>,
}

impl Difference {
    fn between(table: &str, abi: &[String]) -> Self {
        let is_line = |line: &&str| !line.is_empty() && !line.starts_with('#');
        let table: Vec<&str> = table.lines().filter(is_line).collect();
        let gone = table
            .iter()
            .filter(|line| !abi.iter().any(|known| known == *line));
        let new = abi.iter().filter(|line| !table.contains(&line.as_str()));
        Self {
            gone: gone.map(|line| (*line).to_owned()).collect(),
            new: new.cloned().collect(),
        }
    }
}

const TABLE_HEAD: &str = "# The ABI between the gateway and its plugins: what a module that was built once may rely on for as long as its number is spoken.
#
# Lines are added by `cargo xtask abi`, and never changed or removed: a test holds this file against sdk/abi and the host's functions. A
# limit that grows is the one thing that is changed here by hand.
";

const NOT_ADDITIVE: &str = "not additive: modules that were built before rely on\n  LINES\n\
    Keep what they say, and add something new beside it. (A limit that grows is changed by hand in sdk/abi/abi.txt.)";

/// Checks that table and header are those of the ABI.
#[cfg(test)]
fn check(workspace: &Workspace) -> Result<()> {
    let abi = Abi::read(workspace)?;
    let file = table_file(workspace);
    let table = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    let Difference { gone, new } = Difference::between(&table, &abi.lines());
    if !gone.is_empty() {
        bail!("{}", NOT_ADDITIVE.replace("LINES", &gone.join("\n  ")));
    }
    if !new.is_empty() {
        let new = new.join("\n  ");
        bail!(
            "new in the ABI:\n  {new}\n`cargo xtask abi` adds these lines to sdk/abi/abi.txt and to sdk/c/castling.h"
        );
    }
    let header = fs::read_to_string(header_file(workspace)).context("no sdk/c/castling.h")?;
    if header != header::of(&abi) {
        bail!("sdk/c/castling.h is not what the ABI says; `cargo xtask abi` writes it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_header_are_those_of_the_abi() {
        let workspace = Workspace::of_this_program().unwrap();
        check(&workspace).unwrap_or_else(|error| panic!("{error:#}"));
    }

    #[test]
    fn what_is_gone_and_what_is_new_are_told_apart() {
        let abi = [
            "import a ()".to_owned(),
            "import b (i64)".to_owned(),
            "import c ()".to_owned(),
        ];
        let difference = Difference::between("# head\n\nimport a ()\nimport b (i32)\n", &abi);
        assert_eq!(difference.gone, ["import b (i32)"]);
        assert_eq!(difference.new, ["import b (i64)", "import c ()"]);
    }
}
