//! Functions that a guest may call, one file a capability. The contract of each call is in `castling_abi`.
//!
//! Copy, check, then act: a pointer outside of the guest's memory traps the guest; any other argument that is not valid
//! is a status, because clients can make a guest pass such things on.

mod balance;
mod counter;
mod crypto;
mod emit;
mod exchange;
mod file;
mod flight;
mod gauge;
mod grant;
mod header;
mod kv;
mod metric;
mod peek;
mod reply;
mod respond;
mod state;
mod streamed;
mod system;
mod tcp;
mod topic;
mod upstream;
mod var;
mod wait;
pub(super) mod wasi;

pub use system::PLUGIN_FIELDS;

use castling_abi::rules::{self, Place, Rule};
use castling_abi::{Status, imports};
use wasmtime::{Linker, Result};

use super::guest::Guest;

/// Adds every host function to the linker, for a plugin that meets variables which a plugin computes or for one that does not.
pub(super) fn add_to(linker: &mut Linker<Guest>, meets_computed: bool) -> Result<()> {
    system::add_to(linker)?;
    exchange::add_to(linker)?;
    header::add_to(linker)?;
    var::add_to(linker, meets_computed)?;
    state::add_to(linker)?;
    reply::add_to(linker)?;
    respond::add_to(linker)?;
    streamed::add_to(linker)?;
    upstream::add_to(linker)?;
    emit::add_to(linker)?;
    peek::add_to(linker)?;
    wait::add_to(linker)?;
    counter::add_to(linker)?;
    gauge::add_to(linker)?;
    flight::add_to(linker)?;
    topic::add_to(linker)?;
    grant::add_to(linker)?;
    file::add_to(linker)?;
    crypto::add_to(linker)?;
    tcp::add_to(linker)?;
    balance::add_to(linker)?;
    kv::add_to(linker)?;
    metric::add_to(linker)?;
    wasi::add_to(linker)
}

/// Whether the host function of this name, as [`add_to`] links it, suspends the guest while the flow does something for it.
pub(super) fn waits(name: &str, meets_computed: bool) -> bool {
    match name {
        imports::VAR_COMPUTE => meets_computed,
        _ => rules::find(name).is_some_and(|rule| rule.waits),
    }
}

/// The type of a host function, as it is written in a refusal: `(i32, i32) -> i64`.
pub(super) fn signature(module: &str, name: &str) -> Option<&'static str> {
    match module {
        castling_abi::IMPORT_MODULE => rules::find(name).map(|rule| rule.signature),
        wasi::MODULE => {
            let mut signatures = wasi::SIGNATURES.iter();
            let (_, signature) = signatures.find(|(offered, _)| *offered == name)?;
            Some(signature)
        }
        _ => None,
    }
}

const DONE: i32 = 0;

/// Status of a call that was refused.
const fn refuse(status: Status) -> Result<i32> {
    Ok(status as i32)
}

impl Guest {
    /// Whether the hook may make this call now.
    #[inline]
    fn may(&self, rule: &Rule) -> bool {
        rule.allows(self.hook, self.exchange.stage())
    }

