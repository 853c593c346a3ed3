//! Where the instances of a module keep their state, and whether the host can see all of it.

use wasm_encoder::{ExportKind, ExportSection, Module, RawSection};
use wasmparser::{ExternalKind, Operator, Parser, Payload, ValType, Validator, WasmFeatures};

/// Begins the names under which [`exposed`] exports globals.
pub(super) const GLOBAL_PREFIX: &str = "castling:global:";

/// Rewrites a module, with its mutable globals exported as [`GLOBAL_PREFIX`] and their index: compiled code lets nobody see a
/// global that is not. (So the offsets in backtraces are some bytes higher than in the file; functions are named.)
///
/// `None` where the host could still not see, or not set, all that distinguishes one instance from another: then no snapshot is made of
/// any, see [`super::snapshot`]. The features allowed here have state in linear memory, in globals, in tables, and in segments that
/// were dropped; the code of such a module is read to make sure that it changes neither tables nor segments. Imports are
/// functions, which has been checked.
pub(super) fn exposed(wasm: &[u8]) -> Option<Vec<u8>> {
    Validator::new_with_features(FEATURES)
        .validate_all(wasm)
        .ok()?;
    let mut globals: Vec<u32> = Vec::new();
    let mut module = Module::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.ok()?;
        match &payload {
            // A start function would run before `configure`, also where a snapshot takes the place of that.
            Payload::StartSection { .. } => return None,
            Payload::GlobalSection(section) => {
                for (global, idx) in section.clone().into_iter().zip(0..) {
                    let ty = global.ok()?.ty;
                    if ty.mutable {
                        globals.push(idx);
                    }
                    if ty.mutable && !is_number(ty.content_type) {
                        return None;
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader().ok()? {
                    if changes_tables_or_segments(&operator.ok()?) {
                        return None;
                    }
                }
            }
            _ => {}
        }
        if let Payload::ExportSection(section) = &payload {
            module.section(&with_globals(section, &globals)?);
        } else if let Some((id, range)) = payload.as_section() {
            let data = wasm.get(range)?;
            module.section(&RawSection { id, data });
        }
    }
    (globals.len() <= MOST_GLOBALS).then(|| module.finish())
}

/// Features that have no other state than is said above. Threads, garbage collection, exceptions, several memories and what comes after
/// them are not part of it.
const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXTENDED_CONST);

/// A module in Rust or C has one, its stack's pointer.
const MOST_GLOBALS: usize = 100;

fn is_number(ty: ValType) -> bool {
    match ty {
        ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64 | ValType::V128 => true,
        ValType::Ref(_) => false,
    }
}

fn changes_tables_or_segments(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
            | Operator::ElemDrop { .. }
            | Operator::DataDrop { .. }
    )
}

/// `None` where the module exports something under such a name itself.
fn with_globals(
    section: &wasmparser::ExportSectionReader<'_>,
    globals: &[u32],
) -> Option<ExportSection> {
    let mut exports = ExportSection::new();
    for export in section.clone() {
        let export = export.ok()?;
        if export.name.starts_with(GLOBAL_PREFIX) {
            return None;
        }
        let kind = match export.kind {
            ExternalKind::Func => ExportKind::Func,
            ExternalKind::Table => ExportKind::Table,
            ExternalKind::Memory => ExportKind::Memory,
            ExternalKind::Global => ExportKind::Global,
            ExternalKind::FuncExact | ExternalKind::Tag => return None,
        };
        exports.export(export.name, kind, export.index);
    }
    for idx in globals {
        exports.export(&format!("{GLOBAL_PREFIX}{idx}"), ExportKind::Global, *idx);
    }
    Some(exports)
}
