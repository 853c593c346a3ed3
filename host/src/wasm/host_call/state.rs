//! State that a plugin keeps for a request, from one hook to the next.

use castling_abi::{IMPORT_MODULE, Status, imports, rules};
use wasmtime::{Caller, Linker, Result};

use super::{DONE, refuse};
use crate::wasm::guest::{Guest, bytes, hand_out, split};
use crate::wasm::limit::Reached;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::STATE_GET, state_get)?
        .func_wrap(IMPORT_MODULE, imports::STATE_SET, state_set)?;
    Ok(())
}

fn state_get(mut caller: Caller<'_, Guest>, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    match guest.exchange.context().states.of(guest.key) {
        Some(state) => hand_out(memory, out, capacity, state),
        None if guest.may(&rules::STATE_GET) => refuse(Status::NotFound),
        None => refuse(rules::STATE_GET.refused),
    }
}

fn state_set(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let state = bytes(memory, ptr, len)?;
    if !guest.may(&rules::STATE_SET) {
        return refuse(rules::STATE_SET.refused);
    }
    let most = guest.limits.state_bytes;
    if state.len() > most {
        let status = guest.limit(Reached::bytes("state", most));
        return refuse(status);
    }
    let key = guest.key;
    guest.exchange.context_mut().states.keep(key, state);
    Ok(DONE)
}
