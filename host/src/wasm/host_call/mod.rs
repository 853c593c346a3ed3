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

use castling_abi::{Hook, Status};
use wasmtime::{Linker, Result};

use super::guest::Guest;
use crate::exchange::Stage;

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
    use castling_abi::imports::*;
    match name {
        VAR_COMPUTE => meets_computed,
        _ => [
            BODY_PEEK,
            BODY_READ,
            CALLS_SEND,
            CHUNK_EMIT,
            DELAY,
            KV_FLIGHT,
            RESPONSE_BEGIN,
            RESPONSE_WRITE,
            PASSWORD_HASH,
            PASSWORD_VERIFY,
            TCP_CONNECT,
            TCP_READ,
            TCP_WRITE,
            TCP_CLOSE,
            CALL_OPEN,
            CALL_WRITE,
            CALL_FINISH,
            CALL_READ,
            CALL_CLOSE,
        ]
        .contains(&name),
    }
}

/// The type of a host function, as it is written in a refusal: `(i32, i32) -> i64`.
pub(super) fn signature(module: &str, name: &str) -> Option<&'static str> {
    let signatures = match module {
        castling_abi::IMPORT_MODULE => SIGNATURES,
        wasi::MODULE => wasi::SIGNATURES,
        _ => return None,
    };
    let mut signatures = signatures.iter();
    let (_, signature) = signatures.find(|(offered, _)| *offered == name)?;
    Some(signature)
}

