//! Connections to peers of granted upstreams, on which the plugin speaks what it likes.

use std::time::Duration;

use bytes::Bytes;
use castling_abi::rules::{self, limits::TCP_READ_BYTES};
use castling_abi::{IMPORT_MODULE, LONGEST_DELAY_MS, Status, imports};
use wasmtime::{Caller, Linker, Result};

use super::wait::wait;
use super::{DONE, refuse};
use crate::wasm::guest::{Guest, bytes, bytes_mut, hand_out, split};
use crate::wasm::io_request::{IoRequest, IoResult, RawDone, RawWork};
use crate::wasm::limit::Reached;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap_async(
            IMPORT_MODULE,
            imports::TCP_CONNECT,
            |caller, (ptr, len, milliseconds)| Box::new(connect(caller, (ptr, len), milliseconds)),
        )?
        .func_wrap_async(
            IMPORT_MODULE,
            imports::TCP_READ,
            |caller, (connection, out, capacity, milliseconds)| {
                Box::new(read(caller, connection, (out, capacity), milliseconds))
            },
        )?
        .func_wrap_async(
            IMPORT_MODULE,
            imports::TCP_WRITE,
            |caller, (connection, ptr, len, milliseconds)| {
                Box::new(write(caller, connection, (ptr, len), milliseconds))
            },
        )?
        .func_wrap_async(
            IMPORT_MODULE,
            imports::TCP_CLOSE,
            |caller, (connection,)| Box::new(close(caller, connection)),
        )?
        .func_wrap(IMPORT_MODULE, imports::TCP_ERROR, error)?;
    Ok(())
}

async fn connect(
    mut caller: Caller<'_, Guest>,
    (ptr, len): (u32, u32),
    milliseconds: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let name = bytes(memory, ptr, len)?;
    if !guest.may(&rules::TCP_CONNECT) {
        return refuse(rules::TCP_CONNECT.refused);
    }
    let mut granted = guest.upstreams.iter();
    let Some(upstream) = granted.find(|granted| granted.as_bytes() == name) else {
        return refuse(Status::NotGranted);
    };
    let work = RawWork::Connect {
        upstream: upstream.to_string(),
        limit: limit(milliseconds),
        calls_limit: guest.calls_limit,
    };
    match work_out(&mut caller, work).await {
        Ok(RawDone::Connected(number)) => Ok(i32::try_from(number).unwrap_or(i32::MAX)),
        Ok(_) => refuse(Status::NotNow),
        Err(status) => refuse(status),
    }
}

async fn read(
    mut caller: Caller<'_, Guest>,
    connection: u32,
    (out, capacity): (u32, u32),
    milliseconds: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    // Outside of its memory it traps before it waits.
    bytes_mut(memory, out, capacity)?;
    if !guest.may(&rules::TCP_READ) {
        return refuse(rules::TCP_READ.refused);
    }
    let work = RawWork::Read {
        connection: connection as usize,
        most: (capacity as usize).min(TCP_READ_BYTES),
        limit: limit(milliseconds),
    };
    match work_out(&mut caller, work).await {
        Ok(RawDone::Read(read)) => {
            let (memory, _) = split(&mut caller)?;
            hand_out(memory, out, capacity, &read)
        }
        Ok(_) => refuse(Status::NotNow),
        Err(status) => refuse(status),
    }
}

async fn write(
    mut caller: Caller<'_, Guest>,
    connection: u32,
    (ptr, len): (u32, u32),
    milliseconds: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let written = bytes(memory, ptr, len)?;
    if !guest.may(&rules::TCP_WRITE) {
        return refuse(rules::TCP_WRITE.refused);
    }
    if written.len() > guest.body_limit_bytes {
        let status = guest.limit(Reached::bytes("body", guest.body_limit_bytes));
        return refuse(status);
    }
    let work = RawWork::Write {
        connection: connection as usize,
        bytes: Bytes::copy_from_slice(written),
        limit: limit(milliseconds),
    };
    done(work_out(&mut caller, work).await)
}

async fn close(mut caller: Caller<'_, Guest>, connection: u32) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    if !guest.may(&rules::TCP_CLOSE) {
        return refuse(rules::TCP_CLOSE.refused);
    }
    let connection = connection as usize;
    done(work_out(&mut caller, RawWork::Close { connection }).await)
}

fn done(done: Result<RawDone, Status>) -> Result<i32> {
    match done {
        Ok(RawDone::Written) => Ok(DONE),
        Ok(_) => refuse(Status::NotNow),
        Err(status) => refuse(status),
    }
}

fn error(mut caller: Caller<'_, Guest>, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let held = guest.results.as_ref();
    match held.and_then(|held| held.tcp_error.as_ref()) {
        Some(error) => hand_out(memory, out, capacity, error.as_bytes()),
        None => refuse(Status::NotFound),
    }
}

/// Has it done while the guest is suspended. What has failed is kept for `tcp_error`.
async fn work_out(caller: &mut Caller<'_, Guest>, work: RawWork) -> Result<RawDone, Status> {
    let key = caller.data().key;
    let result = wait(caller, IoRequest::Raw(key, Box::new(work))).await;
    let guest = caller.data_mut();
    match result {
        Some(IoResult::Raw(RawDone::Failed(error))) => {
            guest.results_mut().tcp_error = Some(error);
            Err(Status::NotFound)
        }
        Some(IoResult::Raw(RawDone::NoSuch)) => Err(Status::BadArgument),
        Some(IoResult::Raw(RawDone::TooMany)) => Err(Status::Full),
        Some(IoResult::Raw(done)) => Ok(done),
        Some(IoResult::TooManyCalls) => {
            let limit = Reached::count("calls", guest.calls_limit);
            Err(guest.limit(limit))
        }
        _ => Err(Status::NotNow),
    }
}

/// Time to wait; 0 and what is longer is the longest.
fn limit(milliseconds: u32) -> Duration {
    let asked = Duration::from_millis(milliseconds.into());
    match asked.is_zero() {
        true => LONGEST_WAIT,
        false => asked.min(LONGEST_WAIT),
    }
}

const LONGEST_WAIT: Duration = Duration::from_millis(LONGEST_DELAY_MS as u64);
