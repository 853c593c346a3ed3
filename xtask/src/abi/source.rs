//! The ABI as sdk/abi says it: read from the text of its sources, so that nothing in them can be forgotten.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// All that a module and the gateway agree on by name, number or type.
#[derive(Debug, Default)]
pub(super) struct Abi {
    pub(super) functions: Vec<Function>,
    pub(super) ids: Vec<Ids>,
    /// Constants: name and value as they are written, with the module of those outside of the crate's root.
    pub(super) constants: Vec<(String, String)>,
    /// Exports of hooks.
    pub(super) hooks: Vec<String>,
}

/// A function of the host.
#[derive(Debug, PartialEq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) parameters: Vec<Parameter>,
    /// Wire type; none where it returns nothing.
    pub(super) result: Option<&'static str>,
    /// What it does, as its comment goes on after the parameters.
    pub(super) contract: String,
}

#[derive(Debug, PartialEq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) ty: &'static str,
}

/// An enum of numbers.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) name: String,
    pub(super) variants: Vec<(String, String)>,
}

impl Abi {
    pub(super) fn read(workspace: &Workspace) -> Result<Self> {
        let folder = workspace.root.join("sdk/abi/src");
        let mut files: Vec<_> = fs::read_dir(&folder)
            .with_context(|| format!("no {}", folder.display()))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
            .collect();
        files.sort();
        let mut abi = Self::default();
        for file in files {
            let text =
                fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
            let module = file
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            match module {
                "imports" => abi.functions = functions(&text)?,
                module => abi.add(module, &text),
            }
        }
        ensure!(
            !abi.functions.is_empty() && !abi.hooks.is_empty(),
            "sdk/abi cannot be read"
        );
        Ok(abi)
    }

    /// Reads enums and constants of a file.
    fn add(&mut self, module: &str, text: &str) {
        let mut ids: Option<Ids> = None;
        // What tests say is no part of it.
        for whole in text.lines().take_while(|line| *line != "#[cfg(test)]") {
            let line = whole.trim();
            if let Some(known) = &mut ids {
                match variant(line) {
                    Some(variant) => known.variants.push(variant),
                    // An enum without numbers is Rust's own affair.
                    None if line == "}" => {
                        self.ids
                            .extend(ids.take().filter(|ids| !ids.variants.is_empty()));
                    }
                    None => {}
                }
            } else if let Some(name) = ids_name(line) {
                ids = Some(Ids {
                    name,
                    variants: Vec::new(),
                });
            } else if let Some((name, value)) = constant(whole) {
                let path = match module {
                    "lib" => name,
                    module => format!("{module}::{name}"),
                };
                self.constants.push((path, value));
            } else if let Some(export) = line
                .split('"')
                .nth(1)
                .filter(|it| it.starts_with("castling_hook_"))
            {
                self.hooks.push(export.to_owned());
            }
        }
    }

    /// Lines of the table.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            "export memory".to_owned(),
            "export castling_configure () -> i32".to_owned(),
            "export castling_state_reset ()".to_owned(),
        ];
        lines.extend(
            self.hooks
                .iter()
                .map(|hook| format!("export {hook} (i32, i32, i32) -> i32")),
        );
        lines.extend(
            self.functions
                .iter()
                .map(|it| format!("import castling.{} {}", it.name, it.signature())),
        );
        for Ids { name, variants } in &self.ids {
            lines.extend(
                variants
                    .iter()
                    .map(|(variant, value)| format!("id {name}.{variant} = {value}")),
            );
        }
        lines.extend(
            self.constants
                .iter()
                .map(|(name, value)| format!("const {name} = {value}")),
        );
        lines
    }
}

impl Function {
    /// `(i32, i32) -> i64`, as the host writes it.
    pub(super) fn signature(&self) -> String {
        let parameters: Vec<&str> = self
            .parameters
            .iter()
            .map(|parameter| parameter.ty)
            .collect();
        let result = self.result.map_or(String::new(), |ty| format!(" -> {ty}"));
        format!("({}){result}", parameters.join(", "))
    }
}

