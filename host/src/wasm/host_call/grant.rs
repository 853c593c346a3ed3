//! Grants of the config to the plugin.

use castling_abi::{Grant, IMPORT_MODULE, Status, imports, rules};
use wasmtime::{Caller, Linker, Result};

use super::{DONE, counter, refuse};
use crate::wasm::guest::{Guest, bytes, split};
use crate::wasm::io_request::HostName;
use crate::zone::Zone;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::GRANT_CHECK, grant_check)?
        .func_wrap(IMPORT_MODULE, imports::CONFIG_GRANT, config_grant)?;
    Ok(())
}

fn grant_check(mut caller: Caller<'_, Guest>, grant: u32, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    check(memory, guest, grant, (ptr, len))
}

/// Says that a name of the config is granted, which it is before `configure` runs: [`crate::config::Plugin::grant_named`]. A name that comes from
/// elsewhere, with a request say, is none of the config's.
fn config_grant(mut caller: Caller<'_, Guest>, grant: u32, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    match guest.may(&rules::CONFIG_GRANT) {
        true => check(memory, guest, grant, (ptr, len)),
        false => refuse(rules::CONFIG_GRANT.refused),
    }
}

fn check(memory: &[u8], guest: &mut Guest, grant: u32, (ptr, len): (u32, u32)) -> Result<i32> {
    // Grants are the config's, the same for all instances of a generation.
    guest.note_repeatable();
    let name = bytes(memory, ptr, len)?;
    let Some(grant) = Grant::from_raw(grant) else {
        return refuse(Status::BadArgument);
    };
    let is_of_kind: fn(&Zone) -> bool = match grant {
        Grant::Upstream => {
            let host = str::from_utf8(name).ok().and_then(HostName::parse);
            let granted = match host {
                Some(host) => guest.may_call(&host),
                None => guest.upstreams.iter().any(|one| one.as_bytes() == name),
            };
            return match granted {
                true => Ok(DONE),
                false => refuse(Status::NotGranted),
            };
        }
        Grant::CounterZone => |zone| matches!(zone, Zone::Counter(_)),
        Grant::KvZone => |zone| matches!(zone, Zone::Kv(_)),
        Grant::Topic => |zone| matches!(zone, Zone::Topic(_)),
        Grant::GaugeZone => |zone| matches!(zone, Zone::Gauge(_)),
    };
    match counter::zone(guest, name) {
        Ok(zone) if is_of_kind(zone) => Ok(DONE),
        Ok(_) => refuse(Status::WrongKind),
        Err(status) => refuse(status),
    }
}
