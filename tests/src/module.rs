//! Modules that no compiler of ours would make, from their text form.

/// A module that is a plugin, with this manifest and these fields (functions, imports) beside what every plugin has.
pub fn plugin(manifest: &str, fields: &str) -> Vec<u8> {
    let manifest = manifest.replace('"', "\\\"");
    assemble(&format!(
        r#"(module
            {fields}
            (memory (export "memory") 1)
            (func (export "castling_configure") (result i32) i32.const 0)
            (@custom "castling.manifest" "{manifest}"))"#
    ))
}

/// A manifest with this ABI version and these hooks (as JSON).
pub fn manifest(abi: u32, hooks: &str) -> String {
    format!(
        r#"{{"abi":{abi},"name":"hand-made","version":"0.1.0","sdk":"0.1.0","hooks":{hooks},"state":false}}"#
    )
}

/// Any module.
pub fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
