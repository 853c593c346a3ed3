//! State of a request that the host keeps from one hook to the next, whichever instance runs it.

use bytemuck::Pod;
use castling_abi::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::buffer::{self, ShortBytes};
use crate::error::{self, Error, Result};
use crate::host;

/// State up to this is encoded without memory of its own.
const SHORT_BYTES: usize = 256;

/// What the host has of a request's state.
enum Kept {
    /// Nothing yet.
    Nothing,
    Bytes(ShortBytes),
    /// Nothing ever: there is no request.
    Nowhere,
}

/// Lends the request's state to a hook, and has the host keep what that has made of it, also where the hook has failed.
pub(super) fn with<S, T>(hook: impl FnOnce(&mut S) -> Result<T>) -> Result<T>
where
    S: Default + Serialize + DeserializeOwned,
{
    let kept = match ShortBytes::read(host::state_get) {
        Ok(bytes) => Kept::Bytes(bytes),
        Err(Status::NotFound) => Kept::Nothing,
        Err(Status::NotNow) => Kept::Nowhere,
        Err(status) => return Err(error::refusal(format_args!("the request's state"), status)),
    };
    let mut state = match &kept {
        Kept::Bytes(bytes) => postcard::from_bytes(bytes).map_err(|error| failed(&error))?,
        Kept::Nothing | Kept::Nowhere => S::default(),
    };
    let result = hook(&mut state);
    let stored = match &kept {
        Kept::Bytes(bytes) => store(&state, Some(bytes)),
        Kept::Nothing => store(&state, None),
        Kept::Nowhere => Ok(()),
    };
    let value = result?;
    stored.map(|()| value)
}

/// The same for a state of plain data, which is copied as it lies in memory.
#[inline]
pub(super) fn with_plain<S, T>(hook: impl FnOnce(&mut S) -> Result<T>) -> Result<T>
where
    S: Default + Pod,
{
    let mut state = S::default();
    let (is_known, has_place) = match host::state_get(bytemuck::bytes_of_mut(&mut state)) {
        len if usize::try_from(len) == Ok(size_of::<S>()) => (true, true),
        status if status == Status::NotFound as i32 => (false, true),
        status if status == Status::NotNow as i32 => (false, false),
        other => return Err(no_plain_state::<S>(other)),
    };
    let before = state;
    let result = hook(&mut state);
    let bytes = bytemuck::bytes_of(&state);
    let is_same = is_known && bytes == bytemuck::bytes_of(&before);
    let stored = match has_place && !is_same {
        true => set(bytes),
        false => Ok(()),
    };
    let value = result?;
    stored.map(|()| value)
}

#[cold]
fn no_plain_state<S>(said: i32) -> Error {
    match usize::try_from(said) {
        Ok(len) => Error::msg(format_args!(
            "the request's state has {len} bytes, and its type {}",
            size_of::<S>()
        )),
        Err(_) => error::refusal(format_args!("the request's state"), buffer::status(said)),
    }
}

/// Has the host keep the state, where it is another than it was.
fn store<S: Serialize>(state: &S, before: Option<&[u8]>) -> Result<()> {
    let mut short = [0; SHORT_BYTES];
    match postcard::to_slice(state, &mut short) {
        Ok(bytes) => keep(bytes, before),
        Err(postcard::Error::SerializeBufferFull) => {
            let bytes = postcard::to_allocvec(state).map_err(|error| failed(&error))?;
            keep(&bytes, before)
        }
        Err(error) => Err(failed(&error)),
    }
}

fn keep(bytes: &[u8], before: Option<&[u8]>) -> Result<()> {
    if before == Some(bytes) {
        return Ok(());
    }
    set(bytes)
}

fn set(bytes: &[u8]) -> Result<()> {
    match host::state_set(bytes) {
        0 => Ok(()),
        refused => Err(error::refusal(
            format_args!("a state of {} bytes", bytes.len()),
            buffer::status(refused),
        )),
    }
}

#[cold]
fn failed(error: &postcard::Error) -> Error {
    Error::msg(format_args!("the request's state: {error}"))
}
