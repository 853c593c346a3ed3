//! Heads of calls out.

use castling_abi::ErrorKind;

use crate::message::{RequestHead, Target};
use crate::wasm::{Call, CallFailure};

/// The request that a call is.
pub fn head(call: &Call) -> Result<RequestHead, CallFailure> {
    // Checked when the call was made.
    let target = str::from_utf8(&call.target)
        .map_err(|_| CallFailure::new(ErrorKind::HostFailed, "its target is not text"))?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    Ok(RequestHead {
        method: call.method.clone(),
        target: Target::new(path, query),
        headers: call.headers.clone(),
        ..RequestHead::default()
    })
}