pub const SIGNATURES: &[(&str, &str)] = {
    use castling_abi::imports::*;
    &[
        (LOG, "(i32, i32, i32)"),
        (LOG_FIELDS, "(i32, i32, i32, i32, i32)"),
        (FAIL, "(i32, i32)"),
        (FAIL_WITH, "(i32, i32, i32)"),
        (PANICKED, "(i32, i32)"),
        (CONFIG_GET, "(i32, i32) -> i32"),
        (RANDOM_GET, "(i32, i32)"),
        (CLOCK_MONOTONIC, "() -> i64"),
        (CLOCK_WALL, "() -> i64"),
        (PROPERTY_GET, "(i32, i32, i32) -> i32"),
        (PROPERTY_SET, "(i32, i32, i32) -> i32"),
        (NUMBER_GET, "(i32) -> i64"),
        (TLS_GET, "(i32, i32, i32) -> i32"),
        (HEADER_GET, "(i32, i32, i32, i32, i32) -> i32"),
        (HEADERS_GET, "(i32, i32, i32, i32, i32) -> i32"),
        (HEADER_SET, "(i32, i32, i32, i32, i32) -> i32"),
        (HEADER_ADD, "(i32, i32, i32, i32, i32) -> i32"),
        (HEADER_REMOVE, "(i32, i32, i32) -> i32"),
        (STATUS_GET, "() -> i32"),
        (STATUS_SET, "(i32) -> i32"),
        (VAR_GET, "(i32, i32, i32, i32) -> i32"),
        (VAR_SET, "(i32, i32, i32, i32) -> i32"),
        (ANSWER, "(i32, i32, i32, i32, i32) -> i32"),
        (CHUNK_GET, "(i32, i32) -> i32"),
        (CHUNK_SET, "(i32, i32) -> i32"),
        (BODY_READ, "(i32, i32) -> i32"),
        (BODY_GET, "(i32, i32, i32) -> i32"),
        (CALLS_SEND, "(i32, i32) -> i32"),
        (CALL_STATUS, "(i32) -> i32"),
        (CALL_ERROR, "(i32, i32, i32) -> i32"),
        (CALL_ERROR_KIND, "(i32) -> i32"),
        (CALL_HEADERS, "(i32, i32, i32) -> i32"),
        (CALL_BODY, "(i32, i32, i32) -> i32"),
        (DELAY, "(i32) -> i32"),
        (COUNTER_ADD, "(i32, i32, i32, i32, i64, i64) -> i64"),
        (COUNTER_GET, "(i32, i32, i32, i32) -> i64"),
        (RATE_TAKE, "(i32, i32, i32, i32, i64, i64) -> i64"),
        (GRANT_CHECK, "(i32, i32, i32) -> i32"),
        (PEERS_GET, "(i32, i32) -> i32"),
        (PEERS_DRAW, "(i32, i32) -> i32"),
        (PEER_ADDRESS, "(i32, i32, i32) -> i32"),
        (PEER_NAME, "(i32, i32, i32) -> i32"),
        (PEER_TAGS, "(i32, i32, i32) -> i32"),
        (KV_GET, "(i32, i32, i32, i32, i32, i32) -> i32"),
        (
            KV_PUT,
            "(i32, i32, i32, i32, i32, i32, i64, i32, i32, i32) -> i32",
        ),
        (KV_DELETE, "(i32, i32, i32, i32, i32, i32, i32) -> i32"),
        (
            KV_LIST,
            "(i32, i32, i32, i32, i32, i32, i32, i32, i32) -> i32",
        ),
        (METRIC_DEFINE, "(i32, i32) -> i32"),
        (METRIC_SERIES, "(i32, i32, i32) -> i32"),
        (METRIC_ADD, "(i32, f64) -> i32"),
        (METRIC_SET, "(i32, f64) -> i32"),
        (METRIC_OBSERVE, "(i32, f64) -> i32"),
        (VAR_COMPUTE, "(i32, i32) -> i32"),
        (CHUNK_END, "() -> i32"),
        (CONFIG_GRANT, "(i32, i32, i32) -> i32"),
        (UPSTREAM_SET, "(i32, i32) -> i32"),
        (CHUNK_EMIT, "(i32, i32) -> i32"),
        (BODY_PEEK, "(i32) -> i64"),
        (BODY_SKIP, "() -> i32"),
        (RESPONSE_BEGIN, "(i32, i32, i32, i64) -> i32"),
        (RESPONSE_WRITE, "(i32, i32) -> i32"),
        (RESPONSE_TRAILERS, "(i32, i32) -> i32"),
        (
            KV_GET_WITH_TTL,
            "(i32, i32, i32, i32, i32, i32, i32) -> i32",
        ),
        (KV_INCREMENT, "(i32, i32, i32, i32, i64, i64, i32) -> i32"),
        (KV_GET_ALL, "(i32, i32, i32, i32, i32, i32) -> i32"),
        (KV_PUT_ALL, "(i32, i32, i32, i32, i64) -> i32"),
        (KV_DELETE_ALL, "(i32, i32, i32, i32) -> i32"),
        (STATE_GET, "(i32, i32) -> i32"),
        (STATE_SET, "(i32, i32) -> i32"),
        (GAUGE_ENTER, "(i32, i32, i32, i32, i32) -> i32"),
        (GAUGE_LEAVE, "(i32, i32, i32, i32) -> i32"),
        (GAUGE_COUNT, "(i32, i32, i32, i32) -> i64"),
        (KV_FLIGHT, "(i32, i32, i32, i32, i32) -> i32"),
        (KV_FLIGHT_END, "(i32, i32, i32, i32) -> i32"),
        (FILE_OPEN, "(i32, i32) -> i32"),
        (FILE_FACT, "(i32, i32) -> i64"),
        (FILE_READ, "(i32, i64, i32, i32) -> i32"),
        (DIGEST, "(i32, i32, i32, i32, i32) -> i32"),
        (HMAC, "(i32, i32, i32, i32, i32, i32, i32) -> i32"),
        (SEAL, "(i32, i32, i32, i32, i32, i32, i32, i32) -> i32"),
        (UNSEAL, "(i32, i32, i32, i32, i32, i32, i32, i32) -> i32"),
        (
            SIGNATURE_VERIFY,
            "(i32, i32, i32, i32, i32, i32, i32) -> i32",
        ),
        (PASSWORD_HASH, "(i32, i32, i32, i32, i32) -> i32"),
        (PASSWORD_VERIFY, "(i32, i32, i32, i32) -> i32"),
        (TCP_CONNECT, "(i32, i32, i32) -> i32"),
        (TCP_READ, "(i32, i32, i32, i32) -> i32"),
        (TCP_WRITE, "(i32, i32, i32, i32) -> i32"),
        (TCP_CLOSE, "(i32) -> i32"),
        (TCP_ERROR, "(i32, i32) -> i32"),
        (CALL_OPEN, "(i32, i32, i64) -> i32"),
        (CALL_WRITE, "(i32, i32, i32) -> i32"),
        (CALL_FINISH, "(i32) -> i32"),
        (CALL_REPLY_HEADERS, "(i32, i32, i32) -> i32"),
        (CALL_READ, "(i32, i32, i32) -> i32"),
        (CALL_CLOSE, "(i32) -> i32"),
        (CALL_FAILURE, "(i32, i32) -> i32"),
        (CALL_FAILURE_KIND, "() -> i32"),
        (TOPIC_PUBLISH, "(i32, i32, i32, i32) -> i32"),
        (TOPIC_NAME, "(i32, i32, i32) -> i32"),
        (MESSAGE_GET, "(i32, i32) -> i32"),
    ]
};

