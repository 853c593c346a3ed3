//! Permits: gauge zones.

use std::sync::Arc;

use castling_abi::rules::{self, check};
use castling_abi::{IMPORT_MODULE, Status, imports};
use wasmtime::{Caller, Linker, Result};

use super::counter::granted_zone;
use super::kv::status;
use super::{DONE, refuse};
use crate::metrics::PermitMetrics;
use crate::wasm::guest::{Guest, bytes, split};
use crate::wasm::limit::Reached;
use crate::zone::{Gauge, Zone, ZoneError};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::GAUGE_ENTER, gauge_enter)?
        .func_wrap(IMPORT_MODULE, imports::GAUGE_LEAVE, gauge_leave)?
        .func_wrap(IMPORT_MODULE, imports::GAUGE_COUNT, gauge_count)?;
    Ok(())
}

/// Result of an entry or of giving back that has come to something.
const ENTERED: i32 = 1;

fn gauge_enter(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
    max: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let key = bytes(memory, key_ptr, key_len)?;
    let (gauge, metrics) = match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok(found) => found,
        Err(status) => return refuse(status),
    };
    if !guest.may(&rules::GAUGE_ENTER) {
        return refuse(rules::GAUGE_ENTER.refused);
    }
    let (plugin, permits) = (guest.key, &guest.exchange.context().permits);
    if max == 0 {
        return refuse(Status::BadArgument);
    }
    let held = permits.held_by(plugin);
    // Nearly always it holds none yet.
    if held > 0 {
        let place = gauge.place_of(key);
        if permits.has(plugin, |permit| gauge.is_at(permit, place)) {
            return refuse(Status::BadArgument);
        }
    }
    let most = guest.limits.permits;
    if held >= most {
        return refuse(guest.limit(Reached::count("permits", most)));
    }
    match gauge.enter(key, max.into()) {
        Ok(Some(permit)) => {
            let permits = &mut guest.exchange.context_mut().permits;
            permits.hold(plugin, permit, metrics.out);
            Ok(ENTERED)
        }
        Ok(None) => {
            metrics.refused.inc();
            Ok(DONE)
        }
        Err(error) => {
            if let ZoneError::Full(_) = error {
                metrics.full.inc();
            }
            refuse(status(guest, &error))
        }
    }
}

fn gauge_leave(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let key = bytes(memory, key_ptr, key_len)?;
    let gauge = match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok((gauge, _)) => gauge,
        Err(status) => return refuse(status),
    };
    let plugin = guest.key;
    let permits = &mut guest.exchange.context_mut().permits;
    let place = gauge.place_of(key);
    let was_held = permits.give_back(plugin, |permit| gauge.is_at(permit, place));
    Ok(i32::from(was_held))
}

fn gauge_count(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
) -> Result<i64> {
    let (memory, guest) = split(&mut caller)?;
    let key = bytes(memory, key_ptr, key_len)?;
    match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok((gauge, _)) => Ok(i64::try_from(gauge.zone().count(key)).unwrap_or(i64::MAX)),
        Err(status) => Ok(i64::from(status as i32)),
    }
}

fn granted(guest: &Guest, name: &[u8], key: &[u8]) -> Result<(Arc<Gauge>, PermitMetrics), Status> {
    if !check::is_zone_key(key) {
        return Err(Status::BadArgument);
    }
    let granted = granted_zone(guest, name)?;
    match &*granted.zone {
        Zone::Gauge(gauge) => Ok((Arc::clone(gauge), granted.permits)),
        Zone::Counter(_) | Zone::Kv(_) | Zone::Topic(_) | Zone::Cache(_) => Err(Status::WrongKind),
    }
}
