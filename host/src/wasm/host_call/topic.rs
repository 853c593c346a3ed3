//! Messages: topics.

use castling_abi::{IMPORT_MODULE, Status, imports, rules};
use wasmtime::{Caller, Linker, Result};

use super::counter::granted_zone;
use super::kv::status;
use super::{DONE, refuse};
use crate::wasm::guest::{Guest, bytes, hand_out, split};
use crate::zone::{TopicZone, Zone};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::TOPIC_PUBLISH, topic_publish)?
        .func_wrap(IMPORT_MODULE, imports::TOPIC_NAME, topic_name)?
        .func_wrap(IMPORT_MODULE, imports::MESSAGE_GET, message_get)?;
    Ok(())
}

const _: () = assert!(
    castling_abi::MAX_MESSAGE_BYTES == TopicZone::MESSAGE_LIMIT_BYTES,
    "what the contract says and what the zone takes"
);

fn topic_publish(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    ptr: u32,
    len: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let message = bytes(memory, ptr, len)?;
    let published = match granted_zone(guest, bytes(memory, zone_ptr, zone_len)?) {
        Err(status) => return refuse(status),
        Ok(granted) => match &*granted.zone {
            Zone::Topic(topic) => topic.publish(message),
            Zone::Counter(_) | Zone::Kv(_) | Zone::Gauge(_) | Zone::Cache(_) => {
                return refuse(Status::WrongKind);
            }
        },
    };
    match published {
        Ok(()) => Ok(DONE),
        Err(error) => refuse(status(guest, &error)),
    }
}

fn topic_name(mut caller: Caller<'_, Guest>, index: u32, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    if !guest.may(&rules::TOPIC_NAME) {
        return refuse(rules::TOPIC_NAME.refused);
    }
    match guest.zones.get(index as usize) {
        Some(granted) => hand_out(memory, out, capacity, granted.name.as_bytes()),
        None => refuse(Status::NotFound),
    }
}

fn message_get(mut caller: Caller<'_, Guest>, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    match guest.may(&rules::MESSAGE_GET) {
        true => hand_out(memory, out, capacity, &guest.exchange.body().chunk),
        false => refuse(rules::MESSAGE_GET.refused),
    }
}
