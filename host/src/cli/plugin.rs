//! `castling plugin inspect`

use std::fmt::Write;
use std::path::Path;

use wasmparser::{Parser, Payload};

use crate::process;
use crate::wasm::Manifest;
use crate::wasm::compile::inspect as read_manifest;
use crate::wasm::module_text;

use super::Outcome;

pub(super) fn inspect(file: &Path) -> Outcome {
    let about = |error: String| vec![format!("{}: {error}", file.display())];
    let wasm = process::read_module(file).map_err(about)?;
    let manifest = read_manifest(&wasm).map_err(|error| about(error.to_string()))?;
    let outline =
        Outline::read(&wasm).map_err(|error| about(module_text::text(&error.to_string())))?;
    print!("{}", text(&manifest, &outline, wasm.len()));
    Ok(())
}

/// Imports and exports of a module, by name.
#[derive(Default)]
struct Outline {
    imports: Vec<String>,
    exports: Vec<String>,
}

impl Outline {
    fn read(wasm: &[u8]) -> wasmparser::Result<Self> {
        let mut outline = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let import = import?;
                        outline
                            .imports
                            .push(format!("{}.{}", import.module, import.name));
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export?;
                        outline.exports.push(export.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(outline)
    }
}

fn text(manifest: &Manifest, outline: &Outline, wasm_bytes: usize) -> String {
    let state = match manifest.state {
        true => "kept for each request",
        false => "none",
    };
    let mut text = String::new();
    for (name, value) in [
        ("name", manifest.name.clone()),
        ("version", manifest.version.clone()),
        ("abi", manifest.abi.to_string()),
        ("sdk", manifest.sdk.clone()),
        ("hooks", manifest.hooks.join(" ")),
        ("state", state.to_owned()),
        ("size", format!("{wasm_bytes} bytes")),
        ("imports", module_text::list(&outline.imports)),
        ("exports", module_text::list(&outline.exports)),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<9}{value}");
    }
    text
}
