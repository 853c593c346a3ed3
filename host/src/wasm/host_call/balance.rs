//! The peers of an upstream, for the plugin that chooses among them.

use castling_abi::{DRAWN_PEER_BYTES, IMPORT_MODULE, PEER_RECORD_BYTES, Status, imports, rules};
use wasmtime::{Caller, Linker, Result};

use super::refuse;
use crate::exchange::PeerFacts;
use crate::wasm::guest::{Guest, bytes_mut, hand_out, split};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::PEERS_GET, peers_get)?
        .func_wrap(IMPORT_MODULE, imports::PEERS_DRAW, peers_draw)?
        .func_wrap(IMPORT_MODULE, imports::PEER_ADDRESS, peer_address)?
        .func_wrap(IMPORT_MODULE, imports::PEER_NAME, peer_name)?
        .func_wrap(IMPORT_MODULE, imports::PEER_TAGS, peer_tags)?;
    Ok(())
}

fn peers_get(mut caller: Caller<'_, Guest>, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    if !guest.may(&rules::PEERS_GET) {
        return refuse(rules::PEERS_GET.refused);
    }
    let peers = &guest.exchange.context().balancing.peers;
    let Ok(len) = u32::try_from(peers.len() * PEER_RECORD_BYTES) else {
        return refuse(Status::Limit);
    };
    if len <= capacity {
        let room = bytes_mut(memory, out, len)?;
        for (record, slot) in peers.iter().zip(room.chunks_exact_mut(PEER_RECORD_BYTES)) {
            slot.copy_from_slice(&record.to_bytes());
        }
    }
    Ok(i32::try_from(len).unwrap_or(i32::MAX))
}

fn peers_draw(mut caller: Caller<'_, Guest>, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    if !guest.may(&rules::PEERS_DRAW) {
        return refuse(rules::PEERS_DRAW.refused);
    }
    let drawn = guest.exchange.context().balancing.drawn;
    let mut bytes = [0; 2 * DRAWN_PEER_BYTES];
    let (rooms, _) = bytes.as_chunks_mut();
    let mut len = 0;
    for (peer, room) in drawn.into_iter().flatten().zip(rooms) {
        *room = peer.to_bytes();
        len += DRAWN_PEER_BYTES;
    }
    hand_out(memory, out, capacity, &bytes[..len])
}

fn peer_address(
    mut caller: Caller<'_, Guest>,
    peer_idx: u32,
    out: u32,
    capacity: u32,
) -> Result<i32> {
    hand_out_fact(&mut caller, peer_idx, (out, capacity), |facts| {
        facts.address.as_bytes()
    })
}

fn peer_name(mut caller: Caller<'_, Guest>, peer_idx: u32, out: u32, capacity: u32) -> Result<i32> {
    hand_out_fact(&mut caller, peer_idx, (out, capacity), |facts| {
        facts.name.as_bytes()
    })
}

fn peer_tags(mut caller: Caller<'_, Guest>, peer_idx: u32, out: u32, capacity: u32) -> Result<i32> {
    hand_out_fact(&mut caller, peer_idx, (out, capacity), |facts| &facts.tags)
}

fn hand_out_fact(
    caller: &mut Caller<'_, Guest>,
    peer_idx: u32,
    (out, capacity): (u32, u32),
    fact: impl Fn(&PeerFacts) -> &[u8],
) -> Result<i32> {
    let (memory, guest) = split(caller)?;
    if !guest.may(&rules::PEER_ADDRESS) {
        return refuse(rules::PEER_ADDRESS.refused);
    }
    let facts = &guest.exchange.context().balancing.facts;
    match facts.get(peer_idx as usize) {
        Some(facts) => hand_out(memory, out, capacity, fact(facts)),
        None => refuse(Status::NotFound),
    }
}