/// Functions of `imports.rs`: each a comment that begins with name and parameters, and a constant with its name.
fn functions(text: &str) -> Result<Vec<Function>> {
    let mut functions = Vec::new();
    let mut comment = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("///") {
            comment.push_str(rest);
        } else if line.starts_with("pub const") {
            let name = line
                .split('"')
                .nth(1)
                .with_context(|| format!("no name: {line}"))?;
            let function = function(name, comment.trim());
            functions.push(function.with_context(|| {
                format!("the comment of {name} does not begin with its parameters")
            })?);
            comment.clear();
        }
    }
    Ok(functions)
}

/// Reads `name(a, b: i64) -> i64`, in backticks, and what follows. Types that are not written are `i32`.
fn function(name: &str, comment: &str) -> Option<Function> {
    let (shape, rest) = comment.strip_prefix('`')?.split_once('`')?;
    let (parameters, result) = shape
        .strip_prefix(name)?
        .strip_prefix('(')?
        .split_once(')')?;
    let result = match result.strip_prefix(" -> ") {
        Some(ty) => Some(wire(ty)?),
        None if comment.ends_with("Returns nothing.") => None,
        None => Some("i32"),
    };
    let parameters = parameters
        .split(", ")
        .filter(|it| !it.is_empty())
        .map(|parameter| {
            let (name, ty) = parameter.split_once(": ").unwrap_or((parameter, "i32"));
            Some(Parameter {
                name: name.to_owned(),
                ty: wire(ty)?,
            })
        });
    Some(Function {
        name: name.to_owned(),
        parameters: parameters.collect::<Option<_>>()?,
        result,
        contract: rest
            .trim_start_matches(':')
            .trim()
            .trim_end_matches(" Returns nothing.")
            .to_owned(),
    })
}

fn wire(ty: &str) -> Option<&'static str> {
    ["i32", "i64", "f64"].into_iter().find(|known| *known == ty)
}

/// `Hook: u32 {`, as `ids!` has it, or `pub enum ErrorKind {`.
fn ids_name(line: &str) -> Option<String> {
    let name = match line.strip_prefix("pub enum ") {
        Some(rest) => rest.strip_suffix(" {")?,
        None => {
            line.strip_suffix(" {")?
                .split_once(": ")
                .filter(|(_, ty)| matches!(*ty, "u32" | "i32"))?
                .0
        }
    };
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_name.then(|| name.to_owned())
}

/// `PostRead = 0, "post_read";` or `Own = 0,`: name and number.
fn variant(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.split_once(" = ")?;
    let value = rest.split(',').next()?;
    let is_number = value.parse::<i64>().is_ok();
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_name && is_number).then(|| (name.to_owned(), value.to_owned()))
}

/// `pub const NAME: TYPE = VALUE;`
fn constant(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.strip_prefix("pub const ")?.split_once(": ")?;
    let value = rest.split_once(" = ")?.1.strip_suffix(';')?;
    Some((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_read_from_its_comment() {
        let read = function(
            "counter_add",
            "`counter_add(zone_ptr, amount: i64) -> i64`: the count.",
        )
        .unwrap();
        assert_eq!(read.signature(), "(i32, i64) -> i64");
        assert_eq!(read.contract, "the count.");
        let nothing = function("fail", "`fail(ptr, len)`: the text. Returns nothing.").unwrap();
        assert_eq!(
            (nothing.signature().as_str(), nothing.contract.as_str()),
            ("(i32, i32)", "the text.")
        );
        assert_eq!(function("fail", "the text"), None);
        assert_eq!(function("a", "`a(x: u8)`: no wire type"), None);
    }

    #[test]
    fn enums_and_constants_are_read() {
        let text = "pub const BYTES: usize = 6 * 4;\nids! {\n    Hook: u32 {\n        /// First.\n        PostRead = 0, \"post_read\";\n    }\n}\n\
            pub enum ErrorKind {\n    Own = 0,\n}\n            Self::PostRead => \"castling_hook_post_read\",\n#[cfg(test)]\npub const NONE: u8 = 1;\n";
        let mut abi = Abi::default();
        abi.add("call", text);
        let lines = abi.lines();
        for line in [
            "id Hook.PostRead = 0",
            "id ErrorKind.Own = 0",
            "const call::BYTES = 6 * 4",
            "export castling_hook_post_read (i32, i32, i32) -> i32",
        ] {
            assert!(
                lines.iter().any(|known| known == line),
                "no {line} in {lines:?}"
            );
        }
        assert!(!lines.iter().any(|line| line.contains("NONE")), "{lines:?}");
    }
}
