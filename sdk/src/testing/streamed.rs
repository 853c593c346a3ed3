//! Calls whose bodies stream, answered by what a test has scripted for calls: when the request's body has ended.

use castling_abi::rules::{self, Rule, limits::TCP_READ_BYTES};
use castling_abi::{ErrorKind, LENGTH_UNKNOWN, MOST_STREAMED_CALLS, Status, call};

use super::calls::{CallFailure, answered, parse};
use super::hook::may;
use super::host::hand_out;
use super::trace::begin_piece;
use super::world::{with_facts, with_world};
use crate::http;

/// Calls of one exchange, by number.
#[derive(Default)]
pub(super) struct StreamedCalls {
    open: Vec<Option<StreamedCall>>,
    failure: Option<CallFailure>,
    /// Header list of the response that the hook has come to last, and its call.
    head: Option<(u32, Vec<u8>)>,
}

impl StreamedCalls {
    /// Forgets what is held for a hook until it returns.
    pub(super) fn forget(&mut self) {
        self.failure = None;
        self.head = None;
    }

    /// The call with this number, if it is the plugin's.
    fn find(&mut self, call: u32) -> Option<&mut StreamedCall> {
        let plugin = with_world(|world| world.plugin);
        let open = self.open.get_mut(call as usize)?.as_mut();
        open.filter(|open| open.plugin == plugin)
    }

    /// Ends a call that has failed.
    fn fail(&mut self, call: u32, failure: CallFailure) -> i32 {
        self.open[call as usize] = None;
        self.failure = Some(failure);
        Status::NotFound as i32
    }
}

struct StreamedCall {
    /// The plugin whose it is.
    plugin: usize,
    upstream: String,
    request: http::Request,
    /// Bytes that are to be written yet, where the length is known.
    left: Option<u64>,
    /// More of the request's body may be written.
    is_writable: bool,
    /// Rest of the response's body, once the request has ended.
    response: Option<Vec<u8>>,
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
    let plugin = with_world(|world| world.plugin);
    with_facts(|facts| {
        let open = &mut facts.streamed_calls.open;
        if open.iter().flatten().count() >= MOST_STREAMED_CALLS {
            return Status::Full as i32;
        }
        if !facts.count_calls(1) {
            return Status::Limit as i32;
        }
        let open = &mut facts.streamed_calls.open;
        let opened = Some(StreamedCall {
            plugin,
            upstream,
            request,
            left,
            is_writable: left != Some(0),
            response: None,
        });
        let free = open.iter().position(Option::is_none);
        let at = free.unwrap_or(open.len());
        match free {
            Some(at) => open[at] = opened,
            None => open.push(opened),
        }
        i32::try_from(at).unwrap_or(i32::MAX)
    })
}

pub(crate) fn call_write(call: u32, bytes: &[u8]) -> i32 {
    if may(&rules::CALL_WRITE) && bytes.len() > with_world(|world| world.limits.body_bytes) {
        return Status::Limit as i32;
    }
    with_open(&rules::CALL_WRITE, call, |open| {
        let left = open.left.map(|left| left.checked_sub(bytes.len() as u64));
        if !open.is_writable || left == Some(None) {
            return Status::BadArgument as i32;
        }
        open.left = left.flatten();
        open.request.push(bytes);
        if !bytes.is_empty() {
            begin_piece();
        }
        0
    })
}

pub(crate) fn call_finish(call: u32) -> i32 {
    let mut sent = None;
    let begun = with_open(&rules::CALL_FINISH, call, |open| {
        if open.response.is_some() {
            return Status::BadArgument as i32;
        }
        let is_short = open.is_writable && open.left.is_some_and(|left| left > 0);
        if !is_short {
            sent = Some((open.upstream.clone(), open.request.clone()));
        }
        0
    });
    let Some((upstream, request)) = sent else {
        return match begun {
            0 => {
                let said = "its body has ended before the length that it was opened with";
                let failure = (ErrorKind::BadArgument, said.to_owned());
                with_facts(|facts| facts.streamed_calls.fail(call, failure))
            }
            refused => refused,
        };
    };
    let answer = answered(upstream, request);
    with_facts(|facts| match answer {
        Some(Ok((status, headers, body))) => {
            facts.streamed_calls.head = Some((call, headers));
            if let Some(open) = facts.streamed_calls.find(call) {
                open.is_writable = false;
                open.response = Some(body);
            }
            i32::from(status)
        }
        Some(Err(failure)) => facts.streamed_calls.fail(call, failure),
        None => Status::NotGranted as i32,
    })
}

pub(crate) fn call_reply_headers(call: u32, out: &mut [u8]) -> i32 {
    with_facts(|facts| match &facts.streamed_calls.head {
        Some((of, headers)) if *of == call => hand_out(headers, out),
        Some(_) | None => Status::NotFound as i32,
    })
}

pub(crate) fn call_read(call: u32, out: &mut [u8]) -> i32 {
    with_open(&rules::CALL_READ, call, |open| match &mut open.response {
        Some(body) if !out.is_empty() => {
            let len = body.len().min(out.len()).min(TCP_READ_BYTES);
            out[..len].copy_from_slice(&body[..len]);
            body.drain(..len);
            if len > 0 {
                begin_piece();
            }
            i32::try_from(len).unwrap_or(i32::MAX)
        }
        Some(_) | None => Status::BadArgument as i32,
    })
}

pub(crate) fn call_close(call: u32) -> i32 {
    let found = with_open(&rules::CALL_CLOSE, call, |_| 0);
    if found == 0 {
        with_facts(|facts| facts.streamed_calls.open[call as usize] = None);
    }
    found
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
    with_facts(|facts| match facts.streamed_calls.find(call) {
        Some(open) => use_it(open),
        None => Status::BadArgument as i32,
    })
}
