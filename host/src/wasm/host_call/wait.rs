//! Host calls that suspend the guest: bodies that must be there whole, calls out, delays.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use castling_abi::rules::{self, check};
use castling_abi::{HeaderMap, IMPORT_MODULE, LONGEST_DELAY_MS, Status, call, imports};
use http::Method;
use wasmtime::{AsContextMut, Caller, Linker, Result};

use super::header::{decode, hand_out_list};
use super::{DONE, refuse};
use crate::exchange::Section;
use crate::wasm::cpu;
use crate::wasm::guest::{Guest, bytes, hand_out, split};
use crate::wasm::io_request::{
    BodyRefused, Call, CallResponse, CallResult, Destination, Handoff, HostName, IoRequest,
    IoResult,
};
use crate::wasm::limit::Reached;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap_async(IMPORT_MODULE, imports::BODY_READ, |caller, (map, limit)| {
            Box::new(body_read(caller, map, limit))
        })?
        .func_wrap(IMPORT_MODULE, imports::BODY_GET, body_get)?
        .func_wrap_async(IMPORT_MODULE, imports::CALLS_SEND, |caller, (ptr, len)| {
            Box::new(calls_send(caller, ptr, len))
        })?
        .func_wrap(IMPORT_MODULE, imports::CALL_STATUS, call_status)?
        .func_wrap(IMPORT_MODULE, imports::CALL_ERROR, call_error)?
        .func_wrap(IMPORT_MODULE, imports::CALL_ERROR_KIND, call_error_kind)?
        .func_wrap(IMPORT_MODULE, imports::CALL_HEADERS, call_headers)?
        .func_wrap(IMPORT_MODULE, imports::CALL_BODY, call_body)?
        .func_wrap_async(IMPORT_MODULE, imports::DELAY, |caller, (milliseconds,)| {
            Box::new(delay(caller, milliseconds))
        })?;
    Ok(())
}

/// Has the flow do it. `None`: nobody does. The time is not the guest's, and neither are the ticks in it.
pub(super) async fn wait(caller: &mut Caller<'_, Guest>, request: IoRequest) -> Option<IoResult> {
    // Without a hook it is being configured, and no flow looks into the handoff.
    caller.data().hook?;
    cpu::stop(caller.data_mut());
    let result = Handoff::ask(caller, request).await;
    caller.data_mut().cpu.go_on_after_wait();
    caller.as_context_mut().set_epoch_deadline(1);
    result
}

async fn body_read(mut caller: Caller<'_, Guest>, map: u32, limit: u32) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    let Some(of) = body_of(map) else {
        return refuse(Status::BadArgument);
    };
    if !guest.is_at(rules::reads_body(of)) {
        return refuse(rules::BODY_READ.refused);
    }
    let asked_bytes = limit as usize;
    let limit_bytes = guest.body_limit_bytes.min(asked_bytes);
    match wait(&mut caller, IoRequest::Body { of, limit_bytes }).await {
        Some(IoResult::Body(Ok(body))) => {
            let len = i32::try_from(body.len()).unwrap_or(i32::MAX);
            caller.data_mut().results_mut().bodies[of as usize] = Some(body);
            Ok(len)
        }
        Some(IoResult::Body(Err(BodyRefused::TooLarge))) if asked_bytes <= limit_bytes => {
            refuse(Status::Limit)
        }
        Some(IoResult::Body(Err(BodyRefused::TooLarge))) => {
            refuse(caller.data_mut().limit(Reached::bytes("body", limit_bytes)))
        }
        _ => refuse(Status::NotNow),
    }
}

/// Trailers are of a body and have none.
fn body_of(map: u32) -> Option<HeaderMap> {
    HeaderMap::from_raw(map).filter(|map| *map != HeaderMap::Trailers)
}

fn body_get(mut caller: Caller<'_, Guest>, map: u32, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let Some(of) = body_of(map) else {
        return refuse(Status::BadArgument);
    };
    let held = guest.results.as_ref();
    match held.and_then(|held| held.bodies[of as usize].as_ref()) {
        Some(body) => hand_out(memory, out, capacity, body),
        None => refuse(Status::NotFound),
    }
}

async fn calls_send(mut caller: Caller<'_, Guest>, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let records = bytes(memory, ptr, len)?;
    if !guest.may(&rules::CALLS_SEND) {
        return refuse(rules::CALLS_SEND.refused);
    }
    let mut calls = Vec::new();
    for record in call::records(records) {
        if calls.len() == call::MAX_CALLS {
            return refuse(Status::Limit);
        }
        let Ok(record) = record else {
            return refuse(Status::BadArgument);
        };
        match parse(guest, &record) {
            Ok(call) => calls.push(call),
            Err(status) => return refuse(status),
        }
    }
    if let Some(held) = &mut guest.results {
        held.calls.clear();
    }
    match wait(&mut caller, IoRequest::Calls(calls)).await {
        Some(IoResult::Calls(results)) => {
            let count = i32::try_from(results.len()).unwrap_or(i32::MAX);
            caller.data_mut().results_mut().calls = results;
            Ok(count)
        }
        Some(IoResult::TooManyCalls) => {
            let guest = caller.data_mut();
            refuse(guest.limit(Reached::count("calls", guest.calls_limit)))
        }
        _ => refuse(Status::NotNow),
    }
}

