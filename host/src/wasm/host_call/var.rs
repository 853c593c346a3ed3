//! Variables that plugins set for later hooks and for the access log.

use bytes::Bytes;
use castling_abi::{IMPORT_MODULE, Status, imports};
use wasmtime::{Caller, Linker, Result};

use super::wait::wait;
use super::{DONE, refuse};
use crate::exchange::{Extent, Part};
use crate::wasm::demand::{Demand, Supply};
use crate::wasm::guest::{Guest, bytes, hand_out, split};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::VAR_GET, var_get)?
        .func_wrap(IMPORT_MODULE, imports::VAR_SET, var_set)?
        .func_wrap_async(IMPORT_MODULE, imports::VAR_COMPUTE, |caller, (ptr, len)| {
            Box::new(var_compute(caller, ptr, len))
        })?;
    Ok(())
}

fn var_get(
    mut caller: Caller<'_, Guest>,
    name_ptr: u32,
    name_len: u32,
    out: u32,
    capacity: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let Some(name) = checked_name(bytes(memory, name_ptr, name_len)?) else {
        return refuse(Status::BadArgument);
    };
    match guest.exchange.vars.get(name) {
        Some(value) => hand_out(memory, out, capacity, value),
        None if guest.exchange.uncomputed(name).is_some() => refuse(Status::Uncomputed),
        None => refuse(Status::NotFound),
    }
}

async fn var_compute(mut caller: Caller<'_, Guest>, name_ptr: u32, name_len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let Some(name) = checked_name(bytes(memory, name_ptr, name_len)?) else {
        return refuse(Status::BadArgument);
    };
    if let Some(idx) = guest.exchange.uncomputed(name) {
        match wait(&mut caller, Demand::Variable(idx)).await {
            Some(Supply::Computed) => {}
            _ => return refuse(Status::NotNow),
        }
    }
    // Waiting, the guest's memory cannot have changed; the name is looked up anew, for the borrow's sake.
    let (memory, guest) = split(&mut caller)?;
    let name = checked_name(bytes(memory, name_ptr, name_len)?).unwrap_or_default();
    match guest.exchange.vars.get(name) {
        Some(_) => Ok(DONE),
        None => refuse(Status::NotFound),
    }
}

fn var_set(
    mut caller: Caller<'_, Guest>,
    name_ptr: u32,
    name_len: u32,
    ptr: u32,
    len: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let value = bytes(memory, ptr, len)?;
    let Some(name) = checked_name(bytes(memory, name_ptr, name_len)?) else {
        return refuse(Status::BadArgument);
    };
    if !guest.has_request() {
        return refuse(Status::NotNow);
    }
    let comes = Extent::of(name.as_bytes(), value);
    let goes = guest.exchange.vars.get(name);
    let goes = goes.map(|old| Extent::of(name.as_bytes(), old));
    if let Err(status) = guest.add(Part::Variables, comes, goes.unwrap_or_default()) {
        return refuse(status);
    }
    guest.exchange.vars.set(name, Bytes::copy_from_slice(value));
    Ok(DONE)
}

/// `[a-z0-9_]`, 1 to 64 bytes.
fn checked_name(name: &[u8]) -> Option<&str> {
    let valid = matches!(name.len(), 1..=64)
        && name
            .iter()
            .all(|&byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    valid.then(|| std::str::from_utf8(name).ok())?
}
