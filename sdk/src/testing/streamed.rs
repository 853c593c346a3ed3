//! Calls whose bodies stream, answered by what a test has scripted for calls: when the request's body has ended.

use castling_abi::rules::{self, Rule};
use castling_abi::{LENGTH_UNKNOWN, MOST_STREAMED_CALLS, Status, call};

use super::calls::{CallFailure, answered, parse};
use super::hook::may;
use super::host::hand_out;
use super::world::with_facts;
use crate::http;

/// Calls of one exchange, by number.
#[derive(Default)]
pub(super) struct StreamedCalls {
    open: Vec<Option<StreamedCall>>,
    failure: Option<CallFailure>,
}

struct StreamedCall {
    upstream: String,
    request: http::Request,
    /// Bytes that are to be written yet, where the length is known.
    left: Option<u64>,
    /// Header list and the body's rest, once the request has ended.
    response: Option<(Vec<u8>, Vec<u8>)>,
}

pub(crate) fn call_open(record: &[u8], length: i64) -> i32 {
    if !may(&rules::CALL_OPEN) {
        return rules::CALL_OPEN.refused as i32;
    }
    let mut records = call::records(record);
    let (Some(Ok(record)), None) = (records.next(), records.next()) else {
        return Status::BadArgument as i32;
    };
    let left = match u64::try_from(length) {
        Ok(left) => Some(left),
        Err(_) if length == LENGTH_UNKNOWN => None,
        Err(_) => return Status::BadArgument as i32,
    };
    if record.upstream == call::OWN_ROUTES || !record.body.is_empty() && left != Some(0) {
        return Status::BadArgument as i32;
    }
    let (upstream, request) = match parse(record) {
        Ok(call) => call,
        Err(status) => return status as i32,
    };
    with_facts(|facts| {
        let open = &mut facts.streamed_calls.open;
        if open.iter().flatten().count() >= MOST_STREAMED_CALLS {
            return Status::Full as i32;
        }
        if !facts.count_calls(1) {
            return Status::Limit as i32;
        }
        let open = &mut facts.streamed_calls.open;
        open.push(Some(StreamedCall {
            upstream,
            request,
            left,
            response: None,
        }));
        i32::try_from(open.len() - 1).unwrap_or(i32::MAX)
    })
}

pub(crate) fn call_write(call: u32, bytes: &[u8]) -> i32 {
    with_open(&rules::CALL_WRITE, call, |open| {
        let left = open.left.map(|left| left.checked_sub(bytes.len() as u64));
        if open.response.is_some() || left == Some(None) {
            return Status::BadArgument as i32;
        }
        open.left = left.flatten();
        open.request.push(bytes);
        0
    })
}

pub(crate) fn call_finish(call: u32) -> i32 {
    if !may(&rules::CALL_FINISH) {
        return rules::CALL_FINISH.refused as i32;
    }
    let at = call as usize;
    let taken = with_facts(|facts| facts.streamed_calls.open.get_mut(at).and_then(Option::take));
    let Some(mut open) = taken else {
        return Status::BadArgument as i32;
    };
    // A body that was there whole has nothing left either.
    if open.response.is_some() || open.left.is_some_and(|left| left > 0) {
        return Status::BadArgument as i32;
    }
    let answer = answered(open.upstream.clone(), open.request.clone());
    with_facts(|facts| match answer {
        Some(Ok((status, headers, body))) => {
            open.response = Some((headers, body));
            facts.streamed_calls.open[at] = Some(open);
            i32::from(status)
        }
        Some(Err(failure)) => {
            facts.streamed_calls.failure = Some(failure);
            Status::NotFound as i32
        }
        None => Status::NotGranted as i32,
    })
}

pub(crate) fn call_reply_headers(call: u32, out: &mut [u8]) -> i32 {
    with_open(&rules::CALL_REPLY_HEADERS, call, |open| {
        match &open.response {
            Some((headers, _)) => hand_out(headers, out),
            None => Status::NotFound as i32,
        }
    })
}

pub(crate) fn call_read(call: u32, out: &mut [u8]) -> i32 {
    with_open(&rules::CALL_READ, call, |open| match &mut open.response {
        Some((_, body)) => {
            let len = body.len().min(out.len());
            out[..len].copy_from_slice(&body[..len]);
            body.drain(..len);
            i32::try_from(len).unwrap_or(i32::MAX)
        }
        None => Status::BadArgument as i32,
    })
}

pub(crate) fn call_close(call: u32) -> i32 {
    if !may(&rules::CALL_CLOSE) {
        return rules::CALL_CLOSE.refused as i32;
    }
    with_facts(|facts| {
        let mut open = facts.streamed_calls.open.iter_mut();
        match open.nth(call as usize).and_then(Option::take) {
            Some(_) => 0,
            None => Status::BadArgument as i32,
        }
    })
}

pub(crate) fn call_failure(out: &mut [u8]) -> i32 {
    with_facts(|facts| match &facts.streamed_calls.failure {
        Some((_, reason)) => hand_out(reason.as_bytes(), out),
        None => Status::NotFound as i32,
    })
}

pub(crate) fn call_failure_kind() -> i32 {
    with_facts(|facts| match &facts.streamed_calls.failure {
        Some((kind, _)) => *kind as i32,
        None => Status::NotFound as i32,
    })
}

fn with_open(rule: &Rule, call: u32, use_it: impl FnOnce(&mut StreamedCall) -> i32) -> i32 {
    if !may(rule) {
        return rule.refused as i32;
    }
    with_facts(|facts| {
        let mut open = facts.streamed_calls.open.iter_mut();
        match open.nth(call as usize).and_then(Option::as_mut) {
            Some(open) => use_it(open),
            None => Status::BadArgument as i32,
        }
    })
}
