//! The upstream that a plugin chooses for the request.

use std::sync::Arc;

use castling_abi::{IMPORT_MODULE, Status, imports, rules};
use wasmtime::{Caller, Linker, Result};

use super::{DONE, refuse};
use crate::wasm::guest::{Guest, bytes, split};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker.func_wrap(IMPORT_MODULE, imports::UPSTREAM_SET, upstream_set)?;
    Ok(())
}

fn upstream_set(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let name = bytes(memory, ptr, len)?;
    if !guest.may(&rules::UPSTREAM_SET) {
        return refuse(rules::UPSTREAM_SET.refused);
    }
    if name.is_empty() {
        guest.exchange.context_mut().chosen_upstream = None;
        return Ok(DONE);
    }
    let granted = guest.upstreams.iter().find(|one| one.as_bytes() == name);
    let Some(granted) = granted.map(Arc::clone) else {
        return refuse(Status::NotGranted);
    };
    guest.exchange.context_mut().chosen_upstream = Some(granted);
    Ok(DONE)
}