const DONE: i32 = 0;

/// Status of a call that was refused.
const fn refuse(status: Status) -> Result<i32> {
    Ok(status as i32)
}

impl Guest {
    /// The exchange has a request that may be looked at.
    fn has_request(&self) -> bool {
        self.exchange.stage() != Stage::Idle
    }

    /// The exchange has a response's head that may be looked at.
    fn has_reply(&self) -> bool {
        self.exchange.stage() >= Stage::Reply
    }

    /// Whether the hook was called for a piece of a body.
    fn has_chunk(&self) -> bool {
        matches!(self.hook, Some(Hook::RequestBody | Hook::ResponseBody))
    }

    /// Whether the hook may begin a response and write its body piece by piece: none has begun.
    fn may_begin_response(&self) -> bool {
        self.hook == Some(Hook::Content) && self.exchange.stage() == Stage::Request
    }

    /// Whether the hook has begun a response and goes on with it.
    fn writes_response(&self) -> bool {
        self.hook == Some(Hook::Content) && self.exchange.stage() == Stage::Body
    }

    /// Whether the hook may pass a response to `answer`.
    fn may_answer(&self) -> bool {
        match self.hook {
            // No response has begun.
            Some(Hook::RequestBody) => self.exchange.stage() <= Stage::Balance,
            Some(Hook::Variable | Hook::Timer | Hook::Message | Hook::AfterResponse) | None => {
                false
            }
            Some(_) => matches!(self.exchange.stage(), Stage::Request | Stage::Reply),
        }
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
    use crate::wasm::instance::{InstanceTemplate, new_store};

    /// The reason for `waits`: wasmtime refuses a plain call into a module that uses what may be suspended.
    #[tokio::test]
    async fn those_that_wait_and_no_others_need_a_fiber() {
        let engine = engine::Engine::for_worker(512 * 1024, 8).unwrap();
        let template = InstanceTemplate::of_test();
        for meets_computed in [false, true] {
            let mut linker = Linker::new(&engine.wasmtime);
            add_to(&mut linker, meets_computed).unwrap();
            for (name, signature) in SIGNATURES {
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
        let listed = SIGNATURES.iter();
        let mut listed: Vec<String> = listed.map(|(name, ty)| format!("{name} {ty}")).collect();
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
        let offered = |module: &'static str, signatures: &'static [(&str, &str)]| {
            let signatures = signatures.iter();
            signatures.map(move |(name, signature)| format!("{module}.{name} {signature}"))
        };
        let mut listed: Vec<String> = offered(castling_abi::IMPORT_MODULE, SIGNATURES)
            .chain(offered(wasi::MODULE, wasi::SIGNATURES))
            .collect();
        linked.sort();
        listed.sort();
        assert_eq!(linked, listed);
    }
}