    /// Whether the hook is at this place now.
    #[inline]
    fn is_at(&self, place: Place) -> bool {
        place.allows(self.hook, self.exchange.stage())
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{
        CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection,
        ImportSection, Instruction, TypeSection, ValType,
    };
    use wasmtime::Module;

    use super::*;
    use crate::wasm::engine;
    use crate::wasm::instance::new_store;
    use crate::wasm::instance_template::InstanceTemplate;

    /// The reason for `waits`: wasmtime refuses a plain call into a module that uses what may be suspended.
    #[tokio::test]
    async fn those_that_wait_and_no_others_need_a_fiber() {
        let engine = engine::Engine::for_worker(512 * 1024, 8).unwrap();
        let template = InstanceTemplate::of_test();
        for meets_computed in [false, true] {
            let mut linker = Linker::new(&engine.wasmtime);
            add_to(&mut linker, meets_computed).unwrap();
            for Rule {
                name, signature, ..
            } in rules::ALL
            {
                let module = Module::new(&engine.wasmtime, importing(name, signature)).unwrap();
                let mut store = new_store(&engine, &template);
                let instance = linker.instantiate_async(&mut store, &module).await.unwrap();
                let nothing = instance.get_typed_func::<(), ()>(&mut store, "nothing");
                let called = nothing.unwrap().call(&mut store, ());
                let waits = waits(name, meets_computed);
                assert_eq!(called.is_err(), waits, "{name}: {called:?}");
            }
        }
    }

    /// The table's lines are read from the comments of sdk/abi, which say what the gateway does.
    #[test]
    fn signatures_are_those_of_the_abis_table() {
        let table = include_str!("../../../../sdk/abi/abi.txt");
        let imports = table
            .lines()
            .filter_map(|line| line.strip_prefix("import castling."));
        let mut told: Vec<&str> = imports.collect();
        let listed = rules::ALL.iter();
        let listed = listed.map(|rule| format!("{} {}", rule.name, rule.signature));
        let mut listed: Vec<String> = listed.collect();
        told.sort_unstable();
        listed.sort();
        assert_eq!(told, listed);
    }

    /// A module that imports a host function and exports `nothing`, which does nothing.
    fn importing(name: &str, signature: &str) -> Vec<u8> {
        let types = |list: &str| -> Vec<ValType> {
            let names = list.split([',', ' ', '(', ')']).filter(|ty| !ty.is_empty());
            let ty = |name| match name {
                "i32" => ValType::I32,
                "i64" => ValType::I64,
                "f64" => ValType::F64,
                other => panic!("no type: {other}"),
            };
            names.map(ty).collect()
        };
        let (params, results) = signature.split_once("->").unwrap_or((signature, ""));
        let mut module = wasm_encoder::Module::new();
        let mut section = TypeSection::new();
        section.ty().function(types(params), types(results));
        section.ty().function([], []);
        module.section(&section);
        let mut imports = ImportSection::new();
        imports.import(castling_abi::IMPORT_MODULE, name, EntityType::Function(0));
        module.section(&imports);
        module.section(FunctionSection::new().function(1));
        module.section(ExportSection::new().export("nothing", ExportKind::Func, 1));
        let mut nothing = Function::new([]);
        nothing.instruction(&Instruction::End);
        module.section(CodeSection::new().function(&nothing));
        module.finish()
    }

    #[test]
    fn signatures_are_those_of_the_linked_functions() {
        let engine = engine::Engine::for_worker(512 * 1024, 8).unwrap();
        let mut linker = Linker::new(&engine.wasmtime);
        add_to(&mut linker, true).unwrap();
        let template = InstanceTemplate::of_test();
        let mut store = new_store(&engine, &template);
        let functions: Vec<_> = linker
            .iter(&mut store)
            .map(|(module, name, item)| {
                (
                    module.to_owned(),
                    name.to_owned(),
                    item.into_func().unwrap(),
                )
            })
            .collect();
        let mut linked: Vec<String> = functions
            .into_iter()
            .map(|(module, name, func)| {
                let ty = func.ty(&store);
                let list = |types: &mut dyn Iterator<Item = wasmtime::ValType>| {
                    types
                        .map(|ty| ty.to_string())
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                let params = list(&mut ty.params());
                match list(&mut ty.results()).as_str() {
                    "" => format!("{module}.{name} ({params})"),
                    results => format!("{module}.{name} ({params}) -> {results}"),
                }
            })
            .collect();
        let own = rules::ALL.iter().map(|rule| {
            let module = castling_abi::IMPORT_MODULE;
            format!("{module}.{} {}", rule.name, rule.signature)
        });
        let of_wasi = wasi::SIGNATURES.iter();
        let of_wasi =
            of_wasi.map(|(name, signature)| format!("{}.{name} {signature}", wasi::MODULE));
        let mut listed: Vec<String> = own.chain(of_wasi).collect();
        linked.sort();
        listed.sort();
        assert_eq!(linked, listed);
    }
}