/// The call of a record, as far as it is granted and within the plugin's limits.
pub(super) fn parse(guest: &mut Guest, record: &call::Record<'_>) -> Result<Call, Status> {
    let to = match record.upstream {
        call::OWN_ROUTES if guest.own_routes => Destination::OwnRoutes(Arc::clone(&guest.plugin)),
        named if named.contains(&b'/') => {
            let name = str::from_utf8(named).ok().and_then(HostName::parse);
            let name = name.ok_or(Status::BadArgument)?;
            match guest.may_call(&name) {
                true => Destination::Host(Arc::clone(&guest.plugin), name),
                false => return Err(Status::NotGranted),
            }
        }
        named => {
            let mut granted = guest.upstreams.iter();
            let upstream = granted.find(|name| name.as_bytes() == named);
            Destination::Upstream(upstream.map(Arc::clone).ok_or(Status::NotGranted)?)
        }
    };
    let method = check::is_method(record.method).then(|| Method::from_bytes(record.method).ok());
    let method = method.flatten();
    let target = check::is_call_target(record.target).then_some(record.target);
    let target = target.and_then(|target| str::from_utf8(target).ok());
    let (Some(method), Some(target)) = (method, target) else {
        return Err(Status::BadArgument);
    };
    let headers = decode(guest, record.headers, Section::RequestHead)?;
    if record.body.len() > guest.body_limit_bytes {
        return Err(guest.limit(Reached::bytes("body", guest.body_limit_bytes)));
    }
    if target.len() > guest.limits.header_bytes {
        return Err(guest.limit(Reached::bytes("header_bytes", guest.limits.header_bytes)));
    }
    Ok(Call {
        to,
        method,
        target: Bytes::copy_from_slice(target.as_bytes()),
        headers,
        body: Bytes::copy_from_slice(record.body),
        timeout: (record.timeout_ms > 0).then(|| Duration::from_millis(record.timeout_ms.into())),
        limit_bytes: guest.body_limit_bytes,
        calls_limit: guest.calls_limit,
    })
}

impl Guest {
    /// Whether the plugin is granted the host. What the name stands for is looked at when it is called.
    pub(super) fn may_call(&self, name: &HostName) -> bool {
        let mut granted = self.hosts.iter();
        granted.any(|pattern| pattern.matches(&name.host, name.port))
    }
}

fn call_status(mut caller: Caller<'_, Guest>, index: u32) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    match response(guest, index) {
        Some(response) => Ok(i32::from(response.status.as_u16())),
        None => refuse(Status::NotFound),
    }
}

fn call_error(mut caller: Caller<'_, Guest>, index: u32, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    match call_result(guest, index) {
        Some(Err(failure)) => hand_out(memory, out, capacity, failure.said.as_bytes()),
        Some(Ok(_)) | None => refuse(Status::NotFound),
    }
}

fn call_error_kind(mut caller: Caller<'_, Guest>, index: u32) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    match call_result(guest, index) {
        Some(Err(failure)) => Ok(failure.kind as i32),
        Some(Ok(_)) | None => refuse(Status::NotFound),
    }
}

fn call_headers(mut caller: Caller<'_, Guest>, index: u32, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let Some(response) = response(guest, index) else {
        return refuse(Status::NotFound);
    };
    hand_out_list(memory, out, capacity, response.headers.iter())
}

fn call_body(mut caller: Caller<'_, Guest>, index: u32, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    match response(guest, index) {
        Some(response) => hand_out(memory, out, capacity, &response.body),
        None => refuse(Status::NotFound),
    }
}

fn response(guest: &Guest, index: u32) -> Option<&CallResponse> {
    call_result(guest, index)?.as_ref().ok()
}

fn call_result(guest: &Guest, index: u32) -> Option<&CallResult> {
    guest.results.as_ref()?.calls.get(index as usize)
}

async fn delay(mut caller: Caller<'_, Guest>, milliseconds: u32) -> Result<i32> {
    let (_, guest) = split(&mut caller)?;
    if !guest.may(&rules::DELAY) {
        return refuse(rules::DELAY.refused);
    }
    if milliseconds > LONGEST_DELAY_MS {
        return refuse(Status::BadArgument);
    }
    let time = Duration::from_millis(milliseconds.into());
    match wait(&mut caller, IoRequest::Delay(time)).await {
        Some(IoResult::Delayed) => Ok(DONE),
        _ => refuse(Status::NotNow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_would_split_the_request_line_is_refused() {
        for target in ["", "x", "/a b", "/a\r\n", "/a#b", "http://h/"] {
            assert!(!check::is_call_target(target.as_bytes()), "{target:?}");
        }
        assert!(check::is_call_target(b"/a?b=/?c"));
    }
}
