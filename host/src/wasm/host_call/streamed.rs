//! Calls out whose bodies stream.

use bytes::Bytes;
use castling_abi::{BODY_UNWANTED, IMPORT_MODULE, LENGTH_UNKNOWN, Status, call, imports, rules};
use wasmtime::{Caller, Linker, Result};

use super::header::hand_out_list;
use super::wait::{parse, wait};
use super::{DONE, refuse};
use crate::wasm::guest::{Guest, bytes, bytes_mut, hand_out, split};
use crate::wasm::io_request::{IoRequest, IoResult, StreamedDone, StreamedWork};
use crate::wasm::limit::Reached;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap_async(
            IMPORT_MODULE,
            imports::CALL_OPEN,
            |caller, (ptr, len, length)| Box::new(open(caller, (ptr, len), length)),
        )?
        .func_wrap_async(
            IMPORT_MODULE,
            imports::CALL_WRITE,
            |caller, (call, ptr, len)| Box::new(write(caller, call, (ptr, len))),
        )?
        .func_wrap_async(IMPORT_MODULE, imports::CALL_FINISH, |caller, (call,)| {
            Box::new(finish(caller, call))
        })?
        .func_wrap_async(
            IMPORT_MODULE,
            imports::CALL_READ,
            |caller, (call, out, capacity)| Box::new(read(caller, call, (out, capacity))),
        )?
        .func_wrap_async(IMPORT_MODULE, imports::CALL_CLOSE, |caller, (call,)| {
            Box::new(close(caller, call))
        })?
        .func_wrap(IMPORT_MODULE, imports::CALL_REPLY_HEADERS, reply_headers)?
        .func_wrap(IMPORT_MODULE, imports::CALL_FAILURE, failure)?
        .func_wrap(IMPORT_MODULE, imports::CALL_FAILURE_KIND, failure_kind)?;
    Ok(())
}

async fn open(mut caller: Caller<'_, Guest>, (ptr, len): (u32, u32), length: i64) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let record = bytes(memory, ptr, len)?;
    if !guest.may(&rules::CALL_OPEN) {
        return refuse(rules::CALL_OPEN.refused);
    }
    let mut records = call::records(record);
    let (Some(Ok(record)), None) = (records.next(), records.next()) else {
        return refuse(Status::BadArgument);
    };
    let length = match u64::try_from(length) {
        Ok(length) => Some(length),
        Err(_) if length == LENGTH_UNKNOWN => None,
        Err(_) => return refuse(Status::BadArgument),
    };
    // A body either is there whole or follows.
    if !record.body.is_empty() && length != Some(0) {
        return refuse(Status::BadArgument);
    }
    let call = match parse(guest, &record) {
        Ok(call) => Box::new(call),
        Err(status) => return refuse(status),
    };
    match work_out(&mut caller, StreamedWork::Open { call, length }).await {
        Ok(StreamedDone::Opened(number)) => Ok(i32::try_from(number).unwrap_or(i32::MAX)),
        Ok(_) => refuse(Status::NotNow),
        Err(status) => refuse(status),
    }
}

async fn write(mut caller: Caller<'_, Guest>, call: u32, (ptr, len): (u32, u32)) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let written = bytes(memory, ptr, len)?;
    if !guest.may(&rules::CALL_WRITE) {
        return refuse(rules::CALL_WRITE.refused);
    }
    if written.len() > guest.body_limit_bytes {
        let status = guest.limit(Reached::bytes("body", guest.body_limit_bytes));
        return refuse(status);
    }
    let is_empty = written.is_empty();
    let work = StreamedWork::Write {
        call: call as usize,
        bytes: Bytes::copy_from_slice(written),
    };
    match work_out(&mut caller, work).await {
        Ok(StreamedDone::Taken) => {
            // An empty piece sends nothing, so nothing counts anew.
            if !is_empty {
                caller.data_mut().begin_piece();
            }
            Ok(DONE)
        }
        Ok(StreamedDone::Unwanted) => Ok(BODY_UNWANTED),
        Ok(_) => refuse(Status::NotNow),
        Err(status) => refuse(status),
    }
}

