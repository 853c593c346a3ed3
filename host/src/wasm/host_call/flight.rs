//! Flights: one request fetches the value of a key, the others wait for it.

use std::sync::Arc;
use std::time::Duration;

use castling_abi::rules::{self, check};
use castling_abi::{
    FLIGHT_FETCH, FLIGHT_TIMED_OUT, FLIGHT_VALUE, IMPORT_MODULE, LONGEST_DELAY_MS, Status, imports,
};
use wasmtime::{Caller, Linker, Result};

use super::counter::granted_zone;
use super::kv::status;
use super::refuse;
use super::wait::wait;
use crate::wasm::guest::{Guest, bytes, split};
use crate::wasm::io_request::{FlightRequest, Flown, IoRequest, IoResult};
use crate::wasm::limit::Reached;
use crate::zone::{FlightKey, KvZone, Zone};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap_async(
            IMPORT_MODULE,
            imports::KV_FLIGHT,
            |caller, (zone_ptr, zone_len, key_ptr, key_len, wait_ms)| {
                Box::new(kv_flight(
                    caller, zone_ptr, zone_len, key_ptr, key_len, wait_ms,
                ))
            },
        )?
        .func_wrap(IMPORT_MODULE, imports::KV_FLIGHT_END, kv_flight_end)?;
    Ok(())
}

async fn kv_flight(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
    wait_ms: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let key = bytes(memory, key_ptr, key_len)?;
    let (name, zone) = match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok(found) => found,
        Err(status) => return refuse(status),
    };
    if !guest.may(&rules::KV_FLIGHT) {
        return refuse(rules::KV_FLIGHT.refused);
    }
    if wait_ms > LONGEST_DELAY_MS {
        return refuse(Status::BadArgument);
    }
    let permits = &guest.exchange.context().permits;
    if permits.has_flight(&FlightKey::new(&name, key)) {
        return Ok(FLIGHT_FETCH);
    }
    let most = guest.limits.permits;
    if permits.held_by(guest.key) >= most {
        return refuse(guest.limit(Reached::count("permits", most)));
    }
    let request = FlightRequest {
        plugin: guest.key,
        name,
        zone,
        key: key.to_vec(),
        longest: Duration::from_millis(wait_ms.into()),
    };
    match wait(&mut caller, IoRequest::Flight(Box::new(request))).await {
        Some(IoResult::Flown(Ok(flown))) => Ok(match flown {
            Flown::Value => FLIGHT_VALUE,
            Flown::Fetch => FLIGHT_FETCH,
            Flown::TimedOut => FLIGHT_TIMED_OUT,
        }),
        Some(IoResult::Flown(Err(error))) => refuse(status(caller.data(), &error)),
        _ => refuse(Status::NotNow),
    }
}

fn kv_flight_end(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let key = bytes(memory, key_ptr, key_len)?;
    let name = match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok((name, _)) => name,
        Err(status) => return refuse(status),
    };
    let (plugin, key) = (guest.key, FlightKey::new(&name, key));
    let permits = &mut guest.exchange.context_mut().permits;
    Ok(i32::from(permits.end_flight(plugin, &key)))
}

fn granted(guest: &Guest, name: &[u8], key: &[u8]) -> Result<(Arc<str>, Arc<KvZone>), Status> {
    if !check::is_kv_key(key) {
        return Err(Status::BadArgument);
    }
    let granted = granted_zone(guest, name)?;
    match &*granted.zone {
        Zone::Kv(zone) => Ok((Arc::clone(&granted.name), Arc::clone(zone))),
        Zone::Counter(_) | Zone::Gauge(_) | Zone::Topic(_) | Zone::Cache(_) => {
            Err(Status::WrongKind)
        }
    }
}
