//! What a guest may call, one file a capability. The contract of each call is in `castling_abi`.
//!
//! Copy, check, then act: a pointer outside of the guest's memory traps the guest; any other argument that is not valid
//! is a status, because clients can make a guest pass such things on.

mod balance;
mod counter;
mod exchange;
mod header;
mod kv;
mod metric;
mod reply;
mod system;
mod var;
mod wait;

use castling_abi::{Hook, Status};
use wasmtime::{Linker, Result};

use super::guest::Guest;
use crate::exchange::Stage;

/// Adds every host function to the linker.
pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    system::add_to(linker)?;
    exchange::add_to(linker)?;
    header::add_to(linker)?;
    var::add_to(linker)?;
    reply::add_to(linker)?;
    wait::add_to(linker)?;
    counter::add_to(linker)?;
    balance::add_to(linker)?;
    kv::add_to(linker)?;
    metric::add_to(linker)
}

/// The type of a host function, as it is written in a refusal: `(i32, i32) -> i64`.
pub(super) fn signature(name: &str) -> Option<&'static str> {
    SIGNATURES
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, signature)| *signature)
}

pub const SIGNATURES: &[(&str, &str)] = {
    use castling_abi::imports::*;
    &[
        (LOG, "(i32, i32, i32)"),
        (FAIL, "(i32, i32)"),
        (PANICKED, "(i32, i32)"),
        (CONFIG_GET, "(i32, i32) -> i32"),
        (RANDOM_GET, "(i32, i32)"),
        (CLOCK_MONOTONIC, "() -> i64"),
        (CLOCK_WALL, "() -> i64"),
        (PROPERTY_GET, "(i32, i32, i32) -> i32"),
        (PROPERTY_SET, "(i32, i32, i32) -> i32"),
        (NUMBER_GET, "(i32) -> i64"),
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
        (CALL_HEADERS, "(i32, i32, i32) -> i32"),
        (CALL_BODY, "(i32, i32, i32) -> i32"),
        (DELAY, "(i32) -> i32"),
        (COUNTER_ADD, "(i32, i32, i32, i32, i64, i64) -> i64"),
        (COUNTER_GET, "(i32, i32, i32, i32) -> i64"),
        (RATE_TAKE, "(i32, i32, i32, i32, i64, i64) -> i64"),
        (PEERS_GET, "(i32, i32) -> i32"),
        (PEER_ADDRESS, "(i32, i32, i32) -> i32"),
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
    ]
};

const DONE: i32 = 0;

/// What a call returns that was refused.
const fn refuse(status: Status) -> Result<i32> {
    Ok(status as i32)
}

impl Guest {
    /// The exchange has a request that may be looked at.
    fn has_request(&self) -> bool {
        self.exchange.stage != Stage::Idle
    }

    /// The exchange has a response's head that may be looked at.
    fn has_reply(&self) -> bool {
        self.exchange.stage >= Stage::Reply
    }

    /// It was called for a piece of a body.
    fn has_chunk(&self) -> bool {
        matches!(self.hook, Some(Hook::RequestBody | Hook::ResponseBody))
    }

    /// It may pass a response to `answer`.
    fn may_answer(&self) -> bool {
        match self.hook {
            // No response has begun.
            Some(Hook::RequestBody) => self.exchange.stage <= Stage::Balance,
            Some(Hook::Variable | Hook::Timer) | None => false,
            Some(_) => matches!(self.exchange.stage, Stage::Request | Stage::Reply),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::engine;
    use crate::wasm::instance::{Blueprint, new_store};

    #[test]
    fn signatures_are_those_of_the_linked_functions() {
        let engine = engine::Engine::for_worker(512 * 1024).unwrap();
        let mut linker = Linker::new(&engine.wasmtime);
        add_to(&mut linker).unwrap();
        let blueprint = Blueprint::of_test();
        let mut store = new_store(&engine, &blueprint);
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
        let mut listed: Vec<String> = SIGNATURES
            .iter()
            .map(|(name, signature)| format!("{}.{name} {signature}", castling_abi::IMPORT_MODULE))
            .collect();
        linked.sort();
        listed.sort();
        assert_eq!(linked, listed);
    }
}
