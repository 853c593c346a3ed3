//! Uses up what a plugin may have: `x-do` says what of, `x-times` how often, `x-bytes` how large each.

use std::hint::black_box;
use std::time::Duration;

use castling_sdk::prelude::*;

use crate::wish;

/// Does the part of `access`; returns the answer where there is one.
pub(crate) fn in_access(request: &mut Request) -> Result<Verdict> {
    let (times, bytes) = (number(request, "x-times"), number(request, "x-bytes"));
    let value = vec![b'v'; bytes];
    match wish(request, "x-do").as_str() {
        "host-calls" => {
            for _ in 0..times {
                black_box(request.header("x-nothing"));
            }
        }
        "clock-calls" => {
            for _ in 0..times {
                black_box(clock::monotonic());
            }
        }
        "log" => (0..times).for_each(|idx| log::info!("chatter {idx}")),
        "log-header" => log::info!("{}", wish(request, "x-line")),
        "add-headers" => (0..times).for_each(|_| request.add_header("x-more", &value)),
        "set-header-often" => (0..times).for_each(|_| request.set_header("x-one", &value)),
        "add-and-remove" => (0..times).for_each(|_| {
            request.add_header("x-more", &value);
            request.remove_header("x-more");
        }),
        "set-path" => request.set_path(format!("/{}", "p".repeat(bytes))),
        "set-variables" => {
            (0..times).for_each(|idx| request.set_var(format!("v{idx}"), &value));
        }
        "read-body" => drop(request.read_body(usize::MAX)?),
        "answer" => {
            let answer = (0..times).fold(Response::status(200), |answer, _| {
                answer.header("x-more", "v")
            });
            return Ok(answer.body(value).into());
        }
        "recurse-without-memory" => {
            black_box(recurses_without_memory(1, number(request, "x-times") as u64));
        }
        "wait" => delay(Duration::from_millis(times as u64))?,
        _ => {}
    }
    Ok(Verdict::Continue)
}

/// Does the part of `response_headers`.
pub(crate) fn in_response_headers(request: &Request, reply: &mut Reply) {
    if wish(request, "x-do") == "add-reply-headers" {
        (0..number(request, "x-times")).for_each(|_| reply.add_header("x-more", "v"));
    }
}

/// Does the part of `response_body`.
pub(crate) fn in_response_body(request: &Request, chunk: &mut Chunk) {
    if wish(request, "x-do") == "grow-chunk" {
        chunk.replace(vec![b'v'; number(request, "x-bytes")]);
    }
}

pub(crate) fn number(request: &Request, header: &str) -> usize {
    wish(request, header).parse().unwrap_or_default()
}

/// Frames of this function take nothing of linear memory, so it is the host that must end it.
#[inline(never)]
fn recurses_without_memory(depth: u64, end: u64) -> u64 {
    if depth == end {
        return depth;
    }
    recurses_without_memory(depth + 1, end).rotate_left(7) ^ depth
}
