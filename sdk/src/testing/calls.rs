//! Calls out, answered by what a test has scripted.

use std::collections::BTreeMap;

use castling_abi::rules::host::HostName;
use castling_abi::rules::{self, check};
use castling_abi::{ErrorKind, Status, call};

use super::hook::{check_fields, may};
use super::host::hand_out;
use super::hosts;
use super::world::{with_facts, with_world};
use crate::{Response, http};

/// The calls of one exchange.
#[derive(Default)]
pub(super) struct Calls {
    /// By upstream; those that are there are granted.
    pub(super) scripts: BTreeMap<String, Script>,
    /// Upstream and request.
    pub(super) sent: Vec<(String, http::Request)>,
    /// Results of the last `calls_send`: status, header list and body, or why there is none.
    results: Vec<CallResult>,
}

impl Calls {
    /// Forgets the results of a hook's last calls.
    pub(super) fn forget(&mut self) {
        self.results.clear();
    }
}

type Script = Box<dyn FnMut(&http::Request) -> Answer>;

pub(super) type CallResult = Result<(u16, Vec<u8>, Vec<u8>), CallFailure>;

/// A response, or why there is none.
pub(super) type Answer = Result<Response, CallFailure>;

/// Reason why a call has no response, and its kind.
pub(super) type CallFailure = (ErrorKind, String);

pub(crate) fn calls_send(records: &[u8]) -> i32 {
    if !may(&rules::CALLS_SEND) {
        return rules::CALLS_SEND.refused as i32;
    }
    let mut calls = Vec::new();
    for record in call::records(records) {
        if calls.len() == call::MAX_CALLS {
            return Status::Limit as i32;
        }
        match record.map_err(|()| Status::BadArgument).and_then(parse) {
            Ok(call) => calls.push(call),
            Err(status) => return status as i32,
        }
    }
    with_facts(|facts| facts.calls.results.clear());
    let count = calls.len();
    if !with_facts(|facts| facts.count_calls(count)) {
        return Status::Limit as i32;
    }
    for (upstream, request) in calls {
        answer(upstream, request);
    }
    with_facts(|facts| i32::try_from(facts.calls.results.len()).unwrap_or(i32::MAX))
}

/// Upstream and request of a call that may be sent.
pub(super) fn parse(record: call::Record<'_>) -> Result<(String, http::Request), Status> {
    let upstream = String::from_utf8_lossy(record.upstream).into_owned();
    if let Some(refused) = hosts::refusal(&upstream) {
        return Err(refused);
    }
    let host = HostName::parse(&upstream);
    let is_known = with_facts(|facts| facts.calls.scripts.contains_key(&upstream));
    if !is_known || host.is_some_and(|host| !hosts::is_granted(&host)) {
        return Err(Status::NotGranted);
    }
    let (body_limit, target_limit) =
        with_world(|world| (world.limits.body_bytes, world.limits.head.bytes));
    if !check::is_method(record.method) || !check::is_call_target(record.target) {
        return Err(Status::BadArgument);
    }
    check_fields(record.headers)?;
    if record.body.len() > body_limit || record.target.len() > target_limit {
        return Err(Status::Limit);
    }
    let request = http::Request::read(&record).ok_or(Status::BadArgument)?;
    Ok((upstream, request))
}

fn answer(upstream: String, request: http::Request) {
    if let Some(result) = answered(upstream, request) {
        with_facts(|facts| facts.calls.results.push(result));
    }
}

/// Answer of the script to the request, which is noted. `None`: there is no such upstream.
pub(super) fn answered(upstream: String, request: http::Request) -> Option<CallResult> {
    // Taken out meanwhile: it is the test's own code, which may look at the exchange.
    let mut script = with_facts(|facts| facts.calls.scripts.remove(&upstream))?;
    let answer = script(&request);
    let result = answer.and_then(|response| {
        response
            .into_parts()
            .map_err(|error| (ErrorKind::Broken, error.to_string()))
    });
    with_facts(|facts| {
        facts.calls.scripts.insert(upstream.clone(), script);
        facts.calls.sent.push((upstream, request));
    });
    Some(result)
}

pub(crate) fn call_status(index: u32) -> i32 {
    with_result(index, |result| match result {
        Ok((status, _, _)) => i32::from(*status),
        Err(_) => Status::NotFound as i32,
    })
}

pub(crate) fn call_error(index: u32, out: &mut [u8]) -> i32 {
    with_result(index, |result| match result {
        Ok(_) => Status::NotFound as i32,
        Err((_, reason)) => hand_out(reason.as_bytes(), out),
    })
}

pub(crate) fn call_error_kind(index: u32) -> i32 {
    with_result(index, |result| match result {
        Ok(_) => Status::NotFound as i32,
        Err((kind, _)) => *kind as i32,
    })
}

pub(crate) fn call_headers(index: u32, out: &mut [u8]) -> i32 {
    with_result(index, |result| match result {
        Ok((_, headers, _)) => hand_out(headers, out),
        Err(_) => Status::NotFound as i32,
    })
}

pub(crate) fn call_body(index: u32, out: &mut [u8]) -> i32 {
    with_result(index, |result| match result {
        Ok((_, _, body)) => hand_out(body, out),
        Err(_) => Status::NotFound as i32,
    })
}

fn with_result(index: u32, read: impl FnOnce(&CallResult) -> i32) -> i32 {
    with_facts(|facts| {
        let result = usize::try_from(index)
            .ok()
            .and_then(|index| facts.calls.results.get(index));
        result.map_or(Status::NotFound as i32, read)
    })
}
