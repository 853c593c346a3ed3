//! The response: one that the plugin makes, or the one on its way to the client.

use bytes::Bytes;
use castling_abi::rules::{self, check};
use castling_abi::{IMPORT_MODULE, Status, imports};
use http::StatusCode;
use wasmtime::{Caller, Linker, Result};

use super::{DONE, header, refuse};
use crate::exchange::{Answer, Section};
use crate::wasm::guest::{Guest, bytes, hand_out, split};
use crate::wasm::limit::Reached;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::ANSWER, answer)?
        .func_wrap(IMPORT_MODULE, imports::STATUS_GET, status_get)?
        .func_wrap(IMPORT_MODULE, imports::STATUS_SET, status_set)?
        .func_wrap(IMPORT_MODULE, imports::CHUNK_GET, chunk_get)?
        .func_wrap(IMPORT_MODULE, imports::CHUNK_SET, chunk_set)?
        .func_wrap(IMPORT_MODULE, imports::CHUNK_END, chunk_end)?
        .func_wrap(IMPORT_MODULE, imports::BODY_SKIP, body_skip)?;
    Ok(())
}

fn answer(
    mut caller: Caller<'_, Guest>,
    status: u32,
    headers_ptr: u32,
    headers_len: u32,
    ptr: u32,
    len: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let list = bytes(memory, headers_ptr, headers_len)?;
    let body = bytes(memory, ptr, len)?;
    if !guest.may(&rules::ANSWER) {
        return refuse(rules::ANSWER.refused);
    }
    let Some(status) = final_status(status) else {
        return refuse(Status::BadArgument);
    };
    let headers = match header::decode(guest, list, Section::ReplyHead) {
        Ok(headers) => headers,
        Err(status) => return refuse(status),
    };
    if body.len() > guest.body_limit_bytes {
        return refuse(guest.limit(Reached::bytes("body", guest.body_limit_bytes)));
    }
    guest.exchange.set_answer(Answer {
        status,
        headers,
        body: Bytes::copy_from_slice(body),
    });
    Ok(DONE)
}

fn status_get(mut caller: Caller<'_, Guest>) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    match guest.may(&rules::STATUS_GET) {
        true => Ok(i32::from(guest.exchange.reply().status.as_u16())),
        false => refuse(rules::STATUS_GET.refused),
    }
}

fn status_set(mut caller: Caller<'_, Guest>, status: u32) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    if !guest.may(&rules::STATUS_SET) {
        return refuse(rules::STATUS_SET.refused);
    }
    let Some(status) = final_status(status) else {
        return refuse(Status::BadArgument);
    };
    guest.exchange.reply_mut().status = status;
    Ok(DONE)
}

/// 200 to 599: an interim response would leave the client waiting for another.
pub(super) fn final_status(status: u32) -> Option<StatusCode> {
    let status = check::is_final_status(status).then_some(status)?;
    StatusCode::from_u16(u16::try_from(status).ok()?).ok()
}

fn chunk_get(mut caller: Caller<'_, Guest>, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    if !guest.may(&rules::CHUNK_GET) {
        return refuse(rules::CHUNK_GET.refused);
    }
    hand_out(memory, out, capacity, &guest.exchange.body().chunk)
}

fn chunk_set(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    if !guest.may(&rules::CHUNK_SET) {
        return refuse(rules::CHUNK_SET.refused);
    }
    let chunk = bytes(memory, ptr, len)?;
    if chunk.len() > guest.body_limit_bytes {
        return refuse(guest.limit(Reached::bytes("body", guest.body_limit_bytes)));
    }
    guest.exchange.body_mut().chunk = Bytes::copy_from_slice(chunk);
    Ok(DONE)
}

fn body_skip(mut caller: Caller<'_, Guest>) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    if !guest.may(&rules::BODY_SKIP) {
        return refuse(rules::BODY_SKIP.refused);
    }
    let key = guest.key;
    if !guest.exchange.body().skips.contains(&key) {
        guest.exchange.body_mut().skips.push(key);
    }
    Ok(DONE)
}

fn chunk_end(mut caller: Caller<'_, Guest>) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    if !guest.may(&rules::CHUNK_END) {
        return refuse(rules::CHUNK_END.refused);
    }
    guest.exchange.body_mut().ends = true;
    Ok(DONE)
}
