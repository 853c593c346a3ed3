//! Filters of a response's head, and what its body's filters change in it.

use bytes::Bytes;
use castling_abi::Hook;
use http::StatusCode;

use crate::error::Error;
use crate::exchange::{Answer, Exchange};
use crate::message::{FieldName, Headers};
use crate::phase::{Next, Progress, Step};
use crate::wasm::{HookCall, HostIo, PinnedInstances};

/// The hook of filters of heads.
pub const HEAD: HookCall = HookCall::plain(Hook::ResponseHeaders);

/// Runs the head through its filters, after [`Step::go`]. An answer of one of them takes the place of the response, and the next
/// ones see that; the last such body is returned.
pub async fn run_head(
    mut steps: &[Step],
    mut progress: Progress,
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
    io: &mut dyn HostIo,
) -> Result<Option<Bytes>, Error> {
    let mut replaced = None;
    loop {
        let (run, next) = Step::run_rest(steps, progress, HEAD, exchange, pinned, io).await?;
        if let Next::Answer(Answer {
            status,
            headers,
            body,
        }) = next
        {
            exchange.replace_reply(status, headers);
            io.replace_response(&body);
            replaced = Some(body);
        }
        steps = &steps[run..];
        // An answer of the last one leaves none to run.
        if steps.is_empty() {
            return Ok(replaced);
        }
        progress = Step::go(steps, HEAD, exchange).finish().await;
    }
}

/// Has the head of a response say what is true of a body that filters may change, and the same for GET, HEAD, a part and
/// 304 (RFC 9110 §15.4.5): no length, no digests, no ranges and no date that parts could be asked for by (nginx
/// `sub_filter_last_modified off`), and a weak validator (RFC 9110 §8.8.1).
pub fn settle_head(exchange: &mut Exchange) {
    let (request, reply) = exchange.heads_mut();
    let (pending, headers) = (&request.headers, &mut reply.headers);
    let tag = headers.find_value(b"etag").map(<[u8]>::to_vec);
    if reply.status == StatusCode::NOT_MODIFIED
        && tag.as_ref().is_some_and(|tag| has_asked_for(pending, tag))
    {
        // The client has something else than the filters have made.
        return;
    }
    headers.retain(|name, _| !UNTRUE_OF_CHANGED.contains(&name));
    if let Some(tag) = tag
        && !tag.starts_with(b"W/")
        && let Some(name) = FieldName::new(b"etag")
    {
        headers.set(name, &[b"W/", &tag[..]].concat());
    }
}

/// Whether `If-None-Match` has the tag as it is, strong if it is strong.
fn has_asked_for(pending: &Headers, tag: &[u8]) -> bool {
    let Some(name) = FieldName::new(b"if-none-match") else {
        return false;
    };
    let mut tags = pending
        .get_all(name)
        .flat_map(|list| list.split(|b| *b == b','));
    tags.any(|pending| pending.trim_ascii() == tag)
}

/// Fields that are about the bytes as the peer has them, in lower case.
const UNTRUE_OF_CHANGED: [&[u8]; 7] = [
    b"content-length",
    b"accept-ranges",
    b"last-modified",
    b"content-md5",
    b"content-digest",
    b"repr-digest",
    b"digest",
];