async fn finish(mut caller: Caller<'_, Guest>, call: u32) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    if !guest.may(&rules::CALL_FINISH) {
        return refuse(rules::CALL_FINISH.refused);
    }
    let work = StreamedWork::Finish {
        call: call as usize,
    };
    match work_out(&mut caller, work).await {
        Ok(StreamedDone::Head(head)) => {
            let status = i32::from(head.status.as_u16());
            let results = caller.data_mut().results_mut();
            results.streamed_head = Some((call, head.headers));
            Ok(status)
        }
        Ok(_) => refuse(Status::NotNow),
        Err(status) => refuse(status),
    }
}

async fn read(
    mut caller: Caller<'_, Guest>,
    call: u32,
    (out, capacity): (u32, u32),
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    // Outside of its memory it traps before it waits.
    bytes_mut(memory, out, capacity)?;
    if !guest.may(&rules::CALL_READ) {
        return refuse(rules::CALL_READ.refused);
    }
    if capacity == 0 {
        return refuse(Status::BadArgument);
    }
    let work = StreamedWork::Read {
        call: call as usize,
        most: (capacity as usize).min(rules::limits::TCP_READ_BYTES),
    };
    match work_out(&mut caller, work).await {
        Ok(StreamedDone::Read(read)) => {
            if !read.is_empty() {
                caller.data_mut().begin_piece();
            }
            // The guest's memory has not changed since it was looked at.
            let Some(memory) = caller.data().memory else {
                return refuse(Status::NotNow);
            };
            hand_out(memory.data_mut(&mut caller), out, capacity, &read)
        }
        Ok(_) => refuse(Status::NotNow),
        Err(status) => refuse(status),
    }
}

async fn close(mut caller: Caller<'_, Guest>, call: u32) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    if !guest.may(&rules::CALL_CLOSE) {
        return refuse(rules::CALL_CLOSE.refused);
    }
    let work = StreamedWork::Close {
        call: call as usize,
    };
    match work_out(&mut caller, work).await {
        Ok(StreamedDone::Taken) => Ok(DONE),
        Ok(_) => refuse(Status::NotNow),
        Err(status) => refuse(status),
    }
}

fn reply_headers(mut caller: Caller<'_, Guest>, call: u32, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let held = guest.results.as_ref();
    match held.and_then(|held| held.streamed_head.as_ref()) {
        Some((of, headers)) if *of == call => hand_out_list(memory, out, capacity, headers.iter()),
        Some(_) | None => refuse(Status::NotFound),
    }
}

fn failure(mut caller: Caller<'_, Guest>, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let held = guest.results.as_ref();
    match held.and_then(|held| held.streamed_failure.as_ref()) {
        Some(failure) => hand_out(memory, out, capacity, failure.said.as_bytes()),
        None => refuse(Status::NotFound),
    }
}

fn failure_kind(mut caller: Caller<'_, Guest>) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    let held = guest.results.as_ref();
    match held.and_then(|held| held.streamed_failure.as_ref()) {
        Some(failure) => Ok(failure.kind as i32),
        None => refuse(Status::NotFound),
    }
}

/// Has it done while the guest is suspended. What has failed is kept for `call_failure`.
async fn work_out(
    caller: &mut Caller<'_, Guest>,
    work: StreamedWork,
) -> Result<StreamedDone, Status> {
    let key = caller.data().key;
    let result = wait(caller, IoRequest::Streamed(key, Box::new(work))).await;
    let guest = caller.data_mut();
    match result {
        Some(IoResult::Streamed(StreamedDone::Failed(failure))) => {
            guest.results_mut().streamed_failure = Some(failure);
            Err(Status::NotFound)
        }
        Some(IoResult::Streamed(StreamedDone::NoSuch | StreamedDone::OutOfOrder)) => {
            Err(Status::BadArgument)
        }
        Some(IoResult::Streamed(StreamedDone::TooMany)) => Err(Status::Full),
        Some(IoResult::Streamed(done)) => Ok(done),
        Some(IoResult::TooManyCalls) => {
            let limit = Reached::count("calls", guest.calls_limit);
            Err(guest.limit(limit))
        }
        _ => Err(Status::NotNow),
    }
}
