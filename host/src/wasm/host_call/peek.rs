//! The beginning of a request's body, which stays where it is.

use castling_abi::{HeaderMap, IMPORT_MODULE, Status, imports, rules};
use wasmtime::{Caller, Linker, Result};

use super::wait::wait;
use crate::wasm::guest::{Guest, split};
use crate::wasm::io_request::{IoRequest, IoResult};
use crate::wasm::limit::Reached;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker.func_wrap_async(IMPORT_MODULE, imports::BODY_PEEK, |caller, (bytes,)| {
        Box::new(peek(caller, bytes))
    })?;
    Ok(())
}

async fn peek(mut caller: Caller<'_, Guest>, bytes: u32) -> Result<i64> {
    let (_, guest) = split(&mut caller)?;
    if !guest.may(&rules::BODY_PEEK) {
        return Ok(i64::from(rules::BODY_PEEK.refused as i32));
    }
    let bytes = bytes as usize;
    if bytes > guest.body_limit_bytes {
        let limit = Reached::bytes("body", guest.body_limit_bytes);
        return Ok(i64::from(guest.limit(limit) as i32));
    }
    match wait(&mut caller, IoRequest::Peek { bytes }).await {
        Some(IoResult::Peeked { bytes, is_whole }) => {
            // No longer than `limits.body`.
            let length = i64::try_from(bytes.len()).unwrap_or_default();
            caller.data_mut().results_mut().bodies[HeaderMap::Request as usize] = Some(bytes);
            Ok(2 * length + i64::from(is_whole))
        }
        _ => Ok(i64::from(Status::NotNow as i32)),
    }
}
