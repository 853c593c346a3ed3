//! Invented answers to what a plugin waits for.

use std::collections::VecDeque;

use bytes::Bytes;
use castling_abi::ErrorKind;
use http::{HeaderName, StatusCode};

use crate::error::ClientError;
use crate::exchange::{Exchange, Stage};
use crate::message::{Headers, ReplyHead};
use crate::wasm::{
    BodyRefused, CallFailure, CallResponse, CallResult, Flown, HostIo, IoRequest, IoResult,
    Performing, PinnedInstances, RawDone, RawWork, StreamedDone, StreamedWork,
};

/// Results by script: a byte for each request, and one for each call out.
#[derive(Default)]
pub(super) struct ScriptedIo {
    script: VecDeque<u8>,
    /// Byte of all that come when the script has ended; `None`: nothing can be waited for then.
    rest: Option<u8>,
}

impl ScriptedIo {
    pub(super) fn new(script: &[u8]) -> Self {
        Self {
            script: script.iter().copied().collect(),
            rest: None,
        }
    }

    pub(super) fn repeated(byte: u8) -> Self {
        Self {
            script: VecDeque::new(),
            rest: Some(byte),
        }
    }

    /// Reads a byte whose lowest bits choose the case, the others the length of the body.
    fn response(&mut self) -> CallResult {
        let byte = self.script.pop_front().or(self.rest).unwrap_or_default();
        if byte & 3 == 0 {
            return Err(CallFailure::new(ErrorKind::Connect, "no peer answered"));
        }
        let mut headers = Headers::new();
        for idx in 0..byte & 3 {
            let name = HeaderName::from_static("x-origin");
            headers.add(&name, idx.to_string().as_bytes());
        }
        Ok(CallResponse {
            status: StatusCode::OK,
            headers,
            body: body(byte),
        })
    }
}

impl HostIo for ScriptedIo {
    fn perform<'a>(
        &'a mut self,
        request: IoRequest,
        exchange: &'a mut Box<Exchange>,
        _pinned: &'a mut PinnedInstances,
    ) -> Performing<'a> {
        Box::pin(async move {
            let Some(byte) = self.script.pop_front().or(self.rest) else {
                return Ok(IoResult::NotNow);
            };
            if byte & 7 == 7 {
                return Err(ClientError::Gone.into());
            }
            if byte & 7 == 6 {
                // The guest is suspended for a round of the event loop.
                tokio::task::yield_now().await;
            }
            Ok(match request {
                IoRequest::Body { .. } if byte & 7 == 0 => {
                    IoResult::Body(Err(BodyRefused::TooLarge))
                }
                IoRequest::Body { .. } if byte & 7 == 1 => IoResult::Body(Err(BodyRefused::NotNow)),
                IoRequest::Body { limit_bytes, .. } => {
                    let body = body(byte);
                    IoResult::Body(match body.len() <= limit_bytes {
                        true => Ok(body),
                        false => Err(BodyRefused::TooLarge),
                    })
                }
                IoRequest::Peek { .. } if byte & 7 == 1 => IoResult::NotNow,
                IoRequest::Peek { bytes } => {
                    let body = body(byte);
                    let is_whole = body.len() <= bytes;
                    let bytes = body.slice(..body.len().min(bytes));
                    IoResult::Peeked { bytes, is_whole }
                }
                IoRequest::Calls(_) if byte & 7 == 0 => IoResult::TooManyCalls,
                IoRequest::Calls(calls) => {
                    IoResult::Calls(calls.iter().map(|_| self.response()).collect())
                }
                IoRequest::Delay(_) => IoResult::Delayed,
                IoRequest::Flight(_) => IoResult::Flown(Ok(flown(byte))),
                IoRequest::Raw(_, work) => IoResult::Raw(raw(byte, *work)),
                IoRequest::Streamed(_, work) => IoResult::Streamed(streamed(byte, *work)),
                IoRequest::Password(..) => IoResult::Password(Ok("$hash".to_owned())),
                IoRequest::Begin(begun) => {
                    let ReplyHead { status, headers } = begun.head;
                    exchange.replace_reply(status, headers);
                    exchange.enter(Stage::Body);
                    IoResult::Written {
                        is_wanted: byte & 7 != 0,
                    }
                }
                IoRequest::Write(_) if byte & 7 == 1 => IoResult::BeyondLength,
                IoRequest::Write(_) | IoRequest::Emit(_) => IoResult::Written {
                    is_wanted: byte & 7 != 0,
                },
                IoRequest::Variable(_) => IoResult::Computed,
            })
        })
    }
}

/// End of a flight. There is nobody else who would fetch the value.
fn flown(byte: u8) -> Flown {
    match byte & 7 {
        0 => Flown::TimedOut,
        1 => Flown::Value,
        _ => Flown::Fetch,
    }
}

/// Result of work on a connection.
fn raw(byte: u8, work: RawWork) -> RawDone {
    match work {
        _ if byte & 8 == 0 => RawDone::Failed("refused".to_owned()),
        RawWork::Connect { .. } => RawDone::Connected(0),
        RawWork::Read { most, .. } => {
            let mut read = body(byte);
            read.truncate(most);
            RawDone::Read(read)
        }
        RawWork::Write { .. } => RawDone::Written,
        RawWork::Close { .. } => RawDone::NoSuch,
    }
}

/// Result of work on a streamed call.
fn streamed(byte: u8, work: StreamedWork) -> StreamedDone {
    match work {
        _ if byte & 8 == 0 => StreamedDone::Failed(CallFailure::new(ErrorKind::Refused, "refused")),
        StreamedWork::Open { .. } => StreamedDone::Opened(0),
        StreamedWork::Write { .. } if byte & 7 == 0 => StreamedDone::Unwanted,
        StreamedWork::Write { .. } => StreamedDone::Taken,
        StreamedWork::Finish { .. } => StreamedDone::Head(ReplyHead::default()),
        StreamedWork::Read { most, .. } => {
            let mut read = body(byte);
            read.truncate(most);
            StreamedDone::Read(read)
        }
        StreamedWork::Close { .. } => StreamedDone::NoSuch,
    }
}

/// Body of up to 32 KiB.
fn body(byte: u8) -> Bytes {
    Bytes::from(vec![b'b'; (1 << (byte >> 4)) - 1])
}
