//! A response that the guest writes piece by piece.

use std::sync::Arc;

use bytes::Bytes;
use castling_abi::rules::check::may_be_trailer;
use castling_abi::{BODY_UNWANTED, IMPORT_MODULE, LENGTH_UNKNOWN, Status, imports, rules};
use wasmtime::{Caller, Linker, Result};

use super::reply::final_status;
use super::wait::wait;
use super::{DONE, header, refuse};
use crate::exchange::Section;
use crate::message::ReplyHead;
use crate::wasm::guest::{Guest, bytes, split};
use crate::wasm::io_request::{IoRequest, IoResult, StreamHead};
use crate::wasm::limit::Reached;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap_async(
            IMPORT_MODULE,
            imports::RESPONSE_BEGIN,
            |caller, (status, ptr, len, length)| Box::new(begin(caller, status, ptr, len, length)),
        )?
        .func_wrap_async(
            IMPORT_MODULE,
            imports::RESPONSE_WRITE,
            |caller, (ptr, len)| Box::new(write(caller, ptr, len)),
        )?
        .func_wrap(IMPORT_MODULE, imports::RESPONSE_TRAILERS, trailers)?;
    Ok(())
}

async fn begin(
    mut caller: Caller<'_, Guest>,
    status: u32,
    ptr: u32,
    len: u32,
    length: i64,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let list = bytes(memory, ptr, len)?;
    if !guest.may(&rules::RESPONSE_BEGIN) {
        return refuse(rules::RESPONSE_BEGIN.refused);
    }
    let length = match length {
        LENGTH_UNKNOWN => None,
        told => match u64::try_from(told) {
            Ok(told) => Some(told),
            Err(_) => return refuse(Status::BadArgument),
        },
    };
    let Some(status) = final_status(status) else {
        return refuse(Status::BadArgument);
    };
    let headers = match header::decode(guest, list, Section::ReplyHead) {
        Ok(headers) => headers,
        Err(status) => return refuse(status),
    };
    let head = StreamHead {
        plugin: Arc::clone(&guest.plugin),
        head: ReplyHead { status, headers },
        length,
    };
    let begun = wait(&mut caller, IoRequest::Begin(Box::new(head))).await;
    sent(&mut caller, begun)
}

async fn write(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let piece = bytes(memory, ptr, len)?;
    if !guest.may(&rules::RESPONSE_WRITE) {
        return refuse(rules::RESPONSE_WRITE.refused);
    }
    if piece.len() > guest.body_limit_bytes {
        return refuse(guest.limit(Reached::bytes("body", guest.body_limit_bytes)));
    }
    let is_empty = piece.is_empty();
    let piece = Bytes::copy_from_slice(piece);
    match wait(&mut caller, IoRequest::Write(piece)).await {
        // An empty piece sends nothing, so nothing counts anew: or a guest could go on for ever without a client that takes anything.
        Some(IoResult::Written { is_wanted: true }) if is_empty => Ok(DONE),
        written => sent(&mut caller, written),
    }
}

fn sent(caller: &mut Caller<'_, Guest>, result: Option<IoResult>) -> Result<i32> {
    match result {
        Some(IoResult::Written { is_wanted: true }) => {
            caller.data_mut().begin_piece();
            Ok(DONE)
        }
        Some(IoResult::Written { is_wanted: false }) => Ok(BODY_UNWANTED),
        Some(IoResult::BeyondLength) => refuse(Status::BadArgument),
        _ => refuse(Status::NotNow),
    }
}

fn trailers(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let list = bytes(memory, ptr, len)?;
    if !guest.may(&rules::RESPONSE_TRAILERS) {
        return refuse(rules::RESPONSE_TRAILERS.refused);
    }
    match header::decode(guest, list, Section::ReplyHead) {
        Ok(fields) if !fields.iter().all(|(name, _)| may_be_trailer(name)) => {
            refuse(Status::BadArgument)
        }
        Ok(fields) => {
            guest.exchange.body_mut().trailers = fields;
            Ok(DONE)
        }
        Err(status) => refuse(status),
    }
}
