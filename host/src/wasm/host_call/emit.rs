//! Parts of a body that a filter sends on before its hook returns.

use bytes::Bytes;
use castling_abi::{BODY_UNWANTED, IMPORT_MODULE, Status, imports, rules};
use wasmtime::{Caller, Linker, Result};

use super::wait::wait;
use super::{DONE, refuse};
use crate::wasm::guest::{Guest, bytes, split};
use crate::wasm::io_request::{IoRequest, IoResult};
use crate::wasm::limit::Reached;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker.func_wrap_async(IMPORT_MODULE, imports::CHUNK_EMIT, |caller, (ptr, len)| {
        Box::new(emit(caller, ptr, len))
    })?;
    Ok(())
}

async fn emit(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let part = bytes(memory, ptr, len)?;
    if !guest.may(&rules::CHUNK_EMIT) {
        return refuse(rules::CHUNK_EMIT.refused);
    }
    if part.len() > guest.body_limit_bytes {
        return refuse(guest.limit(Reached::bytes("body", guest.body_limit_bytes)));
    }
    let limit_bytes = guest.limits.emit_bytes;
    let emitted_bytes = guest.results_mut().emitted_bytes + part.len();
    if emitted_bytes > limit_bytes {
        return refuse(guest.limit(Reached::bytes("emit", limit_bytes)));
    }
    if part.is_empty() {
        return Ok(DONE);
    }
    guest.results_mut().emitted_bytes = emitted_bytes;
    let part = Bytes::copy_from_slice(part);
    match wait(&mut caller, IoRequest::Emit(part)).await {
        Some(IoResult::Written { is_wanted: true }) => {
            caller.data_mut().begin_piece();
            Ok(DONE)
        }
        Some(IoResult::Written { is_wanted: false }) => Ok(BODY_UNWANTED),
        _ => refuse(Status::NotNow),
    }
}
