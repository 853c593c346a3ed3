//! Variables that plugins set for later hooks and for the access log.

use castling_abi::rules::limits::COMPUTED_VARIABLES;
use castling_abi::rules::{self, check::is_variable_name as is_name};
use castling_abi::variable::OwnVariable;
use castling_abi::{IMPORT_MODULE, Status, imports};
use wasmtime::{Caller, Linker, Result};

use super::wait::wait;
use super::{DONE, refuse};
use crate::exchange::{Section, Size, Variable};
use crate::wasm::guest::{Guest, bytes, hand_out, split};
use crate::wasm::io_request::{IoRequest, IoResult};

pub(super) fn add_to(linker: &mut Linker<Guest>, meets_computed: bool) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::VAR_GET, var_get)?
        .func_wrap(IMPORT_MODULE, imports::VAR_SET, var_set)?
        .func_wrap(IMPORT_MODULE, imports::VARIABLE_DECLARE, variable_declare)?;
    match meets_computed {
        true => {
            linker.func_wrap_async(IMPORT_MODULE, imports::VAR_COMPUTE, |caller, (ptr, len)| {
                Box::new(var_compute(caller, ptr, len))
            })?
        }
        false => linker.func_wrap(IMPORT_MODULE, imports::VAR_COMPUTE, var_is_there)?,
    };
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
    let name = bytes(memory, name_ptr, name_len)?;
    match guest.exchange.context().vars.get(name) {
        Some(value) => hand_out(memory, out, capacity, value),
        None if guest.exchange.context().uncomputed(name).is_some() => refuse(Status::Uncomputed),
        None => match own_var(guest, name) {
            Ok(value) => hand_out(memory, out, capacity, &value),
            Err(status) => refuse(status),
        },
    }
}

/// Value of a variable of the gateway's own, which no plugin has set.
fn own_var(guest: &Guest, name: &[u8]) -> std::result::Result<Vec<u8>, Status> {
    let own = std::str::from_utf8(name).ok().and_then(Variable::own);
    let Some(own) = own else {
        return Err(match is_name(name) {
            true => Status::NotFound,
            false => Status::BadArgument,
        });
    };
    let mut value = Vec::new();
    match guest.may(&rules::PROPERTY_GET) && own.write(&mut value, &guest.exchange) {
        true => Ok(value),
        false => Err(Status::NotFound),
    }
}

async fn var_compute(mut caller: Caller<'_, Guest>, name_ptr: u32, name_len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let name = bytes(memory, name_ptr, name_len)?;
    if let Some(idx) = guest.exchange.context().uncomputed(name) {
        match wait(&mut caller, IoRequest::Variable(idx)).await {
            Some(IoResult::Computed) => {}
            _ => return refuse(Status::NotNow),
        }
    }
    // Waiting, the guest's memory cannot have changed; the name is looked up anew, for the borrow's sake.
    var_is_there(caller, name_ptr, name_len)
}

/// `var_compute` where nothing can be computed, or has been.
fn var_is_there(mut caller: Caller<'_, Guest>, name_ptr: u32, name_len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let name = bytes(memory, name_ptr, name_len)?;
    match guest.exchange.context().vars.get(name) {
        Some(_) => Ok(DONE),
        None if !is_name(name) => refuse(Status::BadArgument),
        None if guest.exchange.context().uncomputed(name).is_some() => refuse(Status::NotNow),
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
    let name = bytes(memory, name_ptr, name_len)?;
    let vars = &guest.exchange.context().vars;
    let there = vars.find(name);
    let goes = there.map(|idx| vars.size(idx));
    // A name that is there, or was, is well formed.
    if there.is_none() && !vars.expects(name) && !is_name(name) {
        return refuse(Status::BadArgument);
    }
    if !guest.may(&rules::VAR_SET) {
        return refuse(rules::VAR_SET.refused);
    }
    let comes = Size::of(name, value);
    if let Err(status) = guest.add(Section::Variables, comes, goes.unwrap_or_default()) {
        return refuse(status);
    }
    match there {
        Some(idx) => guest.exchange.context_mut().vars.replace(idx, value),
        None => guest.exchange.context_mut().vars.add(name, value),
    }
    Ok(DONE)
}

fn variable_declare(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    if !guest.may(&rules::VARIABLE_DECLARE) {
        return refuse(rules::VARIABLE_DECLARE.refused);
    }
    // Names are those of the config, the same for all instances of a generation.
    guest.note_repeatable();
    let name = std::str::from_utf8(bytes(memory, ptr, len)?).unwrap_or_default();
    let in_manifest = &guest.computes;
    let is_there =
        in_manifest.iter().any(|it| it == name) || guest.declared.iter().any(|it| it == name);
    if is_there || !is_name(name.as_bytes()) || OwnVariable::of(name).is_some() {
        return refuse(Status::BadArgument);
    }
    let idx = in_manifest.len() + guest.declared.len();
    if idx >= COMPUTED_VARIABLES {
        return refuse(Status::Limit);
    }
    guest.declared.push(name.to_owned());
    Ok(i32::try_from(idx).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_lower_case() {
        for good in ["a", "user_2", "_"] {
            assert!(is_name(good.as_bytes()), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "A", "a-b", "a b", "\u{e4}", &*long] {
            assert!(!is_name(bad.as_bytes()), "{bad}");
        }
    }
}
